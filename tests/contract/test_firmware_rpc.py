"""What the reference firmware answers, the same on the chip (zig, gcc) and as a process of this host.

A chip device is executed by the virtual ESP32-C3; the host's is built with ASan and UBSan where the compiler has them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import firmware_build as fb

fb.need_tools()

from tests.firmware_device import ChipDevice, Device, HostDevice, make_host_program, messages_of, ready_of  # noqa: E402

pytestmark = pytest.mark.needs_zig

METHODS = [
    *("rpc.discover", "ping", "echo", "info", "health", "module.set", "log", "image.hashes"),
    *("ota.begin", "ota.hashes", "ota.copy", "ota.chunk", "ota.commit", "ota.abort"),
    *("reboot", "panic", "hang"),
]
HEALTHY = {"setup_ok": True, "at_fault": False}


@pytest.fixture(scope="module", params=["chip-zig", "chip-gcc", "host"])
def device(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    """A running device, shared by the tests of this file: each leaves it as it found it."""
    if request.param != "host":
        yield ChipDevice(fb.shared(tmp_path_factory, request.param.removeprefix("chip-")))
        return
    host = HostDevice(make_host_program(tmp_path_factory))
    yield host
    host.close()


# --- who it is and how it starts ---------------------------------------------------------------------


def test_ready_is_the_first_message_and_comes_before_every_log_line(device: Device) -> None:
    device.restart_by("reboot")
    assert ready_of(device.boot_log)["app_elf_sha256"] == device.identity
    before = device.boot_log.partition('{"jsonrpc"')[0]
    assert not re.search(r"^[IWE] \(", before, re.M)


def test_info(device: Device) -> None:
    info = device.call("info")
    assert isinstance(info.pop("uptime_ms"), int)
    assert info.pop("reset_reason") in ("power_on", "software")
    assert info == {
        "project": "reference",
        "version": "1.2.3",
        "chip": device.chip,
        "mac": device.mac,
        "app_elf_sha256": device.identity,
        "partition": device.regions[-1]["name"],
    }


def test_image_hashes_are_those_of_the_files(device: Device) -> None:
    assert device.call("image.hashes") == {"mac": device.mac, "regions": device.regions}


@pytest.mark.parametrize(("method", "reason"), [("reboot", "software"), ("panic", "panic"), ("hang", "watchdog")])
def test_a_restart_has_its_reason_and_nothing_of_before(device: Device, method: str, reason: str) -> None:
    device.call("module.set", {"module": "ballast", "value": 1000})
    device.restart_by(method)
    assert ("Guru Meditation Error" in device.boot_log) == (method == "panic")
    assert ready_of(device.boot_log)["app_elf_sha256"] == device.identity
    info = device.call("info")
    assert info["reset_reason"] == reason and info["uptime_ms"] < 20_000
    assert health(device, "ballast") == {"name": "ballast", **HEALTHY, "held": 0, "health": "0 bytes held"}
    assert device.call("log")["first"] == 0


# --- health ------------------------------------------------------------------------------------------


def health(device: Device, name: str) -> dict[str, Any]:
    return next(dict(module) for module in device.call("health")["modules"] if module["name"] == name)


def samples(device: Device) -> int:
    """How many the sampler holds: one more each 250 ms, which on the host are real, however seldom somebody asks."""
    found = re.match(r"(\d+) of 64 samples", health(device, "sampler")["health"])
    assert found
    return int(found[1])


def put(device: Device, name: str, value: int) -> dict[str, Any]:
    return dict(device.call("module.set", {"module": name, "value": value}))


def test_health(device: Device) -> None:
    device.restart_by("reboot")
    told = device.call("health")
    assert [m["name"] for m in told["modules"]] == ["blink", "sampler", "ballast"]
    for module in told["modules"]:
        assert set(module) == {"name", "setup_ok", "at_fault", "held", "health"}
        assert module["setup_ok"] and not module["at_fault"] and module["health"]
    assert [m["held"] for m in told["modules"]] == [0, 272, 0], "64 samples of 4 bytes, and the block's header"
    heap = told["heap"]
    assert heap["size"] - heap["free"] == 272 + 16
    assert (heap["largest"], heap["fragmentation_percent"], heap["reserve"]) == (heap["free"], 0, 16384)
    assert told["ok"] is True


def test_modules_do_their_work(device: Device) -> None:
    device.restart_by("reboot")
    device.until(lambda: samples(device) >= 2)
    assert re.fullmatch(r"\d+ of 64 samples, at least \d+ bytes free", health(device, "sampler")["health"])
    assert int(health(device, "blink")["health"].removesuffix(" flashes")) >= 1


def test_a_refused_module_keeps_what_it_had_and_the_cause_is_marked(device: Device) -> None:
    device.restart_by("reboot")
    device.until(lambda: samples(device) >= 1)
    free = device.call("health")["heap"]["free"]
    assert put(device, "ballast", free * 3 // 4)["setup_ok"]
    since = device.call("log")["next"]

    refused = put(device, "sampler", free // 4 // 4)
    assert (refused["setup_ok"], refused["at_fault"], refused["held"]) == (False, False, 272)
    why = r"refused memory: ballast holds the most; (\d+) of 64 samples, at least \d+ bytes free"
    sampled = re.fullmatch(why, refused["health"])
    assert sampled and int(sampled[1]) >= 1
    told = device.call("health")
    assert [m["setup_ok"] for m in told["modules"]] == [True, False, True]
    assert [m["at_fault"] for m in told["modules"]] == [False, False, True], "the cause, not the victim"
    assert told["ok"] is False
    device.let_pass(0.6)
    assert health(device, "sampler")["health"] == refused["health"], "a disabled module has no turn"
    assert put(device, "sampler", free // 4 // 4) == refused
    edges = [entry for entry in device.call("log", {"since": since})["entries"] if "sampler" in entry[2]]
    assert [entry[0] for entry in edges] == ["W"], "an edge, and no heartbeat"
    assert edges[0][2].startswith("sampler disabled: refused memory: ballast holds the most")

    assert put(device, "ballast", 0) == {
        "name": "ballast",
        "setup_ok": True,
        "at_fault": True,
        "held": 0,
        "health": "0 bytes held",
    }
    granted = put(device, "sampler", free // 4 // 4)
    assert granted["setup_ok"] and granted["held"] >= free // 4 - 16
    assert granted["health"].startswith(f"{sampled[1]} of "), "what was sampled came along"
    assert device.call("health")["ok"] and not health(device, "ballast")["at_fault"]
    entries = device.call("log", {"since": since})["entries"]
    assert any(entry[0] == "I" and entry[2].startswith(f"sampler enabled: {sampled[1]} of ") for entry in entries)


@pytest.mark.parametrize("module", ["sampler", "ballast"])
def test_who_asks_for_too_much_is_the_cause_itself(device: Device, module: str) -> None:
    device.restart_by("reboot")
    held = health(device, module)["held"]
    for value in (2**32 - 1, 2**30, 1_000_000):
        told = put(device, module, value)
        assert (told["setup_ok"], told["at_fault"], told["held"]) == (False, True, held)
        assert told["health"].startswith(f"refused memory: {module} asked for too much; ")
    assert put(device, module, 10)["setup_ok"]
    assert device.call("health")["ok"]


def test_a_sampler_without_samples_is_refused_and_blames_nobody(device: Device) -> None:
    device.restart_by("reboot")
    told = put(device, "sampler", 0)
    assert (told["setup_ok"], told["at_fault"], told["held"]) == (False, False, 272)
    assert put(device, "sampler", 64)["setup_ok"]


def test_a_new_buffer_comes_before_the_old_one_goes(device: Device) -> None:
    """So half of the memory cannot be exchanged for a little more than half, and nothing is lost by asking."""
    device.restart_by("reboot")
    free = device.call("health")["heap"]["free"]
    assert put(device, "ballast", free * 6 // 10)["setup_ok"]
    assert not put(device, "ballast", free * 6 // 10 + 16)["setup_ok"]
    assert health(device, "ballast")["held"] >= free * 6 // 10
    assert put(device, "ballast", 16)["setup_ok"]


@pytest.mark.parametrize(
    "params",
    [
        {"module": "blink", "value": 1},
        {"module": "nobody", "value": 1},
        {"module": 1, "value": 1},
        {"value": 1},
        {"module": "ballast"},
        {"module": "ballast", "value": -1},
        {"module": "ballast", "value": 1.5},
        {"module": "ballast", "value": 2**32},
        {"module": "ballast", "value": "1"},
        {"module": "ballast", "value": None},
        ["ballast"],
        [],
    ],
)
def test_wrong_parameters_of_modules(device: Device, params: Any) -> None:
    before = device.call("health")["modules"][2]
    assert device.raw("module.set", params)["error"]["code"] == -32602
    assert device.call("health")["modules"][2] == before


# --- log ---------------------------------------------------------------------------------------------

MEMORY_LINE = re.compile(r"\[Mem(Boot|Live)\] (\w+): [+-]\d+KB = \d+KB \(frag=\d+%, largest=\d+KB\)")


def test_the_log_of_a_start(device: Device) -> None:
    device.restart_by("reboot")
    device.until(lambda: "[MemLive]" in str(device.call("log")["entries"]))
    told = device.call("log")
    assert (told["first"], told["next"], told["dropped"]) == (0, len(told["entries"]), 0)
    steps = [MEMORY_LINE.fullmatch(text) for _, _, text in told["entries"] if text.startswith("[Mem")]
    assert [step[2] for step in steps if step] == ["start", "blink", "sampler", "ballast", "heap"]
    assert len(steps) == 5
    for level, uptime_ms, _ in told["entries"]:
        assert level == "I" and isinstance(uptime_ms, int)


def disable_and_enable(device: Device) -> None:
    """Two log entries."""
    assert not put(device, "ballast", 2**31)["setup_ok"]
    assert put(device, "ballast", 0)["setup_ok"]


def test_the_log_keeps_64_entries_and_says_how_many_it_dropped(device: Device) -> None:
    device.restart_by("reboot")
    start = device.call("log")["next"]
    for _ in range(40):
        disable_and_enable(device)
    told = device.call("log", {"since": 0})
    assert told["next"] >= start + 80
    assert len(told["entries"]) == 64
    assert told["first"] == told["dropped"] == told["next"] - 64
    assert [told["first"] + n for n in range(64)][-1] == told["next"] - 1

    tail = device.call("log", [told["next"] - 3])
    assert tail["first"] == told["next"] - 3 and tail["dropped"] == 0
    assert tail["entries"][:3] == told["entries"][-3:]
    assert device.call("log", {"since": told["first"] - 5})["dropped"] == 5
    nothing = device.call("log", {"since": device.call("log")["next"]})
    assert nothing["entries"] == [] and nothing["first"] == nothing["next"]


def test_a_number_from_before_a_restart_gives_the_whole_log(device: Device) -> None:
    device.restart_by("reboot")
    told = device.call("log", {"since": 5000})
    assert (told["first"], told["dropped"]) == (0, 0) and len(told["entries"]) == told["next"]


def test_log_lines_never_land_inside_an_answer(device: Device) -> None:
    lines = device.exchange(
        b"".join(
            b'{"jsonrpc":"2.0","id":%d,"method":"module.set","params":["ballast",%d]}\n' % (n, n % 2 << 31)
            for n in range(20)
        )
    )
    assert [message["id"] for message in messages_of(lines)] == list(range(20))
    device.restart_by("reboot")


@pytest.mark.parametrize("params", [{"since": -1}, {"since": "0"}, [2**32], [0.5], [[]]])
def test_wrong_parameters_of_log(device: Device, params: Any) -> None:
    assert device.raw("log", params)["error"]["code"] == -32602


# --- the protocol -----------------------------------------------------------------------------------


def test_ping(device: Device) -> None:
    assert device.ask('{"jsonrpc":"2.0","id":1,"method":"ping"}') == [{"jsonrpc": "2.0", "id": 1, "result": "pong"}]


@pytest.mark.parametrize("params", [[], [1, -2.5e3, "a\\u00e9\U0001f600\n", None, True], {"deep": [[{"a": {}}]]}, {}])
def test_echo(device: Device, params: Any) -> None:
    assert device.call("echo", params) == params


def test_discover_lists_every_method(device: Device) -> None:
    document = device.call("rpc.discover")
    assert document["openrpc"] == "1.2.6"
    assert document["info"] == {"title": "reference", "version": "1.2.3"}
    assert [m["name"] for m in document["methods"]] == METHODS
    for method in document["methods"]:
        assert set(method) == {"name", "summary", "params", "result"} and method["summary"].endswith(".")


@pytest.mark.parametrize(
    "identifier", ["1", "-7", "1.50", "1e3", '"a b"', '"\\u0041"', '""', "null", "12345678901234567890"]
)
def test_ids_come_back_as_they_came(device: Device, identifier: str) -> None:
    answer = device.exchange(b'{"method" : "ping", "jsonrpc":"2.0" , "id": %s }\r\n' % identifier.encode())
    assert answer == ['{"jsonrpc":"2.0","id":' + identifier + ',"result":"pong"}']


@pytest.mark.parametrize(
    ("line", "code", "identifier"),
    [
        ("{", -32700, None),
        ("hello", -32700, None),
        ('{"jsonrpc":"2.0","id":1,"method":"ping"}}', -32700, None),
        ('{"jsonrpc":"2.0","id":01,"method":"ping"}', -32700, None),
        ('{"jsonrpc":"2.0","id":1,"method":"pi\tng"}', -32700, None),
        ('{"jsonrpc":"2.0","id":1,"method":"ping",}', -32700, None),
        ("[" * 17 + "]" * 17, -32700, None),
        ("1", -32600, None),
        ("null", -32600, None),
        ("{}", -32600, None),
        ('{"jsonrpc":"1.0","id":1,"method":"ping"}', -32600, None),
        ('{"id":1,"method":"ping"}', -32600, None),
        ('{"jsonrpc":"2.0","id":1}', -32600, None),
        ('{"jsonrpc":"2.0","id":1,"method":7}', -32600, None),
        ('{"jsonrpc":"2.0","id":{},"method":"ping"}', -32600, None),
        ('{"jsonrpc":"2.0","id":true,"method":"ping"}', -32600, None),
        ('{"jsonrpc":"2.0","id":1,"method":"ping","params":"x"}', -32600, None),
        ("[]", -32600, None),
        ('{"jsonrpc":"2.0","id":1,"method":"pin"}', -32601, 1),
        ('{"jsonrpc":"2.0","id":"x","method":"pings"}', -32601, "x"),
        ('{"jsonrpc":"2.0","id":1,"method":"ping","params":[0]}', -32602, 1),
        ('{"jsonrpc":"2.0","id":1,"method":"info","params":{"a":0}}', -32602, 1),
        ('{"jsonrpc":"2.0","id":1,"method":"reboot","params":[[]]}', -32602, 1),
        ('{"jsonrpc":"2.0","id":1,"method":"panic","params":[1]}', -32602, 1),
        ('{"jsonrpc":"2.0","id":1,"method":"hang","params":[1]}', -32602, 1),
        ('{"jsonrpc":"2.0","id":1,"method":"health","params":[1]}', -32602, 1),
        ('{"jsonrpc":"2.0","id":1,"method":"image.hashes","params":[1]}', -32602, 1),
        ('{"jsonrpc":"2.0","id":null,"method":"echo"}', -32602, None),
    ],
)
def test_errors(device: Device, line: str, code: int, identifier: Any) -> None:
    (answer,) = device.ask(line)
    assert answer["error"]["code"] == code and answer["error"]["message"]
    assert answer["id"] == identifier and "result" not in answer
    assert set(answer) == {"jsonrpc", "id", "error"}


def test_bytes_that_are_not_utf8_are_a_parse_error_and_not_echoed(device: Device) -> None:
    for bad in (b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\x80"):
        (answer,) = device.exchange(b'{"jsonrpc":"2.0","id":1,"method":"echo","params":["' + bad + b'"]}\n')
        assert json.loads(answer)["error"]["code"] == -32700, bad


@pytest.mark.parametrize("line", ["", "   ", "\r", "\t \r"])
def test_blank_lines_are_nothing(device: Device, line: str) -> None:
    assert device.ask(line) == []


@pytest.mark.parametrize("body", ['"method":"ping"', '"method":"nope"', '"method":"ping","params":[1]'])
def test_notifications_are_not_answered(device: Device, body: str) -> None:
    assert device.ask('{"jsonrpc":"2.0",' + body + "}") == []
    assert device.call("ping") == "pong"


def test_names_may_be_escaped(device: Device) -> None:
    assert device.ask('{"jsonrpc":"2.0","i\\u0064":2,"method":"p\\u0069ng"}')[0] == {
        "jsonrpc": "2.0",
        "id": 2,
        "result": "pong",
    }


def test_batches(device: Device) -> None:
    ping = '{"jsonrpc":"2.0","id":%d,"method":"ping"}'
    note = '{"jsonrpc":"2.0","method":"ping"}'
    assert device.ask(f"[{ping % 1}, {note} ,7,{ping % 2}]") == [
        [
            {"jsonrpc": "2.0", "id": 1, "result": "pong"},
            {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "Invalid Request"}},
            {"jsonrpc": "2.0", "id": 2, "result": "pong"},
        ]
    ]
    assert device.ask(f"[{note},{note}]") == []


def test_lines_up_to_1024_bytes_are_served_and_longer_ones_refused(device: Device) -> None:
    frame = '{"jsonrpc":"2.0","id":1,"method":"echo","params":["%s"]}'
    fits = frame % ("x" * (1024 - len(frame) + 2))
    assert len(fits) == 1024
    assert device.ask(fits)[0]["result"] == ["x" * (1024 - len(frame) + 2)]
    for excess in (1, 2, 5000):
        (answer,) = device.ask(fits + " " * excess)
        assert answer["id"] is None and answer["error"]["code"] == -32600
        assert "1024" in answer["error"]["message"]
    assert device.call("ping") == "pong"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.one_of(st.binary(max_size=400), st.text('{}[]":,\\u01e-."jsonrpc2', max_size=300).map(str.encode)))
def test_no_bytes_stop_the_device(device: Device, data: bytes) -> None:
    messages_of(device.exchange(data + b"\n"))
    assert device.call("ping") == "pong"


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    value=JSON_VALUES,
    ascii_only=st.booleans(),
    cut=st.integers(0, 60),
    put=st.sampled_from(["", "{", "]", '"', ",", "\\", "0"]),
)
def test_the_device_agrees_with_another_parser_on_what_is_json(
    device: Device, value: Any, ascii_only: bool, cut: int, put: str
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    text = text[:cut] + put + text[cut:] if put else text
    line = '{"jsonrpc":"2.0","id":1,"method":"echo","params":[' + text + "]}"
    try:
        expected = json.loads(line)
        line.encode()
    except ValueError:
        expected = None
    if len(line.encode("utf-8", "surrogatepass")) > 1024 or nesting(expected) > 16:
        return
    (reply,) = device.exchange(line.encode("utf-8", "surrogatepass") + b"\n")
    answer = json.loads(reply)
    if expected is None:
        assert answer["error"]["code"] == -32700
    elif expected["method"] == "echo" and expected.get("params"):
        assert answer["result"] == expected["params"]


def nesting(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(nesting, value.values()), default=0)
    return 1 + max(map(nesting, value), default=0) if isinstance(value, list) else 0


def test_every_split_of_a_request_gives_one_answer(device: Device) -> None:
    line = b'{"jsonrpc":"2.0","id":5,"method":"ping"}\n'
    for cut in range(1, len(line)):
        device.write(line[:cut])
        (answer,) = device.exchange(line[cut:])
        assert json.loads(answer)["id"] == 5
