"""The build of one project: its tools, its actions and the engine over them, and the images that come out.

Puts the system's processes behind the protocols that the stages see. Does not know boards, runs or doit.
Invariant: making one starts and writes nothing; toolchain and engines are made when the first question needs them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.schema import DeployConfig
from pipeline.effects.clock import SystemClock
from pipeline.errors import DeployError, StoreError
from pipeline.model import (
    Failure,
    FailureCategory,
    Reason,
    Stage,
    StageResult,
    StageWork,
    State,
    Verdict,
    note_lines,
)
from pipeline.run.options import Options
from pipeline.run.project import Project, load_project
from pipeline.run.screen import Screen

if TYPE_CHECKING:
    from cache.remote import Remote
    from pipeline.effects.executor import FarWork
    from pipeline.effects.process import SystemProcessRunner
    from pipeline.engine.engine import Engine
    from pipeline.engine.results import ActionFailure, ActionSpan
    from pipeline.fastpath.state import FastPathState
    from pipeline.formats.placement import Placement
    from pipeline.model import Tool
    from pipeline.run.built_images import BuiltImages
    from pipeline.run.built_sizes import BuiltSizes
    from pipeline.run.engines import Engines
    from pipeline.run.far_execution import FarExecution
    from pipeline.run.shared_cache import SharedCache
    from pipeline.toolchain.build import Toolchain


class Build:
    """`screen`: where warnings and progress go. `performed` is told of each action that ran or was restored,
    of a few at once."""

    def __init__(
        self,
        project: Project,
        clock: SystemClock | None = None,
        screen: Screen | None = None,
        performed: Callable[[Stage, Sequence[ActionSpan]], None] = lambda stage, spans: None,
        shared: Callable[[], SharedCache] | None = None,
        far: Callable[[], FarExecution] | None = None,
        *,
        keeps: bool = True,
    ) -> None:
        """`shared`: gives the shared cache of a run; without one this build has its own. `keeps`: what it reads is
        written for the next run. That is for who has the project's lock: else a run may have ended since."""
        self.project = project
        self.clock = clock or SystemClock()
        self._screen = screen or Screen()
        self._performed = performed
        self._shared = shared
        self._far = far
        self._keeps = keeps
        self._database_seen = False
        self._size: Mapping[str, Any] | None = None

    # --- what it is made of -------------------------------------------------------------------

    @property
    def config(self) -> DeployConfig:
        return self.project.config

    @property
    def placements(self) -> tuple[Placement, ...]:
        """Where everything goes that goes to flash. Raises ConfigError when something has no place there."""
        return self.project.placements

    @cached_property
    def toolchain(self) -> Toolchain:
        """The tools and their actions; loaded when they are asked for, which listing tasks does not. Raises ToolError
        when a tool is missing."""
        from pipeline.toolchain.build import build_toolchain

        it = self.project
        return build_toolchain(it.root, it.config, it.profile, it.state_dir, it.table, it.placements)

    def toolchain_name(self) -> str:
        """`zig 0.17.0`; empty when the tools cannot be found (the compile stage says why)."""
        facts = self.fastpath.lasting_facts()
        if facts is not None:
            return str(facts["toolchain"])
        try:
            return self.toolchain.name
        except DeployError:
            return ""

    @property
    def identity(self) -> Mapping[str, str]:
        """What escalates to a full flash when it moves: the flash settings and the toolchain of this build."""
        flash = self.config.flash
        return {"flash": f"{flash.mode} {flash.freq} {flash.size}", "toolchain": self.toolchain_name()}

    @cached_property
    def fastpath(self) -> FastPathState:
        """What `hotplate` answers from. A monitor makes a build that nobody asks, so that this waits, as `runner`."""
        from pipeline.fastpath.state import FastPathState

        return FastPathState(self.project.root, self.project.selection)

    @cached_property
    def runner(self) -> SystemProcessRunner:
        """Child processes; closed with the build."""
        from pipeline.effects.process import SystemProcessRunner

        return SystemProcessRunner(self.clock)

    @cached_property
    def images(self) -> BuiltImages:
        """The images of this build. Where nothing moved at all they are those of the run before, and no source is
        listed for that."""
        from pipeline.run.built_images import BuiltImages

        facts = self.fastpath.facts()
        if facts is None and "engines" in self.__dict__ and self.engines.only_partial:
            facts = self.fastpath.lasting_facts()
        known = None if facts is None else facts.get("images")

        until = self.config.readiness.until
        asked = until if self.config.firmware is not None and until.startswith("rpc:") else ""
        chip, table = self.config.toolchain.chip, self.project.table
        made = self.toolchain.images if known is None else known
        return BuiltImages(self.project.root, made, self.placements, chip, asked, table)

    @cached_property
    def engines(self) -> Engines:
        """Loaded when the first question needs an engine: a warm deploy asks none."""
        from pipeline.run.engines import Engines

        it = self
        more = (it._remote, it._work, it._keeps)
        return Engines(it.project, lambda: it.toolchain, it.fastpath, it.runner, it.clock, *more)

    @cached_property
    def shared(self) -> SharedCache:
        """The cache that other machines share, made when something must be done."""
        from pipeline.run.shared_cache import SharedCache

        if self._shared is not None:
            return self._shared()
        return SharedCache(self.config.cache, self.clock, self._screen.notice, self.project.state_dir)

    def _remote(self) -> Remote | None:
        return self.shared.remote()

    @cached_property
    def far(self) -> FarExecution:
        """Who else may compile, made when something must be done."""
        from pipeline.run.far_execution import FarExecution

        if self._far is not None:
            return self._far()
        return FarExecution(self.config.execution, self.clock, self._screen.notice)

    def _work(self, tools: Mapping[str, Tool]) -> FarWork | None:
        return self.far.work(tools)

    @property
    def engine(self) -> Engine:
        """The engine over all of this project's actions."""
        return self.engines.whole

    @cached_property
    def sizes(self) -> BuiltSizes:
        """How large the application is, and was."""
        from pipeline.run.built_sizes import BuiltSizes

        return BuiltSizes(self.project.root, self.project.engine_dir, self.project.profile)

    # --- is it up to date? --------------------------------------------------------------------

    def host_verdict(self, stage: Stage) -> Verdict:
        """Is this host stage up to date? Stats only; writes nothing, opens nothing. Errors are left to the stage."""
        if self.fastpath.facts() is not None:
            return Verdict(State.UP_TO_DATE)
        try:
            if stage is Stage.FINGERPRINT:
                verdict = self.engines.of(stage).peek()
                if verdict.up_to_date and self.config.is_ninja:
                    # What says which actions there are is made itself.
                    return self.engines.of(stage).verdict(stage)
                return verdict
            verdict = self.engines.of(stage).verdict(stage)
            if stage is Stage.LINK and verdict.up_to_date:
                if self.images.check().failure is not None:
                    return Verdict(State.DIRTY, (Reason("image-check", "images"),))
                if self.config.size.any and self.check_size() is not None:
                    return Verdict(State.DIRTY, (Reason("size-check", "images"),))
            return verdict
        except DeployError as error:
            return Verdict(State.DIRTY, (Reason("error", error.failure.where, "", error.failure.message),))

    def up_to_date_counts(self, stage: Stage) -> dict[str, int]:
        """Counters of a stage that had nothing to do."""
        if stage is Stage.FINGERPRINT:
            facts = self.fastpath.facts()
            return {"inputs": self.engines.of(stage).input_count if facts is None else facts["inputs"]}
        if stage is Stage.REFLASH:
            return {"regions_written": 0, "bytes_written": 0}
        return {"compiled": 0, "restored": 0} if stage is Stage.COMPILE else {"linked": 0, "restored": 0}

    def approve(self, results: Sequence[StageResult], selection: Sequence[str] | None) -> None:
        """A run with these results ended well: write what `hotplate` and the next `doit` need to know that everything
        is up to date, if this run came to know it. `selection`: the stages that the command line asked for, None if it
        asked for more."""
        if self.config.prebuilt.build and not self.project.is_build_proven():
            return  # its command decides each time whether there is something to do
        passed = {result.stage for result in results if result.ok}
        text = "".join(f"-- {result.stage}\n" for result in results)
        if selection is not None:
            self.fastpath.will_approve(selection, text)
        if self.fastpath.facts() is None and Stage.COMPILE in passed:
            self._refresh_database()  # a project that was copied or moved has nothing to build
        if self.fastpath.facts() is None and passed >= {Stage.COMPILE, Stage.LINK}:
            self.engines.record_for_fastpath()
        self.fastpath.renew()
        if selection is not None:
            self.fastpath.approve(selection, text)

    # --- what the host stages do --------------------------------------------------------------

    def scan(self) -> StageWork:
        """Stamp every input, read those that moved, remember the result. What generates the actions runs first."""
        if self.config.is_ninja:
            from pipeline.run.generated_build import generate

            failure = generate(self)
            if failure is not None:
                return StageWork((), {}, failure)
        found = self.engines.of(Stage.FINGERPRINT).scan()
        return StageWork(found.reasons, dict(found.counts))

    def run_actions(self, stage: Stage, category: FailureCategory) -> StageWork:
        """Let the engine run the actions of `stage`; its failures become one Failure of `category`."""
        from pipeline.engine.restore import damage_lines
        from pipeline.report.terminal import told_lines
        from pipeline.run.far_execution import far_lines
        from pipeline.run.shared_cache import shared_lines

        engine = self.engines.of(stage)
        if "images" in self.__dict__:
            self.images.forget()
        if "sizes" in self.__dict__:
            self.sizes.forget()
        self._size = None
        self.fastpath.withdraw()
        self._refresh_database()
        meanwhile = self._while_it_links if stage is Stage.LINK and not self.config.is_ninja else lambda: None
        result = engine.run(stage, self._screen.progress, lambda spans: self._performed(stage, spans), meanwhile)
        for _, text in result.warnings:
            self._screen.notice("\n".join(told_lines(text.rstrip())))
        notes = (*note_lines(result.notes), *damage_lines(engine.workspace.store.blobs))
        for line in (*notes, *shared_lines(result.shared), *far_lines(result.shared)):
            self._screen.notice(f"note: {line}")
        self.shared.tell()
        self.far.tell()
        failure = self._failure_of(stage, category, result.failures) if result.failures else None
        if stage is Stage.LINK and failure is None and self.config.makes_firmware:
            from pipeline.run.generated_build import make_images

            return make_images(self, StageWork(tuple(result.notes), dict(result.counts)))
        return StageWork(tuple(result.notes), dict(result.counts), failure)

    def _while_it_links(self) -> None:
        """There is nothing else to do: load what follows. Only what is ours, since another thread may come to the same
        modules meanwhile, and some of other people's import each other in circles: two threads may then see one half
        made."""
        from pipeline.needed_modules import AFTER_LINK, load_modules

        if self.engines.only_partial:
            self.fastpath.expect_products()
        load_modules(AFTER_LINK)

    def _failure_of(self, stage: Stage, category: FailureCategory, failures: Sequence[ActionFailure]) -> Failure:
        """One failure of the stage; that of an `[[action]]` which names no place of its own is placed at its table."""
        from pipeline.toolchain.action_failures import action_failure
        from pipeline.toolchain.config_places import config_place

        name = failures[0].action
        if self._is_users(name):
            category = FailureCategory.ACTION_FAILED
        failure = action_failure(stage, category, failures, self.engines.concerned)
        number = next((n for n, action in enumerate(self.config.actions) if action.name == name), None)
        if number is None or failure.where != name:
            return failure
        return failure._replace(where=config_place(self.project.root, self.config, ("action", number, "name")))

    def _is_users(self, action: str) -> bool:
        """Does this action neither compile nor link?"""
        return any(known.name == action and known.count_as == "built" for known in self.engines.concerned)

    def _refresh_database(self) -> None:
        """`compile_commands.json`, once per run, and only where the actions need not be what they were: before they
        run, since an editor needs to know a new source most while it does not compile."""
        if self._database_seen or self.engines.partial_in_use or self.config.is_ninja:
            return  # CMake writes its own
        self._database_seen = True
        if os.path.lexists(f"{self.project.root}/compile_commands.json"):
            from pipeline.toolchain import compile_commands

            note = compile_commands.refresh(self.project.root, self.toolchain)
            if note:
                self._screen.notice(f"note: {note}")

    def notice(self, text: str) -> None:
        """Lines for the user."""
        self._screen.notice(text)

    def keep_elf(self) -> None:
        """Remember the application's ELF by the identity that the running device reports."""
        from pipeline.device.elf_store import ElfStore

        kept = ElfStore(self.project.root, self.project.state_dir, self.project.cache_dir)
        for action in self.engines.concerned:
            for path in action.outputs:
                # linked here, or taken over with firmware that was built elsewhere
                if path.rpartition("/")[2] == "app.elf":
                    kept.keep(path)

    def check_size(self) -> Failure | None:
        """Which limit of `[size]` the application does not keep."""
        if not self.config.size.any:
            return None
        from pipeline.run.built_sizes import excess_failure

        return excess_failure(self, self.sizes)

    def size(self, *, moved: bool) -> Mapping[str, Any] | None:
        """How large the application is, beside what the last report said, for a report; None where nothing goes to
        flash. `moved`: stage link had something to do. Precondition: it ended well, or `check_size` said why not."""
        from pipeline.run.built_sizes import reported_size

        if self._size is None:
            try:
                self._size = reported_size(self, self.sizes, moved=moved)
            except DeployError:
                return None
        return self._size

    def selects(self, otadata: bytes, wanted: bytes) -> bool:
        """Does a board with this otadata start what `wanted` would start, now and at every later reset?"""
        from pipeline.flash.boot_choice import starts_wanted

        return starts_wanted(self.project.table, otadata, wanted)

    # --- the end ------------------------------------------------------------------------------

    def clean(self, stage: Stage) -> None:
        """Remove the build products of `stage` in this profile, and those that nobody makes any more; the cache and the
        state stay, and whatever a link leads to from build/. Raises OSError."""
        from pipeline.run.clean import remove_products

        try:
            self.engine.workspace.remove_leftovers()
        except StoreError as error:
            raise OSError(0, error.failure.message, error.failure.where) from None
        remove_products(self.project.root, self.engine.graph.order, stage)

    def forget(self, *parts: str, toolchain: Toolchain | None = None) -> None:
        """Make these parts anew when they are asked for: what they were made of has changed. `toolchain`: the one that
        there is from now on."""
        for part in parts:
            self.__dict__.pop(part, None)
        if toolchain is not None:
            self.__dict__["toolchain"] = toolchain

    def save(self) -> None:
        """Keep what was read."""
        if "engines" in self.__dict__:
            self.engines.save()

    def close(self) -> None:
        """Keep what was read, and end every child process. A shared cache that the run brought is settled by the run,
        which has others to do it for."""
        self.save()
        if "fastpath" in self.__dict__:
            self.fastpath.close()
        if "runner" in self.__dict__:
            self.runner.close()
        if "far" in self.__dict__:
            self.far.close()
        if self._shared is None and "shared" in self.__dict__:
            self.shared.settle()


def load_builds(options: Options, root: Path | None = None) -> list[Build] | Failure:
    """The builds that the selected devices need, one for each of their profiles; else as `load_build`."""
    project = load_project(options, root)
    return project if isinstance(project, Failure) else [Build(each, keeps=False) for each in project.variants]


def load_build(options: Options, root: Path | None = None) -> Build | Failure:
    """The build of the project in `root` (default: the current directory), to look at without the project's lock, or
    why `deploy.toml` cannot be used."""
    project = load_project(options, root)
    return project if isinstance(project, Failure) else Build(project, keeps=False)
