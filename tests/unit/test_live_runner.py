"""Scenarios against a scripted device: every way to fail, and that time, order and a device's words are right.

The device is a `SerialLink` whose clock only moves while it is read, as an in-process board's does.
"""

from __future__ import annotations

import json
import os
import sys
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from pipeline.device.process_link import ProcessLink
from pipeline.effects.api import Gap
from pipeline.errors import DeviceError
from pipeline.failures import fail
from pipeline.livetest.conversation import Conversation, containing
from pipeline.livetest.runner import LiveResult, Rules, run_scenario
from pipeline.livetest.scenario import Scenario, parse_scenario
from pipeline.model import Failure, FailureCategory

READY = '{"jsonrpc":"2.0","method":"ready","params":{}}'
PANIC = ["Guru Meditation Error: Core  0 panic'ed (x)", "MEPC    : 0x42000010", "Rebooting..."]


class ScriptedDevice:
    """Prints `boot` after each reset, and answers requests by `methods`; an Exception value refuses."""

    real_time = False
    name = "scripted"

    def __init__(self, boot: list[str], methods: dict[str, Any]) -> None:
        self.boot, self.methods = boot, methods
        self.gaps: list[Gap] = []
        self.resets = 0
        self.sent: list[str] = []
        self._now = 0.0
        self._out: deque[bytes] = deque()

    def now_s(self) -> float:
        return self._now

    def read(self, timeout_s: float) -> bytes:
        self._now += 0.001 if self._out else timeout_s
        return self._out.popleft() if self._out else b""

    def say(self, *lines: str) -> None:
        self._out.extend(f"{line}\r\n".encode() for line in lines)

    def write(self, data: bytes) -> None:
        for line in data.decode().splitlines():
            self.sent.append(line)
            request = json.loads(line) if line.startswith("{") else {}
            answer = self.methods.get(request.get("method", ""), None)
            if callable(answer):
                answer = answer(self)
            if isinstance(answer, Exception):
                error = {"code": answer.args[0], "message": "no"}
                self.say(json.dumps({"jsonrpc": "2.0", "id": request["id"], "error": error}))
            elif answer is not None:
                self.say(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": answer}))

    def set_baud(self, baud: int) -> None: ...

    def release_reset(self) -> float:
        self.resets += 1
        self._out.clear()
        self.say(*self.boot)
        return self._now

    def close(self) -> None: ...


HEALTH = {"ok": True, "heap": {"free": 5000, "largest": 4000}, "modules": [{"name": "blink"}]}


def run(text: str, *boot: str, observed: Any = None, chip: str = "esp32c3", **methods: Any) -> LiveResult:
    return on(ScriptedDevice([*boot, READY], {"health": HEALTH, **methods}), text, observed, chip)


def on(device: ScriptedDevice, text: str, observed: Any = None, chip: str = "esp32c3") -> LiveResult:
    scenario = parse_scenario(text, "a.toml", "a")
    assert isinstance(scenario, Scenario), scenario
    talk = Conversation(device, "scripted device", lambda lines, running: [*lines, "#0 main at main.c:3"])
    try:
        return run_scenario(scenario, talk, Rules(chip, 1.0, 5.0, observed or {}))
    finally:
        talk.close()


def test_what_holds_passes_and_is_counted() -> None:
    text = """heap_floor = 4000
[[step]]
expect = "hello"
[[step]]
call = "health"
values = { ok = true, "modules[0].name" = "blink" }
match = { "modules[0].name" = "^bl" }
range = { "heap.free" = { esp32c3 = [1, 9000], host = [1, 2] } }
observe = ["heap.free"]
"""
    result = run(text, "hello world")
    assert (result.outcome, result.message, result.detail) == ("passed", "", "")
    assert result.checks == 8
    assert result.values == (("a: health.heap.free", 5000),)


CALL = '[[step]]\ncall = "health"\n'


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ('[[step]]\nexpect = "x"\n', "'x' did not come within 1000 ms (1 other line came)"),
        ('[[step]]\nexpect_re = "x+"\ntimeout_ms = 30\n', "a line that matches 'x+' did not come within 30 ms"),
        ('[[step]]\ncall = "none"\n', "`none`: no answer came within 1000 ms"),
        ('[[step]]\ncall = "refused"\n', "`refused` was refused with -32601: no"),
        ('[[step]]\ncall = "refused"\nerror = -1\n', "`refused` was refused with -32601: no; expected -1"),
        (CALL + "error = -1\n", "a refusal with -1 was expected"),
        (CALL + "result = 1\n", "; expected 1"),
        (CALL + "values = { ok = false }\n", "ok of `health` is true; expected false"),
        (CALL + 'values = { "heap.used" = 1 }\n', "heap.used of `health`: there is no used in {"),
        (CALL + 'match = { "modules[0].name" = "^x" }\n', "is \"blink\", which '^x' does not match"),
        (CALL + 'range = { "heap.free" = { max = 10 } }\n', "heap.free of `health` is 5000, more than 10 (range for"),
        (CALL + "range = { ok = [0, 1] }\n", "ok of `health` is true, which is no number"),
        (CALL + 'observe = ["ok"]\n', "only numbers can be observed"),
        ("heap_floor = 6000\n" + CALL, "the free heap is 5000, less than 6000 (heap_floor on esp32c3)"),
        ('forbid = ["^W "]\n' + '[[step]]\ncall = "warns"\n', "a line came that `forbid` names: 'W hot'"),
    ],
)
def test_what_does_not_hold_is_told_with_both_values(text: str, fact: str) -> None:
    def warns(device: ScriptedDevice) -> int:
        device.say("W hot")
        return 1

    result = run(text, refused=ValueError(-32601), warns=warns)
    assert result.outcome == "failed"
    assert fact in result.message and result.message.startswith("a.toml:"), result.message
    assert READY in result.detail, "the device's last words"


def test_a_range_of_another_chip_is_no_range() -> None:
    assert run(CALL + 'range = { "heap.free" = { host = [1, 2] } }\n').ok
    assert not run(CALL + 'range = { "heap.free" = { host = [1, 2] } }\n', chip="host").ok


def test_what_was_observed_is_compared() -> None:
    text = CALL + 'observe = ["heap.free"]\n'
    known = {"esp32c3": {"a: health.heap.free": (1, 5000)}}
    assert run(text, observed=known).ok
    known = {"esp32c3": {"a: health.heap.free": (1, 4999)}}
    result = run(text, observed=known)
    assert "is 5000, more than 4999, as it always was on esp32c3 until now" in result.message
    assert "--update-baseline" in result.message
    assert run(text, observed=known, chip="esp32").ok


def test_a_scenario_for_other_chips_is_skipped_and_touches_nothing() -> None:
    device = ScriptedDevice([READY], {})
    result = on(device, 'chips = ["esp32"]\n' + CALL)
    assert (result.outcome, result.message) == ("skipped", "for esp32, not for esp32c3")
    assert (device.resets, device.sent) == (0, [])


def test_each_line_is_met_once_and_in_order() -> None:
    two = '[[step]]\nexpect = "one"\n[[step]]\nexpect = "one"\n'
    assert not run(two, "one", "two").ok
    assert run(two, "one", "two", "one").ok
    assert not run('[[step]]\nexpect = "two"\n[[step]]\nexpect = "one"\n', "one", "two").ok


def test_what_comes_while_a_call_waits_can_still_be_met() -> None:
    def slow(device: ScriptedDevice) -> int:
        device.say("meanwhile")
        return 1

    assert run('[[step]]\ncall = "slow"\n[[step]]\nexpect = "meanwhile"\n', slow=slow).ok


def test_a_firmware_that_boots_is_not_asked_before_it_speaks() -> None:
    device = ScriptedDevice(["boot"] * 50 + [READY], {"health": HEALTH})
    assert on(device, CALL).ok
    silent = ScriptedDevice(["boot"], {"health": HEALTH})
    assert on(silent, CALL).ok, "one that says nothing is asked at the deadline of its boot"
    assert silent.now_s() > 5.0


def test_a_panic_fails_whatever_the_steps_say() -> None:
    def dies(device: ScriptedDevice) -> int:
        device.say(*PANIC)
        return 1

    text = '[[step]]\ncall = "dies"\n'
    result = run(text, dies=dies)
    assert (result.outcome, result.message) == ("failed", "a.toml: error: the firmware panicked")
    assert result.detail.endswith("#0 main at main.c:3"), "decoded"
    assert run("panic = true\n" + text, dies=dies).ok
    began = run(text + '[[step]]\nexpect = "never"\ntimeout_ms = 3600000\n', dies=dies)
    assert "'never' did not come before the firmware panicked" in began.message, "and nobody waits an hour"


def test_a_prompt_without_line_end_is_met() -> None:
    device = ScriptedDevice([READY], {})
    boot = device.release_reset

    def release() -> float:
        at = boot()
        device._out.append(b"login: ")
        return at

    device.release_reset = release  # type: ignore[method-assign]
    assert on(device, '[[step]]\nexpect = "login:"\n').ok


def test_sent_lines_and_resets_reach_the_device() -> None:
    device = ScriptedDevice([READY], {"health": HEALTH})
    assert on(device, 'reset = false\n[[step]]\nsend = "go"\n[[step]]\nreset = true\n' + CALL).ok
    assert device.resets == 1 and device.sent[0] == "go"


def test_a_device_that_vanishes_is_no_verdict() -> None:
    def gone(device: ScriptedDevice) -> int:
        def read(timeout_s: float) -> bytes:
            del timeout_s
            raise DeviceError(fail(FailureCategory.PORT_MISSING, stage=None, where="bench", message="it is gone"))

        device.read = read  # type: ignore[method-assign]
        return 1

    result = run('[[step]]\ncall = "gone"\n', gone=gone)
    assert result.outcome == "error" and "it is gone" in result.message


# --- a process as a device --------------------------------------------------------------------

PROGRAM = """
import sys
print("hello", flush=True)
for line in sys.stdin:
    if line == "end\\n":
        sys.exit(3)
    print("heard " + line, end="", flush=True)
"""


@pytest.fixture
def process(tmp_path: Path) -> Any:
    (tmp_path / "program.py").write_text(PROGRAM)
    argv = [sys.executable, "-S", "-E", str(tmp_path / "program.py")]
    link = ProcessLink(argv, tmp_path, os.environ, "host (program)")
    yield link
    link.close()


def heard(talk: Conversation, text: str) -> bool:
    return not isinstance(talk.expect(containing(text), text, 300.0), Failure)


def test_a_process_is_reset_written_to_and_its_end_is_told(process: ProcessLink) -> None:
    talk = Conversation(process, "host")
    for _ in range(2):
        talk.reset()
        assert heard(talk, "hello")
        talk.send("x")
        assert heard(talk, "heard x")
    talk.send("end")
    with pytest.raises(DeviceError, match="the program has ended with 3"):
        heard(talk, "never")
    with pytest.raises(DeviceError, match="has ended"):
        heard(talk, "again")
    talk.close()


def test_a_process_that_cannot_be_started_is_a_failure_in_words(tmp_path: Path) -> None:
    link = ProcessLink([str(tmp_path / "none")], tmp_path, {}, "host")
    with pytest.raises(DeviceError, match="cannot be started: No such file"):
        link.release_reset()
    link.close()


def test_a_process_ends_with_its_link(process: ProcessLink) -> None:
    process.release_reset()
    child = process._child
    assert child is not None and child.poll() is None
    process.close()
    assert child.poll() is not None
