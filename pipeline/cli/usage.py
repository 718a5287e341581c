"""Mistakes in the options of a command or a task, said as all others are: what is wrong, and what there is.

doit's own text shows the object of every option that there is. Knows doit's parser; knows neither commands nor tasks.
Invariant: bad usage ends with 3, as doit ends it, before anything was done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from doit import task
from doit.cmd_base import Command
from doit.cmdparse import CmdOption, CmdParse, CmdParseError, TaskParse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.model import Failure

BAD_USAGE = 3
_KINDS = {"int": "a whole number", "float": "a number"}


class PlainCommand(Command):  # type: ignore[misc]
    """A command whose options are refused in our words."""

    def parse_execute(self, in_args: list[str]) -> Any:
        try:
            return super().parse_execute(in_args)
        except CmdParseError as error:
            return _refused(error, self.cmdparser)


class _PlainTaskParse(TaskParse):  # type: ignore[misc]
    """The options of a task; a mistake ends the process here, since doit would print its own text of it."""

    def parse_only(self, in_args: Any, params: Any = None) -> Any:
        try:
            return super().parse_only(in_args, params)
        except CmdParseError as error:
            raise SystemExit(_refused(error, self)) from None


def speak_plainly() -> None:
    """Let tasks of this process refuse options in our words, too."""
    task.TaskParse = _PlainTaskParse


def _refused(error: CmdParseError, parser: CmdParse) -> int:
    from pipeline.cli.command_words import refused

    return refused(wrong_option(error, [option for option in parser.options if option.long]), BAD_USAGE)


def wrong_option(error: CmdParseError, options: Sequence[CmdOption]) -> Failure:
    """What is wrong, from what the parser of `options` raised."""
    from getopt import GetoptError

    from pipeline.failures import fail
    from pipeline.model import FailureCategory

    cause = error.__context__
    if isinstance(cause, GetoptError):
        where = f"--{cause.opt}" if len(cause.opt) > 1 else f"-{cause.opt}"
        message, hint = _getopt(where, cause.msg, [f"--{option.long}" for option in options])
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
