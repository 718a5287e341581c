"""The service's verdict is the fast path's: whatever happens to a project, both give the same answer."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from cache import statefile
from cache.durable import write_atomic
from cache.statebytes import encode
from pipeline import fastpath
from pipeline.fastpath import KIND, FileStamp, Snapshot, identity, stamp_of, state_path, touched
from pipeline.fastpath.state import listing_of
from pipeline.service.inotify import Inotify, MountTable
from pipeline.service.path_watch import PathWatch
from pipeline.service.verdicts import Loop, Machine, VerdictAnswer, VerdictBook, VerdictQuestion

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")

TEXT = "-- compile\n"
ARGV = ("compile",)
DIRECTORIES = ("src", "src/deep", "include", "gen")


class Inline:
    """An event loop whose threads are done at once, or when the test says so."""

    def __init__(self) -> None:
        self.held: list[tuple[Callable[[], None], Callable[[], None]]] | None = None
        self.listeners: dict[int, Callable[[], None]] = {}

    def run_later(self, work: Callable[[], None], done: Callable[[], None]) -> None:
        if self.held is not None:
            self.held.append((work, done))
            return
        work()
        done()

    @property
    def loop(self) -> Loop:
        return Loop(self.run_later, self.listeners.__setitem__, self.listeners.__delitem__)


class StatedProject:
    """A tree with a state of the fast path, as if a run had just ended well; and both who answer."""

    def __init__(self, directory: Path, slept: Callable[[], float] = lambda: 0.0) -> None:
        self.root = directory / "project"
        self.elsewhere = directory / "elsewhere"
        self.elsewhere.mkdir()
        for name in (*DIRECTORIES, ".deploy/fastpath.v1"):
            (self.root / name).mkdir(parents=True)
        for name in DIRECTORIES:
            for n in range(3):
                (self.root / name / f"f{n}").write_text(f"{name} {n}\n")
        (self.elsewhere / "tool").write_text("tool\n")
        (self.elsewhere / "linked").mkdir()
        (self.elsewhere / "linked" / "x.h").write_text("x\n")
        (self.root / "vendor").symlink_to(self.elsewhere / "linked")
        (self.root / "src" / "link").symlink_to("../include/f1")
        self.inline = Inline()
        self.now_s = 0.0
        self.mounts = MountTable()
        machine = Machine(self.mounts.changed, slept, lambda: self.now_s)
        self.book = VerdictBook(self.inline.loop, machine, lambda: PathWatch(Inotify()))
        self.write_state()

    def files(self) -> list[str]:
        """As a state names them: relative to the root, or absolute."""
        found = [f"{name}/f{n}" for name in DIRECTORIES for n in range(3)]
        return [*found, "src/link", "vendor/x.h"]

    def write_state(self) -> None:
        used, listed = self.files(), ["src", "include", "vendor", str(self.elsewhere / "tool")]
        rows: list[tuple[str, FileStamp]] = []
        contents = []
        for path in (*used, *listed):
            place = self.root / path
            if not place.exists():
                continue
            rows.append((path, stamp_of(place.stat())))
            is_directory = place.is_dir()
            contents.append(
                touched.of_directory(str(place)) if is_directory else touched.of_file(str(place), place.stat().st_size)
            )
        count = sum((self.root / path).exists() for path in used)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.root)
            snapshot = Snapshot(
                identity(str(self.root)),
                {ARGV: TEXT},
                [("PATH", os.environ.get("PATH")), ("NOT_SET", None)],
                ["src/absent.h", "missing/deep/absent.h", str(self.elsewhere / "absent")],
                None,
                {},
                os.urandom(8).hex(),
                count,
                len(rows),
                listing_of(rows),
            )
        path = self.root / state_path("")
        statefile.save(path.with_suffix(touched.SUFFIX), touched.KIND, (snapshot.token, contents))
        write_atomic(path, encode(KIND, snapshot.values()), durable=False, own=True)

    def on_disk(self) -> str | None:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.root)
            found = fastpath.answer(ARGV)
        return found if isinstance(found, str) else None

    def ask(self, argv: Sequence[str] = ARGV, **environment: str) -> VerdictAnswer:
        question = VerdictQuestion(identity(str(self.root)), argv, {**os.environ, **environment})
        return self.book.ask(question)

    def settled(self) -> VerdictAnswer:
        """What the service says once it has looked at what it lost trust in."""
        self.ask()
        self.now_s += 1e6
        self.ask()
        return self.ask()

    def both(self) -> str | None:
        """What both say. The service may only say less, and after another look not even that."""
        first, disk = self.ask(), self.on_disk()
        assert first.text in (None, disk), first
        second = self.settled()
        assert second.text == disk, second
        return disk


@pytest.fixture
def stated(tmp_path: Path) -> Iterator[StatedProject]:
    project = StatedProject(tmp_path)
    yield project
    project.book.close()
    project.mounts.close()


# --- what may happen to a project -------------------------------------------------------------

Edit = Callable[[StatedProject, random.Random], None]


def some_file(project: StatedProject, rng: random.Random) -> Path:
    return project.root / rng.choice(project.files())


def write_other(project: StatedProject, rng: random.Random) -> None:
    with some_file(project, rng).open("r+") as stream:
        stream.write(rng.choice("abc"))


def write_same(project: StatedProject, rng: random.Random) -> None:
    path = some_file(project, rng)
    path.write_bytes(path.read_bytes())


def save_by_rename(project: StatedProject, rng: random.Random) -> None:
    path = some_file(project, rng)
    fresh = path.with_name("fresh")
    fresh.write_bytes(path.read_bytes() + b"+" * rng.randrange(2))
    fresh.replace(path)


def remove(project: StatedProject, rng: random.Random) -> None:
    some_file(project, rng).unlink()


def touch(project: StatedProject, rng: random.Random) -> None:
    os.utime(some_file(project, rng), (1, 1))


def chmod(project: StatedProject, rng: random.Random) -> None:
    path = rng.choice([some_file(project, rng), project.root / "src", project.elsewhere])
    path.chmod(path.stat().st_mode ^ 0o040)


def replace_directory(project: StatedProject, rng: random.Random) -> None:
    directory = project.root / rng.choice(DIRECTORIES)
    copy = project.root / "copy"
    shutil.copytree(directory, copy, symlinks=True)
    shutil.rmtree(directory)
    copy.rename(directory)


def move_away_and_back(project: StatedProject, rng: random.Random) -> None:
    directory = rng.choice([project.root / "include", project.root, project.elsewhere / "linked"])
    away = directory.with_name("away")
    directory.rename(away)
    if rng.random() < 0.5:
        (away / "f0").write_text("changed while it was away")
    away.rename(directory)


def lead_elsewhere(project: StatedProject, rng: random.Random) -> None:
    other = project.elsewhere / f"other{rng.random()}"
    shutil.copytree(project.elsewhere / "linked", other)
    (project.root / "vendor").unlink()
    (project.root / "vendor").symlink_to(other)


def file_becomes_link(project: StatedProject, rng: random.Random) -> None:
    path = some_file(project, rng)
    kept = project.elsewhere / f"kept{rng.random()}"
    shutil.copy(path, kept)
    path.unlink()
    path.symlink_to(kept)


def write_through_a_link(project: StatedProject, rng: random.Random) -> None:
    path = some_file(project, rng).resolve()
    path.write_text(f"through a link {rng.randrange(2)}")


def write_through_another_name(project: StatedProject, rng: random.Random) -> None:
    other = project.elsewhere / f"name{rng.random()}"
    os.link(some_file(project, rng).resolve(), other)
    project.ask()
    if rng.random() < 0.7:
        with other.open("r+") as stream:
            stream.write(rng.choice("xyz"))
    project.ask()
    if rng.random() < 0.5:
        other.unlink()


def make_absent(project: StatedProject, rng: random.Random) -> None:
    path = rng.choice([project.root / "src/absent.h", project.root / "missing/deep/absent.h"])
    path.parent.mkdir(parents=True, exist_ok=True)
    project.ask()
    path.touch()


def remove_absent(project: StatedProject, rng: random.Random) -> None:
    (project.root / "src/absent.h").unlink(missing_ok=True)
    if rng.random() < 0.5:
        shutil.rmtree(project.root / "missing", ignore_errors=True)
    else:
        (project.root / "missing/deep/absent.h").unlink(missing_ok=True)


def new_entry(project: StatedProject, rng: random.Random) -> None:
    path = project.root / rng.choice(["src", "include", "vendor"]) / f"new{rng.randrange(3)}"
    if path.exists():
        path.unlink()
    else:
        path.touch()


def beside_the_point(project: StatedProject, rng: random.Random) -> None:
    (project.root / "gen" / f"other{rng.random()}").touch()
    (project.elsewhere / "notes").write_text("notes")


def replace_tool(project: StatedProject, rng: random.Random) -> None:
    fresh = project.elsewhere / "fresh"
    fresh.write_text(rng.choice(["tool\n", "loot\n"]))
    fresh.replace(project.elsewhere / "tool")


def run_again(project: StatedProject, rng: random.Random) -> None:
    state = project.root / state_path("")
    state.unlink(missing_ok=True)
    if rng.random() < 0.3:
        project.ask()
    project.write_state()


def lose_state(project: StatedProject, rng: random.Random) -> None:
    shutil.rmtree(project.root / ".deploy/fastpath.v1")
    (project.root / ".deploy/fastpath.v1").mkdir()


def mount_over(project: StatedProject, rng: random.Random) -> None:
    place = project.root / rng.choice(DIRECTORIES)
    if subprocess.run(["mount", "-t", "tmpfs", "none", place], capture_output=True, check=False).returncode:
        return
    try:
        assert project.both() is None
    finally:
        subprocess.run(["umount", place], check=True)


EDITS: tuple[Edit, ...] = (
    write_other, write_same, write_same, save_by_rename, save_by_rename, remove, touch, touch, chmod, replace_directory,
    move_away_and_back, lead_elsewhere, file_becomes_link, write_through_a_link, write_through_another_name, make_absent,
    remove_absent, remove_absent, new_entry, beside_the_point, beside_the_point, replace_tool, run_again, run_again,
    run_again, lose_state,
)  # fmt: skip


def shuffle(project: StatedProject, rng: random.Random, steps: int, counts: dict[str, int]) -> None:
    edits = (*EDITS, mount_over) if os.geteuid() == 0 and shutil.which("mount") else EDITS
    for _ in range(steps):
        edit = rng.choice(edits)
        try:
            edit(project, rng)
        except OSError:  # what it wanted to edit is gone
            run_again(project, rng)
        found = project.ask() if rng.random() < 0.5 else None
        disk = project.on_disk()
        assert found is None or found.text in (None, disk), (edit, found)
        if rng.random() < 0.7:
            assert project.both() == disk, edit
        counts["yes" if disk else "look"] += 1


@pytest.mark.parametrize("seed", range(8))
def test_any_sequence_of_edits_gives_the_answer_of_the_disk(stated: StatedProject, seed: int) -> None:
    counts = {"yes": 0, "look": 0}
    assert stated.settled().text == TEXT
    shuffle(stated, random.Random(seed), 40, counts)
    assert counts["yes"] > 0 and counts["look"] > 0, counts
    assert stated.book.counts["yes"] > 0


@pytest.mark.stress
@pytest.mark.parametrize("seed", range(100, 400))
def test_many_sequences_of_edits_give_the_answer_of_the_disk(stated: StatedProject, seed: int) -> None:
    shuffle(stated, random.Random(seed), 60, {"yes": 0, "look": 0})
