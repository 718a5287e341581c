"""What ROMs, bootloaders, panic handlers and virtual boards say is never taken for an application."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.boot import log_patterns
from pipeline.boot.console_events import QUIET_S, ConsoleListener
from pipeline.boot.line_pattern import MAX_SLOW, LinePattern
from pipeline.boot.log_patterns import (
    _WORDS,
    MAX_SEARCHED,
    PATTERNS,
    LineKind,
    line_kinds,
    plain_line,
    started_at,
)
from pipeline.boot.readiness import no_health, read_health
from pipeline.boot.watcher import SETTLE_S, BootWatcher, Ready
from pipeline.config.until import MAX_EXPRESSION, Until, expression_problem, parse_until
from pipeline.formats.jsonrpc import parse_jsonrpc
from pipeline.model import Failure, FailureCategory, MarkName

SHA = "0123456789abcdef" * 4
C3 = "ESP-ROM:esp32c3-api1-20210207\r\nBuild:Feb  7 2021\r\nrst:0x1 (POWERON),boot:0xc (SPI_FAST_FLASH_BOOT)\r\n"
LOADED = C3 + "SPIWP:0x00\r\nmode:DIO, clock div:1\r\nload:0x3fcd5820,len:0x1754\r\nentry 0x403cc71a\r\n"
IDF = "I (24) boot: ESP-IDF v5.3 2nd stage bootloader\r\n"

ROM_REFUSALS = (
    "Invalid chip id. Expected 5 read 0. Bootloader for wrong chip?",
    "Invalid image block count: 17 (max 16)",
    "Invalid image block, can't boot.",
    "wrong chip id 0x0005",
    "region 0 0x3fcde000-0x3fcde100 overlaps 0x3fcde160-0x3fcdf664, can't load",
    "ets_loader.c 78",
    "invalid header: 0xffffffff",
    "invalid header",
    "csum err:0x01!=0x02",
    "SHA-256 comparison failed:",
)
"""shared facts of the mask ROMs, recorded on real ones: each is a refusal."""

OTHER_LINES = (
    "ets_main.c 333",
    "cmd len 64",
    "1150 mmu set 00010000, pos 00010000",
    "user code done",
    "Falling back to built-in command interpreter.",
    "clk_drv:0x00,q_drv:0x00,d_drv:0x00,cs0_drv:0x00,hd_drv:0x00,wp_drv:0x00",
    "ho 0 tail 12 room 4",
    "ets Jul 29 2019 12:21:46",
    "SPI mode:DIO, clock div:1",
    "I boot: Loaded app from partition at offset 0x10000",
    "virtualboard: the image is for chip id 9, this is 0: its code crashes here",
)


def watcher(until: str, app_offset: int | None = None) -> BootWatcher:
    found = parse_until(until)
    assert isinstance(found, Until)
    return BootWatcher(SHA, 10.0, 5.0, where="device bench", until=found, app_offset=app_offset)


def heard(until: str, text: str, app_offset: int | None = None, *, to_the_end: bool = True) -> BootWatcher:
    watch = watcher(until, app_offset)
    watch.feed(10.5, text.encode())
    if to_the_end:
        watch.expire(10.5 + SETTLE_S)
        watch.expire(15.0)
    return watch


def failed(watch: BootWatcher) -> Failure:
    assert isinstance(watch.verdict, Failure), watch.verdict
    return watch.verdict


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\r\n", ""])
@pytest.mark.parametrize("line", [*ROM_REFUSALS, *OTHER_LINES])
def test_no_line_of_a_rom_or_bootloader_is_a_byte_of_the_application(line: str, end: str) -> None:
    watch = heard("byte", LOADED + line + end)
    assert failed(watch) and MarkName.APP_START not in {mark.name for mark in watch.marks}


@pytest.mark.parametrize("until", ["byte", "rpc:ready", "rpc:health", "line:^hello"])
@pytest.mark.parametrize("line", ROM_REFUSALS)
def test_a_refusal_of_the_rom_ends_as_one(line: str, until: str) -> None:
    failure = failed(heard(until, C3 + line + "\r\nets_main.c 333\r\n"))
    assert failure.category is FailureCategory.BOOT_LOOP
    assert failure.message.startswith("the ROM refused the bootloader") and line in failure.message
    assert "power" not in failure.hint and "bootloader" in failure.hint


def test_three_refusals_need_no_deadline() -> None:
    text = (C3 + "Invalid image block, can't boot.\r\n") * 3  # the third reset decides before its refusal
    assert "refused the bootloader 2 times" in failed(heard("byte", text, to_the_end=False)).message


def test_a_refusal_of_the_bootloader_is_named() -> None:
    refused = "E (60) esp_image: Checksum failed. Calculated 0x1 read 0x2\r\n"
    failure = failed(heard("byte", LOADED + IDF + refused))
    assert "the bootloader refused it: E (60) esp_image: Checksum failed" in failure.message


def test_an_application_that_speaks_after_a_refusal_was_started() -> None:
    refused = "E (60) esp_image: Checksum failed. Calculated 0x1 read 0x2\r\n"
    assert isinstance(heard("byte", LOADED + IDF + refused + "hello\r\n").verdict, Ready)
    silent = failed(heard("line:^never", LOADED + IDF + refused + "hello\r\n"))
    assert silent.category is FailureCategory.RPC_TIMEOUT


# --- which application starts -----------------------------------------------------------------

STARTS = "I (57) boot: Loaded app from partition at offset 0x{offset:x}\r\n"


@pytest.mark.parametrize("until", ["byte", "line:^hello"])
@pytest.mark.parametrize("words", [STARTS, "boot: ota_1 starts from 0x{offset:08x}\r\n"])
def test_a_bootloader_that_starts_another_application(until: str, words: str) -> None:
    other = heard(until, LOADED + words.format(offset=0x110000) + "hello\r\n", 0x10000)
    failure = failed(other)
    assert failure.category is FailureCategory.WRONG_IMAGE
    assert "starts the application at 0x110000, this build's lies at 0x10000" in failure.message
    assert isinstance(heard(until, LOADED + words.format(offset=0x10000) + "hello\r\n", 0x10000).verdict, Ready)


def test_an_application_that_speaks_of_offsets_is_no_bootloader() -> None:
    text = LOADED + "update: Loaded app from partition at offset 0x110000\r\n"
    assert isinstance(heard("byte", text, 0x10000).verdict, Ready)


@pytest.mark.parametrize("tag", ["boot_button", "bl_led", "booted", "mode_switch"])
@pytest.mark.parametrize("level", ["I", "E"])
def test_tags_of_an_application_that_begin_like_the_bootloaders(tag: str, level: str) -> None:
    watch = heard("line:^never", f"{LOADED}{level} (500) {tag}: stuck\r\n")
    assert MarkName.APP_START in {mark.name for mark in watch.marks}
    assert failed(watch).category is FailureCategory.RPC_TIMEOUT, "nothing was refused"


@pytest.mark.parametrize("tag", ["boot", "boot.esp32c3", "boot_comm", "esp_image", "bootloader_flash", "efuse_init"])
def test_tags_of_the_bootloader(tag: str) -> None:
    assert isinstance(failed(heard("byte", f"{LOADED}I (24) {tag}: text\r\n")), Failure)


def test_why_the_bootloader_chose_another_is_said() -> None:
    refused = "E (60) esp_image: Checksum failed. Calculated 0x1 read 0x2\r\n"
    failure = failed(heard("byte", LOADED + refused + STARTS.format(offset=0x110000), 0x10000))
    assert "before it: E (60) esp_image: Checksum failed" in failure.message


def test_firmware_that_says_who_it_is_is_asked_instead() -> None:
    text = LOADED + STARTS.format(offset=0x110000)
    text += '{"jsonrpc":"2.0","method":"ready","params":{"app_elf_sha256":"' + SHA + '"}}\r\n'
    assert isinstance(heard("rpc:ready", text, 0x10000).verdict, Ready)


# --- panics, sleep ----------------------------------------------------------------------------

PANICS = (
    "abort() was called at PC 0x42001234 on core 0",
    "assert failed: app_main main.c:12 (x == 1)",
    'assertion "x" failed: file "main.c", line 3, function: app_main',
    "ESP_ERROR_CHECK failed: esp_err_t 0x105 (ESP_ERR_NOT_FOUND) at 0x42001234",
    "***ERROR*** A stack overflow in task main has been detected.",
    "Stack smashing protect failure!",
    "Undefined behavior of type out_of_bounds",
    "CORRUPT HEAP: Bad tail at 0x3ffb1234. Expected 0xbaad5678 got 0x0",
    "terminate called after throwing an instance of 'std::runtime_error'",
    "terminate called without an active exception",
    "pure virtual method called",
    "thread 'main' panicked at src/main.rs:10:5:",
    "panicked at src/main.rs:10:5:",
    "!! A panic occured in 'src/main.rs', at line 10, column 5",
    "====================== PANIC ======================",
    "Fatal exception (28):",
    "Core  0 register dump:",
    "Guru Meditation Error: Core 0 panic'ed (Illegal instruction)",
    "Brownout detector was triggered",
)


@pytest.mark.parametrize("line", PANICS)
def test_every_end_of_a_program_is_a_panic(line: str) -> None:
    failure = failed(heard("byte", LOADED + line + "\r\n"))
    assert (failure.category, line in failure.message) == (FailureCategory.PANIC, True)


def test_a_wake_from_deep_sleep_is_no_crash() -> None:
    wake = C3.replace("rst:0x1 (POWERON)", "rst:0x5 (DSLEEP)")
    watch = heard("line:^never", LOADED + "hello\r\n" + (wake + "entry 0x403cc71a\r\nawake\r\n") * 5)
    assert failed(watch).category is FailureCategory.RPC_TIMEOUT and watch.resets == 1


# --- prompts, expressions ---------------------------------------------------------------------


@pytest.mark.parametrize("until", ["line:^login: $", "line:login", "line:^login:$"])
def test_a_prompt_without_a_line_end_matches(until: str) -> None:
    watch = heard(until, LOADED + "hello\r\n\x1b[1;32mlogin:\x1b[0m ", to_the_end=False)
    assert watch.verdict is None and watch.deadline_s == 10.5 + SETTLE_S
    watch.expire(10.5 + SETTLE_S)
    assert isinstance(watch.verdict, Ready) is (until != "line:^login: $"), (
        "white space around a line is not part of it"
    )


def test_a_monitor_sees_a_prompt_once_the_line_is_quiet() -> None:
    listener = ConsoleListener()
    listener.feed(1.0, b"hello\r\n\x1b[32m>>>\x1b[0m ")
    assert (listener.prompt(1.0), listener.prompt(1.0 + QUIET_S)) == ("", ">>>")
    listener.feed(2.0, b"1 + 1\r\n")
    assert listener.prompt(3.0) == ""


@pytest.mark.parametrize(
    "expression",
    [
        "(" * 5000 + "a" + ")" * 5000,
        "(" * 40 + "a" + ")" * 40,
        "a" * (MAX_EXPRESSION + 1),
        "a{99999999999}",
        "(?:a{1000}){1000}",
        "(?:(?:(?:a{100}){100}){100}){100}",
        "(",
        "a**",
    ],
)
def test_an_expression_that_cannot_serve_is_refused_when_it_is_read(expression: str) -> None:
    assert expression_problem(expression) is not None
    assert isinstance(parse_until(f"line:{expression}"), tuple)


@pytest.mark.parametrize("expression", [r"^I \(\d+\) main: ready$", "[]()]{3}x", r"\({5}", "(ab|c){2,5}"])
def test_ordinary_expressions_serve(expression: str) -> None:
    assert expression_problem(expression) is None


def test_a_search_that_never_ends_is_ended() -> None:
    pattern = LinePattern("(x+x+)+y")
    assert not pattern.search("x" * 4000) and pattern.slow == 1
    assert pattern.search("xxy"), "the next line is looked at as usual"
    pattern.slow = MAX_SLOW
    assert not pattern.search("xxy") and pattern.exhausted


def test_the_failure_says_that_the_expression_is_slow() -> None:
    failure = failed(heard("line:(x+x+)+y", LOADED + "x" * 4000 + "\r\n"))
    assert failure.hint.startswith("simplify the expression")


@pytest.mark.parametrize("kind", list(LineKind))
def test_a_long_line_is_searched_to_a_limit(kind: LineKind) -> None:
    assert kind not in line_kinds("x" * MAX_SEARCHED + " Guru Meditation rst:0x1 waiting for download ESP-ROM:")


# --- boards that execute nothing --------------------------------------------------------------

NOT_RUN = "virtualboard: firmware is not executed: there is no CPU model for ESP32\r\n"


@pytest.mark.parametrize("until", ["byte", "rpc:ready", "rpc:health", "line:^hello"])
def test_a_board_that_executes_nothing_says_so(until: str) -> None:
    failure = failed(heard(until, LOADED + NOT_RUN, to_the_end=False))
    assert failure.category is FailureCategory.NO_OUTPUT
    assert "no application runs on this board: virtualboard: firmware is not executed" in failure.message


@pytest.mark.parametrize("until", ["byte", "rpc:ready", "line:^never"])
def test_a_rom_function_that_a_board_lacks_is_named(until: str) -> None:
    said = "virtualboard: the program calls the ROM function ets_printf (0x40000040), which this board does not have"
    failure = failed(heard(until, LOADED + said + ": it traps here\r\n" + LOADED, to_the_end=False))
    assert failure.category is FailureCategory.NO_OUTPUT and "power" not in failure.hint
    assert "the firmware stopped on this board: " in failure.message and "ets_printf (0x40000040)" in failure.message


def test_whoever_waits_for_that_line_gets_it() -> None:
    assert isinstance(heard("line:not executed", LOADED + NOT_RUN).verdict, Ready)


# --- what a device says is data ---------------------------------------------------------------


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_numbers_that_are_none_make_no_message(number: str) -> None:
    assert parse_jsonrpc(b'{"jsonrpc":"2.0","id":1,"result":%s}' % number.encode()) is None
    assert parse_jsonrpc(b'{"jsonrpc":"2.0","id":%s,"result":1}' % number.encode()) is None


def test_a_health_without_modules_proves_nothing_and_says_so() -> None:
    assert read_health({"modules": [], "ok": True}) is None
    assert no_health({"modules": []}) == "the answer to `health` lists no module, which proves nothing"


@pytest.mark.parametrize(
    "sequence", ["\x1b[31m", "\x1b[?25l", "\x1b]0;title\x07", "\x1b]8;;http://x\x1b\\", "\x1b(B", "\x1bM"]
)
def test_control_sequences_are_no_text(sequence: str) -> None:
    assert plain_line(f"{sequence}hello{sequence}".encode()) == ("hello", True)


# --- a board that comes back ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mac", "same"), [("7c:df:a1:00:00:01", True), ("7C:DF:A1:00:00:01", True), ("7c:df:a1:00:00:02", False)]
)
def test_a_board_that_comes_back_must_not_name_another_mac(mac: str, same: bool) -> None:
    found = parse_until("rpc:ready")
    assert isinstance(found, Until)
    watch = BootWatcher(SHA, 10.0, 5.0, until=found, mac="7c:df:a1:00:00:01")
    watch.feed(10.1, LOADED.encode())
    watch.reenumerated(10.2, 10.4)
    said = f'{{"jsonrpc":"2.0","method":"ready","params":{{"mac":"{mac}","app_elf_sha256":"{SHA}"}}}}\r\n'
    watch.feed(10.5, said.encode())
    if same:
        assert isinstance(watch.verdict, Ready)
    else:
        assert failed(watch).category is FailureCategory.WRONG_DEVICE


def by_pattern(line: str) -> frozenset[LineKind]:
    return frozenset(kind for kind, pattern in PATTERNS.items() if re.search(pattern, line))


SAID = sorted({text for words in _WORDS.values() for texts in words for text in texts})


@pytest.mark.parametrize("kind", LineKind)
@given(data=st.data())
@settings(max_examples=60)
def test_plain_words_say_what_the_patterns_say(kind: LineKind, data: st.DataObject) -> None:
    """Of lines that a pattern makes, of such in the middle of others, and of such with a letter less."""
    line = data.draw(st.from_regex(PATTERNS[kind])).replace("\n", " ")
    assert line_kinds(line) == by_pattern(line)
    at = data.draw(st.integers(0, len(line) - 1))
    for other in (
        line[:at] + line[at + 1 :],
        line[at:],
        data.draw(st.sampled_from(SAID)) + line,
        f"I (12) app: {line}",
    ):
        assert line_kinds(other) == by_pattern(other)


@pytest.mark.parametrize("text", SAID)
def test_each_plain_word_alone_says_what_the_patterns_say(text: str) -> None:
    for line in (text, f"{text}7", f"x {text}", f"{text}(1) boot: {text}", text[1:]):
        assert line_kinds(line) == by_pattern(line)


def test_a_usual_boot_is_told_without_the_long_patterns(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[str] = []
    search = re.search

    def counted(pattern: str, line: str) -> re.Match[str] | None:
        searched.append(pattern)
        return search(pattern, line)

    monkeypatch.setattr(re, "search", counted)
    boot = (
        *("ESP-ROM:esp32c3-api1-20210207", "Build:Feb  7 2021", "rst:0x1 (POWERON),boot:0xc (SPI_FAST_FLASH_BOOT)"),
        *("SPIWP:0xee", "mode:DIO, clock div:1", "load:0x3fcce800,len:0x10", "entry 0x403ce000", ""),
        *("boot: app0 starts from 0x00010000", '{"jsonrpc":"2.0","method":"ready","params":{}}', "hello"),
    )
    found = [line_kinds(line) for line in boot]
    assert searched == [PATTERNS[LineKind.RESET]]
    assert found == [by_pattern(line) for line in boot]


SAYINGS = ("Loaded app from partition at offset ", "app_0 starts from ", "a b starts from ", "é starts from ")
OFFSETS = st.from_regex(r"0x[0-9a-fA-F]{0,10}") | st.text(max_size=3) | st.sampled_from(["0x1.", "0x1_", "0x1g", "0x"])


@given(st.sampled_from(["", "I (24) ", "E ", "x ", "I boot: "]), st.sampled_from(SAYINGS), OFFSETS)
def test_where_an_application_starts_is_what_the_pattern_says(before: str, said: str, number: str) -> None:
    for line in (f"{before}boot: {said}{number}", f"{before}boot: {number}", f"boot: {said[1:]}{number}"):
        found = re.match(log_patterns.STARTS, line)
        assert started_at(line) == (int(found[1], 16) if found else None), line
