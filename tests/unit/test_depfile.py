"""DepfileReader as clang and gcc write them (literal texts), and the files that would shadow a header."""

from __future__ import annotations

import re
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.formats import depfile, include_search
from pipeline.formats.depfile import DepfileReader, normalise, parse, shadows
from pipeline.formats.include_search import of_command


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        (
            "o/a.o: core/a.c core/a.h \\\n  /zig/lib/include/stdint.h\n",
            ("core/a.c", "core/a.h", "/zig/lib/include/stdint.h"),
        ),
        ("a.o: a.c \\\r\n b.h\r\n", ("a.c", "b.h")),
        ("a.o: with\\ space.h a\\#b.h c$$d.h back\\slash.h\n", ("with space.h", "a#b.h", "c$d.h", "back\\slash.h")),
        # As gcc 12 and zig's clang write `back\ sp.h`, `b\#h.h`, `tab<TAB>x.h`, and what only Unicode calls a space.
        ("a.o: a.c back\\\\\\ sp.h b\\\\#h.h tab\\\tx.h\n", ("a.c", "back\\ sp.h", "b\\#h.h", "tab\tx.h")),
        (
            "a.o: no\u00a0break.h line\u2028s.h v\x0bt.h \u3000.h\n",
            ("no\u00a0break.h", "line\u2028s.h", "v\x0bt.h", "\u3000.h"),
        ),
        ("a.o: -dash.h co:\\ lon.h tr:\n", ("-dash.h", "co: lon.h", "tr:")),
        ("a.o: a.c b.h\n\nb.h:\n", ("a.c", "b.h")),
        ("a.o a.d: a.c a.c\n", ("a.c",)),
        ("a.o : a.c\n", ("a.c",)),
        ("a.o:\n", ()),
    ],
)
def test_parse(text: str, paths: tuple[str, ...]) -> None:
    assert parse(text) == paths


@pytest.mark.parametrize("text", ["", "\n \n", "no rule here", "a.o: a.c\nsecond line", "a.o: a.c new\nline.h\n"])
def test_not_a_depfile(text: str) -> None:
    assert parse(text) is None


LINES = [
    "o/a.o: a.c",
    "o/b.o: b.c",
    "b.h",
    "c.h b.h",
    "sp\\ ace.h",
    "x:",
    "a$$b",
    "",
    " ",
    "\t",
    "n\u00a0b.h",
    "\r",
    "b.h\\",
]


@given(
    st.lists(st.lists(st.tuples(st.sampled_from(LINES), st.sampled_from([" \\\n", "\n", "\\\r\n", ""]))), max_size=4)
)
def test_many_are_read_as_each_alone(rules: list[list[tuple[str, str]]]) -> None:
    depfiles = DepfileReader()
    for pieces in rules:
        for first in ("o/a.o: a.c \\\n", "o/b.o b.d: b.h \\\n", "", "no rule \\\n"):
            text = first + "".join(map("".join, pieces))
            assert depfiles.parse(text) == parse(text), repr(text)


def test_what_many_name_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    prerequisites = depfile._prerequisites

    def counted(lines: str) -> tuple[str, ...] | None:
        read.append(lines)
        return prerequisites(lines)

    monkeypatch.setattr(depfile, "_prerequisites", counted)
    depfiles = DepfileReader()
    for n in range(5):
        assert depfiles.parse(f"o/{n}.o: {n}.c \\\n a.h \\\n b.h\n") == (f"{n}.c", "a.h", "b.h")
    assert len(read) == 1


names = st.text(
    st.characters(codec="utf-8", exclude_characters="\0\n\r") | st.sampled_from(" \t\\#$:"),
    min_size=1,
).filter(lambda name: not name.endswith("\\"))


@given(st.lists(names, unique=True))
def test_any_name_survives_escaping(paths: list[str]) -> None:
    # GCC doubles the backslashes before a space, and only those.
    blanks = [re.sub(r"(\\*)([ \t])", r"\1\1\\\2", path) for path in paths]
    written = [path.replace("$", "$$").replace("#", "\\#") for path in blanks]
    assert parse("out.o: " + " \\\n ".join(written) + "\n") == tuple(paths)


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("core/a.h", "core/a.h"),
        ("./core/a.h", "core/a.h"),
        ("././/a.h", "a.h"),
        ("/src/p/core/a.h", "core/a.h"),
        ("/src/project/a.h", "/src/project/a.h"),
        ("/opt/zig/lib/include/stdint.h", "{zig_dir}/lib/include/stdint.h"),
        (".venv/zig/lib/x.h", "{near_dir}/lib/x.h"),
        ("/src/p/.venv/zig/lib/x.h", "{near_dir}/lib/x.h"),
        ("../outside.h", "../outside.h"),
        ("/usr/include/stdio.h", "/usr/include/stdio.h"),
    ],
)
def test_normalise(path: str, wanted: str) -> None:
    assert normalise(path, "/src/p", {"{zig_dir}": "/opt/zig", "{near_dir}": "/src/p/.venv/zig"}) == wanted


def test_search_path_in_the_order_of_search() -> None:
    argv = ("zig", "cc", "-isystem", "sys", "-Ifirst/", "-I", "./second", "-iquote", "quoted", "-Ifirst", "-I.")
    assert of_command(argv).every == ("quoted", "first", "second", ".", "sys")


def test_shadows_of_a_header_found_on_the_search_path() -> None:
    found = shadows(["first", "second", "third"], ["src/a.c"], ["second/x/h.h"])
    # Earlier on the path, and beside each file that may include it with quotes; not where it comes later.
    assert found == ("first/x/h.h", "second/x/x/h.h", "src/x/h.h")


def test_shadows_of_the_compilers_own_header() -> None:
    assert shadows(["inc"], ["a.c"], ["{zig_dir}/lib/include/stdint.h"]) == ("inc/stdint.h", "stdint.h")


def test_a_header_found_beside_its_user_has_no_shadow() -> None:
    assert shadows([], ["src/a.c"], ["src/h.h"]) == ()


PIECES = (
    *(
        '#include "a.h"',
        "# include <b.h>\r",
        '  #include_next "a.h" // x',
        "%:include <c>",
        "??=import <d>",
        '#embed "e"',
    ),
    *("#include MACRO", "#include // no", '#define MACRO "m.h"', "int include;", "#incl", '#include "a b.h" int', ""),
    *(
        "/* #include <no> */",
        "/*",
        "*/",
        "#include \\",
        '"f.h"',
        "int x = 1; /* y */",
        "#\tinclude\t<g.h>",
        "\f#include <h>",
    ),
)


def test_the_lines_that_tell_tell_as_much_as_the_text() -> None:
    """Whatever stands between them; unless a macro is asked for, which stands in any line."""
    random = Random(5)
    told = 0
    for _ in range(4000):
        text = "\n".join(random.choices(PIECES, k=random.randint(1, 7)))
        said = include_search.said_lines(text)
        found = include_search.directives(text)
        if said:
            assert found.computed == include_search.directives(said).computed
            if not found.computed:
                told += 1
                assert found == include_search.directives(said), text
    assert told > 200
