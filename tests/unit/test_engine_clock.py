"""Builds on a file server whose clock is not this machine's: an edit while an action runs is never recorded as seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from cache.fileclock import FileClock
from pipeline.engine.symlinks import link_made_since
from pipeline.fastpath import watched
from tests.unit.engine_space import EngineSpace
from tests.unit.file_server import FileServer
from tests.unit.test_cache_fileclock import LONG_TICK_NS, SKEWS, elsewhere

__all__ = ["elsewhere"]

PLACES = ["one file system", "build/ elsewhere", "build/ elsewhere, served"]


@pytest.fixture(params=PLACES)
def space(request: pytest.FixtureRequest, tmp_path: Path, elsewhere: Path) -> EngineSpace:
    space = EngineSpace(tmp_path / "project")
    if request.param != PLACES[0]:
        (space.root / "build").symlink_to(elsewhere)
    space.sample()
    space.write("src/c.c", '#include "c.h"\nint c;\n')
    space.write("inc/c.h", "int one;\n")
    return space


def served(space: EngineSpace, request: pytest.FixtureRequest) -> int | None:
    """The device whose clock is another, None for all."""
    place = request.node.callspec.params["space"]
    return None if place == PLACES[0] else (space.root / ("" if place == PLACES[1] else "build")).stat().st_dev


@pytest.mark.parametrize("behind_s", SKEWS)
def test_a_header_edited_while_it_was_compiled_is_compiled_again(
    space: EngineSpace, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, behind_s: float
) -> None:
    """It was discovered by this very compilation, so that only its stamp can tell."""
    FileServer(monkeypatch, behind_s, device=served(space, request))

    def edit(name: str) -> None:
        if name == "src/c.c":
            space.write("inc/c.h", "int two;\n")

    space.tools.during = edit
    first = space.build()
    assert [note.kind for result in first.results for note in result.notes] == ["changed while it was used"]
    space.tools.during = lambda name: None
    second = space.build()
    assert second.ok and second.count("compiled") == 1 and "src/c.c" in second.ran
    assert b"int two;" in (space.root / "build/local-fast/obj/c.o").read_bytes()
    assert space.build().nothing


@pytest.mark.parametrize("behind_s", SKEWS)
def test_what_was_there_before_is_recorded_at_once(
    space: EngineSpace, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, behind_s: float
) -> None:
    """Also on a server that is ahead, by whose stamps everything was written after the start."""
    FileServer(monkeypatch, behind_s, device=served(space, request))
    space.write("inc/a.h", "int moved;\n")
    first = space.build()
    assert first.ok and first.count("compiled") == 3 and not [note for r in first.results for note in r.notes]
    space.write("src/a.c", '#include "a.h"\nint again;\n')
    second = space.build()
    assert second.count("compiled") == 1 and not [note for result in second.results for note in result.notes]
    engine = space.engine()
    assert space.build().nothing
    engine.peek()
    assert engine.table.files_read == 0, "all is settled"


@pytest.mark.parametrize("behind_s", SKEWS)
def test_an_edit_in_the_tick_of_the_build_is_seen(
    space: EngineSpace, monkeypatch: pytest.MonkeyPatch, behind_s: float
) -> None:
    FileServer(monkeypatch, behind_s, tick_ns=LONG_TICK_NS)
    monkeypatch.setattr(FileClock, "next_tick", lambda self: None)
    for text in ("int b1;", "int b2;", "int b3;"):
        space.write("src/b.c", text)
        space.build()
        assert (space.root / "build/local-fast/obj/b.o").read_bytes() == text.encode()


@pytest.mark.parametrize("behind_s", SKEWS)
def test_links_and_directories_are_judged_by_their_servers_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behind_s: float
) -> None:
    monkeypatch.chdir(tmp_path)
    watched.file_clock.cache_clear()
    FileServer(monkeypatch, behind_s, tick_ns=LONG_TICK_NS)
    (tmp_path / "inc").mkdir()
    assert watched.settled_stamp("inc") is None, "another file may appear in this tick"
    clock = FileClock([str(tmp_path)])
    clock.meet(tmp_path.stat().st_dev, str(tmp_path / "inc"))
    moment = clock.moment()
    (tmp_path / "link").symlink_to("inc")
    assert link_made_since(str(tmp_path), ["link/a.h"], clock, moment) == "link"
    watched.file_clock.cache_clear()
