"""Statements of ninja whose outputs are gone, put back without a run: objects that were cleaned, or a build directory
that was deleted and configured again.

As `put_back`, under its conditions, and these: every statement of which something is gone is one whose results are
stored, and so is every one that needs it; what moved and is there holds what it held, byte for byte, and belongs to a
statement that is put back, or to the one that makes the manifest, which ninja would not run. Ninja is told as it is
after a run. Knows what `put_back` knows, and ninja's logs. Does not know when a statement runs: what cannot be shown
here is left to a run.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from cache import statefile
from cache.digest import ActionKey
from pipeline.engine.keys import bound_key
from pipeline.engine.ledger import NinjaLedger
from pipeline.engine.put_back import GoneOf, LeftToARun, PuttingBack, put_back_by
from pipeline.engine.usage_index import UsageIndex
from pipeline.fastpath import USAGE_KIND, FirstLook, Snapshot
from pipeline.fastpath.renewal import read_again
from pipeline.model import Action, Stage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from cache.actions import ActionResult
    from pipeline.engine.build_log import Record
    from pipeline.engine.record_rows import Outputs


def put_back(look: FirstLook, selection: tuple[str, ...]) -> str | None:
    """As `engine.put_back.put_back`."""
    return put_back_by(look, selection, _wanted, _PuttingStatementsBack)


def _wanted(look: FirstLook, stages: Sequence[str]) -> list[GoneOf]:
    """The statements of which something is gone, in the order in which they are made, and without a stage all others.
    Raises LeftToARun."""
    saved, _ = statefile.load(Path(look.root, look.path).with_suffix(".usage"), USAGE_KIND)
    if saved is None or saved[0] != look.snapshot.since:
        raise LeftToARun
    index = UsageIndex(saved[1])
    moved = {place for place in look.places if place < look.snapshot.used_count}
    found: list[GoneOf] = []
    gone: set[int] = set()
    generators: set[int] = set()
    concerned: list[Sequence[int] | None] = []
    """Places of rows that need what is gone, or use what moved; None: of any."""
    for n, row in enumerate(index.rows()):
        statement, makes = row.statement, row.makes
        if statement is not None and statement.generator:
            generators.add(n)
            found.append(GoneOf(row.name, "", makes, statement))
        elif not moved.isdisjoint(makes):
            if statement is None or statement.in_place_of or not statement.evidence or not row.cacheable or -1 in makes:
                raise LeftToARun
            if row.stage not in stages or row.stage == Stage.FINGERPRINT:
                raise LeftToARun
            gone.add(n)
            found.append(GoneOf(row.name, row.stage, makes, statement))
            concerned.append(row.after)
            moved.difference_update(makes)
        elif statement is not None:
            found.append(GoneOf(row.name, "", makes, statement))
    if len(gone) + len(generators) < len(index):
        concerned += [index.users(place) for place in moved]
        if any(some is None or not gone.union(generators).issuperset(some) for some in concerned):
            raise LeftToARun
    return found


class _PuttingStatementsBack(PuttingBack):
    """One such restore."""

    def __init__(self, look: FirstLook, facts: Mapping[str, Any]) -> None:
        self._symbols: Mapping[str, str] = dict(facts["symbols"])
        super().__init__(look, facts)
        self._ledger = NinjaLedger(self._saved_path.parent, self._resolve, lambda: int(facts["log"]))
        self._newest: dict[int, tuple[object, int]] = {}

    def _resolve(self, path: str) -> str:
        """As `Workspace.resolve`, which knows of tools, too."""
        if "{" in path:
            for symbol, place in self._symbols.items():
                path = path.replace(symbol, place)
        return path if path[:1] == "/" else f"{self._root}/{path}"

    def _may_lie(self, path: str) -> bool:
        return True  # the build directory may have any name

    def _result(self, outputs: Outputs, key: ActionKey) -> tuple[ActionKey, ActionResult | None]:
        """Under its own key, or under that of this place; with the outputs by their names here."""
        result = self._results.entry(key)
        if result is None:
            key = bound_key(key, self._symbols)
            result = self._results.entry(key)
        if result is None or len(result.outputs) != len(outputs):
            raise LeftToARun
        named = zip(result.outputs, outputs, strict=True)
        return key, result._replace(outputs=tuple([file._replace(path=path) for file, (path, _, _) in named]))

    def all(self, wanted: Sequence[GoneOf]) -> None:
        paths = self._look.snapshot.paths_at([n for n in self._moved if n >= self._look.snapshot.used_count])
        files_beside = [place for place, path in paths.items() if os.path.isfile(path)]  # noqa: PTH113
        snapshot = self._again(self._look.snapshot, files_beside)
        there = [(one, one.statement) for one in wanted if not one.stage and one.statement is not None]
        # A log that is lost would look as if it were there when what is put back is written into it.
        if not all(self._ledger.is_there(statement) for _, statement in there):
            raise LeftToARun
        generators = [one for one, statement in there if statement.generator]
        gone = [one for one in wanted if one.stage]
        written = self._as_they_were(generators, gone)
        with self._store_lock.shared():
            files = [found for one in gone for found in self._found(one)]
            self._put([file for _, file in files])
            for one in gone:
                self._tell(one)
            written += [(place, file.path) for place, file in files]
        self._ledger.flush()
        # Directories hold again what they held, or something that would be found before what was read.
        snapshot = self._again(snapshot, sorted(paths.keys() - set(files_beside)))
        self._finish(snapshot, written)

    def _again(self, snapshot: Snapshot, places: Sequence[int]) -> Snapshot:
        """With the stamps of these manifests and directories, if each holds what it held."""
        found = read_again(snapshot, places, self._look.path, self._clock.moment()) if places else snapshot
        if found is None:
            raise LeftToARun
        return found

    def _as_they_were(self, generators: Sequence[GoneOf], gone: Sequence[GoneOf]) -> list[tuple[int, str]]:
        """What moved, is there, and holds what it held: place and path. Raises LeftToARun where it does not, or where
        ninja would make the manifest again."""
        places = self._moved.difference(*(one.makes for one in gone))
        paths = self._look.snapshot.paths_at([n for n in places if n < self._look.snapshot.used_count])
        names = {self._place(os.fsdecode(path)): place for place, path in paths.items()}
        found: list[tuple[int, str]] = []
        seen: set[int] = set()
        for one in (*generators, *gone):
            if one.stage and not names:
                break
            record = self._record(one)
            if id(record.discovered) in seen:
                read = [path for path, _ in record.inputs]
            else:
                seen.add(id(record.discovered))
                read = [path for path, _ in (*record.inputs, *record.discovered)]
            for path in (*read, *(record.command.outputs if not one.stage else ())):
                place = names.pop(self._place(path), None)
                # A manifest is looked at beside what actions use; the stamp of it that a run believes is here.
                if place is not None or not one.stage:
                    before, now = self._table.remembered(path), self._table.current(path)
                    if before is None or now is None or now.sha256 != before.sha256:
                        raise LeftToARun
                if place is not None:
                    found.append((place, path))
        if names:
            raise LeftToARun  # it goes by another name
        made = {path for one in gone for path in self._record(one).command.outputs} if generators else set()
        for one in generators:
            record = self._record(one)
            if not made.isdisjoint(path for path, _ in (*record.inputs, *record.discovered)):
                raise LeftToARun
            newest = max(self._newest_of(record.inputs), self._newest_of(record.discovered))
            if any(self._mtime_ns(path) < newest for path in record.command.outputs):
                raise LeftToARun
        return found

    def _place(self, path: str) -> str:
        return os.path.normpath(self._resolve(path))

    def _record(self, one: GoneOf) -> Record:
        record = self._records.get(one.name)
        if record is None:
            raise LeftToARun
        return record

    def _tell(self, one: GoneOf) -> None:
        """Ninja, that it is up to date, as a run does."""
        record = self._record(one)
        command = record.command
        action = Action(
            name=one.name,
            stage=Stage(one.stage),
            inputs=command.inputs,
            outputs=command.outputs,
            depfile=command.depfile,
            statement=one.statement,
        )
        known = self._newest.get(id(record.discovered))
        if known is None:
            # Those who share a set come after all that makes a file of it.
            known = self._newest[id(record.discovered)] = (record.discovered, self._newest_of(record.discovered))
        newest = max(self._newest_of(record.inputs), known[1])
        read = (*command.inputs[:1], *(path for path, _ in record.discovered)) if command.depfile else None
        for path in self._ledger.done(action, newest, read):
            self._table.current(path)  # its stamp moved, by us

    def _newest_of(self, observed: Iterable[tuple[str, str]]) -> int:
        return max([self._mtime_ns(path) for path, _ in observed], default=0)

    def _mtime_ns(self, path: str) -> int:
        entry = self._table.remembered(path)
        if entry is None:
            raise LeftToARun
        return entry.stamp.mtime_ns
