"""Compiles on other machines: which may go there, with what, and whether what came back is what would be made here.

Knows commands, discovered inputs and the executor's protocol. Does not know transports or the cache. Invariants: a
compile is sent with exactly the files that the preprocessor of this machine reads for it now, and with those that
sources ask for otherwise; programs and headers that lie outside of the project are named with their SHA-256 and must be
the same there; what comes back counts only if it read the same files. So its bytes are those that would be made here,
and who made them is in no key. Whatever else happens, it is done here: a failure is believed only of this machine.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from cache.digest import Digest
from pipeline.effects.executor import HERE, FarCommand, FarResult, FarWork
from pipeline.engine.discovery import Discovery, Reported
from pipeline.engine.execution import TIMEOUT_S, Executed, Steps, made_files, placed_command, remove_files
from pipeline.engine.keys import Keyed
from pipeline.engine.observation import Observer
from pipeline.engine.workspace import Workspace
from pipeline.model import Action

_LAST = ("-MF", "-c", "-o")
"""How the words of our compiles end, each followed by a file."""


class FarCompiles:
    """For one `run` of the engine; called from several threads at once, more than this machine has cores. `far` None:
    nobody is there after all. `executed`: how many were done there."""

    def __init__(self, workspace: Workspace, observer: Observer, discovery: Discovery, far: FarWork | None) -> None:
        self._workspace, self._observer, self._discovery, self._far = workspace, observer, discovery, far
        self._turns_here = threading.BoundedSemaphore(max(1, workspace.host.jobs))
        self._lock = threading.Lock()
        self.executed = 0

    def cancel(self) -> None:
        """Give up what is under way there."""
        if self._far is not None:
            self._far.executor.cancel()

    def run(self, keyed: Keyed, here: Callable[[], Steps[Executed]]) -> Steps[Executed]:
        """There if that can be, else by `here`, of which no more run at once than this machine has cores."""
        far = self._far if may_go(keyed.action) else None
        done = self._there(keyed, far) if far is not None and far.executor.is_on() else None
        if done is not None:
            with self._lock:
                self.executed += 1
            return done
        with self._turns_here:
            return (yield from here())

    def _there(self, keyed: Keyed, far: FarWork) -> Executed | None:
        """None when it is to be done here; then nothing of it is left."""
        action = keyed.action
        programs = far.relied_on(action)
        if programs is None or self._workspace.steps.tools.get(action.argv[0]) is None:
            return None
        with self._turns_here:
            scanned = self._scanned(action)
        command = None if scanned is None else self._command(keyed, scanned, programs)
        if scanned is None or command is None:
            return None
        result = far.executor.execute(command, self._workspace.store.blobs)
        # That it fails is for this machine to say: there, a directory may lack that no file of it is read from.
        if result is None or result.exit_code:
            return None
        if not self._is_placed(action, result, scanned):
            remove_files(made_files(self._workspace, action))
            return None
        argv, _ = placed_command(self._workspace, action)
        return Executed(argv, result.stdout, result.stderr, result.duration_s)

    # --- what it reads --------------------------------------------------------------------------

    def _scanned(self, action: Action) -> Reported | None:
        """What the preprocessor reads; None when it finds that something is wrong."""
        argv, env = placed_command(self._workspace, action._replace(argv=_preprocessing(action)))
        try:
            done = self._workspace.host.runner.run(argv, cwd=self._workspace.root, env=env, timeout_s=TIMEOUT_S)
        except (OSError, TimeoutError):
            return None
        reported = self._discovery.from_depfile(action) if done.exit_code == 0 else ""
        return None if isinstance(reported, str) else reported

    def _command(self, keyed: Keyed, scanned: Reported, programs: Mapping[str, str]) -> FarCommand | None:
        """None when an input is not there as it was a moment ago."""
        action, candidate = keyed.action, scanned.candidate
        found = self._observer.identify_again(candidate, time.monotonic_ns())
        if found is not None:
            candidate = self._discovery.with_hidden(action, keyed.inputs, candidate, found)
            found = self._observer.identify_again(candidate, time.monotonic_ns())
        if found is None:
            return None
        same, inputs = dict(programs), dict[str, tuple[Digest, str]]()
        discovered = zip([path for path, _ in found.discovered], found.entries, strict=True)
        for path, entry in (*keyed.inputs, *discovered):
            place = self._workspace.resolve(path)
            if path.startswith(("/", "{")):
                same[place] = entry.sha256
            else:
                inputs[path] = (entry.digest, place)
        argv, env = placed_command(self._workspace, action, HERE)
        return FarCommand(argv, env, inputs, (*action.outputs, action.depfile), same)

    # --- what came back -------------------------------------------------------------------------

    def _is_placed(self, action: Action, result: FarResult, scanned: Reported) -> bool:
        """Are its outputs in place, and did it read what it was sent with?"""
        blobs = self._workspace.store.blobs
        said = blobs.read(result.outputs[action.depfile])
        if said is None:
            return False
        depfile = Path(self._workspace.resolve(action.depfile))
        depfile.write_bytes(said)
        reported = self._discovery.from_depfile(action)
        if isinstance(reported, str) or reported.candidate != scanned.candidate:
            return False
        depfile.write_bytes(said)  # it is removed by whoever reads it
        return all(
            blobs.materialize(result.outputs[path], self._workspace.resolve(path), executable=False) is not None
            for path in action.outputs
        )


def may_go(action: Action) -> bool:
    """Is it a compile by a command of ours, of which everything that it reads can be found out beforehand? `salt` says
    that its flags name files of this machine."""
    if action.count_as != "compiled" or action.statement is not None or action.salt or not action.depfile:
        return False
    return len(action.outputs) == 1 and action.argv[-6:-5] + action.argv[-4:-3] + action.argv[-2:-1] == _LAST


def _preprocessing(action: Action) -> tuple[str, ...]:
    """The words of a compile that goes no further than the depfile."""
    *before, _, source, o, _ = action.argv
    return (*before, "-E", source, o, os.devnull)
