"""The efuse controller: what is burnt, and the registers through which espefuse burns more.

Bits go from 0 to 1 and never back; a write-protected block takes nothing, a read-protected one reads as zeros. Does not
know what a bit means, nor frames. Invariant: what was burnt is in the file, if there is one, before the command ends.
Register offsets: espefuse 5.6 (`efuse/*/mem_definition.py`). Not modelled: the Reed-Solomon check words, burn errors,
3/4 coding; every burn succeeds at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

from virtualboard.named_values import NamedValues

_BURN_CODE, _BURN, _READ = 0x5A5A, 2, 1
_WINDOW = 0x200


class Block(NamedValues):
    """One block: where it is read, where its new bits are written, how many words; its bit in the write and the read
    protection, -1 for none."""

    read: int
    write: int
    words: int
    write_bit: int = -1
    read_bit: int = -1


class EfuseLayout(NamedValues):
    """Offsets from the controller's base. `protect`, `hide`: the words with the protection bits. `one_by_one`: the
    command names its block in bits 5:2; else it burns what has been written to any of them."""

    blocks: tuple[Block, ...]
    conf: int
    cmd: int
    protect: int
    hide: int
    one_by_one: bool = True


def _keys() -> tuple[Block, ...]:
    return tuple(Block(0x9C + 0x20 * key, 0, 8, 23 + key, key) for key in range(6))


MODERN = EfuseLayout(
    blocks=(
        *(Block(0x2C, 0, 6), Block(0x44, 0, 6, 20), Block(0x5C, 0, 8, 21), Block(0x7C, 0, 8, 22)),
        *(*_keys(), Block(0x15C, 0, 8, 29, 6)),
    ),
    conf=0x1CC,
    cmd=0x1D4,
    protect=0x2C,
    hide=0x30,
)
SMALL = EfuseLayout(  # ESP32-C2
    blocks=(Block(0x2C, 0, 2), Block(0x34, 0, 3, 5), Block(0x40, 0, 8, 6), Block(0x60, 0, 8, 7)),
    conf=0x8C,
    cmd=0x94,
    protect=0x2C,
    hide=0x30,
)
CLASSIC = EfuseLayout(  # ESP32
    blocks=(
        *(Block(0x00, 0x1C, 7), Block(0x38, 0x98, 8, 7, 16), Block(0x58, 0xB8, 8, 8, 17), Block(0x78, 0xD8, 8, 9, 18)),
    ),
    conf=0xFC,
    cmd=0x104,
    protect=0x00,
    hide=0x00,
    one_by_one=False,
)


class EfuseController:
    """`words` are the efuses by address; burning changes them in place and then calls `then`."""

    def __init__(self, layout: EfuseLayout, base: int, words: dict[int, int], then: Callable[[], None]) -> None:
        self._layout, self._base, self._words, self._then = layout, base, words, then
        self._registers: dict[int, int] = {}

    def owns(self, address: int) -> bool:
        """Whether `address` is one of its registers."""
        return 0 <= address - self._base < _WINDOW

    def read(self, address: int) -> int:
        """The register's word."""
        offset = address - self._base
        for block in self._layout.blocks:
            if 0 <= offset - block.read < 4 * block.words:
                hidden = block.read_bit >= 0 and self.burnt(self._layout.hide) >> block.read_bit & 1
                return 0 if hidden else self._words.get(address, 0)
        if offset == self._layout.cmd:
            return 0  # done
        return self._registers.get(offset, self._words.get(address, 0))

    def write(self, address: int, value: int) -> None:
        """Set the register; the command register burns."""
        layout, offset = self._layout, address - self._base
        if any(0 <= offset - block.read < 4 * block.words for block in layout.blocks):
            return  # what is burnt can be read only
        self._registers[offset] = value
        if offset == layout.cmd and value & _BURN and self._registers.get(layout.conf) == _BURN_CODE:
            number = value >> 2 & 0xF
            chosen = layout.blocks[number : number + 1] if layout.one_by_one else layout.blocks
            for block in chosen:
                self._burn(block)
            self._then()

    def burnt(self, offset: int) -> int:
        """A word as the hardware sees it, whatever is protected from reading."""
        return self._words.get(self._base + offset, 0)

    def _burn(self, block: Block) -> None:
        if block.write_bit >= 0 and self.burnt(self._layout.protect) >> block.write_bit & 1:
            return
        for index in range(block.words):
            bits = self._registers.get(block.write + 4 * index, 0)
            if bits:
                address = self._base + block.read + 4 * index
                self._words[address] = self._words.get(address, 0) | bits


class EfuseFile:
    """What was burnt after the factory, beside the flash file: a line `address bits` for each word, in hexadecimal.
    `path` None remembers nothing."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def load(self) -> Mapping[int, int]:
        """Bits by address; a line that is none is passed over."""
        found: dict[int, int] = {}
        text = ""
        if self._path is not None:
            with contextlib.suppress(OSError, UnicodeDecodeError):
                text = self._path.read_text(encoding="ascii")
        for line in text.splitlines():
            with contextlib.suppress(ValueError):
                address, bits = (int(word, 16) for word in line.split())
                found[address] = bits & 0xFFFFFFFF
        return found

    def save(self, words: Mapping[int, int]) -> None:
        """Replace the file, whole or not at all."""
        if self._path is not None:
            beside = self._path.with_name(self._path.name + ".new")
            beside.write_text("".join(f"{at:#010x} {bits:#010x}\n" for at, bits in words.items() if bits), "ascii")
            beside.replace(self._path)
