"""How many bytes the engine keeps for each unit of a generated build: with 50,000 units each hundred of them is 5 MB.

Counted by `tracemalloc`, which is the same on each machine of one Python; bounds are a quarter above what was measured.
"""

from __future__ import annotations

import gc
import hashlib
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from cache.digest import digest_bytes, fingerprint_bytes
from cache.stamps import Entry, Stamp, StampTable
from pipeline.effects.clock import SystemClock
from pipeline.effects.memory import give_back, give_large_back_at_once
from pipeline.engine import dag
from pipeline.engine.build_log import BuildRecords, Record, record_name
from pipeline.engine.inputs import command_of
from pipeline.engine.usage_index import usage_index
from pipeline.engine.workspace import BuildSteps, Directories, Host, Workspace
from pipeline.fastpath.used_files import UsedFiles
from pipeline.model import Action
from pipeline.toolchain.generate import BuildSpec, Commands, ProgramSpec, actions
from tests.unit.engine_space import EngineSpace, FakeTools

UNITS = 1000
COMMANDS = Commands(("cc", "-ffreestanding", "-std=gnu11", "-g"), ("cc", "-nostdlib"))


def program(name: str, sources: tuple[str, ...]) -> ProgramSpec:
    return ProgramSpec(sources, ("include",), f"{name}.ld", (), {})


def generated() -> list[Action]:
    """Compiles of a thousand sources, their link, and what a boot loader needs."""
    sources = tuple([f"src/d{n // 100:03}/unit{n:05}.c" for n in range(UNITS)])
    app, boot = program("app", sources), program("boot", ("boot/main.c",))
    flash = ("dio", "80m", "4MB", 4 << 20, "partitions.csv", 0x8000)
    return list(actions(BuildSpec("fast", "esp32c3", app, boot, ("-O1",), (), ("-Og",), *flash), COMMANDS))


class TracedBytes:
    """What `make` gave, and the bytes for each unit that it holds and took at most."""

    def __init__(self, make: Callable[[], object]) -> None:
        gc.collect()
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            self.value = make()
            gc.collect()
            after, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        self.bytes, self.peak = (after - before) / UNITS, (peak - before) / UNITS


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def entry(path: str) -> Entry:
    data = path.encode()
    return Entry(Stamp(len(data), 10**18, 10**18, 12345, False), fingerprint_bytes(data), digest_bytes(data).hex, True)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """As after a run of all actions: each has a record, each file a stamp."""
    root = tmp_path_factory.mktemp("project")
    steps, host = BuildSteps(generated(), {}, {}, {}), Host(FakeTools(), SystemClock(), 1)
    made = Workspace(Directories(root, root / ".deploy", root / ".deploy"), steps, host)
    fill_records(made.graph, made.records)
    fill_table(made.graph, made.table)
    return made


def fill_records(graph: dag.Dag, records: BuildRecords) -> None:
    headers = tuple([(f"include/h{n}.h", sha256(f"{n}")) for n in range(20)])
    for action in graph.order:
        inputs = tuple([(path, sha256(path)) for path in action.inputs])
        outputs = tuple([(path, sha256(path), False) for path in action.outputs])
        observed = headers if action.depfile else ()
        record = Record(command_of(action, {}), inputs, observed, (), outputs, sha256(action.name))
        records.put(record_name(action), record)


def fill_table(graph: dag.Dag, table: StampTable) -> None:
    for path in [path for action in graph.order for path in (*action.inputs, *action.outputs)]:
        table._put(path, entry(path))


def test_actions_and_their_graph() -> None:
    kept = TracedBytes(lambda: dag.build(generated()))
    assert isinstance(kept.value, dag.Dag) and len(kept.value.order) > UNITS
    assert kept.bytes < 520 and kept.peak < 780, (kept.bytes, kept.peak)


def test_records(workspace: Workspace) -> None:
    """Of compiles and of the link of what they made."""
    records = BuildRecords()
    kept = TracedBytes(lambda: fill_records(workspace.graph, records))
    for action in (workspace.graph.order[0], workspace.graph.order[UNITS]):
        record = records.get(record_name(action))
        assert record is not None and record.command == command_of(action, {})
        assert record == workspace.record(action)
    assert kept.bytes < 620, kept.bytes


def test_stamps(workspace: Workspace) -> None:
    """Of a source and an object."""
    table = StampTable(str)
    kept = TracedBytes(lambda: fill_table(workspace.graph, table))
    assert kept.bytes < 430, kept.bytes


def test_what_the_fast_path_is_told(workspace: Workspace) -> None:
    """While it is collected, beside what the run holds."""
    graph, table = workspace.graph, workspace.table

    def listed() -> object:
        files = UsedFiles(table, graph.producer, {}, lambda path: path.removeprefix(f"{workspace.root}/"))
        for action in graph.order:
            assert all(files.take(path, sha256(path)) for path in (*action.inputs, *action.outputs))
        return files.listed()

    kept = TracedBytes(listed)
    assert kept.peak < 420, kept.peak


def test_the_usage_index(workspace: Workspace) -> None:
    """While it is made."""
    graph = workspace.graph
    paths = sorted({path for action in graph.order for path in (*action.inputs, *action.outputs)})
    kept = TracedBytes(lambda: usage_index(workspace, paths))
    assert kept.peak < 365, kept.peak


def test_a_large_run_gives_back_what_it_freed_before_it_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    space = EngineSpace(tmp_path).sample()
    real = Workspace.save

    def save(workspace: Workspace) -> None:
        done.append("written")
        real(workspace)

    monkeypatch.setattr(Workspace, "save", save)
    monkeypatch.setattr("pipeline.engine.engine.give_back", lambda: done.append("given back"))
    large = "pipeline.engine.engine.give_large_back_at_once"
    monkeypatch.setattr(large, lambda: done.append("large blocks at once"))
    assert space.build().ok and not {"given back", "large blocks at once"}.intersection(done)
    monkeypatch.setattr("pipeline.engine.engine._LARGE", 3)
    space.write("src/a.c", "int other;\n")
    done.clear()
    assert space.build().ok and done[:3] == ["large blocks at once", "given back", "written"]
    give_back()
    give_large_back_at_once()
