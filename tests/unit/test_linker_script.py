"""Which files a linker script reads."""

from __future__ import annotations

from pipeline.formats.linker_script import library_path, named_files, places

SCRIPT = """
/* INCLUDE in/a/comment.ld
 */
INCLUDE memory.ld
INCLUDE "with space.ld"
ENTRY(start)
INPUT(a.o, sub/b.o -lgcc "c d.o")
GROUP ( -lc AS_NEEDED ( libm.a -l:exact.a ) )
STARTUP(crt0.o)
SECTIONS
{
    .text : { *(.literal .text) INCLUDE sections.ld }
    .input : { KEEP(*(.input)) }
}
MY_INPUT(not.o)
"""


def test_every_command_that_names_a_file() -> None:
    includes = ("memory.ld", "with space.ld", "sections.ld")
    files = ("a.o", "sub/b.o", "-lgcc", "c d.o", "-lc", "libm.a", "-l:exact.a", "crt0.o")
    assert named_files(SCRIPT) == includes + files
    assert named_files("SECTIONS { .text : { *(.text) } }") == ()


def test_where_a_name_is_looked_for() -> None:
    search = library_path(["zig", "cc", "-L", "ld", "-L./more/", "-Lld", "-T", "app.ld"])
    assert search == ("ld", "more")
    assert list(places("a.ld", search)) == ["a.ld", "ld/a.ld", "more/a.ld"]
    assert list(places("-lx", search)) == ["ld/libx.a", "more/libx.a"]
    assert list(places("-l:x.a", search)) == ["ld/x.a", "more/x.a"]
    assert list(places("/abs.ld", search)) == ["/abs.ld"]
