"""A board behind a bare socket, reset by a command: ours, whose control socket stands for an emulator's."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config.schema import DeviceConfig
from pipeline.device.connect import connect
from pipeline.device.ports import open_port, reset_of
from pipeline.device.serial_link import PortLink
from pipeline.effects.clock import SystemClock
from pipeline.errors import DeviceError
from pipeline.model import FailureCategory
from tests.contract.board_process import DEADLINE_S, ROOT
from tests.forked import Python

PAGE = (ROOT / "docs" / "virtual-board.md").read_text(encoding="utf-8")
(RESET,) = [code for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "sys.argv" in code]
"""As the page has it."""


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "reset.py").write_text(RESET)
    command = ["--chip", "esp32s3", "--tcp", "0", "--control", str(tmp_path / "board.ctl")]
    process = Python(["-m", "virtualboard", *command], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        found = re.search(rb"socket://[^ ,]+", process.stdout.readline())
        assert found is not None
        yield found[0].decode()
    finally:
        process.kill()
        process.communicate(timeout=DEADLINE_S)


def test_the_loader_and_the_firmware_are_reached(url: str, tmp_path: Path) -> None:
    device = DeviceConfig("sim", "esp32s3", url, reset=f"command:'{sys.executable}' reset.py {{mode}}")
    port = open_port("sim", device, tmp_path, SystemClock(), 0x400000)
    loader = connect(port, "esp32s3", device.where, 0x400000, reset_of(device, port))
    assert loader.facts.mac == "7c:df:a1:00:11:22" and loader.reasons == ()
    link = PortLink(port, "sim", device.where, SystemClock().now_s, real_time=True)
    link.release_reset()
    said = b""
    while b"SPI_FAST_FLASH_BOOT" not in said:
        more = link.read(30.0)
        assert more, said
        said += more
    link.close()


def test_a_command_that_fails_is_named(url: str, tmp_path: Path) -> None:
    (tmp_path / "board.ctl").unlink()
    device = DeviceConfig("sim", "esp32s3", url, reset=f"command:'{sys.executable}' reset.py {{mode}}")
    port = open_port("sim", device, tmp_path, SystemClock(), 0x400000)
    with pytest.raises(DeviceError) as error:
        connect(port, "esp32s3", device.where, 0x400000, reset_of(device, port))
    failure = error.value.failure
    assert failure.category is FailureCategory.SYNC_FAILED and "exited with 1: FileNotFoundError" in failure.message
