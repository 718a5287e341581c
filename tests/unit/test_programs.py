"""Which program a name means, behind links and launchers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.model import Failure
from pipeline.toolchain import gcc, programs
from tests.contract.test_gcc import install


def executable(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def masquerade(directory: Path, *names: str, launcher: str = "ccache") -> Path:
    """A directory as Debian's /usr/lib/ccache."""
    real = executable(directory.parent / "bin" / launcher)
    directory.mkdir()
    for name in names:
        (directory / name).symlink_to(real)
    return directory


@pytest.mark.parametrize("launcher", ["ccache", "sccache", "distcc"])
def test_a_launcher_is_called_and_the_compiler_behind_it_counts(tmp_path: Path, launcher: str) -> None:
    first, real = masquerade(tmp_path / "lib", gcc.DRIVER, launcher=launcher), install(tmp_path / "opt", "12.2.0")
    search = f"{tmp_path / 'none'}:{first}:{real}"
    plain, found = gcc.find(tmp_path / "state", str(real)), gcc.find(tmp_path / "state", search)
    assert not isinstance(plain, Failure) and not isinstance(found, Failure)
    assert found[0].path == str(first / gcc.DRIVER)
    assert (found[0].identity, found[1]) == (plain[0].identity, plain[1])
    watched = gcc.watched(*found, search)
    assert {str(first / gcc.DRIVER), str(real / gcc.DRIVER)} <= watched.listed.keys()
    assert watched.absent == (f"{tmp_path / 'none'}/{gcc.DRIVER}",)


def test_a_launcher_with_nothing_behind_it_is_no_compiler(tmp_path: Path) -> None:
    failure = gcc.find(tmp_path / "state", str(masquerade(tmp_path / "lib", gcc.DRIVER)))
    assert isinstance(failure, Failure)


def test_the_identity_moves_with_the_compiler_behind_a_launcher(tmp_path: Path) -> None:
    first, real = masquerade(tmp_path / "lib", "tool"), executable(tmp_path / "opt/tool")
    found = programs.find("tool", f"{first}:{real.parent}")
    assert found == programs.Found(str(first / "tool"), str(real), ())


def test_a_link_that_comes_to_lead_elsewhere_is_watched(tmp_path: Path) -> None:
    """`/opt/riscv -> /opt/riscv-12` becomes `-> /opt/riscv-13`."""
    for version in ("12.2.0", "13.1.0"):
        install(tmp_path / f"riscv-{version}", version)
    link = tmp_path / "riscv"
    link.symlink_to("riscv-12.2.0")
    search = str(link / "bin")
    before = gcc.find(tmp_path / "state", search)
    assert not isinstance(before, Failure)
    stamps = gcc.watched(*before, search).listed
    assert before[0].version == "12.2.0" and str(link / "bin" / gcc.DRIVER) in stamps
    link.unlink()
    link.symlink_to("riscv-13.1.0")
    after = gcc.find(tmp_path / "state", search)
    assert not isinstance(after, Failure)
    assert after[0].version == "13.1.0" and after[0].identity != before[0].identity
    assert gcc.watched(*after, search).listed[str(link / "bin" / gcc.DRIVER)] != stamps[str(link / "bin" / gcc.DRIVER)]


def test_variables_of_a_launcher_reach_it_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CCACHE_DIR", "/tmp/c")
    first, real = masquerade(tmp_path / "lib", "tool"), executable(tmp_path / "opt/tool")
    behind = programs.find("tool", f"{first}:{real.parent}")
    alone = programs.find("tool", str(real.parent))
    assert behind is not None and alone is not None
    assert programs.launcher_env(behind)["CCACHE_DIR"] == "/tmp/c"
    assert programs.launcher_env(alone) == {}
    assert programs.find("tool", os.pathsep.join(["", str(tmp_path)])) is None
