"""C++, plain assembler, libraries as targets and sources that actions make, with the real compilers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.effects.clock import SystemClock
from pipeline.effects.process import SystemProcessRunner
from pipeline.engine import execution
from pipeline.errors import ConfigError
from pipeline.model import FailureCategory, Stage
from pipeline.toolchain import gcc
from pipeline.toolchain.action_failures import action_failure
from tests import firmware_build as fb
from tests.contract.small_project import HALF, Small

KINDS = [
    pytest.param("gcc", marks=pytest.mark.skipif(shutil.which(gcc.DRIVER) is None, reason=fb.GCC_MISSING)),
    pytest.param("zig", marks=pytest.mark.needs_zig),
]
CXX = """
#include "value.hpp"
struct Base { virtual unsigned get() const = 0; };
struct Half : Base { unsigned get() const override { static const unsigned v = VALUE + KIND; return v; } };
extern "C" unsigned long long half(unsigned long long n) { Half h; return n + static_cast<Base &>(h).get(); }
"""


@pytest.fixture(scope="module")
def runner() -> Iterator[SystemProcessRunner]:
    runner = SystemProcessRunner(SystemClock())
    yield runner
    runner.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ending", ["cpp", "cc", "cxx"])
def test_cpp_beside_c(tmp_path: Path, runner: SystemProcessRunner, kind: str, ending: str) -> None:
    flags = 'cflags = ["-std=gnu11", "-DKIND=1", "-Wmissing-prototypes"]\ncxxflags = ["-DKIND=2", "-Wnon-virtual-dtor"]'
    small = Small(tmp_path / "p", runner, kind, flags)
    small.sources = f'["app/*.c", "app/*.{ending}", "app/*.S"]'
    (small.root / "app/half.c").unlink()
    small.write(f"app/half.{ending}", CXX)
    small.write("inc/value.hpp", "#define VALUE 1u\n")
    assert f"compile app/half.{ending}" in small.build() and small.build() == set()
    small.write("inc/value.hpp", "#define VALUE 2u\n")
    assert f"compile app/half.{ending}" in small.build()
    assert small.elf() == small.clean_elf()
    argv = {action.name: action.argv for action in small.tools().actions}
    assert "-DKIND=2" in argv[f"compile app/half.{ending}"] and "-DKIND=1" not in argv[f"compile app/half.{ending}"]
    assert "-DKIND=1" in argv["compile app/main.c"] and "-O1" in argv[f"compile app/half.{ending}"]


@pytest.mark.parametrize("kind", KINDS)
def test_without_cxxflags_the_flags_of_c_serve(tmp_path: Path, runner: SystemProcessRunner, kind: str) -> None:
    small = Small(tmp_path / "p", runner, kind, 'cflags = ["-std=gnu11", "-DKIND=1"]')
    small.sources = '["app/*.c", "app/*.cpp", "app/*.S"]'
    (small.root / "app/half.c").unlink()
    small.write("app/half.cpp", CXX)
    small.write("inc/value.hpp", "#define VALUE 1u\n")
    assert "compile app/half.cpp" in small.build()


@pytest.mark.parametrize("kind", KINDS)
def test_assembler_without_preprocessing(tmp_path: Path, runner: SystemProcessRunner, kind: str) -> None:
    small = Small(tmp_path / "p", runner, kind, 'cflags = ["-DX=1"]')
    small.sources = '["app/*.c", "app/*.S", "app/*.s"]'
    small.write(
        "app/table.s", '# a comment, "quoted\n.globl table\ntable:\n.include "inc/words.inc"\n.incbin "inc/data"\n'
    )
    small.write("inc/words.inc", ".word 1\n")
    small.write("inc/data", "one")
    results = small.results()
    assert all(result.ok and not result.warnings and not result.notes for result in results), results
    assert small.build() == set()
    for path, text in (("inc/words.inc", ".word 2\n"), ("inc/data", "two"), ("app/table.s", ".globl table\ntable:\n")):
        small.write(path, text)
        assert "compile app/table.s" in small.build(), path
    assert small.elf() == small.clean_elf()


@pytest.mark.parametrize("kind", KINDS)
def test_a_library_is_a_target(tmp_path: Path, runner: SystemProcessRunner, kind: str) -> None:
    library = '[[library]]\nname = "half"\nsources = ["lib/*.c"]\ninclude = ["lib/inc"]\n'
    small = Small(tmp_path / "p", runner, kind, more=library)
    (small.root / "app/half.c").unlink()
    small.write("lib/half.c", f'#include "lib.h"\n{HALF.format("LIB")}')
    small.write("lib/unused.c", "int unused(void) { return 1; }\n")
    small.write("lib/inc/lib.h", "#define LIB 1\n")
    assert {"compile lib/half.c for half", "archive half", "link app"} <= small.build() and small.build() == set()
    assert (small.root / "build/local-fast/libhalf.a").is_file()
    small.write("lib/inc/lib.h", "#define LIB 2\n")
    assert {"compile lib/half.c for half", "archive half", "link app"} <= small.build()
    (small.root / "lib/unused.c").unlink()
    assert "archive half" in small.build()
    assert b"unused" not in (small.root / "build/local-fast/libhalf.a").read_bytes()
    assert small.elf() == small.clean_elf()


GENERATED = """
[[action]]
name = "make"
argv = ["python", "tools/gen.py", "{out}", "{in}"]
inputs = ["value.txt"]
outputs = ["build/gen/half.c"]
"""
GENERATOR = f"import sys\nopen(sys.argv[1], 'w').write({HALF!r}.format(open(sys.argv[2]).read()))\n"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pattern", ["build/gen/*.c", "build/gen/half.c", "build/**/*.c"])
def test_a_source_that_an_action_makes(tmp_path: Path, runner: SystemProcessRunner, kind: str, pattern: str) -> None:
    small = Small(tmp_path / "p", runner, kind, more=GENERATED)
    small.sources = f'["app/*.c", "app/*.S", "{pattern}"]'
    (small.root / "app/half.c").unlink()
    small.write("tools/gen.py", GENERATOR)
    small.write("value.txt", "1")
    assert {"make", "compile build/gen/half.c", "link app"} <= small.build() and small.build() == set()
    small.write("value.txt", "2")
    assert {"make", "compile build/gen/half.c", "link app"} <= small.build() and small.build() == set()
    assert small.elf() == small.clean_elf()


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_made_from_the_program_is_refused(tmp_path: Path, runner: SystemProcessRunner, kind: str) -> None:
    small = Small(tmp_path / "p", runner, kind, more=GENERATED.replace('"value.txt"', '"build/{profile}/app.elf"'))
    small.sources = '["app/*.c", "app/*.S", "build/gen/*.c"]'
    small.write("tools/gen.py", GENERATOR)
    with pytest.raises(ConfigError, match="needs what stage link makes"):
        small.tools()


@pytest.mark.parametrize("kind", KINDS)
def test_names_that_look_like_options_and_hidden_files(tmp_path: Path, runner: SystemProcessRunner, kind: str) -> None:
    small = Small(tmp_path / "p", runner, kind)
    small.sources = '["*.c", "app/main.c", "app/*.S"]'
    (small.root / "app/half.c").unlink()
    small.write("-half.c", HALF.format(1))
    small.write("@more.c", "int more;\n")
    small.write("._main.c", b"\0\5\x16\7")
    assert {"compile -half.c", "compile @more.c", "link app"} <= small.build() and small.build() == set()
    small.write("-half.c", HALF.format(2))
    assert "compile -half.c" in small.build()
    small.sources = '["*.c", "app/main.c", "app/*.S", ".hidden/*.c"]'
    with pytest.raises(ConfigError, match=r"'.hidden/\*.c' matches no file"):
        small.tools()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["a,b", "a=b", "a b", "ü", "a=b,c"])
def test_projects_in_directories_with_odd_names(
    tmp_path: Path, runner: SystemProcessRunner, kind: str, name: str
) -> None:
    plain, odd = Small(tmp_path / "plain", runner, kind), Small(tmp_path / name / "p", runner, kind)
    plain.build()
    odd.build()
    for path in ("app.elf", "app.bin", "obj/app/app/main.c.o", "obj/app/app/start.S.o"):
        assert (odd.root / "build/local-fast" / path).read_bytes() == (
            plain.root / "build/local-fast" / path
        ).read_bytes(), path


@pytest.mark.parametrize("kind", KINDS)
def test_more_objects_than_a_command_line_takes(
    tmp_path: Path, runner: SystemProcessRunner, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with 50,000 units, where the limit of the system is the one that counts."""
    monkeypatch.setattr(execution, "_longest", lambda: 300)
    library = '[[library]]\nname = "half"\nsources = ["lib/*.c"]\n'
    small = Small(tmp_path / "p q", runner, kind, more=library)
    (small.root / "app/half.c").unlink()
    small.write("lib/half.c", HALF.format(1))
    small.write("lib/with space and 'quotes'.c", "int more;\n")
    assert {"archive half", "link app"} <= small.build()
    assert not list(small.root.rglob("*.rsp*"))
    small.write("lib/half.c", "int other;\n")
    failed = next(result for result in small.results() if result.failures)
    failure = action_failure(Stage.LINK, FailureCategory.LINK_ERROR, failed.failures, small.tools().actions)
    assert "half" in failure.message and not list(small.root.rglob("*.rsp*"))
