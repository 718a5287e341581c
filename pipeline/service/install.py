"""The service as a unit of systemd's user manager: started with the session, and again when it died.

Knows the unit's text, where it lies and `systemctl --user`. Does not start anything itself. Invariant: what was done is
returned line by line, and what could not be done is a failure that says what to do by hand.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.failures import fail
from pipeline.model import Failure, FailureCategory

UNIT = "hotplate.service"
TIMEOUT_S = 60


def unit_path(environment: Mapping[str, str]) -> Path:
    """Where units of this user lie (XDG base directories)."""
    base = environment.get("XDG_CONFIG_HOME", "")
    return Path(base if base.startswith("/") else Path.home() / ".config") / "systemd/user" / UNIT


def unit_text(command: Sequence[str]) -> str:
    """The unit that runs `command`."""
    return f"""\
# Made by `doit serve --install`; `doit serve --uninstall` removes it.
[Unit]
Description=Hotplate, the owner of this user's serial ports

[Service]
Type=exec
ExecStart={" ".join(map(_quoted, command))}
Restart=on-failure
RestartSec=1

[Install]
WantedBy=default.target
"""


def _quoted(word: str) -> str:
    """A word of ExecStart: systemd.service(5), COMMAND LINES. `%` and `$` stand for something there."""
    text = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{text}"'


def install(command: Sequence[str], environment: Mapping[str, str]) -> list[str] | Failure:
    """Write the unit, and start it now and with each session. What was done, or why not."""
    path = unit_path(environment)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(unit_text(command))
    except OSError as error:
        return _no(f"{path} cannot be written: {error.strerror}", "make its directory writable")
    done = [f"wrote {path}"]
    for words in (("daemon-reload",), ("enable", UNIT), ("restart", UNIT)):
        failure = _systemctl(words, environment)
        if failure is not None:
            return failure._replace(detail="\n".join(done))
        done.append(f"ran systemctl --user {' '.join(words)}")
    return done


def uninstall(environment: Mapping[str, str]) -> list[str] | Failure:
    """Stop it, and remove the unit. What was done, or why not."""
    path = unit_path(environment)
    if not path.exists():
        return [f"nothing to do: there is no {path}"]
    failure = _systemctl(("disable", "--now", UNIT), environment)
    if failure is not None:
        return failure
    try:
        path.unlink()
    except OSError as error:
        return _no(f"{path} cannot be removed: {error.strerror}", "remove it by hand")
    done = [f"ran systemctl --user disable --now {UNIT}", f"removed {path}"]
    if _systemctl(("daemon-reload",), environment) is None:
        done.append("ran systemctl --user daemon-reload")
    return done


def _systemctl(words: Sequence[str], environment: Mapping[str, str]) -> Failure | None:
    command = ["systemctl", "--user", *words]
    try:
        done = subprocess.run(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError:
        return _no("there is no systemctl on this machine", "start `doit serve` by hand, or set [service] autostart")
    except (OSError, subprocess.TimeoutExpired) as error:
        return _no(f"`{' '.join(command)}` did not run: {error}", "run it by hand")
    if done.returncode == 0:
        return None
    said = (done.stderr or done.stdout).strip().splitlines()
    fact = f"`{' '.join(command)}` ended with {done.returncode}: {said[-1] if said else 'it said nothing'}"
    return _no(fact, "run it by hand in a session of this user, or start `doit serve` by hand")


def _no(message: str, hint: str) -> Failure:
    return fail(FailureCategory.CONFIG_ERROR, stage=None, where="serve", message=message, hint=hint)


def own_command() -> list[str]:
    """How this very installation is started as a service."""
    import sys

    return [os.path.abspath(sys.executable), "-m", "doit", "serve"]  # noqa: PTH100 - a venv's link must stay one
