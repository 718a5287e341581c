"""How a run without doit ends its process: as Python does, but for the time that takes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

BEGIN = "import atexit, sys, threading, time; from pipeline.hotplate import _end; atexit.register(print, 'registered');"
LATE = "threading.Thread(target=lambda: (time.sleep(0.2), print('late'))).start();"


def ended(code: str) -> tuple[int, str, str]:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    argv = [sys.executable, "-c", f"{BEGIN} {code}"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=env)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("code", [0, 1, 3])
def test_what_is_printed_and_registered_gets_out(code: int) -> None:
    said = f"sys.stdout.write('out '); sys.stderr.write('err'); _end({code}); print('not reached')"
    assert ended(said) == (code, "out registered\n", "err")


def test_threads_are_waited_for() -> None:
    assert ended(f"{LATE} _end(4)") == (4, "late\nregistered\n", "")


@pytest.mark.parametrize("watch", ["setprofile", "settrace"])
def test_one_that_is_watched_ends_as_python_does(watch: str) -> None:
    kept = f"sys.{watch}(lambda *_: None)\ntry: _end(5)\nfinally: sys.{watch}(None); print('unwound')"
    assert ended(f"\n{kept}") == (5, "unwound\nregistered\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="another error there")
def test_what_cannot_be_printed_is_said_as_python_says_it() -> None:
    usual = ended("import os; os.dup2(os.open('/dev/full', os.O_WRONLY), 1); print('x'); sys.exit(0)")
    assert ended("import os; os.dup2(os.open('/dev/full', os.O_WRONLY), 1); print('x'); _end(0)")[0] == usual[0] == 120
