"""The engine of a build, made when something has to be asked of it: one over all actions, or one over a few of them.

Knows when few moved files are all that is needed. Does not know what a stage is for. Invariant: the whole engine is
never made from less than what the partial one has read by then.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable, Iterator
from functools import cached_property, partial

from pipeline.effects.clock import SystemClock
from pipeline.effects.process import SystemProcessRunner
from pipeline.engine.build_log import Saved, load_saved
from pipeline.engine.engine import Engine
from pipeline.engine.facts import shadow_directories, used_files
from pipeline.engine.partial_graph import MANY, partial_graph, usage_index
from pipeline.engine.workspace import BuildSteps, Directories, Host, SkippedActions
from pipeline.fastpath.native_loop import WORTH_FILES
from pipeline.fastpath.plain import is_plain
from pipeline.fastpath.state import FastPathState
from pipeline.fastpath.watched import Watched
from pipeline.model import Stage
from pipeline.run.project import Project
from pipeline.toolchain.build import Toolchain


class Engines:
    """Of one project. `toolchain` is called when all actions are needed; it raises ToolError when a tool is missing."""

    def __init__(
        self,
        project: Project,
        toolchain: Callable[[], Toolchain],
        fastpath: FastPathState,
        runner: SystemProcessRunner,
        clock: SystemClock,
    ) -> None:
        self._project = project
        self._toolchain = toolchain
        self._fastpath = fastpath
        self._runner = runner
        self._clock = clock

    def of(self, stage: Stage) -> Engine:
        """The engine that answers for `stage`: up to compile one that knows only what few moved files concern, where
        that can be told."""
        if stage in (Stage.FINGERPRINT, Stage.COMPILE) and "whole" not in self.__dict__:
            return self._partial or self.whole
        return self.whole

    @property
    def partial_in_use(self) -> bool:
        """Has the partial engine answered? Then all actions are those of the last run."""
        return self.__dict__.get("_partial") is not None

    @cached_property
    def _partial(self) -> Engine | None:
        found = None if self._project.config.is_ninja else self._fastpath.usage_index()
        if found is None or len(found[1]) > MANY:
            return None
        with _uncollected():
            saved = load_saved(self._project.engine_dir)
            part = partial_graph(*found, saved.records)
            if part is None:
                return None
            return self._engine(BuildSteps(part.actions, part.tools, {}, part.run_env), saved, part.skipped)

    @cached_property
    def whole(self) -> Engine:
        """The engine over all of the project's actions."""
        if (part := self.__dict__.get("_partial")) is not None:
            part.save()  # what this one reads
        _ = self._project.table  # a table that cannot be read is the configuration's fault, not that of an action
        with _uncollected():
            made = self._toolchain()
            steps = BuildSteps(made.actions, made.tools, made.builtins, made.run_env, made.given)
            return self._engine(
                steps._replace(
                    symbols=made.symbols,
                    has_statements=self._project.config.is_ninja,
                    ninja_log_version=made.ninja_log_version,
                    strace=made.strace,
                )
            )

    def _engine(self, steps: BuildSteps, saved: Saved | None = None, skipped: SkippedActions | None = None) -> Engine:
        it = self._project
        directories = Directories(it.root, it.engine_dir, it.cache_dir, it.config.cache.max_bytes)
        return Engine(directories, steps, Host(self._runner, self._clock, os.cpu_count() or 1), saved, skipped)

    def record_for_fastpath(self) -> None:
        """Everything is up to date: write what the fast path needs to know that next time, if it can be told."""
        engine, made = self.whole, self._toolchain()
        used = used_files(engine.workspace)
        if used is None:
            return
        helper = None
        if len(used) >= WORTH_FILES:
            from pipeline.fastpath.native_build import ready

            helper = ready(self._runner)
        programs = tuple(tool.path for tool in made.tools.values())
        watched = made.watched.with_more(Watched(shadow_directories(engine.workspace), (), programs))
        facts = {
            "inputs": engine.input_count,
            "toolchain": made.name,
            "images": dict(made.images),
            "plain": is_plain(str(self._project.root)),
        }
        index = partial(usage_index, engine.workspace)
        self._fastpath.record(engine.table, used, engine.graph.producer, watched, facts, index, helper)

    def save(self) -> None:
        """Keep what was read."""
        engine = self.__dict__.get("whole") or self.__dict__.get("_partial")
        if engine is not None:
            engine.save()


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Tens of thousands of objects are made here that live as long as the process: the collector would walk them again
    and again for nothing (a third of the time that it takes to make them)."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collecting:
            gc.enable()
