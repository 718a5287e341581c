"""The executing ESP32-C3 on small programs in machine code: memory, traps, timers, watchdogs, idleness."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("unicorn", reason="unicorn is not installed")

from tests.unit.test_rom_boot import make_image
from virtualboard import rom
from virtualboard import rv32_peripherals as per
from virtualboard import rv32_timers as timers
from virtualboard.rv32 import Rv32Machine
from virtualboard.rv32_timer_groups import TimerGroup

CODE = 0x40380000
VECTORS = 0x40380800
ZERO, RA, SP, T0, T1, T2, A0, A1, A2 = 0, 1, 2, 5, 6, 7, 10, 11, 12
WFI, MRET, ECALL, NOP = 0x10500073, 0x30200073, 0x00000073, 0x00000013
INTERRUPTS_OFF, INTERRUPTS_ON = 0x30047073, 0x30046073  # csrci mstatus, 8; csrsi mstatus, 8
MSTATUS, MTVEC, MEPC, MCAUSE, MTVAL = 0x300, 0x305, 0x341, 0x342, 0x343

UART, RTC, TIMG0, SYSTIMER, MATRIX, GATES, MMU = (
    *(0x60000000, 0x60008000, 0x6001F000, 0x60023000, 0x600C2000, 0x600C4000, 0x600C5000),
)
INVALIDATE, DISABLE, ENABLE = 0x400004D8, 0x4000051C, 0x40000520


# --- a handful of instructions (RISC-V unprivileged specification, chapter 2) ------------------------


def li(register: int, value: int) -> list[int]:
    high = (value + 0x800) & 0xFFFFF000
    low = value - high & 0xFFF
    return [high | register << 7 | 0x37, low << 20 | register << 15 | register << 7 | 0x13]


def store(address: int, value: int) -> list[int]:
    return [*li(T0, address), *li(T1, value), T1 << 20 | T0 << 15 | 2 << 12 | 0x23]


def send(register: int) -> list[int]:
    """The low byte of a register to the UART."""
    return [*li(T0, UART), register << 20 | T0 << 15 | 2 << 12 | 0x23]


def load(register: int, address: int) -> list[int]:
    return [*li(T0, address), T0 << 15 | 2 << 12 | register << 7 | 0x03]


def call(address: int) -> list[int]:
    return [*li(T0, address), T0 << 15 | RA << 7 | 0x67]


def csr_write(csr: int, register: int) -> list[int]:
    return [csr << 20 | register << 15 | 1 << 12 | 0x73]


def csr_read(register: int, csr: int) -> list[int]:
    return [csr << 20 | 2 << 12 | register << 7 | 0x73]


def jump(words: int) -> list[int]:
    """Relative, in words."""
    offset = words * 4
    encoded = (offset >> 20 & 1) << 31 | (offset >> 1 & 0x3FF) << 21 | (offset >> 11 & 1) << 20 | (offset & 0xFF000)
    return [encoded & 0xFFFFFFFF | 0x6F]


HERE = jump(0)

REPORT = [*csr_read(A0, MCAUSE), *send(A0), *csr_read(A0, MTVAL), *send(A0), *csr_read(A0, MEPC), *send(A0), *HERE]
"""A trap handler: low bytes of mcause, mtval and mepc to the UART, then an endless loop."""


def pack(words: list[int]) -> bytes:
    return struct.pack(f"<{len(words)}I", *words)


class TinyChip:
    """A machine whose flash holds `program` at CODE and `handler` at VECTORS, started, with its log thrown away.

    The ROM leaves interrupts on; the first instruction takes them off."""

    def __init__(self, program: list[int], handler: list[int] = REPORT, flash_size: int = 0x40000) -> None:
        self.now = 0.0
        preamble = [INTERRUPTS_OFF, *li(A1, VECTORS + 1), *csr_write(MTVEC, A1)]
        code = pack([*preamble, *program]).ljust(0x800, b"\0") + pack(handler)
        self.content = bytearray(make_image([(CODE, code)], entry=CODE).ljust(flash_size, b"\xff"))
        self.size = flash_size
        self.machine = Rv32Machine(self, {}, lambda: self.now)
        self.machine.reset(rom.POWERON)
        self.machine.transmit()

    def read(self, offset: int, n: int) -> bytes:
        assert offset >= 0 and offset + n <= self.size, "read outside flash"
        return bytes(self.content[offset : offset + n])

    def run(self, limit: int = 20_000) -> bytes:
        self.machine.run(limit)
        return self.machine.transmit()


LOCATION = CODE + 16
"""Where a program given to `TinyChip` begins."""


# --- memory and traps ----------------------------------------------------------------------------------


def test_both_buses_see_the_same_ram() -> None:
    chip = TinyChip([*store(0x3FC81234, 0x41424344), *load(A0, 0x40381234), *send(A0), *HERE])
    assert chip.run() == b"D"


@pytest.mark.parametrize(
    ("program", "cause", "value"),
    [
        (load(A0, 0x00000020), 5, 0x20),
        (load(A0, 0x3C000000), 5, 0x00),
        (load(A0, 0x3FCE0010), 5, 0x10),
        (store(0x00000024, 1), 7, 0x24),
        (store(0x42000028, 1), 7, 0x28),
        ([0xFFFFFFFF], 2, 0xFF),
        ([ECALL], 11, 0),
    ],
)
def test_traps(program: list[int], cause: int, value: int) -> None:
    sent = TinyChip([*program, *HERE]).run()
    last = LOCATION + 4 * (len(program) - 1)
    assert sent == bytes([cause, value, last & 0xFF])


def test_a_jump_into_nothing_reports_its_target() -> None:
    assert TinyChip(call(0x00000030)).run() == bytes([1, 0x30, 0x30])


def test_a_rom_function_that_is_not_modelled_traps_at_its_address() -> None:
    assert TinyChip(call(0x40000FE4)).run() == bytes([1, 0xE4, 0xE4])


def test_a_trap_without_a_handler_waits_for_the_watchdog() -> None:
    chip = TinyChip([*li(A1, 0x40000001), *csr_write(MTVEC, A1), ECALL])
    assert b"Guru Meditation Error: Core 0 panic'ed (Environment call from M-mode)" in chip.run() and chip.machine.idle
    due = chip.machine.wake_at
    assert due is not None
    chip.now = due
    chip.run()
    assert chip.machine.pending_reset == rom.TG0WDT_SYS


def test_a_handler_in_unmapped_memory_does_not_hold_the_caller() -> None:
    chip = TinyChip([*li(A1, 0x00001001), *csr_write(MTVEC, A1), ECALL])
    assert 0 < chip.machine.run(100_000) <= 100_000
    assert not chip.machine.idle


def test_unmodelled_registers_keep_what_is_written() -> None:
    chip = TinyChip(
        [*store(0x60004020, 0x5A), *load(A0, 0x60004020), *send(A0), *load(A0, 0x60004024), *send(A0), *HERE]
    )
    assert chip.run() == b"Z\0"


def test_efuse_words_are_read_only() -> None:
    program = [*store(0x60008844, 0x11), *load(A0, 0x60008844), *send(A0), *HERE]
    chip = TinyChip(program)
    chip.machine = Rv32Machine(chip, {0x60008844: 0x7C}, lambda: 0.0)
    chip.machine.reset(rom.POWERON)
    assert chip.run().endswith(b"entry 0x40380000\r\n\x7c")


# --- flash windows -------------------------------------------------------------------------------------

OPEN = [*store(GATES + 4, 0), *store(MMU + 4, 2), *call(INVALIDATE)]
"""Flash page 2 behind page 1 of both windows."""


ROUTE_UART = [*store(UART + 0x24, 1), *store(UART + 0x0C, 1), *store(MATRIX + 4 * per.UART_SOURCE, 3)]
UNMASK_LINE_3 = [*store(MATRIX + 0x104, 1 << 3), *store(MATRIX + 0x114 + 12, 1)]


def window_chip(program: list[int]) -> TinyChip:
    chip = TinyChip(program)
    chip.content[0x20010:0x20014] = b"PQRS"
    return chip


def test_a_mapped_page_shows_flash_through_both_windows() -> None:
    chip = window_chip([*OPEN, *load(A0, 0x3C010010), *send(A0), *load(A0, 0x42010014 - 3), *send(A0), *HERE])
    assert chip.run() == b"PQ"


def test_each_window_shows_a_page_when_it_is_touched_there_and_the_same_bytes() -> None:
    """Flash has changed between the two: what came in first is what both show, until it is invalidated."""
    data, code = [*load(A0, 0x3C010010), *send(A0)], [*load(A0, 0x42010010), *send(A0)]
    setup = [*ROUTE_UART, *UNMASK_LINE_3, *OPEN]
    chip = window_chip([*setup, *data, WFI, *code, *call(INVALIDATE), *code, *data, *HERE])
    assert chip.run() == b"P" and chip.machine.idle
    chip.content[0x20010:0x20014] = b"WXYZ"
    chip.machine.feed(b"wake")
    assert chip.run() == b"PWW"


def test_a_wait_at_the_begin_of_a_page_that_comes_in_there_is_seen() -> None:
    """Each slice is one instruction long, so that the page's first block is a slice's, which nobody announces."""
    chip = window_chip([*OPEN, *load(A0, 0x3C010010), *call(0x42010020)])
    chip.content[0x20020:0x20028] = pack([WFI, *HERE])
    for _ in range(60):
        chip.machine.run(1)
    assert chip.machine.idle


def test_only_a_page_that_is_in_ends_the_execution_when_its_entry_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a partition's thirty entries a boot loader touches two, and sets all."""
    others = [word for entry in range(8, 40) for word in store(MMU + 4 * entry, entry % 4)]
    program = [*store(MMU, 1), *store(GATES + 4, 0), *load(A0, 0x3C000000), *send(A0)]
    program += [*others, *store(MMU, 2), *load(A0, 0x3C000000), *send(A0), *HERE]
    chip = TinyChip(program)
    chip.content[0x10000], chip.content[0x20000] = ord("a"), ord("b")
    starts: list[int] = []
    cpu = chip.machine._uc
    start = cpu.emu_start

    def counted(begin: int, until: int, count: int) -> None:
        starts.append(begin)
        start(begin, until, count)

    monkeypatch.setattr(cpu, "emu_start", counted)
    assert chip.run(5_000) == b"ab"
    assert len(starts) <= 4


def test_shut_buses_and_pages_beyond_the_flash_fault() -> None:
    shut = [*store(MMU + 4, 2), *call(INVALIDATE), *load(A0, 0x3C010010)]
    assert window_chip([*shut, *HERE]).run()[:2] == bytes([5, 0x10])
    beyond = [*store(GATES + 4, 0), *store(MMU + 4, 4), *call(INVALIDATE), *load(A0, 0x3C010018)]
    assert window_chip([*beyond, *HERE]).run()[:2] == bytes([5, 0x18])


def test_flash_is_seen_as_it_was_mapped_until_invalidated() -> None:
    again = [*load(A0, 0x3C010010), *send(A0)]
    setup = [*ROUTE_UART, *UNMASK_LINE_3, *OPEN]
    chip = window_chip([*setup, *again, WFI, *again, *call(INVALIDATE), *again, *HERE])
    assert chip.run() == b"P" and chip.machine.idle
    chip.content[0x20010] = ord("x")
    chip.machine.feed(b"!")
    assert chip.run() == b"Px"


def test_an_unmapped_entry_takes_effect_with_the_invalidation() -> None:
    read = [*load(A0, 0x3C010010), *send(A0)]
    chip = window_chip([*OPEN, *read, *store(MMU + 4, 0x100), *read, *call(INVALIDATE), *read, *HERE])
    assert chip.run()[:4] == b"PP" + bytes([5, 0x10])


def test_code_in_flash_must_not_switch_its_own_cache_off() -> None:
    chip = window_chip([*OPEN, *call(0x42010100)])
    routine = pack([*call(DISABLE), *HERE])
    chip.content[0x20100 : 0x20100 + len(routine)] = routine
    assert chip.run()[:1] == bytes([1])


def test_cache_off_and_on_from_ram_is_harmless() -> None:
    chip = window_chip([*OPEN, *call(DISABLE), *call(ENABLE), *load(A0, 0x3C010010), *send(A0), *HERE])
    assert chip.run() == b"P"


# --- UART, idleness, interrupts --------------------------------------------------------------------------

ECHO = [*load(A0, UART), *send(A0)]


def test_wfi_rests_until_a_byte_comes_and_takes_no_trap() -> None:
    chip = TinyChip([*ROUTE_UART, *UNMASK_LINE_3, WFI, *ECHO, *jump(-7)])
    assert chip.run() == b"" and chip.machine.idle
    assert chip.machine.run(1000) == 0
    for text in (b"a", b"bc"):
        chip.machine.feed(text)
        assert not chip.machine.idle
        assert chip.run() == text
        assert chip.machine.idle


def test_wfi_in_code_that_the_program_wrote_itself_rests_too() -> None:
    loop = [*store(0x40390000, WFI), *store(0x40390004, jump(-1)[0]), *call(0x40390000)]
    chip = TinyChip(loop)
    chip.run()
    assert chip.machine.idle


def test_a_masked_interrupt_does_not_wake() -> None:
    chip = TinyChip([*ROUTE_UART, WFI, *ECHO, *HERE])
    chip.run()
    chip.machine.feed(b"a")
    assert chip.machine.idle and chip.run() == b""


def test_an_enabled_interrupt_goes_through_its_vector() -> None:
    handler = [*HERE, *HERE, *HERE, *jump(1), *csr_read(A0, MCAUSE), *send(A0), *ECHO, MRET]
    enable = [*li(A0, 8), *csr_write(MSTATUS, A0)]
    chip = TinyChip([*ROUTE_UART, *UNMASK_LINE_3, *enable, WFI, *jump(-1)], handler)
    chip.run()
    chip.machine.feed(b"k")
    assert chip.run() == b"\x03k"
    assert chip.machine.idle
    chip.machine.feed(b"l")
    assert chip.run() == b"\x03l"


def test_status_counts_what_was_received_up_to_the_fifo() -> None:
    for fed, counted in ((b"", 0), (b"ab", 2), (b"x" * 200, 128)):
        chip = TinyChip([*load(A0, UART + 0x1C), *send(A0), *HERE])
        chip.machine.feed(fed)
        assert chip.run() == bytes([counted])


def test_nothing_runs_before_the_first_reset() -> None:
    chip = TinyChip(HERE)
    machine = Rv32Machine(chip, {}, lambda: 0.0)
    assert machine.idle and machine.run(1000) == 0 and machine.transmit() == b""


@pytest.mark.parametrize("budget", [1, 7, 4_999, 5_000, 5_001, 23_456])
def test_run_stays_within_its_budget(budget: int) -> None:
    assert TinyChip(HERE).machine.run(budget) == budget


@settings(max_examples=60, deadline=None)
@given(words=st.lists(st.integers(0, 0xFFFFFFFF), min_size=1, max_size=60), handled=st.booleans())
def test_no_program_breaks_the_machine(words: list[int], handled: bool) -> None:
    chip = TinyChip(words, REPORT if handled else words[::-1])
    for _ in range(3):
        assert 0 <= chip.machine.run(10_000) <= 10_000
        chip.machine.feed(b"\x5a" * 3)
        chip.now += 0.1
        if chip.machine.pending_reset is not None:
            chip.machine.reset(chip.machine.pending_reset)


# --- timers and resets -----------------------------------------------------------------------------------


def test_an_alarm_ends_wfi_at_its_time() -> None:
    arm = [
        *store(RTC + 0xA8, timers.WDT_KEY),
        *store(RTC + 0x90, 0),
        *store(TIMG0 + 0x48, 0),
        *store(SYSTIMER + 0x20, 4_000_000),
        *store(SYSTIMER + 0x50, 1),
        *store(SYSTIMER, 0x47000000),
        *store(SYSTIMER + 0x64, 1),
        *store(MATRIX + 4 * per.SYSTIMER_SOURCES[0], 3),
    ]
    chip = TinyChip([*arm, *UNMASK_LINE_3, WFI, *store(UART, ord("!")), *store(SYSTIMER + 0x6C, 1), WFI, *HERE])
    assert chip.run() == b"" and chip.machine.idle
    assert chip.machine.wake_at == pytest.approx(0.25, abs=1e-6)
    chip.now = 0.2
    assert chip.run() == b""
    chip.now = chip.machine.wake_at or 0.0
    assert chip.run() == b"!"
    assert chip.machine.idle and chip.machine.wake_at is None


def test_a_periodic_alarm_comes_again() -> None:
    now = 0.0
    timer = timers.Systimer(lambda: now)
    timer.write(0x00, 1 << 30 | 1 << 24)
    timer.write(0x64, 1)
    timer.write(0x34, 1 << 30 | 16_000)
    timer.write(0x50, 1)
    seen = []
    for tick in range(1, 60):
        now = tick / 10_000
        timer.advance()
        if timer.interrupting(0):
            timer.write(0x6C, 1)
            seen.append(tick)
    assert seen == [10, 20, 30, 40, 50]


def test_the_counter_is_latched_on_request() -> None:
    now = 300.0
    timer = timers.Systimer(lambda: now)
    now = 300.0 + 3600.0
    assert timer.read(0x44) == 0
    timer.write(0x04, 1 << 30)
    assert timer.read(0x04) == 1 << 29
    assert timer.read(0x40) << 32 | timer.read(0x44) == 3600 * 16_000_000


@pytest.mark.parametrize(("bit", "cause"), [(31, rom.SW_SYS), (5, rom.SW_CPU)])
def test_software_resets(bit: int, cause: int) -> None:
    chip = TinyChip([*store(RTC, 1 << bit), *HERE])
    chip.run()
    assert chip.machine.pending_reset == cause and chip.machine.idle
    chip.machine.reset(cause)
    assert f"rst:{cause:#x} (".encode() in chip.machine.transmit()


def test_rtc_scratch_registers_survive_all_but_power_on() -> None:
    chip = TinyChip([*load(A0, RTC + 0x54), *send(A0), *store(RTC + 0x54, 0x77), *store(RTC, 1 << 31), *HERE])
    assert chip.run() == b"\0"
    chip.machine.reset(rom.SW_SYS)
    assert chip.run().endswith(b"\x77")
    chip.machine.reset(rom.POWERON)
    assert chip.run().endswith(b"\0")


def test_the_boot_watchdogs_bite_unless_switched_off_behind_their_keys() -> None:
    timg_off, rtc_off = store(TIMG0 + 0x48, 0), store(RTC + 0x90, 0)
    unlock = store(RTC + 0xA8, timers.WDT_KEY)
    for program, cause in (
        ([], rom.TG0WDT_SYS),
        ([*timg_off, *rtc_off], rom.RTCWDT_RTC),  # the RTC's is locked: the write is lost
        ([*store(TIMG0 + 0x64, 0), *timg_off], rom.TG0WDT_SYS),
        ([*timg_off, *unlock, *rtc_off], None),
    ):
        chip = TinyChip([*program, *HERE])
        chip.run()
        assert (chip.machine.wake_at is None) == (cause is None)
        chip.now = 100.0
        chip.run()
        assert chip.machine.pending_reset == cause


def test_feeding_moves_the_bite_and_stages_name_their_reset() -> None:
    now = 0.0
    group = TimerGroup(lambda: now, 1, lambda: 40e6)
    assert group.watchdog.bite is None
    group.write(0x4C, 40_000 << 16)  # a tick is a millisecond
    group.write(0x50, 100)
    group.write(0x54, 50)
    group.write(0x48, 1 << 31 | 1 << 29 | 2 << 27)  # stage 0 interrupts, stage 1 resets the CPU
    assert group.watchdog.bite == (pytest.approx(0.15), rom.TG1WDT_CPU)
    now = 1.0
    group.write(0x60, 1)
    assert group.watchdog.bite == (pytest.approx(1.15), rom.TG1WDT_CPU)
    group.write(0x48, 1 << 31 | 3 << 29)
    assert group.watchdog.bite == (pytest.approx(1.1), rom.TG1WDT_SYS)
    group.write(0x64, 0)
    now = 2.0
    group.write(0x60, 1)
    group.write(0x48, 0)
    assert group.watchdog.bite == (pytest.approx(1.1), rom.TG1WDT_SYS), "locked"


def test_the_line_is_usb_as_soon_as_firmware_writes_there() -> None:
    usb = [*li(T0, 0x60043000), A0 << 20 | T0 << 15 | 2 << 12 | 0x23]
    program = [*li(A0, ord("u")), *send(A0), *li(A0, ord("j")), *usb, *load(A0, 0x60043000), *usb, *HERE]
    for on, said in ((False, b"u"), (True, b"j\0")):
        chip = TinyChip(program)
        chip.machine.usb = on
        chip.machine.feed(b"x")
        assert chip.run() == said, "what came before it did was for UART0"
