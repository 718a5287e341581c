"""`doit monitor --history`: what a device's console said before, from its file; with a service or without one.

Knows what `--since` and `--grep` mean; the file, `service/history.py` knows. Invariant: reads only; what is shown is in
the order in which it was said, each line with its instant, and each boot with the identity of its ELF.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from pipeline.boot.line_pattern import LinePattern
from pipeline.boot.log_levels import LevelRules
from pipeline.failures import fail
from pipeline.model import Failure, FailureCategory
from pipeline.service.history import HistoryLine

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def since(lines: Sequence[HistoryLine], wanted: str, now: datetime) -> Sequence[HistoryLine] | Failure:
    """The lines from `wanted` on: `""` (all), `10m`, `boot`, `deploy` or a transaction."""
    if not wanted:
        return lines
    if (found := re.fullmatch(r"(\d{1,6})([smhd])", wanted)) is not None:
        begin = now - timedelta(seconds=int(found[1]) * _UNITS[found[2]])
        return [line for line in lines if _instant(line.at) >= begin]
    if wanted == "boot":
        return _from_last_boot(lines)
    if wanted == "deploy" or wanted.startswith("tx-"):
        begin_of_id = "tx-" if wanted == "deploy" else wanted
        places = [n for n, line in enumerate(lines) if line.kind == "preempted" and line.tx.startswith(begin_of_id)]
        if not places and wanted != "deploy":
            return _no(f"the history holds no transaction '{wanted}'", "list them with `doit report list`")
        return lines[places[-1] :] if places else lines
    return _no(f"--since '{wanted}' is no time and no place", "write 10m, 2h, boot, deploy or the id of a transaction")


def _from_last_boot(lines: Sequence[HistoryLine]) -> Sequence[HistoryLine]:
    """From the ROM's banner, which stands before the line that tells of the reset."""
    places = [place for place, line in enumerate(lines) if line.kind == "reset"]
    if not places:
        return lines
    place = places[-1]
    before = range(max(0, place - 8), place)
    return lines[next((n for n in before if lines[n].text.startswith(("ESP-ROM:", "ets "))), place) :]


def _instant(at: str) -> datetime:
    try:
        return datetime.fromisoformat(at)
    except ValueError:  # a line that somebody else wrote
        return datetime.fromisoformat("1970-01-01T00:00:00Z")


def shown(
    lines: Sequence[HistoryLine], grep: LinePattern | None, mute: LinePattern | None, levels: LevelRules | None
) -> Iterator[str]:
    """As text, with local times and a line for each day. What was searched for stands alone."""
    day = ""
    for line in lines:
        said = not line.kind
        if not said and grep is not None and not grep.search(line.text):
            continue
        if said and not _chosen(line.text, grep, mute, levels):
            continue
        at = _instant(line.at).astimezone()
        if f"{at:%Y-%m-%d}" != day:
            day = f"{at:%Y-%m-%d}"
            yield f"-- {day}"
        elf = f" (elf {line.elf})" if line.elf else ""
        yield f"{at:%H:%M:%S}.{at.microsecond // 1000:03} {line.text if said else f'-- {line.text}{elf}'}"


def _chosen(text: str, grep: LinePattern | None, mute: LinePattern | None, levels: LevelRules | None) -> bool:
    if mute is not None and mute.search(text):
        return False
    if levels is not None and not levels.shows(text):
        return False
    return grep is None or grep.exhausted or grep.search(text)


def _no(message: str, hint: str) -> Failure:
    return fail(FailureCategory.CONFIG_ERROR, stage=None, where="monitor", message=message, hint=hint)
