"""`doit doctor` as a command of doit that needs no dodo.py.

One of the modules that know doit. Knows options and exit codes; what is examined, `pipeline/doctor/` knows. Invariant:
exit code 0 says that a deploy can work, 1 that it cannot, 3 bad usage; stdout holds the findings and nothing else.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from pipeline.cli.command_words import printed
from pipeline.cli.usage import PlainCommand
from pipeline.effects.closed_streams import open_closed_streams
from pipeline.fastpath import interrupt_again
from pipeline.run.options import FILTERS, OPTIONS, Options

# doit imports this module to run one of its commands.
open_closed_streams()
interrupt_again()


def _flag(name: str, text: str) -> dict[str, Any]:
    return {"name": name, "short": "", "long": name, "type": bool, "default": False, "help": text}


class Doctor(PlainCommand):
    """Can a deploy work here?"""

    doc_purpose = "say whether a deploy can work here, and what to do where it cannot"
    doc_usage = "[--device NAME] [--group NAME] [--chip CHIP] [--tag TAG] [--profile NAME] [--probe] [--json]"
    doc_description = (
        "Looks at Python, packages, deploy.toml, the toolchain's programs, the cache, disks, the service, ports, "
        "leases and the selected devices. Builds nothing and opens no port; with --probe it asks the boards on real "
        "ports who they are, which resets them. Exit code 0: a deploy can work (warnings do not count); 1: it cannot."
    )
    cmd_options = (
        *(
            {"name": name, "short": "", "long": name, "type": str, "default": "", "help": OPTIONS[name]}
            for name in (*FILTERS, "profile")
        ),
        _flag("probe", "open the ports of real devices and ask who is there; this resets the boards"),
        _flag("json", "as JSON"),
    )

    def execute(self, opt_values: dict[str, Any], pos_args: list[str]) -> int:
        if pos_args:
            said = " ".join(pos_args)
            print(f"doctor: error: takes no arguments, got {said}\nhint: see `doit help doctor`", file=sys.stderr)
            return 3
        from pipeline.doctor.examine import examine
        from pipeline.doctor.findings import can_deploy, findings_json, findings_text
        from pipeline.records import json_text

        devices, groups, chips, tags = ((opt_values[name],) if opt_values[name] else () for name in FILTERS)
        options = Options(devices=devices, groups=groups, chips=chips, tags=tags, profile=opt_values["profile"])
        findings = list(examine(Path.cwd(), options, probe=opt_values["probe"]))
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
        if opt_values["json"]:
            code = printed(json_text(findings_json(findings), indent=1) + "\n")
        else:
            code = printed(findings_text(findings, width))
        return code or (0 if can_deploy(findings) else 1)
