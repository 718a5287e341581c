"""A `doit watch` as a real process: its lines as they come, and what it leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

STARTED = "[watch] build started"
FINISHED = "[watch] build finished"
DEADLINE_S = 60.0
MARK = "HOTPLATE_TEST_WATCH"


class Watching:
    """Lines are collected by a thread; `until` waits for them, never for a time."""

    def __init__(self, root: Path, env: Mapping[str, str], *args: str) -> None:
        self.mark = uuid.uuid4().hex
        code = "import sys; sys.argv[0] = 'doit'; from doit.doit_cmd import DoitMain; sys.exit(DoitMain().run(sys.argv[1:]))"
        self.child = subprocess.Popen(
            [sys.executable, "-c", code, "watch", *args],
            cwd=root,
            env={**env, MARK: self.mark},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.child.stdout is not None
        for line in self.child.stdout:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()

    def until(self, found: Callable[[list[str]], bool], what: str) -> list[str]:
        """The lines as soon as `found` says so."""
        with self._news:
            if not self._news.wait_for(lambda: found(self.lines), DEADLINE_S):
                raise AssertionError(f"{what} did not come in {DEADLINE_S} s:\n" + "\n".join(self.lines))
            return list(self.lines)

    def builds(self) -> int:
        """How many have finished."""
        return self.lines.count(FINISHED)

    def after(self, save: Callable[[], object]) -> str:
        """Save, and return the lines of the build that this caused."""
        before = len(self.lines)
        save()
        lines = self.until(lambda all_: FINISHED in all_[before:], "the build after a save")[before:]
        return "\n".join(lines[: lines.index(FINISHED)])

    def first(self) -> str:
        """The lines of the first build."""
        return self.after(lambda: None)

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """End it as the user does; its exit code."""
        self.child.send_signal(number)
        code = self.child.wait(timeout=DEADLINE_S)
        self._reader.join(timeout=DEADLINE_S)
        return code

    def check_pairs(self) -> None:
        """Begin and end lines alternate, beginning with a begin and ending with an end."""
        marks = [line for line in self.lines if line in (STARTED, FINISHED)]
        assert marks == [STARTED, FINISHED] * (len(marks) // 2), "\n".join(self.lines)
        assert not any("Traceback" in line for line in self.lines), "\n".join(self.lines)

    def left(self) -> list[str]:
        """Command lines of processes that came from it and live; zombies do not count."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and self.mark.encode() in (entry / "environ").read_bytes():
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
        return found

    def check_nothing_left(self) -> None:
        """What was killed with its parent may still be dying."""
        until_s = time.monotonic() + DEADLINE_S
        while (left := self.left()) and time.monotonic() < until_s:
            os.sched_yield()
        assert left == []


@contextmanager
def watching(root: Path, env: Mapping[str, str], *args: str) -> Iterator[Watching]:
    """One that is ended with the test, whose lines pair and that leaves nothing behind."""
    watch = Watching(root, env, *args)
    try:
        yield watch
        if watch.child.poll() is None:
            assert watch.stop() == 130, "\n".join(watch.lines)
        watch.check_pairs()
        watch.check_nothing_left()
    finally:
        if watch.child.poll() is None:
            os.killpg(watch.child.pid, signal.SIGKILL)
            watch.child.wait()
