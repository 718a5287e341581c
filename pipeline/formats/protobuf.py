"""The wire format of protocol buffers, for messages that a table describes.

Knows how fields are written (numbers, varints, lengths); the tables are elsewhere (`reapi`). Does not know services or
transports. Invariants: `encode` is canonical - fields by number, what proto3 leaves out left out - so that equal values
are equal bytes, and a digest of them means something; `decode` gives a value for every field of the table, or None for
bytes that are none of it, and never reads outside of them. Not here: floating point, fixed-width numbers, groups, maps.
A field of another table than ours is skipped, as the format wants it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from cache.named_tuple import NamedTuple

Value = Mapping[str, Any]
"""Field name -> value: `int`, `bool`, `str`, `bytes`, a Value (None when it is not there), or a list of those."""


class WireKind(Enum):
    """How a field's value is written. `INT`: int32, int64 and enums. `MESSAGE`: one that has a table of its own."""

    INT = 0
    BOOL = 1
    STRING = 2
    BYTES = 3
    MESSAGE = 4


class Field(NamedTuple):
    """One row of a table. `table`: of the message in it."""

    number: int
    name: str
    kind: WireKind
    repeated: bool = False
    table: tuple[Field, ...] = ()


Table = tuple[Field, ...]
"""A message: its fields in the order of their numbers."""

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_MOST_VARINT_BYTES = 10
_NUMBERS = (WireKind.INT, WireKind.BOOL)
_DEFAULTS: Mapping[WireKind, Any] = {
    WireKind.INT: 0,
    WireKind.BOOL: False,
    WireKind.STRING: "",
    WireKind.BYTES: b"",
    WireKind.MESSAGE: None,
}


class _Malformed(Exception):
    """These bytes are no message."""


def encode(table: Table, value: Value) -> bytes:
    """The bytes of a message; a field that `value` lacks has its default. Raises KeyError for a field that the table
    does not have: that is a mistake of ours."""
    unknown = value.keys() - {field.name for field in table}
    if unknown:
        raise KeyError(f"no field {sorted(unknown)}")
    parts: list[bytes] = []
    for field in table:
        held = value.get(field.name)
        if field.repeated:
            parts += _encode_all(field, held or ())
        elif held is not None and (held or field.kind is WireKind.MESSAGE):
            parts += _encode_one(field, held)
    return b"".join(parts)


def _encode_all(field: Field, values: Any) -> list[bytes]:
    if field.kind in _NUMBERS:
        packed = b"".join(map(varint, values))
        return [_tag(field, _LENGTH), varint(len(packed)), packed] if packed else []
    return [part for each in values for part in _encode_one(field, each)]


def _encode_one(field: Field, value: Any) -> list[bytes]:
    if field.kind in _NUMBERS:
        return [_tag(field, _VARINT), varint(value)]
    if field.kind is WireKind.STRING:
        data = value.encode()
    else:
        data = encode(field.table, value) if field.kind is WireKind.MESSAGE else bytes(value)
    return [_tag(field, _LENGTH), varint(len(data)), data]


def _tag(field: Field, wire_type: int) -> bytes:
    return varint(field.number << 3 | wire_type)


def varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; a negative number as 64 bits of two's complement."""
    number &= (1 << 64) - 1
    data = bytearray()
    while number > 0x7F:
        data.append(number & 0x7F | 0x80)
        number >>= 7
    data.append(number)
    return bytes(data)


def decode(table: Table, data: bytes) -> dict[str, Any] | None:
    """The message with a value for each field of the table; None when `data` is not one."""
    try:
        return _message(table, data)
    except _Malformed:
        return None


def _message(table: Table, data: bytes) -> dict[str, Any]:
    """Raises _Malformed."""
    found: dict[str, Any] = {field.name: [] if field.repeated else _DEFAULTS[field.kind] for field in table}
    fields = {field.number: field for field in table}
    messages: dict[str, bytes] = {}
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        raw, at = _read_raw(data, at, tag & 7)
        if tag >> 3 == 0:
            raise _Malformed
        field = fields.get(tag >> 3)
        if field is None:
            continue
        if field.kind is WireKind.MESSAGE and not field.repeated:
            # What comes in two parts is one message: those of the second add to the first.
            messages[field.name] = messages.get(field.name, b"") + _of_bytes(raw)
        elif field.repeated:
            found[field.name] += _several(field, raw)
        else:
            found[field.name] = _one(field, raw)
    for field in table:
        if field.name in messages:
            found[field.name] = _message(field.table, messages[field.name])
    return found


def _several(field: Field, raw: int | bytes | None) -> list[Any]:
    if field.kind in _NUMBERS and isinstance(raw, bytes):
        values, at = [], 0
        while at < len(raw):
            number, at = _read_varint(raw, at)
            values.append(_one(field, number))
        return values
    return [_one(field, raw)]


def _one(field: Field, raw: int | bytes | None) -> Any:
    if field.kind in _NUMBERS:
        if not isinstance(raw, int):
            raise _Malformed
        return bool(raw) if field.kind is WireKind.BOOL else raw - (1 << 64) if raw >> 63 else raw
    data = _of_bytes(raw)
    if field.kind is WireKind.STRING:
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise _Malformed from None
    return data if field.kind is WireKind.BYTES else _message(field.table, data)


def _of_bytes(raw: int | bytes | None) -> bytes:
    if not isinstance(raw, bytes):
        raise _Malformed
    return raw


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = 0
    for n, byte in enumerate(data[at : at + _MOST_VARINT_BYTES]):
        number |= (byte & 0x7F) << 7 * n
        if byte < 0x80:
            return number & (1 << 64) - 1, at + n + 1
    raise _Malformed


def _read_raw(data: bytes, at: int, wire_type: int) -> tuple[int | bytes | None, int]:
    """A field's value as it stands there, None for one of fixed width, and where the next begins."""
    if wire_type == _VARINT:
        return _read_varint(data, at)
    if wire_type == _LENGTH:
        size, at = _read_varint(data, at)
    elif wire_type in (_FIXED64, _FIXED32):
        size = 8 if wire_type == _FIXED64 else 4
    else:
        raise _Malformed
    if size > len(data) - at:
        raise _Malformed
    return data[at : at + size] if wire_type == _LENGTH else None, at + size
