"""What a run asks git, by a program of that name."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.effects import host
from pipeline.effects.host import GitQuery, Revision

TheirOwn = host._Asked
"""As it is where no test has put the other way in its place."""
SHA = "0123456789abcdef0123456789abcdef01234567"
HEAD = f"echo '# branch.oid {SHA}'; echo '# branch.head main'"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the programs are shell scripts")


@pytest.fixture(params=["_Asked", "_AskedOtherwise"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "_AskedOtherwise":
        monkeypatch.setattr(host, "_Asked", host._AskedOtherwise)
    return str(request.param)


def query(directory: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> GitQuery:
    program = directory / "git"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}{os.pathsep}{os.environ['PATH']}")
    return GitQuery(directory)


@pytest.mark.parametrize(
    ("script", "revision"),
    [
        (HEAD, Revision(SHA, False)),
        (f"{HEAD}; echo '1 .M N... 100644 a.c'", Revision(SHA, True)),
        ("echo '# branch.oid (initial)'", Revision("", False)),
        (f"{HEAD}; exit 128", Revision()),
        ("exit 1", Revision()),
        (f"{HEAD}; kill -9 $$", Revision()),
        (f"{HEAD}; printf '1 .M \\377.c'", Revision(SHA, True)),
        (f'test -t 0 || {{ read line && exit 3; }}; {HEAD}; echo noise >&2; test "$LC_ALL" = C', Revision(SHA, False)),
    ],
)
def test_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, revision: Revision) -> None:
    assert query(tmp_path, monkeypatch, script).result(60.0) == revision


def test_more_than_a_pipe_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = "1 .M N... 100644 a/rather/long/name/of/a/file.c"
    script = f"{HEAD}; i=0; while [ $i -lt 3000 ]; do echo '{line}'; i=$((i+1)); done"
    assert query(tmp_path, monkeypatch, script).result(60.0) == Revision(SHA, True)


def test_one_that_takes_too_long_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for script in ("exec sleep 60", "exec sleep 60 >&-"):
        asked = query(tmp_path, monkeypatch, script)
        child = asked._child
        pid = child._pid if isinstance(child, TheirOwn) else child._child.pid  # type: ignore[union-attr]
        started = time.monotonic()
        assert asked.result(0.2) == Revision()
        assert time.monotonic() - started < 30
        with pytest.raises(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_one_that_is_interrupted_is_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = query(tmp_path, monkeypatch, "exec sleep 60")
    answer = asked._answer

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    def soon_interrupted(timeout_s: float) -> Revision:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        return answer(timeout_s)

    monkeypatch.setattr(asked, "_answer", soon_interrupted)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            asked.result(60.0)
    finally:
        signal.signal(signal.SIGALRM, before)
    started = time.monotonic()
    assert asked.result(60.0) == Revision()
    assert time.monotonic() - started < 30
    child = asked._child
    if isinstance(child, TheirOwn):
        os.kill(child._pid, signal.SIGKILL)
        os.waitpid(child._pid, 0)
    else:
        with child._child as other:  # type: ignore[union-attr]
            other.kill()


def test_no_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert GitQuery(tmp_path).result() == Revision()


def test_children_that_nobody_waits_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """A caller may have SIGCHLD ignored, and a process inherits that."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert query(tmp_path, monkeypatch, HEAD).result(60.0) == Revision(SHA, False)
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_run_starts_without_subprocess() -> None:
    code = "import sys, pipeline.run.run; print('subprocess' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
