"""`hotplate` becomes `doit`: the same arguments in the same process, without a second look at thousands of files.

One of the modules that know doit: its task loader, which is the way in that doit offers, carries what was looked at to
the reporter of the run. Does not know what the run does with it. Invariant: without a look, or where the project brings
a loader or a reporter of its own, doit runs as if it had been called itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from doit.cmd_base import DodoTaskLoader
from doit.doit_cmd import DoitMain

from pipeline.fastpath import FirstLook


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


def become_doit(argv: Sequence[str], look: FirstLook | None) -> int:
    """Run doit to its end; its exit code."""
    doit = DoitMain()
    if look is not None and "loader" not in doit.config["GLOBAL"]:
        doit.task_loader = HandingOver(look)
    return int(doit.run(list(argv)))
