"""Checksummed text lines: the one format of append-only logs (run logs, device journals).

Pure: values to bytes and back; and JSON without numbers that are none, for all that is written and read. Does not know
files or what a record means.
Invariant: `decode_records` never raises and never returns a record that was not written whole; what it drops it says in
one line, except a torn tail, which is what a killed writer leaves.

    log    := header record*
    header := name " " version "\\n"                     "hotplate-run-log 1\\n"
    record := crc32 "\\t" json "\\n"                      CRC-32 (IEEE 802.3) of the json bytes, 8 lower-case hex digits
    json   := canonical: sorted keys, no spaces, ASCII only, no NaN

An unknown name or version means starting over, never guessing. The version is that of the records' meaning and belongs
to the caller.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from cache.named_tuple import NamedTuple

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
"""`json.dumps` makes one for each call that gives these."""


class Decoded(NamedTuple):
    """`records` in order; `note` says what was dropped (`None`: nothing but perhaps a torn tail); `good` is the number
    of leading bytes that are whole and valid: truncate there before appending."""

    records: list[dict[str, Any]]
    note: str | None
    good: int


def header(name: str, version: int) -> bytes:
    """The first line of a log."""
    return f"{name} {version}\n".encode("ascii")


def encode_record(value: Mapping[str, Any]) -> bytes:
    """One line. Raises TypeError or ValueError for what JSON cannot hold: a defect of the caller."""
    # ASCII escapes carry a lone surrogate (a file name that is not UTF-8) through and back.
    text = _ENCODER.encode(value).encode("ascii")
    return b"%08x\t%s\n" % (zlib.crc32(text), text)


def decode_records(data: bytes, name: str, version: int) -> Decoded:
    """Read what is whole. An unknown first line means nothing can be read, and says so; a damaged record ends the log
    there, since later ones may depend on it; bytes after the last newline are a torn tail."""
    first = header(name, version)
    if not data.startswith(first):
        if first.startswith(data):
            return Decoded([], None, 0)
        shown = data.split(b"\n", 1)[0][:40].decode("latin-1").encode("unicode_escape").decode("ascii")
        return Decoded([], f'{name}: unknown format "{shown}", expected "{name} {version}"; starting over', 0)
    records: list[dict[str, Any]] = []
    good = len(first)
    while (end := data.find(b"\n", good)) >= 0:
        record = _decode_line(data[good:end])
        if record is None:
            note = f"{name}: damaged at record {len(records) + 1} (byte {good}); the rest is ignored"
            return Decoded(records, note, good)
        records.append(record)
        good = end + 1
    return Decoded(records, None, good)


def parse_json(text: str | bytes) -> Any:
    """`json.loads`, but for `NaN`, `Infinity` and numbers beyond what a double holds. Raises ValueError,
    RecursionError."""
    return json.loads(text, parse_constant=_refuse, parse_float=_finite)


def _refuse(text: str) -> Any:
    raise ValueError(f"{text} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse(text)


def json_text(value: Any, **options: Any) -> str:
    """`json.dumps` in ASCII; a number that is none, which JSON has no word for, is `null`. On stdout no string is a
    command to a CI service (`pipeline/text.py`)."""
    try:
        text = _indented(value) if options == {"indent": 2} else None
        if text is None:
            text = json.dumps(value, ensure_ascii=True, allow_nan=False, **options)
    except ValueError:
        text = json.dumps(_finite_value(value), ensure_ascii=True, allow_nan=False, **options)
    return text.replace("##", r"#\u0023")


_quoted = json.encoder.encode_basestring_ascii
_WORDS = MappingProxyType({None: "null", True: "true", False: "false"})


def _indented(value: Any, margin: str = "\n") -> str | None:
    """What `json.dumps` makes of plain values with an indent of 2, for which it has a generator per level; None for
    others. Raises ValueError for a number that is none."""
    kind = type(value)
    if isinstance(value, str):
        return _quoted(value)
    if value is None or kind is bool:
        return _WORDS[value]
    if kind is int:
        return repr(value)
    if kind is float:
        if not math.isfinite(value):
            raise ValueError(value)
        return repr(value)
    deeper = f"{margin}  "
    if kind is dict:
        parts = [_indented(item, deeper) for item in value.values()]
        if None in parts or not all(isinstance(key, str) for key in value):
            return None
        lines = [f"{_quoted(key)}: {part}" for key, part in zip(value, parts, strict=True)]
        return f"{{{deeper}{f',{deeper}'.join(lines)}{margin}}}" if lines else "{}"
    if kind is list or kind is tuple:
        items = [_indented(item, deeper) for item in value]
        if None in items:
            return None
        return f"[{deeper}{f',{deeper}'.join(map(str, items))}{margin}]" if items else "[]"
    return None


def _finite_value(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite_value(item) for key, item in value.items()}
    return [_finite_value(item) for item in value] if isinstance(value, list | tuple) else value


def _decode_line(line: bytes) -> dict[str, Any] | None:
    crc, tab, text = line.partition(b"\t")
    if not tab or crc != b"%08x" % zlib.crc32(text):
        return None
    try:
        value = parse_json(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
