"""Directories: where results, state, products and reports go. May they be written, is there room, on what do they lie?

Reads the file system; makes nothing but looks by asking, so nothing is left behind. Invariant: a place that does not
exist yet is judged by the first directory above it that does.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from cache.durable import read_text
from cache.lock import OPEN, try_lock
from pipeline.config.schema import CacheSettings
from pipeline.doctor.findings import DoctorFinding, bad, note, ok, warning

MODE = "HOTPLATE_CACHE_MODE"
LITTLE, TOO_LITTLE = 1_000_000_000, 50_000_000
"""Bytes of free space under which a build may fail soon, and under which it will."""

NETWORK = frozenset(("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "fuse.sshfs", "fuse.s3fs", "vboxsf"))


def examine_project(root: Path, state_dir: Path, reports_dir: Path) -> Iterator[DoctorFinding]:
    """What a run writes into the project, and whether a run is under way."""
    places = {".deploy": state_dir, "build": root / "build", "reports": reports_dir}
    closed = [name for name, path in places.items() if not _writable(path)]
    if closed:
        fact = f"{root}: {', '.join(closed)} cannot be written"
        yield bad("project", fact, f"make them yours: chown -R $USER {' '.join(closed)}")
    else:
        yield ok("project", f"{root} can be written")
    yield from _room("disk", root)
    holder = _holder(state_dir / "locks/project")
    if holder:
        yield note("run", f"one is under way, for which others wait: {holder}")


def examine_cache(directory: Path, max_bytes: int, why: str = "") -> Iterator[DoctorFinding]:
    """The store. `why`: what says that it lies there, for the hint."""
    where = why or "set [cache] dir in deploy.toml, or XDG_CACHE_HOME"
    if not _writable(directory):
        fact = f"{directory} cannot be written: every result is made again each time"
        yield warning("cache", fact, f"make it yours, or {where}")
        return
    size, files = _used(directory)
    kind = file_system(directory)
    on = f" on {kind}" if kind else ""
    yield ok("cache", f"{directory}{on}: {_megabytes(size)} in {files} files, bound {_megabytes(max_bytes)}")
    if kind in NETWORK:
        fact = f"{directory} lies on {kind}: each look-up costs a round trip, and locks may not hold"
        yield warning("cache", fact, f"choose a local directory: {where}")
    yield from _room("cache", directory)


def examine_shared(settings: CacheSettings, environment: Mapping[str, str]) -> Iterator[DoctorFinding]:
    """The cache that other machines share: where it is and what may be done there. It is not asked."""
    if not settings.remote:
        return
    mode = environment.get(MODE, "") or settings.remote_mode
    token = "with a token" if environment.get(settings.remote_token_env) else f"without {settings.remote_token_env}"
    yield note("shared cache", f"{settings.remote}, {mode}, {token}; a run asks it, and goes on without an answer")


def _room(area: str, place: Path) -> Iterator[DoctorFinding]:
    try:
        free = shutil.disk_usage(_nearest(place)).free
    except OSError:
        return
    fact = f"{_megabytes(free)} are free at {place}"
    hint = "free disk space; `doit cache:gc` and `doit clean` remove what can be made again"
    if free < TOO_LITTLE:
        yield bad(area, fact, hint)
    elif free < LITTLE:
        yield warning(area, fact, hint)
    elif area == "disk":
        yield ok(area, fact)


def _used(directory: Path) -> tuple[int, int]:
    """Bytes and files, as far as they can be seen."""
    size = files = 0
    waiting = [str(directory)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        files += 1
                        size += entry.stat(follow_symlinks=False).st_size
        except OSError:
            continue
    return size, files


def _nearest(place: Path) -> Path:
    return next((path for path in (place, *place.parents) if path.exists()), Path(place.anchor or "."))


def _writable(place: Path) -> bool:
    """Can files be made there, or the directory itself? Tried, since read-only mounts and ACLs say nothing else."""
    nearest = _nearest(place)
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        return False
    try:
        with tempfile.TemporaryFile(dir=nearest):
            return True
    except OSError:
        return False


def _holder(lock: Path) -> str:
    """Who holds a lock file, `""` for nobody."""
    try:
        said = read_text(lock).strip()
        handle = os.open(lock, OPEN & ~os.O_CREAT)
    except (OSError, UnicodeDecodeError):
        return ""
    try:
        return "" if try_lock(handle, shared=True) else said or "another process"
    except OSError:
        return ""
    finally:
        os.close(handle)


def file_system(place: Path) -> str:
    """The type of the file system that a place is (or will be) on; `""` where the system has no table of mounts."""
    if not sys.platform.startswith("linux"):
        return ""
    try:
        table = read_text("/proc/self/mounts", errors="replace")
    except OSError:
        return ""
    return mounted_type(table, str(_nearest(place).resolve()))


def mounted_type(table: str, path: str) -> str:
    """By a table of mounts as /proc/mounts has it; of two mounts on one place the later one counts."""
    best, found = -1, ""
    for line in table.splitlines():
        words = line.split(" ")
        if len(words) < 3:
            continue
        point = words[1].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:
            best, found = len(point), words[2]
    return found


def _megabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1_000_000_000 else f"{size / 1e6:.0f} MB"
