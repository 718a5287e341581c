"""Names of reports that bear the time of their beginning, and how a line for people names their files.

Knows the directory of reports; not what stands in one.
"""

from __future__ import annotations

from pathlib import Path


def free_id(kind: str, directory: Path, started_at: str) -> str:
    """`<kind>-YYYYmmdd-HHMMSS`; the next second that has none, should two have begun in one."""
    day, _, time = started_at.partition("T")
    stem = f"{kind}-{day.replace('-', '')}-"
    clock = int(time[:2]) * 3600 + int(time[3:5]) * 60 + int(time[6:8])
    taken = True
    while taken:
        name = f"{stem}{clock // 3600:02}{clock // 60 % 60:02}{clock % 60:02}"
        taken = (directory / f"{name}.json").exists()
        clock += 1
    return name


def markdown_path(reports_dir: Path, root: Path, identity: str) -> str:
    """Where the Markdown of a report lies: relative to the project `root` when inside."""
    path = reports_dir / f"{identity}.md"
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
