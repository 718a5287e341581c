"""Who holds a board. Pure, and apart from the protocol: each deploy leases its board, and few speak to a service."""

from __future__ import annotations

from cache.named_tuple import NamedTuple


class Holder(NamedTuple):
    """Who holds a lease, and why. `tx`: the transaction, "" where it is none; `since_at`: instant, UTC; `exclusive`:
    nobody else may write meanwhile."""

    pid: int
    command: str
    reason: str = ""
    tx: str = ""
    since_at: str = ""
    exclusive: bool = True

    @property
    def text(self) -> str:
        """How notes and failures name it."""
        return f"{self.tx or self.reason or self.command} (pid {self.pid})"
