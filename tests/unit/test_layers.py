"""Who may import whom (docs/architecture.md): one table with a row per folder, read from the source by AST.

Every import counts, deferred and type-checking ones too; a heavy library may be imported inside a function, since it is
then loaded only when used. `tasks.py` and `hotplate.py` are the modules above all folders.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import networkx
import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("cache", "pipeline", "virtualboard")
VALUES = "pipeline"
"""The modules at the top of `pipeline/`."""


class Room(NamedTuple):
    """`may`: the folders of `pipeline/` that it may import, beside itself and the values at the top. `pure`: it reads
    no clock, environment or file; `impure` are its modules that do all the same."""

    may: frozenset[str]
    pure: bool = False
    impure: frozenset[str] = frozenset()


def room(may: str = "", *, pure: bool = False, impure: str = "") -> Room:
    return Room(frozenset(may.split()), pure, frozenset(impure.split()))


BUILD_SIDE = "engine fastpath toolchain"
DEVICE_SIDE = "boot device flash"
ROOMS = {
    # pure values
    "formats": room(pure=True),
    "config": room("formats", pure=True),
    # the world
    "effects": room(),
    # the build side
    "fastpath": room("client effects"),
    "engine": room("effects fastpath formats"),
    "toolchain": room("config effects engine fastpath formats"),
    "remote": room("config effects formats"),
    # the device side
    "boot": room("config formats", pure=True),
    "flash": room("formats", pure=True),
    "client": room("config effects"),
    "launcher": room("effects engine formats toolchain"),
    "device": room("boot client config effects flash formats"),
    # both sides meet
    "report": room("formats", pure=True, impure="history_file dated_files terminal"),
    "stages": room("boot config effects flash formats"),
    "run": room(f"{BUILD_SIDE} {DEVICE_SIDE} client config effects formats remote report stages"),
    # what uses runs
    "editor": room("client config effects fastpath formats report run toolchain"),
    "service": room(f"{BUILD_SIDE} {DEVICE_SIDE} client config effects formats report run"),
    "agent": room("boot client config device effects formats report run"),
    "shelf": room("boot client config device effects flash formats report run stages"),
    "doctor": room("client config device effects fastpath formats run toolchain"),
    "measure": room(f"{BUILD_SIDE} {DEVICE_SIDE} client config editor effects formats report run service stages"),
    "livetest": room(f"{BUILD_SIDE} {DEVICE_SIDE} client config effects formats report run"),
    "cli": room(
        f"{BUILD_SIDE} {DEVICE_SIDE} agent client config doctor editor effects formats launcher livetest measure"
        " remote report run service shelf"
    ),
}
CLOCKS_AND_FILES = {
    "os",
    "pathlib",
    "subprocess",
    "socket",
    "serial",
    "time",
    "logging",
    "shutil",
    "tempfile",
    "signal",
}
PURE_CACHE = {"cache.named_tuple", "cache.digest"}

DOIT_MODULES = {
    "pipeline/tasks.py",
    "pipeline/cli/attach_command.py",
    "pipeline/cli/cache_tasks.py",
    "pipeline/cli/check_tasks.py",
    "pipeline/cli/commands.py",
    "pipeline/cli/direct.py",
    "pipeline/cli/doctor_command.py",
    "pipeline/cli/init_command.py",
    "pipeline/cli/reporter.py",
    "pipeline/cli/serve_command.py",
    "pipeline/cli/usage.py",
    "pipeline/cli/users_state.py",
    "pipeline/editor/tasks.py",
    "pipeline/fastpath/handover.py",
    "pipeline/livetest/tasks.py",
    "pipeline/measure/tasks.py",
    "pipeline/service/runner.py",
    "pipeline/shelf/tasks.py",
}
SERIAL_SIDE = (
    "pipeline/client/",
    "pipeline/device/",
    "pipeline/effects/",
    "pipeline/remote/",
    "pipeline/service/",
    "virtualboard/",
    "pipeline/measure/counting.py",
    "pipeline/measure/bench/slow_link.py",
)
HEAVY = {"networkx", "esptool", "esp_pylib", "rich", "unicorn", "serial", "ziglang", "tabulate"}
HEAVY |= {"starlette", "uvicorn", "mcp", "grpc", "google"}
LAZY_FILES = (
    *("pipeline/agent/server.py", "pipeline/agent/strict_server.py", "pipeline/service/http.py"),
    *("virtualboard/rv32.py", "virtualboard/rv32_program.py", "virtualboard/rv32_cpu.py"),
)
LAZY = {path: path.removesuffix(".py").replace("/", ".") for path in LAZY_FILES}
"""Modules that may import a heavy library at their top because nobody imports *them* at the top."""


TO_BE_CUT = {"pipeline.fastpath"}
ABOVE = {"pipeline/tasks.py", "pipeline/hotplate.py"}
"""Modules above all folders: they join what the folders do."""


class Import(NamedTuple):
    """`top`: when the module is loaded; `checked_only`: under `if TYPE_CHECKING`."""

    module: str
    top: bool
    checked_only: bool


@functools.cache
def sources() -> tuple[str, ...]:
    return tuple(sorted(str(p.relative_to(ROOT)) for package in PACKAGES for p in (ROOT / package).rglob("*.py")))


@functools.cache
def modules() -> frozenset[str]:
    return frozenset(path.removesuffix(".py").replace("/", ".").removesuffix(".__init__") for path in sources())


@functools.cache
def imports(path: str) -> tuple[Import, ...]:
    def walk(node: ast.AST, top: bool, checked: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                yield from walk(child, top, True)
            elif isinstance(child, ast.Import):
                yield from (Import(alias.name, top, checked) for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module:
                for alias in child.names:
                    full = f"{child.module}.{alias.name}"
                    yield Import(full if full in modules() else child.module, top, checked)
            else:
                function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from walk(child, top and not function, checked)

    return tuple(walk(ast.parse((ROOT / path).read_text()), True, False))


def ours(path: str) -> set[str]:
    return {found.module for found in imports(path) if found.module.split(".")[0] in PACKAGES}


def roots(path: str, *, top_only: bool = False) -> set[str]:
    """First names of what is imported when the program runs."""
    return {
        found.module.split(".")[0] for found in imports(path) if not found.checked_only and (found.top or not top_only)
    }


def folder_of(module: str) -> str:
    """`engine` for `pipeline.engine.keys` and `pipeline.engine`; VALUES for `pipeline.model`."""
    parts = module.split(".")
    inside = len(parts) > 2 or f"pipeline/{parts[-1]}/__init__.py" in sources()
    return parts[1] if inside else VALUES


def test_every_folder_is_in_the_table() -> None:
    folders = {path.split("/")[1] for path in sources() if path.startswith("pipeline/") and path.count("/") > 1}
    assert folders == set(ROOMS)


@pytest.mark.parametrize("path", sources())
def test_layers(path: str) -> None:
    package, *rest = path.removesuffix(".py").split("/")
    if package != "pipeline":
        assert {module.split(".")[0] for module in ours(path)} <= {package}
        return
    if path in ABOVE:
        return
    used = {folder_of(module) for module in ours(path) if module.startswith("pipeline")} - {VALUES}
    assert "pipeline.tasks" not in ours(path)
    assert "virtualboard" not in roots(path) or path == "pipeline/device/ports.py"
    if len(rest) == 1:
        assert used == set(), "the values at the top know no folder"
        pure = True
    else:
        folder = ROOMS[rest[0]]
        assert used - {rest[0]} <= folder.may
        pure = folder.pure and rest[-1] not in folder.impure
    if pure:
        assert roots(path) & CLOCKS_AND_FILES == set()
        assert {module for module in ours(path) if module.startswith("cache")} <= PURE_CACHE


def test_the_build_side_and_the_device_side_do_not_know_each_other() -> None:
    for one, other in ((BUILD_SIDE, DEVICE_SIDE), (DEVICE_SIDE, BUILD_SIDE)):
        for name in one.split():
            assert ROOMS[name].may & set(other.split()) == set()


def test_no_import_cycle() -> None:
    """Between modules, and between folders; what only type checkers or functions import counts too."""
    between_modules: networkx.DiGraph[str] = networkx.DiGraph()
    between_folders: networkx.DiGraph[str] = networkx.DiGraph()
    above = {path.removesuffix(".py").replace("/", ".") for path in ABOVE}
    for path in sources():
        own = path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        for module in ours(path) & modules():
            between_modules.add_edge(own, module)
            if own.startswith("pipeline.") and module.startswith("pipeline.") and own not in above:
                between_folders.add_edge(folder_of(own), folder_of(module))
    between_folders.remove_edges_from([(name, name) for name in between_folders])
    for graph in (between_modules, between_folders):
        cycles = [part for part in networkx.strongly_connected_components(graph) if len(part) > 1]
        assert [sorted(part) for part in cycles if not part & TO_BE_CUT] == []


@pytest.mark.parametrize("path", sources())
def test_libraries_stay_at_the_edge(path: str) -> None:
    if not path.startswith(SERIAL_SIDE):
        assert roots(path) & {"serial", "subprocess", "socket"} == set()
        assert "esptool" not in roots(path) or path.startswith("pipeline/toolchain/")
    if path not in DOIT_MODULES:
        assert "doit" not in roots(path)
    if path not in LAZY:
        assert roots(path, top_only=True) & HEAVY == set(), "heavy libraries are imported where they are used"
        at_run_time = {found.module for found in imports(path) if found.top and not found.checked_only}
        assert at_run_time & set(LAZY.values()) == set()


def test_a_class_has_a_name_of_its_own() -> None:
    """In the whole repository, so that a name says which one is meant."""
    found: dict[str, list[str]] = {}
    for path in [*sources(), *(str(p.relative_to(ROOT)) for p in (ROOT / "tests").rglob("*.py"))]:
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(path)
    assert {name: places for name, places in found.items() if len(places) > 1} == {}


def test_dodo_declares_only() -> None:
    assert {found.module for found in imports("dodo.py")} == {"pipeline.tasks"}
