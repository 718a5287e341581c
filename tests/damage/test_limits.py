"""The engine where it cannot read, cannot write, has no room, or cannot trust the clock; and each of its files damaged.
Never a wrong output, never an exception, at worst more work."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cache.actions import ActionCache, ActionResult, OutputFile, decode_entry, encode_entry
from cache.blobs import BlobStore
from cache.digest import ActionKey, digest_bytes
from pipeline.engine.engine import STATE_NAME
from pipeline.engine.results import FailureKind, RunResult
from tests.damage.child import NOBODY, in_child, is_root
from tests.damage.test_state_files import damaged
from tests.unit.file_server import FileServer
from tests.unit.random_project import FakeRunner, RandomProject, Shape, clean_build, is_whole, outputs_of

KEY = ActionKey("ab" * 32)


@pytest.fixture
def project() -> Iterator[RandomProject]:
    """Below /tmp itself, since pytest's directories are closed to other users."""
    base = Path(tempfile.mkdtemp(prefix="hotplate-test-"))
    project = RandomProject(base / "project", base / "cache", Shape())
    for number in range(3):
        project.write(f"src/s{number}.c", f'#include "h.h"\n#include "g0.h"\nint v{number};\n')
    project.write("inc/h.h", "int h;\n")
    project.write("gen/g0.txt", "int g;\n")
    project.cache.mkdir()
    base.chmod(0o755)
    if is_root():
        for path in (project.root, *project.root.rglob("*"), project.cache):
            os.chown(path, NOBODY, NOBODY)
    yield project
    for path in (base, *base.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
    shutil.rmtree(base)


def executed(results: list[RunResult]) -> set[str]:
    return {name for result in results for name in result.executed}


def right(project: RandomProject) -> bool:
    return all(is_whole(project.root / path, data) for path, data in outputs_of(clean_build(project)))


def names(project: RandomProject) -> set[str]:
    return {action.name for action in project.actions()}


def build(project: RandomProject) -> Callable[[], list[RunResult]]:
    """As a function for a child, with every module that it will need loaded."""
    import pipeline.engine.scheduler  # noqa: F401

    return project.build


@pytest.fixture
def built(project: RandomProject) -> RandomProject:
    assert executed(in_child(build(project), unprivileged=True)) == names(project)
    assert right(project)
    return project


# --- files that are damaged -------------------------------------------------------------------


def test_an_entry_cut_anywhere_or_with_any_bit_flipped_is_a_miss() -> None:
    result = ActionResult((OutputFile("build/a.o", digest_bytes(b"a"), True),), None, digest_bytes(b"warning"), 12)
    data = encode_entry(KEY, result)
    assert decode_entry(KEY, data) == result
    assert [bad for bad in damaged(data) if decode_entry(KEY, bad) is not None] == []
    assert decode_entry(ActionKey("cd" * 32), data) is None, "an entry is bound to its key"


def test_a_blob_cut_anywhere_or_with_any_bit_flipped_is_no_hit(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    data = bytes(range(256))
    digest = blobs.put_bytes(data)
    for bad in damaged(data):
        path = blobs.path(digest)
        path.chmod(0o644)
        path.write_bytes(bad)
        assert blobs.read(digest) is None and not path.exists()
        assert blobs.materialize(digest, str(tmp_path / "out"), executable=False) is None
        assert not (tmp_path / "out").exists()
        blobs.put_bytes(data)
    assert blobs.read(digest) == data


def files_of(project: RandomProject) -> list[Path]:
    """Whatever state there is, by looking."""
    return sorted(p for top in (project.root / ".deploy", project.cache) for p in top.rglob("*") if p.is_file())


def replace_by_directory(path: Path) -> None:
    path.unlink()
    (path / "deeper").mkdir(parents=True)


def replace_by_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def noise(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(b"\xff\x00\n" * 50)


def end_in_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to("/nonexistent/nowhere")


@pytest.mark.parametrize("damage", [replace_by_directory, replace_by_loop, noise, end_in_nothing])
def test_every_state_file_replaced_while_build_is_gone(built: RandomProject, damage: Callable[[Path], None]) -> None:
    """Each in turn, with all others whole; then all at once."""
    pristine = built.root.parent / "pristine"
    shutil.copytree(built.root / ".deploy", pristine / ".deploy")
    shutil.copytree(built.cache, pristine / "cache")
    relative = [path.relative_to(built.root.parent) for path in files_of(built)]
    assert any(path.name == STATE_NAME for path in relative) and len(relative) > 20

    def again(paths: list[Path]) -> None:
        for top in (built.root / ".deploy", built.cache, built.root / "build"):
            shutil.rmtree(top, ignore_errors=True)
        shutil.copytree(pristine / ".deploy", built.root / ".deploy")
        shutil.copytree(pristine / "cache", built.cache)
        for path in paths:
            damage(built.root.parent / path)
        results = built.build()
        assert all(result.ok for result in results) and right(built), paths
        if len(paths) == 1:
            # Two, where a program and its image are the same bytes, so one blob, and what is in its place stays there.
            assert len(executed(results)) <= 2, "one file holds up at most what needs it"

    for path in relative:
        again([path])
    again(relative)
    # A directory in the place of a file is left alone, so that this may have to work as much again.
    assert all(result.ok for result in built.build()) and right(built)


# --- rights -----------------------------------------------------------------------------------


def close(path: Path, mode: int) -> None:
    """Give `path` and what is in it to another user, with these rights for everybody else."""
    for each in (path, *path.rglob("*")):
        if is_root():
            os.chown(each, 0, 0)
        each.chmod(mode if each.is_dir() else mode & 0o666)


def test_read_only_cache_restores_and_stores_nothing(built: RandomProject) -> None:
    close(built.cache, 0o555)
    shutil.rmtree(built.root / "build")
    results = in_child(build(built), unprivileged=True)
    assert executed(results) == set() and right(built)
    assert sum(result.counts["restored"] for result in results) == len(names(built))
    built.write("src/s0.c", "int other;\n")
    results = in_child(build(built), unprivileged=True)
    assert executed(results) == {"cc src/s0.c", "ld 0", "bin 0"} and right(built)
    assert {note.kind for result in results for note in result.notes} == {"not stored"}
    assert in_child(build(built), unprivileged=True) == [], "its own record suffices"


def test_unreadable_cache_costs_work_only(built: RandomProject) -> None:
    close(built.cache, 0)
    assert in_child(build(built), unprivileged=True) == []
    shutil.rmtree(built.root / "build")
    results = in_child(build(built), unprivileged=True)
    assert executed(results) == names(built) and right(built)


def test_read_only_state_costs_work_only(built: RandomProject) -> None:
    close(built.root / ".deploy", 0o555)
    built.write("src/s0.c", "int other;\n")
    first = in_child(build(built), unprivileged=True)
    assert executed(first) == {"cc src/s0.c", "ld 0", "bin 0"} and right(built)
    assert executed(in_child(build(built), unprivileged=True)) == set(), "the cache still knows"
    assert right(built)


def test_unreadable_state_starts_over(built: RandomProject) -> None:
    state = built.root / ".deploy" / STATE_NAME
    close(state, 0)
    results = in_child(build(built), unprivileged=True)
    assert executed(results) == set() and right(built)


def test_unwritable_build_directory_is_said(built: RandomProject) -> None:
    close(built.root / "build", 0o555)
    built.write("src/s0.c", "int other;\n")
    (failure,) = [f for r in in_child(build(built), unprivileged=True) for f in r.failures]
    assert failure.kind is FailureKind.FILE_SYSTEM and "Permission denied" in failure.message


def test_unreadable_source_is_said(built: RandomProject) -> None:
    actions = built.actions()
    built.actions = lambda: actions  # type: ignore[method-assign]
    close(built.root / "src/s0.c", 0)
    (failure,) = [f for r in in_child(build(built), unprivileged=True) for f in r.failures]
    assert failure.kind is FailureKind.INPUT_MISSING
    assert failure.message == "src/s0.c cannot be read: Permission denied"
    (built.root / "src/s0.c").chmod(0o644)
    assert executed(built.build()) == set() and right(built)


# --- room -------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [0, 1, 30, 60, 100, 200, 400, 600, 1000, 2000, 4000, 8000])
def test_a_disk_that_fills_up_in_mid_write(project: RandomProject, room: int) -> None:
    """Each file may have `room` bytes: first outputs, then blobs, entries and the state no longer fit."""
    results = in_child(build(project), max_file_bytes=room)
    failed = [failure for result in results for failure in result.failures]
    assert {failure.kind for failure in failed} <= {FailureKind.FILE_SYSTEM, FailureKind.EXIT}
    if not failed:
        assert right(project)
    assert not list(project.root.rglob("*.tmp")) and not list(project.cache.rglob("*.tmp")), "nothing is left behind"
    results = project.build()
    assert all(result.ok for result in results) and right(project)
    assert project.build() == []


# --- the clock --------------------------------------------------------------------------------


def test_files_from_the_future(built: RandomProject) -> None:
    """As after the clock was set back by a day."""
    for path in (*built.root.rglob("*"), *built.cache.rglob("*")):
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime + 86400))
    assert executed(built.build()) == set() and right(built)
    assert built.build() == []
    built.write("src/s1.c", "int w1;\n")
    assert executed(built.build()) >= {"cc src/s1.c"} and right(built)
    shutil.rmtree(built.root / "build")
    assert executed(built.build()) == set() and right(built)


@pytest.mark.parametrize("tick_ns", [1_000_000_000, 946_684_800_123_456_789])
def test_a_clock_that_ticks_in_seconds_or_stands(
    project: RandomProject, tick_ns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is believed by its stamp before a tick comes, and nothing is missed."""
    FileServer(monkeypatch, 0, tick_ns=tick_ns)
    assert all(result.ok for result in project.build()) and right(project)
    for number in range(3):
        path = project.root / "src/s2.c"
        status = path.stat()
        path.write_text(path.read_text().replace("int v", "int w") if number % 2 else path.read_text()[:-3] + "9;\n")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert all(result.ok for result in project.build()) and right(project)


def test_a_blob_swapped_for_one_of_the_same_size(tmp_path: Path) -> None:
    """An entry whose blob was swapped for another one of the same size: the name decides, not the size."""
    blobs = BlobStore(tmp_path)
    results = ActionCache(tmp_path, blobs)
    digest, other = blobs.put_bytes(b"right"), b"wrong"
    results.record(KEY, ActionResult((OutputFile("build/a", digest, False),)))
    blobs.path(digest).chmod(0o644)
    blobs.path(digest).write_bytes(other)
    found = results.lookup(KEY)
    assert found is not None, "the size is right, so that only reading can tell"
    assert blobs.materialize(found.outputs[0].digest, str(tmp_path / "a"), executable=False) is None
    assert results.lookup(KEY) is None, "and once read, it is gone"


def test_the_oracle_agrees_with_a_build_by_hand(project: RandomProject) -> None:
    """The oracle agrees with a build by hand in an empty directory: no engine, no cache."""
    runner = FakeRunner()
    for one in clean_build(project):
        for path in one.outputs:
            (project.root / path).parent.mkdir(parents=True, exist_ok=True)
        if one.action.argv:
            runner.run(one.action.argv, cwd=project.root, env={}, timeout_s=1)
        else:
            (path,) = one.outputs
            (project.root / path).write_bytes(one.outputs[path])
    assert right(project)
