"""What the fast path reads: looked at by a run, written after one that ended well, withdrawn before anything is done.

Knows the state of before, what moved of that, and how few moves make the next one of it; a state made anew is collected
in `whole_state`, which only runs that write one load. Does not decide what is up to date. Invariant: a stamp is written
only when it belongs to the content that the run used: that under which the content was read.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import posixpath
import threading
from array import array
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache import statefile
from cache.ahead import values
from cache.stamps import StampTable
from cache.statebytes import encoded_parts
from pipeline.fastpath import (
    CONTENTS,
    DIRECTORY,
    KIND,
    STAMP_BYTES,
    USAGE_KIND,
    FileStamp,
    FirstLook,
    Snapshot,
    load,
    logs_are_there,
    moved,
    native_loop,
    stamp_of,
    state_path,
    touched,
)
from pipeline.fastpath.listing import ListingPart, beside_part, product_part
from pipeline.fastpath.watched import file_clock, settled_stamp

if TYPE_CHECKING:
    from pipeline.fastpath.whole_state import WholeRun

FORMER_DIRECTORIES = (".deploy/gate.v1",)
"""Where earlier versions kept what this one never reads. An installation of one of those must not believe it once this
one has changed things."""


_BESIDE = (".usage", touched.SUFFIX)
"""Files beside the state, which says whose they are."""

_MOST_OTHERS = 64
"""With more fingerprints that are others than in the file beside the state that is written again."""


def files_since(root: str) -> tuple[tuple[str, str], ...]:
    """What tells whether all states of a project name the same files as before, and hold the same paths to be empty:
    when only stamps were written into them since, it is equal. Empty where there is no state, as during a run."""
    found = []
    with contextlib.suppress(OSError):
        for entry in sorted(os.scandir(f"{root}/{DIRECTORY}"), key=lambda entry: entry.name):
            if entry.name.endswith(".state") and (state := load(entry.path)) is not None:
                found.append((entry.name, str(state[0].since)))
    return tuple(found)


class FastPathState:
    """The fast path's state of one selection of profile in one project. Reads it once, at the first question."""

    def __init__(self, root: Path, profile: str) -> None:
        """`profile` as the command line has it."""
        self._root = str(root)
        self._path = root / state_path(profile)
        self._usage_path = self._path.with_suffix(".usage")
        self._contents_path = self._path.with_suffix(touched.SUFFIX)
        self._looked = False
        self._snapshot: Snapshot | None = None
        self._moved: Sequence[int] | None = None
        self._renewed: Snapshot | None = None
        """With the stamps of what was only touched, where there was anything."""
        self._former: Snapshot | None = None
        """The snapshot where only files of actions had moved: what it says of everything else holds for the rest of
        this process."""
        self._contents: Sequence[bytes] | None = None
        """Its fingerprints, once somebody asked."""
        self._first_look: FirstLook | None = None
        self._expected: dict[tuple[str, ...], str] = {}
        self._getting_ready = threading.Lock()
        self._ready: native_loop.Looking | None = None
        """Of the products, in wait for the question."""
        self._is_asked = False
        """Was that asked? No more is made ready then."""
        self._moved_since: set[int] = set()
        """What was seen to have moved of what `_former` names."""

    def believe(self, look: FirstLook) -> None:
        """This process looked before it became `doit`: the first question is answered from there."""
        self._first_look = look

    def _look(self) -> tuple[Snapshot, Sequence[int]] | None:
        """The snapshot that applies and the places of the paths that moved; those that were only touched did not: they
        are read."""
        if not self._looked:
            self._looked = True
            self._snapshot, self._moved = self._as_looked_before() or self._own_look() or (None, None)
            if self._snapshot is not None and not logs_are_there(self._snapshot):
                self._snapshot = self._moved = self._renewed = None
            if self._snapshot is not None and self._moved:
                self._moved = self._without_listed(self._snapshot, self._moved)
        return None if self._snapshot is None or self._moved is None else (self._snapshot, self._moved)

    def _without_listed(self, snapshot: Snapshot, places: Sequence[int]) -> Sequence[int]:
        """Beside files that moved, a directory with the names that it had says nothing: they were made anew there."""
        beside = [place for place in places if place >= snapshot.used_count]
        if not beside or len(beside) == len(places):
            return places
        contents = touched.contents_of(str(self._path), snapshot)
        listed = {} if contents is None else _listed_again(snapshot, contents, beside)
        return [place for place in places if place not in listed]

    def _as_looked_before(self) -> tuple[Snapshot, Sequence[int]] | None:
        """The first look, where it was at this state and can only be old by an edit since, which the next run sees."""
        look = self._first_look
        if look is None or not look.root == self._root == os.getcwd() or self._path != Path(look.root, look.path):  # noqa: PTH109
            return None
        with contextlib.suppress(OSError):
            if stamp_of(self._path.stat()) == look.stamp:
                return look.snapshot, look.places
        return None

    def _own_look(self) -> tuple[Snapshot, Sequence[int] | None] | None:
        found = load(str(self._path))
        here = os.getcwd()  # noqa: PTH109
        if found is None or here != self._root:
            return None
        snapshot, _ = found
        places = moved(snapshot, here)
        return snapshot, self._read(snapshot, places) if places else places

    def _read(self, snapshot: Snapshot, places: Sequence[int]) -> Sequence[int]:
        """None of these places if their files, which are read here, are what they were."""
        from pipeline.fastpath.renewal import read_again

        found = read_again(snapshot, places, str(self._path), file_clock().met(self._root).moment())
        if found is None:
            return places
        self._renewed = found
        return []

    def waited(self) -> None:
        """Another run was under way until now: what was seen before is old."""
        self._forget()
        self._former = self._contents = None
        self._looked = False

    def _forget(self) -> None:
        self._first_look = self._snapshot = self._moved = self._renewed = None

    def facts(self) -> Mapping[str, Any] | None:
        """What was written beside the stamps if all of them agree, None otherwise."""
        found = self._look()
        return None if found is None or found[1] else found[0].facts

    def lasting_facts(self) -> Mapping[str, Any] | None:
        """What was written beside the stamps if at most files of actions moved: the actions are what they were."""
        if self._former is not None:
            return self._former.facts
        found = self._look()
        return found[0].facts if found is not None and _only_used_files(*found) else None

    def usage_index(self) -> tuple[bytes, Mapping[int, str]] | None:
        """What `usage` of `record` gave, and the files that moved by their places (relative to the project where they
        lie in it), if only files of actions did."""
        found = self._look()
        if found is None or not found[1] or not _only_used_files(*found):
            return None
        snapshot, places = found
        saved, _ = statefile.load(self._usage_path, USAGE_KIND)
        if saved is None or saved[0] != snapshot.since:
            return None
        self._former = snapshot
        self.__dict__.pop("_product_part", None)
        paths = snapshot.paths_at(places)
        return saved[1], {place: os.fsdecode(path).removeprefix("./") for place, path in paths.items()}

    def moved_beside(self) -> bool:
        """Has anything moved by now, of what `usage_index` found as it was and actions do not use, so that there may be
        other actions? A directory in which files were made anew has not, if it holds the same names. An edit of what is
        used is the next run's, as any that comes after the first look."""
        if self._former is None:
            return True
        snapshot = self._former
        part = values().made(beside_part, snapshot.listing, snapshot.count, snapshot.used_count)
        found = self._look_again(_with_part(snapshot, part), part[1])
        if found is None:
            return True
        beside = [place for place in found if place >= snapshot.used_count]
        return bool(beside) and len(_listed_again(snapshot, self._contents_before(snapshot), beside)) < len(beside)

    def _contents_before(self, snapshot: Snapshot) -> Sequence[bytes]:
        """Those of `_former`, which is `snapshot`."""
        if self._contents is None:
            self._contents = touched.contents_of(str(self._path), snapshot) or [b""] * snapshot.count
        return self._contents

    def moved_products(self) -> list[str] | None:
        """What has moved by now below build/, of what `usage_index` found as it was (paths relative to the project),
        None when that cannot be told."""
        if self._former is None:
            return None
        snapshot, part = self._former, self._product_part
        with self._getting_ready:
            ready, self._ready = self._ready, None
            self._is_asked = True
        found = self._look_again(_with_part(snapshot, part), part[1], ready)
        if found is None:
            return None
        return [os.fsdecode(path).removeprefix("./") for path in self._former.paths_at(found).values()]

    @cached_property
    def _product_part(self) -> ListingPart:
        assert self._former is not None
        return values().made(product_part, self._former.listing, self._former.count)

    def expect_products(self) -> None:
        """`moved_products` will be asked when what runs now has ended: get ready for that, on any thread, where the
        compiled loop looks at them."""
        with self._getting_ready:
            if self._former is None or self._ready is not None or self._is_asked:
                return
            part = _with_part(self._former, self._product_part)
            program = part.helper and native_loop.trusted(part.helper, stamp_of)
            if program:
                with contextlib.suppress(OSError):
                    self._ready = native_loop.Looking(program, self._root, part.count, part.listing)

    def close(self) -> None:
        """End what was made ready and not asked. Idempotent."""
        with self._getting_ready:
            ready, self._ready = self._ready, None
        if ready is not None:
            ready.end()

    def _look_again(
        self, part: Snapshot, ranges: Sequence[range], ready: native_loop.Looking | None = None
    ) -> list[int] | None:
        """What moved of a part of the snapshot that has these places in the whole."""
        found = moved(part, self._root, ready=ready)
        if found:
            places = list(itertools.chain.from_iterable(ranges))
            found = [places[n] for n in found]
            self._moved_since.update(found)
        return found

    def withdraw(self) -> None:
        """Something is about to be done: no process may believe the old state from here on, nor may this one. Those of
        other profiles go too: a run of one may move what another one uses."""
        self._forget()
        self._looked = True
        for directory in (DIRECTORY, *FORMER_DIRECTORIES):
            self._empty(directory)

    def _empty(self, directory: str) -> None:
        path = f"{self._root}/{directory}"
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if os.path.islink(path):  # noqa: PTH114
                os.unlink(path)  # noqa: PTH108 - what it leads to is not ours
                return
            for entry in os.scandir(path):
                if directory == DIRECTORY and entry.name.endswith(_BESIDE) and entry.is_file(follow_symlinks=False):
                    continue  # of the states that name it, and believed with no other
                if entry.is_dir(follow_symlinks=False):
                    import shutil

                    shutil.rmtree(entry.path)
                else:
                    Path(entry.path).unlink(missing_ok=True)
            if directory in FORMER_DIRECTORIES:
                os.rmdir(path)  # noqa: PTH106

    def renew(self) -> None:
        """Write the stamps of what this process read and found unchanged, so that the next one need not read it. To be
        called under the project's lock, by a run that did nothing. Losing this costs work only."""
        if self._renewed is not None:
            self._save(self._renewed)
            self._renewed = None

    def will_approve(self, selection: Sequence[str], text: str) -> None:
        """`approve` comes next with the same: what is written until then says so already."""
        self._expected = {tuple(selection): text}

    def approve(self, selection: Sequence[str], text: str) -> None:
        """`doit` printed `text` for these stages: the fast path may do so while all stamps agree. Losing this costs
        work only, so it fails silently."""
        found = self._look()
        if found is not None and not found[1] and found[0].answers.get(tuple(selection)) != text:
            self._save(_with(found[0], answers={**found[0].answers, tuple(selection): text}))

    def record(self, run: WholeRun) -> bool:
        """Write the state after `run`. False when something moved meanwhile or is too young to be believed; then there
        is none, and the next run answers by itself."""
        from pipeline.fastpath.whole_state import WholeState  # most runs write none

        snapshot = WholeState(self._root, self._usage_path, self._contents_path).collected(run)
        return snapshot is not None and self._write(snapshot)

    def patch(
        self,
        table: StampTable,
        changed: Mapping[int, tuple[str, str]],
        made: Container[int],
        helper: Callable[[int], Mapping[str, FileStamp] | None],
        facts: Mapping[str, Any],
    ) -> bool:
        """Write the state of before with new stamps for the files at these places (of those that `usage` was asked
        about): path of a key, and its SHA-256 now. `made`: those that actions make; `helper`: the compiled loop for so
        many files; `facts`: those that are others. Precondition: everything else is what `usage_index` found, and the
        actions use the same files. False as of `record`."""
        if self._former is None:
            return False
        former = self._former
        numbers, contents = array("Q"), dict[int, bytes]()
        numbers.frombytes(former.listing[: STAMP_BYTES * former.count])
        for place, (path, sha256) in changed.items():
            entry = table.remembered(path)
            if place < 0 or entry is None or not entry.settled or entry.sha256 != sha256:
                return False
            stamp = entry.stamp
            moved_ns = stamp.ctime_ns if os.name == "posix" else stamp.mtime_ns
            try:
                numbers[3 * place : 3 * place + 3] = array("Q", (moved_ns, stamp.size, stamp.inode))
            except OverflowError:
                return False
            if place not in made:
                contents[place] = _fingerprint(table, path)
        beside = self._moved_since.difference(changed)
        beside.update(_directories_of(former, [path for path, _ in changed.values()]))
        beside = {place for place in beside if place >= former.used_count}
        moved_since = _with_other_stamps(former, beside)
        listed_now = _listed_again(former, self._contents_before(former), moved_since) if moved_since else {}
        for place, listed in listed_now.items():
            if listed is not None:  # else the next run lists it again
                numbers[3 * place : 3 * place + 3] = array("Q", listed)
        token = os.urandom(8).hex()
        names = former.listing[STAMP_BYTES * former.count :]
        # The one that answered until now will do: to find out which one would be made now takes longer.
        worth = former.helper if former.used_count >= native_loop.WORTH_FILES else None
        same = worth and native_loop.trusted(worth, stamp_of)
        listing, loop = numbers.tobytes() + names, worth if same else helper(former.used_count)
        kept, others = former.facts.get(CONTENTS, (former.token, {}))
        others = {**others, **contents}
        if len(others) > _MOST_OTHERS:
            fingerprints = list(self._contents_before(former))
            for place, content in contents.items():
                fingerprints[place] = content
            kept, others = token, {}
            with contextlib.suppress(OSError):
                statefile.save(self._contents_path, touched.KIND, (kept, fingerprints))
        facts = {**former.facts, **facts, CONTENTS: (kept, others)}
        return self._write(_with(former, answers={}, token=token, listing=listing, helper=loop, facts=facts))

    def _write(self, snapshot: Snapshot) -> bool:
        """A state, when what it needs beside it is there."""
        self._looked, self._moved, self._former, self._contents = True, [], None, None
        with contextlib.suppress(OSError):
            for directory in FORMER_DIRECTORIES:
                self._empty(directory)
        return self._save(_with(snapshot, answers=self._expected) if self._expected else snapshot)

    def _save(self, snapshot: Snapshot) -> bool:
        from cache.durable import write_atomic

        self._snapshot = snapshot
        try:
            head, body = encoded_parts(KIND, snapshot.values())
            write_atomic(self._path, body, durable=False, own=True, head=head)
        except OSError:
            return False
        return True


def _only_used_files(snapshot: Snapshot, places: Iterable[int]) -> bool:
    """Are these all files that actions use and nothing else does?"""
    return all(place < snapshot.used_count for place in places)


def _with(snapshot: Snapshot, **changes: Any) -> Snapshot:
    return Snapshot(**{name: getattr(snapshot, name) for name in Snapshot.__slots__} | changes)


def _listed_again(snapshot: Snapshot, contents: Sequence[bytes], places: Sequence[int]) -> dict[int, FileStamp | None]:
    """Those of these that are directories with the names that they had -> their stamp, as of `settled_stamp`."""
    listed: dict[int, FileStamp | None] = {}
    for place, path in snapshot.paths_at([n for n in places if n >= snapshot.used_count]).items():
        name = os.fsdecode(path)
        stamp = settled_stamp(name)
        if contents[place] and contents[place] == touched.of_directory(name):
            listed[place] = stamp
    return listed


def _with_other_stamps(snapshot: Snapshot, places: Iterable[int]) -> list[int]:
    """Those of these directories that are not known to be as they were."""
    paths = snapshot.paths_at(list(places))
    return [n for n, path in sorted(paths.items()) if settled_stamp(os.fsdecode(path)) != snapshot.stamp_at(n)]


def _with_part(snapshot: Snapshot, part: ListingPart) -> Snapshot:
    """The same snapshot of these files alone."""
    count = sum(map(len, part[1]))
    helper = snapshot.helper if count >= native_loop.WORTH_FILES else None  # its start takes longer than to look at few
    return _with(snapshot, listing=part[0], count=count, helper=helper)


def _directories_of(snapshot: Snapshot, paths: Iterable[str]) -> list[int]:
    """The places of directories in which these lie, of those that are listed."""
    wanted = {os.fsencode(posixpath.dirname(path)) for path in paths}
    beside = snapshot.paths_at(range(snapshot.used_count, snapshot.count))
    return [place for place, path in beside.items() if path.removeprefix(b"./") in wanted]


def _fingerprint(table: StampTable, path: str) -> bytes:
    entry = table.remembered(path)
    return b"" if entry is None else entry.fingerprint_bytes
