"""What no depfile says: a file that only `__has_include` asked for, and what the assembler reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.formats.c_source import hidden, places, quoted
from tests.unit.engine_space import EngineSpace
from tests.unit.test_engine_links import ELF, assert_right, declare, generator


@pytest.fixture
def space(tmp_path: Path) -> EngineSpace:
    return EngineSpace(tmp_path / "p").sample()


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ('#if __has_include("a.h")\n', ("a.h",)),
        ("#if defined X && __has_include ( <sys/a.h> ) || __has_include_next(<b.h>)\n", ("sys/a.h", "b.h")),
        ('#if __has_embed("data.bin" limit(4))\n', ("data.bin",)),
        ('# define CONFIG "my.h"\n#if __has_include(CONFIG)\n', ("my.h",)),
        ("#define CONFIG <my.h>\n#if __has_include(CONFIG)\n", ("my.h",)),
        ("#if __has_include(ELSEWHERE)\n", ()),
        ("int __has_include_;\n", ()),
    ],
)
def test_asked(text: str, asked: tuple[str, ...]) -> None:
    assert hidden(text) == (asked, False)


def test_between_quotes() -> None:
    text = '__asm__(".incbin \\"data.bin\\"\\n");\nINCBIN(x, "more.bin")\n'
    assert hidden(text).assembled
    assert {"data.bin", "more.bin"} <= set(quoted(text))


def test_places() -> None:
    assert list(places("a.h", ("src", ""), (".", "inc"))) == ["src/a.h", "a.h", "a.h", "inc/a.h"]
    assert list(places("/a.h", ("src",), ("inc",))) == ["/a.h"]


@pytest.mark.parametrize("where", ["src/opt.h", "first/opt.h", "inc/opt.h"])
@pytest.mark.parametrize("asks", ["src/a.c", "inc/a.h"])
def test_has_include_of_a_file_that_comes_and_goes(space: EngineSpace, where: str, asks: str) -> None:
    space.write(asks, 'int h = __has_include("opt.h");\n')
    space.build()
    if asks == "inc/a.h" and where == "src/opt.h":
        return  # not where that header looks
    users = {"src/a.c", "src/b.c"} if asks == "inc/a.h" else {"src/a.c"}
    space.write(where, "int opt;\n")
    assert set(space.build().ran) == {*users, ELF}
    assert_right(space)
    (space.root / where).unlink()
    assert space.build().ran == []  # both are in the cache
    assert_right(space)


def test_what_the_assembler_reads(space: EngineSpace) -> None:
    space.write("src/a.c", '__asm__(".incbin \\"data/a.bin\\"\\n.include \\"more.inc\\"\\n");\n')
    space.write("src/c.c", '#include "incbin.h"\nINCBIN(x, "data/c.bin") which is .incbin "data/c.bin"\n')
    space.write("inc/incbin.h", '#define INCBIN(name, file) __asm__(".incbin \\"" file "\\"")\n')
    space.write("data/a.bin", "one")
    space.write("data/c.bin", "one")
    space.write("inc/more.inc", '.incbin "data/inner.bin"\n')
    space.write("data/inner.bin", "one")
    assert space.build().ok
    assert_right(space)
    for path, user in (("a.bin", "src/a.c"), ("c.bin", "src/c.c"), ("inner.bin", "src/a.c")):
        space.write(f"data/{path}", "two")
        assert set(space.build().ran) == {user, ELF}, path
        assert_right(space)
    space.write("more.inc", "nothing\n")
    assert set(space.build().ran) == {"src/a.c", ELF}, "found before inc/more.inc"
    assert_right(space)


def test_an_embedded_product_comes_first(space: EngineSpace) -> None:
    space.write("gen/seed", "one\n")
    space.write("src/a.c", '__asm__(".incbin \\"build/gen/data.bin\\"");\n')
    declare(space, generator("build/gen/data.bin"))
    assert space.build().ok
    for number in range(2):
        space.write("gen/seed", f"content {number}\n")
        assert set(space.build().ran) == {"gen/seed", "src/a.c", ELF}
        assert_right(space)
