"""Partition tables: literal bytes, ESP-IDF's CSV forms, every refusal with its line, and damage."""

# ruff: noqa: E501 - one mistake per line: the tables of this file are read by column

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.flash_model import Partition
from pipeline.formats.partitions import (
    MAX_ROWS,
    TABLE_DATA_SIZE,
    decode_csv,
    decode_table,
    encode_table,
    factory_row,
    loose_rows,
    ota_slots,
    otadata_row,
    parse_csv,
    read_table,
)
from pipeline.formats.placement import room
from pipeline.model import Failure, FailureCategory, Reason

MB = 1024 * 1024
CSV = """\
# Name,   Type, SubType, Offset,  Size, Flags
nvs,      data, nvs,     ,        0x5000,
otadata,  data, ota,     ,        0x2000,
ota_0,    app,  ota_0,   0x10000, 1M,
ota_1,    app,  ota_1,   ,        1024K,
storage,  data, littlefs,,        0x40000, encrypted:readonly   # assets
"""
ROWS = (
    Partition("nvs", 1, 2, 0x9000, 0x5000),
    Partition("otadata", 1, 0, 0xE000, 0x2000),
    Partition("ota_0", 0, 0x10, 0x10000, 0x100000),
    Partition("ota_1", 0, 0x11, 0x110000, 0x100000),
    Partition("storage", 1, 0x83, 0x210000, 0x40000, 3),
)
RECORDS = bytes.fromhex(
    "aa50" "01" "02" "00900000" "00500000" "6e767300000000000000000000000000" "00000000"
    "aa50" "01" "00" "00e00000" "00200000" "6f746164617461000000000000000000" "00000000"
    "aa50" "00" "10" "00000100" "00001000" "6f74615f300000000000000000000000" "00000000"
    "aa50" "00" "11" "00001100" "00001000" "6f74615f310000000000000000000000" "00000000"
    "aa50" "01" "83" "00002100" "00000400" "73746f72616765000000000000000000" "03000000"
)  # fmt: skip
TABLE = (RECORDS + b"\xeb\xeb" + b"\xff" * 14 + hashlib.md5(RECORDS).digest()).ljust(0xC00, b"\xff")


def rows_of(text: str, flash_size: int = 4 * MB) -> tuple[Partition, ...]:
    rows = parse_csv(text, flash_size=flash_size)
    assert not isinstance(rows, Failure), rows
    return rows


def refusal(text: str) -> Failure:
    failure = parse_csv(text, "firmware/partitions.csv", flash_size=4 * MB)
    assert isinstance(failure, Failure)
    assert failure.category is FailureCategory.CONFIG_ERROR
    return failure


def test_csv_to_rows() -> None:
    assert rows_of(CSV) == ROWS


def test_rows_to_bytes_and_back() -> None:
    assert encode_table(ROWS) == TABLE
    assert decode_table(TABLE) == ROWS


def test_a_table_read_from_its_flash_sector_is_the_same() -> None:
    assert decode_table(TABLE.ljust(0x1000, b"\xff")) == ROWS


def test_numbers_may_stand_for_names_and_the_subtype_of_data_may_be_empty() -> None:
    text = "a,0x01,0x02,36K,20480\nb,data,,,0x1000\nc,0,0,,64k\nd,0x40,7,,0x1000"
    assert rows_of(text) == (
        Partition("a", 1, 2, 0x9000, 0x5000),
        Partition("b", 1, 6, 0xE000, 0x1000),
        Partition("c", 0, 0, 0x10000, 0x10000),
        Partition("d", 0x40, 7, 0x20000, 0x1000),
    )


def test_a_negative_size_is_the_address_to_end_at() -> None:
    assert rows_of("app,app,factory,0x10000,-2M")[0].end == 2 * MB


def test_bootloader_and_table_rows_may_lie_before_the_table() -> None:
    rows = rows_of("boot,bootloader,primary,0,0x8000\ntable,partition_table,primary,0x8000,0x1000\na,data,nvs,,0x1000")
    assert [row.offset for row in rows] == [0, 0x8000, 0x9000]


def test_the_first_free_address_follows_the_table() -> None:
    rows = parse_csv("nvs,data,nvs,,0x1000", flash_size=4 * MB, table_offset=0x10000)
    assert rows == (Partition("nvs", 1, 2, 0x11000, 0x1000),)


def test_questions_about_rows() -> None:
    assert [row.name for row in ota_slots(ROWS[::-1])] == ["ota_0", "ota_1"]
    assert otadata_row(ROWS) == ROWS[1]
    assert factory_row(ROWS) is None
    assert factory_row(rows_of("app,app,factory,,1M")) is not None


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ("", ":1", "the table has no rows"),
        ("\n# x\n,data,nvs,,4K", ":3", "the name is empty"),
        ("a,b,c,d,e,f,g", ":1", "7 fields, but a row has at most 6"),
        ("seventeen_letters,data,nvs,,4K", ":1", "the name 'seventeen_letters' has 17 bytes, but a label holds 16"),
        ("a,dat,nvs,,4K", ":1", "unknown type 'dat'; did you mean 'data'?"),
        ("a,,nvs,,4K", ":1", "the type is empty"),
        ("a,256,nvs,,4K", ":1", "unknown type '256'"),
        ("a,data,nsv,,4K", ":1", "unknown subtype 'nsv'; did you mean 'nvs'?"),
        ("a,app,,,4K", ":1", "the subtype is empty"),
        ("a,data,nvs,0x,4K", ":1", "the offset '0x' is not an address"),
        ("a,data,nvs,-4K,4K", ":1", "the offset '-4K' is not an address"),
        ("a,data,nvs,,", ":1", "the size is empty"),
        ("a,data,nvs,,4 K", ":1", "the size '4 K' is not a size"),
        ("a,data,nvs,,0", ":1", "the size '0' is not a size"),
        ("a,data,nvs,,4K,readonyl", ":1", "unknown flag 'readonyl'; did you mean 'readonly'?"),
        ("b,bootloader,primary,,4K", ":1", "a row of type bootloader needs an offset"),
        ("a,app,factory,0x18000,1M", ":1", "'a' begins at 0x18000, which is not a multiple of 0x10000"),
        ("a,data,nvs,0x9800,4K", ":1", "'a' begins at 0x9800, which is not a multiple of 0x1000"),
        ("a,app,factory,,0x10800", ":1", "the app 'a' has 67584 bytes, which is not a multiple of 0x1000"),
        ("a,data,nvs,0x20000,-64K", ":1", "'a' begins at 0x20000, behind the address 0x10000 at which it is to end"),
        ("a,data,nvs,0x8000,4K", ":1", "'a' begins at 0x8000, but bootloader and table take flash up to 0x9000"),
        ("a,app,factory,,5M", ":1", "'a' ends at 0x510000, but the flash ends at 0x400000"),
        ("o,data,ota,,4K", ":1", "the otadata partition 'o' has 0x1000 bytes, but needs 0x2000"),
        ("o,data,ota,,8K\np,data,ota,,8K", ":2", "a second otadata partition (the first is in line 1)"),
        ("a,data,nvs,,4K\n\na,data,phy,,4K", ":3", "the name 'a' is taken by line 1"),
        ("a,data,nvs,,8K\nb,data,phy,0xa000,4K", ":2", "'b' at 0xa000 overlaps 'a' (line 1), which ends at 0xb000"),
        ("a,app,ota_0,,1M\nb,app,ota_2,,1M", ":2", "the OTA slots are ota_0, ota_2, but they must count up from ota_0 without gap"),
    ],
)  # fmt: skip
def test_refusals_name_the_line_and_the_fact(text: str, where: str, message: str) -> None:
    failure = refusal(text)
    assert failure.line() == f"firmware/partitions.csv{where}: error: {message}"
    assert failure.hint


def test_further_errors_are_in_the_detail() -> None:
    failure = refusal("a,dta,nvs,,4K\nb,data,nvs,,4K\nc,data,nvs,,\n")
    assert failure.where == "firmware/partitions.csv:1"
    assert failure.detail == "firmware/partitions.csv:3: error: the size is empty"


def test_every_otadata_row_but_the_first_is_refused() -> None:
    failure = refusal("o,data,ota,,8K\np,data,ota,,8K\nq,data,ota,,8K")
    assert failure.where == "firmware/partitions.csv:2"
    assert failure.detail == ("firmware/partitions.csv:3: error: a second otadata partition (the first is in line 1)")


def test_a_table_holds_94_rows() -> None:
    text = "".join(f"p{number},0x40,0,,4K\n" for number in range(MAX_ROWS + 1))
    assert refusal(text).message == "95 rows, but a table holds 94"
    assert len(encode_table(rows_of(text[: text.rindex("p94")]))) == TABLE_DATA_SIZE


def test_rows_that_cannot_be_encoded_are_refused() -> None:
    with pytest.raises(ValueError, match="95 rows"):
        encode_table((ROWS[0],) * 95)
    with pytest.raises(ValueError, match="17 bytes"):
        encode_table((Partition("x" * 17, 1, 2, 0x9000, 0x1000),))


# --- damage -----------------------------------------------------------------------------------


@given(st.integers(0, len(RECORDS) * 8 + 32 * 8 - 1))
def test_a_flipped_bit_in_records_or_md5_is_found(bit: int) -> None:
    damaged = bytearray(TABLE)
    damaged[bit // 8] ^= 1 << bit % 8
    assert isinstance(decode_table(bytes(damaged)), Reason)


@pytest.mark.parametrize("size", range(0, len(RECORDS) + 32))
def test_a_table_that_ends_too_early_is_not_a_table(size: int) -> None:
    assert decode_table(TABLE[:size]) == Reason(
        "bad-partition-table", "end record", "needed", f"{size} bytes without one"
    )


def test_a_wrong_md5_is_named_with_both_values() -> None:
    damaged = bytearray(TABLE)
    damaged[12] ^= 1
    reason = decode_table(bytes(damaged))
    assert isinstance(reason, Reason) and reason.subject == "MD5"
    assert reason.before == f"stored {hashlib.md5(RECORDS).hexdigest()}"


def test_a_table_without_md5_is_valid_and_an_erased_one_has_no_rows() -> None:
    assert decode_table(RECORDS.ljust(0xC00, b"\xff")) == ROWS
    assert decode_table(b"\xff" * 0xC00) == ()


def test_a_label_that_is_not_utf8_is_a_reason() -> None:
    damaged = RECORDS[:12] + b"\xc3\x28".ljust(16, b"\0") + RECORDS[28:32]
    assert isinstance(decode_table(damaged.ljust(0xC00, b"\xff")), Reason)


@given(st.binary(max_size=200))
def test_no_bytes_raise(data: bytes) -> None:
    assert isinstance(decode_table(data), tuple | Reason)


@given(st.text(alphabet="ab,0x19KM-# \n\t:app dtoi_", max_size=80))
def test_no_text_raises_and_what_is_accepted_can_be_encoded(text: str) -> None:
    rows = parse_csv(text, flash_size=4 * MB)
    if not isinstance(rows, Failure):
        assert decode_table(encode_table(rows)) == rows


labels = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=16)


@given(st.lists(st.tuples(labels, st.integers(2, 0xFE), st.integers(0, 0xFF), st.integers(1, 40)), max_size=30))
def test_encode_and_decode_are_inverse(parts: list[tuple[str, int, int, int]]) -> None:
    rows = tuple(Partition(name, type_, sub, 0x9000, size * 0x1000) for name, type_, sub, size in parts)
    assert decode_table(encode_table(rows)) == rows


# --- tables as other tools and editors write them -----------------------------------------------


def test_rows_of_bootloader_and_table_may_leave_out_what_is_fixed() -> None:
    """As ESP-IDF's generator: neither moves where the others begin."""
    filled = (
        Partition("bl", 2, 0, 0x1000, 0x7000),
        Partition("pt", 3, 0, 0x8000, 0x1000),
        Partition("nvs", 1, 2, 0x9000, 0x5000),
        Partition("bl2", 2, 1, 0xE000, 0x7000),
        Partition("pt2", 3, 1, 0x15000, 0x1000),
    )
    for blank in ("N/A,N/A", ",", "n/a,", ",N/A"):
        text = f"bl,bootloader,primary,{blank}\npt,partition_table,primary,{blank}\nnvs,data,nvs,,0x5000\n"
        text += f"bl2,bootloader,ota,{blank}\npt2,partition_table,ota,{blank}\n"
        assert parse_csv(text, flash_size=4 * MB, boot_offset=0x1000) == filled, blank
        moved = parse_csv(text, flash_size=4 * MB, boot_offset=0, table_offset=0x10000)
        assert not isinstance(moved, Failure)
        assert [(row.offset, row.size) for row in moved[:3]] == [(0, 0x10000), (0x10000, 0x1000), (0x11000, 0x5000)]
    failed = parse_csv("a,data,nvs,N/A,0x1000", flash_size=4 * MB, boot_offset=0)
    assert isinstance(failed, Failure) and "the offset 'N/A' is not an address" in failed.message


@pytest.mark.parametrize("row", ["nvs,data,nvs,,20K,# text", "nvs,data,nvs,,20K, # a, b", "nvs,data,nvs,,20K #x,y,z"])
def test_a_comment_may_follow_a_comma(row: str) -> None:
    assert rows_of(row) == (Partition("nvs", 1, 2, 0x9000, 0x5000),)


@pytest.mark.parametrize(
    ("data", "line", "fact"),
    [
        ("nvs,data,nvs,,4K\n# Gr\u00f6\u00dfe\n".encode("latin-1"), 2, "0xf6 is not UTF-8 (in Latin-1 it is '\u00f6')"),
        ("nvs,data,nvs,,4K\n".encode("utf-16"), 1, "in UTF-16"),
        ("nvs,data,nvs,,4K\n".encode("utf-16-le"), 1, "NUL"),
        (b"nvs,data,nvs,,4K\n\n\0", 3, "NUL"),
    ],
)
def test_another_encoding_is_named_with_its_line(data: bytes, line: int, fact: str) -> None:
    failure = decode_csv(data, "p.csv")
    assert isinstance(failure, Failure)
    assert failure.where == f"p.csv:{line}" and fact in failure.message and failure.hint == "save the table as UTF-8"


def test_a_byte_order_mark_is_no_part_of_the_first_name() -> None:
    text = decode_csv("nvs,data,nvs,,4K # Gr\u00f6\u00dfe".encode("utf-8-sig"), "p.csv")
    assert isinstance(text, str) and rows_of(text)[0].name == "nvs"


OLD = (
    Partition("nvs", 1, 2, 0x9000, 0x5000),
    Partition("phy", 1, 1, 0xE004, 0x1000),
    Partition("factory", 0, 0, 0x10000, 0x12345),
    Partition("log", 1, 0x40, 0x22348, 0x2000),
)


def test_an_old_binary_table_is_taken_and_its_loose_rows_are_said() -> None:
    data = encode_table(OLD)
    assert read_table(data, "t.bin", flash_size=4 * MB) == OLD
    assert loose_rows(OLD) == [
        "the partition 'phy' begins at 0xe004, which is no multiple of 0x1000",
        "the app partition 'factory' has 0x12345 bytes, which is no multiple of 0x1000",
        "the partition 'log' begins at 0x22348, which is no multiple of 0x1000",
    ]
    assert loose_rows(OLD[:1]) == []
    for bad in (OLD[1]._replace(offset=0xE001), OLD[2]._replace(offset=0x11000)):
        assert isinstance(read_table(encode_table((bad,)), "t.bin", flash_size=4 * MB), Failure)


def test_a_sector_that_two_rows_share_is_no_room_for_an_image() -> None:
    assert room(OLD, OLD[2], 0x10000) == 0x12000, "an erase of the last sector would take the log's beginning with it"
    assert room(OLD[:3], OLD[2], 0x10000) == 0x12345
    assert room(OLD, OLD[0], 0x9000) == 0x5000
