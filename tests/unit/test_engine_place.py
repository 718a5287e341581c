"""Outputs are regular files below the project's real build/; what others wrote into state and store is not believed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from cache import statefile
from cache.actions import ActionResult, OutputFile
from cache.digest import ActionKey, is_hex_name
from cache.store import Store
from pipeline.effects.api import Completed
from pipeline.engine.build_log import BuildRecords
from pipeline.engine.candidates import CandidateSet
from pipeline.engine.results import FailureKind
from pipeline.engine.saved_state import STATE_KIND, STATE_NAME, load_saved
from pipeline.fastpath.state import FastPathState
from tests.unit.engine_space import EngineSpace


@pytest.fixture
def space(tmp_path: Path) -> EngineSpace:
    return EngineSpace(tmp_path / "project", tmp_path / "cache").sample()


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Somebody's directory, with files that are named as outputs are."""
    for name in ("app.elf", "app.bin", "a.o", "obj/a.o", "local-fast/obj/a.o", "precious"):
        path = tmp_path / "outside" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("precious")
    return tmp_path / "outside"


def content(place: Path) -> dict[str, str]:
    return {str(path.relative_to(place)): path.read_text() for path in place.rglob("*") if path.is_file()}


@pytest.mark.parametrize("link", ["build/local-fast", "build/local-fast/obj"])
@pytest.mark.parametrize("cached", [False, True])
def test_nothing_is_written_where_a_link_leads_out_of_build(
    space: EngineSpace, outside: Path, link: str, cached: bool
) -> None:
    before = content(outside)
    if cached:
        assert space.build().ok
        shutil.rmtree(space.root / "build")
    place = space.root / link
    place.parent.mkdir(parents=True, exist_ok=True)
    for target in (outside, space.root / "src", Path("/nonexistent/there"), space.root):
        place.symlink_to(target)
        source = content(space.root / "src")
        (failure, *_) = [failure for result in space.build().results for failure in result.failures]
        assert failure.kind is FailureKind.FILE_SYSTEM and failure.message.startswith("build/local-fast/")
        assert "leads out of build/, to" in failure.message and not space.ran
        assert content(outside) == before and content(space.root / "src") == source
        place.unlink()
    assert space.build().ok and space.build().nothing


def test_links_within_build_and_build_as_a_link_are_fine(space: EngineSpace, outside: Path) -> None:
    (space.root / "build").symlink_to(outside)
    (outside / "objects").mkdir()
    (outside / "local-fast").rename(outside / "other")
    (outside / "local-fast").mkdir()
    (outside / "local-fast/obj").symlink_to("../objects")
    assert space.build().ok and (outside / "objects/a.o").exists() and space.build().nothing


KINDS: dict[str, Callable[[Path], object]] = {
    "a FIFO": os.mkfifo,
    "a symbolic link": lambda path: path.symlink_to(path.parent),
    "a directory": lambda path: (path / "below").mkdir(parents=True),
    "a socket": lambda path: os.mknod(path, 0o140644),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["build/local-fast/obj/c.o", "build/local-fast/obj/c.d", "build/local-fast/app.elf"])
def test_an_output_that_is_no_file_is_refused_and_removed(
    space: EngineSpace, outside: Path, kind: str, name: str
) -> None:
    real = space.tools.run
    bad = [True]

    def run(argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout_s: float) -> Completed:
        done = real(argv, cwd=cwd, env=env, timeout_s=timeout_s)
        if bad[0] and name in argv:
            (space.root / name).unlink()
            KINDS[kind](space.root / name)
        return done

    space.tools.run = run  # type: ignore[method-assign]
    for _ in range(2):
        (failure,) = [failure for result in space.build().results for failure in result.failures]
        assert failure.message == f"the command made {name} {kind}; let it write a regular file"
        assert not os.path.lexists(space.root / name)
    bad[0] = False
    assert space.build().ok and space.build().nothing


def test_a_source_or_header_that_is_no_file_is_an_error(space: EngineSpace) -> None:
    """Without waiting for who writes into it."""
    for name in ("src/a.c", "inc/a.h"):
        text = (space.root / name).read_text()
        for kind in ("a FIFO", "a directory"):
            (space.root / name).unlink()
            KINDS[kind](space.root / name)
            space.tools.run = lambda *argv, **more: Completed(1, b"", b"what a compiler says", 0.0)  # type: ignore
            assert not space.build().ok
            (shutil.rmtree if kind == "a directory" else os.unlink)(space.root / name)
            (space.root / name).write_text(text)


# --- what others wrote ------------------------------------------------------------------------

VALUES: list[Any] = [None, 5, "x", b"x", (), {}, [], (1, 2), (None, None, None), {"a": 1}, 2**62, True, float("nan")]


def mutations(value: Any, depth: int = 0) -> list[Any]:
    """`value` with each of its parts replaced by something else, or left out."""
    found: list[Any] = list(VALUES)
    if depth < 6 and isinstance(value, tuple):
        for n, part in enumerate(value[:3]):
            found += [(*value[:n], other, *value[n + 1 :]) for other in mutations(part, depth + 1)]
            found.append(value[:n] + value[n + 1 :])
    if isinstance(value, dict):
        for name, part in list(value.items())[:2]:
            found += [{**value, name: other} for other in mutations(part, depth + 1)]
    if isinstance(value, bytes):
        found += [value[: len(value) // 2], b"\xff" + value]
        try:
            import marshal

            found += [marshal.dumps(other) for other in mutations(marshal.loads(value), depth + 1)]
        except (ValueError, EOFError, TypeError):
            pass
    return found


def test_a_state_file_with_any_other_value_starts_over(space: EngineSpace) -> None:
    """Each with the right checksum. Never an exception, and never another output."""
    space.build()
    outputs, path = space.outputs(), space.root / ".deploy" / STATE_NAME
    value, _ = statefile.load(path, STATE_KIND)
    every = mutations(value)
    assert len(every) > 300
    for other in every[::7]:
        path.write_bytes(statefile.encode(STATE_KIND, other))
        load_saved(space.root / ".deploy")
        again = space.build()
        assert again.ok and space.outputs() == outputs, other
    assert space.build().nothing


def test_records_with_any_other_value_are_none(space: EngineSpace) -> None:
    space.build()
    value, _ = statefile.load(space.root / ".deploy" / STATE_NAME, STATE_KIND)
    for other in mutations(value[1]):
        records = BuildRecords(other)
        for name in (*value[1][0], *records.names()):
            records.get(name)
            inputs, outputs = records.files(name) or ((), ())
            made, key = records.result(name) or ((), "0" * 64)
            named = (*inputs, *outputs, *made, *records.discovered(name))
            assert all(isinstance(path, str) and is_hex_name(sha256) for path, sha256, *_ in named), other
            assert is_hex_name(key) and all(isinstance(path, str) for path in records.absent(name)), other


@pytest.mark.parametrize("path", ["../outside/precious", "/etc/hostname", "src/a.c", "build/../src/a.c", "a\0b"])
def test_a_result_whose_paths_are_others_is_no_hit(space: EngineSpace, outside: Path, path: str) -> None:
    before, source = content(outside), content(space.root / "src")
    space.build()
    store = Store(space.cache)
    for entry in (space.cache / "ac.v1").rglob("*"):
        if entry.is_file():
            result = store.results.entry(ActionKey(entry.name))
            assert result is not None
            files = tuple(OutputFile(path, file.digest, False) for file in result.outputs)
            store.results.record(ActionKey(entry.name), ActionResult(files, result.stdout, result.stderr))
    shutil.rmtree(space.root / "build")
    (space.root / ".deploy" / STATE_NAME).unlink()
    again = space.build()
    assert again.ok and again.count("restored") == 0
    assert content(outside) == before and content(space.root / "src") == source


@pytest.mark.parametrize(
    "value",
    [
        *(
            None,
            5,
            "x",
            [],
            {},
            {"discovered": []},
            {"discovered": "ab", "absent": []},
            {"discovered": {}, "absent": []},
        ),
        *({"discovered": [path], "absent": []} for path in (None, 5, "a\0b", ["x"], "", 1e999)),
        *({"discovered": [], "absent": [path]} for path in (None, 5, "a\0b", ["x"], "")),
    ],
)
def test_a_candidate_set_of_others_is_none(value: Any) -> None:
    assert CandidateSet.decode(json.dumps(value).encode()) is None
    assert CandidateSet.decode(b"[" * 100_000) is None


@pytest.mark.parametrize("path", ["fifo", "/dev/zero", "loop", "x" * 5000, "{cc_dir}/../..", "\ud800", ".."])
def test_a_candidate_set_that_names_what_is_no_file_costs_nothing_but_a_miss(space: EngineSpace, path: str) -> None:
    os.mkfifo(space.root / "fifo")
    (space.root / "loop").symlink_to("loop")
    space.build()
    outputs, store = space.outputs(), Store(space.cache)
    for blob in list((space.cache / "cas.v1").rglob("*")):
        if blob.is_file() and (candidate := CandidateSet.decode(blob.read_bytes())) is not None:
            bad = CandidateSet((*candidate.discovered, path), candidate.absent)
            for entry in (space.cache / "ac.v1").rglob("*"):
                if entry.is_file():
                    result = store.results.entry(ActionKey(entry.name))
                    if result is not None and result.outputs[0].digest.hex == blob.name:
                        store.results.add_candidate(ActionKey(entry.name), bad.encode())
    shutil.rmtree(space.root / "build")
    (space.root / ".deploy" / STATE_NAME).unlink()
    assert space.build().ok and space.outputs() == outputs


def test_the_fast_paths_state_is_not_withdrawn_through_a_link(space: EngineSpace, outside: Path) -> None:
    before = content(outside)
    (space.root / ".deploy").mkdir()
    (space.root / ".deploy/gate.v1").symlink_to(outside)
    FastPathState(space.root, "").withdraw()
    assert content(outside) == before and not (space.root / ".deploy/gate.v1").is_symlink()


def test_a_header_that_a_compiler_would_wait_for_is_named(space: EngineSpace) -> None:
    """Before the compiler starts; not what is none of its business."""
    os.mkfifo(space.root / "inc/fifo")
    (space.root / "inc/null.h").symlink_to("/dev/null")
    (space.root / "inc/nothing.h").symlink_to("nowhere")
    assert space.build().ok
    (space.root / "inc/deeper").mkdir()
    for name, make in (("later.h", KINDS["a FIFO"]), ("zero.h", lambda path: path.symlink_to("/dev/zero"))):
        make(space.root / "inc/deeper" / name)
        space.write("src/a.c", f"int {name[:-2]};\n")
        (failure,) = [failure for result in space.build().results for failure in result.failures]
        assert failure.message.startswith(f"inc/deeper/{name} cannot be read: it is a FIFO or a device")
        assert not space.ran
        (space.root / "inc/deeper" / name).unlink()
