"""What a readiness gate asks the firmware over JSON-RPC, when, and what came back.

Sans-I/O: instants in, request bytes out, answers in. Does not decide whether a device is ready (`boot/watcher.py`).
Invariant: at most one request per `ASK_EVERY_S`, and only an answer to a request of this boot is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.boot.readiness import Health, no_health, read_health
from pipeline.formats.jsonrpc import METHOD_NOT_FOUND, Calls, error_text

ASK_EVERY_S = 0.25
"""Time between two requests."""


class ReadinessPoll:
    """The questions of one deploy. Silent until `due_at_s` is set."""

    def __init__(self) -> None:
        self._calls = Calls("hotplate-ready")
        self.due_at_s: float | None = None
        """When the next request is to be sent."""
        self.health: Health | None = None
        self.problem = ""
        """Why the last answer to `health` was none."""
        self.refused = False
        """The firmware has no `health`."""

    @property
    def count(self) -> int:
        """How often the firmware was asked."""
        return self._calls.made

    def restart(self) -> None:
        """The device was reset: nobody knows who runs now, and nobody will answer what was asked before."""
        self._calls.forget()
        self.due_at_s = self.health = None

    def request(self, now_s: float, method: str) -> bytes:
        """The request that is to be sent now, if any."""
        if self.due_at_s is None or now_s < self.due_at_s:
            return b""
        self.due_at_s = now_s + ASK_EVERY_S
        return self._calls.request(method)[1]

    def hear(self, message: Mapping[str, Any]) -> bool:
        """Take a message; True when it says how the modules are (`health` holds it)."""
        answered = self._calls.match(message)
        if answered is None or answered[1] != "health":
            return False
        if "error" in message:
            self.problem = f"the firmware answers `health` with {error_text(message)}"
            self.refused = message["error"].get("code") == METHOD_NOT_FOUND
            return False
        self.health = read_health(message["result"])
        if self.health is None:
            self.problem = no_health(message["result"])
        return self.health is not None
