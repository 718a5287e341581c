"""README's figures are those of the baselines in reports/evidence/.

After new baselines were put there (`doit baseline:cold`, `:warm`, `:full`, then move their three files), write the
section anew with `python -m tests.unit.test_evidence`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pipeline.core.baseline import MODES
from pipeline.core.baseline_view import number, render_csv, render_markdown
from pipeline.core.report import markdown_table

ROOT = Path(__file__).parents[2]
EVIDENCE = ROOT / "reports/evidence"
SECTION = re.compile(r"(?<=<!-- figures -->\n).*?(?=<!-- end of figures -->)", re.S)
QUOTED = (
    ("cold", "cold", "deploy", "total", "from nothing: empty cache, nothing built, board erased"),
    ("warm", "warm", "deploy", "total", "nothing changed"),
    ("warm", "warm", "flash", "verify", "of which: the board is asked"),
    ("full", "edit", "edit", "comment", "a comment edited"),
    ("full", "edit", "edit", "header", "a header edited that most sources include"),
    ("full", "edit", "edit", "real", "a change of the image edited"),
)


def newest() -> dict[str, Any]:
    """Mode -> its newest baseline."""
    found = [json.loads(path.read_text()) for path in sorted(EVIDENCE.glob("baseline-*.json"))]
    return {made["mode"]: made for made in found}


def section() -> str:
    """What README says between its two marks."""
    made = newest()
    cells = []
    for mode, series, category, step, what in QUOTED:
        row = next(
            row
            for row in made[mode]["summary"]
            if (row["series"], row["category"], row["step"]) == (series, category, step)
        )
        figures = (number(row["median_ms"]), number(row["p90_ms"]), str(row["n"]))
        cells.append((what, *figures, f"[{mode}](reports/evidence/{made[mode]['id']}.md)"))
    machine = made["warm"]["machine"]
    head = ("until the device runs this build", "median ms", "p90 ms", "runs", "baseline")
    intro = f"Measured on {machine['cores']} cores of {machine['cpu']}, virtual ESP32-C3 in the same process:"
    return f"\n{intro}\n\n{markdown_table(head, cells)}\n\n"


def test_readme_quotes_the_evidence() -> None:
    quoted = SECTION.search((ROOT / "README.md").read_text(encoding="utf-8"))
    assert quoted is not None
    assert quoted[0] == section()


def test_the_evidence_is_complete_and_its_renderings_agree() -> None:
    made = newest()
    assert set(made) == set(MODES)
    for baseline in made.values():
        assert baseline["outcome"] == "ok"
        stem = EVIDENCE / baseline["id"]
        assert stem.with_suffix(".csv").read_text() == render_csv(baseline)
        assert stem.with_suffix(".md").read_text() == render_markdown(baseline)


if __name__ == "__main__":
    page = ROOT / "README.md"
    page.write_text(SECTION.sub(lambda _: section(), page.read_text(encoding="utf-8")), encoding="utf-8")
