"""The flasher stub: how it is recognised, and its answers on the wire."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_vb_loader import MAC, SYNC, block, frame, fuzz, in_download, say, survives
from virtualboard import stub
from virtualboard.board import Board, Mode
from virtualboard.chips import CHIPS
from virtualboard.nor import NorFlash
from virtualboard.timing import Timing

OHAI = "c04f484149c0"


def shipped(chip: str, generation: int) -> dict[str, str | int]:
    """A stub as the installed esptool ships it."""
    spec = importlib.util.find_spec("esptool")
    assert spec is not None and spec.submodule_search_locations
    path = Path(spec.submodule_search_locations[0], "targets", "stub_flasher", str(generation), f"{chip}.json")
    loaded: dict[str, str | int] = json.loads(path.read_text(encoding="ascii"))
    return loaded


def upload(board: Board, generation: int, *, spoil: bool = False) -> str:
    """Upload a shipped stub as esptool does; returns the answer to MEM_END."""
    image = shipped(board.chip.name, generation)
    for name in ("text", "data"):
        data = bytearray(base64.b64decode(str(image[name])))
        data[100] ^= spoil
        blocks = -(-len(data) // 0x1800)
        say(board, frame(0x05, struct.pack("<4I", len(data), blocks, 0x1800, int(image[f"{name}_start"]))))
        for seq in range(blocks):
            answer = say(board, block(0x07, seq, bytes(data[seq * 0x1800 : seq * 0x1800 + 0x1800])))
            assert answer.endswith("00000000c0")
    return say(board, frame(0x06, struct.pack("<II", 0, int(image["entry"]))))


def in_stub(chip: str = "esp32c3", generation: int = 2, size: int = 0x400000) -> Board:
    board = in_download(chip, size)
    assert upload(board, generation).endswith(OHAI)
    return board


@pytest.mark.parametrize("generation", [1, 2])
@pytest.mark.parametrize("chip", CHIPS)
def test_every_shipped_stub_is_recognised(chip: str, generation: int) -> None:
    assert upload(in_download(chip), generation) == f"c0010604000000000000000000c0{OHAI}"


def test_another_program_in_ram_is_not_a_stub() -> None:
    board = in_download()
    answer = bytes.fromhex(upload(board, 2, spoil=True))
    assert b"OHAI" not in answer
    assert answer.endswith(b"virtualboard: the program at 0x40380e9a in RAM is not executed\r\n")
    assert board.mode is Mode.RAM


@pytest.mark.parametrize(("entry", "generation"), [(0x40380E9A, 2), (0x403806D2, 1), (0x40380000, None)])
def test_without_esptool_the_entry_point_decides(
    entry: int, generation: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert stub.recognise(CHIPS["esp32c3"], entry, [b"code"]) == generation


def test_sync_answers_eight_times_with_value_zero() -> None:
    assert say(in_stub(), SYNC) == "c0010802000000000000" + "00c0" + "c001080200000000000000c0" * 7


def test_values_are_not_left_over() -> None:
    board = in_stub()
    assert say(board, frame(0x0A, struct.pack("<I", 0x40001000))) == "c0010a02006f50311b0000c0"
    assert say(board, frame(0x0D, bytes(4))) == "c0010d0200000000000000c0"


@pytest.mark.parametrize(
    ("wire", "status"),
    [
        (frame(0x77), "c300"),
        (frame(0x0E, bytes(8)), "c300"),
        (frame(0x0A, bytes(3)), "dbdc00"),
        (block(0x03, 0, b"data"), "c600"),
        (frame(0x04, bytes(4)), "c600"),
        (frame(0xD1, struct.pack("<II", 0x100, 0x1000)), "c400"),
        (frame(0x13, struct.pack("<4I", 0x3FFFFF, 2, 0, 0)), "c400"),
    ],
)
def test_refusals(wire: bytes, status: str) -> None:
    assert say(in_stub(), wire).endswith(f"{status}c0")


def test_esp32_stub_has_no_security_info_and_the_others_have() -> None:
    assert say(in_stub("esp32"), frame(0x14)).endswith("c300c0")
    assert "09000000" in say(in_stub("esp32s3"), frame(0x14))


def test_md5_is_raw() -> None:
    digest = hashlib.md5(b"\xff" * 16).hexdigest()
    assert say(in_stub(), frame(0x13, struct.pack("<4I", 0, 16, 0, 0))) == f"c00113120000000000{digest}0000c0"


def begin(board: Board, op: int, offset: int, size: int) -> None:
    assert say(board, frame(op, struct.pack("<5I", size, 1, 0x4000, offset, 0))).endswith("0000c0")


def test_a_block_may_be_sent_again_after_a_bad_checksum() -> None:
    board = in_stub()
    begin(board, 0x02, 0x10010, 4)
    assert say(board, block(0x03, 0, b"data", check=0)).endswith("c100c0")
    assert say(board, block(0x03, 0, b"data" + b"\xff" * 100)).endswith("0000c0")
    assert say(board, frame(0x04, struct.pack("<I", 1))).endswith("0000c0")
    assert board.flash.read(0x1000E, 8) == b"\xff\xffdata\xff\xff"


def test_sectors_are_erased_as_the_bytes_arrive_and_no_further() -> None:
    board = in_stub()
    board.flash.program(0, bytes(0x5000))
    begin(board, 0x02, 0x1800, 0x2000)
    assert board.flash.read(0, 0x5000) == bytes(0x5000)
    say(board, block(0x03, 0, b"a" * 0x100))
    assert board.flash.read(0x1000, 0x1000) == b"\xff" * 0x800 + b"a" * 0x100 + b"\xff" * 0x700
    assert board.flash.read(0x2000, 0x3000) == bytes(0x3000)
    assert say(board, frame(0x04, struct.pack("<I", 1))).endswith("dbdc00c0")  # C0: bytes remain


def test_a_write_error_is_the_answer_to_the_next_command() -> None:
    board = in_stub()
    begin(board, 0x10, 0x10000, 0x1000)
    assert say(board, block(0x11, 0, b"garbage")).endswith("0000c0")
    assert say(board, frame(0xD0)).endswith("c700c0")
    board.flash.program(0, b"kept")  # the erase above was not executed, the next one is
    assert say(board, frame(0xD0)).endswith("0000c0")
    assert board.flash.read(0, 4) == b"\xff" * 4


def test_block_number_zero_starts_the_inflater_again() -> None:
    board = in_stub()
    packed = zlib.compress(b"x" * 100)
    begin(board, 0x10, 0x10000, 100)
    say(board, block(0x11, 0, packed[:2]))
    say(board, block(0x11, 0, packed))
    assert say(board, frame(0x12, struct.pack("<I", 1))).endswith("0000c0")
    assert board.flash.read(0x10000, 101) == b"x" * 100 + b"\xff"


def test_a_read_sends_one_block_per_acknowledgement_and_then_the_md5() -> None:
    board = in_stub()
    board.flash.program(0x1000, b"hello")
    answer = say(board, frame(0xD2, struct.pack("<4I", 0x1000, 6, 4, 64)))
    assert answer == "c001d20200000000000000c0" + "c0" + b"hell".hex() + "c0"
    assert say(board, b"\xc0\x04\x00\x00\x00\xc0") == "c0" + b"o\xff".hex() + "c0"
    assert say(board, b"\xc0\x06\x00\x00\x00\xc0") == "c0" + hashlib.md5(b"hello\xff").hexdigest() + "c0"
    assert say(board, SYNC).startswith("c00108")


def test_a_partial_acknowledgement_brings_nothing_new() -> None:
    board = in_stub()
    say(board, frame(0xD2, struct.pack("<4I", 0x1000, 8, 4, 64)))
    assert say(board, b"\xc0\x03\x00\x00\x00\xc0") == ""
    assert say(board, b"\xc0\x04\x00\x00\x00\xc0") == "c0ffffffffc0"


def test_while_it_writes_an_acknowledged_block_it_hears_nothing() -> None:
    now = [0.0]
    timing = Timing(jump_s=0.0, erase_sector_s=0.05, program_page_s=0.01)
    board = Board(CHIPS["esp32c3"], NorFlash(0x400000), MAC, lambda: now[0], execute=False, timing=timing)
    board.power_on()
    board.set_lines(False, True)
    board.set_lines(True, False)
    board.transmit()
    assert upload(board, 2).endswith(OHAI)
    begin(board, 0x02, 0x10000, 0x200)
    assert say(board, block(0x03, 0, b"x" * 0x100)).endswith("0000c0")
    assert say(board, SYNC) == ""
    assert board.wake_at() == pytest.approx(0.06)
    now[0] = 0.07
    board.advance()
    assert board.transmit().startswith(b"\xc0\x01\x08")


def test_a_host_that_gives_up_reading_is_heard() -> None:
    board = in_stub()
    say(board, frame(0xD2, struct.pack("<4I", 0, 0x2000, 0x1000, 64)))
    assert say(board, SYNC).startswith("c001080200")


@pytest.mark.parametrize(("generation", "value"), [(1, "07071220"), (2, "00000000")])
def test_only_the_first_generation_goes_back_to_the_rom(generation: int, value: str) -> None:
    board = in_stub(generation=generation)
    begin(board, 0x02, 0, 0)
    say(board, frame(0x04, struct.pack("<I", 0)))
    assert say(board, SYNC)[10:18] == value


@given(st.lists(fuzz, max_size=8))
def test_no_client_upsets_the_stub(pieces: list[bytes]) -> None:
    survives(lambda: in_stub(size=0x4000), pieces)
