"""The way down from a rate that the line does not take, with esptool against the virtual board's loader."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import esptool
import pytest

from pipeline.device.flash_baud import rates, start_stub
from pipeline.model import Reason
from virtualboard.port import VirtualPort, open_virtual

DATA = bytes(range(256)) * 40


@contextmanager
def loader(tmp_path: Path, chip: str, *faults: str) -> Iterator[tuple[VirtualPort, Any]]:
    with open_virtual(chip, tmp_path / "flash.bin", faults=faults) as port:
        esp = esptool.CHIP_DEFS[chip](port)
        esp.connect(mode="default-reset", attempts=1, warnings=False)
        yield port, esp


def enter(esp: Any) -> None:
    esp.connect(mode="default-reset", attempts=2, warnings=False)


def test_the_steps() -> None:
    assert rates(921600) == (921600, 460800, 115200)
    assert rates(2_000_000) == (2_000_000, 921600, 460800, 115200)
    assert rates(460800) == (460800, 115200)
    assert rates(115200) == (115200,)
    assert rates(9600) == (9600,)


@pytest.mark.parametrize("chip", ["esp32", "esp32s3", "esp32c3"])
@pytest.mark.parametrize(
    ("fault", "baud", "reasons"),
    [
        ((), 921600, ()),
        (("slow-line:baud=500000",), 460800, (Reason("slower-baud", "loader", "921600", "460800"),)),
        (
            ("slow-line:baud=230400",),
            115200,
            (Reason("slower-baud", "loader", "921600", "460800"), Reason("slower-baud", "loader", "460800", "115200")),
        ),
    ],
)
def test_the_fastest_rate_that_the_line_takes(
    tmp_path: Path, chip: str, fault: tuple[str, ...], baud: int, reasons: tuple[Reason, ...]
) -> None:
    with loader(tmp_path, chip, *fault) as (port, esp):
        started = start_stub(esp, 921600, lambda: enter(esp))
        assert (started.baud, started.reasons, port.baudrate) == (baud, reasons, baud)
        assert started.esp.IS_STUB
        assert port.board.flash.read(0, 0x1000) == b"\xff" * 0x1000, "nothing was written on the way"
        esptool.write_flash(started.esp, [(0x10000, DATA)])
        assert port.board.flash.read(0x10000, len(DATA)) == DATA


def test_a_line_that_takes_nothing_fails(tmp_path: Path) -> None:
    with loader(tmp_path, "esp32c3") as (port, esp):
        from virtualboard.faults import parse_fault

        port.board.inject(parse_fault("slow-line:baud=9600"))
        with pytest.raises(esptool.FatalError):
            start_stub(esp, 460800, lambda: enter(esp))
