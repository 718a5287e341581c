"""`hotplate cc` beside the compiler itself: the same object, depfile, words and exit code.

What decides is a plain run of the same command at the same time; the launcher may only be faster.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

import pytest

from cache.named_tuple import NamedTuple

GCC = shutil.which("gcc")
pytestmark = pytest.mark.skipif(GCC is None or os.name != "posix", reason="needs gcc")

STRESS = pytest.mark.stress
MAIN = '#include <stddef.h>\n#include "value.h"\n#include <config.h>\nint value(void) { return VALUE + CONFIG; }\n'


class Ran(NamedTuple):
    """What a command did."""

    code: int
    out: bytes
    err: bytes


class Desk:
    """A directory with a small source, and a store of its own."""

    def __init__(self, root: Path, store: Path) -> None:
        self.root, self.store = root, store
        self.env: dict[str, str] = {}
        self.write("main.c", MAIN)
        self.write("value.h", "#define VALUE 1\n")
        self.write("late/config.h", "#define CONFIG 10\n")
        (root / "early").mkdir(exist_ok=True)

    def write(self, name: str, text: str | bytes) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        settled(path)
        return path

    def run(self, words: Sequence[str], env: Mapping[str, str], cwd: str = "") -> Ran:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HOTPLATE")}
        done = subprocess.run(words, cwd=cwd or self.root, env={**environment, **env}, capture_output=True, check=False)
        return Ran(done.returncode, done.stdout, done.stderr)

    def cc(self, *words: str, **env: str) -> Ran:
        launcher = (sys.executable, "-c", "from pipeline.fastpath import main; raise SystemExit(main())", "cc", "--")
        here = str(Path(__file__).parents[2])
        own = {"HOTPLATE_CACHE_DIR": str(self.store), "PYTHONPATH": here, **self.env, **env}
        return self.run([*launcher, *words], own)

    def counts(self) -> dict[str, int]:
        found = self.store / "cc.v1" / "counts"
        return {path.name: path.stat().st_size for path in found.iterdir()} if found.is_dir() else {}

    def same(self, *words: str, outputs: Sequence[str] = ("main.o",), **env: str) -> str:
        """Run plainly and through the launcher; all must be equal. What the launcher counted."""
        plain = self.run(words, {**self.env, **env})
        wanted = self._take(outputs)
        before = self.counts()
        ours = self.cc(*words, **env)
        assert ours == plain
        assert self._take(outputs) == wanted
        moved = [name for name, number in self.counts().items() if number != before.get(name, 0)]
        assert len(moved) == 1
        return moved[0]

    def _take(self, outputs: Sequence[str]) -> dict[str, bytes]:
        """What lies there, which is then gone."""
        found = {}
        for name in outputs:
            path = self.root / name
            if path.is_file():
                found[name] = path.read_bytes()
                path.unlink()
        return found


def settled(path: Path) -> None:
    """Wait for the file system's clock to move on, as it does between an edit and a build."""
    probe = path.with_name(f".{path.name}.probe")
    deadline_s = time.monotonic() + 5
    while time.monotonic() < deadline_s:
        probe.write_bytes(b"")
        later = probe.stat().st_ctime_ns > path.stat().st_ctime_ns
        probe.unlink()
        if later:
            return


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "one", tmp_path / "store")


COMPILE = ("gcc", "-g", "-O2", "-Iearly", "-Ilate", "-c", "main.c")


@pytest.mark.parametrize(
    ("words", "outputs"),
    [
        pytest.param(COMPILE, ["main.o"], marks=STRESS),
        ((*COMPILE, "-o", "x.o", "-MD"), ["x.o", "x.d"]),
        ((*COMPILE, "-o", "x.c.o", "-MMD", "-MP", "-MF", "deps.d", "-MT", "t $x"), ["x.c.o", "deps.d"]),
        pytest.param((*COMPILE, "-ox.o", "-MD", "-MFsome.d", "-MQ", "a b"), ["x.o", "some.d"], marks=STRESS),
        pytest.param((*COMPILE, "-Wall", "-Wextra", "-std=gnu11", "-ffunction-sections"), ["main.o"], marks=STRESS),
        (("gcc", "@flags.rsp", "-c", "main.c"), ["main.o"]),
        (("g++", "-g", "-fno-exceptions", "-fno-rtti", "-x", "c++", "-Ilate", "-c", "main.c"), ["main.o"]),
    ],
)
def test_hits_and_misses_are_what_the_compiler_makes(desk: Desk, words: Sequence[str], outputs: list[str]) -> None:
    desk.write("flags.rsp", '-g -Iearly\n"-Ilate" -DSPACE="a b"\n')
    desk.write(
        "main.c", f"{MAIN}static int unused(void) {{ return __LINE__; }}\nint bad(int x) {{ int y; return 0; }}\n"
    )
    assert desk.same(*words, outputs=outputs) == "miss"
    assert desk.same(*words, outputs=outputs) == "hit-direct"


def test_a_result_is_found_by_its_key_where_no_memo_is(desk: Desk) -> None:
    assert desk.same(*COMPILE, "-MD", outputs=("main.o", "main.d")) == "miss"
    for group in desk.store.glob("cc.v1/??"):
        shutil.rmtree(group)
    assert desk.same(*COMPILE, "-MD", outputs=("main.o", "main.d")) == "hit"
    assert desk.same(*COMPILE, "-MD", outputs=("main.o", "main.d")) == "hit-direct"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("main.c", "-o", "main"), "no-compile"),
        (("-c", "main.c", "other.c"), "several-sources"),
        (("-c", "main.s"), "no-known-source"),
        (("-xc", "-c", "-o", "x.o", "-"), "standard-input"),
        (("-c", "main.c", "--coverage"), "more-outputs"),
        (("-g", "-c", "main.c", "-gsplit-dwarf"), "more-outputs"),
        (("-c", "main.c", "-fplugin=none"), "plugin-or-specs"),
        (("-c", "main.c", "-fstrange-flag"), "compile-failed"),
        (("-c", "main.c", "-Wp,-MD,x.d"), "special-depfile"),
        (("-c", "main.c", "-o", "/dev/null"), "odd-output"),
        (("-c", "absent.c"), "no-known-source"),
        (("-c", "main.c", "--strange"), "unknown-flag"),
        (("-x", "c-header", "-c", "value.h"), "no-known-source"),
    ],
)
def test_what_is_in_doubt_is_the_compilers_own(desk: Desk, words: Sequence[str], reason: str) -> None:
    desk.write("other.c", "int other;\n")
    desk.write("main.s", ".text\n")
    plain = desk.run(("gcc", "-Ilate", *words), {})
    made = sorted(path.name for path in desk.root.iterdir())
    assert desk.cc("gcc", "-Ilate", *words) == plain
    assert sorted(path.name for path in desk.root.iterdir()) == made
    assert list(desk.counts()) in ([f"passed-{reason}"], [f"unstored-{reason}"])


def test_errors_are_the_compilers_and_are_never_stored(desk: Desk) -> None:
    desk.write("main.c", "int x = ;\n")
    assert desk.same(*COMPILE) == desk.same(*COMPILE) == "unstored-compile-failed"
    assert desk.cc("no-such-compiler", "-c", "main.c").code == 127


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("value.h", "#define VALUE 2\n"),
        ("early/config.h", "#define CONFIG 20\n"),
        ("early/stddef.h", "#define CONFIG_OF_SYSTEM 1\ntypedef int size_t;\n"),
    ],
)
def test_every_edit_that_counts_is_seen(desk: Desk, name: str, text: str) -> None:
    assert desk.same(*COMPILE) == "miss"
    former = (desk.root / name).read_bytes() if (desk.root / name).exists() else None
    desk.write(name, text)
    desk.same(*COMPILE)
    if former is None:
        (desk.root / name).unlink()
    else:
        desk.write(name, former)
    assert desk.same(*COMPILE) == "hit-direct"


def test_an_edit_in_the_same_tick_and_of_the_same_size_is_seen(desk: Desk) -> None:
    desk.same(*COMPILE)
    for number in "234":
        path = desk.root / "value.h"
        old = path.stat()
        path.write_text(f"#define VALUE {number}\n")
        os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
        desk.same(*COMPILE)


def test_a_system_header_that_a_depfile_hides_counts(desk: Desk) -> None:
    words = ("gcc", "-isystem", "late", "-MMD", "-c", "main.c", "-o", "main.o")
    assert desk.same(*words, outputs=("main.o", "main.d")) == "miss"
    assert desk.same(*words, outputs=("main.o", "main.d")) == "hit-direct"
    desk.write("late/config.h", "#define CONFIG 11\n")
    assert desk.same(*words, outputs=("main.o", "main.d")) == "miss"


def test_what_was_only_asked_for_counts(desk: Desk) -> None:
    desk.write("main.c", '#if __has_include("maybe.h")\nint there;\n#endif\nint always;\n')
    assert desk.same(*COMPILE) == "miss"
    assert desk.same(*COMPILE) == "hit-direct"
    desk.write("early/maybe.h", "")
    assert desk.same(*COMPILE) == "miss"
    (desk.root / "early/maybe.h").unlink()
    assert desk.same(*COMPILE) == "hit-direct"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("const char *when = __DATE__ __TIME__;\n", "reads-the-clock"),
        ('__asm__(".incbin \\"value.h\\"");\n', "assembler-reads"),
        ('#pragma GCC dependency "value.h"\nint x;\n', "reads-the-clock"),
    ],
)
def test_what_no_depfile_tells_is_not_stored(desk: Desk, text: str, reason: str) -> None:
    desk.write("main.c", text)
    for _ in range(2):
        assert desk.cc(*COMPILE).code == 0
    assert desk.counts() == {f"unstored-{reason}": 2}


def test_a_time_that_is_given_may_be_stored(desk: Desk) -> None:
    desk.write("main.c", "const char *when = __DATE__;\n")
    assert desk.same(*COMPILE, SOURCE_DATE_EPOCH="1000000000") == "miss"
    assert desk.same(*COMPILE, SOURCE_DATE_EPOCH="1000000000") == "hit-direct"
    assert desk.same(*COMPILE, SOURCE_DATE_EPOCH="2000000000") == "miss"


def test_precompiled_headers_are_left_alone(desk: Desk) -> None:
    desk.write("main.c", '#include "value.h"\nint x = VALUE;\n')
    assert desk.same("gcc", "-c", "main.c") == "miss"
    assert desk.run(["gcc", "-x", "c-header", "value.h", "-o", "value.h.gch"], {}).code == 0
    assert desk.same("gcc", "-c", "main.c") == "unstored-precompiled-header"


def test_the_environment_counts(desk: Desk) -> None:
    words = ("gcc", "-c", "main.c")
    assert desk.same(*words, CPATH="late") == "miss"
    desk.write("other/config.h", "#define CONFIG 99\n")
    assert desk.same(*words, CPATH="other") == "miss"
    assert desk.same(*words, CPATH="late") == "hit-direct"
    assert desk.same(*words, "-Wall", "-Ilate", "-Wpedantic", "-DX=1", LC_ALL="C") == "miss"


def test_another_compiler_of_the_same_name_counts(desk: Desk) -> None:
    assert desk.same(*COMPILE) == "miss"
    fake = desk.write("bin/gcc", f'#!/bin/sh\nexec {GCC} -DEXTRA=1 "$@"\n')
    fake.chmod(0o755)
    path = f"{desk.root}/bin:{os.environ['PATH']}"
    assert desk.same(*COMPILE, PATH=path) == "passed-unknown-compiler", "a script may be anything"


def test_a_response_file_counts_by_what_it_says(desk: Desk) -> None:
    desk.write("flags", "-Ilate -DTEXT=1")
    words = ("gcc", "-c", "@flags", "main.c")
    assert desk.same(*words) == "miss"
    assert desk.same(*words) == "hit-direct"
    desk.write("flags", "-Ilate -O2 -g")
    assert desk.same(*words) == "miss"


def test_files_that_were_only_touched_are_hits(desk: Desk) -> None:
    assert desk.same(*COMPILE) == "miss"
    for name in ("main.c", "value.h", "late/config.h"):
        (desk.root / name).touch()
    assert desk.same(*COMPILE) == "hit-direct"


def test_odd_places_are_left_to_the_compiler(desk: Desk) -> None:
    assert desk.same(*COMPILE) == "miss"
    (desk.root / "main.o").symlink_to("elsewhere.o")
    assert desk.cc(*COMPILE).code == 0
    assert (desk.root / "main.o").is_symlink() and (desk.root / "elsewhere.o").exists()
    (desk.root / "main.o").unlink()
    (desk.root / "other.o").write_text("mine")
    os.link(desk.root / "other.o", desk.root / "main.o")
    assert desk.cc(*COMPILE).code == 0
    assert (desk.root / "other.o").read_text() == "mine"
    assert desk.same(*COMPILE, "-o", "no-such-dir/x.o", outputs=("no-such-dir/x.o",)) == "passed-odd-output"
    assert not (desk.root / "no-such-dir").exists()


# --- other checkouts -----------------------------------------------------------------------------

PATHS = MAIN + 'const char *file = __FILE__;\n#line 7 "x"\n'


def test_another_checkout_never_gets_an_object_of_this_one(desk: Desk, tmp_path: Path) -> None:
    other = Desk(tmp_path / "another", desk.store)
    for each in (desk, other):
        each.write("main.c", PATHS)
        assert each.same(*COMPILE) == "miss", "debug information names the directory"
        assert each.same(*COMPILE) == "hit-direct"


def test_a_directory_that_is_reached_through_a_link_counts(desk: Desk, tmp_path: Path) -> None:
    assert desk.same(*COMPILE, PWD=str(desk.root)) == "miss"
    (tmp_path / "link").symlink_to(desk.root)
    assert desk.same(*COMPILE, PWD=str(tmp_path / "link")) == "miss"
    assert desk.same(*COMPILE, PWD=str(desk.root)) == "hit-direct"
    assert desk.same(*COMPILE, PWD="/nowhere") == "hit-direct"


def test_with_a_root_another_checkout_gets_what_names_no_place(desk: Desk, tmp_path: Path) -> None:
    other = Desk(tmp_path / "with-longer-name", desk.store)
    rounds = [(desk, "miss"), (other, "hit-direct"), (other, "hit-direct"), (desk, "hit-direct"), (other, "miss")]
    for number, (each, expected) in enumerate(rounds):
        each.write("main.c", PATHS)
        each.write("value.h", f"#define VALUE {number // 4}\n")
        mapped = f"-ffile-prefix-map={each.root}=."
        words = ("gcc", "-g", mapped, f"-I{each.root}/early", f"-I{each.root}/late", "-c", f"{each.root}/main.c")
        assert each.same(*words, "-o", f"{each.root}/main.o") == expected


def test_with_a_root_depfiles_name_the_place_of_the_checkout(desk: Desk, tmp_path: Path) -> None:
    other = Desk(tmp_path / "two", desk.store)
    for each, expected in ((desk, "miss"), (other, "hit-direct")):
        env = {"HOTPLATE_CC_ROOT": str(each.root)}
        words = ("gcc", "-g", f"-I{each.root}/late", "-MD", "-c", f"{each.root}/main.c", "-o", "main.o")
        assert each.cc(*words, **env).code == 0
        said = (each.root / "main.d").read_text().replace("\\\n", " ").split()
        assert f"{each.root}/value.h" in said and f"{each.root}/late/config.h" in said
        assert all(Path(word).exists() for word in said[1:])
        assert each.counts()[expected] == 1
    assert (desk.root / "main.o").read_bytes() == (other.root / "main.o").read_bytes()
    assert str(desk.root).encode() not in (other.root / "main.o").read_bytes()


def test_what_names_its_place_all_the_same_stays_there(desk: Desk, tmp_path: Path) -> None:
    other = Desk(tmp_path / "two", desk.store)
    for each in (desk, other):
        each.write("main.c", "const char *place = PLACE;\n")
        words = ("gcc", f"-ffile-prefix-map={each.root}=.", f'-DPLACE="{each.root}/data"', "-c", "main.c")
        assert each.same(*words) == "miss"
        assert each.same(*words) == "hit-direct"


def test_what_follows_from_its_places_name_stays_there(desk: Desk, tmp_path: Path) -> None:
    other = Desk(tmp_path / "with-longer-name", desk.store)
    for each in (desk, other):
        each.write("main.c", "int length = sizeof(PLACE);\n")
        words = ("gcc", f"-ffile-prefix-map={each.root}=.", f'-DPLACE="{each.root}/data"', "-c", "main.c")
        assert each.same(*words) == "miss"
        assert each.same(*words) == "hit-direct"
        each.write("main.c", "int length = sizeof(NO_PLACE);\n")
        assert each.same(*words, "-DNO_PLACE=1") == ("miss" if each is desk else "hit-direct")


# --- many at once, damage ------------------------------------------------------------------------


def test_many_at_once(desk: Desk) -> None:
    desk.same(*COMPILE)
    wanted = desk.run(COMPILE, {}), (desk.root / "main.o").read_bytes()
    here = {"HOTPLATE_CACHE_DIR": str(desk.store), "PYTHONPATH": str(Path(__file__).parents[2])}
    code = "from pipeline.fastpath import main; raise SystemExit(main())"
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code, "cc", "--", *COMPILE, "-o", f"{n % 3}.o"],
            cwd=desk.root,
            env={**os.environ, **here},
        )
        for n in range(8)
    ]
    assert [child.wait(300) for child in children] == [0] * 8
    assert [(desk.root / f"{n}.o").read_bytes() for n in range(3)] == [wanted[1]] * 3


@pytest.mark.parametrize(
    ("what", "how"),
    [
        ("cc.v1/??/*", "flip"),
        ("cas.v1/??/*", "flip"),
        pytest.param("?c*.v1/??/*", "cut", marks=STRESS),
        ("cc.v1/*.state", "cut"),
    ],
)
def test_damage_costs_a_compile_at_most(desk: Desk, what: str, how: str) -> None:
    desk.same(*COMPILE)
    for path in desk.store.glob(what):
        path.chmod(0o644)
        data = path.read_bytes()
        if how == "gone":
            path.unlink()
        else:
            middle = len(data) // 2
            path.write_bytes(data[:middle] if how == "cut" else data[:middle] + b"\xff" + data[middle + 1 :])
    desk.same(*COMPILE)
    desk.same(*COMPILE)


def test_without_a_place_for_results_it_is_the_compiler(desk: Desk) -> None:
    blocked = desk.write("blocked", "a file")
    plain = desk.run(COMPILE, {})
    assert desk.cc(*COMPILE, HOTPLATE_CACHE_DIR=str(blocked)) == plain
    assert desk.cc(*COMPILE, HOTPLATE_CACHE_DIR="", HOME="", XDG_CACHE_HOME="") == plain
    assert desk.cc(*COMPILE, HOTPLATE_CC="0") == plain
    assert desk.counts() == {}


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_with_several_jobs(desk: Desk) -> None:
    for n in range(6):
        desk.write(f"s{n}.c", f'#include "value.h"\nint f{n}(void) {{ return VALUE + {n}; }}\n')
    desk.write("Makefile", "all: $(patsubst %.c,%.o,$(wildcard s*.c))\nclean:\n\trm -f s*.o\n")
    code = "from pipeline.fastpath import main; raise SystemExit(main())"
    launcher = f"{sys.executable} -c '{code}' cc -- gcc"
    env = {"HOTPLATE_CACHE_DIR": str(desk.store), "PYTHONPATH": str(Path(__file__).parents[2])}
    for expected in ({"miss": 6}, {"miss": 6, "hit-direct": 6}):
        assert desk.run(["make", "-j4", f"CC={launcher}"], env).code == 0
        made = {path.name: path.read_bytes() for path in desk.root.glob("s*.o")}
        assert desk.counts() == expected
        desk.run(["make", "clean"], {})
        assert desk.run(["make"], {}).code == 0
        assert {path.name: path.read_bytes() for path in desk.root.glob("s*.o")} == made
        desk.run(["make", "clean"], {})


def test_zig_cc(desk: Desk) -> None:
    zig = pytest.importorskip("ziglang").__file__.replace("__init__.py", "zig")
    desk.env = {
        "ZIG_GLOBAL_CACHE_DIR": str(desk.root / "zig-cache"),
        "ZIG_LOCAL_CACHE_DIR": str(desk.root / "zig-local"),
    }
    target = ("-target", "riscv32-freestanding", "-Iearly", "-Ilate")
    words = (zig, "cc", *target, "-g", "-O1", "-MD", "-c", "main.c", "-o", "main.o")
    assert desk.same(*words, outputs=("main.o", "main.d")) == "miss"
    assert desk.same(*words, outputs=("main.o", "main.d")) == "hit-direct"
    desk.write("early/config.h", "#define CONFIG 20\n")
    assert desk.same(*words, outputs=("main.o", "main.d")) == "miss"


@pytest.mark.stress
def test_random_edits_against_the_compiler(desk: Desk) -> None:
    random = Random(16)
    headers = ("value.h", "late/config.h", "early/config.h", "early/value.h", "value.h.old")
    flags: tuple[list[str], ...] = (
        [],
        ["-O2"],
        ["-g"],
        ["-DVALUE=7"],
        ["-MMD"],
        ["-MD", "-MF", "z.d"],
        ["-iquote", "early"],
        ["-include", "value.h"],
    )
    for step in range(150):
        name = random.choice(headers)
        match random.randrange(4):
            case 0:
                path = desk.root / name
                path.write_text(f"#define {'VALUE' if 'value' in name else 'CONFIG'} {random.randrange(4)}\n")
            case 1:
                (desk.root / name).unlink(missing_ok=True)
            case 2:
                (desk.root / "main.c").write_text(MAIN + "\n" * random.randrange(3))
        words = ("gcc", *random.choice(flags), "-Iearly", "-Ilate", "-c", "main.c", "-o", "main.o")
        desk.same(*words, outputs=("main.o", "main.d", "z.d"))
        assert step >= 0
    assert desk.counts().get("hit-direct", 0) > 20
