"""The process that holds a place of a farm for one run, and gives it back when that run ends, `kill -9` included.

    python -m pipeline.remote.farm_keeper        stdin: one FarmRequest as JSON, then nothing until the place is not
                                                 wanted any more: the pipe's end says so, however that came about
                                                 stdout: lines of JSON: {"waiting": text}* then {"held": HeldPlace} or
                                                 {"refused": FarmRefusal}, then {"lost": "HOST/USER"}?, at last
                                                 {"ended": what could not be done}

It is no child of the run's process group, so that a Ctrl-C there does not reach it. gRPC is loaded here and nowhere
else. Does not know devices or reports. Invariant: it ends soon after its stdin does, with nothing of its own left at
the coordinator, or with the record that lets the next run clean up.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from pipeline.model import FailureCategory
from pipeline.records import json_text, parse_json
from pipeline.remote.farm_hold import FarmHold, FarmRecordFile
from pipeline.remote.farm_values import FarmClient, FarmError, FarmRefusal, FarmRequest

LOOK_S = 3600.0


class _Wanted:
    """Is the place wanted? Until stdin ends or a signal comes; `on_end` is called then."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self.on_end: Any = lambda: None

    def over(self) -> bool:
        return self._over.is_set()

    def wait(self) -> None:
        self._over.wait()

    def end(self) -> None:
        self._over.set()
        self.on_end()

    def watch(self) -> None:
        """Read stdin to its end."""
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        self.end()


def main() -> int:
    """Hold the place that stdin asks for."""
    line = sys.stdin.buffer.readline()
    if not line:
        return 0
    asked = parse_json(line)
    request = FarmRequest(**{**asked, "tags": tuple((key, value) for key, value in asked["tags"])})
    wanted = _Wanted()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=wanted.end, daemon=True).start())
    threading.Thread(target=wanted.watch, name="hotplate-farm-wanted", daemon=True).start()
    try:
        trouble = _keep(request, wanted)
    except ImportError as error:
        hint = "install it with: pip install 'hotplate[farm]' (or uv sync --extra farm)"
        _refuse(FailureCategory.TOOLCHAIN_MISSING, f"a farm of boards needs the Python package {error.name}", hint)
        trouble = ""
    except FarmError as error:
        _refuse(FailureCategory.PORT_MISSING, str(error), "start the coordinator, or correct LG_COORDINATOR or `port`")
        trouble = ""
    _say(ended=trouble)
    return 0


def _keep(request: FarmRequest, wanted: _Wanted) -> str:
    """Have it until it is not wanted any more; what could not be given back. Raises FarmError, ImportError."""
    from pipeline.remote.farm_labgrid import open_session

    session = open_session(request.address, request.user, wanted.over)
    wanted.on_end = session.wake
    hold = FarmHold(session, request, FarmRecordFile(Path(request.record)), lambda text: _say(waiting=text))
    try:
        got = hold.acquire()
        if isinstance(got, FarmRefusal):
            _refuse(*got)
        else:
            _say(held=got._asdict())
            _until_unwanted(session, hold, wanted)
    finally:
        trouble = hold.give_back()
        session.close()
    return trouble


def _until_unwanted(session: FarmClient, hold: FarmHold, wanted: _Wanted) -> None:
    """Say so, once, when it is ours no longer."""
    while not wanted.over() and not session.ended and hold.lost_to() is None:
        session.wait(lambda: hold.lost_to() is not None, LOOK_S)
    if not wanted.over():
        taker = hold.lost_to()
        by = f"; {taker} has it now" if taker else ""
        _say(lost=f"the place was released by somebody else{by}" if taker is not None else session.ended)
    wanted.wait()


def _refuse(category: FailureCategory, message: str, hint: str) -> None:
    _say(refused={"category": category.value, "message": message, "hint": hint})


def _say(**what: Any) -> None:
    """Whoever asked may be gone."""
    with contextlib.suppress(OSError):
        os.write(1, json_text(what).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())
