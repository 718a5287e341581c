"""The last successful run of each action, as one project remembers them, and the state file that holds them.

Knows commands and digests. Does not know when an action is up to date. Invariant: `get` returns what was put
under that name, or nothing.

    saved = (records, unrecorded); unrecorded = path -> SHA-256 of an output that no record holds
    records = name -> (row, how, discovered, absent)
    row   = 32 bytes SHA-256 of each input and output, 32 bytes key, a byte for each output (executable), own
    how   = (builtin, words, params, env, tool, salt, absent, inputs, outputs, depfile); in `words` a number n stands
            for the n-th of the input paths, output paths and the depfile, and in these a NUL for `own`, which is the
            first input or empty

Rows stay encoded until somebody asks: a run that concerns ten actions of ten thousand decodes ten, and saving copies
the others' bytes. What stands outside the row is the same for many actions: equal ones are one object, which the state
file then holds once and a verdict checks once. Any bytes of sufficient length are a row: they name no path outside of
what `how` says.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, KeysView, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from cache import rowfile, statefile
from cache.ahead import values
from cache.digest import are_hex_names
from cache.named_tuple import NamedTuple
from cache.rowfile import LazyRows, RowFile
from cache.statebytes import parts_of_pair
from pipeline.engine.inputs import Command
from pipeline.model import STATEMENT_PROFILE, Action

Observed = tuple[tuple[str, str], ...]
"""(path, SHA-256) of files."""

Outputs = tuple[tuple[str, str, bool], ...]
"""(path, SHA-256, executable)."""

_How = tuple[Any, ...]
_Decoded = tuple[Observed, Outputs, str, str]
_LONG, _LONGEST = 1 << 14, 1 << 20
"""Bytes of rows that are kept as they were decoded: of five hundred files; of thirty thousand that takes more memory
than it saves time."""
_DIGEST = 32
_OWN = "\0"
_MOST_NAMED = 64
"""Of an action with more files than this, `own` is empty."""
_T = TypeVar("_T", bound=tuple[Any, ...])


class Record(NamedTuple):
    """The last successful run of an action."""

    command: Command
    inputs: Observed
    discovered: Observed
    absent: tuple[str, ...]
    outputs: Outputs
    key: str


def record_name(action: Action) -> str:
    """Under which name its last run is remembered."""
    return action.known_as


class BuildRecords:
    """name -> Record. Several threads may use it at once, for different names."""

    def __init__(self, saved: Any = None) -> None:
        """`saved`: what `plain` of earlier records gave."""
        rows, made = saved if saved.__class__ is tuple and len(saved) == 2 else ({}, {})
        lazy = isinstance(rows, LazyRows)
        self.saved: dict[str, tuple[bytes, _How, Observed, tuple[str, ...]]] = rows if lazy else _sound(rows)
        """What was saved of that, as it is."""
        self._rows = self.saved if lazy else dict(self.saved)
        self.unrecorded: dict[str, str] = dict(made) if _is_unrecorded(made) else {}
        """Outputs that were made and that no record holds (any more): path -> SHA-256, `""` if it is not known since
        the action may have been killed."""
        self._long: dict[str, tuple[bytes, _Decoded | None]] = {}
        """Rows that take long to decode, as they were last."""
        self._shared: dict[Any, Any] = {}
        self._last: tuple[str, Any, Record | None] = ("", None, None)
        """Name, row and record that were asked for last: an action that must run is asked about several times in a
        row."""
        self.changed = False
        """Is there anything that the saved ones do not hold?"""

    def get(self, name: str) -> Record | None:
        """The record of this action."""
        row, (last, of_row, record) = self._rows.get(name), self._last
        if last != name or of_row is not row:
            record = self._get(name)
            self._last = (name, row, record)
        return record

    def _get(self, name: str) -> Record | None:
        row, decoded = self._rows.get(name), self._decoded(name)
        if row is None or decoded is None:
            return None
        inputs, outputs, depfile, key = decoded
        builtin, words, params, env, tool, salt, absent = row[1][:7]
        read, made = tuple([path for path, _ in inputs]), tuple([path for path, _, _ in outputs])
        files = (*read, *made, depfile)
        try:
            argv = tuple([files[word] if word.__class__ is int else word for word in words])
        except IndexError:
            return None
        command = Command(builtin, argv, params, env, tool, read, made, depfile, salt, absent)
        return Record(command, inputs, row[2], row[3], outputs, key)

    def result(self, name: str) -> tuple[Outputs, str] | None:
        """The outputs and the key of `get`, for a quarter of its price."""
        decoded = self._decoded(name)
        return None if decoded is None else (decoded[1], decoded[3])

    def files(self, name: str) -> tuple[Observed, Outputs] | None:
        """The declared inputs and the outputs of `get`, likewise."""
        decoded = self._decoded(name)
        return None if decoded is None else decoded[:2]

    def paths(self, name: str) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
        """The paths of the declared inputs and of the outputs, for less than that."""
        row = self._rows.get(name)
        named = None if row is None else _named(row[0], row[1])
        return None if named is None else named[:2]

    def _decoded(self, name: str) -> _Decoded | None:
        row = self._rows.get(name)
        if row is None:
            return None
        data = row[0]
        if not _LONG <= len(data) < _LONGEST:
            return _row(data, row[1])
        known = self._long.get(name)
        if known is None or known[0] is not data:
            known = self._long[name] = (data, values().made(_row, data, row[1]))
        return known[1]

    def discovered(self, name: str) -> Observed:
        """What that action read beside its declared inputs, as far as is known."""
        row = self._rows.get(name)
        return () if row is None else row[2]

    def absent(self, name: str) -> tuple[str, ...]:
        """What would have been read instead, had it existed."""
        row = self._rows.get(name)
        return () if row is None else row[3]

    def put(self, name: str, record: Record) -> None:
        """Remember; an equal record changes nothing. Precondition: inputs and outputs have the command's paths."""
        command = record.command
        last, row_before, before = self._last
        own, named = _without_own(command)
        if last == name and before is not None and before.command == command:
            how = row_before[1]  # of a link it takes as long as to encode the rest
        else:
            files = {path: n for n, path in enumerate((*command.inputs, *command.outputs, command.depfile)) if path}
            words = tuple(map(files.get, command.argv, command.argv))
            more = (command.params, command.env, command.tool, command.salt, command.absent)
            how = (command.builtin, words, *more, *named)
        row = _encoded(record, own)
        new = (row, self.shared(how), self.shared(record.discovered), self.shared(record.absent))
        # Equal values can have several encodings.
        if self._rows.get(name) != new and self.get(name) != record:
            self._dissolve(name)
            self._rows[name] = new
            self.changed = True
            if _LONG <= len(row) < _LONGEST:
                self._long[name] = (row, (record.inputs, record.outputs, command.depfile, record.key))
        for path, _, _ in record.outputs:
            if self.unrecorded:
                self.unrecorded.pop(path, None)

    def drop(self, name: str) -> None:
        """Forget it; without one, nothing happens."""
        self._dissolve(name)
        if self._rows.pop(name, None) is not None:
            self.changed = True

    def _dissolve(self, name: str) -> None:
        """Its outputs are still what it made, and ours to remove when nobody makes them any more; those of another
        build system never are."""
        if name.startswith(STATEMENT_PROFILE):
            return
        for path, sha256, _ in (self.result(name) or ((), ""))[0]:
            self.unrecorded[path] = sha256

    def begin(self, paths: Iterable[str]) -> None:
        """These may be made from here on, by an action that has no record."""
        for path in paths:
            self.unrecorded[path] = ""
            self.changed = True

    def settle(self, paths: Iterable[str]) -> None:
        """Nothing of ours is there."""
        for path in paths:
            if self.unrecorded.pop(path, None) is not None:
                self.changed = True

    def has(self, name: str) -> bool:
        """Is there a record of this action?"""
        return name in self._rows

    def names(self) -> KeysView[str]:
        return self._rows.keys()

    def shared(self, value: _T) -> _T:
        """An equal tuple that is in use already, if any."""
        if not self._shared:
            for parts in list(zip(*self._rows.values(), strict=True))[1:]:
                by_identity = dict(zip(map(id, parts), parts, strict=True))
                for part in by_identity.values():
                    self._shared.setdefault(part, part)
        return self._shared.setdefault(value, value)  # type: ignore[no-any-return]

    def plain(self) -> tuple[dict[str, Any], dict[str, str]]:
        """All of them as plain values, for a state file."""
        return dict(self._rows), dict(self.unrecorded)

    def live(self) -> tuple[dict[str, Any], dict[str, str]]:
        """The same, not copied: for whoever writes it at once."""
        return self._rows, self.unrecorded


STATE_KIND = "stamps 3 actions 4"
STATE_NAME = "stamps.v1.state"
MARKS = (b"__has_include", b"__has_embed", b".incbin", b".include")
"""Of the stamps in that file. A source or header without any of these hides nothing from the depfile; what one with
them hides, `formats/c_source.py` tells."""


MORE_KIND = "stamps 3 actions 4 more 1"
MORE_NAME = "stamps.v1.more"
"""What few actions changed of that since it was written: (its identity, stamps, unsettled, records, unrecorded), of
stamps and records only what is another (None: gone), so that an edit of one unit need not write ten thousand."""
MOST_MORE = 4
"""The state is written whole when a part of it that is larger than one in so many is another."""


MOST_LAZILY = 4096
"""With more rows of either kind that are another, the whole state is read, and may be written whole."""
STAMPS, RECORDS, SHARED = range(3)
"""The sections of what `save_rows` writes beside the state: the rows of the table, those of the records, whose shared
parts are numbers, and these."""


class Saved(NamedTuple):
    """The state file of a project: what `StampTable.plain` gave, records, and a line for the user if it was damaged.
    `base`: the identity of the file; `more`: what was changed of that since."""

    stamps: Any
    records: BuildRecords
    note: str
    base: bytes = b""
    more: tuple[Mapping[str, Any], Mapping[str, Any]] = ({}, {})

    def changes(self, stamps: Any, records: Any) -> tuple[Any, ...] | None:
        """The value of `MORE_NAME` after which the state is this; None when it is to be written whole."""
        if not self.base:
            return None
        (rows, unsettled), (by_name, unrecorded) = stamps, records
        more_rows = {**self.more[0], **_differences(self.stamps[0], rows)}
        more_records = {**self.more[1], **_differences(self.records.saved, by_name)}
        if not self.is_lazy and (
            MOST_MORE * len(more_rows) > len(rows) or MOST_MORE * len(more_records) > len(by_name)
        ):
            return None
        return (self.base, more_rows, unsettled, more_records, unrecorded)

    @property
    def is_lazy(self) -> bool:
        """Is no more of it loaded than was asked for?"""
        return isinstance(self.records.saved, LazyRows)


def load_lazily(state_dir: Path) -> Saved | None:
    """The state, of which no more is read than is asked for; None where that cannot be."""
    base = statefile.name_of(state_dir / STATE_NAME, STATE_KIND)
    file = RowFile.open(state_dir / STATE_NAME, base) if base else None
    if file is None:
        return None
    more_rows, more_records, unsettled, unrecorded = {}, {}, file.about[1], file.about[2]
    more, _ = statefile.load(state_dir / MORE_NAME, MORE_KIND)
    if more is not None and more[0] == base:
        _, more_rows, unsettled, more_records, unrecorded = more
    if max(len(more_rows), len(more_records)) > MOST_LAZILY:
        return None

    def row(path: str) -> Any:
        return more_rows[path] if path in more_rows else file.get(STAMPS, path)

    def record(name: str) -> Any:
        if name in more_records:
            return _sound({name: more_records[name]}).get(name)
        found = file.get(RECORDS, name)
        if found is None:
            return None
        whole = (found[0], *(file.get(SHARED, number) for number in found[1:]))
        return _sound({name: whole}).get(name)

    records = BuildRecords((LazyRows(record), unrecorded))
    return Saved((LazyRows(row), unsettled), records, "", base, (more_rows, more_records))


def save_rows(state_dir: Path, stamps: Any, records: Any) -> None:
    """Write what `load_lazily` reads, of the state that lies there and is this. Losing it costs work only."""
    base = statefile.name_of(state_dir / STATE_NAME, STATE_KIND)
    with contextlib.suppress(OSError):
        if not base or RowFile.open(state_dir / STATE_NAME, base) is not None:
            return
        numbers: dict[int, str] = {}
        shared: dict[str, Any] = {}
        for _, *parts in records[0].values():
            for part in parts:
                if id(part) not in numbers:
                    shared[str(len(numbers))] = part
                    numbers[id(part)] = str(len(numbers))
        by_name = _Numbered(records[0], numbers)
        rowfile.write(state_dir / STATE_NAME, (base, stamps[1], records[1]), (stamps[0], by_name, shared))


class _Numbered(Mapping[str, tuple[Any, ...]]):
    """Records with the numbers of their shared parts in the place of these, each made when it is asked for."""

    def __init__(self, rows: Mapping[str, tuple[Any, ...]], numbers: Mapping[int, str]) -> None:
        self._rows, self._numbers = rows, numbers

    def __getitem__(self, name: str) -> tuple[Any, ...]:
        row, *parts = self._rows[name]
        return (row, *[self._numbers[id(part)] for part in parts])

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def load_saved(state_dir: Path) -> Saved:
    """Read it; an empty one when there is none that can be used."""
    value, note, base = statefile.load_named(state_dir / STATE_NAME, STATE_KIND)
    match value:
        case (stamps, records):
            more, _ = statefile.load(state_dir / MORE_NAME, MORE_KIND)
            match (more, stamps, records):
                case (
                    (name, dict() as new_stamps, unsettled, dict() as new_records, unrecorded),
                    (dict() as rows, _),
                    (dict() as by_name, _),
                ) if name == base:
                    stamps = (_with_more(rows, new_stamps), unsettled)
                    records = (_with_more(by_name, new_records), unrecorded)
                    return Saved(stamps, BuildRecords(records), note, base, (new_stamps, new_records))
            return Saved(stamps, BuildRecords(records), note, base)
    damaged = f"{STATE_NAME} is damaged (content); starting over"
    return Saved(None, BuildRecords(), note if value is None else damaged)


def save_state(state_dir: Path, saved: Saved, stamps: Any, records: Any, *, whole: bool) -> None:
    """Write it, `whole` or what is another than in `saved`. Raises OSError."""
    more = None if whole else saved.changes(stamps, records)
    if more is not None:
        statefile.save(state_dir / MORE_NAME, MORE_KIND, more)
        return
    rows, unsettled = stamps
    statefile.save_parts(state_dir / STATE_NAME, STATE_KIND, parts_of_pair(rows, unsettled, records))
    # That of another file: it would not be believed.
    (state_dir / MORE_NAME).unlink(missing_ok=True)


def _with_more(rows: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    found = {**rows, **more}
    for name in [name for name, row in more.items() if row is None]:
        del found[name]
    return found


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """What is another; None for what is gone."""
    if isinstance(before, LazyRows):
        return before.differences()
    found = {name: row for name, row in now.items() if before.get(name) != row}
    found.update(dict.fromkeys(before.keys() - now.keys()))
    return found


def _sound(saved: Any) -> dict[str, Any]:
    """The rows if `BuildRecords` could have saved them, else none: a checksum tells damage, not who wrote it. Asks by
    column and of each shared object once, since there may be ten thousand rows."""
    if saved.__class__ is not dict or not saved:
        return {}
    rows = list(saved.values())
    if set(map(type, saved)) != {str} or set(map(type, rows)) != {tuple} or set(map(len, rows)) != {4}:
        return {}
    encoded, *shared = zip(*rows, strict=True)
    checks = (_is_how, _is_observed, _is_strings)
    for parts, is_sound in zip(shared, checks, strict=True):
        if not all(map(is_sound, dict(zip(map(id, parts), parts, strict=True)).values())):
            return {}
    return saved if set(map(type, encoded)) == {bytes} else {}


def _is_unrecorded(value: Any) -> bool:
    """Does it name files below build/ alone? They may be removed."""
    if value.__class__ is not dict or not _is_strings((*value.keys(), *value.values())):
        return False
    return all(path.startswith("build/") and ".." not in path.split("/") for path in value)


def _is_strings(value: Any) -> bool:
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
    if not (_is_strings(read) and _is_strings(made) and depfile.__class__ is str):
        return False
    said = words.__class__ is tuple and set(map(type, words)) <= {str, int}
    return said and _is_pairs(params) and _is_pairs(env) and _is_pairs((tool, (builtin, salt))) and _is_strings(absent)


def _without_own(command: Command) -> tuple[str, tuple[tuple[str, ...], tuple[str, ...], str]]:
    """What names most of the files of an action, and how they are called without that: the same for all compiles."""
    read, made, depfile = command.inputs, command.outputs, command.depfile
    own = read[0] if read and len(read) + len(made) <= _MOST_NAMED else ""
    if not own or _OWN in depfile.join((*read, *made)):
        return "", (read, made, depfile)
    without = [path.replace(own, _OWN) for path in (*read, *made, depfile)]
    return own, (tuple(without[: len(read)]), tuple(without[len(read) : -1]), without[-1])


def _encoded(record: Record, own: str) -> bytes:
    digests = [sha256 for _, sha256 in record.inputs] + [sha256 for _, sha256, _ in record.outputs]
    flags = bytes([executable for _, _, executable in record.outputs])
    return bytes.fromhex("".join([*digests, record.key])) + flags + own.encode("utf-8", "surrogatepass")


def _named(data: bytes, how: _How) -> tuple[tuple[str, ...], tuple[str, ...], str] | None:
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


def decode_long(row: Any) -> None:
    """Decode this row ahead, if that takes long: see `cache/ahead.py`."""
    if _sound({"": row}) and _LONG <= len(row[0]) < _LONGEST:
        values().make(_row, row[0], row[1])


def _row(data: bytes, how: _How) -> _Decoded | None:
    """What `_encoded` made; None for anything else."""
    named = _named(data, how)
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
