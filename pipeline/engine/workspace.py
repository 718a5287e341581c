"""What every part of the engine works on: one project's directories, its actions, what it remembers, its store.

Knows where things lie and who makes which file. Does not know when an action is up to date or how one runs, nor how
what is remembered lies on disk (`saved_state`).
Invariant: `graph` is a DAG, and `resolve` leads a path of a key to one place on this machine.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from cache.durable import read_file
from cache.fileclock import FileClock
from cache.named_tuple import NamedTuple
from cache.stamps import StampTable
from pipeline.effects.api import Clock, ProcessRunner
from pipeline.engine import dag
from pipeline.engine.build_log import Record, record_name
from pipeline.engine.build_place import BuildPlace
from pipeline.engine.former_outputs import FormerOutputs
from pipeline.engine.inputs import command_of
from pipeline.engine.packed_inputs import PackedInputs
from pipeline.engine.results import Builtin
from pipeline.engine.saved_state import MARKS, KeptState, Saved, load_saved
from pipeline.engine.searches import CommandSearches
from pipeline.engine.waiting_files import WaitingFiles
from pipeline.errors import ConfigError
from pipeline.failures import fail
from pipeline.formats import depfile
from pipeline.model import Action, FailureCategory, Stage, Tool

if TYPE_CHECKING:
    from cache.remote import Remote
    from cache.store import Store
    from pipeline.effects.executor import FarWork
    from pipeline.engine.ledger import NinjaLedger
    from pipeline.engine.option_names import OptionNames
    from pipeline.engine.option_uses import OptionUses
    from pipeline.engine.results import ActionFailure
    from pipeline.engine.symlinks import Links


class Directories(NamedTuple):
    """The project's root, where its state lies, and the cache, which other projects may share. `max_cache_bytes`: how
    large that may become (None: the default of `cache.store`)."""

    root: Path
    state: Path
    cache: Path
    max_cache_bytes: int | None = None


class BuildSteps(NamedTuple):
    """What a toolchain declares. `run_env` is the environment of every child beside its action's own; it is in no key,
    so it may only say where to work (PATH, cache directories). `given`: files that something else makes; they are never
    removed, though an action of ours may have made them once. `symbols`: what stands in keys for directories of this
    machine that hold sources, as `{name}`; `ninja_log_version`: what the installed ninja writes."""

    actions: Sequence[Action]
    tools: Mapping[str, Tool]
    builtins: Mapping[str, Builtin]
    run_env: Mapping[str, str]
    given: frozenset[str] = frozenset()
    symbols: Mapping[str, str] = MappingProxyType({})
    ninja_log_version: Callable[[], int] = lambda: 5
    has_statements: bool = False
    option_headers: tuple[str, ...] = ()
    """Patterns of headers of which a compile depends on the macros that it uses."""
    strace: str = ""
    """The program that statements run under, so that they say what they read and write without declaring it."""


class Host(NamedTuple):
    """What runs actions here, and how many at once. `remote`: a cache that other machines share, opened when something
    is missing here; None without one. `far`: machines that execute `far_jobs` commands at once beside those here."""

    runner: ProcessRunner
    clock: Clock
    jobs: int
    remote: Callable[[], Remote | None] = lambda: None
    far_jobs: int = 0
    far: Callable[[], FarWork | None] = lambda: None

    @property
    def all_jobs(self) -> int:
        """How many actions may be under way, here and there."""
        return max(1, self.jobs) + self.far_jobs


class SkippedActions(NamedTuple):
    """What an engine is not told of because it is up to date: all inputs, and how many actions of each stage.
    `believed`: inputs of the actions that it is told of which this process found unmoved and none of these makes, by
    whatever name. They are not looked at again before an action; after it they are. `moved_products` tells that at once
    of all below build/: which are no more what they were; None when it cannot tell."""

    inputs: int
    actions: Mapping[Stage, int]
    believed: frozenset[str] = frozenset()
    moved_products: Callable[[], Collection[str] | None] = lambda: None


class Workspace:
    """What the parts of an engine share. One process at a time writes: the caller holds the project's lock."""

    def __init__(
        self,
        directories: Directories,
        steps: BuildSteps,
        host: Host,
        saved: Saved | None = None,
        skipped: SkippedActions | None = None,
    ) -> None:
        """`saved`: the state if it was read already. `skipped`: what is known to be up to date, when the actions are
        only the others. Raises ConfigError when the actions do not form a DAG."""
        # Anywhere else it would be somebody's directory, whose stamp a scratch file may move.
        scratch_places = (str(directories.state), f"{directories.root}/build", str(directories.cache))
        self.file_clock = FileClock(scratch_places)
        self.began = self.file_clock.met(str(directories.root)).moment()
        """What was written before this moment was there before anything ran."""
        saved = load_saved(directories.state) if saved is None else saved
        self.directories, self.steps, self.host, self.skipped = directories, steps, host, skipped
        self.root = directories.root
        self._below = f"{directories.root}/"
        tools = ((name, tool) for name, tool in steps.tools.items() if ":" not in name)  # those of statements have one
        self.places = {f"{{{name}_dir}}": posixpath.dirname(tool.path) for name, tool in tools}
        self.places |= steps.symbols
        self.placed_words: dict[tuple[str, str], str] = {}
        """(word of a command, what it is told of the root) -> how it is said here; few of them, said by all."""
        self.placed_runs: dict[tuple[tuple[str, ...], str], tuple[str, ...]] = {}
        """The same of the words that many commands begin with."""
        self.symbols: Mapping[str, str] = {"{root}": str(self.root), **steps.symbols}
        """Placeholder -> directory of this machine, for words of statements."""
        self.table = StampTable(self.resolve, saved.stamps, MARKS, self.file_clock, lambda: self.has_statements)
        self.build_place = BuildPlace(str(self.root))
        self.former = FormerOutputs(directories.state / "former")
        self.waiting_files = WaitingFiles(str(self.root))
        self.searches = CommandSearches(self._response)
        self.records = saved.records
        self._state = KeptState(directories.state, saved, self.table, is_whole=skipped is None)
        self.believed = frozenset[str]() if skipped is None else skipped.believed
        self.unrecorded_reads: dict[str, tuple[str, ...]] = {}
        """Name of a record -> what a users' action of this process read by its depfile, where that was not recorded: it
        may have been made behind it."""
        self.graph = self._build_graph()
        self._sources: list[str] | None = None

    @cached_property
    def has_statements(self) -> bool:
        """Are there statements of ninja's? They may make and read directories, of which ninja looks at the time."""
        return any(action.statement is not None for action in self.steps.actions)

    def _build_graph(self) -> dag.Dag:
        def product(path: str) -> str:
            return "" if path in self.believed else self.links.product(path)

        def files() -> dag.FileSystem:
            links, records = self.links, self.records
            return dag.FileSystem(
                links.readings(records), links.findings(records, self.unrecorded_reads), links.real, product
            )

        graph = dag.build(self.steps.actions, files)
        if isinstance(graph, dag.Trouble):
            where, message, hint = "deploy.toml", graph.message, graph.hint
            category = FailureCategory.CONFIG_ERROR
            raise ConfigError(fail(category, stage=None, where=where, message=message, hint=hint))
        return graph

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines for the user about what is remembered."""
        return self._state.notes

    def learn_order(self) -> bool:
        """Was an action found by now, by its run or by a result of the cache, to read what it did not wait for, and may
        have read before it was made? Then the graph is another one from here on."""
        order, producer, needs = self.graph
        if not any(action.is_users for action in order):
            return False
        self.forget_links()  # what ran may have made others
        found_by = self.links.findings(self.records, self.unrecorded_reads)
        for number, action in enumerate(order):
            read = {producer[path] for path in found_by(action) or ()}.difference(needs[number])
            if any(not dag.comes_after(number, need, needs) for need in read):
                before, self.graph = self.graph, self._build_graph()
                return self.graph != before
        return False

    def learn_from_failures(self, failures: Sequence[ActionFailure], generators: Collection[Action]) -> bool:
        """Did compiles fail that may need what one of `generators` makes, and did not wait for it? They waited for what
        their last run read, which is of the past: they wait for whatever may be a header from here on."""
        failed = {failure.action for failure in failures}
        before = self._waited_for_by(failed)
        self.graph = self._build_graph()
        after = self._waited_for_by(failed)
        return not {(one.profile, one.name) for one in generators}.isdisjoint(after - before)

    def _waited_for_by(self, names: Collection[str]) -> set[tuple[str, str]]:
        """Who comes before the compiles of these names."""
        order, _, needs = self.graph
        asked = [n for n, action in enumerate(order) if action.count_as == "compiled" and action.name in names]
        found = {need for n in asked for need in dag.all_before(n, needs)}
        return {(order[need].profile, order[need].name) for need in found}

    @cached_property
    def store(self) -> Store:
        """The cache, made when something must be done."""
        from cache.store import DEFAULT_MAX_BYTES, Store

        max_bytes = self.directories.max_cache_bytes
        return Store(self.directories.cache, DEFAULT_MAX_BYTES if max_bytes is None else max_bytes)

    @cached_property
    def links(self) -> Links:
        """Where links lead, made when something must be done, or in a project with users' actions."""
        from pipeline.engine.symlinks import Links

        return Links(self.resolve, str(self.root), self.steps.actions)

    @cached_property
    def ledger(self) -> NinjaLedger:
        """What ninja remembers of its build directories."""
        from pipeline.engine.ledger import NinjaLedger

        return NinjaLedger(self.directories.state, self.resolve, self.steps.ninja_log_version)

    @cached_property
    def option_names(self) -> OptionNames:
        """Which files are option headers, made when something must be done."""
        from pipeline.engine.option_names import OptionNames

        return OptionNames(self.steps.option_headers)

    @cached_property
    def options(self) -> OptionUses:
        """What counts of option headers, made when one is read."""
        from pipeline.engine.option_uses import OptionUses

        return OptionUses(self.directories.state, self.resolve, self.option_names, self._response)

    def is_option(self, path: str) -> bool:
        """Is it an option header?"""
        return bool(self.steps.option_headers) and self.option_names.matches(path)

    def is_made_alone(self, path: str) -> bool:
        """Does an action make it that certainly writes nothing but its outputs?"""
        number = self.graph.producer.get(path)
        if number is None:
            return False
        statement = self.graph.order[number].statement
        return statement is None or statement.evidence

    def key_path(self, path: str) -> str:
        """A path that a command reported, as it stands in keys. CMake names the object of a source that lies outside of
        its own directory by the source's whole path."""
        name = depfile.normalise(path, str(self.root), self.places)
        return name.replace(f"{self.root}/", "{root}/") if self.steps.has_statements else name

    def placed(self, word: str) -> str:
        """A word of a statement with the directories of this machine in place of their symbols."""
        if "{" in word:
            for symbol, place in self.symbols.items():
                word = word.replace(symbol, place)
        return word

    def forget_links(self) -> None:
        """Links may lead elsewhere from here on."""
        if "links" in self.__dict__:
            self.links.forget()

    def linked_names(self, outputs: Sequence[str]) -> list[str]:
        """Every path that is known to lead to one of `outputs` under another name."""
        return [*self.links.ways_to(outputs)] if "links" in self.__dict__ else []

    def _response(self, name: str) -> str | None:
        try:
            return os.fsdecode(read_file(self.resolve(name)))
        except OSError:
            return None

    def resolve(self, path: str) -> str:
        """A path of a key as one that can be opened here."""
        if "{" in path:
            path = path.replace("{root}", str(self.root))
            if path[:1] == "{":
                place, _, rest = path.partition("/")
                return f"{self.places.get(place, place)}/{rest}"
        return path if path[:1] == "/" else self._below + path

    def record(self, action: Action) -> Record | None:
        """The last recorded run of `action`."""
        return self.records.get(record_name(action))

    def moved_meanwhile(self, taken: PackedInputs) -> str:
        """The first of the believed ones of these files that is no more what it was, `""` if there is none. Raises
        OSError."""
        assert self.skipped is not None  # else nothing is believed
        products = self.skipped.moved_products()
        moved = set(products or ())
        for path, sha256 in taken if products is None else taken.outside("build/"):
            before, now = self.table.remembered(path), self.table.current(path)
            if now is None or now != before or now.sha256 != sha256:
                moved.add(path)
        moved &= self.believed
        self.believed -= moved
        return min(moved, default="")

    # --- which files there are --------------------------------------------------------------------

    def sources(self) -> list[str]:
        """Every file that is read and that no action makes: declared ones, then those that compilers reported."""
        if self._sources is None:
            self._sources = list(self._found_sources())
        return self._sources

    def _found_sources(self) -> dict[str, None]:
        producer, believed = self.graph.producer, self.believed
        found: dict[str, None] = {}
        for action in self.graph.order:
            paths: Iterable[str] = action.inputs
            if believed:
                new = {*paths}.difference(believed)  # of a link's inputs hardly any
                paths = [path for path in paths if path in new] if new else ()
            found.update(dict.fromkeys([path for path in paths if path not in producer]))
        # Most actions share their set of headers with others.
        sets = [self.records.discovered(record_name(action)) for action in self.graph.order]
        for observed in {id(observed): observed for observed in sets}.values():
            found.update(dict.fromkeys(path for path, _ in observed if path not in producer))
        return found

    def forget_sources(self) -> None:
        """A compiler may have reported others."""
        self._sources = None

    @property
    def input_count(self) -> int:
        """How many files are read that no action makes."""
        return len(self.sources()) if self.skipped is None else self.skipped.inputs

    def readers(self) -> dict[str, list[Action]]:
        """file -> actions that read it, by declaration or as the last run found."""
        found: dict[str, list[Action]] = {}
        for action in self.graph.order:
            discovered = [path for path, _ in self.records.discovered(record_name(action))]
            for path in dict.fromkeys((*action.inputs, *discovered)):
                found.setdefault(path, []).append(action)
        return found

    def is_declared_as_recorded(self, action: Action) -> bool:
        """Does its declaration say what its last run was? Of a compile, files are all that can have moved since this
        process read the configuration."""
        name = record_name(action)
        if action.is_users:
            record = self.records.get(name)
            return record is not None and record.command == command_of(action, self.steps.tools)
        return self.records.paths(name) == (action.inputs, action.outputs)

    # --- products that nobody makes any more ------------------------------------------------------

    @cached_property
    def leftovers(self) -> frozenset[str]:
        """What was made, is made no more, and still lies there as we made it: as good as missing."""
        if self.skipped is not None:
            return frozenset()
        from pipeline.engine.leftovers import as_made

        return as_made(self.root, self.table, self.records, self.graph, self.steps.given)

    def remove_leftovers(self) -> tuple[str, ...]:
        """Remove them, and the directories that this empties; what was removed. Raises StoreError."""
        if self.skipped is not None:
            return ()
        from pipeline.engine.leftovers import forgotten, remove

        removed = tuple(sorted(self.leftovers))
        remove(self.root, removed)
        for name in forgotten(self.records, self.graph):
            self.records.drop(name)
        self.records.settle([path for path in self.records.unrecorded if path not in self.graph.producer])
        self.leftovers = frozenset()
        return removed

    def begin(self, actions: Iterable[Action]) -> None:
        """These may run now: what they leave when they are killed is remembered as ours. A file that lies in the place
        of an output and that nothing of ours made is not: it goes when the action runs."""
        new = [
            path
            for action in actions
            for path in action.outputs
            if self.records.unrecorded.get(path) != ""
            and (self.records.has(record_name(action)) or not os.path.lexists(self.resolve(path)))
        ]
        if new:
            self.records.begin(new)
            self.save()

    def end(self) -> None:
        """A run is over: what has a record again is known by that."""
        order, producer = self.graph.order, self.graph.producer
        made = [path for path in self.records.unrecorded if path in producer]
        self.records.settle([path for path in made if self.records.has(record_name(order[producer[path]]))])

    # --- what is remembered -----------------------------------------------------------------------

    def save(self) -> None:
        """Write the state if it changed. That it cannot be written is a note: the next run only works more."""
        if "ledger" in self.__dict__:
            self.ledger.flush()
        if "options" in self.__dict__:
            self.options.save()
        self._state.save()

    def saved_names(self) -> tuple[bytes, bytes] | None:
        """Save, and the names (see `Saved`) of what lies there then and is what is remembered; None where that cannot
        be written. `save_rows` then changes nothing about these."""
        self.save()
        return self._state.names()

    def save_rows(self) -> None:
        """Write beside the state what lets a run that concerns few actions read no more than those. Precondition: what
        is remembered was saved."""
        self._state.save_rows()

    def forget_undeclared(self) -> None:
        """Drop records of actions that are no longer declared in these profiles, and stamps that nothing uses. Other
        profiles keep theirs, so that switching back finds them. Does nothing when only some actions are known."""
        if self.skipped is not None:
            return
        used = set[str]()
        for name in self._undeclared():
            record = self.records.get(name)
            if record is not None:
                used.update(path for path, _ in (*record.inputs, *record.discovered))
                used.update(path for path, _, _ in record.outputs)
        self.forget_sources()
        # One after the other: all of them in one set are megabytes.
        self.table.keep_only(self.graph.producer, self._found_sources(), used)

    def _undeclared(self) -> Collection[str]:
        """The records of other profiles; those of these that no action has are dropped."""
        names, order = self.records.names(), self.graph.order
        if sum(self.records.has(record_name(action)) for action in order) == len(names):
            return ()  # as nearly always
        profiles = tuple(f"{profile}:" for profile in {action.profile for action in order})
        others = names - {record_name(action) for action in order}
        for name in [name for name in others if name.startswith(profiles)]:
            self.records.drop(name)
            others.discard(name)
        return others
