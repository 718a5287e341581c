"""FIFOs, endless devices and looping links where files belong: an error that names the place, and nobody waits."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import given_project
from tests.e2e.space import Space, environment
from tests.forked import Python, run_python

TIMEOUT_S = 300
"""What waits for a FIFO waits for ever; then the test fails."""


@pytest.fixture
def space(tmp_path: Path) -> Space:
    return given_project.with_web(given_project.project(tmp_path / "project", "esp32c3", given_project.files))


def doit(space: Space, *words: str) -> subprocess.CompletedProcess[str]:
    command = ["-m", "doit", *words]
    done: subprocess.CompletedProcess[str] = run_python(
        command, cwd=space.path, env=environment(), capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert "Traceback" not in done.stderr + done.stdout
    return done


def huge(path: Path) -> None:
    """One block on the disk, and a terabyte to read."""
    path.write_bytes(b"x")
    os.truncate(path, 1 << 40)


KINDS: dict[str, Callable[[Path], object]] = {
    "fifo": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "loop": lambda path: path.symlink_to(path.name),
    "directory": Path.mkdir,
    "huge": huge,
}
PLACES = {
    "deploy.toml": ("deploy.toml:1:1: error: cannot be read", 2),
    "bin/a.bin": ("a.bin", 2),
    "bin/t.bin": ("t.bin", 2),
    "tools/pack.py": ("pack", 1),
    "web/a.html": ("web/a.html", 1),
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_that_names_it(space: Space, kind: str) -> None:
    for name, (said, code) in PLACES.items():
        kept = space.file(name).read_bytes()
        space.file(name).unlink()
        KINDS[kind](space.file(name))
        done = doit(space, "link")
        if not (name == "web/a.html" and kind in ("device", "loop", "directory")):  # those match no pattern
            assert done.returncode == code and said in done.stderr and "error: " in done.stderr, (name, done)
        if kind == "directory":
            space.file(name).rmdir()
        else:
            space.file(name).unlink()
        space.file(name).write_bytes(kept)
    assert doit(space, "link").returncode == 0


@pytest.mark.parametrize("kind", ["fifo", "device", "loop", "directory"])
def test_state_that_is_none_is_begun_anew(space: Space, kind: str) -> None:
    names = [".deploy/stamps.v1.state", ".deploy/fast-path.v1/-.state", ".deploy/runs/tx-20260101-000000-aaaaaa.log"]
    names += ["reports/history.jsonl", "reports/tx-20260101-000000-aaaaaa.json", ".deploy/elfs.v1/" + "ab" * 32]
    for name in names:
        space.file(name).parent.mkdir(parents=True, exist_ok=True)
        KINDS[kind](space.file(name))
    assert doit(space, "link").returncode == 0
    assert doit(space, "report", "list").returncode == 0
    assert doit(space, "status").returncode == 0


SCRIPTS = {
    "reads a FIFO": "os.mkfifo('held'); say(); open('held').read()",
    "makes its output a FIFO and reads it": "os.mkfifo(sys.argv[1]); say(); open(sys.argv[1]).read()",
    "left a descendant on its pipes": "open(sys.argv[1], 'w').close(); leave()",
    "left a descendant, and waits": "leave(); time.sleep(1000)",
    "prints without end": "say()\nwhile True: print('x' * 100000)",
}
SAYS = """
import os, signal, sys, time
def say():
    with open("gate", "w") as gate:
        gate.write(f"{os.getpid()}\\n")
def leave():
    if os.fork() == 0:
        os.setsid()
        say()
        time.sleep(1000)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
"""


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_first_sigterm_ends_the_run(space: Space, script: str) -> None:
    space.file("tools/pack.py").write_text(f"{SAYS}\n{SCRIPTS[script]}\n")
    os.mkfifo(space.file("gate"))
    child = Python(
        ["-m", "doit", "link"],
        cwd=space.path,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    pid = int(space.file("gate").read_text())
    child.send_signal(signal.SIGTERM)
    _, stderr = child.communicate(timeout=TIMEOUT_S)
    assert child.returncode in (130, -signal.SIGTERM) and b"Traceback" not in stderr
    if "descendant" in script:
        os.kill(pid, signal.SIGKILL)
    assert not os.path.lexists(space.file("build/web.bin"))
