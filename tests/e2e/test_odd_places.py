"""Projects in odd places: an ASCII locale, modules of the project's own with our names, moved and copied checkouts, a
full disk. Real `doit` and `hotplate` processes, a fake compiler."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pipeline.engine.results import ActionFailure, FailureKind
from pipeline.model import FailureCategory, Stage
from pipeline.toolchain.action_failures import action_failure
from tests.e2e.test_fastpath import NOTHING, FastPathProject

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture
def project(tmp_path: Path) -> FastPathProject:
    return FastPathProject(tmp_path)


@pytest.mark.parametrize("program", ["doit", "hotplate"])
def test_a_project_in_utf8_under_an_ascii_locale(project: FastPathProject, program: str) -> None:
    config = project.root / "deploy.toml"
    source = project.root / "src/größe.c"
    source.write_text("// ü\n", encoding="utf-8")
    text = config.read_text(encoding="utf-8").replace("sources = [", 'sources = ["src/größe.c", ', 1)
    config.write_text("\ufeff" + text, encoding="utf-8")
    project.env.update(ASCII)
    assert project.out(program, "compile", "link") == ".  fingerprint\n.  compile\n.  link\n"
    assert project.out(program, "compile", "link") == NOTHING
    source.unlink()
    failed = project.run(program, "compile")
    assert failed.returncode in (1, 2) and "größe.c" in failed.stdout + failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize("name", ["cache.py", "cache/__init__.py", "cache/notes.txt"])
def test_a_module_of_the_project_with_our_name(project: FastPathProject, name: str) -> None:
    (project.root / name).parent.mkdir(exist_ok=True)
    (project.root / name).write_text("")
    project.env["PYTHONPATH"] = f"{project.root}:{project.env['PYTHONPATH']}"
    for program in ("doit", "hotplate"):
        assert project.run(program, "compile", "link").returncode == 0
    dodo = project.root / "dodo.py"
    if name.endswith(".py"):
        dodo.write_text("import cache\n" + dodo.read_text())
        failed = project.run("doit", "compile", "link")
        assert failed.returncode != 0 and "rename yours" in failed.stderr


def test_the_database_follows_a_project_that_was_copied_or_moved(project: FastPathProject, tmp_path: Path) -> None:
    project.out("doit", "compile", "link")
    project.out("doit", "hooks:install", "--editor", "vscode")
    database = project.root / "compile_commands.json"
    places = {entry["directory"] for entry in json.loads(database.read_text())}
    assert places == {str(project.root)}
    moved = tmp_path / "moved"
    shutil.copytree(project.root, moved, symlinks=True)
    project.root = moved
    project.out("doit", "compile", "link")
    entries = json.loads((moved / "compile_commands.json").read_text())
    assert {entry["directory"] for entry in entries} == {str(moved)}
    assert not any(str(database.parent) in word for entry in entries for word in entry["arguments"])
    strange = database.read_text().replace("-ffile-prefix-map=", "-fother=")
    (moved / "compile_commands.json").write_text(strange)
    project.out("doit", "compile", "link")
    assert (moved / "compile_commands.json").read_text() == strange, "another program's"


@pytest.mark.parametrize(
    "said",
    [
        "a.c:1:1: fatal error: error writing to build/a.o: No space left on device\n",
        "fatal error: build/a.d: No space left on device\ncompilation terminated.\n",
        "error: unable to write output file: NoSpaceLeft\n",
        "/usr/bin/ld: final link failed: Disk quota exceeded\n",
    ],
)
def test_a_full_disk_is_no_mistake_in_the_source(said: str) -> None:
    failed = ActionFailure("compile a.c", FailureKind.EXIT, "failed with exit code 1", ("cc", "a.c"), 1, said)
    failure = action_failure(Stage.COMPILE, FailureCategory.COMPILE_ERROR, [failed], [])
    assert failure.category is FailureCategory.CACHE_ERROR
    assert "the disk that holds build/ is full" in failure.message and ":1:1" not in failure.where
