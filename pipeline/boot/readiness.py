"""What a firmware's `health` says, and whether it is well.

Pure; does not know ports, time or how a boot goes (`boot/watcher.py`). Invariant: a `Health` holds only what the device
itself said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.boot.log_patterns import visible
from pipeline.model import FailureCategory

MAX_MODULES = 64
MAX_TEXT = 120
UNHEALTHY_HINT = "fix the named module, or set readiness.allow_unhealthy = true to deploy all the same"
NO_HEALTH_HINT = 'let the firmware answer `health`, or set readiness.until = "rpc:ready"'


class Module(NamedTuple):
    """One module of a firmware's `health`. `held`: bytes of the heap, `None` when it does not say."""

    name: str
    setup_ok: bool
    at_fault: bool = False
    held: int | None = None
    health: str = ""


class Health(NamedTuple):
    """A firmware's answer to `health`. `heap_free`: bytes, `None` when it does not say."""

    modules: tuple[Module, ...]
    ok: bool
    heap_free: int | None = None

    @property
    def bad(self) -> tuple[Module, ...]:
        """The modules that are not set up."""
        return tuple(module for module in self.modules if not module.setup_ok)

    @property
    def complaint(self) -> str:
        """What is not well, for people."""
        told = (f"{visible(m.name)} ({visible(m.health)})" if m.health else visible(m.name) for m in self.bad)
        return "; ".join(told) or "the firmware says `ok`: false"

    @property
    def reason(self) -> str:
        """The same for programs."""
        return f"{FailureCategory.UNHEALTHY}:{','.join(module.name for module in self.bad)}".rstrip(":")


def read_health(result: Any) -> Health | None:
    """The `result` of `health`, or `None` when it does not list modules with `name` and `setup_ok`: a list without a
    module proves nothing. `ok` is the device's own word where it gives one, and never better than its modules."""
    rows = result.get("modules") if isinstance(result, Mapping) else None
    if not isinstance(rows, list) or not rows or len(rows) > MAX_MODULES:
        return None
    modules = []
    for row in rows:
        if not isinstance(row, Mapping) or not isinstance(row.get("name"), str):
            return None
        if not isinstance(row.get("setup_ok"), bool):
            return None
        held = row.get("held")
        modules.append(
            Module(
                row["name"][:MAX_TEXT],
                row["setup_ok"],
                row.get("at_fault") is True,
                held if isinstance(held, int) and not isinstance(held, bool) else None,
                str(row.get("health", ""))[:MAX_TEXT],
            )
        )
    said, heap = result.get("ok", True), result.get("heap")
    free = heap.get("free") if isinstance(heap, Mapping) else None
    ok = said is True and all(module.setup_ok for module in modules)
    return Health(tuple(modules), ok, free if type(free) is int and free >= 0 else None)


def no_health(result: Any) -> str:
    """Why `read_health` found nothing in this `result`."""
    rows = result.get("modules") if isinstance(result, Mapping) else None
    if rows == []:
        return "the answer to `health` lists no module, which proves nothing"
    return "the answer to `health` lists no modules with `name` and `setup_ok`"
