"""The boot watcher: real logs of each kind, every way to cut them, and what a hostile device may send."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.boot.lines import MAX_LINE
from pipeline.boot.log_patterns import LineKind, line_kinds
from pipeline.boot.watcher import BOOT_LOOP_AFTER, SETTLE_S, TAIL_LINES, BootWatcher, Ready
from pipeline.formats.jsonrpc import parse_jsonrpc, reported_sha256
from pipeline.model import Failure, FailureCategory, MarkName, Stage

SHA = "0123456789abcdef" * 4
OTHER = "fedcba9876543210" * 4
ROM = (
    b"ESP-ROM:esp32c3-api1-20210207\r\nBuild:Feb  7 2021\r\nrst:0x1 (POWERON),boot:0xc (SPI_FAST_FLASH_BOOT)\r\n"
    b"SPIWP:0xee\r\nmode:DIO, clock div:1\r\nload:0x3fcd5820,len:0x1754\r\nentry 0x403cc71a\r\n"
)
BOOTLOADER = b"boot: otadata seq 1 selects ota_0\r\nboot: ota_0 starts from 0x00010000\r\n"
READY = b'{"jsonrpc":"2.0","method":"ready","params":{"app_elf_sha256":"' + SHA.encode() + b'"}}\r\n'
PANIC = (
    b"\r\nGuru Meditation Error: Core  0 panic'ed (Load access fault). Exception was unhandled.\r\n\r\n"
    b"Core  0 register dump:\r\nMEPC    : 0x42000010  RA      : 0x42000020\r\nELF file SHA256: 0123\r\n"
)
# ESP32 (no ROM name), bootloader of ESP-IDF with its colours.
ESP32 = (
    b"ets Jul 29 2019 12:21:46\r\n\r\nrst:0x1 (POWERON_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)\r\n"
    b"configsip: 0, SPIWP:0xee\r\nclk_drv:0x00,q_drv:0x00,d_drv:0x00\r\nmode:DIO, clock div:2\r\n"
    b"load:0x3fff0030,len:7084\r\nho 0 tail 12 room 4\r\nload:0x40078000,len:15584\r\nentry 0x40080594\r\n"
    b"\x1b[0;32mI (31) boot: ESP-IDF v5.1 2nd stage bootloader\x1b[0m\r\n"
    b"\x1b[0;32mI (60) esp_image: segment 0: paddr=00010020 size=0\x1b[0m\r\n"
)


def watch(data: bytes, *, at_s: float = 10.5, expire: bool = True) -> BootWatcher:
    """Everything in one chunk, half a second after the reset; then the deadline."""
    watcher = BootWatcher(SHA, 10.0, 5.0, where="device bench on virtual:")
    watcher.feed(at_s, data)
    if expire:
        watcher.expire(15.0)
    return watcher


def failed(data: bytes) -> Failure:
    verdict = watch(data).verdict
    assert isinstance(verdict, Failure)
    assert (verdict.stage, verdict.where) == (Stage.TTFB, "device bench on virtual:")
    return verdict


# --- ready ------------------------------------------------------------------------------------


def test_a_healthy_boot_passes_every_mark_in_order() -> None:
    watcher = BootWatcher(SHA, 10.0, 5.0)
    for at_s, data in ((10.25, ROM), (10.5, BOOTLOADER), (10.75, b"hello from the app\r\n"), (11.0, READY)):
        assert watcher.verdict is None
        watcher.feed(at_s, data)
    assert watcher.verdict == Ready(11.0, SHA, json.loads(READY))
    assert {mark.name: mark.at_s for mark in watcher.marks} == {
        MarkName.RESET_RELEASED: 10.0,
        MarkName.FIRST_BYTE: 10.25,
        MarkName.ROM_BANNER: 10.25,
        MarkName.APP_START: 10.75,
        MarkName.FIRST_LINE: 10.25,
        MarkName.FIRST_JSONRPC: 11.0,
    }
    assert watcher.resets == 1


def test_a_message_counts_from_its_first_byte() -> None:
    watcher = BootWatcher(SHA, 10.0, 5.0)
    watcher.feed(10.25, READY[:1])
    watcher.feed(10.5, READY[1:])
    assert isinstance(watcher.verdict, Ready)
    assert watcher.verdict.at_s == 10.25


def test_the_first_line_of_the_app_may_be_its_message() -> None:
    watcher = watch(ROM + BOOTLOADER + READY)
    assert {MarkName.APP_START, MarkName.FIRST_JSONRPC} <= {mark.name for mark in watcher.marks}


@pytest.mark.parametrize("chip", [ROM + BOOTLOADER, ESP32])
def test_nothing_that_rom_and_bootloader_print_is_the_app(chip: bytes) -> None:
    watcher = watch(chip, expire=False)
    assert [mark.name for mark in watcher.marks if mark.name is MarkName.APP_START] == []
    watcher.feed(10.75, b"I (300) cpu_start: Pro cpu start user code\r\n")
    assert watcher.marks[-2].name is MarkName.APP_START


def test_a_response_names_the_image_as_well_as_a_notification() -> None:
    data = b'{"jsonrpc":"2.0","id":7,"result":{"app_elf_sha256":"' + SHA.upper().encode() + b'"}}\n'
    assert isinstance(watch(data).verdict, Ready)


def test_messages_that_name_no_image_do_not_make_it_ready() -> None:
    ping = b'{"jsonrpc":"2.0","method":"tick"}\n'
    watcher = watch(ping, expire=False)
    assert watcher.verdict is None
    watcher.feed(10.75, READY)
    assert isinstance(watcher.verdict, Ready)
    first = next(mark for mark in watcher.marks if mark.name is MarkName.FIRST_JSONRPC)
    assert first.at_s == 10.5


def test_a_panic_text_inside_a_message_is_not_a_panic() -> None:
    crash = b'{"jsonrpc":"2.0","method":"last","params":{"crash":"Guru Meditation Error"}}\n'
    assert isinstance(watch(crash + READY).verdict, Ready)


def test_what_follows_the_deciding_line_is_not_judged() -> None:
    watcher = watch(ROM + READY + b"and on\r\n\xff")
    assert watcher.lines[-1] == READY.decode().strip()
    watcher.feed(12.0, PANIC)
    watcher.expire(99.0)
    assert isinstance(watcher.verdict, Ready), "a verdict is final"


def test_bytes_from_before_the_reset_are_another_life() -> None:
    watcher = watch(READY.replace(SHA.encode(), OTHER.encode()), at_s=9.999, expire=False)
    assert (watcher.verdict, len(watcher.marks)) == (None, 1)


# --- each failure -----------------------------------------------------------------------------


def test_another_image_is_named_beside_ours() -> None:
    failure = failed(ROM + READY.replace(SHA.encode(), OTHER.encode()))
    assert failure.category is FailureCategory.WRONG_IMAGE
    assert failure.message == f"the device runs app_elf_sha256 '{OTHER}', this build is '{SHA}'"


def test_a_panic_is_told_with_the_log_behind_it() -> None:
    failure = failed(ROM + BOOTLOADER + PANIC + b"Rebooting...\r\n" + ROM)
    assert failure.category is FailureCategory.PANIC
    assert "Guru Meditation Error: Core  0 panic'ed (Load access fault)" in failure.message
    assert failure.detail.endswith("ELF file SHA256: 0123\nRebooting...")
    assert failure.detail.startswith("ESP-ROM:esp32c3")


@pytest.mark.parametrize(
    "line",
    [
        b"Guru Meditation Error: Core  0 panic'ed",
        b"abort() was called at PC 0x42001234 on core 0",
        b"Brownout detector was triggered",
        b"assert failed: app_main main.c:9 (x)",
        b"***ERROR*** A stack overflow in task main has been detected.",
    ],
)
def test_every_kind_of_panic(line: bytes) -> None:
    assert failed(ROM + line + b"\r\n").category is FailureCategory.PANIC
    assert failed(ROM + line).category is FailureCategory.PANIC, "also when the line end never came"


def test_a_panic_that_hangs_is_decided_when_it_is_quiet_and_not_at_the_deadline() -> None:
    watcher = watch(ROM + PANIC, expire=False)
    assert watcher.deadline_s == 10.5 + SETTLE_S
    watcher.feed(10.6, b"more registers\r\n")
    watcher.expire(10.5 + SETTLE_S)
    assert watcher.verdict is None
    watcher.expire(10.6 + SETTLE_S)
    assert isinstance(watcher.verdict, Failure)
    assert watcher.verdict.detail.endswith("more registers")


def test_a_panic_is_decided_at_the_deadline_even_if_the_chip_never_stops_talking() -> None:
    watcher = watch(ROM + PANIC, expire=False)
    for tenth in range(106, 150):
        watcher.feed(tenth / 10, b"talk\r\n")
        watcher.expire(tenth / 10)
        assert watcher.verdict is None
    watcher.expire(15.0)
    assert isinstance(watcher.verdict, Failure)
    assert watcher.verdict.category is FailureCategory.PANIC


def test_a_chip_that_resets_again_and_again() -> None:
    again = ROM.replace(b"0x1 (POWERON)", b"0x7 (TG0WDT_SYS_RST)")
    assert watch(ROM + again, expire=False).verdict is None
    failure = failed(ROM + again * (BOOT_LOOP_AFTER - 1))
    assert failure.category is FailureCategory.BOOT_LOOP
    assert failure.message == "the chip reset 3 times without becoming ready (last rst:0x7 (TG0WDT_SYS_RST))"


def test_a_boot_loop_says_what_the_bootloader_refused() -> None:
    failure = failed((ROM + b"boot: ota_0 rejected: checksum\r\nboot: error: nothing to start\r\n") * 3)
    assert failure.message.endswith("the last refusal was: boot: error: nothing to start")


def test_an_erased_bootloader() -> None:
    failure = failed(b"ESP-ROM:esp32c3-api1-20210207\r\n" + b"invalid header: 0xffffffff\r\n" * 8)
    assert failure.category is FailureCategory.BOOT_LOOP
    assert failure.message == "the ROM refused the bootloader 3 times: invalid header: 0xffffffff"
    assert failure.hint.startswith("write the bootloader")


DOWNLOAD = (
    b"ESP-ROM:esp32c3-api1-20210207\r\nrst:0x1 (POWERON),boot:0x4 (DOWNLOAD(USB/UART0/1))\r\nwaiting for download\r\n"
)


def test_a_chip_that_stays_in_its_loader() -> None:
    watcher = watch(DOWNLOAD, expire=False)
    assert watcher.verdict is None
    watcher.expire(10.5 + SETTLE_S)
    assert isinstance(watcher.verdict, Failure)
    assert watcher.verdict.category is FailureCategory.SYNC_FAILED
    assert watcher.verdict.hint.startswith("release BOOT")


@pytest.mark.parametrize("after", [ROM, b"an app without a ROM banner\r\n", READY])
def test_the_loaders_message_may_be_left_over_from_before(after: bytes) -> None:
    watcher = watch(DOWNLOAD + after, expire=False)
    assert watcher.deadline_s == 15.0
    watcher.feed(10.75, READY)
    assert isinstance(watcher.verdict, Ready)


def test_silence() -> None:
    watcher = BootWatcher(SHA, 10.0, 5.0)
    watcher.expire(14.999)
    assert watcher.verdict is None
    watcher.expire(15.0)
    assert isinstance(watcher.verdict, Failure)
    assert watcher.verdict.category is FailureCategory.NO_OUTPUT
    assert watcher.verdict.message == "not one byte came within 5000 ms of reset"
    assert [mark.name for mark in watcher.marks] == [MarkName.RESET_RELEASED]


def test_talk_without_a_message() -> None:
    failure = failed(ROM + b"hello\r\n")
    assert failure.category is FailureCategory.RPC_TIMEOUT
    assert failure.message == f"no JSON-RPC message came within 5000 ms of reset, but {len(ROM) + 7} bytes in 8 lines"
    assert failure.detail.endswith("hello")


def test_messages_without_an_image() -> None:
    failure = failed(b'{"jsonrpc":"2.0","method":"tick"}\n')
    assert failure.category is FailureCategory.RPC_TIMEOUT
    assert SHA in failure.message
    assert "app_elf_sha256" in failure.hint


def test_garbage_points_at_the_baud_rate() -> None:
    assert "monitor_baud" in failed(b"\xfe\x80\x00\xe0\r\n" * 5).hint
    assert "monitor_baud" not in failed(b"hello\r\n" * 5).hint


def test_marks_after_the_banner_belong_to_the_last_boot() -> None:
    watcher = BootWatcher(SHA, 10.0, 5.0)
    for at_s, data in ((10.25, ROM), (10.5, b"app, then a reset\r\n"), (11.0, ROM), (11.5, b"app again\r\n")):
        watcher.feed(at_s, data)
    at = {mark.name: mark.at_s for mark in watcher.marks}
    assert at[MarkName.FIRST_BYTE] == at[MarkName.FIRST_LINE] == 10.25
    assert (at[MarkName.ROM_BANNER], at[MarkName.APP_START]) == (11.0, 11.5)
    assert watcher.resets == 2


# --- any chunking -----------------------------------------------------------------------------

LOGS = {
    "ready": ROM + BOOTLOADER + READY + b"more\r\n",
    "esp32": ESP32 + b"app\r\n" + READY,
    "panic": ROM + PANIC + b"Rebooting...\r\n" + ROM,
    "hung panic": ROM + PANIC,
    "wrong": READY.replace(SHA.encode(), OTHER.encode()),
    "loop": ROM * 4,
    "download": DOWNLOAD,
    "garbage": b"\x80\xff\x00" * 9 + b"\n" + "naïve ☃\n".encode() + b"\xe2\x98",
    "long": b"x" * (MAX_LINE + 5) + b"\n" + READY,
    "silent app": ROM + b"no line end",
}


def outcome(watcher: BootWatcher) -> tuple[object, ...]:
    verdict = watcher.verdict
    if isinstance(verdict, Ready):
        verdict = verdict._replace(at_s=0.0)
    return verdict, [mark.name for mark in watcher.marks], watcher.lines, watcher.resets


@pytest.mark.parametrize("name", LOGS)
def test_byte_by_byte_is_as_good_as_at_once(name: str) -> None:
    data = LOGS[name]
    watcher = BootWatcher(SHA, 10.0, 5.0, where="device bench on virtual:")
    for index in range(len(data)):
        watcher.feed(10.5 + index / 1e6, data[index : index + 1])
    watcher.expire(15.0)
    assert outcome(watcher) == outcome(watch(data))


@settings(deadline=None)
@given(st.data(), st.lists(st.sampled_from([*LOGS.values(), b"\r", b"\n", b"{", b"\xff"]), max_size=4).map(b"".join))
def test_no_cut_changes_verdict_marks_or_tail(draw: st.DataObject, data: bytes) -> None:
    cuts = draw.draw(st.lists(st.integers(0, len(data)), max_size=8).map(sorted))
    watcher = BootWatcher(SHA, 10.0, 5.0, where="device bench on virtual:")
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        watcher.feed(10.5, data[start:end])
    watcher.expire(15.0)
    assert outcome(watcher) == outcome(watch(data))


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_end_in_a_verdict(data: bytes) -> None:
    watcher = watch(data)
    assert watcher.verdict is not None
    assert all(line.replace("\t", " ").isprintable() for line in watcher.lines)


# --- bounds -----------------------------------------------------------------------------------


def test_megabytes_without_a_line_end_cost_no_memory() -> None:
    watcher = BootWatcher(SHA, 10.0, 5.0)
    chunk = b"A" * 65536
    tracemalloc.start()
    for _ in range(128):
        watcher.feed(10.5, chunk)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * MAX_LINE, "8 MB came in"
    watcher.feed(11.0, b"\n" + READY)
    assert isinstance(watcher.verdict, Ready)


def test_the_tail_is_bounded_in_both_directions() -> None:
    watcher = watch(b"".join(b"%d %s\n" % (n, b"y" * 1000) for n in range(TAIL_LINES + 50)), expire=False)
    assert len(watcher.lines) == TAIL_LINES
    assert watcher.lines[0].startswith("50 y")
    assert max(map(len, watcher.lines)) == 401


def test_a_message_that_is_too_long_is_no_message() -> None:
    padded = READY.replace(b'{"json', b"{" + b" " * MAX_LINE + b'"json')
    assert failed(padded).category is FailureCategory.RPC_TIMEOUT


# --- JSON-RPC ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        b'{"jsonrpc":"2.0","method":"a"}',
        b' {"jsonrpc": "2.0", "method": "a", "params": [1], "id": null} ',
        b'{"jsonrpc":"2.0","method":"a","params":{},"id":"x"}',
        b'{"jsonrpc":"2.0","id":1,"result":null}',
        b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"no"}}',
    ],
)
def test_what_is_a_message(line: bytes) -> None:
    assert parse_jsonrpc(line) == json.loads(line)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b'"2.0"',
        b'{"jsonrpc":"2.0"}',
        b'{"jsonrpc":"1.0","method":"a"}',
        b'{"jsonrpc":2.0,"method":"a"}',
        b'{"jsonrpc":"2.0","method":7}',
        b'{"jsonrpc":"2.0","method":"a","params":"x"}',
        b'{"jsonrpc":"2.0","method":"a","params":null}',
        b'{"jsonrpc":"2.0","method":"a","id":true}',
        b'{"jsonrpc":"2.0","method":"a","id":{}}',
        b'{"jsonrpc":"2.0","method":"a","result":1,"id":1}',
        b'{"jsonrpc":"2.0","result":1}',
        b'{"jsonrpc":"2.0","id":1,"result":1,"error":{}}',
        b'{"jsonrpc":"2.0","id":1,"error":"x"}',
        b'{"jsonrpc":"2.0","method":"a","params":[NaN]}',
        b'{"jsonrpc":"2.0","method":"\xff"}',
        b'{"jsonrpc":"2.0","method":"a"} trailing',
        b'I (5) app: {"jsonrpc":"2.0","method":"a"}',
        b'{"a":' * 20_000,
        b'{"a":' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_no_message(line: bytes) -> None:
    assert parse_jsonrpc(line) is None


@pytest.mark.parametrize("body", [{}, {"params": []}, {"params": {"app_elf_sha256": 7}}, {"result": "x"}])
def test_a_message_without_an_image(body: dict[str, object]) -> None:
    assert reported_sha256(body) is None


def test_the_table_of_signs() -> None:
    table: dict[str, set[LineKind]] = {
        "ESP-ROM:esp32s3-20210327": {LineKind.BANNER},
        "rst:0x10 (RTCWDT_RTC_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)": {LineKind.RESET},
        "invalid header: 0xffffffff": {LineKind.ROM_REFUSAL, LineKind.REFUSED, LineKind.LOADER},
        "waiting for download": {LineKind.DOWNLOAD, LineKind.LOADER},
        "Rebooting...": {LineKind.REBOOTING},
        "first: 0x1": set(),
        "boot: error: partition table: bad MD5": {LineKind.LOADER, LineKind.REFUSED},
        "booted in 5 ms": set(),
        "Checksum failure. Calculated 0x01 stored 0x02": {LineKind.ROM_REFUSAL, LineKind.LOADER, LineKind.REFUSED},
    }
    assert {line: set(line_kinds(line)) for line in table} == table
