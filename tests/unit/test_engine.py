"""The engine, by counting what it executes. Every scenario ends with a run that must do nothing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pipeline.engine.saved_state import load_saved
from pipeline.model import Action, Reason, Stage
from tests.unit.engine_space import EngineSpace

ALL = ["ld build/local-fast/app.elf", "src/a.c", "src/b.c", "src/c.c"]


@pytest.fixture
def space(tmp_path: Path) -> EngineSpace:
    return EngineSpace(tmp_path / "project").sample()


@pytest.fixture
def built(space: EngineSpace) -> EngineSpace:
    assert space.build().ran == ALL
    return space


def test_cold_then_nothing(space: EngineSpace) -> None:
    cold = space.build()
    assert cold.ran == ALL
    assert (cold.count("compiled"), cold.count("linked"), cold.count("built")) == (3, 1, 1)
    assert [reason.kind for reason in cold.reasons] == ["never run"] * 5
    assert space.build().nothing
    assert space.build().nothing


def test_a_warm_run_writes_nothing(built: EngineSpace) -> None:
    before = {p: p.stat().st_mtime_ns for p in built.root.rglob("*")}
    assert built.build().nothing
    assert {p: p.stat().st_mtime_ns for p in built.root.rglob("*")} == before


def test_comment_edit_without_debug_info_stops_at_the_object(built: EngineSpace) -> None:
    built.write("src/c.c", "// new\nint c;\n")
    again = built.build()
    assert again.ran == ["src/c.c"]
    # Compile gave the same object, so the link stage was not even dirty.
    assert len(again.results) == 1
    assert built.build().nothing


@pytest.mark.parametrize("text", ["int c;\n// at the end\n", "// in front\nint c;\n"])
def test_comment_edit_with_debug_info_stops_at_the_image(space: EngineSpace, text: str) -> None:
    space.flags = ("-g",)
    space.build()
    image = space.root / "build/local-fast/app.bin"
    before = image.stat().st_mtime_ns
    space.write("src/c.c", text)
    again = space.build()
    assert again.ran == ["ld build/local-fast/app.elf", "src/c.c"]
    assert again.count("built") == 1
    # The strip ran and gave the same bytes: what hangs on the image has nothing to do.
    assert image.read_bytes() == b"".join(
        space.outputs()[f"build/local-fast/obj/{n}.o"].split(b"\nlines")[0] for n in "abc"
    ).join([b"ELF", b""])
    assert image.stat().st_mtime_ns >= before
    assert space.build().nothing


def test_real_edit_compiles_one_and_links(built: EngineSpace) -> None:
    built.write("src/b.c", '#include "a.h"\nint b2;\n')
    again = built.build()
    assert again.ran == ["ld build/local-fast/app.elf", "src/b.c"]
    assert str(again.reasons[0]).startswith("input compile src/b.c: src/b.c: ")
    assert built.build().nothing


def test_header_edit_compiles_its_users(built: EngineSpace) -> None:
    built.write("inc/a.h", "int h2;\n")
    again = built.build()
    assert again.ran == ["ld build/local-fast/app.elf", "src/a.c", "src/b.c"]
    assert [r.kind for r in again.reasons] == ["discovered input", "discovered input", "input"]
    assert built.build().nothing


def test_build_deleted_is_restored(built: EngineSpace) -> None:
    before = built.outputs()
    shutil.rmtree(built.root / "build")
    again = built.build()
    assert again.ran == [] and again.count("restored") == 5
    assert built.outputs() == before
    assert os.access(built.root / "build/local-fast/app.elf", os.X_OK)
    assert built.build().nothing


@pytest.mark.parametrize("name", ["obj/a.o", "app.elf", "app.bin"])
def test_output_corrupted_in_place_is_restored(built: EngineSpace, name: str) -> None:
    path = built.root / "build/local-fast" / name
    good, status = path.read_bytes(), path.stat()
    path.write_bytes(bytes([good[0] ^ 1]) + good[1:])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    again = built.build()
    assert again.ran == [] and again.count("restored") == 1
    assert path.read_bytes() == good
    assert built.build().nothing


def test_lost_executable_bit_is_restored(built: EngineSpace) -> None:
    elf = built.root / "build/local-fast/app.elf"
    elf.chmod(0o644)
    assert built.build().count("restored") == 1
    assert os.access(elf, os.X_OK)
    assert built.build().nothing


def test_revert_is_restored(built: EngineSpace) -> None:
    before = built.outputs()
    built.write("inc/a.h", "int h2;\n")
    built.build()
    built.write("inc/a.h", "int h;\n")
    again = built.build()
    assert again.ran == [] and again.count("restored") == 4
    assert built.outputs() == before
    assert built.build().nothing


def test_touch_runs_no_action(built: EngineSpace) -> None:
    for path in (built.root / "src").iterdir():
        path.touch()
    again = built.build()
    assert again.scanned and again.results == ()
    assert built.build().nothing


def test_touched_output_is_looked_at_and_kept(built: EngineSpace) -> None:
    (built.root / "build/local-fast/obj/a.o").touch()
    again = built.build()
    assert again.ran == [] and again.count("up_to_date") == 3 and again.count("restored") == 0
    assert built.build().nothing


def test_edit_right_after_a_build_is_seen(built: EngineSpace) -> None:
    for number in range(20):
        built.write("src/c.c", f"int c{number:02};\n")
        assert built.build().ran == ["ld build/local-fast/app.elf", "src/c.c"]


def test_same_size_same_mtime_edit_is_seen(built: EngineSpace) -> None:
    path = built.root / "src/c.c"
    status = path.stat()
    path.write_text("int d;\n")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_mtime_ns == status.st_mtime_ns and path.stat().st_size == status.st_size
    assert built.build().ran == ["ld build/local-fast/app.elf", "src/c.c"]


def test_replaced_by_an_older_file_is_seen(built: EngineSpace) -> None:
    old = built.write("older.c", "int older;\n")
    os.utime(old, (1, 1))
    old.replace(built.root / "src/c.c")
    assert built.build().ran == ["ld build/local-fast/app.elf", "src/c.c"]


def test_profiles_switch_back_and_forth(built: EngineSpace) -> None:
    built.profile, built.flags = "release", ("-g",)
    assert built.build().count("compiled") == 3
    assert built.build().nothing
    built.profile, built.flags = "local-fast", ()
    assert built.build().nothing
    built.profile, built.flags = "release", ("-g",)
    assert built.build().nothing


def test_flag_and_tool_are_inputs(built: EngineSpace) -> None:
    built.flags = ("-DX",)
    again = built.build()
    assert again.count("compiled") == 3
    assert again.reasons[0] == Reason("argument", "compile src/a.c", "", "-DX")
    built.identity = "fake 2"
    again = built.build()
    assert again.count("compiled") == 3 and again.count("linked") == 1
    assert again.reasons[0] == Reason("tool", "compile src/a.c: cc", "fake 1", "fake 2")
    built.identity, built.flags = "fake 1", ()
    again = built.build()
    assert again.ran == []
    assert built.build().nothing


def test_input_edited_during_the_action_is_not_recorded(built: EngineSpace) -> None:
    path = built.write("src/c.c", "int c1;\n")

    def edit(name: str) -> None:
        if name == "src/c.c":
            path.write_text("int c2;\n")

    built.tools.during = edit
    result = built.build()
    assert [note.kind for note in result.results[0].notes] == ["changed while it was used"]
    built.tools.during = lambda name: None
    assert "src/c.c" in built.build().ran
    assert built.outputs()["build/local-fast/obj/c.o"] == b"int c2;"
    assert built.build().nothing


def test_header_edited_during_the_action_and_put_back_is_not_recorded(space: EngineSpace) -> None:
    header = space.root / "inc/a.h"

    def edit(name: str) -> None:
        if name == "src/a.c":
            header.write_text("int other;\n")
            header.write_text("int h;\n")

    space.tools.during = edit
    notes = space.build().results[0].notes
    assert "compile src/a.c: inc/a.h" in [note.subject for note in notes]
    space.tools.during = lambda name: None
    assert "src/a.c" in space.build().ran
    assert space.build().nothing


def test_new_header_that_shadows_another_is_noticed(built: EngineSpace) -> None:
    built.write("first/a.h", "int shadow;\n")
    again = built.build()
    assert again.ran == ["ld build/local-fast/app.elf", "src/a.c", "src/b.c"]
    assert again.reasons[0].kind == "absent file"
    (built.root / "first/a.h").unlink()
    again = built.build()
    assert again.ran == [] and again.count("restored") == 4
    built.write("src/a.h", "int nearer;\n")
    assert built.build().ran == ["ld build/local-fast/app.elf", "src/a.c", "src/b.c"]
    assert built.build().nothing


def test_header_removed(built: EngineSpace) -> None:
    (built.root / "inc/a.h").unlink()
    failed = built.build()
    assert not failed.ok and "#error" in failed.results[0].failures[0].stderr
    built.write("inc/a.h", "int h;\n")
    assert built.build().ran == []
    assert built.build().nothing


def test_warnings_are_replayed_on_hits(built: EngineSpace) -> None:
    built.write("src/c.c", "int c; // WARN\n")
    warning = (("compile src/c.c", "src/c.c:1: warning: hm\n"),)
    assert built.build().results[0].warnings == warning
    assert built.build().nothing
    shutil.rmtree(built.root / "build")
    again = built.build()
    assert again.ran == [] and again.results[0].warnings == warning


def test_two_checkouts_share_the_cache(tmp_path: Path) -> None:
    one = EngineSpace(tmp_path / "one", tmp_path / "cache").sample()
    two = EngineSpace(tmp_path / "deeper/down/two", tmp_path / "cache").sample()
    assert one.build().count("compiled") == 3
    again = two.build()
    assert again.ran == [] and again.count("restored") == 5
    assert one.outputs() == two.outputs()
    assert two.build().nothing


def test_source_added_and_removed(built: EngineSpace) -> None:
    before = built.outputs()
    built.write("src/d.c", "int d;\n")
    assert built.build().ran == ["ld build/local-fast/app.elf", "src/d.c"]
    (built.root / "src/d.c").unlink()
    (built.root / "build/local-fast/obj/d.o").unlink()
    assert built.build().ran == []
    assert built.outputs() == before
    assert built.build().nothing


def test_generated_header_orders_and_cuts_off(space: EngineSpace) -> None:
    space.write("gen/seed", "int generated; // one\n")
    space.write("src/c.c", '#include "g.h"\n')
    space.search = ("build/gen",)
    space.builtins = {**space.builtins, "copy@1": lambda call: [call.inputs[0].split(b" //")[0]]}
    real = space.actions

    def with_generator() -> list[object]:
        made = Action("generate", Stage.COMPILE, ("gen/seed",), ("build/gen/g.h",), builtin="copy@1")
        changed = [
            a._replace(inputs=(*a.inputs, "build/gen/g.h")) if a.name == "compile src/c.c" else a for a in real()
        ]
        # Declared last, needed first.
        return [*changed, made]

    space.actions = with_generator  # type: ignore[method-assign, assignment]
    space.write("src/a.c", "int a;\n")
    space.write("src/b.c", "int b;\n")
    cold = space.build()
    assert cold.ok and cold.count("built") == 2
    assert space.build().nothing
    space.write("gen/seed", "int generated; // two\n")
    again = space.build()
    assert again.ran == [] and again.count("built") == 1, "an equal header compiles nothing"
    space.write("gen/seed", "int generated2; // two\n")
    assert space.build().ran == ["ld build/local-fast/app.elf", "src/c.c"]
    assert space.build().nothing


@pytest.mark.parametrize("spelt", ["../build/gen/g.h", "../src/../build/gen/../gen/g.h"])
def test_generated_header_beside_the_search_path(space: EngineSpace, spelt: str) -> None:
    """Only the depfile tells that the compile reads it: at first it waits for all generators, then for this one."""
    space.write("gen/seed", "int generated;\n")
    space.write("src/a.c", f'#include "{spelt}"\n')
    words = ("cc", "-o", "build/gen/g.h", "-MF", "build/gen/g.d", "gen/seed")
    made = Action(
        name="generate",
        stage=Stage.COMPILE,
        inputs=("gen/seed",),
        outputs=("build/gen/g.h",),
        argv=words,
        depfile="build/gen/g.d",
        profile="local-fast",
        count_as="built",
    )
    real = space.actions
    space.actions = lambda: [*real(), made]  # type: ignore[method-assign]
    assert space.build().ok
    assert space.build().nothing
    discovered = load_saved(space.root / ".deploy").records.discovered("local-fast:compile src/a.c")
    assert [path for path, _ in discovered] == ["build/gen/g.h"]
    for number in range(3):
        space.write("gen/seed", f"int generated{number};\n")
        assert set(space.build().ran) == {"gen/seed", "src/a.c", "ld build/local-fast/app.elf"}
        assert space.build().nothing


def test_uncacheable_action_is_remembered_but_not_stored(space: EngineSpace) -> None:
    space.change = lambda action: action._replace(cacheable=False)
    assert space.build().ran == ALL
    assert space.build().nothing
    assert not (space.cache / "ac.v1").exists()
    shutil.rmtree(space.root / "build")
    assert space.build().ran == ALL


def test_a_project_without_option_headers_asks_about_none(built: EngineSpace) -> None:
    """What could read them is not even loaded."""
    built.write("src/a.c", "int edited;\n")
    engine = built.engine()
    assert engine.run(Stage.COMPILE, lambda *told: None).ok and "options" not in engine.workspace.__dict__


def test_a_record_that_was_asked_for_last_is_the_one_that_is_there(built: EngineSpace) -> None:
    records = built.engine().workspace.records
    one, other = sorted(records.names())[:2]
    before = records.get(one)
    assert before is not None and records.get(one) is before, "not decoded twice in a row"
    records.put(one, before._replace(key="0" * 64))
    assert records.get(one) == before._replace(key="0" * 64)
    assert records.get(other) != records.get(one)
    records.drop(one)
    assert records.get(one) is None and records.get("nothing") is None


def test_verdict_and_peek_are_pure(built: EngineSpace) -> None:
    built.write("src/a.c", "int edited;\n")
    before = {p: p.stat().st_mtime_ns for p in built.root.rglob("*")}
    engine = built.engine()
    assert [r.subject for r in engine.peek().reasons] == ["src/a.c"]
    assert [r.subject for r in engine.verdict(Stage.COMPILE).reasons] == ["compile src/a.c: src/a.c"]
    assert engine.verdict(Stage.LINK).up_to_date
    assert {p: p.stat().st_mtime_ns for p in built.root.rglob("*")} == before


def test_warm_engine_imports_nothing_heavy() -> None:
    import subprocess
    import sys

    code = (
        "import sys; import pipeline.engine.engine; "
        "unwanted = {'subprocess', 'json', 'xxhash', 'concurrent', 'pipeline.engine.scheduler', 'esptool'}; "
        "print(unwanted & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
