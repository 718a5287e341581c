"""A shared cache in a thread of the tests, which does to the plain HTTP protocol what bazel-remote does (its
`server/http.go`): bodies of `/ac/` are ActionResults in JSON or they are refused, an entry comes back as the message
that it means (defaults left out, other spaces) and only while its blobs are there, and a blob has its digest.

`kind = "plain"`: keeps and returns what it is given, as nginx with DAV. `raw`: what is said instead of an answer.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cache.remote import Remote

EMPTY = hashlib.sha256(b"").hexdigest()
_FIELDS = {
    "": {"outputFiles", "stdoutDigest", "stderrDigest", "executionMetadata", "exitCode", "outputSymlinks"},
    "file": {"path", "digest", "isExecutable", "contents"},
    "metadata": {"worker", "virtualExecutionDuration"},
}


class Invalid(Exception):
    """No ActionResult."""


def message_of(body: bytes) -> dict[str, Any]:
    """As protojson reads it: unknown members are errors, defaults vanish. Raises Invalid."""
    try:
        value = json.loads(body)
        found: dict[str, Any] = {"outputFiles": [_file(file) for file in value.get("outputFiles", [])]}
        for name in ("stdoutDigest", "stderrDigest"):
            if name in value:
                found[name] = _digest(value[name])
        found["executionMetadata"] = dict(value.get("executionMetadata", {}))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Invalid(str(error)) from None
    if set(value) - _FIELDS[""] or set(found["executionMetadata"]) - _FIELDS["metadata"]:
        raise Invalid("unknown field")
    took = found["executionMetadata"].get("virtualExecutionDuration")
    if took is not None:
        if not re.fullmatch(r"\d+(\.\d{1,9})?s", took):
            raise Invalid("no duration")
        found["executionMetadata"]["virtualExecutionDuration"] = re.sub(r"\.0+s", "s", took)
    return found


def _file(file: dict[str, Any]) -> dict[str, Any]:
    if set(file) - _FIELDS["file"] or not file["path"] or file["path"].startswith("/"):
        raise Invalid("output file")
    found = {"path": file["path"], "digest": _digest(file["digest"])}
    return {**found, **{name: file[name] for name in ("isExecutable", "contents") if file.get(name)}}


def _digest(digest: dict[str, Any]) -> dict[str, Any]:
    if not re.fullmatch("[0-9a-f]{64}", digest["hash"]) or int(digest.get("sizeBytes", "0")) < 0:
        raise Invalid("digest")
    return {name: digest[name] for name in ("hash", "sizeBytes") if digest.get(name) not in (None, "0")}


class CacheServer(ThreadingHTTPServer):
    """`with CacheServer() as server:`; `requests` holds (method, path) of each, `connections` how many there were."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, kind: str = "bazel-remote", token: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.kind, self.token = kind, token
        self.ac: dict[str, Any] = {}
        self.cas: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.connections = 0
        self.raw: Callable[[str, str], bytes | Iterator[bytes] | None] = lambda method, path: None
        """What is sent in place of an answer to (method, path), and then the connection is closed."""
        self.stopped = threading.Event()
        self.most_body = 1 << 40
        self.clients: list[Remote] = []
        """Are closed with the server."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def count(self, method: str, part: str = "") -> int:
        return sum(verb == method and part in path for verb, path in self.requests)

    def forget(self) -> None:
        """Of requests, not of what is kept."""
        self.requests.clear()
        self.headers.clear()

    def __enter__(self) -> CacheServer:
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for client in self.clients:
            client.settle(0)
        self.stopped.set()
        self.shutdown()
        self.server_close()

    def get_request(self) -> tuple[socket.socket, Any]:
        self.connections += 1
        return super().get_request()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is none."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    server: CacheServer

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def handle_one_request(self) -> None:
        super().handle_one_request()
        with contextlib.suppress(OSError, ValueError):
            self.wfile.flush()

    def _begin(self) -> tuple[str, str] | None:
        """(ac or cas, hex), or None when it was answered."""
        self.server.requests.append((self.command, self.path))
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        raw = self.server.raw(self.command, self.path)
        if raw is not None:
            self.close_connection = True
            with contextlib.suppress(OSError):
                for piece in (raw,) if isinstance(raw, bytes) else raw:
                    self.connection.sendall(piece)
                self.connection.shutdown(socket.SHUT_WR)
            return None
        if self.server.token and self.headers.get("authorization") != f"Bearer {self.server.token}":
            self._say(401)
            return None
        found = re.fullmatch(r"/(?:.*/)?(ac|cas)/([0-9a-f]{64})", self.path)
        if found is None:
            self._say(400)
            return None
        return found[1], found[2]

    def _say(self, status: int, body: bytes = b"", kind: str = "application/octet-stream") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", kind)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        asked = self._begin()
        if asked is None:
            return
        kind, name = asked
        if kind == "cas":
            body = b"" if name == EMPTY else self.server.cas.get(name)
            self._say(404) if body is None else self._say(200, body)
            return
        entry = self.server.ac.get(name)
        if isinstance(entry, bytes):
            self._say(200, entry)
        elif entry is None or not self._is_whole(entry):
            self._say(404, b"Not found\n")
        elif self.headers.get("accept") == "application/json":
            self._say(200, json.dumps(entry, indent=1).encode(), "application/json")
        else:
            self._say(200, b"\x0a\x05proto")

    do_HEAD = do_GET

    def _is_whole(self, entry: dict[str, Any]) -> bool:
        needed = [file["digest"] for file in entry["outputFiles"] if "contents" not in file]
        needed += [entry[name] for name in ("stdoutDigest", "stderrDigest") if name in entry]
        return all(
            digest["hash"] == EMPTY or len(self.server.cas.get(digest["hash"], b"")) == int(digest["sizeBytes"])
            for digest in needed
        )

    def do_PUT(self) -> None:
        length = int(self.headers["content-length"])
        if length > self.server.most_body:
            self.server.requests.append((self.command, self.path))
            self._say(413)
            self.close_connection = True
            return
        if self.headers.get("expect") and self.server.raw(self.command, self.path) is None:
            self.wfile.flush()
        body = self.rfile.read(length)
        asked = self._begin()
        if asked is None:
            return
        kind, name = asked
        if self.server.kind == "plain":
            (self.server.ac if kind == "ac" else self.server.cas)[name] = body
            self._say(201)
        elif kind == "cas":
            fits = hashlib.sha256(body).hexdigest() == name
            if fits:
                self.server.cas[name] = body
            self._say(200 if fits else 400)
        else:
            self._put_entry(name, body)

    def _put_entry(self, name: str, body: bytes) -> None:
        try:
            if self.headers.get("content-type") != "application/json":
                raise Invalid("no protobuf")
            message = message_of(body)
        except Invalid as invalid:
            self._say(400, str(invalid).encode())
            return
        message["executionMetadata"].setdefault("worker", self.client_address[0])
        self.server.ac[name] = message
        self._say(200)

    def handle_expect_100(self) -> bool:
        if int(self.headers["content-length"]) > self.server.most_body:
            return True  # do_PUT says so
        is_ok = super().handle_expect_100()
        self.wfile.flush()
        return is_ok
