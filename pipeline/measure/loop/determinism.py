"""Why two builds of the same sources differ: which action is to blame, and where in its output the difference lies.

Pure: bytes in, places out. Knows ELF through pyelftools (imported on use) and the graph's actions; does not know how
the two builds were made. Invariants: an action is blamed only when each of its inputs is the same in both builds, so
what merely follows from another difference is not named; a file that is no ELF, or a damaged one, still gets an offset.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.model import Action

CONTEXT = 24
"""Bytes of text shown on each side of the first difference."""


class FirstDifference(NamedTuple):
    """The first difference of two files. `offset` counts from the section's begin, or from the file's without a
    `section`. `symbol`: `name+0x3` for the object or function that lies there, `name (refers to it)` for one that uses
    an unnamed literal, `""` when nothing says. `before`, `after`: what stands there, as text or hex."""

    section: str
    symbol: str
    offset: int
    before: str
    after: str

    def __str__(self) -> str:
        where = f"section {self.section}, " if self.section else ""
        where += f"symbol {self.symbol}, " if self.symbol else ""
        return f"{where}offset {self.offset:#x}: {self.before} -> {self.after}"


class Culprit(NamedTuple):
    """`action` made `path` differently from the same inputs."""

    action: str
    path: str
    place: FirstDifference

    def __str__(self) -> str:
        return f"{self.path} (action {self.action}): {self.place}"


def blame(
    actions: Iterable[Action],
    discovered: Mapping[str, Sequence[str]],
    first: Mapping[str, bytes],
    second: Mapping[str, bytes],
) -> list[tuple[str, str]]:
    """(action, output) for each output that differs although nothing that the action reads does.

    `first`, `second`: path -> bytes (or a digest) of every product; `discovered`: what actions read beyond what they
    declare."""
    differs = {path for path in first.keys() | second.keys() if first.get(path) != second.get(path)}
    return [
        (action.name, path)
        for action in actions
        if differs.isdisjoint((*action.inputs, *discovered.get(action.name, ())))
        for path in action.outputs
        if path in differs
    ]


def locate(first: bytes, second: bytes) -> FirstDifference:
    """The first difference, in a section that is loaded if there is one. The two must differ."""
    if first[:4] == second[:4] == b"\x7fELF":
        place = _locate_elf(first, second)
        if place is not None:
            return place
    return _place("", "", first, second)


def _first_difference(first: bytes, second: bytes) -> int:
    common = min(len(first), len(second))
    if first[:common] == second[:common]:
        return common
    low, high = 0, common
    while high - low > 1:
        half = (low + high) // 2
        low, high = (half, high) if first[low:half] == second[low:half] else (low, half)
    return low


def _place(section: str, symbol: str, first: bytes, second: bytes) -> FirstDifference:
    at = _first_difference(first, second)
    return FirstDifference(section, symbol, at, _shown(first, at), _shown(second, at))


def _shown(data: bytes, at: int) -> str:
    """The text that goes through `at`, else the bytes from there."""
    if at >= len(data):
        return "the end"
    left = right = at
    while left > max(0, at - CONTEXT) and 32 <= data[left - 1] < 127:
        left -= 1
    while right < min(len(data), at + CONTEXT) and 32 <= data[right] < 127:
        right += 1
    return repr(data[left:right].decode("ascii")) if right - left >= 4 else data[at : at + 8].hex(" ")


# --- ELF --------------------------------------------------------------------------------------


def _locate_elf(first: bytes, second: bytes) -> FirstDifference | None:
    """None when pyelftools cannot read one of them, or when they differ outside their sections only."""
    from elftools.common.exceptions import ELFError
    from elftools.construct import ConstructError
    from elftools.elf.elffile import ELFFile

    try:
        one, other = ELFFile(io.BytesIO(first)), ELFFile(io.BytesIO(second))
        sections, others = _sections(one), _sections(other)
        names = sorted(
            dict.fromkeys([*sections, *others]), key=lambda key: not _loaded(sections.get(key, others.get(key)))
        )
        for key in names:
            mine = sections[key].data() if key in sections else b""
            its = others[key].data() if key in others else b""
            if mine != its:
                at = _first_difference(mine, its)
                symbol = _symbol(one, sections[key], at) if key in sections else ""
                return _place(key[0], symbol, mine, its)
    except (ELFError, ConstructError, ValueError, KeyError, IndexError, TypeError, AttributeError, UnicodeError):
        pass  # a damaged file: pyelftools has no one exception for it
    return None


def _sections(elf: Any) -> dict[tuple[str, int], Any]:
    """(name, how many of that name came before) -> section: objects have many sections of one name."""
    found: dict[tuple[str, int], Any] = {}
    for section in elf.iter_sections():
        if section["sh_type"] not in ("SHT_NULL", "SHT_NOBITS", "SHT_SYMTAB", "SHT_STRTAB"):
            number = sum(name == section.name for name, _ in found)
            found[section.name, number] = section
    return found


def _loaded(section: Any) -> bool:
    return bool(section["sh_flags"] & 0x2)


def _symbol(elf: Any, section: Any, at: int) -> str:
    """The symbol at `at` of `section`, else the one that uses what lies there."""
    table = elf.get_section_by_name(".symtab")
    if table is None:
        return ""
    index = next(n for n, one in enumerate(elf.iter_sections()) if one == section)
    symbols = list(table.iter_symbols())
    named = _containing(elf, symbols, index, at)
    return named or _referrer(elf, symbols, index, at)


def _containing(elf: Any, symbols: Sequence[Any], index: int, at: int) -> str:
    """`name+0x3` of the innermost named symbol around `at` of section number `index`."""
    base = 0 if elf["e_type"] == "ET_REL" else elf.get_section(index)["sh_addr"]
    around = [
        (symbol["st_size"], symbol.name, at - (symbol["st_value"] - base))
        for symbol in symbols
        if symbol["st_shndx"] == index and symbol.name and symbol["st_info"]["type"] != "STT_SECTION"
        if 0 <= at - (symbol["st_value"] - base) < symbol["st_size"]
    ]
    # `.L` names are the compiler's own: a literal says more by who uses it.
    around = [entry for entry in around if not entry[1].startswith(".L")]
    if not around:
        return ""
    _, name, inside = min(around)
    return f"{name}+{inside:#x}"


def _referrer(elf: Any, symbols: Sequence[Any], index: int, at: int) -> str:
    """The function or object with a relocation to the literal at `at`: the nearest target that is not behind it."""
    best: tuple[int, str] = (-1, "")
    for relocations in elf.iter_sections():
        if relocations["sh_type"] != "SHT_RELA" or not _loaded(elf.get_section(relocations["sh_info"])):
            continue
        for entry in relocations.iter_relocations():
            symbol = symbols[entry["r_info_sym"]]
            target = symbol["st_value"] + entry["r_addend"]
            if symbol["st_shndx"] == index and best[0] < target <= at:
                user = _containing(elf, symbols, relocations["sh_info"], entry["r_offset"])
                if user:
                    best = (target, user.partition("+")[0])
    return f"{best[1]} (refers to it)" if best[1] else ""
