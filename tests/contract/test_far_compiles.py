"""Compiles elsewhere, with the real compiler: the same bytes, the same failures, and nothing taken that read other
files. Elsewhere is a directory on this machine, or buildbox-casd with its sandbox."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from cache.blobs import BlobStore
from cache.digest import digest_bytes
from cache.remote import Remote, RemoteSpeed
from pipeline.effects.api import Completed
from pipeline.effects.clock import SystemClock
from pipeline.effects.executor import HERE, Executor, FarCommand, FarCounts, FarResult, FarWork
from pipeline.effects.process import SystemProcessRunner
from pipeline.engine.engine import Engine
from pipeline.engine.results import RunResult
from pipeline.engine.workspace import BuildSteps, Directories, Host
from pipeline.model import Action, Stage
from pipeline.remote.reapi import ReapiRemote
from pipeline.remote.reapi_channel import ReapiServer
from pipeline.remote.reapi_executor import ReapiExecutor
from pipeline.toolchain import gcc
from tests import casd
from tests import firmware_build as fb
from tests.contract.small_project import Small

pytestmark = pytest.mark.skipif(shutil.which(gcc.DRIVER) is None, reason=fb.GCC_MISSING)
HEADER = "#pragma once\n#include <stdint.h>\n#ifndef LEVEL\n#define LEVEL 3\n#endif\n"
ALL = (Stage.COMPILE, Stage.LINK)
SOURCE = '#include "level.h"\nuint32_t level(void) { return LEVEL; }\n'
FAILS = '#include "level.h"\nuint32_t level(void) { return nothing; }\n'


class Elsewhere:
    """An `Executor` that runs commands in a directory with their inputs alone. `meanwhile`: what happens there before
    one runs, given its directory."""

    def __init__(self) -> None:
        self.commands: list[FarCommand] = []
        self.meanwhile: Callable[[Path], None] = lambda place: None
        self.jobs = 2

    def is_on(self) -> bool:
        return True

    def execute(self, command: FarCommand, blobs: BlobStore) -> FarResult | None:
        self.commands.append(command)
        for path, checksum in command.same.items():
            made = hashlib.sha256 if len(checksum) == 64 else hashlib.blake2b
            assert made(Path(path).read_bytes()).hexdigest() == checksum, path
        with tempfile.TemporaryDirectory() as place:
            for path, (digest, source) in command.inputs.items():
                data = Path(source).read_bytes()
                assert digest_bytes(data) == digest
                (Path(place) / path).parent.mkdir(parents=True, exist_ok=True)
                (Path(place) / path).write_bytes(data)
            for path in command.outputs:
                (Path(place) / path).parent.mkdir(parents=True, exist_ok=True)
            self.meanwhile(Path(place))
            done = subprocess.run(command.argv, cwd=place, env=command.env, capture_output=True, check=False)
            found = {path: Path(place) / path for path in command.outputs if not done.returncode}
            outputs = {path: blobs.put_bytes(file.read_bytes()) for path, file in found.items()}
        return FarResult(done.returncode, done.stdout, done.stderr, outputs, 0.5)

    def cancel(self) -> None:
        pass

    def counts(self) -> FarCounts:
        return FarCounts()

    def notes(self) -> tuple[str, ...]:
        return ()


class CountingRunner:
    """A runner of processes that knows how many ran at once."""

    def __init__(self, real: SystemProcessRunner) -> None:
        self._real, self._lock = real, threading.Lock()
        self.now = self.most = 0

    def run(self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout_s: float) -> Completed:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            return self._real.run(argv, cwd=cwd, env=env, timeout_s=timeout_s)
        finally:
            with self._lock:
                self.now -= 1

    def cancel(self) -> None:
        self._real.cancel()


class QuickRemote(ReapiRemote):
    """One that is always worth asking, however busy this machine is."""

    def speed(self) -> RemoteSpeed:
        return RemoteSpeed(1e-4, 1e9)


class FarProject(Small):
    """A checkout whose compiles may go elsewhere. What links make of equal objects is told by `test_a_sandbox...`."""

    stages: tuple[Stage, ...] = (Stage.COMPILE,)

    def __init__(self, root: Path, runner: SystemProcessRunner, far: Executor | None, remote: Remote | None = None):
        super().__init__(root, runner, "gcc")
        self.far, self.remote = far, remote
        self.host = Host(runner, SystemClock(), 2, lambda: remote)
        self.write("inc/level.h", HEADER)
        self.write("app/level.c", SOURCE)

    def results(self, profile: str = "local-fast") -> list[RunResult]:
        made, state = self.tools(profile), self.root / ".deploy"

        def relied_on(action: Action) -> Mapping[str, str] | None:
            return gcc.relied_on(action, made.tools)

        host = self.host
        if (far := self.far) is not None:
            host = host._replace(far_jobs=far.jobs, far=lambda: FarWork(far, relied_on))
        steps = BuildSteps(made.actions, made.tools, made.builtins, made.run_env)
        engine = Engine(Directories(self.root, state, self.cache), steps, host)
        engine.scan()
        results = []
        for stage in self.stages:
            if not engine.verdict(stage).up_to_date:
                results.append(engine.run(stage, lambda label, done, total: None))
        return results

    def count(self, results: list[RunResult], name: str) -> int:
        return sum(result.counts.get(name, 0) for result in results)

    def products(self) -> dict[str, bytes]:
        base = self.root / "build"
        return {str(path.relative_to(base)): path.read_bytes() for path in base.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def runner() -> Iterator[SystemProcessRunner]:
    runner = SystemProcessRunner(SystemClock())
    yield runner
    runner.close()


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, runner: SystemProcessRunner) -> dict[str, bytes]:
    """What a build without anybody else makes."""
    project = FarProject(tmp_path_factory.mktemp("here"), runner, None)
    project.stages = ALL
    project.build()
    return project.products()


def objects(products: Mapping[str, bytes]) -> dict[str, bytes]:
    """What compiles make."""
    return {path: data for path, data in products.items() if path.endswith(".o")}


def test_the_same_bytes_and_nothing_more_than_is_read(
    tmp_path: Path, runner: SystemProcessRunner, here: dict[str, bytes]
) -> None:
    far = Elsewhere()
    project = FarProject(tmp_path, runner, far)
    project.write("inc/unread.h", "")
    results = project.results()
    compiles = project.count(results, "compiled")
    assert project.count(results, "executed_remote") == compiles == len(far.commands) > 2
    assert project.products() == objects(here)
    sent = next(each for each in far.commands if "app/level.c" in each.inputs)
    assert {*sent.inputs} == {"app/level.c", "inc/level.h"}
    assert sent.env["PWD"] == HERE and not any(str(tmp_path) in word for word in (*sent.argv, *sent.env.values()))
    names = {Path(path).name for path in sent.same}
    assert {gcc.DRIVER, "cc1", "as", "stdint.h"} <= names and "cc1plus" not in names
    assert project.results() == [], "the second time nothing is done"


def test_who_made_it_is_in_no_key(tmp_path: Path, runner: SystemProcessRunner) -> None:
    one = FarProject(tmp_path / "one", runner, Elsewhere())
    one.build()
    far = Elsewhere()
    for two in (FarProject(tmp_path / "two", runner, far), FarProject(tmp_path / "three", runner, None)):
        two.cache = one.cache
        results = two.results()
        assert two.count(results, "compiled") == 0 and two.count(results, "restored") > 2
        assert two.products() == one.products()
    assert far.commands == []


def test_a_failure_is_that_of_this_machine(tmp_path: Path, runner: SystemProcessRunner) -> None:
    far = Elsewhere()
    project, alone = FarProject(tmp_path / "far", runner, far), FarProject(tmp_path / "alone", runner, None)
    for each in (project, alone):
        each.sources = '["app/*.c"]'
        each.write("app/level.c", FAILS)
    (failure,) = [one for result in project.results() for one in result.failures if "level" in one.action]
    (same,) = [one for result in alone.results() for one in result.failures if "level" in one.action]
    assert failure.stderr == same.stderr and "app/level.c:2:" in failure.stderr
    assert failure._replace(argv=()) == same._replace(argv=())
    assert "build/local-fast/obj/app/app/level.c.o" not in project.products()


def test_one_that_read_other_files_is_made_here(
    tmp_path: Path, runner: SystemProcessRunner, here: dict[str, bytes]
) -> None:
    """A worker that sees a header which the project does not have."""

    def plant(place: Path) -> None:
        if (place / "app/level.c").exists():
            (place / "app/level.h").write_text("#define LEVEL 9\n#include <stdint.h>\n")

    far = Elsewhere()
    far.meanwhile = plant
    project = FarProject(tmp_path, runner, far)
    results = project.results()
    assert project.count(results, "executed_remote") == project.count(results, "compiled") - 1
    assert project.products() == objects(here)


def test_what_a_source_only_asks_for_goes_along(tmp_path: Path, runner: SystemProcessRunner) -> None:
    text = '#if __has_include("asked.h")\n#define LEVEL 7\n#endif\n' + SOURCE
    far = Elsewhere()
    project, alone = FarProject(tmp_path / "far", runner, far), FarProject(tmp_path / "alone", runner, None)
    for each in (project, alone):
        each.write("app/level.c", text)
        each.write("inc/asked.h", "")
        each.build()
    assert project.products() == alone.products()
    assert any("inc/asked.h" in command.inputs for command in far.commands)


def test_nobody_there_costs_the_scan_and_nothing_else(
    tmp_path: Path, runner: SystemProcessRunner, here: dict[str, bytes]
) -> None:
    far = ReapiExecutor(ReapiServer("127.0.0.1", 1), SystemClock(), jobs=2, platform={})
    project = FarProject(tmp_path, runner, far)
    results = project.results()
    assert project.count(results, "executed_remote") == 0
    assert project.products() == objects(here) and len(far.notes()) == 1


def test_no_more_at_once_here_than_there_are_cores(
    tmp_path: Path, runner: SystemProcessRunner, here: dict[str, bytes]
) -> None:
    """Where the executor that was to take most of it is none."""
    counting = CountingRunner(runner)
    project = FarProject(tmp_path, runner, None)
    project.host = Host(counting, SystemClock(), 2, far_jobs=8)
    for n in range(6):
        project.write(f"app/more{n}.c", f"int more{n}(void) {{ return {n}; }}\n")
    project.build()
    assert counting.most <= 2


def test_flags_that_name_files_of_this_machine_stay_here(tmp_path: Path, runner: SystemProcessRunner) -> None:
    outside = tmp_path / "outside.h"
    outside.write_text("")
    far = Elsewhere()
    project = FarProject(tmp_path / "p", runner, far)
    project.toolchain = f'cflags = ["-imacros", "{outside}"]'
    results = project.results()
    assert project.count(results, "compiled") > 2
    # Named by the depfile or by a line of the key: then it must be the same there, or nothing goes.
    assert all(str(outside) in command.same for command in far.commands)


# --- casd -------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may need seconds for what is answered at once on another."""
    for name in ("reapi.HELLO_S", "reapi.FIND_S", "reapi_executor.HELLO_S"):
        monkeypatch.setattr(f"pipeline.remote.{name}", 60.0)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReapiServer]:
    with casd.running(tmp_path_factory.mktemp("casd")) as address:
        yield address


@casd.needs_casd
def test_a_second_checkout_compiles_nothing(
    server: ReapiServer, tmp_path: Path, runner: SystemProcessRunner, here: dict[str, bytes]
) -> None:
    first = ReapiRemote(server, SystemClock(), writes=True)
    one = FarProject(tmp_path / "one", runner, None, first)
    one.stages = ALL
    one.build()
    first.settle(60)
    assert first.counts().given_up == 0 and first.notes() == ()
    second = QuickRemote(server, SystemClock(), writes=False)
    project = FarProject(tmp_path / "two", runner, None, second)
    project.stages = ALL
    results = project.results()
    # Builtins that take no millisecond are quicker made.
    assert (project.count(results, "compiled"), project.count(results, "linked")) == (0, 0)
    assert project.count(results, "restored_remote") > 4
    assert project.products() == here
    second.settle(0)


@casd.needs_casd
@casd.needs_execution
def test_a_sandbox_makes_the_same_bytes(
    server: ReapiServer, tmp_path: Path, runner: SystemProcessRunner, here: dict[str, bytes]
) -> None:
    far = ReapiExecutor(server, SystemClock(), jobs=2, platform={})
    project = FarProject(tmp_path / "one", runner, far)
    project.stages = ALL
    results = project.results()
    assert far.notes() == () and project.count(results, "executed_remote") == project.count(results, "compiled") > 2
    assert project.products() == here
    far.cancel()
    again = ReapiExecutor(server, SystemClock(), jobs=2, platform={})
    project = FarProject(tmp_path / "two", runner, again)
    results = project.results()
    assert again.counts().cached == again.counts().executed == project.count(results, "executed_remote")
    assert project.products() == objects(here)
    again.cancel()


@casd.needs_casd
@casd.needs_execution
def test_as_its_user_runs_it(
    server: ReapiServer, tmp_path: Path, runner: SystemProcessRunner, here: dict[str, bytes]
) -> None:
    """The first checkout compiles there and sends what came of it; the second one only reads."""

    def checkout(name: str) -> FarProject:
        project = FarProject(tmp_path / name, runner, None)
        # Not what the test before left in the server's own cache.
        project.toolchain = 'cflags = ["-DBY_ITS_USER"]'
        project.more = f'[cache]\nremote = "{server}"\n[execution]\nremote = "{server}"\njobs = 2\n'
        project.config()
        project.write("dodo.py", "from pipeline.tasks import *\n")
        return project

    def link(project: FarProject, **environment: str) -> list[str]:
        argv = [sys.executable, "-m", "doit", "link"]
        env = {"PATH": os.environ["PATH"], "HOME": str(project.root / "home"), **environment}
        done = subprocess.run(argv, cwd=project.root, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return (done.stdout + done.stderr).splitlines()

    one, two = checkout("one"), checkout("two")
    said = link(one, HOTPLATE_CACHE_MODE="read-write")
    assert any(line.endswith("actions executed by other machines") for line in said), said
    assert any("sent to the shared cache" in line for line in said), said
    assert [line for line in link(one) if line[:2] != "--"] == []
    again = link(two)
    assert any("restored from the shared cache" in line for line in again), again
    assert two.products() == one.products() and two.products().keys() == here.keys()
