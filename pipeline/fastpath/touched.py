"""The fast path's second look: files that were saved, or checked out again, with the content that they had.

Reads the few files whose stamps moved, and lists the directories, and compares with what the last run found, so that
such a save costs a few reads and not a run of doit. Editors that save by renaming, or that put a swap file beside the
source for a moment, move the stamp of the directory too. Knows the snapshot and the fingerprints that `state.py`
wrote beside it; not what the files are for. Invariants: it says yes only when every path that moved is a regular file
that actions read and none makes, whose bytes did not change; or a tool or a part of this program with the bytes that it
had (a new environment that links to the same files moves their link counts, and so their ctime); or a directory that
was only listed, whose entries did not. It writes nothing. So the stamps stay as they are and the same paths are read at
the next call too, until a run of doit records them (`FastPathState.renew`); those of very many files `renewal.py` does.

Only imported when a stamp moved, in a process that hopes not to import doit.
"""

import gc
import os
from stat import S_ISREG

from cache.statebytes import decode, open_file
from pipeline.fastpath import CONTENTS, MANY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from pipeline.fastpath import FirstLook, Snapshot

KIND = "fast path contents 1"
"""
The value is (token, fingerprints): the snapshot that it belongs to says the token; the fingerprints are 16 bytes
for each of its paths, of a file's bytes or a directory's entries; empty where a move must go to doit. Few that are
others since it was written are in the snapshot (see `CONTENTS`): an edit of one file need not write ten thousand.
"""
SUFFIX = ".contents"
_BLOCK = 8 << 20
MOST = MANY
"""With more paths moved their stamps are recorded, which this does not."""


def is_as_it_was(look: "FirstLook") -> bool:
    """Is everything that moved what it was? The current directory must be its root."""
    snapshot, places = look.snapshot, look.places
    if sum([n < snapshot.used_count for n in places]) <= MOST:
        return only_touched(snapshot, places, look.path)
    collecting = gc.isenabled()
    gc.disable()  # what is loaded and read here lives as long as the process
    from pipeline.fastpath import renewal

    found = renewal.is_as_it_was(look)
    if collecting:
        gc.enable()
    return found


def only_touched(
    snapshot: "Snapshot", places: "Sequence[int]", path: str, *, root: str = "", fingerprints: "Any" = None
) -> bool:
    """Is everything that moved (`places` in the listing) as it was? No if more than MOST files of
    actions are. `path` is that of the state file. The current directory must be `root`, or `root` be given;
    `fingerprints`: those of `contents_of`, where they were read already."""
    if sum(n < snapshot.used_count for n in places) > MOST:
        return False
    if fingerprints is None:
        fingerprints = contents_of(path, snapshot)
    if fingerprints is None:
        return False
    paths = snapshot.paths_at(places)

    def now(n: int) -> bytes:
        _, size, _ = snapshot.stamp_at(n)
        path = os.path.join(root, os.fsdecode(paths[n]))  # noqa: PTH118
        return of_file(path, size) or (b"" if n < snapshot.used_count else of_directory(path))

    return all(bool(fingerprints[n]) and fingerprints[n] == now(n) for n in places)


def contents_of(path: str, snapshot: "Snapshot") -> "Any":
    """The fingerprints (see `KIND`) of a snapshot by the path of its state file; None without them."""
    try:
        with open(os.path.splitext(path)[0] + SUFFIX, "rb", buffering=0, opener=open_file) as stream:  # noqa: PTH122
            saved, _ = decode(KIND, stream.read())
    except OSError:
        return None
    token, others = snapshot.facts.get(CONTENTS, (snapshot.token, {}))
    if saved is None or saved[0] != token:
        return None
    fingerprints = saved[1]
    for place, fingerprint in others.items():
        fingerprints[place] = fingerprint
    return fingerprints


def of_file(path: str, size: int) -> bytes:
    """The fingerprint of a regular file of this size; empty when it is none or is written meanwhile."""
    from xxhash import xxh3_128

    try:
        # A named pipe would be waited for.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return b""
    try:
        before = os.fstat(handle)
        if not S_ISREG(before.st_mode) or before.st_size != size:
            return b""
        found, read = xxh3_128(), 0
        while block := os.read(handle, min(size + 1 - read, _BLOCK)):
            found.update(block)
            read += len(block)
        after = os.fstat(handle)
    except OSError:
        return b""
    finally:
        os.close(handle)
    steady = (before.st_ctime_ns, before.st_mtime_ns, size) == (after.st_ctime_ns, after.st_mtime_ns, after.st_size)
    return found.digest() if steady and read == size else b""


def _kind(entry: "os.DirEntry[str]") -> str:
    """What matters to whoever lists a directory: of a link to a file no more than that it leads to one."""
    if entry.is_dir():
        return "link to directory" if entry.is_symlink() else "directory"
    return "file" if entry.is_file() else ""


def of_directory(path: str) -> bytes:
    """The fingerprint of a directory's entries: their names, which lead to files, which to directories, and which of
    those by a link. Empty when there is none."""
    from xxhash import xxh3_128_digest

    try:
        with os.scandir(path) as entries:
            rows = sorted(f"{entry.name}\0{_kind(entry)}" for entry in entries)
    except OSError:
        return b""
    return xxh3_128_digest("\0".join(rows).encode(errors="surrogateescape"))
