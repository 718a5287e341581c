"""`doit init` as a command of doit that needs no dodo.py.

One of the modules that know doit. Knows options and exit codes; what is found and written, `init.py` knows. Invariant:
exit codes are doit's: 0 written, 2 it could not be, 3 bad usage.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pipeline.cli.command_words import printed
from pipeline.cli.init import init_text
from pipeline.cli.usage import PlainCommand
from pipeline.effects.closed_streams import open_closed_streams
from pipeline.fastpath import interrupt_again
from pipeline.model import Failure

# doit imports this module to run one of its commands.
open_closed_streams()
interrupt_again()


def _option(name: str, text: str, long: str = "") -> dict[str, Any]:
    return {"name": name, "short": "", "long": long or name, "type": str, "default": "", "help": text}


class Init(PlainCommand):
    """Write the first deploy.toml and dodo.py of a project."""

    doc_purpose = "write deploy.toml and dodo.py for the project in this directory"
    doc_usage = "[--kind KIND] [--from PLACE] [--dry-run]"
    doc_description = (
        "Recognises projects of ESP-IDF, PlatformIO, Arduino and CMake, build directories of ninja, and firmware that "
        "was built already (flasher_args.json, merged .bin, .uf2 or .hex, the manifest of esp-web-tools). Existing "
        "files are never written over. The device is a virtual board; a real one stands there as a comment."
    )
    cmd_options = (
        _option("kind", "of several: esp-idf, platformio, arduino, cmake, ninja or prebuilt"),
        _option("place", "of several: the directory or file", long="from"),
        {
            "name": "dry_run",
            "short": "",
            "long": "dry-run",
            "type": bool,
            "default": False,
            "help": "print what would be written",
        },
    )

    def execute(self, opt_values: dict[str, Any], pos_args: list[str]) -> int:
        if pos_args:
            said = " ".join(pos_args)
            print(f"init: error: takes no arguments, got {said}\nhint: see `doit help init`", file=sys.stderr)
            return 3
        result = init_text(Path.cwd(), opt_values["kind"], opt_values["place"], dry_run=opt_values["dry_run"])
        if isinstance(result, Failure):
            lines = [result.detail, result.line(), f"hint: {result.hint}"]
            print("\n".join(filter(None, lines)), file=sys.stderr)
            return 2
        return printed(result)
