"""What was built and is gone comes back from the store, without a run: a build directory that somebody deleted.

For a process that looked at the fast path's state and found that nothing moved but outputs, and that those are not
there (of statements of ninja more is asked: see `put_back_statements`). Then the last run of each action holds for it
still, and with it its key (as `decision` says when nothing but outputs moved), so that neither configuration nor
toolchain nor graph need be known: the results are put in place, the stamps are written, and everything is what it was.
Knows the state, records and the store; not what the actions are for.
Invariants: it does that only under the project's lock, and only with results that the store has whole, each blob read
and checked on its way (`cache/blobs.py`); what it cannot put back, and what a run would say beside it (a warning, a
file that is of another kind), is left to a run, which finds what is in place already; the state names a stamp only
where any later change would move it.

As the fast path's answers this is no run: it has no event log, and what it puts back was made by runs that have one.
"""

from __future__ import annotations

import contextlib
import os
import sys
from array import array
from pathlib import Path
from typing import TYPE_CHECKING

from cache import statefile
from cache.actions import ActionCache, OutputFile
from cache.blobs import BlobStore
from cache.digest import ActionKey
from cache.durable import FileLock, write_atomic
from cache.fileclock import FileClock
from cache.location import user_cache_dir
from cache.named_tuple import NamedTuple
from cache.stamps import StampTable
from cache.statebytes import encode
from cache.turns import StoreLock
from pipeline.engine.build_place import BuildPlace
from pipeline.engine.keys import base_key, command_key
from pipeline.engine.restore import Restorer, damage_lines
from pipeline.engine.saved_state import MARKS, STATE_NAME, has_rows, load_saved, save_rows, save_state
from pipeline.engine.usage_index import UsageIndex
from pipeline.fastpath import KIND, OF_STATE, PUT_BACK, STAGES, USAGE_KIND, FirstLook, Snapshot, stamp_of
from pipeline.fastpath.renewal import LOCK, with_numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from cache.actions import ActionResult
    from pipeline.engine.record_rows import Outputs
    from pipeline.model import Statement

WORTH_ROWS = 1500
"""With fewer files than this the next edit reads the whole state in less time than it takes to write it by rows."""


class GoneOf(NamedTuple):
    """An action of which something is gone; `makes`: the places of its outputs in the listing; `stage`: empty of one
    of which nothing is, and that only must be what it was."""

    name: str
    stage: str
    makes: tuple[int, ...]
    statement: Statement | None = None


class LeftToARun(Exception):
    """It cannot be told, or put back, here."""


def put_back(look: FirstLook, selection: tuple[str, ...]) -> str | None:
    """What `doit` would print that restored what is gone; None where a run must do it. The current directory must be
    the root of `look`."""
    if any(n >= look.snapshot.used_count for n in look.places):
        return None
    return put_back_by(look, selection, _wanted, PuttingBack)


def put_back_by(
    look: FirstLook,
    selection: tuple[str, ...],
    plan: Callable[[FirstLook, Sequence[str]], list[GoneOf]],
    doing: Callable[[FirstLook, Mapping[str, Any]], PuttingBack],
) -> str | None:
    """The same; `plan` says of which actions of some stages anything is gone, or raises LeftToARun."""
    facts = look.snapshot.facts.get(PUT_BACK)
    if not facts:
        return None
    lock = FileLock(Path(look.root, LOCK))
    try:
        wanted = plan(look, STAGES[: 1 + max(map(STAGES.index, selection))])
        if lock.try_acquire(f"pid {os.getpid()} ({' '.join(sys.argv)[:80]})") is not None:
            return None
        try:
            if stamp_of(os.stat(look.path)) != look.stamp:  # noqa: PTH116
                return None  # a run ended, or began, since it was looked at
            doing(look, facts).all(wanted)
        finally:
            lock.release()
    except (LeftToARun, OSError):
        return None
    text = look.snapshot.answers[selection]
    for stage in {each.stage for each in wanted}:
        text = text.replace(f"-- {stage}\n", f".  {stage}\n")
    return text


def _wanted(look: FirstLook, stages: Sequence[str]) -> list[GoneOf]:
    """The actions of these stages of which something is gone. Raises LeftToARun where anything else moved."""
    saved, _ = statefile.load(Path(look.root, look.path).with_suffix(".usage"), USAGE_KIND)
    if saved is None or saved[0] != look.snapshot.since:
        raise LeftToARun
    moved, wanted = set(look.places), []
    for row in UsageIndex(saved[1]).rows():
        if moved.isdisjoint(row.makes):
            continue
        moved.difference_update(row.makes)
        if row.packed or not row.cacheable or -1 in row.makes:
            raise LeftToARun
        if row.stage in stages:
            wanted.append(GoneOf(row.name, row.stage, row.makes))
    if moved:
        raise LeftToARun  # something that no action makes
    return wanted


class PuttingBack:
    """One such restore, under the project's lock. Methods raise LeftToARun or OSError; what is in place by then is
    right, and is found by the run."""

    def __init__(self, look: FirstLook, facts: Mapping[str, Any]) -> None:
        self._look, self._root, self._moved = look, look.root, set(look.places)
        self._saved_path = Path(look.root, facts["engine"], STATE_NAME)
        saved = self._saved = load_saved(self._saved_path.parent)
        if saved.names != look.snapshot.facts.get(OF_STATE):
            raise LeftToARun  # what it says was made may be older, or newer, than what was looked at
        self._records = saved.records
        # As `Project.cache_dir` has it.
        cache = Path(look.root, facts["cache"] or user_cache_dir(os.environ, sys.platform) or ".deploy")
        self._blobs = BlobStore(cache)
        self._results = ActionCache(cache, self._blobs)
        self._store_lock = StoreLock(cache)
        self._clock = FileClock((str(self._saved_path.parent), f"{look.root}/build", str(cache))).met(look.root)
        self._table = StampTable(self._resolve, saved.stamps, MARKS, self._clock)
        self._restorer = Restorer(self._blobs, self._table, BuildPlace(look.root))

    def _resolve(self, path: str) -> str:
        return f"{self._root}/{path}"

    def all(self, wanted: Sequence[GoneOf]) -> None:
        """Put the outputs of these in place that are gone, and write what they are now."""
        with self._store_lock.shared():
            files = [found for one in wanted for found in self._found(one)]
            self._put([file for _, file in files])
        self._finish(self._look.snapshot, [(place, file.path) for place, file in files])

    def _put(self, files: Sequence[OutputFile]) -> None:
        """Put these in place."""
        if not self._restorer.put_all(files):
            # As a run says it, which will not find it any more.
            sys.stderr.write("".join(f"note: {line}\n" for line in damage_lines(self._blobs)))
            raise LeftToARun

    def _finish(self, snapshot: Snapshot, files: Sequence[tuple[int, str]]) -> None:
        """Write what these files are now (place in the listing, path of a key); `snapshot`: what is known of others."""
        before = {path: self._table.remembered(path) for _, path in files}
        self._table.settle()
        numbers = array("Q", snapshot.numbers())
        for place, path in files:
            old, entry = before[path], self._table.remembered(path)
            if entry is None or old is None or not entry.settled or entry.sha256 != old.sha256:
                raise LeftToARun  # somebody else writes there
            stamp = entry.stamp
            moved_ns = stamp.ctime_ns if os.name == "posix" else stamp.mtime_ns
            numbers[3 * place : 3 * place + 3] = array("Q", (moved_ns, stamp.size, stamp.inode))
        # First what a run believes: of a stamp that only the other knew it would think that somebody moved it.
        directory, plain = self._saved_path.parent, (self._table.plain(), self._records.plain())
        is_worth = self._look.snapshot.count > WORTH_ROWS
        whole = is_worth and not has_rows(directory, self._saved.base)  # which belong to one that was written whole
        names = save_state(directory, self._saved, *plain, whole=whole).names
        if is_worth:
            save_rows(directory, names, *plain)  # for the edit that is next
        self._write(with_numbers(snapshot, numbers, **{OF_STATE: names}))

    def _found(self, wanted: GoneOf) -> list[tuple[int, OutputFile]]:
        """What is to be put where: place in the listing, and file."""
        outputs, recorded = self._records.result(wanted.name) or ((), "")
        key, result = self._result(outputs, ActionKey(recorded)) if recorded else (ActionKey(""), None)
        if result is None or tuple([(path, digest.hex, mode) for path, digest, mode in result.outputs]) != outputs:
            raise LeftToARun
        if result.stderr is not None or (result.stdout is not None and not self._blobs.has(result.stdout)):
            raise LeftToARun  # a warning is said again
        found = []
        for place, file in zip(wanted.makes, result.outputs, strict=True):
            if place in self._moved:
                if not self._may_lie(file.path) or os.path.lexists(self._resolve(file.path)):
                    raise LeftToARun
                found.append((place, file))
            elif not self._blobs.has(file.digest):
                raise LeftToARun  # a hit for all who ask, or for none
        self._was_of_use(wanted.name, key)
        return found

    def _may_lie(self, path: str) -> bool:
        return path.startswith("build/")

    def _result(self, outputs: Outputs, key: ActionKey) -> tuple[ActionKey, ActionResult | None]:
        """The result of these outputs, and the key under which it lies."""
        return key, self._results.entry(key)

    def _was_of_use(self, name: str, key: ActionKey) -> None:
        """As the engine remembers it: the entry, and what else is kept for it if that may be old, too."""
        if not self._results.used(key):
            return
        record = self._records.get(name)
        if record is None or not record.command.depfile:
            return
        contents = "".join([sha256 for _, sha256 in record.inputs])
        self._results.used(base_key(command_key(record.command), contents))

    def _write(self, snapshot: Snapshot) -> None:
        with contextlib.suppress(OSError):  # then it is looked at once more
            write_atomic(self._look.path, encode(KIND, snapshot.values()), durable=False, own=True)
