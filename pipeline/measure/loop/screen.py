"""What `doit loop` shows: a line per run and per iteration, and one line for scripts at the end.

Knows the terminal; what is run and decided, `runner.py` knows.
"""

from __future__ import annotations

import sys

from pipeline.measure.loop.judgement import Iteration, LoopDecision, LoopRun, Rule
from pipeline.measure.loop.runner import LoopOptions, Watcher, run_loop
from pipeline.measure.screen import MeasurementScreen, shown
from pipeline.run.build import Build


def show(build: Build, asked: LoopOptions) -> str:
    """Run the loop and show it; why the task failed, `""` when it did not."""
    ended = shown("loop", lambda screen: run_loop(build, asked, _watcher(screen)))
    if isinstance(ended, str):
        return ended
    path = ended.path.relative_to(build.project.root) if ended.path.is_relative_to(build.project.root) else ended.path
    rule, cause = int(ended.decision.rule), int(ended.decision.cause)
    state = "green" if ended.green else "red"
    print(f"LOOP_RULE={rule} LOOP_CAUSE={cause} LOOP_STATE={state} LOOP_ITERATIONS={ended.iterations} LOOP_FILE={path}")
    sys.stdout.flush()
    if ended.green:
        return ""
    what = f"rule {cause}" if ended.decision.rule is Rule.NO_PROGRESS else f"rule {rule}"
    return f"the loop is not green: {what}; {path} says why"


def _watcher(screen: MeasurementScreen) -> Watcher:
    def decided(iteration: Iteration, decision: LoopDecision) -> None:
        screen.line(_verdict(iteration))
        for finding in iteration.findings:
            screen.line(f"  rule {int(finding.rule)}, {finding.test}, {finding.subject}: {finding.fact}")
        screen.line(f"  decision: rule {int(decision.rule)}: {decision.action}")

    return Watcher(
        began=lambda label: screen.step(label, 0, 1),
        ran=lambda number, run: screen.line(_line(number, run)),
        decided=decided,
    )


def _line(number: int, run: LoopRun) -> str:
    note = (
        f"  not scored: {run.precondition}" if run.precondition else f"  failed: {run.failure}" if run.failure else ""
    )
    did = f"compiled {run.compiled or 0}, wrote {run.bytes_written}"
    return f"{number:>3} {run.test} {run.total_ms:>7} ms  {run.outcome or '-':<20} {did}{note}"


def _verdict(iteration: Iteration) -> str:
    state = "green" if iteration.green else "red" if iteration.findings else "not scored"
    return f"iteration {iteration.number}: {state}"
