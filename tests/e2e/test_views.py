"""`doit explain`, `graph` and `plan` as a user meets them: stdout, stderr, exit codes, and that nothing was done."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.commands import Explain, Graph, Plan
from tests.e2e.space import Space, environment

SOURCE = "firmware/core/json.c"


@pytest.fixture
def space(host_space: Space) -> Space:
    """The views do not depend on the transport."""
    return host_space


def products(space: Space) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in space.file("build").rglob("*")}


def test_explain_an_edit_and_nothing(space: Space) -> None:
    assert space.doit("link").code == 0
    calm = space.doit("explain")
    assert (calm.code, calm.err) == (0, "")
    assert [line for line in calm.out.splitlines() if not line.startswith(" ")][1:] == [
        next(line for line in calm.out.splitlines() if line.startswith("compile: up to date (")),
        next(line for line in calm.out.splitlines() if line.startswith("link: up to date (")),
        "verify-flash: only the board can tell; `doit verify-flash` asks it",
    ]
    path, before = space.file(SOURCE), products(space)
    path.write_text(path.read_text() + "int another_global;\n")
    moved = space.doit("explain", "compile")
    assert moved.code == 0
    assert f"  compile {SOURCE}: would run\n    because input {SOURCE}: " in moved.out
    assert moved.out.startswith("compile: 1 would run, ")
    one = space.doit("explain", "json.c", "link app").out.splitlines()
    assert one[0] == f"compile {SOURCE}: would run" and one[2] == "link app: may run" and len(one) == 4
    assert products(space) == before
    assert ".  compile" in space.doit("link").out, "what was explained then happens"


def test_explain_another_profile(space: Space) -> None:
    said = space.doit("explain", "compile", "--profile", "release")
    assert said.code == 0 and "has no record in this project" in said.out and "up to date" not in said.out


REFUSED: list[tuple[list[str], int, str]] = [
    (["explain", "complie"], 3, "complie: error: is no task, action or file\nhint: did you mean 'compile'?\n"),
    (["explain", "--profile", "x"], 2, "x"),
    (["graph", "--format", "gif"], 3, "--format: error: unknown: 'gif'\nhint: choose one of dot, "),
    (["graph", "--what-if", "core/jsn.h"], 3, "core/jsn.h: error: is read by no action\nhint: "),
    (["graph", "--output", "missing.d/"], 3, "error: cannot be written: Is a directory\nhint: name a file"),
    (["graph", "--format", "png"], 3, "hint: name a file with --output graph.png\n"),
    (["plan", "compile"], 3, "plan: error: takes no arguments, got compile\nhint: see `doit help plan`\n"),
    (["plan", "--device", "nobody"], 2, "nobody"),
]


COMMANDS: dict[str, Any] = {"explain": Explain, "graph": Graph, "plan": Plan}


def run_here(words: list[str]) -> int:
    """The command in this process, which saves the start of one; the tests around this one start real ones."""
    return int(COMMANDS[words[0]]().parse_execute(words[1:]) or 0)


def test_refusals(space: Space, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(space.path)
    space.file("missing.d").mkdir()
    for words, code, fact in REFUSED:
        assert run_here(words) == code, words
        out, err = capfd.readouterr()
        assert out == "" and fact in err


def test_bad_config_is_said(space: Space) -> None:
    space.edit("deploy.toml", 'mode = "dio"', 'mode = "diio"')
    done = space.doit("plan")
    assert done.code == 2 and done.err.startswith("deploy.toml:") and done.out == ""


def test_plan_before_and_after_a_deploy(space: Space) -> None:
    fresh = space.doit("plan")
    assert (fresh.code, fresh.err) == (0, "")
    assert "host: nothing to do (" in fresh.out
    assert "device bench (virtual:): no board has answered there yet, so every region would be written\n" in fresh.out
    assert not space.file(".deploy/devices.v1").exists() and not space.flash.exists()
    assert space.deploy().code == 0
    settled = space.doit("plan").out
    assert "the board was not asked; the journal of " in settled
    assert [line.split()[-1] for line in settled.splitlines() if " 0x" in line] == ["keep"] * 4
    path = space.file(SOURCE)
    path.write_text(path.read_text() + "int another_global;\n")
    edited = space.doit("plan").out
    assert f"  compile: build/local-fast/obj/app/{SOURCE}.o\n" in edited
    assert "  app          0x00010000  write, if the build gives other bytes\n" in edited
    assert "  bootloader   0x00000000  keep\n" in edited


def test_plan_tells_restores_from_compiles(space: Space) -> None:
    assert space.doit("clean", "compile", "link").code == 0
    planned = space.doit("plan").out
    assert "would run" not in planned and "restore from the cache: build/local-fast/app.elf" in planned
    done = space.deploy()
    assert done.totals["compiled"] == 0 and done.totals["linked"] == 0 and done.totals["restored"] > 0


def test_graph_formats(space: Space, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    dot = space.doit("graph").out
    assert dot.startswith("digraph actions {\n") and f'label="compile {SOURCE}\\n' in dot and "crimson" in dot
    monkeypatch.chdir(space.path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(space.file(".deploy/user-cache")))
    assert run_here(["graph"]) == 0 and capfd.readouterr().out == dot
    assert run_here(["graph", "--format", "mermaid"]) == 0
    assert capfd.readouterr().out.splitlines()[1] == "flowchart LR"
    assert run_here(["graph", "--output", "graph.svg"]) == 0
    assert capfd.readouterr().out == "" and space.file("graph.svg").read_text().startswith("<svg ")
    assert run_here(["graph", "--format", "text"]) == 0
    text = capfd.readouterr().out
    assert "; critical path " in text
    # Which of the two programs takes longer is the machine's business.
    assert text.splitlines()[-1].endswith(("  image app", "  image bootloader"))


def test_what_if(space: Space) -> None:
    said = space.doit("graph", "--what-if", "firmware/core/json.h").out
    assert said.startswith("edit firmware/core/json.h: ")
    assert f"  compile {SOURCE}\n" in said and "  link app\n" in said and "bootloader" not in said
    hits = int(said.split(": ")[1].split()[0])
    path = space.file("firmware/core/json.h")
    path.write_text(path.read_text() + "#define UNUSED_HERE 1\n")
    assert space.deploy().totals["compiled"] == hits


def test_png_without_a_renderer(space: Space) -> None:
    (space.path / "cairosvg.py").write_text("raise ImportError\n")
    empty = {"PATH": str(space.path), "PYTHONPATH": f"{space.path}:{os.environ.get('PYTHONPATH', '')}:{Path.cwd()}"}
    done = space.doit("graph", "--output", "graph.png", env=empty)
    assert done.code == 3 and not space.file("graph.png").exists()
    assert "no SVG renderer is installed" in done.err and "hint: install one" in done.err


def test_a_closed_pipe_is_no_error(space: Space) -> None:
    command = f"{sys.executable} -m doit graph | head -1"
    done = subprocess.run(
        command, shell=True, cwd=space.path, env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "digraph actions {\n" and done.stderr == ""


@pytest.mark.parametrize(("command", "allowed"), [("explain", set()), ("plan", set())])
def test_views_load_nothing_heavy(space: Space, command: str, allowed: set[str]) -> None:
    """Seen by Python itself: which modules the whole `doit` process imported."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "doit", command],
        cwd=space.path,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert loaded & {"esptool", "serial", "unicorn", "networkx", "rich"} == allowed
