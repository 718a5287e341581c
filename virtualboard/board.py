"""The whole board: reset lines, boot strap, UART, faults, and behind them the loader or the CPU. Sans-I/O.

Does not know ports, sockets, threads or sleeping: the owner calls `receive` and `set_lines` as things happen,
`advance` when `wake_at` says so, and takes what the chip sent with `transmit`. Time is only what `now` returns.
Invariant: everything that happens is due at a time; what is due is done in order of its time, by `advance`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING

from virtualboard import faults as f
from virtualboard import protocol as p
from virtualboard import rom, slip
from virtualboard.active_faults import ActiveFaults, panic_text
from virtualboard.bus import Bus
from virtualboard.chip_table import chip_named
from virtualboard.chips import ChipModel, Security, burnt, burnt_security, efuse_words
from virtualboard.efuse import EfuseFile
from virtualboard.loader import LoaderModel
from virtualboard.machine import HeldClock, Machine, MachineFactory, make_machine
from virtualboard.nor import NorFlash
from virtualboard.timing import INSTANT, Timing
from virtualboard.usb import JtagLines, Plug

if TYPE_CHECKING:
    from virtualboard.stub import StubLoader

DEFAULT_BAUD = 115_200
# A UART samples in the middle of ten bits: beyond about 4 % the stop bit is missed.
_BAUD_TOLERANCE = 0.04
# One slice is a few milliseconds of host time, so that lines and input are looked at often.
SLICE_INSTRUCTIONS = 50_000
# What the chip sent and nobody took: a boot loop on a board that nobody listens to must not eat memory.
_MAX_UNREAD = 1 << 20
# Frames that wait while the loader works. A real one has room for one or two blocks of 16 KiB.
_MAX_PENDING = 1 << 18

# Reset causes that the loader protocol does not have (ESP-IDF, `rom/rtc.h`; the same number on all three chips but
# where the CPU alone restarts).
CAUSE_GROUP0_WATCHDOG, CAUSE_CPU_SOFTWARE, CAUSE_BROWN_OUT, CAUSE_USB_UART = 0x07, 0x0C, 0x0F, 0x15
# The chip's own USB device starts again with these and the host sees it leave.
_REENUMERATING = frozenset({CAUSE_BROWN_OUT, p.CAUSE_RTC_WATCHDOG})
# From the last line of a panic to the restart: the handler waits for the UART to send it. A guess.
_PANIC_S = 0.05


class Mode(Enum):
    """What the chip does. `STRAP`: EN has risen, the boot strap is about to be sampled. `RAM`: a program in RAM."""

    OFF = "off"
    RESET = "held in reset"
    STRAP = "leaving reset"
    DOWNLOAD = "download"
    RAM = "ram program"
    RUN = "run"


_RUNNING = frozenset({Mode.RUN, Mode.RAM})


class Board:
    """One board with `chip` and `flash`. `execute` False, or a chip without CPU model: firmware is not executed.

    `usb`: the port is the chip's own USB-Serial/JTAG instead of a bridge with two transistors at EN and IO0.
    `faults` may be shared between boards that follow each other.
    """

    def __init__(
        self,
        chip: ChipModel,
        flash: NorFlash,
        mac: str,
        now: Callable[[], float],
        execute: bool = True,
        *,
        machine_factory: MachineFactory | None = None,
        timing: Timing = INSTANT,
        usb: bool = False,
        faults: ActiveFaults | None = None,
    ) -> None:
        self.chip = chip
        self.flash = flash
        self.mac = mac
        self.mode = Mode.OFF
        self.timing = timing
        self.usb = usb
        self.plug = Plug()
        self.faults = ActiveFaults() if faults is None else faults
        flash.wear = self.faults
        self.executed = 0  # instructions so far
        self.trace: Callable[[str], None] | None = None
        """Is told what happens, in words for a person."""
        self._now = now
        self._efuse_file = EfuseFile(flash.path.with_name(flash.path.name + ".efuse") if flash.path else None)
        self._registers = efuse_words(chip, mac)
        for address, bits in self._efuse_file.load().items():
            self._registers[address] = self._registers.get(address, 0) | bits
        self._note_security()
        self._factory = machine_factory
        self._execute = execute
        self._machine: Machine | None = None
        self._jtag = JtagLines()
        self._lines = (False, False)
        self._en_rose_at = 0.0
        self._by_lines = False
        self._strap_cause = p.CAUSE_POWERON
        self._strap: bool | None = None  # download or not, where a button or USB decides instead of the lines
        self._host_baud: int | None = DEFAULT_BAUD
        self._out = bytearray()
        self._silent_until = 0.0
        self._power_at: float | None = None
        self._machine_clock = HeldClock(now)
        self._bus = Bus(chip, flash, mac)
        self._chip_baud: int | None = None  # None: the ROM has not measured it yet
        self._enter(Mode.OFF)

    @property
    def serial(self) -> str:
        """The serial number of the USB device: the MAC, as USB-Serial/JTAG spells it."""
        return self.mac.upper()

    @property
    def lines(self) -> tuple[bool, bool]:
        """DTR and RTS as the host has set them."""
        return self._lines

    def power_on(self) -> None:
        """Apply power: the chip boots what is in flash, unless the lines hold it in reset."""
        self.faults.start(self._now())
        self._identify()
        if self._lines == (False, True) and not self.usb:
            self._enter(Mode.RESET)
        else:
            self._boot(p.CAUSE_POWERON)

    def inject(self, fault: f.Fault) -> None:
        """Set one more fault; its times count from now. Raises active_faults.TooManyFaults."""
        self.faults.add(fault)
        self.faults.start(self._now())
        self._strike_due()

    def press_reset(self, *, download: bool) -> None:
        """The buttons: reset, with or without boot held. Works whatever the lines say; not without power."""
        if self.mode is not Mode.OFF:
            self._reset_chip(p.CAUSE_POWERON)
            self._strap = download
            self._sample_strap()

    def set_lines(self, dtr: bool, rts: bool) -> None:
        """The host's DTR and RTS. Through the usual two transistors EN is low with RTS and not DTR, IO0 the reverse;
        for USB see `usb.JtagLines`."""
        self._sample_strap()
        self._lines = (dtr, rts)
        if self.usb:
            if self._jtag.change(dtr, rts) and self.mode is not Mode.OFF:
                self._reset_chip(CAUSE_USB_UART)
        elif self.mode is Mode.OFF:
            return
        elif rts and not dtr:
            self._enter(Mode.RESET)
        elif self.mode is Mode.RESET:
            self._reset_chip(p.CAUSE_POWERON, by_lines=True)
        self._sample_strap()

    def set_baud(self, baud: int | None) -> None:
        """The host's rate, 8N1; None where no rate travels (TCP), so that it is always the chip's."""
        self._host_baud = baud

    def receive(self, data: bytes) -> None:
        """Bytes from the host. What a chip cannot hear (held in reset, other rate) is lost."""
        if self.mode in _RUNNING:
            if self._machine is not None and self._rates_agree():
                self._machine.feed(data)
        elif self.mode is Mode.DOWNLOAD:
            # The ROM measures the rate of a SYNC and adopts it; the stub does not.
            if self._chip_baud is None or (isinstance(self._loader, LoaderModel) and p.SYNC_MAGIC in data):
                self._chip_baud = self._bus.baud = self._host_baud or DEFAULT_BAUD
            if self._rates_agree():
                for frame in self._decoder.feed(data):
                    if self._pending + len(frame) <= _MAX_PENDING:
                        self._frames.append(frame)
                        self._pending += len(frame)

    def advance(self) -> None:
        """Do what is due by now: faults, sample the strap, send delayed replies, handle frames, run a slice of code."""
        self.plug.present(self._now())
        self._strike_due()
        if self._power_at is not None and self._power_at <= self._now():
            self._restore_power()
        self._sample_strap()
        while self._events and self._events[0][0] <= self._now():
            self._events.pop(0)[1]()
        if self.mode is Mode.DOWNLOAD:
            self._advance_loader()
        elif self.mode in _RUNNING and self._machine is not None:
            self._advance_machine(self._machine)

    def lag(self, seconds: float) -> None:
        """The owner could not execute what was due in these seconds: for the CPU they did not pass."""
        self._machine_clock.skip(seconds)

    def transmit(self) -> bytes:
        """Take what the chip has sent since the last call."""
        out = bytes(self._out)
        self._out.clear()
        return out

    def wake_at(self) -> float | None:
        """When `advance` has something to do next; a time that has passed means at once, None only after input."""
        due = [t for t in (self._power_at, self.faults.next_at, self.plug.back_at) if t is not None]
        due += [at for at, _ in self._events[:1]]
        if self.mode is Mode.STRAP:
            due.append(self._strap_due())
        elif self.mode is Mode.DOWNLOAD and (self._reply is not None or self._frames):
            due.append(self._busy_until)
        elif self.mode in _RUNNING and self._machine is not None:
            if self._machine_clock.held:
                due.append(self._machine_clock.until)
            else:
                wake = self._machine.wake_at if self._machine.idle else self._machine_clock.now()
                due += [] if wake is None else [self._machine_clock.outside(wake)]
        return min((t for t in due if t < math.inf), default=None)

    # --- modes ------------------------------------------------------------------------------------

    def _enter(self, mode: Mode) -> None:
        """Leave the old mode with everything that belonged to it."""
        self._tell(f"the chip is in mode '{mode.value}'")
        self.mode = mode
        self._loader: LoaderModel | StubLoader | None = None
        self._decoder = slip.SlipDecoder()
        self._frames: list[bytes] = []
        self._pending = 0
        self._reply: p.Outcome | None = None
        self._busy_until = self._now()
        self._events: list[tuple[float, Callable[[], None]]] = []
        self._chip_baud = DEFAULT_BAUD
        self._strap = None
        self.faults.dead = False
        self._machine_clock.hold(0.0)

    def _later(self, delay_s: float, action: Callable[[], None]) -> None:
        """Do `action` in `delay_s`, unless the mode changes before."""
        self._events.append((self._now() + delay_s, action))
        self._events.sort(key=lambda event: event[0])

    def _reset_chip(self, cause: int, *, by_lines: bool = False) -> None:
        """Reset: straps are sampled, then the ROM runs. In reset, and without power, there is nothing to reset."""
        self._enter(Mode.STRAP)
        self._strap_cause = cause
        self._en_rose_at = self._now()
        self._by_lines = by_lines
        if self.usb:
            self._strap = self._jtag.download
            if cause in _REENUMERATING:
                self.plug.vanish(self._now(), self.timing.reenumerate_s)
        self._identify()

    def _identify(self) -> None:
        """Become the chip that the faults want; one that changes has lost its RAM."""
        name, mac = self.faults.identity(self.chip.name, self.mac)
        if (name, mac) != (self.chip.name, self.mac):
            self.chip, self.mac = self.chip if name == self.chip.name else chip_named(name), mac
            self._registers = efuse_words(self.chip, mac)
            self._machine = None
        self._note_security()

    def _note_security(self) -> None:
        """What the efuses say now, beside what this specimen was made with."""
        said, read = self.chip.security, burnt_security(self.chip, self._registers)
        both = Security(*(bool(a or b) for a, b in zip(said, read, strict=True)))
        if both != said:
            self.chip = burnt(self.chip, both)

    def _save_efuses(self) -> None:
        """Bits were burnt: they stay. The ROM looks at them after the next reset."""
        factory = efuse_words(self.chip, self.mac)
        self._efuse_file.save({at: bits & ~factory.get(at, 0) for at, bits in self._registers.items()})

    def _restore_power(self) -> None:
        self._power_at = None
        self._reset_chip(p.CAUSE_POWERON)
        if not self.usb and self._lines == (False, True):
            self._enter(Mode.RESET)

    def _strap_due(self) -> float:
        dtr, rts = self._lines
        if self._strap is not None or (dtr and not rts):
            return self._en_rose_at
        # Both asserted is where one line has changed and the other is still on its way (RFC 2217).
        late = rts and self._by_lines
        return self._en_rose_at + (self.timing.strap_timeout_s if late else self.timing.strap_delay_s)

    def _sample_strap(self) -> None:
        if self.mode is not Mode.STRAP or self._now() < self._strap_due():
            return
        download = self._lines == (True, False) if self._strap is None else self._strap
        if download:
            self._start_download()
        else:
            self._boot(self._strap_cause)

    def _start_download(self) -> None:
        self._enter(Mode.DOWNLOAD)
        self._bus = Bus(self.chip, self.flash, self.mac, self._registers, self._save_efuses)
        self._loader = LoaderModel(self.chip, self.flash, self._bus, self.timing)
        self._send(rom.download_log(self._strap_cause, self.chip.rom))
        self._chip_baud = None

    def _boot(self, cause: int) -> None:
        """Begin with the ROM, which takes its time before it says anything."""
        self._enter(Mode.RUN)
        self.faults.booted(self._now())
        delay = self.timing.rom_s + self.faults.slow_boot_s()
        if not delay:
            self._start_rom(cause)
            return
        self._machine_clock.hold(math.inf)
        self._later(delay, lambda: self._start_rom(cause))

    def _start_rom(self, cause: int) -> None:
        self._machine_clock.hold(0.0)
        machine = self._cpu()
        machine.reset(cause)
        self._send(machine.transmit())
        if self.faults.loops():
            self._machine_clock.hold(math.inf)
        elif not machine.idle:
            self._machine_clock.hold(self.timing.bootloader_s + self.timing.app_s)

    def _tell(self, text: str) -> None:
        if self.trace is not None:
            self.trace(text)

    # --- faults -----------------------------------------------------------------------------------

    def _strike_due(self) -> None:
        for fault in self.faults.strikes(self._now()):
            self._strike(fault)

    def _strike(self, fault: f.Fault) -> None:
        now = self._now()
        if fault.kind == f.VANISH:
            self.plug.vanish(now, fault.for_s, renamed=fault.name == "new")
        elif fault.kind == f.SILENCE:
            self._silent_until = now + (fault.for_s or math.inf)
        elif fault.kind == f.POWER_CUT:
            self._enter(Mode.OFF)
            self._power_at = now + fault.for_s
            if self.usb:
                self.plug.vanish(now, fault.for_s + self.timing.reenumerate_s)
        elif self.mode in (Mode.OFF, Mode.RESET):
            return
        elif fault.kind == f.PANIC:
            if self.mode is Mode.RUN:
                self._panic(fault)
        elif fault.kind == f.BROWN_OUT:
            self._reset_chip(CAUSE_BROWN_OUT)
        else:
            self._reset_chip(CAUSE_GROUP0_WATCHDOG)

    def _panic(self, fault: f.Fault) -> None:
        self._send(panic_text(fault, riscv=self.chip.riscv, sp=0x3FC8F2F0 if self.chip.riscv else 0x3FFB2710))
        self._events.clear()
        self._machine_clock.hold(math.inf)
        self._later(_PANIC_S, lambda: self._boot(CAUSE_CPU_SOFTWARE))

    def _cpu(self) -> Machine:
        """What executes: made when it is first needed."""
        if self._machine is None:
            self._machine = make_machine(
                self.chip,
                self.flash,
                self._registers,
                self._machine_clock.now,
                execute=self._execute,
                factory=self._factory,
            )
            self._machine.usb = self.usb
        return self._machine

    # --- UART -------------------------------------------------------------------------------------

    def _rates_agree(self) -> bool:
        chip, host = self._chip_baud, self._host_baud
        # USB has no rate, nor has TCP.
        if host is None or self.usb:
            return True
        return self.faults.takes(host) and (chip is None or abs(chip - host) <= chip * _BAUD_TOLERANCE)

    def _send(self, data: bytes) -> None:
        if self._now() < self._silent_until:
            return
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
                    self._busy_until += self.timing.jump_s
                else:
                    self._then(outcome.then)
            elif self._frames:
                frame = self._frames.pop(0)
                self._pending -= len(frame)
                self._reply = self._loader.handle(frame)
                if self.trace is not None:
                    self.trace(p.described(frame, self._reply))
                self._busy_until = self._now() + self._reply.busy_s
                if struck := self.faults.take_struck():
                    self._strike_in_write(struck, self._reply)
            else:
                return

    def _strike_in_write(self, struck: list[f.Fault], outcome: p.Outcome) -> None:
        """Faults of a write. The stub has acknowledged the block that it was writing, the ROM has not."""
        if self._loader is not None and not isinstance(self._loader, LoaderModel):
            self._send(b"".join(map(slip.encode, outcome.frames)))
            self._reply = p.Outcome()
        for fault in struck:
            self._strike(fault)

    def _then(self, then: p.Then | None) -> None:
        match then:
            case None:
                pass
            case p.SetBaud(baud):
                self._chip_baud = baud
                self._bus.baud = max(1, baud)
            case p.RunRam(entry, int(generation), segments):
                from virtualboard.stub import GREETING, StubLoader, identify

                if self.trace is not None:
                    known = identify(self.chip, entry, [data for _, data in segments], [at for at, _ in segments])
                    assert known is not None
                    self.trace(
                        f"a flasher stub of generation {generation} starts at {entry:#010x}, known by {known.by}"
                    )
                self._loader = StubLoader(self.chip, self.flash, self._bus, generation, self.timing)
                self._chip_baud = self._chip_baud or self._host_baud or DEFAULT_BAUD
                self._send(slip.encode(GREETING))
            case p.RunRam(entry, None, segments):
                rate = self._chip_baud
                self._enter(Mode.RAM)
                self._chip_baud = rate  # the ROM's setting of the UART stays
                machine = self._cpu()
                machine.start(entry, [rom.RomSegment(address, data) for address, data in segments])
                self._send(machine.transmit())
            case p.BootFlash(cause):
                self._boot(cause)
            case p.RestartLoader():
                self._strap_cause = p.CAUSE_SOFTWARE
                self._start_download()
            case p.ResetChip(after_s, cause):
                self._later(after_s, lambda: self._reset_chip(cause))

    def _advance_machine(self, machine: Machine) -> None:
        if self._machine_clock.held:
            return
        wake = machine.wake_at
        if not machine.idle or (wake is not None and wake <= self._machine_clock.now()):
            self.executed += machine.run(SLICE_INSTRUCTIONS)
        self._send(machine.transmit())
        for fault in self.faults.take_struck():  # in a write of the firmware's own
            self._strike(fault)
        if self.mode not in _RUNNING:
            return
        cause = machine.pending_reset
        if cause is None:
            return
        if self.usb and cause in _REENUMERATING:
            self.plug.vanish(self._now(), self.timing.reenumerate_s)
        self._boot(cause)
