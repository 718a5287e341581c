"""Outputs of ninja's statements that are gone come back without a run, byte for byte, and ninja has nothing to do then;
what a run would say or find out, a run does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cache.stamps import next_tick
from tests.e2e.space import ROOT
from tests.unit.ninja_space import NINJA

CC = shutil.which("cc") or ""
pytestmark = [
    pytest.mark.skipif(not CC, reason="no C compiler of this machine's own is installed"),
    pytest.mark.skipif(not NINJA, reason="ninja is not installed"),
]

RESTORED = "-- fingerprint\n.  compile\n.  link\n"
NOTHING = "-- fingerprint\n-- compile\n-- link\n"
DEPLOY = """
[project]
name = "gone"
[toolchain]
kind = "ninja"
[ninja]
directory = "out"
[cache]
dir = "{cache}"
"""
MANIFEST = """
rule cc
  command = {cc} -I. -I{root}/inc -MD -MF $out.d -MT $out -o $out -c $in
  depfile = $out.d
  deps = gcc
rule kept
  command = {cc} -I. -I{root}/inc -MD -MF $out.d -MT $out -o $out -c $in
  depfile = $out.d
rule ar
  command = rm -f $out && ar qc $out $in && ranlib $out
rule ld
  command = {cc} $in -o $out
build main.o: cc {root}/main.c
build deep/util.o: kept {root}/util.c
build libutil.a: ar deep/util.o
build app: ld main.o libutil.a
default app
"""
GENERATED = """
rule configure
  command = cp {root}/template.ninja build.ninja
  generator = 1
build build.ninja: configure {root}/template.ninja {root}/options.txt
"""
CUSTOM = """
rule copy
  command = cp $in $out
build copied: copy {root}/options.txt
default copied
"""
ANOTHER = """
build another.o: cc {root}/util.c
default another.o
"""
NEEDS_MANIFEST = """
build another.o: cc {root}/util.c | build.ninja
default another.o
"""


class Statements:
    """A project that is up to date."""

    def __init__(self, directory: Path, more: str = "", *, searched: bool = True) -> None:
        """`searched`: headers are looked for in the build directory."""
        self.root, self.out = directory / "project", directory / "project/out"
        self.out.mkdir(parents=True)
        places = {"root": self.root, "cc": CC}
        self.manifest = f"{MANIFEST}{more}".format(**places)
        if not searched:
            self.manifest = self.manifest.replace("-I. ", "")
        for name, text in {
            "deploy.toml": DEPLOY.format(cache=directory / "cache"),
            "dodo.py": "from pipeline.tasks import *\n",
            "inc/util.h": "int util(void);\n",
            "main.c": '#include "util.h"\nint main(void) { return util(); }\n',
            # Its object belongs to this directory.
            "util.c": '#include "util.h"\nconst char *file(void) { return __FILE__; }\nint util(void) { return 0; }\n',
            "options.txt": "1\n",
            "template.ninja": self.manifest,
            "out/build.ninja": self.manifest,
        }.items():
            self.write(name, text)
        self.env = {**os.environ, "PYTHONPATH": str(ROOT), "HOTPLATE_SERVICE": "0"}
        for _ in range(5):
            if self.hotplate() == NOTHING and self.is_answered_early():
                return
        raise AssertionError("the fast path never answered")

    def write(self, name: str, text: str) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text)

    def hotplate(self) -> str:
        next_tick()
        code = "import sys; sys.argv[0] = 'hotplate'; from pipeline.fastpath import main; sys.exit(main())"
        argv = [sys.executable, "-c", code, "compile", "link"]
        done = subprocess.run(argv, check=False, cwd=self.root, env=self.env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def is_answered_early(self) -> bool:
        runs = self.runs
        self.hotplate()
        return self.runs == runs

    @property
    def runs(self) -> int:
        """How many runs there were."""
        return len(list((self.root / ".deploy/runs").iterdir()))

    def products(self) -> dict[str, tuple[bytes, int]]:
        """Of the build directory, but for what ninja and compilers note of their own."""
        paths = (path for path in self.out.rglob("*") if path.is_file() and path.name[:6] != ".ninja")
        return {
            str(path.relative_to(self.out)): (path.read_bytes(), path.stat().st_mode)
            for path in paths
            if path.suffix != ".d"
        }

    def left_for_ninja(self) -> str:
        argv = [NINJA, "-C", str(self.out), "-n", "-d", "explain"]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        return "" if "no work to do" in done.stdout else done.stdout + done.stderr

    def is_put_back(
        self, change: Callable[[Statements], object], wanted: dict[str, tuple[bytes, int]] | None = None
    ) -> bool:
        """What is there after `change` and a run is `wanted`, else what was there before: was that without a run?"""
        before, runs = wanted or self.products(), self.runs
        change(self)
        assert self.hotplate().replace("--", ". ") == RESTORED.replace("--", ". ")
        without = self.runs == runs
        assert self.products() == before
        assert self.left_for_ninja() == ""
        self.hotplate()
        assert not without or self.runs == runs, "the state of the fast path is gone"
        return without


def _gone(space: Statements, *names: str) -> None:
    for name in names or ("main.o", "deep/util.o", "libutil.a", "app"):
        (space.out / name).unlink()


def _configured_anew(space: Statements) -> None:
    shutil.rmtree(space.out)
    space.out.mkdir()
    next_tick()
    space.write("out/build.ninja", space.manifest)


@pytest.mark.parametrize("more", ["", GENERATED])
@pytest.mark.parametrize("change", [_gone, _configured_anew])
def test_what_is_gone_comes_back_without_a_run(
    tmp_path: Path, more: str, change: Callable[[Statements], object]
) -> None:
    space = Statements(tmp_path, more)
    for _ in range(2):
        assert space.is_put_back(change)


def test_a_file_that_was_written_anew_with_what_it_held(tmp_path: Path) -> None:
    space = Statements(tmp_path)

    def change(space: Statements) -> None:
        _gone(space)
        space.write("inc/util.h", (space.root / "inc/util.h").read_text())

    assert space.is_put_back(change)


def test_a_header_that_would_be_found_first_came_to_the_build_directory(tmp_path: Path) -> None:
    space = Statements(tmp_path)
    text = (space.root / "inc/util.h").read_text()

    def change(space: Statements) -> None:
        _configured_anew(space)
        space.write("out/util.h", text)

    wanted = {**space.products(), "util.h": (text.encode(), 0o100644)}
    assert not space.is_put_back(change, wanted)


def test_the_users_of_what_is_gone_are_there(tmp_path: Path) -> None:
    assert not Statements(tmp_path).is_put_back(lambda space: _gone(space, "deep/util.o"))


def test_a_file_that_is_used_by_what_is_there_was_written_anew(tmp_path: Path) -> None:
    space = Statements(tmp_path)

    def change(space: Statements) -> None:
        _gone(space, "deep/util.o", "libutil.a", "app")
        space.write("inc/util.h", (space.root / "inc/util.h").read_text())

    assert not space.is_put_back(change)


def test_ninja_would_make_the_manifest_again(tmp_path: Path) -> None:
    space = Statements(tmp_path, GENERATED)

    def change(space: Statements) -> None:
        _configured_anew(space)
        next_tick()
        space.write("options.txt", (space.root / "options.txt").read_text())

    assert not space.is_put_back(change)


@pytest.mark.parametrize(
    "names", [("app", ".ninja_log"), ("main.o", "app", ".ninja_deps"), ("main.o", "app", ".ninja_log", ".ninja_deps")]
)
def test_a_log_is_lost_that_speaks_of_what_is_there(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert not Statements(tmp_path, ANOTHER).is_put_back(lambda space: _gone(space, *names))


def test_logs_without_a_line_about_what_is_there(tmp_path: Path) -> None:
    space = Statements(tmp_path, ANOTHER)

    def change(space: Statements) -> None:
        _gone(space, "main.o", "app")
        (space.out / ".ninja_log").write_bytes((space.out / ".ninja_log").read_bytes().partition(b"\n")[0] + b"\n")
        (space.out / ".ninja_deps").write_bytes(b"")

    assert not space.is_put_back(change)


def test_logs_are_lost_with_all_that_they_speak_of(tmp_path: Path) -> None:
    everything = ("main.o", "deep/util.o", "libutil.a", "app", ".ninja_log", ".ninja_deps")
    assert Statements(tmp_path).is_put_back(lambda space: _gone(space, *everything))


def _lost(*names: str) -> Callable[[Statements], None]:
    return lambda space: _gone(space, *names)


def _emptied(space: Statements) -> None:
    (space.out / ".ninja_log").write_bytes((space.out / ".ninja_log").read_bytes().partition(b"\n")[0] + b"\n")


def _lost_and_edited(space: Statements) -> None:
    _gone(space, ".ninja_log")
    space.write("main.c", (space.root / "main.c").read_text() + "/* edited */\n")


@pytest.mark.parametrize("program", ["hotplate", "doit"])
@pytest.mark.parametrize(
    "change",
    [_lost(".ninja_log"), _lost(".ninja_deps"), _lost(".ninja_log", ".ninja_deps"), _emptied, _lost_and_edited],
)
def test_a_log_is_lost_and_nothing_tells(tmp_path: Path, change: Callable[[Statements], object], program: str) -> None:
    """No file of a statement moved, and nothing looks for headers in the build directory."""
    space = Statements(tmp_path, searched=False)
    change(space)
    assert space.left_for_ninja() != "", "ninja runs everything then"
    products = space.products()
    if program == "doit":
        argv = [sys.executable, "-m", "doit", "compile", "link"]
        subprocess.run(argv, cwd=space.root, env=space.env, capture_output=True, check=True)
    else:
        space.hotplate()
    assert space.left_for_ninja() == ""
    if change is not _lost_and_edited:
        assert space.products() == products
    for _ in range(3):
        space.hotplate()
    assert space.is_answered_early()


@pytest.mark.parametrize("names", [(), ("another.o",), ("app",), ("main.o", "another.o", "app")])
def test_a_manifest_that_a_statement_needs_was_written_anew(tmp_path: Path, names: tuple[str, ...]) -> None:
    def change(space: Statements) -> None:
        next_tick()
        if names:
            _gone(space, *names)
        space.write("out/build.ninja", space.manifest)

    assert not Statements(tmp_path, NEEDS_MANIFEST).is_put_back(change)


def test_a_manifest_that_a_statement_needs_is_configured_anew(tmp_path: Path) -> None:
    assert not Statements(tmp_path, NEEDS_MANIFEST).is_put_back(_configured_anew)


def test_a_command_of_which_nobody_knows_what_it_reads(tmp_path: Path) -> None:
    assert not Statements(tmp_path, CUSTOM).is_put_back(_configured_anew)


def test_another_manifest_and_another_source(tmp_path: Path) -> None:
    space = Statements(tmp_path)
    runs = space.runs
    _gone(space)
    space.write("main.c", '#include "util.h"\nint main(void) { return util() + 3; }\n')
    space.hotplate()
    assert (space.runs, subprocess.run([space.out / "app"], check=False).returncode) == (runs + 1, 3)
    _configured_anew(space)
    space.write("out/build.ninja", space.manifest.replace(f"{CC} $in", f"{CC} -Wl,-s $in"))
    space.hotplate()
    assert space.runs == runs + 2
    assert b".symtab" not in (space.out / "app").read_bytes()


def test_a_damaged_blob_is_made_again(tmp_path: Path) -> None:
    space = Statements(tmp_path)

    def change(space: Statements) -> None:
        wanted = (space.out / "app").read_bytes()
        _gone(space)
        for path in (tmp_path / "cache").rglob("*"):
            if path.is_file() and path.read_bytes() == wanted:
                path.chmod(0o644)
                path.write_bytes(b"x" * len(wanted))

    assert not space.is_put_back(change)
