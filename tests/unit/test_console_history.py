"""The file of a console: literal lines, bounded, private, and good for whatever stood there before."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.client.protocol import ConsoleNote, DeviceRef, NoteKind
from pipeline.service import history
from pipeline.service.history import HistoryLine, HistoryWriter, history_path, read_history
from pipeline.service.log import LIMIT, ServiceLog, append

TIMEOUT_S = 60
AT = "2026-11-29T08:00:00.000Z"
BOOT = ConsoleNote(3, AT, 1.5, NoteKind.BOOT, "firmware runs", "tx-1", "ab" * 32)


def device(root: Path) -> DeviceRef:
    return DeviceRef(str(root), "bench", "esp32c3", "/dev/x")


def written(root: Path, *said: str | ConsoleNote) -> HistoryWriter:
    writer = HistoryWriter()
    kept = writer.of(device(root))
    for one in said:
        if isinstance(one, str):
            kept.line(AT, one)
        else:
            kept.note(one)
    writer.close(TIMEOUT_S)
    return writer


def test_the_file_is_these_bytes(tmp_path: Path) -> None:
    written(tmp_path, "hello \x1b[31mred", BOOT)
    path = tmp_path / ".deploy/console/bench.log"
    assert history_path(str(tmp_path), "bench") == path
    assert path.read_bytes() == (
        b"2026-11-29T08:00:00.000Z | hello \\x1b[31mred\n"
        b"2026-11-29T08:00:00.000Z -- boot tx=tx-1 elf=" + b"ab" * 32 + b" firmware runs\n"
    )
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
    assert read_history(path) == [
        HistoryLine(AT, "", "hello \\x1b[31mred"),
        HistoryLine(AT, "boot", "firmware runs", "tx-1", "ab" * 32),
    ]


def test_another_service_goes_on_where_the_last_one_was_killed(tmp_path: Path) -> None:
    written(tmp_path, "one")
    path = history_path(str(tmp_path), "bench")
    path.write_bytes(path.read_bytes() + b"2026-11-29T08:00:01.000Z | torn in the mid")
    written(tmp_path, "two", "three")
    assert [line.text for line in read_history(path)] == ["one", "torn in the mid", "two", "three"]


@given(st.binary(max_size=300), st.integers(0, 10))
def test_damage_costs_nothing(tmp_path_factory: pytest.TempPathFactory, damage: bytes, place: int) -> None:
    root = tmp_path_factory.mktemp("p")
    path = history_path(str(root), "bench")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x" * place + damage)
    read_history(path)
    writer = written(root, "after")
    assert writer.lost == 0 and read_history(path)[-1] == HistoryLine(AT, "", "after")


def test_two_files_of_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "LIMIT", 2000)
    writer = HistoryWriter()
    kept = writer.of(device(tmp_path))
    for n in range(500):
        kept.line(AT, f"line {n}")
    writer.close(TIMEOUT_S)
    path = history_path(str(tmp_path), "bench")
    older = path.with_name("bench.log.1")
    assert sorted(path.parent.iterdir()) == [path, older]
    assert all(file.stat().st_size <= 2500 for file in (path, older))
    texts = [line.text for line in read_history(path, 1 << 20)]
    assert texts[-1] == "line 499" and texts == [f"line {n}" for n in range(500 - len(texts), 500)]


def test_what_cannot_be_written_is_counted(tmp_path: Path) -> None:
    assert written(tmp_path / "deleted", "x", "y").lost == 2
    assert not (tmp_path / "deleted").exists(), "a project that was deleted stays deleted"
    (tmp_path / ".deploy").write_text("in the way")
    assert written(tmp_path, "x").lost == 1


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    path = history_path(str(tmp_path), "bench")
    path.parent.mkdir(parents=True)
    (tmp_path / "precious").write_text("mine\n")
    path.symlink_to(tmp_path / "precious")
    assert written(tmp_path, "x").lost == 1 and (tmp_path / "precious").read_text() == "mine\n"


def test_nobody_waits_for_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = threading.Event()

    def hang(path: Path, data: bytes, limit: int) -> None:
        hangs.wait(TIMEOUT_S)
        append(path, data, limit)

    monkeypatch.setattr(history, "append", hang)
    monkeypatch.setattr(history, "MAX_QUEUED", 100)
    writer = HistoryWriter()
    kept = writer.of(device(tmp_path))
    for n in range(1000):
        kept.line(AT, f"line {n}")
    assert writer.lost >= 1000 - 100 - history.BATCH
    hangs.set()
    writer.close(TIMEOUT_S)
    assert len(read_history(history_path(str(tmp_path), "bench"))) == 1000 - writer.lost


def test_the_services_own_log_is_bounded_and_printable(tmp_path: Path) -> None:
    log = ServiceLog(tmp_path / "service.log", lambda: AT)
    log.say("begins\nwith \x1b]0;two\x07 lines")
    assert (tmp_path / "service.log").read_text() == f"{AT} begins\n{AT} with \\x1b]0;two\\x07 lines\n"
    for _ in range(5):
        log.say("x" * (LIMIT // 2))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["service.log", "service.log.1"]
    assert all(p.stat().st_size <= LIMIT for p in tmp_path.iterdir())
    log = ServiceLog(tmp_path / "missing/service.log", lambda: AT)
    log.say("x")
    assert log.lost == 1


def test_a_line_that_is_larger_than_the_file_may_be_is_kept_once(tmp_path: Path) -> None:
    append(tmp_path / "a", b"x" * 50, 10)
    append(tmp_path / "a", b"y", 10)
    assert (tmp_path / "a").read_bytes() == b"y" and (tmp_path / "a.1").read_bytes() == b"x" * 50
