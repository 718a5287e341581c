"""The inner loop without a board: build for this machine, unit tests, live tests; each up to date or why not.

Knows the order and what is remembered. Does not know doit. Invariant: live tests are up to date exactly when the very
program, every file of theirs, and the selection are those of a run that passed; asking writes nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from cache.durable import MOST_TEXT, read_file, write_atomic
from pipeline.config.values import HOST
from pipeline.effects.clock import SystemClock
from pipeline.failures import fail
from pipeline.livetest.files import live_files, load_observed, save_suite
from pipeline.livetest.host_build import MachineBuild, UnitResult, text_digest
from pipeline.livetest.observed import encode
from pipeline.livetest.selection import LiveOptions
from pipeline.model import Failure, FailureCategory
from pipeline.records import json_text, parse_json
from pipeline.report.live_tests import FAILED, PASSED, UNIT, CaseResult, SuiteResult
from pipeline.run.build import Build

LIVE_STATE = "live.v1.json"
_VERSION = 1
"""Of what live tests mean: raised when the same files would be run otherwise."""


class HostLoop:
    """`say`: lines for people; `kept` is told of each suite that ran."""

    def __init__(self, build: Build, say: Callable[[str], None], kept: Callable[[SuiteResult], None]) -> None:
        self._project = build.project
        self._programs = MachineBuild(build, say)
        self._say, self._kept = say, kept

    def is_up_to_date(self, name: str, options: LiveOptions) -> bool:
        """Is there nothing to do for `build`, `unit` or `live`? Raises DeployError."""
        if not self._project.config.host.declared:
            return False
        if name == "build":
            return self._programs.up_to_date()
        if name == "unit":
            return not self._programs.untested()
        return not options.update and self._live_key(options) == self._passed_key() != ""

    def perform(self, name: str, options: LiveOptions) -> Failure | None:
        """Do it; why it failed. Raises DeployError."""
        if not self._project.config.host.declared:
            return fail(
                FailureCategory.CONFIG_ERROR,
                stage=None,
                where=self._project.config.path,
                message="there is no [host] that says what is built for this machine",
                hint="add [host] with `sources`, `main` and `tests` (docs/live-tests.md), or use `doit livetest`",
            )
        steps: dict[str, Callable[[], Failure | None]] = {
            "build": self._build,
            "unit": self._unit,
            "live": lambda: self._live(options),
        }
        return steps[name]()

    def close(self) -> None:
        """Keep what was read."""
        self._programs.close()

    # --- build and unit tests -----------------------------------------------------------------

    def _build(self) -> Failure | None:
        made = self._programs.make()
        if isinstance(made, Failure):
            return made
        self._say("host: " + ", ".join(f"{name}={count}" for name, count in made.items()))
        return None

    def _unit(self) -> Failure | None:
        from pipeline.livetest.screen import Told
        from pipeline.livetest.session import failure_of

        at = SystemClock().utc()
        todo = self._programs.untested()
        results = self._programs.test(todo)
        for result in results:
            if result.failure:
                Told(HOST, self._say).result(_shown(result))
        known = self._programs.passed()
        cases = [_case(result) for result in results]
        ran = {case.name for case in cases}
        cases += [
            CaseResult(name, PASSED, 0) for name in self._programs.programs.tests if name not in ran and name in known
        ]
        suite = SuiteResult(HOST, HOST, UNIT, at, "", tuple(sorted(cases)), sum(case.duration_ms for case in cases))
        save_suite(self._project.state_dir, suite)
        self._kept(suite)
        told = "; ".join(f"{result.name}: {result.summary}" for result in results if result.summary)
        self._say(
            f"unit tests: {suite.count(PASSED)} passed, {len(results)} of them run now{f' ({told})' if told else ''}"
        )
        return failure_of(suite)

    # --- live tests ---------------------------------------------------------------------------

    def _live(self, options: LiveOptions) -> Failure | None:
        from pipeline.livetest.screen import Told
        from pipeline.livetest.session import failure_of, run_live, select
        from pipeline.livetest.targets import HostTarget

        program = self._programs.programs.program
        if not program:
            self._say("live tests on host: [host] declares no `main`, so there is no process to talk to")
            return None
        selected = select(self._project, options)
        if isinstance(selected, Failure):
            return selected
        key = self._live_key(options)
        told = Told(HOST, self._say)
        target = HostTarget(self._project.root, program)
        suite = run_live(self._project, target, selected, options, said=told.result)
        if isinstance(suite, Failure):
            return suite
        told.suite(suite)
        self._kept(suite)
        failure = failure_of(suite)
        if options.update:  # the baselines are others now
            key = self._live_key(options)
        self._remember("" if failure is not None else key)
        return failure

    def _live_key(self, options: LiveOptions) -> str:
        """A digest of all that the live tests depend on; `""` when it cannot be told."""
        config = self._project.config.livetest
        program = self._programs.programs.program
        digest = self._programs.digest_of(program) if program else "none"
        if not digest:
            return ""
        parts = [f"{_VERSION} {digest} {config.timeout_ms} {self._project.config.readiness.timeout_ms}".encode()]
        parts += [options.select.encode(), options.tags.encode()]
        observed = load_observed(self._project.root, config)
        if isinstance(observed, Failure):
            return ""
        # boards widen what is theirs in the same file
        parts.append(encode({HOST: observed.get(HOST, {})}))
        baselines = self._project.root / config.baselines
        try:
            for path in live_files(self._project.root, config):
                if path != baselines:
                    parts += [str(path.relative_to(self._project.root)).encode(), read_file(str(path), most=MOST_TEXT)]
        except OSError:
            return ""
        return text_digest(parts)

    def _passed_key(self) -> str:
        try:
            value: Any = parse_json(read_file(str(self._programs.state_dir / LIVE_STATE)))
        except (OSError, ValueError, RecursionError):
            return ""
        return str(value.get("passed", "")) if isinstance(value, dict) else ""

    def _remember(self, key: str) -> None:
        with contextlib.suppress(OSError):  # then the next run does it again
            text = json_text({"passed": key}) + "\n"
            write_atomic(self._programs.state_dir / LIVE_STATE, text.encode(), durable=False)


def _case(result: UnitResult) -> CaseResult:
    duration_ms = round(1000 * result.duration_s)
    if not result.failure:
        return CaseResult(result.name, PASSED, duration_ms)
    first = result.failure.splitlines()[0]
    return CaseResult(result.name, FAILED, duration_ms, first, result.failure)


def _shown(result: UnitResult) -> Any:
    from pipeline.livetest.runner import LiveResult

    return LiveResult(result.name, "", FAILED, result.duration_s, "", result.failure)
