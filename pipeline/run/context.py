"""The composition root: one project, its engine, its devices, and the run under way.

The only place that says "real": it puts the system's clock, processes, ports and esptool behind the protocols
that the stages see. Does not decide anything itself and does not know doit. Its device half: `device_context.py`.
Invariant: creating a context reads `deploy.toml` and lists sources; it opens no port, starts and writes nothing.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from cache.durable import read_text
from cache.location import user_cache_dir
from pipeline import events
from pipeline.chips import VIRTUAL_CHIPS
from pipeline.config.reader import parse_config
from pipeline.config.schema import DeployConfig, Verify
from pipeline.config.values import check_value
from pipeline.effects.clock import SystemClock
from pipeline.effects.process import SystemProcessRunner
from pipeline.engine.build_log import Saved, load_saved
from pipeline.engine.build_place import BuildPlace
from pipeline.engine.engine import Engine
from pipeline.engine.facts import shadow_directories, used_files
from pipeline.engine.partial_graph import MANY, partial_graph, usage_index
from pipeline.engine.results import ActionFailure, Span
from pipeline.engine.workspace import BuildSteps, Directories, Host, SkippedActions
from pipeline.errors import DeployError
from pipeline.failures import fail
from pipeline.fastpath.native_loop import WORTH_FILES
from pipeline.fastpath.state import FastPathState
from pipeline.fastpath.watched import Watched
from pipeline.flash.boot_choice import starts_wanted
from pipeline.formats.placement import Placement
from pipeline.model import (
    DEVICE_STAGES,
    Failure,
    FailureCategory,
    Partition,
    Reason,
    Stage,
    StageOutcome,
    StageResult,
    State,
    Verdict,
    note_lines,
)
from pipeline.report.terminal import told_lines
from pipeline.run.built_images import BuiltImages
from pipeline.run.device_context import DeviceContext
from pipeline.run.device_run import DeviceRun
from pipeline.run.lock import ProjectLock
from pipeline.run.options import Options
from pipeline.run.transactions import Run
from pipeline.toolchain.build import Toolchain, action_failure, build_toolchain, config_place
from pipeline.toolchain.placements import find_firmware, place_all, read_table

if TYPE_CHECKING:
    from pipeline.device.symbolizer import ElfStore

CONFIG_FILE = "deploy.toml"
STATE_DIR = ".deploy"


class Context(DeviceContext):
    """Everything a stage may use. Make it with `load_context`."""

    def __init__(
        self,
        root: Path,
        config: DeployConfig,
        profile: str,
        devices: tuple[DeviceRun, ...],
        options: Options = Options(),  # noqa: B008 - a value, frozen
    ) -> None:
        self.root = root
        self.config = config
        self.profile = profile
        self.options = options
        """What the command line says."""
        self.fastpath = FastPathState(root, options.profile)
        self.devices = devices
        self._owners = {}
        self.clock = SystemClock()
        self.state_dir = root / STATE_DIR
        self.progress: Callable[[str, int, int], None] = lambda label, done, total: None
        """Where stages report progress; the reporter puts a bar here when there is a terminal."""
        self._lock = ProjectLock(root, self.state_dir)
        self.run = Run(root, self.state_dir, config, self.clock)
        self.notice: Callable[[str], None] = lambda text: None
        """Where stages put lines for the user, such as a compiler's warnings."""
        self._database_seen = False
        self.ended: dict[tuple[Stage, str], StageResult] = {}
        """(stage, device or "") -> what it says of itself; the reporter takes it, times it and records it."""

    # --- host stages --------------------------------------------------------------------------

    @cached_property
    def table(self) -> tuple[Partition, ...]:
        """The partition table. Raises ConfigError when it is missing or wrong."""
        return read_table(self.root, self.config)

    @cached_property
    def placements(self) -> tuple[Placement, ...]:
        """Where everything goes that goes to flash. Raises ConfigError when something has no place there."""
        return place_all(self.root, self.config, self.table)

    @cached_property
    def toolchain(self) -> Toolchain:
        """The tools and their actions. Raises ToolError when a tool is missing."""
        return build_toolchain(self.root, self.config, self.profile, self.state_dir, self.table, self.placements)

    @cached_property
    def runner(self) -> SystemProcessRunner:
        """Child processes; closed with the context."""
        return SystemProcessRunner(self.clock)

    def engine_for(self, stage: Stage) -> Engine:
        """The engine that answers for `stage`: up to compile one that knows only what few moved files concern, where
        that can be told."""
        if stage in (Stage.FINGERPRINT, Stage.COMPILE) and "engine" not in self.__dict__:
            return self._partial_engine or self.engine
        return self.engine

    @cached_property
    def _partial_engine(self) -> Engine | None:
        found = self.fastpath.usage_index()
        if found is None or len(found[1]) > MANY:
            return None
        with _uncollected():
            saved = load_saved(self.state_dir)
            part = partial_graph(*found, saved.records)
            if part is None:
                return None
            return self._make_engine(BuildSteps(part.actions, part.tools, {}, part.run_env), saved, part.skipped)

    @cached_property
    def engine(self) -> Engine:
        """The action engine over all of this project's actions."""
        if (partial_engine := self.__dict__.get("_partial_engine")) is not None:
            partial_engine.save()  # what this one reads
        _ = self.table  # a table that cannot be read is the configuration's fault, not that of an action
        with _uncollected():
            made = self.toolchain
            return self._make_engine(BuildSteps(made.actions, made.tools, made.builtins, made.run_env))

    def _make_engine(
        self, steps: BuildSteps, saved: Saved | None = None, skipped: SkippedActions | None = None
    ) -> Engine:
        directories = Directories(self.root, self.state_dir, self.cache_dir, self.config.cache.max_bytes)
        return Engine(directories, steps, Host(self.runner, self.clock, os.cpu_count() or 1), saved, skipped)

    @property
    def cache_dir(self) -> Path:
        """Where results are stored: `[cache] dir`, else what all projects of this user share, else our own place."""
        shared = user_cache_dir(os.environ, sys.platform)
        return self.root / (self.config.cache.dir or shared or STATE_DIR)

    def host_verdict(self, stage: Stage) -> Verdict:
        """Is this host stage up to date? Stats only; writes nothing, opens nothing. Errors are left to the stage."""
        if self.fastpath.facts() is not None:
            return Verdict(State.UP_TO_DATE)
        try:
            if stage is Stage.FINGERPRINT:
                return self.engine_for(stage).peek()
            verdict = self.engine_for(stage).verdict(stage)
            if stage is Stage.LINK and verdict.up_to_date and self.images.check().failure is not None:
                return Verdict(State.DIRTY, (Reason("image-check", "images"),))
            return verdict
        except DeployError as error:
            return Verdict(State.DIRTY, (Reason("error", error.failure.where, "", error.failure.message),))

    def remember_for_fastpath(self, selection: Sequence[str] | None) -> None:
        """A run ended well: write what the fast path and the next `doit` need to know that everything is up to date, if
        this run came to know it. `selection`: the stages that the command line asked for, None if it asked for
        more."""
        results = [result for _, result in self.run.results]
        passed = {result.stage for result in results if result.ok}
        if self.fastpath.facts() is None and passed >= {Stage.COMPILE, Stage.LINK}:
            used = used_files(self.engine.workspace)
            if used is not None:
                programs = tuple(tool.path for tool in self.toolchain.tools.values())
                facts = {"inputs": self.engine.input_count, "toolchain": self.toolchain.name}
                helper = None
                if len(used) >= WORTH_FILES:
                    from pipeline.fastpath.native_build import ready

                    helper = ready(self.runner)
                found = self.toolchain.watched.with_more(
                    Watched(shadow_directories(self.engine.workspace), (), programs)
                )
                made = self.engine.graph.producer
                index = partial(usage_index, self.engine.workspace)
                self.fastpath.record(self.engine.table, used, made, found, facts, index, helper)
        self.fastpath.renew()
        if selection is not None:
            self.fastpath.approve(selection, "".join(f"-- {result.stage}\n" for result in results))

    def lock(self) -> float | Failure:
        """Take the project's lock; the seconds that it took, or why it cannot be had."""
        started_s = self.clock.now_s()
        failure = self._lock.acquire(self.notice, self._moved_while_waiting)
        return self.clock.now_s() - started_s if failure is None else failure

    def _moved_while_waiting(self) -> bool:
        """Another run is over. Is deploy.toml another than the one that was loaded?"""
        self.fastpath.waited()
        try:
            return parse_config(read_text(self.root / CONFIG_FILE)) != self.config
        except (OSError, UnicodeDecodeError):
            return True

    def unlock(self) -> None:
        """Give the project's lock back."""
        self._lock.release()

    def toolchain_name(self) -> str:
        """`zig 0.17.0`; empty when the tools cannot be found (the compile stage says why)."""
        facts = self.fastpath.lasting_facts()
        if facts is not None:
            return str(facts["toolchain"])
        try:
            return self.toolchain.name
        except DeployError:
            return ""

    def up_to_date_counts(self, stage: Stage) -> dict[str, int]:
        """Counters of a stage that had nothing to do."""
        if stage is Stage.FINGERPRINT:
            facts = self.fastpath.facts()
            return {"inputs": self.engine_for(stage).input_count if facts is None else facts["inputs"]}
        if stage is Stage.REFLASH:
            return {"regions_written": 0, "bytes_written": 0}
        return {"compiled": 0, "restored": 0} if stage is Stage.COMPILE else {"linked": 0, "restored": 0}

    def run_actions(self, stage: Stage, category: FailureCategory) -> StageResult:
        """Let the engine run the actions of `stage`; its failures become one Failure of `category`."""
        engine = self.engine_for(stage)
        if "images" in self.__dict__:
            self.images.forget()
        self.fastpath.withdraw()
        self._refresh_database()
        result = engine.run(stage, self.progress, lambda span: self._performed(stage, span))
        for _, text in result.warnings:
            self.notice("\n".join(told_lines(text.rstrip())))
        for line in note_lines(result.notes):
            self.notice(f"note: {line}")
        return StageResult(
            stage,
            StageOutcome.RAN if not result.failures else StageOutcome.FAILED,
            0.0,
            reasons=tuple(result.notes),
            counts=dict(result.counts),
            failure=self._failure_of(stage, category, result.failures) if result.failures else None,
        )

    def _failure_of(self, stage: Stage, category: FailureCategory, failures: Sequence[ActionFailure]) -> Failure:
        """One failure of the stage; that of an `[[action]]` which names no place of its own is placed at its table."""
        name = failures[0].action
        if self._is_users(name):
            category = FailureCategory.ACTION_FAILED
        failure = action_failure(stage, category, failures, self.toolchain.actions)
        number = next((n for n, action in enumerate(self.config.actions) if action.name == name), None)
        if number is None or failure.where != name:
            return failure
        return failure._replace(where=config_place(self.root, self.config, ("action", number, "name")))

    def _refresh_database(self) -> None:
        """`compile_commands.json`, once per run, and only where the actions need not be what they were: before they
        run, since an editor needs to know a new source most while it does not compile."""
        if self._database_seen or self.__dict__.get("_partial_engine") is not None:
            return
        self._database_seen = True
        if os.path.lexists(f"{self.root}/compile_commands.json"):
            from pipeline.toolchain import compile_commands

            note = compile_commands.refresh(self.root, self.toolchain)
            if note:
                self.notice(f"note: {note}")

    def _is_users(self, action: str) -> bool:
        """Does this action neither compile nor link?"""
        return any(known.name == action and known.count_as == "built" for known in self.toolchain.actions)

    def _performed(self, stage: Stage, span: Span) -> None:
        began_s = self.run.since_s(span.began_s)
        self.run.say(events.ActionDone(span.action, stage, span.how, span.worker, began_s, span.duration_s))

    @cached_property
    def images(self) -> BuiltImages:
        """The images of this build."""
        until = self.config.readiness.until
        asked = until if self.config.firmware is not None and until.startswith("rpc:") else ""
        return BuiltImages(self.root, self.toolchain.images, self.placements, self.config.toolchain.chip, asked)

    def selects(self, otadata: bytes, wanted: bytes) -> bool:
        """Does a board with this otadata start what `wanted` would start, now and at every later reset?"""
        return starts_wanted(self.table, otadata, wanted)

    def clean(self, stage: Stage) -> None:
        """Remove the build products of `stage` in this profile; the cache and the state stay, and whatever a link
        leads to from build/."""
        directories: set[Path] = set()
        place = BuildPlace(str(self.root))
        for action in self.toolchain.actions:
            if action.stage is stage:
                for output in (*action.outputs, *filter(None, [action.depfile])):
                    path = self.root / output
                    with contextlib.suppress(OSError):
                        place.checked([str(path)])
                        path.unlink(missing_ok=True)
                        directories.update(p for p in path.parents if p.is_relative_to(self.root / "build"))
        for directory in sorted(directories, key=lambda p: len(p.parts), reverse=True):
            # One that is not empty stays, and so does a link.
            with contextlib.suppress(OSError):
                directory.rmdir()

    # --- running stages -----------------------------------------------------------------------

    def keep_elf(self) -> None:
        """Remember the application's ELF by the identity that the running device reports."""
        outputs = (path for action in self.toolchain.actions for path in action.outputs)
        for path in outputs:
            if (
                PurePosixPath(path).name == "app.elf"
            ):  # linked here, or taken over with firmware that was built elsewhere
                self._elfs().keep(path)

    def decoded(self, lines: Sequence[str], running: str = "") -> Sequence[str]:
        """The calls behind the last panic in `lines`. `running`: the app_elf_sha256 to assume if it names none."""
        from pipeline.device.symbolizer import decoded_panic

        with contextlib.suppress(DeployError):  # nothing was built here
            running = running or self.images.expected_elf()
        return decoded_panic(lines, self._elfs(), running)

    def _elfs(self) -> ElfStore:
        from pipeline.device.symbolizer import ElfStore

        return ElfStore(self.root, self.state_dir, self.cache_dir)

    def execute(self, stage: Stage, device: DeviceRun | None, run: Callable[[], StageResult]) -> StageResult:
        """Run a stage and keep what it says for the reporter; whatever it raises becomes a failed result. Ctrl-C passes
        through."""
        with self._lock.writing() if stage is Stage.REFLASH else contextlib.nullcontext():
            result = self._attempt(stage, device, run)
        self.ended[stage, device.name if device is not None else ""] = result
        return result

    def _attempt(self, stage: Stage, device: DeviceRun | None, run: Callable[[], StageResult]) -> StageResult:
        try:
            if device is not None and not self.run.begun:
                # Nobody would write what happens to the board down, nor the report.
                message = "a device stage needs hotplate's own reporter, which keeps the run's log"
                raise DeployError(_config_failure("--reporter", message, "leave out `-r`; see reports/<tx>.json"))
            return run()
        except DeployError as error:
            failure = error.failure
            # A session serves several stages, and a tool is missed by whichever needs it first: only we know which.
            host_wide = failure.stage is None and failure.category is not FailureCategory.CONFIG_ERROR
            if host_wide or (failure.stage in DEVICE_STAGES and stage in DEVICE_STAGES):
                failure = failure._replace(stage=stage)
            return StageResult(stage, StageOutcome.FAILED, 0.0, failure=failure)
        except Exception as error:
            import traceback

            failure = fail(
                FailureCategory.UNKNOWN,
                stage=stage,
                where=device.where if device is not None else str(stage),
                message=f"{type(error).__name__}: {error} [this is a bug]",
                detail=traceback.format_exc(),
            )
            return StageResult(stage, StageOutcome.FAILED, 0.0, failure=failure)

    def close(self) -> None:
        """Keep what was read, and let go of every port."""
        engine = self.__dict__.get("engine") or self.__dict__.get("_partial_engine")
        if engine is not None:
            engine.save()
        for device in self.devices:
            device.close()
        self.runner.close()


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


def _config_failure(where: str, message: str, hint: str | None = None) -> Failure:
    return fail(FailureCategory.CONFIG_ERROR, stage=None, where=where, message=message, hint=hint)


def _wrong_port(text: str, config: DeployConfig) -> Failure | None:
    """The first virtual port that asks for something that it cannot have, or for a chip that no virtual board is."""
    for device in config.devices:
        if device.is_virtual and device.chip not in VIRTUAL_CHIPS:
            where = f"{CONFIG_FILE}: device {device.name}"
            fact = f"the port is '{device.port}', and there is no virtual board of the chip {device.chip}"
            return _config_failure(where, fact, f"set `port`, or use one of {', '.join(VIRTUAL_CHIPS)}")
        if not device.is_virtual or device.port == "virtual:":
            continue
        from pipeline.device.ports import planted_faults
        from pipeline.formats.toml_positions import locate

        found = planted_faults(device.port)
        if isinstance(found, tuple):
            line, column = locate(text).value(("device", device.name, "port"))
            return _config_failure(f"{CONFIG_FILE}:{line}:{column}", *found)
    return None


def load_context(options: Options, root: Path | None = None) -> Context | Failure:
    """The context of the project in `root` (default: the current directory), or why `deploy.toml` cannot be used."""
    root = (root or Path.cwd()).resolve()
    try:
        text = read_text(root / CONFIG_FILE)
    except FileNotFoundError:
        return fail(
            FailureCategory.CONFIG_ERROR,
            stage=None,
            where=CONFIG_FILE,
            message="there is no deploy.toml in this directory",
            hint="create one, or change into the directory of your project",
        )
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or f"it is not UTF-8 ({error})"
        return _config_failure(CONFIG_FILE, f"cannot be read: {reason}", "make it a readable file in UTF-8")
    config = parse_config(text, find_firmware=partial(find_firmware, root))
    if isinstance(config, Failure):
        return config
    if options.verify:
        wrong = check_value(("verify", "level"), options.verify)
        if wrong is not None:
            return _config_failure("--verify", wrong.message, wrong.hint)
        config = config._replace(verify=Verify(options.verify))
    profile = config.profile(options.profile or config.project.profile)
    selected = config.selected(options.devices or options.named, options.groups)
    for failure in (_wrong_port(text, config), profile, selected):
        if isinstance(failure, Failure):
            return failure
    assert not isinstance(profile, Failure) and not isinstance(selected, Failure)
    return Context(root, config, profile.name, tuple(DeviceRun(d.name, d) for d in selected), options)
