"""A place of a farm, held for this process by one of its own (`farm_keeper`), which gives it back however we end.

Knows what a keeper is asked and how it answers. Does not know gRPC, devices or leases. Invariant: after `acquire`
refused, or after `release`, nothing is held for us; a keeper that does not answer costs a deadline, never more.
"""

from __future__ import annotations

import getpass
import os
import platform
import time
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.effects.outliving import OutlivingProcess
from pipeline.model import FailureCategory
from pipeline.records import json_text, parse_json
from pipeline.remote.farm_values import FarmRefusal, FarmRequest, HeldPlace

KEEPER_S = 45.0
"""Beside the wait for a free place: start, connection, and what the coordinator gives an exporter."""
RELEASE_S = 20.0
"""How long giving a place back is waited for; its keeper goes on by itself."""


def farm_user(environment: Mapping[str, str] = os.environ) -> str:
    """Who we are to the coordinator: labgrid's `HOST/USER`, so that its own client knows us."""
    host = environment.get("LG_HOSTNAME", "") or platform.node()
    user = environment.get("LG_USERNAME", "")
    if not user:
        try:
            user = getpass.getuser()
        except (OSError, KeyError):  # a user id without a name
            user = str(os.getuid()) if hasattr(os, "getuid") else "user"
    return f"{host}/{user}"


class FarmPlace:
    """A place that is ours until `release`."""

    def __init__(self, keeper: OutlivingProcess, held: HeldPlace) -> None:
        self._keeper = keeper
        self.held = held
        self._lost = ""

    def lost(self) -> str:
        """Why it is ours no longer; `""`: it is."""
        while not self._lost and (line := self._keeper.line(0)) is not None:
            said = _read(line)
            self._lost = str(said.get("lost", "")) or ("" if line else "the process that held the place has ended")
        return self._lost

    def release(self) -> str:
        """Give it back; what could not be done, `""` if all was. Idempotent."""
        return _end(self._keeper)


def acquire(request: FarmRequest, waiting: Callable[[str], None]) -> FarmPlace | FarmRefusal:
    """Have the place that `request` names. `waiting` is told what is waited for."""
    value = {**request._asdict(), "tags": [list(each) for each in request.tags]}
    try:
        keeper = OutlivingProcess("pipeline.remote.farm_keeper", (), json_text(value).encode())
    except OSError as error:
        return _silent(f"the process that holds the place cannot be started: {error.strerror}")
    kept = False
    try:
        deadline_s = time.monotonic() + KEEPER_S + (request.wait_s if request.tags else 0.0)
        while line := keeper.line(max(0.0, deadline_s - time.monotonic())):
            said = _read(line)
            if "waiting" in said:
                waiting(str(said["waiting"]))
            if "refused" in said:
                refused = said["refused"]
                return FarmRefusal(FailureCategory(refused["category"]), refused["message"], refused["hint"])
            if "held" in said:
                kept = True
                return FarmPlace(keeper, HeldPlace(**said["held"]))
        fact = "the farm did not answer in time" if line is None else "the process that holds the place has ended"
        return _silent(fact)
    finally:
        if not kept:
            _end(keeper)


def _end(keeper: OutlivingProcess) -> str:
    keeper.close()
    deadline_s = time.monotonic() + RELEASE_S
    trouble = ""
    while line := keeper.line(max(0.0, deadline_s - time.monotonic())):
        trouble = str(_read(line).get("ended", trouble))
    if line is None:
        return f"the place was not given back within {RELEASE_S:g} s"
    keeper.ended(max(0.1, deadline_s - time.monotonic()))
    return trouble


def _silent(fact: str) -> FarmRefusal:
    return FarmRefusal(FailureCategory.PORT_MISSING, fact, "look at the place: labgrid-client places, then run again")


def _read(line: bytes) -> dict[str, Any]:
    try:
        value = parse_json(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
