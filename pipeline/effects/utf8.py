"""Begin this process again in Python's UTF-8 mode, where the locale's encoding cannot hold the names of files.

Paths in deploy.toml are UTF-8 on every machine. Invariant: nothing was read or written before.
"""

from __future__ import annotations

import os
import sys


def ensure_utf8() -> None:
    """Return if files are named in UTF-8 here; otherwise replace this process by the same one in UTF-8 mode (PEP 540),
    once."""
    if sys.getfilesystemencoding() == "utf-8" or sys.flags.utf8_mode or not hasattr(sys, "orig_argv"):
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, "PYTHONUTF8": "1"})
