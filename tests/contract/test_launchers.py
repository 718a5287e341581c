"""Compilers called through a launcher: the same objects under the same keys, or the launcher in the key."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config.reader import parse_config
from pipeline.effects.clock import SystemClock
from pipeline.effects.process import SystemProcessRunner
from pipeline.engine.results import FailureKind
from pipeline.errors import ToolError
from pipeline.model import Failure, FailureCategory, Stage
from pipeline.toolchain import gcc
from pipeline.toolchain.action_failures import action_failure
from pipeline.toolchain.launchers import Launcher, NoLauncher, find_launcher, preprocessed
from tests import firmware_build as fb
from tests.contract.small_project import CONFIG, Small

needs_gcc = pytest.mark.skipif(shutil.which(gcc.DRIVER) is None, reason=fb.GCC_MISSING)
needs_ccache = pytest.mark.skipif(
    shutil.which("ccache") is None, reason="ccache is not installed (apt-get install ccache)"
)


@pytest.fixture
def runner() -> Iterator[SystemProcessRunner]:
    found = SystemProcessRunner(SystemClock())
    yield found
    found.close()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ccache's, of this test alone."""
    for name, value in {"CCACHE_DIR": tmp_path / "ccache", "CCACHE_STATSLOG": tmp_path / "stats"}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("CCACHE_PREFIX", raising=False)
    return tmp_path / "stats"


def hits(store: Path) -> tuple[int, int]:
    """Of ccache: found, and compiled."""
    lines = store.read_text().splitlines() if store.exists() else []
    return sum(line.endswith("_cache_hit") for line in lines), lines.count("cache_miss")


def objects(project: Small) -> dict[str, bytes]:
    base = project.root / "build"
    return {str(path.relative_to(base)): path.read_bytes() for path in sorted(base.rglob("*.o"))}


@needs_gcc
@needs_ccache
def test_ccache_changes_neither_objects_nor_keys(tmp_path: Path, runner: SystemProcessRunner, store: Path) -> None:
    plain = Small(tmp_path / "plain", runner, "gcc")
    compiled = {name for name in plain.build() if name.startswith("compile ")}
    assert compiled and hits(store) == (0, 0)
    plain.toolchain = 'launcher = ["ccache"]'
    assert plain.build() == set(), "the same keys: nothing to do"

    behind = Small(tmp_path / "behind", runner, "gcc", 'launcher = ["ccache"]')
    assert {name for name in behind.build() if name.startswith("compile ")} == compiled
    assert hits(store)[0] == 0 and hits(store)[1] > 0, "it was called"
    assert objects(behind) == objects(plain) and behind.elf() == plain.elf()

    second = Small(tmp_path / "second", runner, "gcc", 'launcher = ["ccache"]')
    second.build()
    c_files = sum(name.endswith(".c") for name in (one.removesuffix(" for bootloader") for one in compiled))
    assert c_files and hits(store) == (c_files, 2 * len(compiled) - c_files), "another checkout compiles assembly alone"
    assert objects(second) == objects(plain)


@pytest.mark.needs_zig
@needs_ccache
def test_ccache_knows_zig(tmp_path: Path, runner: SystemProcessRunner, store: Path) -> None:
    pytest.importorskip("ziglang")
    plain = Small(tmp_path / "plain", runner, "zig")
    plain.build()
    first = Small(tmp_path / "first", runner, "zig", 'launcher = ["ccache"]')
    first.build()
    missed = hits(store)[1]
    assert missed > 0 and objects(first) == objects(plain)
    second = Small(tmp_path / "second", runner, "zig", 'launcher = ["ccache"]')
    second.build()
    assert hits(store)[0] == missed and objects(second) == objects(plain)


def wrapper(place: Path, text: str) -> Path:
    place.write_text(f"#!/bin/sh\n{text}\n")
    place.chmod(place.stat().st_mode | stat.S_IXUSR)
    return place


@needs_gcc
def test_another_launcher_is_in_the_key_of_compiles_alone(tmp_path: Path, runner: SystemProcessRunner) -> None:
    project = Small(tmp_path / "project", runner, "gcc")
    compiled = {name for name in project.build() if name.startswith("compile ")}
    program = wrapper(project.root / "wrap", 'exec "$@"')
    project.toolchain = 'launcher = ["./wrap"]'
    assert project.build() == compiled, "and what they made is equal: nothing is linked"
    assert project.build() == set()
    wrapper(program, 'shift 0; exec "$@"')
    assert project.build() == compiled, "another program"
    project.toolchain = ""
    assert project.build() == set(), "as before: from the store"


@needs_gcc
def test_a_launcher_that_fails_is_named(tmp_path: Path, runner: SystemProcessRunner) -> None:
    project = Small(tmp_path / "project", runner, "gcc", 'launcher = ["./ccache"]')
    wrapper(project.root / "ccache", 'echo "ccache: error: no space in the store" >&2; exit 1')
    failures = project.results()[0].failures
    assert failures[0].kind is FailureKind.LAUNCHER
    failure = action_failure(Stage.COMPILE, FailureCategory.COMPILE_ERROR, failures, ())
    assert failure.category is FailureCategory.ACTION_FAILED
    assert failure.message == "the launcher failed, not the compiler: ccache: error: no space in the store"
    assert failure.hint == "run the command shown above by hand, or remove `launcher` from [toolchain]"
    project.write("app/main.c", "int broken(void) { return }\n")
    wrapper(project.root / "ccache", 'exec "$@"')
    assert project.results()[0].failures[0].kind is FailureKind.EXIT, "the compiler's own words"


@needs_gcc
def test_a_launcher_that_is_not_there(tmp_path: Path, runner: SystemProcessRunner) -> None:
    for word, fact in {"no-such-launcher": "is not on the PATH", "./wrap": "is not there"}.items():
        project = Small(tmp_path / "project", runner, "gcc", f'launcher = ["{word}"]')
        with pytest.raises(ToolError) as caught:
            project.tools()
        failure = caught.value.failure
        assert failure.category is FailureCategory.TOOLCHAIN_MISSING
        assert failure.message == f"the launcher '{word}' {fact}" and failure.where.startswith("deploy.toml:")


def test_only_what_compiles_has_a_launcher() -> None:
    text = CONFIG.format(kind="cmake", sources='["a.c"]', toolchain='launcher = ["ccache"]', more="")
    found = parse_config(text)
    assert isinstance(found, Failure) and "'toolchain.launcher' is for toolchains that compile" in str(found)
    empty = parse_config(CONFIG.format(kind="gcc", sources='["a.c"]', toolchain='launcher = [""]', more=""))
    assert isinstance(empty, Failure) and "toolchain.launcher" in str(empty)


@pytest.mark.parametrize(
    ("name", "environment", "settings", "in_the_key"),
    [
        ("ccache", {}, "max_size = 5G\n# prefix_command = distcc", False),
        ("ccache", {}, "prefix_command = distcc", True),
        ("ccache", {}, "run_second_cpp = false", True),
        ("ccache", {"CCACHE_PREFIX": "icecc"}, "", True),
        ("ccache", {"CCACHE_NOCPP2": "1"}, "", True),
        ("sccache", {}, '[cache.disk]\ndir = "/x"', False),
        ("sccache", {}, '[dist]\nscheduler_url = "http://lab:10600"', True),
        ("sccache", {}, "[dist", False),
    ],
)
def test_what_compiles_preprocessed_text_is_in_the_key(
    tmp_path: Path, name: str, environment: dict[str, str], settings: str, in_the_key: bool
) -> None:
    """sccache-dist was tried on loopback: the objects differ in the columns of debug lines."""
    file = tmp_path / "settings"
    file.write_text(settings)
    assert bool(preprocessed(name, environment, [str(file), str(tmp_path / "none")])) == in_the_key


def test_how_a_launcher_is_found(tmp_path: Path) -> None:
    early, late = tmp_path / "early", tmp_path / "late"
    for directory in (early, late):
        directory.mkdir()
    wrapper(late / "ccache", "exit 0")
    search = f"{early}:{late}"
    found = find_launcher(["ccache"], tmp_path, search, tmp_path)
    assert isinstance(found, Launcher) and (found.words, found.identity) == ((str(late / "ccache"),), "")
    assert found.watched.absent == (f"{early}/ccache",)
    (tmp_path / "wrap.py").write_text("one")
    wrapper(late / "python", "exit 0")
    script = find_launcher(["python", "wrap.py"], tmp_path, search, tmp_path)
    assert isinstance(script, Launcher) and script.identity.startswith("python wrap.py sha256:")
    assert script.identity.count("sha256:") == 2, "the script too"
    assert isinstance(find_launcher(["icecc"], tmp_path, search, tmp_path), NoLauncher)
