"""Many outputs put in place beside each other: all of them or no yes, and nothing under way afterwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cache.actions import OutputFile
from cache.blobs import BlobStore
from cache.fileclock import FileClock
from cache.stamps import StampTable
from pipeline.engine import restore
from pipeline.engine.build_place import BuildPlace
from pipeline.engine.restore import Restorer

COUNT = 100


class Restoring:
    """A store with the outputs of a project of which nothing is built."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "project"
        self.root.mkdir()
        self.blobs = BlobStore(directory / "store")
        self.table = StampTable(lambda path: f"{self.root}/{path}", None, (), FileClock().met(str(self.root)))
        self.restorer = Restorer(self.blobs, self.table, BuildPlace(str(self.root)))
        self.files = [
            OutputFile(f"build/{n % 7}/{n}.o", self.blobs.put_bytes(b"%d\n" % (n // 2)), n % 3 == 0)
            for n in range(COUNT)
        ]

    def wrong(self) -> list[str]:
        """The files that are not what they are to be, as they lie there or as the table has them."""
        return [
            path
            for path, digest, executable in self.files
            if (self.root / path).read_bytes() != self.blobs.read(digest)
            or bool((self.root / path).stat().st_mode & 0o100) != executable
            or (entry := self.table.remembered(path)) is None
            or entry.sha256 != digest.hex
        ]


@pytest.fixture
def restoring(tmp_path: Path) -> Restoring:
    return Restoring(tmp_path)


@pytest.mark.parametrize("lanes", [0, 1, 2, 4])
def test_all_are_in_place_whoever_put_them(restoring: Restoring, lanes: int) -> None:
    assert restoring.restorer.put_all(restoring.files, lanes) and restoring.wrong() == []
    restoring.table.settle()
    assert restoring.wrong() == []
    assert restoring.restorer.put_all([])


def test_a_system_without_threads_has_one_lane(restoring: Restoring, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(restore, "start_new_thread", start)
    assert restoring.restorer.put_all(restoring.files, 4) and restoring.wrong() == []


def test_few_need_no_other_thread(restoring: Restoring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore, "start_new_thread", lambda *_: pytest.fail("a thread for a few files"))
    assert restoring.restorer.put_all(restoring.files[:20], 4)


@pytest.mark.parametrize("at", [0, COUNT // 2, COUNT - 1])
@pytest.mark.parametrize("lanes", [1, 4])
def test_one_that_is_damaged_or_gone_is_no_yes(restoring: Restoring, at: int, lanes: int) -> None:
    blob = restoring.blobs.path(restoring.files[at].digest)
    blob.chmod(0o644)
    blob.write_bytes(b"x" * blob.stat().st_size)
    assert not restoring.restorer.put_all(restoring.files, lanes)
    assert not blob.exists() and restoring.blobs.damaged == 1
    assert not restoring.restorer.put_all(restoring.files, lanes), "gone by now"


@pytest.mark.parametrize("lanes", [1, 4])
def test_an_error_is_raised_when_nothing_is_under_way_any_more(
    restoring: Restoring, lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way: set[int] = set()
    put: Callable[[OutputFile], bool] = restoring.restorer.put

    def watched(file: OutputFile) -> bool:
        under_way.add(id(file))
        try:
            return put(file)
        finally:
            under_way.discard(id(file))

    monkeypatch.setattr(restoring.restorer, "put", watched)
    (restoring.root / restoring.files[30].path).mkdir(parents=True)
    with pytest.raises(OSError, match=r"30\.o"):
        restoring.restorer.put_all(restoring.files, lanes)
    assert not under_way
