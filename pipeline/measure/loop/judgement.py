"""The warm loop's judgement: what each test must do, what an iteration found, and the one thing to do next.

Pure. Does not know how a test is run, files, the clock or how anything is shown. Invariants: a run whose preconditions
did not hold is never judged, and an iteration with such a run is neither green nor red; `decide` gives exactly one
decision, the first of the seven rules that holds.

The tests: T0 cold, comparison only; T1 warm build; T2 warm deploy up to reflash; T3 the whole warm loop up to the
first JSON-RPC byte; T4 a comment edit; T5 a real edit. A slow run is one over its limit, or one of whose phases is
slower than in the last green loop by more than such phases spread: the budget has room for a regression, the reference
has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum, StrEnum
from types import MappingProxyType

from cache.named_tuple import NamedTuple
from pipeline.model import HOST_STAGES, RegionAction, Stage
from pipeline.statistics import median

LOOP_SCHEMA = 1
"""Version of what `measure` and `judge` mean: iterations of different versions are never compared."""


class Test(StrEnum):
    """One run of the real commands; see the module's header."""

    __test__ = False  # not one of pytest's

    COLD = "T0"
    BUILD = "T1"
    SKIP = "T2"
    LOOP = "T3"
    COMMENT = "T4"
    EDIT = "T5"


WARM = (Test.BUILD, Test.SKIP, Test.LOOP)
"""Nothing moved since the run before: these must do no work at all."""

JUDGED = (*WARM, Test.COMMENT, Test.EDIT)


class Rule(IntEnum):
    """The seven rules in their order; `CONTINUE`: none of them holds yet."""

    CONTINUE = 0
    GREEN = 1
    SLOW_BUILD = 2
    SLOW_DEPLOY = 3
    SLOW_TTFB = 4
    WROTE = 5
    COARSE = 6
    NO_PROGRESS = 7


SLUGS: Mapping[Rule, str] = MappingProxyType(
    {
        Rule.GREEN: "1-green",
        Rule.SLOW_BUILD: "2-slow-build",
        Rule.SLOW_DEPLOY: "3-slow-deploy",
        Rule.SLOW_TTFB: "4-slow-ttfb",
        Rule.WROTE: "5-unexpected-write",
        Rule.COARSE: "6-coarse-invalidation",
        Rule.NO_PROGRESS: "7-no-progress",
    }
)
"""A rule's name in file names: `followup-<slug>.md`."""

ACTIONS: Mapping[Rule, str] = MappingProxyType(
    {
        Rule.CONTINUE: "run another iteration",
        Rule.GREEN: "stop: the loop is green",
        Rule.SLOW_BUILD: "make the named phase of the warm build cheaper, or find out why the named input moved",
        Rule.SLOW_DEPLOY: "make the named phase of the warm deploy cheaper",
        Rule.SLOW_TTFB: "read the attempts and marks between reset and first byte, and shorten the named wait",
        Rule.WROTE: "make the named artefact the same in every build, or the write plan as small as it was",
        Rule.COARSE: "narrow what the named edit invalidates",
        Rule.NO_PROGRESS: "stop: file the follow-up",
    }
)

NOT_APPLICABLE = "nothing_to_edit"
"""The precondition of a test that this project cannot have; it does not keep an iteration from being green."""

GREEN_STREAK = 3
MAX_WITHOUT_PROGRESS = 5
"""Iterations without progress after which rule 7 ends the loop."""

SHOWN_REBUILT = 3
"""Products that a finding names: the first ones made are the cause, the others follow."""

TOLERANCE_MS = 150
TOLERANCE_SHARE = 0.5
"""A phase counts as slower than the reference beyond the larger of these two: two busy cores move a phase of 100 ms by
some 60 ms (the spread of `doit bench:warm`), and nobody misses less."""


class Limits(NamedTuple):
    """In ms. `loop` and `ttfb` are those of `[budget]`; the others belong to the tests."""

    build: int = 500
    skip: int = 2000
    loop: int = 4000
    comment: int = 2500
    ttfb: int = 1000

    def of(self, test: Test) -> int | None:
        """The limit of the whole test, None for those that are only recorded."""
        limits = {Test.BUILD: self.build, Test.SKIP: self.skip, Test.LOOP: self.loop, Test.COMMENT: self.comment}
        return limits.get(test)


class LoopRun(NamedTuple):
    """What one run did. `phases`: `startup`, `dispatch`, the stages that ran, `remainder`, in ms; `None` or a missing
    key is what was not measured. `regions`: what happened to each; `moved`: the stages' reasons for their work;
    `rebuilt`: the products that were written again, first made first. `precondition`: why the run cannot be scored,
    `""`: it can."""

    test: Test
    total_ms: int
    phases: Mapping[str, int]
    outcome: str = ""
    compiled: int | None = None
    restored: int | None = None
    linked: int | None = None
    bytes_written: int = 0
    regions: Mapping[str, str] = MappingProxyType({})
    moved: tuple[str, ...] = ()
    rebuilt: tuple[str, ...] = ()
    ttfb_ms: int | None = None
    segments: Mapping[str, int] = MappingProxyType({})
    attempts: int | None = None
    failure: str = ""
    precondition: str = ""
    tx: str = ""

    @property
    def build_ms(self) -> int | None:
        return self._sum(HOST_STAGES)

    @property
    def deploy_ms(self) -> int | None:
        return self._sum((Stage.VERIFY_FLASH, Stage.REFLASH))

    @property
    def reconnect_ms(self) -> int | None:
        return self.phases.get(Stage.REATTACH)

    def _sum(self, stages: Iterable[Stage]) -> int | None:
        found = [self.phases[stage] for stage in stages if stage in self.phases]
        return sum(found) if found else None


class Finding(NamedTuple):
    """One thing that is wrong. `subject`: the phase, input, region or symbol to look at; `fact` has both values."""

    rule: Rule
    test: str
    subject: str
    fact: str


class Iteration(NamedTuple):
    """One pass over the tests: the findings, why runs were not scored, and each test's median run."""

    number: int
    findings: tuple[Finding, ...] = ()
    unscored: tuple[str, ...] = ()
    measured: Mapping[str, LoopRun] = MappingProxyType({})

    @property
    def green(self) -> bool:
        return not self.findings and not self.unscored


class LoopDecision(NamedTuple):
    """`rule` that holds, what to do, and whether the loop ends here. `cause`: the rule that stands in the way when the
    loop gives up (`NO_PROGRESS` itself when none does); else the same as `rule`."""

    rule: Rule
    cause: Rule
    findings: tuple[Finding, ...] = ()

    @property
    def ends(self) -> bool:
        return self.rule in (Rule.GREEN, Rule.NO_PROGRESS)

    @property
    def action(self) -> str:
        return ACTIONS[self.rule]


# --- the rules --------------------------------------------------------------------------------


def decide(history: Sequence[Iteration]) -> LoopDecision:
    """The one thing to do after the last iteration of `history` (oldest first; only those that may be compared).

    Rules 2 to 6 are tried in their order. An action that did not help for `MAX_WITHOUT_PROGRESS` iterations is proposed
    no longer: rule 7 then takes its place and names it as the cause."""
    if len(history) >= GREEN_STREAK and all(iteration.green for iteration in history[-GREEN_STREAK:]):
        return LoopDecision(Rule.GREEN, Rule.GREEN)
    findings = history[-1].findings if history else ()
    rule = min((finding.rule for finding in findings), default=Rule.CONTINUE)
    chosen = tuple(finding for finding in findings if finding.rule is rule)
    if without_progress(history) >= MAX_WITHOUT_PROGRESS:
        return LoopDecision(Rule.NO_PROGRESS, rule or Rule.NO_PROGRESS, chosen)
    # Rule 7 as a finding is a failed run: it has no action of its own before that many iterations.
    if rule in (Rule.CONTINUE, Rule.NO_PROGRESS):
        return LoopDecision(Rule.CONTINUE, rule or Rule.CONTINUE, chosen)
    return LoopDecision(rule, rule, chosen)


def without_progress(history: Sequence[Iteration]) -> int:
    """How many of the last iterations were neither green nor had fewer findings than any before them.

    An iteration that could not be scored is no progress, whatever it did not find."""
    fewest, since = None, 0
    for iteration in history:
        found = len(iteration.findings)
        better = not iteration.unscored and fewest is not None and found < fewest
        since = 0 if iteration.green or better else since + 1
        if not iteration.unscored:
            fewest = found if fewest is None else min(fewest, found)
    return since


# --- judging one iteration --------------------------------------------------------------------


def judge(
    runs: Sequence[LoopRun], limits: Limits, reference: Mapping[str, LoopRun], always: Sequence[Finding] = ()
) -> tuple[tuple[Finding, ...], tuple[str, ...], Mapping[str, LoopRun]]:
    """(findings, why runs were not scored, the median run of each test). `reference`: the median runs of the last loop
    that ended green, empty when there is none; `always`: findings about the build itself."""
    findings = list(always)
    broken = [run for run in runs if run.precondition and not run.precondition.startswith(NOT_APPLICABLE)]
    unscored = [f"{run.test}: {run.precondition}" for run in broken]
    typical: dict[str, LoopRun] = {}
    for test in Test:
        scored = [run for run in runs if run.test is test and not run.precondition]
        if not scored:
            continue
        typical[test.value] = middle(scored)
        failed = [run for run in scored if run.failure]
        findings += [Finding(Rule.NO_PROGRESS, test, one.failure, f"the run failed: {one.failure}") for one in failed]
        if test in JUDGED and not failed:
            findings += [finding for run in scored for finding in _work(run, reference.get(test.value))]
            findings += _speed(typical[test.value], limits, reference.get(test.value))
    if not findings:
        tried = {run.test for run in runs}
        unscored += [f"{test}: not run" for test in WARM if test not in tried]
    return tuple(dict.fromkeys(sorted(findings, key=lambda finding: finding.rule))), tuple(unscored), typical


def middle(runs: Sequence[LoopRun]) -> LoopRun:
    """The typical run of several: medians of the times, with the remainder that makes them sum to the total; what was
    done is that of the last run, since `judge` looks at each."""
    last = runs[-1]
    names = [name for name in dict.fromkeys(name for run in runs for name in run.phases) if name != "remainder"]
    phases = {name: _median([run.phases[name] for run in runs if name in run.phases]) for name in names}
    ttfb = [run.ttfb_ms for run in runs if run.ttfb_ms is not None]
    total = _median([run.total_ms for run in runs])
    phases["remainder"] = total - sum(phases.values())
    return last._replace(total_ms=total, phases=phases, ttfb_ms=_median(ttfb) if ttfb else None)


def _median(values: Sequence[int]) -> int:
    return round(median(values))


def _work(run: LoopRun, before: LoopRun | None) -> list[Finding]:
    """What the run did that it should not have done, or the other way round. Counts, so one run is enough."""
    if run.test is Test.EDIT:
        return _edit_work(run, before)
    found = []
    compiled, linked = run.compiled or 0, run.linked or 0
    cause = _cause(run)
    if run.test is Test.COMMENT and (compiled != 1 or linked > 1):
        fact = f"a comment in one file compiled {compiled} units and linked {linked} times, not 1 and at most 1"
        found.append(Finding(Rule.COARSE, run.test, cause, fact))
    if run.test in WARM and (compiled or linked or run.restored):
        fact = f"nothing moved, and {compiled} units were compiled, {linked} linked, {run.restored or 0} restored"
        found.append(Finding(Rule.SLOW_BUILD, run.test, cause, fact))
    if run.bytes_written:
        names = ", ".join(name for name, action in run.regions.items() if action != RegionAction.KEPT) or "flash"
        moved = "a comment" if run.test is Test.COMMENT else "nothing"
        found.append(Finding(Rule.WROTE, run.test, names, f"{moved} moved, and {run.bytes_written} bytes were written"))
    return found


def _cause(run: LoopRun) -> str:
    """What to look at when a run worked: what it made first, and what the stages say moved."""
    shown = [*run.rebuilt[:SHOWN_REBUILT], *run.moved]
    more = len(run.rebuilt) - SHOWN_REBUILT
    return "; ".join([*shown, f"{more} more products"] if more > 0 else shown) or "no stage gave a reason"


def _edit_work(run: LoopRun, before: LoopRun | None) -> list[Finding]:
    if not run.compiled or not run.bytes_written:
        fact = f"a real edit compiled {run.compiled or 0} units and wrote {run.bytes_written} bytes: it was not noticed"
        return [Finding(Rule.COARSE, run.test, "real edit", fact)]
    found = []
    if run.compiled > 1:
        fact = f"a real edit of one file compiled {run.compiled} units, not 1"
        found.append(Finding(Rule.COARSE, run.test, _cause(run), fact))
    for name, action in run.regions.items():
        was = before.regions.get(name, action) if before else action
        if action == RegionAction.WRITTEN and was in (RegionAction.DELTA, RegionAction.KEPT):
            fact = f"region {name} was {action} ({run.bytes_written} bytes in all), and {was} in the reference"
            found.append(Finding(Rule.WROTE, run.test, name, fact))
    return found


def _speed(run: LoopRun, limits: Limits, before: LoopRun | None) -> list[Finding]:
    """Too slow against the limit, or a phase slower than in the reference."""
    found = []
    limit = limits.of(run.test)
    if limit is not None and run.total_ms > limit:
        subject, took = dominant(run, before)
        fact = f"{run.total_ms} ms, limit {limit} ms; most of it is {subject} with {took} ms"
        found.append(Finding(_rule_of(run.test, subject), run.test, subject, fact))
    if run.test is Test.LOOP and run.ttfb_ms is not None and run.ttfb_ms > limits.ttfb:
        fact = f"{run.ttfb_ms} ms to the first JSON-RPC byte, limit {limits.ttfb} ms"
        found.append(Finding(Rule.SLOW_TTFB, run.test, Stage.TTFB, fact))
    for phase, was in before.phases.items() if before and run.test in WARM else ():
        now = run.phases.get(phase)
        if now is not None and now - was > max(TOLERANCE_MS, TOLERANCE_SHARE * was):
            fact = f"{phase} took {now} ms, {was} ms in the reference"
            found.append(Finding(_rule_of(run.test, phase), run.test, phase, fact))
    return found


def _rule_of(test: Test, phase: str) -> Rule:
    """Whose matter a slow phase is: the build's, the deploy's or the boot's."""
    if test is Test.BUILD:
        return Rule.SLOW_BUILD
    return Rule.SLOW_TTFB if phase == Stage.TTFB else Rule.SLOW_DEPLOY


def dominant(run: LoopRun, before: LoopRun | None) -> tuple[str, int]:
    """(phase, ms): the one that grew most against the reference; without a reference the longest."""
    grown = {name: ms - (before.phases.get(name, 0) if before else 0) for name, ms in run.phases.items()}
    name = max(grown, key=lambda phase: grown[phase], default="")
    return name or "the process", run.phases.get(name, run.total_ms)


# --- the history ------------------------------------------------------------------------------


def reference_of(iterations: Sequence[Iteration]) -> dict[str, LoopRun]:
    """The median runs of a loop that ended green: what later loops are compared with."""
    last = iterations[-GREEN_STREAK:]
    tests = dict.fromkeys(test for iteration in last for test in iteration.measured)
    return {test: middle([one.measured[test] for one in last if test in one.measured]) for test in tests}
