"""What of an ELF file is loaded: its sections, and the file without the rest (debug information, symbols, notes).

Pure. Knows ELF32 little endian (System V gABI, chapters 4 and 5), the form of every ESP32. Invariant: two ELF files
that would load the same bytes at the same addresses from sections of the same names become the same file.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from cache.named_tuple import NamedTuple

_IDENT = b"\x7fELF\x01\x01"
_HEADER = struct.Struct("<16sHHIIIIIHHHHHH")
_SECTION = struct.Struct("<10I")
_SEGMENT = struct.Struct("<8I")
_NOBITS, _STRTAB, _ALLOC, _LOAD = 8, 3, 0x2, 1
_EXECUTABLE = 0x4
_MOST_NAMES = 1 << 24
_NO_ELF = "this is not a 32-bit little-endian ELF file"
_OUTSIDE = "its section table points outside the file"


class _Section(NamedTuple):
    name: bytes
    type: int
    flags: int
    address: int
    data: bytes
    size: int
    """In memory; `data` is empty for a section without bytes in the file (.bss)."""
    align: int


class LoadedSection(NamedTuple):
    """A section that takes memory on the device. `has_bytes`: they lie in the file, and so in flash."""

    name: str
    address: int
    size: int
    has_bytes: bool
    executable: bool

    @property
    def end(self) -> int:
        return self.address + self.size


def loaded(read: Callable[[int, int], bytes]) -> tuple[LoadedSection, ...] | str:
    """The sections that are loaded, by address, or one fact about why this is no such file. `read(offset, size)` gives
    bytes of it, fewer at its end: of a large file only headers and names are asked for."""
    head = read(0, _HEADER.size)
    if head[:6] != _IDENT or len(head) < _HEADER.size:
        return _NO_ELF
    header = _HEADER.unpack(head)
    offset, (entry, count, names_index) = header[6], header[11:14]
    if entry != _SECTION.size or names_index >= count:
        return _OUTSIDE
    table = read(offset, entry * count)
    if len(table) < entry * count:
        return _OUTSIDE
    rows = [_SECTION.unpack_from(table, n * entry) for n in range(count)]
    names = read(rows[names_index][4], min(rows[names_index][5], _MOST_NAMES))
    found = []
    for name, kind, flags, address, _start, size, *_ in rows:
        if flags & _ALLOC and size:
            end = names.find(b"\0", name)
            if end < 0:
                return _OUTSIDE
            text = names[name:end].decode("utf-8", "replace")
            found.append(LoadedSection(text, address, size, kind != _NOBITS, bool(flags & _EXECUTABLE)))
    return tuple(sorted(found, key=lambda section: (section.address, section.name)))


def strip(data: bytes) -> bytes | str:
    """The same program with its loaded sections only, or one fact about why `data` is not such a file.

    The layout is written again (header, segments, sections in address order, names, section table), so that nothing of
    what was dropped shows through file offsets. Each loaded section gets a segment of its own.
    """
    if data[:6] != _IDENT or len(data) < _HEADER.size:
        return _NO_ELF
    header = _HEADER.unpack_from(data)
    try:
        sections = _loaded_sections(data, *header[6:7], *header[11:14])
    except (struct.error, IndexError, ValueError):
        return _OUTSIDE
    if not sections:
        return "it has no section that is loaded"
    return _write(header, sorted(sections, key=lambda section: (section.address, section.name)))


def _loaded_sections(data: bytes, offset: int, entry: int, count: int, names_index: int) -> list[_Section]:
    rows = [_SECTION.unpack_from(data, offset + n * entry) for n in range(count)]
    names = _slice(data, rows[names_index][4], rows[names_index][5])
    sections = []
    for name, kind, flags, address, start, size, _link, _info, align, _entry in rows:
        if flags & _ALLOC and size:
            body = b"" if kind == _NOBITS else _slice(data, start, size)
            end = names.index(b"\0", name)
            sections.append(_Section(names[name:end], kind, flags, address, body, size, align))
    return sections


def _slice(data: bytes, start: int, size: int) -> bytes:
    if start + size > len(data):
        raise ValueError("outside the file")
    return data[start : start + size]


def _write(header: tuple[int, ...], sections: list[_Section]) -> bytes:
    names = b"\0" + b"".join(section.name + b"\0" for section in sections) + b".shstrtab\0"
    start = _HEADER.size + _SEGMENT.size * len(sections)
    body, segments = b"", b""
    table = bytes(_SECTION.size)
    name = 1
    for section in sections:
        body += bytes(-(start + len(body)) % 4)
        offset, flags = start + len(body), section.flags
        # sh_flags: 1 write, 4 execute; p_flags: 4 read, 2 write, 1 execute.
        access = 4 | (2 if flags & 1 else 0) | (1 if flags & 4 else 0)
        segments += _SEGMENT.pack(
            _LOAD, offset, section.address, section.address, len(section.data), section.size, access, 4
        )
        table += _SECTION.pack(name, section.type, flags, section.address, offset, section.size, 0, 0, section.align, 0)
        name += len(section.name) + 1
        body += section.data
    table += _SECTION.pack(name, _STRTAB, 0, 0, start + len(body), len(names), 0, 0, 1, 0)
    body += names
    body += bytes(-(start + len(body)) % 4)
    ident, kind, machine, version, entry, _, _, flags, *_ = header
    head = _HEADER.pack(
        ident,
        kind,
        machine,
        version,
        entry,
        _HEADER.size,
        start + len(body),
        flags,
        _HEADER.size,
        _SEGMENT.size,
        len(sections),
        _SECTION.size,
        len(sections) + 2,
        len(sections) + 1,
    )
    return head + segments + body + table
