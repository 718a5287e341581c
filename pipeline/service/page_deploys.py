"""Deploys as the page shows them: those that its button started, and those that others have under way.

Knows processes and event logs; not WebSockets, and nothing of how a deploy works. Invariants: a deploy is a process of
its own in the project's directory with the environment of whoever named the project last, so that the service's end
does not end it; what is told of it is what its event log says; at most one is started per device at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.client.protocol import DeviceRef
from pipeline.effects.run_log import SUFFIX
from pipeline.events import format_tx, is_tx
from pipeline.failures import fail
from pipeline.model import Failure, FailureCategory
from pipeline.run.transactions import RUNS
from pipeline.service.environments import Environments
from pipeline.service.project_reports import STATE_DIR
from pipeline.service.run_progress import LogTail, RunProgress
from pipeline.text import visible

POLL_S = 0.1
"""Between two looks at an event log that grows."""
GRACE_S = 5.0
"""How long the log of somebody else's deploy may be silent after its lease ended."""
MOST_OUTPUT = 200
"""Lines of a deploy's own output that are kept."""
MOST_LINE = 2000
KEPT = 16
"""Deploys that ended and are still told to a page that opens."""

Told = Callable[[dict[str, Any]], None]


class PageDeploys:
    """All of them. `tell` gets a deploy's whole state each time that it changed."""

    def __init__(self, environments: Environments, utc: Callable[[], str], tell: Told) -> None:
        self._environments = environments
        self._utc = utc
        self._tell = tell
        self._shown: dict[str, _Shown] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def states(self) -> list[dict[str, Any]]:
        """Of those under way and the last that ended, oldest first."""
        return [one.state() for one in self._shown.values()]

    def refusal(self, device: DeviceRef) -> Failure | None:
        """Why the button cannot deploy this device now."""
        if self._environments.of(device.root) is None:
            fact = "the service does not know the environment that this project is built with"
            return _failure(device, fact, "run `hotplate deploy` once in a terminal of the project")
        if any(one.device == device and one.process is not None and one.running for one in self._shown.values()):
            return _failure(device, "a deploy that was started here is under way", "wait for its end, or stop it")
        return None

    def start(self, device: DeviceRef) -> str | Failure:
        """Begin a deploy; its transaction id."""
        if (refusal := self.refusal(device)) is not None:
            return refusal
        environment = self._environments.of(device.root) or {}
        program = _program(environment)
        if program is None:
            return _failure(device, "there is no `hotplate` on the project's PATH", "install it in its environment")
        tx = format_tx(self._utc(), secrets.token_hex(3))
        try:
            process = _start(program, device, {**environment, "DEPLOY_TX_ID": tx})
        except OSError as error:
            fact = f"hotplate cannot be started in {device.root}: {error.strerror}"
            return _failure(device, fact, "look at the project's directory and PATH")
        self._follow(_Shown(device, tx, process))
        return tx

    def stop(self, tx: str) -> Failure | None:
        """What Ctrl-C does in a terminal; only for what was started here."""
        shown = self._shown.get(tx)
        if shown is None or shown.process is None or not shown.running:
            where = visible(tx[:40])
            return fail(
                FailureCategory.CONFIG_ERROR,
                stage=None,
                where=where,
                message="no deploy of this page with that transaction is under way",
                hint="stop it where it was started",
            )
        with contextlib.suppress(ProcessLookupError):
            shown.process.send_signal(signal.SIGINT)
        return None

    def notice(self, device: DeviceRef, tx: str) -> None:
        """The lease of this device is held by `tx`: follow it, if nobody does."""
        if not is_tx(tx) or tx in self._shown:
            return
        self._follow(_Shown(device, tx, None))

    def let_go(self, held: Mapping[str, DeviceRef]) -> None:
        """These transactions hold leases now; the others that are followed have GRACE_S to end."""
        for tx, shown in self._shown.items():
            shown.held = shown.process is not None or tx in held

    async def close(self) -> None:
        """Stop following; what was started goes on."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _follow(self, shown: _Shown) -> None:
        self._shown[shown.tx] = shown
        ended = [tx for tx, one in self._shown.items() if not one.running]
        for tx in ended[: max(0, len(self._shown) - KEPT)]:
            del self._shown[tx]
        self._tell(shown.state())
        task = asyncio.get_running_loop().create_task(self._until_end(shown))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _until_end(self, shown: _Shown) -> None:
        """Until its process ended; of somebody else's, until the log says its end or nobody writes it any more."""
        silent_s = 0.0
        while shown.under_way and silent_s < GRACE_S:
            moved = shown.look()
            if moved:
                self._tell(shown.state())
            silent_s = 0.0 if moved or shown.held else silent_s + POLL_S
            await asyncio.sleep(POLL_S)
        shown.end()
        self._tell(shown.state())


class _Shown:
    """One deploy: where its log is, and how it stands. `process` None: somebody else's."""

    def __init__(self, device: DeviceRef, tx: str, process: subprocess.Popen[bytes] | None) -> None:
        self.device = device
        self.tx = tx
        self.process = process
        self.running = True
        self.held = True
        """Is it ours, or does it hold the lease?"""
        self._progress = RunProgress(tx, device.name)
        self._output: deque[str] = deque(maxlen=MOST_OUTPUT)
        self._begun = b""
        self._tail = LogTail(Path(device.root) / STATE_DIR / RUNS / f"{tx}{SUFFIX}")

    @property
    def under_way(self) -> bool:
        return not self._progress.ended if self.process is None else self.process.poll() is None

    def look(self) -> bool:
        """Read what log and output have more; True when they had."""
        events = self._tail.read()
        for one in events:
            self._progress.hear(one)
        return self._read_output() or bool(events)

    def end(self) -> None:
        """Nothing comes any more."""
        while self.look():
            pass
        self.running = False
        if self.process is not None and self.process.stdout is not None:
            self._said([self._begun] if self._begun else [])
            self.process.stdout.close()

    def state(self) -> dict[str, Any]:
        """As the page gets it."""
        return {
            **self._progress.state(),
            "root": self.device.root,
            "running": self.running,
            "ours": self.process is not None,
            "exit_code": None if self.process is None else self.process.returncode,
            "output": list(self._output),
        }

    def _read_output(self) -> bool:
        if self.process is None or self.process.stdout is None or self.process.stdout.closed:
            return False
        try:
            data = os.read(self.process.stdout.fileno(), 1 << 16)
        except BlockingIOError:
            return False
        *lines, begun = (self._begun + data).split(b"\n")
        self._begun = begun[:MOST_LINE]
        self._said(lines)
        return bool(data)

    def _said(self, lines: Sequence[bytes]) -> None:
        """Its own output, which is for people."""
        self._output.extend(line[:MOST_LINE].decode("utf-8", "replace").rstrip("\r") for line in lines)


def _start(program: str, device: DeviceRef, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Not by asyncio, which would kill it at the end of the loop: a deploy that writes must be let alone."""
    process = subprocess.Popen(
        [program, "deploy", "--device", device.name],
        cwd=device.root,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    return process


def _program(environment: Mapping[str, str]) -> str | None:
    """The `hotplate` of whoever named the project, else the one beside this service."""
    found = shutil.which("hotplate", path=environment.get("PATH", os.defpath))
    own = Path(sys.executable).with_name("hotplate")
    return found or (str(own) if own.is_file() else None)


def _failure(device: DeviceRef, fact: str, hint: str) -> Failure:
    return fail(FailureCategory.CONFIG_ERROR, stage=None, where=f"device {device.name}", message=fact, hint=hint)
