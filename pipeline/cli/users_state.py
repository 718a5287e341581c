"""Where doit remembers what it did: our tasks for the length of the process, a user's own tasks in doit's usual file.

doit's memory is no evidence for our stages, so nothing of them is on disk, where it could be damaged or fought over.
Tasks that a user declares beside them have no other. Their file is opened when the first of them is asked or has run:
after the run has the project's lock, and never in a project without such tasks.
Knows doit's backend protocol. Invariant: what a user's task left is in the file that doit itself would have used.
"""

from __future__ import annotations

import dbm
from collections.abc import Container
from typing import Any

from doit.dependency import DbmDB, Dependency, JSONCodec
from doit.exceptions import InvalidDodoFile

DEP_FILE = ".doit.db"
"""doit's own default, which `doit dumpdb` reads."""


class UsersState:
    """A doit backend: `memory` for the tasks whose basename is in `ours`, DEP_FILE for all others."""

    name = DEP_FILE

    def __init__(self, memory: Any, ours: Container[str]) -> None:
        self._memory = memory
        self._ours = ours
        self._users: Any = None

    def _of(self, task: str, *, make: bool = False) -> Any:
        """The place that remembers `task`; None when there is no file yet and none shall be made."""
        if task.partition(":")[0] in self._ours:
            return self._memory
        return self._opened(make=make)

    def _opened(self, *, make: bool) -> Any:
        if self._users is None and (make or dbm.whichdb(DEP_FILE) is not None):
            try:
                self._users = DbmDB(DEP_FILE, codec=JSONCodec())
            except Exception as error:  # each kind of dbm has its own, and one that is damaged raises anything
                fact = f"{DEP_FILE}: error: cannot be opened: {error}"
                hint = "hint: wait for the run that uses it, or remove it"
                raise InvalidDodoFile(f"{fact}\n{hint}") from None
        return self._users

    def get(self, task_id: str, dependency: str) -> Any:
        place = self._of(task_id)
        return None if place is None else place.get(task_id, dependency)

    def in_(self, task_id: str) -> bool:
        place = self._of(task_id)
        return place is not None and bool(place.in_(task_id))

    def set(self, task_id: str, dependency: str, value: Any) -> None:
        self._of(task_id, make=True).set(task_id, dependency, value)

    def remove(self, task_id: str) -> None:
        place = self._of(task_id)
        if place is not None:
            place.remove(task_id)

    def remove_all(self) -> None:
        self._memory.remove_all()
        if self._opened(make=False) is not None:
            self._users.remove_all()

    def dump(self) -> None:
        self._memory.dump()
        if self._users is not None:
            self._users.dump()


def remember_users_tasks(manager: Dependency, ours: Container[str]) -> None:
    """Let doit's dependency manager keep what is not `ours` on disk, where nobody named another place."""
    if manager.name != ":memory:":
        return
    state = UsersState(manager.backend, ours)
    manager.backend, manager.name = state, state.name
    manager._set, manager._get, manager._in = state.set, state.get, state.in_
    manager.remove, manager.remove_all = state.remove, state.remove_all
