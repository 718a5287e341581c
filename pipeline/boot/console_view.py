"""What a person is shown of a console: chosen lines, repeated ones folded, with instants; nothing steers the terminal.

Pure: bytes and instants in, text out. Does not know terminals, ports or where the bytes come from. Invariants: a line
of a crash is never hidden or folded; every line is shown, counted as a repetition, or counted in `hidden`; what comes
out holds no control character but line ends, tabs and (with `colour`) colours, which end with their line.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from cache.named_tuple import NamedTuple
from pipeline.boot.backtrace import PanicCollector, is_backtrace
from pipeline.boot.console_events import QUIET_S
from pipeline.boot.line_pattern import LinePattern
from pipeline.boot.lines import Line, LineCutter
from pipeline.boot.log_levels import LevelRules, without_uptime
from pipeline.boot.log_patterns import LineKind, line_kinds, plain_line
from pipeline.text import visible

FOLD_TOLD_S = 2.0
"""How often a line that goes on repeating is counted on the screen."""

_COLOUR = r"(\x1b\[[0-9;]*m)"
_SAFE_COLOUR = r"\x1b\[(?!0*(?:5|6|8)m)[0-9;]{0,24}m"
"""All but blinking and invisible text."""

_BEGUN = rb"(?:\x1b(?:\[[0-9;]{0,24})?|[\xc2-\xdf]|[\xe0-\xef][\x80-\xbf]?|[\xf0-\xf4][\x80-\xbf]{0,2})\Z"
"""A colour or a character whose end has not come."""


class ViewOptions(NamedTuple):
    """`show`: only lines that match; `mute`: not those that match; `stamp`: an instant (UTC text) as it stands before
    a line; `colour`: let colours through."""

    show: LinePattern | None = None
    mute: LinePattern | None = None
    levels: LevelRules | None = None
    fold: bool = True
    stamp: Callable[[str], str] | None = None
    colour: bool = False


class ConsoleView:
    """Write what `feed` and `quiet` give, and `interrupt` before anything else goes to the same screen."""

    def __init__(self, options: ViewOptions) -> None:
        self._options = options
        self._cutter = LineCutter()
        self._panic = PanicCollector()
        self._begun_at = ""
        self._shown_bytes = 0
        """Of the line that has not ended."""
        self._broken = False
        """What is shown of it does not stand on the screen's last line."""
        self._key: str | None = None
        self._times = self._told = 0
        self._folded_s = self._last_s = 0.0
        self.hidden = 0
        """Lines that were not chosen."""

    def feed(self, at: str, at_s: float, data: bytes) -> str:
        """What `data`, which arrived at `at`, adds to the screen."""
        out = []
        self._last_s = at_s
        place = 0
        while place < len(data):
            if self._cutter.pending_bytes == 0:
                self._begun_at = at
            line, place = self._cutter.take(at_s, data, place)
            if line is not None:
                out.append(self._line(line))
        if self._times > self._told and at_s >= self._folded_s + FOLD_TOLD_S:
            out.append(self._count(at_s))
        return "".join(out)

    def quiet(self, now_s: float) -> str:
        """Nothing came for a while: show what waits, such as a prompt, which does not end."""
        if self._panic.collecting and now_s >= self._last_s + QUIET_S:
            self._panic.flush()
        out = self._count(now_s)
        pending = self._cutter.pending
        if pending is None:
            return out
        raw = re.sub(_BEGUN, b"", pending.raw)
        if len(raw) <= self._shown_bytes or not (self._shown_bytes or self._chosen(plain_line(raw)[0])):
            return out
        return out + self._part(raw)

    def interrupt(self) -> str:
        """End what is begun on the screen."""
        out = self._count(self._last_s)
        if self._shown_bytes and not self._broken:
            self._broken = True
            return out + "\n"
        return out

    def typed(self) -> None:
        """A person wrote: the same answer again is news, and the terminal has shown what was typed."""
        self._key = None
        if self._shown_bytes:
            self._broken = True

    def lost(self) -> str:
        """Bytes are missing here: the line that is begun has no end, and stands alone."""
        out = self.quiet(self._last_s) + self.interrupt()
        self._cutter.clear()
        self._panic.flush()
        self._shown_bytes, self._broken, self._key = 0, False, None
        return out

    # --- lines ------------------------------------------------------------------------------------

    def _line(self, line: Line) -> str:
        text, _ = plain_line(line.raw)
        crash = self._of_crash(text)
        if self._shown_bytes:
            return self._ended(line)
        if not crash and not self._chosen(text):
            self.hidden += 1
            return ""
        key = without_uptime(text)
        if self._options.fold and not crash and key == self._key:
            if self._times == 1:
                self._folded_s = line.at_s
            self._times += 1
            return ""
        out = self._count(line.at_s)
        self._key, self._times, self._told = (None if crash else key), 1, 1
        return f"{out}{self._prefix()}{self._rendered(line.raw)}{_more(line)}\n"

    def _ended(self, line: Line) -> str:
        """The rest of a line of which something was shown."""
        out = self._part(line.raw) if len(line.raw.rstrip(b"\r")) > self._shown_bytes else ""
        out += f"{_more(line)}" + ("\n" if out or not self._broken or line.lost else "")
        self._shown_bytes, self._broken, self._key = 0, False, None
        return out

    def _part(self, raw: bytes) -> str:
        """More of the line that has not ended."""
        begin = self._prefix() if not self._shown_bytes or self._broken else ""
        text = self._rendered(raw[self._shown_bytes :])
        self._shown_bytes, self._broken, self._key = len(raw), False, None
        return begin + text

    def _of_crash(self, text: str) -> bool:
        before = self._panic.collecting
        self._panic.feed(text)
        return before or self._panic.collecting or is_backtrace(text) or LineKind.PANIC in line_kinds(text)

    def _chosen(self, text: str) -> bool:
        show, mute, levels = self._options.show, self._options.mute, self._options.levels
        if mute is not None and mute.search(text):
            return False
        if levels is not None and not levels.shows(text):
            return False
        return show is None or show.exhausted or show.search(text)

    def _count(self, now_s: float) -> str:
        """How often the last line came, if that is news."""
        if self._times == self._told:
            return ""
        self._told, self._folded_s = self._times, now_s
        return f"  (x {self._times})\n"

    # --- text -------------------------------------------------------------------------------------

    def _prefix(self) -> str:
        stamp = self._options.stamp
        return "" if stamp is None else f"{stamp(self._begun_at)} "

    def _rendered(self, raw: bytes) -> str:
        text = raw.decode("utf-8", "backslashreplace").rstrip("\r")
        out, coloured = [], False
        for n, part in enumerate(re.split(_COLOUR, text)):
            if n % 2 == 0:
                out.append(visible(part))
            elif self._options.colour and re.fullmatch(_SAFE_COLOUR, part):
                out.append(part)
                coloured = True
        return "".join(out) + ("\x1b[0m" if coloured else "")


def _more(line: Line) -> str:
    return f" ... ({line.lost} more bytes)" if line.lost else ""
