"""Addresses to functions and lines, with the debug information of the ELF file that is running.

The only module that knows pyelftools, which is imported when there is something to decode. Does not know where ELF
files are kept (`elf_store`).
Invariant: a backtrace is decoded with an ELF of the identity that the device names, or not at all.
"""

from __future__ import annotations

import bisect
import io
from collections.abc import Iterable, Iterator, Sequence
from posixpath import normpath
from typing import Any

from pipeline.boot.backtrace import Dump, Frame, FrameRule, parse_dump, trace_lines, walk
from pipeline.device.elf_store import ElfStore


class TraceDecoder:
    """Answers about one ELF file. Raises ValueError for what is no ELF file."""

    def __init__(self, data: bytes) -> None:
        from elftools.common.exceptions import ELFError
        from elftools.elf.elffile import ELFFile

        try:
            self._elf = ELFFile(io.BytesIO(data))
            self._dwarf: Any = self._elf.get_dwarf_info() if self._elf.has_dwarf_info() else None
        except ELFError as error:
            raise ValueError(f"no ELF file: {error}") from None
        self._functions = sorted(self._read_functions())
        self._starts = [start for start, _, _ in self._functions]
        self._frames: list[tuple[int, int, Any]] | None = None
        self._lines: dict[int, list[tuple[int, str, int]]] = {}

    def frame(self, address: int) -> Frame:
        """What lies at `address`."""
        function = self._function(address)
        if not function:
            return Frame(address)
        return Frame(address, function, *self._line(address))

    def rule(self, address: int) -> FrameRule | None:
        """How to find the caller of what lies at `address`; `None` when the file does not say."""
        for start, size, entry in self._frame_entries():
            if start <= address < start + size:
                rows = [row for row in entry.get_decoded().table if row["pc"] <= address]
                return _frame_rule(rows[-1]) if rows else None
        return None

    def _read_functions(self) -> Iterator[tuple[int, int, str]]:
        table = self._elf.get_section_by_name(".symtab")
        for symbol in table.iter_symbols() if table is not None else ():
            # What is no function but has a name is a label of an assembler file; those with a dot are the compiler's.
            kind = symbol["st_info"]["type"]
            if kind == "STT_FUNC" or (kind == "STT_NOTYPE" and symbol.name and symbol.name[0] not in ".$"):
                section = symbol["st_shndx"]
                if isinstance(section, int) and self._elf.get_section(section)["sh_flags"] & 4:  # SHF_EXECINSTR
                    yield symbol["st_value"], symbol["st_size"], symbol.name

    def _function(self, address: int) -> str:
        index = bisect.bisect_right(self._starts, address) - 1
        while index >= 0:
            start, size, name = self._functions[index]
            # Assembler functions often have no size: they reach up to the next one.
            if start <= address < start + size or (size == 0 and self._same_section(start, address)):
                return name
            if size:
                return ""
            index -= 1
        return ""

    def _same_section(self, start: int, address: int) -> bool:
        for section in self._elf.iter_sections():
            if section["sh_flags"] & 4 and section["sh_addr"] <= start < section["sh_addr"] + section["sh_size"]:
                return bool(address < section["sh_addr"] + section["sh_size"])
        return False

    def _line(self, address: int) -> tuple[str, int]:
        best: tuple[str, int] = ("", 0)
        for unit in self._units(address):
            rows = self._rows(unit)
            index = bisect.bisect_right(rows, (address, "\x7f" * 8, 1 << 31)) - 1
            if index >= 0 and rows[index][1]:
                best = rows[index][1], rows[index][2]
                break
        return best

    def _units(self, address: int) -> Iterator[Any]:
        if self._dwarf is None:
            return
        # gcc writes the table of ranges for every unit, clang for none, an assembler for its own.
        ranges = self._dwarf.get_aranges()
        offset = ranges.cu_offset_at_addr(address) if ranges is not None else None
        if offset is not None:
            yield self._dwarf.get_CU_at(offset)
        else:
            yield from (unit for unit in self._dwarf.iter_CUs() if self._covers(unit, address))

    def _covers(self, unit: Any, address: int) -> bool:
        top = unit.get_top_DIE()
        base = top.attributes["DW_AT_low_pc"].value if "DW_AT_low_pc" in top.attributes else 0
        if "DW_AT_high_pc" in top.attributes:
            high = top.attributes["DW_AT_high_pc"]
            end = high.value if high.form == "DW_FORM_addr" else base + high.value
            return bool(base <= address < end)
        lists = self._dwarf.range_lists()
        if "DW_AT_ranges" not in top.attributes or lists is None:
            return False
        for entry in lists.get_range_list_at_offset(top.attributes["DW_AT_ranges"].value, cu=unit):
            if hasattr(entry, "base_address"):
                base = entry.base_address
                continue
            origin = 0 if entry.is_absolute else base
            if origin + entry.begin_offset <= address < origin + entry.end_offset:
                return True
        return False

    def _rows(self, unit: Any) -> list[tuple[int, str, int]]:
        """(address, file, line) in order of addresses; a file of `""` begins what no line is known of."""
        if unit.cu_offset not in self._lines:
            self._lines[unit.cu_offset] = sorted(_line_rows(self._dwarf.line_program_for_CU(unit)))
        return self._lines[unit.cu_offset]

    def _frame_entries(self) -> list[tuple[int, int, Any]]:
        if self._frames is None:
            self._frames = []
            if self._dwarf is not None and self._dwarf.has_CFI():
                from elftools.dwarf.callframe import FDE

                for entry in self._dwarf.CFI_entries():
                    if isinstance(entry, FDE):
                        self._frames.append((entry["initial_location"], entry["address_range"], entry))
        return self._frames


def _line_rows(program: Any) -> Iterator[tuple[int, str, int]]:
    if program is None:
        return
    names = [_file_name(program, index) for index in range(len(program["file_entry"]))]
    base = 0 if program["version"] >= 5 else 1
    for entry in program.get_entries():
        state = entry.state
        if state is not None:
            index = state.file - base
            name = "" if state.end_sequence or not 0 <= index < len(names) else names[index]
            yield state.address, name, state.line


def _file_name(program: Any, index: int) -> str:
    entry = program["file_entry"][index]
    directories, place = program["include_directory"], entry.dir_index
    if program["version"] < 5:
        place -= 1
    directory = directories[place].decode("utf-8", "replace") if 0 <= place < len(directories) else ""
    return normpath(f"{directory}/{entry.name.decode('utf-8', 'replace')}" if directory else entry.name.decode())


def _frame_rule(row: Any) -> FrameRule | None:
    rule = row["cfa"]
    if rule.reg is None:
        return None
    saved = {
        register: row[register].arg for register in row if isinstance(register, int) and row[register].type == "OFFSET"
    }
    return FrameRule(rule.reg, rule.offset, saved)


def decoded_panic(printed: Iterable[str], store: ElfStore, running: str) -> Sequence[str]:
    """The decoded trace of the last panic in `printed`, of each core that it names; nothing when there is none, or no
    ELF for it. `running`: the `app_elf_sha256` to assume when the panic does not name one."""
    dump = parse_dump(printed)
    if dump is None:
        return ()
    identity = dump.elf_sha256 or running
    found = store.find(identity)
    if found is None:
        return (f"Backtrace: no ELF with app_elf_sha256 {identity or '(not named)'} is known here",)
    lines: list[str] = []
    try:
        decoder = TraceDecoder(found.data)
        for one in (dump, *dump.others):
            frames = [decoder.frame(address) for address in walk(one, decoder.rule)]
            if frames:
                core = _whose(one, dump)
                lines += trace_lines(frames, found.shown, named=bool(dump.elf_sha256), core=core)
    except (ValueError, KeyError, IndexError) as error:  # a damaged file, or a form that pyelftools does not know
        return (f"Backtrace: {found.shown} cannot be decoded: {error}",)
    return lines


def _whose(one: Dump, panicked: Dump) -> str:
    """How the trace of a core is told from that of another, where the device printed several."""
    if not panicked.others:
        return ""
    return f" of core {one.core}" + ("" if one is panicked else ", which did not panic")
