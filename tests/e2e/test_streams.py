"""stdout that goes away, and commands that are interrupted: the run goes on, and no traceback."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pipeline import __version__
from tests.e2e.space import Space, environment
from tests.forked import run_python

DOIT = ("-m", "doit")
HOTPLATE = ("-c", "import sys; sys.argv[0] = 'hotplate'; from pipeline.fastpath import main; sys.exit(main())")


def run(space: Space, stdout: int, *args: str, program: tuple[str, ...] = DOIT) -> subprocess.CompletedProcess[str]:
    return run_python(
        [*program, *args],
        cwd=space.path,
        env=environment(**space._own),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
    )


def test_a_reader_that_goes_away_does_not_end_a_deploy(host_space: Space) -> None:
    """`doit deploy | head -1`: flash may be written just then."""
    reader, writer = os.pipe()
    os.close(reader)
    done = run(host_space, writer, "deploy")
    os.close(writer)
    assert (done.returncode, done.stderr.count("\n")) == (0, 1), done.stderr
    assert done.stderr == "note: what is printed is lost from here on (Broken pipe); the run goes on\n"
    again = host_space.deploy()
    assert again.outcome == "verified_unchanged", "the first one came to its end"
    assert len(list(host_space.file("reports").glob("tx-*.md"))) == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_view_that_cannot_be_printed_says_so(host_space: Space) -> None:
    with Path("/dev/full").open("w") as full:
        done = run(host_space, full.fileno(), "plan")
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "stdout: error: cannot be written: No space left on device"
    assert "Traceback" not in done.stderr


def test_the_fast_answer_needs_no_reader(host_space: Space) -> None:
    run(host_space, subprocess.DEVNULL, "compile", "link", program=HOTPLATE)
    run(host_space, subprocess.DEVNULL, "compile", "link", program=HOTPLATE)
    reader, writer = os.pipe()
    os.close(reader)
    done = run(host_space, writer, "compile", "link", program=HOTPLATE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_hotplate_says_its_version_before_doits(host_space: Space) -> None:
    done = run(host_space, subprocess.PIPE, "--version", program=HOTPLATE)
    assert done.stdout.splitlines()[0] == f"hotplate {__version__}"
    assert done.returncode == 0
