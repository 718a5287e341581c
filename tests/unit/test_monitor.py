"""The monitor as a library: events, calls matched by id, what is lost and told; on real links of this machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import serial
from hypothesis import given
from hypothesis import strategies as st

from pipeline.boot.console_events import QUIET_S, ConsoleEvent, ConsoleEventKind, ConsoleListener
from pipeline.boot.ring import Ring
from pipeline.device.console import CallAnswer, CallRefusal, DeviceMonitor
from pipeline.device.serial_link import PortLink, ThreadReader
from pipeline.effects.clock import SystemClock
from pipeline.errors import DeviceError
from pipeline.model import Failure, FailureCategory

ROM = b"ESP-ROM:esp32c3-api1-20210207\r\nrst:0x7 (TG0WDT_SYS_RST),boot:0xc (SPI_FAST_FLASH_BOOT)\r\n"
READY = b'{"jsonrpc":"2.0","method":"ready","params":{"app_elf_sha256":"' + b"ab" * 32 + b'"}}\n'
PANIC = b"Guru Meditation Error: Core  0 panic'ed (x)\r\nMEPC    : 0x42000010\r\n"


def kinds(seen: list[ConsoleEvent]) -> list[ConsoleEventKind]:
    return [event.kind for event in seen]


# --- the listener -----------------------------------------------------------------------------


def test_lines_messages_and_resets() -> None:
    listener = ConsoleListener()
    seen = listener.feed(1.0, ROM + b"\x1b[32mhello\x1b[0m\r\n" + READY)
    assert kinds(seen) == [
        ConsoleEventKind.LINE,
        ConsoleEventKind.LINE,
        ConsoleEventKind.RESET,
        ConsoleEventKind.LINE,
        ConsoleEventKind.MESSAGE,
    ]
    assert (seen[2].text, seen[3].text) == ("rst:0x7 (TG0WDT_SYS_RST)", "hello")
    assert seen[4].message == json.loads(READY)
    assert listener.running == "ab" * 32
    listener.feed(2.0, ROM)
    assert listener.running == "", "who runs after a reset has to say so"


def test_a_panic_ends_with_the_restart_or_with_silence() -> None:
    listener = ConsoleListener()
    assert ConsoleEventKind.PANIC not in kinds(listener.feed(1.0, PANIC))
    (panic,) = (event for event in listener.feed(1.1, b"Rebooting...\r\n") if event.kind is ConsoleEventKind.PANIC)
    assert panic.lines == ("Guru Meditation Error: Core  0 panic'ed (x)", "MEPC    : 0x42000010")
    listener.feed(2.0, PANIC)
    assert listener.feed(2.0 + QUIET_S / 2, b"") == []
    assert kinds(listener.feed(2.0 + QUIET_S, b"")) == [ConsoleEventKind.PANIC]
    assert listener.feed(9.0, b"") == []


def test_a_watchdog_prints_a_backtrace_without_a_panic() -> None:
    trace = b"Backtrace: 0x400d1234:0x3ffb2710 0x400d5675:0x3ffb2730\n"
    listener = ConsoleListener()
    seen = listener.feed(1.0, b"E (5) task_wdt: Tasks currently running:\n" + trace)
    assert kinds(seen) == [ConsoleEventKind.LINE, ConsoleEventKind.LINE, ConsoleEventKind.BACKTRACE]
    assert seen[2].lines == (trace.decode().strip(),)
    assert ConsoleEventKind.BACKTRACE not in kinds(listener.feed(2.0, PANIC + trace)), "that one belongs to the panic"


@given(st.lists(st.sampled_from([ROM, READY, PANIC, b"text\n", b"\xff\xfe", b"half"]), max_size=6), st.data())
def test_events_do_not_depend_on_the_chunks(parts: list[bytes], draw: st.DataObject) -> None:
    data = b"".join(parts)
    cuts = draw.draw(st.lists(st.integers(0, len(data)), max_size=6).map(sorted))
    whole, cut = ConsoleListener(), ConsoleListener()
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    assert [e for piece in pieces if piece for e in cut.feed(1.0, piece)] == (whole.feed(1.0, data) if data else [])


# --- the ring ---------------------------------------------------------------------------------


@given(st.integers(1, 50), st.lists(st.integers(0, 30) | st.none(), max_size=60))
def test_nothing_leaves_a_ring_uncounted(limit: int, steps: list[int | None]) -> None:
    ring: Ring[int] = Ring(limit)
    pushed = taken = 0
    for cost in steps:
        if cost is None:
            item = ring.take()
            taken += item or 0
        else:
            ring.push(cost, cost)
            pushed += cost
        held = sum(ring.items())
        assert pushed == taken + ring.dropped + held
        assert held <= limit or len(ring) == 1


# --- on a link --------------------------------------------------------------------------------


class Loopback:
    """pyserial's `loop://`: a port whose output comes back as its input, with a thread that reads it."""

    def __init__(self, limit: int = 1 << 20) -> None:
        self.port: Any = serial.serial_for_url("loop://", timeout=0.05)
        self.link = PortLink(self.port, "loop://", "device desk on loop://", SystemClock().now_s, real_time=True)
        self.reader = ThreadReader(self.link, limit)


@pytest.fixture
def loop() -> Iterator[Loopback]:
    loop = Loopback()
    yield loop
    loop.reader.stop()
    loop.link.close()


def collect(monitor: DeviceMonitor, count: int) -> list[ConsoleEvent]:
    seen: list[ConsoleEvent] = []
    while len(seen) < count:
        heard = monitor.poll(60.0)
        assert heard, f"only {seen} in a minute"
        seen += heard
    return seen


def test_what_arrives_is_heard_and_shown(loop: Loopback) -> None:
    shown = bytearray()
    with DeviceMonitor(loop.link, loop.reader, sink=shown.extend) as monitor:
        monitor.send(b"one\ntwo\nthr")
        assert [event.text for event in collect(monitor, 2)] == ["one", "two"]
        monitor.send(b"ee\n")
        assert [event.text for event in collect(monitor, 1)] == ["three"]
    assert bytes(shown) == b"one\ntwo\nthree\n"


def test_a_request_is_no_answer_and_time_ends_the_call(loop: Loopback) -> None:
    with DeviceMonitor(loop.link, loop.reader, where="device desk") as monitor:
        failure = monitor.call("echo", ["x"], timeout_s=0.2)
        assert isinstance(failure, Failure)
        assert (failure.category, failure.where) == (FailureCategory.RPC_TIMEOUT, "device desk")
        assert failure.message == "`echo`: no answer came within 200 ms"
        (echoed,) = (event for event in collect(monitor, 1) if event.message is not None)
        assert echoed.message is not None and echoed.message["method"] == "echo", "what came meanwhile is kept"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'"result":{"a":1}', ({"a": 1},)),
        (b'"result":null', (None,)),
        (b'"error":{"code":-32601,"message":"Method not found"}', (-32601, "Method not found")),
    ],
)
def test_the_answer_has_the_id_of_the_request(loop: Loopback, body: bytes, expected: tuple[Any, ...]) -> None:
    with DeviceMonitor(loop.link, loop.reader) as monitor:
        # What a device sends after our request (which comes back too), other ids first; ids are counted from 1.
        device = (
            b'{"jsonrpc":"2.0","id":"x","result":0}\nI (1) log\n{"jsonrpc":"2.0","id":"hotplate-1",' + body + b"}\n"
        )
        loop.port.write(device)
        answer = monitor.call("ask", timeout_s=300.0)
        assert isinstance(answer, CallAnswer | CallRefusal)
        assert (
            (answer.result,) == expected
            if isinstance(answer, CallAnswer)
            else (answer.code, answer.message) == expected
        )
        assert "I (1) log" in [event.text for event in monitor.poll(0.1)]


def test_a_reset_ends_a_call_at_once(loop: Loopback) -> None:
    with DeviceMonitor(loop.link, loop.reader) as monitor:
        loop.port.write(ROM)
        failure = monitor.call("ask", timeout_s=60.0)
        assert isinstance(failure, Failure)
        assert "the device was reset (rst:0x7 (TG0WDT_SYS_RST)) before it answered" in failure.message


def test_lines_that_nobody_takes_are_counted(loop: Loopback) -> None:
    with DeviceMonitor(loop.link, loop.reader, limit=10) as monitor:
        loop.port.write(b"".join(b"line %d\n" % n for n in range(30)) + ROM)
        assert isinstance(monitor.call("ask", timeout_s=60.0), Failure)
        heard = monitor.poll(0.0)
        dropped = monitor.dropped_events
        assert dropped > 0
        assert heard[0] == ConsoleEvent(
            ConsoleEventKind.DROPPED, heard[0].at_s, f"{dropped} lines were dropped: nobody took them in time"
        )
        assert len(heard) == 11


def test_bytes_that_nobody_takes_are_counted() -> None:
    loop = Loopback(limit=100)
    arrived = threading.Event()
    really_read = loop.link.read
    read_so_far = 0

    def read(timeout_s: float) -> bytes:
        nonlocal read_so_far
        data = really_read(timeout_s)
        read_so_far += len(data)
        if read_so_far == 50 * 9 + 4:
            arrived.set()
        return data

    loop.link.read = read  # type: ignore[method-assign]
    loop.reader.start()
    for n in range(50):
        loop.port.write(b"%08d\n" % n)
    loop.port.write(b"end\n")
    assert arrived.wait(60)
    loop.reader.stop()
    taken = b""
    while (chunk := loop.reader.poll(0.0)[1]) != b"":
        taken += chunk
    loop.link.close()
    assert taken.endswith(b"end\n")
    assert len(taken) + loop.reader.dropped == 50 * 9 + 4


# --- a port that leaves -------------------------------------------------------------------------


class Shaky:
    """A port of pyserial's kind that is gone for some attempts to open it, on a clock that only waiting moves."""

    def __init__(self, absent_s: float) -> None:
        self.now, self.absent_s, self.timeout = 10.0, absent_s, 1.0
        self.back_at = 0.0
        self.there = True

    def unplug(self) -> None:
        self.there, self.back_at = False, self.now + self.absent_s

    def reopen(self) -> None:
        if self.now < self.back_at:
            raise OSError("no such port")
        self.there = True

    def read(self, count: int) -> bytes:
        if not self.there:
            raise OSError("unplugged")
        return b"x" * count

    in_waiting = 0

    def write(self, data: bytes) -> None:
        self.read(1)

    def pause(self, seconds: float) -> None:
        self.now += seconds

    def link(self, *, patient: bool = True) -> PortLink:
        options: dict[str, Any] = {"reopen": self.reopen, "pause": self.pause} if patient else {}
        return PortLink(self, "port", "device desk on port", lambda: self.now, real_time=False, **options)


def test_a_port_that_comes_back_is_read_on() -> None:
    port = Shaky(absent_s=0.42)
    link = port.link()
    assert link.read(1.0) == b"x"
    port.unplug()
    link.write(b"lost, and no error: the next read finds out")
    assert link.read(1.0) == b""
    (gap,) = link.gaps
    assert gap.gone_s == 10.0 and 10.42 <= gap.back_s < 10.5
    assert link.read(1.0) == b"x"


@pytest.mark.parametrize(("absent_s", "patient", "fact"), [(99.0, True, "(waited 3 s for"), (0.0, False, "unplugged")])
def test_a_port_that_stays_away_is_missing(absent_s: float, patient: bool, fact: str) -> None:
    port = Shaky(absent_s)
    link = port.link(patient=patient)
    port.unplug()
    with pytest.raises(DeviceError) as raised:
        link.read(1.0)
    assert raised.value.failure.category is FailureCategory.PORT_MISSING
    assert fact in raised.value.failure.message
    assert port.now <= 13.1
