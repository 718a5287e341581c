"""Watch a boot: bytes and instants in, marks and a verdict out.

Sans-I/O: does not know ports, clocks or threads; the caller reads the link, feeds what came with the link's time, sends
what `request` gives it, and calls `expire` with the time after each read. What a line means is said by
`boot/log_patterns.py`, what "ready" means by `boot/readiness.py`; the words of a failure are `boot/verdicts.py`'s.
Invariant: verdict, names of the marks and the log tail depend only on the bytes, not on how they were cut into chunks;
memory is bounded whatever the device sends.

Theory. The bytes are cut into lines. A line that is a valid JSON-RPC 2.0 message is the firmware speaking; if it names
`app_elf_sha256`, that decides whether the right image runs. Every other line is searched for what it can mean. A panic,
and a chip that waits in its loader, are *suspicions* first. The verdict on a panic comes when its log is complete (the
chip resets, or is quiet for `SETTLE_S`); the loader's message may be left over from the entry to the loader, so what
the chip says next clears it. A reset starts a new boot: the marks after ROM_BANNER belong to the last boot, FIRST_BYTE
and FIRST_LINE to the first, and what the firmware said of itself before the reset counts no more. A wake from deep
sleep is such a start, and no failure.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.boot import verdicts
from pipeline.boot.line_pattern import LinePattern
from pipeline.boot.lines import Line, LineCutter
from pipeline.boot.log_patterns import (
    DEEP_SLEEP,
    PATTERNS,
    LineKind,
    line_kinds,
    plain_line,
    reset_cause,
    started_at,
    visible,
)
from pipeline.boot.readiness import NO_HEALTH_HINT, UNHEALTHY_HINT, Health
from pipeline.boot.readiness_poll import ReadinessPoll
from pipeline.config.until import ReadinessGate, Until
from pipeline.failures import fail
from pipeline.formats.jsonrpc import parse_jsonrpc, reported_mac, reported_sha256
from pipeline.model import Failure, FailureCategory, Mark, MarkName, Stage

TAIL_LINES = 200
TAIL_COLUMNS = 400
"""The log tail: so many lines, each cut to so many characters."""

BOOT_LOOP_AFTER = 3
"""Resets (or refused image headers) without a ready firmware that make a boot loop."""

SETTLE_S = 0.25
"""How long the link must be quiet after a panic, or the loader's message, until that is the verdict."""


READY = Until(ReadinessGate.READY, ReadinessGate.READY.value)


class Ready(NamedTuple):
    """What was waited for has come. `at_s`: link time of its first byte. `app_elf_sha256` is what the device said of
    itself, and empty where readiness does not ask it (`line:`, `byte`); `message` is the one that decided."""

    at_s: float
    app_elf_sha256: str
    message: Mapping[str, Any]


class BootWatcher:
    """One boot, from the release of reset. Feed it until `verdict` is set.

    `expected_elf_sha256`: 64 hex digits, this build's. `reset_released_s`: link time. `timeout_s`: from there to
    readiness. `where` begins the failures' lines, e.g. `device bench on /dev/ttyUSB0`. `app_offset`: where in flash
    this build's application lies (bytes); a readiness gate that does not ask the firmware who it is compares that with
    what the bootloader says, where it says anything. `mac`: of the board that was reset, lower case with colons, where
    it is known; a board that comes back after its port was gone must not name another."""

    def __init__(
        self,
        expected_elf_sha256: str,
        reset_released_s: float,
        timeout_s: float,
        *,
        where: str = "device",
        until: Until = READY,
        allow_unhealthy: bool = False,
        app_offset: int | None = None,
        mac: str = "",
    ) -> None:
        self._expected = expected_elf_sha256.lower()
        self._where = where
        self._released_s = reset_released_s
        self._timeout_s = timeout_s
        self._until = until
        self._allow_unhealthy = allow_unhealthy
        self._app_offset = app_offset
        self._mac = mac
        self._pattern = LinePattern(until.pattern) if until.pattern is not None else None
        self._marks = {MarkName.RESET_RELEASED: Mark(MarkName.RESET_RELEASED, reset_released_s)}
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._cutter = LineCutter()
        self._fed = 0
        self._line_count = 0
        self._garbled = 0
        self._resets = 0
        self._last_reset = ""
        self._rom_refusals = 0
        self._in_banner = False
        self._peeked = False
        """The unfinished line was looked at, and no byte came since."""
        self._refused = ""
        """The last line that says why an image would not start; empty once an application spoke."""
        self._not_executed = ""
        """A virtual board's word for what it has no model of."""
        self._last_at_s = reset_released_s
        self._suspect: tuple[FailureCategory, str] | None = None
        self._proven: Mapping[str, Any] | None = None
        """The message that named this build, since the last reset."""
        self._poll = ReadinessPoll()
        self._gone: list[float] = []
        self.verdict: Ready | Failure | None = None

    @property
    def marks(self) -> tuple[Mark, ...]:
        """The marks so far, in the order of a healthy boot."""
        return tuple(self._marks[name] for name in MarkName if name in self._marks)

    @property
    def lines(self) -> tuple[str, ...]:
        """The tail of the log up to the verdict, printable text, without line ends."""
        return tuple(self._tail)

    @property
    def resets(self) -> int:
        """Reset lines of the ROM so far; a healthy boot has one (none on a transport that hides the ROM)."""
        return self._resets

    @property
    def polls(self) -> int:
        """How often the firmware was asked."""
        return self._poll.count

    @property
    def health(self) -> Health | None:
        """What the firmware said of its modules, since the last reset."""
        return self._poll.health

    @property
    def reason(self) -> str:
        """Why the readiness gate did not pass, for programs: the category, and what it is about where there is
        something."""
        if not isinstance(self.verdict, Failure):
            return ""
        category = self.verdict.category
        if category is FailureCategory.UNHEALTHY and self.health is not None:
            return self.health.reason
        return f"{category}:{self._resets}" if category is FailureCategory.BOOT_LOOP else str(category)

    @property
    def deadline_s(self) -> float:
        """The link time at which something is to be done: `expire` decides, or `request` asks."""
        deadline = self._released_s + self._timeout_s
        if self._unsettled:
            deadline = min(deadline, self._last_at_s + SETTLE_S)
        return deadline if self._poll.due_at_s is None else min(deadline, self._poll.due_at_s)

    @property
    def _unsettled(self) -> bool:
        """Will a quiet link decide?"""
        waits = self._until.gate in (ReadinessGate.BYTE, ReadinessGate.LINE)
        prompt = waits and self._cutter.pending is not None and not self._peeked
        return self._suspect is not None or prompt

    def feed(self, at_s: float, data: bytes) -> None:
        """`data` arrived at `at_s` (link time). Bytes from before the reset are ignored: another life sent them."""
        if self.verdict is not None or not data or at_s < self._released_s:
            return
        self._fed += len(data)
        self._last_at_s = at_s
        self._peeked = False
        self._mark(MarkName.FIRST_BYTE, at_s)
        place = 0
        while self.verdict is None and place < len(data):
            line, place = self._cutter.take(at_s, data, place)
            if line is not None:
                self._end_line(line)

    def request(self, now_s: float) -> bytes:
        """What is to be sent now, if anything."""
        method = "info" if self._proven is None else "health"
        return self._poll.request(now_s, method) if self.verdict is None else b""

    def reenumerated(self, gone_s: float, back_s: float) -> None:
        """The port was gone between these instants. What is lost may hold the firmware's announcement, so that one that
        speaks JSON-RPC is asked who it is."""
        self._cutter.clear()
        self._gone.append(back_s - gone_s)
        times = f" ({len(self._gone)} times)" if len(self._gone) > 1 else ""
        note = f"the port was gone for {round(sum(self._gone) * 1000)} ms{times}; what came meanwhile is lost"
        self._marks[MarkName.REENUMERATED] = Mark(MarkName.REENUMERATED, back_s, note)
        if MarkName.FIRST_BYTE not in self._marks:
            self._marks[MarkName.PORT_OPEN] = Mark(MarkName.PORT_OPEN, back_s, "opened again after the reset")
        if self._until.speaks_rpc:
            self._poll.due_at_s = back_s

    def expire(self, now_s: float) -> None:
        """Decide if the deadline has passed; call it after each read, also when nothing came."""
        if self.verdict is not None or now_s < self.deadline_s:
            return
        final = now_s >= self._released_s + self._timeout_s
        if not final and not (self._unsettled and now_s >= self._last_at_s + SETTLE_S):
            return
        # A panic message without its line end is still one; a message without it is not complete. Nor does a prompt
        # have one, and it is a byte of the application like any other.
        if (pending := self._cutter.pending) is not None and not self._peeked:
            self._peeked = True
            self._look(pending.at_s, *self._show(pending.raw))
            if self.verdict is None:
                self._match(pending)
        if self.verdict is None and (final or self._suspect is not None):
            self.verdict = self._suspected() if self._suspect else self._silent()

    # --- lines --------------------------------------------------------------------------------

    def _end_line(self, line: Line) -> None:
        if not line.raw.strip():
            return
        self._mark(MarkName.FIRST_LINE, line.at_s)
        message = None if line.cut else parse_jsonrpc(line.raw)
        text, clean = self._show(line.raw)
        if message is None:
            self._look(line.at_s, text, clean)
        else:
            self._mark(MarkName.APP_START, line.at_s)
            self._mark(MarkName.FIRST_JSONRPC, line.at_s)
            self._hear(line.at_s, message)
        if self.verdict is None:
            self._match(line)
        if self.verdict is None and self._not_executed:
            self.verdict = self._fail(*verdicts.not_executed(self._not_executed))

    def _show(self, raw: bytes) -> tuple[str, bool]:
        """Add a line to the tail; returns its text without colours, and whether all of it is printable text."""
        text, clean = plain_line(raw)
        self._line_count += 1
        self._garbled += not clean
        shown = visible(text[:TAIL_COLUMNS])
        self._tail.append(shown + "…" if len(text) > TAIL_COLUMNS else shown)
        return text, clean

    def _match(self, line: Line) -> None:
        """Does this line make a device ready that is not asked who it is?"""
        if self._suspect is not None:
            return
        if self._until.gate is ReadinessGate.BYTE and MarkName.APP_START in self._marks:
            self.verdict = Ready(self._marks[MarkName.APP_START].at_s, "", {})
        elif self._pattern is not None and self._pattern.search(plain_line(line.raw)[0]):
            self.verdict = Ready(line.at_s, "", {})

    def _look(self, at_s: float, line: str, clean: bool) -> None:
        found = line_kinds(line)
        if LineKind.REFUSED in found and not (self._refused and line.startswith("ets_loader.c")):
            self._refused = line
        if LineKind.NOT_EXECUTED in found:
            self._not_executed = line
        if found & {LineKind.BANNER, LineKind.RESET}:
            self._rom_line(at_s, line, found)
        elif LineKind.PANIC in found:
            # The first cause stands: a panic prints more lines that look like one.
            if not self._panicked:
                self._suspect = (FailureCategory.PANIC, line)
        elif LineKind.DOWNLOAD in found:
            self._suspect = self._suspect or (FailureCategory.SYNC_FAILED, line)
        elif LineKind.REBOOTING in found:
            self._settle_panic()
        elif LineKind.ROM_REFUSAL in found:
            self._rom_refusals += 1
            if self._rom_refusals >= BOOT_LOOP_AFTER:
                self.verdict = self._fail(*verdicts.rom_refused(self._refused, self._rom_refusals))
        elif clean and LineKind.LOADER not in found and not self._panicked:
            self._suspect = None
            self._refused = ""
            self._mark(MarkName.APP_START, at_s)
        elif (offset := started_at(line)) is not None:
            self._started(offset)

    def _started(self, offset: int) -> None:
        """The bootloader starts the application that lies there."""
        if self._until.speaks_rpc or self._app_offset is None or offset == self._app_offset:
            return
        self.verdict = self._fail(*verdicts.started_elsewhere(offset, self._app_offset, self._refused))

    def _rom_line(self, at_s: float, line: str, found: frozenset[LineKind]) -> None:
        if LineKind.BANNER in found or not self._in_banner:
            self._settle_panic()
            if self.verdict is not None:
                return
            self._suspect = None
            self._new_boot(at_s)
        self._in_banner = LineKind.RESET not in found
        reset = re.search(PATTERNS[LineKind.RESET], line)
        if reset is None:
            return
        if reset_cause(line) == DEEP_SLEEP:
            # The application slept and woke: it runs, and nothing failed.
            return
        self._resets += 1
        self._last_reset = reset.group(0)
        if self._resets >= BOOT_LOOP_AFTER:
            self.verdict = self._boot_loop()

    def _new_boot(self, at_s: float) -> None:
        for name in (MarkName.ROM_BANNER, MarkName.APP_START, MarkName.FIRST_JSONRPC):
            self._marks.pop(name, None)
        self._mark(MarkName.ROM_BANNER, at_s)
        self._proven = None
        self._poll.restart()

    # --- messages -----------------------------------------------------------------------------

    def _hear(self, at_s: float, message: dict[str, Any]) -> None:
        self._suspect = None
        self._refused = ""
        told = self._poll.hear(message)
        sha256 = reported_sha256(message)
        mac = (reported_mac(message) or "").lower()
        if self._gone and self._mac and mac not in ("", self._mac):
            self.verdict = self._fail(*verdicts.another_board(mac, self._mac))
            return
        if not self._until.speaks_rpc:
            return
        if sha256 is not None and sha256.lower() != self._expected:
            self.verdict = self._fail(
                FailureCategory.WRONG_IMAGE,
                f"the device runs app_elf_sha256 {sha256[:TAIL_COLUMNS]!a}, this build is {self._expected!r}",
            )
        elif sha256 is not None and self._until.gate is ReadinessGate.READY:
            self.verdict = Ready(at_s, self._expected, message)
        elif sha256 is not None and self._proven is None:
            self._proven = message
            self._poll.due_at_s = at_s
        elif self._poll.refused:
            self.verdict = self._no_health()
        elif told and self.health is not None and (self.health.ok or self._allow_unhealthy):
            # A module that is not set up may still become so, until the deadline.
            self._mark(MarkName.HEALTH, at_s)
            self.verdict = Ready(at_s, self._expected, message)

    def _mark(self, name: MarkName, at_s: float) -> None:
        self._marks.setdefault(name, Mark(name, at_s))

    # --- verdicts -----------------------------------------------------------------------------

    @property
    def _panicked(self) -> bool:
        return self._suspect is not None and self._suspect[0] is FailureCategory.PANIC

    def _settle_panic(self) -> None:
        if self._panicked:
            self.verdict = self._suspected()

    def _suspected(self) -> Failure:
        assert self._suspect is not None
        category, line = self._suspect
        return self._fail(*(verdicts.panicked(line) if category is FailureCategory.PANIC else verdicts.in_loader()))

    def _boot_loop(self) -> Failure:
        return self._fail(*verdicts.boot_loop(self._resets, self._last_reset, self._refused, self._rom_refusals))

    def _silent(self) -> Failure:
        limit = f"within {round(self._timeout_s * 1000)} ms of reset"
        if not self._fed:
            return self._fail(FailureCategory.NO_OUTPUT, f"not one byte came {limit}")
        came = f"{self._fed} bytes in {self._line_count} lines"
        if self._proven is not None:
            return self._unhealthy(limit)
        if self._refused:
            return self._fail(*verdicts.refused(self._refused, self._rom_refusals, limit))
        if not self._until.speaks_rpc:
            byte = self._until.gate is ReadinessGate.BYTE
            wanted = "nothing of the application" if byte else f"not a line that {self._until.text!r} matches"
            return self._fail(FailureCategory.RPC_TIMEOUT, f"{wanted} came {limit}, but {came}", self._baud_hint())
        if MarkName.FIRST_JSONRPC in self._marks:
            return self._fail(
                FailureCategory.RPC_TIMEOUT,
                f"JSON-RPC messages came {limit}, but none names the app_elf_sha256 {self._expected!r} ({came})",
                "send `app_elf_sha256` in the notification `ready`, or in the result of `info`",
            )
        return self._fail(
            FailureCategory.RPC_TIMEOUT, f"no JSON-RPC message came {limit}, but {came}", self._baud_hint()
        )

    def _baud_hint(self) -> str | None:
        if self._pattern is not None and self._pattern.slow:
            return f"simplify the expression of {self._until.text!r}: it takes too long on what the device says"
        garbled = self._garbled * 2 > self._line_count
        return "set the device's `monitor_baud` to the firmware's: most of the output is not text" if garbled else None

    def _unhealthy(self, limit: str) -> Failure:
        """This build runs, but `health` did not say that all is well."""
        if self.health is None:
            why = self._poll.problem or f"the firmware did not answer `health` ({self.polls} times asked)"
            return self._no_health(f"{why} {limit}")
        message = f"not every module is set up {limit}: {self.health.complaint}"
        return self._fail(FailureCategory.UNHEALTHY, message, UNHEALTHY_HINT)

    def _no_health(self, why: str = "") -> Failure:
        return self._fail(FailureCategory.RPC_TIMEOUT, why or self._poll.problem, NO_HEALTH_HINT)

    def _fail(self, category: FailureCategory, message: str, hint: str | None = None) -> Failure:
        return fail(
            category,
            stage=Stage.TTFB,
            where=self._where,
            message=message,
            hint=hint,
            detail="\n".join(self._tail),
        )
