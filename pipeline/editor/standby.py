"""A `hotplate` that has loaded its code and waits to be told what to do: what `doit watch` runs for each save.

Most of a short run is the import of doit and of our modules; here that happens before the save. One process serves one
run, so no run sees anything of the one before. Does not know what it is asked to do.
Invariant: before the line arrives on stdin it reads nothing of the project but the last run's state, which is used for
the same bytes alone, and it ends when stdin does.
"""

from __future__ import annotations

import json
import os
import sys
import time
from functools import partial

from pipeline.effects.end_told import tell_end
from pipeline.effects.host import ASKED_AT
from pipeline.effects.spawned import make_group_ahead
from pipeline.fastpath import before_end, told_look
from pipeline.fastpath import main as hotplate
from pipeline.needed_modules import BUILD, load_modules
from pipeline.run.ahead import decode_ahead


def main() -> int:
    """Load, wait for a line `{"argv": [...], "env": {...}, "look": [...]}`, be `hotplate` with it. How that ended is
    said on the handle that the command line names."""
    handle = int(sys.argv[1])
    os.set_inheritable(handle, False)
    load_modules(BUILD)
    decode_ahead(os.getcwd())  # noqa: PTH109
    make_group_ahead()
    line = sys.stdin.buffer.readline()
    if not line:
        return 0
    asked = json.loads(line)
    sys.argv = ["hotplate", *asked["argv"]]
    os.environ.update({**asked["env"], ASKED_AT: str(time.monotonic())})
    before_end.append(partial(tell_end, handle))
    return hotplate(told_look(asked["argv"], [os.fsencode(field) for field in asked["look"]]))


if __name__ == "__main__":
    sys.exit(main())
