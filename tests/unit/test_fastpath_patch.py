"""What an edit of few files writes for the fast path: its own state, and beside that what is another."""

from __future__ import annotations

from pathlib import Path

import pytest

from cache.fileclock import FileClock
from cache.stamps import StampTable, next_tick
from pipeline import fastpath
from pipeline.fastpath import CONTENTS, Snapshot, load, state, state_path, touched
from pipeline.fastpath.state import FastPathState
from pipeline.fastpath.watched import Watched
from pipeline.fastpath.whole_state import WholeRun

SOURCES = ("src/a.c", "src/b.c", "src/c.c")
MADE = "build/a.o"
ARGV, TEXT = ("link",), "-- link\n"


class PatchedProject:
    """The current directory, with a state that `record` wrote."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        monkeypatch.chdir(root)
        monkeypatch.setattr("pipeline.fastpath.whole_state._process_start_ns", lambda: 1 << 62)
        for path in (*SOURCES, MADE):
            self.write(path, f"{path}\n")
        next_tick()
        self.table = StampTable(lambda path: str(root / path), None, (), FileClock().met(str(root)))
        self.record()

    def record(self) -> None:
        """As a run that looked at everything."""
        used = [(path, self.sha256(path)) for path in (*SOURCES, MADE)]
        run = FastPathState(self.root, "")
        run.will_approve(ARGV, TEXT)
        listed = Watched({str(self.root / "src"): fastpath.stamp_of((self.root / "src").stat())})
        assert run.record(WholeRun(self.table, used, {MADE}, listed, {"more": 1}, lambda paths: b"index"))

    def write(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def sha256(self, path: str) -> str:
        entry = self.table.current(path)
        assert entry is not None
        return entry.sha256

    @property
    def snapshot(self) -> Snapshot:
        found = load(str(self.root / state_path("")))
        assert found is not None
        return found[0]

    def beside(self) -> dict[str, tuple[int, int]]:
        """The files beside the state, and which they are."""
        found = (self.root / state_path("")).parent.iterdir()
        return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in found if path.suffix != ".state"}

    def edit(self, *paths: str) -> None:
        """And a run that knows no more than these."""
        for path in paths:
            self.write(path, f"{path} edited {(self.root / path).stat().st_mtime_ns}\n")
        next_tick()
        run = FastPathState(self.root, "")
        found = run.usage_index()
        assert found is not None and found[0] == b"index" and sorted(found[1].values()) == sorted(paths)
        run.withdraw()
        assert fastpath.answer(ARGV) is None and FastPathState(self.root, "").usage_index() is None
        self.write(MADE, "made anew\n")
        next_tick()
        run.will_approve(ARGV, TEXT)
        places = {path.decode().removeprefix("./"): n for n, path in self.before(run).paths_at(range(4)).items()}
        changed = {places[path]: (path, self.sha256(path)) for path in (*paths, MADE)}
        assert run.patch(self.table, changed, {places[MADE]}, lambda count: None, {})
        assert fastpath.answer(ARGV) == TEXT

    @staticmethod
    def before(run: FastPathState) -> Snapshot:
        assert run._former is not None
        return run._former

    def touch(self, path: str) -> None:
        text = (self.root / path).read_text()
        self.write(path, text)
        next_tick()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PatchedProject:
    return PatchedProject(tmp_path, monkeypatch)


@pytest.mark.parametrize("known", ["the stamp that it has", "an older one", "none"])
def test_a_file_that_is_younger_than_the_process_is_believed_by_the_stamp_under_which_it_was_read(
    project: PatchedProject, known: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.fastpath.whole_state._own_files", lambda _: ())
    monkeypatch.setattr("pipeline.fastpath.whole_state._process_start_ns", lambda: 1)
    manifest = project.root / "build.ninja"
    manifest.write_text("rule cc\n")
    before = fastpath.stamp_of(manifest.stat())
    manifest.unlink()
    manifest.write_text("rule ld\n")
    now = fastpath.stamp_of(manifest.stat())
    read = {"the stamp that it has": {str(manifest): now}, "an older one": {str(manifest): before}}.get(known, {})
    watched = Watched({}, (), (str(manifest),), (), read)
    used = [(path, project.sha256(path)) for path in (*SOURCES, MADE)]
    run = FastPathState(project.root, "")
    run.withdraw()
    run.will_approve(ARGV, TEXT)
    run.record(WholeRun(project.table, used, {MADE}, watched, {}, lambda paths: b"index"))
    assert (fastpath.answer(ARGV) == TEXT) == (known == "the stamp that it has")


def test_an_edit_leaves_the_files_beside_the_state_as_they_are(project: PatchedProject) -> None:
    before, since = project.beside(), project.snapshot.since
    assert {"-.usage", "-.contents"} == set(before)
    for path in ("src/a.c", "src/b.c", "src/a.c"):
        project.edit(path)
        assert project.beside() == before and project.snapshot.since == since != project.snapshot.token
    assert project.snapshot.facts["more"] == 1


def test_what_an_edit_wrote_is_what_a_touch_is_compared_with(project: PatchedProject) -> None:
    project.edit("src/a.c")
    for path in ("src/a.c", "src/b.c"):
        project.touch(path)
        assert fastpath.answer(ARGV) == TEXT
    first = "src/a.c\n"
    project.write("src/a.c", first)
    next_tick()
    assert not isinstance(fastpath.answer(ARGV), str), "these bytes were compiled before the edit"


def test_after_many_edits_all_fingerprints_are_written_again(
    project: PatchedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "_MOST_OTHERS", 1)
    before = project.beside()
    project.edit("src/a.c")
    assert project.beside() == before and len(project.snapshot.facts[CONTENTS][1]) == 1
    project.edit("src/b.c", "src/c.c")
    after = project.beside()
    assert after["-.usage"] == before["-.usage"] and after["-.contents"] != before["-.contents"]
    assert project.snapshot.facts[CONTENTS] == (project.snapshot.token, {})
    project.edit("src/b.c")
    assert project.beside() == after
    for path in SOURCES:
        project.touch(path)
        assert fastpath.answer(ARGV) == TEXT


def test_files_of_another_state_say_nothing(project: PatchedProject) -> None:
    directory = (project.root / state_path("")).parent
    project.edit("src/a.c")
    old = {name: (directory / name).read_bytes() for name in project.beside()}
    project.record()
    for name, data in old.items():
        (directory / name).write_bytes(data)
    assert fastpath.answer(ARGV) == TEXT
    assert touched.contents_of(state_path(""), project.snapshot) is None
    project.touch("src/b.c")
    assert not isinstance(fastpath.answer(ARGV), str)
    assert FastPathState(project.root, "").usage_index() is None
