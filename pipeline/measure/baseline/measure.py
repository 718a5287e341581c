"""`doit baseline:cold|warm|full`: how fast this project's loop is on this machine, and whether it got slower.

Runs `doit deploy` as users do, as whole processes, in a scratch copy of the project, reads what each run's own event
log says, and writes `reports/baseline-<time>.{csv,md,json}`. Knows the order of the runs; what a step or a statistic
is, `measure/baseline/rows.py` knows. Does not touch the project's sources, cache, state or lock, nor the flash file of
its virtual board; a real board is deployed to, never erased.
Invariant: a run that fails is recorded and the others are still made; a baseline that was interrupted writes no file.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cache.durable import read_text
from cache.named_tuple import NamedTuple
from pipeline.config.schema import DeviceConfig
from pipeline.effects.host import GitQuery
from pipeline.measure.baseline import rows as core
from pipeline.measure.baseline.rows import BaselineRun
from pipeline.measure.baseline.view import render_csv, render_markdown
from pipeline.measure.child import Child
from pipeline.measure.experiment import ProjectCopy, refused_devices, refused_number, write_renderings
from pipeline.measure.facts import circumstances
from pipeline.model import Failure
from pipeline.report.dated_files import free_id
from pipeline.run.build import Build


class Step(NamedTuple):
    """One child run. `erase`: begin from nothing; `edit`: the kind of edit to make first."""

    series: str
    number: int
    erase: bool = False
    edit: str = ""


def steps(mode: str, runs: int) -> Iterator[Step]:
    """The child runs of a baseline, in order. A warm series has one more: the first is there to get warm."""
    if mode in ("cold", "full"):
        yield from (Step("cold", number, erase=True) for number in range(1, runs + 1))
    if mode in ("warm", "full"):
        yield from (Step("warm", number, erase=number == 1) for number in range(1, runs + 2))
    if mode == "full":
        yield from (Step("edit", number, edit=edit) for number in range(1, runs + 1) for edit in core.EDITS)


Watcher = Callable[[str, int, int, BaselineRun | None], None]
"""`watch(run, done, total, measured)`: before each run (measured None), and after it."""


def measure(build: Build, mode: str, runs: int, *, deploy: bool, watch: Watcher) -> dict[str, Any] | Failure:
    """Make the baseline and write its files; the baseline as data, or why none could be begun."""
    asked = refused_number("baseline", "--runs", runs, 5) or refused_devices("baseline", build.project.devices)
    if asked is not None:
        return asked
    _forget_board(build, deploy=deploy)
    git = GitQuery(build.project.root)
    started_at = build.clock.utc()
    plan = list(steps(mode, runs))
    with tempfile.TemporaryDirectory(prefix="hotplate-baseline-") as directory:
        children = _Children(ProjectCopy(build, Path(directory)), deploy=deploy)
        found: list[BaselineRun] = []
        for step in plan:
            name = f"{step.series}-{step.number}" + (f" {step.edit}" if step.edit else "")
            watch(name, len(found), len(plan), None)
            found.append(children.run(step))
            watch(name, len(found), len(plan), found[-1])
        notes = children.finish()
    device = build.project.devices[0]
    facts = {
        "id": free_id("baseline", build.project.reports_dir, started_at),
        "mode": mode,
        "started_at": started_at,
        "runs_asked": runs,
        "profile": build.project.profile,
        "deploy": deploy,
        "device": _device(device),
        "board": _board(device, mode, deploy=deploy),
        **circumstances(build, git),
        "notes": notes,
    }
    budget = build.config.budget
    earlier = _earlier(build.project.reports_dir, facts)
    made = core.build(facts, found, budget.limits_ms, earlier, enforced=budget.enforce)
    texts = {"csv": render_csv(made), "md": render_markdown(made), "json": json.dumps(made, indent=2) + "\n"}
    write_renderings(build.project.reports_dir, made["id"], texts)
    return made


def _forget_board(build: Build, *, deploy: bool) -> None:
    """A real board is about to be written by the copy: what this project's journal believes of it may no longer be
    true. Before the first write, so that it holds however this ends; it costs the next deploy one look at the board."""
    device = build.project.devices[0]
    if deploy and not device.is_virtual:
        for path in (build.project.state_dir / "devices.v1").glob(f"{device.mac.replace(':', '') or '*'}.log"):
            path.unlink(missing_ok=True)


class _Children:
    """Runs the steps in the copy."""

    def __init__(self, copy: ProjectCopy, *, deploy: bool) -> None:
        self._copy = copy
        self._deploy = deploy
        self._notes: dict[str, None] = {}

    def run(self, step: Step) -> BaselineRun:
        """Prepare, run one child, and read what it says of itself."""
        if step.erase:
            self._copy.scratch.erase()
        if step.edit:
            missing = self._copy.edits.make(step.edit, step.number)
            if missing:
                self._notes[f"edit/{step.edit}: {missing}"] = None
                return core.not_run(*_name(step))
        child = self._copy.deploy() if self._deploy else self._copy.build()
        found = _measured(step, child)
        if step.edit and found.failure is not None:
            self._copy.edits.take_back()
        return found

    def finish(self) -> list[str]:
        """A real board that runs an edited build gets the project's own back. Returns notes for the baseline."""
        edited = self._copy.edits.undo()
        notes = [*self._notes, *edited]
        child = self._copy.restore() if edited and self._deploy else None
        if child is not None and child.failure[0]:
            told = _measured(Step("restore", 1), child).failure
            notes.append(f"the board still runs an edited build: {told and told[2]}; deploy to it again")
        return notes


def _measured(step: Step, child: Child) -> BaselineRun:
    if child.report is not None:
        return core.measured(*_name(step), child.report)
    if child.ok:
        return core.answered_by_fastpath(*_name(step), child.wall_ms)
    return core.unmeasured(*_name(step), *child.failure)


def _name(step: Step) -> tuple[str, int, str]:
    return step.series, step.number, step.edit


# --- facts ------------------------------------------------------------------------------------


def _device(device: DeviceConfig) -> dict[str, str]:
    config = device
    timing = config.timing if config.is_virtual else "real"
    return {"name": config.name, "mac": config.mac, "chip": config.chip, "port": config.port, "timing": timing}


def _board(device: DeviceConfig, mode: str, *, deploy: bool) -> str:
    """What is done to the board before a run that begins from nothing."""
    if not deploy:
        return "not used"
    if device.is_virtual:
        return (
            "virtual, erased before each run" if mode == "cold" else "virtual, erased before each cold run and warm-1"
        )
    return "real, never erased: cold runs find what the run before left"


# --- files ------------------------------------------------------------------------------------


def _earlier(directory: Path, facts: dict[str, Any]) -> dict[str, Any] | None:
    """The newest baseline in `directory` that `facts` may be compared with. Files that cannot be read do not count."""
    asked = {"schema": core.SCHEMA, "kind": "baseline", **facts}
    for path in sorted(directory.glob("baseline-*.json"), reverse=True):
        try:
            found = json.loads(read_text(path))
            if isinstance(found, dict) and core.comparable(found, asked) and core.samples(core.rows_of(found)):
                return found
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None
