"""A port whose board is reset by a command of the user's: for emulators, whose sockets carry no modem lines.

Wraps a pyserial-like port. Knows what DTR and RTS would do on a board with the usual two transistors; does not know the
loader, nor what the command does. Invariant: the command runs once each time that EN would rise, is over before the
line change returns, and is told `run` or `download` by what IO0 would be then; one that fails, or does not end, is a
failure with a name and leaves the port open for its owner to close.
"""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Any

from pipeline.errors import DeviceError
from pipeline.failures import fail
from pipeline.model import FailureCategory, Stage

MODE = "{mode}"
"""Stands for `run` or `download` in the command."""
PATIENCE_S = 15.0
_HINT = "run the command by hand: it must reset the board and exit with 0"


class CommandResetPort:
    """`port`, but for its modem lines. `command`: as in `device.NAME.reset`, behind the prefix; it is run in `root`,
    without a shell."""

    def __init__(self, port: Any, command: str, root: Path, where: str, patience_s: float = PATIENCE_S) -> None:
        self._port, self._root, self._where, self._patience_s = port, root, where, patience_s
        self._argv = shlex.split(command)
        self._dtr = self._rts = True
        self._held = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_") or name in ("dtr", "rts"):
            object.__setattr__(self, name, value)
        else:
            setattr(self._port, name, value)

    @property
    def name(self) -> str:
        """esptool changes no lines of a `socket:` port; this one has lines."""
        return f"rfc2217:{self._port.port}"

    @property
    def dtr(self) -> bool:
        return self._dtr

    @dtr.setter
    def dtr(self, value: bool) -> None:
        self._change(bool(value), self._rts)

    @property
    def rts(self) -> bool:
        return self._rts

    @rts.setter
    def rts(self, value: bool) -> None:
        self._change(self._dtr, bool(value))

    def setDTR(self, value: bool = True) -> None:
        self.dtr = value

    def setRTS(self, value: bool = True) -> None:
        self.rts = value

    def _change(self, dtr: bool, rts: bool) -> None:
        self._dtr, self._rts = dtr, rts
        if rts:
            # Both asserted is where one line has changed and the other is on its way: what holds EN on a board is slow.
            self._held = self._held or not dtr
        elif self._held:
            self._held = False
            self._run("download" if dtr else "run")

    def _run(self, mode: str) -> None:
        argv = [word.replace(MODE, mode) for word in self._argv]
        try:
            done = subprocess.run(
                argv,
                cwd=self._root,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=self._patience_s,
                check=False,
            )
        except OSError as error:
            raise self._failed(argv, f"cannot be started: {error.strerror}") from None
        except subprocess.TimeoutExpired:
            raise self._failed(argv, f"has not ended after {self._patience_s:g} s") from None
        if done.returncode:
            said = (done.stderr or done.stdout).decode(errors="replace").strip()
            raise self._failed(argv, f"exited with {done.returncode}" + (f": {said.splitlines()[-1]}" if said else ""))

    def _failed(self, argv: list[str], fact: str) -> DeviceError:
        message = f"the reset command '{shlex.join(argv)}' {fact}"
        return DeviceError(
            fail(FailureCategory.SYNC_FAILED, stage=Stage.VERIFY_FLASH, where=self._where, message=message, hint=_HINT)
        )
