"""Mistakes on the command line of a command or a task, said as all others are: what is wrong, and what there is.

doit's own text shows the object of every option that there is, or where in doit it noticed. Knows doit's parser and
what doit raises; knows neither commands nor tasks by name. Invariant: bad usage ends with 3, as doit ends it, before
anything was done.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from doit import task
from doit.cmd_base import Command
from doit.cmdparse import CmdOption, CmdParse, CmdParseError, TaskParse
from doit.exceptions import InvalidCommand, InvalidDodoFile

from hotplate_doit import Answering

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.model import Failure

BAD_USAGE = 3
_KINDS = {"int": "a whole number", "float": "a number"}
_NO_TASK = "' is not a task."
_NO_FILE = "Could not find dodo file"


class PlainCommand(Answering, Command):  # type: ignore[misc]
    """A command of ours."""


def refused_in_our_words(error: Exception, command: Any) -> int | None:
    """Say what is wrong with the command line; the exit code. None where that is not what was raised, or where doit
    says it well."""
    if isinstance(error, CmdParseError):
        if _asks_for_help(error):
            from pipeline.cli.command_words import printed

            return printed(f"{command.help()}\n")
        return _refused(error, command.cmdparser, command)
    failure = _invalid(error, command) if isinstance(error, InvalidCommand | InvalidDodoFile) else None
    if failure is None:
        return None
    from pipeline.cli.command_words import refused

    return refused(failure, BAD_USAGE)


def no_database(path: str) -> int:
    """Refuse what is no database of doit's; the exit code."""
    from pipeline.cli.command_words import refused
    from pipeline.failures import fail
    from pipeline.model import FailureCategory

    hint = "ask `doit explain` what is up to date and why, or name a database with --db-file"
    failure = fail(FailureCategory.CONFIG_ERROR, stage=None, where=path, message="is no database of doit's", hint=hint)
    return refused(failure, BAD_USAGE)


def _invalid(error: InvalidCommand | InvalidDodoFile, command: Command) -> Failure | None:
    """A word that names nothing, or a directory that is no project; None for what doit says well."""
    from pipeline.failures import fail
    from pipeline.model import FailureCategory
    from pipeline.text import did_you_mean

    text, program = str(error), _program(command)
    word = getattr(error, "not_found", None)
    if word is None and text.endswith(_NO_TASK):
        word = text.removesuffix(_NO_TASK).removeprefix("'")
    if word is not None:
        tasks = [each.name for each in getattr(command, "task_list", ())]
        kind = {"run": "command, task or target", "help": "command or task"}.get(command.get_name(), "task")
        takes_commands = kind != "task"
        known = [*tasks, *command.loader.cmd_names] if takes_commands else tasks
        message = f"is no {kind}{did_you_mean(word, known)}"
        hint = f"see `{program} list` for the tasks" + (
            f", `{program} help` for the commands" if takes_commands else ""
        )
        where = str(word)
    elif text.startswith(_NO_FILE):
        where = text.partition("'")[2].partition("'")[0].replace("\\", "/").rpartition("/")[2] or "dodo.py"
        message = "there is none in this directory"
        hint = f"change into the directory of your project, or make one of it with `{program} init`"
    else:
        return None
    return fail(FailureCategory.CONFIG_ERROR, stage=None, where=where, message=message, hint=hint)


class _PlainTaskParse(TaskParse):  # type: ignore[misc]
    """The options of a task; a mistake ends the process here, since doit would print its own text of it."""

    def parse_only(self, in_args: Any, params: Any = None) -> Any:
        try:
            return super().parse_only(in_args, params)
        except CmdParseError as error:
            raise SystemExit(self._help() if _asks_for_help(error) else _refused(error, self)) from None

    def _help(self) -> int:
        """What `doit help TASK` prints; the exit code. Which task it is, doit's caller of this knows."""
        from pipeline.cli.command_words import printed

        frame: Any = sys._getframe()
        while frame is not None and not isinstance(frame.f_locals.get("self"), task.Task):
            frame = frame.f_back
        one = None if frame is None else frame.f_locals["self"]
        head = [] if one is None else [f"{one.name}  {one.doc}"]
        return printed("\n".join([*head, *(line for option in self.options for line in option.help_doc()), ""]))


def speak_plainly() -> None:
    """Let tasks of this process refuse options in our words, too."""
    task.TaskParse = _PlainTaskParse


def _asks_for_help(error: CmdParseError) -> bool:
    """Is what is no option here what people write to see the options?"""
    return getattr(error.__context__, "opt", "") in ("help", "h") and "not recognized" in str(error.__context__)


def _refused(error: CmdParseError, parser: CmdParse, command: Command | None = None) -> int:
    from pipeline.cli.command_words import refused

    failure = wrong_option(error, [option for option in parser.options if option.long])
    if command is not None and command.get_name() == "run":
        failure = _of_task(failure, _program(command))
    return refused(failure, BAD_USAGE)


def _program(command: Command) -> str:
    """What it was called as; `python -m doit` calls itself `-m`."""
    return "hotplate" if command.bin_name == "hotplate" else "doit"


def _of_task(failure: Failure, program: str) -> Failure:
    """An option of a task where no task was named before it."""
    from pipeline.run.options import FLAGS, JSON, OPTIONS, TAKE

    option = failure.where
    if option.removeprefix("--") not in (*OPTIONS, *FLAGS) and option not in (JSON, TAKE):
        return failure
    value = " VALUE" if option.removeprefix("--") in OPTIONS else ""
    message, hint = (
        "is an option of tasks, and stands before any",
        f"write the task first: {program} deploy {option}{value}",
    )
    return failure._replace(message=message, hint=hint)


def wrong_option(error: CmdParseError, options: Sequence[CmdOption]) -> Failure:
    """What is wrong, from what the parser of `options` raised."""
    from getopt import GetoptError

    from pipeline.failures import fail
    from pipeline.model import FailureCategory

    cause = error.__context__
    if isinstance(cause, GetoptError):
        where = f"--{cause.opt}" if len(cause.opt) > 1 else f"-{cause.opt}"
        message, hint = _getopt(where, cause.msg, [f"--{option.long}" for option in options])
    elif "available choices are" in str(error):
        name, value = str(error).split("'")[1:4:2]
        choices = str(error).partition("choices are: ")[2].rstrip(".").replace("'", "")
        where = next((f"--{each.long}" for each in options if each.name == name), f"--{name}")
        message, hint = f"is '{value}'", f"use one of {choices}"
    else:  # the first line is `Error parsing parameter 'NAME' <class 'KIND'>.`, the last word is the value
        name = str(error).partition("'")[2].partition("'")[0]
        where, kind = next(
            (
                (f"--{each.long}", _KINDS.get(each.type.__name__, "another value"))
                for each in options
                if each.name == name
            ),
            (f"--{name}", "another value"),
        )
        message, hint = f"is {str(error).split()[-1]}, but must be {kind}", f"write it like {where}=5"
    return fail(FailureCategory.CONFIG_ERROR, stage=None, where=where, message=message, hint=hint)


def _getopt(where: str, said: str, names: Sequence[str]) -> tuple[str, str]:
    from pipeline.text import did_you_mean

    if "requires argument" in said:
        return "needs a value", f"write it like {where}=VALUE"
    if "must not have an argument" in said:
        return "takes no value", f"write {where} alone"
    known = ", ".join(names)
    if "unique prefix" in said:
        found = [name for name in names if name.startswith(where)]
        return f"could be {' or '.join(found)}", "write the name in full"
    hint = f"use one of {known}" if known else "leave it out: there are no options here"
    return f"is no option here{did_you_mean(where, names)}", hint
