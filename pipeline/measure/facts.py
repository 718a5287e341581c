"""Under which circumstances something was measured: the machine, the versions of the tools, and the commit.

Asks the system; does not know what is measured.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pipeline.effects.host import GitQuery, machine_facts
from pipeline.effects.versions import ask_version, distribution_version
from pipeline.run.build import Build

TOOLS = ("hotplate", "doit", "esptool")


def circumstances(build: Build, git: GitQuery, peers: Iterable[str] = ()) -> dict[str, Any]:
    """`machine`, `tools` and `git` of a report. `peers`: programs that are measured beside ours; `""` is the version of
    one that is not installed."""
    tools = {name: distribution_version(name) for name in TOOLS}
    revision = git.result()
    return {
        "machine": machine_facts(),
        "tools": {**tools, "toolchain": build.toolchain_name(), **{name: ask_version(name) for name in peers}},
        "git": {"sha": revision.sha, "dirty": revision.dirty},
    }
