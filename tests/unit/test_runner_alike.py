"""Whom the runner takes for a process like those that it forks."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from pipeline.client.run_frame import COMPILED
from pipeline.service.alike import identity, is_alike
from pipeline.service.code_watch import code_paths


def compiled(tmp_path: Path) -> tuple[list[str], list[str]]:
    """Who and path of the compiled client of a script in that directory."""
    (tmp_path / "hotplate").write_text("#!/usr/bin/python\n")
    mine = identity()
    return [*mine[:4], os.fsdecode(COMPILED), *mine[8:]], [str(tmp_path)]


def test_an_interpreter_as_this_one(tmp_path: Path) -> None:
    who, path = compiled(tmp_path)
    assert is_alike(who, path)
    assert is_alike(list(identity()), sys.path)


@pytest.mark.parametrize("place", range(4))
def test_another_version_place_or_interpreter(tmp_path: Path, place: int) -> None:
    for who, path in (compiled(tmp_path), (list(identity()), sys.path)):
        who[place] += "x"
        assert not is_alike(who, path)


def test_other_variables_that_python_reads(tmp_path: Path) -> None:
    who, path = compiled(tmp_path)
    assert not is_alike([*who, "PYTHONDEVMODE=1"], path)


def test_what_lies_beside_the_script_may_be_imported(tmp_path: Path) -> None:
    who, path = compiled(tmp_path)
    (tmp_path / "doit").mkdir()
    assert not is_alike(who, path)
    (tmp_path / "doit").rmdir()
    assert is_alike(who, path)
    assert not is_alike(who, [*path, "/more"])
    assert not is_alike(who, [str(tmp_path / "none")])


def test_what_names_places_of_modules_is_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An edit of such a file in its place moves no directory."""
    named = tmp_path / "more.pth"
    named.write_text("/somewhere\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert str(named) in code_paths()
