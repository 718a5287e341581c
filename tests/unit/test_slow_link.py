"""The link of `doit bench:remote`, on a clock of the test's own."""

from __future__ import annotations

import socket
import threading
from types import SimpleNamespace

import pytest

from pipeline.measure.bench import slow_link


def test_only_the_first_of_a_connection_waits_for_a_handshake(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was all of it, so that a link of 50 ms had a round trip of 100."""
    slept: list[float] = []
    monkeypatch.setattr(slow_link, "time", SimpleNamespace(monotonic=lambda: 0.0, sleep=slept.append))
    direction = slow_link._Direction(0.025, 1e12)
    (client, near), (far, server) = socket.socketpair(), socket.socketpair()
    with client, near, far, server:
        thread = threading.Thread(target=direction.carry, args=(near, far, 0.05), daemon=True)
        thread.start()
        for text in (b"one", b"two", b"three"):
            client.sendall(text)
            assert server.recv(100) == text
        client.shutdown(socket.SHUT_WR)
        assert server.recv(100) == b""
        thread.join(30)
    assert slept == pytest.approx([0.075, 0.025, 0.025, 0.025])
