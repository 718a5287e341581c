"""The report of benchmarks whose renderings are pinned in this directory. No files, no clock.

After a wanted change of the layout: `python -m tests.golden.benches` writes the files anew; read the diff.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.measure.bench.table import BenchRow, Suite, at_most, build, measured, ratio_at_most
from pipeline.measure.bench.view import render_markdown, render_text

HERE = Path(__file__).parent
FACTS = {
    "id": "bench-20261121-083000",
    "started_at": "2026-11-21T08:30:00.000Z",
    "command": "doit bench",
    "machine": {"id": "0123456789ab", "system": "Linux", "cpu": "A CPU", "cores": "2", "python": "CPython 3.11.7"},
    "tools": {"hotplate": "0.1.0", "doit": "0.37.0", "esptool": "5.6.0", "toolchain": "zig 0.17.0", "ccache": ""},
    "git": {"sha": "d895f66", "dirty": False},
    "load": {"before": 0.25, "after": None},
}


def suites() -> list[Suite]:
    """A target met, missed and absent; a suite that broke off; values that would break a page."""
    doit, ninja, plain = [103.3, 99.1, 110.0], [61.0, 64.5, 63.2], [1600.0, 1586.5, 1700.0]
    case = "warm no-op, 10000 units, doit"
    engine = (
        measured("engine", case, doit, "ms", "ninja", ninja, ratio_at_most(1.6)),
        measured("engine", case, doit, "ms", "plain doit", plain, ratio_at_most(1 / 15)),
        measured("engine", "restore, 1000 units, doit, CPU", [294.8], "ms", "ninja", [2946.0]),
    )
    device = (
        BenchRow("device", "warm verify", 12, "round trips", target=at_most(25)),
        measured("device", "warm full loop, 115200 baud", [1512.0, 1498.2], "ms", target=at_most(1500)),
    )
    work = (BenchRow("work", "one edit: compiler runs", 2, "", target=at_most(1)),)
    return [
        Suite("engine", engine),
        Suite("device", device, (("the last loop, in ms", "stage  ms\nttfb   ```\x1b[31m 444"),)),
        Suite("watch", error="`doit watch` | was silent", hint="run it alone: doit bench:watch"),
        Suite("work", work, strict=True),
    ]


def report() -> dict[str, Any]:
    return build(FACTS, suites())


def pages() -> dict[str, str]:
    """File name -> content of the golden files."""
    made = report()
    return {"bench.md": render_markdown(made), "bench.txt": render_text(made, 100)}


if __name__ == "__main__":
    for file, text in pages().items():
        (HERE / file).write_text(text, encoding="utf-8")
