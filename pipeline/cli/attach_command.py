"""`doit attach`: options and exit codes of a view of a transaction.

One of the modules that know doit. What is shown, `attach.py` knows. Invariant: exit codes are those of the run that is
shown; 130 when the view was ended, 2 for a transaction that is not there, 3 for bad usage.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from pipeline.cli.usage import PlainCommand
from pipeline.effects.closed_streams import open_closed_streams
from pipeline.fastpath import interrupt_again
from pipeline.model import Failure

# doit imports this module to run one of its commands.
open_closed_streams()
interrupt_again()


class Attach(PlainCommand):
    """Follow a transaction."""

    doc_purpose = "follow a transaction that is under way, or replay one that ended"
    doc_usage = "[TX] [--from N] [--json]"
    doc_description = (
        "Shows what the run itself shows, from its event log; without TX that of the newest. Ctrl-C ends the view and "
        "not the run. --from leaves out the events before the Nth (the first is 1); --json gives a line per event, for "
        "programs. The exit code is that of the run, or 130 when the view was ended."
    )
    cmd_options = (
        {
            "name": "start",
            "short": "",
            "long": "from",
            "type": int,
            "default": 1,
            "help": "leave out the events before the Nth",
        },
        {
            "name": "json",
            "short": "",
            "long": "json",
            "type": bool,
            "default": False,
            "help": "a JSON object per event instead",
        },
    )

    def execute(self, opt_values: dict[str, Any], pos_args: list[str]) -> int:
        from pipeline.cli import attach
        from pipeline.report.terminal import say_failure

        if len(pos_args) > 1 or opt_values["start"] < 1:
            said = " ".join(pos_args) if len(pos_args) > 1 else f"--from {opt_values['start']}"
            print(f"attach: error: takes one transaction and a number from 1 on, got {said}", file=sys.stderr)
            print("hint: see `doit help attach`", file=sys.stderr)
            return 3
        target = attach.find(Path.cwd(), pos_args[0] if pos_args else "")
        if isinstance(target, Failure):
            say_failure(target, sys.stderr)
            return 2
        view = attach.AttachView(target, sys.stdout, sys.stderr, json=opt_values["json"])
        try:
            return attach.attach(target, opt_values["start"], view, time.sleep)
        except KeyboardInterrupt:
            return view.leave()
