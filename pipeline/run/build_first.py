"""`[prebuilt] build`: let the firmware's own build run before anything of it is read.

Shows its output as it comes, and removes nothing that it made. Nobody can tell from outside what such a command reads,
so it runs each time: a build that has nothing to do says so itself. Does not know what the build is. Invariant: two
runs of a project never build at the same time, and the command does not outlive this process.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.effects.process import run_shown
from pipeline.failures import fail
from pipeline.model import Failure, FailureCategory
from pipeline.run.lock import ProjectLock
from pipeline.toolchain.user_actions import PYTHON


def build_first(
    root: Path, state_dir: Path, argv: Sequence[str], where: str, *, to_stderr: bool = False
) -> Failure | None:
    """Run the command, which stands at `where`, in `root`; why there is no firmware to read now. `to_stderr`: stdout is
    for events."""
    path = _program(root, argv[0])
    if path is None:
        message = f"the program '{argv[0]}' is not on PATH"
        hint = "install it, or activate its environment (ESP-IDF: . export.sh), or write its path within the project"
        return fail(FailureCategory.TOOLCHAIN_MISSING, stage=None, where=where, message=message, hint=hint)
    lock = ProjectLock(root, state_dir)
    busy = lock.acquire(lambda text: print(text, file=sys.stderr), lambda: False)
    if busy is not None:
        return busy
    sys.stdout.flush()
    try:
        code = run_shown([path, *argv[1:]], root, to_stderr=to_stderr)
    except OSError as error:
        message = f"{path} cannot be run: {error.strerror}"
        return fail(FailureCategory.TOOLCHAIN_MISSING, stage=None, where=where, message=message)
    finally:
        lock.release()
    if code == 0:
        return None
    how = f"exit code {code}" if code > 0 else f"signal {-code}"
    message, hint = f"`{shlex.join(argv)}` ended with {how}", "correct what it reports above"
    return fail(FailureCategory.ACTION_FAILED, stage=None, where=where, message=message, hint=hint)


def _program(root: Path, word: str) -> str | None:
    """As in `[[action]]`: a program of the project (with a slash), this Python, or the first on PATH."""
    if "/" in word:
        return str(root / word)
    return sys.executable if word in PYTHON else shutil.which(word, path=os.environ.get("PATH", os.defpath))
