"""The boards of a project: their ports, sessions with them, and what is known of each.

Puts real ports and esptool behind the protocols that the stages see. Does not decide what is compared or written,
records nothing of a run and does not know doit. Invariant: making it opens no port; whatever was opened for a device is
let go of by `let_go` or `close`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.effects.api import Answers, FlashSession, Reader, SerialLink
from pipeline.errors import DeployError, DeviceError
from pipeline.events import PhasePart
from pipeline.model import Failure, Reason
from pipeline.run.build import Build
from pipeline.run.lent_ports import LentPorts

if TYPE_CHECKING:
    from pipeline.client.holder import Holder
    from pipeline.config.schema import DeviceConfig
    from pipeline.device.connect import Loader
    from pipeline.device.recovery import Recovery
    from pipeline.device.serial_link import PortLink
    from pipeline.effects.clock import SystemClock
    from pipeline.flash_model import Image
    from pipeline.run.held_boards import HeldBoard
    from pipeline.stages.handover import Journal


class _Holder:
    """Who holds a device's port: a session, or a link and perhaps a reader on it."""

    def __init__(
        self, session: FlashSession | None = None, link: SerialLink | None = None, reader: Reader | None = None
    ) -> None:
        self.session = session
        self.link = link
        self.reader = reader

    def close(self) -> None:
        if self.reader is not None:
            self.reader.stop()
        if self.link is not None:
            self.link.close()
        if self.session is not None:
            self.session.close()


class DeviceService:
    """`tx_of` gives the transaction of a device in this run, "" where there is none; `measured` takes what is worth
    knowing on its own of the time that a device took; `clock_of` gives a device's clock."""

    def __init__(
        self,
        build: Build,
        tx_of: Callable[[str], str] = lambda device: "",
        measured: Callable[[str, PhasePart], None] = lambda device, part: None,
        clock_of: Callable[[str], SystemClock] | None = None,
    ) -> None:
        self.build = build
        self.project = build.project
        self._clock_of = clock_of or (lambda device: build.clock)
        self._tx_of = tx_of
        self._asked = 0
        self._lent = LentPorts(build.project.root, build.notice, measured, autostart=build.config.service.autostart)
        self._holders: dict[str, _Holder] = {}
        self._leases: dict[str, HeldBoard] = {}

    # --- ports and sessions ---------------------------------------------------------------------

    def open_session(self, device: DeviceConfig, recovery: Recovery | None = None) -> FlashSession:
        """A loader session with the board, on the port of the device's link if that is open; where its loader does not
        answer, `recovery` is tried. Raises DeviceError."""
        from pipeline.device import session
        from pipeline.device.ports import reset_of
        from pipeline.device.serial_link import PortLink

        taken = self._lease(device)
        held = self._holders.pop(device.name, _Holder()).link
        began_s = self._clock_of(device.name).now_s()

        def recover(port: Any, error: Exception) -> Loader:
            nonlocal recovery
            recovery = recovery or self.recovery(device, began_s)
            return recovery.climb(port, error)

        try:
            port = held.give_port() if isinstance(held, PortLink) else self._open_port(device)
        except DeviceError as error:
            if recovery is None and not device.power:
                raise
            recovery = recovery or self.recovery(device, began_s)
            port = recovery.open(lambda: self._open_port(device), error)
        opened = session.connect(
            port,
            device.chip,
            device.where,
            lambda: self._link(device, port),
            self.project.config.flash.size_bytes,
            reset_of(device, port),
            device.baud,
            recover=recover,
            known=self.last_mac(device).lower(),
        )
        opened.reasons = (*taken, *(recovery.reasons if recovery is not None else ()), *opened.reasons)
        self._holders[device.name] = _Holder(session=opened)
        return opened

    def recovery(self, device: DeviceConfig, began_s: float | None = None, *, patient: bool = False) -> Recovery:
        """What can be tried for a board that does not answer, since `began_s` on its clock (default: now)."""
        from pipeline.device.power import power_switch
        from pipeline.device.recovery import Recovery, Surroundings

        now = self._clock_of(device.name).now_s
        switch = power_switch(self.build.runner, self.project.root)
        size = self.project.config.flash.size_bytes
        return Recovery(device, Surroundings(size, now, now() if began_s is None else began_s, switch, patient))

    def open_link(self, device: DeviceConfig, *, reset: bool) -> PortLink:
        """The device's port for a monitor, without a loader session. Raises DeviceError."""
        self._lease(device)
        link = self._link(device, self._open_port(device))
        self._holders[device.name] = _Holder(link=link)
        link.set_baud(device.monitor_baud)
        if reset:
            link.release_reset()
        return link

    def into_monitor(self, device: DeviceConfig, session: FlashSession) -> SerialLink:
        """The session's port at the monitor's baud; the session is spent."""
        link = session.into_monitor(device.monitor_baud)
        self._holders[device.name] = _Holder(link=link)
        return link

    def reader(self, device: DeviceConfig, link: SerialLink) -> Reader:
        """A reader on the device's link, not started."""
        from pipeline.device.serial_link import PortLink, reader_for

        assert isinstance(link, PortLink)
        reader = reader_for(link)
        self._holders[device.name] = _Holder(link=link, reader=reader)
        return reader

    def let_go(self, device: DeviceConfig) -> None:
        """Close the device's port, whatever holds it."""
        self._holders.pop(device.name, _Holder()).close()

    def lease_token(self, device: DeviceConfig) -> str:
        """What lets a child process use the board while it is ours; `""`: it is not."""
        lease = self._leases.get(device.name)
        return "" if lease is None else lease.token

    def done_with(self, device: DeviceConfig) -> None:
        """Let go of the device's port and of its lease."""
        try:
            self.let_go(device)
        finally:
            self._lent.returned(device.name)
            self._give_back(self._leases.pop(device.name, None))

    def close(self) -> None:
        """Let go of every port, and of the boards."""
        try:
            while self._holders:
                self._holders.popitem()[1].close()
        finally:
            self._lent.close()
            while self._leases:
                self._give_back(self._leases.popitem()[1])

    def _give_back(self, held: HeldBoard | None) -> None:
        if held is not None and (trouble := held.release()):
            self.build.notice(f"note: the board's place was not given back: {trouble}")

    def _lease(self, device: DeviceConfig) -> tuple[Reason, ...]:
        """Have the board to ourselves until `close`; why that is news, if it is. Raises DeviceError when somebody else
        has leased it."""
        from pipeline.run.held_boards import hold_board

        lease = self._leases.get(device.name)
        if lease is not None:
            lost = lease.lost(device.where)
            if lost is not None:
                raise DeviceError(lost)
            return ()
        options = self.project.options
        got = hold_board(
            device,
            self.project.root,
            self.project.state_dir,
            self._holder(),
            take=options.take,
            waiting=lambda what: self.build.notice(f"note: {device.name}: waiting for {what}"),
        )
        if isinstance(got, Failure):
            raise DeviceError(got)
        self._leases[device.name] = got
        return got.reasons(device.name)

    def _holder(self, tx: str = "", since_at: str = "") -> Holder:
        """Who this run is to others."""
        from pipeline.client.holder import Holder

        return Holder(os.getpid(), own_command(), self.project.options.reason, tx, since_at)

    def _open_port(self, device: DeviceConfig) -> Any:
        from pipeline.device.ports import open_port

        options = self.project.options
        holder = self._holder(self._tx_of(device.name), self._clock_of(device.name).utc())
        lent = self._lent.borrow(device, self.last_mac(device), holder, take=options.take)
        if lent is not None:
            return lent
        root, size = self.project.root, self.project.config.flash.size_bytes
        held = self._leases.get(device.name)
        if held is not None and held.port:
            device = device._replace(name=f"{device.name} ({device.port})", port=held.port)
        port = open_port(device.name, device, root, self._clock_of(device.name), size)
        if device.is_virtual:
            self._lent.tell_of(device, port, holder)
        return port

    def _link(self, device: DeviceConfig, port: Any) -> PortLink:
        from pipeline.device.ports import reopen, reset_of
        from pipeline.device.serial_link import PortLink

        virtual = device.is_virtual
        return PortLink(
            port,
            device.port,
            device.where,
            self._clock_of(device.name).now_s,
            real_time=not virtual,
            reopen=lambda: reopen(port),
            pause=port.clock.wait if virtual else time.sleep,
            usb_lines=reset_of(device, port) == "usb",
        )

    def ask(self, device: DeviceConfig, link: SerialLink, methods: Sequence[str], timeout_s: float) -> Answers:
        """Ask the running firmware over the device's open link, without a reset. Raises DeviceError."""
        from pipeline.device.rpc_client import ask

        self._asked += 1
        return ask(link, methods, f"{self._tx_of(device.name)[-6:] or 'hotplate'}-{self._asked}", timeout_s)

    # --- what is known of a board ---------------------------------------------------------------

    def last_mac(self, device: DeviceConfig) -> str:
        """The MAC that this device must have: of the configuration, else of the board that its loader named last."""
        return self.project.last_mac(device)

    def board_changed(self, device: DeviceConfig, mac: str) -> tuple[Reason, ...]:
        """Remember which board this device is; why that is news, if it is."""
        from cache.durable import write_atomic

        last = self.last_mac(device)
        if last == mac:
            return ()
        with contextlib.suppress(OSError):
            write_atomic(self.project.mac_file(device), f"{mac}\n".encode(), durable=False)
        return (Reason("board-changed", device.name, last, mac),) if last else ()

    def reference(self, journal: Journal, image: Image) -> bytes | None:
        """The image that was last committed to this board under this name and offset, if the store still has it."""
        from cache.digest import Digest
        from cache.store import Store

        last = journal.state.committed.get(image.name)
        if last is None or last.offset != image.offset:
            return None
        with contextlib.suppress(OSError):
            store = Store(self.project.cache_dir, self.project.config.cache.max_bytes)
            return store.blobs.read(Digest(last.sha256, last.size))
        return None

    def decoded(self, lines: Sequence[str], running: str = "") -> Sequence[str]:
        """The calls behind the last panic in `lines`. `running`: the app_elf_sha256 to assume if it names none."""
        from pipeline.device.elf_store import ElfStore
        from pipeline.device.symbolizer import decoded_panic

        with contextlib.suppress(DeployError):  # nothing was built here
            running = running or self.build.images.expected_elf()
        kept = ElfStore(self.project.root, self.project.state_dir, self.project.cache_dir)
        return decoded_panic(lines, kept, running)


def own_command() -> str:
    """How this process is named to others."""
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:80]
