"""Calls of gRPC: message bytes out, message bytes in, each with a deadline.

Knows addresses, deadlines, retries and credentials; does not know what messages mean. `grpcio` is imported when the
first channel is opened. Invariants: no call raises for anything that the other side does - it gives an `RpcTrouble` -
and none takes longer than it may; what is tried again is only what was not answered at all (UNAVAILABLE), by gRPC
itself, with growing and jittered pauses, inside the same deadline; no message above MOST_MESSAGE_BYTES is taken.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.config.cache_url import CacheUrl
from pipeline.text import visible

MOST_MESSAGE_BYTES = 20 << 20
"""An entry has less (`cache.actions.MAX_ENTRY_BYTES`), and so has a batch of blobs."""
NOT_FOUND = "NOT_FOUND"
UNAVAILABLE = "UNAVAILABLE"
DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
_UNDER_WAY = 128
"""Questions that wait for their answers at the same time."""
_LONGEST_TEXT = 200
_INSTANT_S = 0.001
"""When no time is left: what is asked then ends at once, by gRPC's own deadline."""
_RETRY = {
    "name": [{}],
    "retryPolicy": {
        "maxAttempts": 3,
        "initialBackoff": "0.05s",
        "maxBackoff": "0.5s",
        "backoffMultiplier": 3,
        "retryableStatusCodes": [UNAVAILABLE],
    },
}


class ReapiServer(NamedTuple):
    """Where a server is. `instance`: which of its stores and executors, `""` for the one that it has."""

    host: str
    port: int
    instance: str = ""
    tls: bool = False

    @property
    def authority(self) -> str:
        """`host:port`, as gRPC and people write it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{'grpcs' if self.tls else 'grpc'}://{self.authority}{'/' if self.instance else ''}{self.instance}"


class RpcTrouble(NamedTuple):
    """Why there is no answer: a code of gRPC, and the other side's words, in printable characters."""

    code: str
    text: str = ""

    def __str__(self) -> str:
        return f"{self.code}: {self.text}" if self.text else self.code


def _known_certificates() -> bytes | None:
    """Those of the file that SSL_CERT_FILE names, as elsewhere in Python; None: gRPC's own list."""
    try:
        return Path(os.environ["SSL_CERT_FILE"]).read_bytes()
    except (KeyError, OSError):
        return None


def why(trouble: RpcTrouble) -> str:
    """What is the matter with a server, to follow its name and a colon."""
    # gRPC gives a new connection as long as the call; whichever of the two clocks rings first names it.
    if trouble.code == DEADLINE_EXCEEDED or (trouble.code == UNAVAILABLE and "timed out" in trouble.text):
        return "it does not answer in time"
    if trouble.code == UNAVAILABLE:
        # gRPC writes what it tried before what came of it.
        return trouble.text.rpartition(": ")[2] or "it cannot be reached"
    return f"it answers {trouble}"


def server_of(url: CacheUrl) -> ReapiServer:
    """Where `grpc://host:port[/instance]` or `grpcs://` leads."""
    return ReapiServer(url.host, url.port, url.path.strip("/"), url.scheme == "grpcs")


class ReapiChannel:
    """A connection to one server, made when the first call needs it. Several threads may call at once.
    `authorization`: the header's value, `""` for none."""

    def __init__(self, server: ReapiServer, authorization: str = "") -> None:
        import grpc

        self._grpc: Any = grpc
        options = [
            ("grpc.max_receive_message_length", MOST_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MOST_MESSAGE_BYTES),
            ("grpc.service_config", json.dumps({"methodConfig": [_RETRY]})),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if server.tls:
            credentials = grpc.ssl_channel_credentials(_known_certificates())
            self._channel: Any = grpc.secure_channel(server.authority, credentials, options)
        else:
            self._channel = grpc.insecure_channel(server.authority, options)
        self._metadata = (("authorization", authorization),) if authorization else ()

    def close(self) -> None:
        """End every call under way."""
        self._channel.close()

    def ask(self, method: str, request: bytes, timeout_s: float) -> bytes | RpcTrouble:
        """The answer to one question."""
        return next(self.ask_all(method, (request,), lambda: timeout_s))

    def ask_all(
        self, method: str, requests: Iterable[bytes], left_s: Callable[[], float], under_way: int = _UNDER_WAY
    ) -> Iterator[bytes | RpcTrouble]:
        """The answers to many, `under_way` asked at the same time, in their order. `left_s`: asked when each is asked,
        how long it may take. Close the iterator to want no more."""
        call = self._call("unary_unary", method)
        waiting: deque[Any] = deque()
        try:
            for request in requests:
                waiting.append(self._begun(partial(call.future, request, max(left_s(), _INSTANT_S), self._metadata)))
                if len(waiting) >= under_way:
                    yield self._answer(waiting.popleft())
            while waiting:
                yield self._answer(waiting.popleft())
        finally:
            for future in waiting:
                if not isinstance(future, RpcTrouble):
                    future.cancel()

    def receive(self, method: str, request: bytes, timeout_s: float | None) -> Iterator[bytes | RpcTrouble]:
        """The answers to one question as they come; a trouble is the last. Close the iterator to want no more."""
        stream = self._begun(partial(self._call("unary_stream", method), request, timeout_s, self._metadata))
        if isinstance(stream, RpcTrouble):
            yield stream
            return
        try:
            yield from stream
        except self._grpc.RpcError as error:
            yield _trouble(error)
        finally:
            stream.cancel()

    def send(self, method: str, requests: Iterator[bytes], timeout_s: float) -> bytes | RpcTrouble:
        """The answer to a question in many parts."""
        try:
            answer: bytes = self._call("stream_unary", method)(requests, timeout_s, self._metadata)
        except (self._grpc.RpcError, ValueError) as error:
            return _trouble(error)
        return answer

    def _call(self, form: str, method: str) -> Any:
        return getattr(self._channel, form)(f"/{method}", None, None)

    def _begun(self, begin: Callable[[], Any]) -> Any:
        try:
            return begin()
        except (self._grpc.RpcError, ValueError) as error:  # ValueError: the channel was closed
            return _trouble(error)

    def _answer(self, future: Any) -> bytes | RpcTrouble:
        if isinstance(future, RpcTrouble):
            return future
        try:
            answer: bytes = future.result()
        except self._grpc.FutureCancelledError:
            return RpcTrouble("CANCELLED")
        except self._grpc.RpcError as error:
            return _trouble(error)
        return answer


def _trouble(error: Any) -> RpcTrouble:
    if not hasattr(error, "code"):
        return RpcTrouble("CANCELLED", visible(str(error))[:_LONGEST_TEXT])
    words = (error.details() or "").partition("\n")[0]
    return RpcTrouble(error.code().name, visible(words)[:_LONGEST_TEXT])
