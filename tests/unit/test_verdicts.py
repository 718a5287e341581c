"""The service's verdict is the fast path's: whatever happens to a project, both give the same answer."""

from __future__ import annotations

import errno
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
from pipeline.effects import inotify as notifications
from pipeline.effects.inotify import Inotify, InotifyEvent, MountTable
from pipeline.fastpath import KIND, LOGS, FileStamp, FirstLook, Snapshot, identity, stamp_of, state_path, touched
from pipeline.fastpath.listing import listing_of
from pipeline.service import path_watch
from pipeline.service.path_watch import Doubt, PathWatch
from pipeline.service.verdicts import (
    MOST_STATES,
    MachineFacts,
    VerdictAnswer,
    VerdictBook,
    VerdictLoop,
    VerdictQuestion,
)
from tests.descriptors import descriptors

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")

ROOT = Path(__file__).parents[2]
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
    def loop(self) -> VerdictLoop:
        return VerdictLoop(self.run_later, self.listeners.__setitem__, self.listeners.__delitem__)


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
        self.log = self.elsewhere / ".ninja_log"
        self.log.write_text("# ninja log v7\n1\t2\t3\tf\tabc\n")
        (self.elsewhere / "linked").mkdir()
        (self.elsewhere / "linked" / "x.h").write_text("x\n")
        (self.root / "vendor").symlink_to(self.elsewhere / "linked")
        (self.root / "src" / "link").symlink_to("../include/f1")
        self.inline = Inline()
        self.now_s = 0.0
        self.mounts = MountTable()
        machine = MachineFacts(self.mounts.changed, slept, lambda: self.now_s)
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
                {LOGS: (str(self.log),)},
                os.urandom(8).hex(),
                count,
                len(rows),
                listing_of(rows),
            )
        state = self.root / state_path("")
        statefile.save(state.with_suffix(touched.SUFFIX), touched.KIND, (snapshot.token, contents))
        write_atomic(state, encode(KIND, snapshot.values()), durable=False, own=True)

    def look(self) -> str | FirstLook | None:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.root)
            return fastpath.answer(ARGV)

    def on_disk(self) -> str | None:
        found = self.look()
        return found if isinstance(found, str) else None

    def tells_the_same(self, answer: VerdictAnswer) -> bool:
        """Is what the service says to have moved, if it says so, what a look finds?"""
        if not answer.moved:
            return True
        found = self.look()
        told = ([*answer.moved], answer.stamp)
        return answer.text is None and isinstance(found, FirstLook) and told == (found.places, found.stamp)

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
        assert first.text in (None, disk) and self.tells_the_same(first), first
        second = self.settled()
        assert second.text == disk and self.tells_the_same(second), second
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
    move_away_and_back, lead_elsewhere, file_becomes_link, write_through_a_link, write_through_another_name,
    make_absent, remove_absent, remove_absent, new_entry, beside_the_point, beside_the_point, replace_tool, run_again,
    run_again, run_again, lose_state,
)  # fmt: skip


def shuffle(project: StatedProject, rng: random.Random, steps: int, edits: Sequence[Edit] = EDITS) -> dict[str, int]:
    counts = {"yes": 0, "look": 0}
    for _ in range(steps):
        edit = rng.choice(edits)
        try:
            edit(project, rng)
        except OSError:  # what it wanted to edit is gone
            run_again(project, rng)
        found = project.ask() if rng.random() < 0.5 else None
        disk = project.on_disk()
        assert found is None or (found.text in (None, disk) and project.tells_the_same(found)), (edit, found)
        if rng.random() < 0.7:
            assert project.both() == disk, edit
        counts["yes" if disk else "look"] += 1
    return counts


@pytest.mark.parametrize("seed", range(5))
def test_any_sequence_of_edits_gives_the_answer_of_the_disk(stated: StatedProject, seed: int) -> None:
    assert stated.settled().text == TEXT
    counts = shuffle(stated, random.Random(seed), 30)
    assert counts["yes"] > 0 and counts["look"] > 0, counts
    assert stated.book.counts["yes"] > 0


@pytest.mark.stress
@pytest.mark.parametrize("seed", range(100, 400))
def test_many_sequences_of_edits_give_the_answer_of_the_disk(stated: StatedProject, seed: int) -> None:
    may_mount = os.geteuid() == 0 and shutil.which("mount")
    shuffle(stated, random.Random(seed), 60, (*EDITS, mount_over) if may_mount else EDITS)


def test_a_log_of_ninja_that_is_lost(stated: StatedProject) -> None:
    """What ninja appends to it is nothing new; without it a run has to look, and write it anew."""
    assert stated.both() == TEXT
    text = stated.log.read_text()
    with stated.log.open("a") as stream:
        stream.write("4\t5\t6\tg\tdef\n")
    assert stated.both() == TEXT
    for cut in ("", "# ninja log v7\n"):
        stated.log.write_text(cut)
        assert stated.both() is None
    stated.log.unlink()
    assert stated.both() is None
    stated.log.write_text(text)
    assert stated.both() == TEXT


def test_what_is_mounted_over_a_directory_is_seen(tmp_path: Path) -> None:
    """In a namespace of its own: all other verdicts of this machine would be looked at again."""
    if os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("mount"):
        pytest.skip("needs root, mount and unshare")
    code = "import sys; from tests.unit.test_verdicts import mounted_over; mounted_over(sys.argv[1])"
    done = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", code, tmp_path], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def mounted_over(directory: str) -> None:
    project = StatedProject(Path(directory))
    assert project.both() == TEXT
    mount_over(project, random.Random(1))
    assert project.both() == TEXT
    beside = project.root / "be side"  # a space is written in another way in the table of mounts
    beside.mkdir()
    for command in (["mount", "-t", "tmpfs", "none"], ["umount"]):
        subprocess.run([*command, beside], check=True)
        assert project.ask().text == TEXT, "what is mounted elsewhere is no doubt"
    beside.rmdir()
    (project.root / "src").rename(beside)
    beside.rename(project.root / "src")
    assert project.both() == TEXT
    over_src(project)
    for place in (project.root / "src/f1", project.root.parent):
        before = project.root.parent / "before"
        before.write_text("another")
        subprocess.run(["mount", "--bind", before if place.is_file() else "/mnt", place], check=True)
        doubt = project.ask()
        assert doubt.text is None and "mounts changed" in doubt.why
        subprocess.run(["umount", place], check=True)
        assert project.both() == TEXT


def over_src(project: StatedProject) -> None:
    """A run that asks nothing writes a state after a mount: what is edited then is no longer where the watches are."""
    shutil.copytree(project.root / "src", project.root / "over", symlinks=True)
    subprocess.run(["mount", "--bind", project.root / "over", project.root / "src"], check=True)
    project.write_state()
    for heard in [*project.inline.listeners.values()]:
        heard()
    assert project.ask().text == TEXT
    (project.root / "src/f0").write_text("edited\n")
    assert project.ask().text is None and project.on_disk() is None
    subprocess.run(["umount", project.root / "src"], check=True)
    shutil.rmtree(project.root / "over")
    project.write_state()
    assert project.both() == TEXT


def test_mount_points_are_read_as_they_are_called() -> None:
    assert notifications._unescaped(rb"/a\040b\011\134c") == b"/a b\t\\c"


# --- what notifications do not tell -----------------------------------------------------------


def test_a_suspend_is_a_doubt(tmp_path: Path) -> None:
    slept = [0.0]
    project = StatedProject(tmp_path, lambda: slept[0])
    assert project.settled().text == TEXT
    slept[0] = 3600.0
    doubt = project.ask()
    assert doubt.text is None and "slept" in doubt.why
    assert project.ask().text == TEXT


def test_a_state_written_after_a_suspend_takes_nothing_over_from_before(tmp_path: Path) -> None:
    """Nobody asked in between: that the state was replaced is heard of first."""
    slept = [0.0]
    project = StatedProject(tmp_path, lambda: slept[0])
    assert project.settled().text == TEXT
    before = project.book._places[(str(project.root), "")].state
    slept[0] = 3600.0
    project.write_state()
    for heard in [*project.inline.listeners.values()]:
        heard()
    assert project.ask().text == TEXT
    assert project.book._places[(str(project.root), "")].state is not before
    project.book.close()
    project.mounts.close()


def test_a_full_queue_is_a_doubt(stated: StatedProject, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stated.settled().text == TEXT
    lost = InotifyEvent(-1, notifications.OVERFLOW, b"")
    with monkeypatch.context() as patch:
        patch.setattr(Inotify, "drain", lambda self: [lost])
        doubt = stated.ask()
        assert (doubt.text, doubt.why) == (None, "the kernel's queue was full")
    assert stated.ask().text == TEXT, "it was looked at again"


def test_the_kernel_says_when_its_queue_is_full(tmp_path: Path) -> None:
    """The real thing, by as many events as fit and one more."""
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if most > 100_000:
        pytest.skip("the queue of this machine is long")
    watcher = Inotify()
    watcher.add(os.fsencode(tmp_path), notifications.OF_DIRECTORY)
    names = [str(tmp_path / "a"), str(tmp_path / "b")]
    Path(names[0]).touch()
    for n in range(most // 2 + 1):  # each is two events
        Path(names[n % 2]).rename(names[1 - n % 2])
    found = watcher.drain()
    assert found[-1] == InotifyEvent(-1, notifications.OVERFLOW, b"")
    assert watcher.drain() == []
    watcher.close()


def test_a_file_system_that_others_write_to_is_never_trusted(stated: StatedProject) -> None:
    watch = PathWatch(Inotify(), local=lambda path: not path.endswith(b"/include"))
    with pytest.raises(Doubt, match="not on a file system of this machine alone"):
        watch.add(0, os.fsencode(stated.root / "include/f0"))
        for device in list(watch._devices):
            watch._devices[device] = False
        watch.add(1, os.fsencode(stated.root / "src/f0"))
    watch.close()
    if Path("/proc/version").exists():
        assert not notifications.is_local(b"/proc")


def test_the_limit_of_watches_is_a_doubt_that_is_not_repeated_each_time(
    stated: StatedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def full(self: Inotify, path: bytes, mask: int) -> int:
        tried.append(path)
        raise OSError(28, "No space left on device", os.fsdecode(path))

    with monkeypatch.context() as patch:
        patch.setattr(Inotify, "add", full)
        assert stated.ask().text is None
        once = len(tried)
        assert once and stated.ask().text is None and "No space left" in stated.ask().why
        assert len(tried) == once
    stated.now_s += 60
    assert stated.settled().text == TEXT


def test_what_vanished_while_it_looked_is_tried_again_soon(
    stated: StatedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever builds and asks does not wait for what was over long ago."""
    gone = os.fsencode(stated.root / "src")
    real = Inotify.add

    def vanished(self: Inotify, path: bytes, mask: int) -> int:
        if path == gone:
            raise OSError(errno.ENOENT, "No such file or directory", os.fsdecode(path))
        return real(self, path, mask)

    with monkeypatch.context() as patch:
        patch.setattr(Inotify, "add", vanished)
        assert stated.ask().text is None and "vanished meanwhile" in stated.ask().why
    stated.now_s += 1.0
    stated.ask()
    assert stated.ask().text == TEXT


@pytest.mark.parametrize("which", ["project", "project/src", "project/src/deep", "elsewhere/linked"])
def test_times_and_modes_of_directories_on_the_way_are_no_doubt(
    stated: StatedProject, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    """As copies and installers set them."""
    assert stated.settled().text == TEXT
    place = stated.root.parent / which
    with monkeypatch.context() as patch:
        patch.setattr(Inotify, "add", lambda *_: pytest.fail("all is watched anew"))
        for mode in (0o755, 0o700, 0o711):
            os.utime(place)
            place.chmod(mode)
            assert stated.ask().text == stated.on_disk() == TEXT
        (place / ("f0" if which != "elsewhere/linked" else "x.h")).write_text("other")
        assert stated.ask().text == (stated.on_disk() if which != "project" else TEXT)


def test_a_directory_on_the_way_that_is_locked_is_a_doubt(
    stated: StatedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stated.settled().text == TEXT
    place = stated.root / "src"
    if os.geteuid() == 0:  # whom no mode locks out
        monkeypatch.setattr(path_watch, "_may_pass", lambda path: not path.endswith(b"/src"))
    place.chmod(0)
    try:
        found = stated.ask()
        assert found.text is None and "locked" in found.why
    finally:
        place.chmod(0o755)
        monkeypatch.undo()
    assert stated.settled().text == TEXT


def test_while_it_looks_the_caller_looks_too(stated: StatedProject) -> None:
    stated.inline.held = []
    assert stated.ask().text is None and stated.ask().why == "looking at it"
    (work, done), stated.inline.held = stated.inline.held[0], []
    work()
    (stated.root / "src/f0").write_text("while nobody listened")
    assert stated.ask().why == "looking at it"
    done()
    assert stated.ask().why == "files moved"
    stated.write_state()
    assert stated.ask().text is None and len(stated.inline.held) == 1
    work, done = stated.inline.held.pop()
    (stated.root / "src/f1").write_text("while it looked again")
    work()
    done()
    assert stated.ask().why == "files moved"
    stated.inline.held = None


def test_a_new_state_is_followed_without_a_question(stated: StatedProject) -> None:
    assert stated.settled().text == TEXT
    (stated.root / "src/f0").write_text("new")
    run_again(stated, random.Random(0))
    [listener] = stated.inline.listeners.values()
    listener()
    assert stated.ask().text == TEXT


def test_what_moved_is_told_to_who_has_to_build(stated: StatedProject) -> None:
    assert stated.settled().text == TEXT
    (stated.root / "src/f1").write_text("other")
    (stated.root / "include/f2").unlink()
    told = stated.ask()
    assert told.text is None and len(told.moved) > 1 and stated.tells_the_same(told)
    assert stated.ask(PATH="/elsewhere").moved == (), "another one would be told of other files"


def test_of_a_new_state_only_what_differs_is_looked_at(stated: StatedProject, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stated.settled().text == TEXT
    counted: list[bytes] = []
    real = os.stat
    (stated.root / "src/f0").write_text("new")
    run_again(stated, random.Random(0))
    (stated.root / "src/f1").write_text("newer")

    def stat(path: str) -> os.stat_result:
        counted.append(os.fsencode(path))
        return real(path)

    monkeypatch.setattr(os, "stat", stat)
    [listener] = stated.inline.listeners.values()
    listener()
    files = {path.rpartition(b"/")[2] for path in counted} & {b"f0", b"f1", b"f2"}
    assert files == {b"f0", b"f1"}
    monkeypatch.undo()
    assert stated.ask().text is None and stated.tells_the_same(stated.ask())


def test_large_files_are_read_by_the_caller(stated: StatedProject, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stated.settled().text == TEXT
    path = stated.root / "src/f0"
    path.write_bytes(path.read_bytes())
    monkeypatch.setattr("pipeline.service.verdicts.MOST_BYTES", 3)
    assert (stated.ask(), stated.on_disk()) == (VerdictAnswer(None, "files moved", (), stated.ask().stamp), TEXT)


@pytest.mark.parametrize(
    ("argv", "environment", "why"),
    [
        (("deploy",), {}, "not a selection of host stages"),
        (("link",), {}, "not known to be up to date"),
        (ARGV, {"PATH": "/elsewhere"}, "another environment"),
        (ARGV, {"NOT_SET": "1"}, "another environment"),
    ],
)
def test_what_the_state_does_not_answer(
    stated: StatedProject, argv: tuple[str, ...], environment: dict[str, str], why: str
) -> None:
    assert stated.settled().text == TEXT
    assert stated.ask(argv, **environment) == VerdictAnswer(None, why)
    assert stated.ask().text == TEXT


def test_another_interpreter_is_not_answered(stated: StatedProject) -> None:
    assert stated.settled().text == TEXT
    who = (str(stated.root), "3.99", sys.prefix)
    assert stated.book.ask(VerdictQuestion(who, ARGV, os.environ)).why == "another interpreter"


def test_projects_that_nobody_asks_about_are_let_go(tmp_path: Path) -> None:
    stated = StatedProject(tmp_path)
    before = descriptors()  # those of earlier tests may be closed meanwhile
    for n in range(3 * MOST_STATES):
        stated.book.ask(VerdictQuestion((f"/nowhere{n}", "", ""), ARGV, {}))
    assert len(stated.inline.listeners) <= MOST_STATES + 1
    assert len(descriptors() - before) <= MOST_STATES + 1
    stated.book.close()
    assert not stated.inline.listeners and descriptors() <= before


def test_a_question_costs_no_stat(stated: StatedProject, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stated.settled().text == TEXT
    counted: list[str] = []
    real = os.stat

    def stat(path: str) -> os.stat_result:
        counted.append(path)
        return real(path)

    monkeypatch.setattr(os, "stat", stat)
    assert stated.ask().text == TEXT and not counted
    (stated.root / "src/f0").touch()
    assert stated.ask().text == TEXT
    assert {os.path.normpath(os.fsencode(path)) for path in counted} == {os.fsencode(stated.root / "src/f0")}
