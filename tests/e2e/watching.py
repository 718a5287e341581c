"""A `doit watch` as a real process: its lines as they come, and what it leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.forked import Python

STARTED = "[watch] build started"
FINISHED = "[watch] build finished"
DEADLINE_S = 300.0


class Watching:
    """Lines are collected by a thread; `until` waits for them, never for a time."""

    def __init__(self, root: Path, env: Mapping[str, str], *args: str) -> None:
        self.root = root.resolve()
        code = "import sys; from doit.doit_cmd import DoitMain; sys.exit(DoitMain().run(sys.argv[1:]))"
        self.child: subprocess.Popen[str] = Python(
            ["-c", code, "watch", *args],
            cwd=root,
            env=dict(env),
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
        with self.child.stdout as stdout:
            for line in stdout:
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
        """Save in one step (rename, unlink, utime), and return the lines up to the end of the build that this caused.
        Builds that were cancelled are passed over: on a busy machine one save can be noticed twice."""
        before = len(self.lines)
        save()

        def ends(lines: list[str]) -> list[int]:
            here = range(before + 1, len(lines))
            return [n for n in here if lines[n] == FINISHED and "cancelled" not in lines[n - 1]]

        lines = self.until(lambda lines: bool(ends(lines)), "the build after a save")
        return "\n".join(lines[before : ends(lines)[0]])

    def first(self) -> str:
        """The lines of the first build."""
        return self.after(lambda: None)

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """End it as the user does; its exit code."""
        self.child.send_signal(number)
        code = self.child.wait(timeout=DEADLINE_S)
        self.join()
        return code

    def join(self) -> None:
        """All lines are there."""
        self._reader.join(timeout=DEADLINE_S)

    def check_pairs(self) -> None:
        """Begin and end lines alternate, beginning with a begin and ending with an end."""
        marks = [line for line in self.lines if line in (STARTED, FINISHED)]
        assert marks == [STARTED, FINISHED] * (len(marks) // 2), "\n".join(self.lines)
        assert not any("Traceback" in line for line in self.lines), "\n".join(self.lines)

    def left(self) -> dict[int, str]:
        """Processes that work in the project, with their command lines: runs, compilers and watchdogs alike."""
        found = {}
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and int(entry.name) != os.getpid() and (entry / "cwd").readlink() == self.root:
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
        return found

    def until_child(self, word: str, *, but: int = 0) -> int:
        """A child of the watch with this word in its command line, another one than `but`. A child's child bears its
        parent's command line too, from its fork to its exec."""
        until_s = time.monotonic() + DEADLINE_S
        while time.monotonic() < until_s:
            for number, command in self.left().items():
                if word in command and number != but and _parent(number) == self.child.pid:
                    return number
        raise AssertionError(f"no child with {word}: {self.left()}")

    def check_nothing_left(self) -> None:
        """What was killed with its parent may still be dying."""
        until_s = time.monotonic() + DEADLINE_S
        while (left := self.left()) and time.monotonic() < until_s:
            time.sleep(0.005)
        assert left == {}


def _parent(number: int) -> int:
    """The parent of a process, 0 where it is gone (proc(5), `stat`: the second field after the name in brackets)."""
    try:
        return int(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


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
        watch.join()
