"""What the text of deploy.toml means as TOML, kept beside the text: a run that finds the same text need not read it.

`tomllib` with its regular expressions costs a warm deploy as much as verifying a board does. Knows the file where it is
kept; does not know what a document says. Invariant: a document is given only for the very text that it was read from,
compared byte by byte, by this version of Python; so it cannot be stale, whatever the stamps of files say.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

from cache import statefile

KIND = "deploy.toml 1"
NAME = "text.v1.state"


class KeptText:
    """The file in `state_dir`."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / NAME

    def read(self, text: str) -> dict[str, Any]:
        """The document of `text`, for its caller alone. Raises ValueError, RecursionError as `tomllib` does."""
        kept, _ = statefile.load(self._path, KIND)
        if isinstance(kept, tuple) and kept[:2] == (sys.version, text):
            document: dict[str, Any] = kept[2]
            return document
        return _read(text)

    def keep(self, text: str) -> None:
        """Remember what `text`, which was read, means. What cannot be kept (dates, a full disk) is read again."""
        kept, _ = statefile.load(self._path, KIND)
        if not (isinstance(kept, tuple) and kept[:2] == (sys.version, text)):
            with contextlib.suppress(OSError, ValueError):
                statefile.save(self._path, KIND, (sys.version, text, _read(text)))


def _read(text: str) -> dict[str, Any]:
    import tomllib

    return tomllib.loads(text)
