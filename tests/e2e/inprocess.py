"""A deploy inside the test's process, as doit and the reporter would run it, with faults planted when a stage begins.

Real project, engine, esptool and virtual board; only doit is left out, which costs more than all of them together.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pipeline.effects.host import Revision
from pipeline.model import DEVICE_STAGES, HOST_STAGES, Failure, Stage
from pipeline.run.options import Options
from pipeline.run.run import Run as RealRun
from pipeline.run.run import load_run
from pipeline.run.stage_of import StageOf
from pipeline.run.transactions import RunFacts
from virtualboard.faults import parse_fault

FACTS = RunFacts(("deploy",), "local-fast", "zig", lambda: Revision("", False), 0, 0)


@dataclass(frozen=True)
class InProcessRun:
    """One finished deploy. `report` is the JSON as it was written to disk."""

    report: dict[str, Any]
    failure: Failure | None

    @property
    def category(self) -> str:
        return str(self.report["failure"]["category"]) if self.report["failure"] else ""

    @property
    def failed_stage(self) -> str:
        return str(self.report["failure"]["stage"]) if self.report["failure"] else ""

    @property
    def outcome(self) -> str:
        return str(self.report["outcome"])


Plants = Mapping[Stage, Sequence[str]]
NONE: Plants = MappingProxyType({})


def deploy(
    root: Path, plants: Plants = NONE, *, hosts: bool = True, edit: Callable[[RealRun], None] | None = None
) -> InProcessRun:
    """Deploy the project in `root` to its default device. `plants`: faults that the board has from the begin of a stage
    on. `hosts` False: the build is known to be up to date. `edit` changes the context before the first stage."""
    context = load_run(Options(), root)
    assert not isinstance(context, Failure), context
    assert isinstance(context.lock(), float)
    device = context.project.devices[0]
    context.transactions.begin([(device.name, device.port)], FACTS)
    if edit is not None:
        edit(context)
    opened: list[Any] = []
    really_open = context.boards._open_port

    def open_port(device: Any) -> Any:
        opened.append(really_open(device))
        _plant(opened[-1], plants.get(Stage.VERIFY_FLASH, ()))
        return opened[-1]

    context.boards._open_port = open_port  # type: ignore[method-assign]
    failure, interrupted = None, False
    try:
        for stage in (*(HOST_STAGES if hosts else ()), *DEVICE_STAGES):
            name = device.name if stage in DEVICE_STAGES else ""
            if name and stage is not Stage.VERIFY_FLASH:
                _plant(opened[-1], plants.get(stage, ()))
            if stage is Stage.REFLASH and context.nothing_to_write(name):
                continue
            which = StageOf(stage, name)
            context.consider(which)
            context.started(which)
            failure = context.execute(which).failure
            if failure is not None:
                break
        else:
            assert context.confirm(device.name)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        (rendered,) = context.end(interrupted=interrupted, passed=False, selection=None).rendered
    assert rendered.path is not None and rendered.path.read_text().startswith("# Deploy Report")
    return InProcessRun(json.loads(rendered.path.with_suffix(".json").read_text()), failure)


def _plant(port: Any, faults: Sequence[str]) -> None:
    for text in faults:
        port.board.inject(parse_fault(text))
