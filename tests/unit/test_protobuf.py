"""The wire format of protocol buffers: literal bytes, damage, and google's own runtime as the other side."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st

from pipeline.formats import reapi
from pipeline.formats.protobuf import Field, Table, WireKind, decode, encode

INNER: Table = (Field(1, "text", WireKind.STRING), Field(2, "number", WireKind.INT))
ALL: Table = (
    Field(1, "number", WireKind.INT),
    Field(2, "yes", WireKind.BOOL),
    Field(3, "text", WireKind.STRING),
    Field(4, "data", WireKind.BYTES),
    Field(5, "inner", WireKind.MESSAGE, table=INNER),
    Field(6, "numbers", WireKind.INT, repeated=True),
    Field(7, "texts", WireKind.STRING, repeated=True),
    Field(16, "inners", WireKind.MESSAGE, repeated=True, table=INNER),
)
NOTHING: dict[str, Any] = {
    **{"number": 0, "yes": False, "text": "", "data": b"", "inner": None},
    **{"numbers": [], "texts": [], "inners": []},
}


@pytest.mark.parametrize(
    ("value", "data"),
    [
        ({}, ""),
        ({"number": 150}, "089601"),
        ({"number": -1}, "08ffffffffffffffffff01"),
        ({"number": (1 << 63) - 1}, "08ffffffffffffffff7f"),
        ({"yes": True}, "1001"),
        ({"text": "testing"}, "1a0774657374696e67"),
        ({"text": "\u00fc"}, "1a02c3bc"),
        ({"data": b"\0\xff"}, "220200ff"),
        ({"inner": {}}, "2a00"),
        ({"inner": {"number": 150}}, "2a03109601"),
        ({"numbers": [3, 270, 86942]}, "3206038e029ea705"),
        ({"texts": ["a", ""]}, "3a01613a00"),
        ({"inners": [{"text": "a"}, {}]}, "8201030a0161820100"),
    ],
)
def test_literal_bytes_in_both_directions(value: dict[str, Any], data: str) -> None:
    assert encode(ALL, value).hex() == data
    read = decode(ALL, bytes.fromhex(data))
    assert read is not None
    assert encode(ALL, read).hex() == data
    if "inner" not in value and "inners" not in value:
        assert read == {**NOTHING, **value}


def test_defaults_are_left_out_so_that_equal_values_are_equal_bytes() -> None:
    assert encode(ALL, NOTHING) == b""
    assert decode(ALL, b"") == NOTHING
    with pytest.raises(KeyError):
        encode(ALL, {"numer": 1})


@pytest.mark.parametrize(
    ("data", "name", "value"),
    [
        ("08010802", "number", 2),  # the last one counts
        ("2a030a01612a021005", "inner", {"text": "a", "number": 5}),  # a message in two parts is one
        ("30013002", "numbers", [1, 2]),  # not packed
        ("320101" + "3002", "numbers", [1, 2]),
        ("1005", "yes", True),
        ("4801" + "0807", "number", 7),  # field 9, unknown: a number
        ("4a0161" + "0807", "number", 7),  # a string
        ("4d01020304" + "0807", "number", 7),  # 32 bits
        ("490102030405060708" + "0807", "number", 7),  # 64 bits
    ],
)
def test_what_other_writers_may_do(data: str, name: str, value: Any) -> None:
    read = decode(ALL, bytes.fromhex(data))
    assert read is not None and read[name] == value


@pytest.mark.parametrize(
    "data",
    [
        "08",  # no value
        "0880",  # half a number
        "08ffffffffffffffffffff01",  # eleven bytes
        "1a05616263",  # three of five bytes
        "1affffffffffffffff7f",  # a length beyond all memory
        "1a01ff",  # no UTF-8
        "1801",  # a number where a string is meant
        "0a0161",  # a string where a number is meant
        "0d01020304",  # 32 bits where a varint is meant
        "2a020a05",  # damage inside
        "320180",  # packed, half a number
        "0b0c",  # a group
        "0f",  # wire type 7
        "0001",  # field 0
        "4900",  # half of 64 bits
    ],
)
def test_what_is_no_message(data: str) -> None:
    assert decode(ALL, bytes.fromhex(data)) is None


def test_every_truncation_is_none_or_a_message_and_every_flip_is_survived() -> None:
    whole = encode(
        ALL, {"number": 300, "text": "abc", "inner": {"text": "x", "number": 7}, "numbers": [1, 400], "texts": ["q"]}
    )
    for size in range(len(whole)):
        decode(ALL, whole[:size])
    for at in range(len(whole)):
        for bit in range(8):
            decode(ALL, whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])


# --- google's runtime -------------------------------------------------------------------------------

_TYPES = {
    WireKind.INT: descriptor_pb2.FieldDescriptorProto.TYPE_INT64,
    WireKind.BOOL: descriptor_pb2.FieldDescriptorProto.TYPE_BOOL,
    WireKind.STRING: descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
    WireKind.BYTES: descriptor_pb2.FieldDescriptorProto.TYPE_BYTES,
    WireKind.MESSAGE: descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE,
}


def google_class(table: Table) -> Any:
    """The message of `table` as google's runtime has it."""
    file = descriptor_pb2.FileDescriptorProto(name="ours.proto", package="ours", syntax="proto3")
    names: dict[int, str] = {}

    def describe(table: Table) -> str:
        if id(table) in names:
            return names[id(table)]
        name = names[id(table)] = f"M{len(names)}"
        message = file.message_type.add(name=name)
        for field in table:
            label = 3 if field.repeated else 1
            row = message.field.add(name=field.name, number=field.number, type=_TYPES[field.kind], label=label)
            if field.kind is WireKind.MESSAGE:
                row.type_name = f".ours.{describe(field.table)}"
        return name

    top = describe(table)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"ours.{top}"))


def values(table: Table) -> st.SearchStrategy[dict[str, Any]]:
    """Any value of a message."""
    single: dict[WireKind, Any] = {
        WireKind.INT: st.integers(-(1 << 63), (1 << 63) - 1),
        WireKind.BOOL: st.booleans(),
        WireKind.STRING: st.text(max_size=5),
        WireKind.BYTES: st.binary(max_size=5),
    }

    def one(field: Field) -> Any:
        plain = values(field.table) if field.kind is WireKind.MESSAGE else single[field.kind]
        return st.lists(plain, max_size=3) if field.repeated else plain

    return st.fixed_dictionaries({}, optional={field.name: one(field) for field in table})


GOOGLE_ALL = google_class(ALL)


@given(values(ALL))
def test_google_reads_what_we_write_and_writes_the_same(value: dict[str, Any]) -> None:
    ours = encode(ALL, value)
    theirs = GOOGLE_ALL.FromString(ours)
    assert theirs.SerializeToString(deterministic=True) == ours
    assert encode(ALL, decode(ALL, ours) or {}) == ours


@given(st.binary(max_size=24))
def test_what_google_does_not_take_we_do_not_take(data: bytes) -> None:
    try:
        theirs = GOOGLE_ALL.FromString(data)
    except Exception:
        # Groups of unknown fields are all that google takes beyond us.
        assert decode(ALL, data) is None
        return
    read = decode(ALL, data)
    if read is not None:
        theirs.DiscardUnknownFields()
        assert encode(ALL, read) == theirs.SerializeToString(deterministic=True)


TABLES = {name: table for name, table in vars(reapi).items() if name.isupper() and isinstance(table, tuple)}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_in_the_order_of_its_numbers(name: str) -> None:
    numbers = [field.number for field in TABLES[name]]
    assert numbers == sorted(set(numbers))
