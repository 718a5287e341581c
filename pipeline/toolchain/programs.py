"""Programs on a search path, and the compiler behind a launcher such as ccache.

Looks at files and runs nothing. Does not know what programs do. Invariant: a program is called by the name by which it
was found, since a launcher decides by that what to start; what it *is* comes from the first of that name that is no
launcher. As long as nothing in `Found.earlier` exists and `Found.path` and `Found.real` have their stamps, the same
programs are found.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from cache.named_tuple import NamedTuple

LAUNCHERS = frozenset(("ccache", "sccache", "distcc", "icecc", "icecream", "buildcache", "fastbuild", "colorgcc"))
"""Programs that stand on the path under a compiler's name, and start the next one of that name."""
_LAUNCHER_VARIABLES = ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "TMPDIR")
_LAUNCHER_PREFIXES = ("CCACHE_", "SCCACHE_", "DISTCC_", "ICECC_", "BUILDCACHE_")


class Found(NamedTuple):
    """`path`: what to call; `real`: the program that it comes to; `earlier`: where one would be found first."""

    path: str
    real: str
    earlier: tuple[str, ...]


def find(name: str, search: str) -> Found | None:
    """The first program of this name on `search` (as in PATH); None when there is none."""
    path, missed = "", []
    for directory in dict.fromkeys(search.split(os.pathsep)):
        place = _in_directory(directory or os.curdir, name)
        if place is None:
            missed.append(os.path.join(directory or os.curdir, name))  # noqa: PTH118
            continue
        path = path or place
        if not is_launcher(place, name):
            return Found(path, place, tuple(missed))
    return Found(path, path, tuple(missed)) if path else None


def _in_directory(directory: str, name: str) -> str | None:
    """As `shutil.which` finds it, without the libraries of compressed archives that come with that."""
    if os.name != "posix" or "/" in name:
        import shutil

        return shutil.which(name, path=directory)
    place = os.path.join(directory, name)  # noqa: PTH118
    return place if os.access(place, os.F_OK | os.X_OK) and not os.path.isdir(place) else None  # noqa: PTH112


def is_launcher(path: str, name: str) -> bool:
    """Does this path of a program called `name` lead to a launcher?"""
    target = os.path.basename(os.path.realpath(path)).removesuffix(".exe")  # noqa: PTH119
    return target in LAUNCHERS and target != name


def launcher_env(found: Found) -> Mapping[str, str]:
    """The variables that a launcher works by, when there is one; none of them says what a compiler makes."""
    return {} if found.path == found.real else launcher_variables()


def launcher_variables() -> Mapping[str, str]:
    """Those of this process that launchers work by."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in _LAUNCHER_VARIABLES or name.startswith(_LAUNCHER_PREFIXES)
    }
