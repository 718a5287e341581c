"""The file of buckets: what was written comes back by name, and what is damaged, or of another writing, is nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from cache import rowfile
from cache.rowfile import LazyRows, RowFile

SECTIONS: tuple[dict[str, Any], ...] = ({f"name {n}": (n, b"x" * n) for n in range(200)}, {}, {"one": 1, "\udcff": 2})


def written(path: Path) -> RowFile:
    rowfile.write(path, ("first", 7), SECTIONS)
    found = RowFile.open(path, "first")
    assert found is not None
    return found


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    found = written(tmp_path / "state.v1.state")
    assert found.about == ("first", 7)
    for number, section in enumerate(SECTIONS):
        for name, value in section.items():
            assert found.get(number, name) == value
        assert found.get(number, "name 1000") is None


def test_of_ten_thousand_rows_one_bucket_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state"
    rowfile.write(path, ("first",), [{f"name {n}": n for n in range(10_000)}])
    found = RowFile.open(path, "first")
    assert found is not None
    sizes: list[int] = []
    pread = os.pread

    def counted(handle: int, size: int, at: int) -> bytes:
        sizes.append(size)
        return pread(handle, size, at)

    monkeypatch.setattr(os, "pread", counted)
    assert found.get(0, "name 77") == 77 and found.get(0, "name 77") == 77
    assert len(sizes) == 1 and sizes[0] < 2000


def test_one_about_something_else_is_none(tmp_path: Path) -> None:
    path = tmp_path / "state"
    assert RowFile.open(path, "first") is None
    written(path)
    assert RowFile.open(path, "second") is None


def test_the_index_of_one_writing_does_not_belong_to_the_rows_of_another(tmp_path: Path) -> None:
    path = tmp_path / "state"
    written(path)
    index = path.with_suffix(".index").read_bytes()
    written(path)
    path.with_suffix(".index").write_bytes(index)
    assert RowFile.open(path, "first") is None


def test_damaged_rows_are_none_and_never_others(tmp_path: Path) -> None:
    path = tmp_path / "state"
    written(path)
    rows = path.with_suffix(".rows")
    whole = rows.read_bytes()
    for place in range(16, len(whole), 101):
        rows.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        found = RowFile.open(path, "first")
        assert found is not None
        for number, section in enumerate(SECTIONS):
            for name, value in section.items():
                assert found.get(number, name) in (None, value)
    for size in (0, 15, 16, len(whole) // 2):
        rows.write_bytes(whole[:size])
        found = RowFile.open(path, "first")
        assert found is None or found.get(2, "one") in (None, 1)


def test_rows_are_loaded_when_they_are_asked_for() -> None:
    asked: list[str] = []

    def load(name: str) -> int | None:
        asked.append(name)
        return {"a": 1, "b": 2, "c": 3}.get(name)

    rows = LazyRows(load)
    assert rows.get("a") == 1 and rows["b"] == 2 and "z" not in rows and rows.get("z", 9) == 9
    with pytest.raises(KeyError):
        rows["y"]
    assert rows.differences() == {}
    rows["a"] = 4
    rows["new"] = 5
    assert rows.pop("c", None) == 3 and rows.pop("z", None) is None and rows.get("c") is None
    assert rows.differences() == {"a": 4, "new": 5, "c": None}
    assert sorted(asked) == ["a", "b", "c", "new", "y", "z"], "each once"
    assert rows.get("a") == 4
