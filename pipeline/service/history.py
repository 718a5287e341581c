"""What a device said, kept beside its project: `.deploy/console/DEVICE.log`, across deploys and services.

Knows files and one thread that writes them. Does not know ports, viewers or what a line means. Invariants: nobody waits
for a disk; at most two files of `LIMIT` bytes per device, readable by this user alone; lines are in printable
characters and appended whole, so that nothing that stood there before can make a later one unreadable; what cannot be
written is counted, and stops nothing.

    2026-11-29T08:00:00.000Z | hello from the board         a line of the console
    2026-11-29T08:00:00.100Z -- boot elf=3fa1... text       a note: its kind, the transaction and the ELF's identity
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from cache.named_tuple import NamedTuple
from pipeline.client.protocol import ConsoleNote, DeviceRef
from pipeline.service.log import append
from pipeline.text import visible

DIRECTORY = ".deploy/console"
LIMIT = 2 << 20
MAX_LINE = 4096
"""Characters of a line that are kept."""

MAX_QUEUED = 20_000
"""Lines that wait for a disk that hangs; what comes then is lost, and counted."""

BATCH = 500


class HistoryLine(NamedTuple):
    """One line of the file. `kind` "" for what the board said; `tx` and `elf` as in a note."""

    at: str
    kind: str
    text: str
    tx: str = ""
    elf: str = ""


class HistoryWriter:
    """One thread for the files of all devices."""

    def __init__(self) -> None:
        self._queue: queue.Queue[tuple[Path, str] | None] = queue.Queue(MAX_QUEUED)
        self._thread = threading.Thread(target=self._run, name="hotplate-history", daemon=True)
        self._whole: set[Path] = set()
        """Files whose last line we have written, and so ended."""
        self.lost = 0
        """Lines that could not be written."""
        self._thread.start()

    def of(self, device: DeviceRef) -> DeviceHistory:
        """Of that device."""
        return DeviceHistory(self, history_path(device.root, device.name))

    def put(self, path: Path, line: str) -> None:
        """Soon."""
        try:
            self._queue.put_nowait((path, line))
        except queue.Full:
            self.lost += 1

    def close(self, timeout_s: float) -> None:
        """Write what is there. Idempotent."""
        deadline = time.monotonic() + timeout_s
        if self._thread.is_alive():
            with contextlib.suppress(queue.Full):
                self._queue.put(None, timeout=timeout_s)
            self._thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        while (batch := self._batch()) is not None:
            lines: dict[Path, list[str]] = {}
            for path, line in batch:
                lines.setdefault(path, []).append(line)
            for path, said in lines.items():
                for part in _parts(said, LIMIT // 4):
                    self._write(path, part)

    def _batch(self) -> list[tuple[Path, str]] | None:
        """What waits, at least one line; None: there will be no more."""
        item = self._queue.get()
        batch = []
        while item is not None:
            batch.append(item)
            if len(batch) >= BATCH or self._queue.empty():
                return batch
            item = self._queue.get()
        if batch:
            self._queue.put(None)  # the end, once these are written
        return batch or None

    def _write(self, path: Path, said: list[str]) -> None:
        text = "".join(said)
        try:
            if not path.parent.is_dir():
                # In a project that is there; one that was deleted stays deleted.
                if not path.parents[2].is_dir():
                    raise FileNotFoundError(path)
                os.makedirs(path.parent, mode=0o700, exist_ok=True)  # noqa: PTH103
            if path not in self._whole and path.exists():
                text = f"\n{text}"  # whatever stands there, perhaps torn, ends before these lines
            append(path, text.encode("utf-8", "replace"), LIMIT)
            self._whole.add(path)
        except OSError:
            self._whole.discard(path)
            self.lost += len(said)


def _parts(lines: list[str], limit: int) -> Iterator[list[str]]:
    """Of about that many bytes each, so that no file becomes much larger than it may."""
    part: list[str] = []
    size = 0
    for line in lines:
        part.append(line)
        size += len(line)
        if size >= limit:
            yield part
            part, size = [], 0
    if part:
        yield part


class DeviceHistory:
    """A `ConsoleRecord`."""

    def __init__(self, writer: HistoryWriter, path: Path) -> None:
        self._writer = writer
        self._path = path

    def line(self, at: str, text: str) -> None:
        self._writer.put(self._path, f"{at} | {visible(text[:MAX_LINE])}\n")

    def note(self, note: ConsoleNote) -> None:
        about = [note.kind.value, *(f"{name}={value}" for name, value in (("tx", note.tx), ("elf", note.elf)) if value)]
        self._writer.put(self._path, f"{note.at} -- {visible(' '.join(about))} {visible(note.text[:MAX_LINE])}\n")


def history_path(root: str, name: str) -> Path:
    """Where a device's console is kept; what is older lies beside it as `NAME.log.1`."""
    return Path(root, DIRECTORY, f"{name}.log")


_LINE = re.compile(r"(\S{1,40}) (?:\| (.*)|-- (\w+)(?: tx=(\S+))?(?: elf=(\S+))? (.*))", re.S)


def read_history(path: Path, limit: int = LIMIT) -> list[HistoryLine]:
    """The last `limit` bytes of what is kept, oldest first. What is damaged is left out."""
    data = b""
    for file in (path, path.with_name(f"{path.name}.1")):
        with contextlib.suppress(OSError), file.open("rb") as kept:
            kept.seek(max(0, os.fstat(kept.fileno()).st_size - (limit - len(data))))
            data = kept.read(limit - len(data)) + data
        if len(data) >= limit:
            break
    lines = []
    for raw in data.decode("utf-8", "replace").split("\n"):
        found = _LINE.fullmatch(raw)
        if found is not None:
            at, said, kind, tx, elf, text = found.groups()
            lines.append(HistoryLine(at, kind or "", said if kind is None else text, tx or "", elf or ""))
    return lines
