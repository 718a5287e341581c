"""The experiment under `bench`, `baseline`, `loop` and `doit gate`: runs in a copy of the project, in turn.

Knows one device and one profile, how a run is named, in which order repeated commands go, and what a real board is
given back; what the runs mean, the folders beside know. Invariants: nothing runs in the project itself; commands that
are compared run one after the other in each round, so that a busy moment hits all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from cache.durable import write_atomic
from pipeline.config.schema import DeviceConfig
from pipeline.failures import fail
from pipeline.measure.child import Child, run_doit
from pipeline.measure.edits import Edits
from pipeline.measure.scratch import Scratch
from pipeline.model import HOST_STAGES, Failure, FailureCategory
from pipeline.run.build import Build
from pipeline.run.options import Options

Result = TypeVar("Result")


# --- what is refused --------------------------------------------------------------------------


def refused(where: str, message: str, hint: str) -> Failure:
    """An experiment that cannot be made as it was asked for."""
    return fail(FailureCategory.CONFIG_ERROR, stage=None, where=where, message=message, hint=hint)


def refused_number(where: str, option: str, value: int, example: int, least: int = 1) -> Failure | None:
    """None where `value` is at least `least`."""
    if value >= least:
        return None
    return refused(where, f"{option} is {value}, but must be at least 1", f"use {option} {example}")


def refused_devices(where: str, devices: Sequence[DeviceConfig]) -> Failure | None:
    """None for exactly one device."""
    if len(devices) == 1:
        return None
    names = ", ".join(device.name for device in devices)
    message = f"a {where} is that of one device, but {len(devices)} are selected ({names})"
    return refused(where, message, "name one with --device")


# --- one copy ---------------------------------------------------------------------------------


class ProjectCopy:
    """A copy of the project in `directory`, and runs of the selected device and profile in it."""

    def __init__(self, build: Build, directory: Path) -> None:
        device = build.project.devices[0]
        self.device = device.name
        self.profile = build.project.profile
        self.options = Options(devices=(device.name,), profile=build.project.profile)
        self.scratch = Scratch(build, directory)
        self.project = self.scratch.project
        self.edits = Edits(self.project, self.options)
        self._virtual = device.is_virtual
        self._clock = build.clock

    def build(self, *tasks: str) -> Child:
        """`doit TASKS`, which need no device; without any, all that build."""
        return self._run(*(tasks or map(str, HOST_STAGES)))

    def on_device(self, task: str, *more: str) -> Child:
        """`doit TASK` on the device."""
        return self._run(task, "--device", self.device, more=more)

    def deploy(self, *more: str) -> Child:
        """`doit deploy` to the device."""
        return self.on_device("deploy", *more)

    def restore(self) -> Child | None:
        """A real board is given a build of the project as it was copied; None for a virtual one, which goes away."""
        self.edits.undo()
        return None if self._virtual else self.deploy()

    def _run(self, *words: str, more: Sequence[str] = ()) -> Child:
        return run_doit(self.scratch, self._clock, [*words, "--profile", self.profile, *more])


# --- repetition -------------------------------------------------------------------------------


def rounds(commands: Mapping[str, Callable[[], Result]], *, alternate: bool = False) -> Iterator[dict[str, Result]]:
    """For ever: every command once, in the order of the result's keys. `alternate`: every second round begins at the
    other end, so that a machine that gets slower or faster favours none."""
    order = list(commands)
    while True:
        yield {name: commands[name]() for name in order}
        if alternate:
            order.reverse()


def repeated(
    commands: Mapping[str, Callable[[], Result]], count: int, say: Callable[[int, int], None]
) -> dict[str, list[Result]]:
    """The results of `count` rounds by command. `say(done, count)` comes before each round."""
    found: dict[str, list[Result]] = {name: [] for name in commands}
    turns = rounds(commands)
    for number in range(count):
        say(number, count)
        for name, result in next(turns).items():
            found[name].append(result)
    return found


# --- what is left -----------------------------------------------------------------------------


def write_renderings(directory: Path, name: str, texts: Mapping[str, str]) -> None:
    """`<name>.<suffix>` for each text, whole or not at all. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    for suffix, text in texts.items():
        write_atomic(directory / f"{name}.{suffix}", text.encode(), durable=False)
