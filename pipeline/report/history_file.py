"""`reports/history.jsonl`, read back.

Knows where it lies and that an older part may lie beside it; what a line says, `report/history.py` knows. Invariant: a
missing or damaged file only makes the history shorter.
"""

from __future__ import annotations

from pathlib import Path

from cache.durable import read_file
from pipeline.report.history import DeployHistory, parse_history
from pipeline.report.markdown import HISTORY


def read_history(reports_dir: Path) -> DeployHistory:
    """The history that lies there, with the older part that was split off when it grew."""
    path = reports_dir / HISTORY
    parts = []
    for one in (path.with_name(f"{path.stem}.1{path.suffix}"), path):
        try:
            parts.append(read_file(str(one)))
        except OSError:
            continue
    return parse_history(b"\n".join(parts))
