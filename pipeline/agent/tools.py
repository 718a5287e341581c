"""What an agent can do in one project. Each method is a tool; `server.py` gives them to MCP.

Knows the commands of `doit`, the project's configuration and its reports. Does not know MCP. Invariants: only devices
of deploy.toml are reached, by name; a board that this process has leased is used under that lease; expected bad news is
in the result, a wrong argument is a ToolRefused with a hint.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cache.durable import read_text
from pipeline.agent import answers
from pipeline.agent.child_runs import ChildRun, Tell, run_doit
from pipeline.agent.results import (
    BuildResult,
    ConfiguredDevice,
    DeployResult,
    DeviceList,
    LeaseResult,
    MonitorResult,
    ReportResult,
    RpcResult,
    SizeResult,
    StatusResult,
    TextResult,
)
from pipeline.client.protocol import Holder
from pipeline.config.schema import DeviceConfig
from pipeline.config.selection import device_named
from pipeline.device.leases import board_name, user_shelf
from pipeline.model import Failure
from pipeline.report.document import failure_json
from pipeline.report.history_file import read_history
from pipeline.run.held_boards import HeldBoard, hold_board
from pipeline.run.options import Options
from pipeline.run.project import Project, load_project

MOST_SECONDS = 600.0
MOST_LINES = 2000


class ToolRefused(Exception):
    """The arguments cannot be used; the text says why, and what to do."""


class ProjectTools:
    """Of the project in `root`. `close` gives every lease back."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._leases: dict[str, HeldBoard] = {}

    def close(self) -> None:
        """Idempotent."""
        while self._leases:
            self._leases.popitem()[1].release()

    # --- looking ----------------------------------------------------------------------------------

    async def list_devices(self) -> DeviceList:
        """Every device of deploy.toml."""
        project = self._project()
        newest: dict[str, Any] = {}
        for row in read_history(project.reports_dir).rows:
            newest[row.device] = row
        shelf = user_shelf(project.state_dir)
        found = []
        for device in project.config.devices:
            last, holder = newest.get(device.name), shelf.holder(board_name(device, project.root))
            found.append(
                ConfiguredDevice(
                    name=device.name,
                    chip=device.chip,
                    port=device.port,
                    mac=device.mac,
                    groups=list(device.groups),
                    default=device == project.config.default_device,
                    virtual=device.is_virtual,
                    leased_to=holder.text if holder is not None else "",
                    last_transaction=last.transaction_id if last is not None else "",
                    last_outcome=last.outcome if last is not None else "",
                )
            )
        return DeviceList(devices=found)

    async def plan(self, device: str = "", profile: str = "") -> TextResult:
        """What a deploy would do."""
        return answers.text_result(await self._run(["plan", *self._words(device, "", profile)]))

    async def explain(self, what: Sequence[str] = (), profile: str = "") -> TextResult:
        """Why something would run."""
        for word in what:
            _no_option("what", word)
        return answers.text_result(await self._run(["explain", *what, *self._words("", "", profile)]))

    async def read_report(self, transaction: str = "last") -> ReportResult:
        """One report."""
        _no_option("transaction", transaction)
        run = await self._run(["report", "show", transaction, "--format", "json"])
        if run.code:
            raise ToolRefused(run.err.strip() or f"there is no report {transaction!r}")
        value = json.loads(run.out)
        name = value.get("transaction_id") or value.get("id") or transaction
        return ReportResult(transaction_id=str(name), report=answers.short_report(value))

    async def read_status(self) -> StatusResult:
        """Checks of all devices."""
        run = await self._run(["status"])
        if run.code:
            raise ToolRefused(run.err.strip())
        pages = self._project().reports_dir / "status"
        merged = json.loads(read_text(pages / "live-results-all.json"))
        good = all("failed" not in one and "failure" not in one for one in merged["devices"])
        return StatusResult(good=good, devices=merged["devices"], pages=run.out)

    async def cache_stats(self) -> TextResult:
        """The store."""
        return answers.text_result(await self._run(["cache:stats"]))

    async def size(self, transaction: str = "last") -> SizeResult:
        """Images and their room."""
        found = await self.read_report(transaction)
        if "regions" not in found.report:
            raise ToolRefused(f"{found.transaction_id} is no report of a deploy; name one of `list_devices`")
        images = answers.sized(found.report, self._project().table)
        return SizeResult(transaction_id=found.transaction_id, images=images)

    # --- doing ------------------------------------------------------------------------------------

    async def build(self, profile: str = "", tell: Tell | None = None) -> BuildResult:
        """Compile and link."""
        run = await self._run(["compile", "link", "--json", *self._words("", "", profile)], tell)
        return answers.build_result(run)

    async def deploy(
        self, device: str = "", group: str = "", profile: str = "", verify: str = "", tell: Tell | None = None
    ) -> DeployResult:
        """Everything, to one device or a group."""
        words = self._words(device, group, profile)
        if verify:
            words.append(f"--verify={verify}")
        return answers.deploy_result(await self._run(["deploy", "--json", *words], tell))

    async def flash(self, device: str = "", region: str = "", tell: Tell | None = None) -> DeployResult:
        """Build, verify, and write what differs; does not reset into the application."""
        name = self._device(device).name
        _no_option("region", region)
        task = f"reflash:{name}:{region}" if region else f"reflash:{name}"
        return answers.deploy_result(await self._run([task, "--json"], tell))

    async def monitor_read(
        self,
        device: str = "",
        seconds: float = 2.0,
        most_lines: int = 100,
        containing: str = "",
        *,
        reset: bool = False,
    ) -> MonitorResult:
        """Listen for a while."""
        _within("seconds", seconds, 0.1, MOST_SECONDS)
        _within("most_lines", most_lines, 0, MOST_LINES)
        name = self._device(device).name
        words = ["monitor", f"--device={name}", f"--seconds={seconds}", "--reset" if reset else "--no-reset"]
        heard = answers.HeardLog(most_lines, containing)
        return answers.monitor_result(name, heard, await self._run(words, on_out=heard.feed))

    async def rpc_call(
        self, method: str, params: list[Any] | dict[str, Any] | None = None, device: str = "", seconds: float = 5.0
    ) -> RpcResult:
        """One JSON-RPC request."""
        _within("seconds", seconds, 0.1, MOST_SECONDS)
        name = self._device(device).name
        words = ["monitor", f"--device={name}", "--no-reset", f"--seconds={seconds}", f"--call={method}"]
        if params is not None:
            words.append(f"--params={json.dumps(params)}")
        run = await self._run(words)
        result = json.loads(run.out) if run.code == 0 else None
        return RpcResult(ok=run.code == 0, device=name, method=method, result=result, error=run.err if run.code else "")

    async def livetest(self, device: str = "", group: str = "", select: str = "") -> TextResult:
        """Live tests."""
        _no_option("select", select)
        words = self._words(device, group, "")
        return answers.text_result(await self._run(["livetest", *words, *([f"--select={select}"] if select else [])]))

    async def host(self) -> TextResult:
        """The host build, its unit tests and live tests."""
        return answers.text_result(await self._run(["host"]))

    async def baseline(self, kind: str = "warm") -> TextResult:
        """Measure the loop."""
        if kind not in ("cold", "warm", "full"):
            raise ToolRefused(f"kind is {kind!r}; choose cold, warm or full")
        return answers.text_result(await self._run([f"baseline:{kind}"]))

    async def loop_step(self) -> TextResult:
        """One step of the improvement loop."""
        return answers.text_result(await self._run(["loop"]))

    # --- leases -----------------------------------------------------------------------------------

    async def acquire_device(self, device: str, reason: str, *, take: bool = False) -> LeaseResult:
        """Have a device until `release_device`, or until this server ends."""
        found = self._device(device)
        held = self._leases.get(found.name)
        lost = held.lost(found.where) if held is not None else None
        if held is not None and lost is None:
            return LeaseResult(ok=True, device=found.name, leased=True)
        if held is not None:
            self._leases.pop(found.name).release()
        project = self._project()
        holder = Holder(os.getpid(), "doit mcp", reason)
        # in a thread: a farm may take its time
        got = await asyncio.to_thread(hold_board, found, project.root, project.state_dir, holder, take=take)
        if isinstance(got, Failure):
            return LeaseResult(ok=False, device=found.name, leased=False, failure=answers.problem(failure_json(got)))
        self._leases[found.name] = got
        taken_from = got.taken.before.text if got.taken is not None else ""
        return LeaseResult(ok=True, device=found.name, leased=True, taken_from=taken_from)

    async def release_device(self, device: str) -> LeaseResult:
        """Give it back."""
        found = self._device(device)
        held = self._leases.pop(found.name, None)
        if held is not None:
            await asyncio.to_thread(held.release)
        return LeaseResult(ok=True, device=found.name, leased=False)

    # --- inside -----------------------------------------------------------------------------------

    async def _run(
        self, argv: Sequence[str], tell: Tell | None = None, on_out: Callable[[bytes], None] | None = None
    ) -> ChildRun:
        tokens = ",".join(lease.token for lease in self._leases.values())
        return await run_doit(self._root, argv, tell, leases=tokens, on_out=on_out)

    def _project(self) -> Project:
        """As deploy.toml is now: an agent may have edited it since."""
        found = load_project(Options(), self._root)
        if isinstance(found, Failure):
            raise ToolRefused(f"{found.line()}\nhint: {found.hint}")
        return found

    def _device(self, name: str) -> DeviceConfig:
        config = self._project().config
        found = device_named(config, name) if name else config.default_device
        if isinstance(found, Failure):
            raise ToolRefused(f"{found.message}\nhint: {found.hint}")
        return found

    def _words(self, device: str, group: str, profile: str) -> list[str]:
        words = [f"--device={self._device(device).name}"] if device else []
        return words + [f"--{name}={value}" for name, value in (("group", group), ("profile", profile)) if value]


def _no_option(name: str, word: str) -> None:
    """A value that stands alone on a command line must not become an option or a variable of doit."""
    if word.startswith("-") or "=" in word or any(ord(char) < 32 for char in word):
        raise ToolRefused(f"{name} is {word!r}, which cannot be a name; leave out options")


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ToolRefused(f"{name} is {value}; choose a value from {low:g} to {high:g}")
