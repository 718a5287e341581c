"""What a compile read, and what it would have read had it been there: from its depfile, its words and the texts.

Reads files. Does not know keys or the store. Invariant: the set names every file that the compile read beside its
declared inputs and every place where a new file would have been read instead, as far as compilers and texts tell; where
they do not tell, there is no set.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable, Sequence

from cache.digest import Digest, digest_bytes
from cache.durable import read_file
from cache.fileclock import FileClock, Moment
from pipeline.engine.candidates import CandidateSet
from pipeline.engine.include_shadows import IncludeShadows
from pipeline.engine.searches import CommandSearches
from pipeline.formats import c_source, depfile, include_search
from pipeline.formats.compile_command import CompileReading
from pipeline.launcher.call import Call
from pipeline.launcher.memo import digest_of, stamp_of
from pipeline.model import Action, Stage

_CLOCKS = re.compile(rb"__DATE__|__TIME__|__TIMESTAMP__|#[ \t]*pragma[ \t]+GCC[ \t]+dependency")
_LASTING = (b"__DATE__", b"__TIME__")
"""Which SOURCE_DATE_EPOCH settles."""
_ASKED = re.compile(rb"__has_include|__has_embed|\.incbin|\.include\b")
_PRECOMPILED = (".gch", ".pch", ".pcm")


class InputFiles:
    """The files of one call by the names of keys, each read once."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._known: dict[str, tuple[Digest, tuple[int, ...]] | None] = {}

    def digest(self, name: str) -> Digest | None:
        """Of what it holds; None for what is no regular file, or moves."""
        if name not in self._known:
            place = self._call.place(name)
            hexed, stamp = digest_of(place)
            try:
                size = stamp[0] if stamp else os.stat(place).st_size  # noqa: PTH116
            except OSError:
                hexed = ""
            self._known[name] = (Digest(hexed, size), stamp) if hexed else None
        found = self._known[name]
        return None if found is None else found[0]

    def forget(self) -> None:
        """Something ran: look again."""
        self._known.clear()

    def rows(self, names: Sequence[str]) -> tuple[tuple[str, str, tuple[int, ...]], ...] | None:
        """For a memo; None if one is gone."""
        rows = []
        for name in names:
            symbolic = self._call.symbolic(name)
            if self.digest(symbolic) is None or (found := self._known[symbolic]) is None:
                return None
            rows.append((symbolic, found[0].hex, found[1]))
        return tuple(rows)

    def empty_places(self, absent: Iterable[str]) -> tuple[tuple[str, tuple[int, ...], tuple[str, ...]], ...]:
        """For a memo: the directories in which these would appear, or something on the way to them."""
        names: dict[str, dict[str, None]] = {}
        known: dict[str, bool] = {}
        for path in absent:
            directory, name = posixpath.split(path)
            while directory and not self._is_directory(directory, known):
                directory, name = posixpath.split(directory)
                if directory == "/":
                    break
            names.setdefault(directory or ".", {})[name] = None
        rows = []
        for directory, missing in names.items():
            try:
                stamp = stamp_of(os.stat(self._call.place(directory)))  # noqa: PTH116
            except OSError:
                stamp = ()
            rows.append((directory, stamp, tuple(missing)))
        return tuple(rows)

    def _is_directory(self, name: str, known: dict[str, bool]) -> bool:
        if name not in known:
            known[name] = os.path.isdir(self._call.place(name))  # noqa: PTH112
        return known[name]


class CompileReads:
    """Of one compile, which is about to be started."""

    def __init__(
        self, call: Call, reading: CompileReading, words: Sequence[str], own_directories: Sequence[str]
    ) -> None:
        """`own_directories`: where the compiler looks by itself."""
        self._call, self._reading = call, reading
        own = [word for directory in own_directories for word in ("-isystem", directory)]
        source = self._name(reading.source)
        env = tuple((name, value) for name, _, value in (row.partition("=") for row in call.variables()))
        self._words = words
        argv = ("cc", *words, *own)
        self._action = Action("cc", Stage.COMPILE, (source,), (reading.output,), argv=argv, env=env)
        self.texts: tuple[bytes, ...] = ()
        """What the files held from which `candidate` made a set."""
        self._clock = FileClock().met(call.cwd)
        self._began: Moment = self._clock.moment()

    def candidate(self, rules: bytes, files: InputFiles, declared: Sequence[str]) -> CandidateSet | str:
        """The set, or why there is none. `rules`: a depfile with system headers; `declared`: response files."""
        call, source = self._call, self._reading.source
        paths = depfile.parse(os.fsdecode(rules))
        if paths is None:
            return "no-depfile"
        order = [self._name(path) for path in paths]
        headers = [name for name in dict.fromkeys(order) if name != self._name(source)]
        files.forget()
        texts = {}
        for name in (source, *declared, *headers):
            data = self._steady(name)
            if data is None:
                return "input-changed"
            texts[name] = data
        self.texts = tuple(texts.values())
        why_not = self._doubt(self.texts)
        if why_not:
            return why_not
        for name in headers:
            if files.digest(call.symbolic(name)) != digest_bytes(texts[name]):
                return "input-changed"
        searches = CommandSearches()
        shadows = IncludeShadows(searches, self._place, self._name, self._plain)
        absent = {*shadows.places(self._action, tuple(sorted(headers)))}
        absent.update(self._precompiled(texts[source], shadows, {*headers}))
        if any(
            name.endswith(_PRECOMPILED) and (name in headers or os.path.lexists(name)) for name in (*absent, *headers)
        ):
            return "precompiled-header"
        present = self._asked(texts, shadows, absent)
        if present is None or not self._were_there(absent, {*headers, *present, source}):
            return "input-changed"
        gone = sorted(call.symbolic(name) for name in absent if not os.path.lexists(name))
        read = sorted({*map(call.symbolic, headers), *map(call.symbolic, present)})
        return CandidateSet(tuple(read), tuple(gone))

    def _name(self, path: str) -> str:
        return depfile.normalise(path, self._call.cwd, {})

    def _place(self, path: str) -> str:
        return f"{self._call.cwd}/{path}" if not path.startswith("/") else path

    def _plain(self, name: str) -> str:
        if "/../" not in name:
            return name
        short = posixpath.normpath(name)
        try:
            return short if os.path.samefile(self._place(name), self._place(short)) else name  # noqa: PTH121
        except OSError:
            return name

    def _steady(self, name: str) -> bytes | None:
        """What a file holds that was not changed since the compile was started."""
        try:
            before = os.stat(name)  # noqa: PTH116
            data = read_file(name)
            after = os.stat(name)  # noqa: PTH116
        except OSError:
            return None
        same = (before.st_ctime_ns, before.st_ino) == (after.st_ctime_ns, after.st_ino) and len(data) == after.st_size
        return data if same and self._clock.is_before(before, name, self._began) else None

    def _doubt(self, texts: Iterable[bytes]) -> str:
        """Does a text, or the command, hold what no depfile tells?"""
        settled = bool(self._call.environment.get("SOURCE_DATE_EPOCH"))
        for data in (*texts, "\n".join(self._words).encode("utf-8", "surrogateescape")):
            if any(not (settled and word in _LASTING) for word in _CLOCKS.findall(data)):
                return "reads-the-clock"
            if _ASKED.search(data) and c_source.hidden(os.fsdecode(data)).assembled:
                return "assembler-reads"
        return ""

    def _precompiled(self, source: bytes, shadows: IncludeShadows, read: set[str]) -> set[str]:
        """Where GCC looks for precompiled forms of what the source itself includes. A depfile names neither such a
        form that was read nor the header that it stands for."""
        found: set[str] = set()
        search = shadows.search_of(self._action)
        directives = include_search.directives(os.fsdecode(source))
        for _, chain in include_search.chains(search, self._action.inputs[0], directives):
            last = next((n for n, place in enumerate(chain) if place in read), len(chain) - 1)
            found.update(f"{place}.gch" for place in chain[: last + 1])
        return found

    def _asked(self, texts: dict[str, bytes], shadows: IncludeShadows, absent: set[str]) -> set[str] | None:
        """Files whose presence alone was asked for; those that are not there are added to `absent`. None where what is
        asked cannot be told."""
        present: set[str] = set()
        search = shadows.search_of(self._action).every
        for name, data in texts.items():
            if not _ASKED.search(data):
                continue
            text = os.fsdecode(data)
            for wanted in c_source.hidden(text).asked:
                beside = (posixpath.dirname(self._name(name)),)
                for place in c_source.places(wanted, beside, search):
                    if os.path.isfile(place):  # noqa: PTH113
                        if self._steady(place) is None:
                            return None
                        present.add(self._name(place))
                    else:
                        absent.add(place)
        return present

    def _were_there(self, places: Iterable[str], known: set[str]) -> bool:
        """Were all that are there now, and were not read, there before the compile? Then it did not look there."""
        for place in places:
            if place in known or not os.path.lexists(place):
                continue
            try:
                if not self._clock.is_before(os.lstat(place), place, self._began):
                    return False
            except OSError:
                return False
        return True
