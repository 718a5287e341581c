"""The reference firmware, compiled by zig and executed by the virtual ESP32-C3: boot, resets, faults, time, identity.

What it answers is in test_firmware_rpc.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import firmware_build as fb

fb.need_tools()

from tests.firmware_device import FirmwareBench, messages_of, ready_of  # noqa: E402
from virtualboard import rom  # noqa: E402

pytestmark = pytest.mark.needs_zig

MAIN = "firmware/core/main.c"
AFTER_INIT = "    announce();\n"


@pytest.fixture(scope="session")
def firmware(tmp_path_factory: pytest.TempPathFactory) -> fb.BuiltFirmware:
    return fb.shared(tmp_path_factory)


@pytest.fixture(scope="module")
def bench(firmware: fb.BuiltFirmware) -> FirmwareBench:
    """A running device, shared by tests that only talk to it."""
    bench = FirmwareBench(fb.deployed(firmware))
    bench.start()
    return bench


# --- boot and identity --------------------------------------------------------------------------


def test_boots_to_ready_with_the_identity_of_the_elf(firmware: fb.BuiltFirmware) -> None:
    log = FirmwareBench(fb.deployed(firmware)).start()
    lines = log[: log.index("I (")].splitlines()
    assert lines[0] == "ESP-ROM:esp32c3-api1-20210207"
    assert lines[2] == "rst:0x1 (POWERON),boot:0xc (SPI_FAST_FLASH_BOOT)"
    assert "SHA-256" not in log
    assert lines[-4:-1] == [
        "boot: otadata has no valid entry, default is ota_0",
        "boot: ota_0 starts from 0x00010000",
        "boot: Loaded app from partition at offset 0x10000",
    ]
    assert ready_of(log) == {"app_elf_sha256": firmware.identity, "project": "reference", "partition": "ota_0"}
    assert lines[-1].startswith('{"jsonrpc"'), "nothing may come before ready, not even a log line"


def test_the_image_carries_identity_and_names_in_the_descriptor(firmware: fb.BuiltFirmware) -> None:
    image = firmware.app_bin
    assert image[0x20:0x24] == b"\x32\x54\xcd\xab"
    assert image[0x30:0x50] == b"1.2.3".ljust(32, b"\0")
    assert image[0x50:0x70] == b"reference".ljust(32, b"\0")
    assert image[0x70:0x90] == bytes(32), "no time, no date"
    assert image[0xB0:0xD0].hex() == firmware.identity


def test_a_machine_boots_the_same_way_twice(firmware: fb.BuiltFirmware) -> None:
    flash = fb.deployed(firmware)
    assert FirmwareBench(flash).start() == FirmwareBench(flash).start()


def test_a_chip_that_waits_rests_until_its_next_turn(bench: FirmwareBench) -> None:
    assert bench.machine.idle and bench.machine.pending_reset is None
    assert bench.machine.run(100_000) == 0
    wake = bench.machine.wake_at
    assert wake is not None and 0 < wake - bench.now <= 1.0


def test_info(firmware: fb.BuiltFirmware) -> None:
    bench = FirmwareBench(fb.deployed(firmware))
    bench.start()
    bench.pass_time(12.25)
    assert bench.call("info") == {
        "project": "reference",
        "version": "1.2.3",
        "chip": "esp32c3",
        "mac": "7c:df:a1:11:22:33",
        "app_elf_sha256": firmware.identity,
        "partition": "ota_0",
        "reset_reason": "power_on",
        "uptime_ms": 12_250,
    }


# --- time ------------------------------------------------------------------------------------------


def test_the_watchdog_is_fed_for_hours_and_costs_little(firmware: fb.BuiltFirmware) -> None:
    bench = FirmwareBench(fb.deployed(firmware))
    bench.start()
    bench.pass_time(120.0)
    assert bench.machine.pending_reset is None
    assert bench.call("info")["reset_reason"] == "power_on"


def test_a_late_owner_is_not_taken_for_a_hang(firmware: fb.BuiltFirmware) -> None:
    bench = FirmwareBench(fb.deployed(firmware))
    bench.start()
    bench.now += 3600.0
    assert bench.call("ping") == "pong"
    assert bench.machine.pending_reset is None


def test_the_led_blinks_on_its_pin(firmware: fb.BuiltFirmware) -> None:
    bench = FirmwareBench(fb.deployed(firmware))
    bench.start()
    before = int(bench.call("health")["modules"][0]["health"].split()[0])
    bench.pass_time(10.0)
    assert int(bench.call("health")["modules"][0]["health"].split()[0]) - before == 10


def test_memory_is_logged_on_edges_and_once_a_minute_else(firmware: fb.BuiltFirmware) -> None:
    bench = FirmwareBench(fb.deployed(firmware))
    bench.start()
    assert bench.pass_time(59.0) == ""
    (line,) = bench.pass_time(2.0).splitlines()
    assert re.fullmatch(r"I \(6\d{4}\) \[MemLive\] heap: \+0KB = \d+KB \(frag=0%, largest=\d+KB\)", line)
    assert bench.call("module.set", params=["ballast", 20_000])["setup_ok"]
    assert bench.pass_time(5.0) == "", "less than a fifth"
    assert bench.call("module.set", params=["ballast", 120_000])["setup_ok"]
    (line,) = bench.pass_time(5.0).splitlines()
    assert "[MemLive] heap: -117KB = " in line
    assert bench.pass_time(50.0) == ""


def test_memory_below_the_reserve_warns_once_and_recovers_once(firmware: fb.BuiltFirmware) -> None:
    bench = FirmwareBench(fb.deployed(firmware))
    bench.start()
    heap = bench.call("health")["heap"]
    assert bench.call("module.set", params=["ballast", heap["free"] - heap["reserve"]])["setup_ok"]
    levels = [line[0] for line in bench.pass_time(30.0).splitlines()]
    assert levels == ["W"]
    assert bench.call("module.set", params=["ballast", 0])["setup_ok"]
    assert [line[0] for line in bench.pass_time(30.0).splitlines()] == ["I"]


# --- resets ----------------------------------------------------------------------------------------


def test_reboot_answers_then_restarts_with_the_reason(firmware: fb.BuiltFirmware) -> None:
    bench = FirmwareBench(fb.deployed(firmware))
    bench.start()
    bench.pass_time(7.0)
    assert bench.call("reboot") is True
    assert bench.machine.pending_reset == rom.SW_SYS
    assert bench.machine.run(1000) == 0, "nothing runs until the owner resets"
    log = bench.start(rom.SW_SYS)
    assert "rst:0x3 (RTC_SW_SYS_RST),boot:0xc (SPI_FAST_FLASH_BOOT)" in log
    assert ready_of(log)["app_elf_sha256"] == firmware.identity
    bench.pass_time(2.5)
    info = bench.call("info")
    assert info["reset_reason"] == "software" and info["uptime_ms"] == 2500


def test_other_reset_reasons(firmware: fb.BuiltFirmware) -> None:
    bench = FirmwareBench(fb.deployed(firmware))
    for cause, reason in ((rom.TG0WDT_SYS, "watchdog"), (rom.BROWN_OUT, "brownout"), (0x15, "unknown")):
        bench.start(cause)
        assert bench.call("info")["reset_reason"] == reason


def test_the_table_of_these_tests_is_the_projects() -> None:
    lines = (fb.ROOT / "firmware" / "partitions.csv").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split(",")] for line in lines if line and not line.startswith("#")]
    table = fb.partition_table()
    assert len(rows) * 32 == len(table) - 32
    for number, (name, _, _, offset, size, _) in enumerate(rows):
        row = table[32 * number : 32 * number + 32]
        assert row[4:12] == int(offset, 16).to_bytes(4, "little") + int(size, 16).to_bytes(4, "little")
        assert row[12:28].rstrip(b"\0").decode() == name


# --- the bootloader's choice -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "slot"),
    [
        (None, None, "ota_0"),
        (fb.otadata_entry(1), None, "ota_0"),
        (fb.otadata_entry(2), None, "ota_1"),
        (fb.otadata_entry(3), None, "ota_0"),
        (fb.otadata_entry(1), fb.otadata_entry(2), "ota_1"),
        (fb.otadata_entry(5), fb.otadata_entry(4), "ota_0"),
        (fb.otadata_entry(1), fb.otadata_entry(2, crc=0), "ota_0"),
        (fb.otadata_entry(1), fb.otadata_entry(2, state=3), "ota_0"),
        (fb.otadata_entry(1), fb.otadata_entry(2, state=4), "ota_0"),
        (fb.otadata_entry(1), fb.otadata_entry(2, state=0), "ota_1"),
        (fb.otadata_entry(1), fb.otadata_entry(2, state=1), "ota_0"),
        (fb.otadata_entry(1), fb.otadata_entry(2, state=0xFFFFFFFF), "ota_1"),
        (fb.otadata_entry(2, crc=1), fb.otadata_entry(2, state=4), "ota_0"),
    ],
)
def test_otadata_selects_the_slot(
    firmware: fb.BuiltFirmware, first: bytes | None, second: bytes | None, slot: str
) -> None:
    flash = fb.deployed(firmware, at_150000=firmware.app_bin, at_e000=first or b"", at_f000=second or b"")
    log = FirmwareBench(flash).start()
    assert ready_of(log)["partition"] == slot
    assert "rejected" not in log


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


@pytest.mark.parametrize(
    ("at", "why"),
    [
        (0, "no image"),
        (1, "bad segment count"),
        (12, "image for another chip"),
        (24, "segment not aligned to flash pages"),
        (27, "segment outside memory"),
        (31, "segment beyond its partition"),
        (0x40, "bad checksum"),
        (0xB0, "bad checksum"),
        (0x10100, "bad checksum"),
        (-33, "bad checksum"),
        (-1, "bad SHA-256"),
        (8, "bad SHA-256"),
    ],
)
def test_a_damaged_application_is_rejected_for_the_other_slot(firmware: fb.BuiltFirmware, at: int, why: str) -> None:
    bad = flipped(firmware.app_bin, at % len(firmware.app_bin))
    log = FirmwareBench(fb.deployed(firmware, at_10000=bad, at_150000=firmware.app_bin)).start()
    assert f"boot: ota_0 rejected: {why}\r\nboot: ota_1 starts from 0x00150000\r\n" in log
    assert ready_of(log)["partition"] == "ota_1"


def test_a_truncated_application_is_rejected(firmware: fb.BuiltFirmware) -> None:
    for size in (0, 20, 100, len(firmware.app_bin) // 2, len(firmware.app_bin) - 1):
        bench = FirmwareBench(fb.deployed(firmware, at_10000=b"\xff" * len(firmware.app_bin)))
        bench.flash.content[fb.OTA_0 : fb.OTA_0 + size] = firmware.app_bin[:size]
        log = bench.start()
        assert "boot: ota_0 rejected: " in log and "ready" not in log, size
        assert log.endswith("boot: error: no application can be started\r\n")
        assert bench.machine.pending_reset == rom.SW_SYS


@pytest.mark.parametrize(
    ("table", "why"),
    [
        (b"\xff" * 0xC00, "partition table: no application"),
        (flipped(fb.partition_table(), 0x48), "partition table: bad MD5"),
        (flipped(fb.partition_table(), 0xBF), "partition table: bad MD5"),
        (fb.partition_row(1, 2, 0x9000, 0x5000, "nvs"), "partition table: no application"),
    ],
)
def test_a_bad_partition_table_is_named_and_the_chip_restarts(
    firmware: fb.BuiltFirmware, table: bytes, why: str
) -> None:
    bench = FirmwareBench(fb.deployed(firmware, at_8000=table))
    assert bench.start().endswith(f"boot: error: {why}\r\n")
    assert bench.machine.pending_reset == rom.SW_SYS


def test_a_factory_partition_is_the_default(firmware: fb.BuiltFirmware) -> None:
    table = fb.partition_row(0, 0x10, 0x150000, 0x140000, "ota_0") + fb.partition_row(0, 0, 0x10000, 0x140000, "first")
    log = FirmwareBench(fb.deployed(firmware, at_8000=table)).start()
    assert ready_of(log)["partition"] == "first"


# --- what the ROM does with damage -------------------------------------------------------------------


def test_a_flipped_byte_in_the_bootloader_stops_at_the_rom(firmware: fb.BuiltFirmware) -> None:
    bench = FirmwareBench(fb.deployed(firmware, at_0=flipped(firmware.boot_bin, 0x100)))
    log = bench.start()
    assert re.search(r"Checksum failure\. Calculated 0x[0-9a-f]{2} stored 0x[0-9a-f]{2}\r\nets_main\.c 333 \r\n$", log)
    assert "boot:" not in log.replace(",boot:", "")


def test_blank_flash_restarts_by_watchdog_for_ever() -> None:
    bench = FirmwareBench(b"\xff" * fb.FLASH_SIZE)
    assert "invalid header: 0xffffffff\r\ninvalid header: 0xffffffff\r\n" in bench.start()
    for _ in range(3):
        assert bench.machine.idle and bench.machine.pending_reset is None
        due = bench.machine.wake_at
        assert due is not None and due > bench.now
        bench.now = due
        assert bench.machine.run(1000) == 0
        assert bench.machine.pending_reset == rom.TG0WDT_SYS
        log = bench.start(rom.TG0WDT_SYS)
        assert "rst:0x7 (TG0WDT_SYS_RST)" in log and "invalid header: 0xffffffff" in log


def test_running_code_keeps_its_page_until_the_next_reset(firmware: fb.BuiltFirmware) -> None:
    bench = FirmwareBench(fb.deployed(firmware, at_150000=firmware.app_bin))
    bench.start()
    bench.flash.content[fb.OTA_0 : fb.OTA_0 + 0x20000] = b"\xff" * 0x20000
    assert bench.call("ping") == "pong"
    assert ready_of(bench.start(rom.SW_SYS))["partition"] == "ota_1"


# --- firmware that fails -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "name", "mcause", "mtval"),
    [
        ("*(volatile int *)0x8;", "Load access fault", 5, 0x8),
        ("*(volatile int *)0x4 = 1;", "Store access fault", 7, 0x4),
        ("*(volatile int *)0x42000040 = 1;", "Store access fault", 7, 0x42000040),
        ("*(volatile int *)0x3C7F0000;", "Load access fault", 5, 0x3C7F0000),
        ("((void (*)(void))0x30)();", "Instruction access fault", 1, 0x30),
        ("((void (*)(void))0x40000F00)();", "Instruction access fault", 1, 0x40000F00),
        ('__asm__ volatile("unimp");', "Illegal instruction", 2, 0),
        ('__asm__ volatile("ebreak");', "Breakpoint", 3, None),
        ('__asm__ volatile("ecall");', "Environment call from M-mode", 11, 0),
    ],
)
def test_a_panic_prints_its_registers_and_restarts_the_cpu(
    firmware: fb.BuiltFirmware, tmp_path: Path, fault: str, name: str, mcause: int, mtval: int | None
) -> None:
    edit = {MAIN: (AFTER_INIT, AFTER_INIT + f"    {fault}\n")}
    broken = fb.variant(firmware, tmp_path, edit)
    bench = FirmwareBench(fb.deployed(broken))
    log = bench.start()
    ready_of(log)
    assert f"\r\nGuru Meditation Error: Core  0 panic'ed ({name}). Exception was unhandled.\r\n" in log
    registers = {n: int(v, 16) for n, v in re.findall(r"(\S+) *: 0x([0-9a-f]{8})  ", log)}
    assert registers["MCAUSE"] == mcause
    assert mtval is None or registers["MTVAL"] == mtval
    in_code = range(0x42000020, 0x42800000)
    assert registers["RA" if mcause == 1 else "MEPC"] in in_code
    assert 0x3FC88000 < registers["SP"] <= 0x3FCCAE00 and registers["GP"]
    assert len(registers) == 36
    (stack,) = re.findall(r"Stack memory:\r\n((?:[0-9a-f]{8}:(?: 0x[0-9a-f]{8}){1,8}\r\n)+)\r\n", log)
    assert stack.startswith(f"{registers['SP']:08x}: 0x")
    assert f"ELF file SHA256: {broken.identity}\r\n" in log
    assert log.endswith("\r\nRebooting...\r\n")
    assert bench.machine.pending_reset == rom.SW_CPU
    assert "rst:0xc (RTC_SW_CPU_RST)" in bench.start(rom.SW_CPU)


def test_after_a_panic_the_reason_is_panic_and_uptime_starts_again(firmware: fb.BuiltFirmware, tmp_path: Path) -> None:
    fault = "    if (port_identity()->reset_reason[1] == 'o') {\n        *(volatile int *)0 = 1;\n    }\n"
    once = fb.variant(firmware, tmp_path, {MAIN: (AFTER_INIT, AFTER_INIT + fault)})
    bench = FirmwareBench(fb.deployed(once))
    bench.now = 100.0
    bench.start()
    bench.now = 200.0
    ready_of(bench.start(rom.SW_CPU))
    bench.now = 200.5
    info = bench.call("info")
    assert info["reset_reason"] == "panic" and info["uptime_ms"] == 500


def test_a_loop_is_not_idle_and_does_not_hold_the_caller(firmware: fb.BuiltFirmware, tmp_path: Path) -> None:
    loop = fb.variant(
        firmware, tmp_path, {MAIN: (AFTER_INIT, "    (void)announce;\n    for (volatile int i = 0;; i++) {\n    }\n")}
    )
    bench = FirmwareBench(fb.deployed(loop))
    bench.machine.reset(rom.POWERON)
    executed = [bench.machine.run(200_000) for _ in range(20)]
    assert executed[-10:] == [200_000] * 10
    assert not bench.machine.idle and bench.machine.pending_reset is None
    assert b"ready" not in bench.machine.transmit()
    due = bench.machine.wake_at
    assert due is not None and 2.9 < due < 3.1, "its watchdog"
    bench.now = due
    bench.machine.run(1)
    assert bench.machine.pending_reset == rom.TG0WDT_SYS
    bench.machine.reset(rom.TG0WDT_SYS)
    assert "rst:0x7 (TG0WDT_SYS_RST)" in bench.machine.transmit().decode()


def test_a_hang_before_the_watchdogs_are_off_is_ended_by_them(firmware: fb.BuiltFirmware, tmp_path: Path) -> None:
    hang = fb.variant(firmware, tmp_path, {MAIN: ("    port_init();\n", "    for (;;) {\n    }\n    port_init();\n")})
    bench = FirmwareBench(fb.deployed(hang))
    bench.machine.reset(rom.POWERON)
    bench.machine.run(1_000_000)
    assert not bench.machine.idle
    due = bench.machine.wake_at
    assert due is not None and 0.1 < due < 2.0
    bench.now = due
    bench.machine.run(1)
    assert bench.machine.pending_reset == rom.TG0WDT_SYS


def test_a_firmware_that_is_never_ready_still_logs_and_rests(firmware: fb.BuiltFirmware, tmp_path: Path) -> None:
    silent = fb.variant(firmware, tmp_path, {MAIN: (AFTER_INIT, "    (void)announce;\n")})
    log = FirmwareBench(fb.deployed(silent)).start()
    after = log.partition("boot: Loaded app from partition at offset 0x10000\r\n")[2]
    assert messages_of(after.splitlines()) == []


# --- the sources ---


@pytest.mark.parametrize("kind", ["app", "boot"])
def test_no_source_files_need_each_other(firmware: fb.BuiltFirmware, kind: str) -> None:
    """By their objects: who calls whom. A table of functions, such as `rpc_methods`, is no call."""
    import graphlib

    from elftools.elf.elffile import ELFFile

    defined: dict[str, str] = {}
    wanted: dict[str, set[str]] = {}
    for source in fb.sources(firmware.root, kind):
        with firmware.objects[source].open("rb") as file:
            symbols = list(ELFFile(file).get_section_by_name(".symtab").iter_symbols())
        shared = [symbol for symbol in symbols if symbol["st_info"]["bind"] == "STB_GLOBAL"]
        wanted[source] = {symbol.name for symbol in shared if symbol["st_shndx"] == "SHN_UNDEF"}
        defined.update({symbol.name: source for symbol in shared if symbol["st_info"]["type"] == "STT_FUNC"})
    needs = {source: {defined[name] for name in names if name in defined} for source, names in wanted.items()}
    assert sum(map(len, needs.values())) > 5
    list(graphlib.TopologicalSorter(needs).static_order())  # raises CycleError


# --- identity of builds ------------------------------------------------------------------------------


def test_two_checkouts_at_different_paths_give_identical_images(firmware: fb.BuiltFirmware, tmp_path: Path) -> None:
    import shutil

    root = tmp_path / "a" / "much deeper" / "place"
    shutil.copytree(fb.ROOT / "firmware", root / "firmware")
    other = fb.build(tmp_path / "elsewhere", root)
    assert other.app_bin == firmware.app_bin
    assert other.boot_bin == firmware.boot_bin
    assert other.app_elf == firmware.app_elf
    for source, path in firmware.objects.items():
        assert other.objects[source].read_bytes() == path.read_bytes(), source


def test_a_comment_changes_no_image_and_at_the_end_not_even_the_object(
    firmware: fb.BuiltFirmware, tmp_path: Path
) -> None:
    source = "firmware/core/methods.c"
    last_line = "const size_t rpc_method_count = sizeof rpc_methods / sizeof rpc_methods[0];\n"
    at_end = fb.variant(firmware, tmp_path / "end", {source: (last_line, last_line + "/* words */\n")})
    assert at_end.objects[source].read_bytes() == firmware.objects[source].read_bytes()
    in_middle = fb.variant(
        firmware,
        tmp_path / "middle",
        {source: ("static void run_ping", "/* words,\n * lines */\nstatic void run_ping")},
    )
    assert in_middle.objects[source].read_bytes() != firmware.objects[source].read_bytes(), "line numbers moved"
    for built in (at_end, in_middle):
        assert built.app_bin == firmware.app_bin and built.app_elf == firmware.app_elf


def test_a_real_edit_changes_the_identity(firmware: fb.BuiltFirmware, tmp_path: Path) -> None:
    edited = fb.variant(firmware, tmp_path, {"firmware/core/methods.c": ('\\"pong\\""', '\\"gong\\""')})
    assert edited.identity != firmware.identity and edited.boot_bin == firmware.boot_bin
    bench = FirmwareBench(fb.deployed(edited))
    assert ready_of(bench.start())["app_elf_sha256"] == edited.identity
    assert bench.call("ping") == "gong"
