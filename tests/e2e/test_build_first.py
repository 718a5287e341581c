"""`[prebuilt] build`: the firmware's own build runs before anything of it is read, and its files are its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.model import Stage
from pipeline.run.options import asks_for_stages
from tests import given_firmware as given
from tests.e2e.space import Space
from tests.given_project import project

STAGES = [*Stage, "deploy"]

BUILD = """
import pathlib, shutil, sys
count = pathlib.Path("count.txt")
number = int(count.read_text()) if count.exists() else 0
count.write_text(str(number + 1))
print(f"building, time {number + 1}", flush=True)
print("a warning of the build", file=sys.stderr)
if pathlib.Path("broken").exists():
    raise SystemExit(3)
out = pathlib.Path("bin")
out.mkdir(exist_ok=True)
for path in pathlib.Path("made").iterdir():
    if not (out / path.name).exists() or (out / path.name).read_bytes() != path.read_bytes():
        shutil.copy(path, out / path.name)
"""


def layout(root: Path, chip: str) -> str:
    made = {"b.bin": given.bootloader(chip), "t.bin": given.table(given.TWO_SLOTS), "a.bin": given.app(chip)}
    given.write(root / "made", made)
    (root / "build.py").write_text(BUILD)
    boot = hex(given.BOOT_OFFSETS[chip])
    files = f'{{ {boot} = "bin/b.bin", 0x8000 = "bin/t.bin", 65536 = "bin/a.bin" }}'
    return f'build = ["python", "build.py"]\nfiles = {files}'


@pytest.fixture
def space(tmp_path: Path) -> Space:
    return project(tmp_path / "project", "esp32s3", layout)


def test_the_build_runs_before_its_files_are_read_and_each_time(space: Space) -> None:
    first = space.deploy()
    assert first.code == 0, first.out + first.err
    assert first.out.startswith("building, time 1\n") and "a warning of the build" in first.err
    assert sorted(first.written) == ["app", "bootloader", "otadata", "partitions"]
    second = space.deploy()
    assert second.code == 0 and second.outcome == "verified_unchanged"
    assert second.out.startswith("building, time 2\n") and "-- link\n" in second.out

    space.file("made/a.bin").write_bytes(given.app("esp32s3", "two"))
    third = space.deploy()
    assert third.out.startswith("building, time 3\n") and third.written == ["app"]
    for args in (("list",), ("explain", "link"), ("plan",), ("clean", "link")):
        space.doit(*args)
    assert space.file("count.txt").read_text() == "3", "looking builds nothing"
    assert space.file("bin/a.bin").exists() and space.file("bin/b.bin").exists()


def test_the_early_answer_never_stands_for_a_build(space: Space) -> None:
    assert [space.doit("link").out.splitlines()[0] for _ in range(3)] == [f"building, time {n}" for n in (1, 2, 3)]


def test_events_on_stdout_are_not_mixed_with_what_a_build_says(space: Space) -> None:
    result = space.doit("link", "--json")
    assert result.code == 0
    assert all(line.startswith("{") for line in result.out.splitlines()), result.out
    assert "building, time 1" in result.err


def test_a_build_that_fails_is_an_error_and_removes_nothing(space: Space) -> None:
    assert space.deploy().code == 0
    space.file("broken").touch()
    before = {path.name: path.read_bytes() for path in space.file("bin").iterdir()}
    failed = space.deploy()
    assert failed.code == 1
    assert "deploy.toml:8:9: error: `python build.py` ended with exit code 3" in failed.err
    assert {path.name: path.read_bytes() for path in space.file("bin").iterdir()} == before
    space.file("broken").unlink()
    assert space.deploy().code == 0


def test_a_program_that_is_not_there_is_named(space: Space) -> None:
    space.edit("deploy.toml", '["python", "build.py"]', '["idf.pyx", "build"]')
    result = space.doit("link")
    assert result.code == 1 and "deploy.toml:8:9: error: the program 'idf.pyx' is not on PATH" in result.err
    space.edit("deploy.toml", '["idf.pyx", "build"]', '["/usr/bin/idf.py"]')
    assert space.doit("link").code == 2


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ("", True),
        ("deploy", True),
        ("run deploy", True),
        ("-n 4 link", True),
        ("--device desk", True),
        ("--device list", True),
        ("--device=list reflash:desk:app", True),
        ("verify-flash:desk", True),
        ("list", False),
        ("list --all deploy", False),
        ("explain link", False),
        ("clean deploy", False),
        ("cache:stats", False),
        ("bench:work", False),
        ("watch", False),
    ],
)
def test_which_command_lines_build(argv: str, expected: bool) -> None:
    assert asks_for_stages(argv.split(), STAGES) == expected
