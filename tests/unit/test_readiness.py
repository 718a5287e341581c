"""What `readiness.until` means: each gate against real logs, what is asked, what is refused, and the table of marks."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.boot.marks import MARKS, Transport, transport_of, unavailable
from pipeline.boot.readiness import Health, Module, read_health
from pipeline.boot.readiness_poll import ASK_EVERY_S
from pipeline.boot.watcher import SETTLE_S, BootWatcher, Ready
from pipeline.config.until import ReadinessGate, Until, parse_until
from pipeline.formats.jsonrpc import Calls, parse_jsonrpc
from pipeline.model import Failure, FailureCategory, MarkName

SHA = "0123456789abcdef" * 4
ROM = b"ESP-ROM:esp32c3-api1-20210207\r\nrst:0x1 (POWERON),boot:0xc (SPI_FAST_FLASH_BOOT)\r\nentry 0x403cc71a\r\n"
READY = b'{"jsonrpc":"2.0","method":"ready","params":{"app_elf_sha256":"' + SHA.encode() + b'"}}\n'
BLINK = {"name": "blink", "setup_ok": True, "at_fault": False, "held": 0, "health": "3 flashes"}
ILL = {"name": "sampler", "setup_ok": False, "at_fault": True, "held": 12, "health": "refused memory"}


def until(text: str) -> Until:
    found = parse_until(text)
    assert isinstance(found, Until), found
    return found


def watcher(text: str, **options: Any) -> BootWatcher:
    return BootWatcher(SHA, 10.0, 5.0, until=until(text), **options)


def answer(asked: bytes, **body: Any) -> bytes:
    request = parse_jsonrpc(asked.strip())
    assert request is not None and "id" in request
    return json.dumps({"jsonrpc": "2.0", "id": request["id"], **body}).encode() + b"\n"


def failed(watch: BootWatcher) -> Failure:
    assert isinstance(watch.verdict, Failure), watch.verdict
    return watch.verdict


# --- rpc:health -------------------------------------------------------------------------------


def asked_for_health(**options: Any) -> tuple[BootWatcher, bytes]:
    watch = watcher("rpc:health", **options)
    assert watch.request(10.1) == b"", "nobody is asked before the firmware said who it is"
    watch.feed(10.5, ROM + READY)
    assert watch.verdict is None
    request = watch.request(10.5)
    assert (parse_jsonrpc(request.strip()) or {})["method"] == "health"
    return watch, request


def test_health_passes_when_every_module_is_set_up() -> None:
    watch, request = asked_for_health()
    watch.feed(10.75, answer(request, result={"modules": [BLINK], "ok": True}))
    assert isinstance(watch.verdict, Ready)
    assert (watch.verdict.at_s, watch.verdict.app_elf_sha256) == (10.75, SHA)
    assert watch.health == Health((Module("blink", True, False, 0, "3 flashes"),), True)
    assert next(m.at_s for m in watch.marks if m.name is MarkName.HEALTH) == 10.75
    assert next(m.at_s for m in watch.marks if m.name is MarkName.FIRST_JSONRPC) == 10.5, "TTFB does not wait for it"


def test_a_module_may_become_ready_until_the_deadline() -> None:
    watch, request = asked_for_health()
    watch.feed(10.6, answer(request, result={"modules": [BLINK, ILL]}))
    assert watch.verdict is None
    assert watch.request(10.5 + ASK_EVERY_S - 0.01) == b""
    again = watch.request(10.5 + ASK_EVERY_S)
    watch.feed(11.0, answer(again, result={"modules": [BLINK, {**ILL, "setup_ok": True}]}))
    assert isinstance(watch.verdict, Ready)
    assert watch.polls == 2


def test_a_module_that_is_not_set_up_fails_the_deploy_by_its_name() -> None:
    watch, request = asked_for_health()
    watch.feed(10.6, answer(request, result={"modules": [BLINK, ILL], "ok": True}))
    watch.expire(15.0)
    failure = failed(watch)
    assert failure.category is FailureCategory.UNHEALTHY
    assert failure.message == "not every module is set up within 5000 ms of reset: sampler (refused memory)"
    assert (failure.user_action, failure.retryable) == ("fix_code", False)
    assert watch.reason == "unhealthy:sampler"


def test_allow_unhealthy_lets_it_pass_and_keeps_what_was_said() -> None:
    watch, request = asked_for_health(allow_unhealthy=True)
    watch.feed(10.6, answer(request, result={"modules": [BLINK, ILL]}))
    assert isinstance(watch.verdict, Ready)
    assert watch.health is not None and [m.name for m in watch.health.bad] == ["sampler"]


def test_the_firmwares_own_no_counts_without_a_bad_module() -> None:
    watch, request = asked_for_health()
    watch.feed(10.6, answer(request, result={"modules": [BLINK], "ok": False}))
    watch.expire(15.0)
    assert "the firmware says `ok`: false" in failed(watch).message
    assert watch.reason == "unhealthy"


def test_a_firmware_without_health_is_told_at_once() -> None:
    watch, request = asked_for_health()
    watch.feed(10.6, answer(request, error={"code": -32601, "message": "Method not found"}))
    failure = failed(watch)
    assert failure.category is FailureCategory.RPC_TIMEOUT
    assert "error -32601 (Method not found)" in failure.message
    assert "rpc:ready" in failure.hint


@pytest.mark.parametrize(
    ("body", "fact"),
    [
        ({"result": {"modules": {}}}, "lists no modules"),
        ({"error": {"code": 7, "message": "busy"}}, "error 7 (busy)"),
        (None, "did not answer `health` (1 times asked)"),
    ],
)
def test_health_that_cannot_be_read(body: Any, fact: str) -> None:
    watch, request = asked_for_health()
    if body is not None:
        watch.feed(10.6, answer(request, **body))
        assert watch.verdict is None
    watch.expire(15.0)
    assert failed(watch).category is FailureCategory.RPC_TIMEOUT
    assert fact in failed(watch).message


def test_an_answer_to_somebody_else_is_not_ours() -> None:
    watch, request = asked_for_health()
    watch.feed(10.6, answer(request, result={"modules": [BLINK]}).replace(b"hotplate-ready-1", b"hotplate-ready-9"))
    assert watch.verdict is None


def test_after_a_reset_the_firmware_is_asked_anew() -> None:
    watch, request = asked_for_health()
    watch.feed(10.6, ROM)
    assert watch.request(10.9) == b"", "it is not known who runs now"
    watch.feed(11.0, answer(request, result={"modules": [BLINK]}))
    assert watch.verdict is None, "another life answered"
    watch.feed(11.0, READY)
    watch.feed(11.1, answer(watch.request(11.0), result={"modules": [BLINK]}))
    assert isinstance(watch.verdict, Ready)


@pytest.mark.parametrize("gate", ["rpc:ready", "rpc:health"])
def test_a_lost_announcement_is_asked_for(gate: str) -> None:
    watch = watcher(gate)
    watch.feed(10.2, ROM + READY[:20])
    watch.reenumerated(10.3, 10.4)
    request = watch.request(10.4)
    assert b'"info"' in request
    watch.feed(10.5, READY[20:] + answer(request, result={"app_elf_sha256": SHA}))
    assert isinstance(watch.verdict, Ready) is (gate == "rpc:ready")
    if gate == "rpc:health":
        assert b'"health"' in watch.request(10.5)


# --- line: and byte ---------------------------------------------------------------------------


def test_a_line_makes_it_ready_and_nothing_is_claimed_about_the_image() -> None:
    watch = watcher(r"line:^app (up|ready) in \d+ ms$")
    watch.feed(10.5, ROM + b"app up soon\r\n\x1b[32mapp up in")
    assert watch.verdict is None
    watch.feed(10.75, b" 12 ms\x1b[0m\r\n")
    assert watch.verdict == Ready(10.5, "", {})
    assert MarkName.FIRST_JSONRPC not in {mark.name for mark in watch.marks}


def test_a_line_may_be_a_message_of_any_image() -> None:
    watch = watcher("line:ready")
    watch.feed(10.5, READY.replace(SHA.encode(), b"f" * 64))
    assert watch.verdict == Ready(10.5, "", {})


def test_no_line_matches() -> None:
    watch = watcher("line:never")
    watch.feed(10.5, ROM + b"app\r\n")
    watch.expire(15.0)
    failure = failed(watch)
    assert failure.category is FailureCategory.RPC_TIMEOUT
    assert failure.message.startswith("not a line that 'line:never' matches came within 5000 ms of reset, but ")


@pytest.mark.parametrize("gate", ["line:Guru", "byte"])
def test_a_panic_is_no_readiness(gate: str) -> None:
    watch = watcher(gate)
    watch.feed(10.5, ROM + b"Guru Meditation Error: Core  0 panic'ed (Load access fault)\r\nMEPC : 0x42000000\r\n")
    watch.expire(10.5 + SETTLE_S)
    assert failed(watch).category is FailureCategory.PANIC


def test_the_first_byte_of_the_application() -> None:
    watch = watcher("byte")
    watch.feed(10.25, ROM)
    watch.expire(10.25 + SETTLE_S)
    assert watch.verdict is None
    watch.feed(10.75, b"hello")
    assert watch.verdict is None, "the rest of the line may show that the ROM prints it"
    watch.feed(10.8, b" world\r\n")
    assert watch.verdict == Ready(10.75, "", {})


def test_a_prompt_has_no_line_end() -> None:
    watch = watcher("byte")
    watch.feed(10.25, ROM)
    watch.feed(10.75, b"> ")
    assert watch.deadline_s == 10.75 + SETTLE_S
    watch.expire(10.75 + SETTLE_S)
    assert watch.verdict == Ready(10.75, "", {})


def test_half_a_line_of_the_rom_is_looked_at_once() -> None:
    watch = watcher("byte")
    watch.feed(10.25, ROM + b"load:0x3fcd58")
    watch.expire(10.25 + SETTLE_S)
    assert (watch.verdict, watch.deadline_s) == (None, 15.0), "a caller that waits for the deadline must not spin"
    watch.expire(15.0)
    assert failed(watch).message.startswith("nothing of the application came")


def test_noise_is_not_the_application() -> None:
    watch = watcher("byte")
    watch.feed(10.25, b"\xfe\x80\x00\xe0\r\n" * 5)
    watch.expire(15.0)
    assert "monitor_baud" in failed(watch).hint


@given(
    st.lists(st.sampled_from([ROM, READY, b"app\r\n", b"> ", b"Guru Meditation\r\n", b"\x80"]), max_size=6), st.data()
)
def test_any_gate_ends_at_the_deadline_and_never_spins(parts: list[bytes], draw: st.DataObject) -> None:
    watch = watcher(draw.draw(st.sampled_from(["rpc:ready", "rpc:health", "line:app", "byte"])))
    now, turns = 10.0, 0
    for part in parts:
        watch.feed(now, part)
        watch.request(now)
        watch.expire(now)
        now += draw.draw(st.floats(0, 1))
    while watch.verdict is None:
        now = max(now, watch.deadline_s)
        watch.request(now)
        watch.expire(now)
        turns += 1
        assert turns < 40
    assert now <= 15.0 or not parts or watch.verdict is not None


# --- values -----------------------------------------------------------------------------------


@given(st.text())
def test_any_text_is_a_gate_or_a_reason(text: str) -> None:
    for value in (text, f"line:{text}"):
        found = parse_until(value)
        assert isinstance(found, Until) or (len(found) == 2 and all(found))


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.sampled_from(["modules", "name", "setup_ok", "ok", "held"]), x)))  # fmt: skip  # noqa: E501
def test_no_answer_breaks_the_reader(value: Any) -> None:
    health = read_health(value)
    assert health is None or not (health.ok and health.bad)


def test_an_answer_counts_once() -> None:
    calls = Calls("a")
    name, line = calls.request("ping", [1])
    assert json.loads(line) == {"jsonrpc": "2.0", "id": name, "method": "ping", "params": [1]}
    message = {"jsonrpc": "2.0", "id": name, "result": None}
    assert [calls.match(message), calls.match(message)] == [(name, "ping"), None]
    assert calls.match({"jsonrpc": "2.0", "id": "b-1", "result": 1}) is None
    assert calls.match({"jsonrpc": "2.0", "id": name, "method": "x"}) is None


# --- marks ------------------------------------------------------------------------------------


def test_each_mark_is_declared_once() -> None:
    assert set(MARKS) == set(MarkName)


@pytest.mark.parametrize(
    ("port", "transport"),
    [
        ("virtual:", Transport.VIRTUAL),
        ("virtual:?fault=panic", Transport.VIRTUAL),
        ("rfc2217://host:1", Transport.RFC2217),
        ("socket://host:1", Transport.SOCKET),
        ("/dev/ttyUSB0", Transport.SERIAL),
        ("COM3", Transport.SERIAL),
    ],
)
def test_the_transport_of_a_port(port: str, transport: Transport) -> None:
    assert transport_of(port) is transport


def test_why_a_mark_cannot_come() -> None:
    assert unavailable("virtual:", until("rpc:ready")) == {}
    assert unavailable("virtual:", until("byte")) == {
        "first_jsonrpc": "readiness.until is 'byte': no JSON-RPC is expected"
    }
    assert "DTR" in unavailable("socket://h:1", until("rpc:ready"))["reset_released"]
    assert until("byte").gate is ReadinessGate.BYTE


@pytest.mark.parametrize(
    ("heap", "free"),
    [({"size": 9, "free": 7}, 7), ({"free": True}, None), ({"free": -1}, None), ({}, None), ([7], None), (None, None)],
)
def test_the_free_heap_is_what_the_firmware_says(heap: object, free: int | None) -> None:
    health = read_health({"modules": [BLINK], "heap": heap})
    assert health is not None and health.heap_free == free
