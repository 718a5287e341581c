"""What stands where the CPU is: how the board drives it, which one a chip has, and a clock that can be held.

Does not know the loader, lines or transports. Invariant: there is always a machine; where no code can be executed it
is the ROM alone, which says why.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from virtualboard import rom
from virtualboard.chips import ChipModel
from virtualboard.nor import NorFlash
from virtualboard.rom_elf import RomElf, RomElfError, rom_elf_of
from virtualboard.rom_only import RomOnly

_ROUNDING_S = 1e-9


class Machine(Protocol):
    """The CPU with its peripherals (`rv32.Rv32Machine`), or the ROM alone (`rom_only`), as the board drives it."""

    @property
    def idle(self) -> bool: ...
    @property
    def wake_at(self) -> float | None: ...
    @property
    def pending_reset(self) -> int | None: ...
    def reset(self, cause: int) -> None: ...
    def start(self, entry: int, segments: Sequence[rom.RomSegment]) -> None: ...
    def feed(self, data: bytes) -> None: ...
    def run(self, max_instructions: int) -> int: ...
    def transmit(self) -> bytes: ...
    @property
    def usb(self) -> bool: ...
    @usb.setter
    def usb(self, on: bool) -> None: ...


MachineFactory = Callable[[NorFlash, Mapping[int, int], Callable[[], float]], Machine]


def executing(rom_elf: RomElf | None = None) -> MachineFactory:
    """What makes a machine that executes, with the functions of its owner's ROM or those that come with it."""

    def make(flash: NorFlash, registers: Mapping[int, int], now: Callable[[], float]) -> Machine:
        cpu = importlib.import_module("virtualboard.rv32").Rv32Machine(flash, registers, now, rom_elf)
        cpu.remarks = True
        machine: Machine = cpu
        return machine

    return make


def rom_of(chip: ChipModel, named: Path | None, environment: Mapping[str, str]) -> RomElf | None:
    """The mask ROM that its owner brings for a board of `chip` (`rom_elf.rom_elf_of`); None where nothing executes, so
    that nobody needs it. Raises RomElfError."""
    if chip.cpu:
        return rom_elf_of(chip.name, named, environment)
    if named is not None:
        raise RomElfError(f"{named}: error: a virtual {chip.title} executes nothing\nLeave the ROM ELF out.")
    return None


def make_machine(
    chip: ChipModel,
    flash: NorFlash,
    registers: Mapping[int, int],
    now: Callable[[], float],
    *,
    execute: bool,
    factory: MachineFactory | None,
) -> Machine:
    """The machine of `chip`: one that executes where there is a model, its package, and the wish."""
    try:
        if not execute:
            reason = "this board was started without a CPU"
        elif not chip.cpu:
            reason = f"there is no CPU model for {chip.title}"
        else:
            return (factory or executing())(flash, registers, now)
    except ImportError as exc:
        reason = f"{exc.name or exc} cannot be imported (pip install 'hotplate[board]')"
    return RomOnly(chip, flash, now, reason)


class HeldClock:
    """A clock that stands while it is held: the machine's, while the second stage's work is modelled as a wait."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._from = self.until = now()
        self._stood = 0.0  # seconds, in holds that are over

    def hold(self, for_s: float) -> None:
        """Stand for so long from now; a hold before ends."""
        now = self._now()
        self._stood += max(0.0, min(now, self.until) - self._from)
        self._from, self.until = now, now + for_s

    def skip(self, seconds: float) -> None:
        """Seconds that pass outside and not here."""
        self._stood += seconds

    @property
    def held(self) -> bool:
        """Whether it stands."""
        return self.until > self._now()

    def now(self) -> float:
        """Seconds on this clock."""
        now = self._now()
        return now - max(0.0, min(now, self.until) - self._from) - self._stood

    def outside(self, instant: float) -> float:
        """When `instant` of this clock, which is not held, has come on the outer one; rounded up, or a sleeper that
        wakes then might find that it is not quite time, for ever."""
        behind = self._now() - self.now()
        return instant + behind + _ROUNDING_S if behind else instant
