"""What the resident service costs a port: lending it, giving it back, and a byte's way from the board to a viewer.

Starts a service of its own, which owns a pseudo-terminal; this process is the board at its other end, the viewer and
the lessee. Does not know how figures are shown. Invariant: no service of the user's is asked, and none is left.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cache.named_tuple import NamedTuple
from pipeline.client.connection import Connection, NoService
from pipeline.client.protocol import DeviceRef, Holder, Message
from pipeline.client.served_port import Borrowed, ServedPort, borrow
from pipeline.effects.process import background

LENT_MS, BYTE_MEDIAN_MS, BYTE_P99_MS = 50.0, 5.0, 20.0
"""The targets: a port lent, and given back; a byte from the board to a viewer's socket."""

APART_S = 0.002
TIMEOUT_S = 60.0


class PortFigures(NamedTuple):
    """In ms, one per run. `lent`: from asking to the open port; `returned`: from closing it until viewers have it
    again; `byte`: from the board's write to the viewer's frame."""

    lent: tuple[float, ...]
    returned: tuple[float, ...]
    byte: tuple[float, ...]


def measure_ports(runs: int, step: Callable[[str, int, int], None] = lambda text, done, total: None) -> PortFigures:
    """`runs` loans, and ten times as many bytes, with a viewer attached. Raises RuntimeError where there is no service:
    on Windows, or when it does not come up."""
    try:
        with _service() as device:
            return _measure(device, runs, step)
    except (NoService, OSError) as error:
        raise RuntimeError(f"no service could be measured: {error}") from None


class _Line(NamedTuple):
    """The board's end of the pseudo-terminal, and the device at the other one."""

    board: int
    device: DeviceRef


@contextlib.contextmanager
def _service() -> Iterator[_Line]:
    if os.name != "posix":
        raise RuntimeError("there is no service on this platform")
    runtime = tempfile.mkdtemp(prefix="hp-", dir="/tmp")  # sockets have little room for their names
    board, tty = os.openpty()
    before = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = runtime
    try:
        import tty as modes

        modes.setraw(tty)
        device = DeviceRef(runtime, "bench", "esp32c3", os.ttyname(tty))
        with background([sys.executable, "-m", "doit", "serve"], Path(runtime), dict(os.environ)) as ready:
            if "listening" not in ready:
                raise RuntimeError(f"the service says {ready!r:.200}")
            yield _Line(board, device)
    finally:
        if before is None:
            del os.environ["XDG_RUNTIME_DIR"]
        else:
            os.environ["XDG_RUNTIME_DIR"] = before
        os.close(board)
        os.close(tty)
        shutil.rmtree(runtime, ignore_errors=True)


def _measure(line: _Line, runs: int, step: Callable[[str, int, int], None]) -> PortFigures:
    lent, returned = [], []
    _loan(line.device)[0].close()  # from here on the service has the port open
    with _ByteViewer(line.device) as viewer:
        byte = []
        for number in range(10 * runs):
            step("bytes from the board", number, 10 * runs)
            byte.append(viewer.byte_ms(line.board))
            time.sleep(APART_S)
        for number in range(runs):
            step("loans of the port", number, runs)
            port, cost = _loan(line.device)
            port.close()
            lent.append(cost.handshake_ms + cost.lend_ms)
            if port.returned_ms is not None:
                returned.append(port.returned_ms)
    return PortFigures(tuple(lent), tuple(returned), tuple(byte))


def _loan(device: DeviceRef) -> tuple[ServedPort, Borrowed]:
    return borrow(device, Holder(os.getpid(), "bench:live"), wait_s=TIMEOUT_S, usb_of=lambda _: None)


class _ByteViewer:
    """Stamps what arrives, in a thread of its own."""

    def __init__(self, device: DeviceRef) -> None:
        self._connection = Connection.open()
        self._came = threading.Semaphore(0)
        self._at_s = 0.0
        self._connection.request(Message.WATCH, device=device._asdict(), since={"what": "now", "number": 0})
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(NoService):
            while True:
                frame = self._connection.receive(None)
                if frame.message == Message.CHUNK:
                    self._at_s = time.perf_counter()
                    self._came.release()

    def byte_ms(self, board: int) -> float:
        """Of one byte. Raises RuntimeError when it does not arrive."""
        began_s = time.perf_counter()
        os.write(board, b".")
        if not self._came.acquire(timeout=TIMEOUT_S):
            raise RuntimeError(f"a byte did not arrive within {TIMEOUT_S:g} s")
        return (self._at_s - began_s) * 1000

    def __enter__(self) -> _ByteViewer:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._thread.join(TIMEOUT_S)
