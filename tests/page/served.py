"""The page's real server over fake consoles, in an event loop of its own, for tests that talk to it from outside."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import pytest
from websockets.sync.client import ClientConnection, connect

from pipeline.client import endpoint
from pipeline.client.protocol import DeviceRef
from pipeline.effects.clock import SystemClock
from pipeline.service.environments import Environments
from pipeline.service.page_door import PageDoor, PageOf
from tests.page.fake_consoles import FakeConsole, FakeConsoles

T = TypeVar("T")
WAIT_S = 120.0


class ServedPage:
    """`say(...)`: let a board speak. `port`, `place`, `token`: of the address."""

    def __init__(self, root: Path) -> None:
        self.clock = SystemClock()
        self.consoles = FakeConsoles(self.clock.utc, self.clock.now_s)
        self.environments = Environments()
        self.device = DeviceRef(str(root), "bench", "esp32c3", "/dev/ttyUSB0", "7c:df:a1:00:11:22")
        self.said: list[str] = []
        self.loop = asyncio.new_event_loop()
        self.errors: list[str] = []
        """What nobody took."""
        self.loop.set_exception_handler(lambda _, context: self.errors.append(str(context)))
        self._thread = threading.Thread(target=self.loop.run_forever, name="page")
        self._thread.start()
        self.server = self.call(self._make)
        parts = urlsplit(self.server.url)
        assert parts.port is not None
        self.port, self.place, self.token = parts.port, parts.path, parse_qs(parts.query)["token"][0]

    def _make(self) -> PageDoor:
        self.consoles.know(self.device)
        door = PageDoor(PageOf(self.consoles, self.environments, self.clock, self.said.append))
        assert door.open() is None
        return door

    def call(self, work: Callable[..., T], *arguments: Any) -> T:
        """Do this in the service's loop."""

        async def done() -> T:
            return work(*arguments)

        return asyncio.run_coroutine_threadsafe(done(), self.loop).result(WAIT_S)

    @property
    def console(self) -> FakeConsole:
        return self.consoles.of[self.device]

    def another(self, name: str) -> None:
        """From now on the device is one with this name, of a project of its own."""
        root = Path(self.device.root).parent / name
        root.mkdir()
        self.device = DeviceRef(str(root), name, "esp32c3", "/dev/ttyUSB0", "7c:df:a1:00:11:22")
        self.call(self.consoles.know, self.device)

    def says(self, data: bytes) -> None:
        self.call(self.console.says, data)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body; `path` counts from the place unless it begins with `/`. With the token as a header
        unless `Authorization` is given; `Host=""`: none."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        try:
            connection.putrequest("GET", path if path.startswith("/") else self.place + path, skip_host=True)
            given = {"Host": self.host, "Authorization": f"Bearer {self.token}", **headers}
            for name, value in given.items():
                if value:
                    connection.putheader(name.replace("_", "-"), value)
            connection.endheaders()
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def json(self, path: str) -> Any:
        status, _, body = self.get(path)
        assert status == 200, body
        return json.loads(body)

    def live(self, **headers: str) -> ClientConnection:
        """A WebSocket as a script opens one."""
        given = {"Authorization": f"Bearer {self.token}", **headers}
        return connect(
            f"ws://{self.host}{self.place}live",
            additional_headers={name.replace("_", "-"): value for name, value in given.items() if value},
            compression=None,
            open_timeout=WAIT_S,
            proxy=None,
            ping_interval=None,
        )

    @property
    def key(self) -> str:
        return str(self.json("api/devices")["devices"][0]["key"])

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self.server.close(), self.loop).result(WAIT_S)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(WAIT_S)
        self.loop.close()


def heard(socket: ClientConnection, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The next message that is wanted."""
    while True:
        message: dict[str, Any] = json.loads(socket.recv(WAIT_S))
        if wanted(message):
            return message


def lines_of(socket: ClientConnection, last: str) -> list[dict[str, Any]]:
    """Lines until one whose text or note is `last`."""
    found: list[dict[str, Any]] = []
    while not any(last in (line.get("x"), line.get("note")) for line in found):
        found += heard(socket, lambda message: message["is"] == "lines")["lines"]
    return found


@contextmanager
def serving(tmp_path: Path) -> Iterator[ServedPage]:
    """In a runtime directory of its own."""
    directory = tmp_path / "run" / "hotplate"
    directory.mkdir(parents=True)
    directory.chmod(0o700)
    project = tmp_path / "greenhouse"
    project.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
        patch.setattr(endpoint, "MAX_SOCKET_PATH", 4096)  # no socket is bound here
        page = ServedPage(project)
        try:
            yield page
        finally:
            page.close()
    assert not (directory / endpoint.HTTP).exists()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServedPage]:
    with serving(tmp_path) as page:
        yield page


def fake_environment(bin_dir: Path, **more: str) -> dict[str, str]:
    """An environment on whose PATH `hotplate` is `fake_hotplate.py`."""
    bin_dir.mkdir(exist_ok=True)
    program = bin_dir / "hotplate"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tests.page.fake_hotplate "$@"\n')
    program.chmod(0o755)
    root = str(Path(__file__).parents[2])
    return {"PATH": f"{bin_dir}:{os.environ['PATH']}", "PYTHONPATH": root, "WHO": "the caller", **more}
