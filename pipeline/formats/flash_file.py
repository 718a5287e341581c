"""A file, or a part of one, that goes to an offset in flash.

Does not know how a file is opened. Invariant: `take` of a whole file is the file itself.
"""

from __future__ import annotations

from cache.named_tuple import NamedTuple


class FilePart(NamedTuple):
    """`size` bytes from `start` on; a negative size: to the end. `packed`: the file is a UF2 or HEX, and `start`
    counts in what it unpacks to."""

    start: int = 0
    size: int = -1
    packed: bool = False

    def take(self, data: bytes) -> bytes:
        """The part of the file's bytes. Raises ValueError for a packed one that is damaged."""
        flat = data
        if self.packed:
            from pipeline.formats.packed import unpack

            flat = unpack(data).data
        return flat[self.start :] if self.size < 0 else flat[self.start : self.start + self.size]


WHOLE = FilePart()


class FlashFile(NamedTuple):
    """`path` goes to `offset`."""

    offset: int
    path: str
    part: FilePart = WHOLE

    @property
    def label(self) -> str:
        """The path, and for a part of a file its offset in flash: different for each image."""
        return self.path if self.part == WHOLE else f"{self.path} at {self.offset:#x}"
