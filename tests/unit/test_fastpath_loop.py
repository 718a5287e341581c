"""The compiled loop of the fast path says what the Python loop says; whatever is odd about it is left to Python."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline import fastpath
from pipeline.effects.clock import SystemClock
from pipeline.effects.process import SystemProcessRunner
from pipeline.fastpath import FileStamp, Snapshot, identity, native_build, native_loop, stamp_of
from pipeline.fastpath.listing import listing_of
from pipeline.fastpath.state import FastPathState

pytestmark = pytest.mark.skipif(not hasattr(os, "posix_spawn"), reason="the fast path has no compiled loop here")

FILES = ("a", "src/b.c", "src/c.c", "src/deep/d", "src/deep", "include/x.h", "link", "src/link", "with space/é\n")
CHANGES = ("edit", "touch", "replace", "mode", "remove", "directory", "link", "hard link", "dangling", "unreadable")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield


@pytest.fixture
def runner() -> Iterator[SystemProcessRunner]:
    runner = SystemProcessRunner(SystemClock())
    yield runner
    runner.close()


@pytest.fixture(scope="module")
def helper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real program, made as a build makes it."""
    cache = tmp_path_factory.mktemp("helper")
    runner = SystemProcessRunner(SystemClock())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        made = native_build.ready(runner)
    runner.close()
    assert made is not None, "there is a compiler: cc, or zig of the development environment"
    return cache / "hotplate" / "native" / next(iter(made))


def tree(root: Path) -> None:
    for name in ("src/deep", "include", "with space"):
        (root / name).mkdir(parents=True)
    for name in FILES:
        path = root / name
        if name == "link":
            path.symlink_to("src/b.c")
        elif name == "src/link":
            path.symlink_to("deep")
        elif not path.is_dir():
            path.write_text(name)


def listing(root: Path) -> tuple[list[tuple[str, FileStamp]], bytes]:
    names = [*FILES, str(root / "src"), str(root / "a"), "src/../include/x.h"]
    files = [(name, fastpath.stamp_of((root / name).stat())) for name in names]
    return files, listing_of(files)


def change(path: Path, kind: str) -> None:
    if kind == "edit":
        path.write_text("other text") if path.is_file() else path.joinpath("new").write_text("")
    elif kind == "touch":
        os.utime(path, ns=(1, 1))
    elif kind == "mode":
        path.chmod(0o700)
    elif kind == "unreadable":
        path.chmod(0)
    elif kind == "hard link":
        os.link(path.parents[0] / "b.c", path.parents[0] / "other") if (path.parents[0] / "b.c").is_file() else None
    else:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        if kind == "replace":
            path.write_text(path.name)
        elif kind == "directory":
            path.mkdir()
        elif kind == "link":
            path.symlink_to("/etc")
        elif kind == "dangling":
            path.symlink_to("nowhere")


def snapshot_of(root: Path, count: int, text: bytes, helper: dict[str, FileStamp] | None) -> Snapshot:
    return Snapshot(fastpath.identity(str(root)), {}, (), (), helper, {}, "", 0, count, text)


def both(root: Path, count: int, text: bytes, helper: Path) -> list[int] | None:
    """Which files moved says Python, going from directory to directory and not, after the program said the same."""
    asked: list[int] = []
    named = {helper.name: fastpath.stamp_of(helper.stat())}
    here = Path.cwd()
    try:
        os.chdir(root)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_CACHE_HOME", str(helper.parents[2]))
            real = native_loop.ask

            def counted(*given: Any) -> Any:
                asked.append(1)
                return real(*given)

            patch.setattr(native_loop, "ask", counted)
            answers = [
                fastpath.moved(snapshot, str(root), alone=alone)
                for snapshot in (snapshot_of(root, count, text, named), snapshot_of(root, count, text, None))
                for alone in (True, False)
            ]
        assert len(asked) == 2 and Path.cwd() == root
    finally:
        os.chdir(here)
    assert answers == answers[:1] * 4
    return answers[0]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(FILES), st.sampled_from(CHANGES)), max_size=3))
@example([])
@example([("src", "unreadable")])
@example([("src", "remove")])
@example([("src/deep", "replace")])
def test_it_says_what_python_says(
    tmp_path_factory: pytest.TempPathFactory, helper: Path, changes: list[tuple[str, str]]
) -> None:
    root = tmp_path_factory.mktemp("tree")
    tree(root)
    files, text = listing(root)
    before = [fastpath.stamp_of((root / name).stat()) for name, _ in files]
    for name, kind in changes:
        with contextlib.suppress(OSError):  # an earlier change took its place away
            change(root / name, kind)
    moved = both(root, len(files), text, helper)
    after = before if moved else [fastpath.stamp_of((root / name).stat()) for name, _ in files]
    for path in (root / "src", root / "src/deep"):
        if path.is_dir():
            path.chmod(0o700)
    if not changes:
        assert moved == []
    assert before == after


@pytest.mark.parametrize("field", range(3))
def test_every_field_of_a_stamp_counts(tmp_path: Path, helper: Path, field: int) -> None:
    tree(tmp_path)
    files, _ = listing(tmp_path)
    for place, (name, stamp) in enumerate(files):
        other = tuple(value ^ (n == field) for n, value in enumerate(stamp))
        rows: list[Any] = [*files[:place], (name, other), *files[place + 1 :]]
        assert both(tmp_path, len(rows), listing_of(rows), helper) == [place]


def test_the_shortest_listing_and_a_long_one(tmp_path: Path, helper: Path) -> None:
    """The latter has more than what fits into a pipe, in both directions."""
    assert listing_of([("/", (1, 2, 3)), ("x", (1, 2, 3))])[48:] == b"/\0.\0\0./\0x\0\0"
    tree(tmp_path)
    files, _ = listing(tmp_path)
    assert both(tmp_path, 1, listing_of(files[:1]), helper) == []
    missing: list[tuple[str, FileStamp]] = [(f"none/{n:06}", (1, 2, 3)) for n in range(30000)]
    assert both(tmp_path, 30000, listing_of(missing), helper) == list(range(30000))


@pytest.mark.parametrize("count", [1999, 2000, 4001, 9000])
def test_what_several_processes_looked_at_is_put_together(tmp_path: Path, helper: Path, count: int) -> None:
    tree(tmp_path)
    files, _ = listing(tmp_path)
    rows = sorted((files * (count // len(files) + 1))[:count], key=lambda row: row[0].rpartition("/")[0])
    draw = random.Random(count)
    for places in ([], [0], [count - 1], [count // 2 - 1, count // 2], sorted(draw.sample(range(count), 50))):
        changed: list[Any] = list(rows)
        for place in places:
            name, (ctime_ns, *rest) = rows[place]
            changed[place] = (name, (ctime_ns + 1, *rest))
        assert both(tmp_path, count, listing_of(changed), helper) == places


def test_a_look_at_few_of_many_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As before a link, at what actions do not use; and the sizes of what they make are those of the listing."""
    made = [(f"build/{'' if n % 2 else 'obj/'}u{n:04}.o", (n, 1000 + n, n)) for n in range(native_loop.WORTH_FILES)]
    files = [*made, ("main.c", (1, 2, 3)), ("src/a.c", (4, 5, 6)), ("build.log", (7, 8, 9)), ("/usr/bin/cc", (1, 1, 1))]
    listing = listing_of(files)
    snapshot = Snapshot((), {}, (), (), {"statloop": (1, 2, 3)}, {}, "", len(files) - 1, len(files), listing)
    state = FastPathState(tmp_path, "")
    monkeypatch.setattr(state, "_former", snapshot)
    monkeypatch.setattr(state, "_contents", [b""] * len(files))
    asked: list[Snapshot] = []

    def nothing_moved(part: Snapshot, root: str, ready: object) -> list[int]:
        asked.append(part)
        return []

    monkeypatch.setattr("pipeline.fastpath.state.moved", nothing_moved)
    assert state.moved_products() == [] and not state.moved_beside()
    products, beside = asked
    assert products.helper == snapshot.helper and beside.helper is None


def test_a_program_that_is_ready_looks_when_it_is_asked(tmp_path: Path, helper: Path) -> None:
    tree(tmp_path)
    files, text = listing(tmp_path)
    looking = native_loop.Looking(str(helper), str(tmp_path), len(files), text)
    (tmp_path / files[0][0]).write_text("after it was started")
    assert 0 in (looking.places() or ()), "and whatever else is that file"
    looking = native_loop.Looking(str(helper), str(tmp_path), len(files), text)
    looking.end()
    with pytest.raises(ChildProcessError):
        os.waitpid(looking._child, os.WNOHANG)


@pytest.mark.parametrize("asked", [True, False])
def test_products_are_looked_at_when_the_link_has_ended(
    tmp_path: Path, helper: Path, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    """However early the loop was made ready; and one that nobody asks is ended."""
    (tmp_path / "build").mkdir()
    names = [f"build/u{n:04}.o" for n in range(native_loop.WORTH_FILES)]
    for name in names:
        (tmp_path / name).touch()
    files = [(name, stamp_of((tmp_path / name).stat())) for name in names]
    snapshot = Snapshot(
        identity(str(tmp_path)), {}, (), (), {helper.name: (1, 2, 3)}, {}, "", len(files), len(files), listing_of(files)
    )
    state = FastPathState(tmp_path, "")
    monkeypatch.setattr(state, "_former", snapshot)
    monkeypatch.setattr(state, "_contents", [b""] * len(files))
    monkeypatch.setattr(native_loop, "trusted", lambda *_: str(helper))
    monkeypatch.chdir(tmp_path)
    state.expect_products()
    ready = state._ready
    assert ready is not None
    (tmp_path / names[7]).write_text("while it linked")
    if asked:
        assert state.moved_products() == [names[7]]
        state.expect_products()
        assert state._ready is None
    state.close()
    state.close()
    with pytest.raises(ChildProcessError):
        os.waitpid(ready._child, os.WNOHANG)


def test_a_damaged_listing_is_never_found_unchanged(tmp_path: Path, helper: Path) -> None:
    """Behind the checksum, which in use refuses it before."""
    tree(tmp_path)
    files, text = listing(tmp_path)
    program, root, count = str(helper), str(tmp_path), len(files)
    assert native_loop.ask(program, root, count, text) == []
    assert native_loop.ask(program, root, count + 1, text) != []
    assert native_loop.ask(program, root, count - 1, text) != []
    for length in range(0, len(text), 13):
        assert native_loop.ask(program, root, count, text[:length]) != []
    for n in range(0, len(text) - 1, 5):
        assert native_loop.ask(program, root, count, text[:n] + bytes([text[n] ^ 1 << n % 7]) + text[n + 1 :]) != []
    assert native_loop.ask(program, str(tmp_path / "nowhere"), count, text) is not None


NO_ANSWERS = [
    "exit 0",
    "echo checked; exit 1",
    "kill -9 $$",
    "echo 1",
    "echo x; echo checked",
    "read -r line",
    "echo moved x; echo checked",
    "echo moved 0; echo checked",
    "echo moved 0; echo 0",
]


@pytest.mark.parametrize("script", NO_ANSWERS)
def test_no_answer_is_no_answer(tmp_path: Path, script: str) -> None:
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)
    assert native_loop.ask(str(program), str(tmp_path), 1, bytes(200_000)) is None
    program.chmod(0o600)
    if os.geteuid() != 0 or not os.access(program, os.X_OK):
        assert native_loop.ask(str(program), str(tmp_path), 1, bytes(200_000)) is None


def test_what_moved_is_told_while_the_program_looks_on(tmp_path: Path) -> None:
    """Here it does not go on before that was heard."""
    heard = tmp_path / "heard"
    os.mkfifo(heard)
    program = tmp_path / "program"
    program.write_text(
        f"#!/bin/sh\ncat >/dev/null\necho moved 3\nread -r word <{heard}\necho 3\necho 5\necho checked\n"
    )
    program.chmod(0o700)
    told: list[int] = []

    def hear(place: int) -> None:
        told.append(place)
        heard.write_text("heard\n")

    assert native_loop.ask(str(program), str(tmp_path), 6, b"", hear) == [3, 5] and told == [3]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ([], []),
        ([("src/b.c", "edit")], ["src/b.c"]),
        ([("a", "remove"), ("src/c.c", "touch")], ["src/c.c"]),
        ([("a", "remove")], []),
        ([("src/deep", "edit"), ("src/deep/d", "remove")], []),
        ([("build/a", "edit"), ("src/b.c", "edit")], ["src/b.c"]),
    ],
)
def test_a_file_that_is_there_and_differs_is_told_at_once(
    tmp_path: Path, helper: Path, changes: list[tuple[str, str]], told: list[str]
) -> None:
    """Files that people edit before those that builds make; not what is gone, and no directories."""
    tree(tmp_path)
    (tmp_path / "build").mkdir()
    (tmp_path / "build/a").write_text("a")
    names = ["a", "build/a", "src/b.c", "src/c.c", "src/deep", "src/deep/d"]
    files = [(name, fastpath.stamp_of((tmp_path / name).stat())) for name in names]
    for name, kind in changes:
        change(tmp_path / name, kind)
    heard: list[str] = []
    found = native_loop.ask(
        str(helper), str(tmp_path), len(files), listing_of(files), lambda place: heard.append(names[place])
    )
    moved = [names[place] for place in found or ()]
    assert heard == told and {name for name, _ in changes} <= set(moved) and set(heard) <= set(moved)


def test_only_a_program_of_ours_is_started(
    helper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runner: SystemProcessRunner
) -> None:
    mine = tmp_path / "cache/hotplate/native" / helper.name
    mine.parent.mkdir(parents=True)

    def place() -> dict[str, FileStamp]:
        mine.unlink(missing_ok=True)
        shutil.copyfile(helper, mine)
        mine.chmod(0o500)
        return {mine.name: fastpath.stamp_of(mine.stat())}

    def found(named: dict[str, FileStamp]) -> str | None:
        return native_loop.trusted(named, fastpath.stamp_of)

    named = place()
    assert found(named) == str(mine)
    assert found({}) is None
    assert found({f"../native/{mine.name}": named[mine.name]}) is None
    monkeypatch.setenv("HOTPLATE_NATIVE", "0")
    assert found(named) is None and native_build.ready(runner) is None
    assert native_build.describe() == "none: HOTPLATE_NATIVE=0"
    monkeypatch.delenv("HOTPLATE_NATIVE")
    for mode in (0o520, 0o502, 0o700, 0o400, stat.S_ISUID | 0o500):
        named = place()
        mine.chmod(mode)
        assert found({mine.name: fastpath.stamp_of(mine.stat())}) is None, oct(mode)
    before = place()
    assert place() != before and found(before) is None, "another file of that name"
    mine.unlink()
    mine.symlink_to(helper)
    assert found({mine.name: fastpath.stamp_of(mine.stat())}) is None
    mine.unlink()
    assert found(named) is None
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert found(place()) is None


def compiler(directory: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    directory.mkdir()
    (directory / "cc").write_text(f'#!/bin/sh\necho run >> "{directory}/calls"\n{script}\n')
    (directory / "cc").chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'error: no headers' >&2; exit 1", "ended with 1: error: no headers"),
        ("exit 0", "ended with 0: no message"),
        ('while [ "$1" != -o ]; do shift; done; printf "#!/bin/sh\\necho checked\\n" > "$2"', "does not tell"),
        ('while [ "$1" != -o ]; do shift; done; echo nonsense > "$2"', "does not tell"),
    ],
)
def test_a_compiler_that_fails_is_noted_and_asked_again_a_day_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runner: SystemProcessRunner, script: str, said: str
) -> None:
    compiler(tmp_path / "bin", monkeypatch, script)
    assert "none yet: cc makes it" in native_build.describe()
    for _ in range(2):
        assert native_build.ready(runner) is None
    assert said in native_build.describe()
    calls = tmp_path / "bin/calls"
    assert calls.read_text() == "run\n"
    native = tmp_path / "cache/hotplate/native"
    [note] = native.iterdir()
    os.utime(note, (1, 1))
    assert native_build.ready(runner) is None
    assert calls.read_text() == "run\nrun\n" and list(native.iterdir()) == [note]


def test_it_is_made_once_and_again_with_another_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runner: SystemProcessRunner, helper: Path
) -> None:
    compiler(tmp_path / "bin", monkeypatch, f'while [ "$1" != -o ]; do shift; done; cp {helper} "$2"; chmod 700 "$2"')
    first = native_build.ready(runner)
    assert first is not None and native_build.ready(runner) == first
    native = tmp_path / "cache/hotplate/native"
    assert [path.name for path in native.iterdir()] == list(first), "nothing else stays behind"
    assert native_build.describe() == str(native / next(iter(first)))
    assert (tmp_path / "bin/calls").read_text() == "run\n"
    with (tmp_path / "bin/cc").open("a") as stream:
        stream.write("# updated\n")
    second = native_build.ready(runner)
    assert second is not None and second.keys() != first.keys()
    assert (tmp_path / "bin/calls").read_text() == "run\nrun\n"


def test_without_any_compiler_it_says_so(monkeypatch: pytest.MonkeyPatch, runner: SystemProcessRunner) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(native_build, "package_dir", lambda name: None)
    assert native_build.ready(runner) is None
    assert native_build.describe() == "none: no compiler for this machine (cc, or the package ziglang)"


def test_an_installation_without_the_source_does_without(
    monkeypatch: pytest.MonkeyPatch, runner: SystemProcessRunner, tmp_path: Path
) -> None:
    """It is asked at the end of a run that went well, which must not fail for it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(native_build, "SOURCE", tmp_path / "none.c")
    assert native_build.ready(runner) is None
    assert native_build.describe().endswith("none.c: No such file or directory")


def test_a_compiler_that_somebody_killed_is_tried_again_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runner: SystemProcessRunner
) -> None:
    """As happens to one that works beside a run which ends."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\nkill -9 $$\n")
    compiler.chmod(0o755)
    monkeypatch.setattr(native_build, "compiler_argv", lambda: [str(compiler)])
    assert native_build.ready(runner) is None
    assert list((tmp_path / "cache").rglob("*.failed")) == []
