"""One run: which stages and devices, their event logs as they happen, and the reports at the end.

Writes events and renders reports; does not execute stages, does not know doit, esptool or compilers.
Invariant: every device of a run that has a device stage gets exactly one transaction, its log is opened before the
first stage, and `finish` renders a report whatever happened in between. Runs whose process was killed are rendered by
the next run.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from cache.durable import write_atomic
from cache.location import user_state_dir
from cache.named_tuple import NamedTuple
from pipeline import __version__, events
from pipeline.effects.api import Clock
from pipeline.effects.host import Revision, machine_id
from pipeline.effects.run_log import RunLog, append_line, close_killed, prune, prune_reports, unfinished
from pipeline.events import Payload, When
from pipeline.failures import fail
from pipeline.model import (
    DeployOutcome,
    Event,
    Failure,
    FailureCategory,
    Stage,
    StageOutcome,
    StageResult,
)
from pipeline.records import json_text
from pipeline.report.document import build_report, whole_ms
from pipeline.report.markdown import HISTORY, encode_history, history_row, last_line, render_markdown
from pipeline.run.project import Project
from pipeline.text import visible

if TYPE_CHECKING:
    from pipeline.config.schema import DeployConfig

RUNS = "runs"

KEEP_LOGS = 200
"""Event logs kept in `.deploy/runs`; of the rendered reports `[reports] keep`."""

HISTORY_BYTES = 4 << 20
"""Some 4,000 lines; then the file becomes `history.1.jsonl` and a new one begins, so that twice this is kept."""


class RunFacts(NamedTuple):
    """What is known before the first stage. `revision` may wait for git, and so is asked when it is written."""

    targets: tuple[str, ...]
    profile: str
    toolchain: str
    revision: Callable[[], Revision]
    startup_ms: int | None
    dispatch_ms: int | None
    given_build: str = ""


class Rendered(NamedTuple):
    """A finished transaction: the report as data, and where its Markdown lies (None: it could not be written)."""

    report: dict[str, Any]
    path: Path | None
    line: str


class _Log:
    """One transaction: its log, and how it stands."""

    def __init__(self, log: RunLog, tx: str, device: str) -> None:
        self.log = log
        self.tx = tx
        self.device = device
        self.failure: Failure | None = None
        self.outcome: DeployOutcome | None = None
        self.end: When | None = None
        """When its deploy was over, if something else followed in the same run."""
        self.waited_s = 0.0
        """While other boards or builds had their turn."""
        self.closed = False
        self.head: list[Callable[[], Event]] = []
        """Its first event, until it is written."""
        self.rendered: Rendered | None = None


class Transactions:
    """Begin it once, say what happens, finish it once."""

    def __init__(
        self,
        project: Project,
        clock: Clock,
        clock_of: Callable[[str], Clock] | None = None,
        parent: str = "",
    ) -> None:
        """`clock_of`: the clock of a device, where it has its own. `parent`: the run that these belong to, where that
        is not their own."""
        self._root = project.root
        self._project = project
        self._runs_dir = project.state_dir / RUNS
        self._configs = {device.name: it.config for it in project.variants for device in it.devices}
        self._clock = clock
        self._clock_of = clock_of or (lambda device: clock)
        self._parent = parent
        self._facts: RunFacts | None = None
        self._own_facts: dict[str, RunFacts] = {}
        self._files = threading.Lock()
        """Boards may end at once, and the history is one file."""
        self._started_s = clock.now_s()
        self._logs: list[_Log] = []
        self._before_ms = 0
        self.listener: Callable[[str, str, Event], None] = lambda tx, device, event: None
        """Is told each event as it happens: transaction, device or "", event."""
        self.size_of: Callable[[str], Mapping[str, Any] | None] = lambda device: None
        """What is said of the size of the application that `device` got ("": of a run without devices), at its end."""
        self.notes: list[str] = []
        """What could not be written, one line each."""
        self._changed: list[tuple[str, tuple[str, ...]]] = []
        """(device or "", paths) that fingerprint stages found moved."""
        self.results: list[tuple[str, StageResult]] = []
        """(device or "", result) in the order in which the stages ended."""

    @property
    def reports_dir(self) -> Path:
        """Where the rendered reports go."""
        return self._project.reports_dir

    def knows(self, device: str) -> bool:
        """Has `device` a transaction in this run? `""`: all of them."""
        return any(device in ("", log.device) for log in self._logs)

    @property
    def begun(self) -> bool:
        return bool(self._logs)

    @property
    def run(self) -> str:
        """The id that all transactions of this run share: that of the first."""
        return self._parent or (self._logs[0].tx if self._logs else "")

    def changed_inputs(self, device: str) -> tuple[str, ...]:
        """Paths that this run's fingerprint stage found moved in the build of `device`."""
        return tuple(path for name, paths in self._changed if name in ("", device) for path in paths)

    def result_of(self, stage: Stage, device: str) -> StageResult | None:
        """How this stage ended for `device` ("": for all), if it did."""
        found = (result for name, result in reversed(self.results) if name == device and result.stage is stage)
        return next(found, None)

    def since_s(self, now_s: float) -> float:
        """An instant of the clock as seconds since the run began."""
        return now_s - self._started_s

    def begin(
        self, devices: Sequence[tuple[str, str]], facts: RunFacts, own: Mapping[str, RunFacts] = MappingProxyType({})
    ) -> list[Rendered]:
        """Open a log for each (device, port), or one for a host-only run; render what killed runs left behind. The
        first event of each is of now; that of a host-only run, which has no report, is written when something else is
        said. `own`: the facts of devices that get another build than the others."""
        self._facts, self._own_facts = facts, {**self._own_facts, **own}
        left = [self._render_left_behind(path) for path in unfinished(self._runs_dir)]
        prune(self._runs_dir, KEEP_LOGS)
        self._started_s = self._clock.now_s()
        self._before_ms = (facts.startup_ms or 0) + (facts.dispatch_ms or 0)
        for name, port in devices or [("", "")]:
            tx = self._transaction(single=len(devices) <= 1)
            log = _Log(RunLog.create(self._runs_dir, tx), tx, name)
            self._logs.append(log)
            log.head.append(partial(self._head, self._when(log), tx, name, port, own.get(name, facts)))
        for log in self._logs:
            if log.device:  # a log without an event is nobody's: killed from here on, the run still has a report
                self._say_head(log)
        return [rendered for rendered in left if rendered is not None]

    def transaction(self, device: str) -> str:
        """The transaction id of `device` in this run."""
        return self._log(device).tx

    def say(self, payload: Payload, device: str = "") -> None:
        """Append an event to the log of `device`, or to every log."""
        for log in self._logs:
            if device in ("", log.device):
                self._emit(log, payload)

    def say_all(self, payloads: Sequence[Payload]) -> None:
        """As `say` for each, to every log: at one instant, and in one write."""
        for log in self._logs:
            self._say_head(log)
            when = self._when(log)
            said = [events.event(payload, when) for payload in payloads]
            log.log.append_all(said)
            for event in said:
                self.listener(log.tx, log.device, event)

    def stage_finished(self, result: StageResult, device: str = "") -> None:
        """Record how a stage ended; a failure of a shared stage fails every device."""
        kept = result
        if result.stage is Stage.FINGERPRINT:  # one for each file of a new project: its name is all that is asked for
            self._changed.append((device, tuple([reason.subject for reason in result.reasons])))
            kept = result._replace(reasons=())
        self.results.append((device, kept))
        self.say(result, device)
        if result.failure is not None:
            self.failed(result.failure, device)

    def failed(self, failure: Failure, device: str = "") -> None:
        """Record why `device` (or every one) cannot go on; the first failure of a log stays its cause."""
        for log in self._logs:
            if device in ("", log.device) and log.failure is None and not log.closed:
                log.failure = failure
                self._emit(log, failure)

    def facts_of(self, device: str) -> RunFacts:
        """What was known of its deploy before the first stage. Precondition: it began."""
        facts = self._own_facts.get(device, self._facts)
        assert facts is not None, "asked before begin [this is a bug]"
        return facts

    def failure_of(self, device: str) -> Failure | None:
        """Why `device` cannot go on, if so."""
        return self._log(device).failure

    def stopped(self, device: str, by: str) -> None:
        """`device` was not done with when another one, `by`, stopped the run."""
        if self._log(device).failure is None:
            self.failed(_stopped_failure(device, by), device)

    def waited(self, device: str, seconds: float) -> None:
        """`device` had to wait so long for other boards or builds, in which nothing was done for it."""
        self._log(device).waited_s += seconds

    def waited_s(self, device: str) -> float:
        """How long it has waited so far."""
        return self._log(device).waited_s

    def confirmed(self, outcome: DeployOutcome, device: str) -> None:
        """`device` runs this build; `outcome` says with which proof and how it got there."""
        self._log(device).outcome = outcome

    def over(self, device: str) -> None:
        """What `device` does from here on is no part of its deploy, and costs nothing of its budget."""
        log = self._log(device)
        log.end = self._when(log)

    def finish(self, running: Sequence[tuple[Stage, str, float]], *, interrupted: bool) -> list[Rendered]:
        """Close the logs, render the reports and remove the oldest beyond `[reports] keep`. `running`: (stage, device
        or "", begin) of what was under way."""
        if interrupted:
            self._interrupt(running)
        self._stop_others()
        for log in self._logs:
            self._close(log)
        rendered = [log.rendered for log in self._logs if log.rendered is not None]
        if rendered:
            prune_reports(self.reports_dir, self._project.config.reports.keep, {log.tx for log in self._logs})
        return rendered

    def finish_one(self, device: str) -> Rendered | None:
        """Close the log of `device`, whose deploy is over, while others go on; its report is written now."""
        log = self._log(device)
        self._close(log)
        return log.rendered

    def _close(self, log: _Log) -> None:
        if log.closed:
            return
        log.closed = True
        # One instant for the end and for what is said of it: the report and the verdict cannot differ.
        end = log.end or self._when(log)
        self._enforce_budget(log, end)
        outcome = log.outcome
        if log.failure is not None:
            stopped = log.failure.category is FailureCategory.INTERRUPTED
            outcome = DeployOutcome.INTERRUPTED if stopped else DeployOutcome.FAILED
        size = None if outcome is DeployOutcome.INTERRUPTED else self.size_of(log.device)
        if size is not None:
            self._emit(log, events.Sized(size), end)
        self._emit(log, events.RunFinished(outcome), end)
        log.log.close()
        if log.device:
            log.rendered = self._render(log.log.events, log.tx)

    def _enforce_budget(self, log: _Log, end: When) -> None:
        """With `[budget] enforce`, a deploy that took longer than its total has failed."""
        budget = self._config(log.device).budget
        total_ms = self._before_ms + whole_ms(end.since_s) - whole_ms(log.waited_s)
        if not budget.enforce or log.failure is not None or log.outcome is None or total_ms <= budget.total:
            return
        log.failure = fail(
            FailureCategory.OVER_BUDGET,
            stage=None,
            where=f"device {log.device}",
            message=f"the deploy took {total_ms} ms, but [budget] total is {budget.total} ms ({log.outcome})",
        )
        self._emit(log, log.failure, end)

    def _stop_others(self) -> None:
        """doit stops at the first failure: a device that was not reached says which one was in the way."""
        first = next((log for log in self._logs if log.failure is not None), None)
        for log in self._logs:
            if first is not None and log.failure is None and log.outcome is None and log.device:
                self.stopped(log.device, first.device)

    def _interrupt(self, running: Sequence[tuple[Stage, str, float]]) -> None:
        for under_way, device, _ in running:
            self.say(StageResult(under_way, StageOutcome.INTERRUPTED, 0.0), device)
        for log in self._logs:
            stage = next((under_way for under_way, device, _ in running if device in ("", log.device)), None)
            if log.failure is None and log.outcome is None:
                self.failed(
                    fail(
                        FailureCategory.INTERRUPTED,
                        stage=stage,
                        where=f"device {log.device}" if log.device else "run",
                        message=f"the run was interrupted {f'in stage {stage}' if stage else 'between stages'}",
                    ),
                    log.device,
                )

    def _head(self, when: When, tx: str, device: str, port: str, facts: RunFacts) -> Event:
        return events.event(self._run_started(tx, device, port, facts), when)

    def _say_head(self, log: _Log) -> None:
        """The first event comes before the second: what it says of the checkout git finds out until then."""
        while log.head:
            said = log.head[0]()
            log.log.append(said)
            log.head.clear()  # not before: Ctrl-C may end the wait for git, and the log is closed in any case
            self.listener(log.tx, log.device, said)

    def _emit(self, log: _Log, payload: Payload, when: When | None = None) -> None:
        self._say_head(log)
        said = events.event(payload, when or self._when(log))
        log.log.append(said)
        self.listener(log.tx, log.device, said)

    def _when(self, log: _Log) -> When:
        return When(self._clock.utc(), self.since_s(self._clock_of(log.device).now_s()))

    def _config(self, device: str) -> DeployConfig:
        return self._configs.get(device, self._project.config)

    def _log(self, device: str) -> _Log:
        return next(log for log in self._logs if log.device == device)

    def _transaction(self, *, single: bool) -> str:
        """A fresh id, or the one that the caller's environment gives (for one device: an id names one transaction)."""
        given = os.environ.get("DEPLOY_TX_ID", "")
        wrong = ""
        if not single:
            wrong = "this run has several transactions"
        elif not events.is_tx(given):
            wrong = "it is not tx-YYYYmmdd-HHMMSS- and 4 to 6 hex digits"
        elif (self._runs_dir / f"{given}.log").exists():
            wrong = "an earlier run has used it"
        if given and not wrong:
            return given
        if given and not self._logs:
            self.notes.append(f"DEPLOY_TX_ID={visible(given)} is ignored: {wrong}")
        return events.format_tx(self._clock.utc(), os.urandom(3).hex())

    def _run_started(self, tx: str, device: str, port: str, facts: RunFacts) -> events.RunStarted:
        config, revision = self._config(device), facts.revision()
        return events.RunStarted(
            tx=tx,
            device=device,
            port=port,
            profile=facts.profile,
            targets=facts.targets,
            git_sha=revision.sha,
            git_dirty=revision.dirty,
            toolchain=facts.toolchain,
            verify_level=config.verify.level,
            readiness_until=config.readiness.until,
            readiness_timeout_ms=config.readiness.timeout_ms,
            budget_ms=config.budget.limits_ms,
            report_path=self._shown(self.reports_dir / f"{tx}.md") if device else "",
            startup_ms=facts.startup_ms,
            dispatch_ms=facts.dispatch_ms,
            budget_enforced=config.budget.enforce,
            run=self.run,
            given_build=facts.given_build,
        )

    def _shown(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix() if path.is_relative_to(self._root) else str(path)

    def _render(self, log_events: Sequence[Any], tx: str) -> Rendered:
        report = build_report(log_events)
        path: Path | None = self.reports_dir / f"{tx}.md"
        try:
            self.reports_dir.mkdir(parents=True, exist_ok=True)
            write_atomic(self.reports_dir / f"{tx}.md", render_markdown(report).encode(), durable=False)
            text = json_text(report, indent=2) + "\n"
            write_atomic(self.reports_dir / f"{tx}.json", text.encode(), durable=False)
        except OSError:
            path = None  # the log in .deploy still holds everything
        if not self._parent:  # what it did is part of the deploy that it belongs to
            self._remember(report, str(log_events[0].data.get("run", "")))
        return Rendered(report, path, last_line(report, written=path is not None))

    def _remember(self, report: Mapping[str, Any], run: str) -> None:
        """One more line of the history."""
        machine = machine_id(user_state_dir(os.environ, sys.platform) or self._runs_dir.parent)
        line = encode_history(history_row(report, run, machine, __version__))
        path = self.reports_dir / HISTORY
        try:
            with self._files:
                append_line(path, line, HISTORY_BYTES)
        except OSError as error:
            self.notes.append(f"{self._shown(path)}: the history cannot be written ({error.strerror})")

    @property
    def recorded(self) -> list[tuple[str, list[Event]]]:
        """(device or "", its events) of each transaction of this run."""
        return [(log.device, list(log.log.events)) for log in self._logs]

    def _render_left_behind(self, path: Path) -> Rendered | None:
        """Close the log of a killed run and render its report."""
        log_events = close_killed(path)
        if not log_events:
            return None
        started = events.payload(log_events[0])
        if not isinstance(started, events.RunStarted) or not started.device:
            return None
        return self._render(log_events, started.tx)


def _stopped_failure(device: str, by: str) -> Failure:
    message = f"the run stopped before it was done with this device: device {by} failed"
    hint = "repair that device, or leave it out: without --canary and --fail-fast one board does not stop the others"
    return fail(FailureCategory.INTERRUPTED, stage=None, where=f"device {device}", message=message, hint=hint)
