"""The one run of this process, made when the first task creator or action asks for it.

Knows the command line. Does not know doit. Invariant: a configuration that cannot be used ends the process with 2, in
words, before anything was touched; a build of given firmware that fails ends it with 1.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache, wraps
from typing import Any

from pipeline.errors import DeployError
from pipeline.fastpath import end_quietly, interrupt_again
from pipeline.model import DEVICE_STAGES, Failure, FailureCategory, Stage
from pipeline.run.options import Options, asks_for_help, asks_for_stages, parse_options
from pipeline.run.run import Run, load_run

AFTER_DEPLOY = ("deploy", "livetest")
"""Groups with a sub-task per device that end in a deploy, or begin with one."""


def options() -> Options:
    """What the command line says."""
    return parse_options(sys.argv[1:], [*DEVICE_STAGES, *AFTER_DEPLOY])


@cache
def current() -> Run:
    """The run; raises SystemExit(2) when deploy.toml or the options cannot be used."""
    asked = options()
    builds = asks_for_stages(sys.argv[1:], [*Stage, *AFTER_DEPLOY, "all"])
    asked = asked._replace(builds=builds and not asks_for_help(sys.argv[1:]))
    was_quiet = interrupt_again()
    try:
        loaded = load_run(asked)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    if was_quiet:
        end_quietly()
    if not isinstance(loaded, Failure):
        return loaded
    from pipeline.report.terminal import say_failure

    say_failure(loaded, sys.stderr)
    if asked.json:
        from pipeline.run.exports import Stream

        Stream(sys.stdout).failure(loaded)
    raise SystemExit(2 if loaded.category is FailureCategory.CONFIG_ERROR else 1)


def told(failed: Callable[[str], Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator of a task's action: what goes wrong in a known way is told in a line, as `failed` of it, instead of a
    traceback."""

    def decorate(action: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(action)
        def guarded(*arguments: Any, **options: Any) -> Any:
            try:
                return action(*arguments, **options)
            except DeployError as error:
                return failed(error.failure.line())

        return guarded

    return decorate
