"""`hotplate` becomes `doit`: the same arguments in the same process, without a second look at thousands of files.

One of the modules that know doit: its task loader, which is the way in that doit offers, carries what was looked at to
the reporter of the run. Does not know what the run does with it. Invariant: without a look, or where the project brings
a loader or a reporter of its own, doit runs as if it had been called itself.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Any

from doit import cmd_run, plugin
from doit.cmd_base import DodoTaskLoader
from doit.doit_cmd import DoitMain

from pipeline.fastpath import FirstLook

OWN = "hotplate_doit"
PLACES = {
    "run": f"{OWN}:PlainRun",
    "list": f"{OWN}:PlainList",
    "info": f"{OWN}:PlainInfo",
    "help": f"{OWN}:PlainHelp",
    "clean": f"{OWN}:PlainClean",
    "forget": f"{OWN}:PlainForget",
    "ignore": f"{OWN}:PlainIgnore",
    "dumpdb": f"{OWN}:PlainDumpDB",
    "reset-dep": f"{OWN}:PlainResetDep",
    "tabcompletion": f"{OWN}:PlainTabCompletion",
}
"""doit's commands that we say in our words -> where; pyproject.toml has the same, for `doit` itself."""


class PlainDoit(DoitMain):  # type: ignore[misc]
    """doit, with our words for what it refuses."""

    def get_cmds(self) -> Any:
        found = super().get_cmds()
        for name, place in PLACES.items():
            if name not in self.config["COMMAND"]:
                found[name] = plugin.PluginEntry("COMMAND", name, place)
        return found


class HandingOver(DodoTaskLoader):  # type: ignore[misc]
    """doit's own loader; the reporter of `DOIT_CONFIG` begins with a look."""

    def __init__(self, look: FirstLook) -> None:
        super().__init__()
        self._look = look

    def load_doit_config(self) -> dict[str, Any]:
        """As the project's dodo.py has it, with a reporter `after` the look where it is one of ours."""
        config: dict[str, Any] = super().load_doit_config()
        after = getattr(config.get("reporter"), "after", None)
        return config if after is None else {**config, "reporter": after(self._look)}


def become_doit(argv: Sequence[str], look: FirstLook | None, name: str = "") -> int:
    """Run doit to its end; its exit code. `name`: what it calls itself, where it was loaded in another process than the
    one that was called."""
    if name:
        DoitMain.BIN_NAME = name
    # doit keeps the stdout that there was when it was imported: where that was another process's, what a dodo.py prints
    # and what the run says would go through two buffers, and come out in another order.
    cmd_run.opt_outfile["default"] = sys.stdout
    # `doit` itself has our commands where they are installed, and so has what stands in for it.
    doit = PlainDoit() if name in ("", "hotplate") else DoitMain()
    if look is not None and "loader" not in doit.config["GLOBAL"]:
        doit.task_loader = HandingOver(look)
    return int(doit.run(list(argv)))


def remember_plugins() -> None:
    """Read now what all installed packages offer doit, of which it reads all files three times in each run."""
    known = entry_points()
    plugin.entry_points = lambda group: known.select(group=group)


def forget_plugins() -> None:
    """Let doit read them itself again: this process may see other packages."""
    plugin.entry_points = entry_points
