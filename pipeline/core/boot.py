"""Watch a boot: bytes and instants in, marks and a verdict out.

Sans-I/O: does not know ports, clocks or threads; the caller reads the link, feeds what came with the link's time, and
calls `expire` with the time after each read. `SIGNS` is the only place that says what a boot log's lines mean.
Invariant: verdict, names of the marks and the log tail depend only on the bytes, not on how they were cut into chunks;
memory is bounded whatever the device sends.

Theory. The bytes are cut into lines. A line that is a valid JSON-RPC 2.0 message is the firmware speaking; if it names
`app_elf_sha256`, that decides the boot. Every other line is searched for signs. A panic, and a chip that waits in its
loader, are *suspicions* first. The verdict on a panic comes when its log is complete (the chip resets, or is quiet for
`SETTLE_S`); the loader's message may be left over from the entry to the loader, so what the chip says next clears it.
A reset starts a new boot: the marks after ROM_BANNER belong to the last boot, FIRST_BYTE and FIRST_LINE to the first.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from pipeline.core.failures import fail
from pipeline.core.model import Failure, FailureCategory, Mark, MarkName, Stage

MAX_LINE = 64 * 1024
"""Bytes of one line that are kept. A longer line is cut, and cannot be a message."""

TAIL_LINES = 200
TAIL_COLUMNS = 400
"""The log tail: so many lines, each cut to so many characters."""

BOOT_LOOP_AFTER = 3
"""Resets (or refused image headers) without a ready firmware that make a boot loop."""

SETTLE_S = 0.25
"""How long the link must be quiet after a panic, or the loader's message, until that is the verdict."""


class Sign(StrEnum):
    """What one line of a boot log can mean."""

    BANNER = "banner"
    RESET = "reset"
    LOADER = "loader"
    BAD_HEADER = "bad-header"
    REFUSED = "refused"
    DOWNLOAD = "download"
    PANIC = "panic"
    REBOOTING = "rebooting"


SIGNS: Mapping[Sign, re.Pattern[str]] = {
    # First line of the mask ROMs since ESP32-S2; ESP32's starts with `ets <date>` and has no name.
    Sign.BANNER: re.compile(r"ESP-ROM:"),
    # `rst:0x1 (POWERON),boot:0xc (SPI_FAST_FLASH_BOOT)`, once per reset, all chips.
    Sign.RESET: re.compile(r"\brst:(0x[0-9a-fA-F]+)(?: \((\w+)\))?"),
    # The rest of what the ROM and the second stage bootloader print: everything before the application speaks.
    Sign.LOADER: re.compile(
        r"^(ets |Build:|SPIWP:|mode:|load:|entry |configsip:|clk_drv:|Saved PC:|ho \d|csum err|secure boot|"
        r"flash read err|ets_main\.c|invalid header|invalid magic|waiting for download|Checksum failure|"
        r"SHA-256 comparison failed|Calculated: |Expected: |Attempting to boot|boot: |"
        r"[EWIDV] \(\d+\) (boot|esp_image|bootloader|flash_parts|qio_mode|secure_boot|flash_encrypt|efuse)[\w.]*:)"
    ),
    Sign.BAD_HEADER: re.compile(r"invalid header: 0x"),
    # Why the ROM or the bootloader would not start an image: the cause of the reset that follows.
    Sign.REFUSED: re.compile(
        r"^(boot: error: |boot: .* rejected: |Checksum failure|csum err|flash read err|E \(\d+\) (boot|esp_image))"
    ),
    Sign.DOWNLOAD: re.compile(r"waiting for download"),
    Sign.PANIC: re.compile(
        r"Guru Meditation|panic'ed|abort\(\) was called|Brownout detector|^assert failed:|A stack overflow in task"
    ),
    Sign.REBOOTING: re.compile(r"^Rebooting\.\.\."),
}

_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def signs(line: str) -> frozenset[Sign]:
    """The signs in one line (without colour codes)."""
    return frozenset(sign for sign, pattern in SIGNS.items() if pattern.search(line))


class Ready(NamedTuple):
    """The firmware that was expected is running and said so. `at_s`: link time of the message's first byte."""

    at_s: float
    app_elf_sha256: str
    message: Mapping[str, Any]


def parse_jsonrpc(line: bytes) -> dict[str, Any] | None:
    """The JSON-RPC 2.0 message (request, notification or response) that is the whole of `line`, or `None`.

    Source: jsonrpc.org/specification, sections 4 and 5. Batches are not messages of a line server."""
    if not line.lstrip().startswith(b"{"):
        return None
    try:
        value = json.loads(line.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or value.get("jsonrpc") != "2.0":
        return None
    if "id" in value and not (value["id"] is None or _is_id(value["id"])):
        return None
    if "method" in value:
        valid = isinstance(value["method"], str) and isinstance(value.get("params", {}), dict | list)
        return value if valid and not ("result" in value or "error" in value) else None
    if "id" not in value or ("result" in value) == ("error" in value):
        return None
    return value if "result" in value or isinstance(value["error"], dict) else None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _is_id(value: object) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def reported_sha256(message: Mapping[str, Any]) -> str | None:
    """`app_elf_sha256` of a message's params or result, if it carries one."""
    for key in ("params", "result"):
        body = message.get(key)
        if isinstance(body, dict) and isinstance(body.get("app_elf_sha256"), str):
            return str(body["app_elf_sha256"])
    return None


class BootWatcher:
    """One boot, from the release of reset. Feed it until `verdict` is set.

    `expected_elf_sha256`: 64 hex digits, this build's. `reset_released_s`: link time. `timeout_s`: from there to the
    first message that names the image. `where` begins the failures' lines, e.g. `device bench on /dev/ttyUSB0`."""

    def __init__(
        self, expected_elf_sha256: str, reset_released_s: float, timeout_s: float, *, where: str = "device"
    ) -> None:
        self._expected = expected_elf_sha256.lower()
        self._where = where
        self._released_s = reset_released_s
        self._timeout_s = timeout_s
        self._marks = {MarkName.RESET_RELEASED: Mark(MarkName.RESET_RELEASED, reset_released_s)}
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._pending = bytearray()
        self._pending_at_s = reset_released_s
        self._overlong = False
        self._fed = 0
        self._line_count = 0
        self._garbled = 0
        self._resets = 0
        self._last_reset = ""
        self._bad_headers = 0
        self._in_banner = False
        self._refused = ""
        self._last_at_s = reset_released_s
        self._suspect: tuple[FailureCategory, str] | None = None
        self.verdict: Ready | Failure | None = None
        self.leftover = b""
        """The rest of the chunk after the line that decided, for the monitor that takes over."""

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
    def deadline_s(self) -> float:
        """The link time at which `expire` decides; comes nearer when a panic was seen."""
        deadline = self._released_s + self._timeout_s
        return deadline if self._suspect is None else min(deadline, self._last_at_s + SETTLE_S)

    def feed(self, at_s: float, data: bytes) -> None:
        """`data` arrived at `at_s` (link time). Bytes from before the reset are ignored: another life sent them."""
        if self.verdict is not None or not data or at_s < self._released_s:
            return
        self._fed += len(data)
        self._last_at_s = at_s
        self._mark(MarkName.FIRST_BYTE, at_s)
        start = 0
        while self.verdict is None and (end := data.find(b"\n", start)) >= 0:
            self._collect(at_s, data, start, end)
            self._end_line()
            start = end + 1
        if self.verdict is None:
            self._collect(at_s, data, start, len(data))
        else:
            self.leftover = data[start:]

    def expire(self, now_s: float) -> None:
        """Decide if the deadline has passed; call it after each read, also when nothing came."""
        if self.verdict is not None or now_s < self.deadline_s:
            return
        if self._pending:
            # A panic message without its line end is still one; a message without it is not complete.
            self._look(*self._show(bytes(self._pending)))
        if self.verdict is None:
            self.verdict = self._suspected() if self._suspect else self._silent()

    def _collect(self, at_s: float, data: bytes, start: int, end: int) -> None:
        if start == end:
            return
        if not self._pending:
            self._pending_at_s = at_s
        room = MAX_LINE - len(self._pending)
        self._overlong = self._overlong or end - start > room
        self._pending += data[start : min(end, start + room)]

    def _end_line(self) -> None:
        raw, overlong = bytes(self._pending), self._overlong
        self._pending.clear()
        self._overlong = False
        if not raw.strip():
            return
        self._mark(MarkName.FIRST_LINE, self._pending_at_s)
        message = None if overlong else parse_jsonrpc(raw)
        line, clean = self._show(raw)
        if message is None:
            self._look(line, clean)
            return
        self._mark(MarkName.APP_START, self._pending_at_s)
        self._mark(MarkName.FIRST_JSONRPC, self._pending_at_s)
        self._hear(message)

    def _show(self, raw: bytes) -> tuple[str, bool]:
        """Add a line to the tail; returns its text without colours, and whether all of it is printable text."""
        try:
            text = raw.decode("utf-8")
            clean = True
        except UnicodeDecodeError:
            text = raw.decode("utf-8", "backslashreplace")
            clean = False
        text = _ANSI.sub("", text).strip()
        clean = clean and text.replace("\t", " ").isprintable()
        self._line_count += 1
        self._garbled += not clean
        shown = "".join(c if c.isprintable() or c == "\t" else f"\\x{ord(c):02x}" for c in text[:TAIL_COLUMNS])
        self._tail.append(shown + "…" if len(text) > TAIL_COLUMNS else shown)
        return text, clean

    def _look(self, line: str, clean: bool) -> None:
        found = signs(line)
        if Sign.REFUSED in found:
            self._refused = line
        if found & {Sign.BANNER, Sign.RESET}:
            self._rom_line(line, found)
        elif Sign.PANIC in found:
            # The first cause stands: a panic prints more lines that look like one.
            if not self._panicked:
                self._suspect = (FailureCategory.PANIC, line)
        elif Sign.DOWNLOAD in found:
            self._suspect = self._suspect or (FailureCategory.SYNC_FAILED, line)
        elif Sign.REBOOTING in found:
            self._settle_panic()
        elif Sign.BAD_HEADER in found:
            self._bad_headers += 1
            if self._bad_headers >= BOOT_LOOP_AFTER:
                self.verdict = self._boot_loop()
        elif clean and Sign.LOADER not in found and not self._panicked:
            self._suspect = None
            self._mark(MarkName.APP_START, self._pending_at_s)

    def _rom_line(self, line: str, found: frozenset[Sign]) -> None:
        if Sign.BANNER in found or not self._in_banner:
            self._settle_panic()
            if self.verdict is not None:
                return
            self._suspect = None
            for name in (MarkName.ROM_BANNER, MarkName.APP_START, MarkName.FIRST_JSONRPC):
                self._marks.pop(name, None)
            self._mark(MarkName.ROM_BANNER, self._pending_at_s)
        self._in_banner = Sign.RESET not in found
        reset = SIGNS[Sign.RESET].search(line)
        if reset is None:
            return
        self._resets += 1
        self._last_reset = reset.group(0)
        if self._resets >= BOOT_LOOP_AFTER:
            self.verdict = self._boot_loop()

    def _hear(self, message: dict[str, Any]) -> None:
        self._suspect = None
        sha256 = reported_sha256(message)
        if sha256 is None:
            return
        if sha256.lower() == self._expected:
            self.verdict = Ready(self._pending_at_s, self._expected, message)
        else:
            self.verdict = self._fail(
                FailureCategory.WRONG_IMAGE,
                f"the device runs app_elf_sha256 {sha256[:TAIL_COLUMNS]!a}, this build is {self._expected!r}",
            )

    def _mark(self, name: MarkName, at_s: float) -> None:
        self._marks.setdefault(name, Mark(name, at_s))

    @property
    def _panicked(self) -> bool:
        return self._suspect is not None and self._suspect[0] is FailureCategory.PANIC

    def _settle_panic(self) -> None:
        if self._panicked:
            self.verdict = self._suspected()

    def _suspected(self) -> Failure:
        assert self._suspect is not None
        category, line = self._suspect
        if category is FailureCategory.PANIC:
            return self._fail(category, f"the firmware crashed while booting: {line[:200]}")
        return self._fail(
            category,
            "the chip stayed in its ROM loader (`waiting for download`) instead of starting the firmware",
            "release BOOT (a strapping pin holds the chip in the loader), press and release EN (reset), then run again",
        )

    def _boot_loop(self) -> Failure:
        if self._bad_headers >= BOOT_LOOP_AFTER:
            return self._fail(
                FailureCategory.BOOT_LOOP,
                f"the ROM refused the bootloader {self._bad_headers} times: {self._tail[-1]}",
                "write the bootloader: its flash is erased or damaged, or it was built for another offset",
            )
        why = f"; the last refusal was: {self._refused[:200]}" if self._refused else ""
        return self._fail(
            FailureCategory.BOOT_LOOP,
            f"the chip reset {self._resets} times without becoming ready (last {self._last_reset}){why}",
        )

    def _silent(self) -> Failure:
        limit = f"within {round(self._timeout_s * 1000)} ms of reset"
        if not self._fed:
            return self._fail(FailureCategory.NO_OUTPUT, f"not one byte came {limit}")
        came = f"{self._fed} bytes in {self._line_count} lines"
        if MarkName.FIRST_JSONRPC in self._marks:
            return self._fail(
                FailureCategory.RPC_TIMEOUT,
                f"JSON-RPC messages came {limit}, but none names the app_elf_sha256 {self._expected!r} ({came})",
                "send `app_elf_sha256` in the notification `ready`, or in the result of `info`",
            )
        garbled = self._garbled * 2 > self._line_count
        return self._fail(
            FailureCategory.RPC_TIMEOUT,
            f"no JSON-RPC message came {limit}, but {came}",
            "set the device's `monitor_baud` to the firmware's: most of the output is not text" if garbled else None,
        )

    def _fail(self, category: FailureCategory, message: str, hint: str | None = None) -> Failure:
        return fail(
            category,
            stage=Stage.TTFB,
            where=self._where,
            message=message,
            hint=hint,
            detail="\n".join(self._tail),
        )
