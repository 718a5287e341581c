"""`doit serve`: the resident service, and what is asked of it from the command line.

One of the modules that know doit. Knows options and exit codes; what the service does, `pipeline/service/` knows.
Invariant: exit codes are doit's: 0 done, 1 it could not be done, 3 bad usage.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from pipeline.cli.command_words import printed
from pipeline.cli.serve import open_page, page_port, ports_text, release, status_text, stop
from pipeline.cli.usage import PlainCommand
from pipeline.effects.closed_streams import open_closed_streams
from pipeline.fastpath import interrupt_again
from pipeline.model import Failure

# doit imports this module to run one of its commands.
open_closed_streams()
interrupt_again()


def _flag(name: str, text: str) -> dict[str, Any]:
    return {"name": name, "short": "", "long": name, "type": bool, "default": False, "help": text}


class Serve(PlainCommand):
    """Own this user's serial ports until stopped."""

    doc_purpose = "be the resident service: own serial ports, lend them to deploys, keep every monitor open"
    doc_usage = "[--open | --status | --ports | --stop [--now] | --release DEVICE | --install | --uninstall]"
    doc_description = (
        "Runs until Ctrl-C, one per user; an older one is asked to stop first. --install makes it a unit of systemd's "
        "user manager, started with your session. --open shows its page in a browser. --status says what it owns, "
        "--stop ends it unless a board is being written to, --release leaves a device's port to other programs. "
        "--ports has it serve the ports of this project's devices to other programs, and says under which addresses."
    )
    cmd_options = (
        _flag("open", "show its page in a browser, and print the address"),
        _flag("status", "what it owns, who has it, what it counted"),
        _flag("ports", "serve this project's ports to other programs: rfc2217:// and a pseudo-terminal"),
        _flag("stop", "end it, unless a board is being written to"),
        _flag("now", "with --stop: end it all the same"),
        {
            "name": "release",
            "short": "",
            "long": "release",
            "type": str,
            "default": "",
            "help": "leave the port of this device of deploy.toml to others",
        },
        _flag("install", "start it with each session of this user (systemd)"),
        _flag("uninstall", "undo --install"),
    )

    def execute(self, opt_values: dict[str, Any], pos_args: list[str]) -> int:
        names = ("open", "status", "ports", "stop", "release", "install", "uninstall")
        asked = [name for name in names if opt_values[name]]
        if pos_args or len(asked) > 1 or (opt_values["now"] and asked != ["stop"]):
            said = " ".join([*(f"--{name}" for name in asked), *pos_args]) or "--now"
            print(f"serve: error: takes one thing at a time, got {said}\nhint: see `doit help serve`", file=sys.stderr)
            return 3
        if not asked:
            return _serve()
        match asked[0]:
            case "open":
                return _ended(open_page())
            case "status":
                return _ended(status_text())
            case "ports":
                return _ended(ports_text())
            case "stop":
                return _ended(stop(now=opt_values["now"]))
            case "release":
                return _ended(release(opt_values["release"]))
        from pipeline.service import install

        environment = dict(os.environ)
        if asked == ["install"]:
            done = install.install(install.own_command(), environment)
        else:
            done = install.uninstall(environment)
        return _ended(done if isinstance(done, Failure) else "".join(f"{line}\n" for line in done))


def _serve() -> int:
    from pipeline.service.main import serve

    failure = serve(lambda text: print(f"service: {text}", flush=True), port=page_port())
    return 0 if failure is None else _ended(failure)


def _ended(result: str | Failure) -> int:
    if isinstance(result, str):
        return printed(result)
    print("\n".join(filter(None, [result.detail, result.line(), f"hint: {result.hint}"])), file=sys.stderr)
    return 1
