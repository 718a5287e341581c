"""What an engine believes for the fast path: how much it asks of the file system for that."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.engine.build_log import BuildRecords, record_name
from pipeline.engine.facts import shadow_directories
from pipeline.engine.workspace import Workspace
from pipeline.fastpath.watched import settled_stamp
from tests.unit.engine_space import EngineSpace


def with_absent(space: EngineSpace, absent: tuple[str, ...]) -> Workspace:
    """A built project in which every action looked for `absent` in vain."""
    assert space.build().ok
    workspace = space.engine().workspace
    records: BuildRecords = workspace.records
    for action in workspace.graph.order:
        record = workspace.record(action)
        assert record is not None
        records.put(record_name(action), record._replace(absent=(*absent, action.name)))
    return workspace


def test_a_directory_is_asked_about_once_however_many_names_must_stay_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a real ESP-IDF build 145,126 names lie in some hundred directories."""
    space = EngineSpace(tmp_path / "project").sample()
    names = tuple(f"{place}/h{n}.h" for place in ("inc", "inc/none/below", "none") for n in range(200))
    workspace = with_absent(space, names)
    asked: list[str] = []
    real = os.path.isdir

    def isdir(path: str) -> bool:
        asked.append(path)
        return real(path)

    monkeypatch.setattr(os.path, "isdir", isdir)
    found = shadow_directories(workspace)
    root = str(space.root)
    assert found == {path: settled_stamp(path) for path in (f"{root}/inc", root)}
    assert len(asked) <= 10, asked


def test_a_name_that_has_come_is_no_ground_to_believe_in(tmp_path: Path) -> None:
    space = EngineSpace(tmp_path / "project").sample()
    workspace = with_absent(space, ("inc/late.h",))
    space.write("inc/late.h", "")
    found = shadow_directories(workspace)
    root = str(space.root)
    assert found[f"{root}/inc"] is None
