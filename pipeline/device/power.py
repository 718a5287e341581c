"""The command of `power` in deploy.toml, which switches a board's power off and on.

Knows processes; not what the command does. Invariant: it has ended, or was killed, when its time is up.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.effects.api import ProcessRunner


def power_switch(runner: ProcessRunner, root: Path) -> Callable[[Sequence[str], float], str]:
    """What runs such a command, in `root` and with our environment: why it failed, `""` when it did not. Its program is
    a name on PATH, a path (relative to `root`), or `python`, the interpreter that runs us."""

    def switch(argv: Sequence[str], timeout_s: float) -> str:
        program = _program(argv[0], root)
        if program is None:
            return "no such program"
        try:
            done = runner.run([program, *argv[1:]], cwd=root, env=dict(os.environ), timeout_s=timeout_s)
        except TimeoutError:
            return f"did not end within {timeout_s:g} s"
        except OSError as error:
            return error.strerror or str(error)
        if done.exit_code == 0:
            return ""
        said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
        return f"ended with {done.exit_code}" + (f": {said[-1][:200]}" if said else "")

    return switch


def _program(word: str, root: Path) -> str | None:
    if word == "python":
        return sys.executable
    return shutil.which(str(root / word) if "/" in word else word)
