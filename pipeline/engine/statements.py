"""Run the command of a build statement as ninja would: in ninja's directory, by the shell or without it.

Knows the process runner, response files and which symbols stand for places of this machine. Does not know keys, the
cache or when ninja would run it. Invariants: outputs of a statement whose reads are known are made anew, so that they
depend on nothing that lay there, and what lay there comes back when it fails; no other output is touched before.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cache.durable import read_file
from cache.stamps import Entry
from pipeline.engine.candidates import IdentifiedSet
from pipeline.engine.execution import TIMEOUT_S, Executed, Steps, ToRun
from pipeline.engine.record_rows import Observed
from pipeline.engine.results import ActionFailure, FailureKind
from pipeline.engine.workspace import Workspace
from pipeline.formats.file_macro import Carriers, PathWords, carriers, path_words, uses_path
from pipeline.formats.place_macros import mentions, place_macros
from pipeline.model import Action, Statement

if TYPE_CHECKING:
    from pipeline.engine.keys import Keyed
    from pipeline.engine.observation import Observer


def execute_statement(workspace: Workspace, action: Action) -> Steps[Executed]:
    """Run it. Raises OSError when a directory cannot be made, and KeyboardInterrupt when the runner was cancelled."""
    statement = action.statement
    assert statement is not None
    outputs = [workspace.resolve(path) for path in action.outputs]
    for path in filter(None, (*outputs, workspace.resolve(action.depfile) if action.depfile else "")):
        if not os.path.isdir(directory := posixpath.dirname(path)):  # noqa: PTH112 - asking is cheaper than making
            Path(directory).mkdir(parents=True, exist_ok=True)
    if statement.evidence:
        for path in outputs:
            workspace.former.set_aside(path)
    try:
        with _response_file(workspace, statement):
            return (yield from _run(workspace, action, statement))
    except BaseException:
        workspace.former.put_back(outputs)
        raise


def _run(workspace: Workspace, action: Action, statement: Statement) -> Steps[Executed]:
    tool = workspace.steps.tools.get(action.argv[0])
    if tool is None:
        message = f"the tool {action.argv[0]!r} is not installed"
        return Executed(failure=ActionFailure(action.name, FailureKind.TOOL_MISSING, message, action.argv))
    # A command of which nothing is known stands as ninja has it: what looks like a symbol in it is none.
    is_ninjas = not statement.evidence and statement.command.startswith(action.argv[-1])
    argv = (tool.path, *(action.argv[1:] if is_ninjas else map(workspace.placed, action.argv[1:])))
    env = {**workspace.steps.run_env, **{name: workspace.placed(value) for name, value in action.env}}
    if statement.traced:
        place = Path(workspace.resolve(action.depfile))
        place.unlink(missing_ok=True)
        places = (str(Path(__file__).with_name("python_trace")), *filter(None, [env.get("PYTHONPATH", "")]))
        env |= {"HOTPLATE_TRACE": str(place), "PYTHONPATH": os.pathsep.join(places)}
    directory = Path(workspace.resolve(statement.directory))
    traced = _TRACED / f"{posixpath.basename(action.name)}-{id(action):x}" if workspace.steps.strace else None
    said = argv
    if traced is not None:
        place = workspace.directories.state / traced
        place.parent.mkdir(parents=True, exist_ok=True)
        said = (workspace.steps.strace, "-f", "-y", "-qq", "-s", "4096", "-e", "trace=%file", "-o", str(place), *argv)
    try:
        done = yield ToRun(said, directory, env)
    except TimeoutError:
        message = f"the command did not end within {TIMEOUT_S:.0f} s"
        return Executed(argv, failure=ActionFailure(action.name, FailureKind.TIMEOUT, message, argv))
    except OSError as error:
        message = f"{tool.path} cannot be run: {error.strerror or error}"
        return Executed(argv, failure=ActionFailure(action.name, FailureKind.TOOL_MISSING, message, argv))
    if done.exit_code == 0:
        undeclared = () if traced is None else _undeclared(workspace, action, workspace.directories.state / traced)
        return Executed(argv, done.stdout, done.stderr, done.duration_s, undeclared=undeclared, ended_ns=done.ended_ns)
    words = (done.stderr + done.stdout).decode("utf-8", "replace")
    how = f"exit code {done.exit_code}" if done.exit_code > 0 else f"signal {-done.exit_code}"
    message = f"{action.name} failed with {how}"
    failure = ActionFailure(action.name, FailureKind.EXIT, message, argv, done.exit_code, words)
    return Executed(argv, done.stdout, done.stderr, done.duration_s, failure)


_TRACED = Path("strace")
MOST_UNDECLARED = 20
"""Files that one statement is said to use without declaring them; more say no more."""


def _undeclared(workspace: Workspace, action: Action, trace: Path) -> tuple[str, ...]:
    """Lines about files in the project, and in places with symbols, that a traced statement used beside what ninja
    knows of it. What its depfile names is not known yet, and is left out by whoever reads that."""
    from pipeline.formats.strace import parse_strace

    try:
        text = os.fsdecode(trace.read_bytes())
        trace.unlink()
    except OSError:
        return (f"said nothing: {trace.name}",)
    statement = action.statement
    assert statement is not None
    found = parse_strace(text, workspace.resolve(statement.directory))
    own = {*action.inputs, *action.outputs, action.depfile, statement.depfile, statement.rspfile[0], *statement.after}
    lines = []
    for what, paths in (("read", found.read), ("wrote", found.written)):
        for path in paths:
            name = workspace.key_path(path)
            ours = name.startswith(f"{workspace.directories.state.name}/")
            if name[:1] != "/" and name not in own and not ours and os.path.isfile(path):  # noqa: PTH113
                lines.append(f"{what} {name}")
    return tuple(lines)


@contextlib.contextmanager
def _response_file(workspace: Workspace, statement: Statement) -> Iterator[None]:
    """The statement's response file, there while its command runs; as with ninja it stays when that fails."""
    path, text = statement.rspfile
    if not path:
        yield
        return
    place = Path(workspace.resolve(path))
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(os.fsencode(text))
    yield
    place.unlink(missing_ok=True)


def made_files(workspace: Workspace, action: Action) -> list[str]:
    """Where the outputs of a statement lie of which everything is known; none of another one."""
    assert action.statement is not None
    return [workspace.resolve(path) for path in action.outputs] if action.statement.evidence else []


def names_place(workspace: Workspace, paths: list[str]) -> bool:
    """Does any of these files hold a path of this machine for which keys have a symbol? Then its bytes belong to this
    place. One that cannot be read does."""
    places = [os.fsencode(place) for place in workspace.symbols.values()]
    for path in paths:
        try:
            data = read_file(path)
        except OSError:
            return True
        if any(place in data for place in places):
            return True
    return False


class StatementRuns:
    """What one `run` of the engine tells ninja, and which of its results belong to this place."""

    def __init__(self, workspace: Workspace, observer: Observer) -> None:
        self._workspace, self._observer = workspace, observer
        self._path_words: dict[str, PathWords] = {}
        self._headers: dict[tuple[Observed, bool], _OfHeaders | None] = {}
        self._newest: dict[int, tuple[object, int]] = {}
        self._mtimes: dict[Entry, int] = {}

    def up_to_date(
        self,
        action: Action,
        keyed: Keyed | None,
        found: IdentifiedSet | None,
        took_s: float = 0.0,
        began_ns: int = 0,
    ) -> None:
        """Make ninja see that it is; `took_s` and `began_ns` of a command that ran. Raises OSError."""
        record = self._workspace.record(action)
        discovered = found.discovered if found is not None else record.discovered if record is not None else ()
        paths = [path for path, _ in discovered]
        entries = [entry for _, entry in keyed.inputs] if keyed is not None else self._entries(action.inputs)
        entries += self._entries(action.statement.in_place_of) if action.statement is not None else []
        newest = max([entry.stamp.mtime_ns for entry in entries], default=0)
        if found is not None and found.entries:
            newest = max(newest, self._newest_seen(found.entries))
        else:
            newest = max(newest, self._newest_of(discovered))
        known = keyed is not None or record is not None
        read = (*action.inputs[:1], *paths) if known and action.depfile else None
        for path in self._workspace.ledger.done(action, newest, read, took_s, began_ns):
            self._workspace.table.current(path)  # its stamp moved, by us

    def _newest_seen(self, entries: Sequence[Entry]) -> int:
        """Their latest mtime; of headers, of which each serves many statements."""
        known = self._mtimes
        for entry in entries:
            if entry not in known:
                known[entry] = entry.stamp.mtime_ns
        return max([known[entry] for entry in entries])

    def _newest_of(self, discovered: Observed) -> int:
        """The latest mtime of a set that many statements share, asked once where no action makes a file of it."""
        known = self._newest.get(id(discovered))
        if known is not None and known[0] is discovered:
            return known[1]
        paths = [path for path, _ in discovered]
        newest = max([entry.stamp.mtime_ns for entry in self._entries(paths)], default=0)
        if not any(map(self._observer.is_made, paths)):
            self._newest[id(discovered)] = (discovered, newest)
        return newest

    def _entries(self, paths: Iterable[str]) -> list[Entry]:
        found = []
        for path in paths:
            with contextlib.suppress(OSError):
                if (entry := self._observer.entry(path)) is not None:
                    found.append(entry)
        return found

    def is_of_this_place(self, keyed: Keyed, found: IdentifiedSet, texts: Iterable[bytes]) -> bool:
        """Could the result be another one in another directory? If it holds a path, or may depend on one."""
        action, workspace = keyed.action, self._workspace
        assert action.statement is not None
        places = [os.fsencode(place) for place in workspace.symbols.values()]
        if any(place in text for place in places for text in texts):
            return True
        if names_place(workspace, [workspace.resolve(path) for path in action.outputs]):
            return True
        words = workspace.searches.spoken(action)
        if action.count_as != "compiled":
            return any(word.startswith("-flto") for word in words) and self._is_said(action)
        hidden = any(word.startswith(("-flto", "-gz", "-Wa,--compress-debug")) for word in words)
        if hidden and self._is_said(action):
            return True
        said = place_macros(action.argv[1:], workspace.symbols)
        if said.other or (said.macros and self._mentions(said.macros, keyed.inputs, found)):
            return True
        unmapped = [symbol for symbol in workspace.symbols if self._is_spelt(action, symbol)]
        if unmapped and any("_FILE_" in word for word in words):
            return True
        leaves = any(f"{symbol}/" in word and "/.." in word for symbol in unmapped for word in action.argv)
        return bool(unmapped) and self._may_use_path(keyed.inputs, found, leaves)

    def _mentions(self, macros: frozenset[bytes], inputs: Sequence[tuple[str, Entry]], found: IdentifiedSet) -> bool:
        """May a file that was read come to one of these macros? One that cannot be read may."""
        texts = [self._words(path, entry) for path, entry in (*inputs, *self._named(found))]
        return any(text is None or mentions(text, macros) for text in texts)

    def _may_use_path(self, inputs: Sequence[tuple[str, Entry]], found: IdentifiedSet, leaves: bool) -> bool:
        """May a file of the project, or of a place that has a symbol, come to its own path by a macro? `leaves`: files
        elsewhere may be called by a way through such a place (`-I/project/../shared`)."""
        headers = self._of_headers(found, leaves)
        own = [(path, self._words(path, entry)) for path, entry in inputs]
        known = [(path, words) for path, words in own if words is not None]
        if headers is None or len(known) < len(own):
            return True
        files, shared, uses = headers
        one = known[0][1] if len(known) == 1 else None
        carried = carriers(words for _, words in (*known, *files)) if one is None else shared.beside(one)
        if carried == shared.alone:
            return uses or any(uses_path(words, carried) for path, words in known if leaves or path[:1] != "/")
        return any(uses_path(words, carried) for path, words in (*known, *files) if leaves or path[:1] != "/")

    def _of_headers(self, found: IdentifiedSet, leaves: bool) -> _OfHeaders | None:
        """What the texts of a set say by themselves, worked out once for all that share it; None where one cannot be
        read."""
        what = (found.discovered, leaves)
        if what not in self._headers:
            files = [(path, self._words(path, entry)) for path, entry in self._named(found)]
            known = [(path, words) for path, words in files if words is not None]
            shared = Carriers(words for _, words in known)
            uses = any(uses_path(words, shared.alone) for path, words in known if leaves or path[:1] != "/")
            self._headers[what] = (known, shared, uses) if len(known) == len(files) else None
        return self._headers[what]

    def _is_said(self, action: Action) -> bool:
        return any(symbol in word for symbol in self._workspace.symbols for word in action.argv)

    def _is_spelt(self, action: Action, symbol: str) -> bool:
        """May `__FILE__` begin with this place?"""
        words = [word for word in action.argv if symbol in word]
        if any(_MACRO_MAP.sub("", word).startswith((f"{symbol}=", f"{symbol}/=")) for word in words):
            return False  # all of it, and not a directory in it
        return any(not _MAP.match(word) for word in words)

    def _named(self, found: IdentifiedSet) -> Iterator[tuple[str, Entry]]:
        entries = found.entries or [self._observer.entry(path) for path, _ in found.discovered]
        for (path, _), entry in zip(found.discovered, entries, strict=True):
            if entry is not None:
                yield path, entry

    def _words(self, path: str, entry: Entry) -> PathWords | None:
        """What of a text matters for that, None for one that cannot be read."""
        known = self._path_words.get(entry.sha256)
        if known is None:
            try:
                known = path_words(read_file(self._workspace.resolve(path)))
            except OSError:
                return None
            self._path_words[entry.sha256] = known
        return known


_OfHeaders = tuple[Sequence[tuple[str, PathWords]], Carriers, bool]
"""Files with their words, what carries a path in them, and does one of them use it?"""
_MAP = re.compile(r"-f[a-z]+-prefix-map=")
_MACRO_MAP = re.compile(r"-f(?:macro|file)-prefix-map=")
