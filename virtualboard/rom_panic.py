"""What the ESP32-C3's ROM prints for a trap that nobody else handles: of a program without vectors of its own.

Pure: registers in, text out. The form is that of ESP-IDF's panic handler, which the ROM's own resembles but for the
single space in `Core 0` (measured under an emulator); decoders read both.
"""

from __future__ import annotations

from collections.abc import Sequence

_NAMES = (
    *("MEPC", "RA", "SP", "GP", "TP", "T0", "T1", "T2", "S0/FP", "S1", "A0", "A1", "A2", "A3", "A4", "A5"),
    *("A6", "A7", "S2", "S3", "S4", "S5", "S6", "S7", "S8", "S9", "S10", "S11", "T3", "T4", "T5", "T6"),
    *("MSTATUS", "MTVEC", "MCAUSE", "MTVAL"),
)
_CAUSES = {
    0: "Instruction address misaligned",
    1: "Instruction access fault",
    2: "Illegal instruction",
    3: "Breakpoint",
    4: "Load address misaligned",
    5: "Load access fault",
    6: "Store address misaligned",
    7: "Store access fault",
    8: "Environment call from U-mode",
    11: "Environment call from M-mode",
}


def rom_panic(registers: Sequence[int], *, status: int, vectors: int, cause: int, value: int) -> bytes:
    """`registers`: x0 to x31 with the program counter in place of x0."""
    values = [*registers, status, vectors, cause, value]
    cells = [f"{name:<8}: 0x{word:08x}  " for name, word in zip(_NAMES, values, strict=True)]
    reason = _CAUSES.get(cause, "Unexpected interrupt")
    lines = [f"Guru Meditation Error: Core 0 panic'ed ({reason}). Exception was unhandled.", "Core 0 register dump:"]
    lines += ["".join(cells[at : at + 4]) for at in range(0, len(cells), 4)]
    return "".join(line + "\r\n" for line in ["", *lines]).encode()
