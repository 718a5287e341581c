"""`.ninja_log` and `.ninja_deps`: what ninja remembers of its runs, read and written.

Pure: bytes in, values out, and bytes to append. Does not know what ninja decides from them. Invariant: what ninja would
skip or stop at is skipped or stopped at here; what is appended, ninja reads.

    .ninja_log   "# ninja log v5|v6|v7" NEWLINE, then per output: start TAB end TAB mtime TAB output TAB hash NEWLINE
                 (ms since the run began; mtime in ns: the file's, or when the command started; hash in hex: of the
                 command, MurmurHash64A up to v6, rapidhash in v7); a later line of an output replaces an earlier one
    .ninja_deps  "# ninjadeps" NEWLINE, version 4 as u32, then records: u32 size (its top bit: deps, else a path).
                 path: text, NULs up to a multiple of 4, u32 complement of its number; numbers count from 0
                 deps: u32 number of the output, u64 mtime of it in ns (version 3: u32, in s), u32 numbers of its inputs

Source: ninja's `build_log.cc` and `deps_log.cc` as facts about the formats.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Sequence

from cache.named_tuple import NamedTuple
from pipeline.formats.ninja.hashes import murmur64, rapidhash

LOG_NAME, DEPS_NAME = ".ninja_log", ".ninja_deps"
LOG_VERSIONS = (5, 6, 7)
DEPS_HEAD = b"# ninjadeps\n" + struct.pack("<I", 4)
_MOST_RECORD = (1 << 19) - 1
_DEPS_BIT = 0x8000_0000


class LogEntry(NamedTuple):
    """The last run of the command that makes `output`."""

    output: str
    start_ms: int
    end_ms: int
    mtime_ns: int
    command_hash: int


class BuildLog(NamedTuple):
    """`version` 0: there is none that can be used. `lines`: how many entries the file has, replaced ones included."""

    version: int
    entries: dict[str, LogEntry]
    lines: int = 0


def parse_log(data: bytes) -> BuildLog:
    """The log; an empty one for anything that ninja would start over from."""
    head, _, rest = data.partition(b"\n")
    found = re.fullmatch(rb"# ninja log v(\d{1,6})", head)
    version = int(found[1]) if found else 0
    if version not in LOG_VERSIONS:
        return BuildLog(0, {})
    entries: dict[str, LogEntry] = {}
    lines = 0
    # What stands behind the last line end was cut off.
    for line in rest.split(b"\n")[:-1]:
        fields = line.split(b"\t")
        if len(fields) < 5:
            continue
        start, end, mtime, *names, hashed = fields
        try:
            numbers = int(start), int(end), int(mtime)
            command = int(hashed, 16)
        except ValueError:
            continue
        output = b"\t".join(names).decode("utf-8", "surrogateescape")
        entries[output] = LogEntry(output, *numbers, command)
        lines += 1
    return BuildLog(version, entries, lines)


def hash_command(version: int, command: str) -> int:
    """As a log of this version holds it; `command` with `;rspfile=` and the text of its response file."""
    data = command.encode("utf-8", "surrogateescape")
    return rapidhash(data) if version >= 7 else murmur64(data)


def log_head(version: int) -> bytes:
    """How a log begins."""
    return b"# ninja log v%d\n" % version


def log_lines(entries: Iterable[LogEntry]) -> bytes:
    """Lines to append."""
    return b"".join(
        b"%d\t%d\t%d\t%s\t%x\n"
        % (e.start_ms, e.end_ms, e.mtime_ns, e.output.encode("utf-8", "surrogateescape"), e.command_hash)
        for e in entries
    )


class OutputDeps(NamedTuple):
    """What the command that makes an output read, as its depfile said; `mtime_ns` is that of the output then."""

    mtime_ns: int
    inputs: tuple[str, ...]


class DepsLog(NamedTuple):
    """`paths`: by their numbers; `deps`: output -> what it read; `size`: bytes that could be read (0: there is no log
    that can be used); what follows them, ninja cuts off."""

    paths: list[str]
    deps: dict[str, OutputDeps]
    size: int


def parse_deps(data: bytes) -> DepsLog:
    """The deps log up to its first damage."""
    if not data.startswith(DEPS_HEAD):
        return DepsLog([], {}, 0)
    paths: list[str] = []
    known: set[str] = set()
    found: dict[int, tuple[int, ...]] = {}  # later records of an output replace earlier ones
    at = len(DEPS_HEAD)
    while at + 4 <= len(data):
        (head,) = struct.unpack_from("<I", data, at)
        size = head & ~_DEPS_BIT
        end = at + 4 + size
        if size > _MOST_RECORD or size < 4 or end > len(data):
            break
        if head & _DEPS_BIT:
            if size % 4 or size < 12:
                break
            row = struct.unpack_from(f"<IQ{size // 4 - 3}I", data, at + 4)
            if row[0] >= len(paths) or (len(row) > 2 and max(row[2:]) >= len(paths)):
                break
            found[row[0]] = row
        else:
            path = data[at + 4 : end - 4].rstrip(b"\0").decode("utf-8", "surrogateescape")
            (check,) = struct.unpack_from("<I", data, end - 4)
            if not path or check ^ 0xFFFF_FFFF != len(paths) or path in known:
                break
            known.add(path)
            paths.append(path)
        at = end
    name = paths.__getitem__
    deps = {name(number): OutputDeps(row[1], tuple(map(name, row[2:]))) for number, row in found.items()}
    return DepsLog(paths, deps, at)


class DepsWriter:
    """Makes records to append. `paths`: those that the log has by now, by their numbers; `empty`: it has no head."""

    def __init__(self, paths: Sequence[str], *, empty: bool) -> None:
        self._numbers = {path: number for number, path in enumerate(paths)}
        self._empty = empty

    def records(self, output: str, deps: OutputDeps) -> bytes:
        """What `output` read. `b""` when that is more than a log takes."""
        if 4 * (3 + len(deps.inputs)) > _MOST_RECORD:
            return b""
        parts = [DEPS_HEAD] if self._empty else []
        self._empty = False
        for path in (output, *deps.inputs):
            if path not in self._numbers:
                parts.append(self._path(path))
        numbers = [self._numbers[path] for path in deps.inputs]
        body = struct.pack(f"<IQ{len(numbers)}I", self._numbers[output], deps.mtime_ns, *numbers)
        return b"".join((*parts, struct.pack("<I", len(body) | _DEPS_BIT), body))

    def _path(self, path: str) -> bytes:
        number = self._numbers[path] = len(self._numbers)
        text = path.encode("utf-8", "surrogateescape")
        text += b"\0" * (-len(text) % 4)
        return struct.pack("<I", len(text) + 4) + text + struct.pack("<I", number ^ 0xFFFF_FFFF)
