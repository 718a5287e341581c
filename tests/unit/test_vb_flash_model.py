"""Any sequence of writes and erases through the loaders' commands leaves what a model of NOR flash says."""

from __future__ import annotations

import hashlib
import importlib.util
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.test_vb_loader import block, frame, in_download, say
from tests.unit.test_vb_stub import in_stub
from virtualboard.board import Board
from virtualboard.chip_table import NAMES
from virtualboard.chips import CHIPS

SIZE = 0x8000
SECTOR = 0x1000

writes = st.tuples(
    st.sampled_from(["raw", "deflated"]), st.integers(0, SIZE - 1), st.binary(min_size=1, max_size=0x1800)
)
erases = st.tuples(st.just("erase"), st.integers(0, 7), st.binary(min_size=1, max_size=3))
digests = st.tuples(st.just("md5"), st.integers(0, SIZE - 1), st.binary(min_size=1, max_size=99))
Step = tuple[str, int, bytes]


def erase(model: bytearray, start: int, end: int) -> None:
    first, last = start // SECTOR * SECTOR, -(-end // SECTOR) * SECTOR
    model[first:last] = b"\xff" * (last - first)


def write(board: Board, model: bytearray, verb: str, offset: int, data: bytes, *, stub: bool, block_size: int) -> None:
    """One write as esptool does it; the ROM erases and programs only whole words."""
    data = data[: SIZE - offset]
    sent = zlib.compress(data) if verb == "deflated" else data
    blocks = [sent[at : at + block_size] for at in range(0, len(sent), block_size)]
    words = (len(data), len(blocks), block_size, offset, 0)[: 5 if stub else board.chip.begin_words]
    begin, more, end = (0x10, 0x11, 0x12) if verb == "deflated" else (0x02, 0x03, 0x04)
    assert say(board, frame(begin, struct.pack(f"<{len(words)}I", *words)))[18:20] == "00"
    for seq, payload in enumerate(blocks):
        assert say(board, block(more, seq, payload))[18:20] == "00"
    if stub:
        assert say(board, frame(end, struct.pack("<I", 1)))[18:20] == "00"
    erase(model, offset, offset + len(data))
    for index, byte in enumerate(data):
        model[offset + index] &= byte


STEPS, BLOCK_SIZES = st.lists(writes | erases | digests, max_size=6), st.sampled_from([0x100, 0x400, 0x1000])


@pytest.mark.parametrize("loader", ["rom", "stub-1", "stub-2"])
@pytest.mark.parametrize("chip", ["esp32", "esp32c3"])
@settings(max_examples=40)
@given(STEPS, BLOCK_SIZES)
def test_the_flash_is_that_of_the_model(chip: str, loader: str, steps: list[Step], block_size: int) -> None:
    play(chip, loader, steps, block_size)


@settings(max_examples=40)
@given(
    st.sampled_from([name for name in NAMES if name not in CHIPS]), st.sampled_from(["rom", "stub"]), STEPS, BLOCK_SIZES
)
def test_the_flash_of_the_other_chips_too(chip: str, loader: str, steps: list[Step], block_size: int) -> None:
    generations = [generation for generation in (1, 2) if shipped(chip, generation)]
    play(chip, f"stub-{generations[-1]}" if loader == "stub" else loader, steps, block_size)


def shipped(chip: str, generation: int) -> bool:
    spec = importlib.util.find_spec("esptool")
    assert spec is not None and spec.submodule_search_locations is not None
    folder = Path(spec.submodule_search_locations[0], "targets", "stub_flasher", str(generation))
    return (folder / f"{chip}.json").is_file()


def play(chip: str, loader: str, steps: list[Step], block_size: int) -> None:
    """The steps on a board and on the model, compared at each digest and at the end."""
    stub = loader != "rom"
    board = in_stub(chip, int(loader[-1]), SIZE) if stub else in_download(chip, SIZE)
    model = bytearray(b"\xff" * SIZE)
    board.flash.program(0x800, bytes(0x3000))
    model[0x800:0x3800] = bytes(0x3000)
    for verb, at, data in steps:
        if verb == "md5":
            n = min(len(data), SIZE - at)
            answer = say(board, frame(0x13, struct.pack("<4I", at, n, 0, 0)))
            digest = hashlib.md5(model[at : at + n]).hexdigest()
            shown = digest if stub else digest.encode().hex()
            # C0 and DB are escaped on the wire.
            assert shown in answer.replace("dbdc", "c0").replace("dbdd", "db")
        elif verb == "erase":
            n = min(len(data), 8 - at) * SECTOR
            if stub:
                assert say(board, frame(0xD1, struct.pack("<II", at * SECTOR, n))).endswith("0000c0")
                erase(model, at * SECTOR, at * SECTOR + n)
        else:
            write(board, model, verb, at, data, stub=stub, block_size=block_size)
    assert board.flash.read(0, SIZE) == model
    board.flash.close()
