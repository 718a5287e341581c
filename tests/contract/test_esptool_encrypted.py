"""esptool writes encrypted to an ESP32 without a key of its own, as its own suite does; compared with espsecure."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

esptool = pytest.importorskip("esptool")
espsecure = pytest.importorskip("espsecure")
espefuse = pytest.importorskip("espefuse")
pytest.importorskip("cryptography")

from virtualboard.port import VirtualPort, open_virtual  # noqa: E402

DATA = bytes(range(256)) * 70
KEY = bytes(range(100, 132))


def encrypted(data: bytes, key: bytes) -> bytes:
    """What espsecure makes of it."""
    out = io.BytesIO()
    espsecure._flash_encryption_operation_esp32(out, io.BytesIO(data), 0x10000, io.BytesIO(key), 0, False)
    return out.getvalue()


def write(port: VirtualPort) -> None:
    esp = esptool.run_stub(esptool.detect_chip(port))
    esptool.write_flash(esp, [(0x10000, DATA)], encrypt=True, ignore_flash_enc_efuse=True)


def test_the_blank_key(tmp_path: Path) -> None:
    with open_virtual("esp32", tmp_path / "flash.bin") as port:
        write(port)
        assert port.board.flash.read(0x10000, len(DATA)) == encrypted(DATA, bytes(32)) != DATA
        with pytest.raises(esptool.FatalError, match=r"Incorrect eFuse setting|Can't perform encrypted"):
            esptool.write_flash(esptool.run_stub(esptool.detect_chip(port)), [(0x10000, DATA)], encrypt=True)


def test_a_key_that_espefuse_has_burnt(tmp_path: Path) -> None:
    with open_virtual("esp32", tmp_path / "flash.bin") as port:
        with espefuse.init_commands(esp=esptool.detect_chip(port), do_not_confirm=True) as efuses:
            efuses.burn_key(["flash_encryption"], [io.BytesIO(KEY)], None)
        write(port)
        assert port.board.flash.read(0x10000, len(DATA)) == encrypted(DATA, KEY)


@pytest.mark.parametrize("chip", ["esp32s3", "esp32c3"])
def test_other_chips_refuse(chip: str, tmp_path: Path) -> None:
    with open_virtual(chip, tmp_path / "flash.bin") as port:
        with pytest.raises(esptool.FatalError):
            write(port)
        assert port.board.flash.read(0x10000, 64) == b"\xff" * 64
