"""Does a project's doit run our tasks and nothing else? Asked once per recorded state, of its files as they are.

Knows Python's syntax trees and where doit reads options. Invariant: in doubt the answer is no; then doit runs.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ast

TASKS = "pipeline.tasks"
_STATEMENT = f"from {TASKS} import *"


def doit_has_options(root: str) -> bool:
    """May a file beside `dodo.py`, or the environment, have options for doit?"""
    if os.path.lexists(os.path.join(root, "doit.cfg")) or any(name.startswith("DOIT_") for name in os.environ):  # noqa: PTH118
        return True
    try:
        text = _text(root, "pyproject.toml")
        if "doit" not in text:
            return False
        import tomllib

        return "doit" in tomllib.loads(text).get("tool", {})
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return True


def is_plain(root: str) -> bool:
    """Is `dodo.py` the statement that takes our tasks over, and is there no file with options of doit?"""
    if doit_has_options(root):
        return False
    try:
        text = _text(root, "dodo.py")
        if _is_statement_alone(text):
            return True
        import ast

        body = ast.parse(text).body
    except (OSError, ValueError, SyntaxError):
        return False
    statements = [statement for statement in body if not _does_nothing(statement)]
    return len(statements) == 1 and _takes_over(statements[0])


def _text(root: str, name: str) -> str:
    with open(os.path.join(root, name), encoding="utf-8") as stream:  # noqa: PTH118, PTH123
        return stream.read()


def _is_statement_alone(text: str) -> bool:
    """Is there nothing beside it but lines that are empty or comments, as in most projects? Syntax trees are a library
    of their own, which takes a first run longer than all its other questions about the project."""
    lines = [line for line in text.split("\n") if line and line[0] != "#"]
    return lines == [_STATEMENT] and text.isascii() and "\0" not in text


def _does_nothing(statement: ast.stmt) -> bool:
    import ast

    if isinstance(statement, ast.ImportFrom):
        return statement.module == "__future__"
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _takes_over(statement: ast.stmt) -> bool:
    import ast

    return (
        isinstance(statement, ast.ImportFrom)
        and (statement.module, statement.level) == (TASKS, 0)
        and [name.name for name in statement.names] == ["*"]
    )
