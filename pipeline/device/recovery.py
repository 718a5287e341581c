"""Bring back a board whose loader does not answer: one remedy after the other, the mildest first.

Knows ports, lines and loaders; what is tried in which order, and what a person does last, is `remedies.py`. Only
reached when the entry that every deploy begins with has failed, so that a healthy board pays nothing for it.
Invariants: nothing is written to flash (all that is sent are lines, a wish to the firmware to restart, and the loader's
sync and identity commands); each remedy ends at its limit, plus at most one call of the port; an identity counts when
it was read twice alike.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.config.schema import DeviceConfig
from pipeline.device import connect as connecting
from pipeline.device.connect import AGAIN, CLASSIC, GARBLED, INSTANT, USB, Loader, Step, fact_of, gone
from pipeline.device.flash_baud import ROM_BAUD
from pipeline.device.ports import reopen, reset_of
from pipeline.device.remedies import (
    COMMAND_S,
    LIMIT_S,
    PATIENCE_S,
    Attempt,
    BoardPlace,
    Remedy,
    RemedyResult,
    needs_hands,
    reasons_of,
    tried,
)
from pipeline.device.rom_loader import LoaderError, OtherChip, RomLoader, SecureDownload, reads, set_timeout
from pipeline.device.serial_link import LOADER_TIMEOUT_S
from pipeline.device.timed_port import TimedPort, TimeIsUp
from pipeline.errors import DeviceError
from pipeline.failures import fail
from pipeline.model import Failure, FailureCategory, Reason, Stage

LONG: tuple[Step, ...] = ((False, True, 0.25), (True, False, 0.25), (False, False, 0.0))
"""As CLASSIC, for a board whose capacitor at EN is ten times the usual one."""

AT_ONCE: tuple[Step, ...] = tuple((dtr, rts, 0.0) for dtr, rts, _ in USB)

OTHERWISE: dict[str, tuple[tuple[tuple[Step, ...], str], ...]] = {
    "classic": ((LONG, "classic"), (USB, "usb")),
    "usb": ((USB, "usb"), (CLASSIC, "classic")),
    "instant": ((INSTANT, "instant"), (AT_ONCE, "usb")),
}
"""By a device's `reset`: what the reset line is asked instead, and the kind of port that this is right for. Behind an
RFC 2217 server nobody can see that a port is the chip's own USB."""

SLOWER = (57600, 19200)
"""Rates at which the ROM is called where the line may not take its usual one; it measures the rate of a sync."""

ASK_S, TELL_S = 0.8, 0.4
"""How long the firmware is waited for: after the question, and after the keys."""

REBOOT_ID = "hotplate-recover"
REBOOT = b'\n{"jsonrpc":"2.0","id":"%s","method":"reboot"}\n' % REBOOT_ID.encode()
RESTART_KEYS = b"\x03\x03\x04"
"""Ctrl-C twice, Ctrl-D: a soft reset of MicroPython and its relatives."""

LOOK_EVERY_S = 0.05
AGAIN_EVERY_S = 0.2

PowerSwitch = Callable[[Sequence[str], float], str]
"""Run a command within that many seconds; why it failed, `""` when it did not."""


class NoRemedy(RuntimeError):
    """This one did not help; the text says why."""


class Surroundings(NamedTuple):
    """What a recovery works with: the size of flash that a board is taken to have, the clock of the device, when this
    began on it, and what runs the command of `power`. `patient`: also wait for a port that is not there."""

    flash_size: int
    now: Callable[[], float]
    began_s: float
    power: PowerSwitch
    patient: bool = False


class Recovery:
    """For one device and one deploy; what was tried is in `attempts`."""

    def __init__(self, device: DeviceConfig, around: Surroundings) -> None:
        self._device = device
        self._around = around
        self._powered = False
        self.attempts: list[Attempt] = []

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """For the report."""
        return reasons_of(self.attempts)

    # --- a port that is not there ---------------------------------------------------------------

    def open(self, open_port: Callable[[], Any], refused: DeviceError) -> Any:
        """The port, after waiting for it or switching its power. Raises the last DeviceError, with what was tried."""
        if refused.failure.category is not FailureCategory.PORT_MISSING:
            raise refused
        last = refused
        steps: list[tuple[Remedy, float, Callable[[], None]]] = []
        if self._around.patient:
            steps.append((Remedy.REENUMERATE, PATIENCE_S, lambda: None))
        if self._device.power:
            steps.append((Remedy.POWER_CYCLE, LIMIT_S[Remedy.POWER_CYCLE], self._switch))
        for remedy, limit_s, act in steps:
            began_s = self._around.now()
            fact = ""
            try:
                act()
                while self._around.now() < began_s + limit_s:
                    try:
                        port = open_port()
                    except DeviceError as error:
                        last, fact = error, error.failure.message
                        if error.failure.category is not FailureCategory.PORT_MISSING:
                            raise  # it is there: busy, not permitted, ambiguous
                        time.sleep(AGAIN_EVERY_S)
                        continue
                    self._note(remedy, RemedyResult.WORKED, began_s, "the port is there")
                    return port
            except NoRemedy as error:
                fact = str(error)
            self._note(remedy, RemedyResult.FAILED, began_s, fact)
        failure = last.failure
        if self.attempts:
            failure = failure._replace(message=f"{failure.message} ({tried(self.attempts)})", detail=self._told())
        raise DeviceError(failure)

    # --- a loader that does not answer ----------------------------------------------------------

    def climb(self, port: Any, error: Exception) -> Loader:
        """A loader on the open `port`, whose usual entry failed with `error`. Raises DeviceError when nothing helped,
        and at once what `connect.connect` raises for another chip or a protected one."""
        self._note(Remedy.LOADER_ENTRY, RemedyResult.FAILED, self._around.began_s, fact_of(error))
        for remedy, limit_s in LIMIT_S.items():
            began_s = self._around.now()
            unable = self._unable(remedy, port)
            if unable:
                self._note(remedy, RemedyResult.SKIPPED, began_s, unable)
                continue
            timed = TimedPort(port, self._around.now, began_s + limit_s)
            try:
                loader = self._try(remedy, timed)
            except (OtherChip, SecureDownload):
                raise
            except (RuntimeError, OSError, *GARBLED) as failed:
                self._note(remedy, RemedyResult.FAILED, began_s, fact_of(failed))
                continue
            finally:
                with contextlib.suppress(OSError):
                    set_timeout(port, LOADER_TIMEOUT_S)
            self._note(remedy, RemedyResult.WORKED, began_s, f"the loader answers at {port.baudrate} baud")
            return loader
        raise DeviceError(self._failure(port, error))

    def _try(self, remedy: Remedy, port: TimedPort) -> Loader:
        match remedy:
            case Remedy.SOFT_RESET:
                return self._soft_reset(port)
            case Remedy.RESET_LINE:
                return self._reset_line(port)
            case Remedy.OTHER_BAUD:
                return self._other_baud(port)
            case Remedy.REENUMERATE:
                self._reopened(port)
                return self._enter(port, AGAIN[self._reset(port)], self._reset(port))
            case Remedy.POWER_CYCLE:
                return self._power_cycle(port)
        raise AssertionError(f"{remedy} is no remedy of the table [this is a bug]")

    def _unable(self, remedy: Remedy, port: Any) -> str:
        """Why this port, board or configuration does not allow the remedy; `""` if it does."""
        away = not port.is_open or gone(port)
        match remedy:
            case Remedy.POWER_CYCLE:
                if self._powered:
                    return "the power was switched already"
                return "" if self._device.power else "deploy.toml has no `power` command for this device"
            case Remedy.REENUMERATE:
                return "" if away or not hasattr(port, "rejoin") else "the service keeps the port open, and it is there"
            case Remedy.OTHER_BAUD if self._reset(port) == "usb":
                return "the chip's own USB has no rate"
            case Remedy.OTHER_BAUD if self._device.port.startswith("socket:"):
                return "a socket has no rate"
        return "the port is not there" if away else ""

    def _soft_reset(self, port: TimedPort) -> Loader:
        """Ask whatever runs to restart, by JSON-RPC or by the keys of a REPL, and enter the loader then."""
        port.baudrate = self._device.monitor_baud
        try:
            port.reset_input_buffer()
            port.write(REBOOT)
            heard = self._listen(port, ASK_S)
            if not heard:
                raise NoRemedy("the firmware says nothing")
            if REBOOT_ID.encode() not in heard:
                port.write(RESTART_KEYS)
                self._listen(port, TELL_S)
        finally:
            with contextlib.suppress(OSError, RuntimeError):
                port.real.baudrate = ROM_BAUD
        return self._enter(port, AGAIN[self._reset(port)], self._reset(port))

    def _listen(self, port: TimedPort, seconds: float) -> bytes:
        """What comes in that time, or until the answer does."""
        end_s, heard = self._around.now() + seconds, b""
        while (left_s := end_s - self._around.now()) > 0 and REBOOT_ID.encode() not in heard:
            port.timeout = left_s
            heard = (heard + port.read(max(1, port.in_waiting)))[-4096:]
        return heard

    def _reset_line(self, port: TimedPort) -> Loader:
        """Pull the lines for longer, then as for the other kind of port."""
        last = ""
        for sequence, kind in OTHERWISE[self._reset(port)]:
            try:
                return self._enter(port, sequence, kind)
            except (OtherChip, SecureDownload, TimeIsUp):
                raise
            except (RuntimeError, *GARBLED) as error:
                last = fact_of(error)
        raise NoRemedy(last)

    def _other_baud(self, port: TimedPort) -> Loader:
        """Call a loader that was left at the flashing rate, then the ROM at rates that a bad line may take."""
        reset, last = self._reset(port), ""
        left = ((self._device.baud, ()),) if self._device.baud != ROM_BAUD else ()
        for baud, sequence in (*left, *((baud, AGAIN[reset]) for baud in SLOWER)):
            try:
                port.baudrate = baud
                return self._enter(port, sequence, reset)
            except (OtherChip, SecureDownload):
                raise
            except (RuntimeError, *GARBLED) as error:
                last = f"at {baud} baud: {fact_of(error)}"
                with contextlib.suppress(OSError):
                    port.real.baudrate = ROM_BAUD
                if isinstance(error, TimeIsUp):
                    break
        raise NoRemedy(last)

    def _reopened(self, port: TimedPort) -> None:
        """Open the port anew, wherever the board is now. Raises OSError when it does not come back in time."""
        while True:
            try:
                reopen(port.real)
                return
            except OSError:
                if port.left_s <= LOOK_EVERY_S:
                    raise
            self._pause(port.real, LOOK_EVERY_S)

    def _power_cycle(self, port: TimedPort) -> Loader:
        """Switch the power off and on, and look for the board. A port that is open while its power goes comes back
        under another name, so it is closed before."""
        if not hasattr(port.real, "rejoin"):
            with contextlib.suppress(OSError):
                port.real.close()
        self._switch(port.real)
        while True:
            try:
                if not port.real.is_open or gone(port.real):
                    self._reopened(port)
                return self._enter(port, AGAIN[self._reset(port)], self._reset(port))
            except (OtherChip, SecureDownload):
                raise
            except (RuntimeError, OSError, *GARBLED):
                if port.left_s <= AGAIN_EVERY_S:
                    raise
            self._pause(port.real, AGAIN_EVERY_S)

    def _switch(self, port: Any = None) -> None:
        """Run the command of `power`. Raises NoRemedy."""
        self._powered = True
        name = self._device.port if self._device.port != "auto" or port is None else str(port.port)
        argv = [word.replace("{port}", name) for word in self._device.power]
        problem = self._around.power(argv, COMMAND_S)
        if problem:
            raise NoRemedy(f"{argv[0]}: {problem}")

    # --- into the loader ------------------------------------------------------------------------

    def _enter(self, port: TimedPort, sequence: Sequence[Step], reset: str) -> Loader:
        """Play the lines, sync, and read the identity twice; the loader that is returned is on the port itself."""
        chip, size = self._device.chip, self._around.flash_size
        port.reset_input_buffer()
        connecting.play(port, sequence)
        if reads(chip) and reset != "usb":
            rom = RomLoader(port, chip)
            rom.sync()
            found = connecting.identified(rom)
            if connecting.identified(rom) != found:
                raise LoaderError("garbled answers: two identities that differ")
            answering = RomLoader(port.real, chip)
            answering.commands = rom.commands
            return Loader(answering, connecting.facts_of(found, chip, size))
        esp = connecting.esptool_loader(port, chip, reset)
        esp.connect(mode="no-reset", attempts=1, detecting=True, warnings=False)
        facts = connecting.identify(esp, chip, size)
        if connecting.identify(esp, chip, size) != facts:
            raise LoaderError("garbled answers: two identities that differ")
        taken = connecting.esptool_loader(port.real, chip, reset)
        taken.commands = esp.commands
        taken._post_connect()
        return Loader(taken, facts)

    def _reset(self, port: Any) -> str:
        return reset_of(self._device, port)

    def _pause(self, port: Any, seconds: float) -> None:
        """On the board's clock, where it has one of its own."""
        clock = getattr(port, "clock", None)
        (time.sleep if clock is None else clock.wait)(seconds)

    # --- what is said ---------------------------------------------------------------------------

    def _note(self, remedy: Remedy, result: RemedyResult, began_s: float, fact: str) -> None:
        self.attempts.append(Attempt(remedy, result, max(0.0, self._around.now() - began_s), fact))

    def _told(self) -> str:
        return "\n".join(attempt.line() for attempt in self.attempts)

    def _failure(self, port: Any, error: Exception) -> Failure:
        usb = getattr(port, "usb", None)
        location, native = (usb.location, usb.native) if usb is not None else ("", self._reset(port) == "usb")
        vanished = not port.is_open or gone(port)
        name = self._device.port if self._device.port != "auto" else str(port.port)
        text = f"the port vanished: {fact_of(error)}" if vanished else f"no loader: {fact_of(error)}"
        return fail(
            FailureCategory.PORT_MISSING if vanished else FailureCategory.SYNC_FAILED,
            stage=Stage.VERIFY_FLASH,
            where=self._device.where,
            message=f"{text} ({tried(self.attempts)})",
            hint=needs_hands(self._device.chip, BoardPlace(name, location, native, vanished)),
            detail=self._told(),
        )
