"""A kept deploy.toml is the text's own meaning, or it is not used."""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path

import pytest

from cache import statefile
from pipeline.run.kept_text import KIND, NAME, KeptText

TEXT = '[project]\nname = "one"\nsources = ["a.c", "b.c"]\n[budget]\ntotal = 400\nenforce = true\n'


def refuse(text: str) -> dict[str, object]:
    raise AssertionError(text)


def test_the_same_text_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = KeptText(tmp_path)
    assert kept.read(TEXT) == tomllib.loads(TEXT)
    kept.keep(TEXT)
    monkeypatch.setattr(tomllib, "loads", refuse)
    document = kept.read(TEXT)
    assert document == {
        "project": {"name": "one", "sources": ["a.c", "b.c"]},
        "budget": {"total": 400, "enforce": True},
    }
    document["project"]["name"] = "changed by its reader"
    assert kept.read(TEXT)["project"]["name"] == "one"
    kept.keep(TEXT)


def test_another_text_of_the_same_size_and_time_is_read(tmp_path: Path) -> None:
    kept = KeptText(tmp_path)
    kept.keep(TEXT)
    before = (tmp_path / NAME).stat()
    os.utime(tmp_path / NAME, ns=(before.st_atime_ns, before.st_mtime_ns))
    other = TEXT.replace("one", "two")
    assert kept.read(other)["project"]["name"] == "two"
    kept.keep(other)
    assert kept.read(TEXT)["project"]["name"] == "one" and kept.read(other)["project"]["name"] == "two"


def test_another_python_reads_for_itself(tmp_path: Path) -> None:
    statefile.save(tmp_path / NAME, KIND, (f"{sys.version} ", TEXT, {"project": {"name": "old"}}))
    assert KeptText(tmp_path).read(TEXT)["project"]["name"] == "one"


@pytest.mark.parametrize("damage", [b"", b"hotplate-state deploy.toml 1 00000000 3\nabc", b"\0" * 100])
def test_a_damaged_file_is_no_file(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / NAME).write_bytes(damage)
    kept = KeptText(tmp_path)
    assert kept.read(TEXT)["project"]["name"] == "one"
    kept.keep(TEXT)
    assert statefile.load(tmp_path / NAME, KIND)[0][1] == TEXT


def test_what_cannot_be_kept_is_read_each_time(tmp_path: Path) -> None:
    text = "[project]\nsince = 2026-11-29\n"
    kept = KeptText(tmp_path)
    kept.keep(text)
    assert not (tmp_path / NAME).exists() and kept.read(text) == tomllib.loads(text)
    (tmp_path / "file").touch()
    KeptText(tmp_path / "file").keep(TEXT)


def test_errors_are_those_of_the_reader(tmp_path: Path) -> None:
    with pytest.raises(tomllib.TOMLDecodeError):
        KeptText(tmp_path).read("[project\n")
