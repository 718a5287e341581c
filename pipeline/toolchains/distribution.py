"""Where a Python distribution lies and what it is, without importing it: for tools that come as wheels.

Knows installed packages and the identity of a program file. Does not know what the tools do. Invariant: a program is
hashed when its stamp moved and not otherwise, and its identity holds no path of this machine.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from cache import statefile
from cache.stamps import StampTable

_KIND = "tools 1"
_STATE_NAME = "tools.v1.state"


def package_dir(package: str) -> Path | None:
    """The directory of an installed top-level package, None when there is none. Does not import it."""
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None


def version_of(package: str, directory: Path) -> str:
    """The version of the distribution `package` that was installed into `directory`'s parent.

    Read from the name of its `.dist-info`, since `importlib.metadata` takes 30 ms to import; that is asked only when no
    such name is beside the package (an editable install).
    """
    for info in directory.parent.glob(f"{package}-*.dist-info"):
        return info.name.removeprefix(f"{package}-").removesuffix(".dist-info")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def program_digest(program: Path, state_dir: Path) -> str:
    """SHA-256 of a program file. 185 MB take most of a second, so it is remembered by stamp below `state_dir`; a state
    file that is lost, damaged or cannot be written costs that time again. Raises OSError if it cannot be read."""
    value, _ = statefile.load(state_dir / _STATE_NAME, _KIND)
    table = StampTable(lambda path: path, value or {})
    entry = table.current(str(program))
    if entry is None:
        raise FileNotFoundError(2, "No such file", str(program))
    if table.changed:
        try:
            statefile.save(state_dir / _STATE_NAME, _KIND, table.rows())
        except OSError:
            return entry.sha256
    return entry.sha256
