"""`doit loop`: run the tests T0 to T5 again and again until the history says what to do.

Runs the very commands that users run, in a scratch copy; knows their order, the edits and the preconditions. What a run
is worth, `measure/loop/judgement.py` knows; the files, `files.py`. Invariants: a user's sources, cache, state and
virtual board are never touched; each run is on disk before the next begins; a run whose preconditions did not hold is
recorded.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType

from cache.durable import read_file
from cache.named_tuple import NamedTuple
from pipeline.effects.host import GitQuery, load_average, machine_facts
from pipeline.measure.child import Child
from pipeline.measure.experiment import ProjectCopy, refused, refused_devices, refused_number
from pipeline.measure.loop.files import LoopFiles
from pipeline.measure.loop.judgement import (
    NOT_APPLICABLE,
    WARM,
    Finding,
    Iteration,
    Limits,
    LoopDecision,
    LoopRun,
    Rule,
    Test,
    decide,
    judge,
    reference_of,
)
from pipeline.measure.loop.rebuild import differences
from pipeline.measure.loop.records import NOT_OURS, LoopOrigin, broken_precondition, measure
from pipeline.measure.loop.view import LoopSession
from pipeline.model import Failure
from pipeline.run.build import Build, load_build

BETWEEN_TIMEOUT_S = 1800.0
TASKS = MappingProxyType({Test.BUILD: "link", Test.SKIP: "reflash"})
"""What the tests run that are no whole deploy."""


class LoopOptions(NamedTuple):
    """The options. `until_green`: go on when a rule asks for an action; `between`: a command to run before each further
    iteration, such as a linter or an agent's next change; `rebuild`: make a second cold build and compare."""

    max: int = 8
    repeats: int = 3
    until_green: bool = False
    between: str = ""
    rebuild: bool = True
    command: str = "doit loop"


class LoopEnd(NamedTuple):
    """How the loop ended. `path`: SUMMARY.md, the follow-up, or RESULTS.csv."""

    decision: LoopDecision
    iterations: int
    green: bool
    path: Path


class Watcher(NamedTuple):
    """Who is told: `began(label)`, `ran(number, run)`, `decided(iteration, decision)`."""

    began: Callable[[str], None]
    ran: Callable[[int, LoopRun], None]
    decided: Callable[[Iteration, LoopDecision], None]


def run_loop(build: Build, asked: LoopOptions, watch: Watcher) -> LoopEnd | Failure:
    """Iterate until a rule ends the loop, an action is needed, or `asked.max`. Raises KeyboardInterrupt, OSError."""
    refused = _refused(build, asked)
    if refused is not None:
        return refused
    machine = machine_facts()
    place = LoopOrigin(machine["id"], build.project.devices[0].name, build.project.profile)
    files = LoopFiles.open(build.project.reports_dir / "loop", place, build.config.reports.keep)
    if isinstance(files, Failure):
        return files
    try:
        with tempfile.TemporaryDirectory(prefix="hotplate-loop-") as directory, ExitStack() as contexts:
            return _Loop(build, asked, watch, files, machine, Path(directory), contexts).run()
    finally:
        files.close()


def _refused(build: Build, asked: LoopOptions) -> Failure | None:
    numbers = (refused_number("loop", name, value, 3) for name, value in _numbers(asked).items())
    first = next(filter(None, numbers), None) or refused_devices("loop", build.project.devices)
    if first is not None:
        return first
    try:
        words = shlex.split(asked.between)
    except ValueError as error:
        return refused("loop", f"--between {asked.between!r} is no command: {error}", "quote it for the shell")
    if words and shutil.which(words[0]) is None:
        message = f"--between calls '{words[0]}', which is not on PATH"
        return refused("loop", message, "install it, or name it with its path")
    blank = asked.between and not words
    return refused("loop", "--between is blank", "name a command, or leave it out") if blank else None


def _numbers(asked: LoopOptions) -> dict[str, int]:
    return {"--max": asked.max, "--repeats": asked.repeats}


class _Loop:
    """One `doit loop`."""

    def __init__(
        self,
        build: Build,
        asked: LoopOptions,
        watch: Watcher,
        files: LoopFiles,
        machine: Mapping[str, str],
        directory: Path,
        contexts: ExitStack,
    ) -> None:
        """`contexts` closes those that are made on the way."""
        self._contexts = contexts
        self._build = build
        self._asked = asked
        self._watch = watch
        self._files = files
        self._machine = machine
        self._directory = directory
        device = build.project.devices[0]
        self._device = device
        budget = build.config.budget
        self._limits = Limits(loop=budget.total, ttfb=budget.ttfb)
        self._reference = reference_of(files.history.reference)
        self._copy = ProjectCopy(build, directory / "copy")
        self._always: tuple[Finding, ...] = ()
        self._determinism = "not checked (--no-rebuild)"
        self._checked = not asked.rebuild
        self._sources = _digests(self._copy.project)
        self._primed: Child | None = None
        self._cold = True
        self._load: float | None = None

    def run(self) -> LoopEnd | Failure:
        history, number = list(self._files.history.open), self._files.history.last
        iteration = Iteration(number)
        decision = LoopDecision(Rule.CONTINUE, Rule.CONTINUE)
        for turn in range(self._asked.max):
            if turn:
                failure = self._between()
                if failure is not None:
                    return failure
            number += 1
            git = GitQuery(self._build.project.root)
            iteration = self._iteration(number, git.result().sha)
            history.append(iteration)
            decision = decide(history)
            self._files.iteration(iteration, decision, self._facts())
            self._watch.decided(iteration, decision)
            acted = decision.rule is not Rule.CONTINUE and not self._asked.until_green
            if decision.ends or acted:
                break
        self._copy.restore()  # T5 left an edit
        path = self._files.conclude(self._session(), history, decision, self._limits, self._reference)
        return LoopEnd(decision, turn + 1, iteration.green, path)

    def _facts(self) -> dict[str, object]:
        return {"at": self._build.clock.utc(), "command": self._asked.command, "determinism": self._determinism}

    def _session(self) -> LoopSession:
        revision = GitQuery(self._build.project.root).result()
        return LoopSession(
            command=self._asked.command,
            at=self._build.clock.utc(),
            machine=self._machine,
            device=self._device.name,
            port=self._device.port,
            profile=self._build.project.profile,
            toolchain=self._build.toolchain_name(),
            sha=revision.sha,
            dirty=revision.dirty,
            repeats=self._asked.repeats,
            determinism=self._determinism,
            load=self._load,
        )

    def _between(self) -> Failure | None:
        """Run what the user wants before a further iteration, and take over what it changed in the project."""
        if self._asked.between:
            self._watch.began(self._asked.between)
            first, *words = shlex.split(self._asked.between)
            done = self._build.runner.run(
                [shutil.which(first) or first, *words],
                cwd=self._build.project.root,
                env=os.environ,
                timeout_s=BETWEEN_TIMEOUT_S,
            )
            if done.exit_code != 0:
                said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
                message = f"--between ended with {done.exit_code}: {said[-1] if said else 'it said nothing'}"
                return refused("loop", message, f"make `{self._asked.between}` pass, then run the loop again")
        fresh = load_build(self._copy.options, self._build.project.root)
        if isinstance(fresh, Failure):
            return fresh
        self._contexts.callback(fresh.close)
        self._build = fresh
        # Also undoes the edits of the iteration before.
        self._copy = ProjectCopy(fresh, self._directory / "copy")
        if _digests(self._copy.project) != self._sources:
            self._checked = False
        return None

    # --- one iteration ------------------------------------------------------------------------

    def _iteration(self, number: int, sha: str) -> Iteration:
        runs = []
        for run in self._runs(number):
            load = load_average()
            self._load = max(filter(None, (self._load, load)), default=None)
            self._files.run(number, run, sha, self._build.clock.utc(), load, self._copy.scratch)
            self._watch.ran(number, run)
            runs.append(run)
        findings, unscored, typical = judge(runs, self._limits, self._reference, self._always)
        return Iteration(number, findings, unscored, typical)

    def _runs(self, number: int) -> Iterator[LoopRun]:
        """The tests in their order, the first deploy of all being T0; nothing after a deploy that did not succeed."""
        first = self._deploy()
        if self._cold or not first.ok:
            yield self._measure(Test.COLD if self._cold else Test.LOOP, first, ())
        self._cold = False
        if not first.ok:
            return
        if not self._checked:
            self._rebuild()
        for test in WARM:
            for _ in range(self._asked.repeats):
                yield self._test(test)
        for test, kind in ((Test.COMMENT, "comment"), (Test.EDIT, "real")):
            missing = self._copy.edits.make(kind, number)
            yield LoopRun(test, 0, {}, precondition=f"{NOT_APPLICABLE}:{missing}") if missing else self._test(test)

    def _deploy(self) -> Child:
        """A deploy that nobody judges: it makes the device hold what the copy builds."""
        self._watch.began("cold deploy" if self._cold else "deploy")
        self._primed = None
        child = self._copy.deploy()
        self._primed = child if child.ok else None
        return child

    def _test(self, test: Test) -> LoopRun:
        """One run, with its preconditions looked at before and after."""
        task, project = TASKS.get(test, "deploy"), self._copy.project
        self._watch.began(f"{test} doit {task}")
        before, products = _digests(project), _stamps(project)
        child = self._copy.build(task) if test is Test.BUILD else self._copy.on_device(task)
        after, made = _digests(project), _stamps(project)
        moved = tuple(sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name)))
        rebuilt = sorted(name for name, stamp in made.items() if products.get(name) != stamp)
        rebuilt.sort(key=lambda name: made[name])
        return self._measure(test, child, moved)._replace(rebuilt=tuple(rebuilt))

    def _measure(self, test: Test, child: Child, moved: tuple[str, ...]) -> LoopRun:
        run = measure(test, child.wall_ms, child.report)._replace(failure=child.failure[0])
        if test is Test.COLD or self._primed is None:
            broken = child.failure[0] if child.failure[0] in NOT_OURS else ""
            return run._replace(precondition=broken, tx=child.tx)
        broken = broken_precondition(self._primed.report, child.report, moved)
        if child.ok and child.report is not None and child.report["regions"]:
            self._primed = child
        return run._replace(precondition=broken, tx=child.tx if child.report else "")

    def _rebuild(self) -> None:
        """Build once more from nothing, elsewhere, and compare."""
        self._watch.began("second cold build")
        self._checked, self._sources, self._always = self._asked.rebuild, _digests(self._copy.project), ()
        with tempfile.TemporaryDirectory(dir=self._directory) as directory:
            found = differences(self._copy, ProjectCopy(self._build, Path(directory)))
        if isinstance(found, str):
            self._determinism = f"could not be checked: {found}"
            return
        self._always = tuple(
            Finding(Rule.WROTE, Test.COLD, f"{one.path} {one.place.section} {one.place.symbol}".strip(), str(one))
            for one in found
        )
        count = f"{len(found)} outputs differ" if found else "every output is the same"
        self._determinism = f"a second cold build in another directory: {count}"


def _digests(project: Path) -> dict[str, str]:
    """File -> digest of everything in the copy that is no product: what a run must leave alone."""
    found = {}
    for path in sorted(project.rglob("*")):
        name = path.relative_to(project).as_posix()
        if path.is_file() and not name.startswith(("build/", ".deploy/", "reports/")) and "__pycache__" not in name:
            found[name] = hashlib.sha256(read_file(str(path))).hexdigest()
    return found


def _stamps(project: Path) -> dict[str, tuple[int, int]]:
    """Product -> (time, inode): a file that was written again differs, even when it has the same bytes."""
    found = {}
    for path in (project / "build").rglob("*"):
        if path.is_file():
            status = path.stat()
            found[path.relative_to(project).as_posix()] = (status.st_mtime_ns, status.st_ino)
    return found
