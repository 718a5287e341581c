"""The baselines whose renderings are pinned in this directory, as measured runs. No files, no clock.

After a wanted change of the layout: `python -m tests.golden.baselines` writes the files anew; read the diff.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.measure.baseline.rows import EDITS, BaselineRun, build, not_run
from pipeline.measure.baseline.view import render_csv, render_markdown, render_text
from pipeline.model import Stage

HERE = Path(__file__).parent
LIMITS = {"total": 1000, "startup": 200, "fingerprint": 500, "verify-flash": 300, "ttfb": 1000}
STAGES = [stage.value for stage in Stage]
COLD = {"fingerprint": 12, "compile": 900, "link": 300, "verify-flash": 180, "reflash": 150, "reattach": 1, "ttfb": 35}
WARM = {"fingerprint": 1, "compile": 0, "link": 1, "verify-flash": 240, "reflash": 0, "reattach": 1, "ttfb": 36}
UP_TO_DATE = {"fingerprint", "compile", "link", "reflash"}


def run(series: str, number: int, stages: dict[str, int], *, edit: str = "", warm: bool = False) -> BaselineRun:
    """A run whose remainder is 10 ms and whose start took 150."""
    total = sum(stages.values()) + 160
    outcomes = {name: "up-to-date" if warm and name in UP_TO_DATE else "ran" for name in stages}
    counts = {"compiled": 0 if warm else 32, "restored": 0, "linked": 0 if warm else 2}
    phases = {"startup": 150, "dispatch": 0, **stages, "total": total}
    return BaselineRun(series, number, edit, phases, outcomes, {**counts, "bytes_written": 0 if warm else 98272})


def warm(number: int, **more: int) -> BaselineRun:
    """A run with nothing changed; each costs a little more than the one before it."""
    if number == 1:
        return run("warm", 1, COLD)
    stages = {name: ms + (number if name == "verify-flash" else 0) + more.get(name, 0) for name, ms in WARM.items()}
    return run("warm", number, stages, warm=True)


def failed(number: int) -> BaselineRun:
    """The board vanished while it was asked."""
    stages = {"fingerprint": 1, "compile": 0, "link": 1, "verify-flash": 25}
    broken = run("warm", number, stages, warm=True)
    outcomes = {**broken.outcomes, "verify-flash": "failed", **dict.fromkeys(STAGES[4:], "not-run")}
    phases = {**broken.phases, **dict.fromkeys(STAGES[4:], None)}
    failure = ("port_missing", "verify-flash", "the port | vanished: `/dev/ttyUSB0`")
    return broken._replace(outcomes=outcomes, phases=phases, failure=failure)


def facts(identity: str, mode: str, **more: Any) -> dict[str, Any]:
    return {
        "id": identity,
        "mode": mode,
        "started_at": "2026-11-21T08:30:00.000Z",
        "runs_asked": 5,
        "profile": "local-fast",
        "deploy": True,
        "device": {"name": "bench", "mac": "", "chip": "esp32c3", "port": "virtual:", "timing": "instant"},
        "board": "virtual, erased before each cold run and warm-1",
        "machine": {"id": "0123456789ab", "system": "Linux", "cpu": "A CPU", "cores": "2", "python": "CPython 3.11.7"},
        "tools": {"hotplate": "0.1.0", "doit": "0.37.0", "esptool": "5.6.0", "toolchain": "zig 0.17.0"},
        "git": {"sha": "d895f66", "dirty": True},
        "notes": [],
        **more,
    }


def before() -> dict[str, Any]:
    return build(facts("baseline-20261120-083000", "warm"), [warm(n) for n in range(1, 7)], LIMITS)


def slower() -> dict[str, Any]:
    """300 ms more in verify-flash, and one failure."""
    runs = [*(warm(n, **{"verify-flash": 300}) for n in range(1, 7)), failed(7)]
    return build(facts("baseline-20261121-083000", "warm"), runs, LIMITS, before(), enforced=True)


def full() -> dict[str, Any]:
    runs = [*(run("cold", n, {**COLD, "compile": 900 + n}) for n in (1, 2)), *(warm(n) for n in (1, 2, 3))]
    for number, edit in ((n, edit) for n in (1, 2) for edit in EDITS):
        if edit == "header":
            runs.append(not_run("edit", number, edit))
        else:
            runs.append(run("edit", number, {**WARM, "compile": 30 * number}, edit=edit))
    notes = ["edit/header: the project has no header of its own to edit", "edited in the copy: src/main.c"]
    return build(facts("baseline-20261121-093000", "full", runs_asked=2, notes=notes), runs, LIMITS)


BASELINES = {"slower": slower, "full": full}


def pages(name: str) -> dict[str, str]:
    """File name -> content of one baseline's golden files."""
    made = BASELINES[name]()
    return {
        f"baseline_{name}.csv": render_csv(made),
        f"baseline_{name}.md": render_markdown(made),
        f"baseline_{name}.txt": render_text(made),
    }


if __name__ == "__main__":
    for baseline in BASELINES:
        for file, text in pages(baseline).items():
            (HERE / file).write_text(text, encoding="utf-8")
