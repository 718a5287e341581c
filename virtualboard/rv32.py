"""The executing ESP32-C3: its CPU on unicorn, its memory map, traps, flash mapping, and the ROM's part at reset.

Does not know the loader protocol, reset lines or transports; time is only what `now` says. Invariants: between two
calls nothing happens by itself; firmware can do nothing that raises out of here or keeps `run` beyond its budget.

Time is the owner's: instructions take none by themselves, so an owner with a virtual clock runs the machine until it
is idle before it lets time pass, or the ROM's watchdogs bite a firmware that had no chance to run.

Interrupts are taken as the C3 takes them: before the next instruction, once a source is active, its line enabled with
a priority of at least the threshold, and mstatus.MIE set (ESP-IDF, `riscv/interrupt.h`). So a slice ends where one of
these may have become true: behind a write to a peripheral, and before an instruction that may set MIE.

unicorn is used in count slices only (a timed run before a counted one hung). What it does not tell is worked around
here: how many instructions an early end had executed (half of the slice is charged), what ended it (`rv32_sites`), and
that a store which stopped it is done although the program counter still stands there.

Not modelled: misaligned data accesses trap on no bus (the C3's manual names no such trap), code that is changed through
the data bus after it has run once, the ROM's data, sleep modes, every peripheral that `rv32_peripherals` lacks.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Mapping, Sequence

from virtualboard import rom, rv32_io
from virtualboard import rv32_cpu as reg
from virtualboard.held_signals import held_signals
from virtualboard.nor import default_jedec
from virtualboard.rom_elf import WHERE_FROM, RomElf
from virtualboard.rv32_cpu import CpuError, Rv32Cpu
from virtualboard.rv32_csr import ExtraCsrs
from virtualboard.rv32_memory import FUNCTIONS, IRAM, ROM, ROM_DATA, ROM_SIZE, Memory
from virtualboard.rv32_program import CallingProgram
from virtualboard.rv32_rom_calls import RomCalls
from virtualboard.rv32_sites import CodeSites
from virtualboard.rv32_windows import Flash, FlashWindows

SLICE, SLICE_MAX = 5_000, 80_000
"""Instructions per unicorn call. An early end is charged half a call, so calls begin short; a call costs as much as
thousands of instructions, so each that runs to its end doubles the next."""

_TRANSLATION_BUFFER = 1 << 24
"""unicorn reserves 1 GiB of addresses for each CPU otherwise; when it is full, code is translated again."""
_EBREAK = ((0x00100073).to_bytes(4, "little"), (0x9002).to_bytes(2, "little"))

ROM_STACK = 0x3FCDE560
"""Stack pointer, and below the interrupt threshold, that the real ROM leaves to the second stage."""
ROM_THRESHOLD = 1
_INSTALL_UART_PRINTF, _ROM_CALL_LIMIT, _USB_PRINT = 0x40000048, 100_000, 0x3FCDFFD0
"""`ets_install_uart_printf` and `g_usb_print`, `g_uart_print`: without them the ROM's printf says nothing."""
_CPU_HZ = 160_000_000
_NOTICED_DELAY = 16_000
"""Instructions, 100 us, after which a delay ends the slice so that its time can pass."""
_LONGEST_DELAY_US = 1_000_000
_NEVER = 0xFFFFFFFE
"""Stop address for unicorn: no code can be there."""

INSTRUCTION_FAULT, ILLEGAL, BREAKPOINT, LOAD_FAULT, STORE_FAULT, ECALL_FROM_USER = 1, 2, 3, 5, 7, 8
_INTERRUPT = 0x80000000
_MSTATUS_MIE, _MSTATUS_MPIE, _MSTATUS_MPP = 1 << 3, 1 << 7, 3 << 11

_FAULTS = {
    reg.READ_UNMAPPED: LOAD_FAULT,
    reg.READ_PROTECTED: LOAD_FAULT,
    reg.WRITE_UNMAPPED: STORE_FAULT,
    reg.WRITE_PROTECTED: STORE_FAULT,
    reg.FETCH_UNMAPPED: INSTRUCTION_FAULT,
    reg.FETCH_PROTECTED: INSTRUCTION_FAULT,
}


class Rv32Machine:
    """One ESP32-C3. `registers` are efuse words by address; `now` is in seconds and never goes back.

    Off until the first `reset`. Owner's loop: `feed`, `run` until `idle`, `transmit`; call `reset(pending_reset)` when
    that is set; when idle with `wake_at` set, call `run` again at that time.
    """

    remarks = False
    """Whether the line also carries what a real chip would not say: which ROM function is missing."""

    usb = False
    """Whether the line is the chip's own USB-Serial/JTAG instead of UART0. The ROM's log is on both."""

    def __init__(
        self,
        flash: Flash,
        registers: Mapping[int, int],
        now: Callable[[], float],
        rom_elf: RomElf | None = None,
    ) -> None:
        self._flash, self._now = flash, now
        self._uc = Rv32Cpu(_TRANSLATION_BUFFER)
        self._memory = Memory(self._uc, rom_elf.parts if rom_elf else ())
        self._has_rom = rom_elf is not None
        self._csrs = ExtraCsrs(now, _CPU_HZ)
        self._sites = CodeSites(self._uc, self._peek)
        self._windows = FlashWindows(self._uc, flash)
        program = CallingProgram(self._uc, flash, self._windows, self._on_failed_call, self.request_reset)
        self._pending: int | None = None
        self._stopped = True
        self._waiting = False
        self._trap: tuple[int, int | None, int] | None = None
        self._delayed = 0  # instructions
        self._returned = False  # a delay has stopped the slice, and is over
        self._stored = False  # a store has stopped the slice, and is done
        jedec = getattr(flash, "jedec", 0) or default_jedec(flash.size)
        self._io = program.io = rv32_io.Io(now, registers, flash, program.load, jedec)
        self._calls = RomCalls(program)
        self._windows.reset(self._io.mmu, self._io.gates)
        self._hook_memory()

    # --- the owner's side -------------------------------------------------------------------------

    @property
    def pending_reset(self) -> int | None:
        """Cause of a reset that the chip has asked for or a watchdog has decided; the owner calls `reset` with it."""
        return self._pending

    @property
    def idle(self) -> bool:
        """Would `run` execute nothing, unless bytes or time come?"""
        return self._pending is not None or self._stopped or (self._waiting and self._io.line() is None)

    @property
    def wake_at(self) -> float | None:
        """When (on `now`) something will happen by itself: a watchdog's reset or an alarm. A time already past means
        at the next `run`."""
        if self._pending is not None:
            return None
        due = [bite[0] for bite in self._io.bites()]
        alarm = self._io.next_at
        return min([*due, alarm] if alarm is not None else due, default=None)

    def feed(self, data: bytes) -> None:
        """Bytes arrive on UART0, or on USB where that is the line and firmware uses it."""
        if data:
            (self._io.usb if self.usb and self._io.usb.used else self._io.uart).feed(data)
            self._io.advance()

    def transmit(self) -> bytes:
        """Take what UART0 has sent since the last call; with `usb`, what the chip's own serial port has sent as soon as
        firmware uses it."""
        uart, usb = self._io.uart.sent, self._io.usb.sent
        sent = bytes(usb if self.usb and self._io.usb.used else uart)
        uart.clear()
        usb.clear()
        return sent

    def reset(self, cause: int) -> None:
        """Reset with a cause of `rom.RESET_CAUSES`: the ROM reads flash, prints its log, and the CPU stands at the
        second stage, or waits for the watchdog when there is none to start."""
        saved_pc = 0 if cause == rom.POWERON else self._register(reg.PC)
        unsent = self.transmit()
        self._pending, self._waiting = None, False
        self._io.reset(cause)
        self._forget_code()
        boot = rom.boot(self._flash.read, self._flash.size, cause, saved_pc)
        self._io.uart.sent += unsent + boot.log
        self._stopped = boot.entry is None
        if boot.entry is not None:
            self._io.read_as(self._flash.read(2, 1)[0])
            self._enter_program(boot.entry, boot.segments)

    def start(self, entry: int, segments: Sequence[rom.RomSegment]) -> None:
        """Run a program that the ROM's loader has put into RAM. There is no reset, so no log; in download mode the ROM
        has stopped its watchdogs."""
        unsent = self.transmit()
        self._pending, self._waiting, self._stopped = None, False, False
        self._io.reset(rom.POWERON)
        self._io.rtc.watchdog.stop()
        self._io.groups[0].watchdog.stop()
        self._io.uart.sent += unsent
        self._forget_code()
        self._enter_program(entry, segments)

    def _enter_program(self, entry: int, segments: Sequence[rom.RomSegment]) -> None:
        self._memory.fill_rom_data()
        if not self._has_rom:
            self._calls.reset()
            self._calls.fill_data()
        for segment in segments:
            self._memory.load(segment.address, segment.data)
        for number in range(1, 32):
            self._uc.reg_write(reg.X0 + number, 0)
        self._uc.reg_write(reg.PRIV, 3)
        self._uc.reg_write(reg.MSTATUS, _MSTATUS_MIE)
        self._uc.reg_write(reg.MTVEC, ROM | 1)
        self._uc.reg_write(reg.SP, ROM_STACK)
        self._io.matrix.write(self._io.matrix.THRESHOLD, ROM_THRESHOLD)
        self._csrs.reset()
        if self._has_rom:
            self._uc.mem_write(_USB_PRINT, bytes([self.usb, True]))
            self._call_rom(_INSTALL_UART_PRINTF)
            self._uc.reg_write(reg.SP, ROM_STACK)
        self._uc.reg_write(reg.PC, entry)

    def _call_rom(self, address: int) -> None:
        """Run a function of the owner's ROM to its end, as the ROM does before it leaves."""
        self._uc.reg_write(reg.RA, IRAM)
        with contextlib.suppress(CpuError):
            self._uc.emu_start(address, IRAM, count=_ROM_CALL_LIMIT)

    def run(self, max_instructions: int) -> int:
        """Execute until idle or about `max_instructions`; returns how many were executed (0 when idle; an estimate
        where firmware stopped by itself). A delay of the ROM's counts as what it would execute, and may go beyond."""
        executed, length = 0, SLICE
        self._advance()
        if self.idle:
            return 0
        with held_signals():
            while executed < max_instructions and not self.idle:
                self._waiting = False
                budget = min(length, max_instructions - executed)
                done = self._slice(budget)
                executed += done + self._delayed
                self._delayed = 0
                length = min(2 * length, SLICE_MAX) if done == budget else SLICE
                self._advance()
        return executed

    # --- time -------------------------------------------------------------------------------------

    def _advance(self) -> None:
        self._io.advance()
        # An owner may be late: firmware that rests until an alarm, which was due before the watchdog, feeds it first.
        if self._waiting and self._io.line() is not None:
            return
        bites = self._io.bites()
        if self._pending is None and bites:
            at, cause = min(bites)
            if at <= self._now():
                self._pending = cause

    # --- execution --------------------------------------------------------------------------------

    def _slice(self, budget: int) -> int:
        line = self._io.line()
        if line is not None and self._interrupts_on():
            self._enter_trap(_INTERRUPT | line, self._register(reg.PC), 0)
            if self._stopped:
                return 0
        early = max(budget // 2, 1)
        start = self._register(reg.PC)
        self._windows.touch(start)  # or its first block would be executed before anybody has read it
        self._sites.begin(start, armed=line is not None)
        if not self._execute(budget):
            return early
        gate = self._sites.stopped_at_gate
        if gate is not None:
            self._sites.begin(gate, armed=False)
            self._execute(1)
            return early
        protection = self._sites.protection_at
        if protection is not None:
            self._csrs.access(int.from_bytes(self._peek(protection, 4), "little"), self._general, self._set_general)
            self._uc.reg_write(reg.PC, protection + 4)
            return early
        waited = self._sites.waited_at
        if waited is not None and self._register(reg.PC) == waited + 4:
            self._waiting = True
            return early
        return early if self._sites.found_more() else budget

    def _execute(self, count: int) -> bool:
        """Up to `count` instructions; False where a trap, a reset or a store to a peripheral ended them early."""
        uc, self._trap, self._stored, self._returned = self._uc, None, False, False
        try:
            uc.emu_start(self._register(reg.PC), _NEVER, count=count)
        except CpuError:
            self._trap = self._trap or self._decode_fault()
        if self._trap is not None:
            cause, epc, value = self._trap
            self._enter_trap(cause, self._register(reg.PC) if epc is None else epc, value)
            return False
        if self._io.mmu.changed or self._io.gates.invalidated:
            self._windows.follow()
        if self._stored:
            pc = self._register(reg.PC)
            uc.reg_write(reg.PC, pc + (4 if self._peek(pc, 1)[0] & 3 == 3 else 2))
        if self._returned:
            uc.reg_write(reg.PC, self._register(reg.RA))
        return not self._stored and not self._returned and self._pending is None

    def _interrupts_on(self) -> bool:
        return bool(self._register(reg.MSTATUS) & _MSTATUS_MIE)

    def _decode_fault(self) -> tuple[int, int | None, int]:
        """unicorn reports `ebreak`, and only that, as an error without a hook."""
        pc = self._register(reg.PC)
        code = self._peek(pc, 4) or self._peek(pc, 2)
        if code in _EBREAK or code[:2] in _EBREAK:
            return BREAKPOINT, pc, pc
        return ILLEGAL, pc, int.from_bytes(code, "little")

    def _enter_trap(self, cause: int, epc: int, value: int) -> None:
        uc = self._uc
        status = self._register(reg.MSTATUS)
        privilege = self._register(reg.PRIV)
        enabled = status & _MSTATUS_MIE
        status &= ~(_MSTATUS_MIE | _MSTATUS_MPIE | _MSTATUS_MPP)
        status |= (_MSTATUS_MPIE if enabled else 0) | privilege << 11
        base = self._register(reg.MTVEC) & ~0xFF
        if ROM <= base < ROM + ROM_SIZE:
            self._panic_in_rom(cause, epc, value)
            return
        uc.reg_write(reg.PRIV, 3)
        uc.reg_write(reg.MSTATUS, status)
        uc.reg_write(reg.MEPC, epc)
        uc.reg_write(reg.MCAUSE, cause)
        uc.reg_write(reg.MTVAL, value)
        uc.reg_write(reg.PC, base + 4 * (cause & 0x1F) if cause & _INTERRUPT else base)

    def _panic_in_rom(self, cause: int, epc: int, value: int) -> None:
        """The ROM's handler says what happened and loops for ever; only a watchdog helps."""
        registers = [epc, *(self._register(reg.X0 + n) for n in range(1, 32))]
        status, vectors = self._register(reg.MSTATUS), self._register(reg.MTVEC)
        rom_panic = importlib.import_module("virtualboard.rom_panic").rom_panic
        self._io.uart.sent += rom_panic(registers, status=status, vectors=vectors, cause=cause, value=value)
        self._stopped = True

    def _register(self, number: int) -> int:
        return self._uc.reg_read(number)

    def _general(self, number: int) -> int:
        return self._register(reg.X0 + number)

    def _set_general(self, number: int, value: int) -> None:
        self._uc.reg_write(reg.X0 + number, value)

    def _peek(self, address: int, size: int) -> bytes:
        try:
            return self._uc.mem_read(address & 0xFFFFFFFF, size)
        except CpuError:
            return b""

    # --- what unicorn calls back --------------------------------------------------------------------

    def _on_exception(self, number: int) -> None:
        """An exception of the instruction 4 bytes back: unicorn has already stepped over it."""
        pc = self._register(reg.PC) - 4
        value = 0
        if number == ECALL_FROM_USER:  # unicorn names no other; the level comes on top
            number += self._register(reg.PRIV)
        elif number == ILLEGAL:
            code = self._peek(pc, 4) or self._peek(pc, 2)
            value = int.from_bytes(code if code[:1] and code[0] & 3 == 3 else code[:2], "little")
            if self._csrs.access(value, self._general, self._set_general):
                return
        self._trap = number, pc, value
        self._uc.emu_stop()

    def _on_fault(self, access: int, address: int) -> bool:
        """An address without memory: a flash page that is not in yet, or a trap."""
        if self._windows.touch(address):
            return True
        cause = _FAULTS[access]
        if cause == LOAD_FAULT and address in ROM_DATA:
            self._remark_missing(f"reads the ROM's data at 0x{address:08x}")
        # The program counter is exact once unicorn has stopped; a bad jump has it at its target.
        self._trap = cause, address if cause == INSTRUCTION_FAULT else None, address
        return False

    def _on_delay(self, _address: int) -> None:
        """A busy wait: it counts as the instructions that it would take, and nobody executes them."""
        self._delayed += min(self._general(10), _LONGEST_DELAY_US) * (_CPU_HZ // 1_000_000)
        if self._delayed >= _NOTICED_DELAY:
            self._returned = True
            self._uc.emu_stop()

    def _on_rom_call(self, address: int) -> None:
        call = self._calls.table.get(address)
        if call is None:
            name = importlib.import_module("virtualboard.rv32_rom_names").rom_name(address)
            called = f"ROM function {name} (0x{address:08x})" if name else f"ROM function at 0x{address:08x}"
            self._remark_missing(f"calls the {called}")
            self._trap = INSTRUCTION_FAULT, address, address
            self._uc.emu_stop()
            return
        self._uc.reg_write(reg.A0, call())

    def _remark_missing(self, what: str) -> None:
        if self.remarks:
            text = f"the program {what}, which this board does not have: it traps here"
            self._io.uart.sent += f"\r\nvirtualboard: {text}\r\nvirtualboard: {WHERE_FROM}\r\n".encode()

    def _on_io_write(self, offset: int, value: int) -> None:
        io = self._io
        if not offset:  # the UART's FIFO: most of what a boot writes, and it interrupts nobody
            io.uart.sent.append(value & 0xFF)
            return
        quick = io.quick.get(offset)
        if quick is not None:
            quick[offset & 0xFFC] = value
            return
        interrupts = io.write(offset, value)
        if io.rtc.requested_reset is not None:
            self.request_reset(io.rtc.requested_reset)
        elif io.mmu.changed or io.gates.invalidated:
            io.mmu.changed = self._windows.stale
            if io.mmu.changed:
                self._stored = True
                self._uc.emu_stop()
        elif interrupts and io.line() is not None:
            self._sites.armed = True
            if self._interrupts_on():
                self._stored = True
                self._uc.emu_stop()

    # --- memory -------------------------------------------------------------------------------------

    def _hook_memory(self) -> None:
        uc = self._uc
        uc.mmio_map(rv32_io.BASE, rv32_io.SIZE, self._io.read, self._on_io_write)
        if not self._has_rom:
            uc.on_code(self._on_rom_call, FUNCTIONS.start, FUNCTIONS.stop - 1)
        uc.on_code(self._on_delay, self._memory.delay, self._memory.delay)
        uc.on_interrupt(self._on_exception)
        uc.on_bad_access(self._on_fault)

    def _forget_code(self) -> None:
        """Drop mapped flash and translated code: what is in memory may be another firmware now."""
        self._sites.forget()
        self._windows.reset(self._io.mmu, self._io.gates)
        self._uc.forget_code()

    def request_reset(self, cause: int) -> None:
        self._pending = cause
        self._uc.emu_stop()

    def _on_failed_call(self, cause: int, address: int) -> None:
        """What a ROM function did for the program, the CPU could not do."""
        self._trap = cause, None if cause == STORE_FAULT else address, address
        self._uc.emu_stop()
