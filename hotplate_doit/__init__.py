"""doit's own commands with our words: for what is refused, what is no task, and an answer that cannot be written.

doit finds them by our entry points, in place of its own (pyproject.toml; `PLACES`, where `hotplate` becomes doit). So
does every doit that is installed beside us, in whatever project: a package of its own, because importing `pipeline`
takes that name, and `cache`, away from a project that has modules of its own so called. Knows doit's commands; not our
tasks. Invariants: what was asked for well is answered by doit alone, and nothing more is imported for it.
"""

from __future__ import annotations

import dbm
import sys
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
from doit.cmd_run import Run
from doit.exceptions import InvalidCommand

INTERRUPTED = 130


class Answering:
    """Before a command of doit's kind, which answers on stdout: it is refused in our words, ended without any by
    Ctrl-C, and an answer that cannot be written is told."""

    def parse_execute(self, in_args: list[str]) -> Any:
        try:
            code = super().parse_execute(in_args)  # type: ignore[misc]
            if sys.stdout is not None:
                sys.stdout.flush()  # at the end of the process it would be Python that says why it cannot
        except KeyboardInterrupt:
            raise SystemExit(INTERRUPTED) from None
        except Exception as error:
            told = _told(error, self)
            if told is None:
                raise
            return told
        return code


def _told(error: Exception, command: Any) -> int | None:
    """Say it in our words; the exit code. None where doit shall: it is nothing of these, or a project has taken the
    name `pipeline`."""
    try:
        from pipeline.cli.command_words import lost
        from pipeline.cli.usage import refused_in_our_words
    except ImportError:
        return None
    if isinstance(error, OSError):
        return lost(error) if _is_of_stdout(error) else None
    return refused_in_our_words(error, command)


def _is_of_stdout(error: OSError) -> bool:
    """Could what was printed not be written? Raised where doit prints, or where we flush: no file is named."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else str(trace.tb_frame.f_globals.get("__name__", ""))
    return error.filename is None and (where == __name__ or where.partition(".")[0] in ("doit", "pprint"))


class PlainRun(Run):  # type: ignore[misc]
    """`doit run`, the command that doit takes where none is named."""

    name = "run"

    def parse_execute(self, in_args: list[str]) -> Any:
        try:
            return super().parse_execute(in_args)
        except OSError:
            raise
        except Exception as error:
            told = _told(error, self)
            if told is None:
                raise
            return told


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
        except dbm.error as error:
            try:
                from pipeline.cli.usage import no_database
            except ImportError:
                raise error from None
            return no_database(str(opt_values["dep_file"]))


def _must_be_there(words: list[str], tasks: list[Any]) -> None:
    """Raises InvalidCommand for the first word that is no task's name."""
    names = {task.name for task in tasks}
    for word in words:
        if word not in names:
            raise InvalidCommand(not_found=word)
