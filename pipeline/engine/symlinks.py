"""Which action makes the file that a path leads to, where symbolic links or `..` lie on the way?

A compiler reports the path by which it came to a header, and the action that makes it has another name for it. Knows
paths and what actions declare as outputs; asks only when a project has such commands, and about each directory
and file once per look. Invariant: `product` is right about the links that there were at some instant of the look.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain

from cache.fileclock import FileClock, Moment
from pipeline.engine.build_log import BuildRecords, record_name
from pipeline.model import Action


def products_by_name(actions: Sequence[Action]) -> list[str]:
    """The outputs that something else may often reach by another name: where there are users' commands, all but
    objects, of which there may be ten thousand."""
    if not any(action.is_users for action in actions):
        return []
    return [path for action in actions if action.count_as != "compiled" for path in action.outputs]


class Links:
    """The files that users' commands make, and that they use of ours, by the names that they have without links."""

    def __init__(self, resolve: Callable[[str], str], root: str, actions: Sequence[Action]) -> None:
        self._resolve = resolve
        self._outputs = products_by_name(actions)
        objects = (path for action in actions if action.count_as == "compiled" for path in action.outputs)
        self._compiled = list(objects) if self._outputs else []
        self.endings = tuple(sorted({posixpath.splitext(path)[1] for path in self._compiled}))
        """How the names of objects end, `""` among them where one has no such ending."""
        self._root = f"{os.path.realpath(root)}/" if self._outputs else ""
        self._ways: dict[str, set[str]] = {}
        self.forget()

    def forget(self) -> None:
        """Links may lead elsewhere from here on."""
        self._real: dict[str, str] = {}
        self._directories: dict[str, str] = {}
        self._products: dict[str, str] | None = None
        self._objects: dict[str, str] | None = None
        self._sets: dict[int, tuple[object, frozenset[str]]] = {}

    def real(self, path: str) -> str:
        """The path of the same file, or of the same missing one, that passes no link; relative to the project if it
        lies there."""
        found = self._real.get(path)
        if found is None:
            directory, name = posixpath.split(self._resolve(path))
            place = self._directories.get(directory)
            if place is None:
                place = self._directories[directory] = os.path.realpath(directory)
            full = f"{place}/{name}"
            if name in ("", ".", "..") or os.path.islink(full):  # noqa: PTH114
                full = os.path.realpath(full)
            found = self._real[path] = full.removeprefix(self._root) if full != self._root[:-1] else "."
        return found

    def product(self, path: str) -> str:
        """The declared output that `path` leads to, `""` if there is none."""
        if not self._outputs:
            return ""
        if self._products is None:
            self._products = {self.real(output): output for output in self._outputs}
        real = self.real(path)
        found = self._products.get(real, "")
        if not found and self.endings and real.endswith(self.endings):
            if self._objects is None:  # hardly anything reads one that does not declare it
                self._objects = {self.real(output): output for output in self._compiled}
            found = self._objects.get(real, "")
        if found and found != path:
            self._ways.setdefault(found, set()).add(path)
        return found

    def ways_to(self, outputs: Iterable[str]) -> Iterator[str]:
        """Every path that `product` said leads to one of these under another name."""
        return chain.from_iterable(self._ways.get(output, ()) for output in outputs)

    def products(self, paths: Iterable[str]) -> set[str]:
        """The declared outputs among what `paths` lead to."""
        return {product for path in paths if (product := self.product(path))} if self._outputs else set()

    def readings(self, records: BuildRecords) -> Callable[[Action], frozenset[str] | None]:
        """A function: the outputs that the last run of an action read, or would have read had they been there; None
        when it is not known what it read."""
        found_by = self.findings(records, {})

        def read_by(action: Action) -> frozenset[str] | None:
            found = found_by(action)
            return None if found is None else found | self.products(action.inputs)

        return read_by

    def findings(
        self, records: BuildRecords, unrecorded: Mapping[str, Collection[str]]
    ) -> Callable[[Action], frozenset[str] | None]:
        """The same without what it declares. `unrecorded`: name of a record -> what a run read that was not kept."""

        def found_by(action: Action) -> frozenset[str] | None:
            name = record_name(action)
            if not records.has(name):
                return frozenset(self.products(unrecorded[name])) if name in unrecorded else None
            read = records.discovered(name)
            if id(read) not in self._sets:
                self._sets[id(read)] = (read, frozenset(self.products([path for path, _ in read])))
            return self._sets[id(read)][1] | self.products_of(records.absent(name))

        return found_by

    def products_of(self, shared: tuple[str, ...]) -> frozenset[str]:
        """As `products`, once for all actions that share the object."""
        if not self._outputs:
            return frozenset()
        if id(shared) not in self._sets:
            self._sets[id(shared)] = (shared, frozenset(self.products(shared)))
        return self._sets[id(shared)][1]


def link_made_since(root: str, paths: Iterable[str], clock: FileClock, moment: Moment) -> str:
    """A symbolic link on one of the ways (relative to `root`) that was made at `moment` or later, `""` if there is
    none. The file that it leads to may be old, so that its own stamp does not tell that it was not there before."""
    waiting = [f"{root}/{path}" for path in paths if path[:1] not in ("{", "/")]
    seen = {root}
    while waiting:
        path = waiting.pop()
        if path in seen or not path.startswith(root):
            continue
        seen.add(path)
        directory = path.rpartition("/")[0]
        waiting.append(directory)
        try:
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                if not clock.is_before(status, path, moment):
                    return path[len(root) + 1 :]
                waiting.append(posixpath.join(directory, os.readlink(path)))  # noqa: PTH115
        except OSError:
            continue
    return ""
