"""Live tests that are pytest modules: run in a child with the plugin, read back from its JUnit XML.

Knows pytest's command line and exit codes. Invariant: a child that could not run its tests is a failure with its words,
never an empty success; the project's lock stays with the parent, which the child is told of.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from pipeline.device.leases import LEASE_VARIABLE
from pipeline.effects.clock import SystemClock
from pipeline.effects.process import SystemProcessRunner
from pipeline.failures import fail
from pipeline.livetest.runner import LiveResult
from pipeline.model import Failure, FailureCategory
from pipeline.run.project import Project

if TYPE_CHECKING:
    from pipeline.livetest.selection import LiveOptions

DEPLOYED_VARIABLE = "HOTPLATE_DEPLOYED"
"""In the child: the device that its parent has deployed to, while it holds the project's lock."""
TIMEOUT_S = 3600.0
_NONE_COLLECTED = 5


def run_pytest(project: Project, device: str, options: LiveOptions, lease: str = "") -> list[LiveResult] | Failure:
    """The results of every test that pytest collects in the directory of live tests. `lease`: the token of the board's,
    which is ours."""
    directory = project.config.livetest.dir
    if importlib.util.find_spec("pytest") is None:
        message = f"{directory} holds pytest modules, and pytest is not installed for this Python"
        return fail(
            FailureCategory.TOOLCHAIN_MISSING,
            stage=None,
            where=directory,
            message=message,
            hint="install it with: pip install pytest",
        )
    with tempfile.TemporaryDirectory(prefix="hotplate-live-") as scratch:
        xml = Path(scratch) / "junit.xml"
        argv = [sys.executable, "-m", "pytest", directory, "--hotplate-device", device, "--hotplate-python-only"]
        argv += ["--junitxml", str(xml), "--no-header", "-o", "junit_family=xunit2"]
        argv += ["-k", options.select] if options.select else []
        argv += ["--hotplate-tags", options.tags] if options.tags else []
        # one board has one talker: workers would only wait for each other
        argv += ["-n", "0"] if importlib.util.find_spec("xdist") is not None else []
        environment = {**os.environ, DEPLOYED_VARIABLE: device}
        tokens = [token for token in (os.environ.get(LEASE_VARIABLE, ""), lease) if token]
        if tokens:
            environment[LEASE_VARIABLE] = ",".join(tokens)
        runner = SystemProcessRunner(SystemClock())
        try:
            done = runner.run(argv, cwd=project.root, env=environment, timeout_s=TIMEOUT_S)
        except (OSError, TimeoutError) as error:
            return _failed(directory, f"pytest did not come to its end: {error}", "")
        finally:
            runner.close()
        said = (done.stdout + done.stderr).decode("utf-8", "replace")
        try:
            results = _read(xml, f"{directory.replace('/', '.')}.")
        except (OSError, ElementTree.ParseError):
            results = []
        if done.exit_code not in (0, 1, _NONE_COLLECTED) or (done.exit_code == 1 and not results):
            return _failed(directory, f"pytest ended with {done.exit_code}", said)
        return results


def _failed(where: str, message: str, said: str) -> Failure:
    hint = f"run `python -m pytest {where}` to see more"
    return fail(FailureCategory.TEST_FAILED, stage=None, where=where, message=message, hint=hint, detail=said)


def _read(xml: Path, package: str) -> list[LiveResult]:
    """`package`: what the class names of all modules begin with."""
    results = []
    for case in ElementTree.parse(xml).getroot().iter("testcase"):
        module = (case.get("classname") or "").removeprefix(package)
        outcome, message, detail = "passed", "", ""
        for child in case:
            kind = {"failure": "failed", "error": "error", "skipped": "skipped"}.get(child.tag)
            if kind is not None:
                outcome, message = kind, (child.get("message") or "").strip()
                detail = (child.text or "").strip()
        output = "\n".join(child.text or "" for child in case if child.tag in ("system-out", "system-err"))
        detail = "\n".join(part for part in (detail, output.strip()) if part) if outcome in ("failed", "error") else ""
        name = f"{module}::{case.get('name')}" if module else str(case.get("name"))
        results.append(LiveResult(name, module, outcome, float(case.get("time") or 0), message, detail))
    return results
