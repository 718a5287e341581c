"""`doit doctor --probe` asks a board process over RFC 2217 who it is, and compares that with deploy.toml."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config.reader import parse_config
from pipeline.config.schema import DeployConfig
from pipeline.device.leases import user_shelf
from pipeline.doctor.boards import examine_devices
from pipeline.doctor.findings import Condition, DoctorFinding
from tests.e2e.conftest import ServedBoard

# pyserial's RFC 2217 client.
pytestmark = pytest.mark.filterwarnings("ignore:set(Daemon|Name):DeprecationWarning")

TEXT = """\
[project]
name = "given"
[toolchain]
kind = "prebuilt"
chip = "{chip}"
[prebuilt]
directory = "build"
[device.desk]
port = "{port}"
mac = "{mac}"
"""


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedBoard]:
    served = ServedBoard(tmp_path_factory.mktemp("board") / "flash.bin")
    yield served
    served.stop()


def asked(root: Path, port: str, chip: str, mac: str, *, probe: bool = True) -> DoctorFinding:
    config = parse_config(TEXT.format(chip=chip, port=port, mac=mac))
    assert isinstance(config, DeployConfig), config
    shelf = user_shelf(root / ".deploy")
    (finding,) = examine_devices(root, config, config.devices, shelf, probe=probe, service=False)
    return finding


def test_who_answers(board: ServedBoard, tmp_path: Path) -> None:
    mac = "7c:df:a1:00:11:22"
    right = asked(tmp_path, board.url, "esp32c3", mac)
    assert right.condition is Condition.OK and right.fact.startswith(f"esp32c3 with MAC {mac} answers"), right
    chip = asked(tmp_path, board.url, "esp32s3", mac)
    assert chip.condition is Condition.ERROR and chip.fact.endswith("but the build is for esp32s3"), chip
    other = asked(tmp_path, board.url, "esp32c3", "00:11:22:33:44:55")
    assert other.condition is Condition.ERROR and other.fact.endswith("but deploy.toml says 00:11:22:33:44:55"), other


def test_nobody_is_asked_without_the_option(tmp_path: Path) -> None:
    nobody = "rfc2217://127.0.0.1:1"
    assert asked(tmp_path, nobody, "esp32c3", "", probe=False).condition is Condition.NOTE
    assert asked(tmp_path, nobody, "esp32c3", "").condition is Condition.ERROR
