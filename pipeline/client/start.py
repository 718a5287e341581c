"""Start the service when somebody needs it and it is not there (`[service] autostart = true`).

Knows processes and the service's directory. Invariants: of many that start it at once, one service remains, and all
find it; one that cannot be started costs a wait of `START_S` once, and then everything works without it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from cache.durable import FileLock
from pipeline.client import endpoint
from pipeline.client.connection import Connection, NoService

START_S = 15.0
LOOK_S = 0.02
STARTING = "starting.lock"


def start_service() -> str:
    """Start it, or wait for whoever is starting it; "" once it answers, else why it does not."""
    directory = endpoint.runtime_dir(create=True)
    if directory is None:
        return "there is no runtime directory of this user's alone"
    deadline = time.monotonic() + START_S
    lock = FileLock(Path(directory, STARTING))
    child: subprocess.Popen[bytes] | None = None
    try:
        if lock.try_acquire(f"pid {os.getpid()}") is None and not _answers():
            child = _start(directory)
        while time.monotonic() < deadline:
            if _answers():
                return ""
            if child is not None and child.poll() is not None:
                return f"it ended with {child.returncode}: see {directory}/{endpoint.LOG}"
            time.sleep(LOOK_S)
    except OSError as error:
        return f"it cannot be started: {error}"
    finally:
        lock.release()
    return f"it has not answered for {START_S:g} s"


def _start(directory: str) -> subprocess.Popen[bytes]:
    """Detached: it has no terminal, no directory that is in anybody's way, and outlives whoever started it."""
    log = os.open(f"{directory}/{endpoint.LOG}", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "doit", "serve"],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            close_fds=True,
        )
    finally:
        os.close(log)


def _answers() -> bool:
    try:
        Connection.open().close()
    except NoService as error:
        return not error.silent  # one that cannot be used is there all the same
    return True
