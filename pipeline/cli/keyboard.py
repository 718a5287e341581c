"""What is typed at a monitor: lines for the board, and the few that are for us.

Knows stdin and JSON-RPC's requests; not who has the port. Invariant: every byte is sent as it came, but for lines that
begin with `/call`, `/reset` or `//`; each call is answered here once: by the board, by its reset, or by time.

    /call METHOD [JSON]     ask, and show the answer
    /reset                  reset the board
    //...                   send a line that begins with a slash
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from collections.abc import Mapping
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.formats.jsonrpc import Calls, error_text
from pipeline.records import json_text
from pipeline.text import visible, visible_text

ANSWER_S = 5.0
"""How long a typed call waits: a person may have typed it while the board boots."""


class TypedCall(NamedTuple):
    """`/call`."""

    method: str
    params: Any


class TypedReset(NamedTuple):
    """`/reset`."""


class TypedMistake(NamedTuple):
    """A line for us that says nothing; `text` is what is wrong with it."""

    text: str


TypedItem = bytes | TypedCall | TypedReset | TypedMistake


class TypedLines:
    """Feed it what is read; it gives what is meant."""

    def __init__(self) -> None:
        self._held = b""
        self._begins = True
        """Is the next byte the first of a line?"""

    def feed(self, data: bytes) -> list[TypedItem]:
        """A line that may be for us is held until it ends; all else goes on at once."""
        found: list[TypedItem] = []
        for line in (self._held + data).splitlines(keepends=True):
            self._held = b""
            if not self._begins or line[:1] != b"/":
                found.append(line)
            elif not line.endswith((b"\n", b"\r")):
                self._held = line
                break
            else:
                found.append(_meant(line))
            self._begins = line.endswith((b"\n", b"\r"))
        return found

    def rest(self) -> list[TypedItem]:
        """Stdin has ended."""
        held, self._held = self._held, b""
        return [_meant(held)] if held else []


def _meant(line: bytes) -> TypedItem:
    if line.startswith(b"//"):
        return line[1:]
    words = line.decode("utf-8", "backslashreplace").strip().split(None, 2)
    if words == ["/reset"]:
        return TypedReset()
    if words[0] != "/call":
        return line
    if len(words) < 2:
        return TypedMistake("/call needs the name of a method, as in: /call health")
    try:
        params = json.loads(words[2]) if len(words) > 2 else None
    except ValueError as error:
        return TypedMistake(f"/call {words[1]}: the parameters are not JSON: {error}")
    if params is not None and not isinstance(params, dict | list):
        return TypedMistake(f"/call {words[1]}: the parameters must be an array or an object, as in: [1]")
    return TypedCall(words[1], params)


class TypedCalls:
    """Calls under way. `prefix` makes their ids those of this monitor."""

    def __init__(self, prefix: str) -> None:
        self._calls = Calls(prefix)
        self._sent: dict[str, tuple[str, float]] = {}

    def ask(self, call: TypedCall, now_s: float) -> bytes:
        """The bytes of the request."""
        name, request = self._calls.request(call.method, call.params)
        self._sent[name] = (call.method, now_s)
        return request

    def answered(self, message: Mapping[str, Any], at_s: float) -> str | None:
        """What to tell of a message; None when it answers no call of ours."""
        if (found := self._calls.match(message)) is None:
            return None
        method, sent_s = self._sent.pop(found[0])
        after = f"{visible(method)} answered after {max(0, round((at_s - sent_s) * 1000))} ms"
        if "error" in message:
            return f"{after}: {visible(error_text(message))}"
        return f"{after}: {visible_text(json_text(message['result'], indent=2))}"

    def reset(self, cause: str) -> list[str]:
        """The board cannot answer any more."""
        self._calls.forget()
        sent, self._sent = self._sent, {}
        return [f"{visible(method)}: {cause}" for method, _ in sent.values()]

    def late(self, now_s: float) -> list[str]:
        """Those that have waited long enough."""
        told = []
        for name, (method, sent_s) in list(self._sent.items()):
            if now_s >= sent_s + ANSWER_S:
                del self._sent[name]
                self._calls.forget(name)
                told.append(f"{visible(method)}: no answer came within {round(ANSWER_S * 1000)} ms")
        return told


class Typed:
    """Stdin, read in a thread because no system waits for a terminal and a serial port at once on every platform."""

    def __init__(self) -> None:
        self._chunks: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.ended = sys.stdin is None or sys.stdin.closed
        if not self.ended:
            # A daemon: nobody can end a read of a terminal. It reads the descriptor, because a thread that holds the
            # lock of a buffered stdin makes the interpreter's end fail.
            threading.Thread(target=self._read, args=(sys.stdin.fileno(),), name="stdin", daemon=True).start()

    def _read(self, stdin: int) -> None:
        data = b"?"
        while data:
            try:
                data = os.read(stdin, 4096)
            except OSError:
                data = b""
            self._chunks.put(data)

    def take(self, timeout_s: float) -> bytes | None:
        """What was typed; `None` when nothing was within `timeout_s`."""
        if self.ended:
            return None
        try:
            data = self._chunks.get(timeout=timeout_s) if timeout_s else self._chunks.get_nowait()
        except queue.Empty:
            return None
        self.ended = not data
        return data or None
