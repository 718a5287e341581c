"""`doit lease`: have boards for a while, for one command or until Ctrl-C.

Knows leases and how to run a command under them; not doit, and no port. Invariant: when it ends, however that is, the
boards are free, or somebody has taken them over.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from pipeline.client.protocol import Holder
from pipeline.config.schema import DeviceConfig
from pipeline.device.leases import LEASE_VARIABLE
from pipeline.model import Failure
from pipeline.run.device_service import own_command
from pipeline.run.held_boards import HeldBoard, hold_board
from pipeline.run.project import Project

LOOK_S = 0.5
"""How often it looks whether a lease was taken over."""


def run(project: Project, command: Sequence[str]) -> int | Failure:
    """Lease the project's selected devices, then run `command` (none: wait for Ctrl-C, or until all are lost). Its exit
    code, or why a board cannot be had; then none is kept."""
    options = project.options
    holder = Holder(os.getpid(), own_command(), options.reason)
    leases: list[HeldBoard] = []
    try:
        for device in project.all_devices:
            got = hold_board(device, project.root, project.state_dir, holder, take=options.take, waiting=_waits)
            if isinstance(got, Failure):
                return got
            leases.append(got)
        names = ", ".join(map(_shown, project.all_devices, leases))
        print(f"leased: {names}", file=sys.stderr, flush=True)
        return _under(project, command, leases) if command else _until_stopped(project, leases)
    finally:
        for lease in leases:
            if trouble := lease.release():
                print(f"note: a place was not given back: {trouble}", file=sys.stderr)


def _waits(what: str) -> None:
    print(f"note: waiting for {what}", file=sys.stderr, flush=True)


def _shown(device: DeviceConfig, held: HeldBoard) -> str:
    place = held.place
    return device.name if place is None else f"{device.name} (place {place.held.place}, board at {place.held.shown})"


def _under(project: Project, command: Sequence[str], leases: Sequence[HeldBoard]) -> int:
    from pipeline.effects.process import run_shown

    inherited = os.environ.get(LEASE_VARIABLE, "")
    os.environ[LEASE_VARIABLE] = ",".join([*(lease.token for lease in leases), *([inherited] if inherited else [])])
    try:
        code = run_shown(command, project.root)
    except OSError as error:
        print(
            f"{command[0]}: error: cannot be started: {error.strerror}\nhint: check its name and PATH", file=sys.stderr
        )
        return 1
    return code if code >= 0 else 128 - code


def _until_stopped(project: Project, leases: Sequence[HeldBoard]) -> int:
    """Wait for SIGINT or SIGTERM: they are taken from a wait with a deadline, so that none can be missed."""
    stops = [signal.SIGINT, signal.SIGTERM]
    if not hasattr(signal, "sigtimedwait"):
        return _until_interrupted(project, leases)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    try:
        while signal.sigtimedwait(stops, LOOK_S) is None:
            if (lost := _lost(project, leases)) is not None:
                return lost
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return 0


def _until_interrupted(project: Project, leases: Sequence[HeldBoard]) -> int:
    import threading

    never = threading.Event()
    try:
        while not never.wait(LOOK_S):
            if (lost := _lost(project, leases)) is not None:
                return lost
    except KeyboardInterrupt:
        pass
    return 0


def _lost(project: Project, leases: Sequence[HeldBoard]) -> int | None:
    """1 when a lease was taken over, told to people."""
    for device, lease in zip(project.all_devices, leases, strict=True):
        lost = lease.lost(device.where)
        if lost is not None:
            print(f"{lost.line()}\nhint: {lost.hint}", file=sys.stderr)
            return 1
    return None


def words(argv: Sequence[str]) -> list[str]:
    """The command after `--`, which doit does not hand on whole: it keeps words of the form KEY=VALUE for itself."""
    return list(argv[argv.index("--") + 1 :]) if "--" in argv else []
