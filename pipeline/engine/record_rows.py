"""How the record of an action is written as a row, and which rows can be believed.

Pure; knows neither whose rows they are nor the file that holds them. Invariant: any bytes of sufficient length are a
row: they name no path outside of what its `how` says.

    row = 32 bytes SHA-256 of each input and output, 32 bytes key, a byte for each output (executable), own
    how = (builtin, words, params, env, tool, salt, absent, inputs, outputs, depfile, command key); in `words` a number
          n stands for the n-th of the input paths, output paths and the depfile, a pair for all from its first number
          to before its second, and in these paths a NUL for `own`, which is the first input or empty; the command key
          is that of an action with many inputs, else empty
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

from cache.digest import are_hex_names, is_hex_name
from pipeline.engine.inputs import Command
from pipeline.engine.packed_inputs import DIGEST_BYTES, PackedInputs

Observed = tuple[tuple[str, str], ...]
"""(path, SHA-256) of files."""

Inputs = Sequence[tuple[str, str]]
"""The same, of which there may be ten thousand."""

Outputs = tuple[tuple[str, str, bool], ...]
"""(path, SHA-256, executable)."""

How = tuple[Any, ...]
Decoded = tuple[Inputs, Outputs, str, str]
_OWN = "\0"
MANY_INPUTS = 64
"""What belongs to more inputs than this is not taken apart. Of an action with more files, `own` is empty."""
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
    if value.__class__ is not tuple or len(value) != 11:
        return False
    builtin, words, params, env, tool, salt, absent, read, made, depfile, key = value
    if not (is_strings(read) and is_strings(made) and is_strings((depfile, key)) and words.__class__ is tuple):
        return False
    said = {word.__class__ for word in words if not _is_range(word)} <= {str, int}
    pairs = _is_pairs(params) and _is_pairs(env) and _is_pairs((tool, (builtin, salt)))
    return said and pairs and is_strings(absent) and (not key or is_hex_name(key))


def _is_range(value: Any) -> bool:
    return value.__class__ is tuple and len(value) == 2 and set(map(type, value)) == {int} and 0 <= value[0] < value[1]


def said_words(argv: Sequence[str], files: Sequence[str]) -> tuple[Any, ...]:
    """The words with numbers in place of files, as `argv_of` reads them."""
    places = {path: n for n, path in enumerate(files) if path}
    said = list(map(places.get, argv, argv))
    if len(files) <= MANY_INPUTS:
        return tuple(said)
    words: list[Any] = []
    for word in said:
        last = words[-1] if words else None
        if word.__class__ is int and last.__class__ is tuple and last[1] == word:
            words[-1] = (last[0], word + 1)
        elif word.__class__ is int and last.__class__ is int and last + 1 == word:
            words[-1] = (last, word + 1)
        else:
            words.append(word)
    return tuple(words)


def argv_of(words: Sequence[Any], files: tuple[str, ...]) -> tuple[str, ...] | None:
    """The words of a command; None where they name what is not there."""
    argv: list[str] = []
    try:
        if len(files) <= MANY_INPUTS:
            return tuple([files[word] if word.__class__ is int else word for word in words])
        for word in words:
            if word.__class__ is tuple:
                argv += (*files[word[0] : word[1] - 1], files[word[1] - 1])
            else:
                argv.append(files[word] if word.__class__ is int else word)
    except IndexError:
        return None
    return tuple(argv)


def without_own(command: Command) -> tuple[str, tuple[tuple[str, ...], tuple[str, ...], str]]:
    """What names most of the files of an action, and how they are called without that: the same for all compiles."""
    read, made, depfile = command.inputs, command.outputs, command.depfile
    own = read[0] if read and len(read) + len(made) <= MANY_INPUTS else ""
    if not own or _OWN in depfile.join((*read, *made)):
        return "", (read, made, depfile)
    without = [path.replace(own, _OWN) for path in (*read, *made, depfile)]
    return own, (tuple(without[: len(read)]), tuple(without[len(read) : -1]), without[-1])


def encoded_row(inputs: Inputs, outputs: Outputs, key: str, own: str) -> bytes:
    """What `decoded_row` reads."""
    digests = [] if isinstance(inputs, PackedInputs) else [sha256 for _, sha256 in inputs]
    digests += [sha256 for _, sha256, _ in outputs]
    flags = bytes([executable for _, _, executable in outputs])
    row = bytes.fromhex("".join([*digests, key])) + flags + own.encode("utf-8", "surrogatepass")
    return inputs.digests + row if isinstance(inputs, PackedInputs) else row


def named_files(data: bytes, how: How) -> tuple[tuple[str, ...], tuple[str, ...], str] | None:
    """The input paths, output paths and the depfile of a row; None for what is none."""
    read, made, depfile = how[7:10]
    end = DIGEST_BYTES * (len(read) + len(made) + 1) + len(made)
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
    first = DIGEST_BYTES * len(read)
    key = first + DIGEST_BYTES * len(made)
    flags = key + DIGEST_BYTES
    many = len(read) > MANY_INPUTS
    text = data[first if many else 0 : flags].hex()
    digests = [text[at : at + 2 * DIGEST_BYTES] for at in range(0, len(text), 2 * DIGEST_BYTES)]
    inputs = PackedInputs(read, data[:first]) if many else tuple(zip(read, digests, strict=False))
    outputs = zip(made, digests[-1 - len(made) : -1], map(bool, data[flags : flags + len(made)]), strict=False)
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
    row = told[0] if told[0].__class__ is bytes else _with_pieces(base[0], told[0])
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
