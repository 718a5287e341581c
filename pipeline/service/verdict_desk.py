"""Verdict frames in, verdict frames out: the book of verdicts in the service's event loop.

Knows asyncio, frames and who asks; the book knows the files. Invariant: nobody is answered "yes" who sees other files
under the same names than this process: another mount namespace, another root.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from pipeline.client.verdict import LOOK, YES, asked
from pipeline.effects.inotify import Inotify, MountTable, slept_s
from pipeline.service.path_watch import PathWatch
from pipeline.service.verdicts import MachineFacts, VerdictAnswer, VerdictBook, VerdictLoop, VerdictQuestion


class VerdictDesk:
    """Answers in the loop's thread; looks at whole projects in one of its own. Raises OSError where it cannot be."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        Inotify().close()
        self._loop = loop
        self._mounts = MountTable()
        self._here = _sees("self")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="verdicts")
        machine = MachineFacts(self._mounts.changed, slept_s, time.monotonic)
        of_loop = VerdictLoop(self._run_later, loop.add_reader, loop.remove_reader)
        self._book = VerdictBook(of_loop, machine, lambda: PathWatch(Inotify()))

    @property
    def counts(self) -> dict[str, int]:
        """Answers by kind."""
        return self._book.counts

    def judge(self, fields: Sequence[bytes], pid: int) -> tuple[list[bytes], bytes]:
        """Header fields and body of the answer to a question of the process `pid`."""
        answer = self._answer(fields, pid)
        if answer.text is None:
            return [LOOK, os.fsencode(answer.why).replace(b"\0", b""), *_told(answer)], b""
        return [YES], answer.text.encode()

    def _answer(self, fields: Sequence[bytes], pid: int) -> VerdictAnswer:
        question = asked(fields)
        if question is None:
            return VerdictAnswer(None, "not a question of this protocol")
        if self._here is None or _sees(str(pid)) != self._here:
            return VerdictAnswer(None, "the caller may see other files")
        who, words, environment = question
        try:
            root, version, prefix = os.fsdecode(who[0]), who[1].decode(), os.fsdecode(who[2])
        except UnicodeDecodeError:
            return VerdictAnswer(None, "not a question of this protocol")
        variables = {os.fsdecode(name): os.fsdecode(value) for name, value in environment.items()}
        return self._book.ask(
            VerdictQuestion((root, version, prefix), [os.fsdecode(word) for word in words], variables)
        )

    def close(self) -> None:
        """Let everything go. Idempotent."""
        self._book.close()
        self._thread.shutdown(wait=True)
        self._mounts.close()

    def _run_later(self, work: Callable[[], None], done: Callable[[], None]) -> None:
        def finished(future: Future[Any]) -> None:
            del future
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(done)

        self._thread.submit(work).add_done_callback(finished)


def _told(answer: VerdictAnswer) -> list[bytes]:
    """What is known to have moved, if that is."""
    return [b" ".join([b"%d" % n for n in group]) for group in (answer.stamp, answer.moved)] if answer.moved else []


def _sees(pid: str) -> tuple[str, str] | None:
    """Which mounts and which root a process has; None when that cannot be known."""
    try:
        return os.readlink(f"/proc/{pid}/ns/mnt"), os.readlink(f"/proc/{pid}/root")  # noqa: PTH115
    except OSError:
        return None
