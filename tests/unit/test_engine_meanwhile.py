"""What appears while an action runs, in a place that was searched or would have been: its result counts only if nothing
did, and is never stored for somebody else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from pipeline.effects.api import Completed
from pipeline.engine.partial_graph import partial_graph
from pipeline.engine.usage_index import usage_index
from pipeline.fastpath.watched import Watched
from pipeline.model import Action, Stage
from tests.unit.engine_space import EngineSpace, used_files

CHANGED = "changed while it was used"


@pytest.fixture
def space(tmp_path: Path) -> EngineSpace:
    return EngineSpace(tmp_path / "project").sample()


def build_while(space: EngineSpace, first: str, change: Callable[[], object]) -> list[tuple[str, str]]:
    """Build, and `change` something while the action with that first input runs; the notes."""
    changed: list[str] = []

    def during(name: str) -> None:
        if name == first and not changed:
            changed.append(name)
            change()

    space.tools.during = during
    built = space.build()
    space.tools.during = lambda name: None
    assert changed == [first]
    return [(note.kind, note.subject) for result in built.results for note in result.notes]


def elsewhere(space: EngineSpace) -> EngineSpace:
    """Another checkout with the same files and the same cache, without anything built."""
    import shutil

    other = EngineSpace(space.root.parent / "other", space.cache)
    for name in ("src", "inc", "first", "blobs"):
        if (space.root / name).is_dir():
            shutil.copytree(space.root / name, other.root / name, symlinks=True)
    other.search, other.change = space.search, space.change
    return other


def place_by(space: EngineSpace, way: str) -> Callable[[], object]:
    """A header that shadows inc/a.h comes to be, in one of the ways in which files do."""
    old = space.write("old/a.h", "int shadow;\n")
    first = space.root / "first"
    if way == "written":
        return lambda: space.write("first/a.h", "int shadow;\n")
    if way == "renamed":
        first.mkdir()
        return lambda: old.rename(first / "a.h")
    if way == "directory renamed":
        return lambda: old.parent.rename(first)
    if way == "linked":
        first.mkdir()
        return lambda: (first / "a.h").symlink_to("../old/a.h")
    if way == "directory linked":
        return lambda: first.symlink_to("old")
    first.mkdir()
    (first / "a.h").symlink_to("../new/a.h")
    return lambda: space.write("new/a.h", "int shadow;\n")


@pytest.mark.parametrize("way", ["written", "renamed", "directory renamed", "linked", "directory linked", "dangling"])
def test_a_header_that_would_be_found_first(space: EngineSpace, way: str) -> None:
    """While a unit is compiled for the first time; the compiler has looked already."""
    (space.root / "src/b.c").unlink()  # it would look in the same places, perhaps before
    notes = build_while(space, "src/a.c", place_by(space, way))
    assert notes[0][0] == CHANGED and notes[0][1] in ("compile src/a.c: first/a.h", "compile src/a.c: first")
    assert space.ran.count("src/a.c") == 2, "the build looks again before it ends"
    assert space.outputs()["build/local-fast/obj/a.o"].startswith(b"int shadow;")
    assert space.build().nothing
    (space.root / "first/a.h").unlink()
    assert "src/a.c" in space.build().ran, "the cache holds a wrong object"


def test_a_name_that_is_asked_for_comes_and_goes(space: EngineSpace) -> None:
    """No depfile says that __has_include saw it."""
    space.write("src/c.c", '__has_include("opt.h")\n')
    space.write("inc/other.h", "")

    def come_and_go() -> None:
        space.write("inc/opt.h", "").unlink()

    notes = build_while(space, "src/c.c", come_and_go)
    assert any(kind == CHANGED and subject.startswith("compile src/c.c: ") for kind, subject in notes)
    assert space.ran.count("src/c.c") == 2
    assert space.build().nothing


def with_blob(action: Action) -> Action:
    """The linker reads blobs/b.bin, or extra/b.bin if there is one."""
    if action.name != "link":
        return action
    words = (*action.argv, "blobs/b.bin")
    return action._replace(inputs=(*action.inputs, "blobs/b.bin"), argv=words, absent=("extra/b.bin",))


@pytest.mark.parametrize("goes", [False, True])
def test_a_file_appears_where_a_command_without_a_depfile_would_look_first(space: EngineSpace, goes: bool) -> None:
    space.write("blobs/b.bin", "blob")
    (space.root / "extra").mkdir()
    space.change = with_blob

    def appear() -> None:
        path = space.write("extra/b.bin", "other")
        if goes:
            path.unlink()

    notes = build_while(space, "build/local-fast/obj/a.o", appear)
    assert (CHANGED, "link: extra/b.bin") in notes
    assert space.ran.count("ld build/local-fast/app.elf") == 2
    if goes:
        assert space.build().nothing
        space.write("extra/b.bin", "other")
    else:
        twin = elsewhere(space)
        assert "ld build/local-fast/app.elf" in twin.build().ran, "what may be wrong was stored"
    assert "ld build/local-fast/app.elf" in space.build().ran


def test_declared_inputs_that_were_not_recorded_are_not_believed(space: EngineSpace) -> None:
    """A file that a glob matches appears while a partial graph runs: what the whole graph declares then was never
    built."""
    assert space.build().ok
    assert used_files(space.engine().workspace) is not None
    space.write("src/new.txt", "")
    space.change = lambda action: (
        action._replace(inputs=(*action.inputs, "src/new.txt")) if action.name == "compile src/a.c" else action
    )
    assert used_files(space.engine().workspace) is None


def test_a_command_of_a_user_that_was_not_recorded_is_not_believed(space: EngineSpace) -> None:
    words = ("cc", "-o", "build/g.h", "-MF", "build/g.d", "src/c.c")
    actions = space.actions

    def with_generator(*more: str) -> list[Action]:
        argv = (*words, *more)
        return [*actions(), Action("gen", Stage.COMPILE, ("src/c.c",), ("build/g.h",), argv, depfile="build/g.d")]

    space.actions = with_generator  # type: ignore[method-assign]
    assert space.build().ok
    assert used_files(space.engine().workspace) is not None
    space.actions = lambda: with_generator("-g")  # type: ignore[method-assign]
    assert used_files(space.engine().workspace) is None


def test_a_source_saved_while_a_part_of_the_graph_ran_is_compiled_in_the_same_build(space: EngineSpace) -> None:
    """The whole graph is known only when the program is linked, and the new object is missing then."""
    assert space.build().ok
    engine = space.engine()
    used = used_files(engine.workspace)
    assert used is not None
    index, paths = usage_index(engine.workspace, list(used)), list(used)
    space.write("src/a.c", "int edited;\n")
    part = partial_graph(index, {paths.index("src/a.c"): "src/a.c"}, engine.records, str(space.root))
    assert part is not None
    few = space.engine(part.actions, part.skipped)
    few.scan()

    def save(name: str) -> None:
        space.write("src/new.c", "int saved;\n")

    space.tools.during = save
    assert few.run(Stage.COMPILE, lambda label, done, total: None).ok
    space.tools.during = lambda name: None
    result = space.engine().run(Stage.LINK, lambda label, done, total: None)
    assert result.ok and result.counts["compiled"] == 1 and result.counts["linked"] == 1
    assert b"int saved;" in space.outputs()["build/local-fast/app.elf"]
    assert space.build().nothing


def test_an_ordinary_link_asks_nothing_about_compiles(space: EngineSpace) -> None:
    assert space.build().ok
    (space.root / "build/local-fast/app.bin").unlink()
    result = space.engine().run(Stage.LINK, lambda label, done, total: None)
    assert sum(result.counts.values()) == 2


def test_the_stamp_of_a_directory_is_that_from_before_it_was_listed() -> None:
    """A later one would say that a source which was saved meanwhile had been listed, too."""
    first, later = Watched({"/src": (1, 2, 3), "/old": None}), Watched({"/src": (4, 5, 6), "/inc": (7, 8, 9)})
    assert first.with_more(later).listed == {"/src": (1, 2, 3), "/old": None, "/inc": (7, 8, 9)}
    assert first.with_more(Watched({"/src": None, "/old": (1, 1, 1)})).listed == {"/src": None, "/old": None}


# --- depfiles ---------------------------------------------------------------------------------


class Depfiles(EngineSpace):
    """A project with a generator whose depfile says `told`, or which makes a directory of its output."""

    told = "build/g.h: src/c.c"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.builtins = {**self.builtins}
        run = self.tools.run

        def as_told(argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout_s: float) -> Completed:
            done = run(argv, cwd=cwd, env=env, timeout_s=timeout_s)
            if "build/g.h" in argv:
                (cwd / "build/g.d").write_text(f"{self.told}\n")
            return done

        self.tools.run = as_told  # type: ignore[method-assign]

    def actions(self) -> list[Action]:
        words = ("cc", "-o", "build/g.h", "-MF", "build/g.d", "src/c.c")
        gen = Action("gen", Stage.COMPILE, ("src/c.c",), ("build/g.h",), words, depfile="build/g.d")
        return [gen, *super().actions()]


@pytest.fixture
def told(tmp_path: Path) -> Depfiles:
    space = Depfiles(tmp_path / "project")
    space.sample()
    return space


@pytest.mark.parametrize(
    "text", ["build/g.h: src/c.c build/g.h", "build/g.h: src/c.c | inc/a.h", "build/g.h: build/g.d src/c.c |"]
)
def test_a_depfile_that_names_its_own_output_or_an_order(told: Depfiles, text: str) -> None:
    told.told = text
    built = told.build()
    assert built.ok and all(not result.notes for result in built.results)
    assert told.build().nothing
    if "inc/a.h" in text:
        told.write("inc/a.h", "int other;\n")
        assert "src/c.c" in told.build().ran


def test_a_depfile_that_names_a_directory_is_refused(told: Depfiles) -> None:
    told.told = "build/g.h: src/c.c inc"
    failure = told.build().results[0].failures[0]
    assert failure.message == "its depfile build/g.d names inc, which is a directory"


def test_an_output_that_is_a_directory_is_refused(told: Depfiles) -> None:
    def make_directory(name: str) -> None:
        path = told.root / "build/g.h"
        if name == "src/c.c" and not path.exists():
            path.mkdir()

    told.tools.during = make_directory
    actions = told.actions
    told.actions = lambda: [  # type: ignore[method-assign]
        action._replace(argv=tuple("build/h.h" if word == "build/g.h" else word for word in action.argv))
        if action.name == "gen"
        else action
        for action in actions()
    ]
    failure = told.build().results[0].failures[0]
    assert failure.message == "the command made build/g.h a directory; let it write a regular file"
    (told.root / "build/g.h/mine").mkdir(parents=True)
    again = told.build().results[0].failures[0]
    assert again.message == "its output build/g.h is a directory; remove it, and declare the files in it"
    assert (told.root / "build/g.h/mine").is_dir()
