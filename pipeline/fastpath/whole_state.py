"""A state of the fast path made anew by a run that looked at everything: what it names, and what lies beside it.

Knows what an answer "up to date" depends on beside the files of actions: the listings of directories, the
configuration, our own code, the tools. Does not know the state of before, nor whether this one will be believed
(`state`). Only imported by a run that writes a whole state, which one of few edited files does not. Invariant: a stamp
is taken only when it belongs to the content that the run used. For files of actions and ninja's manifests that is the
stamp under which the content was read; for all others it must be older than this process.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import posixpath
import sys
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cache import statefile
from cache.ahead import values
from cache.fileclock import filesystem_now_ns
from cache.named_tuple import NamedTuple
from cache.stamps import StampTable
from cache.statebytes import parts_of_bytes
from pipeline.fastpath import USAGE_KIND, FileStamp, Snapshot, identity, stamp_of, touched
from pipeline.fastpath.listing import names_of
from pipeline.fastpath.used_files import UsedFiles
from pipeline.fastpath.watched import Watched, file_clock, settled_stamp

ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "PYTHONSAFEPATH")
"""Decide which tools and modules are found."""

DOIT_FILES = ("pyproject.toml", "doit.cfg")
"""Where doit looks for options, present or not."""

_CONFIGURATION = ("deploy.toml", "dodo.py", *DOIT_FILES)

STATE_OF_OTHERS = ".deploy/tool-fingerprints.v1.state"
OTHERS_KIND = "tool fingerprints 1"
"""The value is path -> (stamp, fingerprint) of files that no action names: tools, configuration, this program."""


class WholeRun(NamedTuple):
    """What a run that looked at everything knows. `used` is (path of a key, SHA-256 of what the run used of it), None
    where that cannot be told; `made` are those that actions make, None for all; `usage` is asked about those of them
    that nothing else depends on; `helper` gives the compiled loop for so many files, where there is one; `read` says
    which of these paths of keys actions read: where `made` is all, such a one that else matters to more, too, is not
    answered for when it was only touched. `facts` are written beside the stamps."""

    table: StampTable
    used: Iterable[tuple[str, str] | None]
    made: Container[str] | None
    watched: Watched
    facts: Mapping[str, Any]
    usage: Callable[[Sequence[str]], bytes | bytearray]
    helper: Callable[[int], Mapping[str, FileStamp] | None] = lambda count: None
    read: Callable[[Container[str]], Iterable[str]] = lambda paths: ()


class WholeState:
    """What the run of the project at `root` leaves. `usage_path` and `contents_path`: where what lies beside the
    state is written."""

    def __init__(self, root: str, usage_path: Path, contents_path: Path) -> None:
        self._root = root
        self._usage_path, self._contents_path = usage_path, contents_path
        self._others_path = Path(root, STATE_OF_OTHERS)

    def collected(self, run: WholeRun) -> Snapshot | None:
        """The state, with what lies beside it written already; None when something moved meanwhile or is too young."""
        watched, made = run.watched, run.made
        absent = [self._short(path) for path in watched.absent]
        others: dict[str, FileStamp] = {}
        for path, listed in watched.listed.items():
            if listed is None:
                return None
            others[self._short(path)] = listed
        born = file_clock().at(_process_start_ns())
        for path in itertools.chain(watched.files, _own_files(self._root)):
            try:
                status = os.stat(path)  # noqa: PTH116
            except OSError:
                absent.append(self._short(path))
                continue
            stamp = stamp_of(status)
            if not file_clock().was_settled(status, path, born) and watched.read.get(path) != stamp:
                return None
            others[self._short(path)] = stamp

        files = UsedFiles(run.table, made, others, self._short)
        try:
            if not all(found is not None and files.take(*found) for found in run.used):
                return None
        except OverflowError:
            return None
        # In one file these would be read by every warm run; the token says that all are of one run.
        token = os.urandom(8).hex()
        keys, paths, numbers, contents = files.listed()
        count, rest, elsewhere = len(paths), sorted(others, key=posixpath.dirname), files.elsewhere
        del files
        unread = {elsewhere[path] for path in run.read(elsewhere)} if made is None and elsewhere else set[str]()
        contents += [
            b"" if path in unread else content
            for path, content in zip(rest, self._contents_of(rest, others, watched), strict=True)
        ]
        with contextlib.suppress(OSError):
            statefile.save(self._contents_path, touched.KIND, (token, contents))
        del contents  # each of these is megabytes of a large project, so one is written before the next is made
        environment = tuple((name, os.environ.get(name)) for name in (*ENVIRONMENT, *watched.variables))
        try:
            numbers.extend(itertools.chain.from_iterable(others[path] for path in rest))
        except OverflowError:
            return None
        listing = numbers.tobytes() + names_of([*paths, *rest])
        del numbers, paths
        who = identity(self._root)
        facts = {**run.facts, "since": token}
        loop = run.helper(count)
        snapshot = Snapshot(who, {}, environment, tuple(absent), loop, facts, token, count, count + len(rest), listing)
        with contextlib.suppress(OSError):
            statefile.save_parts(self._usage_path, USAGE_KIND, parts_of_bytes(token, run.usage(keys)))
        return snapshot

    def _contents_of(self, rest: Sequence[str], others: Mapping[str, FileStamp], watched: Watched) -> list[bytes]:
        """The fingerprints of listed directories, tools and own files. Those of files are kept from run to run, by
        their stamps: tools are large, and seldom move."""
        saved, _ = statefile.load(self._others_path, OTHERS_KIND)
        known: dict[str, tuple[FileStamp, bytes]] = saved if isinstance(saved, dict) else {}
        kept: dict[str, tuple[FileStamp, bytes]] = {}
        found = []
        for short in rest:
            content = self._listing(short, watched, others[short])
            if not content:
                old = known.get(short)
                content = (
                    old[1] if old is not None and tuple(old[0]) == others[short] else self._file(short, others[short])
                )
                if content:
                    kept[short] = (others[short], content)
            found.append(content)
        if kept != known:
            with contextlib.suppress(OSError):
                statefile.save(self._others_path, OTHERS_KIND, kept)
        return found

    def _file(self, short: str, stamp: FileStamp) -> bytes:
        """The fingerprint of a file as of its stamp; empty for what is none, and for the configuration, which is read
        again when somebody saved it."""
        if short in _CONFIGURATION:
            return b""
        path = short if short.startswith("/") else f"{self._root}/{short}"
        content = touched.of_file(path, stamp[1])
        try:
            return content if content and stamp_of(os.stat(path)) == stamp else b""  # noqa: PTH116
        except OSError:
            return b""

    def _listing(self, short: str, watched: Watched, stamp: FileStamp) -> bytes:
        """The fingerprint of a directory's entries as of its stamp; empty for what was not only listed."""
        path = short if short in watched.listed else f"{self._root}/{short}"
        if watched.listed.get(path) != stamp:
            return b""
        found = touched.of_directory(path)
        return found if settled_stamp(path) == stamp else b""

    def _short(self, path: str) -> str:
        """Relative to the root where possible: a shorter path is a faster stat."""
        return path[len(self._root) + 1 :] if path.startswith(f"{self._root}/") else path


def _own_files(root: str) -> Iterator[str]:
    """Configuration of doit and of this program, all of our code, and every module that this process loaded from
    elsewhere than the standard library. What a person may have written just now comes first: a new checkout lists the
    rest for nothing."""
    yield from (f"{root}/{name}" for name in _CONFIGURATION)
    import sysconfig

    found: dict[str, None] = {}
    for package in ("pipeline", "cache"):
        directories = sys.modules[package].__path__
        for directory in directories:
            found.update(dict.fromkeys(_sources_below(directory)))
    if "doit" not in sys.modules:  # a run without it: the next may need it, as it is by then
        from importlib.util import find_spec

        spec = find_spec("doit")
        for directory in (spec.submodule_search_locations if spec else None) or ():
            found.update(dict.fromkeys(_sources_below(directory)))
    standard = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if path and not (path.startswith(standard) and "-packages" not in path):
            found[path] = None
    yield from found


def _sources_below(directory: str) -> Iterator[str]:
    """Every file of Python there. For a thousand, paths as objects cost more than all else that is done about them."""
    for place, directories, names in os.walk(directory):
        directories.sort()
        yield from (f"{place}/{name}" for name in sorted(names) if name.endswith(".py"))


def _process_start_ns() -> int:
    """An instant not later than the start of this process, or of its run where it waited for that, on our own clock of
    file stamps."""
    if values().began_ns:
        return values().began_ns
    from pipeline.effects.host import process_age_ms

    age_ms = process_age_ms()
    # /proc counts in ticks of 10 ms; where nothing tells, five seconds are more than any start-up takes.
    return filesystem_now_ns() - (5_000 if age_ms is None else age_ms + 20) * 1_000_000
