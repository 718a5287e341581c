"""Files that are saved while a build runs, through the whole program: the next run, or this one, sees them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.test_fastpath import FastPathProject

ACTION = """
[[action]]
name = "names"
argv = ["sh", "-c", "cat names/*.txt > build/names.txt"]
inputs = ["names/*.txt"]
outputs = ["build/names.txt"]
"""


@pytest.fixture
def project(tmp_path: Path) -> FastPathProject:
    """The compiler runs `save` first, once, if there is such a script."""
    project = FastPathProject(tmp_path)
    save = 'if [ -e save ]; then mv save saved; . ./saved; fi\necho "$*"'
    project.zig.write_text(project.zig.read_text().replace('echo "$*"', save, 1))
    (project.root / "names").mkdir()
    (project.root / "names/one.txt").write_text("one\n")
    with (project.root / "deploy.toml").open("a") as stream:
        stream.write(ACTION)
    return project


def build(project: FastPathProject) -> None:
    done = project.run("doit", "compile", "link")
    assert done.returncode == 0, done.stdout + done.stderr


def begin(project: FastPathProject, first: str, source: Path) -> None:
    """Let the next build concern one unit, or all of them."""
    # A header that is looked for beside its sources first.
    source.write_text('#include "h00.h"\n' + source.read_text())
    project.settle()
    if first == "part":
        source.write_text(source.read_text() + "int edited;\n")
    else:
        config = project.root / "deploy.toml"
        config.write_text(config.read_text().replace('cflags = ["-O1"]', 'cflags = ["-O2"]'))


def compiled(project: FastPathProject, source: str) -> bool:
    return any(source in line for line in (project.tools / "ziglang/calls").read_text().splitlines())


@pytest.mark.parametrize("first", ["whole", "part"])
@pytest.mark.parametrize("way", ["saved", "renamed"])
def test_a_source_that_appears_is_compiled(project: FastPathProject, first: str, way: str) -> None:
    source = next(path for path in sorted((project.root / "src").rglob("*.c")))
    new = source.with_name("late.c")
    (project.root / "other.c").write_text("int late;\n")
    begin(project, first, source)
    verb = "cp" if way == "saved" else "mv"
    (project.root / "save").write_text(f"{verb} other.c '{new}'\n")
    build(project)
    assert new.exists()
    if not compiled(project, "late.c"):
        assert project.answer("compile", "link") is None
        build(project)
    assert compiled(project, "late.c")
    project.settle()


@pytest.mark.parametrize("first", ["whole", "part"])
def test_a_file_that_a_glob_matches_is_read(project: FastPathProject, first: str) -> None:
    source = next(path for path in sorted((project.root / "src").rglob("*.c")))
    begin(project, first, source)
    (project.root / "save").write_text("echo two > names/two.txt\n")
    build(project)
    if "two" not in (project.root / "build/names.txt").read_text():
        assert project.answer("compile", "link") is None
        build(project)
    assert (project.root / "build/names.txt").read_text() == "one\ntwo\n"
    project.settle()
