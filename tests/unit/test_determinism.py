"""The finder of what differs between two builds: blame along the graph, and places in ELF files of a real compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.measure.bench.generated_project import template_elf
from pipeline.measure.loop.determinism import Culprit, FirstDifference, blame, locate
from pipeline.model import Action, Stage

CLOCK = """
const int version = 7;
const char built[] = "built at " __TIME__;
int twice(int x) { return 2 * x; }
"""
LITERAL = """
extern void out(const char *);
void hello(void) { out("hello, this text never moves"); }
void banner(void) { out("compiled " __TIME__); }
"""


def action(name: str, reads: str, makes: str) -> Action:
    return Action(name, Stage.COMPILE, tuple(reads.split()), tuple(makes.split()), argv=("cc",))


def test_blame_stops_at_the_first_action_that_differs() -> None:
    actions = [
        action("stamp", "tool.py", "stamp.h"),
        action("a", "a.c", "a.o"),
        action("b", "b.c", "b.o"),
        action("link", "a.o b.o", "app.elf"),
    ]
    same = {"stamp.h": b"1", "a.o": b"1", "b.o": b"1", "app.elf": b"1"}
    assert blame(actions, {}, same, same) == []
    clock = {**same, "b.o": b"2", "app.elf": b"2"}
    assert blame(actions, {}, same, clock) == [("b", "b.o")], "the link follows from the object"
    generated = dict.fromkeys(same, b"2")
    reads = {"a": ["stamp.h"], "b": ["stamp.h"]}
    assert blame(actions, reads, same, generated) == [("stamp", "stamp.h")], "a discovered header is an input too"
    assert blame(actions, {}, same, {**same, "app.elf": b"2"}) == [("link", "app.elf")]
    missing = {name: data for name, data in same.items() if name != "a.o"}
    assert blame(actions, {}, same, missing) == [("a", "a.o")]


def test_a_file_that_is_no_elf_has_an_offset_and_its_text() -> None:
    assert locate(b"made 12:00:01 UTC", b"made 12:00:02 UTC") == FirstDifference(
        "", "", 12, "'made 12:00:01 UTC'", "'made 12:00:02 UTC'"
    )
    assert locate(b"\0\1\2\3", b"\0\1\2\3\4") == FirstDifference("", "", 4, "the end", "04")
    culprit = Culprit("stamp", "build/stamp.h", locate(b"x\0\1\2", b"x\0\1\3"))
    assert str(culprit) == "build/stamp.h (action stamp): offset 0x3: 02 -> 03"


def test_a_section_without_symbols_is_named() -> None:
    one = template_elf()
    at = one.index(bytes(252))
    place = locate(one, one[: at + 5] + b"X" + one[at + 6 :])
    assert (place.section, place.symbol, place.offset) == (".flash.appdesc", "", 4 + 5)


@given(st.data())
def test_damaged_elf_files_still_give_the_offset(data: st.DataObject) -> None:
    one = template_elf()
    at = data.draw(st.integers(4, len(one) - 1))
    value = data.draw(st.integers(0, 255).filter(lambda value: value != one[at]))
    place = locate(one, one[:at] + bytes([value]) + one[at + 1 :])
    assert place.before != place.after or place.section
    assert locate(one[:at], one).before == "the end" or locate(one[:at], one).section


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[bytes, bytes]]:
    """name -> the same source compiled at two times (clang takes the time of `__TIME__` from SOURCE_DATE_EPOCH)."""
    pytest.importorskip("ziglang")
    where = tmp_path_factory.mktemp("objects")
    found = {}
    for name, text in (("clock", CLOCK), ("literal", LITERAL)):
        (where / f"{name}.c").write_text(text)
        found[name] = (compiled(where, name, "1"), compiled(where, name, "2"))
    found["linked"] = (linked(where, *found["clock"][:1]), linked(where, *found["clock"][1:]))
    return found


FLAGS = ["-target", "riscv32-freestanding-none", "-Oz", "-g", "-fno-sanitize=all", "-ffunction-sections"]


def zig(where: Path, *words: str, epoch: str = "0") -> None:
    # zig's own cache does not know SOURCE_DATE_EPOCH: one cache per time
    cache = {f"ZIG_{kind}_CACHE_DIR": str(where / f"zig{epoch}") for kind in ("LOCAL", "GLOBAL")}
    env = {**os.environ, **cache, "SOURCE_DATE_EPOCH": epoch}
    subprocess.run([sys.executable, "-m", "ziglang", *words], cwd=where, env=env, check=True, timeout=300)


def compiled(where: Path, name: str, epoch: str) -> bytes:
    words = [*FLAGS, "-Wno-date-time", "-c", f"{name}.c", "-o", f"{name}{epoch}.o"]
    zig(where, "cc", *words, epoch=epoch)
    return (where / f"{name}{epoch}.o").read_bytes()


def linked(where: Path, data: bytes) -> bytes:
    (where / "one.o").write_bytes(data)
    zig(where, "ld.lld", "-m", "elf32lriscv", "-e", "twice", "one.o", "-o", "app.elf")
    return (where / "app.elf").read_bytes()


@pytest.mark.needs_zig
@pytest.mark.parametrize(
    ("name", "section", "symbol"),
    [
        ("clock", ".rodata", "built+"),
        ("linked", ".rodata", "built+"),
        ("literal", ".rodata", "banner (refers to it)"),
    ],
)
def test_a_clock_string_is_found_by_section_symbol_and_offset(
    objects: dict[str, tuple[bytes, bytes]], name: str, section: str, symbol: str
) -> None:
    place = locate(*objects[name])
    assert place.section.startswith(section)
    assert place.symbol.startswith(symbol), place
    assert "00:00:01" in place.before and "00:00:02" in place.after
    if name == "clock":
        # "built at 00:00:01": the last digit is byte 16 of the object `built`
        assert place.symbol == "built+0x10"
