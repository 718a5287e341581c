"""The committed lock, the constraints that uv reads, and what must not be in either."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PIN = re.compile(r"^([A-Za-z0-9][\w.-]*==\S+?)(?: ; ([^\\\n]+?))? \\$", re.M)


def locked() -> set[str]:
    text = (ROOT / "requirements.lock").read_text()
    return {f"{pin} ; {marker.strip()}" if marker else pin for pin, marker in PIN.findall(text)}


def test_uv_constraints_mirror_the_lock() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(pyproject["tool"]["uv"]["constraint-dependencies"]) == locked()


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-tools.lock"])
def test_every_pin_has_hashes_and_no_address(name: str) -> None:
    text = re.sub("^#.*\n", "", (ROOT / name).read_text(), flags=re.M)
    for requirement in re.split(r"\n(?=\S)", text.strip()):
        assert "--hash=sha256:" in requirement, requirement.splitlines()[0]
    assert "://" not in text


def test_declared_dependencies_are_locked() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    names = {re.split(r"[=<>\[ ]", pin)[0].lower() for pin in locked()}
    declared = pyproject["project"]["dependencies"] + pyproject["dependency-groups"]["dev"]
    for requirement in declared:
        assert re.split(r"[=<>\[ ]", requirement)[0].lower() in names, requirement
