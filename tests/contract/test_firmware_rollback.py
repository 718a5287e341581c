"""The life of an over-the-air update on the reference firmware, as ESP-IDF's bootloader with rollback has it: NEW,
PENDING_VERIFY at the first start, then VALID when the application says so, ABORTED when it does not."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tests import firmware_build as fb

fb.need_tools()

from tests.firmware_device import BOOT_BUDGET, FirmwareBench, ready_of  # noqa: E402
from virtualboard import rom  # noqa: E402
from virtualboard.port import open_virtual  # noqa: E402
from virtualboard.rv32 import Rv32Machine  # noqa: E402

pytestmark = pytest.mark.needs_zig

NEW, PENDING, VALID, INVALID, ABORTED, UNDEFINED = 0, 1, 2, 3, 4, 0xFFFFFFFF
PORT = "firmware/port/esp32c3/port.c"
MAIN = "firmware/core/main.c"


@pytest.fixture(scope="module")
def firmware(tmp_path_factory: pytest.TempPathFactory) -> fb.BuiltFirmware:
    return fb.shared(tmp_path_factory)


@pytest.fixture(scope="module")
def unsure(firmware: fb.BuiltFirmware, tmp_path_factory: pytest.TempPathFactory) -> fb.BuiltFirmware:
    """It runs and never says that it works."""
    edit = {PORT: ("#define HOTPLATE_CONFIRM_UPDATE 1", "#define HOTPLATE_CONFIRM_UPDATE 0")}
    return fb.variant(firmware, tmp_path_factory.mktemp("unsure"), edit)


def updated(firmware: fb.BuiltFirmware, update: bytes, states: tuple[int, int], **more: bytes) -> FirmwareBench:
    """ota_0 runs sequence 1, `update` lies in ota_1 with sequence 2; the states of both copies."""
    first, second = (fb.otadata_entry(1 + n, state=state) for n, state in enumerate(states))
    return FirmwareBench(fb.deployed(firmware, at_e000=first, at_f000=second, at_150000=update, **more))


def states(bench: FirmwareBench) -> tuple[int, int]:
    """As they lie in flash; each with its sequence and CRC intact."""
    found = []
    for number, offset in enumerate((0xE000, 0xF000)):
        entry = bench.flash.read(offset, 32)
        (state,) = struct.unpack_from("<I", entry, 24)
        assert entry == fb.otadata_entry(1 + number, state=state)
        found.append(state)
    return found[0], found[1]


def running(log: str) -> str:
    partition: str = ready_of(log)["partition"]
    offset = {"ota_0": "0x10000", "ota_1": "0x150000"}[partition]
    assert log.count("boot: Loaded app from partition at offset ") == 1
    assert f"boot: Loaded app from partition at offset {offset}\r\n" in log
    return partition


def test_an_update_that_works_is_confirmed_and_stays(firmware: fb.BuiltFirmware) -> None:
    bench = updated(firmware, firmware.app_bin, (VALID, NEW))
    log = bench.start()
    assert running(log) == "ota_1" and states(bench) == (VALID, VALID)
    assert "boot: otadata[1] is new: pending verify\r\n" in log
    for cause in (rom.SW_SYS, rom.POWERON):
        assert running(bench.start(cause)) == "ota_1" and states(bench) == (VALID, VALID)


def test_an_update_that_is_never_confirmed_is_taken_back_at_the_next_start(
    firmware: fb.BuiltFirmware, unsure: fb.BuiltFirmware
) -> None:
    bench = updated(firmware, unsure.app_bin, (VALID, NEW))
    assert running(bench.start()) == "ota_1" and states(bench) == (VALID, PENDING)
    bench.pass_time(30.0)
    assert bench.call("ping") == "pong" and states(bench) == (VALID, PENDING)
    log = bench.start(rom.SW_SYS)
    assert running(log) == "ota_0" and states(bench) == (VALID, ABORTED)
    assert "boot: otadata[1] was never confirmed: aborted\r\nboot: otadata seq 1 selects ota_0\r\n" in log
    assert running(bench.start()) == "ota_0" and states(bench) == (VALID, ABORTED)


FAULTS = {
    "panic": ("    modules_setup();\n", "    *(volatile int *)0x8 = 1;\n    modules_setup();\n", rom.SW_CPU),
    "reboot": ("    modules_setup();\n", "    port_reboot();\n    modules_setup();\n", rom.SW_SYS),
    "hang": ("    modules_setup();\n", "    for (;;) {\n    }\n    modules_setup();\n", rom.TG0WDT_SYS),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_update_that_fails_on_its_way_is_taken_back(firmware: fb.BuiltFirmware, tmp_path: Path, fault: str) -> None:
    old, new, cause = FAULTS[fault]
    broken = fb.variant(firmware, tmp_path, {MAIN: (old, new)})
    bench = updated(firmware, broken.app_bin, (VALID, NEW))
    bench.machine.reset(rom.POWERON)
    bench.machine.run(BOOT_BUDGET)
    if fault == "hang":
        assert bench.machine.wake_at is not None
        bench.now = bench.machine.wake_at
        bench.machine.run(1)
    assert bench.machine.pending_reset == cause and states(bench) == (VALID, PENDING)
    assert '"partition":"ota_1"' in bench.machine.transmit().decode()
    assert running(bench.start(cause)) == "ota_0" and states(bench) == (VALID, ABORTED)


def test_an_update_whose_image_is_bad_is_not_tried_for_ever(firmware: fb.BuiltFirmware) -> None:
    bench = updated(firmware, firmware.app_bin[:-1] + b"\0", (VALID, NEW))
    log = bench.start()
    assert "boot: ota_1 rejected: bad SHA-256\r\nboot: ota_0 starts from " in log
    assert running(log) == "ota_0" and states(bench) == (VALID, PENDING), "it was another application that rested"
    assert running(bench.start(rom.SW_SYS)) == "ota_0" and states(bench) == (VALID, ABORTED)


@pytest.mark.parametrize(
    ("before", "after", "slot"),
    [
        ((VALID, VALID), (VALID, VALID), "ota_1"),
        ((VALID, UNDEFINED), (VALID, UNDEFINED), "ota_1"),
        ((UNDEFINED, UNDEFINED), (UNDEFINED, UNDEFINED), "ota_1"),
        ((VALID, INVALID), (VALID, INVALID), "ota_0"),
        ((VALID, ABORTED), (VALID, ABORTED), "ota_0"),
        ((UNDEFINED, ABORTED), (UNDEFINED, ABORTED), "ota_0"),
        ((VALID, PENDING), (VALID, ABORTED), "ota_0"),
        ((PENDING, VALID), (ABORTED, VALID), "ota_1"),
        ((NEW, VALID), (NEW, VALID), "ota_1"),
        ((NEW, NEW), (NEW, VALID), "ota_1"),
        ((NEW, ABORTED), (VALID, ABORTED), "ota_0"),
        ((PENDING, PENDING), (ABORTED, ABORTED), "ota_0"),
        ((INVALID, ABORTED), (INVALID, ABORTED), "ota_0"),
    ],
)
def test_every_state_at_a_start(
    firmware: fb.BuiltFirmware, before: tuple[int, int], after: tuple[int, int], slot: str
) -> None:
    bench = updated(firmware, firmware.app_bin, before)
    flash = bytes(bench.flash.content)
    assert running(bench.start()) == slot and states(bench) == after
    outside = bytes(bench.flash.content[:0xE000]) + bytes(bench.flash.content[0x10000:])
    assert outside == flash[:0xE000] + flash[0x10000:], "nothing else is written"
    if before == after:
        assert bytes(bench.flash.content) == flash
    assert running(bench.start(rom.SW_SYS)) == slot and states(bench) == after, "and it stays"


FACTORY = fb.partition_row(1, 0x00, 0xE000, 0x2000, "otadata") + fb.partition_row(0, 0, 0x290000, 0x140000, "factory")
SLOTS = fb.partition_row(0, 0x10, fb.OTA_0, 0x140000, "ota_0") + fb.partition_row(0, 0x11, fb.OTA_1, 0x140000, "ota_1")


@pytest.mark.parametrize("before", [(INVALID, ABORTED), (ABORTED, PENDING), (PENDING, PENDING), None])
def test_without_a_valid_entry_the_factory_application_starts(
    firmware: fb.BuiltFirmware, before: tuple[int, int] | None
) -> None:
    parts = {"at_8000": FACTORY + SLOTS, "at_290000": firmware.app_bin}
    bench = updated(firmware, firmware.app_bin, before or (VALID, VALID), **parts)
    if before is None:
        bench.flash.erase(0xE000, 0x2000)
    log = bench.start()
    assert ready_of(log)["partition"] == "factory"
    assert "boot: otadata has no valid entry, default is factory\r\n" in log
    assert "boot: Loaded app from partition at offset 0x290000\r\n" in log


def test_a_wrong_crc_is_no_entry_and_stays_as_it_is(firmware: fb.BuiltFirmware) -> None:
    bench = updated(firmware, firmware.app_bin, (VALID, NEW))
    bench.flash.content[0xF01C] ^= 1
    before = bytes(bench.flash.content)
    assert running(bench.start()) == "ota_0" and bytes(bench.flash.content) == before


def test_the_order_in_which_others_are_tried_is_esp_idfs(firmware: fb.BuiltFirmware) -> None:
    """Backwards from the chosen slot, then the factory application, then forwards."""
    third = fb.partition_row(0, 0x12, 0x3D0000, 0x10000, "ota_2")
    bench = updated(firmware, b"\0" * 32, (VALID, VALID), at_8000=third + SLOTS + FACTORY, at_10000=b"\0" * 32)
    log = bench.start()
    tried = [line.split()[1] for line in log.splitlines() if " rejected: " in line]
    assert tried == ["ota_1", "ota_0", "factory", "ota_2"]
    assert log.endswith("boot: error: no application can be started\r\n")


def test_a_state_that_cannot_be_written_keeps_nobody_from_starting(firmware: fb.BuiltFirmware) -> None:
    bench = updated(firmware, firmware.app_bin, (VALID, NEW))

    class ReadOnly:
        size = bench.flash.size
        read = bench.flash.read

    bench.machine = Rv32Machine(ReadOnly(), fb.EFUSE, lambda: bench.now)
    log = bench.start()
    assert "boot: otadata[1] is new: pending verify, which could not be written\r\n" in log
    assert running(log) == "ota_1" and states(bench) == (VALID, NEW)


@pytest.mark.parametrize("cut", [1, 2])
def test_power_that_fails_while_the_state_is_written_costs_the_update_and_nothing_else(
    firmware: fb.BuiltFirmware, tmp_path: Path, cut: int
) -> None:
    """On the whole board: the sector is erased and half of its entry written when the power goes."""
    image = fb.deployed(
        firmware,
        at_e000=fb.otadata_entry(1, state=VALID),
        at_f000=fb.otadata_entry(2, state=NEW),
        at_150000=firmware.app_bin,
    )
    path = tmp_path / "flash.bin"
    path.write_bytes(image)
    with open_virtual("esp32c3", path, faults=[f"power-cut:write={cut},for=0.1"]) as port:
        port.timeout = 5.0
        log = b""
        while log.count(b'"method":"ready"') < cut:
            piece = port.read(4096)
            assert piece, log
            log += piece
        assert log.count(b"ESP-ROM:") == 2
        found = log.decode().rpartition('"partition":"')[2][:5]
        assert found == "ota_0", "half an entry has no CRC"
    assert path.read_bytes()[0xE000:0xE020] == fb.otadata_entry(1, state=VALID)
