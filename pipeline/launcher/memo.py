"""What a call came to when it was last answered, and the proof that it comes to the same now: by stamps, then digests.

    cc.v1/ab/abcd...   one call, named by the SHA-256 of its text; a state file of KIND, whose value is its variants,
                       the one of last use first

Beside the store, which holds the results themselves: what is lost here is found there by key, for the price of reading
the command. Knows files and blobs; not what they are for. Invariants: a variant holds only if every file that decided
has the stamp it had, or else the bytes, and nothing lies where something would have been read instead; bytes come out
of the store only under their own SHA-256; nothing is written where the compiler would not have written a plain file.

A stamp counts if the file was left alone for YOUNG_NS before it was read, whatever clock its file system has.
"""

import os
import time
from stat import S_ISREG

from cache.statebytes import decode, encode, open_file
from pipeline.launcher.call import ROOT, Call, count, sha256_hex

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    FileRow = tuple[str, str, tuple[int, ...]]
    """Name, SHA-256, stamp; an empty stamp: the bytes must be read."""
    DirectoryRow = tuple[str, tuple[int, ...], tuple[str, ...]]
    """Name, stamp, names that are not in it."""
    Blob = tuple[str, int] | tuple[()]
    """SHA-256 and size."""
    Variant = tuple[tuple[FileRow, ...], tuple[DirectoryRow, ...], tuple[str, ...], "Answer"]
    Answer = tuple[str, str, Blob, str, Blob, bool, Blob, Blob, str]
    """Key of the result; name and bytes of the object; of the depfile (`""`: none), and does it hold the symbol of the
    root?; what was printed to stdout and stderr; the root that it holds for alone, `""`: any."""

KIND = "cc memo 2"
MOST = 6
"""Variants of a call: so many branches can be gone to and fro between."""
MOST_IN_GROUP = 96
"""Files of one of the 256 directories; beyond, the older half goes."""
YOUNG_NS = 60_000_000_000
"""More than the clock of any file server is behind ours."""
USED_LATELY_NS = 3600_000_000_000


def stamp_of(status: os.stat_result) -> "tuple[int, ...]":
    """Of a file or directory; empty where it may change again without moving it."""
    if os.name != "posix" or not status.st_ctime_ns < time.time_ns() - YOUNG_NS:
        return ()
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


class Memo:
    """The variants of one call."""

    def __init__(self, call: Call) -> None:
        self._call = call
        name = sha256_hex(call.text.encode("utf-8", "surrogateescape"))
        self._directory = f"{call.cache}/cc.v1/{name[:2]}"
        self._path = f"{self._directory}/{name}"
        self._digests: dict[str, tuple[str, tuple[int, ...]]] = {}

    def variants(self) -> "tuple[Variant, ...]":
        """What was written, nothing for what cannot be read."""
        try:
            with open(open_file(self._path, os.O_RDONLY), "rb", buffering=0) as stream:  # noqa: PTH123
                if os.name == "posix" and os.fstat(stream.fileno()).st_uid != os.geteuid():
                    return ()  # it says where to write
                value, _ = decode(KIND, stream.read())
        except OSError:
            return ()
        return value or ()

    def answer(self) -> bool:
        """Restore what the first variant that holds says; False where none does, or its bytes are gone."""
        variants = self.variants()
        for number, variant in enumerate(variants):
            renewed = self._holds(variant)
            if renewed is not None and restore(self._call, variant[3]):
                if renewed != variant:
                    self._write((renewed, *variants[:number], *variants[number + 1 :]))
                return True
        return False

    def add(self, variant: "Variant") -> None:
        """Put a variant first, in the place of one with the same result."""
        self._write((variant, *(old for old in self.variants() if old[3][0] != variant[3][0])))

    def _holds(self, variant: "Variant") -> "Variant | None":
        """The variant with the stamps of now, None if anything is not what it was."""
        files, directories, absent, answer = variant
        call = self._call
        if answer[8] not in ("", call.root) or any(os.path.lexists(call.place(name)) for name in absent):
            return None
        found = []
        for row in files:
            try:
                status = os.stat(call.place(row[0]))  # noqa: PTH116
            except OSError:
                return None
            is_same = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino) == row[2]
            digest, stamp = row[1:] if is_same else self._digest(row[0])
            if digest != row[1]:
                return None
            found.append(row if stamp == row[2] else (row[0], digest, stamp))
        looked = []
        for place in directories:
            if (now := self._still_without(place)) is None:
                return None
            looked.append(now)
        same = all(one is other for one, other in zip((*files, *directories), (*found, *looked), strict=True))
        return variant if same else (tuple(found), tuple(looked), absent, answer)

    def _digest(self, name: str) -> "tuple[str, tuple[int, ...]]":
        """SHA-256 of a file as it is now, and its stamp; empty for what cannot be read."""
        if name not in self._digests:
            self._digests[name] = digest_of(self._call.place(name))
        return self._digests[name]

    def _still_without(self, row: "DirectoryRow") -> "DirectoryRow | None":
        """The row of now, None if one of its names is there."""
        name, old, names = row
        place = self._call.place(name)
        try:
            status = os.stat(place)  # noqa: PTH116
        except OSError:
            return None  # its parent has changed: what lies where is to be found out again
        if old and (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino) == old:
            return row
        if any(os.path.lexists(f"{place}/{each}") for each in names):
            return None
        stamp = stamp_of(status)
        return row if stamp == old else (name, stamp, names)

    def _write(self, variants: "Sequence[Variant]") -> None:
        temp = f"{self._path}.{os.getpid()}.tmp"
        data = encode(KIND, tuple(variants[:MOST]))
        try:
            os.makedirs(self._directory, exist_ok=True)  # noqa: PTH103
            with open(temp, "wb", buffering=0) as stream:  # noqa: PTH123
                stream.write(data)
            os.replace(temp, self._path)  # noqa: PTH105
            self._bound()
        except OSError:
            return

    def _bound(self) -> None:
        names = os.listdir(self._directory)  # noqa: PTH208
        if len(names) <= MOST_IN_GROUP:
            return
        used = []
        for name in names:
            try:
                used.append((os.stat(f"{self._directory}/{name}").st_mtime_ns, name))  # noqa: PTH116
            except OSError:
                continue
        for _, name in sorted(used)[: len(used) // 2]:
            try:
                os.unlink(f"{self._directory}/{name}")  # noqa: PTH108
            except OSError:
                continue


def digest_of(place: str) -> "tuple[str, tuple[int, ...]]":
    """SHA-256 and stamp of a regular file; empty ones for what is none, or is written meanwhile."""
    try:
        with open(open_file(place, os.O_RDONLY), "rb", buffering=0) as stream:  # noqa: PTH123
            before = os.fstat(stream.fileno())
            data = stream.read()
            after = os.fstat(stream.fileno())
    except OSError:
        return "", ()
    steady = (before.st_mtime_ns, before.st_ctime_ns, len(data)) == (
        after.st_mtime_ns,
        after.st_ctime_ns,
        after.st_size,
    )
    return (sha256_hex(data), stamp_of(before)) if steady else ("", ())


# --- putting in place -----------------------------------------------------------------------------


def is_plain_place(place: str) -> bool:
    """Would a compiler make a new file here? Not through a link, nor into a device."""
    try:
        return S_ISREG(os.lstat(place).st_mode)
    except FileNotFoundError:
        return os.path.isdir(os.path.dirname(place) or ".")  # noqa: PTH112, PTH120
    except OSError:
        return False


def restore(call: Call, answer: "Answer") -> bool:
    """Write the files and print what was printed; False, with nothing printed, where that cannot be done."""
    key, output, made, depfile, deps, is_symbolic, out, err, _ = answer
    blobs = [_blob(call.cache, blob) if blob else b"" for blob in (made, deps, out, err)]
    if any(data is None for data in blobs):
        return False
    body, rules, said, warned = (data or b"" for data in blobs)
    if is_symbolic:
        rules = rules.replace(ROOT.encode(), os.fsencode(call.root))
    wanted = [(call.place(depfile), rules)] if depfile else []
    wanted.append((call.place(output), body))
    if not all(is_plain_place(place) for place, _ in wanted):
        return False
    try:
        for place, data in wanted:
            _put(place, data)
    except OSError:
        return False
    for handle, data in ((1, said), (2, warned)):
        write_all(handle, data)
    _used(f"{call.cache}/ac.v1/{key[:2]}/{key}")
    return True


def _blob(cache: str, blob: "Blob") -> "bytes | None":
    """The bytes, if they are what they are called."""
    name, size = blob  # type: ignore[misc]
    try:
        with open(open_file(f"{cache}/cas.v1/{name[:2]}/{name}", os.O_RDONLY), "rb", buffering=0) as stream:  # noqa: PTH123
            data = stream.read()
    except OSError:
        return None
    return data if len(data) == size and sha256_hex(data) == name else None


def _put(place: str, data: bytes) -> None:
    """A new file, whatever lies there: another link to that keeps its content."""
    temp = f"{place}.{os.getpid()}.tmp"
    handle = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        try:
            write_all(handle, data)
        finally:
            os.close(handle)
        os.replace(temp, place)  # noqa: PTH105
    except OSError:
        os.unlink(temp)  # noqa: PTH108
        raise


def write_all(handle: int, data: bytes) -> None:
    """All of it. To a reader that went away it is lost, as a compiler's would be."""
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def _used(entry: str) -> None:
    """Keep the result from being removed as one that nobody uses."""
    try:
        if os.lstat(entry).st_mtime_ns < time.time_ns() - USED_LATELY_NS:
            os.utime(entry, follow_symlinks=False)
    except OSError:
        return


def hit(call: Call) -> bool:
    """Answer from the memo, and count it."""
    if not Memo(call).answer():
        return False
    count(call.cache, "hit-direct")
    return True
