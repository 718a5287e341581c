"""What commands have in common: options in doit's form, and how they answer and refuse.

Does not know doit, nor any command. Invariant: stdout gets the answer alone, stderr why there is none.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.model import Failure


def option(name: str, text: str, long: str = "") -> dict[str, Any]:
    """An option that takes a text."""
    return {"name": name, "short": "", "long": long or name, "type": str, "default": "", "help": text}


def flag(name: str, text: str, *, default: bool) -> dict[str, Any]:
    """A switch; one that is on by default can be turned off with `--no-NAME`."""
    inverse = {"inverse": f"no-{name}"} if default else {}
    return {"name": name, "short": "", "long": name, "type": bool, "default": default, "help": text, **inverse}


def printed(text: str) -> int:
    """Put `text` on stdout; the exit code. `| head` that has seen enough is no error."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        return lost(error)
    return 0


def lost(error: OSError) -> int:
    """What was put on stdout is lost: say why, unless its reader has seen enough; the exit code."""
    silence_stdout()
    if isinstance(error, BrokenPipeError):
        return 0
    print(f"stdout: error: cannot be written: {error.strerror}\nhint: free disk space", file=sys.stderr)
    return 1


def silence_stdout() -> None:
    """Nobody reads it any more."""
    from pipeline.report.terminal import silence

    silence(sys.stdout)


def given(value: str | None) -> tuple[str, ...]:
    """The value of an option, where it was given."""
    return (value,) if value else ()


def surplus(command: str, words: list[str], hint: str = "", takes: str = "no arguments") -> Failure:
    """Words that the command has no use for."""
    from pipeline.failures import fail
    from pipeline.model import FailureCategory

    message = f"takes {takes}, got {' '.join(words)}"
    hint = hint or f"see `doit help {command}`"
    return fail(FailureCategory.CONFIG_ERROR, stage=None, where=command, message=message, hint=hint)


def refused(failure: Failure, code: int) -> int:
    """Say why not; `code`."""
    from pipeline.report.terminal import say_failure

    if code == 2:
        say_failure(failure, sys.stderr)
    else:  # what is wrong with the command line stands in no file
        print(f"{failure.line()}\nhint: {failure.hint}", file=sys.stderr)
    return code
