"""The time model against the table of phases that was measured with it: esptool on a paced ESP32-S3, MD5 for free.

The measured phases hold the host's own work too, about 1 ms in each round trip; here no time passes but the model's.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.virtual_time import follow, port_on, still_clock
from virtualboard.port import VirtualPort

esptool = pytest.importorskip("esptool")

REGIONS = [(0x0, b"\xff" * 0x5000), (0x8000, b"\xff" * 0xC00), (0x10000, b"\xff" * 0x40000)]


class Phases:
    """Milliseconds of each phase on the board's clock."""

    def __init__(self, port: VirtualPort) -> None:
        self._port = port
        self._since = port.clock.now()
        self.ms: dict[str, float] = {}

    def end(self, name: str) -> None:
        now = self._port.clock.now()
        self.ms[name] = (now - self._since) * 1000
        self._since = now


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> VirtualPort:
    esptool.log.set_verbosity("silent")
    clock = still_clock()
    follow(monkeypatch, clock)
    port = port_on(clock, "esp32s3", "esp32s3-uart,md5_s_per_mb=0")
    port.timeout = 1.0
    port.read(5000)  # the boot is over
    return port


def as_the_command_line_does(port: VirtualPort, baud: int) -> dict[str, float]:
    phases = Phases(port)
    esp = esptool.detect_chip(port)
    phases.end("connect")
    esp.get_chip_description()
    esp.get_chip_features()
    esp.get_crystal_freq()
    esp.read_mac()
    phases.end("banner")
    esp = esptool.run_stub(esp)
    phases.end("stub")
    if baud != 115_200:
        esp.change_baud(baud)
        phases.end("baud")
    esptool.attach_flash(esp)
    phases.end("attach")
    esptool.verify_flash(esp, REGIONS)
    phases.end("md5")
    esp.hard_reset()
    phases.end("reset")
    return phases.ms


def check(ms: dict[str, float], reference: dict[str, tuple[float, int]]) -> None:
    """Each phase at most what was measured, and at least that less the host's part of its round trips."""
    for phase, (measured, round_trips) in reference.items():
        assert measured - max(1.1 * round_trips, 0.17 * measured) <= ms[phase] <= measured * 1.02, (phase, ms)


def test_at_115200(port: VirtualPort) -> None:
    ms = as_the_command_line_does(port, 115_200)
    check(
        ms,
        {
            "connect": (205, 3),
            "banner": (50, 12),
            "stub": (866, 10),
            "attach": (256, 57),
            "md5": (27, 5),
            "reset": (121, 3),
        },
    )
    assert sum(ms.values()) == pytest.approx(1530, rel=0.1)


def test_at_921600_after_the_stub(port: VirtualPort) -> None:
    ms = as_the_command_line_does(port, 921_600)
    check(ms, {"connect": (205, 3), "stub": (869, 10), "baud": (55, 1), "attach": (128, 57), "md5": (11, 5)})
    assert sum(ms.values()) == pytest.approx(1470, rel=0.13)


def test_the_rate_first_and_no_attach_is_three_times_as_fast(port: VirtualPort) -> None:
    phases = Phases(port)
    esp: Any = esptool.CHIP_DEFS["esp32s3"](port)
    esp.cache["usb_vid"], esp.cache["usb_pid"] = 0x10C4, 0xEA60  # a CP2102: no cap of 2 KB on blocks in RAM
    esp.connect(detecting=True)
    phases.end("connect")
    esp.change_baud(921_600)
    phases.end("baud")
    esp = esp.run_stub()
    phases.end("stub")
    esp.flash_set_parameters(0x800000)
    phases.end("parameters")
    for offset, data in REGIONS:
        esp.flash_md5sum(offset, len(data))
    phases.end("md5")
    esp.hard_reset()
    phases.end("reset")
    check(
        phases.ms,
        {
            "connect": (190, 1),
            "baud": (55, 1),
            "stub": (133, 7),
            "parameters": (2, 1),
            "md5": (9, 5),
            "reset": (106, 3),
        },
    )
    assert sum(phases.ms.values()) == pytest.approx(500, rel=0.15)


@pytest.mark.parametrize(
    ("timing", "seconds"), [("esp32s3-uart", 5.7), ("esp32s3-usb", 0.4), ("esp32s3-usb,md5_s_per_mb=0.1", 0.1)]
)
def test_a_megabyte_of_md5(timing: str, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = still_clock()
    follow(monkeypatch, clock)
    esp = esptool.detect_chip(port_on(clock, "esp32s3", timing))
    esp.flash_spi_attach(0)
    esp.flash_set_parameters(0x800000)
    before = clock.now()
    esp.flash_md5sum(0, 1_000_000)
    assert clock.now() - before == pytest.approx(seconds, rel=0.1)


def test_a_write_takes_erase_program_and_wire(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image of 181,040 bytes (96,201 compressed) took an ESP32-C3 on USB 1.7 s (esp32.io, topic 32766)."""
    clock = still_clock()
    follow(monkeypatch, clock)
    esp = esptool.run_stub(esptool.detect_chip(port_on(clock, "esp32c3", "esp32c3-usb")))
    esptool.attach_flash(esp)
    image = bytes(range(256)) * 700
    before = clock.now()
    esptool.write_flash(esp, [(0x10000, image)], no_progress=True)
    assert 1.0 < clock.now() - before < 3.0
