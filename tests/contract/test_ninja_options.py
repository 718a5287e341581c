"""One option of a header that everybody includes: which compiles run, and are the objects those of a clean build?

The other build is ninja's own, in another directory, with every object made anew.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cache.stamps import next_tick
from pipeline.engine.explain import moved
from pipeline.engine.forecast import forecast
from pipeline.run.build import Build, load_build
from pipeline.run.options import Options
from tests.unit.ninja_space import DEPLOY, NINJA, NinjaSpace

CC = shutil.which("gcc") or ""
CXX = shutil.which("g++") or ""
pytestmark = [
    pytest.mark.skipif(not CC or not CXX, reason="no compilers of this machine's own are installed"),
    pytest.mark.skipif(not NINJA, reason="ninja is not installed"),
]

RULES = """
rule cc
  command = %(cc)s -g -O1 -ffile-prefix-map=%(root)s=. -I. -I%(root)s/inc $flags -MD -MF $out.d -o $out -c $in
  depfile = $out.d
  deps = gcc
rule gen
  command = cp $in $out
  restat = 1
"""
HEADER = """\
/* generated */
#pragma once
#define CONFIG_RATE 100
#define CONFIG_NAME "board"
#define CONFIG_OLD_RATE CONFIG_RATE
#define CONFIG_UART_NUM_0 7
"""
SOURCES = {
    "plain.c": "int plain(void) { return 1; }\n",
    "rate.c": "int rate(void) { return CONFIG_RATE; }\n",
    "old.c": "int old(void) { return CONFIG_OLD_RATE; }\n",
    "absent.c": "#ifdef CONFIG_EXTRA\nint extra;\n#endif\nint absent(void) { return 2; }\n",
    "zero.c": "#if CONFIG_EXTRA_TOO\nint extra;\n#endif\nint zero(void) { return 2; }\n",
    "other.c": '#include "other.h"\nint other(void) { return OTHER; }\n',
    "pasted.c": "#define UART(x) CONFIG_UART_NUM_##x\nint pasted(void) { return UART(0); }\n",
    "deep.c": (
        "#define CAT2(a, b) a##b\n#define CAT(a, b) CAT2(a, b)\n#define HEAD CONFIG_UART\nint deep(void) {\n"
        "  return CAT(HEAD, _NUM_0);\n}\n"
    ),
    "text.c": "#define STR2(x) #x\n#define STR(x) STR2(x)\nconst char *text = STR(CONFIG_NAME);\n",
    "comment.c": "// CONFIG_RATE is not used here\n/* nor CONFIG_NAME */\nint comment;\n",
    "computed.c": "#define RATE_H CONFIG_HEADER\n#ifdef CONFIG_HEADER\n#include RATE_H\n#endif\nint computed;\n",
    "greet.cpp": 'extern "C" int greet() { return sizeof(CONFIG_NAME); }\n',
    "asm.S": "  .data\n  .long CONFIG_RATE  # it's a rate\n",
    "still.S": "  .data\n  .long 1\n",
}
INC = {"inc/other.h": "#define OTHER (CONFIG_RATE + 1)\n"}


class OptionTree(NinjaSpace):
    """A project whose sources all include sdkconfig.h, which is generated."""

    def __init__(
        self,
        root: Path,
        cache: Path,
        sources: dict[str, str] = SOURCES,
        flags: str = "",
        section: str = "",
        *,
        generated: bool = True,
    ) -> None:
        super().__init__(root, cache, DEPLOY.replace("[ninja]", section or "[ninja]"))
        for name, text in {**sources, **INC}.items():
            self.write(name, text)
        lines = [RULES % {"cc": CC, "root": root}]
        if generated:
            lines.append(f"build sdkconfig.h: gen {root}/options\n")
        self.header = "options" if generated else "out/sdkconfig.h"
        for name in sources:
            if not name.endswith(".h"):
                lines.append(f"build {name}.o: cc {root}/{name} || sdkconfig.h\n")
                lines.append(f"  flags = -include sdkconfig.h {flags}\n")
        self.write("out/build.ninja", "".join(lines))
        self.options(HEADER)

    def options(self, text: str) -> None:
        next_tick()
        self.write(self.header, text)
        next_tick()

    def compiled(self) -> list[str]:
        """The sources that were compiled."""
        self.ours()
        return sorted(name[4:-2] for name, how in self.how.items() if how == "executed" and name.endswith(".o"))

    def objects(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.out.glob("*.o")}

    def is_as_clean(self, other: NinjaSpace) -> None:
        """Are the objects those that ninja makes from nothing, elsewhere?"""
        for path in (*other.out.glob("*.o"), other.out / "sdkconfig.h"):
            path.unlink(missing_ok=True)
        for path in self.root.rglob("*"):
            if path.suffix in (".c", ".cpp", ".S", ".h") or path.name == "options":
                other.write(path.relative_to(self.root).as_posix(), path.read_text())
        other.ninja()
        mine = self.objects()
        theirs = {path.name: path.read_bytes() for path in other.out.glob("*.o")}
        assert {name for name in theirs if mine[name] != theirs[name]} == set()

    def left_for_ninja(self) -> list[str]:
        words = [NINJA, "-C", str(self.out), "-n"]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        return [line for line in done.stdout.splitlines() if line.startswith("[")]

    def reasons(self) -> dict[str, str]:
        """What `explain` says about each object that would be made: name -> why."""
        build = load_build(Options(), self.root)
        assert isinstance(build, Build), build
        try:
            found = forecast(build.engine.workspace)
        finally:
            build.close()
        return {one.action.name: moved(one.why) for one in found if one.why is not None}


@pytest.fixture
def tree(tmp_path: Path) -> Callable[..., OptionTree]:
    def make(name: str = "one", sources: dict[str, str] = SOURCES, **words: Any) -> OptionTree:
        return OptionTree(tmp_path / name, tmp_path / "cache", sources, **words)

    return make


EDITS: tuple[tuple[str, str, list[str]], ...] = (
    ("CONFIG_RATE 100", "CONFIG_RATE 200", ["asm.S", "old.c", "other.c", "rate.c"]),
    ('"board"', '"module"', ["greet.cpp", "text.c"]),
    ("CONFIG_UART_NUM_0 7", "CONFIG_UART_NUM_0 8", ["deep.c", "pasted.c"]),
    ("", "#define CONFIG_EXTRA 1\n", ["absent.c"]),
    ("", "#define CONFIG_EXTRA_TOO 1\n", ["zero.c"]),
    ("", '#define CONFIG_HEADER "other.h"\n', ["computed.c"]),
    ("", "#define CONFIG_NOBODY 1\n", []),
    ("/* generated */", "/* generated again */\n", []),
    ("#define CONFIG_UART_NUM_0 8", "#undef CONFIG_UART_NUM_0\n#define CONFIG_UART_NUM_0 8", ["deep.c", "pasted.c"]),
)


def test_an_edit_of_an_option_compiles_its_users_alone(tree: Callable[..., OptionTree]) -> None:
    one, header = tree(), HEADER
    assert one.compiled() == sorted(SOURCES)
    for old, new, users in EDITS:
        header = header.replace(old, new) if old else header + new
        one.options(header)
        assert one.compiled() == users, new
        assert one.left_for_ninja() == [], new
    one.is_as_clean(tree("two"))
    assert one.compiled() == []
    one.options(HEADER)
    assert one.compiled() == []
    assert one.left_for_ninja() == []


SMALL = {name: SOURCES[name] for name in ("plain.c", "rate.c")}
NEW_RATE = HEADER.replace("CONFIG_RATE 100", "CONFIG_RATE 200")


def test_another_checkout_with_other_options_gets_what_does_not_use_them(tree: Callable[..., OptionTree]) -> None:
    one, two = tree(sources=SMALL), tree("two", SMALL)
    one.ours()
    two.options(NEW_RATE)
    assert two.compiled() == ["rate.c"]
    assert two.left_for_ninja() == []
    one.options(NEW_RATE)
    assert one.compiled() == []


@pytest.mark.parametrize(
    ("flags", "header", "why"),
    [
        ("-g3", NEW_RATE, "as a whole: debug information: -g3"),
        ("-flto", NEW_RATE, "as a whole: link-time optimisation: -flto"),
        ("-std=c90", NEW_RATE, "as a whole: a language without // comments: -std=c90"),
        ("-finput-charset=UTF-8", NEW_RATE, "as a whole: its words: -finput-charset=UTF-8"),
        ("", HEADER + "int more;\n", "as a whole: it holds more than definitions: int more;"),
        ("", HEADER + "#if CONFIG_RATE\n#endif\n", "as a whole: it holds more than definitions: #if CONFIG_RATE"),
    ],
)
def test_in_doubt_the_header_counts_as_a_whole(
    tree: Callable[..., OptionTree], flags: str, header: str, why: str
) -> None:
    one, two = (tree(name, SMALL, flags=flags, generated=False) for name in ("one", "two"))
    one.ours()
    one.options(header)
    assert why in one.reasons()["out/plain.c.o"]
    assert one.compiled() == ["plain.c", "rate.c"]
    if flags != "-flto":  # whose objects hold a random number
        one.is_as_clean(two)


def test_a_list_of_headers_and_none(tree: Callable[..., OptionTree]) -> None:
    one = tree(sources=SMALL, section="[ninja]\noption_headers = []")
    one.ours()
    one.options(NEW_RATE)
    assert one.compiled() == ["plain.c", "rate.c"]
    two = tree("two", SMALL, section='[ninja]\noption_headers = ["out/sdk*.h"]')
    two.ours()
    two.options(HEADER)
    assert two.compiled() == []
    two.options(HEADER.replace("CONFIG_RATE 100", "CONFIG_RATE 300"))
    assert two.compiled() == ["rate.c"]


def test_the_option_is_named_and_what_is_lost_costs_work_alone(tree: Callable[..., OptionTree]) -> None:
    one = tree(sources=SMALL, generated=False)
    one.ours()
    one.options(NEW_RATE)
    assert one.reasons()["out/rate.c.o"] == "option CONFIG_RATE was 100, is 200"
    one.options(HEADER.replace("#define CONFIG_RATE 100\n", ""))
    assert one.reasons()["out/rate.c.o"] == "option CONFIG_RATE was 100, is not defined"
    (state,) = (one.root / ".deploy").rglob("options.v1.state")
    data = state.read_bytes()
    for damaged in (b"", data[: len(data) // 2], data[:-1] + bytes([data[-1] ^ 1])):
        state.write_bytes(damaged)
        rate = str(1000 + len(damaged))
        one.options(HEADER.replace("CONFIG_RATE 100", f"CONFIG_RATE {rate}"))
        assert one.compiled() == ["rate.c"]


def test_a_header_that_is_also_read_as_bytes_counts_as_a_whole(tree: Callable[..., OptionTree]) -> None:
    raw = {**SMALL, "raw.S": '  .data\n  .incbin "sdkconfig.h"\n'}
    one, two = tree(sources=raw), tree("two", raw)
    one.ours()
    one.options(HEADER + "#define CONFIG_NOBODY 1\n")
    assert one.compiled() == ["raw.S"]
    one.is_as_clean(two)


def test_ninja_and_we_take_turns_over_edits_of_options(tree: Callable[..., OptionTree]) -> None:
    one = tree(sources=SMALL)
    one.ninja()
    assert one.compiled() == []
    one.options(NEW_RATE)
    assert one.compiled() == ["rate.c"]
    one.options(HEADER)
    one.ninja()
    assert one.compiled() == []
    one.options(HEADER + "#define CONFIG_NOBODY 1\n")
    assert one.compiled() == []
    assert one.left_for_ninja() == []
