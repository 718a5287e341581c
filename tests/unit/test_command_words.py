"""Response files as compilers read them, and the paths that words may hold."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.formats.command_words import expand, joined, parts, shown, split


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("-O2 -Iinc\n-DX\t-DY", ("-O2", "-Iinc", "-DX", "-DY")),
        ('\'a b\' "c d" e\\ f "g\\"h" \'\'', ("a b", "c d", "e f", 'g"h', "")),
        ("-DN='\"x\"'", ('-DN="x"',)),
        ("a\\", ("a\\",)),
        ("'open", ("open",)),
        (" \n", ()),
    ],
)
def test_split(text: str, words: tuple[str, ...]) -> None:
    assert split(text) == words


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"))))
def test_any_words_survive_a_response_file(words: list[str]) -> None:
    assert split(joined(words)) == tuple(words)


def test_response_files_within_response_files() -> None:
    files = {"a.rsp": "-Ia @sub/b.rsp @missing", "sub/b.rsp": "-Ib", "self.rsp": "-Is @self.rsp"}
    opened: list[str] = []
    assert expand(["-O", "@a.rsp", "@"], files.get, opened) == ("-O", "-Ia", "-Ib", "@missing", "@")
    assert opened == ["a.rsp", "sub/b.rsp"]
    assert set(expand(["@self.rsp"], files.get)) == {"-Is", "@self.rsp"}


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("lib/x.a", {"lib/x.a"}),
        ("-Tld/app.ld", {"ld/app.ld"}),
        ("-T=ld/app.ld", {"ld/app.ld"}),
        ("-Wl,-T,ld/app.ld", {"ld/app.ld"}),
        ("-Wl,-Tld/app.ld", {"ld/app.ld"}),
        ("-Wl,--version-script=v.map", {"v.map"}),
        ("--specs=my.specs", {"my.specs"}),
        ("-specs=my.specs", {"my.specs"}),
        ("-fplugin-arg-p-file=conf,a=b.txt", {"conf,a=b.txt"}),
        ("--template=tools/t.txt", {"tools/t.txt"}),
        ("@words.rsp", {"words.rsp", "@words.rsp"}),
        ("-Wl,@words.rsp", {"words.rsp"}),
        ("-isystemsys", {"sys"}),
        ("-includecfg.h", {"cfg.h"}),
        ('-DCONFIG="inc/c.h"', {"inc/c.h"}),
        ("sh tools/x.sh < in.txt && cat 'a.b'", {"tools/x.sh", "in.txt", "a.b"}),
        ("gen.py", {"gen.py"}),
        ("src:dst", {"src", "dst"}),
    ],
)
def test_paths_that_a_word_holds(word: str, wanted: set[str]) -> None:
    assert wanted <= set(parts(word))


def test_what_is_written_and_options_are_no_paths() -> None:
    assert "log.txt" not in parts("tool > log.txt 2>>err.txt") and "err.txt" not in parts("tool > log.txt 2>>err.txt")
    assert parts("-Os") == () and parts("-") == () and parts(".") == ()


def test_a_long_command_is_shown_by_its_beginning() -> None:
    assert shown(["cc", "a b"], shlex.join) == "cc 'a b'"
    text = shown(["ld", *(f"build/obj/unit{n}.o" for n in range(50_000))], shlex.join)
    assert len(text) < 700 and text.endswith("more words)") and text.startswith("ld build/obj/unit0.o")
    assert len(shown(["x" * 10_000_000, "y"], shlex.join)) < 700
