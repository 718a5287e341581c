"""The state file of a project, which holds its records and stamps, and what lies beside it for an edit of a few files.

Knows how they lie on disk. Does not know what a record says, nor when an action is up to date. Invariant: losing or
damaging any of these files costs work, never correctness: each names the state that it belongs to.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache import rowfile, statefile
from cache.named_tuple import NamedTuple
from cache.rowfile import LazyRows, RowFile
from cache.statebytes import parts_of_pair
from pipeline.engine.build_log import BuildRecords
from pipeline.engine.keys import KEY_VERSION
from pipeline.engine.record_rows import beside, sound_rows, whole

if TYPE_CHECKING:
    from cache.stamps import StampTable

STATE_KIND = f"stamps 3 actions 6 keys {KEY_VERSION.rpartition(' ')[2]}"
"""A record holds the key of its command, which is believed: of another encoding of keys it would be a wrong one.
History: "stamps 3 actions 5" did not name that, and may hold what `save_rows` made wrong."""
STATE_NAME = "stamps.v1.state"
MARKS = (b"__has_include", b"__has_embed", b".incbin", b".include")
"""Of the stamps in that file. A source or header without any of these hides nothing from the depfile; what one with
them hides, `formats/c_source.py` tells."""


MORE_KIND = f"{STATE_KIND} more 2"
MORE_NAME = "stamps.v1.more"
"""What few actions changed of that since it was written: (its identity, stamps, unsettled, records, unrecorded), of
stamps and records only what is another (None: gone), so that an edit of one unit need not write ten thousand. Of a
record a part that is None is that of the state's record of this name, and a row that is a tuple is the state's with
other bytes at some places: (place, bytes), ... A link's is another after each edit, and names ten thousand files.
History: "more 1" held each record whole."""
MOST_MORE = 4
"""The state is written whole when a part of it that is larger than one in so many is another."""


MOST_LAZILY = 4096
"""With more rows of either kind that are another, the whole state is read, and may be written whole."""
STAMPS, RECORDS, SHARED = range(3)
"""The sections of what `save_rows` writes beside the state: the rows of the table, those of the records, whose shared
parts are numbers, and these."""


class Saved(NamedTuple):
    """The state file of a project: what `StampTable.plain` gave, records, and a line for the user if it was damaged.
    `base`: the identity of the file, empty where it is to be written whole; `more`: what was changed of that since, as
    it is written; `based`: the record of a name as that file has it; `names`: the identities of the files that say
    this, empty for none. Who remembers those tells this state from any other, as after one of the files was lost."""

    stamps: Any
    records: BuildRecords
    note: str
    base: bytes = b""
    more: tuple[Mapping[str, Any], Mapping[str, Any]] = ({}, {})
    based: Callable[[str], Any] = lambda name: None
    names: tuple[bytes, bytes] = (b"", b"")

    def changes(self, stamps: Any, records: Any) -> tuple[Any, ...] | None:
        """The value of `MORE_NAME` after which the state is this; None when it is to be written whole."""
        if not self.base:
            return None
        (rows, unsettled), (by_name, unrecorded) = stamps, records
        more_rows = {**self.more[0], **_differences(self.stamps[0], rows)}
        changed = _differences(self.records.saved, by_name)
        more_records = {**self.more[1], **{name: beside(row, self.based(name)) for name, row in changed.items()}}
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
    more_rows, more_records, unsettled, unrecorded, more_name = {}, {}, file.about[1], file.about[2], b""
    more, _, found_name = statefile.load_named(state_dir / MORE_NAME, MORE_KIND)
    if more is not None and more[0] == base:
        (_, more_rows, unsettled, more_records, unrecorded), more_name = more, found_name
    if max(len(more_rows), len(more_records)) > MOST_LAZILY:
        return None

    def row(path: str) -> Any:
        return more_rows[path] if path in more_rows else file.get(STAMPS, path)

    based = partial(_record, file.get)

    def record(name: str) -> Any:
        found = whole(more_records[name], based, name) if name in more_records else based(name)
        return sound_rows({name: found}).get(name)

    records = BuildRecords((LazyRows(record), unrecorded))
    return Saved((LazyRows(row), unsettled), records, "", base, (more_rows, more_records), based, (base, more_name))


def load_of(state_dir: Path, names: object) -> Saved | None:
    """The state of these names, lazily where that can be; None where another one lies there, older or newer."""
    saved = load_lazily(state_dir) or load_saved(state_dir)
    return saved if saved.names == names else None


def _record(get: Callable[[int, str], Any], name: str) -> Any:
    """Of a row file; some of its parts may be None."""
    found = get(RECORDS, name)
    return None if found is None else (found[0], *(get(SHARED, number) for number in found[1:]))


def decode_changed(state_dir: Path, more: Any) -> None:
    """Decode ahead (see `cache/ahead.py`) the rows beside which the changed records are said: `more` is those, given so
    for whoever loads the state lazily. To be called before anybody else is given the index of the rows."""
    base = statefile.name_of(state_dir / STATE_NAME, STATE_KIND)
    file = RowFile.open(state_dir / STATE_NAME, base) if base and more is not None and more[0] == base else None
    if file is not None:
        for name in more[3]:
            _record(file.ahead, name)


def has_rows(state_dir: Path, base: bytes) -> bool:
    """Does what `load_lazily` reads of the state of this name lie there?"""
    return RowFile.open(state_dir / STATE_NAME, base) is not None


def save_rows(state_dir: Path, names: tuple[bytes, bytes], stamps: Any, records: Any) -> None:
    """Write what `load_lazily` reads, of the state of these names, which is this. Losing it costs work only. Does
    nothing where something changed since the state was written whole: that is said beside other rows than these."""
    base, more = names
    with contextlib.suppress(OSError):
        if not base or more or has_rows(state_dir, base):
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
            more, _, more_name = statefile.load_named(state_dir / MORE_NAME, MORE_KIND)
            match (more, stamps, records):
                case (
                    (name, dict() as new_stamps, unsettled, dict() as new_records, unrecorded),
                    (dict() as rows, _),
                    (dict() as by_name, _),
                ) if name == base:
                    stamps = (_with_more(rows, new_stamps), unsettled)
                    before = {name: by_name.get(name) for name in new_records}
                    whole_records = {name: whole(told, before.get, name) for name, told in new_records.items()}
                    found = BuildRecords((_with_more(by_name, whole_records), unrecorded))

                    def based(name: str) -> Any:
                        return before[name] if name in before else found.saved.get(name)

                    return Saved(stamps, found, note, base, (new_stamps, new_records), based, (base, more_name))
            found = BuildRecords(records)
            return Saved(stamps, found, note, base, based=found.saved.get, names=(base, b""))
    damaged = f"{STATE_NAME} is damaged (content); starting over"
    return Saved(None, BuildRecords(), note if value is None else damaged)


def save_state(state_dir: Path, saved: Saved, stamps: Any, records: Any, *, whole: bool) -> Saved:
    """Write it, `whole` or what is another than in `saved`; what to give the next time. Raises OSError."""
    more = None if whole else saved.changes(stamps, records)
    if more is not None:
        return saved._replace(names=(saved.base, statefile.save(state_dir / MORE_NAME, MORE_KIND, more)))
    rows, unsettled = stamps
    name = statefile.save_parts(state_dir / STATE_NAME, STATE_KIND, parts_of_pair(rows, unsettled, records))
    # That of another file: it would not be believed.
    (state_dir / MORE_NAME).unlink(missing_ok=True)
    # What `saved` holds is not what lies there now, so that no differences from that can be told.
    return saved._replace(base=b"", names=(name, b""))


class KeptState:
    """The state of a run's engine: as it lies there, and what its table and its records know since. `is_whole`: do they
    know all of it? Then it can be written whole. `notes`: lines for the user; that it cannot be written is one, since
    the next run only works more."""

    def __init__(self, directory: Path, saved: Saved, table: StampTable, *, is_whole: bool) -> None:
        self._directory, self._saved, self._is_whole = directory, saved, is_whole
        self._table, self._records = table, saved.records
        self.notes: tuple[str, ...] = (saved.note,) if saved.note else ()

    @property
    def _is_newer(self) -> bool:
        """Is more known than what lies there?"""
        return self._table.changed or self._records.changed

    def save(self) -> None:
        """Write it if it changed."""
        if self._is_newer:
            self._write()

    def _write(self) -> None:
        try:
            live = (self._table.live(), self._records.live())
            self._saved = save_state(self._directory, self._saved, *live, whole=self._is_whole)
            self._table.changed = self._records.changed = False
        except OSError as error:
            path = self._directory / STATE_NAME
            self.notes = (*self.notes, f"{path} cannot be written ({error.strerror}); the next run starts over")

    def names(self) -> tuple[bytes, bytes] | None:
        """The names (see `Saved`) of what lies there, None where that is older. `save_rows` then changes nothing about
        these."""
        if self._is_newer:
            return None
        self._make_way_for_rows()
        return self._saved.names

    def _make_way_for_rows(self) -> None:
        """Rows belong to a state that was written whole."""
        base, more = self._saved.names
        if self._is_whole and more and not has_rows(self._directory, base):
            self._write()

    def save_rows(self) -> None:
        """Write beside it what `load_lazily` reads, of a state that is whole and was saved."""
        if self._is_whole and not self._is_newer:
            self._make_way_for_rows()
            save_rows(self._directory, self._saved.names, self._table.live(), self._records.live())


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
