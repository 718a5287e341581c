"""Ask a program, or an installed distribution, for its version.

Knows `--version`, which nearly every program understands. Invariant: a program that does not answer within the time,
or fails, has the version `""`; that is no error, since its bytes identify it too.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence

TIMEOUT_S = 10.0


def ask_version(program: str) -> str:
    """The first line that `program --version` prints."""
    try:
        done = subprocess.run(
            [program, "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = done.stdout.decode("utf-8", "replace").splitlines() if done.returncode == 0 else []
    return lines[0].strip() if lines else ""


def printed(argv: Sequence[str], timeout_s: float = TIMEOUT_S) -> str | None:
    """What a command that only looks prints to stdout; None when it fails."""
    try:
        done = subprocess.run(list(argv), stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def said(argv: Sequence[str], environment: Mapping[str, str], timeout_s: float = TIMEOUT_S) -> str:
    """All that a command that only looks prints, to stdout and stderr, whether it likes what it was asked or not; `""`
    where it cannot be started or does not end."""
    try:
        done = subprocess.run(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            timeout=timeout_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "surrogateescape")


def distribution_version(name: str) -> str:
    """The version of an installed distribution; `""` when it is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def distribution_requires(name: str) -> list[str] | None:
    """The lines by which an installed distribution says what it needs; None when it is not installed."""
    from importlib.metadata import PackageNotFoundError, requires

    try:
        return requires(name) or []
    except PackageNotFoundError:
        return None
