"""`doit baseline:cold|warm|full`: how fast this project's loop is on this machine, and whether it got slower.

Runs `doit deploy` as users do, as whole processes, in a scratch copy of the project, reads what each run's own event
log says, and writes `reports/baseline-<time>.{csv,md,json}`. Knows the order of the runs; what a step or a statistic
is, `measure/baseline/rows.py` knows. Does not touch the project's sources, cache, state or lock, nor the flash file of
its virtual board; a real board is deployed to, never erased.
Invariant: a run that fails is recorded and the others are still made; a baseline that was interrupted writes no file.
"""

from __future__ import annotations

import json
import secrets
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cache.durable import read_text, write_atomic
from cache.named_tuple import NamedTuple
from pipeline.config.schema import DeviceConfig
from pipeline.effects.host import GitQuery, machine_facts
from pipeline.effects.run_log import SUFFIX, read
from pipeline.effects.versions import distribution_version
from pipeline.events import format_tx
from pipeline.failures import fail
from pipeline.measure.baseline import rows as core
from pipeline.measure.baseline.rows import Measured
from pipeline.measure.baseline.view import render_csv, render_markdown
from pipeline.measure.edits import Edits
from pipeline.measure.scratch import Scratch
from pipeline.model import HOST_STAGES, Failure, FailureCategory
from pipeline.report.dated_files import free_id
from pipeline.report.document import build_report, whole_ms
from pipeline.run.build import Build
from pipeline.run.project import STATE_DIR
from pipeline.run.transactions import RUNS

CHILD_TIMEOUT_S = 1800.0
EXIT_CONFIG = 2


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


Watcher = Callable[[str, int, int, Measured | None], None]
"""`watch(run, done, total, measured)`: before each run (measured None), and after it."""


def measure(build: Build, mode: str, runs: int, *, deploy: bool, watch: Watcher) -> dict[str, Any] | Failure:
    """Make the baseline and write its files; the baseline as data, or why none could be begun."""
    refused = _refused(build, runs)
    if refused is not None:
        return refused
    _forget_board(build, deploy=deploy)
    git = GitQuery(build.project.root)
    started_at = build.clock.utc()
    plan = list(steps(mode, runs))
    with tempfile.TemporaryDirectory(prefix="hotplate-baseline-") as directory:
        children = _Children(build, Scratch(build, Path(directory)), deploy=deploy)
        found: list[Measured] = []
        for step in plan:
            name = f"{step.series}-{step.number}" + (f" {step.edit}" if step.edit else "")
            watch(name, len(found), len(plan), None)
            found.append(children.run(step))
            watch(name, len(found), len(plan), found[-1])
        notes = children.finish()
    device, revision = build.project.devices[0], git.result()
    facts = {
        "id": free_id("baseline", build.project.reports_dir, started_at),
        "mode": mode,
        "started_at": started_at,
        "runs_asked": runs,
        "profile": build.project.profile,
        "deploy": deploy,
        "device": _device(device),
        "board": _board(device, mode, deploy=deploy),
        "machine": machine_facts(),
        "tools": _tools(build),
        "git": {"sha": revision.sha, "dirty": revision.dirty},
        "notes": notes,
    }
    budget = build.config.budget
    earlier = _earlier(build.project.reports_dir, facts)
    made = core.build(facts, found, budget.limits_ms, earlier, enforced=budget.enforce)
    _write(build.project.reports_dir, made)
    return made


def _refused(build: Build, runs: int) -> Failure | None:
    where = "baseline"
    if runs < 1:
        message = f"--runs is {runs}, but must be at least 1"
        return fail(FailureCategory.CONFIG_ERROR, stage=None, where=where, message=message, hint="use --runs 5")
    if len(build.project.devices) != 1:
        names = ", ".join(device.name for device in build.project.devices)
        message = f"a baseline is that of one device, but {len(build.project.devices)} are selected ({names})"
        hint = "name one with --device"
        return fail(FailureCategory.CONFIG_ERROR, stage=None, where=where, message=message, hint=hint)
    return None


def _forget_board(build: Build, *, deploy: bool) -> None:
    """A real board is about to be written by the copy: what this project's journal believes of it may no longer be
    true. Before the first write, so that it holds however this ends; it costs the next deploy one look at the board."""
    device = build.project.devices[0]
    if deploy and not device.is_virtual:
        for path in (build.project.state_dir / "devices.v1").glob(f"{device.mac.replace(':', '') or '*'}.log"):
            path.unlink(missing_ok=True)


class _Children:
    """Runs the steps in the scratch copy."""

    def __init__(self, build: Build, scratch: Scratch, *, deploy: bool) -> None:
        self._clock = build.clock
        self._scratch = scratch
        self._device = build.project.devices[0]
        self._profile = build.project.profile
        self._deploy = deploy
        self._edits = Edits(scratch.project, self._device.name, self._profile)
        self._notes: dict[str, None] = {}

    def run(self, step: Step) -> Measured:
        """Prepare, run one child, and read what it says of itself."""
        if step.erase:
            self._scratch.erase()
        if step.edit:
            missing = self._edits.make(step.edit, step.number)
            if missing:
                self._notes[f"edit/{step.edit}: {missing}"] = None
                return core.not_run(*_name(step))
        found = self._child(step)
        if step.edit and found.failure is not None:
            self._edits.take_back()
        return found

    def finish(self) -> list[str]:
        """A real board that runs an edited build gets the project's own back. Returns notes for the baseline."""
        edited = self._edits.undo()
        notes = [*self._notes, *edited]
        if edited and self._deploy and not self._device.is_virtual:
            done = self._child(Step("restore", 1))
            if done.failure is not None:
                notes.append(f"the board still runs an edited build: {done.failure[2]}; deploy to it again")
        return notes

    def _child(self, step: Step) -> Measured:
        tx = format_tx(self._clock.utc(), secrets.token_hex(3))
        words = ["deploy", "--device", self._device.name] if self._deploy else [str(stage) for stage in HOST_STAGES]
        words += ["--profile", self._profile]
        try:
            done = self._scratch.python("-m", "doit", *words, timeout_s=CHILD_TIMEOUT_S, DEPLOY_TX_ID=tx)
        except TimeoutError as error:
            return core.unmeasured(*_name(step), FailureCategory.INTERRUPTED.value, str(error))
        log, _ = read(self._scratch.project / STATE_DIR / RUNS / f"{tx}{SUFFIX}")
        if log:
            return core.measured(*_name(step), build_report(log))
        if done.exit_code == 0:
            return core.answered_by_fastpath(*_name(step), whole_ms(done.duration_s))
        category = FailureCategory.CONFIG_ERROR if done.exit_code == EXIT_CONFIG else FailureCategory.UNKNOWN
        said = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        reason = next((line for line in said if "error: " in line), said[-1] if said else "")
        message = f"doit {' '.join(words)} ended with {done.exit_code}: {reason}"
        return core.unmeasured(*_name(step), category.value, message)


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


def _tools(build: Build) -> dict[str, str]:
    versions = {name: distribution_version(name) for name in ("hotplate", "doit", "esptool")}
    return {**versions, "toolchain": build.toolchain_name()}


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


def _write(directory: Path, made: dict[str, Any]) -> None:
    """The three renderings. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    texts = {"csv": render_csv(made), "md": render_markdown(made), "json": json.dumps(made, indent=2) + "\n"}
    for suffix, text in texts.items():
        write_atomic(directory / f"{made['id']}.{suffix}", text.encode(), durable=False)
