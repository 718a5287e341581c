"""Golden transcripts of the ROM loader, byte for byte on the wire, and the flash that they leave.

Source: transcripts of real ESP32 and ESP32-C3 ROMs (SYNC, left-over values, invalid messages, FLASH_* errors, MD5).
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtualboard.board import Board
from virtualboard.chip_table import chip_named
from virtualboard.chips import CHIPS, Security, burnt
from virtualboard.nor import NorFlash
from virtualboard.protocol import checksum
from virtualboard.slip import SlipDecoder, encode
from virtualboard.timing import Timing

MAC = "7c:df:a1:00:11:22"


def in_download(chip: str = "esp32c3", size: int = 0x400000, security: Security | None = None) -> Board:
    """A board in download mode, its banner taken."""
    model = burnt(chip_named(chip), security or Security())
    board = Board(model, NorFlash(size), MAC, lambda: 0.0, execute=False, timing=Timing(jump_s=0.0))
    board.power_on()
    for dtr, rts in ((False, True), (True, False), (False, False)):
        board.set_lines(dtr, rts)
    assert board.transmit().endswith(b"waiting for download\r\n")
    return board


def frame(op: int, data: bytes = b"", check: int = 0) -> bytes:
    return encode(struct.pack("<BBHI", 0, op, len(data), check) + data)


def block(op: int, seq: int, payload: bytes, check: int | None = None) -> bytes:
    return frame(
        op, struct.pack("<4I", len(payload), seq, 0, 0) + payload, checksum(payload) if check is None else check
    )


def say(board: Board, wire: bytes) -> str:
    """Send bytes; the answer as hex."""
    board.receive(wire)
    board.advance()
    return board.transmit().hex()


SYNC = frame(0x08, b"\x07\x07\x12\x20" + b"\x55" * 32)


def test_sync_answers_eight_times() -> None:
    assert say(in_download(), SYNC) == "c0010804000707122000000000c0" * 8


@pytest.mark.parametrize(("chip", "word"), [("esp32", "831df000"), ("esp32c3", "6f50311b"), ("esp32s3", "09000000")])
def test_read_reg_and_the_left_over_value(chip: str, word: str) -> None:
    board = in_download(chip)
    say(board, SYNC)
    attach = frame(0x0D, bytes(8))
    assert say(board, attach) == "c0010d04000707122000000000c0"  # left over from SYNC
    assert say(board, frame(0x0A, struct.pack("<I", 0x40001000))) == f"c0010a0400{word}00000000c0"
    assert say(board, attach) == f"c0010d0400{word}00000000c0"  # left over from READ_REG


def test_an_unknown_command_repeats_the_previous_opcode() -> None:
    board = in_download("esp32")
    say(board, SYNC)
    assert say(board, frame(0x14)) == "c0010804000707122001050000c0" * 8
    say(board, frame(0x0A, struct.pack("<I", 0x40001000)))
    assert say(board, frame(0xD0)) == "c0010a0400831df00001050000c0"


def test_a_wrong_length_field_is_an_invalid_message() -> None:
    board = in_download()
    say(board, SYNC)
    assert say(board, encode(struct.pack("<BBHI", 0, 0x0A, 9, 0) + bytes(4))) == "c0010804000707122001050000c0" * 8


def test_security_info_of_a_virgin_c3() -> None:
    board = in_download()
    say(board, SYNC)
    body = "00000000000000000000000c050000000300000000000000"
    assert say(board, frame(0x14)) == f"c00114180007071220{body}c0"


@pytest.mark.parametrize(
    ("chip", "words", "status"),
    [
        *(("esp32", 4, "00000000"), ("esp32", 5, "01050000")),
        *(("esp32c3", 4, "01050000"), ("esp32c3", 5, "00000000")),
        *(("esp32s3", 4, "01050000"), ("esp32s3", 5, "00000000")),
    ],
)
def test_flash_begin_is_strict_about_its_length(chip: str, words: int, status: str) -> None:
    data = struct.pack(f"<{words}I", 0x1000, 4, 0x400, 0x10000, *[0] * (words - 4))
    for op in (0x02, 0x10):
        assert say(in_download(chip), frame(op, data)) == f"c001{op:02x}040000000000{status}c0"


def begin(board: Board, offset: int, size: int, op: int = 0x02, block_size: int = 0x400) -> str:
    words = (size, -(-size // block_size), block_size, offset, 0)[: board.chip.begin_words]
    return say(board, frame(op, struct.pack(f"<{len(words)}I", *words)))


def test_until_set_params_the_flash_has_two_megabytes() -> None:
    board = in_download()
    assert begin(board, 0x1FF000, 0x2000) == "c0010204000000000001060000c0"
    assert say(board, frame(0x13, struct.pack("<4I", 0x1FFFFF, 2, 0, 0))) == f"c00113240000000000{'00' * 32}01090000c0"
    say(board, frame(0x0B, struct.pack("<6I", 0, 0x400000, 0x10000, 0x1000, 0x100, 0xFFFF)))
    assert begin(board, 0x1FF000, 0x2000).endswith("00000000c0")
    assert begin(board, 0x3FF000, 0x2000).endswith("01060000c0")


def test_md5_is_ascii_and_a_refused_one_shows_the_last() -> None:
    board = in_download()
    digest = hashlib.md5(b"\xff" * 3).hexdigest().encode().hex()
    assert say(board, frame(0x13, struct.pack("<4I", 1, 3, 0, 0))) == f"c00113240000000000{digest}00000000c0"
    assert say(board, frame(0x13, struct.pack("<4I", 0x200000, 1, 0, 0))) == f"c00113240000000000{digest}01090000c0"


@pytest.mark.parametrize(("chip", "status"), [("esp32", "01050000"), ("esp32c3", "01640000")])
def test_flash_data_without_begin(chip: str, status: str) -> None:
    assert say(in_download(chip), block(0x03, 0, b"data")) == f"c00103040000000000{status}c0"


def test_flash_data_errors_and_the_consumed_block() -> None:
    board = in_download()
    begin(board, 0x10000, 0x1000)
    first, second = b"1" * 0x400, b"2" * 0x400
    assert say(board, block(0x03, 0, first)).endswith("00000000c0")
    assert say(board, block(0x03, 1, second, check=0)).endswith("01070000c0")
    assert say(board, block(0x03, 1, second)).endswith("01050000c0")  # it was consumed: the retry cannot succeed
    assert say(board, block(0x03, 0, first)).endswith("01050000c0")
    assert say(board, block(0x03, 2, second)).endswith("00000000c0")
    assert board.flash.read(0x10000, 0xC00) == first + b"\xff" * 0x400 + second


def test_flash_begin_erases_at_once_and_blocks_only_clear_bits() -> None:
    board = in_download()
    board.flash.program(0x10000, bytes(0x3000))
    begin(board, 0x11000, 0x400)
    assert board.flash.read(0x10000, 0x3000) == bytes(0x1000) + b"\xff" * 0x1000 + bytes(0x1000)


def test_compressed_data_and_garbage() -> None:
    board = in_download()
    data = bytes(range(256)) * 64
    packed = zlib.compress(data, 9)
    words = struct.pack("<5I", len(data), -(-len(packed) // 0x100), 0x100, 0x10000, 0)
    assert say(board, frame(0x10, words)).endswith("00000000c0")
    for seq in range(-(-len(packed) // 0x100)):
        assert say(board, block(0x11, seq, packed[seq * 0x100 : seq * 0x100 + 0x100])).endswith("00000000c0")
    assert board.flash.read(0x10000, len(data)) == data
    say(board, frame(0x10, words))
    assert say(board, block(0x11, 0, b"garbage")).endswith("010b0000c0")


def test_a_decompression_bomb_stops_at_the_announced_size() -> None:
    board = in_download()
    say(board, frame(0x10, struct.pack("<5I", 0x1000, 1, 0x400, 0x10000, 0)))
    assert say(board, block(0x11, 0, zlib.compress(bytes(1 << 22)))).endswith("010b0000c0")


def test_slow_reads_are_of_64_bytes() -> None:
    board = in_download()
    board.flash.program(0x20, b"abcd")
    answer = say(board, frame(0x0E, struct.pack("<II", 0x20, 4)))
    assert answer == f"c0010e440000000000{b'abcd'.hex()}{'ff' * 60}00000000c0"
    assert say(board, frame(0x0E, struct.pack("<II", 0, 65))).endswith("010a0000c0")


def test_mem_data_checksum_and_memory() -> None:
    board = in_download()
    say(board, frame(0x05, struct.pack("<4I", 8, 2, 4, 0x3FC90000)))
    assert say(board, block(0x07, 0, b"abcd", check=1)).endswith("01070000c0")
    assert say(board, block(0x07, 1, b"efgh")).endswith("00000000c0")
    assert say(board, frame(0x0A, struct.pack("<I", 0x3FC90000)))[10:18] == b"efgh".hex()


def test_write_reg_with_mask_and_delay_answers_late() -> None:
    now = [0.0]
    board = Board(CHIPS["esp32c3"], NorFlash(0x4000), MAC, lambda: now[0], execute=False)
    board.power_on()
    board.set_lines(False, True)
    board.set_lines(True, False)
    board.transmit()
    assert say(board, frame(0x09, struct.pack("<4I", 0x50000000, 5, 0xFFFFFFFF, 20_000))) == ""
    assert board.wake_at() == pytest.approx(0.02)
    now[0] = 0.02
    board.advance()
    assert board.transmit().hex() == "c0010904000000000000000000c0"


@pytest.mark.parametrize("flag", [0, 1])
def test_flash_end_leaves_the_loader_for_the_firmware(flag: int) -> None:
    board = in_download()
    begin(board, 0, 0)
    answer = bytes.fromhex(say(board, frame(0x04, struct.pack("<I", flag))))
    assert answer.startswith(bytes.fromhex("c0010404000000000000000000c0") + b"ESP-ROM:esp32c3")
    assert b"SPI_FAST_FLASH_BOOT" in answer


def test_flash_end_without_begin_is_refused_and_leaves_too() -> None:
    answer = say(in_download(), frame(0x04, struct.pack("<I", 1)))
    assert answer.startswith("c0010404000000000001060000c0")


def test_garbage_between_frames_is_ignored() -> None:
    board = in_download()
    assert say(board, b"\x00garbage\xdb\xff") == ""
    assert say(board, b"\xc0short\xc0\xc0" + bytes([1]) + b"a reply, no request\xc0") == ""
    assert say(board, SYNC).startswith("c00108")


# --- burnt efuses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chip", "security", "body"),
    [
        ("esp32s3", Security(), "00000000" + "00" + "000000000000" + "0c" + "09000000" + "03000000"),
        (
            "esp32c3",
            Security(secure_download=True),
            "04000000" + "00" + "000000000000" + "0c" + "05000000" + "03000000",
        ),
        (
            "esp32c3",
            Security(flash_encryption=True, secure_boot=True),
            "01000000" + "01" + "040900000000" + "0c" + "05000000" + "03000000",
        ),
        (
            "esp32s3",
            Security(flash_encryption=True, encrypted_download_disabled=True),
            "00000000" + "07" + "040000000000" + "0c" + "09000000" + "03000000",
        ),
    ],
)
def test_security_info_tells_what_is_burnt(chip: str, security: Security, body: str) -> None:
    board = in_download(chip, security=security)
    assert say(board, frame(0x14)) == f"c001141800{'00' * 4}{body}00000000c0"


SECURE = Security(secure_download=True)


@pytest.mark.parametrize(
    "wire",
    [
        frame(0x0A, struct.pack("<I", 0x40001000)),
        frame(0x09, struct.pack("<4I", 0x50000000, 0, 0xFFFFFFFF, 0)),
        frame(0x05, struct.pack("<4I", 8, 1, 8, 0x3FC90000)),
        block(0x07, 0, b"code"),
        frame(0x06, struct.pack("<II", 0, 0x40380000)),
        frame(0x0E, struct.pack("<II", 0, 64)),
        frame(0x13, struct.pack("<4I", 0, 16, 0, 0)),
    ],
    ids=["read_reg", "write_reg", "mem_begin", "mem_data", "mem_end", "read_flash", "md5"],
)
@pytest.mark.parametrize("chip", ["esp32c3", "esp32s3"])
def test_secure_download_mode_knows_no_command_that_reads_or_executes(chip: str, wire: bytes) -> None:
    board = in_download(chip, security=SECURE)
    say(board, frame(0x0D, bytes(8)))
    assert say(board, wire) == "c0010d0400000000000105" + "0000c0"


def test_secure_download_mode_writes_flash() -> None:
    board = in_download(security=SECURE)
    assert say(board, SYNC) == "c0010804000707122000000000c0" * 8
    say(board, frame(0x0D, bytes(8)))
    assert begin(board, 0x10000, 0x400) == "c0010204000707122000000000c0"
    assert say(board, block(0x03, 0, b"data".ljust(0x400, b"\xff"))) == "c0010304000707122000000000c0"
    assert board.flash.read(0x10000, 4) == b"data"


def test_with_secure_boot_an_s3_starts_the_stub_through_the_roms_read_function() -> None:
    board = in_download("esp32s3", security=Security(secure_boot=True))
    say(board, frame(0x05, struct.pack("<4I", 8, 1, 8, 0x3FC90000)))
    say(board, block(0x07, 0, b"program!"))
    assert say(board, frame(0x06, struct.pack("<II", 0, 0x3FC90000))) == "c0010604000000000000000000c0"
    say(board, frame(0x09, struct.pack("<4I", 0x3FCEF688, 0x3FC90000, 0xFFFFFFFF, 0)))
    answer = bytes.fromhex(say(board, frame(0x0E, bytes(8))))
    assert answer.startswith(b"virtualboard: the program at 0x3fc90000 in RAM is not executed")


def test_the_board_does_not_pretend_to_encrypt() -> None:
    board = in_download("esp32c3")
    assert say(board, frame(0x02, struct.pack("<5I", 0x400, 1, 0x400, 0x10000, 1))).endswith("01060000c0")


# --- addresses ----------------------------------------------------------------------------------------


def set_size(board: Board, size: int) -> None:
    say(board, frame(0x0B, struct.pack("<6I", 0, size, 0x10000, 0x1000, 0x100, 0xFFFF)))


def test_a_size_that_the_part_does_not_have_wraps_around() -> None:
    board = in_download()
    set_size(board, 0x800000)
    board.flash.program(0x100000, bytes(0x2000))
    assert begin(board, 0x500000, 0x400).endswith("00000000c0")
    assert say(board, block(0x03, 0, b"x" * 0x400)).endswith("00000000c0")
    assert board.flash.read(0x100000, 0x1400) == b"x" * 0x400 + b"\xff" * 0xC00 + bytes(0x400)
    digest = hashlib.md5(b"x" * 0x400).hexdigest().encode().hex()
    assert digest in say(board, frame(0x13, struct.pack("<4I", 0x500000, 0x400, 0, 0)))
    whole = hashlib.md5(board.flash.read(0x3FFFF0, 16) + board.flash.read(0, 16)).hexdigest().encode().hex()
    assert whole in say(board, frame(0x13, struct.pack("<4I", 0x3FFFF0, 32, 0, 0)))


def test_the_rom_sends_24_bits_of_an_address() -> None:
    board = in_download("esp32s3", size=0x2000000)
    set_size(board, 0x2000000)
    begin(board, 0x1000000, 0x400)
    say(board, block(0x03, 0, b"x" * 0x400))
    assert board.flash.read(0, 4) == b"xxxx"
    assert board.flash.read(0x1000000, 4) == b"\xff" * 4


fuzz = st.one_of(
    st.binary(max_size=40),
    st.builds(frame, st.integers(0, 255), st.binary(max_size=40), st.integers(0, 2**32 - 1)),
    st.builds(block, st.sampled_from([0x03, 0x07, 0x11]), st.integers(0, 3), st.binary(max_size=40)),
    st.builds(
        lambda op, words: frame(op, struct.pack(f"<{len(words)}I", *words)),
        st.integers(0, 0x1F) | st.integers(0xD0, 0xD5),
        st.lists(st.integers(0, 0x5000) | st.integers(0, 2**32 - 1), max_size=6),
    ),
)


def survives(make: Callable[[], Board], pieces: list[bytes]) -> None:
    board = make()
    for piece in pieces:
        board.receive(piece)
        board.advance()
        SlipDecoder().feed(board.transmit())
    assert len(board.flash.read(0, board.flash.size)) == board.flash.size
    board.flash.close()


@given(st.lists(fuzz, max_size=8))
def test_no_client_upsets_the_rom(pieces: list[bytes]) -> None:
    survives(lambda: in_download(size=0x4000), pieces)
