"""`doit serve`: the resident service, and what is asked of it from the command line.

One of the modules that know doit. Knows options and exit codes; what the service does, `pipeline/service/` knows.
Invariant: exit codes are doit's: 0 done, 1 it could not be done, 3 bad usage.
"""

from __future__ import annotations

import sys
from typing import Any

from doit.cmd_base import Command

from pipeline.model import Failure


class Serve(Command):  # type: ignore[misc]
    """Own this user's serial ports until stopped."""

    doc_purpose = "be the resident service: own serial ports, lend them to deploys, keep every monitor open"
    doc_usage = ""
    doc_description = "Runs until Ctrl-C. One per user; see docs/service.md."
    cmd_options = ()

    def execute(self, opt_values: dict[str, Any], pos_args: list[str]) -> int:
        del opt_values
        if pos_args:
            print(
                f"serve: error: takes no arguments, got {' '.join(pos_args)}\nhint: see `doit help serve`",
                file=sys.stderr,
            )
            return 3
        from pipeline.service.main import serve

        return _ended(serve(lambda text: print(f"service: {text}", flush=True)))


def _ended(failure: Failure | None) -> int:
    if failure is None:
        return 0
    print(f"{failure.line()}\nhint: {failure.hint}", file=sys.stderr)
    return 1
