"""The devices of one process of tests: which may be used, the lease of each, deploys and monitors.

For the pytest plugin, whose words it does not know. Invariant: a device is only deployed to and opened while its lease
is held, and what this process deployed is trusted only while nobody else has had the board.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from cache.named_tuple import NamedTuple
from pipeline.config.schema import DeviceConfig
from pipeline.config.values import HOST
from pipeline.device.console import CallRefusal
from pipeline.errors import DeployError
from pipeline.livetest.conversation import Conversation, Met, containing
from pipeline.livetest.deploying import deploy_device
from pipeline.livetest.files import load_observed, load_scenario
from pipeline.livetest.host_build import MachineBuild
from pipeline.livetest.lease import LeasedBoard
from pipeline.livetest.pytest_child import DEPLOYED_VARIABLE
from pipeline.livetest.runner import LiveResult, Rules, run_scenario
from pipeline.livetest.scenario import Scenario
from pipeline.livetest.targets import BoardTarget, HostTarget, LiveTarget
from pipeline.model import Failure
from pipeline.run.build import Build
from pipeline.run.device_service import DeviceService
from pipeline.run.options import Options
from pipeline.run.project import Project, load_project

CALL_S = 2.0
LOOK_S = 0.05


class Unusable(Exception):
    """A device cannot be used, in words."""


class DeviceDisagrees(AssertionError):
    """The device did something else than the test says."""


class DeviceChoice(NamedTuple):
    """Names and groups; the union counts, the default device without any. `host` names the process of [host]."""

    devices: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


class Deployed(NamedTuple):
    """What runs on the device. `outcome` and `report` of the deploy, empty where this process made none;
    `app_elf_sha256` `""` where nobody asked."""

    outcome: str = ""
    report: Mapping[str, Any] = {}

    @property
    def app_elf_sha256(self) -> str:
        readiness: Mapping[str, Any] = self.report.get("readiness", {})
        return str(readiness.get("app_elf_sha256", ""))


class RpcFunction(Protocol):
    """`rpc("echo", ["x"], timeout_s=2.0)`: the result."""

    def __call__(self, method: str, params: Any = None, timeout_s: float = CALL_S) -> Any: ...


class LiveMonitor:
    """What a device says, for a test."""

    def __init__(self, device: str, talk: Conversation, boot_s: float, let_go: Callable[[], None]) -> None:
        self.device = device
        self.panic_expected = False
        self._talk, self._boot_s, self._let_go = talk, boot_s, let_go
        self._fresh = False

    @property
    def lines(self) -> Sequence[str]:
        """The last ones, without colours."""
        return tuple(self._talk.transcript)

    @property
    def panic(self) -> Sequence[str]:
        """The last panic since the reset, with the calls behind it."""
        return self._talk.panic

    @property
    def running(self) -> str:
        """`app_elf_sha256` of what runs, as far as it said."""
        return self._talk.running

    def reset(self) -> None:
        """Reset the device into its application."""
        self._talk.reset()
        self._fresh = True

    def send(self, text: str) -> None:
        """A line."""
        self._until_it_listens()
        self._talk.send(text)

    def expect(self, what: str | re.Pattern[str], timeout_s: float = CALL_S) -> Met:
        """The next line that holds the text, or that the expression matches. What comes before is passed over."""
        __tracebackhide__ = True
        self._talk.ends_at_panic = not self.panic_expected
        if isinstance(what, str):
            met = self._talk.expect(containing(what), f"'{what}'", timeout_s)
        else:
            met = self._talk.expect(_matching(what), f"a line that matches '{what.pattern}'", timeout_s)
        if isinstance(met, Failure):
            raise DeviceDisagrees(met.line())
        self._fresh = False
        return met

    def call(self, method: str, params: Any = None, timeout_s: float = CALL_S) -> Any:
        """The result of a JSON-RPC call."""
        __tracebackhide__ = True
        self._until_it_listens()
        answer = self._talk.call(method, params, timeout_s)
        if isinstance(answer, Failure):
            raise DeviceDisagrees(answer.line())
        if isinstance(answer, CallRefusal):
            raise DeviceDisagrees(f"{self.device}: `{method}` was refused with {answer.code}: {answer.message}")
        return answer.result

    def _until_it_listens(self) -> None:
        if self._fresh:
            self._talk.until_it_speaks(self._boot_s)
            self._fresh = False

    def close(self) -> None:
        """Let go of the device."""
        with contextlib.suppress(DeployError):
            self._talk.settle()
        self._let_go()


def _matching(pattern: re.Pattern[str]) -> Callable[[str], Mapping[str, str] | None]:
    def matches(line: str) -> Mapping[str, str] | None:
        found = pattern.search(line)
        return None if found is None else {k: v for k, v in found.groupdict().items() if v is not None}

    return matches


class LiveDevice:
    """One device while it is leased. `config` None: the process of [host]."""

    def __init__(self, pool: LiveDevices, name: str, config: DeviceConfig | None) -> None:
        self.name, self.config = name, config
        self.chip = config.chip if config is not None else HOST
        self.port = config.port if config is not None else ""
        self.groups = config.groups if config is not None else ()
        self._pool = pool

    def deploy(self) -> Deployed:
        """Put this project's build there; nothing is written where the device has it. Raises Unusable."""
        return self._pool.deployed(self)

    def open(self, *, reset: bool = True) -> LiveMonitor:
        """A monitor on its port. Raises Unusable."""
        target = self._pool.target(self)
        try:
            with _libraries_quiet():
                talk = target.open()
            monitor = LiveMonitor(self.name, talk, self._pool.boot_s, target.close)
            if reset or self.config is None:  # a process has to be started
                monitor.reset()
        except DeployError as error:
            target.close()
            raise Unusable(_text(error.failure)) from None
        return monitor


class LiveDevices:
    """Those that the tests of one process may use."""

    def __init__(self, project: Project, lease_s: float, *, deploys: bool) -> None:
        self.project = project
        self.boot_s = project.config.readiness.timeout_ms / 1000
        self._lease_s, self._deploys = lease_s, deploys
        self._services: dict[str, DeviceService] = {}
        self._build = Build(project)
        self._host = MachineBuild(self._build, _notice)
        self._user = f"{os.getpid()}-{secrets.token_hex(4)}"
        """What this process calls itself to others that use the same boards."""
        self._known: dict[str, Deployed] = {}
        self.candidates: list[tuple[str, DeviceConfig | None]] = [(one.name, one) for one in project.all_devices]

    def holds(self, path: Path) -> bool:
        """Does this file lie among the live tests?"""
        return path.is_relative_to(self.project.root / self.project.config.livetest.dir)

    @contextlib.contextmanager
    def leased(self, why: str) -> Iterator[LiveDevice]:
        """The first device that is free. Raises Unusable when none is in time."""
        name, config, lease = self._take(why)
        try:
            if lease is not None and lease.last_user != self._user:
                self._known.pop(name, None)
                lease.leave_mark(self._user)
            yield LiveDevice(self, name, config)
        finally:
            if lease is not None:
                if name in self._services:  # it works under the lease
                    self._services[name].close()
                lease.release()

    def _take(self, why: str) -> tuple[str, DeviceConfig | None, LeasedBoard | None]:
        deadline_s = time.monotonic() + self._lease_s
        while True:
            holders = []
            for name, config in self.candidates:
                if config is None:
                    return name, None, None
                lease = LeasedBoard(self.project, config, os.environ)
                busy = lease.try_take(why)
                if busy is None:
                    return name, config, lease
                holders.append(busy.line())
            if time.monotonic() >= deadline_s:
                raise Unusable(f"no board became free within {self._lease_s:g} s:\n" + "\n".join(holders))
            time.sleep(LOOK_S)

    def deployed(self, device: LiveDevice) -> Deployed:
        """See `LiveDevice.deploy`."""
        if not self._deploys or os.environ.get(DEPLOYED_VARIABLE) == device.name:
            return Deployed()
        if device.name not in self._known:
            with _libraries_quiet():
                self._known[device.name] = self._make(device)
        return self._known[device.name]

    def _make(self, device: LiveDevice) -> Deployed:
        if device.config is None:
            try:
                made = self._host.make()
            except DeployError as error:
                made = error.failure
            if isinstance(made, Failure):
                raise Unusable(_text(made))
            return Deployed("built")
        self._service(device.name).close()
        done = deploy_device(self.project.root, device.name, _notice)
        if isinstance(done, Failure):
            raise Unusable(_text(done))
        return Deployed(done.outcome, done.report)

    def target(self, device: LiveDevice) -> LiveTarget:
        """What a monitor talks to; the lease is the caller's."""
        if device.config is not None:
            return BoardTarget(self._service(device.name), device.config)
        try:
            return HostTarget(self.project.root, self._host.programs.program)
        except DeployError as error:
            raise Unusable(_text(error.failure)) from None

    def _service(self, name: str) -> DeviceService:
        """The board's own, for its chip and profile."""
        if name not in self._services:
            project = load_project(Options(devices=(name,)), self.project.root)
            if isinstance(project, Failure):
                raise Unusable(_text(project))
            self._services[name] = DeviceService(Build(project))
        return self._services[name]

    def close(self) -> None:
        """Let go of everything."""
        for service in self._services.values():
            service.close()
            service.build.close()
        self._host.close()
        self._build.close()


def open_devices(root: Path, choice: DeviceChoice, *, lease_s: float, deploys: bool) -> LiveDevices:
    """Raises Unusable when deploy.toml cannot be used, or has no such device."""
    boards = tuple(name for name in choice.devices if name != HOST)
    project = load_project(Options(devices=boards, groups=choice.groups), root)
    if isinstance(project, Failure):
        raise Unusable(_text(project))
    found = LiveDevices(project, lease_s, deploys=deploys)
    if HOST in choice.devices:
        if not project.config.host.main:
            raise Unusable(f"{project.config.path}: error: there is no [host] with `main`, so that `host` is no device")
        others = found.candidates if boards or choice.groups else []
        found.candidates = [(HOST, None), *others]
    return found


def load(devices: LiveDevices, path: Path) -> Scenario:
    """The scenario of a file. Raises Unusable."""
    found = load_scenario(devices.project.root, path)
    if isinstance(found, Failure):
        raise Unusable(_text(found))
    return found


def run_one(devices: LiveDevices, scenario: Scenario, why: str) -> LiveResult:
    """One scenario on the first device that is free."""
    try:
        with devices.leased(why) as device:
            device.deploy()
            config = devices.project.config
            observed = load_observed(devices.project.root, config.livetest)
            if isinstance(observed, Failure):
                raise Unusable(_text(observed))
            rules = Rules(device.chip, config.livetest.timeout_ms / 1000, devices.boot_s, observed)
            target = devices.target(device)
            try:
                with _libraries_quiet():
                    talk = target.open()
                return run_scenario(scenario, talk, rules)
            finally:
                target.close()
    except Unusable as error:
        return LiveResult(scenario.name, scenario.path, "error", 0.0, str(error))
    except DeployError as error:
        return LiveResult(scenario.name, scenario.path, "error", 0.0, _text(error.failure))


@contextlib.contextmanager
def _libraries_quiet() -> Iterator[None]:
    """pyserial's RFC 2217 client uses what Python deprecates; with `-W error` that is no fault of a test."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"serial\.")
        yield


def _text(failure: Failure) -> str:
    detail = f"\n{failure.detail}" if failure.detail else ""
    return f"{failure.line()}\nhint: {failure.hint}{detail}"


def _notice(text: str) -> None:
    print(text, file=sys.stderr)
