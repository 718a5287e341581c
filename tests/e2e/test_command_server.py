"""A build of many units, whose compiles a program of ours starts: the same as without it."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from pipeline.effects.clock import SystemClock
from pipeline.effects.process import SystemProcessRunner
from pipeline.fastpath import native_build
from pipeline.fastpath.native_loop import WORTH_FILES
from pipeline.measure.bench.engine import GeneratedBench
from pipeline.run.engines import Starter

UNITS = 60
BUILD = (sys.executable, "-m", "doit", "compile", "link")


def products(root: Path) -> dict[str, bytes]:
    build = root / "build"
    return {str(path.relative_to(build)): path.read_bytes() for path in build.rglob("*") if path.is_file()}


def test_a_build_is_the_same_whoever_starts_its_compiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    runner = SystemProcessRunner(SystemClock())
    assert native_build.ready(runner) is not None
    runner.close()
    program = native_build.there()
    assert program is not None
    real, told = Path(program).with_name("real"), tmp_path / "told"
    Path(program).rename(real)
    Path(program).write_text(f'#!/bin/sh\necho "$@" >> {told}\nexec {real} "$@"\n')
    Path(program).chmod(0o500)
    made = {}
    for native in ("1", "0"):
        monkeypatch.setenv("HOTPLATE_NATIVE", native)
        (tmp_path / native).mkdir()
        project = GeneratedBench(tmp_path / native, UNITS, real=False)
        project.run(*BUILD)
        made[native] = products(project.root)
    assert made["1"] == made["0"] and len(made["1"]) > UNITS
    assert told.read_text() == "commands\n", "once, for the one build that has many"


def test_the_program_is_made_meanwhile_where_it_will_be_of_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, and not for a build of few."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    runner = SystemProcessRunner(SystemClock())
    before = set(threading.enumerate())
    assert Starter(runner, WORTH_FILES - 1)() is None
    assert set(threading.enumerate()) == before
    starter = Starter(runner, WORTH_FILES)
    assert starter() is None
    making = set(threading.enumerate()) - before
    assert starter() is None and len(making) == 1
    for thread in making:
        thread.join(300)
    assert starter() == native_build.there() is not None
    runner.close()
