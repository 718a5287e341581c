"""A small firmware that a real toolchain builds from its own deploy.toml: for tests of what builds depend on."""

from __future__ import annotations

import shutil
from pathlib import Path

from pipeline.config.reader import parse_config
from pipeline.config.schema import DeployConfig
from pipeline.effects.clock import SystemClock
from pipeline.effects.process import SystemProcessRunner
from pipeline.engine.engine import Engine
from pipeline.engine.results import RunResult
from pipeline.engine.workspace import BuildSteps, Directories, Host
from pipeline.model import Stage
from pipeline.toolchain.build import Toolchain, build_toolchain
from tests.contract.test_zig import SOURCES

CONFIG = """
[project]
name = "small"
sources = {sources}
include = ["inc"]
descriptor = "app/main.c"
[toolchain]
kind = "{kind}"
linker_script = "app.ld"
{toolchain}
[bootloader]
sources = ["boot/*.S"]
linker_script = "boot.ld"
[profile.local-fast]
cflags = ["-O1"]
[profile.release]
cflags = ["-Os"]
[partitions]
table = "partitions.csv"
[device.bench]
port = "virtual:"
{more}
"""
HALF = "unsigned long long half(unsigned long long n) {{ return n + {}; }}\n"


class Small:
    """One checkout. `toolchain`: lines of that section; `more`: further sections."""

    def __init__(self, root: Path, runner: SystemProcessRunner, kind: str, toolchain: str = "", more: str = "") -> None:
        self.root, self.runner, self.kind, self.toolchain, self.more = root, runner, kind, toolchain, more
        self.sources = '["app/*.c", "app/*.S"]'
        self.cache = root / ".deploy"
        for path, text in SOURCES.items():
            self.write(path, text.replace("VERSION}", "7}"))

    def write(self, path: str, text: str | bytes) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_bytes(text.encode() if isinstance(text, str) else text)

    def config(self) -> DeployConfig:
        text = CONFIG.format(kind=self.kind, sources=self.sources, toolchain=self.toolchain, more=self.more)
        self.write("deploy.toml", text)
        found = parse_config(text)
        assert isinstance(found, DeployConfig), found
        return found

    def tools(self, profile: str = "local-fast") -> Toolchain:
        return build_toolchain(self.root, self.config(), profile, self.root / ".deploy", (), ())

    def results(self, profile: str = "local-fast") -> list[RunResult]:
        """As one run of `doit link`, in a new engine: up to the first stage that fails."""
        made = self.tools(profile)
        steps = BuildSteps(made.actions, made.tools, made.builtins, made.run_env)
        engine = Engine(
            Directories(self.root, self.root / ".deploy", self.cache), steps, Host(self.runner, SystemClock(), 2)
        )
        engine.scan()
        results = []
        for stage in (Stage.COMPILE, Stage.LINK):
            if not engine.verdict(stage).up_to_date:
                results.append(engine.run(stage, lambda label, done, total: None))
                if not results[-1].ok:
                    break
        return results

    def build(self, profile: str = "local-fast") -> set[str]:
        """What was executed."""
        results = self.results(profile)
        assert all(result.ok for result in results), [result.failures for result in results]
        assert not any(result.notes for result in results), [result.notes for result in results]
        return {name for result in results for name in result.executed}

    def elf(self, profile: str = "local-fast") -> bytes:
        return (self.root / f"build/{profile}/app.elf").read_bytes()

    def clean_elf(self) -> bytes:
        """What a build from nothing gives for these files."""
        shutil.rmtree(self.root / ".deploy")
        shutil.rmtree(self.root / "build")
        self.cache = self.root / ".deploy"
        assert "link app" in self.build()
        return self.elf()
