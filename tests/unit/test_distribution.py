"""Where packages are found: not among the scripts beside the running one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipeline.effects.packages import package_dir
from pipeline.toolchain.distribution import package_places


def test_scripts_beside_the_running_one_are_no_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `.venv/bin/hotplate` starts: Python puts the scripts' directory first, and esptool.py lies there."""
    # pytest's own script may lie beside an esptool.py, and its directory may be searched too.
    searched = [place for place in sys.path if not Path(place, "esptool.py").exists()]
    monkeypatch.setattr(sys, "path", searched)
    real = package_dir("esptool")
    for name in ("hotplate", "esptool", "esptool.py"):
        (tmp_path / name).write_text("raise SystemExit('a script')\n")
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "hotplate")])
    monkeypatch.setattr(sys, "path", [str(tmp_path), *searched])
    assert real is not None
    assert package_dir("esptool") == real
    places = package_places(["esptool"])
    assert str(real.parent) in places.listed
    assert not [path for path in places.absent if Path(path).exists()], "the fast path could never say yes"
