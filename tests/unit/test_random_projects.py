"""Random projects, random edits, random damage, kills and concurrent runs: after each step the outputs are those of a
clean build, byte for byte, and no command ran that need not have.

`pytest -m stress tests/unit/test_random_projects.py` walks 20,000 steps; a failure names its seed and its last edits.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.engine.decision import Fate
from pipeline.engine.forecast import forecast
from tests.unit.random_edits import PRECIOUS, EditScript
from tests.unit.random_project import (
    JOBS,
    SOURCES,
    FakeRunner,
    Model,
    RandomProject,
    RealRunner,
    Shape,
    clean_build,
    in_threads,
    is_whole,
    outputs_of,
    remove_tree,
)

SEEDS, STEPS = 11, 48
STRESS_SEEDS, STRESS_STEPS = 80, 250


SAVES = ("edit", "new_includes", "comment", "add_source", "rename_source", "remove_source", "shadow", "helper", "data",
         "generator", "link_header", "link_directory", "revert", "same_stamp_edit")  # fmt: skip
"""What happens while a command runs."""
UNTRACKED = ("delete_state", "corrupt_output", "link_output", "damage_store", "build killed", "build interrupted")
"""After these, what we made is not known or holds other bytes."""
PLANNED = {
    Fate.UP_TO_DATE: "up_to_date",
    Fate.RESTORE: "restored",
    Fate.RUN: "executed",
    Fate.BLOCKED: "failed",
}


class Walk:
    """One seed: a project, its model, and how a step is run."""

    def __init__(self, base: Path, seed: int, runner: type[FakeRunner] = FakeRunner) -> None:
        self.runner = runner
        self.rng = random.Random(seed)
        self.base = base
        self.project = RandomProject(base / "project", base / "cache", Shape())
        self.project.uses_parts = True
        self.model = Model()
        self.script = EditScript(self.project, self.model, self.rng)
        self.ways: list[Callable[[], None]] = [self.plain] * 8
        self.ways += [self.twice, self.killed, self.beside_a_twin]
        if runner is FakeRunner:
            # These act while a tool runs, so they need it in this process.
            self.ways += [self.edited_meanwhile, self.saved_meanwhile, self.saved_meanwhile, self.interrupted]

    def step(self) -> None:
        """Edit, then build in one of the ways; each ends with a plain build that must be right."""
        self.script.step()
        way = self.rng.choice(self.ways)
        self.script.log.append(f"  build {way.__name__}")
        way()

    # --- ways to build ------------------------------------------------------------------------

    def plain(self) -> None:
        """Build; compare with the model and the clean build."""
        planned = clean_build(self.project)
        must, may = self.model.must(self.project, planned)
        expected_failures = {one.action.name for one in planned if one.failed}
        engine = self.project.engine(FakeRunner())
        fates = {one.action.name: one.fate for one in forecast(engine.workspace)}
        results = self.project.build(self.runner())
        executed = {name for result in results for name in result.executed}
        failures = {failure.action for result in results for failure in result.failures}
        assert failures <= expected_failures and bool(failures) == bool(expected_failures)
        assert executed <= must | may, f"needless: {sorted(executed - must - may)}"
        self.compare_plan(fates)
        if failures:
            self.model.stopped(planned, executed)
            return
        assert must <= executed, f"missed: {sorted(must - executed)}"
        assert all(not result.notes for result in results)
        self.compare(self.project)
        if results:
            self.compare_leftovers()
        self.model.succeeded(planned, executed)

    def twice(self) -> None:
        """The second run has nothing to do, not even to look twice."""
        self.plain()
        if not any(one.failed for one in clean_build(self.project)):
            before = (self.project.root / ".deploy").stat().st_mtime_ns
            assert self.project.build() == []
            assert (self.project.root / ".deploy").stat().st_mtime_ns == before

    def edited_meanwhile(self) -> None:
        """A source changes each time after its compiler has read it: neither stored nor believed."""
        source = self.rng.choice([p for p in self.project.paths("src") if p.endswith(".c")])
        planned = clean_build(self.project)
        mine = next(one for one in planned if one.action.name == f"cc {source}")
        runner, text = FakeRunner(), (self.project.root / source).read_text()

        def edit(out: str) -> None:
            if out == mine.action.outputs[0]:
                self.project.write(source, text + "int meanwhile;\n")

        runner.during = edit
        results = self.project.build(runner)
        executed = {name for result in results for name in result.executed}
        if mine.action.name not in executed:
            self.model.stopped(planned, executed)
            return self.plain()
        notes = [note.subject for result in results for note in result.notes]
        assert f"cc {source}: {source}" in notes
        # The second look compiled the edited source, and what follows was made of that, once.
        self.model.killed(planned, {path for one in planned for path in one.outputs if one is not mine})
        self.model.killed(clean_build(self.project), {path for one in planned for path in one.outputs})
        self.model.records.pop(f"{mine.action.profile}:{mine.action.name}", None)
        return self.plain()

    def saved_meanwhile(self) -> None:
        """Somebody saves, renames or removes a file while a command runs; the next build is right whatever that was."""
        before, runner = clean_build(self.project), FakeRunner()
        left = [self.rng.randint(1, 4)]
        started: set[str] = set()

        def save(out: str) -> None:
            started.add(out)
            left[0] -= 1
            if left[0] == 0:
                name = self.rng.choice(SAVES)
                self.script.log.append(f"    meanwhile {name} {getattr(self.script, f'op_{name}')()}")

        runner.during = save
        self.project.build(runner)
        everything = {path for one in before for path in one.outputs}
        self.model.killed(before, everything)
        self.model.killed(clean_build(self.project), everything | started)
        self.plain()

    def interrupted(self) -> None:
        """Ctrl-C in the middle of a command."""
        planned, runner = clean_build(self.project), FakeRunner()
        left = [self.rng.randint(1, 6)]
        started: set[str] = set()

        def stop(out: str) -> None:
            started.add(out)
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt

        runner.during = stop
        with contextlib.suppress(KeyboardInterrupt):
            self.project.build(runner)
        self.model.killed(planned, started)
        self.plain()

    def killed(self) -> None:
        """`kill -9` at a random file operation of a process of its own: at most what was under way is lost."""
        planned, log = clean_build(self.project), self.base / "log"
        log.unlink(missing_ok=True)
        run_and_kill(self.project, self.runner, log, self.rng.randint(1, 300))
        lines = log.read_text().splitlines() if log.exists() else []
        started = {line[6:] for line in lines if line.startswith("start ")}
        ended = {line[4:] for line in lines if line.startswith("end ")}
        store = set(self.model.store)
        self.model.killed(planned, started)
        self.plain()
        lost = {
            one.action.name
            for one in planned
            if one.action.outputs[0] in ended
            and not one.failed
            and one.signature in self.model.store
            and one.signature not in store
        }
        assert len(lost) <= JOBS, f"ran again although they had ended: {lost}"

    def beside_a_twin(self) -> None:
        """Another checkout of the same sources builds at the same time from the same store."""
        root = self.base / "twin"
        remove_tree(root)
        for directory in SOURCES:
            if (self.project.root / directory).is_dir():
                shutil.copytree(self.project.root / directory, root / directory)
        twin, fresh = (
            RandomProject(root, self.project.cache, self.project.shape),
            Model(self.model.store, self.model.maybe),
        )
        planned = clean_build(twin)
        if any(one.failed for one in planned):
            return self.plain()
        must, may = fresh.must(twin, planned)
        mine, mine_may = self.model.must(self.project, planned)
        built: dict[str, set[str]] = {}

        def build(project: RandomProject) -> None:
            built[project.root.name] = {name for result in project.build(self.runner()) for name in result.executed}

        in_threads(lambda: build(self.project), lambda: build(twin))
        assert built["twin"] <= must | may and built["project"] <= mine | mine_may
        assert mine <= built["twin"] | built["project"]
        self.compare(self.project)
        self.compare(twin)
        self.model.succeeded(planned, built["twin"] | built["project"])
        return None

    def compare_plan(self, fates: dict[str, Fate]) -> None:
        """`plan` said what the build then did, as far as the build came."""
        how = self.project.how
        for name, fate in fates.items():
            if fate is Fate.UNCERTAIN or how.get(name) == "failed":
                continue
            if name in how:
                assert PLANNED[fate] == how[name], f"plan: {name}: {fate}, but {how[name]}"
            else:
                assert fate is Fate.UP_TO_DATE or "failed" in how.values(), f"plan: {name}: {fate}, but nothing"

    def compare_leftovers(self) -> None:
        """Nothing lies below build/ that no action makes, unless its bytes are not ours or the records are gone."""
        build = self.project.root / "build"
        there = {path for path in build.rglob("*") if not path.is_dir()}
        if any(word in line for line in self.script.log for word in UNTRACKED):
            return
        profile = self.project.shape.profile
        mine = {self.project.root / path for action in self.project.actions() for path in action.outputs}
        others = {path for path in there if path.parent.name in ("fast", "slow") and path.parent.name != profile}
        assert there <= mine | others, sorted(map(str, there - mine - others))

    def compare(self, project: RandomProject) -> None:
        """Every output is that of a clean build, nothing half-written lies about, and no link was written through."""
        if project is self.project:
            assert (project.root / "precious").read_text() == PRECIOUS
        for path, data in outputs_of(clean_build(project)):
            assert is_whole(project.root / path, data), path
        assert list((project.root / "build").rglob("*.tmp")) == [] or self.script.log.count("  build killed") > 0


def run_and_kill(project: RandomProject, new_runner: type[FakeRunner], log: Path, operations: int) -> None:
    """Build in a forked process that kills itself at its n-th file operation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the parent's other threads hold nothing that we use
        child = os.fork()
    if child == 0:
        try:
            runner = new_runner(log)
            left = [operations]

            def audit(event: str, args: object) -> None:
                if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.chmod"):
                    left[0] -= 1
                    if left[0] == 0:
                        os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(audit)
            project.build(runner)
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def walk(base: Path, seed: int, steps: int, runner: type[FakeRunner] = FakeRunner) -> int:
    """How many builds began with an engine of a few actions only."""
    one = Walk(base, seed, runner)
    try:
        for _ in range(steps):
            one.step()
    except Exception as error:
        last = "\n".join(one.script.log[-30:])
        raise AssertionError(
            f"seed {seed}, step {sum(line.startswith('  build') for line in one.script.log)}:\n{last}\n{error}"
        ) from error
    return one.project.partial_builds


@pytest.mark.parametrize("seed", range(SEEDS))
def test_random_projects(tmp_path: Path, seed: int) -> None:
    assert walk(tmp_path, seed, STEPS) > 0


def test_with_real_processes(tmp_path: Path) -> None:
    """Shorter, since each command costs the start of a process."""
    walk(tmp_path, 7, 20, RealRunner)


@pytest.mark.stress
@pytest.mark.parametrize("seed", range(1000, 1000 + STRESS_SEEDS))
def test_20000_steps(tmp_path: Path, seed: int) -> None:
    began_s = time.monotonic()
    walk(tmp_path, seed, STRESS_STEPS)
    shutil.rmtree(tmp_path)
    print(f"seed {seed}: {STRESS_STEPS} steps in {time.monotonic() - began_s:.1f} s")
