"""The unit of systemd's user manager: its text, what is run for it, and what is said when that fails."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.model import Failure
from pipeline.service.install import install, uninstall, unit_path, unit_text

SYSTEMCTL = """\
#!/bin/sh
echo "$@" >> "$LOG"
case "$*" in *"$FAILS"*) echo "Failed to connect to bus: No medium found" >&2; exit 1;; esac
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """With a `systemctl` that lists what it was asked, and fails where FAILS says."""
    fake = tmp_path / "bin/systemctl"
    fake.parent.mkdir()
    fake.write_text(SYSTEMCTL)
    fake.chmod(0o755)
    path = f"{fake.parent}{os.pathsep}{os.environ['PATH']}"
    return {
        "PATH": path,
        "LOG": str(tmp_path / "log"),
        "FAILS": "never",
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }


@pytest.fixture(autouse=True)
def found_on_our_path(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", environment["PATH"])


def asked(environment: dict[str, str]) -> list[str]:
    return Path(environment["LOG"]).read_text().splitlines()


def test_the_unit_is_this_text() -> None:
    text = unit_text(["/opt/my env/bin/python", "-m", "doit", "se%rve", 'a"b$c'])
    assert text.splitlines()[4:9] == [
        "[Service]",
        "Type=exec",
        'ExecStart="/opt/my env/bin/python" "-m" "doit" "se%%rve" "a\\"b$$c"',
        "Restart=on-failure",
        "RestartSec=1",
    ]


def test_installing_says_what_it_did_and_uninstalling_undoes_it(environment: dict[str, str]) -> None:
    path = unit_path(environment)
    done = install(["python", "-m", "doit", "serve"], environment)
    assert done == [
        f"wrote {path}",
        "ran systemctl --user daemon-reload",
        "ran systemctl --user enable hotplate.service",
        "ran systemctl --user restart hotplate.service",
    ]
    assert path.read_text() == unit_text(["python", "-m", "doit", "serve"])
    assert install(["python", "-m", "doit", "serve"], environment) == done, "again is no harm"
    Path(environment["LOG"]).unlink()
    assert uninstall(environment) == [
        "ran systemctl --user disable --now hotplate.service",
        f"removed {path}",
        "ran systemctl --user daemon-reload",
    ]
    assert not path.exists()
    assert asked(environment)[0] == "--user disable --now hotplate.service"
    assert uninstall(environment) == [f"nothing to do: there is no {path}"]


def test_what_systemd_refuses_is_said_with_what_was_done(environment: dict[str, str]) -> None:
    failed = install(["x"], {**environment, "FAILS": "enable"})
    assert isinstance(failed, Failure)
    assert "ended with 1: Failed to connect to bus: No medium found" in failed.message
    assert failed.detail.splitlines() == [f"wrote {unit_path(environment)}", "ran systemctl --user daemon-reload"]


def test_without_systemd(environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    failed = install(["x"], {**environment, "PATH": str(tmp_path)})
    assert isinstance(failed, Failure) and failed.message == "there is no systemctl on this machine"


def test_a_directory_that_cannot_be_written(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "config").write_text("in the way")
    failed = install(["x"], environment)
    assert isinstance(failed, Failure) and "cannot be written" in failed.message
