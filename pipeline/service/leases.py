"""Who may write to which port: a table of leases, and who waits for one.

Pure: no clock, no ports, no connections. An exclusive lease is one writer; a shared one (a terminal) may write while
nobody has an exclusive one, and so never waits. Invariant: each port has at most one exclusive lease; those who wait
get it in the order in which they asked, unless somebody takes it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from cache.named_tuple import NamedTuple
from pipeline.client.protocol import Holder


class PortLease(NamedTuple):
    """Of `port`; `number` is its name."""

    number: int
    port: str
    holder: Holder


@dataclass(slots=True)
class _LeaseRow:
    """Of one port."""

    exclusive: PortLease | None = None
    shared: dict[int, PortLease] = field(default_factory=dict)
    waiting: deque[PortLease] = field(default_factory=deque)


class Leases:
    """`ask`, then `leave` with the lease's number, whether it was granted or not."""

    def __init__(self) -> None:
        self._rows: dict[str, _LeaseRow] = {}
        self._ports: dict[int, str] = {}
        self._last = 0

    def ask(self, port: str, holder: Holder) -> PortLease:
        """A lease, granted if `granted` says so, else in line."""
        self._last += 1
        lease = PortLease(self._last, port, holder)
        self._ports[lease.number] = port
        row = self._rows.setdefault(port, _LeaseRow())
        if not holder.exclusive:
            row.shared[lease.number] = lease
        elif row.exclusive is None:
            row.exclusive = lease
        else:
            row.waiting.append(lease)
        return lease

    def granted(self, lease: PortLease) -> bool:
        """Does it hold?"""
        row = self._rows.get(lease.port, _LeaseRow())
        return lease.number in row.shared or row.exclusive == lease

    def may_write(self, lease: PortLease) -> bool:
        """May its holder write now?"""
        row = self._rows.get(lease.port, _LeaseRow())
        return row.exclusive == lease or (lease.number in row.shared and row.exclusive is None)

    def exclusive(self, port: str) -> Holder | None:
        """Who writes."""
        lease = self._rows.get(port, _LeaseRow()).exclusive
        return None if lease is None else lease.holder

    def take(self, lease: PortLease) -> PortLease | None:
        """Give it the exclusive lease now; the one that it takes it from, which holds no more."""
        row = self._rows[lease.port]
        before = row.exclusive
        if before == lease:
            return None
        if lease in row.waiting:
            row.waiting.remove(lease)
        if before is not None:
            del self._ports[before.number]
        row.exclusive = lease
        return before

    def leave(self, number: int) -> PortLease | None:
        """End a lease, or a wait for one; the lease that is granted thereby. Idempotent."""
        port = self._ports.pop(number, None)
        if port is None:
            return None
        row = self._rows[port]
        row.shared.pop(number, None)
        row.waiting = deque(lease for lease in row.waiting if lease.number != number)
        granted = None
        if row.exclusive is not None and row.exclusive.number == number:
            row.exclusive = granted = row.waiting.popleft() if row.waiting else None
        if row.exclusive is None and not row.shared:
            del self._rows[port]
        return granted

    @property
    def any_exclusive(self) -> bool:
        """Is any board being written to?"""
        return any(row.exclusive is not None for row in self._rows.values())

    def __len__(self) -> int:
        """Leases and waits."""
        return len(self._ports)
