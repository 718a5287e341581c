"""Fixtures for tests that talk to a board, and scenarios in TOML as tests of pytest; for Hotplate projects alone.

Knows pytest. What a device is and how it is leased, deployed to and talked to, `devices.py` knows. Invariant: nothing
is imported, leased or opened before the first test asks for a device, and everything is given back when that test ends;
so that workers of pytest-xdist share boards, one test at a time.

    hotplate_device, device   the board of this test, leased        `.name .chip .port .deploy() .open()`
    deploy                    this project's build runs on it       `.outcome .report .app_elf_sha256`
    monitor                   its output since a reset              `.expect(TEXT or re.compile(...)) .send() .reset()`
    rpc                       one JSON-RPC call                     `rpc("health")["heap"]["free"]`
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import hotplate_pytest

if TYPE_CHECKING:
    from pipeline.livetest.devices import Deployed, LiveDevice, LiveDevices, LiveMonitor, RpcFunction

MARKER = "hotplate"


def pytest_configure(config: pytest.Config) -> None:
    """The marker."""
    text = f"{MARKER}(reset=True, panic=False): reset the device before the test; may the firmware panic in it?"
    config.addinivalue_line("markers", text)


# --- fixtures -----------------------------------------------------------------------------------


@pytest.fixture
def hotplate_device(request: pytest.FixtureRequest) -> Iterator[LiveDevice]:
    """A board of deploy.toml that is this test's alone until it ends."""
    config = request.config
    if config.getini("hotplate_on_request") and not _asked(config):
        pytest.skip("needs a device: name it with --device")
    from pipeline.livetest.devices import Unusable

    try:
        with _devices(config).leased(request.node.nodeid) as one:
            yield one
    except Unusable as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture
def device(hotplate_device: LiveDevice) -> LiveDevice:
    """The same as `hotplate_device`."""
    return hotplate_device


@pytest.fixture
def deploy(hotplate_device: LiveDevice) -> Deployed:
    """This project's build runs on the board: built, verified, and written only where it differs."""
    from pipeline.livetest.devices import Unusable

    try:
        return hotplate_device.deploy()
    except Unusable as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture
def monitor(hotplate_device: LiveDevice, deploy: Deployed, request: pytest.FixtureRequest) -> Iterator[LiveMonitor]:
    """What the board says, from a reset on (unless `@pytest.mark.hotplate(reset=False)`)."""
    del deploy  # it must have happened
    from pipeline.livetest.devices import Unusable

    marker = request.node.get_closest_marker(MARKER)
    said = marker.kwargs if marker is not None else {}
    try:
        opened = hotplate_device.open(reset=said.get("reset", True))
    except Unusable as error:
        pytest.fail(str(error), pytrace=False)
    request.node.stash[_MONITOR] = opened
    opened.panic_expected = said.get("panic", False)
    try:
        yield opened
    finally:
        opened.close()
    if opened.panic and not opened.panic_expected:
        pytest.fail("the firmware panicked:\n" + "\n".join(opened.panic), pytrace=False)


@pytest.fixture
def rpc(monitor: LiveMonitor) -> RpcFunction:
    """Call a JSON-RPC method: `rpc("health", timeout_s=2.0)`; a refusal or no answer fails the test."""
    return monitor.call


# --- scenarios ----------------------------------------------------------------------------------


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Scenarios, where a device was asked for: a TOML file may be anything else."""
    if file_path.suffix != ".toml" or not _asked(parent.config) or parent.config.option.hotplate_python_only:
        return None
    return ScenarioFile.from_parent(parent, path=file_path) if _devices(parent.config).holds(file_path) else None


class ScenarioFile(pytest.File):
    """One file."""

    def collect(self) -> Iterator[ScenarioItem]:
        from pipeline.livetest.devices import Unusable, load

        try:
            scenario = load(_devices(self.config), self.path)
        except Unusable as error:
            raise self.CollectError(str(error)) from None
        item = ScenarioItem.from_parent(self, name=scenario.name)
        item.scenario = scenario
        for tag in scenario.tags:
            if tag.isidentifier():
                self.config.addinivalue_line("markers", f"{tag}: a tag of live tests")
                item.add_marker(tag)
        yield item


class ScenarioItem(pytest.Item):
    """One scenario."""

    scenario: Any

    def runtest(self) -> None:
        from pipeline.livetest.devices import run_one

        result = run_one(_devices(self.config), self.scenario, self.nodeid)
        if result.outcome == "skipped":
            pytest.skip(result.message)
        if not result.ok:
            raise ScenarioFailed(result.message, result.detail)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException]) -> Any:  # type: ignore[override]
        """What came instead, without our frames."""
        if isinstance(excinfo.value, ScenarioFailed):
            return "\n".join(filter(None, excinfo.value.args))
        return super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, self.name


class ScenarioFailed(Exception):
    """What was found, and the device's last words."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """`--hotplate-tags`."""
    if not config.option.hotplate_tags:
        return
    from pipeline.livetest.selection import parse_selection
    from pipeline.model import Failure

    is_meant = parse_selection(config.option.hotplate_tags, "--hotplate-tags")
    if isinstance(is_meant, Failure):
        raise pytest.UsageError(is_meant.line())
    kept: list[pytest.Item] = []
    others: list[pytest.Item] = []
    for item in items:
        tags = {marker.name for marker in item.iter_markers()}
        (kept if is_meant(tags.__contains__) else others).append(item)
    config.hook.pytest_deselected(items=others)
    items[:] = kept


# --- the rest -----------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What the device said stands below a test that failed."""
    report = yield
    opened = item.stash.get(_MONITOR, None)
    if opened is not None and report.failed:
        report.sections.append((f"what {opened.device} said", "\n".join(opened.lines)))
    return report


def pytest_unconfigure(config: pytest.Config) -> None:
    """Let go of what the tests needed."""
    found = config.stash.get(_DEVICES, None)
    if found is not None:
        found.close()


def _asked(config: pytest.Config) -> bool:
    return bool(config.option.hotplate_device or config.option.hotplate_group)


def _devices(config: pytest.Config) -> LiveDevices:
    """Of this process, made when the first test asks."""
    found = config.stash.get(_DEVICES, None)
    if found is None:
        from pipeline.livetest.devices import DeviceChoice, Unusable, open_devices

        root = hotplate_pytest.project_of(config) or config.rootpath
        said = config.option
        choice = DeviceChoice(tuple(said.hotplate_device), tuple(said.hotplate_group))
        try:
            found = open_devices(root, choice, lease_s=said.hotplate_lease_timeout, deploys=not said.hotplate_no_deploy)
        except Unusable as error:
            raise pytest.UsageError(str(error)) from None
        config.stash[_DEVICES] = found
    return found


_DEVICES: pytest.StashKey[LiveDevices] = pytest.StashKey()
_MONITOR: pytest.StashKey[LiveMonitor] = pytest.StashKey()
