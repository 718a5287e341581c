"""CSRs of the ESP32-C3 that unicorn lacks, and physical memory protection, which is stored and not enforced.

unicorn raises an illegal instruction for a CSR that it does not know, and checks PMP entries in a way of its own: with
ESP-IDF's entries it refuses what the chip allows, and names no address. So its PMP stays off. Knows the encoding of CSR
instructions (RISC-V unprivileged specification, chapter "Zicsr"); does not know unicorn. Invariant: `access` changes
one register of the CPU at most, and returns False for an instruction that is not about one of these CSRs.

Sources: ESP32-C3 Technical Reference Manual, chapter 1 (performance counter, GPIO access); RISC-V debug specification
(triggers).
"""

from __future__ import annotations

from collections.abc import Callable

PMP = range(0x3A0, 0x3F0)
_CYCLES = 0x7E2
_USER_CYCLES = 0x802
"""The counter: what `esp_cpu_get_cycle_count` reads, and what the ROM's delays do."""
_STORED = frozenset({*PMP, *range(0x7A0, 0x7A6), *range(0x7E0, 0x7E3), *range(0x800, 0x806)})
_SYSTEM = 0x73
_CYCLES_A_READ = 512
"""Instructions take no time here, but a loop that waits for the counter must see it move."""


def csr_of(word: int) -> int | None:
    """Number of the CSR that the instruction reads or writes; None for another instruction."""
    return word >> 20 if word & 0x7F == _SYSTEM and word >> 12 & 3 else None


class ExtraCsrs:
    """`hz` and `now` (seconds) drive the cycle counter."""

    def __init__(self, now: Callable[[], float], hz: int) -> None:
        self._now, self._hz = now, hz
        self._stored: dict[int, int] = {}
        self.reset()

    def reset(self) -> None:
        """As after a reset of the CPU."""
        self._stored.clear()
        self._zero, self._reads = self._now(), 0

    def access(self, word: int, read: Callable[[int], int], write: Callable[[int, int], None]) -> bool:
        """Do what the instruction `word` does. `read` and `write` are for general registers by number."""
        number = csr_of(word)
        if number is None or number not in _STORED:
            return False
        number = _CYCLES if number == _USER_CYCLES else number
        function, source, target = word >> 12 & 7, word >> 15 & 31, word >> 7 & 31
        operand = source if function & 4 else read(source)
        old = self._value(number)
        new = (operand, old | operand, old & ~operand)[(function & 3) - 1]
        if target:
            write(target, old)
        if function & 3 == 1 or source:
            self._store(number, new & 0xFFFFFFFF)
        return True

    def _value(self, number: int) -> int:
        if number == _CYCLES:
            self._reads += 1
            return self._ticks() + self._stored.get(_CYCLES, 0) & 0xFFFFFFFF
        return self._stored.get(number, 0)

    def _store(self, number: int, value: int) -> None:
        self._stored[number] = value - self._ticks() if number == _CYCLES else value

    def _ticks(self) -> int:
        return int((self._now() - self._zero) * self._hz) + self._reads * _CYCLES_A_READ
