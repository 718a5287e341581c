"""C unit tests of the portable firmware, as programs of this host, with ASan and UBSan where the compiler has them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests import firmware_build as fb
from tests.firmware_device import host_core

FOLDER = fb.ROOT / "tests/firmware_c"
PROGRAMS = {"test_heap": 10_000, "test_log": 200, "test_json": 1_000, "test_modules": 12}
"""Test program -> checks that it makes at least, so that one which does nothing is seen."""


def test_every_program_is_run() -> None:
    assert {path.stem for path in FOLDER.glob("test_*.c")} == set(PROGRAMS)


def test_sanitizers_are_there() -> None:
    """Only to say so where they are not: the programs below run in any case."""
    compiler, sanitize = fb.host_compiler()
    if not sanitize:
        pytest.skip(f"{compiler[0]} cannot link ASan and UBSan: the C tests run without them")


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], list[Path]]:
    return host_core(tmp_path_factory)


@pytest.mark.parametrize("program", PROGRAMS)
def test_c(program: str, core: tuple[list[str], list[Path]], tmp_path: Path) -> None:
    compiler, objects = core
    parts = [*objects, FOLDER / f"{program}.c", FOLDER / "fake_port.c"]
    built = fb.build_host(tmp_path / program, compiler, f"-I{FOLDER}", parts=parts)
    done = subprocess.run([built], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    found = re.fullmatch(r"(\d+) checks, 0 failures\n", done.stdout)
    assert found and int(found[1]) >= PROGRAMS[program], done.stdout
