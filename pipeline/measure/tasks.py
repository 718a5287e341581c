"""`baseline:*`, `loop` and `bench:*` as doit tasks: names, docs and options. What they do, the folders beside know.

One of the modules that know doit. Invariant: declaring them imports nothing of what they run.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

from doit.exceptions import TaskFailed

from pipeline.run.current import current, told
from pipeline.run.options import last_value, measuring_params

if TYPE_CHECKING:
    from pipeline.measure.bench.suites import BenchSession

Task = dict[str, Any]


def baseline() -> Iterator[Task]:
    """The group and its tasks."""
    doc = "how fast this project's loop is on this machine, before and after"
    yield {"basename": "baseline", "name": None, "doc": doc}
    deploy = {
        "name": "deploy",
        "long": "deploy",
        "inverse": "no-deploy",
        "type": bool,
        "default": True,
        "help": "measure up to the running device (--no-deploy: only the build)",
    }
    runs = {"name": "runs", "long": "runs", "type": int, "default": 5, "help": "runs of each kind"}
    for mode, what in (
        ("cold", "deploys from nothing: empty cache, nothing built, virtual board erased"),
        ("warm", "deploys with nothing changed"),
        ("full", "cold and warm, and each kind of edit until it runs"),
    ):
        yield {
            "basename": "baseline",
            "name": mode,
            "doc": f"measure {what} (--runs N, --device NAME, --no-deploy)",
            "actions": [(_baseline, [mode])],
            "params": [runs, deploy, *measuring_params()],
            "verbosity": 2,
        }


@told(TaskFailed)
def _baseline(mode: str, runs: int, deploy: bool, **_: Any) -> TaskFailed | None:
    from pipeline.measure.baseline import screen

    return _failed(screen.show(current().build, mode, runs, deploy=deploy))


def loop() -> Iterator[Task]:
    """The one task."""

    def number(name: str, default: int, text: str) -> dict[str, Any]:
        return {"name": name, "long": name, "type": int, "default": default, "help": text}

    def switch(name: str, *, default: bool, text: str) -> dict[str, Any]:
        long = name.replace("_", "-")
        return {"name": name, "long": long, "inverse": f"no-{long}", "type": bool, "default": default, "help": text}

    between = "run this command before each further iteration; it must pass"
    yield {
        "basename": "loop",
        "doc": "measure the warm loop until it is green, or say what stands in its way (see LOOP.md)",
        "actions": [_loop],
        "params": [
            number("max", 8, "iterations at most"),
            number("repeats", 3, "runs of each warm test; the median counts"),
            switch("until_green", default=False, text="go on when a rule asks for an action, until green or stuck"),
            switch("rebuild", default=True, text="build twice from nothing and compare every output"),
            {"name": "between", "long": "between", "type": str, "default": "", "help": between},
            *measuring_params(),
        ],
        "verbosity": 2,
    }


@told(TaskFailed)
def _loop(max: int, repeats: int, until_green: bool, rebuild: bool, between: str, **_: Any) -> TaskFailed | None:
    from pipeline.measure.loop import screen
    from pipeline.measure.loop.runner import LoopOptions

    return _failed(screen.show(current().build, LoopOptions(max, repeats, until_green, between, rebuild, _command())))


BENCHES = (
    ("warm", 10, "warm and cold deploy against an empty doit run, per stage and import"),
    ("engine", 9, "the action engine against ninja and plain doit, on generated projects (takes minutes)"),
    ("ninja", 5, "builds of ninja through the engine, against ninja itself (takes minutes)"),
    ("device", 5, "proof and writes on virtual boards with real timing, against esptool (takes minutes)"),
    ("shelf", 3, "sixteen boards beside each other against one, written and warm (takes minutes)"),
    ("watch", 9, "from a save to the end of its build, to its first diagnostic, to nothing to do"),
    ("live", 9, "the live loop through the service, against the same without it (takes minutes)"),
    ("remote", 5, "a shared cache over HTTP, quick, slow and dead, against none (takes minutes)"),
    ("store", 3, "a store of 100,000 blobs counted, collected, verified, against find (takes minutes)"),
    ("work", 0, "counters of work that no busy machine moves, against those that are kept"),
)
"""Suite, measurements of each case (0: once is enough), doc."""


def bench() -> Iterator[Task]:
    """The group, a task per suite, and the end of all of them."""
    doc = "all benchmarks in one report, ours and the peers' side by side (takes many minutes)"
    runs_param = {"name": "runs", "long": "runs", "type": int, "help": "runs of each case"}
    boards = {"name": "boards", "long": "boards", "type": int, "default": 16, "help": "boards beside each other"}
    blobs = {"name": "blobs", "long": "blobs", "type": int, "default": 100_000, "help": "blobs in the store"}
    units = {"name": "units", "long": "units", "type": str, "default": "", "help": "sizes of its projects: 1000,50000"}
    more = {"shelf": [boards], "store": [blobs], "engine": [units]}
    keep_param = {"name": "keep", "long": "keep", "type": bool, "default": False, "help": "keep what is counted"}
    tasks = BenchTasks()
    yield {"basename": "bench", "name": None, "doc": doc, "params": [{**runs_param, "default": 0}]}
    for name, runs, doc in BENCHES:
        yield {
            "basename": "bench",
            "name": name,
            "doc": f"{doc} (--runs N)" if runs else f"{doc} (--keep)",
            "actions": [(tasks.run, [name])],
            "params": [{**runs_param, "default": runs} if runs else keep_param, *more.get(name, [])],
            "verbosity": 2,
        }
    doc = "the end of `doit bench`: missed targets, and which suites could not run"
    yield {"basename": "bench", "name": "report", "doc": doc, "actions": [tasks.report], "verbosity": 2}


class BenchTasks:
    """The actions of `bench`, with the session that its tasks share."""

    @cached_property
    def session(self) -> BenchSession:
        """In `doit bench` a suite that cannot run must not keep the others from running, so that its failure is held
        back for `bench:report`, which comes last."""
        from pipeline.measure.bench.suites import BenchSession

        gathered = not {"bench", "bench:*", "bench:report"}.isdisjoint(sys.argv[1:])
        return BenchSession(current().build, _command(), gathered=gathered)

    @told(TaskFailed)
    def run(self, suite: str, **options: Any) -> TaskFailed | None:
        """One suite."""
        asked = last_value(sys.argv[1:], "runs") if "bench" in sys.argv[1:] else ""
        if asked and "runs" in options:
            options["runs"] = int(asked)
        try:
            failed = self.session.run(suite, options)
        except OSError as error:  # even the report that would say so cannot be written
            from pipeline.report.terminal import os_failure

            failed = os_failure(f"bench:{suite}", error)
        return _failed(failed)

    @told(TaskFailed)
    def report(self) -> TaskFailed | None:
        """What is said after the last one."""
        return _failed(self.session.finish())


def _failed(text: str) -> TaskFailed | None:
    """doit's view of a failure, `""` being none."""
    return TaskFailed(text) if text else None


def _command() -> str:
    """As it was typed."""
    import shlex

    return shlex.join(["doit", *sys.argv[1:]])
