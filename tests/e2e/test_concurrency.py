"""Many runs at once: of one project (one at a time, and the others say who has it), and of many on one store."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from cache.durable import FileLock
from pipeline.model import Failure, FailureCategory
from pipeline.run import lock as project_lock
from pipeline.run.lock import MAX_WAITING
from pipeline.run.options import Options
from pipeline.run.run import Run, load_run
from tests.e2e.space import environment
from tests.e2e.test_fastpath import FastPathProject
from tests.forked import Python

TIMEOUT_S = 300


def with_store(project: FastPathProject, store: Path) -> FastPathProject:
    """The project with a cache directory that others use too."""
    text = (project.root / "deploy.toml").read_text()
    before, _, after = text.partition("[cache]\n")
    assert after
    rest = after.partition("\n")[2]
    (project.root / "deploy.toml").write_text(f'{before}[cache]\ndir = "{store}"\n{rest}')
    return project


def calls(project: FastPathProject) -> int:
    """How often its compiler ran."""
    log = project.zig.parent / "calls"
    return len(log.read_text().splitlines()) if log.exists() else 0


def products(project: FastPathProject) -> dict[str, bytes]:
    build = project.root / "build"
    return {str(p.relative_to(build)): p.read_bytes() for p in sorted(build.rglob("*")) if p.is_file()}


def start(project: FastPathProject, *tasks: str) -> subprocess.Popen[str]:
    return Python(
        ["-m", "doit", *tasks],
        cwd=project.root,
        env=environment(PYTHONPATH=project.env["PYTHONPATH"]),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_many_projects_on_one_store_at_once(tmp_path: Path) -> None:
    """Four checkouts of the same sources build from nothing at once; a fifth then compiles nothing."""
    projects = [with_store(FastPathProject(tmp_path / f"p{n}"), tmp_path / "store") for n in range(5)]
    *busy, late = projects
    for project in projects[1:]:
        # The same compiler, or nothing could be shared; its log stays each project's own.
        assert project.zig.read_bytes() == projects[0].zig.read_bytes()
    single = with_store(FastPathProject(tmp_path / "single"), tmp_path / "store of its own")
    single.out("doit", "compile", "link")
    cold = calls(single)
    assert cold >= 4, "three units and a link"
    children = [start(project, "compile", "link") for project in busy]
    for child in children:
        out, _ = child.communicate(timeout=TIMEOUT_S)
        assert child.returncode == 0 and "Traceback" not in out, out
    first, *others = map(products, busy)
    assert len(first) >= 7 and all(other == first for other in others)
    assert cold <= sum(map(calls, busy)) <= cold * len(busy)
    assert late.out("doit", "compile", "link") == ".  fingerprint\n.  compile\n.  link\n"
    assert calls(late) == 0 and products(late) == first
    assert [p.name for p in (tmp_path / "store").rglob("*.tmp")] == []


def test_who_holds_the_lock_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = FastPathProject(tmp_path)
    monkeypatch.setattr(project_lock, "LOCK_TIMEOUT_S", 0)
    lock = FileLock(project.root / ".deploy/locks/project")
    assert lock.try_acquire("pid 4711 (doit deploy)") is None
    try:
        context = load_run(Options(), project.root)
        assert isinstance(context, Run)
        refused = context.lock()
        assert isinstance(refused, Failure)
        assert refused.category is FailureCategory.LOCK_TIMEOUT
        assert "pid 4711 (doit deploy)" in refused.message and refused.where == ".deploy/locks/project"
    finally:
        lock.release()
    waited_s = context.lock()
    assert not isinstance(waited_s, Failure)
    assert (project.root / ".deploy/locks/project").read_text().startswith(f"pid {os.getpid()} (")
    context.unlock()
    context.close()


def test_calls_from_hooks_coalesce(tmp_path: Path) -> None:
    """An editor that calls on every save, behind a long run: few wait, one of them works, the others find it done."""
    project = FastPathProject(tmp_path)
    lock = FileLock(project.root / ".deploy/locks/project")
    assert lock.try_acquire("pid 4711 (a long build)") is None
    children = [start(project, "compile", "link") for _ in range(MAX_WAITING + 3)]
    refused: list[subprocess.Popen[str]] = []
    deadline_s = time.monotonic() + TIMEOUT_S
    while len(refused) < 3 and time.monotonic() < deadline_s:
        refused = [child for child in children if child.poll() is not None]
        time.sleep(0.01)
    for child in refused:
        out, _ = child.communicate(timeout=TIMEOUT_S)
        assert child.returncode == 2 and "Traceback" not in out
        assert f"error: {MAX_WAITING} runs of this project wait already" in out
    assert calls(project) == 0
    lock.release()
    outs = [child.communicate(timeout=TIMEOUT_S)[0] for child in children if child not in refused]
    assert [child.returncode for child in children if child not in refused] == [0] * MAX_WAITING, outs
    assert sum(".  compile\n" in out for out in outs) == 1
    assert sum("-- compile\n-- link\n" in out for out in outs) == MAX_WAITING - 1
    before = calls(project)
    assert before >= 4
    assert "-- compile\n-- link\n" in project.out("hotplate", "compile", "link") and calls(project) == before


def test_a_run_that_waited_does_not_build_an_old_configuration(tmp_path: Path) -> None:
    project = FastPathProject(tmp_path)
    lock = FileLock(project.root / ".deploy/locks/project")
    assert lock.try_acquire("a run") is None
    child = start(project, "compile", "link")
    assert child.stdout is not None
    assert "waiting for another run" in child.stdout.readline()
    config = project.root / "deploy.toml"
    config.write_text(config.read_text().replace("[profile.local-fast]", '[profile.local-fast]\ncflags = ["-DNEW"]'))
    lock.release()
    out, _ = child.communicate(timeout=TIMEOUT_S)
    assert child.returncode == 2 and "deploy.toml:1:1: error: edited while this run waited" in out
    assert calls(project) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_waiting(tmp_path: Path, number: signal.Signals) -> None:
    project = FastPathProject(tmp_path)
    lock = FileLock(project.root / ".deploy/locks/project")
    assert lock.try_acquire("a run") is None
    child = start(project, "compile", "link")
    assert child.stdout is not None
    assert "waiting for another run" in child.stdout.readline()
    child.send_signal(number)
    out, _ = child.communicate(timeout=TIMEOUT_S)
    lock.release()
    assert child.returncode == 130 and "Traceback" not in out, out


def test_views_do_not_wait_for_a_run(tmp_path: Path) -> None:
    """`explain` and `plan` answer while another run has the lock."""
    project = FastPathProject(tmp_path)
    lock = FileLock(project.root / ".deploy/locks/project")
    assert lock.try_acquire("a run") is None
    try:
        assert "has no record in this project" in project.out("doit", "explain", "compile")
    finally:
        lock.release()
