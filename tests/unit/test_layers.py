"""Who may import whom (DESIGN section 2), read from the source by AST.

A module-level import counts wherever it stands; imports under `if TYPE_CHECKING` do not. Function-level imports count
for the layer rules, but a heavy library is allowed there: it is loaded only when used.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("cache", "pipeline", "virtualboard")
DOIT_MODULES = {"pipeline/tasks.py", "pipeline/cli/commands.py", "pipeline/cli/reporter.py"}
EDGE = ("pipeline/effects/", "virtualboard/", "service/")
HEAVY = {"networkx", "esptool", "esp_pylib", "rich", "unicorn", "serial", "ziglang", "tabulate", "starlette", "mcp"}
LAZY = {path: path.removesuffix(".py").replace("/", ".") for path in ("virtualboard/rv32.py",)}
"""Modules that may import a heavy library at their top because nobody imports *them* at the top."""
PURE_CACHE = {"cache.named_tuple", "cache.digest", "cache.key", "cache.entry", "cache.policy"}


def sources() -> list[str]:
    return sorted(str(p.relative_to(ROOT)) for package in PACKAGES for p in (ROOT / package).rglob("*.py"))


@functools.cache
def imports(path: str) -> tuple[tuple[str, bool], ...]:
    """(module, at module level?) of each run-time import."""
    tree = ast.parse((ROOT / path).read_text())

    def walk(node: ast.AST, top: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.Import):
                yield from ((alias.name, top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module:
                yield child.module, top
                yield from ((f"{child.module}.{alias.name}", top) for alias in child.names)
            else:
                function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from walk(child, top and not function)

    return tuple(walk(tree, True))


def roots(path: str, *, top_only: bool = False) -> set[str]:
    return {module.split(".")[0] for module, top in imports(path) if top or not top_only}


@pytest.mark.parametrize("path", sources())
def test_layers(path: str) -> None:
    modules = {module for module, _ in imports(path)}
    ours = {m for m in modules if m.split(".")[0] in PACKAGES}
    if path.startswith("cache/"):
        assert {m.split(".")[0] for m in ours} <= {"cache"}
    if path.startswith("virtualboard/"):
        assert {m.split(".")[0] for m in ours} <= {"virtualboard"}
    if path.startswith("pipeline/core/"):
        allowed = ("pipeline.core", "pipeline.core.")
        pure = (*allowed, *PURE_CACHE, *(f"{module}." for module in PURE_CACHE))
        assert {m for m in ours if not m.startswith(pure)} - {"cache"} == set()
        assert roots(path) & {"os", "pathlib", "subprocess", "socket", "serial", "time", "logging", "shutil"} == set()
    if path.startswith("pipeline/stages/"):
        other = {m for m in ours if m.startswith("pipeline.stages.")}
        concrete = {m for m in ours if m.startswith("pipeline.effects.") and not m.startswith("pipeline.effects.api")}
        assert other == set() and concrete == set()
    if path.startswith("pipeline/effects/"):
        above = ("pipeline.stages", "pipeline.engine.engine", "pipeline.run.context", "doit")
        assert not any(m.startswith(above) for m in modules)


@pytest.mark.parametrize("path", sources())
def test_libraries_stay_at_the_edge(path: str) -> None:
    if not path.startswith(EDGE):
        assert roots(path) & {"serial", "subprocess", "socket"} == set()
        assert "esptool" not in roots(path) or path.startswith("pipeline/toolchains/")
    if path not in DOIT_MODULES:
        # The gate hands its process over to doit; until then it has not loaded it.
        assert "doit" not in roots(path, top_only=path == "pipeline/fastpath/hotplate.py")
    if path not in LAZY:
        assert roots(path, top_only=True) & HEAVY == set(), "heavy libraries are imported where they are used"
        assert {m for m, top in imports(path) if top and m in LAZY.values()} == set()


def test_dodo_declares_only() -> None:
    assert {m for m, _ in imports("dodo.py")} == {"pipeline.tasks", "pipeline.tasks.*"}
