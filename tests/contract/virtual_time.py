"""esptool on the board's clock alone: its sleeps move the clock, so what it reports is the model and nothing else."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from virtualboard.board import Board
from virtualboard.chips import CHIPS
from virtualboard.nor import NorFlash
from virtualboard.port import BoardClock, VirtualPort
from virtualboard.timing import Timing, parse_timing

MAC = "7c:df:a1:0a:0b:0c"


def still_clock() -> BoardClock:
    """A board's clock whose host stands still: only what is modelled passes."""
    return BoardClock(lambda: 1000.0)


def follow(monkeypatch: pytest.MonkeyPatch, clock: BoardClock) -> None:
    """Let `time.sleep` and the clocks of `time` be `clock` wherever esptool looks at them."""

    def sleep(seconds: float) -> None:
        clock.advance_to(clock.now() + seconds)

    fake = SimpleNamespace(sleep=sleep, time=clock.now, monotonic=clock.now, perf_counter=clock.now)
    for name in ("esptool.loader", "esptool.cmds", "esptool.reset", "esp_pylib.serial_reset"):
        module = pytest.importorskip(name)
        for attribute, value in list(vars(module).items()):
            if value is time:
                monkeypatch.setattr(module, attribute, fake)


def port_on(clock: BoardClock, chip: str, timing: str | Timing, path: Path | None = None, **more: Any) -> VirtualPort:
    """A board of `chip` with its flash in memory (or at `path`)."""
    times = parse_timing(timing) if isinstance(timing, str) else timing
    flash = NorFlash(0x800000, path)
    return VirtualPort(Board(CHIPS[chip], flash, MAC, clock.now, execute=False, timing=times, **more), clock)
