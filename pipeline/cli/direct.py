"""A run without doit: the stages that the command line names, in doit's order, told to our reporter.

Of a warm deploy, and of an edit of one file among many, doit's import, its search for plugins and its list of tasks
would be the half. What a stage does, what
is said and recorded, and how it ends are the run's and the reporter's, as with doit; here is only what doit does with
our own tasks: their order, the question whether each is up to date, the end at the first failure, the exit code.
Knows doit's contract with reporters. Does not know when this may be used: see `pipeline/hotplate.py`.
Invariant: stdout, stderr, reports, state and exit code are those of doit, or nothing was begun and None is returned.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.cli.reporter import HotplateReporter
from pipeline.fastpath import FirstLook, interrupt_again
from pipeline.model import DEVICE_STAGES, Stage
from pipeline.run.current import current
from pipeline.run.options import FLAGS, JSON, OPTIONS, TAKE
from pipeline.run.run import Run
from pipeline.run.stage_of import StageOf

DEPLOY = "deploy"
HOST_STAGES = (Stage.FINGERPRINT, Stage.COMPILE, Stage.LINK)
FAILED, BROKEN, UNUSABLE = 1, 2, 3
"""doit's exit codes: a task failed, a task raised, doit itself did."""


class Asked(NamedTuple):
    """A command line that selects one task of ours, or host stages, and says nothing but options of ours."""

    tasks: tuple[str, ...]
    profile: str


def asked_of(argv: Sequence[str]) -> Asked | None:
    """None for any other command line: several tasks of devices, other tasks, options of doit, variables,
    abbreviations."""
    words = iter(argv)
    task = next(words, DEPLOY)
    tasks = [task]
    if task.partition(":")[0] not in (*HOST_STAGES, *DEVICE_STAGES, DEPLOY) or "=" in task or "*" in task:
        return None
    profile = ""
    for word in words:
        if task in HOST_STAGES and word in HOST_STAGES:
            tasks.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        if word[:2] != "--":
            return None
        if not equals and (name in FLAGS or word in (JSON, TAKE)):
            continue
        if name not in OPTIONS:
            return None
        if not equals:
            value = next(words, "")
            # doit takes a word with "=" for a variable, and fails at an empty one.
            if not value or ("=" in value and value[0] != "-"):
                return None
        if name == "profile":
            profile = value
    if "/" in profile or "\\" in profile or profile.startswith("."):
        return None
    return Asked(tuple(tasks), profile)


class StageTask:
    """A task of ours, as far as the reporter asks for it."""

    def __init__(self, name: str, which: StageOf | None, task_dep: Sequence[str], confirms: str = "") -> None:
        self.name = name
        self.which = which
        self.task_dep = task_dep
        self.setup_tasks: Sequence[str] = ()
        self.confirms = confirms
        """The device whose deploy counts when this is reached."""
        self.actions = [which or confirms] if which or confirms else []
        self.meta = {"fastpath": True} if which is not None and not which.device else None

    def title(self) -> str:
        return self.name


def steps_of(run: Run) -> Mapping[str, StageTask]:
    """All tasks of stages, by name, in the order in which they run: stage by stage, each for one device after the
    other; the names of groups come after their members."""
    from pipeline.run.current import options

    devices = [device.name for device in run.project.all_devices]
    found: dict[str, StageTask] = {}
    for before, stage in zip(("", *HOST_STAGES), HOST_STAGES, strict=False):
        found[stage] = StageTask(stage, StageOf(stage), [before] if before else [])
    after = "link"
    for stage in DEVICE_STAGES:
        for name in devices:
            which = StageOf(stage, name)
            found[which.task] = StageTask(which.task, which, [after.format(name)])
        if stage is Stage.REFLASH:
            for name, region in options().regions:
                which = StageOf(stage, name, region)
                found[which.task] = StageTask(which.task, which, [f"verify-flash:{name}"])
        found[stage] = StageTask(stage, None, [name for name in found if name.startswith(f"{stage}:")])
        after = f"{stage}:{{}}"
    for name in devices:
        found[f"{DEPLOY}:{name}"] = StageTask(f"{DEPLOY}:{name}", None, [f"ttfb:{name}"], confirms=name)
    found[DEPLOY] = StageTask(DEPLOY, None, [f"{DEPLOY}:{name}" for name in devices] or ["link"])
    return found


def _needed(steps: Mapping[str, StageTask], names: Sequence[str]) -> Iterator[StageTask]:
    """`names` and all that they depend on, in the order of `steps`."""
    wanted = set(names)
    for step in reversed(list(steps.values())):
        if step.name in wanted:
            wanted.update(step.task_dep)
    return (step for step in steps.values() if step.name in wanted)


def run_stages(asked: Asked, look: FirstLook | None) -> int | None:
    """Do what the command line asks for, to its end; the exit code. None where it names a task that there is not, which
    is doit's to say. `look`: what this process saw of the host part. Raises SystemExit as a run of doit does."""
    run = current()
    steps = steps_of(run)
    if not steps.keys() >= set(asked.tasks):
        return None
    if look is not None:
        run.build.fastpath.believe(look)
    interrupt_again()
    reporter = HotplateReporter(sys.stdout, run)
    code = 0
    try:
        reporter.initialize(steps, [*asked.tasks])
        for step in _needed(steps, asked.tasks):
            code = _done(run, reporter, step)
            if code:
                break
    finally:
        reporter.complete_run()
    return code


def _done(run: Run, reporter: HotplateReporter, step: StageTask) -> int:
    """The code with which this step ends the run, 0 when it goes on."""
    reporter.get_status(step)
    if step.which is not None and _is_up_to_date(run, step.which):
        reporter.skip_uptodate(step)
        return 0
    reporter.execute_task(step)
    try:
        failure: Any = _failure_of(run, step)
    except Exception as error:
        from doit.exceptions import TaskError

        reporter.add_failure(step, TaskError("PythonAction Error", error))
        return BROKEN
    if failure is not None:
        reporter.add_failure(step, failure)
        return FAILED
    reporter.add_success(step)
    return 0


def _is_up_to_date(run: Run, which: StageOf) -> bool:
    if not which.device:
        return run.variants.verdict(which.stage).up_to_date
    return which.stage is Stage.REFLASH and run.was_nothing_to_write(which)


class _Failed:
    """What the reporter is told of a failed stage."""

    def __init__(self, failure: Any, message: str) -> None:
        self.failure = failure
        self._message = message

    def get_msg(self) -> str:
        return self._message


def _failure_of(run: Run, step: StageTask) -> _Failed | None:
    if step.which is not None:
        failure = run.perform(step.which).failure
        return None if failure is None else _Failed(failure, failure.line())
    if step.confirms and not run.confirm(step.confirms):
        return _Failed(None, f"Python Task failed: '{run.confirm}' returned False")
    return None
