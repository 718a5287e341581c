"""Which moved files leave doit nothing to say."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.fastpath import FirstLook, Snapshot
from pipeline.fastpath.listing import listing_of
from pipeline.hotplate import _only_builds


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["src/a.c"], True),
        (["src/a.c", "build/build.ninja", "build/CMakeFiles/rules.ninja"], True),
        (["src", "build/build.ninja"], True),
        (["build/build.ninja", "dodo.py"], False),
        (["deploy.toml"], False),
        (["pyproject.toml"], False),
    ],
)
def test_what_moved_says_nothing_of_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], wanted: bool
) -> None:
    (tmp_path / "src").mkdir()
    monkeypatch.chdir(tmp_path)
    files = ["src/a.c", "build/build.ninja", "build/CMakeFiles/rules.ninja", "deploy.toml", "dodo.py", "pyproject.toml"]
    files.append("src")  # listed
    listing = listing_of([(name, (1, 2, 3)) for name in files])
    snapshot = Snapshot((), {}, (), (), None, {}, "", 1, len(files), listing)
    look = FirstLook(str(tmp_path), "", (1, 2, 3), snapshot, [files.index(name) for name in names])
    assert _only_builds(look) == wanted
