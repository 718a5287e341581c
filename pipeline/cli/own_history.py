"""The history of a console that a monitor has for itself, in the file in which the service keeps it.

Knows events and the file's writer; not ports or screens. Invariant: what cannot be written stops nothing, and at the
end of the monitor what it heard is on its way to the disk.
"""

from __future__ import annotations

from pipeline.boot.console_events import ConsoleEvent, ConsoleEventKind
from pipeline.client.protocol import ConsoleNote, DeviceRef, NoteKind
from pipeline.effects.clock import SystemClock
from pipeline.service.history import HistoryWriter

CLOSE_S = 1.0
"""What a disk may hold up the end."""


class OwnHistory:
    """Tell it of each event."""

    def __init__(self, device: DeviceRef) -> None:
        self._writer = HistoryWriter()
        self._file = self._writer.of(device)
        self._clock = SystemClock()
        self._elf = ""

    def heard(self, seen: ConsoleEvent, running: str) -> None:
        """`running`: the `app_elf_sha256` of the firmware, as far as it said."""
        if seen.kind in (ConsoleEventKind.LINE, ConsoleEventKind.MESSAGE):
            self._file.line(self._clock.utc(), seen.text)
        elif seen.kind is ConsoleEventKind.RESET:
            self._elf = ""
            self._note(NoteKind.RESET, f"the board was reset: {seen.text}")
        elif seen.kind is ConsoleEventKind.GAP:
            self._note(NoteKind.BACK, seen.text)
        if seen.message is not None and running not in ("", self._elf):
            self._elf = running
            self._note(NoteKind.BOOT, f"firmware {running[:16]} says that it runs", running)

    def close(self) -> None:
        """Idempotent."""
        self._writer.close(CLOSE_S)

    def _note(self, kind: NoteKind, text: str, elf: str = "") -> None:
        self._file.note(ConsoleNote(0, self._clock.utc(), self._clock.now_s(), kind, text, elf=elf))
