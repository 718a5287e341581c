"""Ports by name: faults in the name of a virtual one, and finding a board again whose port left."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serial.tools import list_ports

from pipeline.config.schema import DeviceConfig
from pipeline.device.ports import _usb_id, find_again, open_port, planted_faults, reopen
from pipeline.effects.clock import SystemClock
from pipeline.errors import DeviceError
from pipeline.model import Failure, FailureCategory
from pipeline.run.options import Options
from pipeline.run.run import load_run
from tests.unit.test_config import MINIMAL
from virtualboard.faults import parse_fault
from virtualboard.port import open_virtual


def test_each_fault_of_a_port_is_planted() -> None:
    assert planted_faults("virtual:") == []
    assert planted_faults("virtual:?fault=panic:boot=0.2,pc=0x42001234&fault=other-mac:mac=7c:df:a1:ff:ff:ff") == [
        parse_fault("panic:boot=0.2,pc=0x42001234"),
        parse_fault("other-mac:mac=7c:df:a1:ff:ff:ff"),
    ]


@pytest.mark.parametrize(
    ("port", "fact", "advice"),
    [
        (
            "virtual:?fault=panik",
            "the fault cannot be planted: 'panik' is not a fault",
            "correct it: Did you mean panic?",
        ),
        ("virtual:?fault=worn", "the fault cannot be planted: worn needs sector=", "correct it: Write it like worn"),
        ("virtual:?falt=panic", "a virtual board's port has no 'falt'", "write it like port = "),
        ("virtual:?", "'?' is nothing that a virtual board's port can have", "write it like port = "),
        ("virtual:fault=panic", "'fault=panic' is nothing that", "write it like port = "),
    ],
)
def test_what_cannot_be_planted_is_said_at_its_place(port: str, fact: str, advice: str, tmp_path: Path) -> None:
    text = MINIMAL.replace("[device.bench]", f'[device.bench]\nport = "{port}"')
    line = text.partition(port)[0].count("\n") + 1
    (tmp_path / "deploy.toml").write_text(text)
    failure = load_run(Options(), tmp_path)
    assert isinstance(failure, Failure)
    assert (failure.category, failure.stage) == (FailureCategory.CONFIG_ERROR, None)
    assert failure.line().startswith(f"deploy.toml:{line}:8: error: {fact}")
    assert failure.hint.startswith(advice)


@given(st.text())
def test_any_port_has_faults_or_a_reason(text: str) -> None:
    found = planted_faults(f"virtual:{text}")
    assert isinstance(found, list) or (len(found) == 2 and all(found))


def test_a_board_is_opened_again_under_its_new_name(tmp_path: Path) -> None:
    port = open_virtual("esp32c3", tmp_path / "flash.bin", execute=False)
    port.timeout = 0.1
    before = port.port
    port.board.inject(parse_fault("vanish:for=0.5,name=new"))
    with pytest.raises(OSError, match="unplugged"):
        port.read(1)
    with pytest.raises(OSError, match="unplugged"):
        reopen(port)
    port.clock.wait(0.5)
    reopen(port)
    assert port.is_open and port.port != before
    port.close()


# --- which port is the same board's -----------------------------------------------------------


class FakePort(NamedTuple):
    """As pyserial lists one."""

    device: str
    serial_number: str | None = "0001"
    location: str | None = "1-2.1"
    vid: int | None = 0x10C4
    pid: int | None = 0xEA60


def listed(monkeypatch: pytest.MonkeyPatch, *present: FakePort) -> None:
    monkeypatch.setattr(list_ports, "comports", lambda: list(present))


def again(monkeypatch: pytest.MonkeyPatch, before: tuple[FakePort, ...], after: tuple[FakePort, ...]) -> str | None:
    """Where the board on the first port of `before` is found, None when nobody can say."""
    listed(monkeypatch, *before)
    usb = _usb_id(before[0].device)
    listed(monkeypatch, *after)
    try:
        return find_again(usb, before[0].device)
    except OSError as error:
        assert error.errno == errno.ENODEV and before[0].device in str(error)
        return None


A, B = FakePort("/dev/ttyUSB0"), FakePort("/dev/ttyUSB1", location="1-2.2")
BOARD = FakePort("/dev/ttyACM0", "7C:DF:A1:00:00:01", "1-3", 0x303A, 0x1001)


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ((A, B), (A, B), "/dev/ttyUSB0"),
        ((A, B), (B, A._replace(device="/dev/ttyUSB2")), "/dev/ttyUSB2"),
        ((A, B), (A._replace(device="/dev/ttyUSB1"), B._replace(device="/dev/ttyUSB0")), "/dev/ttyUSB1"),
        ((A, B), (B,), None),
        ((A, B), (B._replace(device="/dev/ttyUSB0"),), None),
        ((A,), (B,), None),
        ((A,), (A._replace(device="/dev/ttyUSB5"),), "/dev/ttyUSB5"),
        ((A,), (A._replace(pid=0x7523),), None),
        ((A,), (), None),
        # a system that names no places
        ((A._replace(location=None), B._replace(location=None)), (B._replace(location=None),), None),
        ((A._replace(location=None),), (A._replace(location=None, device="COM9"),), "COM9"),
        ((A._replace(location=None),), (A._replace(location=None), B._replace(location=None)), None),
        # its serial number is its MAC
        ((BOARD,), (BOARD._replace(device="/dev/ttyACM3", location="2-1"),), "/dev/ttyACM3"),
        ((BOARD,), (BOARD._replace(serial_number="7C:DF:A1:00:00:02"),), None),
        # no serial number: the place decides
        ((A._replace(serial_number=None),), (A._replace(serial_number=None),), "/dev/ttyUSB0"),
        ((A._replace(serial_number=None),), (B._replace(serial_number=None),), None),
    ],
)
def test_a_board_that_comes_back_is_the_same_board_or_nobody(
    before: tuple[FakePort, ...], after: tuple[FakePort, ...], found: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert again(monkeypatch, before, after) == found


def refused(device: DeviceConfig, root: Path) -> Failure:
    with pytest.raises(DeviceError) as error:
        open_port("bench", device, root, SystemClock(), 0x400000)
    failure = error.value.failure
    assert failure.where == "device bench on virtual:"
    return failure


def test_a_rom_elf_that_cannot_be_used_is_a_mistake_in_the_configuration(tmp_path: Path) -> None:
    failure = refused(DeviceConfig("bench", "esp32c3", rom_elf="roms/none.elf"), tmp_path)
    assert failure.category is FailureCategory.CONFIG_ERROR
    assert failure.message == f"{tmp_path}/roms/none.elf: cannot read the ROM ELF: No such file or directory"
    assert failure.hint and failure.hint.startswith("install Espressif's esp-rom-elfs")
    assert not list(tmp_path.rglob("*.flash")), "nothing was made"


@pytest.mark.parametrize(
    ("key", "value", "category", "fact", "advice"),
    [
        (
            "flash_file",
            "notes.txt",
            FailureCategory.CONFIG_ERROR,
            "notes.txt: the file is not a flash's",
            "name another",
        ),
        ("flash_file", "big.bin", FailureCategory.CONFIG_ERROR, "holds 4194305 bytes, the flash only", "give the size"),
        (
            "flash_file",
            "folder",
            FailureCategory.CACHE_ERROR,
            "folder of the virtual board cannot be used: Is a",
            "free",
        ),
        ("flash_file", "notes.txt/x", FailureCategory.CACHE_ERROR, "notes.txt/x of the virtual board cannot", "free"),
        ("timing", "instant,md5=1", FailureCategory.CONFIG_ERROR, "'md5' is not a time of profile", "choose one of"),
    ],
)
def test_a_virtual_board_that_cannot_be_made_is_no_missing_port(
    key: str, value: str, category: FailureCategory, fact: str, advice: str, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("keep me")
    (tmp_path / "big.bin").write_bytes(bytes(0x400001))
    (tmp_path / "folder").mkdir()
    changed: dict[str, Any] = {key: value}
    failure = refused(DeviceConfig("bench", "esp32c3")._replace(**changed), tmp_path)
    assert failure.category is category
    assert fact in failure.message and failure.hint and failure.hint.startswith(advice)
    assert (tmp_path / "notes.txt").read_text() == "keep me"


def test_a_full_disk_is_no_missing_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("virtualboard.nor.os.pwrite", full)
    failure = refused(DeviceConfig("bench", "esp32c3"), tmp_path)
    assert failure.category is FailureCategory.CACHE_ERROR
    assert "bench.flash of the virtual board cannot be used: No space left on device" in failure.message


@pytest.mark.parametrize(
    ("port", "fact", "advice"),
    [
        ("/dev/null", "that is no serial port", "name the board's port in deploy.toml (present: "),
        (".", "that is no serial port", "name the board's port in deploy.toml (present: "),
        ("socket://127.0.0.1:1", "the port cannot be opened: ", "start what serves the port, or correct"),
        ("rfc2217://127.0.0.1:1", "the port cannot be opened: ", "start what serves the port, or correct"),
        ("/dev/ttyNONE", "no such port (present: ", "plug the board in"),
    ],
)
def test_the_hint_is_for_this_kind_of_port(port: str, fact: str, advice: str, tmp_path: Path) -> None:
    with pytest.raises(DeviceError) as error:
        open_port("desk", DeviceConfig("desk", "esp32c3", port), tmp_path, SystemClock(), 0x400000)
    failure = error.value.failure
    assert failure.category is FailureCategory.PORT_MISSING
    assert failure.message.startswith(fact) and failure.hint.startswith(advice)
