"""Where a Python distribution lies and what it is, without importing it: for tools that come as wheels.

Knows installed packages and the identity of a program file. Does not know what the tools do. Invariant: a program is
hashed when its stamp moved and not otherwise, and its identity holds no path of this machine.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

from cache import statefile
from cache.named_tuple import NamedTuple
from cache.stamps import StampTable
from pipeline.effects.packages import package_dir, search_path
from pipeline.fastpath.watched import Watched, settled_stamp

_KIND = "tools 3"
_STATE_NAME = "tools.v1.state"


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


def package_places(packages: Sequence[str]) -> Watched:
    """What decides where these packages are found and which versions they have: the listings of the directories that
    hold them, and their absence from those that Python searches earlier."""
    found = {name: str(place.parent) for name in packages if (place := package_dir(name)) is not None}
    absent = []
    for name in packages:
        for directory in search_path():
            if directory == found.get(name):
                break
            if not directory.endswith(".zip"):
                absent += [f"{directory}/{name}", f"{directory}/{name}.py"]
    return Watched({place: settled_stamp(place) for place in found.values()}, tuple(absent))


def program_digest(program: Path, state_dir: Path) -> str:
    """SHA-256 of a program file. 185 MB take most of a second, so it is remembered by stamp below `state_dir`; a state
    file that is lost, damaged or cannot be written costs that time again. Raises OSError if it cannot be read."""
    value, _ = statefile.load(state_dir / _STATE_NAME, _KIND)
    table = StampTable(lambda path: path, value)
    entry = table.current(str(program))
    if entry is None:
        raise FileNotFoundError(2, "No such file", str(program))
    if table.changed:
        try:
            statefile.save(state_dir / _STATE_NAME, _KIND, table.plain())
        except OSError:
            return entry.sha256
    return entry.sha256


class ProgramIdentity(NamedTuple):
    """`version`: the first line of what the program says to `--version`; `sha256`: of its file."""

    version: str
    sha256: str


_VERSIONS_KIND = "program versions 1"


def program_identity(program: str, state_dir: Path, ask_version: Callable[[str], str]) -> ProgramIdentity:
    """Bytes and version of a program. The version is asked for once per content of the file: a launcher can stay the
    same while what it launches changes, which only running it every time would notice. Raises OSError."""
    sha256 = program_digest(Path(program), state_dir)
    path = state_dir / "versions.v1.state"
    known, _ = statefile.load(path, _VERSIONS_KIND)
    versions: dict[str, str] = dict(known or {})
    if sha256 not in versions:
        versions[sha256] = ask_version(program)
        with contextlib.suppress(OSError):
            statefile.save(path, _VERSIONS_KIND, versions)
    return ProgramIdentity(versions[sha256], sha256)
