"""Firmware that was built elsewhere: manifests in every spelling, what a file is, and where it goes."""

# ruff: noqa: E501 - one case per line: the tables of this file are read by column

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.chips import CHIPS, flash_freq_code, flash_freq_name
from pipeline.flash_model import MatchRule, Partition
from pipeline.formats import manifests as fw
from pipeline.formats.esp_image import with_flash_settings
from pipeline.formats.flash_file import FlashFile
from pipeline.formats.manifests import Manifest, parse_flasher_args
from pipeline.formats.partitions import decode_table
from pipeline.formats.placement import Given, Misplaced, Placement, add_given, place, place_firmware, started_row
from pipeline.formats.platformio import Said, by_table
from pipeline.model import Failure, Reason
from tests import given_firmware as given_by

FILES = (
    FlashFile(0x0, "build/bootloader/bootloader.bin"),
    FlashFile(0x8000, "build/partition_table/partition-table.bin"),
    FlashFile(0xE000, "build/ota_data_initial.bin"),
    FlashFile(0x10000, "build/blink.bin"),
)


# --- flasher_args.json ------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", [given_by.NEW_SPELLING, given_by.OLD_SPELLING, given_by.HYPHENS])
@pytest.mark.parametrize("chip", ["esp32", "esp32s3", "esp32c3"])
def test_every_spelling_of_the_manifest_says_the_same(spelling: str, chip: str) -> None:
    boot = given_by.BOOT_OFFSETS[chip]
    found = parse_flasher_args(spelling % {"chip": chip, "boot": hex(boot)}, "build")
    assert found == Manifest((FILES[0]._replace(offset=boot), *FILES[1:]), chip, "dio", "80m", "4MB")


def manifest(**changes: Any) -> str:
    """The manifest of an ESP32-C3 with other top-level values; None removes one."""
    document = json.loads(given_by.NEW_SPELLING % {"chip": "esp32c3", "boot": "0x0"})
    document.update(changes)
    return json.dumps({key: value for key, value in document.items() if value is not None})


def test_settings_that_leave_the_header_alone_say_nothing() -> None:
    text = manifest(flash_settings={"flash_mode": "keep", "flash_size": "detect", "flash_freq": "40m"})
    found = parse_flasher_args(text, "build")
    assert isinstance(found, Manifest) and found[2:] == ("", "40m", "")


def test_the_command_line_says_what_the_settings_do_not() -> None:
    found = parse_flasher_args(manifest(flash_settings=None), "build")
    assert isinstance(found, Manifest) and found[2:] == ("dio", "80m", "4MB")


@pytest.mark.parametrize(
    ("changes", "fact"),
    [
        ({"flash_files": None}, "'flash_files' is missing or empty"),
        ({"flash_files": {}}, "'flash_files' is missing or empty"),
        ({"flash_files": ["a"]}, "'flash_files' is missing or empty"),
        ({"flash_files": {"ten": "a.bin"}}, "the offset 'ten', which is not a number"),
        ({"flash_files": {"-1": "a.bin"}}, "the offset '-1', which is not a number"),
        ({"flash_files": {"0x0": 7}}, "has no file at 0x0"),
        ({"flash_files": {"0x0": "../../x.bin"}}, "'../../x.bin' lies outside the project"),
        ({"flash_files": {"0x0": "/tmp/x.bin"}}, "'/tmp/x.bin' lies outside the project"),
        ({"extra_esptool_args": {}}, "names no chip"),
        ({"extra_esptool_args": {"chip": "esp8266"}}, "'extra_esptool_args.chip' is 'esp8266', which this version"),
        ({"flash_settings": {"flash_mode": "fast"}}, "'flash_mode' is 'fast', but esp32c3 has qio, qout, dio, dout"),
        ({"flash_settings": {"flash_freq": "120m"}}, "'flash_freq' is '120m', but esp32c3 has"),
        ({"app": {"offset": "0x10000", "file": "blink.bin", "encrypted": "true"}}, "app is to be written encrypted"),
        ({"write_flash_args": ["--encrypt"]}, "everything is to be written encrypted"),
    ],
)
def test_a_manifest_that_cannot_be_used_says_why(changes: dict[str, Any], fact: str) -> None:
    failure = parse_flasher_args(manifest(**changes), "build")
    assert isinstance(failure, Failure)
    assert failure.where == "build/flasher_args.json"
    assert fact in failure.message and failure.hint


def test_a_manifest_cut_anywhere_is_a_failure_with_its_place() -> None:
    text = (given_by.NEW_SPELLING % {"chip": "esp32", "boot": "0x1000"}).rstrip()
    for length in range(len(text)):
        failure = parse_flasher_args(text[:length], "build")
        assert isinstance(failure, Failure), length
        assert failure.where.startswith("build/flasher_args.json:") and failure.message.startswith(
            "the file is not whole"
        )


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12), st.sampled_from(["flash_files", "flash-settings", "write_flash_args", "extra_esptool_args", "app", ""]))  # fmt: skip
def test_no_value_in_a_manifest_raises(value: Any, key: str) -> None:
    text = manifest(**{key: value}) if key else json.dumps(value)
    assert isinstance(parse_flasher_args(text, "build"), Manifest | Failure)


# --- what a file is ---------------------------------------------------------------------------


def test_tables_and_chips_are_found_by_their_first_bytes() -> None:
    heads = {
        "boot": given_by.bootloader("esp32s3")[:24],
        "table": given_by.table(given_by.FACTORY)[:24],
        "text": b"hello",
    }
    files = [FlashFile(0, "boot"), FlashFile(0x8000, "table"), FlashFile(0x9000, "text")]
    assert fw.find_table(files, heads, "here") == files[1]
    assert fw.find_chip(files, heads, "here") == "esp32s3"
    assert fw.header_settings(heads["boot"], "esp32s3") == ("dio", "80m", "4MB")
    assert fw.header_settings(b"hello", "esp32s3") == ("", "", "")
    none, two = (
        fw.find_table(files[::2], heads, "here"),
        fw.find_table([*files, FlashFile(0xA000, "table")], heads, "here"),
    )
    assert isinstance(none, Failure) and none.message == "none of these files is a partition table: boot, text"
    assert isinstance(two, Failure) and two.message.endswith("are both partition tables")
    blind = fw.find_chip(files[1:], heads, "here")
    assert isinstance(blind, Failure) and blind.message.startswith("none of these files is an image")
    heads["boot"] = heads["boot"][:12] + b"\x4d\x00" + heads["boot"][14:]
    unknown = fw.find_chip(files, heads, "here")
    assert isinstance(unknown, Failure) and unknown.message.startswith("the image is for chip id 77")


def test_platformio_places_follow_chip_and_table() -> None:
    slots, factory = decode_table(given_by.table(given_by.TWO_SLOTS)), decode_table(given_by.table(given_by.FACTORY))
    assert not isinstance(slots, Reason) and not isinstance(factory, Reason)
    places = {"bootloader.bin": 0x1000, "partitions.bin": 0x8000, "boot_app0.bin": 0xE000, "firmware.bin": 0x10000}
    expected = [FlashFile(offset, f"d/{name}") for name, offset in places.items()]
    arduinos = ("boot_app0.bin", given_by.otadata(1))
    assert by_table("d", "esp32", slots, Said(), arduinos) == (expected, "")
    for given_otadata in (arduinos, None):
        rescue, note = by_table("d", "esp32", BOTH, Said(), given_otadata)
        assert rescue[-1] == FlashFile(0x50000, "d/firmware.bin"), "a factory application beside a slot stays"
        assert note.startswith("the application goes to 'app0' (") and note.endswith("what is in 'factory' stays")
    assert by_table("d", "esp32c3", factory, Said(), arduinos) == (
        [
            FlashFile(0x0, "d/bootloader.bin"),
            FlashFile(0x8000, "d/partitions.bin"),
            FlashFile(0x10000, "d/firmware.bin"),
        ],
        "",
    )


# --- flash settings in the header -------------------------------------------------------------


def test_frequencies_have_the_codes_of_esptool() -> None:
    import esptool

    for chip, known in CHIPS.items():
        codes = esptool.CHIP_DEFS[chip].FLASH_FREQUENCY
        assert {name: flash_freq_code(chip, name) for name in known.flash_freqs} == codes
        assert all(codes[flash_freq_name(chip, code)] == code for code in codes.values())
        assert flash_freq_name(chip, 7) == ""


@pytest.mark.parametrize("tail", [b"", b"\xff" * 100])
def test_new_settings_make_the_bytes_that_esptool_writes(tail: bytes) -> None:
    import esptool
    from esptool.cmds import _update_image_flash_params

    data = given_by.bootloader("esp32s3") + tail
    loader = esptool.CHIP_DEFS["esp32s3"].__new__(esptool.CHIP_DEFS["esp32s3"])
    theirs = _update_image_flash_params(loader, 0x0, "40m", "qio", "8MB", data)
    assert with_flash_settings(data, 0, 0, 3) == theirs != data
    assert with_flash_settings(data, 2, 0xF, 2) == data


# --- where it goes ----------------------------------------------------------------------------

TABLE = tuple(Partition(*row) for row in given_by.TWO_SLOTS)
ONE_APP = tuple(Partition(*row) for row in given_by.FACTORY)
BOTH = (*ONE_APP[:1], TABLE[1], ONE_APP[2], Partition("app0", 0, 0x10, 0x50000, 0x40000), ONE_APP[3])
FLASH_SIZE = 0x400000


def placed(
    table: tuple[Partition, ...], offsets: dict[int, str], selected: int | None = None
) -> list[tuple[str, str, str]] | str:
    """(name, partition, source) in flash order, or why not."""
    files = [Given("", path, offset=offset) for offset, path in offsets.items()]
    otadata = next((row.offset for row in table if (row.type, row.subtype) == (1, 0)), None)
    started = started_row(table, files, selected, has_otadata=otadata in offsets)
    if isinstance(started, Misplaced):
        return started.message
    found = place_firmware(table, "esp32s3", 0x8000, files, started, FLASH_SIZE)
    return found.message if isinstance(found, Misplaced) else [(p.name, p.partition, p.source) for p in found]


def test_files_are_named_by_what_they_are() -> None:
    files = {0x0: "b", 0x8000: "t", 0xE000: "o", 0x10000: "a", 0x90000: "s", 0x200000: "x"}
    assert placed(TABLE, files, 0) == [
        ("bootloader", "", "b"),
        ("partitions", "", "t"),
        ("otadata", "otadata", "o"),
        ("app", "app0", "a"),
        ("storage", "storage", "s"),
        ("at-0x200000", "", "x"),
    ]


def test_the_app_is_what_the_bootloader_starts() -> None:
    both = {0x0: "b", 0x8000: "t", 0xE000: "o", 0x10000: "a0", 0x50000: "a1"}
    assert ("app", "app1", "a1") in placed(TABLE, both, 1)
    assert ("app0", "app0", "a0") in placed(TABLE, both, 1)
    assert ("app", "app0", "a0") in placed(TABLE, both, None), "erased otadata starts ota_0 without a factory app"
    assert ("app", "factory", "a0") in placed(BOTH, both, None)
    assert ("app", "app0", "a1") in placed(BOTH, both, 0)


def test_otadata_that_nobody_gave_is_added_wherever_the_table_has_it() -> None:
    assert ("otadata", "otadata", "") in placed(TABLE, {0x8000: "t", 0x10000: "a"})
    assert ("otadata", "otadata", "") in placed(BOTH, {0x8000: "t", 0x50000: "a"})
    assert ("otadata", "otadata", "") in placed(BOTH, {0x8000: "t", 0x10000: "a"}), "erased, it starts factory"
    assert [row[0] for row in placed(ONE_APP, {0x8000: "t", 0x10000: "a"})] == ["partitions", "app"]


@pytest.mark.parametrize(
    ("table", "offsets", "selected", "fact"),
    [
        (TABLE, {0x8000: "t"}, None, "no file lies at the offset of an app partition"),
        (TABLE, {0x8000: "t", 0xE000: "o", 0x10000: "a"}, 1, "otadata starts 'app1' at 0x50000, but no file lies there"),
        (TABLE, {0x8000: "t", 0x10000: "a", 0x60000: "x"}, None, "0x60000 lies within the app partition 'app1', which begins at 0x50000"),
        (TABLE, {0x8000: "t", 0x10000: "a", 0x400000: "x"}, None, "0x400000 is not within the flash, which ends at 0x400000"),
    ],
)  # fmt: skip
def test_what_has_no_place_says_why(
    table: tuple[Partition, ...], offsets: dict[int, str], selected: int | None, fact: str
) -> None:
    assert placed(table, offsets, selected) == fact


def extra(*images: Given) -> tuple[Placement, ...] | str:
    found = add_given(TABLE, place(TABLE, "esp32c3", 0x8000), images, FLASH_SIZE)
    return found.message if isinstance(found, Misplaced) else found


def test_declared_images_go_beside_what_is_built() -> None:
    rows = extra(
        Given("assets", "a.bin", "storage"), Given("second", "b.bin", "app1"), Given("raw", "c", offset=0x200000)
    )
    assert not isinstance(rows, str)
    assert [row for row in rows if row.source] == [
        Placement("second", "app1", 0x50000, 0x40000, program=True, source="b.bin"),
        Placement("assets", "storage", 0x90000, 0x20000, source="a.bin"),
        Placement("raw", "", 0x200000, 0x200000, source="c"),
    ]
    within = extra(Given("tail", "a.bin", offset=0x98000))
    assert not isinstance(within, str) and within[-1].limit == 0xB0000 - 0x98000


@pytest.mark.parametrize(
    ("image", "fact"),
    [
        (Given("x", "x", "storag"), "the table has no partition 'storag'; did you mean 'storage'?"),
        (Given("x", "x", "app0"), "the partition 'app0' already holds 'app'"),
        (Given("x", "x", "otadata"), "the partition 'otadata' already holds 'otadata'"),
        (Given("x", "x", offset=0x8000), "the flash at 0x8000 already holds 'partitions'"),
        (Given("x", "x", offset=0x11000), "0x11000 lies within the app partition 'app0', which begins at 0x10000"),
        (Given("x", "x", offset=0x400000), "0x400000 is not within the flash, which ends at 0x400000"),
    ],
)
def test_an_image_without_a_place_says_why(image: Given, fact: str) -> None:
    assert extra(image) == fact


@given(st.lists(st.integers(0, 0x3FF).map(lambda n: n * 0x1000), unique=True, min_size=1, max_size=8), st.sampled_from([TABLE, ONE_APP, BOTH]), st.sampled_from([None, 0]))  # fmt: skip
def test_placements_are_ordered_and_named_apart(
    offsets: list[int], table: tuple[Partition, ...], selected: int | None
) -> None:
    rows = placed(table, {offset: f"f{offset:x}" for offset in offsets}, selected)
    if isinstance(rows, str):
        return
    names = [name for name, _, _ in rows]
    assert len(set(names)) == len(names)
    assert {source for _, _, source in rows if source} == {f"f{offset:x}" for offset in offsets}


def test_a_label_that_is_no_name_of_a_file_gets_its_offset() -> None:
    table = (*TABLE[:4], Partition("a/b", 1, 0x82, 0x90000, 0x10000), Partition("app", 1, 0x82, 0xA0000, 0x10000))
    rows = placed(table, {0x8000: "t", 0x10000: "a", 0x90000: "x", 0xA0000: "y", 0xA1000: "z"})
    assert not isinstance(rows, str)
    assert [name for name, _, _ in rows][-3:] == ["at-0x90000", "at-0xa0000", "at-0xa1000"]


def test_otadata_keeps_its_rule() -> None:
    files = [Given("", "t", offset=0x8000), Given("", "o", offset=0xE000), Given("", "a", offset=0x10000)]
    found = place_firmware(TABLE, "esp32", 0x8000, files, TABLE[2], FLASH_SIZE)
    assert not isinstance(found, Misplaced)
    assert [p.name for p in found if p.match is MatchRule.OTADATA] == ["otadata"]
