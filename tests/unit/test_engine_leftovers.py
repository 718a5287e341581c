"""What actions made and make no more: removed before the next action runs, unless somebody else wrote there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.engine.decision import Fate
from pipeline.engine.forecast import forecast
from pipeline.model import Action, Stage
from tests.unit.engine_space import Built, EngineSpace

HEADER = "build/gen/g.h"


def generator(name: str, output: str, seed: str = "gen/seed") -> Action:
    words = ("cc", "-o", output, "-MF", f"{output}.d", seed)
    return Action(name, Stage.COMPILE, (seed,), (output,), words, depfile=f"{output}.d")


class LeftoverSpace(EngineSpace):
    """A project with generators; `gen` and `inc` are searched, in this order."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.generators: list[Action] = [generator("gen", HEADER)]
        self.search = ("build/gen", "inc")
        self.write("gen/seed", "int generated;\n")
        self.write("src/a.c", '#include "g.h"\n')
        self.write("inc/g.h", "int own;\n")

    def actions(self) -> list[Action]:
        return [*super().actions(), *self.generators]

    def object(self, name: str = "a") -> bytes:
        return self.outputs()[f"build/{self.profile}/obj/{name}.o"]


@pytest.fixture
def space(tmp_path: Path) -> LeftoverSpace:
    space = LeftoverSpace(tmp_path / "project")
    assert space.build().ok and space.object() == b"int generated;"
    return space


def settled(space: EngineSpace) -> Built:
    """Build, and then have nothing to do."""
    built = space.build()
    assert built.ok and all(not result.notes for result in built.results)
    assert space.build().nothing
    return built


def test_a_header_that_nobody_makes_any_more_is_not_read(space: LeftoverSpace) -> None:
    space.generators = []
    engine = space.engine()
    assert [reason.subject for reason in engine.verdict(Stage.COMPILE).reasons] == [f"compile src/a.c: {HEADER}"]
    assert {one.action.name: one.fate for one in forecast(engine.workspace)}["compile src/a.c"] is Fate.RUN
    assert "src/a.c" in settled(space).ran
    assert space.object() == b"int own;"
    assert not (space.root / "build/gen").exists(), "an empty directory is nobody's product"


@pytest.mark.parametrize("name", ["gen", "renamed"])
def test_an_output_or_an_action_is_renamed(space: LeftoverSpace, name: str) -> None:
    space.generators = [generator(name, "build/gen/other.h")]
    settled(space)
    assert space.object() == b"int own;"
    assert sorted(path for path in space.outputs() if path.startswith("build/gen/")) == ["build/gen/other.h"]


def test_a_renamed_action_keeps_its_output(space: LeftoverSpace) -> None:
    space.generators = [generator("renamed", HEADER)]
    assert settled(space).ran == [], "the cache knows it"
    assert space.object() == b"int generated;"


def test_an_object_of_a_removed_source_goes(space: LeftoverSpace) -> None:
    space.write("src/b.c", "int b;\n")
    settled(space)
    (space.root / "src/b.c").unlink()
    settled(space)
    assert "build/local-fast/obj/b.o" not in space.outputs()


def test_other_profiles_lose_what_no_profile_makes(space: LeftoverSpace) -> None:
    space.generators.append(generator("more", "build/gen/more.h"))
    space.profile = "release"
    settled(space)
    space.generators.pop()
    space.profile = "local-fast"
    space.write("src/a.c", '#include "g.h"\nint more;\n')
    settled(space)
    assert "build/gen/more.h" not in space.outputs()
    assert "build/release/app.elf" in space.outputs(), "that profile makes it still"


def test_a_file_that_somebody_else_wrote_stays(space: LeftoverSpace) -> None:
    space.generators = []
    space.write(HEADER, "int by_hand;\n")
    space.write("build/notes.txt", "mine\n")
    settled(space)
    assert space.object() == b"int by_hand;"
    assert (space.root / "build/notes.txt").read_text() == "mine\n"


@pytest.mark.parametrize("link", ["file", "directory"])
def test_nothing_outside_of_build_is_removed(space: LeftoverSpace, link: str) -> None:
    """The product was put elsewhere, and a link leads there."""
    made, elsewhere = space.root / HEADER, space.root / "kept/g.h"
    elsewhere.parent.mkdir()
    made.rename(elsewhere)
    if link == "file":
        made.symlink_to(elsewhere)
    else:
        made.parent.rmdir()
        made.parent.symlink_to(elsewhere.parent)
    space.generators = []
    settled(space)
    assert elsewhere.read_text() == "int generated;"


def test_what_a_killed_run_left_goes(space: LeftoverSpace) -> None:
    """It has no record, and what it holds is anybody's guess."""
    space.generators.append(generator("late", "build/gen/late.h", "gen/late"))
    space.write("gen/late", "int late;\n")

    def kill(name: str) -> None:
        if name == "gen/late":
            (space.root / "build/gen/late.h").write_text("half")
            os._exit(9)

    child = os.fork()
    if child == 0:
        space.tools.during = kill
        space.build()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert (space.root / "build/gen/late.h").read_text() == "half"
    space.generators.pop()
    space.write("src/a.c", '#include "g.h"\nint more;\n')
    settled(space)
    assert "build/gen/late.h" not in space.outputs()


def test_what_cannot_be_removed_is_said(space: LeftoverSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.errors import StoreError

    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    space.generators = []
    monkeypatch.setattr("pipeline.engine.workspace.os.unlink", refuse)
    with pytest.raises(StoreError, match="no action makes it any more, and it cannot be removed: Permission denied"):
        space.build()


def test_a_failed_action_leaves_nothing_behind(space: LeftoverSpace) -> None:
    space.write("gen/seed", "#error\n")
    assert not space.build().ok
    space.generators = []
    settled(space)
    assert space.object() == b"int own;"
