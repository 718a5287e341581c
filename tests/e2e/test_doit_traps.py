"""Each known trap of doit 0.37, sprung by plain doit and closed in ours, with the same shell command.

`Plain` declares it as a doit task with `file_dep` and `targets`, `Ours` as an `[[action]]` of a small project. The
command logs each start in `ran`; named pipes stop it where a test wants to act, so that nothing depends on time.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.space import environment
from tests.e2e.test_fastpath import FastPathProject
from tests.forked import Python

TIMEOUT_S = 300
SCRIPT = """
out=$1; shift
echo "$(basename "$out")" >> ran
text=$(cat "$@")
printf 'half' > "$out"
if [ -p "stop-$(basename "$out")" ]; then
    echo $$ > "stop-$(basename "$out")"
    read -r go < "go-$(basename "$out")"
fi
echo "$text" > "$out"
"""
DODO = """
def task_first():
    return {
        "actions": ["sh asset.sh build/first.bin first.txt"],
        "file_dep": ["first.txt"],
        "targets": ["build/first.bin"],
    }

def task_second():
    return {
        "actions": ["sh asset.sh build/second.bin second.txt build/first.bin"],
        "file_dep": ["second.txt", "build/first.bin"],
        "targets": ["build/second.bin"],
    }
"""
ACTIONS = """
[[action]]
name = "first"
argv = ["sh", "asset.sh", "{out}", "{in}"]
inputs = ["first.txt"]
outputs = ["build/first.bin"]

[[action]]
name = "second"
argv = ["sh", "asset.sh", "{out}", "{in}"]
inputs = ["second.txt", "build/first.bin"]
outputs = ["build/second.bin"]
"""


class Plain:
    """doit as it is."""

    tasks: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "build").mkdir(parents=True, exist_ok=True)
        self.file("asset.sh").write_text(SCRIPT)
        self.file("dodo.py").write_text(DODO)
        for name in ("first", "second"):
            self.file(f"{name}.txt").write_text(f"{name} 1\n")

    def file(self, name: str) -> Path:
        return self.path / name

    def environment(self) -> dict[str, str]:
        return environment(PYTHONPATH="")

    def start(self, *tasks: str) -> subprocess.Popen[str]:
        return Python(
            ["-m", "doit", *(tasks or self.tasks)],
            cwd=self.path,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *tasks: str) -> str:
        """Run to the end; what it said. Only for runs that must succeed."""
        with self.start(*tasks) as child:
            out, _ = child.communicate(timeout=TIMEOUT_S)
        assert child.returncode == 0, out
        return out

    def ran(self) -> list[str]:
        """The outputs that the command was started for since the last call."""
        log = self.file("ran")
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return sorted(lines)

    def stop_in(self, name: str) -> subprocess.Popen[str]:
        """Start a run, and return when the command for `name` has read its inputs and written a half output."""
        for kind in ("stop", "go"):
            os.mkfifo(self.file(f"{kind}-{name}"))
        child = self.start()
        if not reaches(child, self.file(f"stop-{name}")):
            raise AssertionError(f"{name} was not made: {child.communicate()[0]}")
        return child

    def go_on(self, name: str, child: subprocess.Popen[str]) -> str:
        # Ours runs an action again, in the same run, whose input was edited meanwhile: that one is not to stop.
        self.file(f"stop-{name}").unlink()
        self.file(f"go-{name}").write_text("\n")
        out, _ = child.communicate(timeout=TIMEOUT_S)
        self.open_gates()
        return out

    def kill(self, child: subprocess.Popen[str]) -> None:
        """`kill -9` of doit and, as the terminal's end would, of its commands."""
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate(timeout=TIMEOUT_S)
        self.open_gates()

    def open_gates(self) -> None:
        for path in (*self.path.glob("stop-*"), *self.path.glob("go-*")):
            path.unlink()


class Ours(Plain):
    """The same commands as actions."""

    tasks = ("compile", "link")

    def __init__(self, path: Path) -> None:
        self._project = FastPathProject(path)
        dodo = (self._project.root / "dodo.py").read_text()
        super().__init__(self._project.root)
        self.file("dodo.py").write_text(dodo)
        with self.file("deploy.toml").open("a") as config:
            config.write(ACTIONS)

    def environment(self) -> dict[str, str]:
        own = {"XDG_CACHE_HOME": str(self.path / "cache"), "PYTHONPATH": self._project.env["PYTHONPATH"]}
        return {**environment(), **own}


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plain, Ours]:
    """Built once; each test starts with both clean and up to date."""
    base = tmp_path_factory.mktemp("traps")
    plain, ours = Plain(base / "plain"), Ours(base / "ours")
    for one in (plain, ours):
        one.run()
        assert one.ran() == ["first.bin", "second.bin"]
        assert one.file("build/second.bin").read_text() == "second 1\nfirst 1\n"
    return plain, ours


@pytest.fixture
def both(projects: tuple[Plain, Ours], request: pytest.FixtureRequest) -> Iterator[tuple[Plain, Ours]]:
    yield projects
    for one in projects:
        one.open_gates()
        one.file("first.txt").write_text("first 1\n")
        one.file("second.txt").write_text(f"second {request.node.name}\n")
        if not isinstance(one, Ours):
            # It would believe what lies there.
            for path in one.file("build").glob("*.bin"):
                path.unlink()
        one.run()
        one.ran()


def test_input_edited_during_the_action(both: tuple[Plain, Ours]) -> None:
    for one in both:
        one.file("first.txt").write_text("first 2\n")
        child = one.stop_in("first.bin")
        one.file("first.txt").write_text("first 3\n")
        one.go_on("first.bin", child)
        one.ran()
    plain, ours = both
    plain.run()
    assert plain.ran() == [] and plain.file("build/first.bin").read_text() == "first 2\n", (
        "the trap: built from the past"
    )
    assert ours.file("build/first.bin").read_text() == "first 3\n", "looked again before the end of the same run"
    ours.run()
    assert ours.ran() == [] and "first 3" in ours.file("build/second.bin").read_text()


def test_corrupted_target(both: tuple[Plain, Ours]) -> None:
    plain, ours = both
    good = ours.file("build/second.bin").read_text()
    for one in both:
        one.file("build/second.bin").write_text("garbage\n")
        one.run()
        assert one.ran() == []
    assert plain.file("build/second.bin").read_text() == "garbage\n", "the trap: only existence is looked at"
    assert ours.file("build/second.bin").read_text() == good


def test_same_mtime_edit(both: tuple[Plain, Ours]) -> None:
    for one in both:
        path = one.file("second.txt")
        status = path.stat()
        path.write_text("of another size too\n")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        one.run()
    plain, ours = both
    assert plain.ran() == [], "the trap: an equal mtime is believed"
    assert ours.ran() == ["second.bin"] and ours.file("build/second.bin").read_text().startswith(
        "of another size too\n"
    )


def test_kill_loses_nothing_that_had_succeeded(both: tuple[Plain, Ours]) -> None:
    for one in both:
        one.file("first.txt").write_text("first 4\n")
        child = one.stop_in("second.bin")
        one.kill(child)
        assert one.ran() == ["first.bin", "second.bin"]
        one.run()
        assert one.file("build/second.bin").read_text().endswith("first 4\n")
    plain, ours = both
    assert plain.ran() == ["first.bin", "second.bin"], "the trap: the finished first task runs again"
    assert ours.ran() == ["second.bin"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_false_clean_after_an_interrupt(both: tuple[Plain, Ours], number: signal.Signals) -> None:
    """The output is gone, a run makes it again and is stopped half-way: the half output must not pass."""
    plain, ours = both
    good = ours.file("build/second.bin").read_text()
    for one in both:
        one.file("build/second.bin").unlink()
    # Ours would restore it; without its cache it has to run the command too.
    stores = list(ours.path.rglob("ac.v1"))
    assert len(stores) == 1
    shutil.rmtree(stores[0])
    for one in both:
        child = one.stop_in("second.bin")
        os.killpg(child.pid, number)
        child.communicate(timeout=TIMEOUT_S)
        one.open_gates()
        one.ran()
        one.run()
    assert plain.ran() == [] and plain.file("build/second.bin").read_text() == "half", (
        "the trap: half an output, up to date"
    )
    assert ours.ran() == ["second.bin"] and ours.file("build/second.bin").read_text() == good


TEARDOWN = """
def task_teardown():
    def fail():
        raise RuntimeError("the device was left powered")
    return {"actions": ["true"], "teardown": [fail]}
"""


def test_failed_teardown_is_a_failure_in_ours(both: tuple[Plain, Ours]) -> None:
    assert teardown_code(both[1]) == 1


def test_failed_teardown_passes_in_plain_doit(both: tuple[Plain, Ours]) -> None:
    assert teardown_code(both[0]) == 0, "the trap"


def teardown_code(one: Plain) -> int:
    before = one.file("dodo.py").read_text()
    one.file("dodo.py").write_text(before + TEARDOWN)
    try:
        child = one.start("teardown", *one.tasks)
        out, _ = child.communicate(timeout=TIMEOUT_S)
        assert "the device was left powered" in out
        return child.returncode
    finally:
        one.file("dodo.py").write_text(before)


def test_two_runs_at_once_lose_a_record_in_plain_doit(both: tuple[Plain, Ours]) -> None:
    """A new checkout, two shells, one task each, side by side. Depending on the database that this Python has, the
    second run dies with a traceback or the record of the first is overwritten."""
    plain, _ = both
    for path in plain.path.glob(".doit.db*"):
        path.unlink()
    for name in ("first", "second"):
        plain.file(f"{name}.txt").write_text(f"{name} 5\n")
        for kind in ("stop", "go"):
            os.mkfifo(plain.file(f"{kind}-{name}.bin"))
    one = plain.start("first")
    assert reaches(one, plain.file("stop-first.bin"))
    two = plain.start("-s", "second")
    side_by_side = reaches(two, plain.file("stop-second.bin"))
    plain.file("go-first.bin").write_text("\n")
    one.communicate(timeout=TIMEOUT_S)
    if side_by_side:
        plain.file("go-second.bin").write_text("\n")
    said, _ = two.communicate(timeout=TIMEOUT_S)
    plain.open_gates()
    plain.ran()
    plain.run("-s", "first")
    assert plain.ran() == ["first.bin"] or two.returncode != 0, f"the trap: {said}"


def test_the_second_of_two_runs_waits_for_the_first_in_ours(both: tuple[Plain, Ours]) -> None:
    _, ours = both
    ours.file("first.txt").write_text("first 5\n")
    holder = ours.stop_in("first.bin")
    waiting = ours.start()
    assert waiting.stdout is not None
    said = waiting.stdout.readline()
    assert said.startswith(f"note: waiting for another run of this project: pid {holder.pid} ("), said
    assert waiting.poll() is None
    ours.go_on("first.bin", holder)
    out, _ = waiting.communicate(timeout=TIMEOUT_S)
    assert (holder.returncode, waiting.returncode) == (0, 0), out
    assert "-- compile\n-- link\n" in out
    assert ours.ran() == ["first.bin", "second.bin"], "each once"


def reaches(child: subprocess.Popen[str], pipe: Path) -> bool:
    """Does the command come to its pipe, or does doit end before?"""
    handle = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        deadline_s = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline_s:
            if select.select([handle], [], [], 0.05)[0]:
                return bool(os.read(handle, 100))
            if child.poll() is not None:
                return False
    finally:
        os.close(handle)
    raise AssertionError(f"nobody wrote to {pipe.name} within {TIMEOUT_S} s")
