"""Random projects for the engine's proof of correctness: a fake compiler, a clean build in memory, and a model of what
must run.

The fake tools are one pure function of (argv, files): the runners call it on the disk, the oracle on a dict.
The model knows nothing of keys, stamps or candidate sets. Its rule: a command must run if and only if the same command
with the same contents of everything that it read was never run successfully before in this store, unless the last run
here was that one and left outputs that are still whole.
"""

from __future__ import annotations

import os
import pickle
import posixpath
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from cache.durable import write_atomic
from cache.stamps import Stamp, stamp_of
from pipeline.effects.api import Children, Completed
from pipeline.effects.clock import SystemClock
from pipeline.effects.process import SystemProcessRunner
from pipeline.engine.engine import Engine
from pipeline.engine.inputs import command_of
from pipeline.engine.partial_graph import PartialGraph, partial_graph, same_files
from pipeline.engine.results import ActionSpan, BuiltinCall, RunResult
from pipeline.engine.saved_state import Saved, load_saved
from pipeline.engine.usage_index import usage_index
from pipeline.engine.workspace import BuildSteps, Directories, Host, SkippedActions
from pipeline.model import Action, Stage, Tool
from tests.unit import fake_tool
from tests.unit.engine_space import used_files
from tests.unit.fake_tool import SEARCH, Made, read_below, tool, write_outputs

JOBS = 2
SOURCES = ("src", "inc", "first", "gen", "scripts", "tools", "data")
"""Directories of what people write."""

Files = Mapping[str, bytes]


# --- tools ------------------------------------------------------------------------------------


def strip(call: BuiltinCall) -> Sequence[bytes]:
    """The builtin of the image: drops what `-g` added."""
    return [call.inputs[0].replace(b"-g", b"")]


class FakeRunner:
    """A ProcessRunner that runs `tool` in this process; with `log`, each start and end is a line that survives a
    kill."""

    def __init__(self, log: Path | None = None) -> None:
        self.during: Callable[[str], None] = lambda out: None
        self._cancelled = False
        self._log = None if log is None else os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def cancel(self) -> None:
        self._cancelled = True

    def run(self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout_s: float) -> Completed:
        if self._cancelled:
            raise KeyboardInterrupt
        out = argv[argv.index("-o") + 1]
        self._say(f"start {out}")
        made = tool(argv, read_below(str(cwd)))
        self.during(out)
        try:
            write_outputs(made, str(cwd))
        except OSError as error:
            return Completed(1, b"", f"fatal: {error.strerror}\n".encode(), 0.001)
        self._say(f"end {out}")
        return Completed(1 if made.error else 0, b"", made.error.encode(), 0.001)

    def _say(self, line: str) -> None:
        if self._log is not None:
            os.write(self._log, f"{line}\n".encode())


class RealRunner(FakeRunner):
    """The same tools as programs, through the real runner."""

    def __init__(self, log: Path | None = None) -> None:
        super().__init__(log)
        self._system = SystemProcessRunner(SystemClock())

    def cancel(self) -> None:
        self._system.cancel()

    def run(self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout_s: float) -> Completed:
        out = argv[argv.index("-o") + 1]
        self._say(f"start {out}")
        done = self._system.run(_program(argv), cwd=cwd, env=env, timeout_s=timeout_s)
        self._say(f"end {out}")
        return done

    def together(self) -> Children:
        return RealChildren(self._system.together(), self._say)


class RealChildren:
    """Several of them at once."""

    def __init__(self, system: Children, say: Callable[[str], None]) -> None:
        self._system, self._say = system, say
        self._outs: dict[object, str] = {}
        self.wake, self.close = system.wake, system.close

    def start(self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout_s: float) -> object:
        out = argv[argv.index("-o") + 1]
        self._say(f"start {out}")
        command = self._system.start(_program(argv), cwd=cwd, env=env, timeout_s=timeout_s)
        self._outs[command] = out
        return command

    def ended(self, timeout_s: float) -> Sequence[tuple[object, Completed | BaseException]]:
        found = self._system.ended(timeout_s)
        for command, done in found:
            if isinstance(done, Completed):
                self._say(f"end {self._outs[command]}")
        return found


def _program(argv: Sequence[str]) -> list[str]:
    name = posixpath.basename(argv[0])
    # An interpreter that heeds variables is what it is about.
    alone = ("-S",) if name == "py" else ("-I", "-S")
    return [sys.executable, *alone, fake_tool.__file__, name, *argv[1:]]


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _stamp(path: Path) -> Stamp | None:
    try:
        return stamp_of(str(path))
    except IsADirectoryError:
        return None


# --- the project ------------------------------------------------------------------------------


@dataclass
class Shape:
    """What deploy.toml would say. Paths of sources and headers are found in the file system."""

    profile: str = "fast"
    flags: tuple[str, ...] = ()
    identity: str = "fake 1"
    programs: int = 2


class _Former(NamedTuple):
    """What a snapshot said, and the engine that was made from it."""

    actions: list[Action]
    paths: list[str]
    stamps: list[Stamp]
    absent: set[str]
    rows: bytes
    moved: dict[int, str]
    part: PartialGraph


class RandomProject:
    """A directory and its actions: generators, one compile per source, links, images."""

    def __init__(self, root: Path, cache: Path, shape: Shape) -> None:
        self.root, self.cache, self.shape = root, cache, shape
        self.uses_parts = False
        """Is what a run leaves behind used to begin the next with an engine of a few actions?"""
        self.how: dict[str, str] = {}
        """What the last build did with each action that was not up to date."""
        self.partial_builds = 0
        """Builds that began with an engine of a few actions."""
        self.patched = 0
        """Those that ended with one, too, and wrote what it knows into what was known before."""
        self._former: _Former | None = None

    def write(self, path: str, text: str) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def mkdir(self, path: str) -> Path:
        (self.root / path).mkdir(parents=True, exist_ok=True)
        return self.root / path

    def paths(self, directory: str) -> list[str]:
        base = self.root / directory
        return sorted(f"{directory}/{p.name}" for p in base.iterdir()) if base.is_dir() else []

    def sources(self) -> Files:
        """Everything that a person wrote."""
        return {path: (self.root / path).read_bytes() for d in SOURCES for path in self.paths(d)}

    def actions(self) -> list[Action]:
        """Links first and generators last, since the declared order must not matter."""
        profile = self.shape.profile
        out = f"build/{profile}"
        generated, compiles, links = [], [], []
        for seed in self.paths("gen"):
            made = f"build/gen/{Path(seed).stem}.h"
            generated.append(Action(f"gen {seed}", Stage.COMPILE, (seed,), (made,), ("gen", "-o", made, seed)))
        for script in self.paths("scripts"):
            made = f"build/gen/{Path(script).stem}.h"
            run = ("py", "-o", made, "-MF", f"{made}.d", script)
            generated.append(Action(f"py {script}", Stage.COMPILE, (script,), (made,), run, depfile=f"{made}.d"))
        headers = tuple(action.outputs[0] for action in generated)
        for source in self.paths("src"):
            if not source.endswith(".c"):
                continue
            stem = f"{out}/{Path(source).stem}"
            text = (self.root / source).read_text()
            # As a user declares it: the generated headers that this source names.
            uses = tuple(path for path in headers if posixpath.basename(path) in text)
            words = ("cc", *self.shape.flags, *(("-g",) if profile == "slow" else ()), "-o", f"{stem}.o")
            argv = (*words, "-MF", f"{stem}.d", *(f"-I{directory}" for directory in SEARCH), source)
            compiles.append(
                Action(
                    f"cc {source}",
                    Stage.COMPILE,
                    (source, *uses),
                    (f"{stem}.o",),
                    argv,
                    depfile=f"{stem}.d",
                    profile=profile,
                    count_as="compiled",
                )
            )
        objects = [action.outputs[0] for action in compiles]
        for number in range(self.shape.programs):
            mine = tuple(objects[number :: self.shape.programs])
            elf = f"{out}/p{number}.elf"
            if mine:
                data = self.paths("data")[number : number + 1]
                link = ("ld", *(f"--data={path}" for path in data), "-o", elf, *mine)
                reads = (*mine, *data)
                links.append(
                    Action(f"ld {number}", Stage.LINK, reads, (elf,), link, profile=profile, count_as="linked")
                )
                links.append(
                    Action(
                        f"bin {number}",
                        Stage.LINK,
                        (elf,),
                        (f"{out}/p{number}.bin",),
                        builtin="strip@1",
                        profile=profile,
                    )
                )
        return [*links, *compiles, *generated]

    @property
    def tools(self) -> dict[str, Tool]:
        return {name: Tool(name, f"/opt/{name}", "1", self.shape.identity) for name in ("cc", "ld", "gen", "py")}

    def engine(self, runner: FakeRunner) -> Engine:
        """A new one, as a new process would make."""
        return self._engine(runner, self.actions(), self.tools)

    def _engine(
        self,
        runner: FakeRunner,
        actions: Sequence[Action],
        tools: Mapping[str, Tool],
        saved: Saved | None = None,
        skipped: SkippedActions | None = None,
    ) -> Engine:
        directories = Directories(self.root, self.root / ".deploy", self.cache)
        steps = BuildSteps(actions, tools, {"strip@1": strip}, {})
        return Engine(directories, steps, Host(runner, SystemClock(), JOBS), saved, skipped)

    def _performed(self, spans: Sequence[ActionSpan]) -> None:
        self.how.update((span.action, span.how) for span in spans)

    def build(self, runner: FakeRunner | None = None) -> list[RunResult]:
        """What one `doit link` does, with a partial graph if one will do. Raises KeyboardInterrupt after a cancel."""
        runner = runner or FakeRunner()
        engine = (self.uses_parts and self._partial_engine(runner)) or self.engine(runner)
        self.how.clear()
        scanned = not engine.peek().up_to_date
        if scanned:
            engine.scan()
        results: list[RunResult] = []
        for stage in (Stage.COMPILE, Stage.LINK):
            if stage is Stage.LINK and engine.skipped is not None and self._moved_beside(engine):
                engine.save()
                engine = self.engine(runner)
            if engine.verdict(stage).up_to_date:
                continue
            if self.uses_parts:
                self._snapshot_path.unlink(missing_ok=True)
            results.append(engine.run(stage, lambda label, done, total: None, self._performed))
            if not results[-1].ok:
                engine.save()
                return results
        engine.save()
        learnt = self.uses_parts and (scanned or results or not self._snapshot_path.exists())
        if learnt and not (engine.skipped is not None and self._patch_snapshot(engine)):
            self._take_snapshot(engine if engine.skipped is None else self.engine(runner))
        return results

    # What the fast path's state holds in a real project: which actions there were, files with stamps, the index.

    @property
    def _snapshot_path(self) -> Path:
        return self.root / ".deploy" / "snapshot"

    def _take_snapshot(self, engine: Engine) -> None:
        used = used_files(engine.workspace)
        if used is None or not all(engine.verdict(stage).up_to_date for stage in (Stage.COMPILE, Stage.LINK)):
            return
        entries = [engine.table.remembered(path) for path in used]
        if not all(
            entry is not None and entry.settled and entry.sha256 == used[path]
            for path, entry in zip(used, entries, strict=True)
        ):
            return
        stamps = [entry.stamp for entry in entries if entry is not None]
        absent = {path for action in engine.graph.order if (record := engine.record(action)) for path in record.absent}
        # Those that were listed before the run.
        snapshot = (
            list(engine.workspace.steps.actions),
            self.tools,
            list(used),
            stamps,
            absent,
            usage_index(engine.workspace, list(used)),
        )
        write_atomic(self._snapshot_path, pickle.dumps(snapshot), durable=False)

    def _moved_beside(self, engine: Engine) -> bool:
        """Has anything else moved than what the engine of a few actions was made for? As `FastPathState` asks."""
        former = self._former
        assert former is not None
        concerned = {*former.moved, *former.part.makes}
        return (
            former.actions != self.actions()
            or any((self.root / path).exists() for path in former.absent)
            or any(
                n not in concerned and _stamp(self.root / path) != former.stamps[n]
                for n, path in enumerate(former.paths)
            )
        )

    def _patch_snapshot(self, engine: Engine) -> bool:
        """As `Engines` and `FastPathState.patch` do it."""
        former, used = self._former, used_files(engine.workspace)
        assert former is not None
        if used is None or not same_files(former.part, engine.records):
            return False
        stamps = list(former.stamps)
        for n in {*former.moved, *former.part.makes}:
            path = former.paths[n]
            entry = engine.table.remembered(path)
            if entry is None or not entry.settled or entry.sha256 != used[path]:
                return False
            stamps[n] = entry.stamp
        self.patched += 1
        snapshot = (former.actions, self.tools, former.paths, stamps, former.absent, former.rows)
        write_atomic(self._snapshot_path, pickle.dumps(snapshot), durable=False)
        return True

    def _partial_engine(self, runner: FakeRunner) -> Engine | None:
        data = _read(self._snapshot_path)
        if data is None:
            return None
        actions, tools, paths, stamps, absent, index = pickle.loads(data)
        if actions != self.actions() or tools != self.tools or any((self.root / path).exists() for path in absent):
            return None
        moved = {n: path for n, path in enumerate(paths) if _stamp(self.root / path) != stamps[n]}
        saved = load_saved(self.root / ".deploy")
        found = partial_graph(index, moved, saved.records, str(self.root)) if moved else None
        if found is None:
            return None
        self.partial_builds += 1
        self._former = _Former(actions, paths, stamps, absent, index, moved, found)
        return self._engine(runner, found.actions, found.tools, saved, found.skipped)


# --- oracle -----------------------------------------------------------------------------------


Signature = tuple[object, ...]


class Planned(NamedTuple):
    """An action in a clean build: its signature, the outputs it makes ({} when it fails)."""

    action: Action
    signature: Signature
    outputs: dict[str, bytes]
    failed: bool


def clean_build(project: RandomProject) -> list[Planned]:
    """Run everything in memory, in an order that a fixed point finds; what needs a failed action is left out."""
    files = dict(project.sources())
    waiting, planned = project.actions(), list[Planned]()
    made_by = {path for action in waiting for path in action.outputs}
    while ready := [a for a in waiting if all(path in files or path not in made_by for path in a.inputs)]:
        action = ready[0]
        waiting.remove(action)
        if action.builtin:
            (data,) = strip(BuiltinCall(action.inputs, tuple(files[path] for path in action.inputs), {}))
            made = Made({action.outputs[0]: data}, {path: files[path] for path in action.inputs})
        else:
            made = tool(action.argv, files.get)
        outputs = {path: data for path, data in made.files.items() if path in action.outputs}
        files.update(outputs)
        signature = (command_of(action, project.tools), tuple(sorted(made.read.items())))
        planned.append(Planned(action, signature, outputs, bool(made.error)))
    return planned


@dataclass
class Model:
    """What must have been remembered. `maybe` and `unknown` hold what a kill or damage left uncertain."""

    store: set[Signature] = field(default_factory=set)
    maybe: set[Signature] = field(default_factory=set)
    records: dict[str, Signature] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    """Actions whose record may be another one, or gone."""

    def clear_store(self) -> None:
        self.store, self.maybe = set(), set()

    def doubt_store(self) -> None:
        self.maybe |= self.store
        self.store = set()

    def clear_records(self) -> None:
        self.records, self.unknown = {}, set()

    def must(self, project: RandomProject, planned: Sequence[Planned]) -> tuple[set[str], set[str]]:
        """Names of the actions that must run, and of those that may."""
        run, may = set(), set()
        for one in planned:
            name = key_of(one.action)
            whole = all(is_whole(project.root / path, data) for path, data in one.outputs.items())
            recorded = self.records.get(name) == one.signature and whole and not one.failed
            if one.failed:
                run.add(one.action.name)
            elif one.signature in self.store or (recorded and name not in self.unknown):
                continue
            elif one.signature in self.maybe or name in self.unknown:
                may.add(one.action.name)
            else:
                run.add(one.action.name)
        return run, may

    def succeeded(self, planned: Sequence[Planned], executed: set[str]) -> None:
        """Everything is up to date now."""
        names = {key_of(one.action) for one in planned}
        profiles = {one.action.profile for one in planned}
        self.records = {n: s for n, s in self.records.items() if n in names or n.partition(":")[0] not in profiles}
        for one in planned:
            self.records[key_of(one.action)] = one.signature
            if one.action.name in executed:
                self.store.add(one.signature)
        self.unknown -= names

    def stopped(self, planned: Sequence[Planned], executed: set[str]) -> None:
        """A run failed: what it executed is stored, what else it did is not known."""
        for one in planned:
            name = key_of(one.action)
            if one.action.name in executed:
                self.store.add(one.signature)
            if self.records.get(name) != one.signature:
                self.unknown.add(name)

    def killed(self, planned: Sequence[Planned], started: set[str]) -> None:
        """A run ended in the middle: what it started may be stored, and no record is certain."""
        for one in planned:
            if one.action.builtin or one.action.outputs[0] in started:
                self.maybe.add(one.signature)
            self.unknown.add(key_of(one.action))


def key_of(action: Action) -> str:
    """As unique as names must be: per profile."""
    return f"{action.profile}:{action.name}"


def is_whole(path: Path, data: bytes) -> bool:
    """Does the file hold `data`, and may it be executed if it is a program?"""
    executable = path.suffix == ".elf"
    return _read(path) == data and os.access(path, os.X_OK) == executable


def remove_tree(path: Path) -> None:
    """Remove a directory if it is there."""
    import shutil

    shutil.rmtree(path, ignore_errors=True)


def in_threads(*work: Callable[[], None]) -> None:
    """Run all at once; the first exception is raised here."""
    errors: list[BaseException] = []

    def guarded(function: Callable[[], None]) -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(function,)) for function in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in errors:
        raise error


def outputs_of(planned: Sequence[Planned]) -> Iterator[tuple[str, bytes]]:
    """Every output of a clean build."""
    for one in planned:
        yield from one.outputs.items()
