"""A partial graph where what an action reads leads through a symbolic link to what another one makes: all that the edit
concerns is done by the run that sees it, as it would be by one that looks at everything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.engine.partial_graph import PartialGraph
from pipeline.engine.record_rows import MANY_INPUTS
from pipeline.model import Action, Stage
from tests.unit.engine_space import EngineSpace
from tests.unit.test_engine_links import declare, generator, link
from tests.unit.test_engine_partial import Indexed

ELF = "ld build/local-fast/app.elf"
MADE = "build/gen/x.h"


@pytest.fixture
def space(tmp_path: Path) -> EngineSpace:
    space = EngineSpace(tmp_path / "p").sample()
    space.write("gen/seed", "int generated;\n")
    space.write(MADE, "int generated;\n")
    declare(space, generator(MADE))
    return space


def reads(space: EngineSpace, name: str, path: str) -> None:
    """The action of this name declares `path` too, and its command reads it."""

    def change(action: Action) -> Action:
        if action.name != name:
            return action
        return action._replace(inputs=(*action.inputs, path), argv=(*action.argv, path))

    space.change = change


def by_users_action(space: EngineSpace, path: str) -> str:
    declare(space, generator(MADE), generator("build/out/y.bin", path))
    return path


def by_source(space: EngineSpace, path: str) -> str:
    link(space, "src/g.c", f"../{path}")
    return "src/g.c"


def by_header(space: EngineSpace, path: str) -> str:
    space.write("src/a.c", f'#include "../{path}"\nint a;\n')
    return "src/a.c"


def by_header_that_is_declared(space: EngineSpace, path: str) -> str:
    """By one, and by another as a source of its own."""
    declare(space, generator(MADE), generator("build/out/y.bin", path))
    return by_header(space, path)


def by_link(space: EngineSpace, path: str) -> str:
    reads(space, "link", path)
    return ELF


def by_large_link(space: EngineSpace, path: str) -> str:
    for n in range(MANY_INPUTS):
        space.write(f"src/u{n}.c", f'#include "a.h"\nint u{n};\n')
    return by_link(space, path)


Reader = Callable[[EngineSpace, str], str]
"""Makes that the file is read; what runs then."""
READERS = (by_users_action, by_source, by_header, by_header_that_is_declared, by_link, by_large_link)
WAYS = {
    "file": ({"assets/x.h": "../build/gen/x.h"}, "assets/x.h"),
    "directory": ({"assets": "build/gen"}, "assets/x.h"),
    "chain": ({"assets/x.h": "../links/x", "links": "more", "more/x": "../build/gen/x.h"}, "assets/x.h"),
}


def few(space: EngineSpace, found: PartialGraph) -> list[str]:
    """What runs by the engine of these."""
    space.tools.ran.clear()
    engine = space.engine(found.actions, found.skipped)
    engine.scan()
    for stage in (Stage.COMPILE, Stage.LINK):
        assert engine.run(stage, lambda label, done, total: None).ok
    return space.ran


@pytest.mark.parametrize("partial", [True, False])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("reader", READERS)
def test_what_reads_a_product_through_a_link_runs_with_its_maker(
    space: EngineSpace, reader: Reader, way: str, partial: bool
) -> None:
    links, path = WAYS[way]
    for name, target in links.items():
        link(space, name, target)
    ran = reader(space, path)
    for _ in range(2):
        assert space.build().ok
    indexed = Indexed(space)
    for n in range(2):
        space.write("gen/seed", f"int other{n};\n")
        if partial:
            found = indexed.after("gen/seed")
            assert found is not None and path not in found.skipped.believed
            done = few(space, found)
        else:
            done = space.build().ran
        assert {"gen/seed", ran} <= set(done), done
        assert space.build().nothing


@pytest.mark.parametrize("reader", READERS)
def test_a_file_that_becomes_a_link_to_a_product_is_left_to_the_whole_graph(space: EngineSpace, reader: Reader) -> None:
    """Who reads it comes after its maker from then on, which the index does not know."""
    space.write("assets/x.h", "int given;\n")
    reader(space, "assets/x.h")
    indexed = Indexed(space)
    moved = "src/g.c" if reader is by_source else "assets/x.h"
    assert (indexed.after(moved) is None) == (reader in (by_link, by_large_link))
    link(space, "assets/x.h", "../build/gen/x.h")
    assert indexed.after(moved) is None


@pytest.mark.parametrize("ending", [".o", ".obj", ""])
def test_a_link_that_is_put_on_an_object_is_left_to_the_whole_graph(space: EngineSpace, ending: str) -> None:
    """As on any other product, though the index does not name objects without links, whatever they are called."""

    def called(words: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(f"{word[:-2]}{ending}" if word.endswith(".o") else word for word in words)

    space.change = lambda action: action._replace(
        inputs=called(action.inputs), outputs=called(action.outputs), argv=called(action.argv)
    )
    first, second = (f"../build/local-fast/obj/{name}{ending}" for name in "ab")
    link(space, "assets/object", first)
    declare(space, generator("build/out/y.bin", "assets/object"))
    assert space.build().ok
    indexed = Indexed(space)
    found = indexed.after("assets/object")
    assert found is not None and [action.name for action in found.actions] == ["generate build/out/y.bin"]
    link(space, "assets/object", second)
    assert indexed.after("assets/object") is None
