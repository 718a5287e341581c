"""Builds of ninja and a shared cache: a second checkout elsewhere restores what the first one compiled."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cache_server import CacheServer
from tests.unit.ninja_space import DEPLOY, NINJA, NinjaSpace

CC = shutil.which("cc") or shutil.which("gcc") or ""
pytestmark = pytest.mark.skipif(not (NINJA and CC), reason="ninja or a C compiler is missing")
MANIFEST = f"""
rule cc
  command = {CC} -MD -MF $out.d -c $in -o $out
  depfile = $out.d
  deps = gcc
rule ar
  command = ar rcs $out $in
build a.o: cc ../src/a.c
build b.o: cc ../src/b.c
build lib.a: ar a.o b.o
default lib.a
"""


def checkout(place: Path, url: str) -> NinjaSpace:
    space = NinjaSpace(place / "project", place / "store", f'{DEPLOY}remote = "{url}"\n')
    space.write("out/build.ninja", MANIFEST)
    space.write("src/a.c", '#include "a.h"\nint a = A;\n')
    space.write("src/b.c", '#include "a.h"\nint b = A;\n')
    space.write("src/a.h", "#define A 1\n")
    return space


def test_a_second_checkout_compiles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOTPLATE_CACHE_MODE", "read-write")
    with CacheServer() as server:
        first = checkout(tmp_path / "first", server.url)
        first.ours()
        assert sorted(first.how.values()) == ["executed"] * 3 and len(server.ac) == 3 + 2
        second = checkout(tmp_path / "second", server.url)
        second.ours()
        assert sorted(second.how.values()) == ["restored_remote"] * 3, second.how
        assert (second.out / "lib.a").read_bytes() == (first.out / "lib.a").read_bytes()
        second.write("src/a.h", "#define A 2\n")
        second.ours()
        assert sorted(second.how.values()) == ["executed"] * 3
        server.forget()
        second.ours()
        assert server.requests == []
