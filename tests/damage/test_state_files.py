"""Every state file of the engine, truncated, flipped, deleted, replaced: at worst more work, never another output."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cache import statefile
from pipeline.engine.engine import STATE_KIND, STATE_NAME
from pipeline.model import Stage
from tests.unit.engine_space import EngineSpace

KIND = "test 1"


def damaged(data: bytes) -> list[bytes]:
    """Truncated at every length, and with one bit of every byte flipped."""
    flipped = [data[:n] + bytes([data[n] ^ (1 << n % 8)]) + data[n + 1 :] for n in range(len(data))]
    return [data[:length] for length in range(len(data))] + flipped


def test_state_file_bytes() -> None:
    value = {"path": ((5, 1, 2, 3, False), "fp", "sha", True)}
    data = statefile.encode(KIND, value)
    head, body = data.split(b"\n", 1)
    assert head.startswith(b"hotplate-state test 1 ") and head.endswith(b" %d" % len(body))
    assert statefile.decode(KIND, data) == (value, "")


def test_damaged_state_is_never_read() -> None:
    data = statefile.encode(KIND, [("a", 1), ("b", None, True)])
    for bad in damaged(data):
        value, trouble = statefile.decode(KIND, bad)
        assert value is None and trouble
    assert statefile.decode("test 2", data) == (None, "is not a 'test 2' state file")


@pytest.fixture
def space(tmp_path: Path) -> EngineSpace:
    space = EngineSpace(tmp_path / "project")
    space.write("src/a.c", '#include "a.h"\nint a;\n')
    space.write("inc/a.h", "int h;\n")
    assert space.build().count("compiled") == 1
    assert space.build().nothing
    return space


def test_engine_starts_over_from_any_damage_of_its_state(space: EngineSpace) -> None:
    path = space.root / ".deploy" / STATE_NAME
    good, outputs = path.read_bytes(), space.outputs()
    variants = damaged(good)
    assert all(statefile.decode(STATE_KIND, bad)[0] is None for bad in variants)
    for bad in variants[::97]:
        path.write_bytes(bad)
        engine = space.engine()
        assert engine.notes == (f"{STATE_NAME} is not a {STATE_KIND!r} state file; starting over",) or (
            "damaged" in engine.notes[0]
        )
        assert not engine.verdict(Stage.COMPILE).up_to_date
        again = space.build()
        assert again.ok and again.ran == [] and again.count("restored") == 0
        assert space.outputs() == outputs
        assert space.build().nothing


def truncate(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(b"")


def flip(path: Path) -> None:
    path.chmod(0o644)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 4]) if data else b"x")


def replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE: list[Callable[[Path], None]] = [truncate, empty, flip, Path.unlink, replace_by_directory]


@pytest.mark.parametrize("damage", DAMAGE)
def test_each_file_of_the_cache_damaged(space: EngineSpace, damage: Callable[[Path], None]) -> None:
    """With build/ and the project's state gone, everything must come from the cache or be made again."""
    outputs = space.outputs()
    names = [
        p.relative_to(space.cache) for d in ("cas.v1", "ac.v1") for p in (space.cache / d).rglob("*") if p.is_file()
    ]
    assert len(names) == 7
    for name in names:
        path = space.cache / name
        damage(path)
        shutil.rmtree(space.root / "build")
        (space.root / ".deploy" / STATE_NAME).unlink()
        again = space.build()
        assert again.ok and space.outputs() == outputs, name
        assert path.is_file(), f"{name} was not replaced"
    assert space.build().nothing


def test_whole_cache_deleted_costs_nothing_while_build_is_there(space: EngineSpace) -> None:
    shutil.rmtree(space.cache / "cas.v1")
    shutil.rmtree(space.cache / "ac.v1")
    assert space.build().nothing
    shutil.rmtree(space.root / "build")
    assert space.build().count("compiled") == 1
    assert space.build().nothing


def test_cache_that_cannot_be_used_is_said_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the store should be")
    space = EngineSpace(tmp_path / "project", tmp_path / "cache").sample()
    cold = space.build()
    assert cold.ok and cold.count("compiled") == 3
    assert {note.kind for result in cold.results for note in result.notes} == {"not stored"}
    assert space.build().nothing


def test_state_that_cannot_be_written_is_said_and_stops_nothing(space: EngineSpace) -> None:
    shutil.rmtree(space.root / ".deploy")
    (space.root / ".deploy").write_text("a file where the state should be")
    engine = space.engine()
    assert list(engine.notes) == [f"{STATE_NAME} cannot be read (Not a directory); starting over"]
    assert engine.run(Stage.COMPILE, lambda label, done, total: None).ok
    assert "cannot be written" in engine.notes[-1]


def test_a_directory_in_the_place_of_the_state_is_replaced(space: EngineSpace) -> None:
    path = space.root / ".deploy" / STATE_NAME
    path.unlink()
    (path / "below").mkdir(parents=True)
    assert list(space.engine().notes) == [f"{STATE_NAME} cannot be read (Is a directory); starting over"]
    assert space.build().ok and path.is_file()
    assert space.build().nothing


CHILD = """
import sys
from pathlib import Path
from pipeline.model import Action, Stage, Tool
from pipeline.effects.clock import SystemClock
from pipeline.effects.process import SystemProcessRunner
from pipeline.engine.engine import Engine
from pipeline.engine.workspace import BuildSteps, Directories, Host

root, compiler = Path(sys.argv[1]), sys.argv[2]
clock = SystemClock()
actions = [
    Action(f"compile {n}", Stage.COMPILE, (f"{n}.c",), (f"build/{n}.o",), ("sh", compiler, f"{n}.c", f"build/{n}.o"),
           count_as="compiled")
    for n in "abcd"
]
runner = SystemProcessRunner(clock)
tools = {"sh": Tool("sh", "/bin/sh", "1", "sh")}
steps = BuildSteps(actions, tools, {}, {"PATH": "/usr/bin:/bin"})
engine = Engine(Directories(root, root / ".deploy", root / ".deploy"), steps, Host(runner, clock, 1))
result = engine.run(Stage.COMPILE, lambda label, done, total: None)
print(*result.executed, *(f"up-to-date={result.counts['up_to_date']}",), sep=";")
runner.close()
"""

COMPILER = """
printf 'half' > "$2"
if [ "$1" = c.c ] && [ -p gate ]; then echo $$ > gate; read -r never < gate2; fi
cat "$1" > "$2"
"""


def test_kill_in_mid_run_loses_the_action_under_way_only(tmp_path: Path) -> None:
    """`kill -9` of the whole program while the third of four actions has written half of its output: its child goes
    too, the finished actions are kept, and the next run makes the rest. They are stored while the third one runs, which
    starts first."""
    for name in "abcd":
        (tmp_path / f"{name}.c").write_text(f"int {name};\n")
    (tmp_path / "cc.sh").write_text(COMPILER)
    os.mkfifo(tmp_path / "gate")
    os.mkfifo(tmp_path / "gate2")
    command = [sys.executable, "-c", CHILD, str(tmp_path), "cc.sh"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        compiler = int((tmp_path / "gate").read_text())
        deadline_s = time.monotonic() + 300
        while len(list((tmp_path / ".deploy/ac.v1").glob("*/[0-9a-f]*"))) < 2 and time.monotonic() < deadline_s:
            os.sched_yield()
        child.send_signal(signal.SIGKILL)
    assert (tmp_path / "build/c.o").read_text() == "half"
    assert gone(compiler), "the compiler outlived its parent"
    (tmp_path / "gate").unlink()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "compile c;compile d;up-to-date=2\n"
    assert [(tmp_path / f"build/{name}.o").read_text() for name in "abcd"] == [f"int {name};\n" for name in "abcd"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "up-to-date=4\n"


def gone(pid: int, timeout_s: float = 300.0) -> bool:
    """Has the process ended (a zombie of a foreign parent counts) before the deadline? Looked at once at least."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):  # the latter where it is gone by the time of the read
            return True
        if time.monotonic() >= deadline_s:
            return False
        os.sched_yield()
