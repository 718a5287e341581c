"""Run logs: cut at every length, every byte flipped, writers killed for real, the directory of logs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from cache import statefile
from pipeline.effects import run_log
from pipeline.effects.run_log import AppendLog, RunLog, close_killed, expired, is_deploy, prune, read, unfinished
from pipeline.events import (
    RUN_LOG_HEADER,
    RunFinished,
    RunStarted,
    StageStarted,
    When,
    decode_log,
    encode,
    event,
    finished,
    payload,
)
from pipeline.model import DeployOutcome, Event, Failure, FailureCategory, Stage
from pipeline.records import decode_records, encode_record, header
from tests.golden.scenarios import RUNS

TX = "tx-20261121-083000-beef"
EVENTS = RUNS["killed"]()[:5]
LOG = RUN_LOG_HEADER + b"".join(map(encode, EVENTS))


# --- bytes ------------------------------------------------------------------------------------


def test_cut_anywhere_a_log_gives_its_whole_records_and_no_note() -> None:
    ends = [len(RUN_LOG_HEADER)]
    for item in EVENTS:
        ends.append(ends[-1] + len(encode(item)))
    for size in range(len(LOG) + 1):
        whole = sum(end <= size for end in ends[1:])
        assert decode_log(LOG[:size]) == (EVENTS[:whole], None), size


def test_a_flipped_byte_never_changes_what_is_read_and_is_said() -> None:
    for index in range(len(LOG)):
        for flip in (0x01, 0x20, 0x80):
            bad = bytearray(LOG)
            bad[index] ^= flip
            events, note = decode_log(bytes(bad))
            assert events == EVENTS[: len(events)], (index, flip)
            assert len(events) < len(EVENTS), (index, flip)
            torn_last_line = index == len(LOG) - 1
            assert (note is None) == torn_last_line, (index, flip, note)


def test_damage_is_said_in_one_line_with_its_place() -> None:
    bad = LOG.replace(b'{"stage":"fingerprint"}', b'{"stage":"fingerprinT"}', 1)
    events, note = decode_log(bad)
    place = len(RUN_LOG_HEADER) + len(encode(EVENTS[0]))
    assert len(events) == 1
    assert note == f"hotplate-run-log: damaged at record 2 (byte {place}); the rest is ignored"


def test_an_unknown_version_is_nothing_and_is_said() -> None:
    later = LOG.replace(b"hotplate-run-log 1\n", b"hotplate-run-log 2\n")
    note = 'hotplate-run-log: unknown format "hotplate-run-log 2", expected "hotplate-run-log 1"; starting over'
    assert decode_log(later) == ([], note)
    assert decode_log(b"\x00\xff") == ([], note.replace('"hotplate-run-log 2"', '"\\x00\\xff"'))


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"kind": "no-such-kind", "at": "", "since_s": 0, "data": {}},
        {"kind": "stage_started", "at": "", "since_s": 0, "data": {}},
        {"kind": "stage_started", "at": "", "since_s": 0, "data": []},
        {"kind": "stage_started", "at": "", "since_s": 0, "data": {"stage": "lunch"}},
        {"kind": "device", "at": "", "since_s": 0, "data": {"name": "a", "colour": "red"}},
        {"kind": "region", "at": "", "since_s": None, "data": {"name": "a", "action": "kept", "bytes_written": 0}},
    ],
)
def test_a_whole_record_that_is_no_event_ends_the_log(record: dict[str, object]) -> None:
    events, note = decode_log(LOG + encode_record(record) + encode(EVENTS[0]))
    assert events == EVENTS
    assert note == "hotplate-run-log: record 6 is not an event; the rest is ignored"


def test_records_that_are_whole_but_not_objects_are_damage() -> None:
    # CRC-32 of b"[1]" and of deeply nested arrays, so that only the content is wrong
    nested = b"[" * 100_000
    for text in (b"[1]", b"nonsense", nested):
        data = header("x", 1) + b"%08x\t%s\n" % (zlib.crc32(text), text)
        decoded = decode_records(data, "x", 1)
        assert (decoded.records, decoded.good) == ([], len(header("x", 1)))
        assert decoded.note == "x: damaged at record 1 (byte 4); the rest is ignored"


# --- files ------------------------------------------------------------------------------------


def test_what_was_appended_is_in_the_file_at_once(tmp_path: Path) -> None:
    log = RunLog.create(tmp_path / "runs", TX)
    for number, item in enumerate(EVENTS, 1):
        log.append(item)
        assert read(log.path) == (EVENTS[:number], None)
    log.close()
    log.close()
    assert log.path.read_bytes() == LOG
    assert [path.name for path in log.path.parent.iterdir()] == [f"{TX}.log"]


def test_a_transaction_id_is_used_once(tmp_path: Path) -> None:
    RunLog.create(tmp_path, TX).close()
    with pytest.raises(FileExistsError):
        RunLog.create(tmp_path, TX)
    with pytest.raises(ValueError, match="not a transaction id"):
        RunLog.create(tmp_path, "../../etc/passwd")
    assert [path.name for path in tmp_path.iterdir()] == [f"{TX}.log"]


def test_a_directory_that_cannot_be_written_does_not_stop_the_run(tmp_path: Path) -> None:
    blocked = tmp_path / "runs"
    blocked.write_text("a file, not a directory")
    log = RunLog.create(blocked, TX)
    log.append(EVENTS[0])
    log.close()
    assert log.events == EVENTS[:1]
    assert log.note == f"{blocked / TX}.log: the run log cannot be written (File exists); going on without"


def test_a_full_disk_does_not_stop_the_run(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no device that is always full")
    log = RunLog.create(tmp_path, TX)
    target = os.open(full, os.O_WRONLY)
    # Behind the log's back: its descriptor now leads to a device on which every write fails with ENOSPC.
    os.dup2(target, log._file._fd)  # type: ignore[union-attr]
    os.close(target)
    log.append(EVENTS[0])
    log.append(EVENTS[1])
    assert log.events == EVENTS[:2]
    assert log.note == f"{log.path}: the run log cannot be written (No space left on device); going on without"


def test_a_torn_tail_is_cut_off_before_the_next_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    path.write_bytes(header("x", 1) + encode_record({"n": 1}) + b"0000")
    for number in (2, 3):
        file = AppendLog(path, header("x", 1), lambda data: decode_records(data, "x", 1).good, sync=True)
        file.append(encode_record({"n": number}))
        file.close()
    assert decode_records(path.read_bytes(), "x", 1).records == [{"n": 1}, {"n": 2}, {"n": 3}]


def test_nothing_kept_means_a_new_header(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    path.write_bytes(b"something else entirely\n")
    file = AppendLog(path, header("x", 1), lambda _: 0)
    assert file.data == b""
    file.append(encode_record({"n": 1}))
    file.close()
    assert path.read_bytes() == header("x", 1) + encode_record({"n": 1})


def test_a_file_has_one_writer(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    first = AppendLog(path, b"x 1\n", len)
    with pytest.raises(BlockingIOError):
        AppendLog(path, b"x 1\n", len)
    first.close()
    AppendLog(path, b"x 1\n", len).close()
    assert path.read_bytes() == b"x 1\n"


# --- dead runs --------------------------------------------------------------------------------

WRITER = f"""
import sys
from collections.abc import Iterator
from pathlib import Path
from pipeline.events import decode_log
from pipeline.effects.run_log import RunLog
log = RunLog.create(Path(sys.argv[1]), {TX!r})
for event in decode_log(sys.stdin.buffer.read())[0]:
    log.append(event)
print("written", flush=True)
sys.stdin.close()
import signal
signal.pause()
"""


def _writer(directory: Path) -> subprocess.Popen[bytes]:
    """A process that wrote LOG and goes on holding it."""
    root = Path(__file__).parents[2]
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root
    )
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(LOG)
    child.stdin.close()
    assert child.stdout.readline() == b"written\n"
    return child


def test_a_run_under_way_is_not_dead_and_a_killed_one_is(tmp_path: Path) -> None:
    child = _writer(tmp_path)
    path = tmp_path / f"{TX}.log"
    try:
        assert unfinished(tmp_path) == []
        assert close_killed(path) == []
        assert prune(tmp_path, keep=0) == []
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert child.stdout is not None
        child.stdout.close()
    assert read(path) == (EVENTS, None), "what was appended survives kill -9"
    assert unfinished(tmp_path) == [path]
    assert prune(tmp_path, keep=0) == [], "not before its report was written"

    events = close_killed(path)
    failure, end = map(payload, events[-2:])
    assert isinstance(failure, Failure)
    assert failure.category is FailureCategory.INTERRUPTED
    assert "killed in stage compile" in failure.message
    assert end == RunFinished(DeployOutcome.INTERRUPTED)
    assert read(path) == (events, None)

    assert unfinished(tmp_path) == [], "the second time there is nothing to do"
    assert close_killed(path) == []
    assert prune(tmp_path, keep=0) == [path]


@pytest.mark.parametrize("size", [len(LOG) - 1, len(LOG) - 60])
def test_a_torn_log_is_repaired_and_closed(tmp_path: Path, size: int) -> None:
    path = tmp_path / f"{TX}.log"
    path.write_bytes(LOG[:size])
    events = close_killed(path)
    assert finished(events)
    assert events[:3] == EVENTS[:3]
    assert read(path) == (events, None)


def test_a_damaged_log_is_closed_where_it_is_still_good(tmp_path: Path) -> None:
    path = tmp_path / f"{TX}.log"
    whole = LOG + encode(event(RunFinished(None), When("", 9.0)))
    path.write_bytes(whole.replace(b'"changed":', b'"chanGed":', 1))
    assert unfinished(tmp_path) == [], "its last line is whole: the run did end, and was reported then"
    path.write_bytes(whole.replace(b'"changed":', b'"chanGed":', 1)[:-1])
    assert unfinished(tmp_path) == [path]
    events = close_killed(path)
    assert read(path) == (events, None)
    assert unfinished(tmp_path) == []


def test_logs_without_a_readable_event_are_nobodys(tmp_path: Path) -> None:
    for number, content in enumerate((b"", RUN_LOG_HEADER, b"hotplate-run-log 9\nx\n", b"\xff" * 40)):
        (tmp_path / f"tx-20261121-08300{number}-beef.log").write_bytes(content)
    assert unfinished(tmp_path) == []
    assert unfinished(tmp_path / "missing") == []
    assert read(tmp_path / "missing.log") == ([], f"{tmp_path}/missing.log: No such file or directory")


ENDED = LOG + encode(event(RunFinished(None), When("", 9.0)))


def ended_logs(directory: Path, count: int = 10) -> list[Path]:
    """Logs of runs that ended."""
    paths = [directory / f"tx-20261121-0830{number:02}-beef.log" for number in range(count)]
    for path in paths:
        path.write_bytes(ENDED)
    return paths


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the logs whose end is looked at; a minute has passed since they were written."""
    found: list[str] = []
    has_end, now_ns = run_log._has_end, time.time_ns

    def counted(path: Path) -> bool:
        found.append(path.name)
        return has_end(path)

    monkeypatch.setattr(run_log, "_has_end", counted)
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() + 60_000_000_000)
    return found


def test_a_log_that_has_its_end_is_opened_once(tmp_path: Path, opened: list[str]) -> None:
    paths = ended_logs(tmp_path)
    assert unfinished(tmp_path) == [] and len(opened) == 10
    assert unfinished(tmp_path) == [] and len(opened) == 10
    dead = tmp_path / "tx-20261121-084000-beef.log"
    dead.write_bytes(LOG)
    assert unfinished(tmp_path) == [dead] == unfinished(tmp_path)
    assert set(opened[10:]) == {dead.name}
    assert prune(tmp_path, keep=2) == paths[:-1]
    assert unfinished(tmp_path) == [dead], "what is remembered of logs that have gone does no harm"


def test_a_log_that_another_run_deletes_meanwhile_hides_no_dead_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, dead = (tmp_path / f"tx-20261121-08300{number}-beef.log" for number in range(2))
    gone.write_bytes(ENDED)
    dead.write_bytes(LOG)
    scandir = os.scandir

    @contextlib.contextmanager
    def listed(path: Path) -> Iterator[list[os.DirEntry[str]]]:
        with scandir(path) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        gone.unlink()
        yield found

    monkeypatch.setattr(os, "scandir", listed)
    assert unfinished(tmp_path) == [dead]


def test_another_log_in_the_place_of_one_is_opened(tmp_path: Path, opened: list[str]) -> None:
    """Of the same name, size and modification time."""
    first, second, *_ = ended_logs(tmp_path)
    assert unfinished(tmp_path) == []
    opened.clear()
    before = first.stat()
    first.write_bytes(LOG.ljust(len(ENDED), b"x"))
    os.utime(first, ns=(before.st_atime_ns, before.st_mtime_ns))
    second.unlink()
    second.write_bytes(LOG)
    assert unfinished(tmp_path) == [first, second]
    assert {first.name, second.name} <= set(opened)


def test_a_log_of_just_now_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ended_logs(tmp_path)[0]
    assert unfinished(tmp_path) == []
    assert not (tmp_path / run_log._ENDED_NAME).exists()
    path.write_bytes(LOG.ljust(len(ENDED), b"x"))
    assert unfinished(tmp_path) == [path]


@pytest.mark.parametrize("damage", [b"", b"\0" * 64, statefile.encode(run_log._ENDED_KIND, ["no", "names"])])
def test_a_damaged_memory_is_none(tmp_path: Path, opened: list[str], damage: bytes) -> None:
    ended_logs(tmp_path)
    (tmp_path / run_log._ENDED_NAME).write_bytes(damage)
    assert unfinished(tmp_path) == [] and len(opened) == 10


def test_only_runs_of_a_device_deserve_a_report() -> None:
    started = payload(EVENTS[0])
    assert isinstance(started, RunStarted)
    assert is_deploy(EVENTS)
    assert not is_deploy([event(started._replace(device=""), When("", 0.0))])
    assert not is_deploy([event(StageStarted(Stage.LINK), When("", 0.0))])


# --- retention --------------------------------------------------------------------------------


def test_the_newest_transactions_stay_with_all_their_files() -> None:
    names = [f"tx-2026112{day}-083000-beef.{suffix}" for day in range(4) for suffix in ("md", "json", "log")]
    strangers = ["README.md", ".gitignore", "tx-mine.md", "latest.md"]
    assert expired([*strangers, *names], 2) == sorted(names[:6])
    assert expired(names, 4) == []
    assert expired(names, 0) == sorted(names)
    assert expired([*strangers, *names], -1) == sorted(names)


def test_pruning_counts_transactions_and_runs_twice(tmp_path: Path) -> None:
    done: list[Event] = [*EVENTS, event(RunFinished(None), When("", 9.0))]
    for day in range(4):
        (tmp_path / f"tx-2026112{day}-083000-beef.log").write_bytes(RUN_LOG_HEADER + b"".join(map(encode, done)))
    (tmp_path / "README.md").write_text("stays")
    assert len(prune(tmp_path, keep=3)) == 1
    assert prune(tmp_path, keep=3) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "README.md",
        *(f"tx-2026112{day}-083000-beef.log" for day in (1, 2, 3)),
    ]
    assert prune(tmp_path / "missing", keep=3) == []


def test_events_of_a_long_run(tmp_path: Path) -> None:
    """They are packed in memory, also when the file is gone."""
    log = RunLog.create(tmp_path, TX_LONG)
    said = [event(StageStarted(Stage.COMPILE), When("2026-01-01T00:00:00.000Z", n / 8)) for n in range(600)]
    for one in said:
        log.append(one)
    assert log._packed and log.events == said
    log.close()
    log.path.unlink()
    assert log.events == said


TX_LONG = "tx-20260101-000000-abcdef"
