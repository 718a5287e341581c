"""A copy of the project in a temporary directory, and whole `python` processes run in it.

For measurements: nothing that happens there reaches the project, its cache, its board or its lock. Knows which files
make up a project; does not know what is measured. Never on the warm path.
Invariant: the project is only read; the copy has its own cache, state, boards and reports, all below one directory.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cache.durable import read_text
from pipeline.effects.api import Completed
from pipeline.effects.host import git_files
from pipeline.run.build import Build
from pipeline.run.project import CONFIG_FILE, STATE_DIR

PRODUCTS = ("build", STATE_DIR)
"""What a run leaves in a project, reports apart."""

FOREIGN = frozenset({"__pycache__", "build", "node_modules", "venv"})
"""Directories that are never part of a project's sources, beside hidden ones: asked only where git cannot tell."""


class Scratch:
    """Make it with a fresh directory; the caller removes that directory."""

    def __init__(self, build: Build, directory: Path) -> None:
        self.project = directory / "project"
        self._runner = build.runner
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("DEPLOY_", "GITHUB_"))}
        # It would have every child compile our modules again.
        self.env.pop("PYTHONDONTWRITEBYTECODE", None)
        for name in project_files(build):
            target = self.project / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(build.project.root / name, target)
            target.chmod(target.stat().st_mode | stat.S_IWUSR)  # of a checkout that is read-only
        (self.project / CONFIG_FILE).write_text(own_config(read_text(build.project.root / CONFIG_FILE)))

    def erase(self) -> None:
        """As after a fresh checkout: no products, an empty cache, virtual boards as from the factory."""
        for name in PRODUCTS:
            shutil.rmtree(self.project / name, ignore_errors=True)

    def python(self, *args: str, timeout_s: float, cwd: Path | None = None, **env: str) -> Completed:
        """One whole process of this interpreter in the copy (or in `cwd`). Raises TimeoutError, KeyboardInterrupt,
        OSError."""
        command = [sys.executable, *args]
        return self._runner.run(command, cwd=cwd or self.project, env={**self.env, **env}, timeout_s=timeout_s)


def own_config(text: str) -> str:
    """`deploy.toml` for the copy: the cache (of this machine alone), the boards' flash and the reports stay inside, and
    no budget is enforced (a cold run is not what the budget is for)."""
    import tomli_w

    document: dict[str, Any] = tomllib.loads(text)
    document.setdefault("cache", {})["dir"] = f"{STATE_DIR}/cache"
    document["cache"].pop("remote", None)  # what is measured is this machine, and others are not to hear of it
    document.setdefault("reports", {})["dir"] = "reports"
    document.setdefault("budget", {})["enforce"] = False
    for device in document.get("device", {}).values():
        device.pop("flash_file", None)
    return tomli_w.dumps(document)


def project_files(build: Build) -> list[str]:
    """The files of the project, relative to its root: what git would keep (ignored files are products), or without git
    everything outside of products and hidden directories; and in both cases every file that the build reads."""
    root = build.project.root
    listed = git_files(root)
    found = dict.fromkeys(_walk(root, build) if listed is None else _existing(root, listed, build))
    inside = (path for path in build.engine.sources() if not path.startswith(("/", "{")))
    found.update(dict.fromkeys(path for path in inside if (root / path).is_file()))
    return list(found)


def _existing(root: Path, listed: list[str], build: Build) -> Iterator[str]:
    """Files that git lists and that are there; of a submodule it lists the directory."""
    for name in listed:
        if (root / name).is_dir():
            yield from _walk(root / name, build, name + "/")
        elif (root / name).is_file():
            yield name


def _walk(directory: Path, build: Build, prefix: str = "") -> Iterator[str]:
    skipped = {build.project.reports_dir, build.project.cache_dir}
    for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
        if entry.is_dir(follow_symlinks=False):
            if not (entry.name in FOREIGN or entry.name.startswith(".") or Path(entry.path) in skipped):
                yield from _walk(Path(entry.path), build, f"{prefix}{entry.name}/")
        elif entry.is_file():
            yield prefix + entry.name
