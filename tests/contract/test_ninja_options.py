"""One option of a header that everybody includes: which compiles run, and are the objects those of a clean build?

The other build is ninja's own, in another directory, with every object made anew.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

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
        self, root: Path, cache: Path, sources: dict[str, str] = SOURCES, flags: str = "", section: str = ""
    ) -> None:
        super().__init__(root, cache, DEPLOY.replace("[cache]", f"{section}\n[cache]"))
        for name, text in {**sources, **INC}.items():
            self.write(name, text)
        lines = [RULES % {"cc": CC, "root": root}, f"build sdkconfig.h: gen {root}/options\n"]
        for name in sources:
            if not name.endswith(".h"):
                lines.append(f"build {name}.o: cc {root}/{name} || sdkconfig.h\n")
                lines.append(f"  flags = -include sdkconfig.h {flags}\n")
        self.write("out/build.ninja", "".join(lines))
        self.options(HEADER)

    def options(self, text: str) -> None:
        next_tick()
        self.write("options", text)
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
            is_source = path.suffix in (".c", ".cpp", ".S", ".h") or path.name == "options"
            if is_source and self.out not in path.parents:
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
    def make(name: str = "one", sources: dict[str, str] = SOURCES, **words: str) -> OptionTree:
        return OptionTree(tmp_path / name, tmp_path / "cache", sources, **words)

    return make


@pytest.mark.parametrize(
    ("old", "new", "users"),
    [
        ("CONFIG_RATE 100", "CONFIG_RATE 200", ["asm.S", "old.c", "other.c", "rate.c"]),
        ('"board"', '"module"', ["greet.cpp", "text.c"]),
        ("CONFIG_UART_NUM_0 7", "CONFIG_UART_NUM_0 8", ["deep.c", "pasted.c"]),
        ("", "#define CONFIG_EXTRA 1\n", ["absent.c"]),
        ("", "#define CONFIG_EXTRA_TOO 1\n", ["zero.c"]),
        ("", '#define CONFIG_HEADER "other.h"\n', ["computed.c"]),
        ("", "#define CONFIG_NOBODY 1\n", []),
        ("/* generated */", "/* generated again */\n", []),
        (
            "#define CONFIG_UART_NUM_0 7",
            "#undef CONFIG_UART_NUM_0\n#define CONFIG_UART_NUM_0 7",
            ["deep.c", "pasted.c"],
        ),
        ("", "int more;\n", sorted(SOURCES)),
    ],
)
def test_an_edit_of_an_option_compiles_its_users_alone(
    tree: Callable[..., OptionTree], old: str, new: str, users: list[str]
) -> None:
    sources = {name: text for name, text in SOURCES.items() if not (new == "int more;\n" and name.endswith(".S"))}
    users = [name for name in users if name in sources]
    one, two = tree(sources=sources), tree("two", sources)
    one.ours()
    one.options(HEADER.replace(old, new) if old else HEADER + new)
    assert one.compiled() == users
    assert one.left_for_ninja() == []
    one.is_as_clean(two)
    assert one.compiled() == []
    one.options(HEADER)
    assert one.compiled() == []
    assert one.left_for_ninja() == []
