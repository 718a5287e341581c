"""Interpreters that keep a compiled copy of what they read: users' actions get an own, empty place for it.

CPython takes the copy of a helper for current when the helper's size and mtime, in whole seconds, are those that the
copy names: an edit within the second, or with the old mtime put back, runs as it was. Guile compares mtimes, below the
user's cache directory. A place that is new for each action has no old copies. Knows variables and options of
interpreters, and where this Python and what is installed for it lies: of that, copies are kept, since actions do not
depend on those files but on the program's identity. Invariant: no copy that an action finds was made from a file of
the project.

Sources: Python's documentation of PYTHONPYCACHEPREFIX and `-X pycache_prefix`, of which `-E` and `-I` leave only the
latter; Guile's manual, "Compilation" (XDG_CACHE_HOME).
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from cache.named_tuple import NamedTuple

KEPT = "bytecode.v1"
"""Below the project's state: copies of what is installed."""
_PREFIX = "interpreters."
_PYTHON = re.compile(r"python[0-9.]*(?:\.exe)?")
_ISOLATED = re.compile(r"-[A-Za-z]*[EI][A-Za-z]*")


class Fresh(NamedTuple):
    """A directory that was empty when the action started."""

    directory: str

    def environment(self) -> dict[str, str]:
        """To be set unless the action says otherwise."""
        return {
            "PYTHONPYCACHEPREFIX": self.directory,
            "XDG_CACHE_HOME": posixpath.join(self.directory, ".cache"),
        }

    def words(self, argv: Sequence[str]) -> tuple[str, ...]:
        """The command; a Python that was told not to look at variables is told by an option."""
        program, *rest = argv
        if _PYTHON.fullmatch(posixpath.basename(program)) and _is_isolated(rest):
            return (program, "-X", f"pycache_prefix={self.directory}", *rest)
        return tuple(argv)


def clear(state: Path) -> None:
    """Remove what runs that were killed left. Precondition: no action runs."""
    import shutil

    for directory in state.glob(f"{_PREFIX}*"):
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def fresh(root: str, state: Path) -> Iterator[Fresh]:
    """For one action of the project in `root`. Raises OSError when it cannot be made."""
    state.mkdir(parents=True, exist_ok=True)
    import shutil  # only users' commands need these
    import tempfile

    directory = tempfile.mkdtemp(prefix=_PREFIX, dir=state)
    try:
        for place in _installed(root):
            kept, link = f"{state}/{KEPT}{place}", f"{directory}{place}"
            Path(kept).mkdir(parents=True, exist_ok=True)
            Path(link).parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(OSError):  # one place may lie in another
                os.symlink(kept, link)  # noqa: PTH211
        yield Fresh(directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _installed(root: str) -> list[str]:
    """Where this Python's own modules and installed ones lie."""
    import sysconfig

    paths = dict.fromkeys(os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib"))
    return sorted(path for path in paths if path.startswith("/") and not root.startswith(f"{path}/"))


def _is_isolated(words: Sequence[str]) -> bool:
    rest = iter(words)
    for word in rest:
        if not word.startswith("-") or word in ("-", "-c", "-m"):
            return False
        if word in ("-W", "-X"):
            next(rest, "")
        elif _ISOLATED.fullmatch(word):
            return True
    return False
