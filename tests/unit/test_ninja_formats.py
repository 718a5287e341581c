"""Ninja's logs as literal bytes and damaged ones, what commands are, what Python says that it read, path macros."""

from __future__ import annotations

import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.formats.file_macro import Carriers, PathWords, carriers, path_words, uses_path
from pipeline.formats.map_option import map_files
from pipeline.formats.ninja.hashes import murmur64, rapidhash
from pipeline.formats.ninja.logs import (
    DepsWriter,
    LogEntry,
    OutputDeps,
    hash_command,
    log_head,
    log_lines,
    parse_deps,
    parse_log,
)
from pipeline.formats.ninja.shell import CommandKind, read_command, simple_commands
from pipeline.formats.place_macros import mentions, place_macros
from pipeline.formats.python_trace import parse_trace

# --- logs: bytes that ninja 1.11 and 1.13 wrote --------------------------------------------------------

LOG_7 = b"# ninja log v7\n" + (
    b"0\t2\t1795938989824842473\tc\t6a870179d0bffc25\n0\t6\t1795938989820316293\ta.o\t3cceabc2b7cf4e92\n"
)
COMMAND_C = ": 1"
COMMAND_A = (
    'cp a.c a.o && echo "a.o: a.c hdr.h" > a.o.d # 1 a.c a long command line to have more than forty eight bytes'
)
DEPS = (
    b"# ninjadeps\n\x04\0\0\0"
    b"\x08\0\0\0a.o\0\xff\xff\xff\xff"
    b"\x08\0\0\0a.c\0\xfe\xff\xff\xff"
    b"\x0c\0\0\0hdr.h\0\0\0\xfd\xff\xff\xff"
    b"\x14\0\0\x80\0\0\0\0" + struct.pack("<Q", 1795938989830170202) + b"\x01\0\0\0\x02\0\0\0"
)


def test_a_log_of_ninja_and_its_hashes() -> None:
    found = parse_log(LOG_7)
    assert (found.version, found.lines) == (7, 2)
    assert found.entries["c"] == LogEntry("c", 0, 2, 1795938989824842473, hash_command(7, COMMAND_C))
    assert found.entries["a.o"].command_hash == hash_command(7, COMMAND_A)
    assert log_head(7) + log_lines(found.entries.values()) == LOG_7


def test_hashes_of_every_branch() -> None:
    # As ninja 1.11 logged them.
    assert hash_command(5, "cd /tmp/cm/build && /usr/bin/cmake -E echo always") == 0xDF3A4CAA017BC0A7
    copy = "cd /tmp/cm/build && /usr/bin/cmake -E copy /tmp/cm/src/gen.in gen.h"
    assert hash_command(6, copy) == 0xD4D876AB21A46A74
    sizes = (0, 1, 3, 4, 8, 16, 17, 32, 33, 48, 49, 96, 97, 200)
    assert len({rapidhash(b"x" * n) for n in sizes}) == len(sizes)
    assert len({murmur64(b"x" * n) for n in sizes}) == len(sizes)


@pytest.mark.parametrize("text", [b"", b"# ninja log v4\n0 0 0 a b\n", b"garbage", b"# ninja log v99999999\n"])
def test_a_log_that_ninja_would_start_over_from_is_none(text: bytes) -> None:
    assert parse_log(text).version == 0


def test_a_log_with_damaged_lines_keeps_the_others() -> None:
    data = LOG_7.replace(b"\n0\t6", b"\nnonsense\n1\t2\n1\t2\tx\td\te\n0\t6") + b"0\t1\t5\tcut"
    assert parse_log(data).entries == parse_log(LOG_7).entries


def test_a_deps_log_of_ninja() -> None:
    found = parse_deps(DEPS)
    assert found.paths == ["a.o", "a.c", "hdr.h"]
    assert found.deps == {"a.o": OutputDeps(1795938989830170202, ("a.c", "hdr.h"))}
    assert found.size == len(DEPS)
    assert DepsWriter([], empty=True).records("a.o", found.deps["a.o"]) == DEPS
    more = DepsWriter(found.paths, empty=False).records("b.o", OutputDeps(7, ("hdr.h", "new.h")))
    again = parse_deps(DEPS + more)
    assert again.deps["b.o"] == OutputDeps(7, ("hdr.h", "new.h"))
    assert again.paths[-2:] == ["b.o", "new.h"]


@given(st.integers(0, len(DEPS) - 1), st.integers(1, 255))
def test_a_damaged_deps_log_is_read_up_to_the_damage(at: int, mask: int) -> None:
    flipped = bytearray(DEPS)
    flipped[at] ^= mask
    for data in (bytes(flipped), DEPS[:at]):
        found = parse_deps(data)
        assert 0 <= found.size <= len(data)
        again = parse_deps(data[: found.size])
        assert (again.paths, again.deps) == (found.paths, found.deps)


# --- what commands are ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("/usr/bin/cc -I. -MD -MF x.d -o x.o -c ../x.c", CommandKind.COMPILE),
        ("ccache riscv32-esp-elf-g++ -o x.o -c x.cpp", CommandKind.COMPILE),
        ("/opt/zig cc -o x.o -c x.c", CommandKind.COMPILE),
        (r"cc -DNAME=\"a\ b\" '-DX=$y' -o x.o -c x.c", CommandKind.COMPILE),
        (": && /usr/bin/cc a.o -o app -lm && :", CommandKind.LINK),
        (": && cc a.o -o app && cd /p/b && /usr/bin/cmake -E echo done", CommandKind.LINK),
        (": && cmake -E rm -f l.a && ar qc l.a a.o && ranlib l.a && :", CommandKind.ARCHIVE),
        ("cd /p/b && /usr/bin/cmake -E echo nothing", CommandKind.QUIET),
        ("cd /p/boot && /usr/bin/cmake --build .", CommandKind.NESTED),
        ("cd boot && ninja", CommandKind.NESTED),
        ("cd /p && python3 tools/gen_esp32part.py a b", CommandKind.PYTHON),
        ("cd /p && python -m esptool x && cmake -E md5sum a > stamp", CommandKind.PYTHON),
        # everything else
        ("cc -o x.o -c x.c $(flags)", CommandKind.CUSTOM),
        ("cc -o x.o -c x.c > log", CommandKind.CUSTOM),
        ("cc -o x.o -c x.c | tee log", CommandKind.CUSTOM),
        ("cc -o x.o -c *.c", CommandKind.CUSTOM),
        ("A=1 cc -o x.o -c x.c", CommandKind.CUSTOM),
        ("cc -o x.o -c x.c; true", CommandKind.CUSTOM),
        ("cc -o x.o -c x.c && strip x.o", CommandKind.CUSTOM),
        ("cc --coverage -o x.o -c x.c", CommandKind.CUSTOM),
        ("cc -march=native -o x.o -c x.c", CommandKind.CUSTOM),
        ("cc -gsplit-dwarf -o x.o -c x.c", CommandKind.CUSTOM),
        ("cc -fplugin=p.so -o x.o -c x.c", CommandKind.CUSTOM),
        ("clang --config=c.cfg -o x.o -c x.c", CommandKind.CUSTOM),
        ("clang --config c.cfg a.o -o app", CommandKind.CUSTOM),
        ("clang -ivfsoverlay v.yaml -o x.o -c x.c", CommandKind.CUSTOM),
        ("clang -fpass-plugin=p.so -o x.o -c x.c", CommandKind.CUSTOM),
        ("clang -Xclang -load -Xclang p.so -o x.o -c x.c", CommandKind.CUSTOM),
        ("clang -fsanitize-coverage-allowlist=l.txt -o x.o -c x.c", CommandKind.CUSTOM),
        ("clang -fprofile-sample-use=p.prof -o x.o -c x.c", CommandKind.CUSTOM),
        ("cc -x c-header x.h -o x.h.gch", CommandKind.CUSTOM),
        ("cc x.hpp -o x.hpp.gch", CommandKind.CUSTOM),
        ("cc -o x.o -c x.c y.c", CommandKind.CUSTOM),
        ("cc -c x.c", CommandKind.CUSTOM),
        ("cc x.c -o app", CommandKind.CUSTOM),
        ("cc a.o -o app -Wl,--version-script=v.map", CommandKind.CUSTOM),
        ("cc a.o -o app -Wl,-z,now,-version-script=v.map", CommandKind.CUSTOM),
        ("cc a.o -o app -Xlinker --retain-symbols-file=k.txt", CommandKind.CUSTOM),
        ("cc a.o -o app -Wl,-retain-symbols-file,k.txt", CommandKind.CUSTOM),
        ("cc a.o -o app -Xlinker --dependency-file=x.d", CommandKind.CUSTOM),
        ("cc a.o -o app -Wl,@more.rsp", CommandKind.CUSTOM),
        ("cc a.o -o app -Wl,-rpath,/opt/-retained -Wl,--dynamic-linker=/lib/ld.so -Xlinker -Map=m", CommandKind.LINK),
        ("cc -B ../tools -o x.o -c x.c", CommandKind.CUSTOM),
        ("cc -fopt-info-vec=x.txt -o x.o -c x.c", CommandKind.CUSTOM),
        ("cc -fopt-info -Og -o x.o -c x.c", CommandKind.COMPILE),
        ("cc a.o -B../tools -o app", CommandKind.CUSTOM),
        ("cc -Wa,-mx,-adhln=x.lst -o x.o -c x.c", CommandKind.CUSTOM),
        ("cc -Xassembler -aln=x.lst -o x.o -c x.c", CommandKind.CUSTOM),
        ("cc -Wa,@more.rsp -o x.o -c x.c", CommandKind.CUSTOM),
        ("cc -Wa,--noexecstack,-I,asm -o x.o -c x.c", CommandKind.COMPILE),
        ("ar ru l.a a.o", CommandKind.CUSTOM),
        ("cd boot && cmake --build . && cmake -E touch stamp", CommandKind.CUSTOM),
        ("cmake --build . --target flash", CommandKind.CUSTOM),
        ("", CommandKind.CUSTOM),
    ],
)
def test_what_a_command_is(text: str, kind: CommandKind) -> None:
    assert read_command(text).kind is kind, read_command(text)


def test_white_space_that_no_shell_separates_by_is_no_word() -> None:
    """The class of plain words lists it; a command that has any is looked at piece by piece, and refused."""
    spaces = [char for char in map(chr, range(sys.maxunicode + 1)) if char.isspace() and char not in " \t"]
    assert len(spaces) > 20
    assert [char for char in spaces if simple_commands(f"cc -c a{char}b") is not None] == []
    assert simple_commands("cc\t-c a")


def test_words_as_a_shell_makes_them() -> None:
    found = simple_commands(r"""cd 'a b' && x "c \"d\" $1" """)
    assert found is None  # a variable
    found = simple_commands(r"""cd 'a b' && x "c \"d\"" e\ f -D#g '' """)
    assert found is not None
    assert [(one.directory, one.words) for one in found] == [("a b", ("x", 'c "d"', "e f", "-D#g", ""))]


@given(st.lists(st.sampled_from(["cc", "-DA=1", "a/b.c", "&&", " ", "\t", "\u00a0", "&", "x\\ y", "@f", "1%2"])))
def test_a_command_of_words_alone_is_read_as_one_with_quotes(pieces: list[str]) -> None:
    text = " ".join(["cc", *pieces])
    quoted = simple_commands(f"{text} ''")
    assert (quoted is None) == (simple_commands(f"{text} x") is None)
    if quoted is not None:
        *others, last = simple_commands(f"{text} x") or ()
        assert quoted == (*others, last._replace(words=(*last.words[:-1], "")))


def test_the_maps_of_a_link() -> None:
    words = ("cc", "-Wl,-Map=a.map", "-Wl,--Map,b.map", "-Xlinker", "-Map", "-Xlinker", "c.map")
    assert map_files(words) == ["a.map", "b.map", "c.map"]


# --- what Python says ---------------------------------------------------------------------------------------


def test_a_trace() -> None:
    text = "R\t/p/a.py\nR\t/p/__pycache__/b.cpython-311.pyc\nM\t/p/none.cfg\nW\t/p/out\nR\t/p/out\nM\t/p/out\n"
    found = parse_trace(text)
    assert found.read == ("/p/a.py", "/p/b.py")
    assert (found.missing, found.written, found.unknown) == (("/p/none.cfg",), ("/p/out",), "")


@pytest.mark.parametrize(
    ("more", "unknown"),
    [
        ("L\t/p\n", "/p"),
        ("N\tos.system\n", "os.system"),
        ("P\t/p/gcc\nP\t/p/-c\n", "/p/gcc"),
        ("P\t/opt/riscv32-esp-elf-objdump\nP\t/p/-h\nP\t/p/lib.a\n", ""),
        ("R\t/p/cut", "no trace"),
    ],
)
def test_what_a_trace_does_not_tell(more: str, unknown: str) -> None:
    found = parse_trace(f"R\t/p/a.py\n{more}")
    assert found.unknown == unknown
    assert ("/p/lib.a" in found.read) == ("lib.a" in more)


def test_no_trace_tells_nothing() -> None:
    assert parse_trace("").unknown == "no trace"


# --- macros that hold a path ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "source", "uses"),
    [
        ("#define assert(x) fail(__FILE__, x)", "int f(void) { return 1; }", False),
        ("#define assert(x) fail(__FILE__, x)", "int f(void) { assert(1); }", True),
        ("#define A __FILE__\n#define B(x) \\\n  A x", "int f(void) { return B(1); }", True),
        ("#define LOG_ERROR __FILE__\n#define LOG(l) LOG_##l", "int f(void) { LOG(ERROR); }", True),
        ("#define CAT(a, b) a##b", "int CAT(f, g)(void) { return 1; }", False),
        ("", "const char *f = __FILE__;", True),
        ("", "auto f = std::source_location::current();", True),
        ("#define X __FILE_NAME__", "const char *f = X;", False),
    ],
)
def test_what_may_come_to_the_path_of_its_file(header: str, source: str, uses: bool) -> None:
    texts = [path_words(text.encode()) for text in (header, source)]
    assert uses_path(texts[1], carriers(texts)) == uses


_MACROS = st.sampled_from(["A", "B", "C", "PASTED", "__FILE__", "__FI ## LE__", "FI ## x", "x ## PAST", "A ## B"])
_TEXTS = st.lists(st.tuples(st.sampled_from(["A", "B", "C", "D", "PASTED"]), _MACROS), max_size=4).map(
    lambda pairs: path_words("".join(f"#define {name} {body}\n" for name, body in pairs).encode())
)


@given(st.lists(_TEXTS, max_size=3), _TEXTS)
def test_what_headers_carry_beside_one_source(texts: list[PathWords], own: PathWords) -> None:
    shared = Carriers(texts)
    assert shared.beside(own) == carriers([*texts, own])
    assert shared.alone == carriers(texts)


@pytest.mark.parametrize(
    ("words", "macros", "other"),
    [
        ("-I{root}/inc -isystem {root}/x -o {root}/a.o -c {root}/a.c -DN=1", set(), False),
        ("-DTREE={root} -DTWO=TREE -DTHREE=TWO+1 -DOTHER", {b"TREE", b"TWO", b"THREE"}, False),
        ("-D CALL(x)=x{root} -DN=1", {b"CALL"}, False),
        ("-ffile-prefix-map={root}=. -fdebug-prefix-map={root}=.", set(), False),
        ("-frandom-seed={root}/a.c", set(), True),
        ("-Xassembler {root}/a", set(), True),
        ("-Xassembler -I{root}/a -Xassembler --debug-prefix-map={root}=.", set(), False),
        ("-D={root}", set(), True),
    ],
)
def test_what_words_of_a_compile_let_a_result_depend_on_a_place(words: str, macros: set[bytes], other: bool) -> None:
    assert tuple(place_macros(words.split(), ["{root}"])) == (macros, other)


def test_a_text_mentions_a_macro_by_name_in_a_definition_and_pasted() -> None:
    for text in (b"int n = TREE;", b"#define N TREE\n", b"#ifdef TREE\n#endif\n", b"PASTE(TRE, E)"):
        assert mentions(path_words(text), frozenset((b"TREE",))), text
    assert not mentions(path_words(b"int tree = TR + TREES;"), frozenset((b"TREE",)))
