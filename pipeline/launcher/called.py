"""A compiler that is run as a child: what it printed and made, and signals passed on to it.

Knows processes of the caller's own process group: make and ninja end that group themselves. Does not know what is
compiled. Invariant: the child has ended before this process goes on, however it is asked to end.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Mapping, Sequence
from types import FrameType

from cache.named_tuple import NamedTuple
from pipeline.effects.process import captured

_PASSED_ON = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, name)
)


class ChildEnd(NamedTuple):
    """`code`: negative for a signal."""

    code: int
    out: bytes
    err: bytes
    duration_s: float


class Called(NamedTuple):
    """What a successful compile left behind; `rules`: its depfile."""

    out: bytes
    err: bytes
    body: bytes
    rules: bytes
    duration_s: float

    def names(self, root: str) -> bool:
        """Does any of it hold this path? Depfiles may: names in them are put in place."""
        wanted = os.fsencode(root)
        return any(wanted in data for data in (self.out, self.err, self.body)) or not _is_simple(root, self.rules)


def _is_simple(root: str, rules: bytes) -> bool:
    """Does the path stand in a depfile only as the whole beginning of names, spelt as it is?"""
    path = os.fsencode(root)
    if any(char in b" \t$#\\:" for char in path):
        return not rules  # make's way to spell that
    parts = rules.split(path)
    return all(not part or part[-1:].isspace() for part in parts[:-1]) and all(part[:1] == b"/" for part in parts[1:])


def run_child(words: Sequence[str], environment: Mapping[str, str]) -> ChildEnd:
    """Run a command to its end, with our input."""
    began_s = time.monotonic()
    with contextlib.ExitStack() as stack:

        def started(pid: int) -> None:
            for number in _PASSED_ON:
                if signal.getsignal(number) != signal.SIG_IGN:
                    before = signal.signal(number, lambda n, _: _pass_on(pid, n, _))
                    stack.callback(signal.signal, number, before)

        try:
            code, out, err = captured(words, environment, started)
        except OSError as error:
            text = f"hotplate: error: the compiler '{words[0]}' cannot be started: {error.strerror}\n"
            return ChildEnd(127 if isinstance(error, FileNotFoundError) else 126, b"", text.encode(), 0.0)
    return ChildEnd(code, out, err, time.monotonic() - began_s)


def _pass_on(pid: int, number: int, _: FrameType | None) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, number)
