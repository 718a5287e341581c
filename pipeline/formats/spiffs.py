"""SPIFFS images: files in, the bytes of a partition out, and back.

Pure. Format: SPIFFS's own technical specification (`docs/TECH_SPEC` of pellepl/spiffs) and `spiffs_nucleus.h` with
ESP-IDF's settings: 16-bit ids, packed little-endian structures, magic with length, blocks of 4 KiB, index tables not
aligned. No package of the Python index makes such images, hence this one. There are no directories: `/` is a letter of
a name. Invariant: `unpack(pack(files, ...))` are the files.

    block := lookup page(s), then pages; the lookup holds one id per page, and in its last but one place the magic
    index page := id | 0x8000, span, 0xF8, 3 pad, [size, type, name, meta], page numbers   the brackets: span 0 alone
    data page  := id, span, 0xFC, content
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping

from cache.named_tuple import NamedTuple

BLOCK = 4096
_MAGIC = 0x20140529
_INDEX, _DATA, _FILE = 0xF8, 0xFC, 1
_HEADER, _PADDED = 5, 8
_ID_SIZE = 2


class SpiffsSettings(NamedTuple):
    """`CONFIG_SPIFFS_PAGE_SIZE`, `_OBJ_NAME_LEN` and `_META_LENGTH` of the firmware, all in bytes."""

    page: int = 256
    name: int = 32
    meta: int = 4

    @property
    def pages(self) -> int:
        """Of a block."""
        return BLOCK // self.page

    @property
    def lookups(self) -> int:
        """Lookup pages of a block."""
        return -(-self.pages * _ID_SIZE // self.page)

    @property
    def content(self) -> int:
        """Bytes of a file in one data page."""
        return self.page - _HEADER

    @property
    def first_entries(self) -> int:
        """Page numbers in the first index page of a file."""
        return (self.page - _PADDED - 5 - self.name - self.meta) // 2

    @property
    def entries(self) -> int:
        """Page numbers in every further one."""
        return (self.page - _PADDED) // 2


class _Page(NamedTuple):
    lookup: int
    data: bytes


def pack(files: Mapping[str, bytes], size: int, settings: SpiffsSettings) -> bytes | str:
    """The image of `size` bytes, or why there can be none. Names without the leading slash, which they get."""
    if size % BLOCK or size < 2 * BLOCK:
        return f"the partition has {size} bytes, which are not two or more blocks of {BLOCK}"
    blocks = size // BLOCK
    room = settings.pages - settings.lookups
    pages: list[_Page] = []

    def number(at: int) -> int:
        return at // room * settings.pages + settings.lookups + at % room

    for object_id, name in enumerate(sorted(files), 1):
        encoded = f"/{name}".encode()
        if len(encoded) >= settings.name:
            return f"'/{name}' has {len(encoded)} bytes, but a name in SPIFFS has {settings.name - 1} at most"
        pages += _object(object_id, encoded, files[name], settings, number, len(pages))
    if len(pages) > blocks * room:
        needed = -(-len(pages) // room) * BLOCK
        return f"the files need {needed} bytes in SPIFFS, but the partition has {size}"
    return b"".join(_block(n, blocks, pages[n * room : (n + 1) * room], settings) for n in range(blocks))


def _object(
    object_id: int,
    name: bytes,
    content: bytes,
    settings: SpiffsSettings,
    number: Callable[[int], int],
    first: int,
) -> Iterator[_Page]:
    """The pages of one file, of which the first will be page `first` of all: each index page, then those it names."""
    chunks = [content[at : at + settings.content] for at in range(0, len(content), settings.content)]
    span, done, at = 0, 0, first
    while span == 0 or done < len(chunks):
        some = chunks[done : done + (settings.entries if span else settings.first_entries)]
        head = struct.pack("<HHB3s", object_id | 0x8000, span, _INDEX, b"\xff" * 3)
        if span == 0:
            head += struct.pack("<IB", len(content), _FILE) + name.ljust(settings.name + settings.meta, b"\0")
        numbers = [number(at + 1 + n) for n in range(len(some))]
        yield _Page(object_id | 0x8000, head + struct.pack(f"<{len(numbers)}H", *numbers))
        for n, chunk in enumerate(some):
            yield _Page(object_id, struct.pack("<HHB", object_id, done + n, _DATA) + chunk)
        at += 1 + len(some)
        done += len(some)
        span += 1


def _block(index: int, blocks: int, pages: list[_Page], settings: SpiffsSettings) -> bytes:
    lookup = bytearray(b"\xff" * settings.lookups * settings.page)
    struct.pack_into(f"<{len(pages)}H", lookup, 0, *(page.lookup for page in pages))
    magic = (_MAGIC ^ settings.page ^ (blocks - index)) & 0xFFFF
    struct.pack_into("<H", lookup, len(lookup) - 2 * _ID_SIZE, magic)
    body = b"".join(page.data.ljust(settings.page, b"\xff") for page in pages)
    return (bytes(lookup) + body).ljust(BLOCK, b"\xff")


def unpack(image: bytes, settings: SpiffsSettings) -> dict[str, bytes] | str:
    """The files of an image by name (without the leading slash), found by the pages' own headers; or what is wrong."""
    blocks = len(image) // BLOCK
    heads: dict[int, tuple[str, int]] = {}
    parts: dict[int, dict[int, bytes]] = {}
    for block in range(blocks):
        start = block * BLOCK
        (magic,) = struct.unpack_from("<H", image, start + settings.lookups * settings.page - 2 * _ID_SIZE)
        if magic != (_MAGIC ^ settings.page ^ (blocks - block)) & 0xFFFF:
            return f"block {block} has the magic {magic:#06x}"
        for page in range(settings.lookups, settings.pages):
            data = image[start + page * settings.page : start + (page + 1) * settings.page]
            object_id, span, flags = struct.unpack_from("<HHB", data)
            (listed,) = struct.unpack_from("<H", image, start + (page - settings.lookups) * _ID_SIZE)
            if listed != object_id:
                return f"page {page} of block {block} is {object_id:#06x}, but {listed:#06x} in the lookup"
            if flags == _INDEX and span == 0:
                size, _ = struct.unpack_from("<IB", data, _PADDED)
                name = data[_PADDED + 5 : _PADDED + 5 + settings.name].partition(b"\0")[0].decode()
                heads[object_id & 0x7FFF] = (name.removeprefix("/"), size)
            elif flags == _DATA:
                parts.setdefault(object_id, {})[span] = data[_HEADER:]
    found = {}
    for object_id, (name, size) in heads.items():
        spans = parts.get(object_id, {})
        found[name] = b"".join(spans[span] for span in sorted(spans))[:size]
    return found
