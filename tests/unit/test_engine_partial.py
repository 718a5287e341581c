"""A partial graph of what a few moved files concern: which actions are left, and when it is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from cache.stamps import next_tick
from pipeline.engine.partial_graph import PartialGraph, partial_graph, same_files
from pipeline.engine.results import CHANGED
from pipeline.engine.usage_index import MANY, usage_index
from pipeline.fastpath.state import FastPathState
from pipeline.fastpath.watched import Watched
from pipeline.fastpath.whole_state import WholeRun
from pipeline.model import Action, Stage
from tests.unit.engine_space import EngineSpace, used_files


class Indexed:
    """A built project with its usage index."""

    def __init__(self, space: EngineSpace) -> None:
        assert space.build().ok
        engine = space.engine()
        used = used_files(engine.workspace)
        assert used is not None
        self.root = str(space.root)
        self.paths, self.index, self.records = list(used), usage_index(engine.workspace, list(used)), engine.records

    def after(self, *moved: str) -> PartialGraph | None:
        moved_places = {self.paths.index(path): path for path in moved}
        return partial_graph(self.index, moved_places, self.records, self.root)

    def names(self, *moved: str) -> list[str]:
        found = self.after(*moved)
        assert found is not None
        return [action.name for action in found.actions]


@pytest.fixture
def space(tmp_path: Path) -> EngineSpace:
    return EngineSpace(tmp_path / "project").sample()


LINKED = ["link", "image"]


def test_only_actions_that_a_moved_file_concerns_are_left(space: EngineSpace) -> None:
    indexed = Indexed(space)
    assert indexed.names("src/c.c") == ["compile src/c.c", *LINKED]
    assert indexed.names("inc/a.h", "src/c.c") == ["compile src/a.c", "compile src/b.c", "compile src/c.c", *LINKED]
    assert indexed.names("build/local-fast/obj/b.o") == ["compile src/b.c", *LINKED]
    assert indexed.names("build/local-fast/app.bin") == ["image"]


def test_an_action_comes_back_as_it_was_declared(space: EngineSpace) -> None:
    space.env = (("LANG", "C"),)
    indexed = Indexed(space)
    found = indexed.after("src/b.c")
    assert found is not None
    left = ["compile src/b.c", *LINKED]
    assert found.actions == tuple(action for action in space.actions() if action.name in left)
    assert found.tools == space.engine().workspace.steps.tools
    assert (found.skipped.inputs, found.skipped.actions[Stage.COMPILE], found.skipped.actions[Stage.LINK]) == (4, 2, 0)
    assert found.skipped.believed == {f"build/local-fast/obj/{name}.o" for name in "ac"}


def test_a_source_of_stage_link_is_left_to_the_whole_graph(space: EngineSpace) -> None:
    """A partition table, for one, says which images there are."""
    space.write("app.ld", "/* script */\n")
    space.change = lambda a: a._replace(inputs=(*a.inputs, "app.ld")) if a.name == "link" else a
    assert Indexed(space).after("app.ld") is None


def test_a_path_that_an_action_names_more_than_once_is_one_use(space: EngineSpace) -> None:
    again = ("inc/a.h",) * (MANY + 1)
    space.change = lambda a: a._replace(inputs=(*a.inputs, *again)) if a.name == "compile src/a.c" else a
    assert Indexed(space).names("inc/a.h") == ["compile src/a.c", "compile src/b.c", *LINKED]


def test_what_a_moved_generator_makes_concerns_its_users(space: EngineSpace) -> None:
    actions = space.actions

    def with_generator() -> Sequence[Action]:
        argv = ("ld", "-o", "inc/g.h", "src/seed")
        made = Action("gen", Stage.COMPILE, ("src/seed",), ("inc/g.h",), argv)
        return [made, *actions()]

    space.write("src/seed", "seed\n")
    space.actions = with_generator  # type: ignore[method-assign,assignment]
    assert set(Indexed(space).names("src/seed")) == {"gen", *LINKED, *(f"compile src/{n}.c" for n in "abc")}


def test_a_file_of_many_is_left_to_the_whole_graph(space: EngineSpace) -> None:
    for n in range(MANY + 1):
        space.write(f"src/many{n}.c", '#include "many.h"\n')
    space.write("inc/many.h", "int many;\n")
    indexed = Indexed(space)
    assert indexed.after("inc/many.h") is None
    assert indexed.after(*(f"src/many{n}.c" for n in range(MANY + 1))) is None
    assert indexed.names("src/many7.c") == ["compile src/many7.c", *LINKED]


def test_without_its_record_an_action_cannot_come_back(space: EngineSpace) -> None:
    indexed = Indexed(space)
    indexed.records.drop("local-fast:compile src/a.c")
    assert indexed.after("src/a.c") is None and indexed.after("src/b.c") is not None


def test_the_partial_engine_counts_all_and_forgets_nothing(space: EngineSpace) -> None:
    indexed = Indexed(space)
    space.write("src/b.c", (space.root / "src/b.c").read_text() + "int other;\n")
    found = indexed.after("src/b.c")
    assert found is not None
    engine = space.engine(found.actions, found.skipped)
    assert [reason.subject for reason in engine.peek().reasons] == ["src/b.c"]
    scanned = engine.scan()
    assert scanned.counts == {"inputs": 4, "read": 1, "changed": 1, "missing": 0}
    result = engine.run(Stage.COMPILE, lambda label, done, total: None)
    assert result.counts["compiled"] == 1 and result.counts["up_to_date"] == 2 and sum(result.counts.values()) == 3
    assert space.engine().records.names() == indexed.records.names()
    linked = engine.run(Stage.LINK, lambda label, done, total: None)
    assert linked.counts["linked"] == 1 and linked.counts["up_to_date"] == 0 and sum(linked.counts.values()) == 2
    assert same_files(found, engine.records)
    assert space.build().nothing


def test_other_files_read_are_seen(space: EngineSpace) -> None:
    indexed = Indexed(space)
    space.write("inc/new.h", "int made;\n")
    space.write("src/b.c", '#include "new.h"\n')
    found = indexed.after("src/b.c")
    assert found is not None
    engine = space.engine(found.actions, found.skipped)
    assert engine.run(Stage.COMPILE, lambda label, done, total: None).ok
    assert not same_files(found, engine.records)


def test_an_object_that_somebody_changes_while_it_is_linked_keeps_the_link_from_being_recorded(
    space: EngineSpace,
) -> None:
    """It is not looked at before, since nothing had moved; but it is after, and the next build mends it."""
    indexed = Indexed(space)
    space.write("src/b.c", "int other;\n")
    found = indexed.after("src/b.c")
    assert found is not None
    engine = space.engine(found.actions, found.skipped)
    assert engine.run(Stage.COMPILE, lambda label, done, total: None).ok
    (space.root / "build/local-fast/obj/a.o").write_bytes(b"somebody's")
    linked = engine.run(Stage.LINK, lambda label, done, total: None)
    assert any(note.kind == CHANGED for note in linked.notes), linked
    mended = space.build()
    assert mended.ran == ["ld build/local-fast/app.elf"] and space.build().nothing
    assert b"somebody's" not in space.outputs()["build/local-fast/app.elf"]


def moved_of(root: Path, monkeypatch: pytest.MonkeyPatch, watched: Watched, *moved: str) -> tuple[bool, bool]:
    """(the actions are what they were, a survey is given) after these files moved."""
    next_tick()
    space = EngineSpace(root).sample()
    space.build()
    engine = space.engine()
    used = used_files(engine.workspace)
    assert used is not None
    monkeypatch.chdir(root)
    monkeypatch.setattr("pipeline.fastpath.whole_state._process_start_ns", lambda: 1 << 62)
    assert FastPathState(root, "").record(
        WholeRun(engine.table, used.items(), (), watched, {}, lambda paths: usage_index(engine.workspace, paths))
    )
    for path in moved:
        space.write(path, "int moved;\n")
    state = FastPathState(root, "")
    return state.lasting_facts() is not None, state.usage_index() is not None


def test_a_survey_is_given_when_only_files_of_actions_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = Watched({})
    assert moved_of(tmp_path / "a", monkeypatch, nothing, "src/a.c") == (True, True)
    assert moved_of(tmp_path / "b", monkeypatch, nothing) == (True, False), "nothing moved: the fast path's answer"
    also = Watched({}, (), (str(tmp_path / "c" / "src/a.c"),))
    assert moved_of(tmp_path / "c", monkeypatch, also, "src/b.c") == (True, True)
    also = Watched({}, (), (str(tmp_path / "d" / "src/a.c"),))
    assert moved_of(tmp_path / "d", monkeypatch, also, "src/a.c") == (False, False), "the configuration reads it too"


def test_a_survey_of_another_run_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert moved_of(tmp_path, monkeypatch, Watched({}), "src/a.c") == (True, True)
    survey_file = tmp_path / ".deploy/fastpath.v1/-.usage"
    mine = survey_file.read_bytes()
    engine = EngineSpace(tmp_path).engine()
    FastPathState(tmp_path, "").record(WholeRun(engine.table, (), (), Watched({}), {}, lambda paths: b""))
    assert survey_file.read_bytes() != mine
    survey_file.write_bytes(mine)
    assert FastPathState(tmp_path, "").usage_index() is None
