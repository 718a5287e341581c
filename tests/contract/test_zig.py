"""The zig toolchain with the real compiler and the real esptool, on a program of a few lines.

One cold build serves most tests: the others are made from its cache or compile a single file.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.effects.clock import SystemClock
from pipeline.effects.process import SystemProcessRunner
from pipeline.engine.engine import Engine
from pipeline.engine.results import BuiltinCall, BuiltinError, RunResult
from pipeline.engine.workspace import BuildSteps, Directories, Host
from pipeline.formats import elf, otadata
from pipeline.formats.partitions import decode_table
from pipeline.model import Failure, FailureCategory, Stage, Tool
from pipeline.toolchain import builtins, zig
from pipeline.toolchain.distribution import program_digest

pytestmark = pytest.mark.needs_zig

SOURCES: Mapping[str, str] = {
    "app/main.c": """
#include "half.h"
#include "desc.h"
static volatile uint64_t state = 5;
__attribute__((section(".appdesc"), used)) const uint32_t descriptor[64] = {0xABCD5432, VERSION};
void main(void) { for (;;) state = half(state); }
""",
    "app/half.c": '#include "half.h"\nuint64_t half(uint64_t n)\n{\n    return n / 2;\n}\n',
    "app/start.S": """
#include "desc.h"
.section .entry, "ax"
.globl _start
_start:
    la sp, __stack_top
    call main
""",
    "inc/half.h": "#pragma once\n#include <stdint.h>\nuint64_t half(uint64_t n);\n",
    "inc/desc.h": "#define MAGIC 0xABCD5432\n",
    "boot/boot.S": '.section .entry, "ax"\n.globl _start\n_start:\n    j _start\n',
    "app.ld": """
ENTRY(_start)
MEMORY {
  iram (RWX) : ORIGIN = 0x40380000, LENGTH = 0x8000
  dram (RW) : ORIGIN = 0x3FC88000, LENGTH = 0x42E00
  irom (RX) : ORIGIN = 0x42000020, LENGTH = 0x7FFFE0
  drom (R) : ORIGIN = 0x3C000020, LENGTH = 0x7FFFE0
}
SECTIONS {
  .iram : ALIGN(4) { KEEP(*(.entry)) . = ALIGN(4); } > iram
  .flash.text : ALIGN(4) { *(.text .text.*) . = ALIGN(4); } > irom
  __page = (0x20 + SIZEOF(.flash.text) + 0xFFFF) & ~0xFFFF;
  .flash.rodata (0x3C000020 + __page) : { KEEP(*(.appdesc)) *(.rodata .rodata.*) . = ALIGN(4); } > drom
  .data : ALIGN(16) { *(.data .data.* .sdata .sdata.*) . = ALIGN(4); } > dram
  .bss (NOLOAD) : ALIGN(16) { *(.bss .bss.* .sbss .sbss.*) } > dram
  __stack_top = ORIGIN(dram) + LENGTH(dram);
  /DISCARD/ : { *(.eh_frame .note.*) }
}
""",
    "boot.ld": """
ENTRY(_start)
SECTIONS { . = 0x403CC710; .iram : { KEEP(*(.entry)) } /DISCARD/ : { *(.eh_frame .note.*) } }
""",
    "partitions.csv": "otadata, data, ota, 0xe000, 0x2000\nota_0, app, ota_0, 0x10000, 1M\nota_1, app, ota_1, , 1M\n",
}

SPEC = zig.BuildSpec(
    profile="local-fast",
    chip="esp32c3",
    app=zig.ProgramSpec(
        ("app/half.c", "app/main.c", "app/start.S"), ("inc",), "app.ld", (), {"app/main.c": ("VERSION=7",)}
    ),
    bootloader=zig.ProgramSpec(("boot/boot.S",), (), "boot.ld", (), {}),
    cflags=(),
    ldflags=(),
    profile_cflags=("-Og",),
    flash_mode="dio",
    flash_freq="80m",
    flash_size="4MB",
    flash_size_bytes=4 << 20,
    partition_csv="partitions.csv",
    partition_offset=0x8000,
)


@dataclass
class ZigProject:
    """One checkout of the program with its own state, and a cache that others may share."""

    root: Path
    cache: Path
    tool: Tool
    runner: SystemProcessRunner
    spec: zig.BuildSpec = SPEC

    @classmethod
    def make(cls, root: Path, cache: Path, tool: Tool, runner: SystemProcessRunner) -> ZigProject:
        for path, text in SOURCES.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        return cls(root, cache, tool, runner)

    def build(self) -> list[RunResult]:
        """One result per stage that was not up to date."""
        state = self.root / ".deploy"
        steps = BuildSteps(zig.actions(self.spec), {"zig": self.tool}, builtins.BUILTINS, zig.run_env(state))
        engine = Engine(Directories(self.root, state, self.cache), steps, Host(self.runner, SystemClock(), 2))
        engine.scan()
        return [
            engine.run(stage, lambda label, done, total: None)
            for stage in (Stage.COMPILE, Stage.LINK)
            if not engine.verdict(stage).up_to_date
        ]

    def edit(self, path: str, old: str, new: str) -> None:
        text = (self.root / path).read_text()
        assert old in text
        (self.root / path).write_text(text.replace(old, new))

    def read(self, name: str) -> bytes:
        return (self.root / "build/local-fast" / name).read_bytes()

    def outputs(self) -> dict[str, bytes]:
        base = self.root / "build"
        return {str(p.relative_to(base)): p.read_bytes() for p in sorted(base.rglob("*")) if p.is_file()}


def count(results: list[RunResult], name: str) -> int:
    assert all(result.ok for result in results), [result.failures for result in results]
    return sum(result.counts[name] for result in results)


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("zig")


@pytest.fixture(scope="module")
def tool(space: Path) -> Tool:
    found = zig.find(space / "state")
    assert isinstance(found, Tool), found
    return found


@pytest.fixture(scope="module")
def runner() -> Iterator[SystemProcessRunner]:
    runner = SystemProcessRunner(SystemClock())
    yield runner
    runner.close()


@pytest.fixture(scope="module")
def cold(space: Path, tool: Tool, runner: SystemProcessRunner) -> tuple[ZigProject, list[RunResult]]:
    project = ZigProject.make(space / "one", space / "cache", tool, runner)
    return project, project.build()


@pytest.fixture
def project(cold: tuple[ZigProject, list[RunResult]], tmp_path: Path) -> ZigProject:
    """A second checkout, brought up to date from the cache of the first."""
    first, _ = cold
    again = ZigProject.make(tmp_path / "deeper/than/one", first.cache, first.tool, first.runner)
    results = again.build()
    assert [r.executed for r in results] == [(), ()]
    return again


def test_cold_build(cold: tuple[ZigProject, list[RunResult]]) -> None:
    project, results = cold
    assert (count(results, "compiled"), count(results, "linked"), count(results, "built")) == (4, 2, 6)
    assert not any(result.warnings or result.notes for result in results)
    assert project.build() == []


def test_identity_is_version_and_content_without_a_path(tool: Tool, space: Path) -> None:
    assert tool.version == "0.17.0"
    assert tool.identity == f"zig 0.17.0 sha256:{program_digest(Path(tool.path), space / 'state')}"


def test_digest_of_a_program_is_remembered_by_stamp(tmp_path: Path) -> None:
    program = tmp_path / "tool"
    for content in (b"one", b"two"):
        program.write_bytes(content)
        for _ in range(2):
            assert program_digest(program, tmp_path / "state") == hashlib.sha256(content).hexdigest()
    (tmp_path / "state/tools.v1.state").write_bytes(b"damaged")
    assert program_digest(program, tmp_path / "state") == hashlib.sha256(b"two").hexdigest()


def test_missing_toolchain_is_a_failure_with_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zig, "package_dir", lambda package: None)
    failure = zig.find(tmp_path)
    assert isinstance(failure, Failure) and failure.category is FailureCategory.TOOLCHAIN_MISSING
    assert "pip install ziglang" in failure.hint


def test_no_path_of_this_machine_in_any_output(cold: tuple[ZigProject, list[RunResult]]) -> None:
    project, _ = cold
    places = [os.fsencode(project.root), os.fsencode(Path(project.tool.path).parent), os.fsencode(project.cache)]
    found = [(name, place) for name, data in project.outputs().items() for place in places if place in data]
    assert found == []


def test_another_checkout_compiled_anew_is_byte_identical(
    cold: tuple[ZigProject, list[RunResult]], tmp_path: Path
) -> None:
    first, _ = cold
    second = ZigProject.make(tmp_path / "a/deeper/checkout", tmp_path / "own-cache", first.tool, first.runner)
    assert count(second.build(), "compiled") == 4
    assert second.outputs() == first.outputs()


def test_image_holds_the_digest_of_the_elf_without_debug_information(cold: tuple[ZigProject, list[RunResult]]) -> None:
    project, _ = cold
    image, stripped = project.read("app.bin"), project.read("app.stripped.elf")
    assert image[0xB0:0xD0] == hashlib.sha256(stripped).digest()
    assert image[:4] == bytes([0xE9, 5, 2, 0x2F]), "magic, segments with padding, DIO, 4 MB at 80 MHz"
    assert struct.unpack_from("<H", image, 12) == (5,), "chip id of the ESP32-C3"
    assert struct.unpack_from("<II", image, 0x20) == (0xABCD5432, 7)
    assert b".debug" in project.read("app.elf") and b".debug" not in stripped
    boot = project.read("bootloader.bin")
    assert boot[0] == 0xE9 and hashlib.sha256(boot[:-32]).digest() == boot[-32:]


def test_strip_keeps_what_is_loaded(cold: tuple[ZigProject, list[RunResult]]) -> None:
    from esptool.bin_image import ELFFile

    project, _ = cold
    full, stripped = ELFFile(project.read("app.elf")), ELFFile(project.read("app.stripped.elf"))

    def loaded(file: ELFFile) -> list[tuple[str, int, bytes]]:
        return sorted((s.name, s.addr, bytes(s.data)) for s in file.sections)

    assert loaded(stripped) == loaded(full) and len(loaded(full)) == 4
    params = {"chip": "esp32c3", "flash_mode": "dio", "flash_freq": "80m", "flash_size": "4MB"}
    images = [builtins.elf2image(call(project.read(name), **params)) for name in ("app.elf", "app.stripped.elf")]
    assert images[0] == images[1]
    assert stripped.entrypoint == full.entrypoint == 0x40380000
    assert elf.strip(project.read("app.stripped.elf")) == project.read("app.stripped.elf")


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"\x7fELF\x02\x01" + bytes(60), bytes(100)])
def test_strip_refuses_what_is_no_elf32(data: bytes) -> None:
    assert elf.strip(data) == "this is not a 32-bit little-endian ELF file"


def test_strip_survives_truncation(cold: tuple[ZigProject, list[RunResult]]) -> None:
    data = cold[0].read("bootloader.elf")
    for length in range(0, len(data), 7):
        assert isinstance(elf.strip(data[:length]), str)


def test_tables(cold: tuple[ZigProject, list[RunResult]]) -> None:
    project, _ = cold
    rows = decode_table(project.read("partitions.bin"))
    assert [row.name for row in rows] == ["otadata", "ota_0", "ota_1"]  # type: ignore[union-attr]
    assert otadata.select(project.read("otadata.bin"), 2) == 0


@pytest.mark.parametrize(("old", "new"), [("{\n", "{\n    // in the middle\n"), ("}\n", "}\n// at the end\n")])
def test_comment_edit_leaves_the_image_alone(project: ZigProject, old: str, new: str) -> None:
    before = project.outputs()
    stamps = {
        name: (project.root / "build/local-fast" / name).stat().st_mtime_ns for name in ("app.bin", "otadata.bin")
    }
    project.edit("app/half.c", old, new)
    results = project.build()
    assert count(results, "compiled") == 1
    changed = {name for name, data in project.outputs().items() if data != before[name]}
    assert changed <= {"local-fast/obj/app/app/half.c.o", "local-fast/app.elf"}
    # Linked only if the object changed (line numbers), stripped then; the image is not even made again.
    assert count(results, "linked") == count(results, "built") == len(changed) // 2
    assert {name: (project.root / "build/local-fast" / name).stat().st_mtime_ns for name in stamps} == stamps
    assert project.build() == []


def test_real_edit(project: ZigProject) -> None:
    image = project.read("app.bin")
    project.edit("app/half.c", "n / 2", "n / 4")
    results = project.build()
    assert [r.executed for r in results] == [("compile app/half.c",), ("link app", "strip app", "image app")]
    assert project.read("app.bin") != image
    assert project.build() == []


def test_header_of_assembler_and_c(project: ZigProject) -> None:
    project.edit("inc/desc.h", "0xABCD5432", "0xABCD5433")
    results = project.build()
    assert sorted(results[0].executed) == ["compile app/main.c", "compile app/start.S"]
    assert project.build() == []


def test_define_belongs_to_its_file(project: ZigProject) -> None:
    project.spec = SPEC._replace(app=SPEC.app._replace(defines={"app/main.c": ("VERSION=8",)}))
    assert project.build()[0].executed == ("compile app/main.c",)
    assert struct.unpack_from("<I", project.read("app.bin"), 0x24) == (8,)


def test_profile_flags_win(project: ZigProject) -> None:
    project.spec = SPEC._replace(profile="release", profile_cflags=("-Os",))
    compile_ = next(action for action in zig.actions(project.spec) if action.name == "compile app/half.c")
    assert compile_.argv.index("-Os") > max(compile_.argv.index(flag) for flag in ("-g", "-Iinc"))
    assert {path.split("/")[1] for action in zig.actions(project.spec) for path in action.outputs} == {"release"}


def test_compile_error_is_gcc_style_and_leaves_nothing(project: ZigProject) -> None:
    project.edit("app/half.c", "return n / 2;", "return m / 2;")
    (result,) = [r for r in project.build() if r.failures][:1]
    (failure,) = result.failures
    assert failure.exit_code == 1
    assert "app/half.c:4:12: error: use of undeclared identifier 'm'" in failure.stderr
    assert not (project.root / "build/local-fast/obj/app/app/half.c.o").exists()
    project.edit("app/half.c", "return m / 2;", "return n / 2;")
    assert project.build()[0].executed == ()


def test_date_is_an_error(project: ZigProject) -> None:
    project.edit("app/half.c", "return n / 2;", "return __DATE__[0];")
    failure = project.build()[0].failures[0]
    assert "date-time" in failure.stderr


def test_link_error_names_the_symbol(project: ZigProject) -> None:
    project.edit("app/half.c", "uint64_t half(uint64_t n)", "uint64_t other(uint64_t n)")
    failure = project.build()[-1].failures[0]
    assert failure.action == "link app" and "undefined symbol: half" in failure.stderr


def call(*inputs: bytes, **params: str) -> BuiltinCall:
    return BuiltinCall(tuple(f"in{n}" for n in range(len(inputs))), inputs, params)


def test_elf2image_refusal_is_an_error_value(capsys: pytest.CaptureFixture[str]) -> None:
    params = {"chip": "esp32c3", "flash_mode": "dio", "flash_freq": "80m", "flash_size": "4MB"}
    refused = builtins.elf2image(call(b"not an ELF", **params))
    assert isinstance(refused, BuiltinError) and refused.where == "in0"
    assert capsys.readouterr() == ("", "")


def test_partition_errors_have_a_line() -> None:
    params = {"flash_size": str(4 << 20), "table_offset": str(0x8000)}
    refused = builtins.partition_table(call(b"# comment\nbad row\n", **params))
    assert isinstance(refused, BuiltinError) and refused.where == "in0:2"
    assert isinstance(builtins.ota_select(call(b"\xff", **params)), BuiltinError)
    assert builtins.ota_select(call(b"nvs, data, nvs, 0x9000, 0x4000\n", **params)) == [b"\xff" * 0x2000]
