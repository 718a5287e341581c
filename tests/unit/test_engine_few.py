"""An edit of one unit among many: what the engine of a few actions takes for granted, reads of the state and writes."""

from __future__ import annotations

import errno
from collections.abc import Collection
from pathlib import Path

import pytest

from cache import statefile
from cache.digest import ActionKey
from pipeline.effects.clock import SystemClock
from pipeline.engine.engine import Engine
from pipeline.engine.facts import looked_at
from pipeline.engine.inputs import Command
from pipeline.engine.keys import command_key
from pipeline.engine.record_rows import MANY_INPUTS
from pipeline.engine.results import CHANGED, RunResult
from pipeline.engine.saved_state import (
    MORE_KIND,
    MORE_NAME,
    STATE_KIND,
    STATE_NAME,
    Saved,
    load_lazily,
    load_of,
    load_saved,
)
from pipeline.engine.workspace import BuildSteps, Directories, Host
from pipeline.model import Stage, Tool
from tests.unit.engine_space import EngineSpace, used_files
from tests.unit.test_engine_partial import Indexed

LINK = "local-fast:link"
OTHER = "build/local-fast/obj/u07.o"


class FewSpace(EngineSpace):
    """More units than an action may have inputs that are looked at one by one."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.write("inc/a.h", "int h;\n")
        for n in range(MANY_INPUTS + 10):
            self.write(f"src/u{n:02}.c", f'#include "a.h"\nint u{n};\n')
        self.indexed = Indexed(self)
        self.save_rows()
        self.asked = 0

    @property
    def state(self) -> Path:
        return self.root / ".deploy"

    def save_rows(self) -> None:
        self.engine().workspace.save_rows()

    def few(self, *moved: str, products: Collection[str] | None = (), saved: Saved | None = None) -> Engine:
        """The engine of what these concern, that knows no more of the state than it asks for. `products`: what the fast
        path says to have moved below build/ when it is asked."""
        found = self.indexed.after(*moved)
        assert found is not None

        def moved_products() -> Collection[str] | None:
            self.asked += 1
            return products

        saved = load_lazily(self.state) if saved is None else saved
        assert saved is not None
        return Engine(
            Directories(self.root, self.state, self.cache),
            BuildSteps(
                found.actions, {n: Tool(n, f"/opt/{n}", "1", self.identity) for n in ("cc", "ld")}, self.builtins, {}
            ),
            Host(self.tools, SystemClock(), 2),
            saved,
            found.skipped._replace(moved_products=moved_products),
        )


def built(engine: Engine) -> list[RunResult]:
    engine.scan()
    return [engine.run(stage, lambda label, done, total: None) for stage in (Stage.COMPILE, Stage.LINK)]


@pytest.fixture
def space(tmp_path: Path) -> FewSpace:
    return FewSpace(tmp_path / "project")


def test_the_link_gets_the_key_that_a_look_at_each_object_gives(space: FewSpace, tmp_path: Path) -> None:
    space.write("src/u03.c", "int edited;\n")
    engine = space.few("src/u03.c")
    assert all(result.ok for result in built(engine)) and space.asked == 1
    ours = engine.records.get(LINK)
    whole = EngineSpace(tmp_path / "whole")
    for path in [*(space.root / "src").iterdir(), *(space.root / "inc").iterdir()]:
        whole.write(str(path.relative_to(space.root)), path.read_text())
    assert whole.build().ok
    assert ours == whole.engine().records.get(LINK) and ours is not None
    assert space.outputs() == whole.outputs() and space.build().nothing


def test_a_large_link_asks_nothing_again_of_what_is_believed(space: FewSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither before it starts nor for the state that the fast path gets."""
    space.write("src/u03.c", "int edited;\n")
    engine = space.few("src/u03.c")
    engine.scan()
    assert engine.run(Stage.COMPILE, lambda label, done, total: None).ok
    seen: list[str] = []
    resolve = engine.workspace.resolve

    def counted(path: str) -> str:
        seen.append(path)
        return resolve(path)

    monkeypatch.setattr(engine.workspace, "resolve", counted)
    assert engine.run(Stage.LINK, lambda label, done, total: None).ok
    assert "build/local-fast/obj/u03.o" in seen and OTHER not in seen
    found = looked_at(engine.workspace)
    assert found is not None and OTHER not in found
    everything = used_files(engine.workspace)
    assert everything is not None and found == {path: everything[path] for path in found}


def test_the_command_of_a_large_link_is_not_encoded_again(space: FewSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is what it was; only what its inputs hold is another."""
    asked: list[Command] = []

    def counted(command: Command) -> ActionKey:
        asked.append(command)
        return command_key(command)

    monkeypatch.setattr("pipeline.engine.decision.command_key", counted)
    for n in range(2):
        space.write("src/u03.c", f"int edited{n};\n")
        compiled, linked = built(space.few("src/u03.c"))
        assert compiled.executed and linked.executed
        assert {len(command.inputs) for command in asked} == {1}, "of the compile alone"
        space.indexed = Indexed(space)
        space.save_rows()


@pytest.mark.parametrize("told", [True, False])
def test_an_object_that_changes_meanwhile_keeps_a_large_link_from_being_recorded(space: FewSpace, told: bool) -> None:
    """Whether the fast path tells, or each is looked at since it cannot."""
    space.write("src/u03.c", "int edited;\n")
    engine = space.few("src/u03.c", products=[OTHER] if told else None)
    engine.scan()
    assert engine.run(Stage.COMPILE, lambda label, done, total: None).ok
    (space.root / OTHER).write_bytes(b"somebody's")
    linked = engine.run(Stage.LINK, lambda label, done, total: None)
    assert any(note.kind == CHANGED for note in linked.notes), linked
    mended = space.build()
    assert "ld build/local-fast/app.elf" in mended.ran and space.build().nothing
    assert b"somebody's" not in space.outputs()["build/local-fast/app.elf"]


def test_an_object_that_is_gone_meanwhile_is_no_input(space: FewSpace) -> None:
    space.write("src/u03.c", "int edited;\n")
    engine = space.few("src/u03.c", products=None)
    engine.scan()
    assert engine.run(Stage.COMPILE, lambda label, done, total: None).ok
    space.tools.during = lambda name: (space.root / OTHER).unlink(missing_ok=True)
    assert not engine.run(Stage.LINK, lambda label, done, total: None).ok
    space.tools.during = lambda name: None
    assert space.build().ok and space.build().nothing


# --- the state --------------------------------------------------------------------------------


def test_what_is_read_by_name_is_what_the_whole_says(space: FewSpace) -> None:
    lazy, whole = load_lazily(space.state), load_saved(space.state)
    assert lazy is not None and len(lazy.records.names()) == 0
    for name in whole.records.names():
        assert lazy.records.get(name) == whole.records.get(name)
    assert [lazy.stamps[0].get(path) for path in whole.stamps[0]] == list(whole.stamps[0].values())
    assert lazy.records.get("local-fast:compile src/none.c") is None


def test_an_edit_writes_what_it_changed_beside_the_state(space: FewSpace) -> None:
    before = (space.state / STATE_NAME).read_bytes()
    space.write("src/u03.c", "int edited;\n")
    assert all(result.ok for result in built(space.few("src/u03.c")))
    assert (space.state / STATE_NAME).read_bytes() == before
    more, _ = statefile.load(space.state / MORE_NAME, MORE_KIND)
    assert set(more[3]) == {"local-fast:compile src/u03.c", LINK, "local-fast:image"}
    # A second one adds to it.
    space.write("src/u05.c", "int edited_too;\n")
    assert all(result.ok for result in built(space.few("src/u05.c")))
    more, _ = statefile.load(space.state / MORE_NAME, MORE_KIND)
    assert {"local-fast:compile src/u03.c", "local-fast:compile src/u05.c"} < set(more[3])
    assert space.build().nothing
    # The next that writes all of it needs it no more.
    space.write("inc/a.h", "int other;\n")
    assert space.build().ok
    assert not (space.state / MORE_NAME).exists() and space.build().nothing


def test_changes_of_another_state_are_not_believed(space: FewSpace) -> None:
    space.write("src/u03.c", "int edited;\n")
    assert all(result.ok for result in built(space.few("src/u03.c")))
    more = (space.state / MORE_NAME).read_bytes()
    space.write("src/u05.c", "int edited_too;\n")
    assert space.build().ok
    state = load_saved(space.state)
    (space.state / MORE_NAME).write_bytes(more)
    assert load_saved(space.state).records.plain() == state.records.plain()
    assert load_lazily(space.state) is None, "the rows are of the state before"
    assert space.build().nothing


def test_many_changes_are_written_into_the_state(space: FewSpace) -> None:
    """By an engine that has read all of it."""
    moved = [f"src/u{n:02}.c" for n in range(MANY_INPUTS - 2)]
    for n, path in enumerate(moved):
        space.write(path, f"int edited{n};\n")
    before = (space.state / STATE_NAME).read_bytes()
    assert all(result.ok for result in built(space.few(*moved, saved=load_saved(space.state))))
    assert (space.state / STATE_NAME).read_bytes() != before and not (space.state / MORE_NAME).exists()
    assert space.build().nothing


@pytest.mark.parametrize("name", [MORE_NAME, "stamps.v1.rows", "stamps.v1.index"])
def test_damage_of_a_file_beside_the_state_costs_work_alone(space: FewSpace, name: str) -> None:
    space.write("src/u03.c", "int edited;\n")
    assert all(result.ok for result in built(space.few("src/u03.c")))
    outputs = space.outputs()
    path = space.state / name
    whole = path.read_bytes()
    for other in (b"", whole[:-1], whole[: len(whole) // 2], bytes(byte ^ 0x55 for byte in whole)):
        path.write_bytes(other)
        saved = load_lazily(space.state)
        known = load_saved(space.state).records
        for record in known.names() if saved is not None else ():
            assert saved is not None and saved.records.get(record) in (None, known.get(record))
        assert space.build().ok and space.outputs() == outputs and space.build().nothing
        path.write_bytes(whole)
    path.unlink()
    assert space.build().ok and space.outputs() == outputs


def test_a_state_of_another_version_has_no_rows(space: FewSpace) -> None:
    path = space.state / STATE_NAME
    value, _ = statefile.load(path, STATE_KIND)
    path.write_bytes(statefile.encode("stamps 9 actions 9", value))
    assert load_lazily(space.state) is None
    assert load_saved(space.state).stamps is None


# --- which state it is ------------------------------------------------------------------------


def test_the_names_of_a_state_are_those_of_what_was_loaded_and_of_what_was_written(space: FewSpace) -> None:
    loaded = load_saved(space.state).names
    assert loaded[0] and not loaded[1] and load_of(space.state, loaded) is not None
    space.write("src/u03.c", "int edited;\n")
    engine = space.few("src/u03.c")
    assert engine.workspace.saved_names() == loaded
    assert all(result.ok for result in built(engine))
    edited = engine.workspace.saved_names()
    assert edited is not None and edited[0] == loaded[0] and edited[1]
    for saved in (load_of(space.state, edited), load_lazily(space.state), load_saved(space.state)):
        assert saved is not None and saved.names == edited
    assert load_of(space.state, loaded) is None and load_of(space.state, None) is None
    space.write("inc/a.h", "int other;\n")
    engine = space.engine()
    assert all(result.ok for result in built(engine))
    whole = engine.workspace.saved_names()
    assert whole is not None and whole[0] != loaded[0] and whole == load_saved(space.state).names


@pytest.mark.parametrize("damage", [b"", b"x", None])
def test_a_state_of_which_a_part_was_lost_is_another(space: FewSpace, damage: bytes | None) -> None:
    space.write("src/u03.c", "int edited;\n")
    engine = space.few("src/u03.c")
    assert all(result.ok for result in built(engine))
    names = engine.workspace.saved_names()
    path = space.state / MORE_NAME
    whole = path.read_bytes()
    path.unlink() if damage is None else path.write_bytes(whole[:-1] + damage)
    assert load_of(space.state, names) is None
    path.write_bytes(whole)
    assert load_of(space.state, names) is not None


def test_what_could_not_be_written_has_no_names(space: FewSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*what: object) -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device")

    space.write("src/u03.c", "int edited;\n")
    before = load_saved(space.state).names
    engine = space.few("src/u03.c")
    with monkeypatch.context() as patch:
        patch.setattr(statefile, "save", full)
        assert all(result.ok for result in built(engine))
        assert engine.workspace.saved_names() is None and engine.notes
    assert load_saved(space.state).names == before != engine.workspace.saved_names() == load_saved(space.state).names


@pytest.mark.parametrize("asks", ["for rows", "for names"])
def test_rows_that_were_lost_are_not_written_beside_an_older_state(space: FewSpace, asks: str) -> None:
    """They would be those of an edit since, and what the next edit changes would be said beside them."""
    before = (space.root / "src/u03.c").read_text()
    for name in ("stamps.v1.rows", "stamps.v1.index"):
        (space.state / name).unlink()
    space.write("src/u03.c", "int edited;\n")
    assert all(result.ok for result in built(space.few("src/u03.c", saved=load_saved(space.state))))
    assert (space.state / MORE_NAME).exists()
    engine = space.engine()
    names = engine.workspace.saved_names() if asks == "for names" else None
    engine.workspace.save_rows()
    assert names in (None, load_saved(space.state).names), "what the fast path was told is what lies there"
    assert not (space.state / MORE_NAME).exists() and load_lazily(space.state) is not None
    space.write("src/u05.c", "int edited_too;\n")
    engine = space.few("src/u05.c")
    assert all(result.ok for result in built(engine))
    lazy, whole = load_lazily(space.state), load_saved(space.state)
    assert lazy is not None and lazy.records.get(LINK) == whole.records.get(LINK) == engine.records.get(LINK)
    space.write("src/u03.c", before)
    assert "ld build/local-fast/app.elf" in space.build().ran and space.build().nothing
    assert b"int edited;" not in space.outputs()["build/local-fast/app.elf"]
