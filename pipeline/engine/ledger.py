"""Ninja's memory of a build directory, kept true: what ninja has done since we did, and what it must believe of ours.

Knows `.ninja_log`, `.ninja_deps` and mtimes. Does not know keys or how a command is run. Invariants: a statement that
`made_elsewhere` answers for is one that ninja itself ran after we did, and would not run again, and none of what it
needs became what it is after ninja ran it; after `done`, ninja would not run the statement either: its outputs are not
older than what it needs, and the log says so. Losing our own note (`ninja.v1.state`) costs reading, never correctness.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from cache import statefile
from cache.durable import write_atomic
from pipeline.engine.file_times import FileTimes
from pipeline.formats import depfile
from pipeline.formats.ninja import logs
from pipeline.formats.ninja.logs import BuildLog, DepsLog, DepsWriter, LogEntry, OutputDeps
from pipeline.model import Action, Statement

STATE_KIND = "ninja log seen 1"
STATE_NAME = "ninja.v1.state"
"""The value is directory -> {output: (mtime of the log entry, hash)}: entries that we wrote, or took over."""

FEW_LINES, MOST_REPLACED = 100, 3
"""As ninja: a log with more lines than that, so many of them replaced by later ones, is written anew."""
_BATCH = 64
_TICK_NS = 5_000_000
"""A tick of a file system's clock, and what a count of milliseconds leaves out."""


class _Directory:
    """One directory in which ninja runs. Files are read at the first question."""

    def __init__(self, place: Path, known: dict[str, tuple[int, int]], version: Callable[[], int]) -> None:
        self.place, self.known, self._version = place, known, version
        self.lines: list[LogEntry] = []
        self.deps_records: list[bytes] = []
        self.names: dict[str, str] = {}
        """A path from the root -> how ninja names it."""

    @cached_property
    def log(self) -> BuildLog:
        return logs.parse_log(_read(self.place / logs.LOG_NAME))

    @cached_property
    def deps(self) -> DepsLog:
        data = _read(self.place / logs.DEPS_NAME)
        found = logs.parse_deps(data)
        if data and found.size < len(data):
            # As ninja does: what follows the damage is lost, and must not stand before what we append.
            with contextlib.suppress(OSError):
                os.truncate(self.place / logs.DEPS_NAME, found.size)
        return found

    @cached_property
    def writer(self) -> DepsWriter:
        return DepsWriter(self.deps.paths, empty=self.deps.size == 0)

    @cached_property
    def has_deps(self) -> bool:
        """Does `.ninja_deps` hold anything, without reading it?"""
        try:
            return (self.place / logs.DEPS_NAME).stat().st_size > len(logs.DEPS_HEAD)
        except OSError:
            return False

    @property
    def version(self) -> int:
        """Who keeps the log is asked only where it does not say."""
        return self.log.version or self._own_version

    @cached_property
    def _own_version(self) -> int:
        return self._version()

    def flush(self) -> None:
        """Append what was noted. What cannot be written makes ninja work more, and nobody else."""
        with contextlib.suppress(OSError):
            if self.lines:
                self._append_log()
        with contextlib.suppress(OSError):
            if self.deps_records:
                with (self.place / logs.DEPS_NAME).open("ab") as stream:
                    stream.write(b"".join(self.deps_records))
        self.lines, self.deps_records = [], []

    def _append_log(self) -> None:
        path, entries, version = self.place / logs.LOG_NAME, self.log.entries, self.version
        total = self.log.lines + len(self.lines)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not self.log.version or (total > FEW_LINES and total > MOST_REPLACED * len(entries)):
            whole = logs.log_head(version) + logs.log_lines(entries.values())
            write_atomic(path, whole, durable=False)
            total = len(entries)
        else:
            with path.open("ab") as stream:
                stream.write(logs.log_lines(self.lines))
        self.log = BuildLog(version, entries, total)


class NinjaLedger:
    """Of all build directories of a project. Used by several threads."""

    def __init__(self, state: Path, resolve: Callable[[str], str], version: Callable[[], int]) -> None:
        """`version`: of the logs that the installed ninja writes."""
        self._path = state / STATE_NAME
        self._resolve, self._version = resolve, version
        self._lock = threading.RLock()
        self._directories: dict[str, _Directory] = {}
        self._changed = False
        self._times = FileTimes()

    @cached_property
    def _known(self) -> dict[str, dict[str, tuple[int, int]]]:
        value, _ = statefile.load(self._path, STATE_KIND)
        return value if value.__class__ is dict else {}

    def _directory(self, statement: Statement) -> _Directory:
        found = self._directories.get(statement.directory)
        if found is None:
            known = self._known.setdefault(statement.directory, {})
            place = Path(self._resolve(statement.logs or statement.directory))
            found = self._directories[statement.directory] = _Directory(place, known, self._version)
        return found

    @property
    def log_version(self) -> int:
        """Of the logs that were asked about, 0 where none was."""
        return max([directory.version for directory in self._directories.values()], default=0)

    def kept_logs(self) -> tuple[str, ...]:
        """The logs that speak of anything, of the directories that were asked about (absolute paths)."""
        with self._lock:
            places = [
                one.place / name for one in self._directories.values() for name in (logs.LOG_NAME, logs.DEPS_NAME)
            ]
        return tuple(str(place) for place in places if _size(place) > len(logs.DEPS_HEAD))

    # --- questions --------------------------------------------------------------------------------

    def ran_ns(self, statement: Statement) -> int:
        """Up to which mtime of its inputs the last run of a statement counts, by ninja's log; 0 without one, but for a
        generator, which may be called by hand."""
        with self._lock:
            entries = self._directory(statement).log.entries
            return min(
                entries[name].mtime_ns if name in entries else self._own(statement, name) for name in statement.names
            )

    def _own(self, statement: Statement, name: str) -> int:
        if statement.generator:
            return _mtime_ns(self._resolve(statement.located(name)))
        return self._directory(statement).known.get(name, (0, 0))[0]

    def is_there(self, statement: Statement) -> bool:
        """Does ninja's log speak of it, and is there one of what statements read, if this one needs that?"""
        with self._lock:
            directory = self._directory(statement)
            if not statement.generator and any(name not in directory.log.entries for name in statement.names):
                return False
            return not statement.deps or directory.has_deps

    def is_told(self, action: Action, newest: int) -> bool:
        """Does ninja know that a statement is up to date that needs nothing newer than that?"""
        statement = action.statement
        assert statement is not None
        with self._lock:
            directory = self._directory(statement)
            if not statement.generator:
                entries = [directory.log.entries.get(name) for name in statement.names]
                if any(entry is None or entry.mtime_ns < newest for entry in entries):
                    return False
            made = [_mtime_ns(self._resolve(path)) for path in action.outputs]
            if not statement.restat and min(made, default=newest) < newest:
                return False
            if statement.deps:
                return self._has_deps(statement, directory, made)
            return not statement.depfile or os.path.lexists(self._resolve(statement.depfile))

    def _has_deps(self, statement: Statement, directory: _Directory, made: Sequence[int]) -> bool:
        """Does ninja know what the outputs read, as of the times that they have?"""
        deps = [directory.deps.deps.get(name) for name in statement.names]
        newest = max(made, default=0)
        return all(one is not None and one.mtime_ns >= newest for one in deps)

    def made_elsewhere(
        self, action: Action, is_made: Callable[[str], bool], unseen: Collection[str] | None = None
    ) -> tuple[tuple[str, ...], int] | None:
        """What the statement read beside its inputs when ninja ran it, as the depfile has it, and when that was, if
        ninja ran it after we did and would not run it again; None otherwise. `is_made`: does a statement make the file
        of a path? `unseen`: what we ran ourselves counts, too, and all that it needs is known to hold what it held
        then, but for these inputs."""
        statement = action.statement
        assert statement is not None
        if statement.always or statement.in_place_of:
            return None
        with self._lock:
            directory = self._directory(statement)
            entries = [directory.log.entries.get(name) for name in statement.names]
            theirs = [entry for entry in entries if entry is not None]
            # A generator may be called by hand, which no log tells.
            if not statement.generator and (
                len(theirs) < len(entries)
                or (
                    unseen is None
                    and all(directory.known.get(one.output) == (one.mtime_ns, one.command_hash) for one in theirs)
                )
            ):
                return None
            clean = self._clean(action, statement, directory, theirs)
            if clean is None:
                return None
            read, oldest_ns = clean
            # A generator writes its outputs last, and files of its own that it reads before them.
            said = [] if statement.generator else [_read_ns(entry, statement, directory.version) for entry in theirs]
            doubted = (*action.inputs, *map(statement.located, read)) if unseen is None else unseen
            when_ns = min(said, default=oldest_ns)
            return (read, when_ns) if self.holds(doubted, when_ns, is_made) else None

    def _clean(
        self, action: Action, statement: Statement, directory: _Directory, entries: list[LogEntry]
    ) -> tuple[tuple[str, ...], int] | None:
        """Ninja's own rule, for a statement whose inputs are up to date: what it read, and the mtime of the output that
        was written first."""
        made = [_mtime_ns(self._resolve(path)) for path in action.outputs]
        read = self._read_by(action, statement, directory)
        if read is None or 0 in made:
            return None
        needed = [_mtime_ns(self._resolve(path)) for path in action.inputs]
        needed += [_mtime_ns(self._resolve(statement.located(path))) for path in read]
        if 0 in needed:
            return None
        newest = max(needed, default=0)
        if min((entry.mtime_ns for entry in entries), default=newest) < newest or (
            not statement.restat and min(made) < newest
        ):
            return None
        if not statement.generator:
            version = directory.version
            hashed = logs.hash_command(version, statement.command)
            if any(entry.command_hash != hashed for entry in entries):
                return None
        return read, min(made)

    def holds(self, paths: Iterable[str], when_ns: int, is_made: Callable[[str], bool]) -> bool:
        """Were these files at that instant what they are now? Ninja does not ask: what came later with an older mtime
        is nothing new to it. What statements make, it had made before."""
        return all(self._times.came_ns(self._resolve(path)) <= when_ns or is_made(path) for path in paths)

    def _read_by(self, action: Action, statement: Statement, directory: _Directory) -> tuple[str, ...] | None:
        """What ninja knows that it read; None where it knows too little, and so would run it."""
        if statement.deps:
            deps = [directory.deps.deps.get(name) for name in statement.names]
            if any(one is None for one in deps):
                return None
            found: dict[str, None] = {}
            for path, one in zip(action.outputs, deps, strict=False):
                assert one is not None
                if _mtime_ns(self._resolve(path)) > one.mtime_ns:
                    return None
                found.update(dict.fromkeys(one.inputs))
            return tuple(found)
        if statement.depfile:
            data = _read(Path(self._resolve(statement.depfile)))
            return depfile.parse(os.fsdecode(data)) if data else None
        return ()

    def take_over(self, action: Action) -> None:
        """What ninja made counts as ours from here on."""
        statement = action.statement
        assert statement is not None
        with self._lock:
            directory = self._directory(statement)
            for name in statement.names:
                if (entry := directory.log.entries.get(name)) is not None:
                    directory.known[name] = (entry.mtime_ns, entry.command_hash)
                    self._changed = True

    # --- what ninja must believe --------------------------------------------------------------------

    def done(
        self, action: Action, newest: int, read: Sequence[str] | None, took_s: float = 0.0, began_ns: int = 0
    ) -> list[str]:
        """The statement is up to date: make ninja see that. `newest`: the latest mtime of what it needs, as it was when
        its content was looked at (0: it needs nothing); `read`: what its depfile named, from the root (None: it was not
        asked); `began_ns`: when its command began to run, 0 if none did. Gives the outputs whose time was set. Raises
        OSError when that cannot be done."""
        statement = action.statement
        assert statement is not None
        with self._lock:
            directory = self._directory(statement)
            made: dict[str, int] = {}
            moved = []
            for path in action.outputs:
                place = self._resolve(path)
                made[place] = mtime_ns = _mtime_ns(place)
                if mtime_ns and mtime_ns < newest and not statement.restat:  # ninja would take it for old
                    os.utime(place, ns=(newest, newest))
                    made[place] = newest
                    moved.append(path)
            # As ninja: what is written before the command runs is nothing new to it, also what is no input of it yet.
            self._note(statement, directory, max(newest, began_ns) or max(made.values(), default=0), took_s)
            if statement.deps and read is not None and made:
                self._note_deps(statement, directory, read, made)
            elif statement.depfile and read is not None and not os.path.lexists(self._resolve(statement.depfile)):
                self._write_depfile(statement, read)
            if len(directory.lines) + len(directory.deps_records) > _BATCH:
                directory.flush()
        return moved

    def _note(self, statement: Statement, directory: _Directory, mtime_ns: int, took_s: float) -> None:
        entries, version = directory.log.entries, directory.version
        hashed = -1
        for name in statement.names:
            old = entries.get(name)
            if old is not None and old.mtime_ns >= mtime_ns and took_s == 0.0:
                hashed = logs.hash_command(version, statement.command) if hashed < 0 else hashed
                if old.command_hash == hashed:
                    self._know(directory, old)
                    continue
            hashed = logs.hash_command(version, statement.command) if hashed < 0 else hashed
            entry = LogEntry(name, 0, max(1, round(took_s * 1000)), mtime_ns, hashed)
            entries[name] = entry
            directory.lines.append(entry)
            self._know(directory, entry)

    def _know(self, directory: _Directory, entry: LogEntry) -> None:
        value = (entry.mtime_ns, entry.command_hash)
        if directory.known.get(entry.output) != value:
            directory.known[entry.output] = value
            self._changed = True

    def _note_deps(
        self, statement: Statement, directory: _Directory, read: Sequence[str], made: Mapping[str, int]
    ) -> None:
        """`made`: mtimes of outputs, by their places."""
        names = directory.names
        for path in read:
            if path not in names:
                names[path] = self._as_ninja_names(statement, path)
        inputs = tuple([names[path] for path in read])
        for name in statement.names:
            place = self._resolve(statement.located(name))
            mtime_ns = made[place] if place in made else _mtime_ns(place)
            deps = OutputDeps(mtime_ns, inputs)
            if mtime_ns and directory.deps.deps.get(name) != deps:
                directory.deps_records.append(directory.writer.records(name, deps))
                directory.deps.deps[name] = deps

    def _write_depfile(self, statement: Statement, read: Sequence[str]) -> None:
        place = Path(self._resolve(statement.depfile))
        words = [_escaped(self._as_ninja_names(statement, path)) for path in read]
        with contextlib.suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(os.fsencode(" \\\n  ".join([f"{_escaped(statement.names[0])}:", *words]) + "\n"))

    def _as_ninja_names(self, statement: Statement, path: str) -> str:
        """A path from the root as it stands in ninja's graph where that has it: relative to ninja's directory below
        that, absolute elsewhere."""
        full, start = self._resolve(path), f"{self._resolve(statement.directory)}/"
        return full[len(start) :] if full.startswith(start) else full

    # --- the end --------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write everything that was noted."""
        with self._lock:
            for directory in self._directories.values():
                directory.flush()
            if self._changed:
                with contextlib.suppress(OSError):
                    statefile.save(self._path, STATE_KIND, self._known)
                self._changed = False


def _read_ns(entry: LogEntry, statement: Statement, version: int) -> int:
    """When the command that an entry speaks of began to read, as well as the log says it. Up to version 5 it holds the
    time of the outputs, when the command had ended; with `restat` it may hold that or the newest time of an input."""
    if version > 5 or statement.restat or not entry.start_ms:
        return entry.mtime_ns
    return entry.mtime_ns - (entry.end_ms - entry.start_ms) * 1_000_000 - _TICK_NS


def _escaped(path: str) -> str:
    return path.replace(" ", "\\ ").replace("#", "\\#").replace("$", "$$")


def _mtime_ns(path: str) -> int:
    """0 where there is nothing."""
    try:
        return os.stat(path).st_mtime_ns  # noqa: PTH116 - once per file
    except OSError:
        return 0


def _size(path: Path) -> int:
    """0 where there is nothing."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
