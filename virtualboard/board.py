"""The whole board: reset lines, boot strap, UART, and behind them the loader or the CPU. Sans-I/O.

Does not know ports, sockets, threads or sleeping: the owner calls `receive` and `set_lines` as things happen,
`advance` when `wake_at` says so, and takes what the chip sent with `transmit`. Time is only what `now` returns.
Invariant: everything that happens is due at a time; what is due is done in order of its time, by `advance`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Protocol

from virtualboard import protocol as p
from virtualboard import slip
from virtualboard.bus import Bus
from virtualboard.chips import Chip, efuse_words
from virtualboard.loader import RomLoader
from virtualboard.nor import NorFlash
from virtualboard.stub import GREETING, StubLoader
from virtualboard.timing import INSTANT, Timing

DEFAULT_BAUD = 115_200
# A UART samples in the middle of ten bits: beyond about 4 % the stop bit is missed.
_BAUD_TOLERANCE = 0.04
# One slice is a few milliseconds of host time, so that lines and input are looked at often.
SLICE_INSTRUCTIONS = 50_000
# What the chip sent and nobody took: a boot loop on a board that nobody listens to must not eat memory.
_MAX_UNREAD = 1 << 20


class Machine(Protocol):
    """The CPU with its peripherals (`rv32.Rv32Machine`), as the board drives it."""

    @property
    def idle(self) -> bool: ...
    @property
    def wake_at(self) -> float | None: ...
    @property
    def pending_reset(self) -> int | None: ...
    def reset(self, cause: int) -> None: ...
    def feed(self, data: bytes) -> None: ...
    def run(self, max_instructions: int) -> int: ...
    def transmit(self) -> bytes: ...


MachineFactory = Callable[[NorFlash, Mapping[int, int], Callable[[], float]], Machine]


class Mode(Enum):
    """What the chip does. `STRAP`: EN has risen, the boot strap is about to be sampled. `RAM`: a program in RAM."""

    OFF = "off"
    RESET = "held in reset"
    STRAP = "leaving reset"
    DOWNLOAD = "download"
    RAM = "ram program"
    RUN = "run"


class Board:
    """One board with `chip` and `flash`. `execute` False, or a chip without CPU model: firmware is not executed."""

    def __init__(
        self,
        chip: Chip,
        flash: NorFlash,
        mac: str,
        now: Callable[[], float],
        execute: bool = True,
        *,
        machine_factory: MachineFactory | None = None,
        timing: Timing = INSTANT,
    ) -> None:
        self.chip = chip
        self.flash = flash
        self.mac = mac
        self.mode = Mode.OFF
        self.executed = 0  # instructions so far
        self._now = now
        self._timing = timing
        self._registers = efuse_words(chip, mac)
        self._factory = machine_factory
        self._execute = execute
        self._machine: Machine | None = None
        self._lines = (False, False)
        self._en_rose_at = 0.0
        self._strap_cause = p.CAUSE_POWERON
        self._host_baud = DEFAULT_BAUD
        self._out = bytearray()
        self._bus = Bus(chip, flash, mac)
        self._chip_baud: int | None = None  # None: the ROM has not measured it yet
        self._enter(Mode.OFF)

    def power_on(self) -> None:
        """Apply power: the chip boots what is in flash (the lines are not asserted yet, so IO0 is high)."""
        self._boot(p.CAUSE_POWERON)

    def set_lines(self, dtr: bool, rts: bool) -> None:
        """The host's DTR and RTS, through the usual two transistors: EN low is RTS without DTR, IO0 low the reverse."""
        self._sample_strap()
        self._lines = (dtr, rts)
        if self.mode is Mode.OFF:
            return
        if rts and not dtr:
            self._enter(Mode.RESET)
        elif self.mode is Mode.RESET:
            self._enter(Mode.STRAP)
            self._strap_cause = p.CAUSE_POWERON
            self._en_rose_at = self._now()
        self._sample_strap()

    def set_baud(self, baud: int) -> None:
        """The host's rate, 8N1."""
        self._host_baud = baud

    def receive(self, data: bytes) -> None:
        """Bytes from the host. What a chip cannot hear (held in reset, other rate) is lost."""
        if self.mode is Mode.RUN:
            if self._machine is not None and self._rates_agree():
                self._machine.feed(data)
        elif self.mode is Mode.DOWNLOAD:
            # The ROM measures the rate of a SYNC and adopts it; the stub does not.
            if self._chip_baud is None or (isinstance(self._loader, RomLoader) and p.SYNC_MAGIC in data):
                self._chip_baud = self._bus.baud = self._host_baud
            if self._rates_agree():
                self._frames += self._decoder.feed(data)

    def advance(self) -> None:
        """Do what is due by now: sample the strap, send delayed replies, handle frames, run one slice of the CPU."""
        self._sample_strap()
        if self._reset_at is not None and self._reset_at <= self._now():
            self._enter(Mode.STRAP)
            self._strap_cause = p.CAUSE_RTC_WATCHDOG
            self._en_rose_at = self._now()
        if self.mode is Mode.DOWNLOAD:
            self._advance_loader()
        elif self.mode is Mode.RUN and self._machine is not None:
            self._advance_machine(self._machine)

    def transmit(self) -> bytes:
        """Take what the chip has sent since the last call."""
        out = bytes(self._out)
        self._out.clear()
        return out

    def wake_at(self) -> float | None:
        """When `advance` has something to do next; a time that has passed means at once, None only after input."""
        due = [] if self._reset_at is None else [self._reset_at]
        if self.mode is Mode.STRAP:
            due.append(self._strap_due())
        elif self.mode is Mode.DOWNLOAD and (self._reply is not None or self._frames):
            due.append(self._busy_until)
        elif self.mode is Mode.RUN and self._machine is not None:
            wake = self._machine.wake_at if self._machine.idle else self._now()
            due += [] if wake is None else [wake]
        return min(due, default=None)

    # --- modes ------------------------------------------------------------------------------------

    def _enter(self, mode: Mode) -> None:
        """Leave the old mode with everything that belonged to it."""
        self.mode = mode
        self._loader: RomLoader | StubLoader | None = None
        self._decoder = slip.Decoder()
        self._frames: list[bytes] = []
        self._reply: p.Outcome | None = None
        self._busy_until = self._now()
        self._reset_at: float | None = None
        self._chip_baud = DEFAULT_BAUD

    def _strap_due(self) -> float:
        dtr, rts = self._lines
        if dtr and not rts:
            return self._en_rose_at
        # Both asserted is where one line has changed and the other is still on its way (RFC 2217).
        return self._en_rose_at + (self._timing.strap_timeout_s if rts else self._timing.strap_delay_s)

    def _sample_strap(self) -> None:
        if self.mode is not Mode.STRAP or self._now() < self._strap_due():
            return
        if self._lines == (True, False):
            self._start_download()
        else:
            self._boot(self._strap_cause)

    def _start_download(self) -> None:
        self._enter(Mode.DOWNLOAD)
        self._bus = Bus(self.chip, self.flash, self.mac)
        self._loader = RomLoader(self.chip, self.flash, self._bus, self._timing)
        self._send((self.chip.rom.banner + self.chip.rom.poweron + self.chip.rom.download).encode())
        self._chip_baud = None

    def _boot(self, cause: int) -> None:
        self._enter(Mode.RUN)
        if self._machine is None:
            reason = self._make_machine()
            if self._machine is None:
                rom = self.chip.rom
                self._send(f"{rom.banner}{rom.poweron}{rom.flash_boot}virtualboard: {reason}\r\n".encode())
                return
        self._machine.reset(cause)

    def _make_machine(self) -> str:
        """Create the CPU; the answer is why there is none."""
        if not self._execute:
            return "firmware is not executed: this board was started without a CPU"
        if not self.chip.cpu:
            return f"firmware is not executed: there is no CPU model for {self.chip.title}"
        try:
            factory = self._factory or importlib.import_module("virtualboard.rv32").Rv32Machine
        except ImportError as exc:
            return f"firmware is not executed: {exc.name or exc} cannot be imported (pip install 'hotplate[board]')"
        self._machine = factory(self.flash, self._registers, self._now)
        return ""

    # --- UART -------------------------------------------------------------------------------------

    def _rates_agree(self) -> bool:
        chip = self._chip_baud
        return chip is None or abs(chip - self._host_baud) <= chip * _BAUD_TOLERANCE

    def _send(self, data: bytes) -> None:
        if not self._rates_agree():
            # At another rate the host sees about as many bytes, and none of them right.
            data = bytes(byte * 0x6D + 0xB5 & 0xFF | 0x80 for byte in data)
        self._out += data[: _MAX_UNREAD - len(self._out)]

    # --- what runs ----------------------------------------------------------------------------------

    def _advance_loader(self) -> None:
        while self._loader is not None and self._busy_until <= self._now():
            if self._reply is not None:
                outcome, self._reply = self._reply, None
                self._busy_until = self._now() + outcome.after_s
                self._send(b"".join(map(slip.encode, outcome.frames)))
                if outcome.frames and isinstance(outcome.then, p.RunRam | p.BootFlash):
                    self._reply = p.Outcome(then=outcome.then)
                    self._busy_until += self._timing.jump_s
                else:
                    self._then(outcome.then)
            elif self._frames:
                self._reply = self._loader.handle(self._frames.pop(0))
                self._busy_until = self._now() + self._reply.busy_s
            else:
                return

    def _then(self, then: p.Then | None) -> None:
        match then:
            case None:
                pass
            case p.SetBaud(baud):
                self._chip_baud = baud
                self._bus.baud = max(1, baud)
            case p.RunRam(_, int(generation)):
                self._loader = StubLoader(self.chip, self.flash, self._bus, generation, self._timing)
                self._chip_baud = self._chip_baud or self._host_baud
                self._send(slip.encode(GREETING))
            case p.RunRam(entry, None):
                self._enter(Mode.RAM)
                self._send(f"virtualboard: the program at {entry:#010x} in RAM is not executed\r\n".encode())
            case p.BootFlash(cause):
                self._boot(cause)
            case p.RestartLoader():
                self._start_download()
            case p.ResetChip(after_s, _):
                self._reset_at = self._now() + after_s

    def _advance_machine(self, machine: Machine) -> None:
        wake = machine.wake_at
        if not machine.idle or (wake is not None and wake <= self._now()):
            self.executed += machine.run(SLICE_INSTRUCTIONS)
        self._send(machine.transmit())
        if machine.pending_reset is not None:
            machine.reset(machine.pending_reset)
            self._send(machine.transmit())
