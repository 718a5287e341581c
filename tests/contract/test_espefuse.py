"""Unmodified espefuse on the boards: what it burns is read by the next command, by esptool, and after a power cut."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

esptool = pytest.importorskip("esptool")
espefuse = pytest.importorskip("espefuse")

from virtualboard.chip_table import NAMES  # noqa: E402
from virtualboard.efuse import CLASSIC, MODERN, EfuseController, EfuseFile  # noqa: E402
from virtualboard.port import VirtualPort, open_virtual  # noqa: E402

KEY = bytes(range(1, 33))


def burn(port: VirtualPort, command: Callable[[Any], None]) -> None:
    """Some commands of espefuse on a connection of its own, without its question."""
    with espefuse.init_commands(esp=esptool.detect_chip(port), do_not_confirm=True) as efuses:
        command(efuses)


@pytest.mark.parametrize("chip", NAMES)
def test_security_that_is_burnt_is_seen_and_survives_a_power_cut(chip: str, tmp_path: Path) -> None:
    fields = (
        {"ABS_DONE_1": 1, "FLASH_CRYPT_CNT": 1} if chip == "esp32" else {"SECURE_BOOT_EN": 1, "SPI_BOOT_CRYPT_CNT": 1}
    )
    flash = tmp_path / "flash.bin"
    with open_virtual(chip, flash) as port:
        assert not esptool.detect_chip(port).get_secure_boot_enabled()
        burn(port, lambda efuses: efuses.burn_efuse(fields))
        esp = esptool.detect_chip(port)
        assert esp.get_secure_boot_enabled() and esp.get_flash_encryption_enabled()
        if chip != "esp32":
            assert esp.get_security_info()["parsed_flags"]["SECURE_BOOT_EN"]
    with open_virtual(chip, flash) as port:
        esp = esptool.detect_chip(port)
        assert esp.get_secure_boot_enabled() and esp.get_flash_encryption_enabled()
        assert ":".join(f"{byte:02x}" for byte in esp.read_mac("BASE_MAC")) == port.board.mac
    with open_virtual(chip, tmp_path / "another.bin") as port:
        assert not esptool.detect_chip(port).get_secure_boot_enabled(), "it stays on its board"


@pytest.mark.parametrize("chip", ["esp32", "esp32c2", "esp32s3"])  # one of each layout
def test_a_block_of_data(chip: str, tmp_path: Path) -> None:
    block = "BLOCK3" if chip in ("esp32", "esp32c2") else "BLOCK_USR_DATA"
    with open_virtual(chip, tmp_path / "flash.bin") as port:
        burn(port, lambda efuses: efuses.burn_block_data([block], [io.BytesIO(KEY)]))
        esp = esptool.detect_chip(port)
        first = {"esp32": 0x78, "esp32c2": 0x60}.get(chip, 0x7C)
        words = [esp.read_reg(port.board.chip.efuse_base + first + 4 * n) for n in range(8)]
        assert b"".join(word.to_bytes(4, "little") for word in words) == KEY


def test_a_key_that_is_burnt_reads_as_zeros_and_cannot_be_changed(tmp_path: Path) -> None:
    with open_virtual("esp32c3", tmp_path / "flash.bin") as port:
        burn(port, lambda efuses: efuses.burn_key(["BLOCK_KEY0"], [io.BytesIO(KEY)], ["XTS_AES_128_KEY"]))
        esp = esptool.detect_chip(port)
        assert esp.is_flash_encryption_key_valid()
        assert [esp.read_reg(0x6000889C + 4 * n) for n in range(8)] == [0] * 8
        with pytest.raises(esptool.FatalError):
            burn(port, lambda efuses: efuses.burn_key(["BLOCK_KEY0"], [io.BytesIO(KEY)], ["USER"]))


# --- the controller ----------------------------------------------------------------------------------------


def test_bits_only_rise_and_reading_registers_cannot_be_written() -> None:
    words = {0x1044: 0b0101}
    burns: list[int] = []
    efuses = EfuseController(MODERN, 0x1000, words, lambda: burns.append(1))
    efuses.write(0x1044, 0xFF)
    assert efuses.read(0x1044) == 0b0101
    efuses.write(0x1000, 0b0011)
    efuses.write(0x11D4, 2 | 1 << 2)
    assert efuses.read(0x1044) == 0b0101 and not burns, "without the code nothing is burnt"
    efuses.write(0x11CC, 0x5A5A)
    efuses.write(0x11D4, 2 | 1 << 2)
    assert efuses.read(0x1044) == 0b0111 and burns == [1] and efuses.read(0x11D4) == 0
    words[0x102C] = 1 << 20  # write protection of this block
    efuses.write(0x1000, 0xF000)
    efuses.write(0x11D4, 2 | 1 << 2)
    assert efuses.read(0x1044) == 0b0111


def test_an_esp32_burns_whatever_was_written_to_any_block() -> None:
    words: dict[int, int] = {}
    efuses = EfuseController(CLASSIC, 0x1000, words, lambda: None)
    for register, value in ((0x101C + 24, 1 << 5), (0x10D8, 7), (0x10FC, 0x5A5A), (0x1104, 2)):
        efuses.write(register, value)
    assert words == {0x1018: 1 << 5, 0x1078: 7}
    words[0x1000] = 1 << 18
    assert efuses.read(0x1078) == 0, "read protection of block 3"


def test_a_damaged_file_costs_no_more_than_its_damaged_lines(tmp_path: Path) -> None:
    path = tmp_path / "efuse"
    assert EfuseFile(path).load() == {} == EfuseFile(None).load()
    EfuseFile(path).save({0x60008838: 1 << 20, 0x60008844: 0})
    assert path.read_text() == "0x60008838 0x00100000\n"
    path.write_text("0x60008838 0x00100000\nnonsense\n0x1 0x2 0x3\n\n0x6000883c 0x20\n")
    assert EfuseFile(path).load() == {0x60008838: 1 << 20, 0x6000883C: 0x20}
    path.write_bytes(b"\xff\x00")
    assert EfuseFile(path).load() == {}
