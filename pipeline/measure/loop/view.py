"""SUMMARY.md and `followup-<rule>.md`: what the loop leaves for people, made from its iterations.

Pure. Does not know files, or how a run is made. Invariant: every figure comes from the iterations that are passed, and
each text names the command and the transactions behind it, so that anyone can make it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cache.named_tuple import NamedTuple
from pipeline.measure.loop.judgement import (
    ACTIONS,
    GREEN_STREAK,
    SLUGS,
    WARM,
    Iteration,
    Limits,
    LoopDecision,
    LoopRun,
    Rule,
    Test,
    reference_of,
)
from pipeline.measure.page import NOTHING, device_fact, git_fact, machine_fact
from pipeline.report.markdown import markdown_table

MEANING: Mapping[Test, str] = {
    Test.COLD: "cold deploy (comparison only)",
    Test.BUILD: "warm build",
    Test.SKIP: "warm deploy up to reflash",
    Test.LOOP: "warm loop up to the first JSON-RPC byte",
    Test.COMMENT: "comment edit",
    Test.EDIT: "real edit (recorded, no limit)",
}


class LoopSession(NamedTuple):
    """Where and how the iterations were made. `determinism`: what the second cold build said, one sentence;
    `load`: the highest load average at the end of a run, which tells a busy machine from slow code."""

    command: str
    at: str
    machine: Mapping[str, str]
    device: str
    port: str
    profile: str
    toolchain: str
    sha: str
    dirty: bool
    repeats: int
    determinism: str
    load: float | None = None


def _facts(session: LoopSession, iterations: Sequence[Iteration]) -> list[str]:
    machine = session.machine
    numbers = ", ".join(str(iteration.number) for iteration in iterations)
    return [
        f"- command: `{session.command}`",
        f"- ended_at: `{session.at}`",
        machine_fact(machine),
        f"- load: {'unknown' if session.load is None else f'up to {session.load:.1f}'} (average of a minute)",
        device_fact(session.device, session.port, session.profile),
        f"- tools: `{session.toolchain or NOTHING}`, {machine['python']}",
        git_fact(session.sha, session.dirty),
        f"- iterations: {numbers}; each test T1 to T3 ran {session.repeats} times, and the median counts",
        f"- determinism: {session.determinism}",
    ]


def _tests_table(typical: Mapping[str, LoopRun], limits: Limits, reference: Mapping[str, LoopRun]) -> str:
    head = ("test", "what", "total ms", "limit ms", "margin ms", "reference ms", "outcome", "compiled", "bytes written")
    rows = []
    for test in Test:
        run = typical.get(test.value)
        if run is None:
            continue
        limit, before = limits.of(test), reference.get(test.value)
        margin = None if limit is None else limit - run.total_ms
        numbers = (run.total_ms, limit, margin, before.total_ms if before else None)
        cells = (*map(_cell, numbers), run.outcome or NOTHING, _cell(run.compiled), str(run.bytes_written))
        rows.append((test.value, MEANING[test], *cells))
    return markdown_table(head, rows)


def _phases_table(typical: Mapping[str, LoopRun], reference: Mapping[str, LoopRun]) -> str:
    tests = [test.value for test in WARM if test.value in typical]
    names = dict.fromkeys(name for test in tests for name in typical[test].phases)
    rows = []
    for name in names:
        cells = []
        for test in tests:
            now = typical[test].phases.get(name)
            was = reference[test].phases.get(name) if test in reference else None
            cells.append(_cell(now) if was is None or now is None else f"{now} ({now - was:+})")
        rows.append((name, *cells))
    return markdown_table(("phase, ms (against the reference)", *tests), rows)


def _cell(value: int | None) -> str:
    return NOTHING if value is None else str(value)


def _sources(iterations: Sequence[Iteration]) -> list[str]:
    lines = ["## Sources", ""]
    for iteration in iterations:
        used = ", ".join(f"{test} `{run.tx}`" for test, run in iteration.measured.items() if run.tx)
        lines.append(f"- iteration {iteration.number}: {used or 'no run with a transaction'}")
    told = "Each run is a row of `RESULTS.csv` and a line of `RESULTS.jsonl`; `runs/<transaction>.md` is its report."
    return [*lines, "", told, ""]


def summary(
    session: LoopSession, iterations: Sequence[Iteration], limits: Limits, reference: Mapping[str, LoopRun]
) -> str:
    """SUMMARY.md: the green iterations that ended the loop, which may be preceded by others."""
    iterations = iterations[-GREEN_STREAK:]
    typical = reference_of(iterations)
    return "\n".join(
        [
            "# Warm loop: green",
            "",
            f"{len(iterations)} consecutive iterations did no work that they need not do, within every limit.",
            "",
            *_facts(session, iterations),
            "",
            "## Tests (medians)",
            "",
            _tests_table(typical, limits, reference),
            "",
            "## Phases of the warm tests",
            "",
            _phases_table(typical, reference),
            "",
            *_sources(iterations),
        ]
    )


def followup_name(decision: LoopDecision) -> str:
    """The file of a follow-up, named after the rule that stands in the way."""
    return f"followup-{SLUGS[decision.cause]}.md"


def followup(
    session: LoopSession,
    history: Sequence[Iteration],
    decision: LoopDecision,
    limits: Limits,
    reference: Mapping[str, LoopRun],
) -> str:
    """The text of an issue: what stands in the way, the evidence, where to look, how to see it again."""
    last = history[-1]
    first = decision.findings[0] if decision.findings else None
    subject = f"{first.test}: {first.subject}" if first else "; ".join(last.unscored) or "no finding"
    lines = [
        f"# Warm loop, rule {int(decision.cause)} ({SLUGS[decision.cause]}): {subject}",
        "",
        f"What to do: {ACTIONS[decision.cause if decision.cause is not Rule.NO_PROGRESS else decision.rule]}.",
        "",
        *_facts(session, history),
        "",
        "## Findings of the last iteration",
        "",
        *(f"- rule {int(f.rule)}, {f.test}, `{f.subject}`: {f.fact}" for f in last.findings),
        *(f"- not scored, {why}" for why in last.unscored),
        "",
        "## Tests of the last iteration",
        "",
        _tests_table(last.measured, limits, reference),
        "",
        "## Phases of the warm tests",
        "",
        _phases_table(last.measured, reference),
        "",
    ]
    lines += _where_to_look(decision.cause, last)
    lines += _course(history)
    lines += ["## Reproduce", "", "```", session.command, "```", ""]
    lines += _sources(history)
    lines += ["## Validation", "", "Done when `doit loop` ends with 0 (three consecutive green iterations).", ""]
    return "\n".join(lines)


def _where_to_look(rule: Rule, last: Iteration) -> list[str]:
    """What the rule asks for beside the tables: the boot's course for rule 4, the reasons for work for 2, 5 and 6."""
    runs = [run for test, run in last.measured.items() if test != Test.COLD]
    if rule is Rule.SLOW_TTFB:
        told = [
            f"- {run.test}: {run.attempts if run.attempts is not None else 'unknown'} attempts to open the port; "
            + (", ".join(f"{name} {ms}" for name, ms in run.segments.items()) or "no segment was measured")
            for run in runs
            if run.ttfb_ms is not None
        ]
        return ["## Between reset and first byte", "", *told, ""]
    if rule in (Rule.SLOW_BUILD, Rule.WROTE, Rule.COARSE):
        told = [f"- {run.test}: {reason}" for run in runs for reason in (*run.rebuilt[:10], *run.moved[:10])]
        return ["## What was regenerated, and why", "", *(told or ["- no stage gave a reason"]), ""]
    return []


def _course(history: Sequence[Iteration]) -> list[str]:
    rows = []
    for iteration in history:
        state = "green" if iteration.green else "not scored" if iteration.unscored else "red"
        rules = ", ".join(str(int(rule)) for rule in sorted({finding.rule for finding in iteration.findings}))
        totals = (_cell(run.total_ms if (run := iteration.measured.get(test.value)) else None) for test in Test)
        rows.append((str(iteration.number), state, rules or NOTHING, *totals))
    head = ("iteration", "state", "rules", *(f"{test} ms" for test in Test))
    return ["## Course", "", markdown_table(head, rows), ""]
