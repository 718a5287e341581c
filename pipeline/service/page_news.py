"""What every open page is told as it happens: devices and their modules, deploys, new reports.

Lives in the service's loop; files are read in a worker thread. Does not know HTTP. Invariant: while no page is open
nothing is subscribed, polled or kept but one small object per project.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.client.protocol import DeviceRef, Holder
from pipeline.model import Failure
from pipeline.report.document import failure_json
from pipeline.service.access import RefusalCounts
from pipeline.service.environments import Environments
from pipeline.service.health_ear import HealthEar, ModulesHeard, modules_of_report
from pipeline.service.hub import Consoles, ConsoleState, Since, Subscription
from pipeline.service.page_deploys import PageDeploys
from pipeline.service.page_session import PageParts, PageSession
from pipeline.service.project_reports import ProjectReports

LOOK_S = 0.5
"""Between two looks at the devices."""
REPORTS_EVERY = 4
"""Looks at the devices per look at the files."""


class _Ear(NamedTuple):
    ear: HealthEar
    subscription: Subscription


class PageNews:
    """One for all pages. `open` and `close` a session; `run` for as long as the service lives."""

    def __init__(
        self,
        consoles: Consoles,
        environments: Environments,
        counts: RefusalCounts,
        now_s: Callable[[], float],
        utc: Callable[[], str],
    ) -> None:
        self._consoles = consoles
        self._counts = counts
        self._sessions: set[PageSession] = set()
        self._opened = asyncio.Event()
        self._ears: dict[str, _Ear] = {}
        self._of_reports: dict[str, ModulesHeard] = {}
        self._projects: dict[str, ProjectReports] = {}
        self._versions: dict[str, Any] = {}
        self.deploys = PageDeploys(environments, utc, self._deploy)
        self.parts = PageParts(consoles, self.deploys, counts, self.find, now_s)

    def open(self, session: PageSession) -> None:
        """A page was opened: it is told everything at once."""
        self._sessions.add(session)
        self._opened.set()
        session.tell("devices", self.devices())
        for state in self.deploys.states():
            session.tell(state["tx"], {"is": "deploy", "key": key_of(state["root"], state["device"]), **state})

    def close(self, session: PageSession) -> None:
        """Idempotent."""
        session.close()
        self._sessions.discard(session)

    @property
    def count(self) -> int:
        """Open pages."""
        return len(self._sessions)

    def find(self, key: str) -> DeviceRef | None:
        """The device of a key that a page was told."""
        found = (state.device for state in self._consoles.states())
        return next((one for one in found if key_of(one.root, one.name) == key), None)

    def reports(self, project: str) -> ProjectReports | None:
        """Of a project that some client has named."""
        for state in self._consoles.states():
            root = state.device.root
            if project_of(root) == project:
                return self._projects.setdefault(root, ProjectReports(root))
        return None

    def devices(self) -> dict[str, Any]:
        """All devices, as a page gets them."""
        rows = [self._device(state) for state in self._consoles.states()]
        return {"is": "devices", "devices": rows, "refused": self._counts.by_reason(), "pages": self.count}

    async def run(self) -> None:
        """Until it is cancelled."""
        try:
            while True:
                if not self._sessions:
                    self._deafen()
                    self._opened.clear()
                    await self._opened.wait()
                try:
                    await self._look()
                except Exception as error:
                    told = {"message": "the page cannot look at the devices", "exception": error}
                    asyncio.get_running_loop().call_exception_handler(told)
                    await asyncio.sleep(LOOK_S)
        finally:
            self._deafen()
            await self.deploys.close()

    # --- looking ------------------------------------------------------------------------------

    async def _look(self) -> None:
        """Some seconds of looking."""
        for _ in range(REPORTS_EVERY):
            if not self._sessions:
                return
            self._listen()
            states = self._consoles.states()
            held = {state.holder.tx: state.device for state in states if state.holder is not None and state.holder.tx}
            for tx, device in held.items():
                self.deploys.notice(device, tx)
            self.deploys.let_go(held)
            self._tell_all("devices", self.devices())
            await asyncio.sleep(LOOK_S)
        for state in self._consoles.states():
            await self._look_at_files(state.device)

    def _listen(self) -> None:
        for state in self._consoles.states():
            key = key_of(state.device.root, state.device.name)
            if key not in self._ears:
                ear = HealthEar()
                subscribed = self._consoles.subscribe(state.device, Since("boot"), ear)
                if not isinstance(subscribed, Failure):
                    self._ears[key] = _Ear(ear, subscribed)

    def _deafen(self) -> None:
        for one in self._ears.values():
            one.subscription.close()
        self._ears.clear()

    async def _look_at_files(self, device: DeviceRef) -> None:
        """Say that there are new reports."""
        key = key_of(device.root, device.name)
        reports = self._projects.setdefault(device.root, ProjectReports(device.root))
        version = await asyncio.to_thread(reports.version)
        if self._versions.get(key) == version:
            return
        self._versions[key] = version
        found = await asyncio.to_thread(reports.newest, device.name)
        with contextlib.suppress(KeyError, TypeError, AttributeError):  # a report of other hands
            heard = None if found is None else modules_of_report(found)
            if heard is not None:
                self._of_reports[key] = heard
        self._tell_all(f"reports {key}", {"is": "reports", "device": key})

    # --- telling ------------------------------------------------------------------------------

    def _tell_all(self, about: str, message: dict[str, Any]) -> None:
        for session in self._sessions:
            session.tell(about, message)

    def _deploy(self, state: dict[str, Any]) -> None:
        self._tell_all(state["tx"], {"is": "deploy", "key": key_of(state["root"], state["device"]), **state})

    def _device(self, state: ConsoleState) -> dict[str, Any]:
        device = state.device
        key = key_of(device.root, device.name)
        ear = self._ears.get(key)
        heard = (ear.ear.heard if ear is not None else None) or self._of_reports.get(key)
        refusal = self.deploys.refusal(device)
        return {
            "key": key,
            "project": project_of(device.root),
            "project_name": PurePath(device.root).name,
            "root": device.root,
            "name": device.name,
            "chip": device.chip,
            "mac": device.mac,
            "port": state.port or device.port,
            "state": state.state,
            "failure": state.failure and failure_json(state.failure),
            "holder": state.holder and _holder(state.holder),
            "elf": state.elf,
            "bytes_seen": state.bytes_seen,
            "bytes_dropped": state.bytes_dropped,
            "viewers": state.viewers,
            "modules": [] if heard is None else [one._asdict() for one in heard.modules],
            "modules_from": None if heard is None else {"source": heard.source, "current": heard.current},
            "cannot_deploy": refusal and failure_json(refusal),
        }


def _holder(holder: Holder) -> dict[str, Any]:
    return {**holder._asdict(), "text": holder.text}


def project_of(root: str) -> str:
    """A name for a project that says nothing of this machine and fits an address."""
    return hashlib.sha256(root.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def key_of(root: str, name: str) -> str:
    """A name for a device of a project."""
    return hashlib.sha256(f"{root}\0{name}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
