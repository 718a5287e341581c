"""What `doit bench:engine` compares with is given the command lines of our own actions, and works."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.measure.bench import generated_project
from pipeline.measure.bench.engine import DOIT, GeneratedBench

NINJA = shutil.which("ninja", path=str(Path(sys.executable).parent)) or shutil.which("ninja")
PLAIN = (sys.executable, "-m", "doit", "-f", "plain_dodo.py")
RECORDING = """#!/bin/sh
printf '%s\\n' "$@" END >> "{log}.$$"
exec "{compiler}" "$@"
"""
UNITS = 3

pytestmark = pytest.mark.skipif(not (NINJA and os.name == "posix"), reason="no ninja here")


@pytest.fixture
def bench(tmp_path: Path) -> GeneratedBench:
    return GeneratedBench(tmp_path, UNITS, real=False)


def recorder(bench: GeneratedBench, tmp_path: Path) -> Callable[..., list[list[str]]]:
    """Runs a command and says which words the compiler was called with, products below `out/`, objects of links one by
    one and depfiles by one name."""
    compiler = bench.zig.with_name("compiler")
    bench.zig.rename(compiler)
    calls = tmp_path / "calls"
    calls.mkdir()
    bench.zig.write_text(RECORDING.format(log=calls / "call", compiler=compiler))
    bench.zig.chmod(0o755)

    def words(*argv: str, products: str) -> list[list[str]]:
        bench.run(*argv)
        found = []
        for call in calls.iterdir():
            said = call.read_text().splitlines()[:-1]
            lists = [(bench.root / word[1:]).read_text().split() if word.startswith("@") else [word] for word in said]
            found.append([renamed(word, products) for words in lists for word in words])
            call.unlink()
        return sorted(found)

    return words


def renamed(word: str, products: str) -> str:
    word = word.replace(products, "out/")
    return word.replace(".o.d", ".d") if word.startswith("out/") else word


def test_ninja_and_plain_doit_compile_and_link_with_our_words(bench: GeneratedBench, tmp_path: Path) -> None:
    ran = recorder(bench, tmp_path)
    ours = ran(*DOIT, products="build/local-fast/")
    assert len(ours) == UNITS + 1 + 2, "every unit, the bootloader's, and two links"
    assert all("-target" in words for words in ours) and sum("-gdwarf-4" in words for words in ours) == UNITS + 1
    assert NINJA is not None
    assert ran(NINJA, "-d", "keeprsp", products="ninja/") == ours
    assert ran(*PLAIN, products="plain/") == ours
    assert ran(NINJA, "-n", products="ninja/") == ran(*PLAIN, products="plain/") == []


def test_asking_for_the_words_leaves_nothing(bench: GeneratedBench) -> None:
    assert not (bench.root / ".deploy").exists() and not (bench.root / "build").exists()


@pytest.mark.skipif(not (shutil.which("ccache") and shutil.which("cc")), reason="no ccache or no compiler here")
def test_ccache_keeps_each_unit_for_itself(tmp_path: Path) -> None:
    """The compiler of the benchmarks preprocesses for it, so that no unit is taken for another."""
    bench = GeneratedBench(tmp_path, UNITS, real=True)
    bench.env["CCACHE_DIR"] = str(tmp_path / "ccache")
    generated_project.write_ninja(bench.root, bench.commands, shutil.which("ccache") or "")
    assert NINJA is not None
    bench.run(NINJA)
    made = {path.name: path.read_bytes() for path in (bench.root / "ninja/obj").rglob("*.o")}
    assert len(set(made.values())) == len(made) == UNITS + 1
    bench.put_away("ninja")
    bench.run(NINJA)
    assert made == {path.name: path.read_bytes() for path in (bench.root / "ninja/obj").rglob("*.o")}
    assert "Hits" in (said := bench.run("ccache", "-s").out) and f"{UNITS + 1} /" in said
