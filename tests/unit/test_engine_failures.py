"""What the engine does when actions fail, are interrupted, or cannot be ordered."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.engine.results import FailureKind
from pipeline.errors import ConfigError
from tests.unit.engine_space import EngineSpace

ALL = ["ld build/local-fast/app.elf", "src/a.c", "src/b.c", "src/c.c"]


@pytest.fixture
def space(tmp_path: Path) -> EngineSpace:
    return EngineSpace(tmp_path / "project").sample()


@pytest.fixture
def built(space: EngineSpace) -> EngineSpace:
    assert space.build().ran == ALL
    return space


def test_failed_compile_is_not_cached_and_leaves_nothing(built: EngineSpace) -> None:
    built.write("src/b.c", "#error\n")
    for _ in range(2):
        failed = built.build()
        assert failed.ran == ["src/b.c"] and not failed.ok
        (failure,) = failed.results[-1].failures
        assert (failure.kind, failure.exit_code) == (FailureKind.EXIT, 1)
        assert failure.argv[0] == "/opt/cc" and failure.stderr == "src/b.c:1:2: error: #error\n"
        assert not (built.root / "build/local-fast/obj/b.o").exists()
    built.write("src/b.c", '#include "a.h"\nint b;\n')
    mended = built.build()
    assert mended.ran == [] and mended.count("restored") == 1
    assert built.build().nothing


def test_first_failure_stops_new_starts_and_keeps_finished_work(space: EngineSpace) -> None:
    for number in range(40):
        space.write(f"src/u{number:02}.c", "int u;\n" if number else "#error\n")
    failed = space.build()
    counts = failed.results[0].counts
    assert counts["failed"] >= 1 and counts["not_run"] > 0
    assert sum(counts.values()) == 43
    done = counts["compiled"]
    space.write("src/u00.c", "int u;\n")
    assert space.build().count("compiled") == 43 - done


def test_link_error(built: EngineSpace) -> None:
    built.write("src/c.c", "undefined\n")
    failed = built.build()
    assert [f.action for f in failed.results[-1].failures] == ["link"]
    assert failed.results[-1].counts["not_run"] == 1
    assert not (built.root / "build/local-fast/app.elf").exists()


def test_interrupt_keeps_finished_work(space: EngineSpace) -> None:
    def stop(name: str) -> None:
        if name == "src/b.c":
            raise KeyboardInterrupt

    space.tools.during = stop
    with pytest.raises(KeyboardInterrupt):
        space.build()
    finished = [name for name in space.ran if (space.root / f"build/local-fast/obj/{name[4:5]}.o").exists()]
    assert not (space.root / "build/local-fast/obj/b.o").exists()
    space.tools.during = lambda name: None
    again = space.build()
    assert again.count("compiled") == 3 - len(finished)
    assert space.build().nothing


def test_missing_output_is_a_failure(space: EngineSpace) -> None:
    space.change = lambda a: a._replace(outputs=(*a.outputs, "build/more")) if a.name == "compile src/a.c" else a
    (failure,) = (f for r in space.build().results for f in r.failures)
    assert failure.kind is FailureKind.OUTPUT_MISSING and "build/more" in failure.message


def test_missing_input_is_a_failure(built: EngineSpace) -> None:
    built.change = lambda a: a._replace(inputs=(*a.inputs, "src/none.c")) if a.name == "compile src/a.c" else a
    failed = built.build()
    (failure,) = failed.results[0].failures
    assert failure.kind is FailureKind.INPUT_MISSING and failure.message == "src/none.c is missing"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"inputs": ("build/local-fast/app.bin",)}, "wait for each other"),
        ({"outputs": ("build/local-fast/app.bin",)}, "output of both"),
        ({"outputs": ("../out",)}, "outside the project"),
        ({"inputs": ("/etc/passwd",)}, "outside the project"),
        ({"name": "image"}, "two actions are called"),
        ({"outputs": ()}, "declares no output"),
        ({"builtin": "strip@1"}, "either a command or a builtin"),
    ],
)
def test_bad_graphs_are_refused(space: EngineSpace, changes: dict[str, object], words: str) -> None:
    space.change = lambda a: a._replace(**changes) if a.name == "link" else a  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=words):
        space.engine()


def test_cycle_is_named(space: EngineSpace) -> None:
    space.change = lambda a: a._replace(inputs=("build/local-fast/app.bin",)) if a.name == "link" else a
    with pytest.raises(ConfigError, match=r"'link' -> 'image' -> 'link'|'image' -> 'link' -> 'image'"):
        space.engine()
