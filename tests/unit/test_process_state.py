"""What a process remembers outside of objects that somebody made: everything of that kind is in a table here, with why
it may be. Read from the source: caches of functions, `global`, locks and mutable values at the top of a module that its
functions change.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("cache", "pipeline", "virtualboard", "hotplate_pytest")

PURE = "a pure function of immutable arguments, and bounded"
CONSTANT = "a constant, computed when it is first used"
FOREIGN = "another program's state is one for the process, and this keeps two threads out of it"
ALLOWED = {
    "cache/ahead.py: values": "filled by a process that waits for its run, found by whoever would decode the same",
    "pipeline/engine/keys.py: _said_once": PURE,
    "pipeline/effects/spawned.py: _ahead": "made by a process that waits for its run, of which it is the only one",
    "pipeline/formats/macro_words.py: _patterns": PURE,
    "pipeline/formats/ninja/shell.py: _is_unknown_to_compile": PURE,
    "pipeline/formats/ninja/shell.py: _name_of": PURE,
    "pipeline/toolchain/ninja_places.py: _whole": PURE,
    "pipeline/fastpath/watched.py: file_clock": "clocks of the machine's file systems, on the path to a warm answer",
    "pipeline/run/current.py: current": "doit calls functions by name, and its process is one run",
    "pipeline/run/lock.py: _writing": "asked by the handler of a signal, which is the process's and knows no run",
    "pipeline/tasks.py: DOIT_CONFIG": "doit's own interface: a dict of the tasks' module, read after it was imported",
    "pipeline/device/connect.py: _LOADING": FOREIGN,
    "pipeline/toolchain/filesystems.py: _ONE_VOLUME": FOREIGN,
    "virtualboard/rv32_accelerators.py: _round_constants": CONSTANT,
    "virtualboard/stub.py: _greeting_letters": CONSTANT,
    "virtualboard/stub.py: _slip_bytes": CONSTANT,
}
CACHES = ("cache", "lru_cache")
GROWING = ("add", "append", "appendleft", "extend", "insert", "setdefault", "update")
SHRINKING = ("clear", "discard", "pop", "popitem", "popleft", "remove")
CHANGING = frozenset((*GROWING, *SHRINKING, "sort"))
QUEUES = ("SimpleQueue", "Queue", "defaultdict", "deque")
MAKERS = frozenset((*QUEUES, "Condition", "ContextVar", "Event", "Lock", "RLock", "Semaphore", "local"))


def name_of(node: ast.expr) -> str:
    """`lru_cache` of `functools.lru_cache(maxsize=4)`."""
    while isinstance(node, ast.Call):
        node = node.func
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def assigned(node: ast.AST) -> Iterator[tuple[str, ast.expr | None]]:
    if isinstance(node, ast.Assign):
        yield from ((target.id, node.value) for target in node.targets if isinstance(target, ast.Name))
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield node.target.id, node.value


def local_names(function: ast.AST) -> set[str]:
    """Names that this function binds: they are not the module's."""
    bound = {node.arg for node in ast.walk(function) if isinstance(node, ast.arg)}
    return bound | {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def changed(function: ast.AST) -> Iterator[str]:
    """Names of the module whose value this function changes in place."""
    for node in ast.walk(function):
        place: ast.expr | None = None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGING:
            place = node.func.value
        elif isinstance(node, ast.Subscript | ast.Attribute) and not isinstance(node.ctx, ast.Load):
            place = node.value
        if isinstance(place, ast.Name):
            yield place.id


def remembered(tree: ast.Module) -> Iterator[str]:
    at_the_top = {name: value for node in tree.body for name, value in assigned(node)}
    for name, value in at_the_top.items():
        if isinstance(value, ast.Call) and name_of(value) in (*MAKERS, *CACHES):
            yield name
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            yield from node.names
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if any(name_of(each) in CACHES for each in node.decorator_list):
                yield node.name
            yield from set(changed(node)) & at_the_top.keys() - local_names(node)


def test_what_a_process_remembers_is_known() -> None:
    found = {
        f"{path.relative_to(ROOT)}: {name}"
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for name in remembered(ast.parse(path.read_text()))
    }
    assert sorted(found - ALLOWED.keys()) == [], "let an object own it, or say here why it cannot"
    assert sorted(ALLOWED.keys() - found) == [], "it is gone: strike it here"


def test_each_kind_is_seen() -> None:
    source = """
import functools
from threading import Lock
once = functools.lru_cache(maxsize=2)(len)
guard: Lock = Lock()
known, seen, total, fine = {}, [], 0, {}
known = {}
seen = []
fine = {}
@functools.cache
def first(): ...
def second():
    global total
    known["a"] = 1
    seen.append(1)
def third(fine):
    fine["a"] = 1
"""
    assert sorted(remembered(ast.parse(source))) == ["first", "guard", "known", "once", "seen", "total"]
