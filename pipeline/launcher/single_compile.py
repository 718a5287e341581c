"""A compile that no memo answers: read the command, look in the store by key, else compile and store what it came to.

Puts the engine's keys, its candidate sets and its reading of depfiles and include paths to the use of one command
without a project. Invariants: what is stored was made by a compiler that succeeded, from files that did not change
since it was started, whose reads are all known, and whose text holds no time; it is found by another call only if all
of that is the same. What cannot be ensured is compiled and not stored.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

from cache.digest import ActionKey
from cache.durable import read_file
from cache.store import Store
from pipeline.engine import keys
from pipeline.engine.candidates import CandidateSet
from pipeline.engine.inputs import Command
from pipeline.formats.command_words import expand
from pipeline.formats.compile_command import (
    NO_SOURCE,
    ODD_OUTPUT,
    SPECIAL_DEPFILE,
    CompileReading,
    listing_words,
    read_compile,
)
from pipeline.launcher import compilers
from pipeline.launcher.call import FORMAT, ROOT, Call, count, plain
from pipeline.launcher.called import Called, ChildEnd, run_child
from pipeline.launcher.compile_reads import CompileReads, InputFiles
from pipeline.launcher.memo import Memo, is_plain_place, restore, write_all
from pipeline.launcher.results import Result, answer_of, record

UNKNOWN_COMPILER = "unknown-compiler"
NO_STORE = "no-store"


def compile_or_pass(call: Call, words: Sequence[str]) -> int:
    """Answer the call, or be the compiler for the original `words`; the exit code."""
    single = _SingleCompile.of(call) if _is_writable(call) else NO_STORE
    if isinstance(single, str):
        count(call.cache, f"passed-{single}")
        plain(words, call.environment)
    if single.restored():
        count(call.cache, "hit")
        return 0
    return single.compiled()


class _SingleCompile:
    """One compile whose command is understood."""

    def __init__(self, call: Call, reading: CompileReading, expanded: Sequence[str], responses: Sequence[str]) -> None:
        self.call, self.reading = call, reading
        self.expanded, self.responses = tuple(expanded), tuple(responses)
        self.store = Store(Path(call.cache))
        self.files = InputFiles(call)
        self.compiler = compilers.Compiler("", (), (), ())
        self.base = ActionKey("")

    @staticmethod
    def of(call: Call) -> _SingleCompile | str:
        """Why it is to be left alone, if so."""
        count_own = compilers.own_words(call.words)
        opened: list[str] = []
        expanded = expand(call.words[count_own:], _text, opened)
        reading = read_compile(expanded)
        if isinstance(reading, str):
            return reading
        if any(call.environment.get(name) for name in ("DEPENDENCIES_OUTPUT", "SUNPRO_DEPENDENCIES")):
            return SPECIAL_DEPFILE
        places = [reading.output, *([reading.depfile] if reading.depfile else [])]
        if not all(map(is_plain_place, places)) or any(ROOT in word for word in expanded):
            return ODD_OUTPUT
        it = _SingleCompile(call, reading, expanded, opened)
        found = compilers.find(call.words, reading.language, call.cwd, call.environment, Path(call.cache, "cc.v1"))
        if found is None:
            return UNKNOWN_COMPILER
        it.compiler = found
        return it if it._has_base() else NO_SOURCE

    def _has_base(self) -> bool:
        """Make the base key; False where the source cannot be read."""
        call = self.call
        inputs = [(call.symbolic(name), self.files.digest(name)) for name in (self.reading.source, *self.responses)]
        known = [(name, digest) for name, digest in inputs if digest is not None]
        if len(known) < len(inputs):
            return False
        command = Command(
            builtin="",
            argv=tuple(map(call.symbolic, self.expanded)),
            params=(("cwd", call.symbolic(call.cwd)), ("terminal", str(call.on_terminal))),
            env=tuple(
                (name, value) for name, _, value in (row.partition("=") for row in call.variables()) if name != "PATH"
            ),
            tool=("cc", self.compiler.identity),
            inputs=tuple(name for name, _ in known),
            outputs=(call.symbolic(self.reading.output),),
            depfile=call.symbolic(self.reading.depfile),
            salt=FORMAT,
            absent=(),
        )
        self.base = keys.base_key(keys.command_key(command), "".join([digest.hex for _, digest in known]))
        return True

    # --- from the store ---------------------------------------------------------------------------

    def restored(self) -> bool:
        """Is there a result for what the files are now? Then it is in place."""
        for data in self.store.results.candidates(self.base):
            candidate = CandidateSet.decode(data)
            full = None if candidate is None else self._full_key(candidate)
            if candidate is None or full is None:
                continue
            for key in self._places_of(full):
                result = self.store.results.lookup(key)
                answer = (
                    None if result is None else answer_of(self.call, self.reading, key, result, is_bound=key != full)
                )
                if answer is not None and restore(self.call, answer):
                    self._remember(candidate, answer)
                    return True
        return False

    def _places_of(self, full: ActionKey) -> list[ActionKey]:
        """The keys under which a result may lie: for every place of the root, and for this one alone."""
        return [full, self._bound(full)] if self.call.root else [full]

    def _bound(self, full: ActionKey) -> ActionKey:
        return keys.bound_key(full, {ROOT: self.call.root})

    def _full_key(self, candidate: CandidateSet) -> ActionKey | None:
        """The key for a set of discovered files as they are now; None if one is gone, or another would be found."""
        call = self.call
        if any(os.path.lexists(call.place(name)) for name in candidate.absent):
            return None
        found = []
        for name in candidate.discovered:
            digest = self.files.digest(name)
            if digest is None:
                return None
            found.append((name, digest))
        return keys.full_key(self.base, keys.set_key(found, candidate.absent))

    def _remember(self, candidate: CandidateSet, answer: Result) -> None:
        """For the next call of the same words."""
        names = dict.fromkeys((self.reading.source, *self.responses, *candidate.discovered, *self.compiler.files))
        rows = self.files.rows([*names])
        if rows is not None:
            places = self.files.empty_places(candidate.absent)
            Memo(self.call).add((rows, places, tuple(map(self.call.symbolic, self.compiler.absent)), answer))

    # --- compiling --------------------------------------------------------------------------------

    def compiled(self) -> int:
        """Compile, and store the result where that is sure; the exit code."""
        call, reading = self.call, self.reading
        reads = CompileReads(call, reading, self.expanded, self.compiler.directories)
        temp = _scratch(call)
        words = [*call.words]
        if call.on_terminal and not reading.colored:
            words.append("-fdiagnostics-color=always")
        own = not reading.depfile
        if own:
            words += ["-MD", "-MF", temp]
        try:
            done = run_child(words, call.environment)
            if done.code and temp.encode() in done.err:
                plain(call.words, call.environment)  # our own file is what it could not write
            why_not = self._ended(done, reads, temp if own else "") if done.code == 0 else "compile-failed"
        finally:
            _remove(temp)
        count(call.cache, "miss" if not why_not else f"unstored-{why_not}")
        write_all(1, done.out)
        write_all(2, done.err)
        return _exit_code(done)

    def _ended(self, done: ChildEnd, reads: CompileReads, own: str) -> str:
        """Store what a compiler made; why not, if so."""
        reading, call = self.reading, self.call
        rules = _bytes(own or reading.depfile)
        listing = rules
        if reading.hides_system:
            listing = self._listing()
        if rules is None or listing is None:
            return "no-depfile"
        candidate = reads.candidate(listing, self.files, self.responses)
        if isinstance(candidate, str):
            return candidate
        full = self._full_key(candidate)
        body = _bytes(reading.output)
        if full is None or body is None:
            return "input-changed"
        result = Called(done.out, done.err, body, rules if reading.depfile else b"", done.duration_s)
        try:
            is_bound = bool(call.root) and (result.names(call.root) or self._follows_from_root(reads))
            key = self._bound(full) if is_bound else full
            answer = record(self.store, call, reading, key, result, is_bound=key != full)
            self.store.results.add_candidate(self.base, candidate.encode())
            self._remember(candidate, answer)
            self.store.bound()
        except OSError:
            return "store-error"
        return ""

    def _follows_from_root(self, reads: CompileReads) -> bool:
        """May the object be another one at another root, though it does not name it?"""
        from pipeline.formats.file_macro import path_words
        from pipeline.formats.place_macros import mentions, place_macros

        said = place_macros(tuple(map(self.call.symbolic, self.expanded)), (ROOT,))
        return said.other or (bool(said.macros) and any(mentions(path_words(t), said.macros) for t in reads.texts))

    def _listing(self) -> bytes | None:
        """What `-MMD` leaves out as well."""
        temp = _scratch(self.call)
        first = self.call.words[: self.compiler.own_words]
        try:
            done = run_child([*first, *listing_words(self.expanded, temp)], self.call.environment)
            return _bytes(temp) if done.code == 0 else None
        finally:
            _remove(temp)


def _is_writable(call: Call) -> bool:
    """Can files of ours be made?"""
    try:
        Path(call.cache, "cc.v1").mkdir(parents=True, exist_ok=True)
        path = Path(_scratch(call))
        path.touch()
        path.unlink()
    except OSError:
        return False
    return True


def _text(name: str) -> str | None:
    try:
        return os.fsdecode(read_file(name, most=1 << 20))
    except OSError:
        return None


def _bytes(name: str) -> bytes | None:
    try:
        return read_file(name)
    except OSError:
        return None


def _scratch(call: Call) -> str:
    """The name of a file for a depfile of ours."""
    return f"{call.cache}/cc.v1/{os.getpid()}.{os.urandom(4).hex()}.d"


def _remove(path: str) -> None:
    try:
        os.unlink(path)  # noqa: PTH108
    except OSError:
        return


def _exit_code(done: ChildEnd) -> int:
    """As the compiler ended, by a signal too."""
    if done.code < 0 and os.name == "posix":
        signal.signal(-done.code, signal.SIG_DFL)
        os.kill(os.getpid(), -done.code)
    return done.code if done.code >= 0 else 128 - done.code
