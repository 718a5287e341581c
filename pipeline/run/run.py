"""One run, the composition root: it locks the project, runs stages, times and records them, and ends with the reports.

The only place that puts project, build, boards and records together. Does not know doit, nor what a stage does: it
gives each the value that the one before ended with. Invariant: from `begin` to `end` the project's lock is held, every
stage that began is recorded, and after `end` no port is open.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.named_tuple import NamedTuple
from pipeline import events
from pipeline.effects.clock import BoardClocks
from pipeline.effects.host import GitQuery, startup_ms
from pipeline.errors import DeployError
from pipeline.failures import fail
from pipeline.model import DEVICE_STAGES, Failure, FailureCategory, Stage, StageOutcome, StageResult, StageWork
from pipeline.run.attempt import attempt
from pipeline.run.build import Build
from pipeline.run.device_service import DeviceService
from pipeline.run.handed_on import HandedOn
from pipeline.run.lock import ProjectLock
from pipeline.run.options import MOST_WORKERS, Options
from pipeline.run.project import Project, load_project
from pipeline.run.records import DeviceRecords
from pipeline.run.screen import Screen
from pipeline.run.stage_of import StageOf
from pipeline.run.transactions import Rendered, RunFacts, Transactions
from pipeline.run.variants import Variant, Variants

if TYPE_CHECKING:
    from pipeline.config.schema import DeviceConfig
    from pipeline.engine.results import ActionSpan
    from pipeline.report.live_tests import SuiteResult
    from pipeline.run.board_turns import BoardTurns
    from pipeline.run.far_execution import FarExecution
    from pipeline.run.lanes import Lanes
    from pipeline.run.shared_cache import SharedCache
    from pipeline.stages.handover import Board


class Ended(NamedTuple):
    """`notes`: what went wrong while the run ended, one line each."""

    rendered: list[Rendered]
    notes: list[str]


class Run:
    """Begin it once, run stages, end it once. Without `begin` it may be looked at; `close` is then its end."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.screen = Screen()
        self.clocks = BoardClocks()
        self.clock = self.clocks.run
        self.transactions = Transactions(project, self.clock, self.clocks.of)
        self.transactions.size_of = self._size_of
        self._sizing = threading.Lock()
        owners: dict[str, str] = {}
        self.variants = Variants([self._variant(each, owners) for each in project.variants], self._record_of)
        self.build, self.boards, self.records = self.variants.every[0]
        self._lock = ProjectLock(project.root, project.state_dir)
        self._handed_on = HandedOn()
        self._under_way: dict[StageOf, float] = {}
        """Stage -> since when; more than one with several boards."""
        self._last_ended = ""
        """The device whose stage ended last."""
        self._facts: RunFacts | None = None
        self.suites: list[SuiteResult] = []
        """Live and unit tests that ran in this process."""
        self.lanes: Lanes | None = None
        """Where several boards have their turn at once."""
        self._turns: BoardTurns | None = None
        self.active = False
        """Between `begin` and `end`."""

    def _variant(self, project: Project, owners: dict[str, str]) -> Variant:
        others = (lambda: self._shared, lambda: self._far)
        build = Build(project, self.clock, self.screen, self._performed, *others)
        boards = DeviceService(build, self.transactions.transaction, self._measured, self.clocks.of)
        return Variant(build, boards, DeviceRecords(build, self.transactions, owners))

    @cached_property
    def _shared(self) -> SharedCache:
        """The cache that other machines share, made when something must be done."""
        from pipeline.run.shared_cache import SharedCache

        return SharedCache(self.project.config.cache, self.clock, self.screen.notice, self.project.state_dir)

    @cached_property
    def _far(self) -> FarExecution:
        """Who else may compile, made when something must be done."""
        from pipeline.run.far_execution import FarExecution

        return FarExecution(self.project.config.execution, self.clock, self.screen.notice)

    # --- begin --------------------------------------------------------------------------------

    def begin(self, targets: Sequence[str], stages: Sequence[StageOf]) -> list[Rendered] | Failure:
        """Take the lock and begin a transaction per device. The reports of earlier runs that were killed, or why this
        run cannot begin."""
        git = GitQuery(self.project.root)
        waited_s = self.lock()
        if isinstance(waited_s, Failure):
            git.result()
            return waited_s
        self.active = True
        self.project.keep_text()
        named = {which.device for which in stages}
        devices = [device for device in self.project.all_devices if device.name in named]
        since_asked, dispatch_ms = before_run(startup_ms(), waited_s)
        self._facts = facts = RunFacts(
            targets=tuple(targets),
            profile=self.project.profile,
            toolchain=self.build.toolchain_name(),
            revision=git.result,
            startup_ms=since_asked,
            dispatch_ms=dispatch_ms,
            given_build=self.project.given_build,
        )
        self.lanes = self._lanes_for(devices, stages)
        own = {
            device.name: facts._replace(profile=it.build.project.profile, toolchain=it.build.toolchain_name())
            for it in self.variants.every[1:]
            for device in it.devices
        }
        return self.transactions.begin([(device.name, device.port) for device in devices], facts, own)

    def lock(self) -> float | Failure:
        """Take the project's lock; the seconds that it took, or why it cannot be had."""
        started_s = self.clock.now_s()
        failure = self._lock.acquire(self.screen.notice, self._moved_while_waiting)
        return self.clock.now_s() - started_s if failure is None else failure

    def _moved_while_waiting(self) -> bool:
        """Another run is over."""
        for it in self.variants.every:
            it.build.fastpath.waited()
        return self.project.config_moved()

    def unlock(self) -> None:
        """Give the project's lock back."""
        self._lock.release()

    # --- stages -------------------------------------------------------------------------------

    def consider(self, which: StageOf) -> None:
        """Whether this stage is up to date is asked next: its time begins."""
        self._under_way[which] = self.clocks.of(which.device).now_s()

    def started(self, which: StageOf) -> None:
        """It is not, and runs now."""
        self.transactions.say(events.StageStarted(which.stage), which.device)

    def up_to_date(self, which: StageOf) -> StageResult:
        """Nothing was to be done, with proof."""
        took_s = self._took_s(which)
        if self.variants.several and not which.device:
            return self.variants.up_to_date(which.stage)
        build = self.variants.of(which.device).build if which.device else self.build
        counts = build.up_to_date_counts(which.stage)
        return self._record(which, StageResult(which.stage, StageOutcome.UP_TO_DATE, took_s, counts=counts))

    def nothing_to_write(self, device: str, region: str = "") -> bool:
        """Has this run's verify-flash proven it? False before it ran."""
        return self._handed_on.nothing_to_write(device, region)

    def in_lane(self, which: StageOf) -> bool:
        """Is this stage done beside those of other boards, whenever its board has its turn?"""
        return self.active and self.lanes is not None and self.lanes.hold(which)

    def was_nothing_to_write(self, which: StageOf) -> bool:
        """The same of a stage that may be another worker's, which is waited for then."""
        if self.lanes is not None and self.in_lane(which):
            return self.lanes.result(which).outcome is StageOutcome.UP_TO_DATE
        return self.nothing_to_write(which.device, which.region)

    def perform(self, which: StageOf) -> StageResult:
        """`execute`, for a task runner that may have begun no run."""
        if self.lanes is not None and self.lanes.hold(which):
            return self.lanes.result(which)
        refused = self._begin_unasked(which)
        return self.execute(which) if refused is None else StageWork(failure=refused).took(which.stage, 0.0)

    def execute(self, which: StageOf) -> StageResult:
        """Run a stage, and record what it says of itself; whatever it raises becomes a failed result. Ctrl-C passes
        through."""
        self._under_way.setdefault(which, self.clocks.of(which.device).now_s())
        if self.variants.several and not which.device:
            return self._execute_builds(which)
        with self._lock.writing() if which.stage is Stage.REFLASH else contextlib.nullcontext():
            work = self._attempt(which)
        took_s = self._took_s(which)
        if work.boot_s is not None and self._last_ended != which.device and not self.clocks.beside_each_other:
            took_s = work.boot_s
        return self._record(which, work.took(which.stage, took_s))

    def _execute_builds(self, which: StageOf) -> StageResult:
        """A host stage of each build, one after the other. One that fails stops its own devices; the result is failed
        when none is left, or when no device comes after it."""
        self._took_s(which)
        results = self.variants.execute(which.stage, lambda build: self._attempt(which, build), self.clock)
        good = [result for result in results if result.failure is None]
        bad = [result.failure for result in results if result.failure is not None]
        if bad and (not good or self.lanes is None or self.project.options.fail_fast):
            return next(result for result in results if result.failure is not None)
        for failure in bad:
            self.screen.failure(failure)
        return good[0]

    def _record_of(self, build: Build, result: StageResult) -> None:
        """A host stage of one of several builds; the devices of the others have waited for it."""
        if not self.transactions.begun:
            return
        mine = {device.name for device in build.project.devices}
        known = [device.name for device in self.project.all_devices if self.transactions.knows(device.name)]
        for name in known:
            if name in mine:
                self.transactions.stage_finished(result, name)
            else:
                self.transactions.waited(name, result.duration_s)
        if not known:
            self.transactions.stage_finished(result)

    def _begin_unasked(self, which: StageOf) -> Failure | None:
        """Nobody began a run: doit reports with somebody else's reporter (`doit -r json`), and tells us of nothing but
        the stages that it executes. Then the first of them begins it, the first of each device adds its transaction,
        and the process's end is its end. Why it cannot begin, if so."""
        unknown = which.device if not self.transactions.knows(which.device) else ""
        if self.active and not unknown:
            return None
        if self.active:
            assert self._facts is not None
            self.transactions.begin([(unknown, self.variants.device(unknown).port)], self._facts)
            return None
        begun = self.begin([str(which.stage)], [which])
        if isinstance(begun, Failure):
            return begun
        import atexit

        atexit.register(self._end_unasked)
        return None

    def _end_unasked(self) -> None:
        if not self.active:
            return
        ended = self.end(interrupted=bool(self._under_way), passed=False, selection=None)
        for line in (*ended.notes, *(one.line for one in ended.rendered)):
            with contextlib.suppress(OSError, ValueError):  # stdout belongs to the reporter, and stderr may be closed
                print(line, file=sys.stderr, flush=True)

    def _took_s(self, which: StageOf) -> float:
        now_s = self.clocks.of(which.device).now_s()
        return now_s - self._under_way.pop(which, now_s)

    def _record(self, which: StageOf, result: StageResult) -> StageResult:
        self._last_ended = which.device
        if self.transactions.begun:
            self.transactions.stage_finished(result, which.device)
        return result

    def _attempt(self, which: StageOf, build: Build | None = None) -> StageWork:
        stage = which.stage
        where = self.variants.device(which.device).where if which.device else str(stage)
        if stage in DEVICE_STAGES:
            return attempt(stage, where, lambda: self._on_board(which))
        return attempt(stage, where, lambda: self._on_host(stage, build or self.build))

    def _on_host(self, stage: Stage, build: Build) -> StageWork:
        from pipeline import stages

        return stages.load(stage)(build)

    def _on_board(self, which: StageOf) -> StageWork:
        """Give the stage what the one before it ended with, and keep what it ends with."""
        from pipeline.stages.handover import Booting, InLoader, StillRunning

        device = self.variants.device(which.device)
        board = self._handed_on.get(device.name)
        build, boards, records = self.variants.of(device.name)
        screen = self.screen if self._turns is None else self._turns.screen_of(device.name)
        left: Board | None
        if which.stage is Stage.VERIFY_FLASH:
            from pipeline.stages import verify_flash

            work, left = verify_flash.run(device, boards, records, build)
            if self.project.options.rollback and isinstance(left, InLoader) and left.proof.plan.writes:
                from pipeline.run.board_before import look

                self._handed_on.keep_before(device.name, look(build, left, device.where))
        elif which.stage is Stage.REFLASH and isinstance(board, InLoader):
            from pipeline.stages import reflash

            work, left = reflash.run(device, board, records, build, screen, which.region)
        elif which.stage is Stage.REATTACH and isinstance(board, InLoader | StillRunning):
            from pipeline.stages import reattach

            work, left = reattach.run(device, board, boards, records)
        elif which.stage is Stage.TTFB and isinstance(board, Booting | StillRunning):
            from pipeline.stages import ttfb

            work, left = ttfb.run(device, board, boards, records, build, screen, ttfb.placed_app(build))
        elif which.stage is Stage.REFLASH and isinstance(board, StillRunning):
            return StageWork(counts={"regions_written": 0, "bytes_written": 0})  # asked for all the same: `doit -a`
        else:
            return StageWork(failure=_out_of_order(which.stage, device))
        if left is not None:
            self._handed_on.keep(device.name, left)
        return work

    def _measured(self, device: str, part: events.PhasePart) -> None:
        self.transactions.say(part, device)

    def _performed(self, stage: Stage, spans: Sequence[ActionSpan]) -> None:
        since_s = self.transactions.since_s
        self.transactions.say_all(
            [
                events.ActionDone(span.action, stage, span.how, span.worker, since_s(span.began_s), span.duration_s)
                for span in spans
            ]
        )

    def _size_of(self, device: str) -> Mapping[str, Any] | None:
        """Where stage link has come so far that the application is what it is meant to be, or too large for that."""
        results = [self.transactions.result_of(Stage.LINK, name) for name in dict.fromkeys((device, ""))]
        linked = next((result for result in results if result is not None), None)
        if linked is None or not (linked.ok or _is_too_large(linked)):
            return None
        build = self.variants.of(device).build if device else self.build
        with self._sizing:
            return build.size(moved=linked.outcome is not StageOutcome.UP_TO_DATE)

    # --- several boards at once -----------------------------------------------------------------

    def _lanes_for(self, devices: Sequence[DeviceConfig], stages: Sequence[StageOf]) -> Lanes | None:
        """Lanes, where there is more than one board, or what only they can do is asked for."""
        options = self.project.options
        if len(devices) < 2 and not options.rollback:
            return None
        from pipeline.run.board_turns import BoardTurns
        from pipeline.run.fleet import FleetPolicy
        from pipeline.run.lanes import Lanes

        order = {stage: n for n, stage in enumerate(DEVICE_STAGES)}
        plan = {
            device.name: sorted((w for w in stages if w.device == device.name), key=lambda which: order[which.stage])
            for device in devices
        }
        self._turns = BoardTurns(
            self.variants,
            self._handed_on,
            self.transactions,
            self.screen,
            self.clocks,
            roll_back=options.rollback,
        )
        workers = int(options.workers or min(len(devices), MOST_WORKERS))
        policy = FleetPolicy(workers, int(options.canary or 0), options.fail_fast)
        return Lanes(self, self._turns, self.screen, plan, policy)

    @property
    def rolled_back(self) -> Sequence[Rendered]:
        """Reports of the transactions that put images back."""
        return self._turns.rolled_back if self._turns is not None else ()

    # --- end ----------------------------------------------------------------------------------

    def confirm(self, device: str) -> bool:
        """Does the deploy of `device` count: is its flash verified, and does it run this build?"""
        outcome = self._handed_on.confirmed(device)
        if outcome is not None:
            self.transactions.confirmed(outcome, device)
        return outcome is not None

    def settle(self) -> None:
        """Name the outcome of devices that an explicit target took only part of the way, by what was proven of them."""
        for device in self._handed_on.devices:
            outcome = self._handed_on.outcome(device)
            if outcome is not None:
                self.transactions.confirmed(outcome, device)

    def end(self, *, interrupted: bool, passed: bool, selection: Sequence[str] | None) -> Ended:
        """Let go of everything, remember, write the reports, give the lock back. `selection`: the stages that the
        command line asked for, if it asked for nothing but what files can answer and all of it `passed`."""
        self.active = False
        notes = []
        if self.lanes is not None and self._turns is not None and self.lanes.fleet.started:
            self._turns.finish(self.lanes.fleet, interrupted=interrupted)
        try:
            self.close()
        except (DeployError, OSError) as error:
            notes.append(f"note: the port could not be closed cleanly: {error}")
        if not interrupted:
            self.settle()
        if passed and not interrupted and not self.variants.broken:
            for it in self.variants.every:
                first = next((device.name for device in it.devices), "")
                results = [result for name, result in self.transactions.results if name in ("", first)]
                it.build.approve(results, None if self.variants.several else selection)
        under_way = [(which.stage, which.device, since_s) for which, since_s in self._under_way.items()]
        rendered = self.transactions.finish(under_way, interrupted=interrupted)
        self.unlock()
        if "_shared" in self.__dict__:
            # Last: nothing waits for it but this process's end.
            self._shared.settle(interrupted=interrupted)
        return Ended(rendered, notes)

    def close(self) -> None:
        """Keep what was read, and let go of every port and child process."""
        for it in self.variants.every:
            it.build.save()  # first: a port that does not let go must not cost it
        for it in self.variants.every:
            it.boards.close()
            it.records.close()
            it.build.close()


def before_run(age_ms: int | None, waited_s: float) -> tuple[int | None, int]:
    """(startup_ms, dispatch_ms): the run's age less its wait for the lock, and that wait; the budget adds both."""
    waited_ms = round(waited_s * 1000)
    return (None if age_ms is None else max(0, age_ms - waited_ms)), waited_ms


def _is_too_large(result: StageResult) -> bool:
    return result.failure is not None and result.failure.category is FailureCategory.IMAGE_TOO_LARGE


def _out_of_order(stage: Stage, device: DeviceConfig) -> Failure:
    before = DEVICE_STAGES[DEVICE_STAGES.index(stage) - 1]
    return fail(
        FailureCategory.CONFIG_ERROR,
        stage=stage,
        where=device.where,
        message=f"{stage} goes on where {before} ended, and that did not run before it",
        hint=f"run `doit {stage}:{device.name}` without --single, so that doit runs {before} first",
    )


def load_run(options: Options, root: Path | None = None) -> Run | Failure:
    """A run of the project in `root` (default: the current directory), or why `deploy.toml` cannot be used."""
    project = load_project(options, root)
    return project if isinstance(project, Failure) else Run(project)
