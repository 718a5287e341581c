"""Put the outputs of an action in place from the cache.

Knows results, blobs and stamps. Does not know how keys are made or how an action is executed. Invariant: what is in
place afterwards has the digests of the result, each read and checked on the way; otherwise the answer is None.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.named_tuple import NamedTuple
from pipeline.engine.workspace import Workspace

if TYPE_CHECKING:
    from cache.actions import ActionResult, OutputFile


class Placed(NamedTuple):
    """Outputs that are what the result says. `restored`: was there anything to do? `stderr` is that of the tool."""

    restored: bool
    stderr: bytes


class Restorer:
    """Restores results for one `run` of the engine."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._blobs = workspace.store.blobs

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
            elif not self._restore(file):
                return None
        return Placed(len(right) < len(result.outputs), stderr)

    def _restore(self, file: OutputFile) -> bool:
        path, digest, executable = file
        place = self._workspace.resolve(path)
        self._workspace.build_place.checked([place])
        made = self._blobs.materialize(digest, place, executable=executable)
        entry = None if made is None else self._workspace.table.written(path, *made, digest)
        return entry is not None and entry.stamp.executable == executable
