"""Keep Python's signal handlers out of code that would lose their exceptions: callbacks from C.

A handler runs between any two instructions of the main thread. What it raises within a callback from C is printed and
dropped, KeyboardInterrupt too, so that Ctrl-C would do nothing. Knows no CPU. Invariant: each signal that came during
the block is delivered right after it, to the handler that was there before.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # `signal` makes enumerations of it
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_NUMBERS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM") if hasattr(signal, name)]
"""Those whose handlers usually raise."""


@contextmanager
def held_signals() -> Iterator[None]:
    """Deliver signals after this block, which must be short. A mask would not do: a signal that another thread takes
    has its handler run in the main thread all the same."""
    if threading.current_thread() is not threading.main_thread():
        yield  # handlers never run here
        return
    came: dict[int, None] = {}
    replaced: list[tuple[int, Any]] = []
    try:
        for number in _NUMBERS:
            handler = signal.getsignal(number)
            if callable(handler):
                replaced.append((number, handler))
                signal.signal(number, lambda signum, _frame: came.setdefault(signum))
        yield
    finally:
        _put_back(replaced)
        for number in came:
            signal.raise_signal(number)


def _put_back(replaced: list[tuple[int, Any]]) -> None:
    """All of them, even if one that was put back raises at once."""
    if replaced:
        number, handler = replaced.pop()
        try:
            signal.signal(number, handler)
        finally:
            _put_back(replaced)
