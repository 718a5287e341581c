"""`hotplate` runs in the background, one at a time: started ahead, told what to do, cancelled, waited for.

Knows processes, not what the runs do. Invariant: a run and everything that it starts is in process groups that end with
this process, `kill -9` included; when its end is told nothing of it is left but a process that is being taken down.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pipeline.effects.end_told import told_end
from pipeline.effects.spawned import Group

CANCEL_S = 20.0
"""How long a cancelled run may take to let go of ports and children before it is killed."""


class BackgroundRun:
    """One `hotplate`. It has loaded its code and waits until `begin`."""

    def __init__(self, root: Path) -> None:
        """Start it in `root`, with this process's environment, stdout and stderr. Raises OSError."""
        self._group = Group()
        self._timer: threading.Timer | None = None
        self._end, told = os.pipe()
        try:
            argv = [sys.executable, "-m", "pipeline.editor.standby", str(told)]
            self._child = self._group.start_visible(argv, root, keep=[told])
        except BaseException:
            os.close(self._end)
            self._group.kill()
            raise
        finally:
            os.close(told)

    def begin(
        self, argv: Sequence[str], env: Mapping[str, str], ended: Callable[[int], None], look: Sequence[bytes] = ()
    ) -> None:
        """Run `hotplate argv...` with `env` on top of the environment; `ended(exit code)` is called from a thread.
        `look`: what is known to have moved (`fastpath.FirstLook.told`). One that died while it waited ends at once."""
        asked = {"argv": list(argv), "env": dict(env), "look": [os.fsdecode(field) for field in look]}
        line = json.dumps(asked) + "\n"
        assert self._child.stdin is not None
        with contextlib.suppress(BrokenPipeError), self._child.stdin as stdin:
            stdin.write(line.encode())
        threading.Thread(target=self._wait, args=(ended,), name="run", daemon=True).start()

    def cancel(self) -> None:
        """Ask it to end as Ctrl-C would: children killed, port free, report written. SIGTERM, since before a run has
        begun that ends the process without a word where SIGINT would print a traceback. Killed after CANCEL_S."""
        if self._timer is None:
            self._child.terminate()
            self._timer = threading.Timer(CANCEL_S, self._group.kill)
            self._timer.daemon = True
            self._timer.start()

    def discard(self) -> None:
        """End one that was never begun."""
        os.close(self._end)
        self._group.kill()
        self._child.communicate()

    def _wait(self, ended: Callable[[int], None]) -> None:
        code = told_end(self._end)
        if code is None:
            code = self._child.wait()
        if self._timer is not None:
            self._timer.cancel()
        # also what the run itself left behind
        self._group.kill()
        ended(code)
        self._child.wait()
