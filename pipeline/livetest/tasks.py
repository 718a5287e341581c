"""`livetest`, `host:*` and `all` as doit tasks: names, order, docs and options. What they do, the modules beside know.

One of the modules that know doit. Invariant: declaring the tasks imports nothing of what they run; what is up to date
is asked without writing anything or opening a port.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

from doit.exceptions import TaskFailed

from pipeline.run.current import current
from pipeline.run.options import last_value, stage_params

if TYPE_CHECKING:
    from pipeline.livetest.host_loop import HostLoop
    from pipeline.livetest.selection import LiveOptions
    from pipeline.model import Failure

Task = dict[str, Any]


class TestsFailed(TaskFailed):  # type: ignore[misc]
    """doit's view of tests that failed; the reporter shows the failure itself."""

    __test__ = False

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.line())
        self.failure = failure


def _params() -> list[Task]:
    update = "widen what was observed of values (`observe`) until now, when everything passes"
    return [
        *stage_params(),
        {"name": "select", "short": "k", "long": "select", "type": str, "default": "", "help": "tests by name"},
        {"name": "marks", "short": "m", "long": "marks", "type": str, "default": "", "help": "tests by tag"},
        {"name": "update", "long": "update-baseline", "type": bool, "default": False, "help": update},
    ]


def livetest() -> Iterator[Task]:
    """The group, and a task per selected device, which deploys first."""
    doc = "deploy, then run the live tests on the device (-k EXPRESSION, -m TAGS, --update-baseline)"
    _check_selection()
    yield {"basename": "livetest", "name": None, "doc": doc, "params": _params()}
    for device in current().project.all_devices:
        yield {
            "basename": "livetest",
            "name": device.name,
            "doc": f"{doc} ({device.name})",
            "actions": [(_on_device, [device.name])],
            "task_dep": [f"deploy:{device.name}"],
            "params": _params(),
            "verbosity": 2,
        }


def host() -> Iterator[Task]:
    """The group and its tasks, each after the one before."""
    doc = "the firmware as a process of this machine: build it, its unit tests, its live tests"
    yield {"basename": "host", "name": None, "doc": doc, "params": _params()}
    tasks = HostTasks()
    before: list[str] = []
    for name, text in (
        ("build", "build the firmware and its unit tests as programs of this machine"),
        ("unit", "run the unit tests whose program is another one than passed last"),
        ("live", "run the live tests on the firmware as a process (-k, -m, --update-baseline)"),
    ):
        yield {
            "basename": "host",
            "name": name,
            "doc": text,
            "actions": [(tasks.perform, [name])],
            "uptodate": [HostUpToDate(tasks, name)],
            "task_dep": before,
            "params": _params(),
            "verbosity": 2,
        }
        before = [f"host:{name}"]


def everything() -> Task:
    """All that a change should pass."""
    from pathlib import Path

    project = current().project
    tests = Path(project.root / project.config.livetest.dir).is_dir()
    doc = "`host`, then deploy and live tests on the devices"
    after = ["host"] if project.config.host.declared else []
    after += ["livetest"] if tests else ["deploy"]
    return {"basename": "all", "doc": doc, "actions": None, "task_dep": after, "params": _params()}


class HostTasks:
    """What the tasks of `host` share: one loop, made when the first of them is asked or run."""

    @cached_property
    def loop(self) -> HostLoop:
        from pipeline.livetest.host_loop import HostLoop

        run = current()
        return HostLoop(run.build, _say, run.suites.append)

    def perform(self, name: str, **_: Any) -> TestsFailed | None:
        """The action of `host:NAME`."""
        return _guarded(lambda: self.loop.perform(name, _options()))


class HostUpToDate:
    """The `uptodate` of a task of the host's. Its text is what `doit info` says."""

    def __init__(self, tasks: HostTasks, name: str) -> None:
        self._tasks, self._name = tasks, name

    def __call__(self) -> bool:
        from pipeline.errors import DeployError

        try:
            return bool(self._tasks.loop.is_up_to_date(self._name, _options()))
        except DeployError:
            return False  # the task says why

    def __repr__(self) -> str:
        return f"inputs, programs and results of host:{self._name}"


def _options() -> LiveOptions:
    """doit hands options of a group to none of its tasks, so they are read from the command line."""
    from pipeline.livetest.selection import LiveOptions

    words = sys.argv[1:]
    return LiveOptions(
        select=last_value(words, "select") or _short(words, "-k"),
        tags=last_value(words, "marks") or _short(words, "-m"),
        update="--update-baseline" in words,
    )


def _check_selection() -> None:
    """A selection that cannot be read is said before anything is built or written; raises SystemExit(2) then."""
    words = sys.argv[1:]
    for option, long in (("-k", "select"), ("-m", "marks")):
        text = last_value(words, long) or _short(words, option)
        if not text:
            continue
        from pipeline.livetest.selection import parse_selection
        from pipeline.model import Failure

        found = parse_selection(text, option)
        if isinstance(found, Failure):
            from pipeline.report.terminal import say_failure

            say_failure(found, sys.stderr)
            raise SystemExit(2)


def _short(words: list[str], option: str) -> str:
    """`-k NAME` or `-kNAME`, behind the tasks' names: before them it is doit's own."""
    found, begun = "", False
    rest = iter(words)
    for word in rest:
        begun = begun or word.partition(":")[0] in ("livetest", "host", "all")
        if begun and word == option:
            found = next(rest, "")
        elif begun and word.startswith(option) and not word.startswith("--"):
            found = word.removeprefix(option)
    return found


def _say(text: str) -> None:
    print(text, file=sys.stderr if current().project.options.json else sys.stdout, flush=True)


def _guarded(action: Callable[[], Failure | None]) -> TestsFailed | None:
    """Known trouble in words; what was begun ends well."""
    from pipeline.errors import DeployError

    try:
        failure = action()
    except DeployError as error:
        failure = error.failure
    return None if failure is None else TestsFailed(failure)


def _on_device(name: str, **_: Any) -> TestsFailed | None:
    from pipeline.livetest.screen import Told
    from pipeline.livetest.session import failure_of, run_live, select
    from pipeline.livetest.targets import BoardTarget
    from pipeline.model import Failure

    run = current()
    device, boards = run.variants.device(name), run.variants.of(name).boards

    def act() -> Failure | None:
        selected = select(run.project, _options())
        if isinstance(selected, Failure):
            return selected
        told = Told(device.name, _say)
        tx = run.transactions.transaction(name) if run.transactions.knows(name) else ""
        if tx:
            run.transactions.over(name)
        target = BoardTarget(boards, device)
        suite = run_live(run.project, target, selected, _options(), tx, told.result)
        if isinstance(suite, Failure):
            return suite
        told.suite(suite)
        run.suites.append(suite)
        return failure_of(suite)

    return _guarded(act)
