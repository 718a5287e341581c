"""The journal file of one board: `.deploy/devices.v1/<mac>.log`.

Appends what `flash/journal.py` encodes and syncs it before the write that it announces. Does not interpret records.
Invariant: bytes after the last whole record are cut off before anything is appended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cache.durable import read_file
from pipeline.effects.run_log import AppendLog
from pipeline.flash.journal import JOURNAL_HEADER, DeviceState, begin, commit, decode_journal, written
from pipeline.flash_model import Image


class DeviceJournal:
    """Open for one run; `state` is what the file said when it was opened."""

    def __init__(self, directory: Path, mac: str) -> None:
        self._path = directory / f"{mac.replace(':', '')}.log"
        try:
            data = read_file(str(self._path))
        except OSError:
            data = b""
        self.state: DeviceState = decode_journal(data)[0]
        self._file: AppendLog | None = None

    def begin(self, tx: str, at: str, images: Sequence[Image], about: Mapping[str, str], by: str = "") -> None:
        """Announce a transaction; `by`: how, where it is no deploy by cable. Durable when this returns."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = AppendLog(self._path, JOURNAL_HEADER, lambda data: decode_journal(data)[1], sync=True)
        self._file.append(begin(tx, at, images, about, by))

    def written(self, tx: str, name: str) -> None:
        """The device confirmed image `name`."""
        assert self._file is not None, "written before begin [this is a bug]"
        self._file.append(written(tx, name))

    def commit(self, tx: str) -> None:
        """The transaction is complete."""
        assert self._file is not None, "commit before begin [this is a bug]"
        self._file.append(commit(tx))
        self.close()

    def close(self) -> None:
        """Release the file. Idempotent; a transaction without its commit stays open in the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
