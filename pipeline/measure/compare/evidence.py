"""`doit gate`: gather the evidence for a go/no-go decision, with real deploys, and write the conclusion.

Each arm is a scratch copy of the project with the arm's settings; pairs are run in turn, and the arm that begins
alternates, so that drift hits both. Knows where runs lie and how the flash of a board is read back; what the evidence
means, `measure/compare/decision.py` knows. Invariants: the project and its virtual board are not touched; a real board
ends with the project's own build; a pair counts only when both its deploys were successful and warm.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline import __version__
from pipeline.device.ports import flash_file
from pipeline.effects.host import GitQuery, machine_facts
from pipeline.measure.child import Child
from pipeline.measure.compare.arms import USAGE, Arm, apply, parse_arm
from pipeline.measure.compare.decision import (
    PHASES,
    FlashCheck,
    GateVerdict,
    Pair,
    Timed,
    conclude,
    population,
    timed,
    why_not,
)
from pipeline.measure.compare.view import Gated, render
from pipeline.measure.experiment import ProjectCopy, refused, refused_devices, refused_number, rounds, write_renderings
from pipeline.model import Failure, Stage
from pipeline.report.dated_files import free_id
from pipeline.report.history import parse_history
from pipeline.report.history_file import read_history
from pipeline.report.markdown import HISTORY_SCHEMA, encode_history, history_row
from pipeline.run.build import Build, load_build
from pipeline.run.project import CONFIG_FILE
from pipeline.text import did_you_mean

Say = Callable[[str], None]

MAX_DROPPED = 5
"""Pairs that may fail before the gate gives up."""


class GateOptions(NamedTuple):
    """The options; `pairs` 0: as many as `[gate] min_pairs` says."""

    phase: str
    candidate: str
    baseline: str
    pairs: int = 0
    command: str = "doit gate"


class Lane(NamedTuple):
    """An arm and where it runs."""

    side: str
    arm: Arm
    copy: ProjectCopy

    def deploy(self) -> Child:
        return self.copy.deploy(*self.arm.options)


def run_gate(build: Build, asked: GateOptions, say: Say) -> Gated | Failure:
    """Gather and conclude. Raises KeyboardInterrupt, OSError."""
    arms = _arms(build, asked)
    if isinstance(arms, Failure):
        return arms
    now, limits = build.clock.utc(), build.config.gate
    device = build.project.devices[0]
    since = (datetime.fromisoformat(now) - timedelta(days=limits.days)).isoformat(timespec="milliseconds")
    machine = machine_facts()
    who = (machine["id"], device.name, build.project.profile)
    found = population(read_history(build.project.reports_dir), asked.phase, *who, since.replace("+00:00", "Z"))
    say(f"{len(found.runs)} warm deploys of this machine count; {sum(found.excluded.values())} others do not")
    with tempfile.TemporaryDirectory(prefix="hotplate-gate-") as directory:
        gate = _Gate(build, asked, Path(directory), say, who)
        lanes = gate.prepare(arms)
        if isinstance(lanes, Failure):
            gate.restore()
            return lanes
        pairs = gate.pairs(lanes, asked.pairs or limits.min_pairs)
        flash = list(gate.flash(lanes)) if len(gate.dropped) <= MAX_DROPPED else []
        gate.restore()
    revision = GitQuery(build.project.root).result()
    return Gated(
        phase=asked.phase,
        candidate=asked.candidate,
        baseline=asked.baseline,
        command=asked.command,
        at=build.clock.utc(),
        machine=machine,
        device=device.name,
        port=device.port,
        profile=build.project.profile,
        sha=revision.sha,
        dirty=revision.dirty,
        schema=HISTORY_SCHEMA,
        limits=limits,
        population=found,
        pairs=tuple(pairs),
        dropped=tuple(gate.dropped),
        flash=tuple(flash),
        conclusion=conclude(asked.phase, found.runs, pairs, flash, limits),
    )


def _arms(build: Build, asked: GateOptions) -> tuple[Arm, Arm] | Failure:
    """(baseline, candidate), or why the gate cannot be made."""
    if asked.phase not in PHASES:
        message = f"--phase is '{asked.phase}'{did_you_mean(asked.phase, PHASES)}"
        return refused("gate", message, f"name one of {', '.join(PHASES)}")
    first = refused_number("gate", "--pairs", asked.pairs, 30, least=0)
    first = first or refused_devices("gate", build.project.devices)
    if first is not None:
        return first
    found = []
    for side, text in (("baseline", asked.baseline), ("candidate", asked.candidate)):
        # `--candidate a=b --baseline md5`: doit took `a=b` away, and the next option came in its place.
        lost = not text or text in ("--baseline", "--candidate", "--phase", "--pairs", "--device", "--profile")
        arm = "is missing" if lost else parse_arm(text)
        if isinstance(arm, str):
            return refused("gate", f"--{side} {arm}", USAGE)
        found.append(arm)
    if found[0] == found[1]:
        return refused("gate", f"both arms are '{asked.baseline}'", "name two settings that differ")
    return found[0], found[1]


class _Gate:
    """The runs of one gate."""

    def __init__(
        self,
        build: Build,
        asked: GateOptions,
        directory: Path,
        say: Say,
        who: tuple[str, str, str],
    ) -> None:
        """`who`: machine, device and profile."""
        self._who = who
        self._build = build
        self._asked = asked
        self._directory = directory
        self._say = say
        self._device = build.project.devices[0]
        self.dropped: list[str] = []
        self._reader: ProjectCopy | None = None

    # --- arms ---------------------------------------------------------------------------------

    def prepare(self, arms: tuple[Arm, Arm]) -> tuple[Lane, Lane] | Failure:
        """(baseline, candidate), each deployed from nothing and once more, so that the next deploy is warm."""
        lanes = []
        for side, arm in zip(("baseline", "candidate"), arms, strict=True):
            copy = self._copy(side, arm)
            checked = load_build(copy.options, copy.project)
            if isinstance(checked, Failure):
                # Its place is in the copy, with the arm's settings in it.
                return refused("gate", f"--{side} {arm.name}: {checked.message}", checked.hint)
            checked.close()
            lanes.append(Lane(side, arm, copy))
        for lane in (*lanes, *lanes):
            self._say(f"{lane.side} ({lane.arm.name}): getting warm")
            child = lane.deploy()
            if not child.ok:
                message = f"the {lane.side} arm cannot deploy: {child.failure[1]}"
                return refused(
                    "gate", message, f"make `doit deploy` work with {lane.arm.name}, then run the gate again"
                )
        return lanes[0], lanes[1]

    def _copy(self, name: str, arm: Arm) -> ProjectCopy:
        copy = ProjectCopy(self._build, self._directory / name)
        config = copy.project / CONFIG_FILE
        config.write_text(_dumped(apply(arm, tomllib.loads(config.read_text()), self._device.name)))
        return copy

    # --- pairs --------------------------------------------------------------------------------

    def pairs(self, lanes: tuple[Lane, Lane], wanted: int) -> list[Pair]:
        """`wanted` pairs, or as many as there were when too many had been dropped."""
        found: list[Pair] = []
        commands = {lane.side: partial(self._timed, lane) for lane in lanes}
        for number, runs in enumerate(rounds(commands, alternate=True), 1):
            wrong = [f"pair {number}, {side}: {run}" for side, run in runs.items() if isinstance(run, str)]
            baseline, candidate = runs["baseline"], runs["candidate"]
            if isinstance(baseline, str) or isinstance(candidate, str):
                self.dropped.append(wrong[0])
                self._say(wrong[0])
            else:
                found.append(Pair(number, next(iter(runs)), baseline, candidate))
                told = f"{baseline.phase_ms} ms and {candidate.phase_ms} ms of {self._asked.phase}"
                self._say(f"pair {len(found)} of {wanted}: {told}")
            if len(found) >= wanted or len(self.dropped) > MAX_DROPPED:
                break
        return found

    def _timed(self, lane: Lane) -> Timed | str:
        """The figures of a warm deploy, or why it does not count."""
        child = lane.deploy()
        if not child.ok or child.report is None:
            return child.failure[1] or f"ended with {child.exit_code}"
        # By the same line and the same rules as the real deploys.
        line = encode_history(history_row(child.report, "", self._who[0], __version__))
        (row,) = parse_history(line).rows
        return why_not(row, *self._who, "") or timed(row, self._asked.phase) or f"{self._asked.phase} was not measured"

    # --- the same result? ---------------------------------------------------------------------

    def flash(self, lanes: tuple[Lane, Lane]) -> Iterator[FlashCheck]:
        """What both arms leave on the board: after the warm deploys, after a real edit, and after somebody else changed
        the board (virtual boards only). Nothing after the first difference: it would be there again."""
        scenarios: dict[str, Callable[[Lane], None]] = {"warm deploys": self._nothing, "real edit": self._edit}
        if self._device.is_virtual:
            scenarios["changed board"] = self._change
        for name, act in scenarios.items():
            found = self._both(name, lanes, act)
            yield found
            if not found.equal:
                return

    def _both(self, scenario: str, lanes: tuple[Lane, Lane], act: Callable[[Lane], None]) -> FlashCheck:
        self._say(f"comparing flash: {scenario}")
        left = []
        for lane in lanes:
            self.restore()
            act(lane)
            lane.deploy()
            left.append(self._digest(lane))
        return FlashCheck(scenario, left[0], left[1])

    def _nothing(self, lane: Lane) -> None:
        pass

    def _edit(self, lane: Lane) -> None:
        missing = lane.copy.edits.make("real", 1)
        if missing:
            self._say(f"no edit: {missing}")

    def _change(self, lane: Lane) -> None:
        """Turn one bit in the middle of the largest image."""
        report = lane.deploy().report
        regions = report["regions"] if report else []
        app = max(regions, key=lambda row: row["size"], default={"offset": 0, "size": 0})
        path = self._flash_file(lane)
        data = bytearray(path.read_bytes())
        data[app["offset"] + app["size"] // 2] ^= 0x40
        path.write_bytes(data)

    def _flash_file(self, lane: Lane) -> Path:
        # A copy has its boards inside, whatever the project says.
        return flash_file(self._device.name, self._device._replace(flash_file=""), lane.copy.project)

    def _digest(self, lane: Lane) -> str:
        """Of the whole flash of a virtual board; of a real one's regions, as the device itself computes it."""
        if self._device.is_virtual:
            return hashlib.sha256(self._flash_file(lane).read_bytes()).hexdigest()
        child = self._own().on_device(Stage.VERIFY_FLASH.value)
        if not child.ok or child.report is None:
            return ""
        held = "".join(f"{row['offset']}:{row['device_md5_before']};" for row in child.report["regions"])
        return hashlib.sha256(held.encode()).hexdigest()

    def restore(self) -> None:
        """A real board is shared by the arms: each begins with the project's own build, and so does who comes after."""
        if not self._device.is_virtual:
            self._own().restore()

    def _own(self) -> ProjectCopy:
        """A third copy, whose `[verify] level` is md5 whatever the arms use."""
        if self._reader is None:
            arm = parse_arm("md5")
            assert isinstance(arm, Arm)
            self._reader = self._copy("own", arm)
        return self._reader


def _dumped(document: dict[str, Any]) -> str:
    import tomli_w

    text: str = tomli_w.dumps(document)
    return text


def write(build: Build, gated: Gated) -> Path:
    """The conclusion as Markdown and JSON; where the Markdown is. Raises OSError."""
    directory = build.project.reports_dir
    name = free_id("gate", directory, gated.at)
    write_renderings(directory, name, {"md": render(gated), "json": json.dumps(plain(gated), indent=2) + "\n"})
    return directory / f"{name}.md"


def plain(value: Any) -> Any:
    """Named tuples as JSON objects."""
    if hasattr(value, "_asdict"):
        return {name: plain(item) for name, item in value._asdict().items()}
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, tuple | list) else value


def gate_text(build: Build, asked: GateOptions, say: Say) -> tuple[GateVerdict, str] | Failure:
    """`doit gate`: the verdict, and what belongs on stdout: the conclusion and one line for scripts."""
    gated = run_gate(build, asked, say)
    if isinstance(gated, Failure):
        return gated
    path = write(build, gated)
    shown = path.relative_to(build.project.root) if path.is_relative_to(build.project.root) else path
    ended = gated.conclusion
    told = "\n".join(f"  {reason}" for reason in ended.reasons)
    head = f"{ended.verdict}: {asked.candidate} instead of {asked.baseline} for {asked.phase}"
    last = f"GATE_VERDICT={ended.verdict} GATE_PHASE={asked.phase} GATE_PAIRS={len(gated.pairs)} GATE_REPORT={shown}"
    return ended.verdict, f"{head}\n{told}\n{last}\n"
