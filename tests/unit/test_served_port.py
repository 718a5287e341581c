"""A lent port, against a service of the test's own: what is read, what is thrown away, and what goes wrong by name."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pipeline.client.connection import Connection, NoService
from pipeline.client.protocol import DeviceRef, FrameReader, Message, ServiceFrame, encode, encode_failure
from pipeline.client.served_port import PortLost, ServedPort
from pipeline.device.ports import reopen
from pipeline.device.serial_link import PortLink, ThreadReader
from pipeline.failures import fail
from pipeline.model import FailureCategory

TIMEOUT_S = 60
DEVICE = DeviceRef("/p", "bench", "esp32c3", "/dev/x")
GRANTED = {"name": "/dev/x", "baud": 115200, "dtr": True, "rts": True}


class OtherSide:
    """The service's end of one connection; answers what is asked with `done`."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.got: list[ServiceFrame] = []
        self.before_done: Callable[[ServiceFrame], None] = lambda frame: None
        self.answers = True
        self._changed = threading.Condition()
        self._reader = FrameReader()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while data := self.socket.recv(65536):
                for frame in self._reader.feed(data):
                    with self._changed:
                        self.got.append(frame)
                        self._changed.notify_all()
                    if "n" in frame.header and self.answers:
                        self.before_done(frame)
                        self.send(Message.DONE, n=frame.header["n"])
            self.socket.close()

    def send(self, message: Message, body: bytes = b"", /, **fields: Any) -> None:
        self.socket.sendall(encode(message, body, **fields))

    def wait(self, ready: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(ready, TIMEOUT_S), self.got

    @property
    def asked(self) -> list[str]:
        return [frame.message for frame in self.got]


class LentBench:
    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.service = OtherSide(theirs)
        self.port = ServedPort(Connection(ours), DEVICE, GRANTED, None)
        self.port.timeout = TIMEOUT_S

    def close(self) -> None:
        self.port.close()
        self.service.socket.close()


@pytest.fixture
def lent() -> Iterator[LentBench]:
    bench = LentBench()
    yield bench
    bench.close()


def test_bytes_are_read_once_in_order(lent: LentBench) -> None:
    lent.service.send(Message.DATA, b"abc", at_s=1.0)
    lent.service.send(Message.DATA, b"de", at_s=1.0)
    assert lent.port.read(4) == b"abcd"
    assert lent.port.in_waiting == 1 and lent.port.read(1) == b"e" and lent.port.in_waiting == 0
    lent.port.timeout = 0.0
    assert lent.port.read(10) == b""
    lent.service.send(Message.DATA, b"xyz", at_s=1.0)
    lent.port.timeout = TIMEOUT_S
    assert lent.port.read(3) == b"xyz"


def test_a_drain_throws_away_what_came_before_it_and_nothing_else(lent: LentBench) -> None:
    lent.service.send(Message.DATA, b"early", at_s=1.0)

    def late(frame: ServiceFrame) -> None:
        if frame.message == Message.DRAIN:
            lent.service.send(Message.DATA, b"still before", at_s=1.0)

    lent.service.before_done = late
    lent.port.reset_input_buffer()
    lent.service.send(Message.DATA, b"after", at_s=1.0)
    assert lent.port.read(5) == b"after"


def test_lines_and_rates_are_answered_and_writes_are_not(lent: LentBench) -> None:
    lent.port.setDTR(False)
    lent.port.rts = True
    lent.port.baudrate = 115200
    lent.port.baudrate = 921600
    lent.port.channel("loader")
    lent.port.write(b"\xc0")
    lent.service.wait(lambda: "write" in lent.service.asked)
    assert lent.service.asked == ["lines", "lines", "baud", "channel", "write"]
    assert (lent.port.dtr, lent.port.rts, lent.port.baudrate) == (False, True, 921600)
    assert "rts" not in lent.service.got[0].header and lent.service.got[-1].body == b"\xc0"
    assert lent.port.name.startswith("rfc2217:") and lent.port.port == "/dev/x"


def test_a_large_write_is_several_frames(lent: LentBench) -> None:
    data = bytes(range(256)) * 10_000
    lent.port.write(data)
    lent.service.wait(lambda: sum(len(frame.body) for frame in lent.service.got) == len(data))
    assert b"".join(frame.body for frame in lent.service.got) == data


def test_what_the_port_refuses_is_an_oserror_with_its_number(lent: LentBench) -> None:
    lent.service.answers = False

    def refuse() -> None:
        lent.service.wait(lambda: bool(lent.service.got))
        lent.service.send(Message.DONE, n=1, error="Inappropriate ioctl for device", errno=errno.ENOTTY)

    threading.Thread(target=refuse).start()
    with pytest.raises(OSError, match="Inappropriate ioctl") as refused:
        lent.port.setRTS(True)
    assert refused.value.errno == errno.ENOTTY


def test_a_port_that_vanishes_says_so_after_what_came_before(lent: LentBench) -> None:
    lent.service.send(Message.DATA, b"before", at_s=1.0)
    lent.service.send(Message.GONE)
    lent.service.send(Message.BACK, name="/dev/y", ms=120)
    lent.service.send(Message.DATA, b"after", at_s=2.0)
    assert lent.port.read(100) == b"before"
    with pytest.raises(PortLost) as gone:
        lent.port.read(1)
    assert gone.value.errno == errno.ENODEV
    with pytest.raises(PortLost):
        lent.port.in_waiting  # noqa: B018 - raises
    reopen(lent.port)
    assert lent.port.port == "/dev/y" and lent.port.read(5) == b"after"


def test_a_port_that_does_not_come_back_is_said_so(lent: LentBench) -> None:
    lent.service.send(Message.GONE)
    with pytest.raises(PortLost):
        lent.port.read(1)
    with pytest.raises(PortLost, match="has not come back"):
        lent.port.rejoin()


def test_a_monitor_marks_the_gap(lent: LentBench) -> None:
    link = PortLink(lent.port, "x", "device x", time.monotonic, real_time=True, reopen=lambda: reopen(lent.port))
    reader = ThreadReader(link)
    reader.start()
    lent.service.send(Message.DATA, b"one", at_s=1.0)
    lent.service.send(Message.GONE)
    lent.service.send(Message.BACK, name="/dev/x", ms=5)
    lent.service.send(Message.DATA, b"two", at_s=1.0)
    heard = b""
    while heard != b"onetwo":
        heard += reader.poll(TIMEOUT_S)[1]
    assert len(link.gaps) == 1
    lent.port.setRTS(False)  # from another thread than the reader's
    reader.stop()


@pytest.mark.parametrize("how", ["closed", "taken"])
def test_a_service_that_is_gone_ends_every_wait(lent: LentBench, how: str) -> None:
    def end() -> None:
        if how == "taken":
            message = "the port was taken by doit (pid 7)"
            failure = fail(FailureCategory.PORT_BUSY, stage=None, where="x", message=message)
            lent.service.socket.sendall(encode_failure(failure))
        else:
            lent.service.socket.shutdown(socket.SHUT_RDWR)

    threading.Timer(0.01, end).start()
    with pytest.raises(PortLost, match="taken by doit" if how == "taken" else "went away"):
        lent.port.read(1)
    for call in (lent.port.rejoin, lambda: lent.port.setDTR(True), lambda: lent.port.write(b"x")):
        with pytest.raises(PortLost):
            call()


def test_two_threads_share_what_arrives(lent: LentBench) -> None:
    """One reads, the other changes lines: each gets what it waits for."""
    heard = bytearray()

    def read() -> None:
        while len(heard) < 500:
            heard.extend(lent.port.read(1))

    thread = threading.Thread(target=read)
    thread.start()
    for n in range(100):
        lent.service.send(Message.DATA, b"%05d" % n, at_s=1.0)
        lent.port.setDTR(bool(n % 2))
    thread.join(TIMEOUT_S)
    assert bytes(heard) == b"".join(b"%05d" % n for n in range(100))


def test_closing_waits_until_the_port_is_given_back(lent: LentBench) -> None:
    lent.port.close()
    assert lent.port.returned_ms is not None
    with pytest.raises(PortLost, match="closed"):
        lent.port.read(1)
    lent.port.close()


def test_a_connection_that_says_nonsense_is_no_service() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    connection = Connection(ours)
    theirs.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(NoService, match="says what cannot be"):
        connection.receive(TIMEOUT_S)
    with pytest.raises(TimeoutError):
        connection.receive(0)
    connection.close()
    theirs.close()


def test_a_receive_in_one_thread_does_not_cut_a_send_in_another_short() -> None:
    """The timeout of the one was that of the other: a large send failed where the service took its time."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    connection = Connection(ours)
    over = threading.Event()

    def receive() -> None:
        while not over.is_set():
            with contextlib.suppress(TimeoutError):
                connection.receive(0.001)

    thread = threading.Thread(target=receive)
    thread.start()
    sent = threading.Thread(target=lambda: connection.send_bytes(bytes(8 << 20)))
    sent.start()
    taken = 0
    while taken < 8 << 20:
        taken += len(theirs.recv(1 << 16))
    sent.join(TIMEOUT_S)
    over.set()
    thread.join(TIMEOUT_S)
    assert not sent.is_alive()
    connection.close()
    theirs.close()
