"""How the executing ESP32-C3 is entered by its ROM, when it takes an interrupt: small programs in machine code."""

from __future__ import annotations

import pytest

from tests.unit.test_rv32 import (
    A0,
    A1,
    CODE,
    ECHO,
    HERE,
    INTERRUPTS_OFF,
    INTERRUPTS_ON,
    LOCATION,
    MATRIX,
    MCAUSE,
    MEPC,
    MRET,
    MSTATUS,
    NOP,
    ROUTE_UART,
    SP,
    SYSTIMER,
    UART,
    UNMASK_LINE_3,
    WFI,
    TinyChip,
    call,
    csr_read,
    csr_write,
    jump,
    li,
    load,
    pack,
    send,
    store,
)
from virtualboard import rom
from virtualboard import rv32_peripherals as per
from virtualboard.rv32 import Rv32Machine

VECTORED = [*HERE * 3, *jump(1)]
"""The first four vectors; line 3 goes on behind them."""
REPORT = [*VECTORED, *csr_read(A0, MCAUSE), *send(A0), *csr_read(A0, MEPC), *send(A0), *HERE]
"""Low bytes of mcause and mepc, then nothing more."""
EVERY_LINE = [*[word for line in range(32) for word in jump(32 - line)], *csr_read(A0, MCAUSE), *send(A0), *HERE]
FROM_CPU = 0x600C0028


def slot(program: list[int]) -> int:
    """Low byte of the address behind `program`."""
    return LOCATION + 4 * len(program) & 0xFF


# --- the state that the ROM leaves -----------------------------------------------------------------------


def test_the_rom_enters_with_interrupts_on_its_stack_and_its_threshold() -> None:
    sp = [*[SP << 15 | A0 << 7 | 0x13], *send(A0), 8 << 20 | A0 << 15 | 5 << 12 | A0 << 7 | 0x13, *send(A0)]
    program = [*csr_read(A0, MSTATUS), *send(A0), *sp, *load(A0, MATRIX + 0x194), *send(A0), *HERE]
    chip = TinyChip([])
    chip.content[0x28 : 0x28 + 4 * len(program)] = pack(program)  # over the preamble: the first instruction
    machine = Rv32Machine(chip, {}, lambda: 0.0)
    code = bytes(chip.content[0x28:0x828])
    machine.start(CODE, [rom.RomSegment(CODE, code)])
    machine.run(1000)
    assert machine.transmit() == bytes([0x08, 0x60, 0xE5, 0x01])


# --- when an interrupt is taken ----------------------------------------------------------------------------

PENDING = [*ROUTE_UART, *UNMASK_LINE_3]
OPENERS = {
    "csrsi": [INTERRUPTS_ON],
    "csrwi": [0x30045073],
    "csrw": [*li(A0, 8), *csr_write(MSTATUS, A0)],
    "csrs": [*li(A0, 0x1808), 0x300 << 20 | A0 << 15 | 2 << 12 | 0x73],
}


def run_with_a_byte(program: list[int], handler: list[int]) -> TinyChip:
    """The byte waits in the FIFO from the start, so line 3 is pending once it is routed."""
    chip = TinyChip(program, handler)
    chip.machine.feed(b"k")
    return chip


@pytest.mark.parametrize("opener", OPENERS)
def test_a_pending_interrupt_is_taken_behind_the_instruction_that_lets_it(opener: str) -> None:
    program = [*PENDING, *[NOP] * 3, *OPENERS[opener]]
    assert run_with_a_byte([*program, *[NOP] * 5, *HERE], REPORT).run() == bytes([3, slot(program)])


def test_a_window_of_one_instruction_is_enough() -> None:
    program = [*PENDING, INTERRUPTS_ON]
    assert run_with_a_byte([*program, INTERRUPTS_OFF, *HERE], REPORT).run() == bytes([3, slot(program)])


def test_a_return_from_a_trap_lets_it_in() -> None:
    back = [*li(A0, CODE + 0x700), *csr_write(MEPC, A0), *li(A0, 0x1880), *csr_write(MSTATUS, A0), MRET]
    chip = run_with_a_byte([*PENDING, *back], REPORT)
    assert chip.run() == bytes([3, 0x00])


def test_the_store_that_unmasks_it_is_done_once_and_then_it_is_taken() -> None:
    program = [INTERRUPTS_ON, *ROUTE_UART, *UNMASK_LINE_3]
    after = [*store(UART, ord("!")), *HERE]
    assert run_with_a_byte([*program, *after], REPORT).run() == bytes([3, slot(program)])
    from_cpu = [*store(MATRIX + 4 * per.FROM_CPU_SOURCES[0], 3), *UNMASK_LINE_3, INTERRUPTS_ON, *store(FROM_CPU, 1)]
    assert TinyChip([*from_cpu, *after], REPORT).run() == bytes([3, slot(from_cpu)])


def test_a_compressed_store_too() -> None:
    setup = [*store(MATRIX + 4 * per.FROM_CPU_SOURCES[1], 3), *UNMASK_LINE_3, INTERRUPTS_ON]
    setup += [*li(A0, FROM_CPU + 4), *li(A1, 1)]
    pair = [0x0001_C10C]  # c.sw a1, 0(a0); c.nop
    assert TinyChip([*setup, *pair, *HERE], REPORT).run() == bytes([3, slot(setup) + 2])


def test_code_that_the_program_wrote_itself_is_no_exception() -> None:
    copied = [INTERRUPTS_ON, INTERRUPTS_OFF, *jump(0)]
    program = [word for at, code in enumerate(copied) for word in store(0x40390000 + 4 * at, code)]
    assert run_with_a_byte([*PENDING, *program, *call(0x40390000)], REPORT).run() == bytes([3, 0x04])


def test_a_handler_that_serves_it_returns_to_where_it_was() -> None:
    handler = [*VECTORED, *ECHO, MRET]
    count = [*li(A1, 0), INTERRUPTS_ON, *[1 << 20 | A1 << 15 | A1 << 7 | 0x13] * 40, *send(A1), *HERE]
    chip = run_with_a_byte([*PENDING, *count], handler)
    assert chip.run() == b"k" + bytes([40])
    chip.machine.feed(b"l")
    assert chip.run() == b"l", "an endless loop is interrupted too"


def test_wfi_with_interrupts_on_traps_behind_itself() -> None:
    program = [*PENDING, INTERRUPTS_ON, WFI]
    chip = TinyChip([*program, *HERE], REPORT)
    assert chip.run() == b"" and chip.machine.idle
    chip.machine.feed(b"k")
    assert chip.run() == bytes([3, slot(program)])


def test_a_handler_of_the_rom_stops_the_chip_until_its_watchdog() -> None:
    chip = run_with_a_byte([*li(A1, 0x40000001), *csr_write(0x305, A1), *PENDING, INTERRUPTS_ON, *HERE], REPORT)
    log = chip.run().decode()
    assert log.startswith(
        "\r\nGuru Meditation Error: Core 0 panic'ed (Unexpected interrupt). Exception was unhandled.\r\n"
    )
    assert "MCAUSE  : 0x80000003" in log and chip.machine.idle


# --- the interrupt matrix ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("priority", "threshold", "taken"),
    [(1, 0, True), (1, 1, True), (1, 2, False), (0, 0, False), (0, 1, False), (15, 15, True), (14, 15, False)],
)
def test_a_priority_below_the_threshold_is_masked(priority: int, threshold: int, taken: bool) -> None:
    masks = [*store(MATRIX + 0x114 + 12, priority), *store(MATRIX + 0x194, threshold)]
    program = [*ROUTE_UART, *store(MATRIX + 0x104, 1 << 3), *masks, INTERRUPTS_ON]
    sent = run_with_a_byte([*program, *HERE], REPORT).run()
    assert sent == (bytes([3, slot(program)]) if taken else b"")


def test_the_highest_priority_comes_first_and_the_lowest_line_of_equals() -> None:
    def first(priorities: dict[int, int]) -> int:
        program = [*store(MATRIX + 0x104, 0xFFFFFFFF)]
        for source, (line, priority) in zip(per.FROM_CPU_SOURCES, priorities.items(), strict=False):
            program += [*store(MATRIX + 4 * source, line), *store(MATRIX + 0x114 + 4 * line, priority)]
            program += store(FROM_CPU + 4 * (source - 50), 1)
        (line,) = TinyChip([*program, INTERRUPTS_ON, *HERE], EVERY_LINE).run()
        return line

    assert first({5: 1, 9: 3, 20: 2}) == 9
    assert first({20: 4, 7: 4, 31: 4}) == 7
    assert first({31: 1}) == 31


def test_line_0_takes_nothing_and_an_unrouted_source_neither() -> None:
    for line in (0, 32):  # five bits: 32 is 0
        program = [*store(MATRIX + 4 * 50, line), *store(MATRIX + 0x104, 0xFFFFFFFF), *store(MATRIX + 0x114, 7)]
        assert TinyChip([*program, INTERRUPTS_ON, *store(FROM_CPU, 1), *HERE], EVERY_LINE).run() == b""


def raised(matrix: per.InterruptMatrix, sources: list[int]) -> int | None:
    matrix.raise_sources(sources)
    return matrix.line()


def test_an_edge_stays_pending_until_it_is_cleared() -> None:
    matrix = per.InterruptMatrix()
    for offset, value in ((0x104, 8), (0x108, 8), (0x114 + 12, 1), (4 * 50, 3)):
        matrix.write(offset, value)
    assert raised(matrix, [50]) == 3
    assert raised(matrix, []) == 3 and matrix.read(0x110) == 8
    matrix.write(0x10C, 8)
    assert raised(matrix, []) is None and matrix.read(0x110) == 0
    assert raised(matrix, [50]) == 3
    matrix.write(0x10C, 8)
    assert raised(matrix, [50]) is None, "no new edge"


def test_a_level_is_pending_as_long_as_its_source() -> None:
    matrix = per.InterruptMatrix()
    for offset, value in ((0x104, 8), (0x114 + 12, 1), (4 * 50, 3)):
        matrix.write(offset, value)
    assert raised(matrix, [50]) == 3
    matrix.write(0x10C, 8)
    assert raised(matrix, [50]) == 3 and raised(matrix, []) is None


def test_an_alarm_that_was_never_loaded_goes_off_when_it_is_switched_on() -> None:
    """Measured on the real chip's ROM: the reference firmware was interrupted by it before it had set a time."""
    route = [*store(MATRIX + 4 * per.SYSTIMER_SOURCES[0], 3), *UNMASK_LINE_3, *store(SYSTIMER + 0x64, 1)]
    program = [*route, INTERRUPTS_ON, *store(SYSTIMER, 0x47000000)]
    assert TinyChip([*program, *HERE], REPORT).run() == bytes([3, slot(program)])


def test_many_places_that_turn_interrupts_on_cost_no_more_than_they_must() -> None:
    """A loop over more of them than there are hooks for: an interrupt still gets in."""
    gates = [INTERRUPTS_ON, INTERRUPTS_OFF] * 150
    chip = TinyChip([*PENDING, *gates, *jump(-len(gates))], REPORT)
    chip.run(200_000)
    chip.machine.feed(b"k")
    assert chip.run(200_000)[:1] == bytes([3])
