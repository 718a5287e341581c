"""The boundary between the portable firmware and its platforms, checked by the real compilers on copies in which a
violation was planted: each must be an error at its line."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config.reader import parse_config
from pipeline.config.schema import DeployConfig
from pipeline.effects.clock import SystemClock
from pipeline.effects.process import SystemProcessRunner
from pipeline.model import FailureCategory
from pipeline.toolchain import boundary, gcc
from tests import firmware_build as fb

pytestmark = pytest.mark.needs_zig


@pytest.fixture(scope="module")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def runner() -> Iterator[SystemProcessRunner]:
    runner = SystemProcessRunner(SystemClock())
    yield runner
    runner.close()


@pytest.fixture(scope="module", params=["zig", "gcc"])
def config(request: pytest.FixtureRequest) -> DeployConfig:
    if request.param == "gcc" and shutil.which(gcc.DRIVER) is None:
        pytest.skip(fb.GCC_MISSING)
    if request.param == "zig":
        pytest.importorskip("ziglang")
    text = (fb.ROOT / "deploy.toml").read_text().replace('kind = "zig"', f'kind = "{request.param}"')
    config = parse_config(text)
    assert isinstance(config, DeployConfig) and config.toolchain.kind == request.param
    return config


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(fb.ROOT / "firmware", tmp_path / "firmware")
    return tmp_path


def plant(root: Path, path: str, line: str) -> str:
    """Add `line` at the end of a file; the place of it."""
    text = (root / path).read_text()
    (root / path).write_text(f"{text}{line}\n")
    return f"{path}:{text.count(chr(10)) + 1}:"


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def test_the_firmware_keeps_the_boundary(
    config: DeployConfig, copy: Path, runner: SystemProcessRunner, state_dir: Path
) -> None:
    before = files(copy)
    assert boundary.check(copy, config, runner, state_dir) == []
    assert files(copy) == before


CORE, MODULES = "firmware/core", "firmware/modules"
VIOLATIONS = {
    f"{CORE}/gate.c": "#include <stdio.h>",
    f"{CORE}/guard.c": "#include <string.h>",
    f"{CORE}/heap.c": "#include <unistd.h>",
    f"{CORE}/json.c": '#include "soc.h"',
    f"{CORE}/logring.c": '#include "../port/esp32c3/soc.h"',
    f"{CORE}/main.c": '#include "../port/host/line.h"',
    f"{MODULES}/blink.c": '#include "../../firmware/port/esp32c3/app_desc.h"',
    f"{MODULES}/sampler.c": "void leak(void) { *(volatile uint32_t *)0x60004008 = 1; }",
    f"{MODULES}/ballast.c": 'void leak(void) { __asm__("wfi"); }',
    f"{CORE}/module.c": "extern void *malloc(size_t);",
    f"{CORE}/text.c": "void leak(void) { usleep(1); }",
    f"{CORE}/params.c": "uint32_t leak(void) { return systimer_ticks(); }",
}
"""File -> a line that reaches for the platform, each in another way."""


def test_reaching_for_the_platform_is_an_error_at_its_line(
    config: DeployConfig, copy: Path, runner: SystemProcessRunner, state_dir: Path
) -> None:
    places = [plant(copy, path, line) for path, line in VIOLATIONS.items()]
    failures = boundary.check(copy, config, runner, state_dir)
    assert [place for place in places if not any(f.where.startswith(place) for f in failures)] == [], failures
    assert {f.category for f in failures} == {FailureCategory.COMPILE_ERROR}
    assert {f.where.split(":")[0] for f in failures} == set(VIOLATIONS)
    assert all(f.hint.startswith("ask ") and f.line().startswith(f"{f.where}: error: ") for f in failures)


def test_a_violation_in_a_header_is_one_error(
    config: DeployConfig, copy: Path, runner: SystemProcessRunner, state_dir: Path
) -> None:
    place = plant(copy, "firmware/core/port.h", "#include <stdlib.h>")
    (failure,) = boundary.check(copy, config, runner, state_dir)
    assert failure.where.startswith(place), "however many files include it"


def test_a_directory_without_sources_is_a_mistake(
    config: DeployConfig, copy: Path, runner: SystemProcessRunner, state_dir: Path
) -> None:
    (failure,) = boundary.check(copy, config, runner, state_dir, ["firmware/cores"])
    assert failure.category is FailureCategory.CONFIG_ERROR and "firmware/cores" in failure.message


def test_a_missing_toolchain_is_named(
    config: DeployConfig, runner: SystemProcessRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("pipeline.toolchain.zig.package_dir", lambda package: None)
    (failure,) = boundary.check(fb.ROOT, config, runner, tmp_path)
    assert failure.category is FailureCategory.TOOLCHAIN_MISSING
