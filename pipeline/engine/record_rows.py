"""How the record of an action is written as a row, and which rows can be believed.

Pure; knows neither whose rows they are nor the file that holds them. Invariant: any bytes of sufficient length are a
row: they name no path outside of what its `how` says.

    row = 32 bytes SHA-256 of each input and output, 32 bytes key, a byte for each output (executable), own
    how = (builtin, words, params, env, tool, salt, absent, inputs, outputs, depfile); in `words` a number n stands for
          the n-th of the input paths, output paths and the depfile, and in these a NUL for `own`, which is the first
          input or empty
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

from cache.ahead import values
from cache.digest import are_hex_names
from pipeline.engine.inputs import Command

Observed = tuple[tuple[str, str], ...]
"""(path, SHA-256) of files."""

Outputs = tuple[tuple[str, str, bool], ...]
"""(path, SHA-256, executable)."""

How = tuple[Any, ...]
Decoded = tuple[Observed, Outputs, str, str]
LONG, LONGEST = 1 << 14, 1 << 20
"""Bytes of rows that are kept as they were decoded: of five hundred files; of thirty thousand that takes more memory
than it saves time."""
_DIGEST = 32
_OWN = "\0"
_MOST_NAMED = 64
"""Of an action with more files than this, `own` is empty."""
_PARTS = 4
_LONG_ENOUGH, _PIECE, _WORTH = 1 << 10, 64, 256
"""A row of fewer bytes is said whole; of a longer one pieces of so many, unless there are more than one for each so
many of its bytes."""


def sound_rows(saved: Any) -> dict[str, Any]:
    """The rows if `BuildRecords` could have saved them, else none: a checksum tells damage, not who wrote it. Asks by
    column and of each shared object once, since there may be ten thousand rows."""
    if saved.__class__ is not dict or not saved:
        return {}
    rows = list(saved.values())
    if set(map(type, saved)) != {str} or set(map(type, rows)) != {tuple} or set(map(len, rows)) != {4}:
        return {}
    encoded, *shared = zip(*rows, strict=True)
    checks = (_is_how, _is_observed, is_strings)
    for parts, is_sound in zip(shared, checks, strict=True):
        if not all(map(is_sound, dict(zip(map(id, parts), parts, strict=True)).values())):
            return {}
    return saved if set(map(type, encoded)) == {bytes} else {}


def is_strings(value: Any) -> bool:
    return value.__class__ is tuple and set(map(type, value)) <= {str}


def _is_pairs(value: Any) -> bool:
    # By column: a link has ten thousand of them.
    if value.__class__ is not tuple or not set(map(type, value)) <= {tuple} or not set(map(len, value)) <= {2}:
        return False
    return set(map(type, chain.from_iterable(value))) <= {str}


def _is_observed(value: Any) -> bool:
    return _is_pairs(value) and are_hex_names([sha256 for _, sha256 in value])


def _is_how(value: Any) -> bool:
    if value.__class__ is not tuple or len(value) != 10:
        return False
    builtin, words, params, env, tool, salt, absent, read, made, depfile = value
    if not (is_strings(read) and is_strings(made) and depfile.__class__ is str):
        return False
    said = words.__class__ is tuple and set(map(type, words)) <= {str, int}
    return said and _is_pairs(params) and _is_pairs(env) and _is_pairs((tool, (builtin, salt))) and is_strings(absent)


def without_own(command: Command) -> tuple[str, tuple[tuple[str, ...], tuple[str, ...], str]]:
    """What names most of the files of an action, and how they are called without that: the same for all compiles."""
    read, made, depfile = command.inputs, command.outputs, command.depfile
    own = read[0] if read and len(read) + len(made) <= _MOST_NAMED else ""
    if not own or _OWN in depfile.join((*read, *made)):
        return "", (read, made, depfile)
    without = [path.replace(own, _OWN) for path in (*read, *made, depfile)]
    return own, (tuple(without[: len(read)]), tuple(without[len(read) : -1]), without[-1])


def encoded_row(inputs: Observed, outputs: Outputs, key: str, own: str) -> bytes:
    """What `decoded_row` reads."""
    digests = [sha256 for _, sha256 in inputs] + [sha256 for _, sha256, _ in outputs]
    flags = bytes([executable for _, _, executable in outputs])
    return bytes.fromhex("".join([*digests, key])) + flags + own.encode("utf-8", "surrogatepass")


def named_files(data: bytes, how: How) -> tuple[tuple[str, ...], tuple[str, ...], str] | None:
    """The input paths, output paths and the depfile of a row; None for what is none."""
    read, made, depfile = how[7:]
    end = _DIGEST * (len(read) + len(made) + 1) + len(made)
    if len(data) <= end:
        return None if len(data) < end else (read, made, depfile)
    try:
        own = data[end:].decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None
    named = [tuple([path.replace(_OWN, own) for path in paths]) for paths in (read, made)]
    return named[0], named[1], depfile.replace(_OWN, own)


def decoded_row(data: bytes, how: How) -> Decoded | None:
    """What `encoded_row` made; None for anything else."""
    named = named_files(data, how)
    if named is None:
        return None
    read, made, depfile = named
    first = _DIGEST * len(read)
    key = first + _DIGEST * len(made)
    flags = key + _DIGEST
    text = data[:flags].hex()
    digests = [text[at : at + 2 * _DIGEST] for at in range(0, 2 * flags, 2 * _DIGEST)]
    inputs = tuple(zip(read, digests, strict=False))
    outputs = zip(made, digests[len(read) :], map(bool, data[flags : flags + len(made)]), strict=False)
    return inputs, tuple(outputs), depfile, digests[-1]


def beside(record: Any, before: Any) -> Any:
    """The record as it is said beside another one: None for what both have, and of a long row what is another."""
    if record is None or before.__class__ is not tuple or len(before) != len(record):
        return record
    row, *parts = record
    old, *old_parts = before
    pieces = _pieces(old, row) if old.__class__ is bytes and _LONG_ENOUGH <= len(row) == len(old) else None
    same = [part is former or part == former for part, former in zip(parts, old_parts, strict=True)]
    return (row if pieces is None else pieces, *[None if one else part for one, part in zip(same, parts, strict=True)])


def whole(told: Any, before: Callable[[str], Any], name: str) -> Any:
    """The record of which `beside` made this, `before` given its name; None for what is none."""
    if told.__class__ is not tuple or len(told) != _PARTS:
        return None
    if told[0].__class__ is bytes and None not in told[1:]:
        return told
    base = before(name)
    if base.__class__ is not tuple or len(base) != _PARTS:
        return None
    row = told[0] if told[0].__class__ is bytes else values().made(_with_pieces, base[0], told[0])
    return (row, *[former if part is None else part for part, former in zip(told[1:], base[1:], strict=True)])


def _pieces(old: bytes, row: bytes) -> tuple[tuple[int, bytes], ...] | None:
    """Where `row`, which is as long, is another than `old`; None when that would save little."""
    found: list[tuple[int, bytes]] = []
    waiting = [(0, len(row))]
    while waiting:
        first, end = waiting.pop()
        if old[first:end] == row[first:end]:
            continue
        if end - first <= _PIECE:
            found.append((first, row[first:end]))
            if len(found) * _WORTH > len(row):
                return None
        else:
            middle = (first + end) // 2
            waiting += ((middle, end), (first, middle))
    return tuple(found)


def _with_pieces(row: Any, pieces: Any) -> bytes | None:
    """What `_pieces` was given as `row`, of which `row` was `old`."""
    if row.__class__ is not bytes or pieces.__class__ is not tuple:
        return None
    found = bytearray(row)
    for each in pieces:
        match each:
            case (int() as first, bytes() as piece) if 0 <= first <= len(row) - len(piece):
                found[first : first + len(piece)] = piece
            case _:
                return None
    return bytes(found)


def decode_long(told: Any, before: Callable[[str], Any], name: str) -> None:
    """Decode ahead what `whole` makes of these, if that takes long: see `cache/ahead.py`."""
    record = whole(told, before, name)
    if sound_rows({name: record}) and LONG <= len(record[0]) < LONGEST:
        in_pieces = told[0].__class__ is tuple
        row = values().make(_with_pieces, before(name)[0], told[0]) if in_pieces else record[0]
        values().make(decoded_row, row, record[1])
