"""Put the outputs of an action in place from the cache.

Knows results, blobs and stamps. Does not know how keys are made or how an action is executed. Invariant: what is in
place afterwards has the digests of the result, each read and checked on the way; otherwise the answer is None.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from cache.digest import ActionKey
from cache.named_tuple import NamedTuple
from pipeline.engine.build_log import record_name
from pipeline.model import Action

if TYPE_CHECKING:
    from cache.actions import OutputFile
    from pipeline.engine.build_log import Outputs
    from pipeline.engine.engine import Engine


class Placed(NamedTuple):
    """Outputs that are what the result says. `restored`: was there anything to do? `stderr` is that of the tool.
    `unused_lately`: what else is kept for this result may be old, too."""

    outputs: Outputs
    restored: bool
    stderr: bytes = b""
    unused_lately: bool = False


class Restorer:
    """Restores results for one `run` of the engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._table = engine.table
        self._blobs, self._results = engine.store.blobs, engine.store.results
        self._fixed: dict[object, bool] = {}
        self._products_read_by = engine.links.readings(engine.records)

    def last(self, action: Action) -> Placed | None:
        """The outputs of the last run, when nothing else of `action` moved: then its key did not move either. None
        when they are not in the cache any more, or when another action makes something that this one reads: that it
        had not moved may have been said before that one ran."""
        recorded = self._engine.records.result(record_name(action))
        if recorded is None or not self._reads_only_sources(action):
            return None
        outputs, key = recorded
        right = [output[0] for output in outputs if self.is_there(*output)]
        if len(right) == len(outputs):
            return Placed(outputs, restored=False)
        placed = self.place(action, ActionKey(key), right) if action.cacheable else None
        return placed if placed is not None and placed.outputs == outputs else None

    def _reads_only_sources(self, action: Action) -> bool:
        """Does no action make an input of this one, or what would be read instead, under whatever name?"""
        made, records, name = self._engine.graph.producer.keys(), self._engine.records, record_name(action)
        shared = (records.discovered(name), records.absent(name))
        fixed = self._fixed.get(shared)
        if fixed is None:
            discovered, absent = shared
            fixed = self._fixed[shared] = made.isdisjoint([*(path for path, _ in discovered), *absent])
        if not fixed or not made.isdisjoint(action.inputs):
            return False
        return not (self._products_read_by(action) or self._engine.links.products(action.inputs))

    def place(self, action: Action, key: ActionKey, right: Collection[str] | None = None) -> Placed | None:
        """The outputs of the result of `key`; right ones are not touched (`right`: those that are known to be). None
        when there is no such result, or a blob of it is gone or damaged."""
        result = self._results.entry(key)
        if result is None or tuple([file.path for file in result.outputs]) != action.outputs:
            return None
        stderr = b"" if result.stderr is None else self._blobs.read(result.stderr)
        if stderr is None or (result.stdout is not None and not self._blobs.has(result.stdout)):
            return None
        restored = False
        for file in result.outputs:
            path, (sha256, _), executable = file
            if path in right if right is not None else self.is_there(path, sha256, executable):
                if not self._blobs.has(file.digest):
                    return None  # no hit, as for those who have no such output yet
                continue
            if not self._restore(file):
                return None
            restored = True
        outputs = tuple([(path, digest.hex, executable) for path, digest, executable in result.outputs])
        return Placed(outputs, restored, stderr, self._results.used(key))

    def _restore(self, file: OutputFile) -> bool:
        path, digest, executable = file
        self._engine.build_place.checked([self._engine.resolve(path)])
        made = self._blobs.materialize(digest, self._engine.resolve(path), executable=executable)
        entry = None if made is None else self._table.written(path, *made, digest)
        return entry is not None and entry.stamp.executable == executable

    def are_there(self, outputs: Outputs) -> bool:
        """Are these files what they should be? Reads those whose stamp moved."""
        return all(self.is_there(*output) for output in outputs)

    def is_there(self, path: str, sha256: str, executable: bool) -> bool:
        try:
            entry = self._table.current(path)
        except OSError:
            return False
        return entry is not None and entry.sha256 == sha256 and entry.stamp.executable == executable
