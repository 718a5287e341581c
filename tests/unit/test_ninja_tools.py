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


def version(root: Path, program: Path, shared: Path) -> str:
    (root / ".deploy").mkdir(parents=True, exist_ok=True)
    tools = StatementTools(root / ".deploy", root, SEARCH, shared)
    found = tools.version(str(program))
    tools.save()
    return found


def speaking(place: Path, words: str) -> None:
    """A program that says this of its version, and counts how often it is asked."""
    place.parent.mkdir(exist_ok=True)
    source = place.parent.parent / f"{place.name}.c"
    source.write_text(
        "#include <stdio.h>\n"
        f'int main(void) {{ FILE *log = fopen("{source.parent}/asked", "a"); fputs("?", log); puts("{words}"); }}\n'
    )
    assert os.spawnv(os.P_WAIT, CC, [CC, "-o", str(place), str(source)]) == 0


def test_a_version_is_asked_once_for_all_checkouts(tmp_path: Path) -> None:
    program, store = tmp_path / "bin/ninja", tmp_path / "store"
    speaking(program, "1.12.1")
    assert [version(tmp_path / name, program, store) for name in ("one", "one", "two")] == ["1.12.1"] * 3
    assert asked(program) == 1
    speaking(program, "1.13.0")
    assert [version(tmp_path / name, program, store) for name in ("one", "three")] == ["1.13.0"] * 2
    assert asked(program) == 2


def test_a_script_is_asked_each_time_since_it_may_start_another_program(tmp_path: Path) -> None:
    program, behind = tmp_path / "ninja", tmp_path / "behind"
    program.write_text(f"#!/bin/sh\ncat {behind}\n")
    program.chmod(0o755)
    for words in ("1.10.2", "1.13.0"):
        behind.write_text(words)
        assert version(tmp_path, program, tmp_path / "store") == words


def test_a_program_that_says_no_version_is_asked_again(tmp_path: Path) -> None:
    program, store = tmp_path / "bin/ninja", tmp_path / "store"
    speaking(program, "")
    assert [version(tmp_path, program, store) for _ in range(2)] == ["", ""]
    assert asked(program) == 2 and version(tmp_path, tmp_path / "missing", store) == ""


def test_memory_that_is_damaged_is_found_out_again(tmp_path: Path, driver: Path) -> None:
    store = tmp_path / "store"
    first = identity(tmp_path / "one", driver, shared=store)
    for path in tmp_path.rglob("ninja-tools*"):
        path.write_bytes(b"damage")
    assert identity(tmp_path / "two", driver, shared=store) == first
