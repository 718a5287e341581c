"""Symbolic links, hard links and odd names between what an action makes and what a compile reads: never a stale object.

Each test ends where a build from scratch would: same objects, and nothing left to do.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from pipeline.engine.saved_state import load_saved
from pipeline.model import Action, Stage
from tests.unit.engine_space import EngineSpace

ELF = "ld build/local-fast/app.elf"


@pytest.fixture
def space(tmp_path: Path) -> EngineSpace:
    return EngineSpace(tmp_path / "p").sample()


def generator(out: str, seed: str = "gen/seed") -> Action:
    """Makes a header; declared last, so that only the graph puts it before the compiles."""
    return Action(
        name=f"generate {out}",
        stage=Stage.COMPILE,
        inputs=(seed,),
        outputs=(out,),
        argv=("cc", "-o", out, "-MF", f"{out}.d", seed),
        depfile=f"{out}.d",
        profile="local-fast",
        count_as="built",
    )


def declare(space: EngineSpace, *more: Action) -> None:
    real = EngineSpace.actions
    space.actions = lambda: [*real(space), *more]  # type: ignore[method-assign]


def link(space: EngineSpace, path: str, target: str) -> None:
    place = space.root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    place.symlink_to(target)


def assert_right(space: EngineSpace) -> None:
    """Another build does nothing, and the outputs are those of a build from scratch."""
    assert space.build().nothing
    fresh = EngineSpace(space.root.parent / "fresh")
    shutil.rmtree(fresh.root)
    shutil.copytree(space.root, fresh.root, symlinks=True, ignore=shutil.ignore_patterns("build", ".deploy"))
    fresh.actions = space.actions  # type: ignore[method-assign]
    fresh.search = space.search
    for _ in range(2):
        fresh.build()
    mine, clean = space.outputs(), fresh.outputs()
    assert {path: data for path, data in mine.items() if path in clean} == clean


WAYS = {
    "directory": ({"inc/gen": "../build/gen"}, '#include "gen/g.h"'),
    "file": ({"inc/g.h": "../build/gen/g.h"}, '#include "g.h"'),
    "other name": ({"inc/config.h": "../build/gen/g.h"}, '#include "config.h"'),
    "chain": ({"inc/gen": "../links/one", "links/one": "two", "links/two": "../build/gen"}, '#include "gen/g.h"'),
    "search path": ({"first": "build/gen"}, '#include "g.h"'),
    "up through a link": ({"inc/deep": "../build/gen/deep"}, '#include "deep/../g.h"'),
    "beside the source": ({"src/g.h": "../build/gen/g.h"}, '#include "g.h"'),
    "link of the root": ({"inc/here": ".."}, '#include "here/build/gen/g.h"'),
}


@pytest.mark.parametrize("way", WAYS)
def test_generated_header_through_links(space: EngineSpace, way: str) -> None:
    links, line = WAYS[way]
    for path, target in links.items():
        link(space, path, target)
    (space.root / "build/gen/deep").mkdir(parents=True)
    space.write("gen/seed", "int generated;\n")
    space.write("src/a.c", f"{line}\n")
    declare(space, generator("build/gen/g.h"))
    assert space.build().ok
    assert_right(space)
    for number in range(3):
        space.write("gen/seed", f"int generated{number};\n")
        assert set(space.build().ran) == {"gen/seed", "src/a.c", ELF}
        assert_right(space)
    space.write("gen/seed", "int generated0;\n")
    assert space.build().ran == [ELF] or not space.tools.ran  # both in the cache
    assert_right(space)
    shutil.rmtree(space.root / "build")
    (space.root / "build/gen/deep").mkdir(parents=True)
    assert not space.build().ran
    assert_right(space)


def test_an_output_that_is_declared_through_a_link(space: EngineSpace) -> None:
    """The action writes to out/gen/g.h, the compile reads build/gen/g.h."""
    (space.root / "build/gen").mkdir(parents=True)
    link(space, "out", "build")
    space.search = ("build/gen", "inc")
    space.write("gen/seed", "int generated;\n")
    space.write("src/a.c", '#include "g.h"\n')
    declare(space, generator("out/gen/g.h"))
    assert space.build().ok
    for number in range(3):
        space.write("gen/seed", f"int generated{number};\n")
        assert set(space.build().ran) == {"gen/seed", "src/a.c", ELF}
        assert_right(space)


def test_a_declared_input_through_a_link(space: EngineSpace) -> None:
    """One action reads what another makes, by the name of a link."""
    link(space, "gen/in", "../build/gen")
    space.write("gen/seed", "int generated;\n")
    space.write("src/a.c", '#include "last.h"\n')
    space.search = ("build/last", "inc")
    declare(space, generator("build/last/last.h", "gen/in/g.h"), generator("build/gen/g.h"))
    assert space.build().ok
    for number in range(3):
        space.write("gen/seed", f"int generated{number};\n")
        assert set(space.build().ran) == {"gen/seed", "gen/in/g.h", "src/a.c", ELF}
        assert_right(space)


def test_what_only_a_depfile_names_is_made_first(space: EngineSpace) -> None:
    """One users' action includes what another one makes, and does not declare it: from its second run on it waits."""
    space.write("gen/seed", "int generated;\n")
    space.write("gen/outer", "int outer;\n")
    space.write("src/a.c", '#include "../build/last/last.h"\n')
    space.search = (".", "inc")
    declare(space, generator("build/last/last.h", "gen/outer"), generator("build/gen/g.h"))
    assert space.build().ok
    space.write("gen/outer", '#include "../build/gen/g.h"\n')
    assert space.build().ok and space.build().nothing
    for number in range(3):
        space.write("gen/seed", f"int generated{number};\n")
        assert set(space.build().ran) == {"gen/seed", "gen/outer", "src/a.c", ELF}
        assert_right(space)


@pytest.mark.parametrize("search", ["inc", "build/last"])
@pytest.mark.parametrize("path", ["src/a.c", "src/new.c"])
def test_no_compile_waits_on_a_guess_for_what_was_found_to_read_the_program(
    space: EngineSpace, search: str, path: str
) -> None:
    """A unit that includes nothing, a new one, a packed file where headers may lie: it is packed after the link, and
    not before a compile that might include it."""
    space.write("gen/outer", "int outer;\n")
    space.search = (search,)
    for name in ("a", "b"):
        space.write(f"src/{name}.c", f"int {name};\n")
    declare(space, generator("build/last/packed.h", "gen/outer"))
    assert space.build().ok
    space.write("gen/outer", '#include "../build/local-fast/app.elf"\n')
    assert space.build().ok and space.build().nothing
    for number in range(2):
        space.write(path, f"int edited{number};\n")
        assert set(space.build().ran) == {path, ELF, "gen/outer"}
        assert_right(space)


@pytest.mark.parametrize("way", ["depfile", "link", "link in a depfile"])
def test_what_uses_an_object_without_naming_it_runs_after_its_compile(space: EngineSpace, way: str) -> None:
    """As what uses the program: objects are products, too."""
    made = "build/local-fast/obj/b.o"
    space.write("gen/outer", "int outer;\n")
    if way != "depfile":
        link(space, "assets/object", f"../{made}")
    declare(space, generator("build/last/sizes", "assets/object" if way == "link" else "gen/outer"))
    assert space.build().ok or way == "link"
    space.write("gen/outer", f'#include "../{made if way == "depfile" else "assets/object"}"\n')
    assert space.build().ok
    space.build()
    for number in range(3):
        space.write("src/b.c", f"int b{number};\n")
        assert space.build().ok
        assert_right(space)


@pytest.mark.parametrize("name", ["offsets.h", "../build/offsets/offsets.h"])
def test_a_header_that_is_made_from_an_object_comes_before_the_other_compiles(space: EngineSpace, name: str) -> None:
    """Offsets of a structure, read from the object of one unit: the others include them, also in the first build."""
    made = "build/local-fast/obj/b.o"
    space.search = ("build/offsets", "inc")
    for unit in ("a", "c", "d"):
        space.write(f"src/{unit}.c", f'#include "{name}"\nint {unit};\n')
    declare(space, generator("build/offsets/offsets.h", made), generator("build/offsets/second.h", made))
    assert space.build().ok
    assert_right(space)
    for number in range(2):
        space.write("src/b.c", f"int b{number};\n")
        assert {"src/b.c", made, "src/a.c", "src/c.c", "src/d.c", ELF} == set(space.build().ran)
        assert_right(space)
    space.write("src/e.c", f'#include "{name}"\nint e;\n')
    space.write("src/b.c", "int other;\n")
    assert space.build().ok
    assert_right(space)


def test_headers_that_are_made_from_objects_make_no_cycle_by_guesses(space: EngineSpace) -> None:
    """Each could be included by the unit whose object the other one reads, and not by both."""
    space.search = ("build/offsets", "inc")
    space.write("src/a.c", '#include "b.h"\n#include "c.h"\nint a;\n')
    for unit in "bc":
        space.write(f"src/{unit}.c", f"int {unit};\n")
    made = [generator(f"build/offsets/{unit}.h", f"build/local-fast/obj/{unit}.o") for unit in "bc"]
    declare(space, *made)
    for number in range(2):
        space.write("src/b.c", f"int b{number};\n")
        space.write("src/c.c", f"int c{number};\n")
        assert space.build().ok
        assert_right(space)
    space.write("src/c.c", '#include "b.h"\nint c;\n')
    assert space.build().ok
    assert_right(space)


@pytest.mark.parametrize("reader", ["action", "compile"])
def test_what_newly_reads_a_product_is_made_again_behind_it(space: EngineSpace, reader: str) -> None:
    """By the very run in which it comes to read it: it was begun before its maker, which makes another one then."""
    space.jobs = 1
    space.write("gen/seed", "int generated;\n")
    space.write("gen/outer", "int outer;\n")
    space.write("src/a.c", "int a;\n")
    declare(space, generator("build/last/last.h", "gen/outer"), generator("build/gen/g.h"))
    assert space.build().ok and space.build().nothing
    path = "gen/outer" if reader == "action" else "src/a.c"
    for number in range(2):
        space.write("gen/seed", f"int generated{number};\n")
        space.write(
            path, f'#include "../build/gen/g.h"\nint again{number};\n' if number else '#include "../build/gen/g.h"\n'
        )
        assert space.build().ok
        assert_right(space)


def test_a_compile_that_failed_before_its_header_was_made_is_tried_again(space: EngineSpace) -> None:
    """It waits for what its last run read, and now includes another action's header, which this run is to make."""
    space.jobs = 1
    space.write("gen/seed", "int generated;\n")
    declare(space, generator("build/gen/g.h"))
    assert space.build().ok
    space.write("src/a.c", '#include "../build/gen/g.h"\nint a;\n')
    shutil.rmtree(space.root / "build/gen")
    space.write("gen/seed", "int other;\n")
    built = space.build()
    assert built.ok and built.ran.count("src/a.c") <= 2 and built.count("failed") == built.count("not_run") == 0
    assert_right(space)
    space.write("gen/seed", "int third;\n")
    space.write("src/c.c", "#error\n")
    assert not space.build().ok
    assert space.ran.count("src/c.c") == 2, "it may have needed what was made meanwhile"
    assert not space.build().ok
    assert space.ran == ["src/c.c"]


def test_actions_that_read_each_other_are_not_ordered(space: EngineSpace) -> None:
    """What was read last time may be no order: one reads what the other makes by its depfile, which now declares the
    first one's output. What is declared counts."""
    space.write("gen/seed", "int generated;\n")
    space.write("gen/outer", "int outer;\n")
    space.search = (".", "inc")
    first, second = generator("build/last/last.h", "gen/outer"), generator("build/gen/g.h")
    declare(space, first, second)
    assert space.build().ok
    space.write("gen/outer", '#include "../build/gen/g.h"\n')
    assert space.build().ok and space.build().nothing
    space.write("gen/outer", "int outer;\n")
    turned = second._replace(inputs=("build/last/last.h",), argv=(*second.argv[:-1], "build/last/last.h"))
    del space.actions
    declare(space, first, turned)
    assert space.build().ok
    space.build()
    assert_right(space)


@pytest.mark.parametrize("name", ["build/local-fast/app.elf", "build/local-fast/app.bin"])
def test_a_product_of_the_toolchain_through_a_link(space: EngineSpace, name: str) -> None:
    """An asset that is a link to the program: who packs it does so after the link."""
    link(space, "assets/app", f"../{name}")
    argv = ("ld", "-o", "build/packed", "assets/app")
    pack = generator("build/packed", "assets/app")._replace(argv=argv, depfile="")
    real = EngineSpace.actions
    space.actions = lambda: [pack, *real(space)]  # type: ignore[method-assign]
    assert space.build().ok
    assert_right(space)
    for number in range(3):
        space.write("src/a.c", f"int a{number};\n")
        assert space.build().ok
        assert_right(space)


def test_a_source_that_is_a_link_to_a_product(space: EngineSpace) -> None:
    space.write("gen/seed", "int generated;\n")
    space.write("build/gen/g.c", "int generated;\n")
    link(space, "src/g.c", "../build/gen/g.c")
    declare(space, generator("build/gen/g.c"))
    space.build()
    space.build()
    for number in range(3):
        space.write("gen/seed", f"int generated{number};\n")
        assert set(space.build().ran) == {"gen/seed", "src/g.c", ELF}
        assert_right(space)


@pytest.mark.parametrize("lost", [False, True])
def test_a_header_becomes_a_link_to_a_product(space: EngineSpace, lost: bool) -> None:
    """Whoever makes it is waited for from then on, also when the directory moved with all of its files' stamps, and
    when the object is missing, which alone would be restored."""
    space.write("inc/gen/g.h", "int generated;\n")
    space.write("src/a.c", '#include "gen/g.h"\n')
    space.build()
    (space.root / "build/gen").parent.mkdir(exist_ok=True)
    (space.root / "inc/gen").rename(space.root / "build/gen")
    link(space, "inc/gen", "../build/gen")
    assert space.build().nothing
    space.write("gen/seed", "int other;\n")
    declare(space, generator("build/gen/g.h"))
    if lost:
        (space.root / "build/local-fast/obj/a.o").unlink()
    assert set(space.build().ran) == {"gen/seed", "src/a.c", ELF}
    assert_right(space)


def test_a_generator_makes_what_a_link_was_waiting_for(space: EngineSpace) -> None:
    """A dangling link earlier on the search path: the header behind it is found first once it is made."""
    link(space, "first/a.h", "../build/gen/a.h")
    space.build()
    space.write("gen/seed", "int generated;\n")
    declare(space, generator("build/gen/a.h"))
    assert {"src/a.c", "src/b.c"} <= set(space.build().ran)
    assert_right(space)


@pytest.mark.parametrize("same", [True, False])
def test_a_retargeted_directory(space: EngineSpace, same: bool) -> None:
    """Both targets are old files; the second may have the same bytes."""
    space.write("one/x/x.h", "int x;\n")
    space.write("two/x/x.h", "int x;\n" if same else "int y;\n")
    link(space, "inc/x", "../one/x")
    space.write("src/a.c", '#include "x/x.h"\n')
    space.build()
    link(space, "inc/x", "../two/x")
    assert set(space.build().ran) == (set() if same else {"src/a.c", ELF})
    assert_right(space)


def test_a_shadow_appears_by_retargeting(space: EngineSpace) -> None:
    space.write("one/other.h", "")
    space.write("two/a.h", "int shadow;\n")
    link(space, "first", "one")
    space.build()
    link(space, "first", "two")
    assert set(space.build().ran) == {"src/a.c", "src/b.c", ELF}
    assert_right(space)
    link(space, "first", "one")
    assert space.build().ran == []
    assert_right(space)


def test_the_state_names_what_was_read_and_who_makes_it(space: EngineSpace) -> None:
    link(space, "inc/gen", "../build/gen")
    space.write("gen/seed", "int generated;\n")
    space.write("src/a.c", '#include "gen/g.h"\n')
    declare(space, generator("build/gen/g.h"))
    space.build()
    discovered = load_saved(space.root / ".deploy").records.discovered("local-fast:compile src/a.c")
    assert [path for path, _ in discovered] == ["build/gen/g.h", "inc/gen/g.h"]


def test_dangling_links_and_loops_are_missing_files(space: EngineSpace) -> None:
    link(space, "inc/a.h", "nowhere.h")
    built = space.build()
    assert not built.ok
    space.write("inc/nowhere.h", "int h;\n")
    assert space.build().ok
    link(space, "inc/a.h", "loop")
    link(space, "inc/loop", "a.h")
    built = space.build()
    assert not built.ok
    link(space, "src/b.c", "b.c")
    built = space.build()
    assert not built.ok
    for failure in (f for result in built.results for f in result.failures):
        assert failure.message
    (space.root / "src/b.c").unlink()
    link(space, "inc/a.h", "nowhere.h")
    assert space.build().ok
    assert_right(space)


def test_an_output_replaced_by_a_link_is_not_written_through(space: EngineSpace) -> None:
    """Neither a restore nor a compiler may write into a foreign file, and the cache's blobs are nobody's."""
    space.build()
    target = space.root / "build/local-fast/obj/a.o"
    right = target.read_bytes()
    foreign = space.write("precious", "precious\n")
    blob = next(p for p in (space.cache / "cas.v1").rglob("*") if p.is_file() and p.read_bytes() == right)
    for other in (foreign, blob):
        before = other.read_bytes()
        for make in (target.symlink_to, target.hardlink_to):
            for edit in (False, True):
                target.unlink()
                make(other)
                if edit:
                    space.write("src/a.c", f'#include "a.h"\nint a{os.urandom(4).hex()};\n')
                assert space.build().ok
                assert other.read_bytes() == before and not other.is_symlink()
                assert not target.samefile(other) or (not edit and other == blob)
                assert_right(space)
                space.write("src/a.c", '#include "a.h"\nint a;\n')
                space.build()


def test_another_name_of_a_removed_output_was_not_written(space: EngineSpace) -> None:
    """A stale file is one with the output: removing that moves its ctime, and no command wrote it."""
    space.write("gen/seed", "int generated;\n")
    declare(space, generator("build/gen/g.h"))
    assert space.build().ok
    (space.root / "build/old").hardlink_to(space.root / "build/gen/g.h")
    space.write("gen/seed", "int more;\n")
    assert space.build().ok
    assert (space.root / "build/old").read_bytes() != (space.root / "build/gen/g.h").read_bytes()
    assert_right(space)


def test_an_output_replaced_by_a_directory(space: EngineSpace) -> None:
    space.build()
    target = space.root / "build/local-fast/obj/a.o"
    target.unlink()
    target.mkdir()
    built = space.build()
    assert not built.ok
    assert "a.o" in next(f for r in built.results for f in r.failures).message
    target.rmdir()
    assert space.build().ran == []
    assert_right(space)


def test_an_edit_of_a_restored_object_leaves_the_store_alone(space: EngineSpace) -> None:
    space.build()
    shutil.rmtree(space.root / "build")
    assert space.build().ran == []
    target = space.root / "build/local-fast/obj/a.o"
    assert target.stat().st_nlink == 1
    with target.open("r+b") as stream:
        stream.write(b"XXXX")
    assert space.build().ran == []
    assert_right(space)


@pytest.mark.parametrize("place", ["", "/dev/shm"])
def test_build_directory_and_cache_through_links(space: EngineSpace, tmp_path: Path, place: str) -> None:
    """Also on another disk, where nothing can be renamed or linked to."""
    if place and not Path(place).is_dir():
        pytest.skip(f"no {place} here")
    with tempfile.TemporaryDirectory(dir=place or tmp_path) as directory:
        _build_behind_links(space, tmp_path, Path(directory) / "elsewhere")


def _build_behind_links(space: EngineSpace, tmp_path: Path, elsewhere: Path) -> None:
    elsewhere.mkdir()
    link(space, "build", str(elsewhere))
    (tmp_path / "store").mkdir()
    (tmp_path / "cache").symlink_to("store")
    space.cache = tmp_path / "cache"
    space.build()
    assert space.build().nothing
    shutil.rmtree(elsewhere)
    elsewhere.mkdir()
    assert space.build().ran == []
    assert space.build().nothing
    (space.root / "build").unlink()
    assert space.build().ran == []
    assert_right(space)


def test_a_blob_replaced_by_a_link(space: EngineSpace) -> None:
    """To its own bytes elsewhere it is as good; to others it is damage, and what they belong to is not touched."""
    space.build()
    blobs = [p for p in (space.cache / "cas.v1").rglob("*") if p.is_file()]
    foreign = space.write("foreign", "foreign\n")
    for blob in blobs:
        blob.unlink()
        blob.symlink_to(foreign)
    shutil.rmtree(space.root / "build")
    assert space.build().ok
    assert foreign.read_text() == "foreign\n"
    assert_right(space)
    shutil.rmtree(space.root / "build")
    assert space.build().ran == []


def test_a_header_becomes_a_directory(space: EngineSpace) -> None:
    space.write("far/a.h", "int far;\n")
    space.search = ("first", "inc", "far")
    space.build()
    (space.root / "inc/a.h").unlink()
    (space.root / "inc/a.h").mkdir()
    assert set(space.build().ran) == {"src/a.c", "src/b.c", ELF}, "the compiler goes on to the next directory"
    assert_right(space)
    (space.root / "inc/a.h").rmdir()
    assert space.build().nothing
    space.write("inc/a.h", "int h;\n")
    assert space.build().ran == [], "as before"
    assert_right(space)
    (space.root / "first/a.h").mkdir(parents=True)
    assert space.build().nothing, "a directory shadows nothing"


def test_names_that_differ_in_case_or_normal_form(space: EngineSpace) -> None:
    space.write("src/a.c", '#include "A.h"\n#include "a.h"\n')
    space.write("src/b.c", '#include "\u00e9.h"\n#include "e\u0301.h"\n')
    for name in ("A", "\u00e9", "e\u0301"):
        space.write(f"inc/{name}.h", f"int {ord(name[-1])};\n")
    if len(list((space.root / "inc").iterdir())) < 4:
        pytest.skip("this file system takes them for the same")
    assert space.build().ok
    for name, user in (("A", "src/a.c"), ("a", "src/a.c"), ("\u00e9", "src/b.c"), ("e\u0301", "src/b.c")):
        space.write(f"inc/{name}.h", "int edited;\n")
        assert set(space.build().ran) == {user, ELF}, name
        assert_right(space)
    (space.root / "inc/a.h").rename(space.root / "inc/x.h")
    (space.root / "inc/x.h").rename(space.root / "inc/A.h")
    assert not space.build().ok, "one header left of two"
    space.write("inc/a.h", "int edited;\n")
    assert space.build().ran == []
    assert_right(space)


def test_a_source_goes_while_it_is_compiled(space: EngineSpace) -> None:
    def remove(name: str) -> None:
        if name == "src/a.c":
            (space.root / name).unlink(missing_ok=True)

    space.tools.during = remove
    built = space.build()
    assert [note.subject for result in built.results for note in result.notes] == ["compile src/a.c: src/a.c"]
    space.tools.during = lambda name: None
    assert space.build().ok
    assert_right(space)


def test_a_link_is_put_elsewhere_while_a_header_is_read(space: EngineSpace) -> None:
    """What was there before, and was older: not recorded, since nobody knows which one was read."""
    space.write("one/x.h", "int x;\n")
    space.write("two/x.h", "int y;\n")
    link(space, "inc/x", "../one")
    space.write("src/a.c", '#include "x/x.h"\n')

    def retarget(name: str) -> None:
        if name == "src/a.c":
            link(space, "inc/x", "../two")

    space.tools.during = retarget
    space.build()
    space.tools.during = lambda name: None
    space.build()
    assert_right(space)
