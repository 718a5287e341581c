"""What a process remembers outside of objects that somebody made: everything of that kind is in a table here, with why
it may be. Read from the source: caches of functions, `global`, locks and mutable values at the top of a module that
functions change, its own or those of a module that imports it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("cache", "pipeline", "virtualboard", "hotplate_doit", "hotplate_pytest")

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
    "pipeline/fastpath/__init__.py: before_end": "told when the process ends, to which doit comes by a module's name",
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
    """Names whose value this function changes in place; of another module's, `fastpath.before_end`."""
    for node in ast.walk(function):
        place: ast.expr | None = None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGING:
            place = node.func.value
        elif isinstance(node, ast.Subscript | ast.Attribute) and not isinstance(node.ctx, ast.Load):
            place = node.value
        if isinstance(place, ast.Name):
            yield place.id
        elif isinstance(place, ast.Attribute) and isinstance(place.value, ast.Name):
            yield f"{place.value.id}.{place.attr}"


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


def file_of(module: str) -> str:
    """`pipeline/fastpath/__init__.py` of `pipeline.fastpath`, `""` for what is no module of ours."""
    path = module.replace(".", "/")
    return next((file for file in (f"{path}.py", f"{path}/__init__.py") if (ROOT / file).is_file()), "")


def of_others(tree: ast.Module) -> Iterator[str]:
    """What functions here change at the top of other modules, such as `pipeline/fastpath/__init__.py: before_end`."""
    origins: dict[str, tuple[str, str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and (file := file_of(node.module)):
            for each in node.names:
                whole = file_of(f"{node.module}.{each.name}")
                origins[each.asname or each.name] = (whole, "") if whole else (file, each.name)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for place in set(changed(node)):
                name, _, attribute = place.partition(".")
                file, own = origins.get(name, ("", ""))
                what = ".".join(filter(None, (own, attribute)))  # `module.insert(...)` is a call of its function
                if file and what and name not in local_names(node):
                    yield f"{file}: {what}"


def test_what_a_process_remembers_is_known() -> None:
    found = set[str]()
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        tree = ast.parse(path.read_text())
        found.update(f"{path.relative_to(ROOT)}: {name}" for name in remembered(tree))
        found.update(of_others(tree))
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


def test_what_is_changed_from_elsewhere_is_seen() -> None:
    source = """
from pipeline import fastpath as path
from pipeline.fastpath import before_end, touched
from cache.store import Store
from elsewhere import known
def first():
    before_end.append(print)
    known.append(print)
    touched.clear()
def second():
    path.early.clear()
    Store.seen["a"] = 1
def third(before_end, path):
    before_end.append(print)
    path.early.clear()
"""
    top = "pipeline/fastpath/__init__.py"
    assert sorted(of_others(ast.parse(source))) == ["cache/store.py: Store.seen", f"{top}: before_end", f"{top}: early"]
