"""Put the outputs of an action in place from the cache.

Knows results, blobs and stamps. Does not know how keys are made or how an action is executed. Invariant: what is in
place afterwards has the digests of the result, each read and checked on the way; otherwise the answer is None.
"""

from __future__ import annotations

import os
from _thread import allocate_lock, start_new_thread  # `threading` is not needed for it
from collections import deque
from typing import TYPE_CHECKING

from cache.named_tuple import NamedTuple

if TYPE_CHECKING:
    from _thread import LockType
    from collections.abc import Sequence

    from cache.actions import ActionResult, OutputFile
    from cache.blobs import BlobStore
    from cache.stamps import StampTable
    from pipeline.engine.build_place import BuildPlace

MOST_LANES = 4
"""Threads that put outputs in place beside each other. More than half of that is the system's work, which several can
wait for at once; the rest is done by one at a time, whatever the number."""
_WORTH = 16
"""Fewer files for each are in place before another thread has begun."""


class Placed(NamedTuple):
    """Outputs that are what the result says. `restored`: was there anything to do? `stderr` is that of the tool."""

    restored: bool
    stderr: bytes


def damage_lines(blobs: BlobStore) -> list[str]:
    """A line for people about what was found damaged since the last call, if anything."""
    found, blobs.damaged = blobs.damaged, 0
    what = "a damaged blob, which was" if found == 1 else f"{found} damaged blobs, which were"
    return [f"the store held {what} removed: what it was the output of is made again"] if found else []


class Restorer:
    """Restores results from one store into one project."""

    def __init__(self, blobs: BlobStore, table: StampTable, build_place: BuildPlace) -> None:
        self._blobs, self._table, self._build_place = blobs, table, build_place

    def place(self, result: ActionResult, right: tuple[str, ...]) -> Placed | None:
        """Put the outputs of `result` in place; those in `right` are not touched. None when a blob is gone or damaged:
        also that of a right one, so that it is a hit for all who ask or for none."""
        stderr = b"" if result.stderr is None else self._blobs.read(result.stderr)
        if stderr is None or (result.stdout is not None and not self._blobs.has(result.stdout)):
            return None
        for file in result.outputs:
            if file.path in right:
                if not self._blobs.has(file.digest):
                    return None
            elif not self.put(file):
                return None
        return Placed(len(right) < len(result.outputs), stderr)

    def put(self, file: OutputFile) -> bool:
        """Put one output in place. False when its blob is gone or damaged."""
        path, digest, executable = file
        place = self._table.resolve(path)
        self._build_place.checked([place])
        made = self._blobs.materialize(digest, place, executable=executable)
        entry = None if made is None else self._table.written(path, *made, digest)
        return entry is not None and entry.stamp.executable == executable

    def put_all(self, files: Sequence[OutputFile], lanes: int = 0) -> bool:
        """Put these in place, some beside each other. False when the blob of one is gone or damaged; then, and when
        OSError is raised, some of the others are in place, and nothing is under way any more. `lanes`: how many threads
        do it, 0 for as many as this machine has cores."""
        first_of: dict[str, OutputFile] = {}
        for file in files:
            first_of.setdefault(file.path.rpartition("/")[0], file)
        # These look for their directories and make them, which two that do so at once would do twice.
        if not all(map(self.put, first_of.values())):
            return False
        waiting = deque([file for file in files if first_of[file.path.rpartition("/")[0]] is not file])
        failed: list[BaseException | None] = []

        def put_some() -> None:
            while waiting and not failed:
                try:
                    file = waiting.popleft()
                except IndexError:
                    return  # another one has it
                try:
                    if not self.put(file):
                        failed.append(None)
                except BaseException as error:
                    failed.append(error)

        def put_beside(done: LockType) -> None:
            try:
                put_some()
            finally:
                done.release()

        beside = []
        for _ in range(1, min(lanes or os.cpu_count() or 1, MOST_LANES, len(waiting) // _WORTH)):
            done = allocate_lock()
            done.acquire()
            try:
                start_new_thread(put_beside, (done,))
            except RuntimeError:  # the system has no thread left
                break
            beside.append(done)
        put_some()
        for done in beside:
            done.acquire()
        for error in failed:
            if error is not None:
                raise error
        return not failed
