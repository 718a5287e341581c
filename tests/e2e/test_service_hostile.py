"""Clients that are broken, slow or too many harm nobody, and are counted."""

from __future__ import annotations

import contextlib
import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.client.connection import Connection
from pipeline.client.protocol import (
    MAX_BODY,
    PROTOCOL,
    Channel,
    ConsoleChunk,
    DeviceRef,
    Holder,
    Message,
    NoteKind,
    encode,
    encode_entry,
    encode_verdict,
    prefix,
)
from tests.serving import TIMEOUT_S, PlainViewer, ServiceProcess, eventually, short_runtime_dir

HELLO = encode(Message.HELLO, protocol=PROTOCOL, version="x", pid=1)
TOLD = DeviceRef("/nowhere", "bench", "esp32c3", "virtual:")
DEVICE = TOLD._asdict()
ME = Holder(os.getpid(), "a test")._asdict()


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServiceProcess]:
    with short_runtime_dir(monkeypatch) as runtime:
        running = ServiceProcess(runtime, tmp_path)
        yield running
        assert "errors" not in running.status()["counts"], (runtime / "hotplate/service.log").read_text()
        running.stop()


def dial(service: ServiceProcess) -> socket.socket:
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    line.connect(str(service.runtime / "hotplate/service.sock"))
    line.settimeout(TIMEOUT_S)
    return line


def descriptors(service: ServiceProcess) -> int:
    return len(list(Path(f"/proc/{service.child.pid}/fd").iterdir()))


def ended(line: socket.socket) -> bytes:
    """What came until the service closed it."""
    got = b""
    with contextlib.suppress(ConnectionError):
        while data := line.recv(65536):
            got += data
    return got


NONSENSE = [
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    prefix(1, 0xFFFFFFFF, 0),
    prefix(1, 2, MAX_BODY + 1) + b"{}",
    prefix(1, 2, 0) + b"[]",
    prefix(9, 2, 0) + b"{}",
    encode(Message.STATUS),
    encode(Message.HELLO, protocol="1", version="x", pid=1),
    HELLO + encode(Message.HELLO, protocol=PROTOCOL),
    HELLO + encode(Message.RUN, argv=[]),
    HELLO + encode(Message.PORT, device=DEVICE),
    HELLO + encode(Message.PORT, device=DEVICE, holder=ME, wait_s=-1),
    HELLO + encode(Message.PORT, device={**DEVICE, "port": "x\0y"}, holder=ME, wait_s=0),
    HELLO + encode(Message.PORT, device={**DEVICE, "name": "../../etc"}, holder=ME, wait_s=0),
    HELLO + encode(Message.PORT, device={**DEVICE, "root": "relative"}, holder=ME, wait_s=0),
    HELLO + encode(Message.PORT, device=DEVICE, holder={**ME, "pid": "1"}, wait_s=0),
    HELLO + encode(Message.WATCH, device=DEVICE, since=[1]),
    HELLO + encode(Message.WATCH, device=DEVICE, since={"what": 7}),
    HELLO + encode(Message.WATCH, device=DEVICE) + encode(Message.WRITE, b"x"),
    HELLO + encode(Message.TELL, device={**DEVICE, "port": "/dev/null"}, holder=ME),
    HELLO + encode(Message.TELL, device=DEVICE, holder=ME) + encode(Message.NOTE, number="1"),
    HELLO + encode(Message.SEND, b"x", device=None),
    HELLO + encode(Message.RELEASE),
]


def test_nonsense_is_refused_and_counted(service: ServiceProcess) -> None:
    for wire in NONSENSE:
        with dial(service) as line:
            line.sendall(wire)
            assert b'"refused"' in ended(line), wire
    counts = service.status()["counts"]
    assert counts["broken"] >= len(NONSENSE) - 1
    assert descriptors(service) <= 20


def test_garbage_and_half_frames(service: ServiceProcess) -> None:
    dice = random.Random(3)
    whole = HELLO + encode(Message.WATCH, device=DEVICE)
    before = descriptors(service)
    for n in range(200):
        with dial(service) as line, contextlib.suppress(ConnectionError):
            line.sendall(whole[: dice.randrange(len(whole))] if n % 2 else dice.randbytes(dice.randrange(300)))
    eventually(lambda: descriptors(service) <= before)
    assert service.status()["connections"] == 1


def test_a_thousand_connections_that_say_nothing(service: ServiceProcess) -> None:
    """Those that are nothing yet make room for whoever has something to ask."""
    memory = service.status()["memory_kb"]
    held = [dial(service) for _ in range(1000)]
    with PlainViewer(TOLD):
        status = service.status()
        assert status["connections"] <= 200 and status["counts"]["displaced"] >= 800
        assert status["memory_kb"] < memory + 20_000
    for line in held:
        line.close()
    eventually(lambda: service.status()["connections"] == 1)


def test_a_slow_viewer_loses_entries_and_is_told_how_many(service: ServiceProcess) -> None:
    memory = service.status()["memory_kb"]
    slow = Connection.open(timeout_s=TIMEOUT_S)
    slow.request(Message.WATCH, timeout_s=TIMEOUT_S, device=DEVICE, since={"what": "all", "number": 0})
    with PlainViewer(TOLD) as quick:
        teller = Connection.open(timeout_s=TIMEOUT_S)
        teller.request(Message.TELL, timeout_s=TIMEOUT_S, device=DEVICE, holder=ME)
        parts = [b"%06d" % n * 2000 for n in range(500)]
        for part in parts:
            teller.send_bytes(encode_entry(ConsoleChunk(0, "at", 1.0, 0, Channel.CONSOLE, part)))
        wanted = sum(map(len, parts))
        quick.wait(lambda: len(quick.data) == wanted)
        assert quick.data == b"".join(parts)
        status = service.status()
        assert status["counts"]["entries_dropped"] > 0 and status["memory_kb"] < memory + 20_000
        seen, dropped = b"", 0
        teller.close()
        while True:
            frame = slow.receive(TIMEOUT_S)
            if frame.message == Message.CHUNK:
                seen += frame.body
            elif frame.header.get("kind") == NoteKind.DROPPED:
                dropped += int(str(frame.header["text"]).partition("(")[2].partition(" ")[0])
            elif frame.header.get("kind") == NoteKind.CLOSED:
                break
        assert len(seen) + dropped == wanted and dropped > 0
        assert service.status()["devices"][0]["bytes_dropped"] == dropped
    slow.close()


def test_a_client_that_takes_no_answers_loses_its_connection(service: ServiceProcess) -> None:
    with dial(service) as line, contextlib.suppress(ConnectionError):
        line.sendall(HELLO)
        for _ in range(200):
            line.sendall(encode(Message.STATUS) * 500)
    eventually(lambda: service.status()["connections"] == 1)
    assert service.status()["memory_kb"] < 100_000


def test_a_verdict_that_is_no_question_says_look_yourself(service: ServiceProcess) -> None:
    with dial(service) as line:
        line.sendall(HELLO + encode_verdict(b"a", b"b"))
        line.shutdown(socket.SHUT_WR)
        assert b"look\0not a question" in ended(line)


def test_the_socket_is_the_users_alone(service: ServiceProcess) -> None:
    directory = service.runtime / "hotplate"
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (directory / "service.sock").stat().st_mode & 0o777 == 0o600
    assert (directory / "service.log").stat().st_mode & 0o777 == 0o600
