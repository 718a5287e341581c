"""Interpreters that keep compiled copies: an action never runs one of what a file of the project was before."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.effects.clock import SystemClock
from pipeline.effects.process import SystemProcessRunner
from pipeline.engine.engine import Engine
from pipeline.engine.interpreters import KEPT, Fresh
from pipeline.engine.workspace import BuildSteps, Directories, Host
from pipeline.model import Action, Stage, Tool

GENERATOR = """
import sys
sys.path.insert(0, "tools")
import argparse, helper
open("build/out.txt", "w").write(helper.VALUE)
open("build/out.d", "w").write("build/out.txt: tools/gen.py tools/helper.py")
"""


@pytest.fixture
def runner() -> Iterator[SystemProcessRunner]:
    runner = SystemProcessRunner(SystemClock())
    yield runner
    runner.close()


class InterpretedSpace:
    """A project whose one action is a Python program with a helper, run as `words` say."""

    def __init__(self, root: Path, runner: SystemProcessRunner, words: tuple[str, ...]) -> None:
        self.root, self.runner, self.words = root, runner, words
        (root / "tools").mkdir(parents=True)
        (root / "tools/gen.py").write_text(GENERATOR)

    def helper(self, value: str) -> None:
        """Another content of the same size, with the old mtime."""
        path = self.root / "tools/helper.py"
        status = path.stat() if path.exists() else None
        path.write_text(f"VALUE = {value!r}\n")
        if status is not None:
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    def build(self) -> str:
        action = Action("gen", Stage.COMPILE, ("tools/gen.py",), ("build/out.txt",), self.words, depfile="build/out.d")
        tools = {name: Tool(name, path, "", name) for name, path in (("python", sys.executable), ("sh", "/bin/sh"))}
        directories = Directories(self.root, self.root / ".deploy", self.root / ".deploy")
        host = Host(self.runner, SystemClock(), 1)
        engine = Engine(directories, BuildSteps((action,), tools, {}, {"PATH": os.environ["PATH"]}), host)
        engine.scan()
        result = engine.run(Stage.COMPILE, lambda label, done, total: None)
        assert result.ok and not result.notes, (result.failures, result.notes)
        return (self.root / "build/out.txt").read_text()


@pytest.mark.parametrize(
    "words",
    [
        ("python", "tools/gen.py"),
        ("python", "-I", "tools/gen.py"),
        ("python", "-W", "error", "-Es", "tools/gen.py"),
        ("sh", "-c", f"exec '{sys.executable}' tools/gen.py"),
    ],
)
def test_a_helper_that_looks_as_old_as_it_was_is_read(
    tmp_path: Path, runner: SystemProcessRunner, words: tuple[str, ...]
) -> None:
    project = InterpretedSpace(tmp_path / "project", runner, words)
    project.helper("one")
    (project.root / ".deploy/interpreters.killed/usr").mkdir(parents=True)
    assert project.build() == "one"
    project.helper("two")
    assert project.build() == "two"
    state = sorted(path.name for path in (project.root / ".deploy").iterdir())
    assert [name for name in state if name.startswith("interpreters.")] == []
    assert not (project.root / "tools/__pycache__").exists(), "and nothing is left beside the sources"


def test_copies_from_before_are_not_read(tmp_path: Path, runner: SystemProcessRunner) -> None:
    """Those that the user's own runs left beside the sources."""
    import py_compile

    project = InterpretedSpace(tmp_path / "project", runner, ("python", "tools/gen.py"))
    project.helper("one")
    py_compile.compile(str(project.root / "tools/helper.py"))
    project.helper("two")
    assert project.build() == "two"


def test_copies_of_what_is_installed_are_kept(tmp_path: Path, runner: SystemProcessRunner) -> None:
    """Else each action would compile half of the standard library."""
    project = InterpretedSpace(tmp_path / "project", runner, ("python", "tools/gen.py"))
    project.helper("one")
    project.build()
    kept = {path.name.partition(".")[0] for path in (project.root / ".deploy" / KEPT).rglob("*.pyc")}
    assert "argparse" in kept and "helper" not in kept


def test_only_a_python_that_ignores_variables_is_told_by_an_option() -> None:
    place = Fresh("/x")
    told = ("-X", "pycache_prefix=/x")
    assert place.words(("/usr/bin/python3.11", "-I", "a.py")) == ("/usr/bin/python3.11", *told, "-I", "a.py")
    for words in (("python3", "a.py", "-I"), ("python3", "-c", "-I"), ("python3", "-X", "-I", "a.py"), ("perl", "-I")):
        assert place.words(words) == words
