"""Where what all projects of a user share lies: the platform's directories for caches and for state.

Pure: environment in, path out. Sources: XDG Base Directory Specification 0.8 (a relative XDG_CACHE_HOME is to be
ignored), Apple's File System Programming Guide, Windows' Known Folders. Invariant: the result is absolute or None.

The fast path asks here in a process whose whole budget is 12 ms: nothing is imported that the interpreter has not
loaded.
"""

import posixpath

TYPE_CHECKING = False  # type checkers know the name
if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = "hotplate"


def user_cache_dir(environment: "Mapping[str, str]", platform: str) -> "str | None":
    """The directory (`platform` as `sys.platform`), or None when the environment names no home: then a project keeps
    its cache to itself, since a guessed place might be shared with other users."""
    if platform == "win32":
        return _on_windows(environment, "Cache")
    if platform == "darwin":
        return _below(environment, "HOME", "Library", "Caches")
    return _below(environment, "XDG_CACHE_HOME") or _below(environment, "HOME", ".cache")


def user_state_dir(environment: "Mapping[str, str]", platform: str) -> "str | None":
    """As `user_cache_dir`, for what is small and should outlive the cache. `%LOCALAPPDATA%` and Apple's Application
    Support hold both kinds."""
    if platform == "win32":
        return _on_windows(environment)
    if platform == "darwin":
        return _below(environment, "HOME", "Library", "Application Support")
    return _below(environment, "XDG_STATE_HOME") or _below(environment, "HOME", ".local", "state")


def _below(environment: "Mapping[str, str]", variable: str, *names: str) -> "str | None":
    base = environment.get(variable, "")
    return posixpath.join(base, *names, NAME) if posixpath.isabs(base) else None


def _on_windows(environment: "Mapping[str, str]", *names: str) -> "str | None":
    from pathlib import PureWindowsPath

    local = PureWindowsPath(environment.get("LOCALAPPDATA", ""))
    return str(local.joinpath(NAME, *names)) if local.is_absolute() else None
