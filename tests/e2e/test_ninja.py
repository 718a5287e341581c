"""A project shaped like ESP-IDF (`tests/fixtures/esp_like`) from CMake and ninja to the running virtual C3."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipeline.model import Failure
from pipeline.run.options import Options
from pipeline.run.project import Project, load_project
from tests.e2e.space import ROOT, Space, environment
from tests.unit.ninja_space import NINJA

pytestmark = [
    pytest.mark.skipif(not shutil.which("cmake"), reason="CMake is not installed"),
    pytest.mark.skipif(not shutil.which("riscv64-unknown-elf-g++"), reason="no C++ compiler for RISC-V is installed"),
    pytest.mark.skipif(not NINJA, reason="ninja is not installed"),
    pytest.mark.long,
]


class EspLike(Space):
    """A checkout of the fixture, with the reference firmware as its components."""

    def __init__(self, path: Path, cache: Path) -> None:
        shutil.copytree(ROOT / "tests/fixtures/esp_like", path)
        shutil.copytree(ROOT / "firmware", path / "firmware")
        (path / "firmware/boot").rename(path / "bootloader/boot")
        super().__init__(path)
        self._cache = cache

    @property
    def _own(self) -> dict[str, str]:
        search = os.pathsep.join((str(Path(NINJA).parent), os.environ["PATH"]))
        return {"XDG_CACHE_HOME": str(self._cache), "XDG_STATE_HOME": str(self.path / "state"), "PATH": search}

    def actions(self) -> dict[str, list[str]]:
        """What the last run did: how -> names."""
        newest = max((self.path / ".deploy/runs").glob("*.log"), key=lambda log: log.stat().st_mtime_ns)
        found: dict[str, list[str]] = {}
        for line in newest.read_text().splitlines()[1:]:
            event: Any = json.loads(line.partition("\t")[2])
            if event["kind"] == "action":
                found.setdefault(event["data"]["how"], []).append(event["data"]["name"])
        return found

    def left_for_ninja(self) -> list[str]:
        done = subprocess.run(
            [NINJA, "-C", str(self.path / "build"), "-n"],
            env=environment(**self._own),
            capture_output=True,
            text=True,
            check=True,
        )
        return [line for line in done.stdout.splitlines() if line.startswith("[")]


def test_from_cmake_to_the_running_board_and_what_edits_cost(tmp_path: Path) -> None:
    space = EspLike(tmp_path / "one", tmp_path / "cache")
    space.edit("main/greeting.cpp", "return twice", "return twice twice")
    failed = space.deploy()
    assert (failed.code, failed.category) == (1, "compile_error"), failed.err
    assert "main/greeting.cpp:5:" in failed.err, failed.err
    space.edit("main/greeting.cpp", "return twice twice", "return twice")

    first = space.deploy()
    assert (first.code, first.outcome) == (0, "full_flashed"), first.out + first.err
    assert first.stage("ttfb")["outcome"] == "ran"
    # What ninja runs each time: the nested build, its steps after that, and a check without an output.
    assert len(space.left_for_ninja()) <= 4
    for name in ("flash", "monitor", "menuconfig"):
        assert not (space.path / f"{name}.ran").exists()

    again = space.deploy()
    assert (again.outcome, again.totals["compiled"]) == ("verified_unchanged", 0), again.out
    assert space.actions() == {}
    _edits(space)
    _another_checkout(EspLike(tmp_path / "elsewhere", tmp_path / "cache"))


def _edits(space: EspLike) -> None:
    space.edit("firmware/core/text.c", '#include "text.h"\n', '#include "text.h" // seen\n')
    comment = space.deploy()
    assert comment.outcome == "verified_unchanged", comment.out
    assert space.actions()["executed"] == ["build/CMakeFiles/core.dir/firmware/core/text.c.obj"]
    assert len(space.left_for_ninja()) <= 4
    space.edit("firmware/core/text.c", '#include "text.h" // seen\n', '#include "text.h"\n')

    # A fragment that the generator of the linker script reads and nobody declares.
    space.edit("main/extra.lf", "noflash", "noflash_text")
    assert space.doit("link").code == 0
    assert "build/sections.ld" in space.actions()["executed"]
    assert not any(name.endswith(".obj") for name in space.actions()["executed"])
    space.edit("main/extra.lf", "noflash_text", "noflash")

    space.edit("bootloader/boot/log.c", '#include "log.h"', '#include "log.h" // of the bootloader')
    assert space.doit("link").code == 0
    assert space.actions()["executed"] == ["build/bootloader/CMakeFiles/bootloader.dir/boot/log.c.obj"]
    space.edit("bootloader/boot/log.c", '#include "log.h" // of the bootloader', '#include "log.h"')

    _option(space)
    space.edit("CMakeLists.txt", "CXX ASM)", "CXX  ASM)")
    plan = space.doit("plan")
    assert "build/build.ninja" in plan.out, plan.out
    space.edit("CMakeLists.txt", "CXX  ASM)", "CXX ASM)")


def _option(space: EspLike) -> None:
    """An option compiles its users alone; the nested build has the same header, and uses none."""
    space.edit("sdkconfig", "CONFIG_GREETINGS=3", "CONFIG_GREETINGS=4")
    assert space.doit("link").code == 0
    ran = space.actions()["executed"]
    users = [f"build/CMakeFiles/main.dir/main/{name}.obj" for name in ("data.S", "greeting.cpp")]
    assert sorted(name for name in ran if name.endswith(".obj")) == users, ran
    assert len(space.left_for_ninja()) <= 4
    space.edit("sdkconfig", "CONFIG_GREETINGS=4", "CONFIG_GREETINGS=3")
    assert space.doit("link").code == 0
    assert not any(name.endswith(".obj") for name in space.actions()["executed"])


def _another_checkout(two: EspLike) -> None:
    """Everything comes from the cache, but what holds the path of the build directory."""
    linked = two.doit("link")
    assert linked.code == 0, linked.err
    ran = two.actions()["executed"]
    assert not any(name.endswith((".obj", ".a", ".elf", "sections.ld", "partition-table.bin")) for name in ran), ran
    assert len(two.left_for_ninja()) <= 4
    assert str(two.path) in (two.path / "build/.bin_timestamp").read_text()


def test_cmake_is_called_where_the_word_ninja_does_not_occur(tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text("cmake_minimum_required(VERSION 3.16)\nproject(x NONE)\n")
    (tmp_path / "deploy.toml").write_text('[project]\nname = "x"\n[toolchain]\nkind = "cmake"\n')
    project = load_project(Options(builds=True), tmp_path)
    assert isinstance(project, Project), project
    assert (tmp_path / "build/build.ninja").is_file()


def test_cmake_is_called_again_for_other_arguments(tmp_path: Path) -> None:
    """As if the directory were configured anew: what is defined no longer is out of CMake's cache, too."""
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(x NONE)\nfile(WRITE said ${A} ${B})\n"
        "file(APPEND ${CMAKE_SOURCE_DIR}/count x)\n"
    )

    def configured(cmake: str = "") -> tuple[str, int]:
        toml = f'[project]\nname = "x"\n[toolchain]\nkind = "cmake"\n[cmake]\n{cmake}\n'
        (tmp_path / "deploy.toml").write_text(toml)
        project = load_project(Options(builds=True), tmp_path)
        assert isinstance(project, Project), project
        said, count = tmp_path / "said", tmp_path / "count"
        return said.read_text(), len(count.read_text())

    assert configured() == configured() == ("", 1)
    assert configured('arguments = ["-DA=1", "-D", "B:STRING=2"]') == ("12", 2)
    assert configured('arguments = ["-DA=1", "-D", "B:STRING=2"]') == ("12", 2)
    assert configured('arguments = ["-DA=3"]') == ("3", 3)
    (tmp_path / ".deploy/configured.v1").write_text("[")
    assert configured('arguments = ["-DA=4"]') == ("4", 4), "of a directory of which nothing is known"
    assert configured() == ("", 5)
    (tmp_path / ".deploy/configured.v1").unlink()
    assert configured() == ("", 5), "somebody else's stands where nothing is to be told"
    (tmp_path / "chain.cmake").write_text("set(A 7)\n")
    (tmp_path / "deploy.toml").write_text(
        '[project]\nname = "x"\n[toolchain]\nkind = "cmake"\n[cmake]\ntoolchain_file = "chain.cmake"\n'
    )
    refused = load_project(Options(builds=True), tmp_path)
    assert isinstance(refused, Failure)
    assert refused.line().endswith("the toolchain file of build was none, and is chain.cmake"), refused.line()
    shutil.rmtree(tmp_path / "build")
    assert configured('toolchain_file = "chain.cmake"')[1] == 6
