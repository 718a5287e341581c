"""What the gate reads: collected and written after a run that ended well, withdrawn before anything is done.

Knows what an answer "up to date" depends on: the engine's records and stamps, the listings of directories, the
configuration, our own code, the tools. Does not decide what is up to date. Invariant: a stamp is written only when it
belongs to the content that the run used. For files of actions that is the stamp under which the content was read; for
all others it must be older than this process.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import struct
import sys
import sysconfig
from array import array
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cache import statefile
from cache.fileclock import Moment, filesystem_now_ns
from cache.stamps import StampTable
from cache.statebytes import encode
from pipeline.fastpath import (
    DIRECTORY,
    FIRST_LOOK,
    KIND,
    identity,
    load,
    moved,
    paths_at,
    stamp_of,
    state_path,
    touched,
)
from pipeline.fastpath.watched import GateStamp, Watched, directory_stamp, file_clock

ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "PYTHONSAFEPATH")
"""Decide which tools and modules are found."""

DOIT_FILES = ("pyproject.toml", "doit.cfg")
"""Where doit looks for options, present or not."""

SURVEY_KIND = "survey 1"
"""The value is (token, survey); see `engine_narrow`."""


def listing_of(files: Sequence[tuple[str, GateStamp]]) -> bytes:
    """The listing (see `gate.KIND`) of paths and stamps, best ordered by directory. Raises struct.error for a number
    that does not fit (files of before 1970, ReFS)."""
    groups: list[tuple[str, list[str]]] = []
    for path, _ in files:
        head, slash, name = path.rpartition("/")
        directory = f"{head}{slash}" or "./"
        if not groups or groups[-1][0] != directory:
            groups.append((directory, []))
        groups[-1][1].append(name or ".")
    numbers = [number for _, stamp in files for number in stamp]
    text = "".join(f"{directory}\0{chr(0).join(names)}\0\0" for directory, names in groups)
    return struct.pack(f"={len(numbers)}Q", *numbers) + os.fsencode(text)


class GateState:
    """The gate's state of one selection of profile in one project. Reads it once, at the first question."""

    def __init__(self, root: Path, profile: str) -> None:
        """`profile` as the command line has it."""
        self._root = str(root)
        self._path = root / state_path(profile)
        self._survey_path = self._path.with_suffix(".survey")
        self._contents_path = self._path.with_suffix(touched.SUFFIX)
        self._directory = root / DIRECTORY
        self._state: Any = None
        self._moved: Sequence[int] | None = None
        self._renewed: Any = None
        """The state with the stamps of what was only touched, where there was anything."""
        self._waited = False

    def _look(self) -> Sequence[int] | None:
        """The places of the paths that moved, None without a state that applies; those that were only touched did not:
        they are read."""
        if self._moved is None and self._state is None:
            found = self._first_look() or self._own_look()
            self._state, self._moved = found or ((), None)
        return self._moved

    def _first_look(self) -> tuple[Any, Sequence[int]] | None:
        """What this process saw at its start, where that was this state and can only be old by an edit since, which the
        next run sees."""
        for root, path, stamp, state, places in () if self._waited else FIRST_LOOK:
            here = root == self._root == os.getcwd()  # noqa: PTH109
            if here and self._path == Path(root, path):
                with contextlib.suppress(OSError):
                    if stamp_of(self._path.stat()) == stamp:
                        # A few were read already, and were not only touched.
                        return state, self._read(state, places) if len(places) > touched.MOST else places
        return None

    def _own_look(self) -> tuple[Any, Sequence[int] | None] | None:
        found = load(str(self._path))
        here = os.getcwd()  # noqa: PTH109
        if found is None or here != self._root:
            return None
        state, _ = found
        places = moved(state, here)
        return state, self._read(state, places) if places else places

    def _read(self, state: Any, places: Sequence[int]) -> Sequence[int]:
        """None of these places if their files, which are read here, are what they were."""
        began = file_clock().met(self._root).moment()
        if not touched.only_touched(state, places, str(self._path), paths_at, len(places)):
            return places
        self._renewed = _with_stamps_of(state, places, began)
        return []

    def waited(self) -> None:
        """Another run was under way until now: what was seen before is old."""
        self._waited, self._state, self._moved, self._renewed = True, None, None, None

    def facts(self) -> Mapping[str, Any] | None:
        """What was written beside the stamps if all of them agree, None otherwise."""
        return self._state[4] if self._look() == [] else None

    def lasting_facts(self) -> Mapping[str, Any] | None:
        """What was written beside the stamps if at most files of actions moved: the actions are what they were."""
        places = self._look()
        return None if places is None or any(n >= self._state[4]["files"] for n in places) else self._state[4]

    def survey(self) -> tuple[bytes, Sequence[int]] | None:
        """What `survey` of `record` gave, and the places of the files that moved, if only files of actions did."""
        places, facts = self._look(), self.lasting_facts()
        if not places or facts is None:
            return None
        saved, _ = statefile.load(self._survey_path, SURVEY_KIND)
        return (saved[1], places) if saved is not None and saved[0] == facts["survey"] else None

    def withdraw(self) -> None:
        """Something is about to be done: no process may believe the old state from here on, nor may this one. Those of
        other profiles go too: a run of one may move what another one uses."""
        self._state, self._moved, self._renewed = (), None, None
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for entry in os.scandir(self._directory):
                if entry.is_dir(follow_symlinks=False):
                    import shutil

                    shutil.rmtree(entry.path)
                else:
                    Path(entry.path).unlink(missing_ok=True)

    def renew(self) -> None:
        """Write the stamps of what this process read and found unchanged, so that the next one need not read it. To be
        called under the project's lock, by a run that did nothing. Losing this costs work only."""
        if self._renewed is not None:
            self._state, self._renewed = self._renewed, None
            self._save()

    def approve(self, selection: Sequence[str], text: str) -> None:
        """`doit` printed `text` for these stages: the gate may do so while all stamps agree. Losing this costs work
        only, so it fails silently."""
        if self._look() != [] or self._state[1].get(tuple(selection)) == text:
            return
        who, selections, *rest = self._state
        self._state = (who, {**selections, tuple(selection): text}, *rest)
        self._save()

    def record(
        self,
        table: StampTable,
        used: Mapping[str, str],
        made: Container[str],
        watched: Watched,
        facts: Mapping[str, Any],
        survey: Callable[[Sequence[str]], bytes],
    ) -> bool:
        """Write the state. `used` is path of a key -> SHA-256 of what the run used of it; `made` are those that actions
        make; `survey` is asked about those of them that nothing else depends on. False when something moved meanwhile
        or is too young to be believed; then there is none, and the next run answers by itself."""
        absent = [self._short(path) for path in watched.absent]
        others: dict[str, GateStamp] = {}
        for path, listed in watched.listed.items():
            if listed is None:
                return False
            others[self._short(path)] = listed
        born = file_clock().at(_process_start_ns())
        for path in (*_own_files(self._root), *watched.files):
            try:
                status = os.stat(path)  # noqa: PTH116
            except OSError:
                absent.append(self._short(path))
                continue
            if not file_clock().was_settled(status, path, born):
                return False
            others[self._short(path)] = stamp_of(status)
        stamps: dict[str, GateStamp] = {}
        names: dict[str, str] = {}
        for path, sha256 in used.items():
            entry = table.remembered(path)
            if entry is None or not entry.settled or entry.sha256 != sha256:
                return False
            stamp = entry.stamp
            moved_ns = stamp.ctime_ns if os.name == "posix" else stamp.mtime_ns
            short = self._short(table.resolve(path))
            believed = (moved_ns, stamp.size, stamp.inode)
            if short in others or short in stamps:
                # It matters to more than the actions that name it so.
                others[short] = believed
                stamps.pop(short, None)
                names.pop(short, None)
            else:
                stamps[short], names[short] = believed, path
        # In one file these would be read by every warm run; the token says that all are of one run.
        token = os.urandom(8).hex()
        facts = {**facts, "files": len(stamps), "survey": token}
        files, rest = sorted(stamps, key=posixpath.dirname), sorted(others, key=posixpath.dirname)
        contents = [b"" if names[path] in made else _fingerprint(table, names[path]) for path in files]
        contents += [self._listing(path, watched, others[path]) for path in rest]
        environment = tuple((name, os.environ.get(name)) for name in (*ENVIRONMENT, *watched.variables))
        stamps.update(others)
        try:
            listing = listing_of([(path, stamps[path]) for path in (*files, *rest)])
        except struct.error:
            return False
        self._state = (identity(self._root), {}, environment, tuple(absent), facts, len(stamps), listing)
        self._moved = []
        with contextlib.suppress(OSError):
            statefile.save(self._survey_path, SURVEY_KIND, (token, survey([names[path] for path in files])))
            statefile.save(self._contents_path, touched.KIND, (token, contents))
        return self._save()

    def _listing(self, short: str, watched: Watched, stamp: GateStamp) -> bytes:
        """The fingerprint of a directory's entries as of its stamp; empty for what was not only listed."""
        path = short if short in watched.listed else f"{self._root}/{short}"
        if watched.listed.get(path) != stamp:
            return b""
        found = touched.of_directory(path)
        return found if directory_stamp(path) == stamp else b""

    def _save(self) -> bool:
        from cache.durable import write_atomic

        try:
            write_atomic(self._path, encode(KIND, self._state), durable=False, own=True)
        except OSError:
            return False
        return True

    def _short(self, path: str) -> str:
        """Relative to the root where possible: a shorter path is a faster stat."""
        return path[len(self._root) + 1 :] if path.startswith(f"{self._root}/") else path


def _with_stamps_of(state: Any, places: Sequence[int], began: Moment) -> Any:
    """`state` with the stamps that the paths at `places` have now. None if one of them could have changed since
    `began`, before which nothing of them was read: then the content that was read may not be that of the stamp."""
    *head, count, listing = state
    numbers = array("Q", listing[: 24 * count])
    for place, path in paths_at(state, places).items():
        try:
            status = os.stat(path)  # noqa: PTH116
        except OSError:
            return None
        if not file_clock().was_settled(status, os.fsdecode(path), began):
            return None
        numbers[3 * place : 3 * place + 3] = array("Q", stamp_of(status))
    return (*head, count, numbers.tobytes() + listing[24 * count :])


def _fingerprint(table: StampTable, path: str) -> bytes:
    entry = table.remembered(path)
    return b"" if entry is None else bytes.fromhex(entry.fingerprint)


def _own_files(root: str) -> Iterable[str]:
    """Configuration of doit and of this program, all of our code, and every module that this process loaded from
    elsewhere than the standard library."""
    found = dict.fromkeys(f"{root}/{name}" for name in ("deploy.toml", "dodo.py", *DOIT_FILES))
    for package in ("pipeline", "cache"):
        directories = sys.modules[package].__path__
        for directory in directories:
            found.update(dict.fromkeys(str(path) for path in sorted(Path(directory).rglob("*.py"))))
    standard = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if path and not (path.startswith(standard) and "-packages" not in path):
            found[path] = None
    return found


def _process_start_ns() -> int:
    """An instant not later than the start of this process, on our own clock of file stamps."""
    from pipeline.effects.host import process_age_ms

    age_ms = process_age_ms()
    # /proc counts in ticks of 10 ms; where nothing tells, five seconds are more than any start-up takes.
    return filesystem_now_ns() - (5_000 if age_ms is None else age_ms + 20) * 1_000_000
