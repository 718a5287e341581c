"""Compiles that one thread waits for: what is looked at once for several of them, and in which order things happen."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from cache.actions import ActionCache, ActionResult
from cache.digest import ActionKey
from cache.stamps import Entry, StampTable
from pipeline.engine.results import CHANGED
from pipeline.model import Stage
from tests.unit.engine_space import EngineSpace


@pytest.fixture
def space(tmp_path: Path) -> EngineSpace:
    space = EngineSpace(tmp_path / "project").sample()
    for name in "defghijklmnopqrstuvw":
        space.write(f"src/{name}.c", f'#include "a.h"\nint {name};\n')
    return space


def test_a_header_that_is_edited_between_two_ends(space: EngineSpace) -> None:
    """The results of those that had read it before are as worthless as that of the one under way: one look after the
    edit tells that for all of them, and the next run makes them again."""
    edited: list[str] = []

    def during(name: str) -> None:
        if name == "src/k.c" and not edited:
            edited.append(name)
            space.write("inc/a.h", "int edited;\n")

    space.tools.during = during
    built = space.build()
    notes = {note.subject for result in built.results for note in result.notes if note.kind == CHANGED}
    assert "compile src/k.c: inc/a.h" in notes
    assert built.ok and space.build().nothing
    for path, data in space.outputs().items():
        stem = Path(path).stem
        if path.endswith(".o") and stem != "c":
            assert data == f"int edited;\nint {stem};".encode(), path


def test_a_look_is_believed_only_for_what_had_ended_before_it(space: EngineSpace) -> None:
    """An edit after the first results were looked at, while the last compile runs, moves that one alone."""
    edited: list[str] = []

    def during(name: str) -> None:
        if name == "src/w.c" and not edited:
            edited.append(name)
            space.write("inc/a.h", "int edited;\n")

    space.tools.during = during
    built = space.build()
    assert any(note.subject == "compile src/w.c: inc/a.h" for result in built.results for note in result.notes)
    assert built.ok and not edited[1:]
    again = space.build()
    assert again.nothing or again.ok
    assert space.build().nothing
    for path, data in space.outputs().items():
        stem = Path(path).stem
        if path.endswith(".o") and stem != "c":
            assert data == f"int edited;\nint {stem};".encode(), path


def test_after_a_failure_nothing_starts(space: EngineSpace) -> None:
    space.write("src/b.c", "#error\n")
    built = space.build()
    assert not built.ok and len(built.ran) <= 6  # two beside it, and two that waited for a worker
    assert built.count("failed") == 1 and built.count("not_run") > 0
    assert not (space.root / "build/local-fast/obj/b.o").exists()


def test_what_has_ended_is_kept_when_the_run_is_interrupted(space: EngineSpace) -> None:
    """What was under way leaves nothing behind; what had ended is not made again."""

    def during(name: str) -> None:
        if name == "src/m.c":
            raise KeyboardInterrupt

    space.tools.during = during
    with pytest.raises(KeyboardInterrupt):
        space.build()
    assert not (space.root / "build/local-fast/obj/m.o").exists()
    made = len(list((space.root / "build").rglob("*.o")))
    space.tools.during = lambda name: None
    again = space.build()
    assert again.ok and made > 0 and sum(name.endswith(".c") for name in again.ran) == 23 - made


def test_headers_are_looked_at_once_for_what_ended_together(
    space: EngineSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []
    are_still = StampTable.are_still

    def counted(table: StampTable, places: Sequence[str], entries: Sequence[Entry]) -> bool:
        looks.extend(place for place in places if place.endswith("inc/a.h"))
        return are_still(table, places, entries)

    monkeypatch.setattr(StampTable, "are_still", counted)
    assert space.build().count("compiled") == 23
    assert len(looks) <= 4


def test_the_next_starts_before_what_has_ended_is_booked(space: EngineSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    record = ActionCache.record

    def counted(cache: ActionCache, key: ActionKey, result: ActionResult) -> None:
        started.append(len(space.tools.ran))
        record(cache, key, result)

    monkeypatch.setattr(ActionCache, "record", counted)
    assert space.build().ok
    assert started[0] >= 4  # two workers: the first two have ended, and two more run


def test_a_header_that_is_edited_just_before_a_compile_starts(space: EngineSpace) -> None:
    """Within the thousandths for which one instant serves: whether the result counts or is made once more, it is that
    of what lies there."""
    space.write("src/x.c", '#include "x.h"\nint x;\n')
    space.write("inc/x.h", "int before;\n")

    def during(name: str) -> None:
        if name == "src/w.c":  # the one before it
            space.write("inc/x.h", "int after;\n")
            space.tools.during = lambda name: None

    space.tools.during = during
    assert space.build().ok
    assert space.build().nothing
    assert space.outputs()["build/local-fast/obj/x.o"] == b"int after;\nint x;"


def test_while_others_work_this_thread_does_something_once(space: EngineSpace) -> None:
    """And nothing when there is nothing to wait for."""
    done: list[str] = []
    told = threading.Event()

    def meanwhile() -> None:
        done.append("meanwhile")
        told.set()

    space.tools.during = lambda name: done.append("waited") if name.startswith("build/") and told.wait(60) else None
    engine = space.engine()
    assert engine.run(Stage.COMPILE, lambda label, done, total: None).ok and not done
    assert engine.run(Stage.LINK, lambda label, done, total: None, meanwhile=meanwhile).ok
    assert done == ["meanwhile", "waited"]
    assert space.engine().run(Stage.LINK, lambda label, done, total: None, meanwhile=meanwhile).ok
    assert done == ["meanwhile", "waited"]
