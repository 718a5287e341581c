"""The live tests of a project on one target: which are meant, the run of each, and what is kept of it.

Scenarios run here; pytest modules in a child of their own, which talks to the board through the plugin. Knows targets,
files and results. Does not know doit. Invariant: every selected test has exactly one case in the results, and observed
ranges are only widened, and only when everything passed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from cache.durable import FileLock
from cache.named_tuple import NamedTuple
from pipeline.effects.clock import SystemClock
from pipeline.errors import DeviceError
from pipeline.failures import fail
from pipeline.livetest.files import load_observed, load_scenarios, pytest_files, save_observed, save_suite
from pipeline.livetest.observed import Observed, widened
from pipeline.livetest.runner import LiveResult, Rules, no_tests, run_scenario
from pipeline.livetest.scenario import Scenario
from pipeline.livetest.selection import LiveOptions, parse_selection
from pipeline.livetest.targets import LiveTarget
from pipeline.model import Failure, FailureCategory
from pipeline.report.live_tests import ERROR, FAILED, LIVE, SKIPPED, CaseResult, SuiteResult
from pipeline.run.project import Project

WIDEN_S = 10.0
"""How long another writer of the baselines is waited for."""


class Selected(NamedTuple):
    """What is to be run: scenarios, and whether there are pytest modules (which select for themselves)."""

    scenarios: tuple[Scenario, ...]
    pytest: bool
    observed: Observed


def select(project: Project, options: LiveOptions) -> Selected | Failure:
    """What the options mean in this project; a failure when that is nothing."""
    config = project.config.livetest
    scenarios, observed = load_scenarios(project.root, config), load_observed(project.root, config)
    by_name, by_tag = parse_selection(options.select, "-k"), parse_selection(options.tags, "-m")
    for found in (scenarios, observed, by_name, by_tag):
        if isinstance(found, Failure):
            return found
    assert not isinstance(scenarios, Failure) and not isinstance(observed, Failure)
    assert not isinstance(by_name, Failure) and not isinstance(by_tag, Failure)

    def is_meant(scenario: Scenario) -> bool:
        words = (scenario.name, scenario.path, *scenario.tags)
        named = by_name(lambda word: any(word.lower() in known.lower() for known in words))
        return named and by_tag(lambda word: word in scenario.tags)

    meant = tuple(filter(is_meant, scenarios))
    modules = bool(pytest_files(project.root, config))
    if not meant and not modules:
        return no_tests(config.dir)
    return Selected(meant, modules, observed)


def run_live(
    project: Project,
    target: LiveTarget,
    selected: Selected,
    options: LiveOptions,
    as_of: str = "",
    said: Callable[[LiveResult], None] = lambda result: None,
) -> SuiteResult | Failure:
    """Run it all; `said` is told of each result. `as_of`: the transaction that put the firmware there."""
    clock = SystemClock()
    at, began_s = clock.utc(), clock.now_s()
    results = list(_scenarios(project, target, selected, options, said))
    if selected.pytest:
        from pipeline.livetest.pytest_child import run_pytest

        found = run_pytest(project, target.name, options, target.lease)
        if isinstance(found, Failure):
            return found
        for result in found:
            said(result)
        results += found
    if not results:
        return no_tests(project.config.livetest.dir)
    if options.update and all(result.ok for result in results):
        _widen(project, target.chip, selected.observed, results)
    cases = tuple(map(case_of, results))
    suite = SuiteResult(target.name, target.chip, LIVE, at, as_of, cases, round(1000 * (clock.now_s() - began_s)))
    save_suite(project.state_dir, suite)
    return suite


def _scenarios(
    project: Project,
    target: LiveTarget,
    selected: Selected,
    options: LiveOptions,
    said: Callable[[LiveResult], None],
) -> Sequence[LiveResult]:
    if not selected.scenarios:
        return ()
    config = project.config
    rules = Rules(
        chip=target.chip,
        timeout_s=config.livetest.timeout_ms / 1000,
        boot_s=config.readiness.timeout_ms / 1000,
        observed=None if options.update else selected.observed,
    )
    results: list[LiveResult] = []
    try:
        talk = target.open()
        for scenario in selected.scenarios:
            results.append(run_scenario(scenario, talk, rules))
            said(results[-1])
    except DeviceError as error:  # it could not even be opened: no scenario has a verdict
        for scenario in selected.scenarios[len(results) :]:
            results.append(LiveResult(scenario.name, scenario.path, ERROR, 0.0, error.failure.line()))
            said(results[-1])
    finally:
        target.close()
    return results


def _widen(project: Project, chip: str, observed: Observed, results: Sequence[LiveResult]) -> None:
    values = dict(pair for result in results for pair in result.values)
    if widened(observed, chip, values) == observed:
        return
    lock = FileLock(project.state_dir / "locks/baselines")
    lock.acquire("live tests", timeout_s=WIDEN_S, now_s=time.monotonic, pause=time.sleep)
    try:
        # again, since other boards may have widened it meanwhile
        newest = load_observed(project.root, project.config.livetest)
        if not isinstance(newest, Failure):
            save_observed(project.root, project.config.livetest, widened(newest, chip, values))
    finally:
        lock.release()


def case_of(result: LiveResult) -> CaseResult:
    """As it is kept."""
    return CaseResult(result.name, result.outcome, round(1000 * result.duration_s), result.message, result.detail)


def failure_of(suite: SuiteResult) -> Failure | None:
    """One failure for all that did not pass."""
    bad = [case for case in suite.cases if case.outcome in (FAILED, ERROR)]
    if not bad:
        return None
    names = ", ".join(case.name for case in bad[:5]) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
    count = sum(case.outcome != SKIPPED for case in suite.cases)
    return fail(
        FailureCategory.TEST_FAILED,
        stage=None,
        where=f"{suite.kind} tests on {suite.device}",
        message=f"{len(bad)} of {count} failed: {names}",
        hint="read what came instead above, then fix the firmware, or the test",
    )
