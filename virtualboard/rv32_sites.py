"""The instructions that unicorn does not tell of or must not do: `wfi`, those after which interrupts may be on (`mret`,
writes to mstatus), and those that touch PMP registers.

Each is found when the code around it is translated for the first time, wherever it lies, and gets a hook of its own.
Knows instruction encodings (RISC-V privileged specification, chapters 2 and 3); does not know interrupts, traps or
memory maps. Invariant: no `wfi` and no gate is executed before it has its hook, up to `_MAX_SITES` of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from virtualboard.rv32_csr import PMP, csr_of

_WFI = (0x10500073).to_bytes(4, "little")
_MRET = (0x30200073).to_bytes(4, "little")
_FIRST = (0x73, 0xF3)
"""The first bytes of those; most blocks have neither, and that is told at once."""
_LAST = frozenset({0x10, 0x30, *range(0x3A, 0x3F)})
"""And their fourth: of these the instructions are told apart."""
_BLOCK_BYTES = 2048
"""What one translated block covers at most: 512 instructions."""
_MAX_SITES = 256
"""Each hook is looked at for every instruction that is executed."""
_MSTATUS_MIE = 1 << 3


def raises_interrupts(code: bytes) -> bool:
    """Whether this instruction may set mstatus.MIE."""
    word = int.from_bytes(code, "little")
    if code == _MRET:
        return True
    if word & 0x7F != 0x73 or word >> 20 != 0x300:
        return False
    function, source = word >> 12 & 7, word >> 15 & 31
    # csrrw, csrrs with a register, csrrwi and csrrsi with the bit in their operand; the others read or clear.
    return function == 1 or (function == 2 and source != 0) or (function in (5, 6) and bool(source & _MSTATUS_MIE))


def touches_protection(code: bytes) -> bool:
    """Whether this instruction reads or writes a PMP register."""
    number = csr_of(int.from_bytes(code, "little"))
    return number is not None and number in PMP


class Cpu(Protocol):
    """What is needed of the CPU (`rv32_cpu.Rv32Cpu`)."""

    def on_code(self, callback: Callable[[int], None], begin: int, end: int) -> int: ...
    def on_new_block(self, callback: Callable[[int, int], None]) -> int: ...
    def hook_del(self, hook: int) -> None: ...
    def remove_code(self, begin: int, end: int) -> None: ...
    def emu_stop(self) -> None: ...


class CodeSites:
    """Watches the code that `cpu` executes. Before each slice: `begin`; after it: `stopped_at_gate`, `waited_at`.

    `peek` reads memory, and gives nothing where there is none.
    """

    def __init__(self, cpu: Cpu, peek: Callable[[int, int], bytes]) -> None:
        self._cpu, self._peek = cpu, peek
        self._hooks: dict[int, int] = {}
        self._found: list[tuple[int, bytes]] = []
        self.armed = False
        """Stop before a gate: an interrupt waits for it."""
        self._stopped_at: int | None = None
        self._wfi_at: int | None = None
        self._protection_at: int | None = None
        cpu.on_new_block(self._on_block)

    def forget(self) -> None:
        """Other code may lie in memory from now on."""
        for hook in self._hooks.values():
            self._cpu.hook_del(hook)
        self._hooks.clear()
        self._found.clear()

    def begin(self, start: int, *, armed: bool) -> None:
        """A slice begins at `start`, whose block nobody may have announced."""
        self._note(start, self._read(start))
        self._settle()
        self.armed, self._stopped_at, self._wfi_at = armed, None, None
        self._protection_at = None

    def found_more(self) -> bool:
        """Whether the slice ended because a new site has come into sight; it has its hook now."""
        return self._settle()

    @property
    def stopped_at_gate(self) -> int | None:
        """Address of the gate that the slice ended before."""
        return self._stopped_at

    @property
    def protection_at(self) -> int | None:
        """Address of the instruction for a PMP register that the slice ended before."""
        return self._protection_at

    @property
    def waited_at(self) -> int | None:
        """Address of the last `wfi` that was executed."""
        return self._wfi_at

    def _settle(self) -> bool:
        found, self._found = self._found, []
        for address, code in found:
            if address in self._hooks or len(self._hooks) >= _MAX_SITES:
                continue
            self._hooks[address] = self._cpu.on_code(self._callback(code), address, address)
            self._cpu.remove_code(address, address + 4)
        return bool(found)

    def _callback(self, code: bytes) -> Callable[[int], None]:
        if code == _WFI:
            return self._on_wfi
        return self._on_protection if touches_protection(code) else self._on_gate

    def _note(self, start: int, code: bytes) -> bool:
        if 0x73 not in code and 0xF3 not in code:
            return False
        before = len(self._found)
        for first in _FIRST:
            at = code.find(first)
            while 0 <= at < len(code) - 3:
                if code[at + 3] in _LAST:
                    self._note_word(start + at, code[at : at + 4])
                at = code.find(first, at + 1)
        return len(self._found) > before

    def _note_word(self, address: int, word: bytes) -> None:
        if address & 1 or address in self._hooks or len(self._hooks) + len(self._found) >= _MAX_SITES:
            return
        if word == _WFI or raises_interrupts(word) or touches_protection(word):
            self._found.append((address, word))

    def _on_block(self, address: int, size: int) -> None:
        """A block has been translated and is about to run; stopping here stops before its first instruction."""
        if self._note(address, self._peek(address, size)):
            self._cpu.emu_stop()

    def _on_wfi(self, address: int) -> None:
        self._wfi_at = address

    def _on_gate(self, address: int) -> None:
        if self.armed:
            self._stopped_at = address
            self._cpu.emu_stop()

    def _on_protection(self, address: int) -> None:
        self._protection_at = address
        self._cpu.emu_stop()

    def _read(self, address: int) -> bytes:
        """Code from `address`, as far as there is memory."""
        size = _BLOCK_BYTES
        while size >= 2:
            code = self._peek(address, size)
            if code:
                return code
            size //= 2
        return b""
