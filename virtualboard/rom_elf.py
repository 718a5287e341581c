"""The ELF file of a mask ROM, which its owner brings (Espressif's `esp-rom-elfs`): where it is, and what is in it.

Does not know a CPU or how a ROM is mapped. Invariant: a file that is not such an ELF gives `RomElfError` with a text
for a person, whatever its bytes are; nothing is read beyond the file.

Facts: ESP-IDF's installer unpacks `esp-rom-elfs` and exports ESP_ROM_ELF_DIR; its files are named
`<chip>_rev<N>_rom.elf` (ESP-IDF, `tools/idf_py_actions/roms.json`). The format is the System V ABI's, chapter 4.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from pathlib import Path

from virtualboard.named_values import NamedValues

ENVIRONMENT = "ESP_ROM_ELF_DIR"
WHERE_FROM = (
    "Install Espressif's esp-rom-elfs (ESP-IDF's installer brings them), and name the chip's file with `rom_elf` of "
    f"the device or --rom-elf, or the directory with {ENVIRONMENT}."
)
_CLASS_32, _LITTLE, _RISCV, _LOAD = 1, 1, 243, 1
_MAX_SIZE = 64 << 20


class RomElfError(Exception):
    """The ROM ELF cannot be used. The text is for a person: a fact, then a hint on its own line."""


class RomPart(NamedValues):
    """Bytes at an address of the chip: of the ROM itself, or of RAM as the ROM's start code fills it."""

    address: int
    data: bytes


class RomElf(NamedValues):
    """`parts` in the file's order."""

    path: Path
    parts: tuple[RomPart, ...]


def find_rom_elf(chip: str, directory: Path) -> Path | None:
    """The file of the newest revision of `chip` in `directory`; None where there is none."""
    pattern = re.compile(rf"{re.escape(chip)}_rev(\d+)_rom\.elf")
    try:
        found = [(int(match[1]), path) for path in directory.iterdir() if (match := pattern.fullmatch(path.name))]
    except OSError:
        return None
    return max(found)[1] if found else None


def rom_elf_of(chip: str, named: Path | None, environment: Mapping[str, str]) -> RomElf | None:
    """The ROM that a board of `chip` has: of the file `named`, else of the directory in the environment; None where
    neither says anything. Raises RomElfError for a file that cannot be used, and for a directory without one."""
    if named is not None:
        return load_rom_elf(named)
    told = environment.get(ENVIRONMENT, "")
    if not told:
        return None
    path = find_rom_elf(chip, Path(told))
    return load_rom_elf(path) if path is not None else None


def load_rom_elf(path: Path) -> RomElf:
    """Read and check one file. Raises RomElfError."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_SIZE + 1)
    except OSError as exc:
        raise RomElfError(f"{path}: error: cannot read the ROM ELF: {exc.strerror}\n{WHERE_FROM}") from exc
    if len(data) > _MAX_SIZE:
        raise RomElfError(f"{path}: error: a ROM ELF of more than {_MAX_SIZE >> 20} MiB\n{WHERE_FROM}")
    return parse_rom_elf(data, path)


def parse_rom_elf(data: bytes, path: Path) -> RomElf:
    """The loadable parts of an ELF file for 32-bit RISC-V. Raises RomElfError."""
    try:
        parts = _parts(data)
    except (struct.error, ValueError) as exc:
        raise RomElfError(f"{path}: error: not a ROM ELF for RISC-V: {exc}\n{WHERE_FROM}") from exc
    if not parts:
        raise RomElfError(f"{path}: error: the ELF has nothing to load\n{WHERE_FROM}")
    return RomElf(path, parts)


def _slice(data: bytes, offset: int, size: int) -> bytes:
    if offset + size > len(data):
        raise ValueError(f"{size} bytes at {offset:#x} lie beyond the end of the file ({len(data)} bytes)")
    return data[offset : offset + size]


def _parts(data: bytes) -> tuple[RomPart, ...]:
    if data[:4] != b"\x7fELF":
        raise ValueError("it does not begin with the ELF magic")
    if (data[4], data[5]) != (_CLASS_32, _LITTLE):
        raise ValueError(f"class {data[4]} and byte order {data[5]} are not 32 bits, little-endian")
    machine = struct.unpack_from("<H", data, 18)[0]
    if machine != _RISCV:
        raise ValueError(f"it is for machine {machine}, and RISC-V is {_RISCV}")
    (table,) = struct.unpack_from("<I", data, 28)
    size, count = struct.unpack_from("<HH", data, 42)
    if count and size < 32:
        raise ValueError(f"program headers of {size} bytes are shorter than 32")
    parts = []
    for index in range(count):
        kind, offset, address, physical, in_file = struct.unpack_from("<5I", data, table + index * size)
        if kind != _LOAD or not in_file:
            continue
        content = _slice(data, offset, in_file)
        parts.append(RomPart(address, content))
        if physical != address:
            parts.append(RomPart(physical, content))  # where the start code copies it from
    return tuple(parts)
