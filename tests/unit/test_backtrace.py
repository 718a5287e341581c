"""Panics as text: what is read from each handler's report, and the walk over a stack, against hand-made frames."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.boot.backtrace import (
    MAX_FRAMES,
    MAX_LINES,
    RA,
    SP,
    Dump,
    Frame,
    FrameRule,
    PanicCollector,
    parse_dump,
    trace_lines,
    walk,
)
from pipeline.boot.log_patterns import LineKind, line_kinds
from pipeline.device.elf_store import ElfStore, identities
from pipeline.device.symbolizer import TraceDecoder, decoded_panic

XTENSA = """\
Guru Meditation Error: Core  1 panic'ed (LoadProhibited). Exception was unhandled.
Core  1 register dump:
PC      : 0x400d1234  PS      : 0x00060f30  A0      : 0x800d5678  A1      : 0x3ffb2710
EXCVADDR: 0x00000000  LBEG    : 0x4000c2e0  LEND    : 0x4000c2f6  LCOUNT  : 0x00000000


Backtrace: 0x400d1234:0x3ffb2710 0x400d5675:0x3ffb2730 0x400d9999:0x3ffb2750


ELF file SHA256: 0123abcde
""".splitlines()
RISCV = """\
Guru Meditation Error: Core  0 panic'ed (Load access fault). Exception was unhandled.
Core  0 register dump:
MEPC    : 0x42000010  RA      : 0x42000104  SP      : 0x3fc80000  GP      : 0x3fc8a600
S0/FP   : 0x3fc80010  S1      : 0x00000001  A0      : 0x00000002  A1      : 0x00000003
MSTATUS : 0x00001881  MTVEC   : 0x40380001  MCAUSE  : 0x00000005  MTVAL   : 0x00000000

Stack memory:
3fc80000: 0x00000000 0x00000000 0x00000000 0x42000204 0x00000000 0x00000000 0x00000000 0x4200030a
3fc80020: 0x11111111 0x22222222

ELF file SHA256: 8dd37cd0bc9dbcd6183848f290629f1f10cd9ee70068d1b53949b4733fba0c69
""".splitlines()


def test_xtensa_prints_its_backtrace() -> None:
    dump = parse_dump(XTENSA)
    assert dump is not None
    assert dump.backtrace == (0x400D1234, 0x400D5675, 0x400D9999)
    assert (dump.elf_sha256, dump.registers["EXCVADDR"]) == ("0123abcde", 0)
    assert walk(dump, lambda pc: None) == dump.backtrace


def test_a_corrupted_backtrace_is_read_as_far_as_it_goes() -> None:
    dump = parse_dump([*XTENSA[:3], "Backtrace: 0x400d1234:0x3ffb2710 |<-CORRUPTED"])
    assert dump is not None and dump.backtrace == (0x400D1234,)


def test_riscv_prints_registers_and_stack() -> None:
    dump = parse_dump(["noise", *RISCV])
    assert dump is not None
    assert dump.cause.startswith("Guru Meditation Error: Core  0 panic'ed (Load access fault)")
    assert (dump.registers["MEPC"], dump.registers["S0/FP"]) == (0x42000010, 0x3FC80010)
    assert (dump.stack[0x3FC8000C], dump.stack[0x3FC80024], len(dump.stack)) == (0x42000204, 0x22222222, 10)
    assert len(dump.elf_sha256) == 64


def test_the_last_of_several_panics_counts() -> None:
    dump = parse_dump([*XTENSA, *RISCV])
    assert dump is not None and dump.backtrace == () and dump.registers["MEPC"] == 0x42000010


def test_a_backtrace_needs_no_panic() -> None:
    dump = parse_dump(["E (5) task_wdt: hello", XTENSA[6]])
    assert dump is not None and walk(dump, lambda pc: None) == (0x400D1234, 0x400D5675, 0x400D9999)


def test_abort_names_where() -> None:
    dump = parse_dump(["abort() was called at PC 0x42001234 on core 0"])
    assert dump is not None and walk(dump, lambda pc: None) == (0x42001234,)


@pytest.mark.parametrize("lines", [[], ["hello"], ["Guru Meditation Error: Core  0 panic'ed (x)"]])
def test_no_panic_no_dump(lines: list[str]) -> None:
    assert parse_dump(lines) is None


@given(st.lists(st.sampled_from([*XTENSA, *RISCV, "x", "Backtrace:"]) | st.text(max_size=40), max_size=30))
def test_any_lines_give_a_dump_or_none(lines: list[str]) -> None:
    dump = parse_dump(lines)
    assert dump is None or len(walk(dump, lambda pc: FrameRule(SP, 16, {RA: -4}))) <= MAX_FRAMES + 1


# --- the walk ---------------------------------------------------------------------------------

RULES = {
    0x42000000: FrameRule(SP, 0, {}),  # a leaf: RA still holds the caller
    0x42000100: FrameRule(SP, 16, {RA: -4}),
    0x42000200: FrameRule(SP, 16, {RA: -4}),
}


def rule(pc: int) -> FrameRule | None:
    return RULES.get(pc & ~0xFF)


def riscv() -> Dump:
    dump = parse_dump(RISCV)
    assert dump is not None
    return dump


def test_the_stack_is_walked_by_the_rules() -> None:
    assert walk(riscv(), rule) == (0x42000010, 0x42000103, 0x42000203, 0x42000309)


def test_a_jump_to_nowhere_has_its_caller_in_ra() -> None:
    lost = riscv()._replace(registers={**riscv().registers, "MEPC": 0})
    assert walk(lost, rule) == (0, 0x42000103, 0x42000203, 0x42000309)


def test_the_walk_ends_where_the_dump_does() -> None:
    short = riscv()._replace(stack={0x3FC8000C: 0x42000204})
    assert walk(short, rule) == (0x42000010, 0x42000103, 0x42000203)


def test_a_stack_that_runs_in_circles_ends() -> None:
    circle = riscv()._replace(stack={0x3FC80000 + 4 * n: 0x42000204 for n in range(4096)})
    assert len(walk(circle, rule)) <= MAX_FRAMES + 1


# --- live -------------------------------------------------------------------------------------


def test_a_panic_is_complete_when_the_chip_restarts() -> None:
    collector = PanicCollector()
    for line in ("before", *RISCV):
        assert collector.feed(line) == []
    assert collector.collecting
    assert collector.feed("Rebooting...") == RISCV
    assert not collector.collecting


def test_a_panic_without_an_end_is_bounded() -> None:
    collector = PanicCollector()
    given_back = [
        len(lines) for n in range(MAX_LINES + 5) if (lines := collector.feed("Guru Meditation" if n == 0 else "x"))
    ]
    assert given_back == [MAX_LINES]


def test_what_a_trace_looks_like() -> None:
    frames = [Frame(0x42000010, "boom", "src/a.c", 7), Frame(0x42000020, "start"), Frame(0x40000000)]
    assert trace_lines(frames, "build/app.elf", named=False) == [
        "Backtrace, decoded with build/app.elf (assumed: the device did not name its ELF):",
        "  #0 0x42000010 boom at src/a.c:7",
        "  #1 0x42000020 start",
        "  #2 0x40000000 not in this ELF",
    ]


# --- a real ELF, by another compiler than the end-to-end tests use ------------------------------

GCC = "riscv64-unknown-elf-gcc"
SOURCE = """\
__attribute__((noinline)) void boom(int n) {
    *(volatile int *)8 = n;
}
__attribute__((noinline)) int middle(int n) {
    boom(n);
    return n + 1;
}
void _start(void) {
    middle(3);
    for (;;) {
    }
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    if shutil.which(GCC) is None:
        pytest.skip(f"{GCC} is not installed")
    path = tmp_path_factory.mktemp("elf")
    (path / "boom.c").write_text(SOURCE)
    flags = ["-march=rv32imc", "-mabi=ilp32", "-O1", "-g", "-fno-optimize-sibling-calls", "-nostdlib"]
    subprocess.run([GCC, *flags, "-Ttext=0x42000000", "boom.c", "-o", "boom.elf"], cwd=path, check=True)
    return (path / "boom.elf").read_bytes()


def test_lines_functions_and_frames_of_gcc(program: bytes) -> None:
    decoder = TraceDecoder(program)
    boom = decoder.frame(0x42000000)
    assert (boom.function, Path(boom.file).name, boom.line) == ("boom", "boom.c", 2)
    assert decoder.frame(0x50000000) == Frame(0x50000000)
    starts = {name: start for start, _, name in decoder._functions}
    middle = decoder.rule(starts["middle"] + 6)
    assert middle is not None and middle.base == SP and RA in middle.saved
    assert decoder.rule(0x50000000) is None


def test_an_elf_is_found_by_what_it_calls_itself_and_by_nothing_else(program: bytes, tmp_path: Path) -> None:
    store = ElfStore(tmp_path, tmp_path / ".deploy", tmp_path / "cache")
    ours, whole = identities(program)
    assert store.find(ours) is None
    elf = tmp_path / "build/app.elf"
    elf.parent.mkdir()
    elf.write_bytes(program)
    for identity in (ours, whole, ours[:9].upper(), whole[:9]):
        found = store.find(identity)
        assert found is not None and found.data == program and found.shown == "build/app.elf"
    assert store.find(ours[:7]) is None and store.find("") is None, "too short to name a build"

    store.keep("build/app.elf")
    elf.write_bytes(program + b"another build")
    found = store.find(ours)
    assert found is not None and found.data == program, "from the store, though build/ holds another"
    assert store.find("0" * 64) is None


@pytest.mark.parametrize("damage", ["blob", "index", "gone"])
def test_a_damaged_store_costs_the_backtrace_alone(program: bytes, tmp_path: Path, damage: str) -> None:
    store = ElfStore(tmp_path, tmp_path / ".deploy", tmp_path / "cache")
    (tmp_path / "app.elf").write_bytes(program)
    store.keep("app.elf")
    entry = tmp_path / ".deploy/elfs.v1" / identities(program)[0]
    (blob,) = (path for path in (tmp_path / "cache/cas.v1").rglob("*") if path.is_file())
    if damage == "blob":
        blob.chmod(0o600)
        blob.write_bytes(program[:100])
    elif damage == "index":
        entry.write_text("nonsense")
    else:
        blob.unlink()
    ours = identities(program)[0]
    assert store.find(ours) is None
    lines = [*RISCV[:-1], f"ELF file SHA256: {ours}"]
    assert decoded_panic(lines, store, "") == (f"Backtrace: no ELF with app_elf_sha256 {ours} is known here",)
    store.keep("app.elf")
    assert store.find(ours) is not None


def test_what_is_no_elf_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no ELF file"):
        TraceDecoder(b"\x7fELF nonsense")
    (tmp_path / "build").mkdir()
    data = b"\x7fELF\x01\x01 cut off"
    (tmp_path / "build/app.elf").write_bytes(data)
    store = ElfStore(tmp_path, tmp_path / ".deploy", tmp_path / "cache")
    (said,) = decoded_panic(RISCV[:-1], store, identities(data)[0])
    assert said.startswith("Backtrace: build/app.elf cannot be decoded: ")
    assert decoded_panic(["hello"], store, "") == ()


# --- several cores ----------------------------------------------------------------------------

XTENSA_WDT = [
    "Guru Meditation Error: Core  1 panic'ed (Interrupt wdt timeout on CPU1).",
    "",
    "Core  1 register dump:",
    "PC      : 0x400d1111  PS      : 0x00060d34  A0      : 0x800d2222  A1      : 0x3ffb1000",
    "Backtrace: 0x400d1111:0x3ffb1000 0x400d2222:0x3ffb1020",
    "",
    "Core  0 register dump:",
    "PC      : 0x400e3333  PS      : 0x00060d34  A0      : 0x800e4444  A1      : 0x3ffb2000",
    "Backtrace: 0x400e3333:0x3ffb2000 0x400e4444:0x3ffb2020",
    "",
    "ELF file SHA256: 000000000",
]
RISCV_WDT = [
    "Guru Meditation Error: Core  0 panic'ed (Load access fault). Exception was unhandled.",
    "Core  1 register dump:",
    "MEPC    : 0x42001111  RA      : 0x42002222  SP      : 0x3fc90000",
    "Stack memory:",
    "3fc90000: 0x00000001 0x00000002",
    "Core  0 register dump:",
    "MEPC    : 0x42003333  RA      : 0x42004444  SP      : 0x3fc91000",
    "Stack memory:",
    "3fc91000: 0x00000003 0x00000004",
]


def test_the_trace_is_of_the_core_that_panicked_on_xtensa() -> None:
    dump = parse_dump(XTENSA_WDT)
    assert dump is not None and dump.core == 1 and dump.backtrace == (0x400D1111, 0x400D2222)
    assert [(other.core, other.backtrace) for other in dump.others] == [(0, (0x400E3333, 0x400E4444))]


def test_the_trace_is_of_the_core_that_panicked_on_riscv() -> None:
    dump = parse_dump(RISCV_WDT)
    assert dump is not None and dump.core == 0 and dump.registers["MEPC"] == 0x42003333
    assert dump.stack == {0x3FC91000: 3, 0x3FC91004: 4}
    assert [(other.core, other.registers["MEPC"]) for other in dump.others] == [(1, 0x42001111)]


def test_an_elf_of_zeros_is_not_named() -> None:
    dump = parse_dump(XTENSA_WDT)
    assert dump is not None and dump.elf_sha256 == ""


def test_a_register_dump_alone_is_a_panic() -> None:
    dump = parse_dump(RISCV_WDT[1:4])
    assert dump is not None and (dump.cause, dump.core) == ("Core  1 register dump:", 1)
    assert PanicCollector().feed("Core  0 register dump:") == [] and LineKind.PANIC in line_kinds(
        "Core 0 register dump:"
    )


@pytest.mark.parametrize("cause", ["abort() was called at PC 0x42001234 on core 1", "Stack smashing protect failure!"])
def test_what_stands_before_the_first_dump_belongs_to_it(cause: str) -> None:
    dump = parse_dump([cause, *RISCV_WDT[1:4]])
    assert dump is not None and dump.cause == cause and dump.core == 1 and dump.others == ()
