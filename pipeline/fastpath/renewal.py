"""The fast path's answer when very many files were only touched: a checkout that went to another branch and back.

`touched.py` reads a few files at each look and writes nothing. Thousands are read once: what holds the same bytes gets
the stamp that it has now, in the state file, so that the next look need not read it. Knows the snapshot and its
fingerprints; not what the files are for. Invariants: a stamp is written only for content that was compared after the
stamp was taken, and only where any change since would move it; the state is replaced only under the project's lock, and
only while it is the one that was looked at, so that what another run wrote or withdrew stays as that run left it. Who
cannot write answers all the same.

Only imported when many stamps moved, in a process that hopes not to import doit.
"""

import contextlib
import os
import sys
from array import array
from pathlib import Path
from stat import S_ISREG

from xxhash import xxh3_128_digest

from cache.durable import OLD_FILE, FileLock, write_atomic
from cache.fileclock import Moment, is_settled
from cache.statebytes import encode
from pipeline.fastpath import KIND, STAMP_BYTES, FirstLook, Snapshot, stamp_of
from pipeline.fastpath.touched import contents_of, of_directory, of_file
from pipeline.fastpath.watched import file_clock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

LOCK = ".deploy/locks/project"
"""See `run/lock.py`; from the root."""
_SMALL = 1 << 20
"""Bytes of a file that is read in one go."""


def is_as_it_was(look: FirstLook) -> bool:
    """Is everything that moved what it was? Then its stamps are written. The current directory must be its root."""
    found = read_again(look.snapshot, look.places, look.path, file_clock().met(".").moment())
    if found is None:
        return False
    if found.listing != look.snapshot.listing:
        with contextlib.suppress(OSError):
            _replace(look, found)
    return True


def read_again(snapshot: Snapshot, places: "Sequence[int]", path: str, began: Moment) -> "Snapshot | None":
    """`snapshot` with the stamps that the paths at `places` have now, None if one of them is not what it was. One that
    could have changed since `began`, which is not later than now, without moving its stamp keeps the one that it had.
    `path` is that of the state file. The current directory must be the root."""
    fingerprints = contents_of(path, snapshot)
    if fingerprints is None or not all(fingerprints[n] for n in places):
        return None
    clock, numbers, is_posix = file_clock(), array("Q", snapshot.numbers()), os.name == "posix"
    try:
        for n, name in snapshot.paths_at(places).items():
            size = numbers[3 * n + 1]
            content, status = _of_small(name, size)
            if content != fingerprints[n]:
                slow = os.fsdecode(name)
                content = of_file(slow, size) or (b"" if n < snapshot.used_count else of_directory(slow))
                if content != fingerprints[n]:
                    return None
            then_ns = began.known.get(status.st_dev) if is_posix else None
            if then_ns is None:
                settled = clock.was_settled(status, os.fsdecode(name), began)
            else:  # the same, without three calls for each of ten thousand files
                settled = is_settled(status.st_ctime_ns, then_ns)
            if settled:
                numbers[3 * n : 3 * n + 3] = array("Q", stamp_of(status))
    except (OSError, OverflowError):
        return None
    return with_numbers(snapshot, numbers)


def with_numbers(snapshot: Snapshot, numbers: "array[int]", **facts: object) -> Snapshot:
    """The snapshot with other stamps, and perhaps a few other facts."""
    changed = {
        "listing": numbers.tobytes() + snapshot.listing[STAMP_BYTES * snapshot.count :],
        "facts": {**snapshot.facts, **facts},
    }
    return Snapshot(**{name: getattr(snapshot, name) for name in Snapshot.__slots__} | changed)


def _of_small(name: bytes, size: int) -> tuple[bytes, os.stat_result]:
    """The fingerprint of a small regular file of this size, empty for anything else, and its status from before it was
    read: if that is settled, whatever was written since moved it, so that nothing need be asked afterwards."""
    handle = os.open(name, OLD_FILE)
    try:
        status = os.fstat(handle)
        if status.st_size != size or size > _SMALL or not S_ISREG(status.st_mode):
            return b"", status
        data = os.read(handle, size + 1)
    finally:
        os.close(handle)
    return (xxh3_128_digest(data) if len(data) == size else b""), status


def _replace(look: FirstLook, snapshot: Snapshot) -> None:
    """Write it in the place of the state that was looked at, unless a run is under way. Raises OSError."""
    lock = FileLock(Path(LOCK))
    if lock.try_acquire(f"pid {os.getpid()} ({' '.join(sys.argv)[:80]})") is not None:
        return
    try:
        if stamp_of(os.stat(look.path)) == look.stamp:  # noqa: PTH116
            write_atomic(look.path, encode(KIND, snapshot.values()), durable=False, own=True)
    finally:
        lock.release()
