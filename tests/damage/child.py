"""Call a function in a forked process with fewer rights or less room, and get its result back.

For what must not happen to the test's own process: privileges dropped, file sizes limited. The function may use only
modules that are loaded already: the new user need not be able to read them.
"""

from __future__ import annotations

import os
import pickle
import resource
import signal
import traceback
import warnings
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
NOBODY = 65534


def is_root() -> bool:
    """Does the kernel ignore permissions for us?"""
    return os.geteuid() == 0


def in_child(function: Callable[[], T], *, unprivileged: bool = False, max_file_bytes: int | None = None) -> T:
    """`function()` in a child. `unprivileged`: as `nobody` when we are root, so that permissions count.
    `max_file_bytes`: a write beyond it fails as on a full disk. An exception of it is raised here as AssertionError."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the parent's other threads hold nothing that we use
        child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            if unprivileged and is_root():
                os.setegid(NOBODY)
                os.seteuid(NOBODY)
            if max_file_bytes is not None:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))
            try:
                answer = (True, function())
            except BaseException:
                answer = (False, traceback.format_exc())  # type: ignore[assignment]
            # A pipe has no size limit.
            data = pickle.dumps(answer)
            while data:
                data = data[os.write(writing, data) :]
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        data = stream.read()
    os.waitpid(child, 0)
    assert data, "the child died without an answer"
    ok, value = pickle.loads(data)
    assert ok, value
    return value  # type: ignore[no-any-return]
