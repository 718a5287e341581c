"""The ESP32-C3's peripherals as ESP-IDF drives them: timers, hash accelerator, flash controller, cache, USB, CSRs."""

from __future__ import annotations

import hashlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virtualboard import rv32_peripherals as per
from virtualboard.nor import NorFlash
from virtualboard.rv32_accelerators import Dma, Sha, SystemControl, compress
from virtualboard.rv32_csr import ExtraCsrs
from virtualboard.rv32_flash_controller import FlashController
from virtualboard.rv32_registers import READY, ReadyRegisters
from virtualboard.rv32_timer_groups import TimerGroup
from virtualboard.rv32_timers import Systimer
from virtualboard.spi import FlashPart


class HandClock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


# --- the system timer -------------------------------------------------------------------------------


def ticks(timer: Systimer, unit: int) -> int:
    timer.write((0x04, 0x08)[unit], 1 << 30)
    assert timer.read((0x04, 0x08)[unit]) & 1 << 29
    return timer.read((0x40, 0x48)[unit]) << 32 | timer.read((0x44, 0x4C)[unit])


def test_the_second_unit_stands_until_it_is_switched_on() -> None:
    clock = HandClock()
    timer = Systimer(clock)
    clock.now = 1.0
    assert (ticks(timer, 0), ticks(timer, 1)) == (16_000_000, 0)
    timer.write(0, timer.read(0) | 1 << 29)
    clock.now = 1.5
    assert (ticks(timer, 0), ticks(timer, 1)) == (24_000_000, 8_000_000)
    timer.write(0, timer.read(0) & ~(1 << 30))
    clock.now = 3.0
    assert (ticks(timer, 0), ticks(timer, 1)) == (24_000_000, 32_000_000)


def test_a_unit_is_loaded() -> None:
    clock = HandClock()
    timer = Systimer(clock)
    timer.write(0x0C, 1)
    timer.write(0x10, 5)
    assert ticks(timer, 0) == 0, "only when it is told"
    timer.write(0x5C, 1)
    clock.now = 1.0
    assert ticks(timer, 0) == (1 << 32 | 5) + 16_000_000


def test_an_alarm_of_the_second_unit() -> None:
    """ESP-IDF's tick: unit 1, periodic, counted from when the unit starts."""
    clock = HandClock()
    timer = Systimer(clock)
    timer.write(0x64, 1)
    timer.write(0x34, 1 << 31 | 1 << 30 | 160_000)
    timer.write(0x50, 1)
    timer.write(0, timer.read(0) | 1 << 24)
    timer.advance()
    assert not timer.interrupting(0) and timer.next_at is None, "its unit stands"
    timer.write(0, timer.read(0) | 1 << 29)
    assert timer.next_at == pytest.approx(0.01, abs=1e-6)
    seen = []
    for step in range(1, 50):
        clock.now = step / 1000
        timer.advance()
        if timer.interrupting(0):
            timer.write(0x6C, 1)
            seen.append(step)
    assert seen == [10, 20, 30, 40]


# --- timer groups -----------------------------------------------------------------------------------


def group(clock: HandClock) -> TimerGroup:
    return TimerGroup(clock, 1, lambda: 80e6)


def test_a_general_purpose_timer_counts_and_alarms() -> None:
    clock = HandClock()
    timer = group(clock)
    timer.write(0x18, 7)
    timer.write(0x20, 1)  # load 7
    timer.write(0x10, 7 + 1000)
    timer.write(0x70, 1)
    timer.write(0x00, 1 << 31 | 1 << 30 | 1 << 29 | 80 << 13 | 1 << 10)  # up, 1 MHz, reload, alarm
    assert timer.next_at == pytest.approx(0.001)
    clock.now = 0.0005
    timer.write(0x0C, 1 << 31)
    assert (timer.read(0x04), timer.read(0x08), timer.read(0x0C)) == (507, 0, 0)
    clock.now = 0.0011
    timer.advance()
    assert timer.interrupting == (True, False) and timer.read(0x78) == 1
    timer.write(0x0C, 0)
    assert timer.read(0x04) == 7, "reloaded"
    timer.write(0x7C, 1)
    assert timer.interrupting == (False, False) and timer.next_at is None, "an alarm goes off once"


def test_a_timer_counts_down() -> None:
    clock = HandClock()
    timer = group(clock)
    timer.write(0x18, 1000)
    timer.write(0x20, 1)
    timer.write(0x00, 1 << 31 | 80 << 13)
    clock.now = 0.0004
    timer.write(0x0C, 1)
    assert timer.read(0x04) == 600


def test_a_watchdog_warns_before_it_bites() -> None:
    """ESP-IDF's interrupt watchdog: stage 0 interrupts after 300 ms, stage 1 resets after 600."""
    clock = HandClock()
    dog = group(clock)
    dog.write(0x64, 0x50D83AA1)
    dog.write(0x4C, 40_000 << 16)  # 2 kHz
    dog.write(0x50, 600)
    dog.write(0x54, 600)
    dog.write(0x70, 2)
    dog.write(0x48, 1 << 31 | 1 << 29 | 3 << 27)
    assert dog.next_at == pytest.approx(0.3) and dog.watchdog.bite is not None
    assert (round(dog.watchdog.bite[0], 6), dog.watchdog.bite[1]) == (0.6, 0x08)
    clock.now = 0.29
    dog.write(0x60, 1)
    clock.now = 0.5
    dog.advance()
    assert dog.interrupting == (False, False)
    clock.now = 0.6
    dog.advance()
    assert dog.interrupting == (False, True)
    dog.write(0x7C, 2)
    clock.now = 0.7
    dog.advance()
    assert dog.interrupting == (False, False), "once, until it is fed"
    dog.write(0x60, 1)
    clock.now = 1.1
    dog.advance()
    assert dog.interrupting == (False, True)


def test_the_calibration_of_slow_clocks() -> None:
    timer = group(HandClock())
    timer.write(0x68, 1 << 31 | 1000 << 16)
    assert timer.read(0x68) & 1 << 15 and timer.read(0x6C) >> 7 == 1000 * 40_000_000 // 136_000
    timer.write(0x68, 1 << 31 | 1000 << 16 | 2 << 13)
    assert timer.read(0x80) & 1 and not timer.read(0x68) & 1 << 15, "there is no 32 kHz crystal"


# --- hashes ------------------------------------------------------------------------------------------


def padded(message: bytes) -> bytes:
    return message + b"\x80" + bytes((-len(message) - 9) % 64) + (8 * len(message)).to_bytes(8, "big")


def feed(sha: Sha, blocks: bytes, *, first: bool = True) -> None:
    for at in range(0, len(blocks), 64):
        for index, word in enumerate(struct.unpack("<16I", blocks[at : at + 64])):
            sha.write(0x80 + 4 * index, word)
        sha.write(0x10 if first and at == 0 else 0x14, 1)
        assert sha.read(0x18) == 0


def state(sha: Sha, words: int) -> bytes:
    return struct.pack(f"<{words}I", *(sha.read(0x40 + 4 * index) for index in range(words)))


@settings(max_examples=25)
@given(st.integers(0, 2), st.binary(max_size=200), st.integers(0, 3))
def test_the_accelerator_hashes(mode: int, message: bytes, pause: int) -> None:
    """Whole, and with the state taken away and put back after some blocks, as mbedTLS does with several contexts."""
    name = ("sha1", "sha224", "sha256")[mode]
    blocks, size = padded(message), hashlib.new(name).digest_size
    for taken in (0, 64 * min(pause, len(blocks) // 64 - 1)):
        sha = Sha(lambda n: b"")
        sha.write(0, mode)
        feed(sha, blocks[:taken] or blocks)
        if taken:
            words = [sha.read(0x40 + 4 * index) for index in range(8)]
            other = Sha(lambda n: b"")
            other.write(0, mode)
            feed(other, padded(b"another"))
            for index, word in enumerate(words):
                other.write(0x40 + 4 * index, word)
            feed(other, blocks[taken:], first=False)
            sha = other
        assert state(sha, size // 4) == hashlib.new(name, message).digest()


def test_one_step_of_each_hash_against_hashlib() -> None:
    starts = {0: "67452301efcdab8998badcfe10325476c3d2e1f0"}
    starts[2] = "6a09e667bb67ae853c6ef372a54ff53a510e527f9b05688c1f83d9ab5be0cd19"
    for mode, name in ((0, "sha1"), (2, "sha256")):
        words = struct.unpack(f">{len(starts[mode]) // 8}I", bytes.fromhex(starts[mode]))
        after = compress(mode, words, padded(b"abc"))
        assert struct.pack(f">{len(after)}I", *after) == hashlib.new(name, b"abc").digest()


def test_the_accelerator_takes_blocks_by_dma() -> None:
    """A chain of two descriptors; what else the DMA serves is not modelled and stays away."""
    message = b"dma" * 60
    blocks = padded(message)
    memory = bytearray(0x2000)
    base = 0x3FC80000
    for at, head, buffer, after in (
        (0x100, 1 << 31 | 100 << 12 | 128, base + 0x400, base + 0x200),
        (0x200, 1 << 31 | 1 << 30 | (len(blocks) - 100) << 12 | 256, base + 0x800, 0),
    ):
        struct.pack_into("<3I", memory, at, head, buffer, after)
    memory[0x400:0x464], memory[0x800 : 0x800 + len(blocks) - 100] = blocks[:100], blocks[100:]
    dma = Dma(lambda address, n: bytes(memory[address - base : address - base + n]))
    dma.write(0x70 + 0xC0 + 0x90, 7)
    dma.write(0x18, 1 << 4)
    dma.write(0x70 + 0xC0 + 0x70, 1 << 21 | 0x80100)
    assert dma.read(0x10) & 1 << 4 and dma.read(0x14) == 1 << 4
    dma.write(0x1C, 1 << 4)
    assert dma.read(0x14) == 0
    sha = Sha(dma.take)
    sha.write(0, 2)
    sha.write(0x0C, len(blocks) // 64)
    sha.write(0x1C, 1)
    assert state(sha, 8) == hashlib.sha256(message).digest()
    dma.write(0x70 + 0x90, 6)  # AES
    dma.write(0x70 + 0x70, 1 << 21 | 0x80100)
    assert dma.take(4) == bytes(4)


def test_a_descriptor_chain_that_never_ends_ends() -> None:
    loop = struct.pack("<3I", 4 << 12, 0x3FC80000, 0x3FC80000)
    dma = Dma(lambda address, n: loop[:n])
    dma.write(0x70 + 0x90, 7)
    dma.write(0x70 + 0x70, 1 << 21 | 0x80000)
    assert dma.take(8) == loop[:4] + bytes(4)


def test_random_numbers_can_be_repeated() -> None:
    one, other, third = SystemControl(1), SystemControl(1), SystemControl(2)
    drawn = [one.read(0xB0) for _ in range(8)]
    assert drawn == [other.read(0xB0) for _ in range(8)] and drawn != [third.read(0xB0) for _ in range(8)]
    assert len(set(drawn)) == 8


# --- the flash controller -------------------------------------------------------------------------------


class Spi:
    """SPI1 with a flash of 256 KiB behind it, driven as ESP-IDF's `spi_flash_ll` does."""

    def __init__(self) -> None:
        self.flash = NorFlash(0x40000)
        self.block = FlashController(FlashPart(self.flash, self.flash.jedec))

    def user(self, opcode: int, address: int | None = None, out: bytes = b"", want: int = 0, bits: int = 24) -> bytes:
        user = 1 << 31
        if address is not None:
            user |= 1 << 30
            self.block.write(0x1C, bits - 1 << 26)
            self.block.write(0x04, address)
        if out:
            user |= 1 << 27
            self.block.write(0x24, 8 * len(out) - 1)
            self.fill(out)
        if want:
            user |= 1 << 28
            self.block.write(0x28, 8 * want - 1)
        self.block.write(0x18, user)
        self.block.write(0x20, 7 << 28 | opcode)
        self.block.write(0x00, 1 << 18)
        assert self.block.read(0x00) == 0
        return self.buffer()[:want]

    def fill(self, data: bytes) -> None:
        for index, (word,) in enumerate(struct.iter_unpack("<I", data.ljust(64, b"\0"))):
            self.block.write(0x58 + 4 * index, word)

    def buffer(self) -> bytes:
        return struct.pack("<16I", *(self.block.read(0x58 + 4 * index) for index in range(16)))

    def command(self, bit: int, address: int = 0) -> None:
        self.block.write(0x04, address)
        self.block.write(0x00, 1 << bit)


def test_identity_and_parameters() -> None:
    spi = Spi()
    assert spi.user(0x9F, want=3) == b"\xc8\x40\x12" and spi.user(0x5A, 0, want=4) == b"SFDP"
    spi.command(28)
    assert spi.buffer()[:3] == b"\xc8\x40\x12"


def test_writes_need_leave_and_take_it_away() -> None:
    spi = Spi()
    spi.user(0x02, 0x100, b"\x00")
    assert spi.flash.read(0x100, 1) == b"\xff", "no write enable before"
    spi.command(30)
    assert spi.user(0x05, want=1) == b"\x02"
    spi.command(27)
    assert spi.block.read(0x2C) & 0xFF == 2
    spi.user(0x02, 0x100, b"\x0f\xf0")
    assert spi.flash.read(0x100, 2) == b"\x0f\xf0" and spi.user(0x05, want=1) == b"\x00"
    spi.command(30)
    spi.command(29)
    spi.user(0x20, 0x0)
    assert spi.flash.read(0x100, 1) == b"\x0f", "leave was withdrawn"


def test_a_program_wraps_within_its_page() -> None:
    spi = Spi()
    spi.command(30)
    spi.user(0x02, 0x1FE, b"\x01\x02\x03\x04")
    assert spi.flash.read(0x1FE, 2) == b"\x01\x02" and spi.flash.read(0x100, 2) == b"\x03\x04"
    spi.command(30)
    spi.fill(b"\x0a\x0b\x0c")
    spi.command(25, 3 << 24 | 0x300)
    assert spi.flash.read(0x300, 4) == b"\x0a\x0b\x0c\xff"


@pytest.mark.parametrize(("opcode", "size"), [(0x20, 0x1000), (0x52, 0x8000), (0xD8, 0x10000), (0xC7, 0x40000)])
def test_erases(opcode: int, size: int) -> None:
    spi = Spi()
    spi.flash.program(0, bytes(0x40000))
    spi.command(30)
    spi.user(opcode, 0x12345)
    start = 0x12345 // size * size
    content = spi.flash.read(0, 0x40000)
    assert content[start : start + size] == b"\xff" * size and content.count(0) == 0x40000 - size


def test_commands_with_a_bit_of_their_own() -> None:
    spi = Spi()
    spi.flash.program(0, bytes(0x40000))
    for bit, size in ((24, 0x1000), (23, 0x10000), (22, 0x40000)):
        spi.command(30)
        spi.command(bit, 0x12345)
        assert spi.flash.read(0x12345 // size * size, size) == b"\xff" * size
    spi.flash.program(0x40, b"abc")
    spi.block.write(0x28, 23)
    spi.command(31, 0x40)
    assert spi.buffer()[:3] == b"abc"


def test_reads_in_every_mode() -> None:
    spi = Spi()
    spi.flash.program(0x1234, b"flash contents")
    for opcode in (0x03, 0x0B, 0x3B, 0x6B):
        assert spi.user(opcode, 0x1234, want=5) == b"flash"
    for opcode in (0xBB, 0xEB):  # eight mode bits behind the address
        assert spi.user(opcode, 0x1234 << 8 | 0xA0, want=5, bits=32) == b"flash"
    assert spi.user(0x13, 0x1234, want=5, bits=32) == b"flash", "four bytes of address"
    spi.flash.program(0, b"first")
    spi.flash.program(0x3FFFE, b"ab")
    assert spi.user(0x03, 0x3FFFE, want=4) == b"abfi", "the array begins again behind its end"


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(0, (1 << 32) - 1), st.binary(max_size=64)), max_size=12))
def test_no_command_raises(commands: list[tuple[int, int, bytes]]) -> None:
    spi = Spi()
    for opcode, address, out in commands:
        assert len(spi.user(opcode, address, out, want=64, bits=32)) == 64
        spi.command(opcode % 32, address)


# --- the rest ----------------------------------------------------------------------------------------------


def test_operations_of_the_cache_are_done_at_once() -> None:
    cache = per.CacheControl()
    assert cache.read(0xB0) == 1 and cache.shut
    for offset, done in ((0x28, 2), (0x34, 2), (0x40, 8), (0x1C, 4)):
        cache.write(offset, 1)
        assert cache.read(offset) & done
    assert cache.invalidated
    cache.write(0xCC, 1)
    assert cache.read(0xCC) == 5
    cache.write(0xCC, 0)
    assert cache.read(0xCC) == 0


def test_the_mmu_tells_of_changes_only() -> None:
    table = per.MmuTable()
    table.write(4, 0x100)
    assert not table.changed
    table.write(4, 0xFF0000 | 5)
    assert table.changed and table.flash_page(1) == 5
    table.write(0x200, 7)
    assert table.flash_page(127) is None


def test_serial_over_usb() -> None:
    usb = per.UsbSerial()
    assert usb.read(4) == 2 and not usb.used and usb.read(0) == 0
    usb.write(0x14, 0xFFFFFFFF)
    usb.write(0x10, 4)
    usb.feed(b"ab")
    assert usb.interrupting and usb.read(0x0C) == 4 and usb.read(4) == 6
    usb.write(0x14, 4)
    assert usb.interrupting, "there is more to read"
    assert (usb.read(0), usb.read(0), usb.read(4)) == (ord("a"), ord("b"), 2)
    usb.write(0x14, 4)
    assert not usb.interrupting
    usb.write(0, ord("x"))
    usb.write(4, 1)
    assert usb.sent == b"x" and usb.used and usb.read(8) & 8


def test_rtc_time_and_scratch() -> None:
    clock = HandClock()
    rtc = per.RtcControl(clock, {}, 1, {0x50: 9})
    clock.now = 1e6
    assert (rtc.read(0x10), rtc.read(0x50)) == (0, 9)
    rtc.write(0x0C, 1 << 31)
    assert rtc.read(0x14) << 32 | rtc.read(0x10) == 136_000_000_000


def test_hardware_that_is_always_ready() -> None:
    analog = ReadyRegisters(*READY[0x0E])
    analog.write(0, 1 << 25 | 0x1234)
    assert analog.read(0) == 0xFF1234


def csr(number: int, function: int, source: int = 0, target: int = 0) -> int:
    return number << 20 | source << 15 | function << 12 | target << 7 | 0x73


def test_protection_is_stored_and_the_counter_moves() -> None:
    clock = HandClock()
    csrs = ExtraCsrs(clock, 160_000_000)
    registers = {0: 0, 5: 0b1100, 6: 0}

    def run(word: int) -> bool:
        return csrs.access(word, registers.__getitem__, registers.__setitem__)

    assert run(csr(0x3A0, 1, 5)) and run(csr(0x3A0, 2, 0, 6)) and registers[6] == 0b1100
    assert (
        run(csr(0x3A0, 7, 0b0100))
        and run(csr(0x3A0, 6, 0b0001))
        and run(csr(0x3A0, 5, 3, 6))
        and registers[6] == 0b1001
    )
    seen = []
    for number in (0x7E2, 0x802, 0x7E2):
        assert run(csr(number, 2, 0, 6))
        seen.append(registers[6])
    assert seen == sorted(set(seen)), "both names are one counter, and a loop that waits for it ends"
    clock.now = 1.0
    run(csr(0x7E2, 2, 0, 6))
    assert registers[6] - seen[-1] >= 160_000_000
    assert run(csr(0x7E2, 1, 0)) and run(csr(0x7E2, 2, 0, 6)) and registers[6] < 10_000, "it can be set"
    for other in (csr(0x300, 2, 0, 6), csr(0x7C0, 2, 0, 6), 0x30200073, 0x00000073, 0x13):
        assert not run(other)


@given(
    active=st.frozensets(st.integers(0, 61), max_size=8),
    lines=st.lists(st.integers(0, 31), min_size=62, max_size=62),
    priorities=st.lists(st.integers(0, 15), min_size=31, max_size=31),
    enabled=st.integers(0, 2**32 - 1),
    threshold=st.integers(0, 15),
)
def test_the_line_is_the_first_of_the_highest_priority(
    active: frozenset[int], lines: list[int], priorities: list[int], enabled: int, threshold: int
) -> None:
    matrix = per.InterruptMatrix()
    for source, line in enumerate(lines):
        matrix.write(4 * source, line)
    for number, priority in enumerate(priorities, 1):
        matrix.write(matrix.PRIORITY + 4 * number, priority)
    matrix.write(matrix.ENABLE, enabled)
    matrix.write(matrix.THRESHOLD, threshold)
    matrix.raise_sources(active)
    raised = {lines[source] for source in active} - {0}
    able = [n for n in raised if enabled >> n & 1 and priorities[n - 1] >= max(threshold, 1)]
    assert matrix.line() == (min(able, key=lambda n: (-priorities[n - 1], n)) if able else None)
