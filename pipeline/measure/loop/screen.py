"""What `doit loop` shows: a line per run and per iteration, and one line for scripts at the end.

Knows the terminal; what is run and decided, `runner.py` knows.
"""

from __future__ import annotations

import sys

from pipeline.measure.loop.judgement import Decision, Iteration, Measured, Rule
from pipeline.measure.loop.runner import Asked, Watcher, run_loop
from pipeline.model import Failure
from pipeline.report.terminal import Progress, look_of, os_failure
from pipeline.run.build import Build


def show(build: Build, asked: Asked) -> str:
    """Run the loop and show it; why the task failed, `""` when it did not."""
    progress = Progress(sys.stdout, look_of(sys.stdout))

    def began(label: str) -> None:
        progress(label, 0, 1)

    def ran(number: int, run: Measured) -> None:
        progress.finish()
        print(_line(number, run), flush=True)

    def decided(iteration: Iteration, decision: Decision) -> None:
        progress.finish()
        print(_verdict(iteration), flush=True)
        for finding in iteration.findings:
            print(f"  rule {int(finding.rule)}, {finding.test}, {finding.subject}: {finding.fact}")
        print(f"  decision: rule {int(decision.rule)}: {decision.action}", flush=True)

    try:
        ended = run_loop(build, asked, Watcher(began, ran, decided))
    except OSError as error:
        return os_failure("loop", error)
    finally:
        progress.finish()
    if isinstance(ended, Failure):
        return f"{ended.line()}\nhint: {ended.hint}"
    path = ended.path.relative_to(build.project.root) if ended.path.is_relative_to(build.project.root) else ended.path
    rule, cause = int(ended.decision.rule), int(ended.decision.cause)
    state = "green" if ended.green else "red"
    print(f"LOOP_RULE={rule} LOOP_CAUSE={cause} LOOP_STATE={state} LOOP_ITERATIONS={ended.iterations} LOOP_FILE={path}")
    sys.stdout.flush()
    if ended.green:
        return ""
    what = f"rule {cause}" if ended.decision.rule is Rule.NO_PROGRESS else f"rule {rule}"
    return f"the loop is not green: {what}; {path} says why"


def _line(number: int, run: Measured) -> str:
    note = (
        f"  not scored: {run.precondition}" if run.precondition else f"  failed: {run.failure}" if run.failure else ""
    )
    did = f"compiled {run.compiled or 0}, wrote {run.bytes_written}"
    return f"{number:>3} {run.test} {run.total_ms:>7} ms  {run.outcome or '-':<20} {did}{note}"


def _verdict(iteration: Iteration) -> str:
    state = "green" if iteration.green else "red" if iteration.findings else "not scored"
    return f"iteration {iteration.number}: {state}"
