"""What a child of the runner becomes: the process that handed its run over.

Knows what of a process a run can see. Does not know frames or the runner. Invariants: after `become` returned True the
place, the environment, the streams and the dispositions of signals are the client's; before the client says so nothing
of the run is begun.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from cache.ahead import values
from cache.named_tuple import NamedTuple
from pipeline.effects.end_told import let_streams_go, tell_end
from pipeline.fastpath import before_end, told_look


class HandedRun(NamedTuple):
    """What a child is to be: see `client.handoff.described`; `descriptors`: 0, 1, 2 of the client, and where the word
    to begin comes from."""

    place: Sequence[str]
    argv: Sequence[str]
    path: Sequence[str]
    streams: Sequence[str]
    environment: Mapping[bytes, bytes]
    descriptors: Sequence[int]
    since_ns: int = 0
    """On our own clock of file stamps: an instant after which the code was found to be what is loaded."""
    look: Sequence[bytes] = ()
    """What the client knows to have moved: see `fastpath.FirstLook.told`."""
    end: int = -1
    """Where to say how the run ended, before this process is taken down."""


def become(handed: HandedRun) -> bool:
    """Take over a client's place, streams and environment. False when it does not want that any more."""
    _, _, _, go = handed.descriptors
    values().began_ns = handed.since_ns
    began = os.read(go, 1)
    if not began:
        return False
    for number, descriptor in enumerate(handed.descriptors[:3]):
        os.dup2(descriptor, number)
    for descriptor in handed.descriptors:
        os.close(descriptor)
    cwd, umask, nice, asked_s, program, _, *ignored = handed.place
    os.chdir(cwd)
    os.umask(int(umask))
    with contextlib.suppress(OSError):
        os.nice(int(nice) - os.nice(0))
    os.environb.clear()
    os.environb.update(handed.environment)
    from pipeline.effects.host import ASKED_AT

    os.environ.setdefault(ASKED_AT, asked_s)
    if handed.end >= 0:
        before_end.append(partial(tell_end, handed.end))
    sys.argv = [program, *handed.argv]
    if handed.path[1:] != sys.path[1:] or _offers_packages(handed.path[0]):
        from pipeline.fastpath.handover import forget_plugins

        forget_plugins()
    sys.path[:] = handed.path
    _open_streams(handed.streams)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if str(int(number)) in ignored else default)
    signal.signal(signal.SIGUSR1, _detached)
    signal.signal(signal.SIGUSR2, _left_alone)
    import locale
    import time as of_time

    with contextlib.suppress(locale.Error):
        locale.setlocale(locale.LC_CTYPE, "")
    of_time.tzset()
    return True


def _offers_packages(directory: str) -> bool:
    """Could an installed package lie there, which is where the client's script or project is?"""
    try:
        return any(name.endswith((".dist-info", ".egg-info")) for name in os.listdir(directory or "."))  # noqa: PTH208
    except OSError:
        return False


def _open_streams(facts: Sequence[str]) -> None:
    """As the interpreter would have made them for that client."""
    import io

    for number, name in enumerate(("stdin", "stdout", "stderr")):
        encoding, errors, line_buffering, write_through = facts[4 * number : 4 * number + 4]
        mode = "rb" if number == 0 else "wb"
        unbuffered = number > 0 and write_through == "1"
        binary: Any = open(number, mode, 0 if unbuffered else -1, closefd=False)  # noqa: SIM115
        raw = binary if unbuffered else binary.raw
        raw.name = f"<{name}>"
        made = io.TextIOWrapper(
            binary, encoding, errors, newline=None if number == 0 else "\n",
            line_buffering=line_buffering == "1", write_through=write_through == "1",
        )  # fmt: skip
        made.mode = mode[0]  # type: ignore[misc]
        setattr(sys, name, made)
        setattr(sys, f"__{name}__", made)


def _detached(number: int, _: Any) -> None:
    """The client has gone, and the run goes on: what it says now only its log gets."""
    del number
    let_streams_go()


def _left_alone(number: int, frame: Any) -> None:
    """The client was killed. Where this run writes flash that is let finish; what others write is no matter of it."""
    del number
    from pipeline.run.lock import is_writing

    if is_writing():
        _detached(0, frame)
    else:
        signal.raise_signal(signal.SIGTERM)


def run(handed: HandedRun) -> int:
    """Be the program that the client was, which both are doit from here on."""
    from pipeline.hotplate import go_on

    return go_on(sys.argv[1:], told_look(sys.argv[1:], handed.look), handed.place[5])
