"""The machine's own binding of unicorn's library: the same numbers, and nothing of the package's own binding."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

pytest.importorskip("unicorn", reason="unicorn is not installed")

from importlib.metadata import version

from unicorn import riscv_const, unicorn_const

from virtualboard import rv32_cpu
from virtualboard.rv32_cpu import CpuError, Rv32Cpu

CODE = 0x1000
NOP, LOAD, STORE = 0x00000013, 0x00002503, 0x00A02023  # lw a0, 0(zero); sw a0, 0(zero)
SELF = 0x0000006F


def cpu_with(*words: int) -> Rv32Cpu:
    cpu = Rv32Cpu(1 << 24)
    cpu.mem_map(CODE, 0x1000)
    cpu.mem_write(CODE, b"".join(word.to_bytes(4, "little") for word in words))
    return cpu


def test_the_numbers_are_those_of_the_package() -> None:
    names = ["PC", "PRIV", "X0", "RA", "SP", "A0", "A1", "MSTATUS", "MTVEC", "MEPC", "MCAUSE", "MTVAL"]
    assert {name: getattr(riscv_const, f"UC_RISCV_REG_{name}") for name in names} == {
        name: getattr(rv32_cpu, name) for name in names
    }
    kinds = {"PROT": "PROTECTED", "UNMAPPED": "UNMAPPED"}
    for access in ("READ", "WRITE", "FETCH"):
        for theirs, ours in kinds.items():
            assert getattr(unicorn_const, f"UC_MEM_{access}_{theirs}") == getattr(rv32_cpu, f"{access}_{ours}")
    u = unicorn_const
    hooks = (u.UC_HOOK_INTR, u.UC_HOOK_CODE, u.UC_HOOK_MEM_UNMAPPED | u.UC_HOOK_MEM_PROT, u.UC_HOOK_EDGE_GENERATED)
    assert hooks == (rv32_cpu.HOOK_INTR, rv32_cpu.HOOK_CODE, rv32_cpu.HOOK_BAD_ACCESS, rv32_cpu.HOOK_NEW_BLOCK)
    assert (u.UC_ARCH_RISCV, u.UC_MODE_RISCV32) == (rv32_cpu._RISCV, rv32_cpu._RV32)
    controls = (u.UC_CTL_TB_REMOVE_CACHE, u.UC_CTL_TB_FLUSH, u.UC_CTL_TCG_BUFFER_SIZE, u.UC_CTL_IO_WRITE)
    assert controls == (rv32_cpu._REMOVE_CODE, rv32_cpu._FORGET_CODE, rv32_cpu._CODE_BUFFER, rv32_cpu._WRITE)
    assert version("unicorn") == ".".join(map(str, rv32_cpu.VERSION))


def test_the_package_is_not_imported() -> None:
    code = "import sys, virtualboard.rv32; print('unicorn' in sys.modules, 'inspect' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rv32_cpu, "VERSION", (2, 9, 0))
    with pytest.raises(ImportError, match=r"unicorn 2\.1\.4 is installed, and this board needs 2\.9\.0"):
        rv32_cpu._load()


@pytest.mark.parametrize("hidden", [None, object()])
def test_without_the_package_it_says_so_as_import_does(monkeypatch: pytest.MonkeyPatch, hidden: object) -> None:
    monkeypatch.setitem(sys.modules, "unicorn", hidden)
    with pytest.raises(ModuleNotFoundError) as raised:
        rv32_cpu._load()
    assert raised.value.name == "unicorn"


def test_a_library_that_cannot_be_loaded_is_an_import_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("lib")
    (directory / rv32_cpu._NAMES.get(sys.platform, rv32_cpu._OTHERS)).write_bytes(b"no library")
    monkeypatch.setenv("LIBUNICORN_PATH", str(directory))
    with pytest.raises(ImportError, match="unicorn"):
        rv32_cpu._load()


def test_registers_memory_and_counted_execution() -> None:
    cpu = cpu_with(NOP, NOP, NOP, SELF)
    cpu.emu_start(CODE, 0, 2)
    assert cpu.reg_read(rv32_cpu.PC) == CODE + 8
    cpu.reg_write(rv32_cpu.A0, 0xFFFFFFFE)
    assert cpu.reg_read(rv32_cpu.A0) == 0xFFFFFFFE
    big = bytes(range(256)) * 24
    cpu.mem_map(0x10000, 0x2000)
    cpu.mem_write(0x10000, big)
    assert cpu.mem_read(0x10000, len(big)) == big
    assert cpu.mem_read(0x10001, 3) == b"\1\2\3"
    with pytest.raises(CpuError):
        cpu.mem_read(0x90000, 4)


def refuse(*_arguments: int) -> int:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("word", "set_up"),
    [
        (NOP, lambda cpu: cpu.on_code(refuse, CODE, CODE)),
        (0x73, lambda cpu: cpu.on_interrupt(refuse)),  # ecall
        (LOAD, lambda cpu: cpu.on_bad_access(refuse)),
        (LOAD, lambda cpu: cpu.mmio_map(0, 0x1000, refuse, refuse)),
        (STORE, lambda cpu: cpu.mmio_map(0, 0x1000, refuse, refuse)),
    ],
)
def test_an_exception_of_a_callback_comes_out(word: int, set_up: Callable[[Rv32Cpu], object]) -> None:
    cpu = cpu_with(word, SELF)
    set_up(cpu)
    with pytest.raises(KeyboardInterrupt):
        cpu.emu_start(CODE, 0, 1000)


def test_a_hook_is_called_until_it_is_deleted() -> None:
    cpu = cpu_with(NOP, NOP, SELF)
    seen: list[int] = []
    blocks: list[tuple[int, int]] = []
    hook = cpu.on_code(seen.append, CODE + 4, CODE + 4)
    cpu.on_new_block(lambda address, size: blocks.append((address, size)))
    cpu.emu_start(CODE, 0, 10)
    assert seen == [CODE + 4]
    assert blocks == [(CODE + 8, 4)]
    cpu.hook_del(hook)
    cpu.forget_code()
    cpu.emu_start(CODE, 0, 10)
    assert seen == [CODE + 4]
