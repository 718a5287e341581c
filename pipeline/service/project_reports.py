"""What the page shows of a project's past: reports, history, sizes, from the files that its runs left.

Knows files; what they say, `report/` knows. Invariants: only files whose
names are transaction ids are read, no link is followed out of the directory, and a file that cannot be read is a report
that is not there.
"""

from __future__ import annotations

import functools
import os
import threading
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from cache.durable import MOST_TEXT, read_file, read_text
from pipeline.effects.run_log import SUFFIX, is_deploy
from pipeline.events import RunStarted, decode_log, is_tx, payload
from pipeline.model import REPORT_SCHEMA, Event
from pipeline.records import parse_json
from pipeline.report.document import build_report
from pipeline.report.history import HistoryRow, comparable
from pipeline.report.history_file import read_history
from pipeline.report.html import PHASES
from pipeline.report.markdown import HISTORY, render_markdown
from pipeline.report.timeline import timeline
from pipeline.run.transactions import RUNS
from pipeline.statistics import quantile

MOST_ROWS = 200
"""Deploys of a device that the page shows."""
MOST_SIZES = 60
"""Of these, how many reports are opened for the sizes of their images."""
STATE_DIR = ".deploy"


P = ParamSpec("P")
R = TypeVar("R")


def _alone(method: Callable[Concatenate[ProjectReports, P], R]) -> Callable[Concatenate[ProjectReports, P], R]:
    """One call at a time: each comes from a worker thread."""

    @functools.wraps(method)
    def call(reports: ProjectReports, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with reports.busy:
            return method(reports, *args, **kwargs)

    return call


class ProjectReports:
    """Of the project in `root`. Its methods read files, and may be called from any thread."""

    def __init__(self, root: str) -> None:
        self.busy = threading.Lock()
        self._root = Path(root)
        self._runs = self._root / STATE_DIR / RUNS
        self._sizes: dict[str, Mapping[str, int]] = {}
        self._place: tuple[str, Path] = ("", self._root / "reports")

    @_alone
    def report(self, tx: str) -> dict[str, Any] | None:
        """Everything about one transaction: `report` as its JSON, `markdown`, and `timeline` where its event log is
        still kept."""
        if not is_tx(tx):
            return None
        events = self._events(tx)
        found = self._stored(tx) or (build_report(events) if events and is_deploy(events) else None)
        if found is None:
            return None
        drawn = timeline(events) if events else None
        return {
            "report": found,
            "markdown": render_markdown(found),
            "timeline": drawn
            and {
                "slices": [one._asdict() for one in drawn.slices],
                "instants": [one._asdict() for one in drawn.instants],
            },
        }

    @_alone
    def version(self) -> tuple[int, int]:
        """Another one after each deploy that ended."""
        try:
            status = (self._directory() / HISTORY).stat()
        except OSError:
            return 0, 0
        return status.st_mtime_ns, status.st_size

    @_alone
    def newest(self, device: str) -> dict[str, Any] | None:
        """The report of the last transaction of a device that has one."""
        rows = self._rows(device)
        return next((found for row in reversed(rows[-5:]) if (found := self._stored(row.transaction_id))), None)

    @_alone
    def history(self, device: str) -> dict[str, Any]:
        """`rows` oldest first; `statistics`: p50 and p90 of each phase of the comparable ones; `limits_ms`: the budget
        of the newest; `sizes`: bytes of each image, by transaction, only where they moved."""
        rows = self._rows(device)
        usual = comparable(rows)[-MOST_ROWS:]
        shown = rows[-MOST_ROWS:]
        newest = self._stored(shown[-1].transaction_id) if shown else None
        return {
            "rows": [_row(row, row in usual) for row in shown],
            "statistics": _statistics(usual),
            "limits_ms": _limits(newest),
            "phases": list(PHASES[:-1]),
            "sizes": self._size_rows(shown),
        }

    def _rows(self, device: str) -> list[HistoryRow]:
        return [row for row in read_history(self._directory()).rows if row.device == device]

    def _size_rows(self, rows: Sequence[HistoryRow]) -> list[dict[str, Any]]:
        found = []
        for row in [row for row in rows if row.complete][-MOST_SIZES:]:
            sizes = self._sizes_of(row.transaction_id)
            if sizes:
                found.append({"tx": row.transaction_id, "at": row.started_at, "sizes": sizes})
        return found

    def _sizes_of(self, tx: str) -> Mapping[str, int]:
        if tx not in self._sizes:
            report = self._stored(tx)
            regions = [] if report is None else report["regions"]
            while len(self._sizes) >= 4 * MOST_SIZES:
                del self._sizes[next(iter(self._sizes))]
            self._sizes[tx] = {row["name"]: row["size"] for row in regions}
        return self._sizes[tx]

    def _directory(self) -> Path:
        """Where the newest deploy said that its report would be; else what deploy.toml says."""
        try:
            names = sorted(entry.name for entry in os.scandir(self._runs) if is_tx(entry.name.removesuffix(SUFFIX)))
        except OSError:
            names = []
        newest = names[-1] if names else "none"
        if newest != self._place[0]:
            said = (self._said(name.removesuffix(SUFFIX)) for name in reversed(names[-20:]))
            place = next(filter(None, said), "") or _configured(self._root)
            self._place = (newest, self._root / place)
        return self._place[1]

    def _said(self, tx: str) -> str:
        first = next(iter(self._events(tx)), None)
        started = None if first is None else payload(first)
        path = started.report_path if isinstance(started, RunStarted) else ""
        return str(Path(path).parent) if path else ""

    def _events(self, tx: str) -> list[Event]:
        try:
            return decode_log(read_file(str(self._runs / f"{tx}{SUFFIX}"), most=MOST_TEXT, follow=False))[0]
        except OSError:
            return []

    def _stored(self, tx: str) -> dict[str, Any] | None:
        """The JSON report, if it is one that can be shown."""
        if not is_tx(tx):
            return None
        try:
            found = parse_json(read_file(str(self._directory() / f"{tx}.json"), most=MOST_TEXT, follow=False))
            if found["schema"] != REPORT_SCHEMA:
                return None
            render_markdown(found)
            good = all(isinstance(row["name"], str) and type(row["size"]) is int for row in found["regions"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError):
            return None
        return dict(found) if good else None


def _configured(root: Path) -> str:
    try:
        said = tomllib.loads(read_text(root / "deploy.toml")).get("reports", {}).get("dir", "reports")
    except (OSError, ValueError, AttributeError):
        return "reports"
    return said if isinstance(said, str) else "reports"


def _row(row: HistoryRow, usual: bool) -> dict[str, Any]:
    return {
        "tx": row.transaction_id,
        "at": row.started_at,
        "outcome": row.outcome,
        "category": row.category,
        "profile": row.profile,
        "warm": row.warm,
        "usual": usual,
        "total_ms": row.total_ms,
        "ttfb_ms": row.ttfb_ms,
        "phases": dict(row.phases),
        "stages": dict(row.stages),
    }


def _statistics(rows: Sequence[HistoryRow]) -> dict[str, Any]:
    values: dict[str, list[int]] = {"total": [row.total_ms for row in rows if row.total_ms is not None]}
    for phase in PHASES[:-1]:
        values[phase] = [row.phases[phase] for row in rows if phase in row.phases]
    return {
        name: {"n": len(one), "p50": round(quantile(one, 0.5)), "p90": round(quantile(one, 0.9))}
        for name, one in values.items()
        if one
    }


def _limits(report: Mapping[str, Any] | None) -> dict[str, int]:
    if report is None:
        return {}
    rows = [*report["budget"]["phases"], report["budget"]["total"]]
    return {row["phase"]: row["limit_ms"] for row in rows if row["limit_ms"] is not None}
