"""doit's own commands with our words: what is no task of this project, and an answer that cannot be written.

doit finds them by our entry points, in place of its own (pyproject.toml; `PLACES`, where `hotplate` becomes doit). So
does every doit that is installed beside us, in whatever project: they do what doit's do. Knows doit's commands; not our
tasks. Invariant: what was asked for well is answered by doit alone.
"""

from __future__ import annotations

import dbm
from typing import Any

from doit.cmd_clean import Clean
from doit.cmd_completion import TabCompletion
from doit.cmd_dumpdb import DumpDB
from doit.cmd_forget import Forget
from doit.cmd_help import Help
from doit.cmd_ignore import Ignore
from doit.cmd_info import Info
from doit.cmd_list import List
from doit.cmd_resetdep import ResetDep
from doit.exceptions import InvalidCommand

from pipeline.cli.usage import BAD_USAGE, Answering


class PlainList(Answering, List):  # type: ignore[misc]
    """`doit list`."""

    name = "list"


class PlainInfo(Answering, Info):  # type: ignore[misc]
    """`doit info TASK`."""

    name = "info"

    def _execute(self, pos_args: list[str], hide_status: bool = False) -> Any:
        _must_be_there(pos_args[:1], self.task_list)
        return super()._execute(pos_args, hide_status)


class PlainHelp(Answering, Help):  # type: ignore[misc]
    """`doit help`."""

    name = "help"

    def _execute(self, pos_args: list[str]) -> Any:
        _must_be_there(pos_args, self.task_list)
        return super()._execute(pos_args)


class PlainClean(Answering, Clean):  # type: ignore[misc]
    """`doit clean`."""

    name = "clean"


class PlainForget(Answering, Forget):  # type: ignore[misc]
    """`doit forget`."""

    name = "forget"


class PlainIgnore(Answering, Ignore):  # type: ignore[misc]
    """`doit ignore`."""

    name = "ignore"


class PlainResetDep(Answering, ResetDep):  # type: ignore[misc]
    """`doit reset-dep`."""

    name = "reset-dep"


class PlainTabCompletion(Answering, TabCompletion):  # type: ignore[misc]
    """`doit tabcompletion`."""

    name = "tabcompletion"


class PlainDumpDB(Answering, DumpDB):  # type: ignore[misc]
    """`doit dumpdb`."""

    name = "dumpdb"

    def execute(self, opt_values: dict[str, Any], pos_args: list[str]) -> Any:
        try:
            return super().execute(opt_values, pos_args)
        except dbm.error:
            from pipeline.cli.command_words import refused
            from pipeline.failures import fail
            from pipeline.model import FailureCategory

            where, message = str(opt_values["dep_file"]), "is no database of doit's"
            hint = "ask `doit explain` what is up to date and why, or name a database with --db-file"
            failure = fail(FailureCategory.CONFIG_ERROR, stage=None, where=where, message=message, hint=hint)
            return refused(failure, BAD_USAGE)


def _must_be_there(words: list[str], tasks: list[Any]) -> None:
    """Raises InvalidCommand for the first word that is no task's name."""
    names = {task.name for task in tasks}
    for word in words:
        if word not in names:
            raise InvalidCommand(not_found=word)
