"""The files of docs/ci.md: they are YAML, name what exists, and their commands do in a clone what the page says."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.conftest import copy_project_sources
from tests.e2e.space import ROOT, environment

PAGE = (ROOT / "docs/ci.md").read_text()
BLOCKS = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```\n", PAGE, re.S)]
GITHUB, GITLAB = BLOCKS[0]["jobs"]["deploy"], BLOCKS[1]["deploy"]
INSTALLS = "pip install"


@dataclass(frozen=True)
class CiStep:
    """One shell script of a job. `wanted`: the expression that decides whether it runs."""

    name: str
    script: str
    env: dict[str, str]
    wanted: str = ""


def github_steps() -> list[CiStep]:
    return [
        CiStep(step["name"], step["run"], step.get("env", {}), step.get("if", ""))
        for step in GITHUB["steps"]
        if "run" in step
    ]


def gitlab_script() -> str:
    return "\n".join([*GITLAB["before_script"], *GITLAB["script"]])


def commands() -> Iterator[list[str]]:
    """Every `doit ...` of both files, as words."""
    scripts = [step.script for step in github_steps()] + [*GITLAB["script"], *GITLAB["after_script"]]
    for script in scripts:
        for line in script.splitlines():
            for found in re.findall(r"(?:^|[\s(])doit ([a-z][^|>)&]*)", line):
                yield found.split()


def test_the_files_have_what_the_services_ask_for() -> None:
    # YAML 1.1 has a truth value for the key `on`.
    assert set(BLOCKS[0]) == {"name", True, "permissions", "jobs"} and GITHUB["runs-on"]
    for step in GITHUB["steps"]:
        assert ("run" in step) != ("uses" in step), step
        assert "${{" not in step.get("run", ""), "what others write never becomes a part of a script"
    assert {"image", "cache", "before_script", "script", "artifacts"} <= set(GITLAB)
    assert all(isinstance(line, str) for line in (*GITLAB["before_script"], *GITLAB["script"], *GITLAB["after_script"]))
    junit = GITLAB["artifacts"]["reports"]["junit"]
    assert f"--junit {junit}" in gitlab_script() and f"--junit {junit}" in github_steps()[3].script
    assert GITHUB["steps"][2]["with"]["path"] in GITLAB["cache"]["paths"]


def test_commands_and_options_exist() -> None:
    known = {entry.name: entry for entry in entry_points(group="doit.COMMAND")}
    named = list(commands())
    assert len(named) >= 10
    tasks = subprocess.run(
        [sys.executable, "-m", "doit", "list", "--all", "-q"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    for words in named:
        name, options = words[0], [word for word in words if word.startswith("--")]
        assert name in known or name in tasks, words
        if name in known:
            assert set(options) <= {f"--{option['long']}" for option in known[name].load().cmd_options}, words
        else:
            assert set(options) <= {"--junit"}, words


# --- the scripts, run -------------------------------------------------------------------------


@dataclass
class Clones:
    """A repository with a base and a change of it, and what a runner would set."""

    place: Path

    def __post_init__(self) -> None:
        origin = self.place / "origin"
        copy_project_sources(origin)
        (origin / ".gitignore").write_text(".deploy/\nbuild/\nreports/\n.cache/\n.venv/\n.base/\n")
        self._git(origin, "init", "--quiet", "--initial-branch", "main")
        self._commit(origin)
        self.base = self._git(origin, "rev-parse", "HEAD").strip()
        source = origin / "firmware/modules/blink.c"
        larger = source.read_text().replace("uint32_t flashes;", "uint32_t flashes, history[256];")
        source.write_text(larger.replace("    port_led(is_on);", "    port_led(is_on);\n    history[flashes % 256]++;"))
        self._commit(origin)
        self.programs = self.place / "bin"
        self.programs.mkdir()
        self.calls = self.place / "calls.txt"
        for name in ("gh", "curl"):
            program = self.programs / name
            program.write_text(f'#!/bin/sh\necho "{name} $*" >> "{self.calls}"\n')
            program.chmod(program.stat().st_mode | stat.S_IXUSR)

    def clone(self, name: str) -> Path:
        """A fresh checkout, with what the service keeps between jobs."""
        path = self.place / name
        self._git(self.place, "clone", "--quiet", str(self.place / "origin"), str(path))
        kept = self.place / "kept"
        if kept.exists():
            shutil.copytree(kept, path / ".cache/hotplate")
        return path

    def keep(self, path: Path) -> None:
        """As the service does at the end of a job."""
        shutil.rmtree(self.place / "kept", ignore_errors=True)
        shutil.copytree(path / ".cache/hotplate", self.place / "kept")

    def run(self, script: str, where: Path, *options: str, **variables: str) -> str:
        """Its output; it has to end well. `options`: those of the service's shell, beside -e."""
        search = os.pathsep.join((str(self.programs), str(Path(sys.executable).parent), os.environ["PATH"]))
        path = where.parent / f"{where.name}.sh"
        path.write_text(script)
        done = subprocess.run(
            ["bash", "-e", *options, str(path)],
            check=False,
            cwd=where,
            env=environment(PATH=search, XDG_STATE_HOME=str(self.place / "state"), **variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}"
        return done.stdout

    def _commit(self, where: Path) -> None:
        self._git(where, "add", "--all")
        self._git(where, "-c", "user.name=ci", "-c", "user.email=ci@example.com", "commit", "--quiet", "-m", "a change")

    def _git(self, where: Path, *words: str) -> str:
        return subprocess.run(["git", *words], cwd=where, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def clones(tmp_path: Path) -> Clones:
    pytest.importorskip("ziglang", reason="the job compiles with zig")
    pytest.importorskip("unicorn", reason="the job executes the firmware")
    return Clones(tmp_path)


def github_job(clones: Clones, where: Path) -> dict[str, str]:
    """The steps of a job for a pull request, in order; what each printed."""
    values = {
        "github.workspace": str(where),
        "github.event.pull_request.base.sha": clones.base,
        "github.event.pull_request.number": "7",
        "github.token": "none",
    }
    summary = where.parent / f"{where.name}-summary.md"
    runner = {"RUNNER_TEMP": str(where.parent / f"{where.name}-temp"), "GITHUB_STEP_SUMMARY": str(summary)}
    Path(runner["RUNNER_TEMP"]).mkdir()

    def filled(env: dict[str, Any]) -> dict[str, str]:
        return {
            name: re.sub(r"\$\{\{ *([\w.]+) *\}\}", lambda found: values[found[1]], str(text))
            for name, text in env.items()
        }

    told = {}
    for step in github_steps():
        if INSTALLS not in step.script:
            told[step.name] = clones.run(step.script, where, **{**runner, **filled(GITHUB["env"]), **filled(step.env)})
    told["summary"] = summary.read_text()
    return told


@pytest.mark.stress
def test_the_job_of_github(clones: Clones) -> None:
    first = github_job(clones, one := clones.clone("one"))
    assert "a deploy can work" in first["Can a deploy work here?"]
    assert "DEPLOY_OUTCOME=full_flashed" in first["Deploy to the virtual board"]
    assert re.search(r"^ram +\d+ +\+10\d\d ", first["Size"], re.M), first["Size"]
    assert "full_flashed" in first["summary"], "the step summary is that of the change alone"
    assert (one / "reports/ci/junit.xml").is_file()
    assert clones.calls.read_text() == ("gh pr comment 7 --body-file reports/ci/size.md --edit-last --create-if-none\n")
    clones.keep(one)
    second = github_job(clones, clones.clone("two"))
    assert "compiled=0, restored=" in second["Deploy to the virtual board"], second
    assert "compiled=0, restored=" in second["The base, to compare with"], second


@pytest.mark.stress
def test_the_job_of_gitlab(clones: Clones) -> None:
    merge_request = {
        "CI_MERGE_REQUEST_DIFF_BASE_SHA": clones.base,
        "CI_MERGE_REQUEST_IID": "7",
        "CI_PROJECT_ID": "1",
        "CI_API_V4_URL": "http://127.0.0.1/api/v4",
        "SIZE_TOKEN": "none",
    }

    def job(where: Path, **service: str) -> str:
        values = {"CI_PROJECT_DIR": str(where), **service}
        own = {n: re.sub(r"\$(\w+)", lambda found: values[found[1]], t) for n, t in GITLAB["variables"].items()}
        lines = [line for line in GITLAB["script"] if INSTALLS not in line]
        after = [line for line in GITLAB["after_script"] if "activate" not in line]
        said = clones.run("\n".join(lines), where, "-o", "pipefail", **values, **own)
        return said + clones.run("\n".join(after), where, "-o", "pipefail", **values, **own)

    first = job(one := clones.clone("one"), **merge_request)
    assert re.search(r"^ram +\d+ +\+10\d\d ", first, re.M), first
    assert (one / "reports/ci/junit.xml").is_file() and (one / "reports/ci/index.html").is_file()
    assert "--header PRIVATE-TOKEN: none" in clones.calls.read_text()
    assert "merge_requests/7/notes" in clones.calls.read_text()
    clones.keep(one)
    second = job(clones.clone("two"), **merge_request)
    assert second.count("compiled=0, restored=") == 2, second
    pushed = job(clones.clone("three"))
    assert pushed.count("compiled=0, restored=") == 1 and re.search(r"^ram +\d+ +- ", pushed, re.M), pushed
