"""Ask the compiled loop (`fastpath/statloop.c`) which files of a listing moved.

Knows where the program lies and what makes it ours; `native_build.py` made it. Does not know state files or what a
listing means. Invariant: what is not certainly the program that `native_build.py` tried out is not started, and
whatever it does but answer in full is no answer; then the caller looks for itself.

Part of the warm path: imports only what the interpreter has loaded, and `cache.location`.
"""

import os
import sys

from cache.location import user_cache_dir

TYPE_CHECKING = False  # type checkers know the name
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pipeline.fastpath import FileStamp

VARIABLE = "HOTPLATE_NATIVE"
"""`0` in the environment: do without."""
PREFIX = "statloop-"
WORTH_FILES = 1500
"""From here on the program saves more than its start costs."""
_MOVED = b"moved "
_MODE = 0o100500
"""A file, not a link, that nobody may write and nobody else may use."""


def directory() -> "str | None":
    """Where the user's programs lie; None where there are none (no home, Windows, switched off)."""
    if os.environ.get(VARIABLE) == "0" or not hasattr(os, "posix_spawn"):
        return None
    cache = user_cache_dir(os.environ, sys.platform)
    return None if cache is None else f"{cache}/native"


def own_stamp(path: str, stamp_of: "Callable[[os.stat_result], FileStamp]") -> "FileStamp | None":
    """The stamp of a program that this user made and nobody can have changed, None otherwise."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return stamp_of(status) if status.st_mode == _MODE and status.st_uid == os.geteuid() else None


def trusted(named: "Mapping[str, FileStamp]", stamp_of: "Callable[[os.stat_result], FileStamp]") -> "str | None":
    """The path of the program that a state names (name -> stamp), if it is the one that was tried out."""
    place = directory()
    for name, stamp in named.items():
        path = f"{place}/{name}"
        if place and name.startswith(PREFIX) and "/" not in name and own_stamp(path, stamp_of) == stamp:
            return path
    return None


def ask(
    program: str, root: str, count: int, listing: bytes, told: "Callable[[int], None] | None" = None
) -> "list[int] | None":
    """The places of the files that moved, None when the program did not say. `told` is called with the place of one
    that is there and differs, while the program looks at others."""
    try:
        return Looking(program, root, count, listing).places(told)
    except OSError:
        return None


class Looking:
    """The program, which has read its listing and looks at nothing before `places` is called, or `end`. Raises OSError.
    `subprocess` would take ten times as long to import as this takes."""

    def __init__(self, program: str, root: str, count: int, listing: bytes) -> None:
        theirs_in, self._in = os.pipe()
        self._out, theirs_out = os.pipe()
        try:
            actions = [(os.POSIX_SPAWN_DUP2, theirs_in, 0), (os.POSIX_SPAWN_DUP2, theirs_out, 1)]
            argv = [program, root, str(count), str(len(listing))]
            self._child = os.posix_spawn(program, argv, {}, file_actions=actions)
        except BaseException:
            os.close(self._in)
            os.close(self._out)
            raise
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        try:
            rest = memoryview(listing)
            while rest:
                rest = rest[os.write(self._in, rest) :]
        except BrokenPipeError:
            pass  # it ended early, and its status says how
        except BaseException:
            self.end()
            raise

    def places(self, told: "Callable[[int], None] | None" = None) -> "list[int] | None":
        """As `ask`: of files as they are now. Once, and nothing after it."""
        try:
            status, output = self._looked(told)
            *lines, last = output.split(b"\n")[:-1] or [b""]
            early = [int(line[len(_MOVED) :]) for line in lines if line.startswith(_MOVED)]
            places = [int(line) for line in lines if not line.startswith(_MOVED)]
        except (OSError, ValueError):
            return None
        return places if status == 0 and last == b"checked" and set(early) <= set(places) else None

    def end(self) -> None:
        """Nobody wants to know any more."""
        os.kill(self._child, 9)
        os.close(self._in)
        os.close(self._out)
        os.waitpid(self._child, 0)

    def _looked(self, told: "Callable[[int], None] | None") -> "tuple[int, bytes]":
        """How the program ended and what it printed. It looks when its input has ended, and not before."""
        os.close(self._in)
        output = b""
        try:
            while more := os.read(self._out, 1 << 16):
                output += more
                if told is not None and output.startswith(_MOVED) and b"\n" in output:
                    tell, told = told, None
                    tell(int(output[len(_MOVED) : output.index(b"\n")]))
        finally:
            os.close(self._out)
        return os.waitstatus_to_exitcode(os.waitpid(self._child, 0)[1]), output
