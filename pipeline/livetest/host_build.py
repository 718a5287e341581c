"""The firmware as programs of this machine, built by an engine of their own; and its unit tests, run once per program.

Knows where the state of the host's build lies. Does not know doit, nor what the programs do. Invariant: a unit test is
up to date exactly when the very program that passed is what lies there; it is remembered by the program's digest, so
that an edit which makes the same program runs no test.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from cache.durable import FileLock, read_file, write_atomic
from cache.named_tuple import NamedTuple
from pipeline.effects.host import parallel_jobs
from pipeline.engine.engine import Engine
from pipeline.engine.results import RunResult
from pipeline.engine.workspace import BuildSteps, Directories, Host
from pipeline.failures import fail
from pipeline.model import Failure, FailureCategory, Stage, note_lines
from pipeline.records import json_text, parse_json
from pipeline.report.terminal import told_lines
from pipeline.run.build import Build
from pipeline.toolchain.action_failures import action_failure
from pipeline.toolchain.host import HostPrograms, host_programs

TEST_TIMEOUT_S = 300.0
LOCK_TIMEOUT_S = 300.0
UNIT_STATE = "unit.v1.json"
_SUMMARY = re.compile(r"(\d+) (?:checks?|tests?|assertions?)\b.*", re.IGNORECASE)
"""The last line of many test programs: `12 checks, 0 failures`, `12 Tests 0 Failures 0 Ignored`."""


class UnitResult(NamedTuple):
    """One unit test program. `failure` is what it printed (`""`: it passed), `checks` how many it counted itself."""

    name: str
    failure: str
    duration_s: float
    summary: str = ""


class MachineBuild:
    """Of the project of `build`. Made lazily; asking writes nothing."""

    def __init__(self, build: Build, say: Callable[[str], None]) -> None:
        """`say`: lines for people."""
        self._build = build
        self._project = build.project
        self._say = say
        self.state_dir = self._project.state_dir / "host"

    @cached_property
    def programs(self) -> HostPrograms:
        """What is to be built. Raises ToolError, ConfigError."""
        return host_programs(self._project.root, self._project.config, self._project.state_dir)

    @cached_property
    def _engine(self) -> Engine:
        it, made = self._project, self.programs
        directories = Directories(it.root, self.state_dir, it.cache_dir, it.config.cache.max_bytes)
        run_env = {"PATH": os.environ.get("PATH", os.defpath), **made.tools.run_env}
        steps = BuildSteps(made.actions, {tool.name: tool for tool in made.tools.tools}, {}, run_env)
        return Engine(directories, steps, Host(self._build.runner, self._build.clock, parallel_jobs()))

    # --- building ---------------------------------------------------------------------------------

    def up_to_date(self) -> bool:
        """Stats only."""
        return self._engine.peek().up_to_date and all(
            self._engine.verdict(stage).up_to_date for stage in (Stage.COMPILE, Stage.LINK)
        )

    def make(self) -> Mapping[str, int] | Failure:
        """Build everything; what was compiled, linked and restored, or why not."""
        lock = FileLock(self.state_dir / "lock")
        busy = lock.acquire(f"pid {os.getpid()}", timeout_s=LOCK_TIMEOUT_S, now_s=time.monotonic, pause=time.sleep)
        if busy is not None:
            message = f"another build of [host] has run for {LOCK_TIMEOUT_S:.0f} s: {busy.holder}"
            return fail(FailureCategory.LOCK_TIMEOUT, stage=None, where="host", message=message)
        try:
            return self._made()
        finally:
            lock.release()

    def _made(self) -> Mapping[str, int] | Failure:
        counts = {"compiled": 0, "linked": 0, "restored": 0}
        for stage, category in (
            (Stage.COMPILE, FailureCategory.COMPILE_ERROR),
            (Stage.LINK, FailureCategory.LINK_ERROR),
        ):
            result = self._engine.run(stage, lambda name, done, total: None)
            self._tell(result)
            if result.failures:
                return action_failure(stage, category, result.failures, self.programs.actions)
            counts = {name: count + result.counts[name] for name, count in counts.items()}
        return counts

    def _tell(self, result: RunResult) -> None:
        for _, text in result.warnings:
            self._say("\n".join(told_lines(text.rstrip())))
        for line in note_lines(result.notes):
            self._say(f"note: {line}")

    # --- unit tests -------------------------------------------------------------------------------

    def passed(self) -> dict[str, Any]:
        """Unit test -> what is remembered of the program that passed last."""
        try:
            known = parse_json(read_file(str(self.state_dir / UNIT_STATE)))
        except (OSError, ValueError, RecursionError):
            return {}
        return known if isinstance(known, dict) else {}

    def untested(self) -> list[str]:
        """Unit tests whose program is not the one that passed."""
        known = self.passed()
        return [name for name in self.programs.tests if not self._is_known(known.get(name), name)]

    def _is_known(self, entry: Any, name: str) -> bool:
        return isinstance(entry, dict) and entry.get("sha256") == self.digest_of(self.programs.tests[name]) != ""

    def digest_of(self, program: str) -> str:
        """SHA-256 of a program, by its stamp where that is settled; `""` when it is not there."""
        try:
            entry = self._engine.table.current(program)
        except OSError:
            return ""
        return entry.sha256 if entry is not None else ""

    def test(self, names: Sequence[str]) -> list[UnitResult]:
        """Run these unit tests, and remember those that pass."""
        known, results = self.passed(), []
        for name in names:
            result = self._run(name)
            results.append(result)
            known.pop(name, None)
            if not result.failure:
                known[name] = {"sha256": self.digest_of(self.programs.tests[name]), "summary": result.summary}
        known = {name: entry for name, entry in known.items() if name in self.programs.tests}
        write_atomic(self.state_dir / UNIT_STATE, (json_text(known, indent=1) + "\n").encode(), durable=False)
        return results

    def _run(self, name: str) -> UnitResult:
        program = str(self._project.root / self.programs.tests[name])
        began_s = time.monotonic()
        environment = dict(os.environ)
        try:
            done = self._build.runner.run([program], cwd=self._project.root, env=environment, timeout_s=TEST_TIMEOUT_S)
        except TimeoutError:
            took_s = time.monotonic() - began_s
            return UnitResult(name, f"it did not end within {TEST_TIMEOUT_S:.0f} s", took_s)
        except OSError as error:
            return UnitResult(name, f"it cannot be started: {error.strerror}", 0.0)
        printed = (done.stdout + done.stderr).decode("utf-8", "replace").strip()
        last = printed.splitlines()[-1] if printed else ""
        summary = last if _SUMMARY.search(last) else ""
        failure = "" if done.exit_code == 0 else printed or f"it ended with {done.exit_code}"
        return UnitResult(name, failure, done.duration_s, summary)

    def close(self) -> None:
        """Keep what was read."""
        if "_engine" in self.__dict__:
            self._engine.save()


def text_digest(parts: Sequence[bytes]) -> str:
    """One digest of several texts, each with its length, so that no two lists have the same."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()
