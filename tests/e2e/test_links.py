"""Symbolic links in a project, through real `doit` runs and the fast path: noticed when they lead elsewhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.toolchain.globs import Listing
from tests.e2e.test_fastpath import NOTHING, FastPathProject

RAN = ".  fingerprint\n.  compile\n"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> FastPathProject:
    project = FastPathProject(tmp_path_factory.mktemp("links"))
    root = project.root
    (root / "include").rename(root / "one")
    for other, more in (("two", ""), ("three", "// other\n")):
        (root / other).mkdir()
        for path in (root / "one").iterdir():
            (root / other / path.name).write_text(path.read_text() + more)
    (root / "include").symlink_to("one")
    project.settle()
    return project


def test_the_fast_path_notices_links_that_lead_elsewhere(project: FastPathProject) -> None:
    include = project.root / "include"
    include.unlink()
    include.symlink_to("two")
    assert project.answer("compile", "link") == NOTHING, "the same bytes"
    include.unlink()
    include.symlink_to("three")
    assert project.answer("compile", "link") is None
    assert project.out("doit", "compile", "link").startswith(RAN)
    include.unlink()
    include.symlink_to("two")
    project.settle()
    (project.root / "two/h00.h").unlink()
    (project.root / "two/h00.h").symlink_to("../one/h00.h")
    assert project.answer("compile", "link") in (None, NOTHING), "the same bytes behind a link may be read once more"
    assert project.out("doit", "compile", "link").endswith("-- compile\n-- link\n"), "still the same bytes"
    project.settle()
    (project.root / "one/h00.h").write_text("// changed behind two links\n")
    assert project.answer("compile", "link") is None
    assert project.out("doit", "compile", "link").startswith(RAN)
    project.settle()


def test_a_source_appears_behind_a_link(project: FastPathProject, tmp_path: Path) -> None:
    sources = next(path.parent for path in project.root.rglob("*.c"))
    link = sources / "later.c"
    link.symlink_to(tmp_path / "outside.c")
    (sources / "circle.c").symlink_to("circle.c")
    project.settle()
    (tmp_path / "outside.c").write_text("int later;\n")
    assert project.answer("compile", "link") is None
    assert project.out("doit", "compile", "link").startswith(RAN)
    made = list((project.root / "build").rglob("later.c.o"))
    assert [path.read_text() for path in made] == ["int later;\n"]
    project.settle()
    (tmp_path / "outside.c").write_text("int other;\n")
    assert project.out("doit", "compile", "link").startswith(RAN)
    assert made[0].read_text() == "int other;\n"
    link.unlink()
    (sources / "circle.c").unlink()
    project.settle()


def test_the_project_through_a_link(project: FastPathProject, tmp_path: Path) -> None:
    """Its place is where it really lies: both ways share state, and neither builds what the other built."""
    project.settle()
    (tmp_path / "way").symlink_to(project.root)
    code = "import os, sys; os.chdir(sys.argv.pop(1)); from pipeline.fastpath import main; sys.exit(main())"
    for place in (tmp_path / "way", project.root, tmp_path / "way"):
        env = {**project.env, "PWD": str(place)}
        words = [sys.executable, "-c", code, str(place), "compile", "link"]
        done = subprocess.run(words, check=True, env=env, capture_output=True, text=True)
        assert done.stdout == NOTHING


@pytest.mark.parametrize("name", ["circle.c", "nowhere.c", "gone/../../x.c"])
def test_a_named_source_that_is_none(project: FastPathProject, name: str) -> None:
    config = project.root / "deploy.toml"
    text = config.read_text()
    sources = next(path.parent for path in project.root.rglob("*.c"))
    for link, target in (("circle.c", "circle.c"), ("nowhere.c", "missing.c")):
        (sources / link).symlink_to(target)
    path = f"{sources.relative_to(project.root)}/{name}"
    config.write_text(text.replace("sources = [", f'sources = ["{path}", ', 1))
    done = project.run("doit", "compile", "link")
    for link in ("circle.c", "nowhere.c"):
        (sources / link).unlink()
    config.write_text(text)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert f"'{path}'" in done.stderr and "deploy.toml:" in done.stderr and "hint: " in done.stderr


def test_a_source_whose_name_no_depfile_can_say(project: FastPathProject) -> None:
    sources = next(path.parent for path in project.root.rglob("*.c"))
    for name in ("new\nline.c", "{root}.c", "{zig_dir}.c"):
        (sources / name).write_text("int odd;\n")
        done = project.run("doit", "compile", "link")
        (sources / name).unlink()
        assert done.returncode in (1, 2)
        assert "Traceback" not in done.stderr and "rename the file" in done.stderr, done.stderr


def test_a_listing_with_broken_links(tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text("")
    (tmp_path / "circle.c").symlink_to("circle.c")
    (tmp_path / "nowhere.c").symlink_to("missing/deep.c")
    (tmp_path / "there.c").symlink_to("a.c")
    (tmp_path / "directory.c").mkdir()
    listing = Listing(str(tmp_path))
    assert listing.match("*.c") == ["a.c", "there.c"]
    assert list(listing.absent) == [f"{tmp_path}/missing/deep.c"]
    assert listing.match("**") == ["a.c", "there.c"]
