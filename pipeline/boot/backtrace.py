"""A panic's report as values: its cause, registers, stack and addresses; and the calls that led there.

Pure; does not know ELF files (`device/symbolizer.py`) or where the lines come from. Knows what ESP-IDF's panic handlers
print (docs "Fatal Errors"), which the reference firmware prints too: Xtensa walks its stack itself (`Backtrace:`),
RISC-V prints registers and a piece of the stack, and the walk is ours. Invariant: a frame is one that the device
printed, or one that the frame information of the ELF gives; nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from cache.named_tuple import NamedTuple
from pipeline.boot.log_patterns import LineKind, line_kinds

MAX_LINES = 200
MAX_FRAMES = 64

_REGISTER = r"\b([A-Z][A-Z0-9]*(?:/[A-Z]+)?) *: 0x([0-9a-fA-F]{8})\b"
_BACKTRACE = r"^Backtrace: *(?:\|<-CORRUPTED|(?:0x[0-9a-fA-F]{8}:0x[0-9a-fA-F]{8}))"
_PAIR = r"0x([0-9a-fA-F]{8}):0x[0-9a-fA-F]{8}"
_STACK = r"^([0-9a-fA-F]{8}):((?: +0x[0-9a-fA-F]{8})+)$"
_ELF = r"^ELF file SHA256: +([0-9a-fA-F]{8,64})$"
_DUMPED_CORE = r"^Core +(\d+) register dump:"
_PANICKED_CORE = r"Core +(\d+) panic'ed|\bon core (\d+)|\bon CPU ?(\d+)"
_ABORT = r"^abort\(\) was called at PC 0x([0-9a-fA-F]{8})"

_RISCV_REGISTERS = (
    *("ZERO", "RA", "SP", "GP", "TP", "T0", "T1", "T2", "S0/FP", "S1"),
    *("A0", "A1", "A2", "A3", "A4", "A5", "A6", "A7"),
    *("S2", "S3", "S4", "S5", "S6", "S7", "S8", "S9", "S10", "S11", "T3", "T4", "T5", "T6"),
)
RISCV_NUMBERS: Mapping[str, int] = {name: number for number, name in enumerate(_RISCV_REGISTERS)}
"""DWARF numbers of the registers that a RISC-V dump names (riscv-elf-psabi)."""

RA, SP = RISCV_NUMBERS["RA"], RISCV_NUMBERS["SP"]


class Dump(NamedTuple):
    """What a panic handler printed. `elf_sha256`: the running ELF, as far as the device names it (9 to 64 digits).
    `core` and `others`: whose registers and calls these are, and what was printed of the cores that did not panic,
    where the device tells its cores apart."""

    cause: str
    registers: Mapping[str, int]
    backtrace: tuple[int, ...]
    stack: Mapping[int, int]
    """Address -> word."""
    elf_sha256: str
    core: int | None = None
    others: tuple[Dump, ...] = ()


def is_backtrace(line: str) -> bool:
    """Does the line list calls? A panic prints one, and so do watchdogs that let the firmware go on."""
    return re.match(_BACKTRACE, line) is not None


class _CoreSection:
    """What was printed of one core, as it grows."""

    def __init__(self, core: int | None) -> None:
        self.core = core
        self.registers: dict[str, int] = {}
        self.stack: dict[int, int] = {}
        self.backtrace: tuple[int, ...] = ()

    @property
    def told(self) -> bool:
        return bool(self.registers or self.backtrace)

    def take(self, line: str) -> None:
        if aborted := re.match(_ABORT, line):
            self.registers["PC"] = int(aborted[1], 16)
        if is_backtrace(line):
            self.backtrace = tuple(int(pc, 16) for pc in re.findall(_PAIR, line))[:MAX_FRAMES]
        elif words := re.match(_STACK, line):
            for index, word in enumerate(words[2].split()):
                self.stack[int(words[1], 16) + 4 * index] = int(word, 16)
        else:
            self.registers.update((name, int(value, 16)) for name, value in re.findall(_REGISTER, line))

    def dump(self, cause: str, elf_sha256: str) -> Dump:
        return Dump(cause, self.registers, self.backtrace, self.stack, elf_sha256, self.core)


def parse_dump(lines: Iterable[str]) -> Dump | None:
    """The last panic in `lines` (or backtrace without one), or `None` when there is none with an address."""
    cause, named, guilty = "", "", None
    sections: list[_CoreSection] = []
    for line in lines:
        core = re.match(_DUMPED_CORE, line)
        panics = LineKind.PANIC in line_kinds(line) and core is None
        if panics and (not cause or any(section.told for section in sections)):
            cause, named, guilty, sections = line, "", None, []
        if not cause and (is_backtrace(line) or core is not None):
            cause = line
        if not cause:
            continue
        if panics and guilty is None and (blamed := re.search(_PANICKED_CORE, line)):
            guilty = int(blamed[1] or blamed[2] or blamed[3])
        if core is not None:
            # What stands before the first dump (the PC of an abort) is the panicking core's own.
            if sections and sections[-1].core is None:
                sections[-1].core = int(core[1])
            else:
                sections.append(_CoreSection(int(core[1])))
        elif elf := re.match(_ELF, line):
            named = elf[1].lower() if elf[1].strip("0") else named
        else:
            if not sections:
                sections.append(_CoreSection(None))
            sections[-1].take(line)
    return _chosen(cause, named, guilty, [section for section in sections if section.told])


def _chosen(cause: str, named: str, guilty: int | None, sections: Sequence[_CoreSection]) -> Dump | None:
    """The dump of the core that panicked (the first, where nobody says which), with the others beside it."""
    if not sections:
        return None
    mine = next((section for section in sections if guilty is not None and section.core == guilty), sections[0])
    others = tuple(section.dump(cause, named) for section in sections if section is not mine)
    return mine.dump(cause, named)._replace(others=others)


class PanicCollector:
    """Takes lines as they come, and gives back the lines of each panic once it is complete."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    @property
    def collecting(self) -> bool:
        """Has a panic begun whose end was not seen?"""
        return bool(self._lines)

    def feed(self, line: str) -> list[str]:
        """One more line; the panic that ends with it (or was ended by it), else nothing."""
        found = line_kinds(line)
        if self._lines and found & {LineKind.REBOOTING, LineKind.BANNER, LineKind.RESET}:
            return self.flush()
        if self._lines or LineKind.PANIC in found:
            self._lines.append(line)
        return self.flush() if len(self._lines) >= MAX_LINES else []

    def flush(self) -> list[str]:
        """The link is quiet: what was collected is all there is."""
        lines, self._lines = self._lines, []
        return lines


# --- the walk ---------------------------------------------------------------------------------


class FrameRule(NamedTuple):
    """How to find the caller of a function at one address (a row of DWARF's call frame information): the frame begins
    at register `base` plus `offset`, and `saved` registers lie at these offsets from there."""

    base: int
    offset: int
    saved: Mapping[int, int]


def walk(dump: Dump, rule: Callable[[int], FrameRule | None]) -> tuple[int, ...]:
    """The addresses of the calls, innermost first: what the device printed, or its stack walked by `rule`. All but the
    first lie within the call instruction, not behind it, so that they name the line of the call."""
    if dump.backtrace:
        return dump.backtrace
    names = dump.registers
    pc = names.get("MEPC", names.get("PC"))
    if pc is None:
        return ()
    if "MEPC" not in names:
        return (pc,)
    registers = {number: names[name] for name, number in RISCV_NUMBERS.items() if name in names}
    return (pc, *_callers(pc, registers, dump.stack, rule))


def _callers(
    pc: int, registers: dict[int, int], stack: Mapping[int, int], rule: Callable[[int], FrameRule | None]
) -> list[int]:
    calls: list[int] = []
    while len(calls) < MAX_FRAMES and registers.get(RA, 0) > 0:
        found = rule(pc)
        if found is None and calls:
            break
        # A jump to nowhere has no rule: its caller is still in RA, and the stack is as it was there.
        if found is not None:
            frame = registers.get(found.base, 0) + found.offset
            for register, offset in found.saved.items():
                value = stack.get(frame + offset)
                if value is None and register == RA:
                    return calls
                registers[register] = value if value is not None else 0
            if calls and RA not in found.saved:
                break
            registers[SP] = frame
        pc = registers[RA] - 1
        if calls and pc == calls[-1]:
            break
        calls.append(pc)
    return calls


# --- for people -------------------------------------------------------------------------------


class Frame(NamedTuple):
    """One call. `function` and `file` are empty where the ELF does not know the address."""

    address: int
    function: str = ""
    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        if not self.function and not self.file:
            return f"0x{self.address:08x} not in this ELF"
        place = f" at {self.file}:{self.line}" if self.file else ""
        return f"0x{self.address:08x} {self.function or '??'}{place}"


def trace_lines(frames: Sequence[Frame], elf: str, *, named: bool, core: str = "") -> list[str]:
    """The decoded trace. `named`: the device said that it runs this ELF; otherwise it is assumed. `core` says whose
    calls these are, where the device has several."""
    how = "named by the device" if named else "assumed: the device did not name its ELF"
    return [f"Backtrace{core}, decoded with {elf} ({how}):", *(f"  #{n} {frame}" for n, frame in enumerate(frames))]
