"""The locks of one project: one run at a time, few in line behind it, and no cancel while flash is written.

    .deploy/locks/project      held by the run under way; says who it is
    .deploy/locks/waiting-N    held by a run that waits for it
    .deploy/locks/writing      held shared while flash is written; held exclusively, it keeps writes away

Does not know what a run does. Invariant: a lock ends with its process, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cache.durable import FileLock
from cache.lock import OPEN, try_lock
from pipeline.failures import fail
from pipeline.model import Failure, FailureCategory

LOCK_TIMEOUT_S = 60
MAX_WAITING = 4
"""Runs that may wait for the one under way. A further one adds nothing: those have not begun, so they build what is
saved by now. Editors that call on every save would otherwise pile up processes behind a long build."""


class ProjectLock:
    """`state_dir`: the project's `.deploy`."""

    def __init__(self, root: Path, state_dir: Path) -> None:
        self._root = root
        self._directory = state_dir / "locks"
        self._lock = FileLock(self._directory / "project")

    def acquire(self, notice: Callable[[str], None], config_moved: Callable[[], bool]) -> Failure | None:
        """Take it, or say who has held it for LOCK_TIMEOUT_S. `notice` is told when there is somebody to wait for;
        `config_moved` is asked after a wait, when what this run has loaded may be old."""
        note = f"pid {os.getpid()} ({' '.join(sys.argv)[:80]})"
        path = self._directory / "project"
        where = path.relative_to(self._root).as_posix()
        try:
            busy = self._lock.try_acquire(note)
            if busy is None:
                return None
            place = self._place_in_line(note)
            if place is None:
                message = f"{MAX_WAITING} runs of this project wait already, and will build what is saved by now"
                hint = "read their output, or run again when they are done"
                return fail(FailureCategory.LOCK_TIMEOUT, stage=None, where=where, message=message, hint=hint)
            try:
                notice(f"note: waiting for another run of this project: {busy.holder}")
                busy = self._lock.acquire(note, timeout_s=LOCK_TIMEOUT_S, now_s=time.monotonic, pause=time.sleep)
            finally:
                place.release()
        except OSError as error:
            message = f"the state directory cannot be used: {error.strerror}"
            return fail(FailureCategory.CACHE_ERROR, stage=None, where=str(path), message=message)
        if busy is not None:
            message = f"another run has held the project's lock for {LOCK_TIMEOUT_S} s: {busy.holder}"
            return fail(FailureCategory.LOCK_TIMEOUT, stage=None, where=where, message=message)
        if config_moved():
            self._lock.release()
            message = "edited while this run waited for another; it would have built what is no longer wanted"
            return fail(
                FailureCategory.CONFIG_ERROR, stage=None, where="deploy.toml", message=message, hint="run again"
            )
        return None

    def release(self) -> None:
        """Give it back."""
        self._lock.release()

    def _place_in_line(self, note: str) -> FileLock | None:
        """One of MAX_WAITING places; None when all are taken."""
        for number in range(MAX_WAITING):
            place = FileLock(self._directory / f"waiting-{number}")
            if place.try_acquire(note) is None:
                return place
        return None

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """While flash is written: shared with the other devices of this run. Losing it must not stop a run."""
        handle = -1
        try:
            with contextlib.suppress(OSError):
                handle = os.open(writing_lock(self._directory.parent), OPEN, 0o644)
                while not try_lock(handle, shared=True):
                    time.sleep(0.02)  # until whoever has it has cancelled this run, or died
            _writing.append(self)
            try:
                yield
            finally:
                _writing.remove(self)
        finally:
            if handle >= 0:
                os.close(handle)


_writing: list[ProjectLock] = []


def is_writing() -> bool:
    """Is flash being written by this process?"""
    return bool(_writing)


def writing_lock(state_dir: Path) -> Path:
    """Who holds this file's lock exclusively, as `doit watch` does to cancel a run, keeps writes away."""
    return state_dir / "locks" / "writing"
