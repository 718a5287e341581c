"""What is found out about compilers serves other checkouts, and only where it holds."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pipeline.toolchain.ninja_tools import StatementTools

CC = shutil.which("cc") or ""
SEARCH = os.environ.get("PATH", os.defpath)

pytestmark = pytest.mark.skipif(not CC, reason="no compiler here")


@pytest.fixture
def driver(tmp_path: Path) -> Path:
    """A compiler of its own, which counts how often it is asked, and where a part of it lies beside PATH."""
    place = tmp_path / "bin/cc"
    place.parent.mkdir()
    program = tmp_path / "cc.c"
    program.write_text(
        "#include <stdio.h>\n#include <string.h>\n#include <stdlib.h>\n"
        f'int main(int n, char **words) {{ FILE *log = fopen("{tmp_path}/asked", "a"); fputs("?", log);\n'
        'if (n > 1 && !strcmp(words[1], "-print-prog-name=as")) puts("as-of-path"); return 0; }\n'
    )
    assert os.spawnv(os.P_WAIT, CC, [CC, "-o", str(place), str(program)]) == 0
    return place


def asked(driver: Path) -> int:
    log = driver.parent.parent / "asked"
    return len(log.read_text()) if log.exists() else 0


def identity(root: Path, driver: Path, search: str = SEARCH, shared: Path | None = None) -> str:
    (root / ".deploy").mkdir(parents=True, exist_ok=True)
    tools = StatementTools(root / ".deploy", root, search, shared)
    name = tools.tool(str(driver), (str(driver),))
    tools.save()
    return tools.tools[name].identity


def test_another_checkout_asks_no_compiler(tmp_path: Path, driver: Path) -> None:
    store = tmp_path / "store"
    first = identity(tmp_path / "one", driver, shared=store)
    once = asked(driver)
    assert once > 0
    assert identity(tmp_path / "two", driver, shared=store) == first
    assert asked(driver) == once
    assert identity(tmp_path / "three", driver) == first, "who shares nothing finds out the same"
    assert asked(driver) == 2 * once


def test_a_part_on_another_path_is_another_compiler(tmp_path: Path, driver: Path) -> None:
    found = []
    for name in ("one", "two"):
        part = tmp_path / name / "bin/as-of-path"
        part.parent.mkdir(parents=True)
        part.write_text(f"#!/bin/sh\necho {name}\n")
        part.chmod(0o755)
        found.append(identity(tmp_path / name, driver, str(part.parent), tmp_path / "store"))
    assert found[0] != found[1]


def test_memory_that_is_damaged_is_found_out_again(tmp_path: Path, driver: Path) -> None:
    store = tmp_path / "store"
    first = identity(tmp_path / "one", driver, shared=store)
    for path in tmp_path.rglob("ninja-tools*"):
        path.write_bytes(b"damage")
    assert identity(tmp_path / "two", driver, shared=store) == first
