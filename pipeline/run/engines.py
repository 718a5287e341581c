"""The engine of a build, made when something has to be asked of it: one over all actions, or one over a few of them.

Knows when few moved files are all that is needed, from the first question to what is written for the next run. Does not
know what a stage is for. Invariant: the whole engine is never made from less than what the partial one has read.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from pipeline.effects.clock import SystemClock
from pipeline.effects.host import parallel_jobs
from pipeline.effects.process import SystemProcessRunner
from pipeline.engine.engine import Engine
from pipeline.engine.facts import each_used_file, looked_at, read_of, shadow_directories
from pipeline.engine.partial_graph import PartialGraph, partial_graph, same_files
from pipeline.engine.saved_state import Saved, load_of
from pipeline.engine.usage_index import MANY, usage_index
from pipeline.engine.workspace import BuildSteps, Directories, Host, SkippedActions
from pipeline.fastpath import LOGS, OF_STATE, PUT_BACK, FileStamp
from pipeline.fastpath.native_loop import WORTH_FILES
from pipeline.fastpath.plain import is_plain
from pipeline.fastpath.state import FastPathState
from pipeline.fastpath.watched import Watched
from pipeline.model import Action, Stage, Tool
from pipeline.run.project import Project

if TYPE_CHECKING:
    from cache.remote import Remote
    from pipeline.effects.executor import FarWork
    from pipeline.engine.results import Builtin
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
        remote: Callable[[], Remote | None] = lambda: None,
        far: Callable[[Mapping[str, Tool]], FarWork | None] = lambda tools: None,
        keeps: bool = True,
    ) -> None:
        """`keeps`: see `Build`."""
        self._project = project
        self._toolchain = toolchain
        self._fastpath = fastpath
        self._runner = runner
        self._clock = clock
        self._remote = remote
        self._far = far
        self._keeps = keeps
        self._part: PartialGraph | None = None
        self._moved: Mapping[int, str] = {}
        self._looked_again = False

    def of(self, stage: Stage) -> Engine:
        """The engine that answers for `stage`: one that knows only what few moved files concern, where that can be
        told, and, before anything is linked, where nothing moved meanwhile that may say which actions there are."""
        if "whole" in self.__dict__ or self._partial is None:
            return self.whole
        if stage is Stage.LINK and not self._looked_again:
            self._looked_again = True
            if self._fastpath.moved_beside():
                return self.whole
        return self._partial

    @property
    def partial_in_use(self) -> bool:
        """Has the partial engine answered? Then all actions are those of the last run."""
        return self.__dict__.get("_partial") is not None

    @property
    def only_partial(self) -> bool:
        """And has no other engine answered yet?"""
        return self.partial_in_use and "whole" not in self.__dict__

    @property
    def concerned(self) -> Sequence[Action]:
        """The actions about which this run asked: no other one did anything."""
        part = self._partial if self.only_partial else None
        return self._toolchain().actions if part is None else part.graph.order

    @cached_property
    def _partial(self) -> Engine | None:
        found = self._fastpath.usage_index()
        if found is None or len(found[1]) > MANY:
            return None
        with _uncollected():
            facts = self._fastpath.lasting_facts() or {}
            saved = load_of(self._project.engine_dir, facts.get(OF_STATE))
            part = None if saved is None else partial_graph(*found, saved.records, str(self._project.root))
            if part is None:
                return None
            self._part, self._moved = part, found[1]
            skipped = part.skipped._replace(moved_products=self._fastpath.moved_products)
            steps = BuildSteps(part.actions, part.tools, _Builtins(), part.run_env)
            if self._project.config.is_ninja:
                steps = self._of_statements(steps)
            return self._engine(steps, saved, skipped)

    def _of_statements(self, steps: BuildSteps) -> BuildSteps:
        """With what statements need to know beside themselves, as the whole toolchain says it."""
        from pipeline.toolchain.ninja_build import statement_facts

        it = self._project
        return steps._replace(has_statements=True, **statement_facts(it.root, it.config, it.state_dir))

    @cached_property
    def whole(self) -> Engine:
        """The engine over all of the project's actions."""
        self.save()  # what this one reads
        _ = self._project.table  # a table that cannot be read is the configuration's fault, not that of an action
        with _uncollected():
            made = self._toolchain()
            steps = BuildSteps(made.actions, made.tools, made.builtins, made.run_env, made.given)
            return self._engine(self._of_statements(steps) if self._project.config.is_ninja else steps)

    def _engine(self, steps: BuildSteps, saved: Saved | None = None, skipped: SkippedActions | None = None) -> Engine:
        it = self._project
        self._runner.starts_with(Starter(self._runner, len(steps.actions)))
        directories = Directories(it.root, it.engine_dir, it.cache_dir, it.config.cache.max_bytes)
        host = Host(self._runner, self._clock, parallel_jobs(), self._remote)
        if it.config.execution.remote and not it.config.is_ninja:
            far_jobs = it.config.execution.jobs
            host = host._replace(far_jobs=far_jobs, far=lambda: self._far(steps.tools))
        return Engine(directories, steps, host, saved, skipped)

    def record_for_fastpath(self) -> None:
        """Everything is up to date: write what the fast path needs to know that next time, if it can be told."""
        if self._renewed_for_fastpath():
            return
        engine, made = self.whole, self._toolchain()
        engine.give_back()
        if any(action.statement is not None and action.statement.runs_each_time for action in engine.graph.order):
            return  # as with ninja
        names = engine.workspace.saved_names()
        if names is None:
            return  # the next run works from an older one, and looks at all of it
        programs = tuple(tool.path for tool in made.tools.values())
        watched = made.watched.with_more(Watched(shadow_directories(engine.workspace), (), programs))
        facts = {
            "inputs": engine.input_count,
            "toolchain": made.name,
            "images": dict(made.images),
            "plain": is_plain(str(self._project.root)),
            OF_STATE: names,
            PUT_BACK: self._put_back_facts(),
        }
        if self._project.config.is_ninja:
            facts[LOGS] = engine.workspace.ledger.kept_logs()

        def index(paths: Sequence[str]) -> bytearray:
            engine.give_back()
            return usage_index(engine.workspace, paths)

        # A file that was only touched moves its users as ninja sees them: they get new times by a run.
        unread = None if self._project.config.is_ninja else engine.graph.producer
        used, read = each_used_file(engine.workspace), partial(read_of, engine.workspace)
        from pipeline.fastpath.whole_state import WholeRun  # of an edit of few files there is none

        if self._fastpath.record(WholeRun(engine.table, used, unread, watched, facts, index, self._helper, read)):
            engine.workspace.save_rows()  # for the edit that is next

    def _put_back_facts(self) -> dict[str, Any]:
        """What `engine/put_back.py` needs to know; nothing where a run does more than to restore what is gone."""
        it = self._project
        if it.config.firmware is not None or it.config.prebuilt.build:
            return {}
        facts: dict[str, Any] = {"engine": str(it.engine_dir.relative_to(it.root)), "cache": it.config.cache.dir}
        if not it.config.is_ninja:
            return facts
        workspace = self.whole.workspace
        version = workspace.ledger.log_version
        return {**facts, "log": version, "symbols": tuple(workspace.symbols.items())} if version else {}

    def _helper(self, files: int) -> Mapping[str, FileStamp] | None:
        """The compiled loop, for a project of so many files."""
        if files < WORTH_FILES:
            return None
        from pipeline.fastpath.native_build import ready

        return ready(self._runner)

    def _renewed_for_fastpath(self) -> bool:
        """Is that done, by writing what few files are now into what it knew?"""
        engine, part = self.__dict__.get("_partial"), self._part
        if engine is None or part is None or "whole" in self.__dict__ or not same_files(part, engine.records):
            return False
        used = looked_at(engine.workspace)
        if used is None:
            return False
        root, place_of, changed = str(self._project.root), engine.workspace.resolve, {}
        names = {place_of(path).removeprefix(f"{root}/"): path for path in used}
        for place, short in self._moved.items():
            if short not in names:
                return False
            changed[place] = (names[short], used[names[short]])
        for place, path in part.makes.items():
            changed[place] = (path, used[path])
        made = changed if self._project.config.is_ninja else part.makes
        state = engine.workspace.saved_names()
        if state is None:
            return True  # nothing is written beside an older one: the next run looks at all of it
        return self._fastpath.patch(engine.table, changed, made, self._helper, {OF_STATE: state})

    def save(self) -> None:
        """Keep what was read, where that is wanted."""
        engine = self.__dict__.get("whole") or self.__dict__.get("_partial")
        if engine is not None and self._keeps:
            engine.save()


class Starter:
    """Tells where what starts commands lies, and has it made meanwhile where so many are that it will be of use."""

    def __init__(self, runner: SystemProcessRunner, actions: int) -> None:
        self._runner = runner
        self._is_worth_making = actions >= WORTH_FILES

    def __call__(self) -> str | None:
        from pipeline.fastpath.native_build import ready, there

        found = there()
        if found is None and self._is_worth_making:
            import threading

            self._is_worth_making = False
            threading.Thread(target=_unless_cancelled, args=(partial(ready, self._runner),), daemon=True).start()
        return found


def _unless_cancelled(make: Callable[[], object]) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        make()


class _Builtins(Mapping[str, "Builtin"]):
    """All of them, loaded when one is to run: most edits need none, and they know more than compilers do."""

    @cached_property
    def _all(self) -> Mapping[str, Builtin]:
        from pipeline.toolchain.builtins import BUILTINS
        from pipeline.toolchain.filesystems import FILESYSTEMS

        return {**BUILTINS, **FILESYSTEMS}

    def __getitem__(self, name: str) -> Builtin:
        from pipeline.toolchain.builtins import BUILTINS

        return BUILTINS.get(name) or self._all[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)


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
