"""What the ROMs refuse, and with which words: one changed field after the other, as measured on the real ROMs."""

from __future__ import annotations

import struct

import pytest

from tests.unit.test_rom_boot import make_image
from virtualboard import rom
from virtualboard.chips import CHIPS

C3_HEAD = b"ESP-ROM:esp32c3-api1-20210207\r\nBuild:Feb  7 2021\r\nrst:0x1 (POWERON),boot:0xc (SPI_FAST_FLASH_BOOT)\r\n"
ESP32_HEAD = b"ets Jul 29 2019 12:21:46\r\n\r\nrst:0x1 (POWERON_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)\r\n"
C3_MODE = b"SPIWP:0xee\r\nmode:DIO, clock div:1\r\n"
NO_DRIVE = b"clk_drv:0x00,q_drv:0x00,d_drv:0x00,cs0_drv:0x00,hd_drv:0x00,wp_drv:0x00\r\n"
ESP32_MODE = b"configsip: 0, SPIWP:0xee\r\n" + NO_DRIVE + b"mode:DIO, clock div:1\r\n"
RAM = {"esp32c3": 0x3FCD5710, "esp32": 0x3FFF0030, "esp32s3": 0x3FCE3808}
SIZE = 0x80000


def log_of(chip: str, segments: list[tuple[int, bytes]], patch: dict[int, int] | None = None, **fields: int) -> bytes:
    """What a chip prints for an image with other bytes at some offsets; `size<N>` is the length of segment N."""
    lengths = {int(name[4:]): value for name, value in fields.items() if name.startswith("size")}
    entry = fields.get("entry", 0x403CC710 if chip == "esp32c3" else 0x40080400)
    image = bytearray(make_image(segments, entry=entry, chip_id=CHIPS[chip].chip_id))
    at = 24
    for number, (_, data) in enumerate(segments):
        if number in lengths:
            struct.pack_into("<I", image, at + 4, lengths[number])
        at += 8 + len(data)
    for offset, value in (patch or {}).items():
        image[offset] = value
    base = CHIPS[chip].bootloader_offset
    flash = (b"\xff" * base + bytes(image)).ljust(SIZE, b"\xff")
    return rom.boot(lambda offset, n: flash[offset : offset + n], SIZE, rom.POWERON, 0, CHIPS[chip].rom).log


ONE = [(RAM["esp32c3"], b"\x13\0\0\0")]
ONE_LINE = b"load:0x3fcd5710,len:0x4\r\n"


@pytest.mark.parametrize(
    ("segments", "patch", "fields", "after"),
    [
        (ONE, {12: 0}, {}, b"Invalid chip id. Expected 5 read 0. Bootloader for wrong chip?\r\nets_main.c 333 \r\n"),
        (ONE, {13: 2}, {}, b"Invalid chip id. Expected 5 read 517. Bootloader for wrong chip?\r\nets_main.c 333 \r\n"),
        (ONE, {1: 17}, {}, C3_MODE + b"Invalid image block count: 17 (max 16)\r\nets_main.c 333 \r\n"),
        (ONE, {1: 32}, {}, C3_MODE + b"Invalid image block count: 32 (max 16)\r\nets_main.c 333 \r\n"),
        (ONE, {1: 33}, {}, b"invalid header: 0x2f0221e9\r\n" * 8),
        (ONE, {1: 255}, {}, b"invalid header: 0x2f02ffe9\r\n" * 8),
        (ONE, {2: 11}, {}, b"invalid header: 0x2f0b01e9\r\n" * 8),
        (ONE, {2: 255}, {}, b"invalid header: 0x2fff01e9\r\n" * 8),
        (ONE, {3: 0x23}, {}, b"invalid header: 0x230201e9\r\n" * 8),
        (ONE, {3: 0x2E}, {}, b"invalid header: 0x2e0201e9\r\n" * 8),
        (
            ONE,
            {24: 0x12},
            {},
            C3_MODE + b"load:0x3fcd5712,len:0x4\r\nInvalid image block, can't boot.\r\nets_main.c 333 \r\n",
        ),
        (
            ONE,
            {},
            {"size0": 5},
            C3_MODE + b"load:0x3fcd5710,len:0x5\r\nInvalid image block, can't boot.\r\nets_main.c 333 \r\n",
        ),
        (
            [*ONE, (RAM["esp32c3"] + 4, b"\0\0\0\0")],
            {},
            {"size1": 0x1000000},
            C3_MODE
            + ONE_LINE
            + b"load:0x3fcd5714,len:0x1000000\r\nInvalid image block, can't boot.\r\nets_main.c 333 \r\n",
        ),
        (ONE, {1: 2, **dict.fromkeys(range(36, 44), 0xFF)}, {}, C3_MODE + ONE_LINE + b"ets_loader.c 78 \r\n"),
        (
            [(0x80000000, b"\0" * 4)],
            {},
            {},
            C3_MODE + b"load:0x80000000,len:0x4\r\ncmd len 64\r\nets_loader.c 212 \r\n",
        ),
        (
            [(0x3FCDE100, b"\0" * 0x64)],
            {},
            {},
            C3_MODE
            + b"load:0x3fcde100,len:0x64\r\n"
            + b"region 0x3fcde100-0x3fcde164 overlaps 0x3fcde160-0x3fcdf664, can't load\r\nets_main.c 333 \r\n",
        ),
        (
            [(0x3FCDF660, b"\0" * 8)],
            {},
            {},
            C3_MODE
            + b"load:0x3fcdf660,len:0x8\r\n"
            + b"region 0x3fcdf660-0x3fcdf668 overlaps 0x3fcde160-0x3fcdf664, can't load\r\nets_main.c 333 \r\n",
        ),
        (
            ONE,
            {47: 0},
            {},
            C3_MODE + ONE_LINE + b"Checksum failure. Calculated 0xfc stored 0x00\r\nets_main.c 333 \r\n",
        ),
    ],
)
def test_what_the_c3_refuses(
    segments: list[tuple[int, bytes]], patch: dict[int, int], fields: dict[str, int], after: bytes
) -> None:
    assert log_of("esp32c3", segments, patch, **fields) == C3_HEAD + after


@pytest.mark.parametrize(
    "segment", [(0x3FCDE100, b"\0" * 0x60), (0x3FCDF664, b"\0" * 4), (0x3FCDE200, b""), (0x3CE00000, b"\0" * 8)]
)
def test_what_lies_beside_the_roms_memory_is_loaded(segment: tuple[int, bytes]) -> None:
    assert b"\r\nentry 0x403cc710\r\n" in log_of("esp32c3", [segment])


@pytest.mark.parametrize("chip", ["esp32c3", "esp32s3"])
def test_the_modes_that_these_roms_name(chip: str) -> None:
    names = ["QIO", "QOUT", "DIO", "DOUT", "FAST_RD", "SLOW_RD", "OPI_STR", "OPI_DTR", "OOUT", "OIO_STR", "OIO_DTR"]
    for mode, name in enumerate(names):
        log = log_of(chip, [(RAM[chip], b"\0\0\0\0")], {2: mode})
        assert f"\r\nmode:{name}, clock div:1\r\n".encode() in log and b"\r\nentry 0x" in log


def test_the_pins_of_the_c3() -> None:
    assert log_of("esp32c3", ONE, {8: 0}).startswith(C3_HEAD + b"SPIWP:0x00\r\nmode:DIO")
    drives = b"SPIWP:0x07\r\nclk_drv:0x01,q_drv:0x02,d_drv:0x00,cs0_drv:0x00,hd_drv:0x00,wp_drv:0x00\r\nmode:DIO"
    assert log_of("esp32c3", ONE, {8: 7, 9: 0x21}).startswith(C3_HEAD + drives)


def test_the_s3_refuses_with_its_own_line_numbers() -> None:
    segment = [(RAM["esp32s3"], b"\0\0\0\0")]
    wrong = log_of("esp32s3", segment, {12: 5})
    assert wrong.endswith(b"\r\nInvalid chip id. Expected 9 read 5. Bootloader for wrong chip?\r\nets_main.c 329 \r\n")
    odd = log_of("esp32s3", segment, {24: 0x0A})
    assert odd.endswith(b"load:0x3fce380a,len:0x4\r\nInvalid image block, can't boot.\r\nets_main.c 329 \r\n")


# --- the older loader --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patch", "after"),
    [
        ({12: 5}, b"wrong chip id 0x0005\r\n" * 8),
        ({12: 0x44, 13: 0x83}, b"wrong chip id 0x8344\r\n" * 8),
        ({1: 33}, b"invalid header: 0x2f0221e9\r\n" * 8),
        ({1: 64}, b"invalid header: 0x2f0240e9\r\n" * 8),
        ({1: 255}, b"invalid header: 0x2f02ffe9\r\n" * 8),
        ({2: 6}, b"invalid header: 0x2f0601e9\r\n" * 8),
    ],
)
def test_what_the_esp32_refuses(patch: dict[int, int], after: bytes) -> None:
    assert log_of("esp32", [(RAM["esp32"], b"\0\0\0\0")], patch) == ESP32_HEAD + after


@pytest.mark.parametrize("count", [17, 18, 31, 32])
def test_the_esp32_takes_up_to_32_segments(count: int) -> None:
    log = log_of("esp32", [(RAM["esp32"] + 4 * n, b"\1\2\3\4") for n in range(count)])
    assert log.count(b"load:0x3fff") == count and b"\r\nentry 0x40080400\r\n" in log


@pytest.mark.parametrize(
    ("patch", "text"),
    [
        ({2: 4}, b"mode:FAST_RD, clock div:1"),
        ({2: 5}, b"mode:SLOW_RD, clock div:1"),
        ({3: 0x23}, b"mode:DIO, clock div:1"),
        ({3: 0x27}, b"mode:DIO, clock div:1"),
        ({3: 0x21}, b"mode:DIO, clock div:3"),
        ({8: 0}, b"configsip: 0, SPIWP:0x00"),
    ],
)
def test_what_the_esp32_takes(patch: dict[int, int], text: bytes) -> None:
    log = log_of("esp32", [(RAM["esp32"], b"\0\0\0\0")], patch)
    assert b"\r\n" + text + b"\r\n" in log and b"\r\nentry 0x40080400\r\n" in log


def test_the_esp32_says_where_a_header_lies_in_two_blocks() -> None:
    """The logs of Arduino's bootloaders: `load:0x3fff0018,len:4`, `load:0x3fff001c,len:1216`, `ho 0 tail 12 room 4`."""
    sizes = {0x3FFF0018: 4, 0x3FFF001C: 1216, 0x40078000: 9720, 0x40080400: 6352}
    log = log_of("esp32", [(address, bytes(size)) for address, size in sizes.items()])
    assert log == (
        ESP32_HEAD
        + ESP32_MODE
        + b"load:0x3fff0018,len:4\r\nload:0x3fff001c,len:1216\r\nho 0 tail 12 room 4\r\n"
        + b"load:0x40078000,len:9720\r\nho 0 tail 12 room 4\r\nload:0x40080400,len:6352\r\nentry 0x40080400\r\n"
    )


@pytest.mark.parametrize(
    ("first", "line"),
    [
        (12, b"ho 0 tail 12 room 4\r\n"),  # data at 32: 12 bytes of one block
        (4, b""),
        (15, b"ho 0 tail 15 room 1\r\n"),
        (9, b"ho 0 tail 9 room 7\r\n"),
        (8, b""),
        (16, b""),
        (26, b"ho 0 tail 10 room 6\r\n"),
    ],
)
def test_the_room_behind_a_segment(first: int, line: bytes) -> None:
    log = log_of("esp32", [(RAM["esp32"], bytes(first)), (RAM["esp32"] + 64, bytes(4))])
    loads = f"load:0x3fff0030,len:{first}\r\n".encode(), b"load:0x3fff0070,len:4\r\n"
    assert loads[0] + line + loads[1] in log
    assert log.count(b"ho ") == bool(line), "none behind the last one"


def test_a_segment_within_one_block_has_a_head() -> None:
    # The first data begins at 32 and takes 4: the second header is at 36, its data begins at 44, 12 into a block.
    log = log_of("esp32", [(RAM["esp32"], bytes(4)), (RAM["esp32"] + 4, bytes(2)), (RAM["esp32"] + 8, bytes(4))])
    assert b"load:0x3fff0034,len:2\r\nho 12 tail 2 room 2\r\nload:0x3fff0038,len:4\r\n" in log


def test_each_page_of_flash_is_named_when_the_esp32_gets_there() -> None:
    log = log_of("esp32", [(RAM["esp32"], bytes(0x20000)), (RAM["esp32"], bytes(4))])
    pages = b"1150 mmu set 00010000, pos 00010000\r\n1150 mmu set 00020000, pos 00020000\r\n"
    assert b"load:0x3fff0030,len:131072\r\n" + pages + b"load:0x3fff0030,len:4\r\nentry" in log
    assert b"mmu set" not in log_of("esp32c3", [(RAM["esp32c3"], bytes(0x20000))])


@pytest.mark.parametrize("entry", [0, 0x3F400020, 0x20000000, 0xFFFFFFFF])
def test_an_entry_where_no_memory_is_is_an_exception_of_the_esp32(entry: int) -> None:
    log = log_of("esp32", [(RAM["esp32"], bytes(4))], entry=entry)
    text = f"entry 0x{entry:08x}\r\nFatal exception (0): \r\nepc1=0x{entry:08x}, epc2=0x00000000, epc3=0x00000000, "
    assert text.encode() in log


# --- the C3's own panic ------------------------------------------------------------------------------------


class RomFlash:
    def __init__(self, image: bytes) -> None:
        self.size = SIZE
        self._content = image.ljust(SIZE, b"\xff")

    def read(self, offset: int, n: int) -> bytes:
        return self._content[offset : offset + n]


@pytest.mark.parametrize(
    ("program", "entry", "reason", "cause"),
    [
        (b"", 0x20000000, "Instruction access fault", 1),
        (struct.pack("<2I", 0x00000293, 0x0002A023), 0x403CC710, "Store access fault", 7),  # li t0, 0; sw zero, 0(t0)
        (struct.pack("<I", 0xFFFFFFFF), 0x403CC710, "Illegal instruction", 2),
    ],
)
def test_a_program_without_vectors_panics_in_the_rom(program: bytes, entry: int, reason: str, cause: int) -> None:
    pytest.importorskip("unicorn", reason="unicorn is not installed")
    from virtualboard.rv32 import Rv32Machine

    now = 0.0
    machine = Rv32Machine(RomFlash(make_image([(0x403CC710, program)], entry=entry)), {}, lambda: now)
    machine.reset(rom.POWERON)
    machine.run(1000)
    log = machine.transmit().decode()
    assert f"\r\nGuru Meditation Error: Core 0 panic'ed ({reason}). Exception was unhandled.\r\n" in log
    assert "\r\nCore 0 register dump:\r\nMEPC    : 0x" in log and "SP      : 0x3fcde560" in log
    assert f"MCAUSE  : 0x{cause:08x}" in log
    assert machine.idle
    due = machine.wake_at
    assert due == pytest.approx(0.65), "its watchdog ends that"
    now = due or 0.0
    machine.run(1)
    assert machine.pending_reset == rom.TG0WDT_SYS
