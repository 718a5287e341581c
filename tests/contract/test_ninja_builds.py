"""Builds of ninja with a real compiler: what is cached, cut off and restored, and what must serve no other tree."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest

from cache.fileclock import filesystem_now_ns
from cache.stamps import next_tick
from pipeline.engine.engine import Engine
from pipeline.errors import DeployError
from pipeline.run.build import Build, load_build
from pipeline.run.options import Options
from tests.serving import eventually
from tests.unit.ninja_space import DEPLOY, NINJA, NinjaSpace

CC = shutil.which("cc") or ""
pytestmark = pytest.mark.skipif(not CC, reason="no C compiler of this machine's own is installed")

MANIFEST = """
cflags = -I. -I%(root)s/inc -I%(root)s/late %(flags)s
rule cc
  command = %(cc)s $cflags -MD -MF $out.d -MT $out -o $out -c $in
  depfile = $out.d
  deps = gcc
rule ar
  command = rm -f $out && ar qc $out $in && ranlib $out
rule ld
  command = %(cc)s $in -o $out
rule gen
  command = cp $in $out
  restat = 1
build gen.h: gen %(root)s/gen.in
build main.o: cc %(root)s/main.c || gen.h
build util.o: cc %(root)s/util.c || gen.h
build libutil.a: ar util.o
build app: ld main.o libutil.a
default app
"""
FILES = {
    "main.c": '#include "util.h"\n#include "gen.h"\nint main(void) { return util() + GEN - 3; }\n',
    "util.c": '#include "util.h"\nint util(void) { return UTIL; }\n',
    "inc/util.h": "#define UTIL 1\nint util(void);\n",
    "late/unused.h": "",
    "gen.in": "#define GEN 2\n",
}


class Tree(NinjaSpace):
    """A project of two sources, a library and a generated header."""

    def __init__(self, root: Path, cache: Path, flags: str = "", deploy: str = DEPLOY, **files: str) -> None:
        super().__init__(root, cache, deploy)
        for name, text in {
            **FILES,
            **{name.replace("__", "/").replace("_", "."): body for name, body in files.items()},
        }.items():
            self.write(name, text)
        self.manifest(flags)

    def manifest(self, flags: str = "", more: str = "") -> None:
        self.write("out/build.ninja", MANIFEST % {"root": self.root, "flags": flags, "cc": CC} + more)

    def build(self) -> dict[str, list[str]]:
        """How -> products, as far as they are those of statements."""
        self.ours()
        found: dict[str, list[str]] = {}
        for name, how in self.how.items():
            found.setdefault(how, []).append(name.removeprefix("out/"))
        return {how: sorted(names) for how, names in found.items()}

    def nothing_for_ninja(self) -> bool:
        done = subprocess.run(
            [NINJA, "-C", str(self.out), "-n", "-d", "explain"], capture_output=True, text=True, check=True
        )
        return "no work to do" in done.stdout

    def failure_to_load(self) -> str:
        """What is said about a build directory that cannot be read."""
        build = load_build(Options(), self.root)
        assert isinstance(build, Build)
        with pytest.raises(DeployError) as caught:
            _ = build.toolchain
        build.close()
        return f"{caught.value.failure.line()}\n{caught.value.failure.hint}"

    def read(self, name: str) -> bytes:
        return (self.out / name).read_bytes()

    def run(self) -> int:
        return subprocess.run([self.out / "app"], check=False).returncode


@pytest.fixture
def tree(tmp_path: Path) -> Callable[..., Tree]:
    def make(name: str = "one", flags: str = "", **files: str) -> Tree:
        return Tree(tmp_path / name, tmp_path / "cache", flags, **files)

    return make


def test_a_build_a_second_one_and_ninja_after_it(tree: Callable[..., Tree]) -> None:
    one = tree()
    assert one.build() == {"executed": ["app", "gen.h", "libutil.a", "main.o", "util.o"]}
    assert one.run() == 0
    assert one.build() == {}
    assert one.nothing_for_ninja()


def test_what_ninja_made_is_taken_over_and_the_other_way_round(tree: Callable[..., Tree]) -> None:
    one = tree()
    one.ninja()
    assert "executed" not in one.build()
    assert one.build() == {}
    one.write("util.c", FILES["util.c"].replace("UTIL", "UTIL + 0"))
    one.ninja()
    assert "executed" not in one.build()
    one.write("util.c", FILES["util.c"].replace("UTIL", "UTIL + 1"))
    assert set(one.build()["executed"]) == {"util.o", "libutil.a", "app"}
    assert one.nothing_for_ninja()


def _edited(one: Tree, name: str, old: str, new: str) -> None:
    """With the mtime that the file has: ninja does not see it."""
    then = (one.root / name).stat().st_mtime_ns
    one.write(name, FILES[name].replace(old, new))
    os.utime(one.root / name, ns=(then, then))


def _moved(one: Tree, name: str, old: str, new: str) -> None:
    """A file that was there before ninja ran is moved into its place."""
    (one.root / "aside" / name).replace(one.root / name)


def _linked(one: Tree, name: str, old: str, new: str) -> None:
    """The same as a link."""
    (one.root / name).unlink()
    (one.root / name).symlink_to(one.root / "aside" / name)


def _renamed(one: Tree, name: str, old: str, new: str) -> None:
    """Its directory gives way to another one."""
    directory = one.root / Path(name).parent
    directory.rename(f"{directory}.before")
    (one.root / "aside" / name).parent.rename(directory)


@pytest.mark.parametrize(
    ("edit", "name", "old", "new", "status"),
    [
        (_edited, "util.c", "UTIL", "UTIL + 2", 2),
        (_edited, "inc/util.h", "UTIL 1", "UTIL 3", 2),
        (_edited, "gen.in", "GEN 2", "GEN 4", 2),
        (_moved, "util.c", "UTIL", "UTIL + 2", 2),
        (_linked, "util.c", "UTIL", "UTIL + 2", 2),
        (_linked, "inc/util.h", "UTIL 1", "UTIL 3", 2),
        (_renamed, "inc/util.h", "UTIL 1", "UTIL 3", 2),
    ],
)
@pytest.mark.parametrize("before", ["ninja", "both"])
def test_what_became_another_file_after_ninja_ran_is_not_taken_over(
    tree: Callable[..., Tree],
    edit: Callable[[Tree, str, str, str], None],
    name: str,
    old: str,
    new: str,
    status: int,
    before: str,
) -> None:
    one = tree()
    one.write(f"aside/{name}", FILES[name].replace(old, new))
    if before == "both":
        one.build()
        one.write("util.c", FILES["util.c"].replace("UTIL", "UTIL + 1 - 1"))
        one.write("gen.in", f"{FILES['gen.in']}// again\n")
    next_tick()
    one.ninja()
    next_tick()
    edit(one, name, old, new)
    assert one.build()["executed"]
    assert one.run() == status
    assert one.nothing_for_ninja()


HIDDEN = (
    '#include "util.h"\n#if __has_include("extra.h")\n#define MORE 4\n#else\n#define MORE 0\n#endif\n'
    '__asm__(".section .rodata\\nblob: .incbin \\"blob.bin\\"\\n.text\\n");\nextern const char blob[];\n'
    "int util(void) { return UTIL + MORE + blob[0] - 48; }\n"
)


@pytest.mark.parametrize("when", ["before we look", "after we took over"])
@pytest.mark.parametrize(
    ("name", "text", "status"),
    [
        ("out/util.h", "#define UTIL 3\nint util(void);\n", 2),
        ("inc/extra.h", "", 4),
        ("inc/blob.bin", "2", 2),
        ("out/blob.bin", "3", 3),
    ],
)
def test_what_ninja_does_not_know_of_counts_for_what_it_made(
    tree: Callable[..., Tree], name: str, text: str, status: int, when: str
) -> None:
    """A file that comes to be found first, one that is only asked about, one that the assembler reads."""
    one = tree(util_c=HIDDEN, inc__blob_bin="0")
    next_tick()
    one.ninja()
    assert one.run() == 0
    if when == "after we took over":
        assert "executed" not in one.build()
        assert one.build() == {}
    next_tick()
    one.write(name, text)
    assert "util.o" in one.build()["executed"]
    assert one.run() == status
    assert one.build() == {}
    assert one.nothing_for_ninja()


def test_a_file_that_only_was_asked_about_and_went_after_ninja_ran_counts(tree: Callable[..., Tree]) -> None:
    one = tree(util_c=HIDDEN, inc__blob_bin="0", inc__extra_h="")
    one.build()
    one.write("util.c", f"{HIDDEN}// again\n")
    next_tick()
    one.ninja()
    assert one.run() == 4
    next_tick()
    (one.root / "inc/extra.h").unlink()
    assert "util.o" in one.build()["executed"]
    assert one.run() == 0
    assert one.build() == {}
    assert one.nothing_for_ninja()


@pytest.mark.parametrize("name", ["own.ld", "more.ld", "first/libm.a"])
def test_scripts_and_libraries_of_a_link_that_ninja_made_count(tree: Callable[..., Tree], name: str) -> None:
    one = tree()
    one.write("own.ld", f"SECTIONS {{ .own : {{ BYTE(1) }}\nINCLUDE {one.root}/more.ld\n}} INSERT AFTER .text;\n")
    one.write("more.ld", "own = 1;\n")
    one.write("first/other", "")
    words = f"-L{one.root}/first -lm -T {one.root}/own.ld -no-pie"
    text = (one.out / "build.ninja").read_text()
    one.write("out/build.ninja", text.replace("$in -o $out\nrule gen", f"$in -o $out {words}\nrule gen"))
    next_tick()
    one.ninja()
    assert "executed" not in one.build()
    next_tick()
    if name.endswith(".a"):
        subprocess.run(["ar", "qc", one.root / name, one.out / "util.o"], check=True)
    else:
        one.write(name, (one.root / name).read_text() + "more = 3;\n")
    assert one.build()["executed"] == ["app"]
    assert one.build() == {}
    assert one.nothing_for_ninja()


def test_a_generator_that_writes_files_of_its_own_which_it_reads_runs_once(tree: Callable[..., Tree]) -> None:
    one = tree()
    one.write("out/made/ref", "first")
    text = (one.out / "build.ninja").read_text() + (
        f"rule again\n  command = echo x >> ../generated; date +%N > made/ref; cp {one.root}/manifest.in build.ninja\n"
        f"  generator = 1\n  restat = 1\nbuild build.ninja: again {one.root}/manifest.in {one.root}/said made/ref\n"
    )
    one.write("said", "1")
    one.write("manifest.in", text)
    one.write("out/build.ninja", text)
    one.build()
    for word in ("2", "3"):
        (one.root / "generated").unlink(missing_ok=True)
        next_tick()
        one.write("said", word)
        one.build()
        assert (one.root / "generated").read_text() == "x\n" and one.nothing_for_ninja()
        one.build()
        one.ninja()
        assert (one.root / "generated").read_text() == "x\n"
    one.write("out/made/ref", "by hand")
    os.utime(one.out / "made/ref", ns=(1, 1))
    one.build()
    assert (one.root / "generated").read_text() == "x\nx\n", "what somebody else wrote is another input"


def test_other_inputs_of_the_same_command_are_judged_as_ninja_does_and_by_when_they_came(
    tree: Callable[..., Tree],
) -> None:
    one = tree()
    for name in ("first", "second"):
        one.write(name, "1")
    one.build()

    def also(name: str) -> None:
        text = (one.out / "build.ninja").read_text()
        for made in ("util.c", "gen.in"):  # of a compile, and of a command of which nobody knows what it reads
            text = re.sub(rf"(?m)(/{made})(?: \| \S+)?", rf"\1 | {one.root}/{name}" if name else r"\1", text)
        one.write("out/build.ninja", text)

    also("first")
    assert "executed" not in one.build() and one.nothing_for_ninja()
    one.write("first", "2")
    assert {"gen.h", "util.o"} <= set(one.build()["executed"]) and one.nothing_for_ninja()
    also("")
    assert "executed" not in one.build() and one.nothing_for_ninja()
    next_tick()
    one.write("second", "2")
    os.utime(one.root / "second", ns=(1, 1))
    also("second")
    assert "gen.h" in one.build()["executed"], "an mtime from before says nothing"
    assert one.nothing_for_ninja()


def test_a_comment_stops_after_one_compile_and_ninja_has_nothing_to_do(tree: Callable[..., Tree]) -> None:
    one = tree()
    one.build()
    one.write("util.c", FILES["util.c"] + "// a comment\n")
    assert one.build()["executed"] == ["util.o"]
    assert one.nothing_for_ninja()
    one.write("util.c", FILES["util.c"])
    assert "executed" not in one.build()
    assert one.nothing_for_ninja()


def test_an_edit_asks_a_few_statements_and_a_moved_manifest_all_of_them(tree: Callable[..., Tree]) -> None:
    one = tree()
    one.build()
    assert one.build() == {} and not one.asked_few
    one.write("util.c", FILES["util.c"] + "/* edited */\n")
    assert one.build()["executed"] == ["util.o"] and one.asked_few
    assert one.nothing_for_ninja()
    one.write("util.c", FILES["util.c"].replace("return", "return 0 *"))
    assert sorted(one.ninja()) == []  # no command of this tree says its name
    assert one.build() == {"up_to_date": ["app", "libutil.a", "util.o"]} and one.asked_few
    assert one.nothing_for_ninja()
    one.write("util.c", FILES["util.c"])
    assert one.build() == {"restored": ["app", "libutil.a", "util.o"]} and one.asked_few
    assert one.nothing_for_ninja()
    one.write("util.c", FILES["util.c"] + "int more;\n")
    one.manifest("-DMORE")
    assert sorted(one.build()["executed"]) == ["app", "libutil.a", "main.o", "util.o"] and not one.asked_few


def test_other_names_for_directories_compile_nothing_that_ninja_would_not(tree: Callable[..., Tree]) -> None:
    """As `kind = "esp-idf"` in place of `"ninja"`: keys are others, what was made is not."""
    one = tree(flags="-g", inc__other_h="")
    (one.root.parent / "sdk").mkdir()
    one.write("../sdk/sdk.h", "#define SDK 1\n")
    one.write("main.c", '#include "sdk.h"\n' + FILES["main.c"])
    one.manifest(f"-g -I{one.root.parent}/sdk")
    one.build()
    deploy = one.root / "deploy.toml"
    deploy.write_text(deploy.read_text().replace("[cache]", f'places = {{ SDK = "{one.root.parent}/sdk" }}\n[cache]'))
    assert "executed" not in one.build()
    assert one.build() == {} and one.nothing_for_ninja()
    one.write("../sdk/sdk.h", "#define SDK 2\n")
    assert one.build()["executed"] == ["main.o"]
    deploy.write_text(deploy.read_text().replace('directory = "out"', 'directory = "out"\nprefix_map = "all"'))
    assert "main.o" in one.build()["executed"], "that changes what is made"


def test_what_runs_each_time_does_so_though_nothing_moves(tree: Callable[..., Tree]) -> None:
    one = tree()
    one.manifest(
        more="rule say\n  command = echo each >> said; touch each\nbuild each: say none\nbuild none: phony\n"
        "default each app\n"
    )
    for times in (1, 2, 3, 4):
        one.build()
        assert one.read("said").decode().count("each") == times


def test_a_variable_that_compilers_look_at_is_seen(tree: Callable[..., Tree], monkeypatch: pytest.MonkeyPatch) -> None:
    one = tree()
    one.build()
    assert one.build() == {}
    monkeypatch.setenv("CPATH", str(one.root / "late"))
    assert sorted(one.build()) != []


def test_a_deleted_directory_comes_back_from_the_cache(tree: Callable[..., Tree]) -> None:
    one = tree()
    one.build()
    shutil.rmtree(one.out)
    one.manifest()
    assert one.build() == {"executed": ["gen.h"], "restored": ["app", "libutil.a", "main.o", "util.o"]}
    assert one.run() == 0
    assert one.nothing_for_ninja()
    assert one.build() == {}


def test_another_checkout_gets_everything_and_ninja_knows_its_own_headers(tree: Callable[..., Tree]) -> None:
    tree("one", "-g").build()
    two = tree("two", "-g")
    assert two.build() == {"executed": ["gen.h"], "restored": ["app", "libutil.a", "main.o", "util.o"]}
    assert two.nothing_for_ninja()
    for name in ("main.o", "util.o", "libutil.a", "app"):
        assert b"/one" not in two.read(name)
    deps = subprocess.run([NINJA, "-C", str(two.out), "-t", "deps"], capture_output=True, text=True, check=True).stdout
    assert f"{two.root}/inc/util.h" in deps
    assert "/one/" not in deps
    two.write("inc/util.h", FILES["inc/util.h"].replace("1", "7"))
    assert set(two.ninja("-v", "-n") or ()) == set()
    assert not two.nothing_for_ninja()


@pytest.mark.parametrize(
    "text",
    [
        'const char *name(void) { return __FILE__; }\n#include "util.h"\nint util(void) { return UTIL; }\n',
        '#include "util.h"\nint util(void) { return sizeof(__FILE__); }\n',
        '#define WHERE __FILE__\n#define LENGTH sizeof(WHERE)\n#include "util.h"\nint util(void) { return LENGTH; }\n',
    ],
)
def test_an_object_that_depends_on_its_path_serves_no_other_checkout(tree: Callable[..., Tree], text: str) -> None:
    one, two = tree("one", util_c=text), tree("other", util_c=text)
    one.build()
    assert "util.o" in two.build()["executed"]
    assert one.read("util.o") != two.read("util.o")
    # Back at home it is known.
    (one.out / "util.o").unlink()
    assert one.build()["restored"] == ["util.o"]


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ("'-DTREE=\"%s\"'", "sizeof(TREE)"),
        ("-D 'TREE=\"%s\"' -DWHERE=TREE", "sizeof(WHERE)"),
        ("'-DSOURCES=\"%s\"'", "PASTE(SOUR,CES)"),
        ("-fmacro-prefix-map=%s/inc=.", "sizeof(__FILE__)"),
        ("-I%s/../shared", "shared()"),
    ],
    ids=["macro", "macro of a macro", "pasted", "a directory of it mapped", "a way out of it"],
)
def test_an_object_that_depends_on_a_path_of_its_command_serves_no_other_checkout(
    tree: Callable[..., Tree], tmp_path: Path, flags: str, text: str
) -> None:
    shared = tmp_path / "shared/where.h"
    shared.parent.mkdir()
    shared.write_text("#define HERE sizeof(__FILE__)\nstatic inline int shared(void) { return HERE; }\n")
    util = '#include "util.h"\n#define PASTE(LEFT, RIGHT) sizeof(LEFT##RIGHT)\n'
    util += '#include "where.h"\n' if text == "shared()" else ""
    util += f"int util(void) {{ return {text}; }}\n"
    trees = [tree(name, util_c=util) for name in ("a", "other")]
    for one in trees:
        one.manifest(flags % one.root)
        one.build()
    objects = [one.read("util.o") for one in trees]
    for one in trees:
        one.ninja("-t", "clean")
        one.ninja()
    assert [one.read("util.o") for one in trees] == objects


def test_a_macro_with_a_path_that_nothing_mentions_keeps_nothing_at_home(tree: Callable[..., Tree]) -> None:
    one, other = tree("one"), tree("other")
    for each in (one, other):
        each.manifest(f"'-DTREE=\"{each.root}\"' -DOTHER=1")
        built = each.build()
    assert built["restored"] == ["app", "libutil.a", "main.o", "util.o"]


def test_objects_are_made_again_when_prefix_map_is_another(tmp_path: Path) -> None:
    one = Tree(tmp_path / "one", tmp_path / "cache", "-g")
    one.build()
    assert os.fsencode(one.root) not in one.read("util.o")
    none = DEPLOY.replace('directory = "out"', 'directory = "out"\nprefix_map = "none"')
    one.write("deploy.toml", none % (tmp_path / "cache"))
    assert {"main.o", "util.o"} <= set(one.build()["executed"])
    assert os.fsencode(one.root) in one.read("util.o")
    one.write("deploy.toml", DEPLOY % (tmp_path / "cache"))
    assert {"main.o", "util.o"} <= set(one.build()["restored"])


def test_without_a_prefix_map_debug_information_keeps_an_object_at_home(tmp_path: Path) -> None:
    deploy = DEPLOY.replace('directory = "out"', 'directory = "out"\nprefix_map = "none"')
    one, two = (Tree(tmp_path / name, tmp_path / "cache", "-g", deploy) for name in ("one", "other"))
    one.build()
    assert set(two.build()["executed"]) >= {"main.o", "util.o"}
    assert os.fsencode(two.root) in two.read("util.o")


def test_a_link_with_a_map_and_a_table_of_references_as_esp_idf_has_it(tree: Callable[..., Tree]) -> None:
    one, two = tree(), tree("other")
    for each in (one, two):
        text = (each.out / "build.ninja").read_text()
        each.write(
            "out/build.ninja", text.replace("$in -o $out", f"$in -o $out -Wl,--cref -Wl,--Map={each.out}/app.map")
        )
    one.build()
    assert "Cross Reference Table" in one.read("app.map").decode()
    assert "app" in two.build()["restored"] and two.run() == 0
    assert two.read("app.map") == one.read("app.map")
    for name in ("app", "app.map"):
        one.out.joinpath(name).unlink()
        assert one.build()["restored"] == ["app"] and one.read(name) == two.read(name)
    assert one.nothing_for_ninja()


@pytest.mark.parametrize("flags", ["-g -gz", "-flto", "-g @../hide.rsp"])
def test_what_may_hide_a_path_stays_at_home(tree: Callable[..., Tree], flags: str) -> None:
    one, two = (tree(name, flags, hide_rsp="-gz\n") for name in ("one", "other"))
    one.build()
    assert {"main.o", "util.o"} <= set(two.build()["executed"])


def test_different_contents_never_meet(tree: Callable[..., Tree]) -> None:
    tree("one").build()
    changes: dict[str, dict[str, str]] = {
        "header": {"inc__util_h": "#define UTIL 2\nint util(void);\n"},
        "generated": {"gen_in": "#define GEN 3\n"},
        "source": {"util_c": '#include "util.h"\nint util(void) { return UTIL + 1; }\n'},
    }
    for name, files in changes.items():
        other = tree(name, **files)
        other.build()
        assert other.run() == 1, name
    # A header that is found earlier on the search path.
    early = tree("early")
    early.write("out/util.h", "#define UTIL 2\nint util(void);\n")
    early.build()
    assert early.run() == 1


def test_system_headers_count_though_the_command_hides_them(tmp_path: Path) -> None:
    def make(name: str, value: int) -> Tree:
        made = Tree(tmp_path / name, tmp_path / "cache", util_c="#include <sys.h>\nint util(void) { return SYS; }\n")
        made.write("sys/sys.h", f"#define SYS {value}\n")
        text = (made.out / "build.ninja").read_text().replace("-MD", f"-isystem {made.root}/sys -MMD")
        made.write("out/build.ninja", text)
        return made

    one, two, three = make("one", 1), make("two", 2), make("three", 1)
    one.build()
    assert "util.o" in two.build()["executed"]
    assert (one.run(), two.run()) == (0, 1)
    assert "util.o" in three.build()["restored"]


@pytest.mark.parametrize("option", ["-Wa,-I{}/asm", "-Wa,-I,{}/asm", "-Xassembler -I{}/asm"])
def test_where_the_assembler_alone_looks(tree: Callable[..., Tree], tmp_path: Path, option: str) -> None:
    part = ".section .rodata\nblob: .byte {}\n.text\n"
    text = '__asm__(".include \\"part.inc\\"");\nextern const char blob[];\nint util(void) { return blob[0]; }\n'
    one = tree(flags=option.format(tmp_path / "one"), util_c=text, asm__part_inc=part.format(1))
    one.build()
    one.write("asm/part.inc", part.format(5))
    assert "util.o" in one.build()["executed"]
    assert one.run() == 4


@pytest.mark.parametrize(
    ("flags", "use"),
    [
        ("'-DBLOB=\"{}/blob.bin\"'", "TAKE(BLOB)"),
        ("-DBLOB={}/blob.bin", "TAKE_NAMED(BLOB)"),
        ("-D BLOB=../blob.bin", "TAKE_NAMED(BLOB)"),
        ("", "TAKE_NAMED(../blob.bin)"),
        ("@../blob.rsp", "TAKE_NAMED(BLOB)"),
    ],
)
def test_what_the_assembler_takes_by_a_name_that_macros_make(
    tree: Callable[..., Tree], tmp_path: Path, flags: str, use: str
) -> None:
    take = """
#define TAKE(file) __asm__(".section .rodata\\nblob: .incbin \\"" file "\\"\\n.text\\n")
#define TAKE_TEXT(file) TAKE(#file)
#define TAKE_NAMED(file) TAKE_TEXT(file)
"""
    text = f'#include "take.h"\n{use};\nextern const char blob[];\nint util(void) {{ return blob[0] - 48; }}\n'
    words = {"blob_bin": "1", "blob_rsp": "-DBLOB=../blob.bin\n"}
    one = tree(flags=flags.format(tmp_path / "one"), util_c=text, inc__take_h=take, **words)
    one.build()
    assert one.run() == 0
    one.write("blob.bin", "5")
    assert "util.o" in one.build()["executed"]
    assert one.run() == 4


def test_a_spec_file_of_the_project_is_an_input(tree: Callable[..., Tree], tmp_path: Path) -> None:
    one = tree(flags=f"-specs={tmp_path}/one/own.specs", own_specs="*cpp:\n+ -DMORE=0\n")
    one.write("util.c", FILES["util.c"].replace("UTIL;", "UTIL + MORE;"))
    one.build()
    assert one.run() == 0
    one.write("own.specs", "*cpp:\n+ -DMORE=3\n")
    assert "util.o" in one.build()["executed"]
    assert one.run() == 3


@pytest.mark.parametrize("by", ["ninja", "us"])
def test_the_words_of_a_response_file_that_ninja_writes_count(tree: Callable[..., Tree], by: str) -> None:
    """Where a header would be found first, and an option by which a compiler writes more than is known."""
    one = tree()
    text = (one.out / "build.ninja").read_text().replace("$cflags -MD", "@$out.rsp -MD")
    text = text.replace("  deps = gcc", "  deps = gcc\n  rspfile = $out.rsp\n  rspfile_content = $cflags")
    one.write("out/build.ninja", text)
    next_tick()
    if by == "ninja":
        one.ninja()
    one.build()
    assert one.build() == {}
    next_tick()
    one.write("out/util.h", "#define UTIL 3\nint util(void);\n")
    assert "util.o" in one.build()["executed"]
    assert one.run() == 2
    assert one.nothing_for_ninja()
    one.write("out/build.ninja", text.replace("cflags = ", "cflags = -fstack-usage "))
    one.build()
    assert (one.out / "util.su").exists()
    (one.out / "util.su").unlink()
    (one.out / "util.o").unlink()
    assert "util.o" in one.build()["executed"], "not restored, since nobody knows what else it writes"


@pytest.mark.parametrize(
    "words",
    [
        "-Xlinker --retain-symbols-file=../more.txt",
        "-Wl,-retain-symbols-file,../more.txt",
        "-Wl,@../words.rsp",
        "-Xlinker @../words.rsp",
        "@../flags.rsp",
    ],
)
def test_a_link_that_reads_what_its_linker_does_not_tell_is_not_stored(tree: Callable[..., Tree], words: str) -> None:
    one = tree(more_txt="main\n", words_rsp="--retain-symbols-file=../more.txt\n")
    one.write("flags.rsp", "-Wl,--retain-symbols-file=../more.txt\n")
    text = (one.out / "build.ninja").read_text()
    one.write("out/build.ninja", text.replace("$in -o $out", f"$in -o $out {words}"))
    one.build()
    before = one.read("app")
    one.write("more.txt", "main\nutil\n")
    one.ninja("-t", "clean")
    one.build()
    ours = one.read("app")
    one.ninja("-t", "clean")
    one.ninja()
    assert ours == one.read("app") != before


def test_flags_in_a_file_are_an_input(tree: Callable[..., Tree]) -> None:
    one, two = tree("one", "@flags.txt"), tree("two", "@flags.txt")
    for each, value in ((one, 1), (two, 2)):
        each.write("util.c", '#include "util.h"\nint util(void) { return FLAG; }\n')
        each.write("out/flags.txt", f"-DFLAG={value}")
        each.build()
    assert (one.run(), two.run()) == (0, 1)
    one.write("out/flags.txt", "-DFLAG=4")
    assert "util.o" in one.build()["executed"]
    assert one.run() == 3


@pytest.mark.parametrize("ar", ["ar qcT", "ar qc --thin", "ar rcsT"])
@pytest.mark.parametrize("before", ["ninja", "us"])
def test_what_a_thin_archive_names_is_read_by_the_link(tree: Callable[..., Tree], ar: str, before: str) -> None:
    one = tree()
    text = (one.out / "build.ninja").read_text().replace("ar qc $out", f"{ar} $out")
    if "q" in ar:
        text = text.replace("util.o", "a_name_of_more_than_fifteen_characters/util.o")
    one.write("out/build.ninja", text)
    if before == "ninja":
        one.ninja()
    one.build()
    assert one.build() == {}
    next_tick()
    one.write("util.c", FILES["util.c"].replace("UTIL;", "UTIL + 4;"))
    assert "app" in one.build()["executed"]
    assert one.run() == 4
    assert one.build() == {}
    assert one.nothing_for_ninja()


def test_a_compile_that_fails_costs_nothing_that_was_there(tree: Callable[..., Tree]) -> None:
    one = tree()
    one.build()
    before = one.read("util.o")
    one.write("util.c", "int util(void) { return }\n")
    failure = one.failure()
    assert failure is not None
    assert "util.c:1" in failure.line() + failure.detail
    assert one.read("util.o") == before
    assert one.run() == 0
    one.write("util.c", FILES["util.c"])
    assert "executed" not in one.build()


def test_a_custom_command_runs_when_ninja_would_and_not_because_of_equal_bytes(tree: Callable[..., Tree]) -> None:
    one = tree()
    one.build()
    one.write("gen.in", FILES["gen.in"])  # written again, with the same bytes
    assert one.build()["executed"] == ["gen.h"]
    assert one.nothing_for_ninja()


STAMPS = """
rule made
  command = cp %(root)s/side.in side.h && touch $out
rule packed
  command = cat side.h > $out
rule direct
  command = %(cc)s -I. -MD -MF $out.d -MT $out -o $out -c $in
  depfile = $out.d
  deps = gcc
build side.stamp: made %(root)s/side.in
build packed.bin: packed side.stamp
build user.o: direct %(root)s/user.c | side.stamp
default side.stamp packed.bin user.o
"""


@pytest.mark.parametrize("restat", [False, True])
def test_a_stamp_stands_for_what_its_command_wrote_beside_it(tree: Callable[..., Tree], restat: bool) -> None:
    one = tree(user_c='#include "side.h"\nint side = SIDE;\n', side_in="#define SIDE 1\n")
    more = STAMPS % {"root": one.root, "cc": CC}
    one.manifest(more=more.replace("&& touch $out\n", "&& touch $out\n  restat = 1\n") if restat else more)
    one.build()
    next_tick()
    one.write("side.in", "#define SIDE 2\n")
    assert set(one.build()["executed"]) == {"side.stamp", "packed.bin", "user.o"}
    assert one.read("packed.bin") == b"#define SIDE 2\n"
    assert one.build() == {}
    assert one.nothing_for_ninja()


def test_cmake_runs_again_when_a_glob_finds_another_file(tmp_path: Path) -> None:
    if not shutil.which("cmake"):
        pytest.skip("CMake is not installed")
    one = NinjaSpace(tmp_path / "one", tmp_path / "cache")
    one.write("in/a", "1")
    one.write(
        "CMakeLists.txt",
        "cmake_minimum_required(VERSION 3.16)\nproject(x NONE)\nfile(GLOB FOUND CONFIGURE_DEPENDS in/*)\n"
        "add_custom_command(OUTPUT all.bin COMMAND cat ${FOUND} > all.bin DEPENDS ${FOUND})\n"
        "add_custom_target(all.made ALL DEPENDS all.bin)\n",
    )
    subprocess.run(["cmake", "-G", "Ninja", "-S", one.root, "-B", one.out], check=True, capture_output=True)
    one.ours()
    for name in ("b", "c"):
        one.write(f"in/{name}", name)
        one.ours()
        assert (one.out / "all.bin").read_bytes().endswith(name.encode())
    (one.root / "in/b").unlink()
    one.ours()
    assert (one.out / "all.bin").read_bytes() == b"1c"
    one.ours()
    assert one.how == {} or set(one.how) == {"out/CMakeFiles/cmake.verify_globs"}
    done = subprocess.run([NINJA, "-C", one.out], check=True, capture_output=True, text=True)
    assert "no work to do" in done.stdout


def test_a_lost_log_of_ninjas_and_a_lost_state_of_ours(tree: Callable[..., Tree]) -> None:
    one = tree()
    one.build()
    for name in (".ninja_log", ".ninja_deps"):
        (one.out / name).unlink()
        assert "executed" not in one.build(), name
        assert one.nothing_for_ninja()
    shutil.rmtree(one.root / ".deploy")
    assert "executed" not in one.build()
    assert one.nothing_for_ninja()


def test_a_depfile_that_ninja_reads_each_time_and_that_was_lost_is_written_again(tree: Callable[..., Tree]) -> None:
    one = tree()
    rule = "rule dep\n  command = cp $in $out; echo $out: ../gen.in > $out.d\n  depfile = $out.d\n"
    one.manifest(more=f"{rule}build copy: dep ../main.c\ndefault copy\n")
    one.build()
    assert one.nothing_for_ninja()
    (one.out / "copy.d").unlink()
    assert not one.nothing_for_ninja()
    one.write("util.c", FILES["util.c"] + "\n")
    one.build()
    assert "out/copy" not in [name for name, how in one.how.items() if how == "executed"]
    one.write("out/build.ninja", (one.out / "build.ninja").read_text() + "\n")  # all statements are asked about
    one.build()
    assert one.nothing_for_ninja() and "gen.in" in one.read("copy.d").decode()


def test_killed_in_the_middle_the_next_run_ends_well(tree: Callable[..., Tree], tmp_path: Path) -> None:
    one = tree()
    slow = "rule slow\n  command = touch started; sleep 60; touch $out\n"
    slow += "build slow: slow | libutil.a main.o\ndefault slow\n"  # all that was made before is asked for below
    one.manifest(more=slow)
    lines = (
        "from pathlib import Path",
        "from tests.unit.ninja_space import NinjaSpace",
        f"NinjaSpace(Path({str(one.root)!r}), Path({str(tmp_path / 'cache')!r})).ours()",
    )
    child = subprocess.Popen([sys.executable, "-c", "\n".join(lines)], cwd=Path(__file__).parents[2])
    eventually(lambda: (one.out / "started").exists() or child.poll() is not None)
    assert child.poll() is None
    child.send_signal(signal.SIGKILL)
    child.wait()
    one.manifest()
    assert not {"main.o", "util.o", "libutil.a"} & set(one.build().get("executed", []))
    assert one.run() == 0
    assert one.nothing_for_ninja()


def test_a_dyndep_file_is_made_first_and_its_inputs_count(tree: Callable[..., Tree]) -> None:
    one = tree()
    more = (
        "rule dd\n  command = printf 'ninja_dyndep_version = 1\\nbuild out.txt: dyndep | extra.h\\n' > $out\n"
        "build dd: dd\nrule use\n  command = cat extra.h > $out\n  dyndep = dd\nbuild out.txt: use || dd\n"
        f"build extra.h: gen {one.root}/gen.in\ndefault out.txt\n"
    )
    one.manifest(more=more)
    assert {"dd", "extra.h", "out.txt"} <= set(one.build()["executed"])
    assert one.nothing_for_ninja()
    one.write("gen.in", "#define GEN 4\n")
    assert {"extra.h", "out.txt"} <= set(one.build()["executed"])
    assert one.read("out.txt") == b"#define GEN 4\n"
    assert one.nothing_for_ninja()


def test_a_pool_of_one_runs_one_at_a_time(tree: Callable[..., Tree]) -> None:
    one = tree()
    more = "pool single\n  depth = 1\nrule alone\n  command = mkdir lock && rmdir lock && touch $out\n  pool = single\n"
    one.manifest(more=more + "".join(f"build alone{n}: alone\ndefault alone{n}\n" for n in range(8)))
    assert len([name for name in one.build()["executed"] if name.startswith("alone")]) == 8


def test_the_manifest_is_made_again_before_anything_else(tree: Callable[..., Tree]) -> None:
    one = tree()
    text = (one.out / "build.ninja").read_text()
    generated = text + "rule again\n  command = cp ../manifest.in build.ninja\n  generator = 1\n"
    generated += "build build.ninja: again ../manifest.in\n"
    one.write("manifest.in", generated)
    one.write("out/build.ninja", generated)
    one.build()
    assert one.nothing_for_ninja()
    one.write("manifest.in", generated.replace("cflags = ", "cflags = -DNEW "))
    assert {"build.ninja", "main.o", "util.o"} <= set(one.build()["executed"])
    assert b"-DNEW" in one.read("build.ninja")
    assert one.nothing_for_ninja()
    one.write("manifest.in", generated + "rule broken\n")
    with pytest.raises(DeployError, match="command"):
        one.ours()


def test_a_manifest_that_is_refused_and_one_that_is_not_there(tree: Callable[..., Tree]) -> None:
    one = tree()
    one.write("out/build.ninja", "build a: nothing\n")
    said = one.failure_to_load()
    assert "out/build.ninja:1" in said
    assert "unknown build rule 'nothing'" in said
    (one.out / "build.ninja").unlink()
    assert "not configured" in one.failure_to_load()


def test_a_directory_as_an_input_and_logs_elsewhere(tree: Callable[..., Tree]) -> None:
    one = tree()
    (one.root / "assets").mkdir()
    text = (one.out / "build.ninja").read_text()
    more = f"rule ls\n  command = ls {one.root}/assets > $out\nbuild list: ls {one.root}/assets\ndefault list\n"
    one.write("out/build.ninja", f"builddir = logs\n{text}{more}")
    one.build()
    assert one.nothing_for_ninja()
    assert (one.out / "logs/.ninja_log").exists()
    assert not (one.out / ".ninja_log").exists()
    next_tick()
    one.write("assets/a", "")
    assert one.build()["executed"] == ["list"]
    assert one.read("list") == b"a\n"
    assert one.build() == {}
    assert one.nothing_for_ninja()


def test_the_log_does_not_grow_without_end(tree: Callable[..., Tree]) -> None:
    one = tree()
    one.build()
    log = one.out / ".ninja_log"
    head, *lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([head, *(lines * 40)]))
    one.write("util.c", FILES["util.c"] + "// a comment\n")
    one.build()
    assert log.read_bytes().count(b"\n") < 20
    assert one.nothing_for_ninja()


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
def test_strace_says_what_nobody_declares(tmp_path: Path) -> None:
    one = Tree(tmp_path / "one", tmp_path / "cache", deploy=DEPLOY.replace("[cache]", "strace = true\n[cache]"))
    one.write("hidden.txt", "hidden")
    one.manifest(more="rule peep\n  command = cat ../hidden.txt > $out; touch stray\nbuild peep: peep\ndefault peep\n")
    if subprocess.run(["strace", "-qq", "-e", "trace=none", "true"], check=False).returncode:
        pytest.skip("strace may not trace here")
    one.ours()
    assert "undeclared out/peep:  -> read hidden.txt" in one.notices
    assert "undeclared out/peep:  -> wrote out/stray" in one.notices
    assert "util.h" not in one.notices


def test_objects_that_are_named_by_the_path_of_their_source(tree: Callable[..., Tree]) -> None:
    """As CMake names them where a source lies outside of its own directory."""

    def renamed(name: str) -> Tree:
        made = tree(name)
        text = (made.out / "build.ninja").read_text()
        made.write("out/build.ninja", text.replace("util.o", f"x.dir{made.root}/util.o"))
        return made

    one, two = renamed("one"), renamed("two")
    one.build()
    assert one.nothing_for_ninja()
    assert one.build() == {}
    assert two.build()["executed"] == ["gen.h"]
    assert two.nothing_for_ninja()
    assert (two.out / f"x.dir{two.root}/util.o").exists()
    two.write("util.c", FILES["util.c"] + "// a comment\n")
    assert len(two.build()["executed"]) == 1
    assert two.nothing_for_ninja()


def test_a_map_of_all_paths_lets_users_of_file_names_serve_other_checkouts(tmp_path: Path) -> None:
    deploy = DEPLOY.replace('directory = "out"', 'directory = "out"\nprefix_map = "all"')
    text = '#include "util.h"\nconst char *name(void) { return __FILE__; }\nint util(void) { return UTIL; }\n'
    one, two = (Tree(tmp_path / name, tmp_path / "cache", "-g", deploy, util_c=text) for name in ("one", "other"))
    one.build()
    assert "util.o" in two.build()["restored"]
    assert b"./util.c" in two.read("util.o")


def test_a_header_that_comes_beside_its_includer_on_a_path_that_is_searched_later(tree: Callable[..., Tree]) -> None:
    # As with zlib: CMake makes zconf.h in the build directory, and a checkout brings the one of the sources back.
    one = tree()
    one.write("out/made/conf.h", "#define UTIL 1\n")
    one.write("inc/util.h", '#include "conf.h"\nint util(void);\n')
    one.manifest(f"-iquote {one.out}/made")
    one.build()
    assert one.run() == 0
    one.write("inc/conf.h", "#define UTIL 3\n")
    assert set(one.build()["executed"]) == {"main.o", "util.o", "libutil.a", "app"}
    assert one.run() == 2
    (one.root / "inc/conf.h").unlink()
    assert "executed" not in one.build()
    assert one.run() == 0


def test_directories_that_statements_make_and_read_and_that_depfiles_name(tree: Callable[..., Tree]) -> None:
    """Ninja looks at their times alone."""
    one = tree()
    rules = """
rule unpack
  command = mkdir -p $out && cp $in $out/ && touch $out && echo unpack >> ../ran.log
rule list
  command = ls pages ../texts > $out && echo "$out: ../texts" > $out.d && echo list >> ../ran.log
  depfile = $out.d
  deps = gcc
build pages: unpack ../main.c
build list: list | pages
build late.o: cc ../util.c | pages || gen.h
default list late.o
"""
    one.write("texts/a", "")
    one.manifest(more=rules)
    one.build()
    assert one.ran() == ["list", "unpack"] and one.nothing_for_ninja()
    one.build()
    assert one.ran() == []
    assert one.read("list") == b"../texts:\na\n\npages:\nmain.c\n"
    one.write("texts/b", "")
    one.build()
    assert one.ran() == ["list"] and b"b\n" in one.read("list") and one.nothing_for_ninja()
    one.write("main.c", FILES["main.c"] + "\n")
    one.build()
    assert one.ran() == ["list", "unpack"] and one.nothing_for_ninja()
    shutil.rmtree(one.out / "pages")
    one.build()
    assert one.ran() == ["list", "unpack"] and one.nothing_for_ninja()
    one.build()
    assert one.ran() == [] == one.ninja()
    (one.out / "late.o").unlink()
    assert one.build()["restored"] == ["late.o"] and one.nothing_for_ninja()


@pytest.mark.parametrize("how", ["input", "depfile"])
def test_an_action_of_a_user_beside_statements_reads_no_directory(tmp_path: Path, how: str) -> None:
    """Of what lies in one nothing would be seen."""
    action = """
[[action]]
name = "pack"
argv = ["sh", "-c", "ls texts > {out}; echo '{out}: texts' > build/pack.d"]
outputs = ["build/pack.bin"]
"""
    inputs = 'inputs = ["out/pages"]\n' if how == "input" else 'depfile = "build/pack.d"\n'
    pages = "rule dir\n  command = mkdir -p $out\nbuild pages: dir\ndefault pages\n"
    one = Tree(tmp_path / "one", tmp_path / "cache", deploy=DEPLOY + action + inputs)
    one.write("texts/a", "")
    one.manifest(more=pages)
    failure = one.failure()
    assert failure is not None and "directory" in f"{failure.line()}{failure.detail}", failure


@pytest.mark.parametrize("more", ["../pre.o", "@../members.rsp"])
def test_members_that_only_the_words_of_an_archive_name(tree: Callable[..., Tree], tmp_path: Path, more: str) -> None:
    one = tree(members_rsp="../pre.o\n")
    (one.root / "pre.o").write_bytes(b"first\n")
    rule = f"rule lib\n  command = rm -f $out && ar qc $out $in {more}\nbuild lib.a: lib main.o\ndefault lib.a\n"
    one.manifest(more=rule)
    one.build()
    assert b"first" in one.read("lib.a")
    (one.root / "pre.o").write_bytes(b"second\n")
    one.ninja("-t", "clean")
    one.build()
    assert b"second" in one.read("lib.a") and one.nothing_for_ninja()


def test_programs_that_an_option_lets_a_compiler_find_first(tree: Callable[..., Tree]) -> None:
    """What the assembler beside the project does is nobody's input."""
    one = tree(flags="-B../tools/")
    assembler = one.root / "tools/as"
    for number in "12":
        one.write("tools/as", f'#!/bin/sh\nexec as --defsym NUMBER={number} "$@"\n')
        assembler.chmod(0o755)
        one.ninja("-t", "clean")
        one.build()
        ours = one.read("util.o")
        one.ninja("-t", "clean")
        one.ninja()
        assert one.read("util.o") == ours


def test_a_manifest_that_was_written_just_before_the_run_is_no_reason_for_another_run(
    tree: Callable[..., Tree], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a script that configures and builds. What moves while the run works is."""
    space = tree()
    space.build()
    began_ns = filesystem_now_ns()
    monkeypatch.setattr("pipeline.fastpath.whole_state._process_start_ns", lambda: began_ns)

    def is_answered(meanwhile: Callable[[], None]) -> bool:
        next_tick()
        shutil.rmtree(space.out)
        space.manifest()
        next_tick()
        save = Engine.save

        def saved(engine: Engine) -> None:
            meanwhile()
            save(engine)

        with contextlib.chdir(space.root), patch.object(Engine, "save", saved):
            assert space._build_here() is None
        return any(space.root.glob(".deploy/fastpath.v1/*.state"))

    assert is_answered(lambda: None)
    assert not is_answered(space.manifest)


def test_what_looks_like_a_symbol_in_a_command_is_none(tree: Callable[..., Tree]) -> None:
    one = tree(text_in="at {root}\n")
    words = "rule fill\n  command = sed 's,{root},there,' $in > $out; echo '{root}' >> $out\n"
    one.manifest(more=f"{words}build text.out: fill ../text.in\ndefault text.out\n")
    one.build()
    assert one.read("text.out") == b"at there\n{root}\n"
