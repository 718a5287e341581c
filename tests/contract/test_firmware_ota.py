"""An update over the line, on the reference firmware: which blocks it has, what it takes, and when it selects."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import pytest

from pipeline.flash.ota_plan import block_digests, chunks, plan_blocks
from tests import firmware_build as fb

fb.need_tools()

from tests.firmware_device import FirmwareBench, ready_of  # noqa: E402
from virtualboard import rom  # noqa: E402

pytestmark = pytest.mark.needs_zig

BLOCK = 4096
SLOT = 0x150000
PING = "firmware/core/methods.c"


@pytest.fixture(scope="module")
def firmware(tmp_path_factory: pytest.TempPathFactory) -> fb.BuiltFirmware:
    return fb.shared(tmp_path_factory)


@pytest.fixture(scope="module")
def other(firmware: fb.BuiltFirmware, tmp_path_factory: pytest.TempPathFactory) -> fb.BuiltFirmware:
    """Another answer to `ping`."""
    return fb.variant(
        firmware, tmp_path_factory.mktemp("other"), {PING: ('out_text("\\"pong\\"");', 'out_text("\\"pang\\"");')}
    )


@pytest.fixture
def bench(firmware: fb.BuiltFirmware) -> FirmwareBench:
    bench = FirmwareBench(fb.deployed(firmware))
    assert ready_of(bench.start())["partition"] == "ota_0"
    return bench


def call(bench: FirmwareBench, method: str, *params: Any) -> Any:
    return bench.call(method, params=list(params))


def send(bench: FirmwareBench, image: bytes, indices: tuple[int, ...]) -> None:
    for index in indices:
        for at, data in chunks(image, BLOCK, index):
            assert call(bench, "ota.chunk", at, base64.b64encode(data).decode()) == at + len(data)


def begin(bench: FirmwareBench, image: bytes) -> None:
    assert call(bench, "ota.begin", len(image)) == {
        "partition": "ota_1",
        "offset": SLOT,
        "room": 0x140000,
        "block": BLOCK,
    }


def digests(bench: FirmwareBench, image: bytes) -> tuple[list[str], list[str]]:
    total = -(-len(image) // BLOCK)
    slot: list[str] = []
    running: list[str] = []
    for first in range(0, total, 32):
        answer = call(bench, "ota.hashes", first, min(32, total - first))
        slot += answer["slot"]
        running += answer["running"]
    return slot, running


def test_an_update_of_what_differs_runs_after_a_restart(bench: FirmwareBench, other: fb.BuiltFirmware) -> None:
    image = other.app_bin
    begin(bench, image)
    slot, running = digests(bench, image)
    plan = plan_blocks(image, BLOCK, slot, running)
    assert plan.kept == () and plan.copied and plan.sent, "the other build shares blocks with what runs"
    for index in plan.copied:
        assert call(bench, "ota.copy", index, 1) == 1
    send(bench, image, plan.sent)
    assert bench.flash.read(SLOT, len(image)) == image
    digest = hashlib.sha256(image).hexdigest()
    assert call(bench, "ota.commit", digest) == {"partition": "ota_1", "sha256": digest}
    assert bench.call("ping") == "pong", "nothing runs that was not started"
    ready = ready_of(bench.start(rom.SW_SYS))
    assert ready["partition"] == "ota_1" and bench.call("ping") == "pang"
    (row,) = [row for row in bench.call("image.hashes")["regions"] if row["running"]]
    assert (row["offset"], row["size"], row["sha256"]) == (SLOT, len(image), digest)
    assert ready_of(bench.start())["partition"] == "ota_1", "it was confirmed and stays"


def test_a_transfer_that_was_cut_off_goes_on(bench: FirmwareBench, other: fb.BuiltFirmware) -> None:
    image = other.app_bin
    begin(bench, image)
    send(bench, image, (0, 1, 2))
    (first, data), *_ = chunks(image, BLOCK, 3)
    call(bench, "ota.chunk", first, base64.b64encode(data).decode())
    assert ready_of(bench.start(rom.POWERON))["partition"] == "ota_0", "nothing was selected"
    begin(bench, image)
    slot, _ = digests(bench, image)
    assert plan_blocks(image, BLOCK, slot, ()).kept == (0, 1, 2)
    send(bench, image, tuple(range(3, -(-len(image) // BLOCK))))
    assert call(bench, "ota.commit", hashlib.sha256(image).hexdigest())["partition"] == "ota_1"


def test_digests_are_those_of_the_blocks(bench: FirmwareBench, firmware: fb.BuiltFirmware) -> None:
    image = firmware.app_bin
    begin(bench, image)
    assert tuple(digests(bench, image)[1]) == block_digests(image, BLOCK)


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("ota.begin", [0], -32602),
        ("ota.begin", [0x140001], -32602),
        ("ota.chunk", [0, "AAAA"], -32000),
        ("ota.hashes", [0, 1], -32000),
        ("ota.commit", ["00"], -32000),
    ],
)
def test_what_is_refused_before_an_update_is_open(
    bench: FirmwareBench, method: str, params: list[Any], code: int
) -> None:
    assert call(bench, method, *params)["code"] == code
    assert call(bench, "ota.abort") is False


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("ota.chunk", [0, "AAA"]),
        ("ota.chunk", [0, "A=AA"]),
        ("ota.chunk", [0, "AA=A"]),
        ("ota.chunk", [0, "A\\nAA"]),
        ("ota.chunk", [0, ""]),
        ("ota.chunk", [0, 7]),
        ("ota.chunk", [5, "AAAA"]),
        ("ota.chunk", [8192, "AAAA"]),
        ("ota.chunk", [4096, base64.b64encode(bytes(200)).decode()]),
        ("ota.hashes", [0, 3]),
        ("ota.hashes", [2, 1]),
        ("ota.hashes", [0, 0]),
        ("ota.copy", [0, 9]),
        ("ota.copy", [0xFFFFFFFF, 1]),
    ],
)
def test_what_an_open_update_refuses(bench: FirmwareBench, method: str, params: list[Any]) -> None:
    before = bench.flash.read(SLOT, 0x4000)
    assert call(bench, "ota.begin", 4196)["block"] == BLOCK
    assert call(bench, method, *params)["code"] == -32602
    assert bench.flash.read(SLOT, 0x4000) == before
    assert call(bench, "ota.abort") is True


def test_another_content_than_was_named_is_not_selected(bench: FirmwareBench, other: fb.BuiltFirmware) -> None:
    image = other.app_bin
    begin(bench, image)
    send(bench, image, tuple(range(-(-len(image) // BLOCK))))
    before = bench.flash.read(0xE000, 0x2000)
    assert call(bench, "ota.commit", hashlib.sha256(image + b"x").hexdigest())["code"] == -32000
    assert bench.flash.read(0xE000, 0x2000) == before
    assert ready_of(bench.start())["partition"] == "ota_0"


def test_a_worn_block_is_told(bench: FirmwareBench, other: fb.BuiltFirmware) -> None:
    image = other.app_bin
    begin(bench, image)
    program = bench.flash.program

    def worn(offset: int, data: bytes) -> None:
        program(offset, bytes(len(data)) if SLOT <= offset < SLOT + BLOCK else data)

    bench.flash.program = worn  # type: ignore[method-assign]
    pieces = [*chunks(image, BLOCK, 0)]
    answers = [call(bench, "ota.chunk", at, base64.b64encode(data).decode()) for at, data in pieces]
    assert answers[-1]["code"] == -32000 and "does not hold" in answers[-1]["message"]


def test_an_update_that_never_confirms_goes_back(
    bench: FirmwareBench, firmware: fb.BuiltFirmware, tmp_path: Path
) -> None:
    edit = {"firmware/port/esp32c3/port.c": ("#define HOTPLATE_CONFIRM_UPDATE 1", "#define HOTPLATE_CONFIRM_UPDATE 0")}
    image = fb.variant(firmware, tmp_path, edit).app_bin
    begin(bench, image)
    send(bench, image, tuple(range(-(-len(image) // BLOCK))))
    call(bench, "ota.commit", hashlib.sha256(image).hexdigest())
    assert ready_of(bench.start(rom.SW_SYS))["partition"] == "ota_1"
    assert ready_of(bench.start(rom.SW_SYS))["partition"] == "ota_0"
