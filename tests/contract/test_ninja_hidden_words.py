"""Builds of ninja with gcc: what decides a result and stands in no depfile nor manifest. After each edit the products
are those of a build of ninja in another directory that begins with nothing, and nothing is left to do."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.unit.ninja_space import NinjaSpace

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")

RULES = """
rule cc
  command = gcc $flags -MD -MF $out.d -c $in -o $out
  depfile = $out.d
  deps = gcc
rule own
  command = gcc @$out.rsp -MD -MF $out.d -c $in -o $out
  depfile = $out.d
  deps = gcc
  rspfile = $out.rsp
  rspfile_content = -O1 $flags
rule ld
  command = gcc $flags $in -o $out
rule precompile
  command = gcc -x c-header $in -o $out
"""


class Beside:
    """A project, and clean builds of it elsewhere."""

    def __init__(self, root: Path, statements: str, files: dict[str, str]) -> None:
        self.space = NinjaSpace(root / "p", root / "cache")
        self.space.write("out/build.ninja", RULES + statements)
        for path, text in files.items():
            self.space.write(path, text)
        self._clean = root / "clean"

    def is_right(self, *products: str) -> bool:
        """After a run; a second one does nothing."""
        self.space.ours()
        mine = [(self.space.out / name).read_bytes() for name in products]
        shutil.rmtree(self._clean, ignore_errors=True)
        shutil.copytree(self.space.root, self._clean, ignore=shutil.ignore_patterns(".deploy", ".ninja_*", *products))
        subprocess.run(["ninja", "-C", "out"], cwd=self._clean, check=True, capture_output=True)
        self.space.ours()
        assert set(self.space.how.values()) <= {"up_to_date"}
        return mine == [(self._clean / "out" / name).read_bytes() for name in products]

    def precompile(self, text: str, place: str) -> None:
        self.space.write("other.h", text)
        subprocess.run(["gcc", "-x", "c-header", "other.h", "-o", place], cwd=self.space.root, check=True)


@pytest.mark.parametrize("rule", ["cc", "own"])
def test_response_files_that_response_files_name(tmp_path: Path, rule: str) -> None:
    build = f"build a.o: {rule} ../a.c\n flags = @../more.rsp\nbuild app: ld a.o\n flags = @../ld.rsp\n"
    files = {
        "a.c": "#include <e.h>\nint b(void); void _start(void) { b(); }\n",
        "one/e.h": "int q = 1;\n",
        "two/e.h": "int q = 2;\n",
        "more.rsp": "-I../one @../deep.rsp",
        "deep.rsp": "-I../two",
        "ld.rsp": "-nostdlib -Wl,--build-id=none @../deeper.rsp",
        "deeper.rsp": "-Wl,--defsym,b=0x10",
    }
    beside = Beside(tmp_path, build, files)
    assert beside.is_right("a.o", "app")
    edits = {"more.rsp": "@../deep.rsp", "deep.rsp": "-I../one", "deeper.rsp": "-Wl,--defsym,b=0x20"}
    for path, text in edits.items():
        beside.space.write(path, text)
        assert beside.is_right("a.o", "app"), path


def test_a_forced_header_is_found_first_elsewhere(tmp_path: Path) -> None:
    build = "build a.o: cc ../a.c\n flags = -I../no -I../inc -include f.h\n"
    beside = Beside(tmp_path, build, {"a.c": "int x = F;\n", "inc/f.h": "#define F 1\n"})
    assert beside.is_right("a.o")
    for number, path in enumerate(("no/f.h", "out/f.h")):
        beside.space.write(path, f"#define F {number + 2}\n")
        assert beside.is_right("a.o"), path


@pytest.mark.parametrize("name", ["pre.h", "../inc/pre.h", "{root}/inc/pre.h"])
def test_a_precompiled_form_of_a_forced_header(tmp_path: Path, name: str) -> None:
    """It comes, is made anew and goes; no depfile names it."""
    said = name.replace("{root}", str(tmp_path / "p"))
    beside = Beside(
        tmp_path,
        f"build a.o: cc ../a.c\n flags = -I../inc -include {said}\n",
        {"a.c": "int x = A;\n", "inc/pre.h": '#include "d.h"\n', "inc/d.h": "#define A 1\n"},
    )
    assert beside.is_right("a.o")
    for number in (2, 3):
        beside.precompile(f"#define A {number}\n", "inc/pre.h.gch")
        assert beside.is_right("a.o"), number
    (beside.space.root / "inc/pre.h.gch").unlink()
    assert beside.is_right("a.o")


def test_a_header_is_precompiled_without_the_option_to_compile(tmp_path: Path) -> None:
    """It is no link, though nothing says that it is a compile."""
    build = "build pre.h.gch: precompile ../pre.h\nbuild a.o: cc ../a.c | pre.h.gch\n flags = -I. -include pre.h\n"
    beside = Beside(tmp_path, build, {"a.c": "int x = A;\n", "pre.h": "#define A 1\n"})
    assert beside.is_right("a.o")
    beside.space.write("pre.h", "#define A 2\n")
    assert beside.is_right("a.o")


def archive(space: NinjaSpace, place: str, value: int) -> None:
    """`lib....a` with a function that returns it."""
    space.write("x/x.c", f"int b(void) {{ return {value}; }}\n")
    target = space.root / place
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    subprocess.run(["gcc", "-c", "x.c", "-o", "x.o"], cwd=space.root / "x", check=True)
    subprocess.run(["ar", "rcD", str(target), "x.o"], cwd=space.root / "x", check=True)


@pytest.mark.parametrize("option", ["-T ../s.ld", "-Wl,-T,../s.ld", "-Xlinker --script=../s.ld"])
def test_what_a_script_reads_by_relative_directories(tmp_path: Path, option: str) -> None:
    """Below those of `-L` and of the script's own SEARCH_DIR: an edit, and what comes to be found first."""
    flags = f"-nostdlib -static -no-pie {option} -L../l1 -L../l2"
    beside = Beside(
        tmp_path,
        f"build a.o: cc ../a.c\nbuild app: ld a.o\n flags = {flags}\n",
        {
            "a.c": "int b(void); void _start(void) { b(); }\n",
            "s.ld": "INCLUDE memory.ld\nSEARCH_DIR(../s1)\nSEARCH_DIR(../s2)\nGROUP(-lb)\nEXTERN(b)\n"
            "SECTIONS { . = BASE; .text : { *(.text*) } .data : { *(.data*) } }\n",
            "l2/memory.ld": "BASE = 0x1000;\n",
        },
    )
    archive(beside.space, "s2/libb.a", 1)
    assert beside.is_right("app")
    for number, path in enumerate(("l2/memory.ld", "l1/memory.ld", "out/memory.ld")):
        beside.space.write(path, f"BASE = 0x{number + 2}000;\n")
        assert beside.is_right("app"), path
    for number, path in enumerate(("s2/libb.a", "s1/libb.a", "l1/libb.a")):
        archive(beside.space, path, number + 2)
        assert beside.is_right("app"), path
