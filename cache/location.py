"""Where what all projects of a user share lies: the platform's directories for caches and for state.

Pure: environment in, path out. Sources: XDG Base Directory Specification 0.8 (a relative XDG_CACHE_HOME is to be
ignored), Apple's File System Programming Guide, Windows' Known Folders. Invariant: the result is absolute or None.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath, PureWindowsPath

NAME = "hotplate"


def user_cache_dir(environment: Mapping[str, str], platform: str) -> str | None:
    """The directory (`platform` as `sys.platform`), or None when the environment names no home: then a project keeps
    its cache to itself, since a guessed place might be shared with other users."""
    if platform == "win32":
        local = PureWindowsPath(environment.get("LOCALAPPDATA", ""))
        return str(local / NAME / "Cache") if local.is_absolute() else None
    home = PurePosixPath(environment.get("HOME", ""))
    if platform == "darwin":
        return str(home / "Library" / "Caches" / NAME) if home.is_absolute() else None
    cache = PurePosixPath(environment.get("XDG_CACHE_HOME", ""))
    if cache.is_absolute():
        return str(cache / NAME)
    return str(home / ".cache" / NAME) if home.is_absolute() else None


def user_state_dir(environment: Mapping[str, str], platform: str) -> str | None:
    """As `user_cache_dir`, for what is small and should outlive the cache. `%LOCALAPPDATA%` and Apple's Application
    Support hold both kinds."""
    if platform == "win32":
        local = PureWindowsPath(environment.get("LOCALAPPDATA", ""))
        return str(local / NAME) if local.is_absolute() else None
    home = PurePosixPath(environment.get("HOME", ""))
    if platform == "darwin":
        return str(home / "Library" / "Application Support" / NAME) if home.is_absolute() else None
    state = PurePosixPath(environment.get("XDG_STATE_HOME", ""))
    if state.is_absolute():
        return str(state / NAME)
    return str(home / ".local" / "state" / NAME) if home.is_absolute() else None
