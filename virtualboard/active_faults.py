"""What faults do to time, flash and bytes: which one strikes when, what a write leaves behind, what a line delivers.

Does not know the board's modes or the transports: a strike is handed to the board, which acts. Invariant: without
faults every answer is the identity, and the same faults with the same bytes at the same instants do the same.
"""

from __future__ import annotations

from collections.abc import Iterable

from virtualboard import faults as f
from virtualboard.faults import Fault

SECTOR = 0x1000
MAX_FAULTS = 64
# A fault that repeats at once would leave the chip no time at all.
_SHORTEST_S = 0.01
# These end a write in the middle.
_TORN = frozenset({f.BROWN_OUT, f.POWER_CUT, f.WATCHDOG})
_WIRE = frozenset({f.DROP, f.GARBLE, f.DUPLICATE})


class TooManyFaults(f.BadFault):
    """The board has as many faults as it can."""


class _Armed:
    """A fault with what it has seen: `left` strikes (None: for ever), writes, bytes."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.left = None if fault.times == 0 else fault.times
        self.due: float | None = None
        self.started = False
        self.writes = self.seen = 0
        import random  # most boards have no fault

        self.random = random.Random(fault.seed)


class ActiveFaults:
    """The faults of one board, in the order in which they were set. They outlive the board that they strike, so that
    a fault that has struck is spent when the board is opened again."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._armed: list[_Armed] = []
        self._struck: list[Fault] = []
        self.dead = False  # the power failed in the middle of a write: nothing more reaches the flash
        for fault in faults:
            self.add(fault)

    def add(self, fault: Fault) -> None:
        """Set one more fault; its times count from the next `start`. Raises TooManyFaults."""
        if len(self._armed) >= MAX_FAULTS:
            raise TooManyFaults(f"the board has {MAX_FAULTS} faults already\nClear them first.")
        self._armed.append(_Armed(fault))

    def clear(self) -> None:
        """Forget every fault."""
        self._armed.clear()

    @property
    def texts(self) -> list[str]:
        """The faults that are not spent, as they were written."""
        return [armed.fault.text for armed in self._armed if armed.left != 0]

    # --- time -------------------------------------------------------------------------------------

    def start(self, now: float) -> None:
        """The board has power: faults that nobody started yet count from here."""
        for armed in self._armed:
            if not armed.started:
                armed.started = True
                armed.due = None if armed.fault.after is None else now + armed.fault.after

    def booted(self, now: float) -> None:
        """The chip has begun to boot."""
        for armed in self._armed:
            if armed.fault.boot is not None and armed.left != 0:
                armed.due = now + armed.fault.boot

    @property
    def next_at(self) -> float | None:
        """When the next fault strikes by itself."""
        return min((armed.due for armed in self._armed if armed.due is not None), default=None)

    def strikes(self, now: float) -> list[Fault]:
        """The faults that strike by now, each once."""
        out = []
        for armed in self._armed:
            if armed.due is not None and armed.due <= now:
                after = armed.fault.after
                armed.due = None if after is None else now + max(after, _SHORTEST_S)
                if not self._spend(armed):
                    armed.due = None
                out.append(armed.fault)
        return out

    def take_struck(self) -> list[Fault]:
        """The faults that struck during the writes since the last call."""
        struck, self._struck = self._struck, []
        return struck

    @staticmethod
    def _spend(armed: _Armed) -> bool:
        """Count one strike; whether there are more."""
        if armed.left is not None:
            armed.left -= 1
        return armed.left != 0

    # --- boots --------------------------------------------------------------------------------------

    def slow_boot_s(self) -> float:
        """Seconds that this boot takes more. Counts as one boot."""
        seconds = 0.0
        for armed in self._armed:
            if armed.fault.kind == f.SLOW_BOOT and armed.left != 0:
                self._spend(armed)
                seconds += armed.fault.by
        return seconds

    def loops(self) -> bool:
        """Whether the firmware is not even started."""
        return any(armed.fault.kind == f.BOOT_LOOP and armed.left != 0 for armed in self._armed)

    def identity(self, chip: str, mac: str) -> tuple[str, str]:
        """Name and MAC that the chip has from now on."""
        for armed in self._armed:
            chip = armed.fault.chip or chip
            mac = armed.fault.mac or mac
        return chip, mac

    # --- flash (`nor.Wear`) ---------------------------------------------------------------------------

    def programmed(self, offset: int, data: bytes) -> list[tuple[int, bytes]]:
        """What a write of `data` really programs."""
        if self.dead or not self._armed:
            return [] if self.dead else [(offset, data)]
        for armed in self._armed:
            if armed.fault.write is None or armed.left == 0:
                continue
            armed.writes += 1
            if armed.writes % armed.fault.write == 0:
                self._spend(armed)
                self._struck.append(armed.fault)
                if armed.fault.kind in _TORN:
                    self.dead = True
        if self.dead:
            data = data[: _half(offset, len(data))]
        return [(at, data[at - offset : end - offset]) for at, end in self._sound(offset, len(data))]

    def erased(self, offset: int, n: int) -> list[tuple[int, int]]:
        """The parts (offset, size) that an erase really erases."""
        if self.dead:
            return []
        return [(at, end - at) for at, end in self._sound(offset, n)]

    def _sound(self, offset: int, n: int) -> list[tuple[int, int]]:
        """The parts (start, end) of a region that lie in no worn sector."""
        worn = sorted(
            (armed.fault.sector // SECTOR * SECTOR, armed.fault.amount)
            for armed in self._armed
            if armed.fault.kind == f.WORN
        )
        parts, at, end = [], offset, offset + n
        for start, count in worn:
            if start < end and start + count * SECTOR > at:
                if start > at:
                    parts.append((at, start))
                at = min(end, start + count * SECTOR)
        return [*parts, (at, end)] if at < end else parts

    # --- the line -------------------------------------------------------------------------------------

    def takes(self, baud: int) -> bool:
        """Whether the line carries this rate."""
        return not any(armed.fault.kind == f.SLOW_LINE and baud > armed.fault.baud for armed in self._armed)

    def line(self, to: str, data: bytes) -> bytes:
        """What arrives of `data` sent to `host` or `board`."""
        for armed in self._armed:
            if armed.fault.kind in _WIRE and armed.fault.to == to and data:
                data = _mangle(armed, data)
        return data


def _half(offset: int, n: int) -> int:
    """About the middle of a write, never between two sectors: the last one touched is half-written."""
    half = n // 2
    return half - min(half, 128) if (offset + half) % SECTOR == 0 else half


def _mangle(armed: _Armed, data: bytes) -> bytes:
    """Apply one line fault; positions count from the first byte that it sees."""
    fault = armed.fault
    out = bytearray()
    done = 0
    first = armed.seen
    armed.seen += len(data)
    start = fault.at
    if fault.every and start < first:
        start += (first - start) // fault.every * fault.every
    while start < armed.seen:
        low, high = max(start, first) - first, min(start + fault.amount, armed.seen) - first
        if low < high and high > done:
            low = max(low, done)
            out += data[done:low]
            out += _touched(armed, data[low:high])
            done = high
        if not fault.every:
            break
        start += fault.every
    return bytes(out + data[done:])


def _touched(armed: _Armed, data: bytes) -> bytes:
    match armed.fault.kind:
        case f.DROP:
            return b""
        case f.DUPLICATE:
            return b"".join(bytes([byte, byte]) for byte in data)
        case _:
            return bytes(byte ^ armed.random.randrange(1, 256) for byte in data)


def panic_text(fault: Fault, *, riscv: bool, sp: int) -> bytes:
    """What ESP-IDF's panic handler prints, in the form of the architecture (ESP-IDF, "Fatal Errors")."""
    if riscv:
        reason = "Load access fault"
        names = ["MEPC    : 0x{pc:08x}  RA      : 0x{ra:08x}  SP      : 0x{sp:08x}  GP      : 0x3fc8a600"]
        names += ["MSTATUS : 0x00001881  MTVEC   : 0x40380001  MCAUSE  : 0x00000005  MTVAL   : 0x00000000"]
        words = " ".join(f"0x{word:08x}" for word in (0, fault.ra, 0, fault.pc))
        tail = f"\r\nStack memory:\r\n{sp:08x}: {words}\r\n"
    else:
        reason = "LoadProhibited"
        names = ["PC      : 0x{pc:08x}  PS      : 0x00060f30  A0      : 0x{ra:08x}  A1      : 0x{sp:08x}"]
        names += ["EXCVADDR: 0x00000000  LBEG    : 0x00000000  LEND    : 0x00000000  LCOUNT  : 0x00000000"]
        tail = f"\r\nBacktrace: 0x{fault.pc:08x}:0x{sp:08x} 0x{fault.ra:08x}:0x{sp + 0x20:08x}\r\n"
    dump = "".join(line.format(pc=fault.pc, ra=fault.ra, sp=sp) + "\r\n" for line in names)
    text = (
        f"Guru Meditation Error: Core  0 panic'ed ({reason}). Exception was unhandled.\r\n"
        f"\r\nCore  0 register dump:\r\n{dump}{tail}\r\n\r\nRebooting...\r\n"
    )
    return text.encode()
