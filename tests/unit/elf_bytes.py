"""ELF files for 32-bit RISC-V, byte by byte."""

from __future__ import annotations

import struct

EXECUTABLE, RISCV = 2, 243


def elf(
    *parts: tuple[int, bytes] | tuple[int, bytes, int], machine: int = RISCV, bits: int = 1, order: int = 1
) -> bytes:
    """An executable with a program header for each (address, content[, physical address])."""
    at = 52 + 32 * len(parts)
    headers, body = b"", b""
    for address, content, *physical in parts:
        where = at + len(body)
        headers += struct.pack("<8I", 1, where, address, *(physical or [address]), len(content), len(content), 7, 4)
        body += content
    identity = b"\x7fELF" + bytes([bits, order, 1]) + bytes(9)
    fields = (EXECUTABLE, machine, 1, 0, 52, 0, 0, 52, 32, len(parts), 0, 0, 0)
    return identity + struct.pack("<HHIIIIIHHHHHH", *fields) + headers + body
