"""What the firmware of a device last said of its modules, heard on its console.

Sans-I/O: entries in, a verdict out. Does not ask anything, and does not know the page. Invariant: only a whole answer
to `health` counts (`boot/readiness.py`); a reset makes what was said before it old, never wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.boot.lines import Line, LineCutter
from pipeline.boot.readiness import MAX_MODULES, Health, read_health
from pipeline.client.protocol import Channel, ConsoleEntry, ConsoleNote, NoteKind
from pipeline.formats.jsonrpc import parse_jsonrpc

_MODULES, _RESET = b'"modules"', b"rst:0x"
_ANOTHER_BOOT = frozenset({NoteKind.RESET, NoteKind.GONE})


class ModuleDot(NamedTuple):
    """One module as the page shows it. `text`: what it says of itself."""

    name: str
    good: bool
    text: str


class ModulesHeard(NamedTuple):
    """`source`: `console` or the transaction whose report says so; `current`: said by the firmware that runs now."""

    modules: tuple[ModuleDot, ...]
    source: str
    current: bool


class HealthEar:
    """A Sink that listens to one console."""

    def __init__(self) -> None:
        self._cutter = LineCutter()
        self.heard: ModulesHeard | None = None

    def __call__(self, entry: ConsoleEntry) -> None:
        if isinstance(entry, ConsoleNote):
            if entry.kind in _ANOTHER_BOOT and self.heard is not None:
                self.heard = self.heard._replace(current=False)
            return
        if entry.channel != Channel.CONSOLE:
            return
        place = 0
        while place < len(entry.data):
            line, place = self._cutter.take(entry.at_s, entry.data, place)
            # Each line of each board comes by here: what cannot be one of the two is not looked at.
            if line is not None and (_MODULES in line.raw or _RESET in line.raw):
                self._line(line)

    def _line(self, line: Line) -> None:
        message = None if line.cut else parse_jsonrpc(line.raw)
        health = None if message is None else read_health(message.get("result"))
        if health is not None:
            self.heard = ModulesHeard(_of_health(health), "console", True)
        elif message is None and self.heard is not None and _RESET in line.raw:
            self.heard = self.heard._replace(current=False)


def _of_health(health: Health) -> tuple[ModuleDot, ...]:
    return tuple(
        dot(module.name, module.setup_ok, module.at_fault, module.held, module.health) for module in health.modules
    )


def dot(name: str, setup_ok: bool, at_fault: bool, held: int | None, said: str) -> ModuleDot:
    """Green where it is set up and at no fault."""
    parts = [said or ("set up" if setup_ok else "not set up")]
    if at_fault:
        parts.append("at fault for the memory")
    if held is not None:
        parts.append(f"{held} bytes held")
    return ModuleDot(name, setup_ok and not at_fault, "; ".join(parts))


def modules_of_report(report: Mapping[str, Any]) -> ModulesHeard | None:
    """What the readiness gate of a deploy was told."""
    rows = report["readiness"]["modules"]
    dots = []
    for row in rows[:MAX_MODULES] if isinstance(rows, Sequence) else ():
        held = row.get("held")
        dots.append(
            dot(
                str(row.get("name", "")),
                row.get("setup_ok") is True,
                row.get("at_fault") is True,
                held if type(held) is int else None,
                str(row.get("health", "")),
            )
        )
    return ModulesHeard(tuple(dots), str(report["transaction_id"]), False) if dots else None
