"""The lists of modules that are loaded ahead, against real runs of the kind that each is for: a run in a fresh process
that has loaded a list imports nothing of ours beside it, and comes to all of it where it may not load in vain.

The child says when it starts a program (by an audit hook) and when it ends which modules it has loaded.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cache.stamps import next_tick
from pipeline.needed_modules import AFTER_LINK, BUILD, DEPLOY, EDITED, load_modules
from tests.e2e.space import ROOT, TIMEOUT_S, Space, environment

CHILD = """
import atexit, json, os, sys
from pipeline.needed_modules import load_modules
log, names, program, argv = sys.argv[1], sys.argv[2].split(), sys.argv[3], sys.argv[4:]
load_modules(names)
moments = [("loaded", "", list(sys.modules))]
def note(event, arguments):
    if event == "os.posix_spawn":
        moments.append(("started", " ".join(map(os.fsdecode, arguments[1])), list(sys.modules)))
def say():
    moments.append(("ended", "", list(sys.modules)))
    with open(log, "w") as stream:
        json.dump(moments, stream)
sys.addaudithook(note)
atexit.register(say)
sys.argv = [program, *argv]
if program == "doit":
    from doit.doit_cmd import DoitMain
    sys.exit(DoitMain().run(argv))
from pipeline.fastpath import main
sys.exit(main())
"""
OURS = ("pipeline", "cache", "virtualboard")


class ListedRun:
    """A run in a process that has loaded `names`. `moments`: when, what program was started, what was loaded."""

    def __init__(self, space: Space, names: tuple[str, ...], program: str, *argv: str) -> None:
        log = space.path.parent / "modules.json"
        log.unlink(missing_ok=True)
        next_tick()
        command = [sys.executable, "-c", CHILD, str(log), " ".join(names), program, *argv]
        env = environment(**space._own, HOTPLATE_SERVICE="0")
        done = subprocess.run(
            command, cwd=space.path, env=env, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        self.code, self.out = done.returncode, done.stdout + done.stderr
        self.moments = [(kind, what, ours(names)) for kind, what, names in json.loads(log.read_text())]
        self.loaded = self.moments[0][2]

    def at(self, word: str) -> frozenset[str]:
        """What was loaded when a program was started that has this word in its command line."""
        return next(names for kind, what, names in self.moments if kind == "started" and word in what)

    @property
    def at_the_end(self) -> frozenset[str]:
        return self.moments[-1][2]

    @property
    def more(self) -> list[str]:
        """What it imported beside what had been loaded."""
        return sorted(self.at_the_end - self.loaded)


def ours(names: list[str]) -> frozenset[str]:
    return frozenset(name for name in names if name.partition(".")[0] in OURS)


def code(space: Space) -> None:
    space.edit("firmware/modules/blink.c", '" flashes"', '" winks"')


def comment(space: Space) -> None:
    source = space.file("firmware/core/json.c")
    source.write_text(source.read_text() + "/* more */\n")


def header(space: Space) -> None:
    source = space.file("firmware/core/json.h")
    source.write_text(source.read_text() + "/* more */\n")


def error(space: Space) -> None:
    source = space.file("firmware/core/json.c")
    source.write_text(source.read_text() + "int x = ;\n")


def nothing(space: Space) -> None:
    pass


@pytest.fixture
def warm(host_space: Space) -> Space:
    """Deployed, and the last run had nothing to do."""
    for _ in range(2):
        next_tick()
        assert host_space.deploy().code == 0
        assert host_space.doit("compile", "link").code == 0
    return host_space


@pytest.mark.parametrize("name", sorted({*BUILD, *DEPLOY}))
def test_a_listed_module_exists(name: str) -> None:
    assert importlib.util.find_spec(name) is not None


def test_the_lists_cost_nothing_but_themselves() -> None:
    counted = "before = set(sys.modules); import pipeline.needed_modules; print(set(sys.modules) - before)"
    script = f"import sys, pipeline; {counted}"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "{'pipeline.needed_modules'}\n"


def test_whatever_a_listed_module_raises_is_left_to_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "of_another_version.py").write_text("import sys\nsys.no_such_name\n")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "of_this_version.py").touch()
    load_modules(("of_another_version", "no_such_module", "of_this_version"))
    assert "of_this_version" in sys.modules and "of_another_version" not in sys.modules


def loaded_by(names: tuple[str, ...]) -> frozenset[str]:
    script = f"import sys; from pipeline.needed_modules import load_modules; load_modules({names}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return ours(done.stdout.split())


def test_what_makes_images_needs_little_beside_what_is_loaded_ahead() -> None:
    """Nothing but esptool's own modules; and none of these is loaded where no run is yet, since they read a file that
    the place and the environment name."""
    script = (
        "import sys; from pipeline.needed_modules import OF_IMAGES, load_modules; load_modules(OF_IMAGES); "
        "before = set(sys.modules); import esptool.cmds; print(*before, '|', *sys.modules.keys() - before)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    before, after = ({name.partition(".")[0] for name in part.split()} for part in done.stdout.split("|"))
    assert {"rich_click", "serial"} <= before and before.isdisjoint(after)
    assert after == {"esptool", "esp_pylib"}


def test_an_edit_needs_what_is_loaded_while_something_else_takes_its_time(warm: Space) -> None:
    code(warm)
    run = ListedRun(warm, (), "hotplate", "compile", "link")
    assert run.code == 0, run.out
    edited, more = loaded_by(EDITED), loaded_by((*EDITED, *AFTER_LINK))
    assert sorted(run.at(" -c ") - edited - run.loaded - {"pipeline.hotplate"}) == [], (
        "the compiler waited for their import"
    )
    assert sorted(edited - run.at_the_end) == [], "loaded in vain"
    assert sorted(run.at_the_end - run.at(".elf") - more) == [], "not loaded beside the linker"


@pytest.mark.parametrize("edit", [code, comment, header, error])
@pytest.mark.parametrize("program", ["hotplate", "doit"])
def test_a_build_needs_nothing_else(warm: Space, program: str, edit: Callable[[Space], None]) -> None:
    edit(warm)
    run = ListedRun(warm, BUILD, program, "compile", "link")
    assert run.code == (1 if edit is error else 0), run.out
    assert run.more == []
    if edit is error:
        warm.file("firmware/core/json.c").write_text((ROOT / "firmware/core/json.c").read_text())
        assert ListedRun(warm, BUILD, program, "compile", "link").more == [], "once it is mended"


@pytest.mark.parametrize("edit", [code, comment, error, nothing])
@pytest.mark.parametrize("program", ["hotplate", "doit"])
def test_a_deploy_needs_nothing_else(warm: Space, program: str, edit: Callable[[Space], None]) -> None:
    edit(warm)
    run = ListedRun(warm, DEPLOY, program, "deploy")
    assert run.code == (1 if edit is error else 0), run.out
    assert run.more == []
