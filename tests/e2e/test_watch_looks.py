"""When `doit watch` finds out anew what matters: not at an edit of a known file, which may be one of ten thousand."""

from __future__ import annotations

import io
from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

import pytest

from pipeline.editor import watch as watch_module
from pipeline.editor.watch import FilesSaved, WatchLoop
from pipeline.editor.watch_set import watch_set
from pipeline.effects.clock import SystemClock
from pipeline.effects.file_events import DirectoryWatcher
from pipeline.run.options import Options
from tests.e2e.test_fastpath import FastPathProject


class NoWatcher:
    """What is watched."""

    def __init__(self) -> None:
        self.directories: Collection[str] = ()

    def watch(self, directories: Collection[str]) -> bool:
        self.directories = directories
        return True


class Looks:
    """A loop of `doit watch` without its thread: `saved` is what the system reports, `built` the end of a build."""

    def __init__(self, project: FastPathProject, monkeypatch: pytest.MonkeyPatch) -> None:
        self.project = project
        self.count = 0

        def counted(root: Path, options: Options) -> Any:
            self.count += 1
            return watch_set(root, options)

        monkeypatch.setattr(watch_module, "watch_set", counted)
        self.watcher = cast(DirectoryWatcher, NoWatcher())
        self.loop = WatchLoop(project.root, Options(), deploy=False, out=io.StringIO(), clock=SystemClock())
        self.loop._look(self.watcher)
        self.count = 0

    def saved(self, path: Path, text: str) -> bool:
        """Would a build begin? As `_await` and `_build` go on then."""
        path.write_text(text)
        self.loop._take(FilesSaved(frozenset([str(path)])))
        stale = self.loop._stale
        if stale and self.loop._odd:
            self.loop._look(self.watcher)
        self.loop._stale = False
        return stale

    def built(self) -> None:
        done = self.project.run("hotplate", "compile", "link")
        assert done.returncode == 0, done.stdout + done.stderr
        self.loop._look_again(self.watcher)

    def found(self) -> int:
        found, self.count = self.count, 0
        return found


@pytest.fixture
def project(tmp_path: Path) -> FastPathProject:
    project = FastPathProject(tmp_path)
    source = project.root / "src/d000/u00001.c"
    source.write_text('#include "h00.h"\nint one;\n')
    project.settle()
    return project


def test_an_edit_of_a_known_file_is_built_at_once(project: FastPathProject, monkeypatch: pytest.MonkeyPatch) -> None:
    source = project.root / "src/d000/u00001.c"
    with project.inside():
        looks = Looks(project, monkeypatch)
        for n in range(2):
            assert looks.saved(source, f'#include "h00.h"\nint edited{n};\n')
            looks.built()
            assert looks.found() == 0, n
        # What says which files matter.
        config = project.root / "deploy.toml"
        assert looks.saved(config, config.read_text() + "\n# saved\n") and looks.found() == 1


def test_a_file_that_is_new_or_gone_is_looked_into(project: FastPathProject, monkeypatch: pytest.MonkeyPatch) -> None:
    with project.inside():
        looks = Looks(project, monkeypatch)
        assert looks.saved(project.root / "src/d000/new.c", "int made;\n") and looks.found() >= 1
        looks.built()
        assert looks.found() >= 1
        assert looks.saved(project.root / "src/d000/new.c", "int made_again;\n") and looks.found() == 0
        looks.built()
        looks.found()
        (project.root / "src/d000/new.c").unlink()
        looks.loop._take(FilesSaved(frozenset([str(project.root / "src/d000/new.c")])))
        assert looks.loop._stale and looks.loop._odd


def test_a_header_that_would_shadow_another_is_a_save(
    project: FastPathProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after an edit that left the places unknown where one would be found first."""
    source = project.root / "src/d000/u00001.c"
    with project.inside():
        looks = Looks(project, monkeypatch)
        assert looks.saved(source, '#include "h00.h"\nint edited;\n')
        looks.built()
        assert looks.saved(source.with_name("h00.h"), "int shadow;\n")


def test_what_does_not_matter_changes_nothing(project: FastPathProject, monkeypatch: pytest.MonkeyPatch) -> None:
    with project.inside():
        looks = Looks(project, monkeypatch)
        assert not looks.saved(project.root / "notes.txt", "words")
        looks.found()
        assert looks.saved(project.root / "src/d000/u00001.c", '#include "h00.h"\nint edited;\n') and looks.found() == 0
