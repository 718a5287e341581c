"""A user's own tasks beside ours: doit treats them as it would without us."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.measure.bench import generated_project
from tests.e2e.space import environment
from tests.forked import run_python

DODO = """from doit.tools import config_changed, run_once
from pipeline.tasks import *
from tests.forked import run_python

def task_copy():
    return {"actions": ["cp in.txt out.txt"], "file_dep": ["in.txt"], "targets": ["out.txt"]}

def task_once():
    return {"actions": ["echo once >> log"], "uptodate": [run_once]}

def task_setting():
    return {"actions": ["echo setting >> log"], "uptodate": [config_changed(open("setting").read())]}

def task_values():
    return {"actions": [lambda: {"x": 5}], "uptodate": [run_once]}

def task_reader():
    return {"actions": [lambda x: print("x is", x)], "getargs": {"x": ("values", "x")}, "verbosity": 2}

def task_many():
    for n in range(4):
        yield {"name": str(n), "actions": [f"echo {n} > many{n}"], "targets": [f"many{n}"], "file_dep": ["in.txt"]}
"""
MINE = ("copy", "once", "setting", "values")


class Dodo:
    """A project with tasks of its user's."""

    def __init__(self, root: Path) -> None:
        generated_project.write_project(root, 1)
        self.root = root
        for name, text in (("dodo.py", DODO), ("in.txt", "in"), ("setting", "a")):
            (root / name).write_text(text)

    def __call__(self, *argv: str, code: int = 0, cwd: str = ".") -> str:
        done: subprocess.CompletedProcess[str] = run_python(
            ["-m", "doit", *argv],
            cwd=self.root / cwd,
            env=environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == code and "Traceback" not in done.stderr, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def dodo(tmp_path: Path) -> Dodo:
    return Dodo(tmp_path)


def test_what_was_done_is_remembered(dodo: Dodo) -> None:
    ran, skipped = ([f"{mark} {name}" for name in MINE] for mark in (". ", "--"))
    assert dodo(*MINE).splitlines() == ran
    assert dodo(*MINE).splitlines() == skipped
    (dodo.root / "in.txt").write_text("changed")
    (dodo.root / "setting").write_text("b")
    assert dodo(*MINE).splitlines() == [ran[0], skipped[1], ran[2], skipped[3]]
    (dodo.root / "out.txt").unlink()
    assert dodo("copy") == ".  copy\n"
    assert "x is 5" in dodo("reader"), "values of a task that was up to date"
    assert dodo(*MINE).splitlines() == skipped


def test_forget_ignore_dumpdb_and_k(dodo: Dodo) -> None:
    dodo(*MINE)
    assert dodo("forget", "once") == "forgetting once\n"
    assert dodo("once", "copy").splitlines() == [".  once", "-- copy"]
    dodo("ignore", "setting")
    (dodo.root / "setting").write_text("b")
    assert dodo("setting") == "!! setting\n"
    dodo("forget", "--all")
    assert dodo("setting", "copy").splitlines() == [".  setting", ".  copy"]
    dumped = dodo("dumpdb")
    assert "copy" in dumped and "in.txt" in dumped and "fingerprint" not in dumped
    (dodo.root / "below").mkdir()
    assert dodo("-k", "copy", cwd="below") == "-- copy\n"
    assert "U copy" in dodo("list", "-s", "copy")
    assert dodo("reset-dep", "copy", code=0)


def test_in_parallel(dodo: Dodo) -> None:
    assert sorted(dodo("-n", "3", "many").splitlines()) == [f".  many:{n}" for n in range(4)]
    assert sorted(dodo("-n", "3", "many").splitlines()) == [f"-- many:{n}" for n in range(4)]


def test_without_own_tasks_there_is_no_file(dodo: Dodo) -> None:
    (dodo.root / "dodo.py").write_text("from pipeline.tasks import *\n")
    dodo("list", "-s")
    dodo("cache:stats")
    dodo("forget", "--all")
    assert list(dodo.root.glob(".doit*")) == []


def test_another_place_may_be_named(dodo: Dodo) -> None:
    (dodo.root / "dodo.py").write_text(DODO + 'DOIT_CONFIG = {**DOIT_CONFIG, "dep_file": "mine.sqlite"}\n')
    assert [dodo("once"), dodo("once")] == [".  once\n", "-- once\n"]
    assert (dodo.root / "mine.sqlite").exists() and list(dodo.root.glob(".doit*")) == []


def test_a_damaged_file_is_said_in_words(dodo: Dodo) -> None:
    (dodo.root / ".doit.db").write_bytes(b"not a database at all")
    assert dodo("once", code=3) == ""


@pytest.mark.parametrize("program", ["doit", "hotplate"])
def test_ctrl_c_before_the_run_is_quiet(dodo: Dodo, program: str) -> None:
    """While modules are imported and tasks are made there is no run yet that could say that it was interrupted."""
    (dodo.root / "dodo.py").write_text(DODO + "def task_late():\n    raise KeyboardInterrupt\n")
    code = f"import sys; sys.argv[0] = {program!r}; from pipeline.fastpath import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "once"],
        cwd=dodo.root,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
