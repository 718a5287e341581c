"""The gcc toolchain with the real compiler, on the reference firmware. Visibly skipped where it is not installed; what
the firmware then does on the chip is in test_firmware_rpc.py."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config.reader import parse_config
from pipeline.config.schema import DeployConfig
from pipeline.effects.clock import SystemClock
from pipeline.effects.process import SystemProcessRunner
from pipeline.engine.engine import Engine
from pipeline.engine.results import RunResult
from pipeline.engine.workspace import BuildSteps, Directories, Host
from pipeline.errors import ToolError
from pipeline.model import Failure, FailureCategory, Stage, Tool
from pipeline.toolchain import gcc, zig
from pipeline.toolchain.build import Toolchain, build_toolchain
from tests import firmware_build as fb
from tests.contract.small_project import Small
from tests.firmware_device import FirmwareBench, ready_of

needs_gcc = pytest.mark.skipif(shutil.which(gcc.DRIVER) is None, reason=fb.GCC_MISSING)
HEADER = "firmware/core/gate.h"


class GccProject:
    """A checkout of the reference project that is built with gcc."""

    def __init__(self, root: Path, cache: Path, runner: SystemProcessRunner) -> None:
        self.root, self.cache, self.runner = root, cache, runner
        shutil.copytree(fb.ROOT / "firmware", root / "firmware")
        text = (fb.ROOT / "deploy.toml").read_text().replace('kind = "zig"', 'kind = "gcc"')
        config = parse_config(text)
        assert isinstance(config, DeployConfig)
        self.config = config

    def toolchain(self, profile: str = "local-fast") -> Toolchain:
        return build_toolchain(self.root, self.config, profile, self.root / ".deploy", (), ())

    def build(self, profile: str = "local-fast") -> list[RunResult]:
        """One result per stage that was not up to date."""
        made = self.toolchain(profile)
        state = self.root / ".deploy"
        steps = BuildSteps(made.actions, made.tools, made.builtins, made.run_env)
        engine = Engine(Directories(self.root, state, self.cache), steps, Host(self.runner, SystemClock(), 2))
        engine.scan()
        return [
            engine.run(stage, lambda label, done, total: None)
            for stage in (Stage.COMPILE, Stage.LINK)
            if not engine.verdict(stage).up_to_date
        ]

    def read(self, name: str, profile: str = "local-fast") -> bytes:
        return (self.root / "build" / profile / name).read_bytes()

    def outputs(self) -> dict[str, bytes]:
        base = self.root / "build"
        return {str(p.relative_to(base)): p.read_bytes() for p in sorted(base.rglob("*")) if p.is_file()}


def count(results: list[RunResult], name: str) -> int:
    assert all(result.ok for result in results), [result.failures for result in results]
    return sum(result.counts[name] for result in results)


@pytest.fixture(scope="module")
def runner() -> Iterator[SystemProcessRunner]:
    runner = SystemProcessRunner(SystemClock())
    yield runner
    runner.close()


@pytest.fixture(scope="module")
def cold(tmp_path_factory: pytest.TempPathFactory, runner: SystemProcessRunner) -> tuple[GccProject, list[RunResult]]:
    space = tmp_path_factory.mktemp("gcc")
    project = GccProject(space / "one", space / "cache", runner)
    return project, project.build()


@needs_gcc
def test_cold_build_without_a_word_then_nothing_to_do(cold: tuple[GccProject, list[RunResult]]) -> None:
    project, results = cold
    sources = [*fb.sources(project.root, "app"), *fb.sources(project.root, "boot")]
    assert (count(results, "compiled"), count(results, "linked")) == (len(sources), 2)
    assert not any(result.warnings or result.notes for result in results)
    assert project.build() == []


@needs_gcc
def test_the_image_boots_and_says_what_it_is(cold: tuple[GccProject, list[RunResult]]) -> None:
    project, _ = cold
    identity = hashlib.sha256(project.read("app.stripped.elf")).hexdigest()
    parts = {0: "bootloader", 0x8000: "partitions", 0xE000: "otadata", 0x10000: "app"}
    bench = FirmwareBench(fb.flash_with({offset: project.read(f"{name}.bin") for offset, name in parts.items()}))
    assert ready_of(bench.start())["app_elf_sha256"] == identity
    assert [region["name"] for region in bench.call("image.hashes")["regions"]] == [*list(parts.values())[:3], "ota_0"]
    for reported, name in zip(bench.call("image.hashes")["regions"], parts.values(), strict=True):
        assert reported["sha256"] == hashlib.sha256(project.read(f"{name}.bin")).hexdigest(), name
        assert reported["size"] == len(project.read(f"{name}.bin"))


@needs_gcc
def test_the_release_profile_has_no_test_methods(cold: tuple[GccProject, list[RunResult]]) -> None:
    project, _ = cold
    assert count(project.build("release"), "linked") == 2
    assert b"hangs until its watchdog" in project.read("app.bin")
    assert b"hangs until its watchdog" not in project.read("app.bin", "release")


@needs_gcc
def test_another_checkout_compiled_anew_is_byte_identical(
    cold: tuple[GccProject, list[RunResult]], tmp_path: Path, runner: SystemProcessRunner
) -> None:
    first, _ = cold
    second = GccProject(tmp_path / "a/deeper/checkout", tmp_path / "cache", runner)
    assert count(second.build(), "compiled") > 20
    made = second.outputs()
    assert made == {name: data for name, data in first.outputs().items() if name.startswith("local-fast/")}
    places = [os.fsencode(second.root), b"/usr/lib", os.fsencode(fb.ROOT)]
    assert [(name, place) for name, data in made.items() for place in places if place in data] == []


@needs_gcc
def test_header_edit_compiles_its_users(
    cold: tuple[GccProject, list[RunResult]], tmp_path: Path, runner: SystemProcessRunner
) -> None:
    project = GccProject(tmp_path / "edit", cold[0].cache, runner)
    assert [result.executed for result in project.build()] == [(), ()], "all from the cache"
    header = project.root / HEADER
    header.write_text(header.read_text().replace("60000", "50000"))
    results = project.build()
    assert sorted(results[0].executed) == ["compile firmware/core/gate.c", "compile firmware/core/memlog.c"]


@needs_gcc
def test_compile_error_is_named_by_line(
    cold: tuple[GccProject, list[RunResult]], tmp_path: Path, runner: SystemProcessRunner
) -> None:
    project = GccProject(tmp_path / "error", cold[0].cache, runner)
    source = project.root / "firmware/core/gate.c"
    source.write_text(source.read_text() + "int broken(void) { return m; }\n")
    line = source.read_text().count("\n")
    (failure,) = project.build()[0].failures
    assert f"firmware/core/gate.c:{line}:27: error: 'm' undeclared" in failure.stderr


@needs_gcc
def test_toolchain_name_and_identity(cold: tuple[GccProject, list[RunResult]]) -> None:
    made = cold[0].toolchain()
    driver = made.tools[gcc.DRIVER]
    assert made.name == f"riscv64-unknown-elf-gcc {driver.version}"
    assert driver.identity.startswith(f"{made.name} sha256:") and len(driver.identity.split(":")[1]) == 64
    assert "/" not in driver.identity
    assert str(Path(driver.path)) in made.watched.listed


# --- where a compiler is, without running it --------------------------------------------------------


def install(prefix: Path, *versions: str) -> Path:
    """What packages put below a prefix; the directory for PATH."""
    for name in ("bin/riscv64-unknown-elf-gcc", "riscv64-unknown-elf/bin/as", "riscv64-unknown-elf/bin/ld"):
        (prefix / name).parent.mkdir(parents=True, exist_ok=True)
        (prefix / name).write_text(name)
    for version in versions:
        (prefix / "lib/gcc/riscv64-unknown-elf" / version / "include").mkdir(parents=True)
        (prefix / "lib/gcc/riscv64-unknown-elf" / version / "include/stddef.h").touch()
        (prefix / "libexec/gcc/riscv64-unknown-elf" / version).mkdir(parents=True)
        (prefix / "libexec/gcc/riscv64-unknown-elf" / version / "cc1").write_text(version)
    driver = prefix / "bin/riscv64-unknown-elf-gcc"
    driver.chmod(driver.stat().st_mode | stat.S_IXUSR)
    return driver.parent


def found(tmp_path: Path, search: Path | str) -> tuple[Tool, Tool]:
    tools = gcc.find(tmp_path / "state", str(search))
    assert not isinstance(tools, Failure), tools
    return tools


def test_version_and_parts_come_from_the_installation(tmp_path: Path) -> None:
    driver, library = found(tmp_path, install(tmp_path / "opt", "9.4.0", "12.2.0"))
    assert driver.version == library.version == "12.2.0"
    assert library.path == str(tmp_path / "opt/lib/gcc/riscv64-unknown-elf/12.2.0/include")


@pytest.mark.parametrize(
    "part",
    ["libexec/gcc/riscv64-unknown-elf/12.2.0/cc1", "riscv64-unknown-elf/bin/as", "bin/riscv64-unknown-elf-gcc"],
)
def test_identity_moves_with_every_program_and_not_with_the_place(tmp_path: Path, part: str) -> None:
    one, two = install(tmp_path / "one", "12.2.0"), install(tmp_path / "two", "12.2.0")
    before = found(tmp_path, one)[0].identity
    assert found(tmp_path, two)[0].identity == before
    (tmp_path / "two" / part).write_text("another")
    assert found(tmp_path, two)[0].identity != before


def test_a_driver_earlier_on_the_path_is_watched_for(tmp_path: Path) -> None:
    early, late = tmp_path / "early", install(tmp_path / "late", "12.2.0")
    early.mkdir()
    search = f"{early}:{late}"
    watched = gcc.watched(*found(tmp_path, search), search)
    assert watched.absent == (f"{early}/riscv64-unknown-elf-gcc",)
    assert str(tmp_path / "late/lib/gcc/riscv64-unknown-elf") in watched.listed


def test_a_missing_compiler_names_the_package(
    tmp_path: Path, runner: SystemProcessRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (tmp_path, install(tmp_path / "half")):
        failure = gcc.find(tmp_path / "state", str(place))
        assert isinstance(failure, Failure) and failure.category is FailureCategory.TOOLCHAIN_MISSING
        assert failure.hint.startswith("install gcc-riscv64-unknown-elf")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError, match=gcc.DRIVER):
        GccProject(tmp_path / "project", tmp_path / "cache", runner).toolchain()


def test_both_toolchains_build_for_the_same_chips() -> None:
    assert set(gcc.TARGETS) == set(zig.TARGETS)


@needs_gcc
@pytest.mark.skipif(shutil.which("ccache") is None, reason="ccache is not installed (apt-get install ccache)")
def test_through_ccache_the_same_is_made_and_shared(
    tmp_path: Path, runner: SystemProcessRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    launchers = tmp_path / "lib"
    launchers.mkdir()
    (launchers / gcc.DRIVER).symlink_to(str(shutil.which("ccache")))
    plain = Small(tmp_path / "plain", runner, "gcc")
    plain.build()
    monkeypatch.setenv("PATH", f"{launchers}:{os.environ['PATH']}")
    monkeypatch.setenv("CCACHE_DIR", str(tmp_path / "ccache"))
    behind = Small(tmp_path / "behind", runner, "gcc")
    assert "compile app/main.c" in behind.build() and behind.build() == set()
    assert any((tmp_path / "ccache").rglob("*R")), "it was called"
    assert behind.elf() == plain.elf()
    assert plain.build() == set(), "the compiler is the same one"
