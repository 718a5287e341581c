"""doit's reporter: tells the run what doit is about to do, and shows people what became of it.

doit calls it when a run begins and, whatever happened, when it ends, so that failures and Ctrl-C are reported too.
Knows doit's order of calls. Does not lock, time, record or decide; the run does.
Invariant: after `initialize` returned, `complete_run` ends the run.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # `signal` makes enumerations of it
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

from pipeline.failures import fail
from pipeline.fastpath import selection_of
from pipeline.model import DEVICE_STAGES, Failure, FailureCategory, Stage
from pipeline.report.terminal import Progress, differing_lines, look_of, module_table, say, say_failure, stage_table
from pipeline.run.run import Run
from pipeline.run.stage_of import StageOf
from pipeline.run.transactions import Rendered
from pipeline.text import quoted, visible, visible_text

INTERRUPTED = 130


def stage_of(task_name: str) -> StageOf | None:
    """Which stage a task of ours is; None for groups, `deploy` and others' tasks."""
    base, _, rest = task_name.partition(":")
    device, _, region = rest.partition(":")
    try:
        stage = Stage(base)
    except ValueError:
        return None
    return StageOf(stage, device, region) if bool(device) == (stage in DEVICE_STAGES) else None


class HotplateReporter:
    """doit calls these methods in the order of a run; see doit's `ConsoleReporter` for the contract."""

    desc = ""

    def __init__(self, outstream: TextIO, run: Run) -> None:
        if outstream is None:
            outstream = sys.stdout  # it was closed when doit looked; see `closed_streams`
        self._stdout = outstream
        # With --json stdout belongs to programs, and what is for people goes to stderr.
        self._out = sys.stderr if run.project.options.json else outstream
        self._run = run
        self._stream: Any = None
        """Of events, with --json."""
        self._look = look_of(self._out)
        self._progress = Progress(self._out, self._look)
        self._failed = False
        self._teardown_failed = False
        self._lane_failed = False
        """Did a board or a build fail while others went on?"""
        self._only_files = False
        """Does the answer of every task of this run depend on files alone, so that the fast path may give it?"""
        self._errors: list[str] = []
        self._previous_sigterm: Any = None

    # --- begin --------------------------------------------------------------------------------

    def initialize(self, tasks: Mapping[str, Any], selected: list[str]) -> None:
        """Take the lock, begin a transaction per device. Ends the process with 2 when the lock cannot be had."""
        self._previous_sigterm = signal.signal(signal.SIGTERM, _terminated)
        names = _closure(tasks, selected)
        stages = [found for found in map(stage_of, names) if found is not None]
        if not stages:
            return
        if self._run.project.options.json:
            self._open_stream()
        self._only_files = all((tasks[name].meta or {}).get("fastpath") for name in names)
        screen = self._run.screen
        screen.on_notice, screen.on_failure, screen.on_stage = self._notice, self._show_failure, self._show_stage
        begun = self._run.begin(selected, stages)
        if isinstance(begun, Failure):
            _print_failure(begun)
            if self._stream is not None:
                self._stream.failure(begun)
            raise SystemExit(2)
        for left in begun:
            self._write(f"note: an earlier run was killed; {visible(left.line)}\n")
        screen.on_progress, screen.on_lane_progress = self._show_progress, self._show_lane
        screen.on_lane_over = self._progress.lane_over

    def _open_stream(self) -> None:
        from pipeline.run.exports import Stream

        self._stream = Stream(self._stdout)
        self._run.transactions.listener = self._stream.event
        sys.stdout = sys.stderr  # what users' own tasks print

    def _show_progress(self, label: str, done: int, total: int) -> None:
        self._progress(label, done, total)
        if self._stream is not None:
            self._stream.progress(label, done, total)

    def _show_lane(self, device: str, label: str, done: int, total: int) -> None:
        self._progress.of_lane(device, label, done, total)
        if self._stream is not None and total >= 0:
            self._stream.progress(f"{device} {label}", done, total)

    # --- tasks --------------------------------------------------------------------------------

    def get_status(self, task: Any) -> None:
        """doit is about to ask whether `task` is up to date: the stage's time begins here."""
        which = stage_of(task.name)
        if which is not None and not self._run.in_lane(which):
            self._run.consider(which)

    def execute_task(self, task: Any) -> None:
        """`task` is not up to date and runs now."""
        # The log first: whoever has read the line may count on the log, even if this process is killed next.
        which = stage_of(task.name)
        if which is not None and self._run.in_lane(which):
            return  # its lane says so, when it comes to it
        if which is not None and self._run.active:
            self._run.started(which)
        if task.actions and not task.name.startswith("_"):
            self._write(f".  {visible(task.title())}\n")

    def skip_uptodate(self, task: Any) -> None:
        """`task` is up to date, with proof."""
        which = stage_of(task.name)
        if which is not None and self._run.in_lane(which):
            return
        if not task.name.startswith("_"):
            self._write(f"-- {visible(task.title())}\n")
        if which is not None:
            self._run.up_to_date(which)

    def add_success(self, task: Any) -> None:
        """`task` ended well."""
        which = stage_of(task.name)
        if which is None:
            return
        self._progress.finish()
        result = self._run.transactions.result_of(which.stage, which.device)
        for reason in result.reasons if result is not None else ():
            if reason.kind == "nearly-full":
                self._write(f"warning: {visible(str(reason))}\n")

    def add_failure(self, task: Any, fail_info: Any) -> None:
        """`task` failed, or was not run because one that it needs failed."""
        self._failed = True
        failure: Failure | None = getattr(fail_info, "failure", None)  # of a stage: see `tasks.StageFailed`
        which = stage_of(task.name)
        if failure is not None and which is not None and self._run.in_lane(which):
            return
        if failure is not None:
            self._progress.finish()
            _print_failure(failure)
        elif type(fail_info).__name__ != "UnmetDependency":
            message = fail_info.get_msg().strip()
            head, *rest = message.splitlines() or [""]
            # Those that say where and what to do are complete.
            ours = ": error: " in head
            self._notice(message if ours else "\n".join([f"{task.name}: error: {head}", *quoted("\n".join(rest))]))
            self._unknown(task.name, fail_info.get_msg())

    def _unknown(self, task: str, message: str) -> None:
        if self._run.active:
            lines = message.strip().splitlines() or [""]
            failure = fail(FailureCategory.UNKNOWN, stage=None, where=task, message=lines[-1], detail=message)
            self._run.transactions.failed(failure)

    def _show_stage(self, name: str, up_to_date: bool) -> None:
        self._write(f"{'--' if up_to_date else '. '} {visible(name)}\n")

    def _show_failure(self, failure: Failure) -> None:
        self._lane_failed = True
        self._progress.between(lambda: _print_failure(failure))

    def skip_ignore(self, task: Any) -> None:
        """The user told doit to ignore `task`."""
        self._write(f"!! {visible(task.title())}\n")

    def cleanup_error(self, exception: Any) -> None:
        """A teardown failed; we have none, but a user's own tasks may."""
        self._teardown_failed = True
        sys.stderr.write(exception.get_msg())

    def runtime_error(self, msg: str) -> None:
        """doit itself cannot go on."""
        self._errors.append(msg)

    def teardown_task(self, task: Any) -> None:
        """Nothing to show."""

    # --- end ----------------------------------------------------------------------------------

    def complete_run(self) -> None:
        """Called by doit in a `finally`: after success, failure and Ctrl-C alike."""
        interrupted = isinstance(sys.exc_info()[1], KeyboardInterrupt)
        with _finishing():
            over = self._finish(interrupted=interrupted)
        if self._previous_sigterm is not None:
            signal.signal(signal.SIGTERM, self._previous_sigterm)
        if interrupted:
            raise SystemExit(INTERRUPTED)
        if self._lane_failed or ((self._teardown_failed or over) and not self._failed):
            raise SystemExit(1)  # doit itself would end with 0, or with 2 where it went on after a failure

    def _finish(self, *, interrupted: bool) -> bool:
        """End the run and show its reports. Did a deploy take longer than its budget, which it must not?"""
        self._progress.finish()
        for message in self._errors:
            self._write(f"{visible_text(message.rstrip())}\n")
        if not self._run.active:
            if self._run.suites:
                self._export([])
            return False
        passed = not (self._failed or self._lane_failed or self._teardown_failed or self._errors)
        asked = selection_of(sys.argv[1:]) if self._only_files else None
        ended = self._run.end(interrupted=interrupted, passed=passed, selection=None if asked is None else asked[1])
        for note in ended.notes:
            self._write(f"{visible(note)}\n")
        self._show(ended.rendered)
        self._export(ended.rendered)
        return any(_is_over_budget(one.report) for one in ended.rendered)

    def _show(self, rendered: list[Rendered]) -> None:
        if len(rendered) > 1:
            from pipeline.report.fleet_table import fleet_table

            self._write("\n".join(fleet_table([one.report for one in rendered], self._look)) + "\n")
            from pipeline.cli.status import refresh_results

            note = refresh_results(self._run.project)
            if note:
                self._notice(f"note: {note}")
        for one in rendered if len(rendered) == 1 else ():
            self._write("\n".join([*stage_table(one.report, self._look), *module_table(one.report, self._look)]) + "\n")
            if one.report["rollback"] is not None:
                self._write(f"rollback: {visible(one.report['rollback']['message'])}\n")
        for one in self._run.rolled_back:
            self._write(f"{one.line}\n")
        for one in rendered:
            failure = one.report["failure"]
            self._write("".join(f"{line}\n" for line in differing_lines(one.report)))
            if failure is not None and one.report["outcome"] == "interrupted":
                self._write(f"{visible(failure['message'])}\n")
            if _is_over_budget(one.report):
                self._notice(f"{failure['where']}: error: {failure['message']}\nhint: {failure['hint']}")
            if one.path is None:
                self._notice("note: the report could not be written; the event log in .deploy/runs holds it")
            self._write(f"{one.line}\n")

    def _export(self, rendered: list[Rendered]) -> None:
        """What someone asked for beside the reports."""
        options, run = self._run.project.options, self._run.transactions
        notes = run.notes
        if options.trace or options.junit or os.environ.get("GITHUB_STEP_SUMMARY"):
            from pipeline.run.exports import write

            notes = [*notes, *write(self._run.project.root, options, os.environ, run.recorded, self._run.suites)]
        if self._stream is not None:
            self._stream.reports([*self._run.rolled_back, *rendered])
            sys.stdout = self._stdout
            notes = [*notes, *filter(None, [self._stream.broken])]
        for note in notes:
            self._notice(f"note: {note}")

    def _notice(self, text: str) -> None:
        self._progress.between(lambda: say(sys.stderr, f"{visible_text(text)}\n"))

    def _write(self, text: str) -> None:
        lost = self._progress.between(lambda: say(self._out, text))
        if lost:
            self._notice(f"note: what is printed is lost from here on ({lost}); the run goes on")


def _closure(tasks: Mapping[str, Any], selected: list[str]) -> list[str]:
    """Names of the selected tasks and everything they depend on."""
    seen: dict[str, None] = {}
    waiting = list(selected)
    while waiting:
        name = waiting.pop()
        if name in tasks and name not in seen:
            seen[name] = None
            waiting += [*tasks[name].task_dep, *tasks[name].setup_tasks]
    return list(seen)


def _is_over_budget(report: Mapping[str, Any]) -> bool:
    return report["failure"] is not None and report["failure"]["category"] == FailureCategory.OVER_BUDGET.value


def _print_failure(failure: Failure) -> None:
    say_failure(failure, sys.stderr)


@contextmanager
def _finishing() -> Iterator[None]:
    """The first Ctrl-C or SIGTERM while a run ends comes too late to change how: its report is being written. A second
    one is as ever, in case a port does not let go."""
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in (signal.SIGINT, signal.SIGTERM)}

    def put_back(signum: int = 0, frame: Any = None) -> None:
        del signum, frame
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in before:
        signal.signal(number, put_back)
    try:
        yield
    finally:
        put_back()


def _terminated(signum: int, frame: Any) -> None:
    """SIGTERM ends a run as Ctrl-C does: children killed, port free, report written, exit code 130."""
    if is_dropped(frame):
        import threading

        # From another thread, since this one may still be there; the handler runs in this one again.
        threading.Timer(0.01, signal.raise_signal, (signum,)).start()
        return
    raise KeyboardInterrupt


def is_dropped(frame: Any) -> bool:
    """Would Python print an exception of this frame and go on? So it does in finalisers and in callbacks of weak
    references, of which the import of each module has one."""
    while frame is not None:
        code = frame.f_code
        callback = code.co_name in ("cb", "remove", "_remove")
        if code.co_name == "__del__" or (callback and code.co_filename.endswith(_WITH_CALLBACKS)):
            return True
        frame = frame.f_back
    return False


_WITH_CALLBACKS = ("<frozen importlib._bootstrap>", "weakref.py", "_weakrefset.py")
