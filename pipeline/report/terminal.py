"""What a deploy shows on a terminal: one progress line, the table of stages, and a failure.

Knows streams and the width of a terminal; does not know doit, events or how anything is measured. Invariant: in a pipe
there are no control sequences and no progress, only plain lines at the end; nothing a device sent steers the terminal.

The bar is our own: importing rich.progress costs 27 to 35 ms on top of doit (measured), a third of a warm run.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any, TextIO, TypeVar

from cache.named_tuple import NamedTuple
from pipeline.model import DEVICE_STAGES, Failure
from pipeline.report.markdown import module_line
from pipeline.text import MARK, visible

T = TypeVar("T")

COLUMNS = 80
"""Assumed where the width cannot be asked; the table never needs more."""

MIN_BAR = 10
_CLEAR = "\r\x1b[K"
_RESET = "\x1b[0m"
_COLOURS = {"red": "\x1b[31m", "green": "\x1b[32m", "yellow": "\x1b[33m", "bold": "\x1b[1m", "dim": "\x1b[2m"}
_OUTCOME_COLOURS = {"failed": "red", "interrupted": "yellow", "up-to-date": "green", "not-run": "dim"}


def say(stream: TextIO, text: str) -> str:
    """Write `text` at once. When the reader is gone (`| head`) or the disk is full: why, and `stream` is silent from
    now on, since whoever speaks may be writing flash. `""` when all is well."""
    try:
        stream.write(text)
        stream.flush()
    except UnicodeEncodeError:
        return say(stream, text.encode("ascii", "backslashreplace").decode())
    except (OSError, ValueError) as error:  # ValueError: it is closed
        silence(stream)
        return str(getattr(error, "strerror", None) or error)
    return ""


def silence(stream: TextIO) -> None:
    """Let nothing that is written to `stream`, or is still in its buffer, fail: not at exit either."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class TerminalLook(NamedTuple):
    """What a stream can show."""

    tty: bool
    colour: bool
    columns: int
    lines: int = 24

    def paint(self, text: str, colour: str) -> str:
        return f"{_COLOURS[colour]}{text}{_RESET}" if self.colour and colour else text


def look_of(stream: TextIO, environ: Mapping[str, str] = os.environ) -> TerminalLook:
    """The look for `stream`. Colour needs a terminal that is not `dumb`, and no `NO_COLOR` (no-color.org)."""
    tty = stream.isatty()
    dumb = environ.get("TERM") == "dumb"
    columns, lines = COLUMNS, 24
    if tty:
        import shutil  # which loads three ways to compress

        columns, lines = shutil.get_terminal_size((columns, lines))
    colour = tty and not dumb and not environ.get("NO_COLOR")
    return TerminalLook(tty and not dumb, colour, max(20, columns), max(2, lines))


# --- the table --------------------------------------------------------------------------------

_WIDTHS = (14, 18, 8, 8, 8)


def stage_table(report: Mapping[str, Any], look: TerminalLook) -> list[str]:
    """The end of a run: the budget tree with each stage's outcome, the remainder, the total, the bottleneck, and what
    was done."""
    lines = [look.paint(_row(("stage", "outcome", "ms", "budget", "margin", "verdict")), "bold")]
    outcomes = {row["stage"]: row["outcome"] for row in report["stages"]}
    budget = report["budget"]
    for row in budget["phases"]:
        outcome = outcomes.get(row["phase"], "")
        if outcome or row["measured_ms"] is not None:
            lines.append(_timed_row(row, outcome, look, _OUTCOME_COLOURS.get(outcome, "")))
    total = budget["total"]
    shown = sum(row["measured_ms"] or 0 for row in budget["phases"])
    lines.append(_row(("remainder", "", total["measured_ms"] - shown, None, None, None)))
    lines.append(_timed_row(total, report["outcome"] or "", look, "bold"))
    totals = report["totals"]
    counts = ", ".join(f"{key}={'-' if totals[key] is None else totals[key]}" for key in _COUNTED)
    return [*lines, f"bottleneck: {budget['bottleneck'] or '-'}", counts[: look.columns], *_size_lines(report, look)]


def _size_lines(report: Mapping[str, Any], look: TerminalLook) -> list[str]:
    """How large the application is, where that is another size than before."""
    size = report.get("size")
    if not size or all(row["size"] == row["before"] for row in size["totals"]):
        return []
    from pipeline.report.size import size_line

    return [f"size: {size_line(size)}"[: look.columns]]


def module_table(report: Mapping[str, Any], look: TerminalLook) -> list[str]:
    """What the firmware said of each module, one line each; nothing when it was not asked."""
    lines = []
    for module in report["readiness"]["modules"]:
        colour = "green" if module["setup_ok"] else "red"
        line = f"module {visible(module['name']):<12} {visible(module_line(module))}"
        lines.append(look.paint(line[: look.columns], colour))
    return lines


def differing_lines(report: Mapping[str, Any]) -> list[str]:
    """The answer of a run that only asked the board: a line for each region that differs and was not written."""
    return [
        f"differs: {visible(row['name'])} at {row['offset']:#x}: "
        f"the board's MD5 is {row['device_md5_before'] or 'unknown'}, this build's {row['md5']}"
        for row in report["regions"]
        if report["outcome"] is None and row["action"] != "kept" and not row["done"]
    ]


_COUNTED = ("compiled", "restored", "linked", "bytes_written")


def _row(cells: tuple[Any, ...]) -> str:
    texts = ["" if cell is None else str(cell) for cell in cells]
    # Columns stay apart by at least one space, however long a value is.
    name, outcome, *numbers, verdict = texts
    left = f"{name:<{_WIDTHS[0]}} {outcome:<{_WIDTHS[1]}}"
    middle = "".join(f" {text:>{width}}" for text, width in zip(numbers, _WIDTHS[2:], strict=True))
    return f"{left}{middle}  {verdict}".rstrip()


def _timed_row(row: Mapping[str, Any], outcome: str, look: TerminalLook, colour: str) -> str:
    cells = (row["phase"], outcome, row["measured_ms"], row["limit_ms"], row["margin_ms"], row["verdict"])
    over = row["margin_ms"] is not None and row["margin_ms"] < 0
    return look.paint(_row(cells), "red" if over else colour)


# --- failures ---------------------------------------------------------------------------------

DETAIL_LINES = 12


def failure_block(failure: Failure, look: TerminalLook) -> list[str]:
    """`<where>: error: <fact>`, the end of the detail, and one hint. A detail of a build that holds errors with places
    is shown whole, for editors to read: nothing cut or said twice. Whatever else a compiler said, and all that a device
    said, is marked."""
    from pipeline.formats.diagnostics import is_error, line_of

    detail = failure.detail.splitlines()
    hint = f"hint: {visible(failure.hint)}"
    if failure.stage not in DEVICE_STAGES and any(map(is_error, detail)):
        lines = [look.paint(_told(line), "red" if is_error(line) else "") for line in detail]
        head = [] if failure.line() in detail else [look.paint(visible(line_of(failure)), "red")]
        return [*head, *lines, hint]
    detail = [line for line in detail if line not in failure.message]
    shown = [f"  {MARK}{visible(line)}"[: look.columns if look.tty else None] for line in detail[-DETAIL_LINES:]]
    if len(detail) > len(shown):
        shown.insert(0, f"  ... {len(detail) - len(shown)} more lines in the report")
    return [look.paint(visible(line_of(failure)), "red"), *shown, hint]


def say_failure(failure: Failure, stream: TextIO) -> None:
    """The block on a stream, at once."""
    say(stream, "\n".join(failure_block(failure, look_of(stream))) + "\n")


def told_lines(text: str) -> list[str]:
    """What a compiler or an action said: diagnostics with a place as they are, for editors, all else marked."""
    return list(map(_told, text.splitlines()))


def _told(line: str) -> str:
    from pipeline.formats.diagnostics import is_diagnostic

    return visible(line) if is_diagnostic(line) else f"  {MARK}{visible(line)}"


def os_failure(where: str, error: OSError) -> str:
    """The text of a failure that a file or directory caused which cannot be used."""
    place = f"{error.filename}: " if error.filename else ""
    fact = visible(f"{where}: error: {place}{error.strerror or error}")
    return f"{fact}\nhint: make the place writable, or free disk space"


# --- progress ---------------------------------------------------------------------------------


class Progress:
    """Lines that are redrawn in place, `app [######......]  42 %`: one, or one for each of several boards. An
    `effects.api.Progress`; may be called from several threads. Silent unless `look.tty`."""

    def __init__(self, stream: TextIO, look: TerminalLook) -> None:
        self._stream = stream
        self._look = look
        self._lines: dict[str, str] = {}
        """Board (`""`: the run itself) -> its line."""
        self._shown: list[str] = []
        self._lock = threading.RLock()

    def __call__(self, label: str, done: int, total: int) -> None:
        """`done` of `total` of `label`; draws only when the line changes, so it may be called per block. `total` 0:
        nobody knows how long it takes, so that `done` dots are drawn."""
        self._put("", label, done, total)

    def of_lane(self, device: str, label: str, done: int, total: int) -> None:
        """The same, in a line of this board's own."""
        self._put(device, f"{device} {label}", done, total)

    def lane_over(self, device: str) -> None:
        """This board needs no line any more."""
        with self._lock:
            self._lines.pop(device, None)

    def _put(self, device: str, label: str, done: int, total: int) -> None:
        if not self._look.tty:
            return
        line = self._line(visible(label).expandtabs(1), done, total)
        with self._lock:
            if line == self._lines.get(device):
                return
            self._lines[device] = line
            # What does not fit would scroll away, and could not be redrawn.
            lines = list(self._lines.values())[: self._look.lines - 1]
            if lines != self._shown:
                self._write(self._erased() + "\n".join(lines))
                self._shown = lines

    def finish(self) -> None:
        """Take the lines away. Call before printing anything else; drawing again afterwards is fine."""
        with self._lock:
            if self._shown:
                self._write(self._erased())
                self._shown = []
                self._lines.pop("", None)

    def between(self, write: Callable[[], T]) -> T:
        """Let `write` print while no line is shown, and none of another thread comes in between."""
        with self._lock:
            self.finish()
            return write()

    def _erased(self) -> str:
        return _CLEAR + f"\x1b[A{_CLEAR}" * (len(self._shown) - 1) if self._shown else _CLEAR

    def _line(self, label: str, done: int, total: int) -> str:
        if total == 0:
            return label[: self._look.columns - 12] + " " + "." * (1 + (done - 1) % 10)
        share = min(1.0, max(0.0, done / total)) if total > 0 else 1.0
        percent = f"{int(share * 100):3d} %"
        # The last column stays free: writing there wraps on some terminals.
        room = self._look.columns - 1 - len(percent) - 5
        name = label[: max(0, room - MIN_BAR)]
        width = min(40, room - len(name))
        filled = int(share * width)
        return f"{name} [{'#' * filled}{'.' * (width - filled)}] {percent}"

    def _write(self, text: str) -> None:
        if say(self._stream, text):
            # A terminal that went away must not stop a flash.
            self._look = self._look._replace(tty=False)
