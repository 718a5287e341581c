"""JSON-RPC 2.0 on a serial line: which lines are messages, what they name, and how a request is written.

Pure; does not know ports or which methods exist. Invariant: what `parse_jsonrpc` gives back is a request, a
notification or a response as the specification defines them, and nothing else that happens to be JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

METHOD_NOT_FOUND = -32601


def parse_jsonrpc(line: bytes) -> dict[str, Any] | None:
    """The JSON-RPC 2.0 message (request, notification or response) that is the whole of `line`, or `None`.

    Source: jsonrpc.org/specification, sections 4 and 5. Batches are not messages of a line server."""
    if not line.lstrip().startswith(b"{"):
        return None
    try:
        value = json.loads(line.decode("utf-8"), parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or value.get("jsonrpc") != "2.0":
        return None
    if "id" in value and not (value["id"] is None or _is_id(value["id"])):
        return None
    if "method" in value:
        valid = isinstance(value["method"], str) and isinstance(value.get("params", {}), dict | list)
        return value if valid and not ("result" in value or "error" in value) else None
    if "id" not in value or ("result" in value) == ("error" in value):
        return None
    return value if "result" in value or isinstance(value["error"], dict) else None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{text} is no number that a program can hold")
    return number


def _is_id(value: object) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def is_response(message: Mapping[str, Any]) -> bool:
    """Does a valid message answer a request (with a result or an error)?"""
    return "method" not in message


def reported_sha256(message: Mapping[str, Any]) -> str | None:
    """`app_elf_sha256` of a message's params or result, if it carries one."""
    return _reported(message, "app_elf_sha256")


def reported_mac(message: Mapping[str, Any]) -> str | None:
    """`mac` of a message's params or result, if it carries one."""
    return _reported(message, "mac")


def _reported(message: Mapping[str, Any], name: str) -> str | None:
    for key in ("params", "result"):
        body = message.get(key)
        if isinstance(body, dict) and isinstance(body.get(name), str):
            return str(body[name])
    return None


def request(method: str, id: str, params: Any = None) -> bytes:
    """One request as a line. Begins with a line end too: what stands half-typed in the device's buffer is ended by it
    instead of spoiling the request."""
    message = {"jsonrpc": "2.0", "id": id, "method": method, **({} if params is None else {"params": params})}
    return b"\n" + json.dumps(message, separators=(",", ":")).encode() + b"\n"


def error_text(message: Mapping[str, Any]) -> str:
    """`error -32601 (Method not found)` of an error response."""
    error = message["error"]
    return f"error {error.get('code')} ({str(error.get('message', ''))[:200]})"


MAX_OPEN = 256


class Calls:
    """Requests under way: makes ids that nobody else uses on this line, and knows which response belongs to which.

    `prefix` tells one asker from another: a response to somebody else's request is not taken."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._made = 0
        self._open: dict[str, str] = {}

    @property
    def made(self) -> int:
        """How many requests there were."""
        return self._made

    def request(self, method: str, params: Any = None) -> tuple[str, bytes]:
        """A new request: its id, and its bytes."""
        self._made += 1
        name = f"{self._prefix}-{self._made}"
        self._open[name] = method
        if len(self._open) > MAX_OPEN:
            del self._open[next(iter(self._open))]
        return name, request(method, name, params)

    def match(self, message: Mapping[str, Any]) -> tuple[str, str] | None:
        """(id, method) of the request that `message` answers. Each is answered once."""
        name = message.get("id")
        if not is_response(message) or not isinstance(name, str) or name not in self._open:
            return None
        return name, self._open.pop(name)

    def forget(self, name: str | None = None) -> None:
        """Nobody waits for this answer any more (`None`: for none of them)."""
        if name is None:
            self._open.clear()
        else:
            self._open.pop(name, None)
