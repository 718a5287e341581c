"""Unmodified esptool 5.6 on chips whose security efuses are burnt: what it sees, refuses, and still can do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.contract.board_process import BoardProcess, esptool_cli
from tests.contract.esptool_commands import TEXT
from tests.contract.test_esptool_commands import run
from tests.contract.test_esptool_sessions import Open, ports, stubbed  # noqa: F401 - a fixture
from virtualboard.chips import CHIPS, Security
from virtualboard.port import VirtualPort, open_virtual

esptool = pytest.importorskip("esptool")

ENCRYPTED = Security(flash_encryption=True)
RELEASED = Security(flash_encryption=True, encrypted_download_disabled=True)
SIGNED = Security(secure_boot=True)
CLOSED = Security(secure_download=True)


@pytest.mark.parametrize("chip", CHIPS)
def test_a_flasher_can_see_what_is_burnt(chip: str, ports: Open) -> None:  # noqa: F811
    for security in (Security(), ENCRYPTED, RELEASED, SIGNED):
        esp = esptool.detect_chip(ports(chip, security=security))
        assert bool(esp.get_flash_encryption_enabled()) is security.flash_encryption
        assert bool(esp.get_secure_boot_enabled()) is security.secure_boot
        assert bool(esp.get_encrypted_download_disabled()) is security.encrypted_download_disabled
        assert bool(esp.is_flash_encryption_key_valid()) is security.flash_encryption
        if chip != "esp32":
            info = esp.get_security_info()
            assert info["parsed_flags"]["SECURE_BOOT_EN"] is security.secure_boot
            assert bool(info["flash_crypt_cnt"].bit_count() & 1) is security.flash_encryption


@pytest.mark.parametrize("security", [ENCRYPTED, SIGNED], ids=["encrypted", "signed"])
@pytest.mark.parametrize("chip", CHIPS)
def test_erasing_a_protected_chip_is_refused(chip: str, security: Security, ports: Open) -> None:  # noqa: F811
    port = ports(chip, security=security)
    port.board.flash.program(0, bytes(0x4000))
    esp = stubbed(port)
    for erase in (esptool.erase_flash, lambda esp: esptool.erase_region(esp, 0, 0x1000)):
        with pytest.raises(esptool.FatalError, match="Active security features detected"):
            erase(esp)
    assert port.board.flash.read(0, 0x4000) == bytes(0x4000)


@pytest.mark.parametrize("chip", CHIPS)
def test_plain_data_for_a_chip_that_no_longer_encrypts_is_refused(chip: str, ports: Open) -> None:  # noqa: F811
    port = ports(chip, security=RELEASED)
    esp = stubbed(port)
    esptool.attach_flash(esp)
    with pytest.raises(esptool.FatalError, match="download manual encrypt disabled"):
        esptool.write_flash(esp, [(0x10000, TEXT)], no_progress=True)
    assert port.board.flash.read(0x10000, 4) == b"\xff" * 4


@pytest.mark.parametrize("chip", CHIPS)
def test_an_encrypted_write_is_an_error_and_not_plain_text_in_flash(chip: str, ports: Open) -> None:  # noqa: F811
    port = ports(chip, security=ENCRYPTED)
    esp = stubbed(port)
    esptool.attach_flash(esp)
    with pytest.raises(esptool.FatalError, match="Failed to enter"):
        esptool.write_flash(esp, [(0x10000, TEXT)], encrypt=True, no_progress=True)
    assert port.board.flash.read(0x10000, 4) == b"\xff" * 4


def test_with_secure_boot_the_s3_stub_starts_by_the_detour_and_the_c3_has_none(ports: Open) -> None:  # noqa: F811
    esp = stubbed(ports("esp32s3", security=SIGNED))
    assert esp.IS_STUB
    assert esp.read_reg(0x3FCEF688) == 0
    esptool.attach_flash(esp)
    esptool.write_flash(esp, [(0x10000, TEXT)], no_progress=True)
    assert not stubbed(ports("esp32c3", security=SIGNED)).IS_STUB
    assert stubbed(ports("esp32", security=SIGNED)).IS_STUB


# --- Secure Download Mode -------------------------------------------------------------------------------

REFUSED = (
    *("chip-id", "read-mac", "flash-id", "read-flash-status", "erase-flash", "read-mem 0x40001000", "run"),
    *("read-flash 0 16 {out}", "verify-flash 0x10000 {text}", "dump-mem 0x50000000 4 {out}", "read-flash-sfdp 0 4"),
    *("write-mem 0x50000000 0", "write-flash-status 0", "load-ram {text}"),
)


# esptool leaves files open when it refuses a command.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("stub", [True, False], ids=["stub", "rom"])
@pytest.mark.parametrize("chip", ["esp32c3", "esp32s3"])
def test_secure_download_mode_on_the_command_line(
    chip: str,
    stub: bool,
    ports: Open,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "text").write_bytes(TEXT)
    port = ports(chip, security=CLOSED)
    mode = ["--verbose"] if stub else ["--verbose", "--no-stub"]

    def said(args: str, succeeds: bool) -> str:
        capsys.readouterr()
        argv = args.format(text=tmp_path / "text", out=tmp_path / "out").split()
        assert run(port, [*mode, *argv]) is succeeds
        return " ".join("".join(capsys.readouterr()).split())

    assert f"{CHIPS[chip].title} in Secure Download Mode" in said("get-security-info", True)
    written = said("write-flash --flash-size 4MB 0x11000 {text}", True)
    assert "Cannot verify written data" in written
    assert ("Stub flasher is not supported in Secure Download Mode" in written) is stub
    assert port.board.flash.read(0x11000, len(TEXT)) == TEXT
    said("erase-region 0x12000 0x1000", True)
    assert port.board.flash.read(0x11000, 0x3000) == TEXT[:0x1000] + b"\xff" * 0x1000 + TEXT[0x2000:0x3000]
    for args in REFUSED:
        assert "command is not available in Secure Download Mode" in said(args, False)


@pytest.mark.parametrize("chip", ["esp32c3", "esp32s3"])
def test_in_secure_download_mode_the_rom_itself_refuses(chip: str, ports: Open) -> None:  # noqa: F811
    esp = esptool.detect_chip(ports(chip, security=CLOSED))
    assert esp.secure_download_mode
    unsupported = esptool.util.UnsupportedCommandError
    refused: list[Callable[[Any], object]] = [
        lambda esp: esp.read_reg(0x40001000),
        lambda esp: esp.write_reg(0x50000000, 0),
        lambda esp: esp.flash_md5sum(0, 16),
        lambda esp: esp.read_flash(0, 16),
        lambda esp: esp.mem_begin(4, 1, 4, 0x40390000),
    ]
    for command in refused:
        with pytest.raises((unsupported, esptool.FatalError)):
            command(esp)
        esp.flush_input()


def test_a_port_may_be_opened_on_a_burnt_chip(tmp_path: Path) -> None:
    port: VirtualPort = open_virtual("esp32s3", tmp_path / "flash.bin", security=CLOSED, execute=False)
    assert esptool.detect_chip(port).secure_download_mode
    port.close()


def test_a_board_process_of_a_burnt_chip(tmp_path: Path) -> None:
    with BoardProcess(tmp_path / "flash.bin", "--no-cpu", "--burnt", "secure-download", chip="esp32s3") as board:
        done = esptool_cli(board.url, "--no-stub", "get-security-info", cwd=tmp_path)
        assert done.returncode == 0 and "ESP32-S3 in Secure Download Mode" in done.stdout
    with pytest.raises(AssertionError, match="--burnt: error: ESP32 has no Secure Download Mode"):
        BoardProcess(tmp_path / "other.bin", "--burnt", "secure-download", chip="esp32")
