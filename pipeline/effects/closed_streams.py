"""The standard streams where the caller closed them: Python then has none, and whoever prints fails.

Knows descriptors. Invariant: afterwards each stream takes what is written to it, and its descriptor is open, so that no
file of ours and no child gets that number.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def open_closed_streams() -> None:
    """Put the null device in the place of each stream that is closed."""
    if None not in (sys.stdin, sys.stdout, sys.stderr):
        return
    for number, (name, mode) in enumerate(_STREAMS):
        if getattr(sys, name) is None:
            handle = os.open(os.devnull, os.O_RDWR)
            if handle != number and not _is_open(number):
                os.dup2(handle, number)
                os.close(handle)
                handle = number
            os.set_inheritable(handle, True)
            setattr(sys, name, os.fdopen(handle, mode, closefd=False))
    _tell_doit()


def _is_open(number: int) -> bool:
    """Has a file that was opened since this descriptor?"""
    with contextlib.suppress(OSError):
        os.fstat(number)
        return True
    return False


def _tell_doit() -> None:
    """doit's command, which loads us, has kept what there was before."""
    frame = sys._getframe()
    while (caller := frame.f_back) is not None:
        frame = caller
        command: Any = frame.f_locals.get("self")
        if getattr(command, "outstream", sys) is None:
            command.outstream = sys.stdout
