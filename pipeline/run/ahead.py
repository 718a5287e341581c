"""What a run of a project decodes at its beginning, decoded while nobody waits: by a process that waits for its run.

Reads the state of the last run; knows which files that is, and what of it takes long. Decides nothing and looks at no
file of the project: what is made here is given to the run for the same bytes alone (`cache/ahead.py`). Invariant:
without it, or with another state than was read here, a run does the same and takes longer.
"""

from __future__ import annotations

import contextlib
import gc
import os
from pathlib import Path
from typing import Any

from cache import rowfile
from cache.ahead import values
from cache.durable import read_file
from cache.statebytes import decode
from pipeline.engine.saved_state import MORE_KIND, MORE_NAME, STATE_NAME, decode_changed
from pipeline.engine.usage_index import UsageIndex
from pipeline.fastpath import DIRECTORY, KIND, PUT_BACK, USAGE_KIND, touched
from pipeline.fastpath.listing import beside_part, product_part
from pipeline.run.kept_text import KIND as TEXT_KIND
from pipeline.run.kept_text import NAME as TEXT_NAME

MOST_BYTES = 32 << 20
"""Of files: what they hold takes three times as much. A larger state is left to the run."""


def decode_ahead(root: str) -> None:
    """Of the project in `root`, in the profile that was built last."""
    collecting = gc.isenabled()
    gc.disable()
    with contextlib.suppress(Exception):  # whatever is odd there, the run finds and says
        _decode_all(root)
    gc.freeze()  # it lives as long as the process, and would be searched for garbage again and again
    if collecting:
        gc.enable()


def _decode_all(root: str) -> None:
    """Raises OSError, and whatever a state of another shape than its kind says leads to."""
    found = [entry for entry in os.scandir(f"{root}/{DIRECTORY}") if entry.name.endswith(".state")]
    if not found:
        return
    state = Path(max(found, key=lambda entry: entry.stat().st_mtime_ns).path)
    left = MOST_BYTES

    def ahead(path: Path, kind: str) -> Any:
        nonlocal left
        left -= path.stat().st_size
        data = read_file(str(path)) if left > 0 else b""
        value, _ = decode(kind, data)
        if value is not None:
            values().put(data, value)
        return value

    snapshot = ahead(state, KIND)
    usage = ahead(state.with_suffix(".usage"), USAGE_KIND)
    ahead(state.with_suffix(touched.SUFFIX), touched.KIND)
    if snapshot is None or usage is None:
        return
    values().make(UsageIndex, usage[1])
    *_, facts, _, used_count, count, listing = snapshot
    values().make(product_part, listing, count)
    values().make(beside_part, listing, count, used_count)
    engine = facts.get(PUT_BACK, {}).get("engine")
    if engine:
        directory = Path(root, engine)
        decode_changed(directory, ahead(directory / MORE_NAME, MORE_KIND))
        ahead(directory / STATE_NAME.replace(".state", ".index"), rowfile.KIND)
        ahead(directory / TEXT_NAME, TEXT_KIND)
