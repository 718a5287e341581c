"""HTTP/1.1 over one connection: questions out, answers in, one after the other on a connection that stays open.

Beside `http.client`, since that has no deadline for an answer that drips, no bound on one that does not end, and no way
to ask a second question before the first is answered, which is what makes a round of a hundred questions one latency.
Knows bytes and time, not what is asked. Invariants: every wait ends at the deadline that the caller set last; no answer
takes more memory or bytes than the caller allowed; what is not HTTP as this client asked for it is `Garbled`, and then
the connection is of no use any more. Redirects are answers like others: nothing here follows one.
"""

from __future__ import annotations

import contextlib
import socket
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from cache.named_tuple import NamedTuple

if TYPE_CHECKING:
    import ssl

CHUNK = 1 << 16
_MOST_HEAD = 1 << 15
"""Bytes of an answer before its body."""
_MOST_LINE = 1 << 10
_MOST_DRAINED = 1 << 16
ENCODINGS = "gzip, deflate"
"""What is asked for. zstd, which bazel-remote speaks, would need a library before Python 3.14."""


class Garbled(Exception):
    """The other side said something that is no answer to the question."""


class Endpoint(NamedTuple):
    """Where the other side is. `prefix`: before `/ac/` and `/cas/`, without a slash at its end."""

    host: str
    port: int
    prefix: str = ""
    tls: bool = False

    @property
    def authority(self) -> str:
        """As in a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


class HttpAnswer:
    """One answer. Its body is read by `chunks`, once."""

    def __init__(self, wire: Wire, status: int, headers: Mapping[str, str], head_only: bool) -> None:
        self._wire = wire
        self.status = status
        self.headers = headers
        self._no_body = head_only or status in (204, 304)
        self.is_done = self._no_body

    @property
    def stays_open(self) -> bool:
        """May another answer come on this connection?"""
        sized = self._no_body or "content-length" in self.headers or "transfer-encoding" in self.headers
        return sized and self.headers.get("connection", "").lower() != "close"

    def body(self, most: int, *, may_be_encoded: bool = False) -> bytes:
        """All of it, as `chunks` gives it."""
        return b"".join(self.chunks(most, may_be_encoded=may_be_encoded))

    def chunks(self, most: int, *, may_be_encoded: bool = False) -> Iterator[bytes]:
        """The body, decoded. `may_be_encoded`: ENCODINGS were offered. Raises Garbled for more than `most` bytes,
        before they are in memory, and OSError."""
        left = most
        encoding = self.headers.get("content-encoding", "identity").lower()
        if encoding != "identity" and not (may_be_encoded and encoding in ("gzip", "x-gzip", "deflate")):
            raise Garbled(f"the answer is encoded as {encoding[:40]!r}, which was not asked for")
        for chunk in self._raw() if encoding == "identity" else self._inflated(most + CHUNK):
            left -= len(chunk)
            if left < 0:
                raise Garbled(f"the answer has more than {most} bytes")
            yield chunk

    def drain(self) -> None:
        """Read what is left of a body that nobody wants, if it is small; else it is not done."""
        if not self.is_done:
            with contextlib.suppress(Garbled):
                read = 0
                for chunk in self._raw():
                    read += len(chunk)
                    if read > _MOST_DRAINED:
                        return

    def _inflated(self, most: int) -> Iterator[bytes]:
        """`most`: bytes as they come; without end they could stand for nothing."""
        inflate = zlib.decompressobj(wbits=47)
        try:
            for chunk in self._raw():
                most -= len(chunk)
                if most < 0:
                    raise Garbled("the compressed answer is longer than what it may stand for")
                left = chunk
                while left:
                    # A kilobyte may stand for a megabyte: the caller counts before more is made of it.
                    yield inflate.decompress(left, CHUNK)
                    if inflate.eof and (inflate.unused_data or inflate.unconsumed_tail):
                        raise Garbled("more follows the compressed answer")
                    left = inflate.unconsumed_tail
            yield inflate.flush()
        except zlib.error as error:
            raise Garbled(f"the answer cannot be decompressed: {error}") from None
        if not inflate.eof:
            raise Garbled("the compressed answer ends too early")

    def _raw(self) -> Iterator[bytes]:
        if self._no_body:
            return
        transfer = self.headers.get("transfer-encoding", "").lower()
        if transfer == "chunked":
            yield from self._chunked()
        elif transfer:
            raise Garbled(f"the answer has the transfer encoding {transfer[:40]!r}")
        elif "content-length" in self.headers:
            yield from self._sized(_number(self.headers["content-length"], 10))
        else:
            while chunk := self._wire.some(CHUNK):
                yield chunk
        self.is_done = True

    def _sized(self, left: int) -> Iterator[bytes]:
        while left:
            chunk = self._wire.some(min(left, CHUNK))
            if not chunk:
                raise Garbled(f"the answer ends {left} bytes too early")
            left -= len(chunk)
            yield chunk

    def _chunked(self) -> Iterator[bytes]:
        while size := _number(self._wire.line().split(b";")[0].decode("latin-1").strip(), 16):
            yield from self._sized(size)
            if self._wire.line():
                raise Garbled("a chunk of the answer is longer than it says")
        while self._wire.line():
            pass


class Wire:
    """A connection. `until_s`, on the clock `now_s`: when whatever it waits for has come to nothing."""

    def __init__(self, endpoint: Endpoint, now_s: Callable[[], float], until_s: float, context: ssl.SSLContext | None):
        """Connects. Raises OSError."""
        self._now_s = now_s
        self.until_s = until_s
        self.stall_s = until_s - now_s()
        """How long nothing at all may come."""
        self._buffer = bytearray()
        self._head_left = 0
        self._socket = socket.create_connection((endpoint.host, endpoint.port), self._wait_s())
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context is not None:
                self._socket.settimeout(self._wait_s())
                self._socket = context.wrap_socket(self._socket, server_hostname=endpoint.host)
        except BaseException:
            self._socket.close()
            raise

    def send(self, data: bytes) -> None:
        """Raises OSError."""
        self._socket.settimeout(self._wait_s())
        self._socket.sendall(data)

    def answer(self, *, head_only: bool = False) -> HttpAnswer:
        """The next answer, up to its body. Raises Garbled, OSError, and EOFError when the connection was closed before
        it."""
        while True:
            self._head_left = _MOST_HEAD
            status = self._status()
            headers = self._headers()
            if status >= 200:
                return HttpAnswer(self, status, headers, head_only)

    def interim(self, wait_s: float) -> HttpAnswer | None:
        """What the other side says of a question whose body has not been sent, None when it says nothing for so long.
        Raises as `answer`."""
        until_s, self.until_s = self.until_s, min(self.until_s, self._now_s() + wait_s)
        try:
            while b"\n" not in self._buffer:
                if not self._fill():
                    raise EOFError
        except TimeoutError:
            return None
        finally:
            self.until_s = until_s
        self._head_left = _MOST_HEAD
        return HttpAnswer(self, self._status(), self._headers(), False)

    def _status(self) -> int:
        first = self.line(at_start=True)
        words = first.split(None, 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or len(words[1]) != 3 or not words[1].isdigit():
            raise Garbled(f"{first[:40]!r} is no status of HTTP/1.1")
        return int(words[1])

    def _headers(self) -> dict[str, str]:
        found: dict[str, str] = {}
        while line := self.line():
            name, colon, value = line.decode("latin-1").partition(":")
            name = name.lower()
            if not colon or name != name.strip():
                raise Garbled(f"{line[:40]!r} is no header")
            if name in ("content-length", "transfer-encoding") and found.get(name, value.strip()) != value.strip():
                raise Garbled(f"the answer has two headers {name}")
            found[name] = value.strip()
        if "transfer-encoding" in found and "content-length" in found:
            raise Garbled("the answer has two lengths")
        return found

    def line(self, *, at_start: bool = False) -> bytes:
        """The next line without its end. Raises as `answer`."""
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > _MOST_LINE * 8:
                raise Garbled("a line of the answer does not end")
            if not self._fill():
                if at_start and not self._buffer:
                    raise EOFError
                raise Garbled("the answer ends too early")
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._head_left -= len(line) + 1
        if self._head_left < 0:
            raise Garbled(f"the answer has more than {_MOST_HEAD} bytes before and between its parts")
        return line.rstrip(b"\r")

    def some(self, most: int) -> bytes:
        """At least one byte and at most `most`; `b""` at the end. Raises OSError."""
        if not self._buffer and not self._fill():
            return b""
        if self._head_left < _MOST_LINE:
            self._head_left += 16  # what stands between chunks is bounded by what stands in them
        found = bytes(self._buffer[:most])
        del self._buffer[:most]
        return found

    def _fill(self) -> bool:
        self._socket.settimeout(self._wait_s())
        data = self._socket.recv(CHUNK)
        self._buffer += data
        return bool(data)

    def _wait_s(self) -> float:
        left = min(self.until_s - self._now_s(), self.stall_s)
        if left <= 0:
            raise TimeoutError("no answer in time")
        return left

    def interrupt(self) -> None:
        """Have whoever waits for it see its end, on any thread. Never raises."""
        with contextlib.suppress(OSError):
            # Not the method of a TLS socket: that forgets its session first, and what is sent then goes out in clear.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Never raises."""
        with contextlib.suppress(OSError):
            self._socket.close()


def _number(text: str, base: int) -> int:
    digits = "0123456789abcdefABCDEF" if base == 16 else "0123456789"
    if not 0 < len(text) <= 16 or not set(text) <= set(digits):
        raise Garbled(f"{text[:40]!r} is no length")
    return int(text, base)
