"""The stages of a deploy as doit tasks: names, order, docs and options. What a `dodo.py` of two lines takes over.

doit orders, names, selects and reports; it never decides. Each stage task has one `uptodate` callable that asks us,
and that callable is pure: it opens no port and writes nothing (`doit list -s` and `doit info` call it too). The other
groups of tasks are declared beside what they do, and collected at the end.

Importing this module does nothing. `from pipeline.tasks import *` is more: by that statement a dodo.py takes the tasks
over, and before it gets them the fast path may answer in doit's place (see `__getattr__`, and docs/hotplate.md). So
that the answer need not wait, what the tasks need is imported where it is used.
Invariant: creating the tasks loads neither esptool, serial, networkx nor unicorn.
"""

from __future__ import annotations

import os
import sys
from posixpath import basename
from typing import TYPE_CHECKING, Any

from doit.exceptions import TaskFailed

from pipeline.fastpath import answer_and_end, end_quietly, hand_over, interrupt_again

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType, TracebackType

    from pipeline.fastpath import FirstLook
    from pipeline.model import Failure, Reason
    from pipeline.run.run import Run
    from pipeline.run.stage_of import StageOf

    Task = dict[str, Any]
    """As doit takes it."""

SHOWN_REASONS = 3


def __getattr__(name: str) -> Any:
    """`import *` asks for `__all__`. Where `doit` runs, ask the fast path first: if everything that the command line
    names is up to date it prints what doit would, and ends the process with 0. What is left of a warm `doit compile
    link` then is doit's own start. Where doit would add nothing, the run is done here, without the list of tasks."""
    if name != "__all__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    program = basename(sys.argv[0])
    if program in ("doit", "__main__.py", "hotplate"):
        sys.excepthook = _quiet_interrupt
    if program in ("doit", "__main__.py"):
        end_quietly()
        from pipeline.effects.utf8 import ensure_utf8

        ensure_utf8()
        look = answer_and_end()
        if look is not None:
            from pipeline.hotplate import bring_back

            bring_back(sys.argv[1:], look)
        if _stands_first(sys._getframe(1)):
            hand_over(look)
        from pipeline.hotplate import run as run_without_doit

        look = run_without_doit(sys.argv[1:], look)
        if look is not None:
            DOIT_CONFIG["reporter"] = Reporter.after(look)
        if any(word.startswith("-") for word in sys.argv):  # nothing else can be a mistyped option
            from pipeline.cli.usage import speak_plainly

            speak_plainly()
    return ["DOIT_CONFIG", *(found for found in globals() if found.startswith("task_"))]


def _stands_first(frame: FrameType | None) -> bool:
    """Is the statement that asks the first of its file? Then nothing was done that another process would do again."""
    while frame is not None and frame.f_globals.get("__name__", "").startswith("importlib."):
        frame = frame.f_back
    if frame is None or frame.f_code.co_name != "<module>":
        return False
    import ast

    try:
        with open(frame.f_code.co_filename, encoding="utf-8") as file:  # noqa: PTH123
            body = ast.parse(file.read()).body
    except (OSError, ValueError, SyntaxError):
        return False
    above = [statement for statement in body if statement.lineno < frame.f_lineno]
    return all(
        (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
        or (isinstance(statement, ast.ImportFrom) and statement.module == "__future__")
        for statement in above
    )


def _quiet_interrupt(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Ctrl-C before a run began, such as during imports, ends with 130 and without a traceback, as it does later."""
    if issubclass(kind, KeyboardInterrupt):
        raise SystemExit(130)
    sys.__excepthook__(kind, error, trace)


class Reporter:
    """What doit is told to report with: made when a run begins, since most commands need none."""

    desc = "stages, reports and device truth (the default)"
    look: FirstLook | None = None
    """What this process saw before it became a run."""

    def __new__(cls, outstream: Any, options: Any) -> Any:
        from pipeline.cli.reporter import HotplateReporter

        current = run()
        if outstream is None:  # stdout is closed; what is printed there goes nowhere, and the run goes on
            outstream = sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
        if cls.look is not None:
            current.build.fastpath.believe(cls.look)
        interrupt_again()
        return HotplateReporter(outstream, current)

    @classmethod
    def after(cls, look: FirstLook) -> type:
        """The same, of a process that has looked already."""
        return type("Reporter", (cls,), {"look": look})


DOIT_CONFIG: dict[str, Any] = {
    "default_tasks": ["deploy"],
    "reporter": Reporter,
    "verbosity": 2,
    "par_type": "thread",
    # never evidence, so never on disk: nothing to corrupt and nothing to fight over; see `users_state` for users' tasks
    "backend": "sqlite3",
    "dep_file": ":memory:",
}


def run() -> Run:
    """The run of this process."""
    from pipeline.run.current import current

    return current()


# --- what a stage's task consists of ----------------------------------------------------------


class HostCheck:
    """The `uptodate` of a host stage. `doit info` prints it when it says no, so its text is the reasons."""

    def __init__(self, which: StageOf) -> None:
        self._stage = which.stage
        self._reasons: tuple[Reason, ...] = ()
        self._more = 0
        """How many there were beside these: a cold run has one for each action."""

    def __call__(self) -> bool:
        verdict = run().variants.verdict(self._stage)
        self._reasons = verdict.reasons[:SHOWN_REASONS]
        self._more = len(verdict.reasons) - len(self._reasons)
        return verdict.up_to_date

    def __repr__(self) -> str:
        more = f" and {self._more} more" if self._more else ""
        return "; ".join(map(str, self._reasons)) + more or f"inputs, commands and outputs of {self._stage}"


class DeviceCheck:
    """The `uptodate` of a device stage: only what this run has asked the board can answer; before that it says no."""

    def __init__(self, which: StageOf, where: str) -> None:
        self._which = which
        self._where = where

    def __call__(self) -> bool:
        return self._which.stage == "reflash" and run().was_nothing_to_write(self._which)

    def __repr__(self) -> str:
        return f"{self._where}: only this run's verify-flash can tell"


class Clean:
    """`doit clean`: remove what a stage built. doit prints the text after `<` and before ` at`."""

    def __init__(self, which: StageOf) -> None:
        self._stage = which.stage

    def __call__(self) -> None:
        from pipeline.errors import DeployError

        try:
            for variant in run().variants.every:
                variant.build.clean(self._stage)
        except DeployError as error:
            from pipeline.report.terminal import say_failure

            say_failure(error.failure, sys.stderr)
            raise SystemExit(2) from None
        except OSError as error:  # doit would print a traceback and end with 0
            from pipeline.report.terminal import os_failure

            raise SystemExit(os_failure(f"clean {self._stage}", error)) from None

    def __repr__(self) -> str:
        return f"<remove what {self._stage} built at >"


class StageFailed(TaskFailed):  # type: ignore[misc]
    """doit's view of a failed stage; the reporter shows the failure itself."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.line())
        self.failure = failure


class Execute:
    """The action of a stage's task."""

    __name__ = "execute"  # doit shows it

    def __init__(self, which: StageOf) -> None:
        self._which = which

    def __call__(self, **_: Any) -> StageFailed | None:
        failure = run().perform(self._which).failure
        return None if failure is None else StageFailed(failure)


def _names() -> frozenset[str]:
    """Basenames of our tasks. `devices` is a command too, after which no creator of tasks may be named."""
    return frozenset({"devices"}) | frozenset(
        name.removeprefix("task_").replace("_", "-") for name in globals() if name.startswith("task_")
    )


def _remember_users_tasks() -> None:
    """doit has opened its memory when it asks for the first task of ours."""
    from doit.globals import Globals

    if Globals.dep_manager is not None and Globals.dep_manager.name == ":memory:":
        from pipeline.cli.users_state import remember_users_tasks

        remember_users_tasks(Globals.dep_manager, _names())


def _stage_of(creator: Callable[..., Any], device: str = "", region: str = "") -> StageOf:
    from pipeline.model import Stage
    from pipeline.run.stage_of import StageOf

    return StageOf(Stage(creator.__name__.removeprefix("task_").replace("_", "-")), device, region)


def _task(which: StageOf, doc: str, after: list[str], uptodate: HostCheck | DeviceCheck) -> Task:
    from pipeline.run.options import stage_params

    return {
        "basename": str(which.stage),
        "doc": doc,
        "actions": [Execute(which)],
        "uptodate": [uptodate],
        "task_dep": after,
        "params": stage_params(),
        "verbosity": 2,
    }


def _host_task(creator: Callable[[], Task], *after: str) -> Task:
    _remember_users_tasks()
    which = _stage_of(creator)
    made = _task(which, creator.__doc__ or "", [*after], HostCheck(which))
    if after:  # the first one builds nothing
        made["clean"] = [Clean(which)]
    return {**made, "meta": {"fastpath": True}}  # its answer depends on files alone


def _device_tasks(creator: Callable[[], Iterator[Task]], after: str) -> Iterator[Task]:
    """The group and a task for each device. `{}` in `after` is the device's name."""
    yield _group(creator)
    for device in run().project.all_devices:
        which = _stage_of(creator, device.name)
        doc = f"{creator.__doc__} ({device.name})"
        made = _task(which, doc, [after.format(device.name)], DeviceCheck(which, device.where))
        yield {**made, "name": device.name}


def _group(creator: Callable[[], Iterator[Task]]) -> Task:
    from pipeline.run.options import stage_params

    name = creator.__name__.removeprefix("task_").replace("_", "-")
    return {"basename": name, "name": None, "doc": creator.__doc__, "params": stage_params()}


# --- the stages -------------------------------------------------------------------------------


def task_fingerprint() -> Task:
    """which inputs moved since the last run"""
    return _host_task(task_fingerprint)


def task_compile() -> Task:
    """compile each translation unit, or restore it from the cache"""
    return _host_task(task_compile, "fingerprint")


def task_link() -> Task:
    """link, make the flash images and check that they fit"""
    return _host_task(task_link, "compile")


def task_verify_flash() -> Iterator[Task]:
    """ask the board who it is and what its flash holds (MD5 per region)"""
    return _device_tasks(task_verify_flash, "link")


def task_reflash() -> Iterator[Task]:
    """write the sectors that differ, and only those (one region: reflash:DEVICE:REGION)"""
    yield from _device_tasks(task_reflash, "verify-flash:{}")
    from pipeline.run.current import options

    # Made only when the command line names it, so that listing tasks need not read the partition table.
    devices = {device.name: device for device in run().project.all_devices}
    for name, region in options().regions:
        if name in devices and region:
            which = _stage_of(task_reflash, name, region)
            doc = f"write region {region} if it differs, and no other ({name})"
            made = _task(which, doc, [f"verify-flash:{name}"], DeviceCheck(which, devices[name].where))
            yield {**made, "name": f"{name}:{region}"}


def task_reattach() -> Iterator[Task]:
    """start the monitor on the same port, then let the board boot"""
    return _device_tasks(task_reattach, "reflash:{}")


def task_ttfb() -> Iterator[Task]:
    """wait for the first JSON-RPC byte of exactly this build"""
    return _device_tasks(task_ttfb, "reattach:{}")


def task_deploy() -> Iterator[Task]:
    """from C source to the first JSON-RPC byte of the running device (the default)"""
    group = _group(task_deploy)
    if not run().project.all_devices:  # a program for this machine
        yield {**group, "task_dep": ["link"]}
        return
    yield group
    for device in run().project.all_devices:
        yield {
            **group,
            "name": device.name,
            "doc": f"{group['doc']} ({device.name})",
            "actions": [(_confirm, [device.name])],
            "task_dep": [f"ttfb:{device.name}"],
            "verbosity": 2,
        }


def _confirm(device: str, **_: Any) -> bool:
    """The deploy counts when its last stage confirmed this build; doit runs this only then."""
    return run().confirm(device)


# --- the other groups, each declared beside what it does --------------------------------------


def task_baseline() -> Iterator[Task]:
    from pipeline.measure.tasks import baseline

    return baseline()


def task_loop() -> Iterator[Task]:
    from pipeline.measure.tasks import loop

    return loop()


def task_bench() -> Iterator[Task]:
    from pipeline.measure.tasks import bench

    return bench()


def task_cache() -> Iterator[Task]:
    from pipeline.cli.cache_tasks import cache

    return cache()


def task_check() -> Iterator[Task]:
    from pipeline.cli.check_tasks import check

    return check()


def task_discover() -> Iterator[Task]:
    from pipeline.shelf.tasks import devices_group

    return devices_group()


def task_ota() -> Task:
    from pipeline.shelf.tasks import ota

    return ota()


def task_recover() -> Task:
    from pipeline.shelf.tasks import recover

    return recover()


def task_hooks() -> Iterator[Task]:
    from pipeline.editor.tasks import hooks_group

    return hooks_group()


def task_livetest() -> Iterator[Task]:
    from pipeline.livetest.tasks import livetest

    return livetest()


def task_host() -> Iterator[Task]:
    from pipeline.livetest.tasks import host

    return host()


def task_all() -> Task:
    from pipeline.livetest.tasks import everything

    return everything()
