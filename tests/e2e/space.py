"""A copy of the reference project in a temporary directory, and `doit` run in it as a user would.

`Space.deploy()` returns what the user gets: exit code, stdout, stderr, and the JSON report of the transaction.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.forked import Python, run_python

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 300


def environment(**extra: str) -> dict[str, str]:
    """The test's environment without what would steer a run, and with this checkout importable."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("DEPLOY_", "GITHUB_", "PYTEST_", "ZIG_"))}
    return {**env, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", **extra}


@dataclass(frozen=True)
class Result:
    """One finished `doit`. `report` is the JSON report of the last transaction, None when there was none."""

    code: int
    out: str
    err: str
    report: Any

    @property
    def totals(self) -> dict[str, int]:
        return dict(self.report["totals"])

    @property
    def outcome(self) -> str:
        return str(self.report["outcome"])

    @property
    def category(self) -> str:
        return str(self.report["failure"]["category"]) if self.report["failure"] else ""

    @property
    def written(self) -> list[str]:
        """Names of the regions that were written."""
        return [r["name"] for r in self.report["regions"] if r["action"] != "kept"]

    def stage(self, name: str) -> Any:
        return next(s for s in self.report["stages"] if s["stage"] == name)


class Space:
    """A project directory. `port` replaces the device's port in deploy.toml."""

    def __init__(self, path: Path, port: str = "virtual:", flash: Path | None = None) -> None:
        self.path = path
        self.stop_board: Callable[[], None] = lambda: None
        self.start_board: Callable[[], None] = lambda: None
        self.flash = flash or path / ".deploy/boards/bench.flash"
        if port != "virtual:":
            self.on_process(port)

    def on_process(self, url: str) -> None:
        """Deploy to a board process: its time is real, and a busy machine must not end the wait for its firmware."""
        self.edit("deploy.toml", 'port = "virtual:"', f'port = "{url}"')
        self.edit("deploy.toml", "timeout_ms = 5000", "timeout_ms = 300000")

    def file(self, name: str) -> Path:
        return self.path / name

    def edit(self, name: str, old: str, new: str) -> None:
        text = self.file(name).read_text()
        assert text.count(old) == 1, f"{name} holds {old!r} {text.count(old)} times"
        self.file(name).write_text(text.replace(old, new))

    def flip(self, offset: int, mask: int = 0x40) -> None:
        """Turn bits of the board's flash behind everybody's back; a board process is restarted around it."""
        self.stop_board()
        with self.flash.open("r+b") as flash:
            flash.seek(offset)
            byte = flash.read(1)[0]
            flash.seek(offset)
            flash.write(bytes([byte ^ mask]))
        self.start_board()

    @property
    def _own(self) -> dict[str, str]:
        """A cache of its own, copied with the project, so that counts do not depend on other tests."""
        own = self.path / ".deploy"
        return {"XDG_CACHE_HOME": str(own / "user-cache"), "XDG_STATE_HOME": str(own / "user-state")}

    def doit(self, *args: str, env: Mapping[str, str] | None = None, stdin: str = "") -> Result:
        done = run_python(
            ["-m", "doit", *args],
            cwd=self.path,
            env=environment(**{**self._own, **(env or {})}),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
        found = re.findall(r"^DEPLOY_TX_ID=(\S+) .*DEPLOY_REPORT=(\S+)", done.stdout, re.M)
        report = None
        if found:
            markdown = self.path / found[-1][1]
        if found and markdown.parent.is_dir():
            assert markdown.read_text().startswith("# Deploy Report")
            report = json.loads(markdown.with_suffix(".json").read_text())
            assert report["transaction_id"] == found[-1][0]
        return Result(done.returncode, done.stdout, done.stderr, report)

    def deploy(self, **kwargs: Any) -> Result:
        return self.doit("deploy", **kwargs)

    def start(self, *args: str) -> subprocess.Popen[str]:
        """`doit` in the background, for tests that kill it."""
        return Python(
            ["-m", "doit", *args],
            cwd=self.path,
            env=environment(**self._own),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


STORED = ("cas.v1", "ac.v1")


def copy_project(source: Path, target: Path) -> None:
    """What a user's checkout holds, and what earlier runs left there. What the store holds is never changed in place:
    its files, the half of all, are linked."""

    def copy(one: str, other: str) -> None:
        if any(f"/{name}/" in one for name in STORED):
            os.link(one, other)
        else:
            shutil.copy2(one, other)

    target.mkdir(parents=True, exist_ok=True)
    for name in ("dodo.py", "deploy.toml"):
        shutil.copy2(source / name, target / name)
    for name in ("firmware", "build", ".deploy"):
        if (source / name).is_dir():
            ignored = shutil.ignore_patterns("*.flash", "zig", "ci-uv")
            shutil.copytree(source / name, target / name, ignore=ignored, copy_function=copy)
