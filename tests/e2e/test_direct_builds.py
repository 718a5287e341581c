"""A build without doit against doit's own, in twin projects with a fake compiler: the same words, exit codes, logs.

One twin's `dodo.py` has a statement more, which does nothing, so that doit runs it (as in `test_direct.py`).
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cache.stamps import next_tick
from tests.e2e.test_direct import LOADED, PROGRAMS, plain, without_times
from tests.e2e.test_fastpath import FastPathProject

UNIT = "src/d000/u00001.c"
HOLDS = 'hold="$(dirname "$0")/hold"; if [ -e "$hold" ]; then echo > "$(cat "$hold")"; sleep 60; fi\n'
REFUSES = 'if grep -q "#error" "$source" 2>/dev/null; then echo "$source:1:2: error: #error no" >&2; exit 1; fi\n'


class BuiltTwin:
    """One of the two projects."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.project = FastPathProject(directory)
        self.root = self.project.root
        zig = self.project.zig
        zig.write_text(zig.read_text().replace("if [ -z", f"{REFUSES}{HOLDS}if [ -z", 1))
        self.loaded = directory / "loaded"
        self.env = {**self.project.env, "LOADED": str(self.loaded), "HOTPLATE_SERVICE": "0", "COLUMNS": "80"}

    def run(self, program: str, *argv: str, **env: str) -> tuple[int, list[str], list[str], list[Any]]:
        """The exit code, both streams, and what the event log of the run holds."""
        next_tick()
        self.loaded.unlink(missing_ok=True)
        code = f"{LOADED}; {PROGRAMS[program]}"
        done = subprocess.run(
            [sys.executable, "-c", code, *argv],
            check=False,
            cwd=self.root,
            env={**self.env, **env},
            capture_output=True,
            text=True,
        )
        assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
        return done.returncode, done.stdout.splitlines(), plain(done.stderr), self._log()

    def _log(self) -> list[Any]:
        found = []
        for path in (self.root / ".deploy/runs").glob("*.log"):
            lines = [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]
            found.append([without_run(without_times(line)) for line in lines])
            path.unlink()
        return found

    @property
    def without_doit(self) -> bool:
        return self.loaded.read_text() == "False"

    def settle(self) -> None:
        """Until the fast path answers, which ends the process before it could say what was loaded."""
        for _ in range(5):
            assert self.run("doit", "compile", "link")[0] == 0
            if self.run("hotplate", "compile", "link")[0] == 0 and not self.loaded.exists():
                return
        raise AssertionError("the fast path never answered")


def without_run(value: Any) -> Any:
    """Without what two runs do not share: ids, keys of places, and the order in which the clock ticked."""
    if isinstance(value, dict):
        own = ("run", "git_sha", "git_dirty", "instant", "worker", "when", "tx")
        return {key: without_run(item) for key, item in value.items() if key not in own}
    if isinstance(value, list):
        return [without_run(item) for item in value]
    return 0 if isinstance(value, float) else value


class BuiltTwins:
    """`plain` has nothing but our tasks; `other` has a statement more."""

    def __init__(self, directory: Path) -> None:
        self.plain = BuiltTwin(directory / "plain")
        self.other = BuiltTwin(directory / "other")
        dodo = self.other.root / "dodo.py"
        dodo.write_text(f"{dodo.read_text()}\npass\n")
        for twin in self.both:
            twin.settle()

    @property
    def both(self) -> tuple[BuiltTwin, BuiltTwin]:
        return self.plain, self.other

    def edit(self, change: Callable[[Path], Any]) -> None:
        for twin in self.both:
            change(twin.root)

    def compare(self, *argv: str, program: str = "hotplate", direct: bool = True, **env: str) -> int:
        """Run it in both; the exit code. `direct`: is it expected without doit in the plain one?"""
        ours, theirs = self.plain.run(program, *argv, **env), self.other.run("doit", *argv, **env)
        assert not self.other.without_doit
        if program == "hotplate":
            assert self.plain.without_doit == direct
        assert ours == theirs
        for name in ("build", ".deploy/fastpath.v1"):
            names = [sorted(p.relative_to(t.root) for p in (t.root / name).rglob("*")) for t in self.both]
            assert names[0] == names[1]
        return ours[0]


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> BuiltTwins:
    return BuiltTwins(tmp_path_factory.mktemp("twins"))


@pytest.fixture(autouse=True)
def settled(twins: BuiltTwins) -> None:
    for twin in twins.both:
        twin.settle()


def append(text: str, name: str = UNIT) -> Callable[[Path], Any]:
    return lambda root: (root / name).write_text((root / name).read_text() + text)


@pytest.mark.parametrize(
    "argv",
    [
        ("compile", "link"),
        ("link",),
        ("fingerprint",),
        ("compile",),
        ("link", "compile"),
        ("compile", "--profile", "local-fast", "link", "--profile=local-fast"),
    ],
    ids=" ".join,
)
def test_an_edit_is_built_the_same_without_doit(twins: BuiltTwins, argv: tuple[str, ...]) -> None:
    twins.edit(append(f"int made_by_{len(argv)}_{len(argv[0])};\n"))
    assert twins.compare(*argv) == 0


def test_doit_itself_leaves_its_list_of_tasks_out(twins: BuiltTwins) -> None:
    twins.edit(append("int made;\n"))
    assert twins.compare("compile", "link", program="doit") == 0


def test_an_edit_that_does_not_compile_and_is_undone(twins: BuiltTwins) -> None:
    before = (twins.plain.root / UNIT).read_text()
    twins.edit(append("#error\n"))
    assert twins.compare("compile", "link") == 1
    twins.edit(lambda root: (root / UNIT).write_text(before))
    # A run that failed leaves no state.
    assert twins.compare("compile", "link") == 0


@pytest.mark.parametrize(("toml", "code"), [("", 0), ("[toolchian]\n", 2)])
def test_a_first_run(twins: BuiltTwins, toml: str, code: int) -> None:
    before = (twins.plain.root / "deploy.toml").read_text()

    def as_new(root: Path) -> None:
        shutil.rmtree(root / ".deploy")
        shutil.rmtree(root / "build")
        if toml:
            append(f"\n{toml}", "deploy.toml")(root)

    twins.edit(as_new)
    assert twins.compare("compile", "link") == code
    twins.edit(lambda root: (root / "deploy.toml").write_text(before))


def test_a_source_that_comes_and_goes(twins: BuiltTwins) -> None:
    twins.edit(lambda root: (root / UNIT).with_name("new.c").write_text("int made;\n"))
    assert twins.compare("compile", "link") == 0
    for twin in twins.both:
        twin.settle()
    twins.edit(lambda root: (root / UNIT).with_name("new.c").unlink())
    assert twins.compare("compile", "link") == 0


def test_an_object_that_is_gone(twins: BuiltTwins) -> None:
    """Beside an edit; where nothing else moved, no run puts it back (`test_put_back.py`)."""

    def take(root: Path) -> None:
        (root / f"build/local-fast/obj/app/{UNIT}.o").unlink()
        path = (root / UNIT).with_name("u00002.c")
        path.write_text(path.read_text() + "int beside;\n")

    twins.edit(take)
    assert twins.compare("compile", "link") == 0


def test_a_source_that_is_saved_by_renaming(twins: BuiltTwins) -> None:
    def save(root: Path) -> None:
        path = root / UNIT
        (root / "saved").write_text(path.read_text() + "int renamed;\n")
        (root / "saved").replace(path)

    twins.edit(save)
    assert twins.compare("compile", "link") == 0


@pytest.mark.parametrize("name", ["deploy.toml", "dodo.py"])
def test_what_may_concern_doit_goes_to_doit(twins: BuiltTwins, name: str) -> None:
    twins.edit(append("\n# saved\n", name))
    assert twins.compare("compile", "link", direct=False) == 0


def test_variables_and_options_of_doit_go_to_doit(twins: BuiltTwins) -> None:
    twins.edit(append("int for_doit;\n"))
    assert twins.compare("compile", "link", direct=False, DOIT_FILE="dodo.py") == 0
    twins.edit(append("int for_doit_too;\n"))
    assert twins.compare("compile", "link", "-n", "1", direct=False) == 3


def test_bad_options_are_the_same(twins: BuiltTwins) -> None:
    twins.edit(append("int never_built;\n"))
    assert twins.compare("compile", "--profile", direct=False) == 3


def test_an_interrupt_while_it_compiles_ends_both_alike(twins: BuiltTwins) -> None:
    ended = []
    for twin, program in ((twins.plain, "hotplate"), (twins.other, "doit")):
        waits = twin.root / "waits"
        waits.unlink(missing_ok=True)
        os.mkfifo(waits)
        append("int slow;\n")(twin.root)
        zig_waits = twin.project.tools / "ziglang/hold"
        zig_waits.write_text(str(waits))
        next_tick()
        child = subprocess.Popen(
            [sys.executable, "-c", f"{LOADED}; {PROGRAMS[program]}", "compile", "link"],
            cwd=twin.root,
            env=twin.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with waits.open("r+b", buffering=0) as began:  # which does not wait for a compiler that never comes
            assert select.select([began], [], [], 300)[0]
        os.kill(child.pid, signal.SIGINT)
        out, err = child.communicate(timeout=300)
        zig_waits.unlink()
        waits.unlink()
        ended.append((child.returncode, out, plain(err), twin._log()))
    assert ended[0] == ended[1]
    assert ended[0][0] == 130
