"""Does a project's doit run our tasks and nothing else? Asked once per recorded state, of its files as they are.

Knows Python's syntax trees and where doit reads options. Invariant: in doubt the answer is no; then doit runs.
"""

from __future__ import annotations

import ast
from pathlib import Path

TASKS = "pipeline.tasks"


def is_plain(root: Path) -> bool:
    """Is `dodo.py` the statement that takes our tasks over, and is there no file with options of doit?"""
    try:
        if (root / "doit.cfg").exists():
            return False
        project = root / "pyproject.toml"
        if project.exists() and "doit" in project.read_text(encoding="utf-8"):
            return False
        body = ast.parse((root / "dodo.py").read_text(encoding="utf-8")).body
    except (OSError, ValueError, SyntaxError):
        return False
    statements = [statement for statement in body if not _does_nothing(statement)]
    return len(statements) == 1 and _takes_over(statements[0])


def _does_nothing(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.ImportFrom):
        return statement.module == "__future__"
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _takes_over(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.ImportFrom)
        and (statement.module, statement.level) == (TASKS, 0)
        and [name.name for name in statement.names] == ["*"]
    )
