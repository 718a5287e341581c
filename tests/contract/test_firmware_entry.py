"""The reference firmware from every state in which a ROM, or the program before, could leave the chip: both stages rely
on what the ROM defines and on nothing else."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests import firmware_build as fb

fb.need_tools()

from unicorn import riscv_const as reg  # noqa: E402

from tests.firmware_device import FirmwareBench, ready_of  # noqa: E402
from virtualboard import rom  # noqa: E402
from virtualboard.rv32 import Rv32Machine  # noqa: E402

pytestmark = pytest.mark.needs_zig

LOCAL_FAST = ("-O1", "-fno-inline", "-fno-optimize-sibling-calls")
"""The other profile of `deploy.toml`; the tests' own build is like `release`."""


@pytest.fixture(scope="session", params=["release", "local-fast"])
def firmware(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> fb.BuiltFirmware:
    return fb.shared(tmp_path_factory, cflags=() if request.param == "release" else LOCAL_FAST)


def scramble(machine: Rv32Machine, dice: random.Random) -> None:
    """Registers, CSRs and peripherals as nobody promises them, behind the ROM's jump to the second stage.

    The ROM defines: program counter, stack, privilege; watchdogs in flash boot mode, the UART's rate; that no interrupt
    is pending and enabled at once (with interrupts on, nothing could guard the first instruction)."""
    cpu = machine._uc
    for number in set(range(1, 32)) - {2}:
        cpu.reg_write(reg.UC_RISCV_REG_X0 + number, dice.getrandbits(32))
    for csr in (reg.UC_RISCV_REG_MSCRATCH, reg.UC_RISCV_REG_MEPC, reg.UC_RISCV_REG_MCAUSE, reg.UC_RISCV_REG_MTVAL):
        cpu.reg_write(csr, dice.getrandbits(32))
    cpu.reg_write(reg.UC_RISCV_REG_MTVEC, dice.getrandbits(24) << 8 | 1)
    interrupts_on = dice.random() < 0.5
    cpu.reg_write(reg.UC_RISCV_REG_MSTATUS, dice.choice((0, 0x80)) | dice.choice((0, 0x1800)) | 8 * interrupts_on)
    uart, timer, matrix = machine._io.uart, machine._io.systimer, machine._io.matrix
    for offset in (0x0C, 0x24):
        uart.write(offset, dice.getrandbits(22))
    for offset in (*range(0x1C, 0x40, 4), 0x64, 0x50, 0x54, 0x58, 0x00):
        timer.write(offset, dice.getrandbits(32))
    for offset in (*range(0, 0xF8, 4), 0x108, *range(0x114, 0x198, 4)):
        matrix.write(offset, dice.getrandbits(32))
    matrix.write(matrix.ENABLE, 0 if interrupts_on else dice.getrandbits(32))
    for offset in (0x48, 0x4C, 0x50, 0x54, 0x58, 0x5C):
        machine._io.groups[1].write(offset, dice.getrandbits(32) & 0x7FFFFFFF)
    for index in range(128):
        machine._io.mmu.write(4 * index, dice.getrandbits(9))
    machine._io.gates.write(4, dice.getrandbits(2))
    for page, offsets in ((0x04, range(0, 0x700, 4)), (0x09, range(0, 0x60, 4)), (0xC0, range(0x28, 0x38, 4))):
        for offset in offsets:
            machine._on_io_write(page << 12 | offset, dice.getrandbits(32))


@pytest.mark.parametrize("seed", range(6))
def test_boots_from_any_state(firmware: fb.BuiltFirmware, seed: int) -> None:
    dice = random.Random(seed)
    bench = FirmwareBench(fb.deployed(firmware))
    machine = bench.machine
    machine._memory.sram[:] = dice.randbytes(len(machine._memory.sram))
    machine.reset(rom.POWERON)
    scramble(machine, dice)
    log = bench.settle()
    assert ready_of(log)["app_elf_sha256"] == firmware.identity
    assert "rejected" not in log and "Guru" not in log
    assert machine.idle and machine.pending_reset is None
    bench.pass_time(7.5)
    assert bench.call("info")["uptime_ms"] == 7500
    health = bench.call("health")
    assert health["ok"] and all(module["setup_ok"] for module in health["modules"])
    assert bench.machine.run(100_000) == 0, "it rests: nothing that was left over wakes it"
    assert machine._io.read(0x4000 + 0x554 + 4 * 8, 4) == 128, "the LED's pin is driven by its register"


def test_an_application_that_leaves_interrupts_on_panics_as_on_the_chip(
    firmware: fb.BuiltFirmware, tmp_path: Path
) -> None:
    """What the mask ROM showed: MCAUSE 0x80000002 as soon as the timer's line is enabled."""
    edit = {"firmware/port/esp32c3/start.S": ("    begin_stage\n", "    begin_stage\n    csrsi   mstatus, 8\n")}
    careless = fb.variant(firmware, tmp_path, edit)
    bench = FirmwareBench(fb.deployed(careless))
    log = bench.start()
    assert "Guru Meditation Error: Core  0 panic'ed (Unexpected interrupt). Exception was unhandled." in log
    assert "MCAUSE  : 0x80000002" in log and "ready" not in log
    assert bench.machine.pending_reset == rom.SW_CPU
