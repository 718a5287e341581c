"""`doit watch`: build, and with `--deploy` deploy, after every save.

The loop: which run to start, when to cancel one, what to say. The runs are `hotplate compile link` and `hotplate
deploy` themselves, so this knows neither doit nor what a stage is; saves come from `effects/file_events.py`, processes
from `effects.background`. Invariants: `STARTED` and `FINISHED` alternate on stdout whatever happens in between; when it
is quiet, the last build that was not cancelled began after the last save; a run that writes flash is let finish, and so
is a build for which saves have waited long enough (`cancel_policy.py`).
"""

from __future__ import annotations

import hashlib
import os
import secrets
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TextIO

from cache.durable import FileLock, read_file
from cache.named_tuple import NamedTuple
from pipeline import events
from pipeline.editor.cancel_policy import CancelPolicy
from pipeline.editor.watch_set import OWN_FILES, WatchSet, is_scratch, unfinished, watch_set
from pipeline.effects import run_log
from pipeline.effects.api import Clock
from pipeline.effects.background import BackgroundRun
from pipeline.effects.clock import SystemClock
from pipeline.effects.file_events import DirectoryWatcher
from pipeline.fastpath import FirstLook, from_service, stamp_of
from pipeline.fastpath.state import files_since
from pipeline.fastpath.watched import file_clock
from pipeline.model import EventKind
from pipeline.run.lock import writing_lock
from pipeline.run.options import Options
from pipeline.run.project import STATE_DIR

STARTED = "[watch] build started"
FINISHED = "[watch] build finished"
"""Editors wait for exactly these lines; VS Code clears old problems at the second only."""

MISSED_S = 0.1
"""How long the notification of a save may take that was found without it."""

RETRY_S = 0.02
"""How often a cancel looks whether a write has ended."""


class FilesSaved(NamedTuple):
    """Something happened to these paths."""

    paths: frozenset[str]


class RunEnded(NamedTuple):
    """The run under way ended."""

    code: int


class Stop(NamedTuple):
    """The user wants to end."""


Event = FilesSaved | RunEnded | Stop


class WatchLoop:
    """One `doit watch`. `events` is where everything that happens arrives; only the thread of `run` acts."""

    def __init__(self, root: Path, options: Options, *, deploy: bool, out: TextIO, clock: Clock) -> None:
        self._root = root
        self._options = options
        self._deploy = deploy
        self._out = out
        self._clock = clock
        self.events: SimpleQueue[Event] = SimpleQueue()
        self._set = WatchSet(frozenset(), frozenset(), (), (), ())
        self._spare: BackgroundRun | None = None
        self._writing = FileLock(writing_lock(root / STATE_DIR))
        self._failed = False
        self._stale = False
        """Was there a save that no run has begun after?"""
        self._odd = False
        """And was it another one than of a file that is known, so that there may be more to watch?"""
        self._since: tuple[tuple[str, str], ...] = ()
        """What the last look at what matters followed from; empty where that is not known."""
        self._stops = 0
        self._cancels = CancelPolicy()
        self._must_end = False
        """Is the build under way one that no save may cancel?"""
        self._told: dict[str, tuple[int, int, int] | None] = {}
        """Files that we were told of -> how they were then."""
        self._deployed: Mapping[str, str] | None = None
        """Image -> digest as of the last deploy that ended well."""

    def run(self, *, poll: bool) -> None:
        """Until the user stops it. Raises WatchUnavailable."""
        watcher = DirectoryWatcher(lambda paths: self.events.put(FilesSaved(paths)), poll=poll)
        try:
            self._look(watcher)
            self._build()
            before: tuple[str, ...] = ()
            while not self._stops:
                self._look_again(watcher)
                # A file may have been saved or removed after the build looked at it and before this did. An action that
                # is never up to date says the same each time, and must not build for ever.
                missed = () if self._failed or self._stale else unfinished(self._root, self._options)
                # The news of it is most likely under way, and would cancel a build that began before it came.
                self._await(watcher, MISSED_S if missed and missed != before else None)
                before = missed
                if not self._stops:
                    self._build()
        finally:
            watcher.close()
            if self._spare is not None:
                self._spare.discard()

    # --- what happens ---------------------------------------------------------------------------

    def _look(self, watcher: DirectoryWatcher) -> None:
        """Watch what matters now."""
        since = files_since(str(self._root))
        self._set, self._odd = watch_set(self._root, self._options), False
        # Of what was written meanwhile nobody knows what it is about.
        self._since = since if since == files_since(str(self._root)) else ()
        watcher.watch(self._set.directories)

    def _look_again(self, watcher: DirectoryWatcher) -> None:
        """The same after a build. One that changed few known files reads and looks for what the one before did, so that
        an edit among ten thousand files need not find out anew what matters."""
        if self._odd or not self._since or self._since != files_since(str(self._root)):
            self._look(watcher)

    def _await(self, watcher: DirectoryWatcher, timeout_s: float | None) -> None:
        """Wait for a save that matters, the end, or `timeout_s`."""
        if self._spare is None and not self._stale:
            self._spare = BackgroundRun(self._root)
        with suppress(Empty):
            while not (self._stops or self._stale):
                self._take(self.events.get(timeout=timeout_s))
        if self._stale and self._odd:
            self._look(watcher)

    def _take(self, event: Event) -> None:
        """Note what happened."""
        if isinstance(event, Stop):
            self._stops += 1
        elif isinstance(event, FilesSaved) and self._matters(event.paths):
            self._stale = True

    def _matters(self, paths: frozenset[str]) -> bool:
        paths = frozenset(path for path in paths if self._is_news(path))
        odd = not all(map(self._is_known, paths))
        if self._set.concerns(paths) or not self._set.directories.isdisjoint(paths):
            self._odd = self._odd or odd
            return True
        if self._failed and self._set.may_concern(paths):
            self._odd = True
            return True
        # a file that came, went or was renamed; a directory that did
        now = watch_set(self._root, self._options)
        moved = now.declared != self._set.declared or now.directories != self._set.directories
        self._set = now
        self._odd = self._odd or moved
        return moved

    def _is_known(self, path: str) -> bool:
        """Is it a file that matters, and says nothing of which others do, or one that comes and goes beside it?"""
        if is_scratch(os.path.basename(path)):  # noqa: PTH119
            return True
        own = os.path.dirname(path) == str(self._root) and os.path.basename(path) in OWN_FILES  # noqa: PTH119, PTH120
        return path in self._set.files and not own and os.path.isfile(path) and not os.path.islink(path)  # noqa: PTH113, PTH114

    def _is_news(self, path: str) -> bool:
        """Not when the file is as it was when we were told of it before: one save can be reported twice, by the end of
        one watcher and the begin of the next."""
        stamp, past = None, True
        with suppress(OSError):
            status = os.stat(path)  # noqa: PTH116 - once per saved file
            stamp, past = stamp_of(status), file_clock().is_past(status, path)
        if path in self._told and self._told[path] == stamp:
            return False
        self._told.pop(path, None)
        if past:
            self._told[path] = stamp
        return True

    # --- what is done ---------------------------------------------------------------------------

    def _build(self) -> None:
        """One build as editors see it."""
        began_s = self._clock.now_s()
        self._must_end = self._cancels.exhausted(began_s)
        self._say(STARTED)
        try:
            how = self._steps()
            if how is None:
                self._cancels.cancelled(began_s)
                how = "stopped" if self._stops else "cancelled by a newer save"
            else:
                self._cancels.ended()
            self._say(f"[watch] {how} ({1000 * (self._clock.now_s() - began_s):.0f} ms)")
        finally:
            self._say(FINISHED)

    def _steps(self) -> str | None:
        """Build, then deploy if that is asked for and an image changed. What to say about it, None when cancelled."""
        self._stale = False
        tx = events.format_tx(self._clock.utc(), secrets.token_hex(3))
        words = ["compile", "link", *self._words([])]
        # The service has watched the same files, and knows without a process.
        found = from_service(words)
        code = 0 if isinstance(found, str) else self._run(["compile", "link"], tx, found)
        if code is None:
            return None
        self._failed = code != 0
        if self._failed:
            return f"failed with exit code {code}"
        if not self._deploy:
            return self._done(tx)
        images = self._images()
        if images == self._deployed:
            return f"{self._done(tx)}; no image changed: the board is left alone"
        self._deployed = None
        code = self._run(["deploy"], "")
        if code is None:
            return None
        if code:
            return f"deploy failed with exit code {code}"
        self._deployed = images
        return "deployed"

    def _done(self, tx: str) -> str:
        """What a build that ended well did, by its event log. The fast path answers without one."""
        found, _ = run_log.read(self._root / STATE_DIR / "runs" / f"{tx}{run_log.SUFFIX}")
        counts = dict.fromkeys(("compiled", "restored", "linked", "built"), 0)
        for event in found:
            if event.kind is EventKind.STAGE_FINISHED:
                for name in counts:
                    counts[name] += event.data["counts"].get(name, 0)
        return ", ".join(f"{name}={n}" for name, n in counts.items() if n) or "nothing to do"

    def _run(self, tasks: Sequence[str], tx: str, look: FirstLook | None = None) -> int | None:
        """Run `hotplate` with these tasks to its end and return the exit code; None when it was cancelled. `look`: what
        is known to have moved."""
        run, self._spare = self._spare or BackgroundRun(self._root), None
        env = {"DEPLOY_TX_ID": tx} if tx else {}
        told = () if look is None else look.told()
        run.begin([*tasks, *self._words(tasks)], env, lambda code: self.events.put(RunEnded(code)), told)
        cancelled = False
        while True:
            waits = self._unwanted and not cancelled  # for a write to end
            try:
                event = self.events.get(timeout=RETRY_S if waits else None)
            except Empty:
                event = None
            if isinstance(event, RunEnded):
                self._writing.release()
                return None if cancelled else event.code
            if event is not None:
                self._take(event)
            if self._unwanted and not cancelled and self._may_cancel():
                run.cancel()
                cancelled = True

    @property
    def _unwanted(self) -> bool:
        return self._stops > 0 or (self._stale and not self._must_end)

    def _may_cancel(self) -> bool:
        """No: flash is being written. Yes: it is not, and cannot begin to be until the lock is given back."""
        return self._stops > 1 or self._writing.try_acquire("doit watch cancels this run") is None

    def _words(self, tasks: Sequence[str]) -> Iterator[str]:
        if self._options.profile:
            yield f"--profile={self._options.profile}"
        if "deploy" in tasks:
            yield from (f"--device={name}" for name in self._options.devices)
            yield from (f"--group={name}" for name in self._options.groups)

    def _images(self) -> Mapping[str, str]:
        """What a deploy would write; an image that is missing differs from every other."""
        found = {}
        for path in watch_set(self._root, self._options).images:
            try:
                found[path] = hashlib.sha256(read_file(str(path))).hexdigest()
            except OSError:
                found[path] = ""
        return found

    def _say(self, line: str) -> None:
        self._out.write(f"{line}\n")
        self._out.flush()


@contextmanager
def stopping(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` instead of ending at Ctrl-C, SIGTERM and a closed terminal."""
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

    def handle(signum: int, frame: Any) -> None:
        del signum, frame
        stop()

    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def watch(root: Path, options: Options, *, deploy: bool, poll: bool) -> None:
    """The command. Returns when the user stops it; raises WatchUnavailable."""
    loop = WatchLoop(root, options, deploy=deploy, out=sys.stdout, clock=SystemClock())
    with stopping(lambda: loop.events.put(Stop())):
        loop.run(poll=poll)
