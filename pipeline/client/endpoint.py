"""Where the service of this user listens: a directory that nobody else can enter, and the names in it.

Knows the platform's rules for runtime directories. Does not know sockets or the protocol. Invariant: `runtime_dir` is
None, or a directory of this user's with mode 0700 that is no link and has a name short enough for sockets; nothing is
read from or put into any other.

    $XDG_RUNTIME_DIR/hotplate/          else  /tmp/hotplate-UID/
        service.sock    0600            the service
        service.lock                    held by the service under way
        runner.sock     0600            its runner (`service/runner.py`)
        http.json       0600            {"url": ..., "token": ...} of the page
        service.log                     what it has to say, bounded

The fast path asks here: nothing is imported that the interpreter has not loaded.
"""

import os
import stat
import sys

SOCKET = "service.sock"
LOCK = "service.lock"
RUNNER_SOCKET = "runner.sock"
HTTP = "http.json"
LOG = "service.log"

VARIABLE = "HOTPLATE_SERVICE"
"""`0` in the environment: work alone."""

MAX_SOCKET_PATH = 100
"""Bytes; Linux takes 107, macOS 103."""


def runtime_dir(*, create: bool = False) -> "str | None":
    """The directory, if it is there (or could be made) and safe. None on Windows, where there is no service, and
    where the caller wants none."""
    if os.name != "posix" or os.environ.get(VARIABLE) == "0":
        return None
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    user = os.getuid()
    path = f"{base}/hotplate" if base[:1] == "/" else f"{_temporary()}/hotplate-{user}"
    if len(os.fsencode(f"{path}/{RUNNER_SOCKET}")) > MAX_SOCKET_PATH:
        return None
    if create:
        try:  # noqa: SIM105 - contextlib is not loaded
            os.mkdir(path, 0o700)  # noqa: PTH102
        except OSError:
            pass  # it is there, or the look below says no
    try:
        status = os.lstat(path)
    except OSError:
        return None
    safe = stat.S_ISDIR(status.st_mode) and status.st_uid == user and not status.st_mode & 0o077
    return path if safe else None


def _temporary() -> str:
    # Not TMPDIR: the service and its clients may have been started with different ones.
    return "/private/tmp" if sys.platform == "darwin" else "/tmp"
