"""`pipeline/measure/counting.py`: what a program did, to the call."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PROGRAM = """
import os, subprocess, sys
rounds, home = int(sys.argv[1]), os.getcwd()
list(map(os.stat, ["a.txt", os.path.abspath("a.txt")]))
os.stat(sys.executable)
os.chdir("/")
os.stat(b"tmp")
os.chdir(home)
os.stat(b"a.txt")
os.makedirs("sub", exist_ok=True)
os.chdir("sub")
os.stat("../a.txt")
open("b.txt", "w").close()
os.chdir("..")
for name in ("a.txt", sys.executable):
    open(name, "rb").close()
subprocess.run([sys.executable, "-c", "pass", "word"], check=True)
for _ in range(rounds):
    pass
os._exit(0 if rounds < 1000 else 7)
"""


def count(directory: Path, rounds: int, code: int = 0) -> Any:
    if not (directory / "a.txt").exists():  # a program that is written again is compiled again
        (directory / "program.py").write_text(PROGRAM)
        (directory / "a.txt").write_text("a")
    out = directory / "counts.json"
    done = subprocess.run(
        [sys.executable, "-S", "-c", "from pipeline.measure.counting import main; main()", out, "program", str(rounds)],
        cwd=directory,
        env={"PYTHONPATH": f"{directory}:{ROOT}", "PYTHONHASHSEED": "0", "COUNT_INSTRUCTIONS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return json.loads(out.read_text())


def test_calls_are_counted_below_the_current_directory_alone(tmp_path: Path) -> None:
    found = count(tmp_path, 1)
    assert found["stats"] == 4, "through map and after chdir too, and neither of the interpreter nor of /tmp"
    assert [name for name in found["opened"] if name.endswith(".txt")] == ["sub/b.txt", "a.txt"]
    assert sys.executable not in found["opened"]
    assert found["spawned"] == [[sys.executable, "-c", "pass", "word"]]
    assert "subprocess" in found["modules"] and "doit" not in found["modules"]
    assert found["serial_bytes"] == 0


def test_instructions_are_the_same_each_time_and_proportional_to_the_work(tmp_path: Path) -> None:
    count(tmp_path, 1)  # compiles the program's bytecode
    once, again, more = (count(tmp_path, rounds)["instructions"] for rounds in (10, 10, 110))
    assert once == again
    each = (more - once) / 100
    assert each in (2, 3), f"a turn of an empty loop: FOR_ITER, STORE, JUMP; not {each}"


def test_the_program_keeps_its_exit_code(tmp_path: Path) -> None:
    count(tmp_path, 1000, code=7)
    (tmp_path / "program.py").write_text("print('said')\nraise ValueError('planted')\n")
    found = count(tmp_path, 1, code=1)
    assert found["stats"] == 0
