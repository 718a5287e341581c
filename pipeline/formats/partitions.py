"""The partition table: ESP-IDF's CSV and its binary form.

Source of the formats: ESP-IDF's partition table guide and its generator (names, numbers, alignment, the end and MD5
records). Does not know files, images or flash contents. Invariant: rows that `parse_csv` returns can be encoded, and
`decode_table(encode_table(rows)) == rows`.
"""

import hashlib
import itertools
import re
import struct
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from cache.named_tuple import NamedTuple
from pipeline.chips import SECTOR
from pipeline.failures import fail
from pipeline.flash_model import Partition
from pipeline.model import Failure, FailureCategory, Reason
from pipeline.text import did_you_mean

APP, DATA, BOOTLOADER, PARTITION_TABLE = 0x00, 0x01, 0x02, 0x03
TYPES: Mapping[str, int] = MappingProxyType(
    {"app": APP, "data": DATA, "bootloader": BOOTLOADER, "partition_table": PARTITION_TABLE}
)
FACTORY, OTA_0, OTADATA = 0x00, 0x10, 0x00
PRIMARY = 0x00
MAX_OTA_SLOTS = 16
SUBTYPES: Mapping[int, Mapping[str, int]] = MappingProxyType(
    {
        APP: {"factory": FACTORY, "test": 0x20, "tee_0": 0x30, "tee_1": 0x31}
        | {f"ota_{slot}": OTA_0 + slot for slot in range(MAX_OTA_SLOTS)},
        DATA: {
            "ota": OTADATA,
            "phy": 0x01,
            "nvs": 0x02,
            "coredump": 0x03,
            "nvs_keys": 0x04,
            "efuse": 0x05,
            "undefined": 0x06,
            "esphttpd": 0x80,
            "fat": 0x81,
            "spiffs": 0x82,
            "littlefs": 0x83,
            "tee_ota": 0x90,
        },
        BOOTLOADER: {"primary": 0x00, "ota": 0x01, "recovery": 0x02},
        PARTITION_TABLE: {"primary": 0x00, "ota": 0x01},
    }
)
FLAGS: Mapping[str, int] = MappingProxyType({"encrypted": 1, "readonly": 2})

APP_ALIGNMENT = 0x10000
OTADATA_SIZE = 0x2000
LABEL_MAX = 16
TABLE_SECTOR = 0x1000
TABLE_DATA_SIZE = 0xC00
"""What a table's file has: ESP-IDF pads to here and leaves the last KiB of the sector to a signature. Written as it
is; the erased rest of the sector reads FF, which nothing looks at."""

_ROW = struct.Struct("<2sBBII16sI")
TABLE_MAGIC = b"\xaa\x50"
"""Begins each row, and so the table."""

_MD5_MAGIC = b"\xeb\xeb" + b"\xff" * 14
_END = b"\xff" * _ROW.size
MAX_ROWS = TABLE_DATA_SIZE // _ROW.size - 2
"""94: the MD5 record and the end record take one place each."""


# --- questions about rows ---------------------------------------------------------------------


def app_rows(rows: Sequence[Partition]) -> tuple[Partition, ...]:
    """Rows that hold programs: factory, OTA slots, test."""
    return tuple(row for row in rows if row.type == APP)


def ota_slots(rows: Sequence[Partition]) -> tuple[Partition, ...]:
    """The OTA app slots, ota_0 first: the index is the slot's number."""
    slots = [row for row in rows if row.type == APP and OTA_0 <= row.subtype < OTA_0 + MAX_OTA_SLOTS]
    return tuple(sorted(slots, key=lambda row: row.subtype))


def otadata_row(rows: Sequence[Partition]) -> Partition | None:
    """The one row of type data, subtype ota."""
    return next((row for row in rows if (row.type, row.subtype) == (DATA, OTADATA)), None)


def factory_row(rows: Sequence[Partition]) -> Partition | None:
    """The app that runs when otadata selects nothing."""
    return next((row for row in rows if (row.type, row.subtype) == (APP, FACTORY)), None)


def boot_row(rows: Sequence[Partition], selected: int | None) -> Partition | None:
    """The row that the bootloader starts when otadata selects this slot, or (None) nothing."""
    slots = ota_slots(rows)
    if selected is not None and selected < len(slots):
        return slots[selected]
    return factory_row(rows) or (slots[0] if slots else None)


# --- CSV --------------------------------------------------------------------------------------


class _Problem(NamedTuple):
    line: int
    message: str
    hint: str


class _Row(NamedTuple):
    """A row as written: `offset` None means "after the one before", a negative size "up to this address"."""

    line: int
    name: str
    type: int
    subtype: int
    offset: int | None
    size: int
    flags: int


def decode_csv(data: bytes, path: str) -> str | Failure:
    """The text of a table, which is UTF-8 (with or without a byte order mark); or a `config_error` at `path:LINE`."""
    fact, line = "", 1
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        fact = "the table is in UTF-16"
    elif b"\0" in data:
        fact, line = "the table holds a NUL, as UTF-16 and binary files do", data[: data.index(b"\0")].count(b"\n") + 1
    else:
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data[: error.start].count(b"\n") + 1
            fact = f"the byte {data[error.start]:#04x} is not UTF-8 (in Latin-1 it is '{chr(data[error.start])}')"
    hint = "save the table as UTF-8"
    return fail(FailureCategory.CONFIG_ERROR, stage=None, where=f"{path}:{line}", message=fact, hint=hint)


class _Fixed(NamedTuple):
    """Where bootloader and table lie whatever their rows say; `boot` None: not known."""

    boot: int | None
    table: int


def parse_csv(
    text: str,
    path: str = "partitions.csv",
    *,
    flash_size: int,
    table_offset: int = 0x8000,
    boot_offset: int | None = None,
) -> tuple[Partition, ...] | Failure:
    """Rows in the order of the file, checked against the flash (bytes) and the table's own sector; or a `config_error`
    at `path:LINE`, the further ones in its `detail`. `boot_offset`: where the chip's ROM looks for the bootloader,
    which a row of its own may leave out.

    ESP-IDF's generator expands environment variables; this one does not, because a table must mean the same on every
    machine."""
    problems: list[_Problem] = []
    written: list[_Row] = []
    for number, line in enumerate(text.splitlines(), 1):
        content = line.strip()
        if not content or content.startswith("#"):
            continue
        row = _parse_row(number, content, _Fixed(boot_offset, table_offset))
        if isinstance(row, _Row):
            written.append(row)
        else:
            problems.append(row)
    if not written and not problems:
        problems.append(
            _Problem(1, "the table has no rows", "write one row per partition: name, type, subtype, offset, size")
        )
    if not problems:
        placed = _place(written, table_offset + TABLE_SECTOR)
        problems = _check(placed, flash_size, table_offset)
        if not problems:
            return tuple(row for _line, row in placed)
    problems.sort(key=lambda problem: problem.line)
    first, *others = problems
    return fail(
        FailureCategory.CONFIG_ERROR,
        stage=None,
        where=f"{path}:{first.line}",
        message=first.message,
        hint=first.hint,
        detail="\n".join(f"{path}:{other.line}: error: {other.message}" for other in others),
    )


def _parse_row(number: int, content: str, fixed: _Fixed) -> _Row | _Problem:
    if "#" in content:
        content = re.split(r"(?:\s|(?<=,))#", content, maxsplit=1)[0]
    fields = [field.strip() for field in content.rstrip().rstrip(",").split(",")]
    if len(fields) > 6:
        return _Problem(
            number, f"{len(fields)} fields, but a row has at most 6", "write name, type, subtype, offset, size, flags"
        )
    name, type_, subtype, offset, size, flags = fields + [""] * (6 - len(fields))
    if not name:
        return _Problem(number, "the name is empty", "name the partition")
    if len(name.encode()) > LABEL_MAX:
        return _Problem(
            number, f"the name '{name}' has {len(name.encode())} bytes, but a label holds {LABEL_MAX}", "shorten it"
        )
    if not name.isprintable():
        return _Problem(number, f"the name {name!r} has characters that cannot be printed", "use letters, digits and _")
    type_number = _named("type", type_, TYPES, number)
    if isinstance(type_number, _Problem):
        return type_number
    names = SUBTYPES.get(type_number, {})
    if not subtype and type_number == DATA:
        subtype = "undefined"
    subtype_number = _named("subtype", subtype, names, number)
    if isinstance(subtype_number, _Problem):
        return subtype_number
    if type_number in (BOOTLOADER, PARTITION_TABLE):
        offset, size = _fixed_row(type_number, subtype_number, offset, size, fixed)
    offset_number = _number(offset) if offset else None
    if offset and (offset_number is None or not 0 <= offset_number <= 0xFFFFFFFF):
        return _Problem(
            number,
            f"the offset '{offset}' is not an address",
            "write it as 0x10000, 65536, 64K or 1M, or leave it empty",
        )
    if offset_number is None and (type_number, subtype_number) == (BOOTLOADER, PRIMARY):
        return _Problem(number, f"a row of type {type_} needs an offset", "write where it lies, or leave the row out")
    size_number = _number(size)
    if not size_number or abs(size_number) > 0xFFFFFFFF:
        fact = f"the size '{size}' is not a size" if size else "the size is empty"
        return _Problem(number, fact, "write it as 0x100000, 1048576, 1024K or 1M")
    bits = 0
    for flag in filter(None, (part.strip() for part in flags.split(":"))):
        if flag not in FLAGS:
            return _Problem(
                number,
                f"unknown flag '{flag}'{did_you_mean(flag, FLAGS)}",
                "use encrypted, readonly, or encrypted:readonly",
            )
        bits |= FLAGS[flag]
    return _Row(number, name, type_number, subtype_number, offset_number, size_number, bits)


def _fixed_row(type_: int, subtype: int, offset: str, size: str, fixed: _Fixed) -> tuple[str, str]:
    """Offset and size of a row of type bootloader or partition_table, where they are left out (blank, or `N/A`): as
    ESP-IDF's generator fills them in, from where the two lie."""
    offset, size = ("" if text.upper() == "N/A" else text for text in (offset, size))
    primary = fixed.boot if type_ == BOOTLOADER else fixed.table
    if not offset and subtype == PRIMARY and primary is not None:
        offset = hex(primary)
    if not size and (type_ == PARTITION_TABLE or fixed.boot is not None):
        size = hex(TABLE_SECTOR if type_ == PARTITION_TABLE else fixed.table - (fixed.boot or 0))
    return offset, size


def _named(what: str, value: str, names: Mapping[str, int], line: int) -> int | _Problem:
    """A name of the table, or a number that fits a byte."""
    if value in names:
        return names[value]
    number = _number(value)
    if number is not None and 0 <= number <= 0xFF:
        return number
    known = ", ".join(name for name in names if not name.startswith("ota_") or name == "ota_0") or "a number"
    fact = f"unknown {what} '{value}'{did_you_mean(value, names)}" if value else f"the {what} is empty"
    return _Problem(line, fact, f"use one of {known}, or a number from 0 to 0xff")


def _number(text: str) -> int | None:
    """`0x1000`, `4096`, `4K`, `1M`, each also negative; None for anything else."""
    match = re.fullmatch(r"(-?)(0[xX][0-9a-fA-F]{1,16}|[0-9]{1,16})([kKmM]?)", text)
    if match is None:
        return None
    sign, digits, unit = match.groups()
    value = int(digits, 16) if digits[:2] in ("0x", "0X") else int(digits)
    value *= {"": 1, "k": 1024, "m": 1024 * 1024}[unit.lower()]
    return -value if sign else value


def _place(written: Sequence[_Row], first_free: int) -> list[tuple[int, Partition]]:
    """Fill in empty offsets and negative sizes; (line, row) pairs in the order of the file."""
    placed = []
    free = first_free
    for row in written:
        alignment = _alignment(row.type)
        offset = row.offset if row.offset is not None else -(-free // alignment) * alignment
        size = row.size if row.size > 0 else -row.size - offset
        placed.append((row.line, Partition(row.name, row.type, row.subtype, offset, size, row.flags)))
        if row.type not in (BOOTLOADER, PARTITION_TABLE) or row.subtype != PRIMARY:
            free = offset + size
    return placed


def _alignment(type_: int) -> int:
    return APP_ALIGNMENT if type_ == APP else SECTOR


def _check(
    placed: Sequence[tuple[int, Partition]], flash_size: int, table_offset: int, unit: str = "line"
) -> list[_Problem]:
    """`unit` is what the numbers count: lines of a CSV, or rows of a binary table, whose `loose_rows` pass."""
    strict = unit == "line"
    problems = [problem for line, row in placed for problem in _check_row(line, row, flash_size, table_offset, strict)]
    names: dict[str, int] = {}
    otadata: int | None = None
    for line, row in placed:
        if row.name in names:
            problems.append(
                _Problem(line, f"the name '{row.name}' is taken by {unit} {names[row.name]}", "rename one of them")
            )
        names.setdefault(row.name, line)
        if (row.type, row.subtype) == (DATA, OTADATA):
            if otadata is not None:
                problems.append(
                    _Problem(line, f"a second otadata partition (the first is in {unit} {otadata})", "keep one of them")
                )
            otadata = otadata or line
    by_offset = sorted(placed, key=lambda entry: entry[1].offset)
    for (before_line, before), (line, row) in itertools.pairwise(by_offset):
        if row.offset < before.end:
            other = f"'{before.name}' ({unit} {before_line}), which ends at {before.end:#x}"
            fact = f"'{row.name}' at {row.offset:#x} overlaps {other}"
            problems.append(_Problem(line, fact, f"move it to {before.end:#x} or later, or leave its offset empty"))
    slots = [row.subtype - OTA_0 for row in ota_slots([row for _line, row in placed])]
    if slots != list(range(len(slots))):
        line = next(line for line, row in placed if row.type == APP and row.subtype == OTA_0 + slots[-1])
        have = ", ".join(f"ota_{slot}" for slot in slots)
        problems.append(
            _Problem(line, f"the OTA slots are {have}, but they must count up from ota_0 without gap", "renumber them")
        )
    if len(placed) > MAX_ROWS:
        problems.append(
            _Problem(placed[MAX_ROWS][0], f"{len(placed)} rows, but a table holds {MAX_ROWS}", "remove rows")
        )
    return problems


def loose_rows(rows: Sequence[Partition]) -> list[str]:
    """What ESP-IDF before 5.0 made and later versions refuse: data partitions that begin between two sectors, and app
    partitions that end there. Facts for people; such a table works, and no image can be written to such a place."""
    facts = []
    for row in rows:
        if row.type != APP and row.offset % SECTOR:
            facts.append(f"the partition '{row.name}' begins at {row.offset:#x}, which is no multiple of {SECTOR:#x}")
        if row.type == APP and row.size % SECTOR:
            facts.append(f"the app partition '{row.name}' has {row.size:#x} bytes, which is no multiple of {SECTOR:#x}")
    return facts


OLD_ALIGNMENT = 4
"""Of data partitions, in ESP-IDF before 5.0."""


def _check_row(line: int, row: Partition, flash_size: int, table_offset: int, strict: bool) -> list[_Problem]:
    problems = []
    alignment = _alignment(row.type) if strict or row.type == APP else OLD_ALIGNMENT
    is_boot_row = row.type in (BOOTLOADER, PARTITION_TABLE)
    first_free = table_offset + TABLE_SECTOR
    if row.offset % alignment:
        fact = f"'{row.name}' begins at {row.offset:#x}, which is not a multiple of {alignment:#x}"
        problems.append(
            _Problem(line, fact, f"move it to {-(-row.offset // alignment) * alignment:#x}, or leave its offset empty")
        )
    if row.size <= 0:
        fact = f"'{row.name}' begins at {row.offset:#x}, behind the address {row.end:#x} at which it is to end"
        problems.append(_Problem(line, fact, "write a positive size"))
    elif strict and row.type == APP and row.size % SECTOR:
        fact = f"the app '{row.name}' has {row.size} bytes, which is not a multiple of {SECTOR:#x}"
        problems.append(_Problem(line, fact, f"give it a size in whole sectors of {SECTOR:#x} bytes"))
    if row.offset < first_free and not is_boot_row:
        fact = f"'{row.name}' begins at {row.offset:#x}, but bootloader and table take flash up to {first_free:#x}"
        problems.append(_Problem(line, fact, f"move it to {first_free:#x} or later"))
    if row.end > flash_size:
        fact = f"'{row.name}' ends at {row.end:#x}, but the flash ends at {flash_size:#x}"
        problems.append(_Problem(line, fact, "make it smaller, or correct `flash.size` in deploy.toml"))
    if (row.type, row.subtype) == (DATA, OTADATA) and row.size != OTADATA_SIZE:
        fact = f"the otadata partition '{row.name}' has {row.size:#x} bytes, but needs {OTADATA_SIZE:#x}"
        problems.append(_Problem(line, fact, f"set its size to {OTADATA_SIZE:#x}"))
    return problems


# --- binary -----------------------------------------------------------------------------------


def encode_table(rows: Sequence[Partition]) -> bytes:
    """TABLE_DATA_SIZE bytes: one record per row, the MD5 record over them, FF to the end (ESP-IDF's generator writes
    the same bytes). Raises ValueError for rows that `parse_csv` would not return."""
    if len(rows) > MAX_ROWS:
        raise ValueError(f"{len(rows)} rows, but a table holds {MAX_ROWS}")
    data = b""
    for row in rows:
        label = row.name.encode()
        if len(label) > LABEL_MAX:
            raise ValueError(f"label {row.name!r} has {len(label)} bytes, but a label holds {LABEL_MAX}")
        data += _ROW.pack(TABLE_MAGIC, row.type, row.subtype, row.offset, row.size, label, row.flags)
    data += _MD5_MAGIC + hashlib.md5(data, usedforsecurity=False).digest()
    return data.ljust(TABLE_DATA_SIZE, b"\xff")


def read_table(
    data: bytes, path: str, *, flash_size: int, table_offset: int = 0x8000
) -> tuple[Partition, ...] | Failure:
    """The rows of the binary table in `path`, checked like those of a CSV; or a `config_error`, the further ones in its
    `detail`."""
    rows = decode_table(data)
    if isinstance(rows, Reason):
        fact = f"not a partition table: {rows.subject}: {rows.before}, {rows.after}"
        return fail(FailureCategory.CONFIG_ERROR, stage=None, where=path, message=fact, hint="build it again")
    if not rows:
        fact = "the partition table has no rows"
        return fail(FailureCategory.CONFIG_ERROR, stage=None, where=path, message=fact, hint="build it again")
    problems = _check(list(enumerate(rows, 1)), flash_size, table_offset, "row")
    if not problems:
        return rows
    first, *others = (f"row {problem.line}: {problem.message}" for problem in problems)
    return fail(
        FailureCategory.CONFIG_ERROR,
        stage=None,
        where=path,
        message=first,
        hint=problems[0].hint,
        detail="\n".join(f"{path}: error: {other}" for other in others),
    )


def decode_table(data: bytes) -> tuple[Partition, ...] | Reason:
    """The rows of a table (a file, or its sector as read from flash); a Reason of kind `bad-partition-table` with the
    first thing that is wrong. A table without an MD5 record is valid, as for the bootloader."""
    rows: list[Partition] = []
    for at in range(0, len(data) - _ROW.size + 1, _ROW.size):
        record = data[at : at + _ROW.size]
        if record == _END:
            return tuple(rows)
        if record[:16] == _MD5_MAGIC:
            computed = hashlib.md5(data[:at], usedforsecurity=False).hexdigest()
            if record[16:].hex() != computed:
                return Reason("bad-partition-table", "MD5", f"stored {record[16:].hex()}", f"computed {computed}")
            return tuple(rows)
        magic, type_, subtype, offset, size, label, flags = _ROW.unpack(record)
        if magic != TABLE_MAGIC:
            return Reason(
                "bad-partition-table", f"record at {at:#x}", f"{TABLE_MAGIC.hex()} needed", f"{magic.hex()} there"
            )
        try:
            name = label.split(b"\0", 1)[0].decode()
        except UnicodeDecodeError:
            return Reason("bad-partition-table", f"label at {at:#x}", "UTF-8 needed", label.hex())
        rows.append(Partition(name, type_, subtype, offset, size, flags))
    return Reason("bad-partition-table", "end record", "needed", f"{len(data)} bytes without one")
