"""Which compiler commands are understood, and what of a failed build is its first error."""

from __future__ import annotations

import pytest

from pipeline.formats import diagnostics
from pipeline.formats.compile_command import CompileReading, listing_words, read_compile
from pipeline.model import FailureCategory
from pipeline.toolchain.build_failures import build_failure
from pipeline.toolchain.ninja_kept import VARIABLES as NINJAS

ESP_IDF = (
    '-DESP_PLATFORM -DIDF_VER=\\"v5.1\\" -Iconfig -I/esp/newlib/include -march=rv32imc_zicsr_zifencei '
    "-ffunction-sections -fdata-sections -Wall -Werror=all -Wno-error=unused-function -Wextra -gdwarf-4 -ggdb "
    "-nostartfiles -Og -fno-shrink-wrap -fmacro-prefix-map=/p=. -fstrict-volatile-bitfields -fno-jump-tables "
    "-fno-tree-switch-conversion -std=gnu17 -MD -MT x.obj -MF x.obj.d -o x.c.obj -c /p/x.c"
)
ARDUINO = (
    "-c -g3 -Os -w -Wpointer-arith -fno-exceptions -mlongcalls -MMD -DF_CPU=240000000L -x c++ sketch.ino -o s.ino.o"
)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("-c a.c", CompileReading("a.c", "a.o", "c")),
        ("-c dir/a.cpp -MMD", CompileReading("dir/a.cpp", "a.o", "c++", "a.d", hides_system=True)),
        ("-c a.S -o b.x.o -MD", CompileReading("a.S", "b.x.o", "assembler-with-cpp", "b.x.d")),
        ("-c a.c -include x.h -imacros y.h", CompileReading("a.c", "a.o", "c", forced=("x.h", "y.h"))),
        (ESP_IDF, CompileReading("/p/x.c", "x.c.obj", "c", "x.obj.d")),
        (ARDUINO, CompileReading("sketch.ino", "s.ino.o", "c++", "s.ino.d", hides_system=True)),
    ],
)
def test_single_compiles_are_read(command: str, expected: CompileReading) -> None:
    assert read_compile(command.split()) == expected


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("a.c -o a", "no-compile"),
        ("-c -E a.c", "no-compile"),
        ("-S a.c", "no-compile"),
        ("--version", "no-compile"),
        ("-c a.c b.c", "several-sources"),
        ("-c", "no-known-source"),
        ("-c a.s", "no-known-source"),
        ("-c a.c -x none b.o", "several-sources"),
        ("-c -x c-header a.h", "no-known-source"),
        ("-c -", "standard-input"),
        *(
            (f"-c a.c {flag}", "more-outputs")
            for flag in (
                *(
                    "--coverage",
                    "-save-temps=obj",
                    "-gsplit-dwarf",
                    "-fprofile-arcs",
                    "-fstack-usage",
                    "-fdump-tree-all",
                ),
                *(
                    "-ftime-trace",
                    "-fsave-optimization-record",
                    "-fcallgraph-info",
                    "-Wa,-adhln=x.lst",
                    "-fprofile-use",
                ),
            )
        ),
        *(
            (f"-c a.c {flag}", "plugin-or-specs")
            for flag in ("-fplugin=x.so", "--specs=nano.specs", "-specs=a", "-Bdir")
        ),
        *(
            (f"-c a.c {flag}", "special-depfile")
            for flag in ("-Wp,-MD,x", "-MG", "-MF x.d", "-MD -MMD", "-MD -MF -", "-MP")
        ),
        *(
            (f"-c a.c {flag}", "unknown-flag")
            for flag in (
                *("-I-", "--strange", "-fsanitize=address", "-frecord-gcc-switches", "-fmodules", "-Wa,--MD,x"),
                *("-fdebug-compilation-dir=x", "-include-pch x", "-mcode=a/b", "-mdynconfig=x.so", "-Xassembler x"),
            )
        ),
        ("-c a.c -o noending", "odd-output"),
        ("-c a.c -o a.o -o b.o", "odd-output"),
        ("-c a.c -o a.c", "odd-output"),
    ],
)
def test_what_is_in_doubt_is_left_alone(command: str, reason: str) -> None:
    found = read_compile(command.split())
    assert found == reason or (command.endswith("x") and found == "several-sources")


def test_the_listing_of_a_compile_makes_nothing_else() -> None:
    words = ["-c", "-O2", "-o", "x.o", "-MMD", "-MP", "-MFx.d", "-MT", "t", "-Ia", "a.c"]
    assert listing_words(words, "z.d") == ["-O2", "-Ia", "a.c", "-M", "-MF", "z.d", "-MT", "x"]


def test_errors_of_rust_have_the_form_of_all() -> None:
    said = ["error[E0425]: cannot find value `x`", " --> src/main.rs:3:5", "  |", "error: aborting"]
    plain = diagnostics.plain(said, diagnostics.Origin({}))
    assert plain[0] == "src/main.rs:3:5: error: cannot find value `x` [E0425]"


@pytest.mark.parametrize(
    ("said", "where", "category"),
    [
        ("src/a.c:3:5: error: bad\n", "src/a.c:3:5", FailureCategory.COMPILE_ERROR),
        ("make[1]: Entering directory '/p/sub'\na.c:3: error: bad\n", "sub/a.c:3:1", FailureCategory.COMPILE_ERROR),
        (
            "Running ninja in directory /p/build\n../main/m.c:9:2: error: bad\n",
            "main/m.c:9:2",
            FailureCategory.COMPILE_ERROR,
        ),
        ("\x1b[1msrc/a.c:3:5: \x1b[31merror: \x1b[0mbad\r\n", "src/a.c:3:5", FailureCategory.COMPILE_ERROR),
        ("src/gone.c:3:5: error: bad\n", "deploy.toml:1:1", FailureCategory.ACTION_FAILED),
        (
            "/usr/bin/ld: a.o: in function `main':\nsrc/a.c:4: undefined reference to `f'\n",
            "src/a.c:4:1",
            FailureCategory.LINK_ERROR,
        ),
        ("it broke\n", "deploy.toml:1:1", FailureCategory.ACTION_FAILED),
        ("", "deploy.toml:1:1", FailureCategory.ACTION_FAILED),
    ],
)
def test_a_failed_build_is_about_its_first_error(said: str, where: str, category: FailureCategory) -> None:
    files = {"/p/src/a.c", "/p/sub/a.c", "/p/build/../main/m.c"}
    failure = build_failure(said.encode(), "/p", files.__contains__, "deploy.toml:1:1", "`make` ended with exit code 2")
    assert (failure.where, failure.category) == (where, category)


def test_the_launcher_looks_at_every_variable_that_ninjas_statements_do() -> None:
    from pipeline.launcher.call import PREFIXES, VARIABLES

    assert [name for name in NINJAS if name not in VARIABLES and not name.startswith(PREFIXES)] == []
