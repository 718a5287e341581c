"""Sizes: which memory a section takes, rows that add up, comparisons, limits, and what is remembered."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pipeline.chips import CHIPS
from pipeline.formats.elf import LoadedSection
from pipeline.formats.link_map import FILL, MapShare
from pipeline.report.size import SizeLimits, archives_table, compared, excesses, is_moved, is_size, size_line, unjudged
from pipeline.report.size_measured import MERGED, Measured, component, files_of, size_of
from pipeline.report.size_memory import MEMORIES, MEMORY_MAPS, memory_of
from pipeline.run.built_sizes import BuiltSizes, SizeFiles
from tests.unit.test_link_map import elf_file

LOGS = "lib/libcore.a"
SECTIONS = (
    LoadedSection(".flash.rodata", 0x3C000020, 100, has_bytes=True, executable=False),
    LoadedSection(".flash_rodata_dummy", 0x3C010000, 5_000, has_bytes=False, executable=False),
    LoadedSection(".dram0.dummy", 0x3FC80000, 40, has_bytes=False, executable=False),
    LoadedSection(".dram0.data", 0x3FC81000, 24, has_bytes=True, executable=False),
    LoadedSection(".dram0.bss", 0x3FC82000, 300, has_bytes=False, executable=False),
    LoadedSection(".iram0.text", 0x40380000, 40, has_bytes=True, executable=True),
    LoadedSection(".flash.text", 0x42000020, 200, has_bytes=True, executable=True),
    LoadedSection(".rtc.data", 0x50000000, 8, has_bytes=True, executable=False),
)
SHARES = (
    MapShare(".flash.rodata", LOGS, "log.o", 100),
    MapShare(".flash_rodata_dummy", "", FILL, 5_000),
    MapShare(".dram0.dummy", "", FILL, 40),
    MapShare(".dram0.data", LOGS, "log.o", 20),
    MapShare(".dram0.data", "", FILL, 4),
    MapShare(".dram0.bss", LOGS, "ring.o", 200),
    MapShare(".dram0.bss", "", "build/release/obj/app/src/net/tcp.c.o", 100),
    MapShare(".iram0.text", "", "/opt/gcc/lib/crt0.o", 40),
    MapShare(".flash.text", LOGS, "log.o", 150),
    MapShare(".flash.text", "", "<internal>", 50),
    MapShare(".rtc.data", "", "CMakeFiles/app.elf.dir/main/main.c.obj", 8),
)
MEASURED = Measured("esp32c3", "build/app.elf", "build/app.map", "", 1000, 4096, SECTIONS, SHARES)
NO_LIMITS = SizeLimits()


def totals(size: Any) -> dict[str, int]:
    return {row["name"]: row["size"] for row in size["totals"]}


def test_totals_and_archives_of_a_program() -> None:
    size = size_of(MEASURED)
    assert totals(size) == {
        "image": 1000,
        "flash": 100 + 24 + 40 + 200 + 8,
        "flash_code": 200,
        "flash_rodata": 100,
        "ram": 40 + 24 + 300,
        "iram": 40,
        "dram": 324,
        "rtc": 8,
        "psram": 0,
    }
    memories = {row["name"]: row["memory"] for row in size["sections"]}
    assert (memories[".flash_rodata_dummy"], memories[".dram0.dummy"]) == ("reserved", "reserved")
    rows = {row["name"]: (row["flash"], row["ram"]) for row in size["archives"]}
    assert rows == {
        "libcore.a": (270, 220),
        "src/net": (0, 100),
        MERGED: (50, 0),
        "crt0.o": (40, 40),
        "main": (8, 0),
        FILL: (4, 4),
    }
    assert sum(flash for flash, _ in rows.values()) == totals(size)["flash"]
    assert sum(ram for _, ram in rows.values()) == totals(size)["ram"]
    assert ("libcore.a(log.o)", 270, 20) in files_of(MEASURED)
    assert is_size(json.loads(json.dumps(size)))


@pytest.mark.parametrize(
    ("archive", "file", "name"),
    [
        ("esp-idf/main/libmain.a", "main.c.obj", "libmain.a"),
        ("C:\\sdk\\libx.a", "x.o", "libx.a"),
        ("", "build/local-fast/obj/app/firmware/core/log.c.o", "firmware/core"),
        ("", "sub/CMakeFiles/x.dir/main/a.c.obj", "main"),
        ("", "main.o", "main.o"),
        ("", "/home/me/sdk/crt0.o", "crt0.o"),
        ("", "<internal>", MERGED),
        ("", FILL, FILL),
    ],
)
def test_what_an_object_counts_for(archive: str, file: str, name: str) -> None:
    assert component(MapShare(".text", archive, file, 1)) == name


def test_many_archives_are_a_row_together_and_nothing_is_lost() -> None:
    shares = tuple(MapShare(".flash.text", f"lib{n}.a", "x.o", 1) for n in range(500))
    section = SECTIONS[6]._replace(size=500)
    size = size_of(MEASURED._replace(sections=(section,), shares=shares))
    assert len(size["archives"]) == 201
    assert size["archives"][-1]["name"] == "(others)"
    assert sum(row["flash"] for row in size["archives"]) == 500 == totals(size)["flash"]


# --- memories ---------------------------------------------------------------------------------


def test_every_chip_has_a_map_without_overlaps() -> None:
    assert MEMORY_MAPS.keys() == CHIPS.keys()
    for rows in MEMORY_MAPS.values():
        ordered = sorted(rows, key=lambda row: row.start)
        assert all(row.start < row.end for row in ordered)
        assert all(a.end <= b.start for a, b in pairwise(ordered)), ordered
        assert {row.kind for row in rows} <= {"code", "rodata", "flash", "iram", "dram", "ram", "rtc", "psram"}


@pytest.mark.parametrize("chip", CHIPS)
def test_maps_are_those_of_the_flasher(chip: str) -> None:
    """esptool decides by its map what of an ELF file runs from flash, and what goes to RAM."""
    from esptool.targets import CHIP_DEFS

    theirs: dict[str, tuple[str, ...]] = {
        "DROM": ("rodata", "flash"),
        "IROM": ("code", "flash"),
        "IRAM": ("iram", "ram"),
        "DRAM": ("dram", "ram"),
    }
    theirs |= {"RTC_IRAM": ("rtc",), "RTC_DRAM": ("rtc",), "RTC_DATA": ("rtc",)}
    known = [row for row in CHIP_DEFS[chip].MEMORY_MAP if row[2] in theirs]
    for start, end, name in known:
        if (chip, start) in (("esp32", 0x40000000), ("esp32p4", 0x600FE000)):
            continue  # the mask ROM
        inside = (start + end) // 2 & ~3
        kinds = [row.kind for row in MEMORY_MAPS[chip] if row.start <= inside < row.end]
        assert kinds and kinds[0] in (*theirs[name], "psram"), (name, hex(inside), kinds)


def test_on_one_bus_a_section_is_judged_by_whether_it_runs() -> None:
    def memory(address: int, *, has_bytes: bool, executable: bool) -> str:
        return memory_of("esp32c6", LoadedSection(".x", address, 4, has_bytes, executable))

    assert memory(0x42000020, has_bytes=True, executable=True) == "flash_code"
    assert memory(0x42010020, has_bytes=True, executable=False) == "flash_rodata"
    assert memory(0x40800000, has_bytes=True, executable=True) == "iram"
    assert memory(0x40810000, has_bytes=True, executable=False) == "dram_data"
    assert memory(0x40820000, has_bytes=False, executable=False) == "dram_bss"
    assert memory(0x10000000, has_bytes=False, executable=False) == "other"
    assert set(MEMORIES) >= {"other", "psram"}


# --- beside the build before, and limits --------------------------------------------------------


def test_what_came_what_went_and_what_is_not_known() -> None:
    first = size_of(MEASURED)
    assert {row["before"] for row in compared(first, None, NO_LIMITS)["totals"]} == {None}
    assert size_line(compared(first, None, NO_LIMITS)) == "image 1000 (-), flash 372 (-), ram 364 (-)"
    grown = MEASURED._replace(
        image=1016,
        sections=(*SECTIONS[:-2], SECTIONS[-2]._replace(size=216)),
        shares=(*SHARES[:-3], MapShare(".flash.text", "new/libnew.a", "n.o", 216)),
    )
    both = compared(size_of(grown), first, NO_LIMITS)
    assert size_line(both) == "image 1016 (+16), flash 380 (+8), ram 364 (0)"
    assert is_moved(both) and not is_moved(compared(first, first, NO_LIMITS))
    assert {row["name"]: (row["size"], row["before"]) for row in both["sections"]}[".rtc.data"] == (0, 8)
    rows = {row["name"]: (row["flash"], row["flash_before"]) for row in both["archives"]}
    assert (rows["libnew.a"], rows["main"], rows["libcore.a"]) == ((216, 0), (0, 8), (120, 270))
    assert sum(now for now, _ in rows.values()) == totals(both)["flash"]
    shown = [row[0] for row in archives_table(both, 1)[1]]
    assert shown[0] == "libcore.a" and {"libnew.a", "main"} <= set(shown) and "src/net" not in shown
    # Without a map before, nothing is known of archives; of sections it is.
    blind = compared(first, {**first, "archives": []}, NO_LIMITS)
    assert {row["flash_before"] for row in blind["archives"]} == {None}
    assert is_size(both)


def test_limits_are_judged_with_both_values() -> None:
    limits = SizeLimits({"image": 999, "iram": 40, "dram": 323}, {".flash.text": 100}, {"libcore.a": 269, "x.a": 1})
    size = compared(size_of(MEASURED), None, limits)
    found = [(one.key, one.message("build/app.elf")) for one in excesses(size)]
    assert found == [
        (("image",), "the application's image takes 1000 bytes, but [size] image is 999 (1 over)"),
        (("dram",), "dram of build/app.elf takes 324 bytes, but [size] dram is 323 (1 over)"),
        (
            ("section", ".flash.text"),
            ".flash.text of build/app.elf takes 200 bytes, but [size.section] .flash.text is 100 (100 over)",
        ),
        (
            ("archive", "libcore.a"),
            "in flash, libcore.a of build/app.elf takes 270 bytes, but [size.archive] libcore.a is 269 (1 over)",
        ),
    ]
    assert unjudged(size, limits) == ["[size.archive] has no effect on x.a, which the program does not have"]
    nothing = size_of(MEASURED._replace(sections=(), shares=(), note="there is no ELF file"))
    assert size_line(compared(nothing, size, NO_LIMITS)) == "image 1000 (0)"
    assert compared(nothing, size, NO_LIMITS)["sections"] == [] and is_size(nothing)
    assert unjudged(nothing, limits) == ["[size] judges the image alone: there is no ELF file"]


# --- what is remembered -------------------------------------------------------------------------


def space(tmp_path: Path) -> tuple[BuiltSizes, SizeFiles]:
    (tmp_path / "app.elf").write_bytes(elf_file())
    (tmp_path / "app.bin").write_bytes(bytes(64))
    return BuiltSizes(tmp_path, tmp_path / ".deploy", "release"), SizeFiles(
        "esp32c3", "app.elf", "app.map", "app.bin", 100
    )


def test_the_size_is_remembered_for_the_files_that_it_was_measured_from(tmp_path: Path) -> None:
    sizes, files = space(tmp_path)
    assert sizes.last() is None
    first = sizes.current(files)
    assert totals(first)["flash_code"] == 16
    assert first["note"] == "the linker left no map (app.map) beside the ELF file"
    sizes.remember(first)
    again = BuiltSizes(tmp_path, tmp_path / ".deploy", "release")
    (tmp_path / "app.bin").write_bytes(bytes(99))  # only ELF file and map are looked at
    assert again.current(files) == again.last() == first
    data = bytearray(elf_file())
    (tmp_path / "app.elf").write_bytes(bytes(data) + b" moved")
    other = BuiltSizes(tmp_path, tmp_path / ".deploy", "release")
    assert totals(other.current(files))["image"] == 99
    other.remember(other.current(files))
    assert other.before_last() == first


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"schema":1,"size":{}}', '{"schema":2}', '{"schema":1,"size":[1]}', "\xff", "[" * 9999]
)
def test_what_is_remembered_may_be_damaged(tmp_path: Path, text: str) -> None:
    sizes, files = space(tmp_path)
    sizes.remember(sizes.current(files))
    place = tmp_path / ".deploy/sizes.v1/release.json"
    place.write_text(text, encoding="latin-1")
    again = BuiltSizes(tmp_path, tmp_path / ".deploy", "release")
    assert again.last() is None
    assert totals(again.current(files))["flash_code"] == 16


def test_shapes_that_are_no_size() -> None:
    good: Any = json.loads(json.dumps(size_of(MEASURED)))
    assert is_size(good)
    for key in good:
        values: tuple[Any, ...] = (None, 1.5, [1], [{}], [{"name": 1}], "x", {"a": 1})
        for value in values:
            if key in ("elf", "map", "note") and value == "x":
                continue
            assert not is_size({**good, key: value}), (key, value)
    for table in ("totals", "sections", "archives"):
        for key in good[table][0]:
            rows = [{**good[table][0], key: [1]}, *good[table][1:]]
            assert not is_size({**good, table: rows}), (table, key)


def test_files_that_cannot_be_measured_are_said(tmp_path: Path) -> None:
    sizes, files = space(tmp_path)
    (tmp_path / "app.map").write_bytes(b"no map")
    assert sizes.measure(files).note == "app.map: this is no map of GNU ld or lld"
    (tmp_path / "app.elf").write_bytes(b"\x7fELF\x02")
    assert sizes.measure(files).note == "app.elf: this is not a 32-bit little-endian ELF file"
    (tmp_path / "app.elf").unlink()
    assert sizes.measure(files).note == "app.elf cannot be read: No such file or directory"
    assert "leaves no ELF file" in sizes.measure(files._replace(elf="")).note
    assert sizes.measure(files).image == 64
