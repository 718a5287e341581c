"""The shared cache of one run: opened when something is missing here, and settled once at the end.

Knows the configuration, the environment and the screen. Does not know what is asked. Invariants: a run that misses
nothing loads and opens nothing; a server that did not answer is not asked again within a minute; each line about the
other side is said once; settling takes no longer than the configuration says, and nothing after an interruption.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cache.durable import read_text, write_atomic
from pipeline.config.schema import CacheSettings
from pipeline.effects.api import Clock

if TYPE_CHECKING:
    from cache.remote import Remote
    from pipeline.engine.results import SharedCounts


MODE = "HOTPLATE_CACHE_MODE"
"""The variable that says off, read or read-write, in place of `remote_mode`."""
OFF = "off"
SILENT = "shared-cache-silent"
"""The file whose mtime says when a run had no answer from the server whose URL it holds."""
SILENT_S = 60.0


class SharedCache:
    """Of all builds of a run. `notice`: where lines for the user go."""

    def __init__(
        self, settings: CacheSettings, clock: Clock, notice: Callable[[str], None], state_dir: Path | None = None
    ) -> None:
        """`state_dir`: where it is remembered for a while that nobody answered."""
        self._settings, self._clock, self._notice = settings, clock, notice
        self._silent = None if state_dir is None else state_dir / SILENT
        self._opened = False
        self._remote: Remote | None = None
        self._said = 0

    @property
    def url(self) -> str:
        """Of the cache that a run would ask; `""` for none."""
        return "" if os.environ.get(MODE) == OFF else self._settings.remote

    def remote(self) -> Remote | None:
        """The client; None without one."""
        if not self.url or self._opened:
            return self._remote
        self._opened = True
        if self._was_silent():
            self._notice(f"note: shared cache {self.url}: it did not answer a moment ago, and is not asked in this run")
            return None
        from pipeline.remote.opening import open_remote

        settings = self._settings._replace(remote_mode=os.environ.get(MODE) or self._settings.remote_mode)
        found = open_remote(settings, os.environ, self._clock)
        if isinstance(found, str):
            self._notice(f"note: {found}")
        else:
            self._remote = found
        return self._remote

    def tell(self) -> None:
        """What there is to say by now."""
        if self._remote is not None:
            notes = self._remote.notes()
            for note in notes[self._said :]:
                self._notice(f"note: {note}")
            self._said = len(notes)

    def settle(self, *, interrupted: bool = False) -> None:
        """The end."""
        if self._remote is not None:
            self._remote.settle(0.0 if interrupted else self._settings.remote_wait_ms / 1000)
            self.tell()
            counts, self._remote = self._remote.counts(), None
            if counts.failed and not counts.found + counts.fetched:
                self._remember_silence()
            if counts.offered:
                noun = "entry" if counts.offered == 1 else "entries"
                self._notice(
                    f"note: {counts.offered} {noun} sent to the shared cache ({counts.offered_bytes / 1000:,.0f} kB)"
                )

    def _was_silent(self) -> bool:
        """Did a run of the last minute wait for this server in vain? Then nobody waits for it after every save."""
        if self._silent is None:
            return False
        try:
            since_s = time.time() - self._silent.stat().st_mtime
            return 0 <= since_s < SILENT_S and read_text(self._silent) == self._settings.remote
        except (OSError, UnicodeDecodeError):
            return False

    def _remember_silence(self) -> None:
        if self._silent is not None:
            with contextlib.suppress(OSError):
                write_atomic(self._silent, self._settings.remote.encode(), durable=False, own=True)


def shared_lines(counts: SharedCounts) -> list[str]:
    """What came from other machines in a stage."""
    if not counts.restored:
        return []
    noun = "result" if counts.restored == 1 else "results"
    size = f"{counts.fetched_bytes / 1000:,.0f} kB"
    rounds = "1 round" if counts.rounds == 1 else f"{counts.rounds} rounds"
    return [f"{counts.restored} {noun} restored from the shared cache ({size} in {rounds})"]
