"""The engine: which actions are up to date, and why not. Its other half (`engine_run`) makes them so.

Knows actions, the state of this project and stamps. Does not know doit, boards, or what the actions are for.
Invariant: an action is up to date only if its command, its tool, the content of every declared and discovered input,
the absence of every file that would shadow one, and the content of every output are those of its last recorded run.

It stats each path at most once per look: a look begins with `peek` or `look_afresh` and serves everything until the
next one; what is edited after it is seen by the next run, since a record holds the content that was looked at and never
what lies there later. What the run itself makes is looked at again.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache import statefile
from cache.fileclock import FileClock
from cache.stamps import Entry, StampTable
from pipeline.effects.api import Clock, ProcessRunner
from pipeline.engine import dag
from pipeline.engine.build_log import STATE_KIND, STATE_NAME, Observed, Record, Saved, load_saved, record_name
from pipeline.engine.build_place import BuildPlace
from pipeline.engine.inputs import Command, InputKind, command_of
from pipeline.engine.keys import ExplainSink, first_difference, walk_base
from pipeline.engine.results import OUTPUT_MOVED, ActionFailure, Builtin, RunResult, ScanResult, Span
from pipeline.errors import ConfigError
from pipeline.failures import fail
from pipeline.formats.depfile import MARKS
from pipeline.model import Action, FailureCategory, Reason, Stage, State, Tool, Verdict

if TYPE_CHECKING:
    from cache.store import Store
    from pipeline.engine.partial_graph import Aside
    from pipeline.engine.symlinks import Links

__all__ = ["STATE_KIND", "STATE_NAME", "ActionFailure", "Engine", "Record", "RunResult", "ScanResult"]


class Engine:
    """The actions of one project. One `run` at a time per project: the caller holds the project's lock."""

    def __init__(
        self,
        root: Path,
        actions: Sequence[Action],
        tools: Mapping[str, Tool],
        builtins: Mapping[str, Builtin],
        state_dir: Path,
        cache_dir: Path,
        runner: ProcessRunner,
        clock: Clock,
        jobs: int,
        run_env: Mapping[str, str],
        max_cache_bytes: int | None = None,
        saved: Saved | None = None,
        aside: Aside | None = None,
    ) -> None:
        """`max_cache_bytes`: how large the cache may become (None: the default of `cache.store`). `saved`: the state
        if it was read already. `aside`: what is known to be up to date, when `actions` are only the others.
        `run_env` is the environment of every child beside its action's own; it is in no key, so it may only say
        where to work (PATH, cache directories). Raises ConfigError when the actions do not form a DAG."""
        # Anywhere else it would be somebody's directory, whose stamp a scratch file may move.
        self.file_clock = FileClock([str(state_dir), f"{root}/build", str(cache_dir)])
        self.began = self.file_clock.met(str(root)).moment()
        """What was written before this moment was there before anything ran."""
        saved = load_saved(state_dir) if saved is None else saved
        self.root, self.tools, self.builtins, self.cache_dir = root, tools, builtins, cache_dir
        self.places = {f"{{{name}_dir}}": posixpath.dirname(tool.path) for name, tool in tools.items()}
        self._actions = actions
        graph = dag.build(
            actions, lambda: dag.FileSystem(self.links.readings(saved.records), self.links.real, self.links.product)
        )
        if isinstance(graph, dag.Trouble):
            raise ConfigError(
                fail(
                    FailureCategory.CONFIG_ERROR,
                    stage=None,
                    where="deploy.toml",
                    message=graph.message,
                    hint=graph.hint,
                )
            )
        self.build_place = BuildPlace(str(root))
        self.runner, self.clock, self.jobs, self.run_env = runner, clock, jobs, run_env
        self.graph = graph
        self._max_cache_bytes = max_cache_bytes
        self._state_path = state_dir / STATE_NAME
        self.notes: tuple[str, ...] = (saved.note,) if saved.note else ()
        self.table = StampTable(self.resolve, saved.stamps, MARKS, self.file_clock)
        self.records = saved.records
        self.aside = aside
        self._look: dict[str, Entry | None] = {}
        self._present: dict[str, bool] = {}
        self._sources: list[str] | None = None
        self._moved_first: dict[str, Reason] = {}
        self._up_to_date: set[str] = set()
        """Answers of this look, by the name of the record. What must run does so whatever another action makes
        meanwhile, and then looks again itself."""

    @cached_property
    def store(self) -> Store:
        """The cache, made when something must be done."""
        from cache.store import DEFAULT_MAX_BYTES, Store

        return Store(self.cache_dir, DEFAULT_MAX_BYTES if self._max_cache_bytes is None else self._max_cache_bytes)

    @cached_property
    def links(self) -> Links:
        """Where links lead, made when something must be done, or in a project with users' actions."""
        from pipeline.engine.symlinks import Links

        return Links(self.resolve, str(self.root), self._actions)

    # --- paths ----------------------------------------------------------------------------------

    def resolve(self, path: str) -> str:
        """A path of a key as one that can be opened here."""
        if path[:1] == "{":
            place, _, rest = path.partition("/")
            return f"{self.places.get(place, place)}/{rest}"
        return path if path[:1] == "/" else f"{self.root}/{path}"

    # --- looking --------------------------------------------------------------------------------

    def sources(self) -> list[str]:
        """Every file that is read and that no action makes: declared ones, then those that compilers reported."""
        if self._sources is not None:
            return self._sources
        producer = self.graph.producer
        found = dict.fromkeys(path for action in self.graph.order for path in action.inputs if path not in producer)
        # Most actions share their set of headers with others.
        sets = [self.records.discovered(record_name(action)) for action in self.graph.order]
        for observed in {id(observed): observed for observed in sets}.values():
            found.update(dict.fromkeys(path for path, _ in observed if path not in producer))
        self._sources = list(found)
        return self._sources

    @property
    def input_count(self) -> int:
        """How many files are read that no action makes."""
        return len(self.sources()) if self.aside is None else self.aside.inputs

    def peek(self) -> Verdict:
        """Would `scan` find anything? Writes nothing. Reads only a file whose stamp was taken in the tick of the clock
        in which it was written."""
        self.look_afresh()
        reasons = []
        for path in self.sources():
            if self._seen(path) is None:
                old = self.table.remembered(path)
                reasons.append(Reason("file", path, "unknown" if old is None else "seen", "moved or missing"))
        return Verdict(State.DIRTY if reasons else State.UP_TO_DATE, tuple(reasons))

    def scan(self) -> ScanResult:
        """Look at every input that this look has not found unchanged yet and read those whose stamp moved. A file that
        cannot be read counts as missing, with the reason. Writes nothing: `save` does, as the end of every `run`."""
        read_before, changed, missing = self.table.files_read, [], []
        for path in self.sources():
            if self._look.get(path) is not None:
                continue
            old = self.table.remembered(path)
            try:
                # What `peek` looked at moved or is missing.
                now = self._look[path] = self.table.read(path) if path in self._look else self.table.current(path)
            except OSError as error:
                now = self._look[path] = None
                changed.append(Reason("unreadable", path, "", error.strerror or str(error)))
            if now is None:
                missing.append(path)
            if (old and old.fingerprint) != (now and now.fingerprint):
                changed.append(Reason("file", path, old.fingerprint if old else "", now.fingerprint if now else ""))
        self._moved_first, self._up_to_date = {}, set()
        read = self.table.files_read - read_before
        counts = {"inputs": self.input_count, "read": read, "changed": len(changed), "missing": len(missing)}
        return ScanResult(counts, tuple(changed), tuple(missing), self.notes)

    def _seen(self, path: str) -> Entry | None:
        """The entry of a file that certainly is what it was, by at most one stat per look."""
        try:
            return self._look[path]
        except KeyError:
            try:
                entry = self.table.glance(path)
            except OSError:
                entry = None
            self._look[path] = entry
            return entry

    def exists(self, path: str) -> bool:
        """Is there a file that a compiler would open? By at most one stat per look."""
        if path not in self._present:
            try:
                self._present[path] = self.table.stamp(path) is not None
            except OSError:
                self._present[path] = False
        return self._present[path]

    def look_afresh(self) -> None:
        """Begin a look: forget what the last one saw."""
        self._look, self._present = {}, {}
        self._moved_first, self._up_to_date = {}, set()
        self._sources = None
        if "links" in self.__dict__:
            self.links.forget()

    def look_again(self, action: Action) -> None:
        """It was performed: the next question about its outputs stats them, and what was up to date may not be."""
        self._moved_first.pop(record_name(action), None)
        self._up_to_date.clear()
        self._sources = None
        for path in (*action.outputs, *self.links.ways_to(action.outputs)):
            self._look.pop(path, None)
            self._present.pop(path, None)

    # --- judging --------------------------------------------------------------------------------

    def record(self, action: Action) -> Record | None:
        """The last recorded run of `action`."""
        return self.records.get(record_name(action))

    def verdict(self, stage: Stage) -> Verdict:
        """Are all actions of `stage` up to date? One reason per action that is not: what about it moved first."""
        known: dict[Any, Reason | None] = {}
        reasons = tuple(
            reason
            for action in self.graph.order
            if action.stage is stage and (reason := self.judge(action, known)) is not None
        )
        return Verdict(State.DIRTY if reasons else State.UP_TO_DATE, reasons)

    def judge(self, action: Action, known: dict[Any, Reason | None]) -> Reason | None:
        """Why `action` must run, None if it is up to date. `known` remembers, within one look, the answers about sets
        of files that many actions share. Asked again before anything was written, it answers from memory."""
        name = record_name(action)
        reason = self._moved_first.get(name)
        if reason is None and name not in self._up_to_date:
            reason = self._judge(action, known)
            if reason is None:
                self._up_to_date.add(name)
            else:
                self._moved_first[name] = reason
        return reason

    def _judge(self, action: Action, known: dict[Any, Reason | None]) -> Reason | None:
        record = self.record(action)
        if record is None:
            return Reason("never run", action.name)
        command = command_of(action, self.tools)
        if command != record.command:
            return self._explain(action, record, command)
        for kind, observed in ((InputKind.INPUT, record.inputs), (InputKind.DISCOVERED, record.discovered)):
            if observed not in known:
                known[observed] = self._moved(kind, observed)
            if (moved := known[observed]) is not None:
                return _of(action, moved)
        if record.absent not in known:
            known[record.absent] = self._appeared(record.absent)
        if (moved := known[record.absent]) is not None:
            return _of(action, moved)
        for path, sha256, executable in record.outputs:
            now = self._seen(path)
            if now is None or now.sha256 != sha256 or now.stamp.executable != executable:
                return Reason(OUTPUT_MOVED, f"{action.name}: {path}", sha256[:12], "missing or other content")
        return None

    def _moved(self, kind: InputKind, observed: Observed) -> Reason | None:
        for path, sha256 in observed:
            now = self._seen(path)
            if now is None or now.sha256 != sha256:
                after = now.sha256[:12] if now is not None else "moved or missing"
                return Reason(kind.value, path, sha256[:12], after)
        return None

    def _appeared(self, absent: tuple[str, ...]) -> Reason | None:
        for path in absent:
            if self.exists(path):
                return Reason(InputKind.ABSENT.value, path, "absent", "present, and found before the one that was used")
        return None

    def _explain(self, action: Action, record: Record, command: Command) -> Reason:
        """The first part of the command that moved, from the walk that makes the key."""
        old, new = ExplainSink(), ExplainSink()
        walk_base(old, record.command, ())
        walk_base(new, command, ())
        moved = first_difference(old.parts, new.parts)
        if moved is None:
            # The declared inputs are not in this walk; only their names can have moved.
            before, after = " ".join(record.command.inputs), " ".join(command.inputs)
            return Reason(InputKind.INPUT.value, action.name, before, after)
        subject = f"{action.name}: {moved.name}" if moved.name else action.name
        return Reason(moved.kind.value, subject, moved.before, moved.after)

    # --- doing ----------------------------------------------------------------------------------

    def run(
        self,
        stage: Stage,
        progress: Callable[[str, int, int], None],
        performed: Callable[[Span], None] = lambda span: None,
    ) -> RunResult:
        """Bring every action of `stage` up to date: see `engine_run.run_stage`. On any way out, what was finished is
        remembered."""
        from pipeline.engine.scheduler import run_stage

        try:
            with self.store.in_use():
                return run_stage(self, stage, progress, performed)
        finally:
            self.table.settle()
            if self.aside is None:
                self._forget()
            self.save()

    def save(self) -> None:
        """Write the state if it changed. That it cannot be written is a note: the next run only works more."""
        if not (self.table.changed or self.records.changed):
            return
        try:
            statefile.save(self._state_path, STATE_KIND, (self.table.plain(), self.records.plain()))
            self.table.changed = self.records.changed = False
        except OSError as error:
            self.notes = (
                *self.notes,
                f"{self._state_path} cannot be written ({error.strerror}); the next run starts over",
            )

    def _forget(self) -> None:
        """Drop records of actions that are no longer declared in these profiles, and stamps that nothing uses. Other
        profiles keep theirs, so that switching back finds them."""
        declared = {record_name(action) for action in self.graph.order}
        profiles = tuple(f"{profile}:" for profile in {action.profile for action in self.graph.order})
        for name in [name for name in self.records.names() if name not in declared and name.startswith(profiles)]:
            self.records.drop(name)
        self._sources = None  # the run may have found others
        used = set(self.sources())
        used.update(self.graph.producer)
        for name in self.records.names() - declared:
            record = self.records.get(name)
            if record is not None:
                used.update(path for path, _ in (*record.inputs, *record.discovered))
                used.update(path for path, _, _ in record.outputs)
        self.table.keep_only(used)


def _of(action: Action, moved: Reason) -> Reason:
    return Reason(moved.kind, f"{action.name}: {moved.subject}", moved.before, moved.after)


def readers(engine: Engine) -> dict[str, list[Action]]:
    """file -> actions that read it, by declaration or as the last run found."""
    found: dict[str, list[Action]] = {}
    for action in engine.graph.order:
        record = engine.record(action)
        discovered = [path for path, _ in record.discovered] if record is not None else []
        for path in dict.fromkeys((*action.inputs, *discovered)):
            found.setdefault(path, []).append(action)
    return found
