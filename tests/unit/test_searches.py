"""Where compiles look for headers, read once for each set of flags and never for another's."""

from __future__ import annotations

import pytest

from pipeline.engine.searches import CommandSearches
from pipeline.formats import include_search
from pipeline.model import Action, Stage


def compile_of(source: str, *flags: str, env: tuple[tuple[str, str], ...] = ()) -> Action:
    out = f"build/{source}.o"
    argv = ("cc", *flags, "-MD", "-MF", f"{out}.d", "-c", source, "-o", out)
    return Action(source, Stage.COMPILE, (source,), (out,), argv, depfile=f"{out}.d", env=env, count_as="compiled")


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The commands whose words were read."""
    found: list[tuple[str, ...]] = []
    real = include_search.of_command

    def counted(argv: tuple[str, ...], *more: object) -> object:
        found.append(tuple(argv))
        return real(argv, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(include_search, "of_command", counted)
    return found


def test_compiles_that_differ_in_their_own_files_share_a_search(walks: list[tuple[str, ...]]) -> None:
    searches = CommandSearches()
    found = {searches.of(compile_of(f"src/{n}.c", "-Iinc", "-isystem", "sys")) for n in range(100)}
    assert len(walks) == 1
    assert [search.every for search in found] == [("inc", "sys")]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (compile_of("a.c", "-Iinc"), compile_of("b.c", "-Iother")),
        (compile_of("a.c", env=(("CPATH", "x"),)), compile_of("b.c", env=(("CPATH", "y"),))),
        (compile_of("a.c", "-include", "x.h"), compile_of("b.c", "-include", "y.h")),
        # the source itself is what is included before it
        (compile_of("a.c", "-include", "a.c"), compile_of("b.c", "-include", "b.c")),
        (compile_of("a.c", "-unknown", "dir"), compile_of("b.c", "-unknown", "rid")),
    ],
)
def test_other_flags_have_another_search(one: Action, other: Action) -> None:
    searches = CommandSearches()
    for action in (one, other, one):
        alone = include_search.of_command(action.argv, action.env)
        assert searches.of(action)._replace(others=()) == alone._replace(others=())
        assert {*alone.others} - {*searches.of(action).others} <= {*action.inputs, *action.outputs, action.depfile}


def test_a_response_file_is_read_each_time() -> None:
    texts = {"flags.rsp": "-Ione"}
    searches = CommandSearches(texts.get)
    action = compile_of("a.c", "@flags.rsp")
    assert searches.of(action).every == ("one",)
    texts["flags.rsp"] = "-Itwo"
    assert searches.of(action).every == ("two",)
