"""The history of deploys: lines back into rows, and what many rows say together.

Pure: bytes in, values out. Does not know files or pages; one line is made by `report/markdown.py`. Invariant: no line,
however damaged, stops the others from being read, and rows of another schema are counted and never compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.failures import UserAction
from pipeline.records import parse_json
from pipeline.report.markdown import HISTORY_SCHEMA
from pipeline.text import visible


class HistoryRow(NamedTuple):
    """One transaction: see `report.history_row`. `user_action` and `category` are `""` without a failure."""

    transaction_id: str
    run: str
    started_at: str
    machine: str
    version: str
    device: str
    chip: str
    profile: str
    outcome: str
    warm: bool
    stages: Mapping[str, str]
    phases: Mapping[str, int]
    total_ms: int | None
    fits: bool
    ttfb_ms: int | None
    ttfb_schema: int
    category: str
    stage: str
    user_action: str
    size: Mapping[str, int] = MappingProxyType({})
    """Bytes of the application: `image`, `flash`, `ram`; empty where that was not measured."""

    @property
    def failed(self) -> bool:
        return bool(self.category)

    @property
    def complete(self) -> bool:
        """Did it pass every stage? Only such runs have a total that can be compared."""
        return not self.failed and bool(self.stages) and all(how in _DONE for how in self.stages.values())


_DONE = ("ran", "up-to-date")


class DeployHistory(NamedTuple):
    """`rows` oldest first, one per transaction. `damaged` lines could not be read, `other_schema` were not compared."""

    rows: tuple[HistoryRow, ...]
    damaged: int
    other_schema: int


def parse_history(data: bytes) -> DeployHistory:
    """The rows of `history.jsonl`, in order of their begin. A transaction that stands there twice counts once."""
    rows: dict[str, HistoryRow] = {}
    damaged = other_schema = 0
    for line in data.split(b"\n"):
        if not line.strip():
            continue
        value = _object(line)
        row = None
        if value is not None and value.get("schema") != HISTORY_SCHEMA and isinstance(value.get("schema"), int):
            other_schema += 1
            continue
        if value is not None:
            row = _row(value)
        if row is None:
            damaged += 1
        else:
            rows[row.transaction_id] = row
    ordered = sorted(rows.values(), key=lambda row: (row.started_at, row.transaction_id))
    return DeployHistory(tuple(ordered), damaged, other_schema)


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = parse_json(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _row(value: Mapping[str, Any]) -> HistoryRow | None:
    try:
        failure = value["failure"] or {}
        row = HistoryRow(
            transaction_id=_word(value["transaction_id"]),
            run=_word(value["run"]),
            started_at=_word(value["started_at"]),
            machine=_word(value["machine"]),
            version=_word(value["version"]),
            device=_word(value["device"]),
            chip=_word(value["chip"]),
            profile=_word(value["profile"]),
            outcome=_word(value["outcome"] or ""),
            warm=_is(bool, value["warm"]),
            stages={visible(name): _word(how) for name, how in value["stages"].items()},
            phases={visible(name): _ms(ms) for name, ms in value["phases"].items()},
            total_ms=None if value["total_ms"] is None else _ms(value["total_ms"]),
            fits=_is(bool, value["fits"]),
            ttfb_ms=None if value["ttfb"]["total_ms"] is None else _ms(value["ttfb"]["total_ms"]),
            ttfb_schema=_is(int, value["ttfb"]["schema"]),
            category=_word(failure.get("category") or ""),
            stage=_word(failure.get("stage") or ""),
            user_action=_word(failure.get("user_action") or ""),
            size={visible(name): _is(int, size) for name, size in (value.get("size") or {}).items()},
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return row if row.transaction_id and row.device else None


_LONGEST_MS = 10**12
"""Thirty years: more is damage, and would be no number for a chart."""


def _ms(value: Any) -> int:
    milliseconds: int = _is(int, value)
    if not 0 <= milliseconds <= _LONGEST_MS:
        raise ValueError(f"{milliseconds} ms is no duration")
    return milliseconds


def _word(value: Any) -> str:
    return visible(_is(str, value))


def _is(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value


# --- failure rates ----------------------------------------------------------------------------

OPERATOR = frozenset({UserAction.FIX_CONFIG, UserAction.PICK_DEVICE, UserAction.CLOSE_HOLDER, UserAction.NONE})
"""What a person did or must decide: configuration, the choice of a board, a monitor left open, Ctrl-C."""

ENVIRONMENT = frozenset(
    {
        UserAction.INSTALL_TOOL,
        UserAction.REPLUG,
        UserAction.FREE_SPACE,
        UserAction.PRESS_BOOT,
        UserAction.GRANT_PERMISSION,
    }
)
"""Machine and bench: tools, cables, permissions, disk."""

CODE = frozenset({UserAction.FIX_CODE})
"""The firmware that was deployed. A deploy is there to find that out, so it counts."""

OURS = frozenset({UserAction.RETRY, UserAction.REPORT_BUG})
"""Neither of them: writing or verifying went wrong, or nobody knows."""


def cause(row: HistoryRow) -> str:
    """`operator`, `environment`, `code` or `ours`, by what the failure map tells the user to do; `""`: no failure."""
    if not row.failed:
        return ""
    for name, actions in (("operator", OPERATOR), ("environment", ENVIRONMENT), ("code", CODE)):
        if row.user_action in actions:
            return name
    return "ours"


class Rate(NamedTuple):
    """`failed` of `runs` transactions."""

    name: str
    failed: int
    runs: int

    @property
    def percent(self) -> float | None:
        return None if not self.runs else 100 * self.failed / self.runs


def failure_rates(rows: Sequence[HistoryRow]) -> tuple[Rate, Rate, Rate]:
    """Raw; without runs that failed by the operator or the environment; of those, only of the newest version. A run
    that is left out is in neither number, so that no rate is flattered by it."""
    newest = max(((row.started_at, row.version) for row in rows), default=("", ""))[1]
    ours = [row for row in rows if cause(row) not in ("operator", "environment")]
    current = [row for row in ours if row.version == newest]
    return (
        _rate("all runs", rows),
        _rate("without operator and environment", ours),
        _rate(f"of these, version {newest} only" if newest else "of these, newest version only", current),
    )


def _rate(name: str, rows: Sequence[HistoryRow]) -> Rate:
    return Rate(name, sum(row.failed for row in rows), len(rows))


def by_device(rows: Sequence[HistoryRow]) -> dict[str, list[HistoryRow]]:
    """The rows of each device, in order."""
    return _grouped(rows, lambda row: row.device)


def by_category(rows: Sequence[HistoryRow]) -> dict[tuple[str, str], list[HistoryRow]]:
    """The failed rows by cause and category, most frequent first."""
    found = _grouped([row for row in rows if row.failed], lambda row: (cause(row), row.category))
    return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))


def _grouped(rows: Sequence[HistoryRow], key: Callable[[HistoryRow], Any]) -> dict[Any, list[HistoryRow]]:
    found: dict[Any, list[HistoryRow]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found


def comparable(rows: Sequence[HistoryRow]) -> list[HistoryRow]:
    """Complete deploys on the machine of the newest row: the population of every statistic of time."""
    machine = rows[-1].machine if rows else ""
    return [row for row in rows if row.complete and row.machine == machine and row.total_ms is not None]
