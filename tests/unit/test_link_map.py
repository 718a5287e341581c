"""Maps of GNU ld and lld: literal texts, damage, and sums that are exact whatever a map says."""

from __future__ import annotations

import random
import struct
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.formats import elf
from pipeline.formats.elf import LoadedSection
from pipeline.formats.link_map import FILL, MapShare, read_map

TEXT = LoadedSection(".flash.text", 0x42000020, 0x40, has_bytes=True, executable=True)
BSS = LoadedSection(".bss", 0x3FC80000, 0x10, has_bytes=False, executable=False)
BOTH = (TEXT, BSS)

GNU = b"""Archive member included to satisfy reference by file (symbol)

esp-idf/main/libmain.a(main.c.obj)
                              start.o (app_main)

Discarded input sections

 .text          0x00000000       0x99 gone.o

Memory Configuration

Name             Origin             Length             Attributes
iram             0x40380000         0x00008000         xrw

Linker script and memory map

LOAD start.o
LOAD esp-idf/main/libmain.a
                0x00000000                        _no = 0x0

.flash.text     0x42000020       0x40
 *(.text .text.*)
 .text.start    0x42000020        0xa start.o
                0x42000020                _start
 *fill*         0x4200002a        0x2 00
 .text.a_function_with_a_long_name
                0x4200002c       0x14 esp-idf/main/libmain.a(main.c.obj)
                                 0x18 (size before relaxing)
                0x4200002c                app_main
 .text.next     0x42000040        0x8 /opt/gcc dir/lib/libgcc.a(_udivdi3.o)

.a_section_with_a_long_name
                0x42000060        0x4
 .x             0x42000060        0x4 elsewhere.o

.bss            0x3fc80000       0x10 load address 0x42000060
 COMMON         0x3fc80000        0x4 start.o
 .bss.state     0x3fc80004        0x8 esp-idf/main/libmain.a(main.c.obj)
OUTPUT(app.elf elf32-littleriscv)

.debug_info     0x00000000      0x100
 .debug_info    0x00000000      0x100 start.o

Cross Reference Table

.bss            0x3fc80000       0x10
 .bss.lie       0x3fc80000       0x10 lie.o
"""

LLD = b"""     VMA      LMA     Size Align Out     In      Symbol
       0 42000020        0     1 . = 0x42000020
42000020 42000020       40     4 .flash.text
42000020 42000020        a     2         start.o:(.text.start)
42000020 42000020        0     1                 $x
42000020 42000020        a     1                 _start
4200002c 4200002c       14     4         lib/libmain.a(main.c.obj):(.text.app_main)
42000040 42000040        8     1         <internal>:(.rodata.str1.1)
42000048 42000048        0     1         . = ALIGN ( 4 )
3fc80000 42000060       10     4 .bss
3fc80004 42000064        8     4         lib/libmain.a(main.c.obj):(.bss.state+0x4)
       0        0      100     1 .debug_info
       0        0      100     1         start.o:(.debug_info)
"""


def test_gnu_ld() -> None:
    archive = "esp-idf/main/libmain.a"
    assert set(as_shares(read_map(GNU, BOTH))) == {
        MapShare(".flash.text", "", "start.o", 0xA),
        MapShare(".flash.text", archive, "main.c.obj", 0x14),
        MapShare(".flash.text", "/opt/gcc dir/lib/libgcc.a", "_udivdi3.o", 8),
        MapShare(".flash.text", "", FILL, 0x40 - 0xA - 0x14 - 8),
        MapShare(".bss", "", "start.o", 4),
        MapShare(".bss", archive, "main.c.obj", 8),
        MapShare(".bss", "", FILL, 4),
    }
    assert read_map(GNU.replace(b"\n", b"\r\n"), BOTH) == read_map(GNU, BOTH)


def test_lld() -> None:
    assert set(as_shares(read_map(LLD, BOTH))) == {
        MapShare(".flash.text", "", "start.o", 0xA),
        MapShare(".flash.text", "lib/libmain.a", "main.c.obj", 0x14),
        MapShare(".flash.text", "", "<internal>", 8),
        MapShare(".flash.text", "", FILL, 0x40 - 0xA - 0x14 - 8),
        MapShare(".bss", "lib/libmain.a", "main.c.obj", 8),
        MapShare(".bss", "", FILL, 8),
    }


def test_merged_strings_that_overlap_what_follows() -> None:
    """GNU ld 2.40 wrote such a map for the reference firmware."""
    rows = (
        b" .rodata.bool.str1.4\n                0x42000020        0xe libcore.a(out.o)\n"
        b" .rodata.hex.str1.4\n                0x42000020        0x1 libcore.a(out.o)\n"
        b" *fill*         0x42000020        0x2 \n"
        b" .rodata.digits\n                0x42000022       0x11 libcore.a(out.o)\n"
    )
    head = b"Linker script and memory map\n\n.flash.text     0x42000020       0x40\n"
    (fill, out) = as_shares(read_map(head + rows, [TEXT]))
    assert (fill.size, out.size) == (0x40 - 0x11, 0x11)


def test_a_map_of_another_link_is_not_used() -> None:
    moved = TEXT._replace(size=0x44)
    why = "it is of another link: no .flash.text at 0x42000020 with 68 bytes"
    assert read_map(GNU, [moved]) == read_map(LLD, [moved]) == why
    assert read_map(b"", BOTH) == read_map(b"\x7fELF", BOTH) == "this is no map of GNU ld or lld"


# --- damage -----------------------------------------------------------------------------------


def as_shares(found: tuple[MapShare, ...] | str) -> tuple[MapShare, ...]:
    assert not isinstance(found, str), found
    return found


def check_sums(found: tuple[MapShare, ...] | str, sections: tuple[LoadedSection, ...] = BOTH) -> None:
    if isinstance(found, str):
        assert found and "\n" not in found
        return
    sums: Counter[str] = Counter()
    for share in found:
        assert share.size > 0
        sums[share.section] += share.size
    assert sums == {section.name: section.size for section in sections}


def test_cut_off_anywhere() -> None:
    for text in (GNU, LLD):
        for end in range(len(text)):
            check_sums(read_map(text[:end], BOTH))


def test_any_byte_may_be_another() -> None:
    draw = random.Random(7)
    for text in (GNU, LLD):
        for _ in range(2_000):
            at = draw.randrange(len(text))
            check_sums(read_map(text[:at] + bytes([draw.randrange(256)]) + text[at + 1 :], BOTH))


PIECES = st.lists(st.tuples(st.integers(-8, 0x60), st.integers(0, 0x60), st.sampled_from("abc")), max_size=12)


@settings(max_examples=100)
@given(PIECES)
def test_shares_add_up_whatever_pieces_claim(pieces: list[tuple[int, int, str]]) -> None:
    gnu = b"Linker script and memory map\n\n.flash.text     0x42000020       0x40\n"
    lld = b"     VMA      LMA     Size Align Out     In      Symbol\n42000020 42000020       40     4 .flash.text\n"
    for at, size, name in pieces:
        gnu += b" .text          %#x       %#x lib%s.a(x.o)\n" % (0x42000020 + at, size, name.encode())
        lld += b"%8x %8x %8x     4         lib%s.a(x.o):(.text)\n" % (0x42000020 + at, 0, size, name.encode())
    for text in (gnu, lld):
        check_sums(as_shares(read_map(text, [TEXT])), (TEXT,))
    assert read_map(gnu, [TEXT]) == read_map(lld, [TEXT])


def test_a_line_without_end_costs_no_more_than_its_length() -> None:
    for noise in (b"x" * 500_000, b" " * 500_000, b"0x1" * 150_000, b" .t\n" * 100_000, b"\n" + b" " * 200_000 + b"0"):
        check_sums(read_map(GNU.replace(b"LOAD start.o", noise), BOTH))
        check_sums(read_map(LLD + noise, BOTH))


# --- the sections of an ELF file --------------------------------------------------------------


def elf_file() -> bytes:
    """Two loaded sections, one that is not loaded, one without bytes in the file."""
    names = b"\0.text\0.debug_info\0.bss\0.shstrtab\0"
    table = bytes(40)
    for name, kind, flags, address, size in (
        *((1, 1, 6, 0x42000020, 16), (7, 1, 0, 0, 8)),
        *((19, 8, 3, 0x3FC80000, 32), (24, 3, 0, 0, len(names))),
    ):
        table += struct.pack("<10I", name, kind, flags, address, 52, size, 0, 0, 4, 0)
    head = struct.pack("<16sHHIIIIIHHHHHH", b"\x7fELF\1\1\1", 2, 243, 1, 0, 0, 52 + len(names), 0, 52, 32, 0, 40, 5, 4)
    return head + names + table


def loaded(data: bytes) -> tuple[LoadedSection, ...] | str:
    return elf.loaded(lambda offset, size: data[offset : offset + size])


def test_loaded_sections_are_read_from_headers_and_names_alone() -> None:
    data, asked = elf_file(), 0

    def read(offset: int, size: int) -> bytes:
        nonlocal asked
        asked += size
        return data[offset : offset + size]

    assert elf.loaded(read) == (
        LoadedSection(".bss", 0x3FC80000, 32, has_bytes=False, executable=False),
        LoadedSection(".text", 0x42000020, 16, has_bytes=True, executable=True),
    )
    assert asked < len(data) + 1


def test_a_damaged_elf_file_is_a_fact() -> None:
    data = elf_file()
    draw = random.Random(3)
    for end in range(len(data)):
        assert isinstance(loaded(data[:end]), str)
    for _ in range(3_000):
        at = draw.randrange(len(data))
        found = loaded(data[:at] + bytes([draw.randrange(256)]) + data[at + 1 :])
        assert isinstance(found, str | tuple)
