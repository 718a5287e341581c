"""NOR flash against a model, its file, its lock, and what a kill leaves."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virtualboard.nor import SECTOR_SIZE, BoardBusy, FlashError, NorFlash

SIZE = 4 * SECTOR_SIZE

programs = st.tuples(st.just("program"), st.integers(0, SIZE), st.binary(max_size=64))
erases = st.tuples(st.just("erase"), st.integers(0, 4), st.integers(0, 4))


@settings(max_examples=60)
@given(st.lists(programs | erases, max_size=12))
def test_programs_and_erases_are_those_of_nor_flash(steps: list[tuple[str, int, bytes | int]]) -> None:
    flash, model = NorFlash(SIZE), bytearray(b"\xff" * SIZE)
    for _verb, at, arg in steps:
        if isinstance(arg, bytes):
            data = arg[: SIZE - at]
            flash.program(at, data)
            for index, byte in enumerate(data):
                model[at + index] &= byte
        else:
            n = min(arg, 4 - at) * SECTOR_SIZE
            flash.erase(at * SECTOR_SIZE, n)
            model[at * SECTOR_SIZE : at * SECTOR_SIZE + n] = b"\xff" * n
    assert flash.read(0, SIZE) == model
    assert flash.md5(1, SIZE - 2) == hashlib.md5(model[1:-1]).digest()
    flash.close()


def test_a_program_never_sets_a_bit() -> None:
    flash = NorFlash(SIZE)
    flash.program(0, b"\x0f\xf0")
    flash.program(0, b"\xff\xff")
    flash.program(1, b"\x1f")
    assert flash.read(0, 3) == b"\x0f\x10\xff"


@pytest.mark.parametrize("call", ["read", "program", "erase", "md5"])
def test_nothing_reaches_outside(call: str) -> None:
    flash = NorFlash(SIZE)
    arg = b"\x00" * (2 * SECTOR_SIZE) if call == "program" else 2 * SECTOR_SIZE
    with pytest.raises(ValueError, match="leave the flash of 0x4000 bytes"):
        getattr(flash, call)(SIZE - SECTOR_SIZE, arg)
    assert flash.read(0, SIZE) == b"\xff" * SIZE


def test_an_erase_is_of_whole_sectors() -> None:
    flash = NorFlash(SIZE)
    with pytest.raises(ValueError, match="not aligned"):
        flash.erase(0x10, SECTOR_SIZE)


def test_the_file_is_the_flash_and_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "flash.bin"
    flash = NorFlash(SIZE, path)
    assert path.read_bytes() == b"\xff" * SIZE
    flash.program(5, b"abc")
    assert path.read_bytes()[4:9] == b"\xffabc\xff"
    flash.close()
    flash.close()
    again = NorFlash(SIZE, path)
    assert again.read(4, 5) == b"\xffabc\xff"
    again.close()


def test_a_second_opener_is_told_which_file_and_who(tmp_path: Path) -> None:
    path = tmp_path / "flash.bin"
    flash = NorFlash(SIZE, path)
    with pytest.raises(BoardBusy) as caught:
        NorFlash(SIZE, path)
    assert str(path) in str(caught.value)
    if sys.platform == "linux" and "FLOCK" in Path("/proc/locks").read_text(encoding="ascii"):
        assert f"(pid {os.getpid()})" in str(caught.value)
    flash.close()
    NorFlash(SIZE, path).close()


def test_a_short_file_is_extended_and_a_long_one_refused(tmp_path: Path) -> None:
    path = tmp_path / "flash.bin"
    path.write_bytes(b"\xe9 merged image")
    NorFlash(SIZE, path).close()
    assert path.read_bytes() == b"\xe9 merged image".ljust(SIZE, b"\xff")
    path.write_bytes(bytes(SIZE + 1))
    with pytest.raises(FlashError, match=f"holds {SIZE + 1} bytes, the flash only {SIZE}"):
        NorFlash(SIZE, path)
    assert path.read_bytes() == bytes(SIZE + 1)


def test_a_file_of_somebody_else_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_bytes(b"# Title\n")
    with pytest.raises(
        FlashError, match=f"is not a flash's: it holds 8 bytes of {SIZE}, and begins with 0x23"
    ) as caught:
        NorFlash(SIZE, path)
    assert str(caught.value).splitlines()[1].startswith("Name another file")
    assert path.read_bytes() == b"# Title\n"
    path.write_bytes(b"\xff" * 10)  # a creation that was killed
    NorFlash(SIZE, path).close()
    assert path.read_bytes() == b"\xff" * SIZE


def test_a_path_that_cannot_be_opened_is_a_message(tmp_path: Path) -> None:
    with pytest.raises(FlashError, match="cannot open the flash file"):
        NorFlash(SIZE, tmp_path / "missing" / "flash.bin")
    with pytest.raises(FlashError, match="not a power of two"):
        NorFlash(SIZE + 1)


def test_a_killed_process_leaves_what_it_had_programmed(tmp_path: Path) -> None:
    path = tmp_path / "flash.bin"
    code = (
        "import os, signal, sys; from pathlib import Path; from virtualboard.nor import NorFlash\n"
        "flash = NorFlash(0x4000, Path(sys.argv[1])); flash.program(0x1000, b'kept'); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False, timeout=300)
    assert done.returncode == -signal.SIGKILL
    flash = NorFlash(SIZE, path)
    assert flash.read(0x1000, 5) == b"kept\xff"
    flash.close()


@pytest.mark.parametrize(("size", "jedec"), [(0x200000, 0x1540C8), (0x400000, 0x1640C8), (0x2000000, 0x1940C8)])
def test_the_default_id_tells_the_size(size: int, jedec: int) -> None:
    flash = NorFlash(size)
    assert flash.jedec == jedec
    flash.close()
