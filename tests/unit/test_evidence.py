"""The figures of README and docs/editors.md are those in reports/evidence/: baselines, benchmarks, a loop and a gate.

After new ones were put there (reports/evidence/README.md says how), write the pages' sections anew with
`python -m tests.unit.test_evidence`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pipeline.measure.baseline.rows import MODES
from pipeline.measure.baseline.view import number, render_csv, render_markdown
from pipeline.measure.bench import view
from pipeline.measure.bench.suites import SUITES
from pipeline.measure.loop.records import CSV_HEADER
from pipeline.report.markdown import markdown_table

ROOT = Path(__file__).parents[2]
EVIDENCE = ROOT / "reports/evidence"
SECTION = re.compile(r"(?<=<!-- figures -->\n).*?(?=<!-- end of figures -->)", re.S)
WATCH = re.compile(r"(?<=<!-- watch -->\n).*?(?=<!-- end of watch -->)", re.S)
PEERS = re.compile(r"(?<=<!-- peers -->\n).*?(?=<!-- end of peers -->)", re.S)
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


ASKED = "the board is asked, and boots again"
SLOWLY = "the same, of a chip whose ROM takes 5.7 s for the MD5 of a megabyte"
CHANGED = "one string of 1 MB changed: proof and write"
SHIFTED = "seven eighths of 1 MB moved: proof and write"
DIFF_WITH = "esptool write-flash --diff-with"

BESIDE = (
    ("verify and reset, 921600 baud, MD5 0.4 s/MB", "esptool --no-stub verify-flash", ASKED, "UART, 921600 baud"),
    ("verify and reset, 115200 baud, MD5 0.4 s/MB", "esptool --no-stub verify-flash", ASKED, "UART, 115200 baud"),
    ("verify and reset, 921600 baud, MD5 5.7 s/MB", "esptool --no-stub verify-flash", SLOWLY, "UART, 921600 baud"),
    ("verify and reset, USB-Serial/JTAG", "esptool --no-stub verify-flash", ASKED, "USB-Serial/JTAG"),
    ("1 MB, same-length string, 921600 baud, proof and write", DIFF_WITH, CHANGED, "UART, 921600 baud"),
    ("1 MB, same-length string, USB-Serial/JTAG, proof and write", DIFF_WITH, CHANGED, "USB-Serial/JTAG"),
    ("1 MB, code shifted from 1/8 on, 921600 baud, proof and write", DIFF_WITH, SHIFTED, "UART, 921600 baud"),
    ("warm no-op, 10000 units, hotplate", "ninja", "nothing to do in 10,000 sources, `hotplate`", ""),
    ("warm no-op, 10000 units, doit", "plain doit", "nothing to do in 10,000 sources, `doit`", ""),
    ("one edit, total, 10000 units, hotplate", "ninja", "one of 10,000 sources saved, to the end of its link", ""),
    ("one edit, total, 10000 units, hotplate, CPU", "ninja", "the same, CPU", ""),
    ("one edit, total, 10000 units, doit watch", "ninja", "the same under `doit watch`", ""),
    ("all touched, 10000 units, hotplate", "read and hash", "10,000 sources touched", ""),
    ("cold, compiler of 1 ms, 10000 units, doit, CPU", "ninja", "10,000 compiles of 1 ms, CPU", ""),
    ("cold, 1000 units, doit, CPU", "ninja", "1,000 compiles of this machine's compiler, CPU", ""),
    ("restore, 1000 units, hotplate, CPU", "ninja and ccache", "1,000 objects from the cache, CPU", ""),
)
"""Case of the benchmark, its peer, what README calls it, and the line to the board. Of esptool's ways the fastest in
that report: without its stub where it asks, with `--diff-with` where it writes."""

SAVED = (
    ("watch: save -> build started", "`doit watch`: to `build started`"),
    ("watch: touch -> nothing to do", '`doit watch`: touched file, to "nothing to do"'),
    ("watch: comment edit -> end of the build", "`doit watch`: comment edit, to the end of the build"),
    ("watch: error -> first diagnostic", "`doit watch`: error, to the first diagnostic"),
    ("hook: nothing saved", "`hotplate compile link`: nothing saved"),
    ("hook: touch -> nothing to do", "`hotplate compile link`: touched file"),
    ("hook: comment edit -> end of the build", "`hotplate compile link`: comment edit"),
)
"""Case of `bench:watch`, and what docs/editors.md calls it."""


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


def bench() -> dict[str, Any]:
    """The newest benchmark."""
    made: dict[str, Any] = json.loads(max(EVIDENCE.glob("bench-*.json")).read_text())
    return made


def peers() -> str:
    """What README says of us beside others."""
    made = bench()
    rows = {(row["case"], row["peer"]): row for suite in made["suites"] for row in suite["rows"]}
    cells = []
    for case, against, what, line in BESIDE:
        _, ours, peer, its, ratio, *_ = view.cells(rows[case, against])
        cells.append((what, line, ours, peer, its, ratio))
    table = markdown_table(("what", "line", "Hotplate", "peer", "its", "ratio"), cells)
    return f"\nBeside others, in [one run](reports/evidence/{made['id']}.md) of `doit bench`:\n\n{table}\n\n"


def saved() -> str:
    """What docs/editors.md says of the time from a save."""
    made = bench()
    rows = {row["case"]: row for suite in made["suites"] if suite["name"] == "watch" for row in suite["rows"]}
    cells = []
    for case, what in SAVED:
        row = rows[case]
        compiler = f", of which the compiler {row['peer_value']:.0f}" if row["peer_value"] is not None else ""
        cells.append((what, f"{row['ours']:.0f}{compiler}"))
    intro = f"Here, with the reference firmware (medians of [this report](../reports/evidence/{made['id']}.md)):"
    return f"\n{intro}\n\n{markdown_table(('from the save', 'ms'), cells)}\n\n"


QUOTING = (("README.md", SECTION, section), ("README.md", PEERS, peers), ("docs/editors.md", WATCH, saved))


def test_the_pages_quote_the_evidence() -> None:
    for name, mark, text in QUOTING:
        quoted = mark.search((ROOT / name).read_text(encoding="utf-8"))
        assert quoted is not None and quoted[0] == text(), name


def test_esptool_is_quoted_at_its_best() -> None:
    """No other way of esptool's was faster in the case that is quoted."""
    rows = [row for suite in bench()["suites"] for row in suite["rows"]]
    for case, against, _, line in BESIDE:
        quoted = [row["peer_value"] for row in rows if (row["case"], row["peer"]) == (case, against)]
        others = [row["peer_value"] for row in rows if row["case"] == case and row["peer"].startswith("esptool")]
        assert not line or quoted == [min(others)], case


def test_the_set_is_whole() -> None:
    """A benchmark of every suite, a loop that ended green, a gate with a verdict; the page beside them names each."""
    made = bench()
    page = (EVIDENCE / "README.md").read_text()
    missing = [name for name in SUITES if name not in {s["name"] for s in made["suites"] if not s["error"]}]
    assert all(f"`bench:{name}`" in page for name in missing), "a suite without evidence is said to have none"
    assert (EVIDENCE / f"{made['id']}.md").read_text() == view.render_markdown(made)
    summary = (EVIDENCE / "loop/SUMMARY.md").read_text()
    assert summary.startswith("# Warm loop: green") and "- command: `doit loop" in summary
    assert (EVIDENCE / "loop/RESULTS.csv").read_text().splitlines()[0] == CSV_HEADER
    gates = [json.loads(path.read_text()) for path in EVIDENCE.glob("gate-*.json")]
    assert gates and all(gate["conclusion"]["verdict"] in ("GO", "NO-GO") for gate in gates)
    for path in EVIDENCE.rglob("*.md"):
        assert path.name == "README.md" or path.relative_to(EVIDENCE).as_posix() in page


def test_the_evidence_is_complete_and_its_renderings_agree() -> None:
    made = newest()
    assert set(made) == set(MODES)
    for baseline in made.values():
        assert baseline["outcome"] == "ok"
        stem = EVIDENCE / baseline["id"]
        assert stem.with_suffix(".csv").read_text() == render_csv(baseline)
        assert stem.with_suffix(".md").read_text() == render_markdown(baseline)


if __name__ == "__main__":
    for name, mark, text in QUOTING:
        page = ROOT / name
        page.write_text(mark.sub(lambda _, text=text: text(), page.read_text(encoding="utf-8")), encoding="utf-8")  # type: ignore[misc]
