"""Sizes of programs that real linkers made, against binutils and ESP-IDF's own tool."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.effects.clock import SystemClock
from pipeline.effects.process import SystemProcessRunner
from pipeline.report.size_measured import TOTALS, Measured, component, size_of
from pipeline.run.built_sizes import BuiltSizes, SizeFiles
from pipeline.toolchain import gcc
from tests import firmware_build as fb
from tests.contract.small_project import Small

SIZE = "riscv64-unknown-elf-size"
LIBRARY = '[[library]]\nname = "extra"\nsources = ["lib/*.c"]\n'
EXTRA = """
unsigned long long kept[7];
const char *const words[] = {"one word", "another word", "one word"};
unsigned extra(unsigned n) { kept[n % 7] += n; return (unsigned)(kept[n % 7] / 3) + words[n % 3][0]; }
"""
needs_gcc = pytest.mark.skipif(shutil.which(gcc.DRIVER) is None, reason=fb.GCC_MISSING)


@pytest.fixture
def runner() -> Iterator[SystemProcessRunner]:
    found = SystemProcessRunner(SystemClock())
    yield found
    found.close()


def built(root: Path, runner: SystemProcessRunner, kind: str) -> Small:
    small = Small(root, runner, kind, more=LIBRARY)
    small.write("lib/extra.c", EXTRA)
    main = (root / "app/main.c").read_text()
    small.write("app/main.c", f"unsigned extra(unsigned);\nunsigned volatile used;\n{main}")
    small.write("app/user.c", "unsigned extra(unsigned); void use(void); void use(void) { extra(5); }\n")
    text = (root / "app.ld").read_text()
    small.write("app.ld", text.replace("SECTIONS", "EXTERN(use)\nSECTIONS", 1))
    assert "link app" in small.build()
    return small


def measured(small: Small) -> Measured:
    out = "build/local-fast"
    sizes = BuiltSizes(small.root, small.root / ".deploy", "local-fast")
    return sizes.measure(SizeFiles("esp32c3", f"{out}/app.elf", f"{out}/app.map", f"{out}/app.bin", 1 << 20))


def by_binutils(elf: Path) -> dict[str, int]:
    """Section -> bytes, of those at an address."""
    done = subprocess.run([SIZE, "-A", str(elf)], capture_output=True, text=True, check=True)
    rows = re.findall(r"^(\.\S+)\s+(\d+)\s+(\d+)$", done.stdout, re.MULTILINE)
    return {name: int(size) for name, size, address in rows if int(address) and int(size)}


@pytest.mark.parametrize("kind", ["zig", pytest.param("gcc", marks=needs_gcc)])
def test_sections_and_shares_of_a_linked_program(tmp_path: Path, runner: SystemProcessRunner, kind: str) -> None:
    small = built(tmp_path / "p", runner, kind)
    found = measured(small)
    assert found.note == ""
    sums: Counter[str] = Counter()
    for share in found.shares:
        sums[share.section] += share.size
    assert sums == {section.name: section.size for section in found.sections}
    assert "libextra.a" in {component(share) for share in found.shares}
    size = size_of(found)
    totals = {row["name"]: row["size"] for row in size["totals"]}
    assert sum(row["flash"] for row in size["archives"]) == totals["flash"]
    assert sum(row["ram"] for row in size["archives"]) == totals["ram"]
    assert str(tmp_path) not in json.dumps(size), "a path of this machine is in no report"
    if shutil.which(SIZE) is None:
        pytest.skip(f"{SIZE} is not installed")
    assert by_binutils(small.root / found.elf) == {section.name: section.size for section in found.sections}
    assert totals["ram"] == sum(row["size"] for row in size["sections"] if row["memory"] in TOTALS["ram"])
    # The map is a product like any other: made again, it is the same.
    before = (small.root / found.map).read_bytes()
    (small.root / found.map).unlink()
    assert small.build() == set(), "restored"
    assert (small.root / found.map).read_bytes() == before


def test_a_map_that_the_project_asks_for_is_left_to_it(tmp_path: Path, runner: SystemProcessRunner) -> None:
    small = Small(tmp_path / "p", runner, "gcc", 'ldflags = ["-Wl,-Map=build/own.map"]')
    if shutil.which(gcc.DRIVER) is None:
        pytest.skip(fb.GCC_MISSING)
    (link,) = (action for action in small.tools().actions if action.name == "link app")
    assert link.outputs == ("build/local-fast/app.elf",)
    assert not any("app.map" in word for word in link.argv)


@needs_gcc
@pytest.mark.skipif(importlib.util.find_spec("esp_idf_size") is None, reason="esp-idf-size is not installed")
def test_each_object_takes_what_esp_idf_says(tmp_path: Path, runner: SystemProcessRunner) -> None:
    small = built(tmp_path / "p", runner, "gcc")
    found = measured(small)
    told = {"target": "esp32c3", "app_elf": "app.elf"}
    small.write("build/local-fast/project_description.json", json.dumps(told))
    words = (sys.executable, "-m", "esp_idf_size", "--files", "--format", "json2", str(small.root / found.map))
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    theirs = {name.replace("(exe):", ":"): row["size"] for name, row in json.loads(done.stdout).items() if row["size"]}
    ours: Counter[str] = Counter()
    for share in found.shares:
        ours[f"{share.archive}:{share.file}"] += share.size
    del ours[":(fill)"]
    assert ours == theirs
