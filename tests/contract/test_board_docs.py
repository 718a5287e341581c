"""The commands of docs/virtual-board.md do what the page says: they are taken from it and run."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.board_process import DEADLINE_S, IMPATIENT
from virtualboard.control import HELP
from virtualboard.faults import KINDS, parse_fault
from virtualboard.timing import PROFILES, parse_timing

pytest.importorskip("esptool")

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "virtual-board.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(sh|python)\n(.*?)```", PAGE, re.DOTALL)
SHELL = [code for language, code in BLOCKS if language == "sh"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number: int = server.getsockname()[1]
    return number


def tools(folder: Path) -> None:
    """`python` and `esptool` of this interpreter, the latter without pyserial's waits."""
    (folder / "bin").mkdir()
    (folder / "impatient.py").write_text(IMPATIENT)
    for name, arguments in (("python", ""), ("esptool", str(folder / "impatient.py"))):
        path = folder / "bin" / name
        path.write_text(f'#!/bin/sh\nexec {sys.executable} {arguments} "$@"\n')
        path.chmod(0o755)


@pytest.mark.parametrize("index", range(len(SHELL)))
def test_shell(index: int, tmp_path: Path) -> None:
    """As it stands, but for the port number, and for waiting until the board says that it listens."""
    (tmp_path / "image.bin").write_bytes(b"image" * 1000)
    code = SHELL[index].replace("4000", str(free_port()))

    tools(tmp_path)
    first, _, rest = code.partition("\n")
    assert first.endswith(" &")
    if "board.log" not in first:
        first = f"{first.removesuffix(' &')} > board.log &"
    waits = "until [ -s board.log ] || ! kill -0 $!; do sleep 0.05; done\n"
    program = f"set -e\n{first}\ntrap 'kill $! 2>/dev/null' EXIT\n{waits}{rest}"
    done = subprocess.run(
        ["bash", "-c", program],
        cwd=tmp_path,
        env={"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_python(tmp_path: Path) -> None:
    (code,) = [code for language, code in BLOCKS if language == "python" and "def test" in code]
    (tmp_path / "test_page.py").write_text(code)
    # A base of its own: pytest ends by deleting former suites' folders from the common one, gigabytes in minutes.
    arguments = ["-q", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "base"), "test_page.py"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert "2 passed" in done.stdout, done.stdout


def test_the_tables_name_every_fault_profile_and_command() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|", PAGE, re.MULTILINE)
    assert {parse_fault(row).kind for row in rows if row.partition(":")[0] in KINDS} == set(KINDS)
    assert {row for row in rows if row in PROFILES} == set(PROFILES)
    assert all(parse_timing(text) for text in re.findall(r"--timing ([a-z0-9-]+,[a-z_0-9.=]+)", PAGE))
    commands = {"set" if row.startswith("dtr") else row.split()[0] for row in rows}
    assert set(HELP) <= commands
