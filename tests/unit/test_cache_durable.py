"""Atomic writes and the lock, with two real descriptors and real processes."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cache.durable import Busy, FileLock, read_file, write_atomic


def test_write_atomic_makes_directories_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a/b/file"
    write_atomic(path, b"one", durable=True, mode=0o444)
    assert path.read_bytes() == b"one"
    assert stat.S_IMODE(path.stat().st_mode) == 0o444 & ~current_umask()
    write_atomic(path, b"two", durable=False)
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_failed_write_changes_nothing(tmp_path: Path) -> None:
    target = tmp_path / "directory"
    (target / "inside").mkdir(parents=True)
    with pytest.raises(OSError):
        write_atomic(target, b"data", durable=True)
    assert [p.name for p in tmp_path.iterdir()] == ["directory"]


def test_lock_names_its_holder_and_is_released(tmp_path: Path) -> None:
    one, two = FileLock(tmp_path / "locks/l"), FileLock(tmp_path / "locks/l")
    assert one.try_acquire("pid 1 (doit deploy)") is None
    assert two.try_acquire("pid 2") == Busy("pid 1 (doit deploy)")
    one.release()
    assert two.try_acquire("pid 2") is None
    assert one.try_acquire("pid 1") == Busy("pid 2")
    two.release()
    two.release()


def test_lock_waits_until_the_deadline_of_the_callers_clock(tmp_path: Path) -> None:
    one, two = FileLock(tmp_path / "l"), FileLock(tmp_path / "l")
    assert one.try_acquire("first") is None
    now = [0.0]
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += seconds
        if len(pauses) == 3:
            one.release()

    assert two.acquire("second", timeout_s=1.0, now_s=lambda: now[0], pause=pause) is None
    assert len(pauses) == 3
    assert one.acquire("third", timeout_s=0.1, now_s=lambda: now[0], pause=pause) == Busy("second")
    two.release()


def test_a_killed_holder_frees_the_lock(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from cache.durable import FileLock\n"
        "lock = FileLock(Path(sys.argv[1])); lock.try_acquire('child'); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "l")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == b"held\n"
        lock = FileLock(tmp_path / "l")
        assert lock.try_acquire("parent") == Busy("child")
        child.kill()
        child.wait()
        assert lock.try_acquire("parent") is None
        lock.release()


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("most", [1, 3, 5, 9, 10, 11])
def test_a_file_system_that_gives_less_than_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    read = os.read
    monkeypatch.setattr(os, "read", lambda handle, size: read(handle, min(size, most)))
    assert read_file(str(tmp_path / "file")) == b"0123456789"
