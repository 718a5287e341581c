"""What compilers and linkers say, rewritten for editors. The inputs are the literal words of clang and lld (zig 0.17)
and of gcc 12.2 with binutils 2.40, shortened; the results must be read by VS Code's own pattern."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.failures import fail
from pipeline.formats.diagnostics import Origin, first_error, is_error, line_of, plain
from pipeline.model import FailureCategory, Stage

GCC = re.compile(r"^(.*?):(\d+):(\d*):?\s+(?:fatal\s+)?(warning|error):\s+(.*)$")
"""VS Code's `$gcc`: microsoft/vscode-cpptools, Extension/package.json at 001b3a5721d2, contributes.problemMatchers."""

LD = "/usr/lib/gcc/riscv64-unknown-elf/12.2.0/../../../riscv64-unknown-elf/bin/ld:"
ORIGIN = Origin({"obj/a.c.o": "src/a.c", "obj/b.c.o": "src/b.c"}, "app.ld")

CASES: dict[str, tuple[str, str]] = {
    "clang": (
        "src/a.c:3:13: error: expected ')'\n    3 | int broken( {\nsrc/a.c:3:11: note: to match this '('",
        "src/a.c:3:13: error: expected ')'\n    3 | int broken( {\nsrc/a.c:3:11: note: to match this '('",
    ),
    "clang, fatal": ("src/a.c:1:10: fatal error: 'x.h' file not found", "src/a.c:1:10: error: 'x.h' file not found"),
    "GNU as": (
        "src/x.S: Assembler messages:\nsrc/x.S:12: Error: unrecognized opcode `foo'",
        "src/x.S: Assembler messages:\nsrc/x.S:12:1: error: unrecognized opcode `foo'",
    ),
    "a user's tool without columns": ("a.txt:3: error: bad thing", "a.txt:3:1: error: bad thing"),
    "lld, undefined": (
        "ld.lld: error: undefined symbol: missing\n"
        ">>> referenced by a.c:7 (src/a.c:7)\n"
        ">>>               obj/a.c.o:(main_fn)\n"
        ">>> referenced by b.c\n"
        ">>>               obj/b.c.o:(other)\n"
        ">>> referenced by obj/a.c.o:(.data+0x0)\n"
        ">>> referenced 3 more times\n"
        ">>> did you mean: missin",
        "src/a.c:7:1: error: undefined symbol: missing, referenced in main_fn\n"
        "src/b.c:1:1: error: undefined symbol: missing, referenced in other\n"
        "src/a.c:1:1: error: undefined symbol: missing, referenced in .data+0x0\n"
        ">>> referenced 3 more times\n"
        ">>> did you mean: missin",
    ),
    "lld, an object that nobody compiled": (
        "ld.lld: error: undefined symbol: missing\n>>> referenced by obj/alien.o:(main_fn)",
        "deploy.toml:1:1: error: undefined symbol: missing, referenced in main_fn",
    ),
    "lld, duplicate": (
        "ld.lld: error: duplicate symbol: dup\n"
        ">>> defined at a.c:3 (src/a.c:3)\n"
        ">>>            obj/a.c.o:(dup)\n"
        ">>> defined at b.c\n"
        ">>>            obj/b.c.o:(.text.dup+0x0)",
        "src/a.c:3:1: error: duplicate symbol: dup\nsrc/b.c:1:1: error: duplicate symbol: dup",
    ),
    "lld, script": ("ld.lld: error: app.ld:5: unexpected EOF", "app.ld:5:1: error: unexpected EOF"),
    "lld, memory": (
        "ld.lld: error: section '.text' will not fit in region 'iram': overflowed by 96 bytes",
        "app.ld:1:1: error: section '.text' will not fit in region 'iram': overflowed by 96 bytes",
    ),
    "zig's driver": ('error: unknown clang option: "-fx"', 'deploy.toml:1:1: error: unknown clang option: "-fx"'),
    "gcc's driver": (
        "riscv64-unknown-elf-gcc: error: unrecognized command-line option '-fx'",
        "deploy.toml:1:1: error: unrecognized command-line option '-fx'",
    ),
    "GNU ld, undefined": (
        f"{LD} obj/a.c.o:./src/a.c:5: undefined reference to `missing'\n"
        f"{LD} obj/a.c.o: in function `main_fn':\n"
        "./src/a.c:6: undefined reference to `missing'\n"
        f"{LD} ./src/a.c:7: undefined reference to `also_missing'\n"
        f"{LD} ./src/a.c:7: undefined reference to `also_missing'\n"
        "collect2: error: ld returned 1 exit status",
        "src/a.c:5:1: error: undefined reference to `missing'\n"
        "src/a.c:6:1: error: undefined reference to `missing' in main_fn\n"
        "src/a.c:7:1: error: undefined reference to `also_missing' in main_fn",
    ),
    "GNU ld, no debug information": (
        f"{LD} obj/a.c.o:(.sdata+0x4): undefined reference to `missing'\n"
        f"{LD} obj/b.c.o: in function `other':\n"
        "b.c:(.text.other+0xa): undefined reference to `missing'\n"
        f"{LD} b.c:(.text.other+0x14): undefined reference to `gone'",
        "src/a.c:1:1: error: undefined reference to `missing'\n"
        "src/b.c:1:1: error: undefined reference to `missing' in other\n"
        "src/b.c:1:1: error: undefined reference to `gone' in other",
    ),
    "GNU ld, multiple": (
        f"{LD} obj/b.c.o: in function `dup':\n"
        "./src/b.c:1: multiple definition of `dup'; obj/a.c.o:./src/a.c:3: first defined here\n"
        f"{LD} obj/b.c.o:./src/b.c:2: multiple definition of `data'; obj/a.c.o:./src/a.c:4: first defined here",
        "src/b.c:1:1: error: multiple definition of `dup'\n"
        "src/a.c:3:1: note: first defined here\n"
        "src/b.c:2:1: error: multiple definition of `data'\n"
        "src/a.c:4:1: note: first defined here",
    ),
    "GNU ld, script": (f"{LD}bad.ld:0: syntax error", "bad.ld:1:1: error: syntax error"),
    "GNU ld, memory": (
        f"{LD} region `ram' overflowed by 100 bytes",
        "app.ld:1:1: error: region `ram' overflowed by 100 bytes",
    ),
    "GNU ld, library": ("ld: cannot find -lfoo", "deploy.toml:1:1: error: cannot find -lfoo"),
    "GNU ld, warning": (f"{LD} warning: a.elf has a LOAD segment", f"{LD} warning: a.elf has a LOAD segment"),
    "collect2 alone": ("collect2: error: ld terminated", "deploy.toml:1:1: error: ld terminated"),
}


@pytest.mark.parametrize("name", CASES)
def test_each_form(name: str) -> None:
    said, wanted = CASES[name]
    assert plain(said.splitlines(), ORIGIN) == wanted.splitlines()


@pytest.mark.parametrize("name", CASES)
def test_vs_code_reads_every_error(name: str) -> None:
    """Each error line gives a file of the project, a line and a column; and rewriting twice changes nothing."""
    lines = plain(CASES[name][0].splitlines(), ORIGIN)
    errors = [line for line in lines if "error: " in line]
    for line in errors:
        found = GCC.match(line)
        assert is_error(line) and found is not None
        assert found[1] in ("src/a.c", "src/b.c", "src/x.S", "app.ld", "bad.ld", "a.txt", "deploy.toml")
        assert found[4] == "error"
    assert plain(lines, ORIGIN) == lines
    assert first_error(lines) == (tuple(errors[0].split(": error: ", 1)) if errors else ("", ""))


@given(st.lists(st.text(max_size=60), max_size=8))
def test_what_is_not_understood_passes(lines: list[str]) -> None:
    """Any text at all: no line without an error marker is lost or changed, and nothing raises."""
    kept = [line for line in lines if not re.search(r"(?i)error|ld|>>>|undefined|function", line)]
    out = plain(lines, ORIGIN)
    assert [line for line in out if line in kept] == kept


@pytest.mark.parametrize(
    ("where", "category", "stage", "line"),
    [
        ("deploy.toml", FailureCategory.TOOLCHAIN_MISSING, None, "deploy.toml:1:1: error: m"),
        ("deploy.toml:3:4", FailureCategory.CONFIG_ERROR, None, "deploy.toml:3:4: error: m"),
        ("partitions.csv:3", FailureCategory.CONFIG_ERROR, None, "partitions.csv:3:1: error: m"),
        ("assets", FailureCategory.ACTION_FAILED, Stage.COMPILE, "deploy.toml:1:1: error: assets: m"),
        (
            "device bench on virtual:",
            FailureCategory.SYNC_FAILED,
            Stage.VERIFY_FLASH,
            "device bench on virtual:: error: m",
        ),
        ("", FailureCategory.UNKNOWN, None, "error: m"),
    ],
)
def test_failures_get_a_place(where: str, category: FailureCategory, stage: Stage | None, line: str) -> None:
    assert line_of(fail(category, stage=stage, where=where, message="m")) == line
