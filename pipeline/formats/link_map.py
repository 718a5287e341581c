"""What a linker's map says of where a program's bytes come from: that of GNU ld (`-Map`) or lld (also `--print-map`).

Pure. Does not know chips or what an archive means to a project. A map may be tens of MB and anything may stand in it:
it is read with expressions that look at each line once, and counts only where it agrees with the ELF file. Invariant:
the shares of a section never overlap and add up to its size exactly; what no input accounts for is `FILL`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from cache.named_tuple import NamedTuple
from pipeline.formats.elf import LoadedSection

FILL = "(fill)"
"""Stands for a file: alignment, padding, and data that the linker script itself puts in."""


class MapShare(NamedTuple):
    """Bytes of one section that come from one input: `archive` is the path of a static library, `""` for an object that
    stands for itself; `file`: the object, by its path or as a member of the archive. Paths as the linker had them."""

    section: str
    archive: str
    file: str
    size: int


class _Piece(NamedTuple):
    address: int
    size: int
    source: bytes


# Compiled when a map has such rows: it is of one linker or the other.
_GNU_HEAD = rb"(?m)^Linker script and memory map\r?$"
_GNU_TAIL = b"\nCross Reference Table"
_GNU_ROW = (
    rb"(?m)^( ?)([^\s]{1,4096})[ ]*(?:\r?\n[ ]+|[ ])0x([0-9a-f]{1,16})[ ]+0x([0-9a-f]{1,16})(?:[ ]([^\r\n]*))?\r?$"
)
_LLD_HEAD = rb"(?m)^ *VMA +LMA +Size +Align +Out +In +Symbol\r?$"
_LLD_ROW = (
    rb"(?m)^ *([0-9a-f]{1,16}) +[0-9a-f]{1,16} +([0-9a-f]{1,16}) +\d+ (?: {8}(?! )([^\r\n]*)|([^\s][^\r\n]*))\r?$"
)
_LLD_INPUT = re.compile(rb"(.*):\([^()]*\)\Z", re.DOTALL)
_MEMBER = re.compile(rb"(.+)\(([^()]+)\)\Z", re.DOTALL)

_Rows = Iterator[tuple[bool, bytes, int, int, bytes]]
"""(is it an output section, its name, address, size, the input it comes from)."""


def read_map(data: bytes, sections: Sequence[LoadedSection]) -> tuple[MapShare, ...] | str:
    """Where the bytes of `sections`, which are the ELF file's, come from; or one fact about why `data` does not say."""
    rows = _rows(data)
    if rows is None:
        return "this is no map of GNU ld or lld"
    wanted = {(section.name.encode(), section.address, section.size): section for section in sections}
    pieces: dict[str, list[_Piece]] = {}
    current: list[_Piece] | None = None
    for is_output, name, address, size, source in rows:
        if is_output:
            section = wanted.get((name, address, size))
            current = pieces.setdefault(section.name, []) if section is not None else None
        elif current is not None and size:
            current.append(_Piece(address, size, source))
    lacking = next((section for section in sections if section.name not in pieces), None)
    if lacking is not None:
        return f"it is of another link: no {lacking.name} at {lacking.address:#x} with {lacking.size} bytes"
    return tuple(share for section in sections for share in _shares(section, pieces[section.name]))


def _rows(data: bytes) -> _Rows | None:
    if (head := re.search(_GNU_HEAD, data)) is not None:
        end = data.find(_GNU_TAIL, head.end())
        return _gnu_rows(data, head.end(), len(data) if end < 0 else end)
    if (head := re.search(_LLD_HEAD, data)) is not None:
        return _lld_rows(data, head.end())
    return None


def _gnu_rows(data: bytes, start: int, end: int) -> _Rows:
    for row in re.compile(_GNU_ROW).finditer(data, start, end):
        indent, name, address, size, source = row.groups()
        is_fill = not source or name == b"*fill*"
        yield not indent, name, int(address, 16), int(size, 16), b"" if is_fill else source.strip()


def _lld_rows(data: bytes, start: int) -> _Rows:
    for row in re.compile(_LLD_ROW).finditer(data, start):
        address, size, inner, outer = row.groups()
        if outer is not None:
            yield True, outer, int(address, 16), int(size, 16), b""
        elif (source := _LLD_INPUT.match(inner)) is not None:
            yield False, b"", int(address, 16), int(size, 16), source[1]


def _shares(section: LoadedSection, pieces: Iterable[_Piece]) -> Iterator[MapShare]:
    """Each byte of the section belongs to the last piece that begins at or before it, or to none: GNU ld names merged
    strings with the size that they had, though what follows begins earlier."""
    sums: dict[bytes, int] = {}
    at = section.address
    ordered = sorted(pieces, key=lambda piece: piece.address)
    following = [*(piece.address for piece in ordered[1:]), section.end]
    for (address, size, source), limit in zip(ordered, following, strict=False):
        start, end = max(at, address), min(address + size, limit, section.end)
        if start < end:
            sums[b""] = sums.get(b"", 0) + start - at
            sums[source] = sums.get(source, 0) + end - start
            at = end
    sums[b""] = sums.get(b"", 0) + section.end - at
    named: Mapping[bytes, int] = {source: size for source, size in sums.items() if size}
    for source, size in named.items():
        archive, file = _split(source)
        yield MapShare(section.name, archive, file, size)


def _split(source: bytes) -> tuple[str, str]:
    member = _MEMBER.match(source)
    archive, file = (member[1], member[2]) if member is not None else (b"", source)
    return archive.decode("utf-8", "replace"), file.decode("utf-8", "replace") or FILL
