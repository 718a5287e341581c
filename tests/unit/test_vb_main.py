"""The command line of `python -m virtualboard`: help that teaches, and mistakes answered without a traceback."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from virtualboard.__main__ import main
from virtualboard.faults import KEYS, KINDS
from virtualboard.timing import PROFILES


def test_help_shows_whole_command_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["--help"])
    assert done.value.code == 0
    text = capsys.readouterr().out
    assert "esptool --port rfc2217://127.0.0.1:4000 flash-id" in text
    assert all(len(line) <= 110 for line in text.splitlines())


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--chip", "esp8266", "choose from 'esp32', 'esp32c3', 'esp32s3'"),
        ("--rfc2217", "seventy", "'seventy' is not a port number from 0 to 65535"),
        ("--rfc2217", "65536", "'65536' is not a port number"),
        ("--mac", "7c:df", "'7c:df' is not a MAC address; write it like 7c:df:a1:00:11:22"),
        ("--size", "3MB", "'3MB' is not one of 1MB, 2MB, 4MB"),
        ("--timing", "esp32c3", "'esp32c3' is not a timing profile. Did you mean esp32c3-usb?"),
        ("--fault", "drop:count=0", "drop: count=0: not a whole number from 1. Write it like drop:"),
        ("--tcp", "0", "not allowed with argument --rfc2217"),
        ("--size", "4", "'4' is not one of 1MB, 2MB, 4MB"),
    ],
)
def test_wrong_values_are_named(
    option: str, value: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"--chip": "esp32c3", "--rfc2217": "0", "--flash": str(tmp_path / "f.bin"), option: value}
    with pytest.raises(SystemExit) as done:
        main([word for pair in options.items() for word in pair])
    assert done.value.code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "f.bin").exists()


def test_help_has_three_worked_examples_and_every_fault(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert text.count("\n  python -m virtualboard --chip") == 3
    assert all(kind.example in text and kind.summary in text for kind in KINDS.values())
    assert all(f"\n  {key}=" in text for key in KEYS)
    assert all(profile in text for profile in PROFILES)


def test_a_chip_without_usb_has_no_usb_port(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--chip", "esp32", "--tcp", "0", "--usb"]) == 2
    assert capsys.readouterr().err == "--usb: error: ESP32 has no USB port of its own\nLeave --usb out.\n"


def test_files_and_ports_that_cannot_be_used_are_messages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = tmp_path / "long.bin"
    long.write_bytes(bytes(0x100001))
    assert main(["--chip", "esp32", "--rfc2217", "0", "--size", "1MB", "--flash", str(long)]) == 2
    assert f"{long}: error: the file holds 1048577 bytes, the flash only 1048576\n" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["--chip", "esp32", "--rfc2217", str(port), "--flash", str(tmp_path / "f.bin")]) == 2
    assert capsys.readouterr().err.startswith(f"127.0.0.1:{port}: error: cannot listen: ")


def test_a_record_that_cannot_be_written_is_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--chip", "esp32c3", "--rfc2217", "0", "--record", str(tmp_path)]) == 2
    assert "--record: error:" in capsys.readouterr().err


def test_a_rom_elf_that_cannot_be_used_is_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rom.elf"
    file.write_bytes(b"no ELF at all" * 10)
    for chip, fact in (
        ("esp32c3", "not a ROM ELF for RISC-V: it does not begin with the ELF magic"),
        ("esp32", "a virtual ESP32 executes nothing"),
    ):
        assert main(["--chip", chip, "--tcp", "0", "--rom-elf", str(file)]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"{file}: error: ") and fact in said and said.count("\n") == 2
