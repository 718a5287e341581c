"""A header that appears where a real compiler would find it first, for every way to spell a search path and to name a
file. The compiler itself is the judge: a case counts as dangerous when its depfile names the new file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.effects.clock import SystemClock
from pipeline.effects.process import SystemProcessRunner
from pipeline.engine.engine import Engine
from pipeline.engine.workspace import BuildSteps, Directories, Host
from pipeline.model import Action, Stage, Tool
from pipeline.toolchain import gcc
from tests import firmware_build as fb

COMPILER = shutil.which(gcc.DRIVER)
pytestmark = pytest.mark.skipif(COMPILER is None, reason=fb.GCC_MISSING)
PLAIN = '#include "h.h"\nint a = H;\n'


@pytest.fixture(scope="module")
def runner() -> Iterator[SystemProcessRunner]:
    runner = SystemProcessRunner(SystemClock())
    yield runner
    runner.close()


class Unit:
    """One source, compiled with some flags."""

    def __init__(self, root: Path, runner: SystemProcessRunner, flags: str, env: dict[str, str] | None = None) -> None:
        self.root, self.runner, self.flags, self.env = root, runner, flags.split(), env or {}

    def write(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def build(self) -> bool:
        """Was it compiled? A new engine each time, as in a new process."""
        flags = [flag.replace("ROOT", str(self.root)) for flag in self.flags]
        argv = ("cc", *flags, "-MD", "-MF", "build/a.d", "-c", "src/a.c", "-o", "build/a.o")
        env = tuple(self.env.items())
        action = Action(
            "a", Stage.COMPILE, ("src/a.c",), ("build/a.o",), argv, depfile="build/a.d", env=env, count_as="compiled"
        )
        assert COMPILER is not None
        state, tools = self.root / ".deploy", {"cc": Tool("cc", COMPILER, "", "cc")}
        steps = BuildSteps((action,), tools, {}, {"PATH": os.environ["PATH"]})
        engine = Engine(Directories(self.root, state, state), steps, Host(self.runner, SystemClock(), 1))
        engine.scan()
        if engine.verdict(Stage.COMPILE).up_to_date:
            return False
        result = engine.run(Stage.COMPILE, lambda label, done, total: None)
        assert result.ok and not result.notes, (result.failures, result.notes)
        return bool(result.executed)

    def object(self) -> bytes:
        return (self.root / "build/a.o").read_bytes()


SPELLINGS = {
    "joined": "-Ifirst -Iinc",
    "separate": "-I first -I inc",
    "dots": "-I././first -I.//inc",
    "slashes": "-Ifirst// -I./inc/.",
    "absolute": "-IROOT/first -IROOT/inc",
    "quote": "-iquote first -Iinc",
    "quote joined": "-iquotefirst -Iinc",
    "quote and system": "-iquote first -isystem inc",
    "system": "-isystem first -isystem inc",
    "system joined": "-isystemfirst -isysteminc",
    "after": "-Ifirst -idirafter inc",
    "after joined": "-idirafterfirst -idirafterinc",
    "long": "--include-directory=first --include-directory=inc",
    "long separate": "--include-directory first --include-directory inc",
    "long after": "-Ifirst --include-directory-after=inc",
    "prefix": "-iprefix ROOT/ -iwithprefixbefore first -iwithprefix inc",
    "prefix before": "-iprefix ./ -iwithprefixbefore first -iwithprefixbefore inc",
    "long prefix": "--include-prefix=./ --include-with-prefix-before=first --include-with-prefix=inc",
    "passed on": "-Wp,-I,first -Wp,-I,inc",
    "passed on joined": "-Wp,-Ifirst,-Iinc",
    "passed on after": "-Ifirst -Wp,-idirafter,inc",
    "passed on singly": "-Xpreprocessor -I -Xpreprocessor first -Xpreprocessor -Iinc",
    "passed on and not": "-Xpreprocessor -Ifirst -isystem inc",
    "system again": "-Iinc -Ifirst -isystem inc",
    "parent": "-Isrc/../first -Isrc/../inc",
    "response": "@words.rsp",
    "barrier": "-Ifirst -I- -Iinc",
    "sysroot": "-I=/first -I=/inc --sysroot=ROOT",
}
WAYS = {
    "quoted": ("src/a.c", '#include "h.h"\nint a = H;\n'),
    "angled": ("src/a.c", "#  include /* here */ <h.h>\nint a = H;\n"),
    "computed": ("src/a.c", '#define NAME "h.h"\n#include NAME\nint a = H;\n'),
    "continued": ("src/a.c", '#inc\\\nlude "h.h"\nint a = H;\n'),
    "digraph": ("src/a.c", '%:include "h.h"\nint a = H;\n'),
    "subdirectory": ("src/a.c", '#include "../src/none.h"\n#include <h.h>\nint a = H;\n'),
}


def unit(tmp_path: Path, runner: SystemProcessRunner, flags: str, source: str = PLAIN) -> Unit:
    made = Unit(tmp_path, runner, flags)
    made.write("src/a.c", source)
    made.write("src/none.h", "\n")
    made.write("inc/h.h", "#define H 1\n")
    made.write("words.rsp", "-Ifirst @more.rsp")
    made.write("more.rsp", "-I 'inc'\n")
    for directory in ("first", "build"):
        (tmp_path / directory).mkdir()
    return made


def appears(made: Unit, path: str, text: str = "#define H 2\n") -> None:
    """The new file is compiled in, and what results is what a clean build gives."""
    assert made.build() and not made.build()
    made.write(path, text)
    assert made.build(), path
    incremental = made.object()
    shutil.rmtree(made.root / ".deploy")
    assert made.build() and made.object() == incremental
    (made.root / path).unlink()
    made.build()
    assert made.object() != incremental, "the compiler does not find it there: no such case"


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_of_the_search_path(tmp_path: Path, runner: SystemProcessRunner, name: str) -> None:
    only_quoted = "quote" in name or name == "barrier"
    source = PLAIN if only_quoted else "#include <h.h>\nint a = H;\n"
    appears(unit(tmp_path, runner, SPELLINGS[name], source), "first/h.h")


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_name_a_file(tmp_path: Path, runner: SystemProcessRunner, way: str) -> None:
    appears(unit(tmp_path, runner, "-Ifirst -Iinc", WAYS[way][1]), "first/h.h")


def test_beside_the_file_that_includes(tmp_path: Path, runner: SystemProcessRunner) -> None:
    appears(unit(tmp_path, runner, "-Ifirst -Iinc"), "src/h.h")


def test_include_next(tmp_path: Path, runner: SystemProcessRunner) -> None:
    made = unit(tmp_path, runner, "-Ifirst -Imiddle -Iinc")
    made.write("first/h.h", "#include_next <h.h>\n")
    appears(made, "middle/h.h")


@pytest.mark.parametrize("option", ["-include h.h", "-includeh.h", "--include=h.h", "-imacros h.h", "--imacros h.h"])
@pytest.mark.parametrize("place", ["h.h", "first/h.h"])
def test_forced_files(tmp_path: Path, runner: SystemProcessRunner, option: str, place: str) -> None:
    appears(unit(tmp_path, runner, f"{option} -Ifirst -Iinc", "int a = H;\n"), place)


@pytest.mark.parametrize("variable", ["CPATH", "C_INCLUDE_PATH"])
def test_the_search_path_of_the_environment(tmp_path: Path, runner: SystemProcessRunner, variable: str) -> None:
    made = unit(tmp_path, runner, "")
    made.env[variable] = "first:inc"
    appears(made, "first/h.h")


def test_the_compilers_own_header(tmp_path: Path, runner: SystemProcessRunner) -> None:
    made = unit(tmp_path, runner, "-Ifirst -Iinc", "#include <stdarg.h>\nint a = sizeof(va_list);\n")
    appears(made, "first/stdarg.h", "typedef char va_list[77];\n")


def test_nothing_is_compiled_for_a_file_that_nobody_would_read(tmp_path: Path, runner: SystemProcessRunner) -> None:
    made = unit(tmp_path, runner, "-Ifirst -Iinc -Ilate", '#include "h.h"\n#include "sub/k.h"\nint a = H;\n')
    made.write("inc/sub/k.h", "#define K 1\n")
    assert made.build()
    for path in ("late/h.h", "inc/sub/h.h", "late/sub/k.h", "src/k.h", "first/k.h", "first/other.h", "h.h"):
        made.write(path, "#error\n")
        assert not made.build(), path
