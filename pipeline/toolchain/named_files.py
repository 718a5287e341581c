"""Which files do the words of a command name? Flags of compilers and linkers, and the words of users' actions.

Looks whether files are there, reads response files, spec files and linker scripts, and hashes what lies outside the
project. Does not know what an option means beyond what it may name. Invariant: a word, or part of one, that names a
file is among `Named.files` (of the project, or made by an action) or in `Named.salt` (outside it); one that names
nothing yet is watched for through the `Listing`. Where words name a directory that is no search path, every file below
it counts.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from cache.named_tuple import NamedTuple
from pipeline.fastpath.watched import Watched
from pipeline.formats import include_search, linker_script
from pipeline.formats.command_words import expand, parts, split
from pipeline.toolchain.distribution import program_digest
from pipeline.toolchain.globs import Listing, is_pattern

LARGEST_TEXT = 1 << 20
"""Bytes; no response file, spec file or linker script by hand is larger."""
_PLACEHOLDER = re.compile(r"\{(?:in|out|depfile|profile|root)\}")
_SPECS = re.compile(r"--?specs(?:=|$)")
_INCLUDED = re.compile(r"^%include(?:_noerr)?\s*<([^>\n]+)>", re.MULTILINE)
_SCRIPTS = re.compile(r"(?:-Wl,|-Xlinker)?.*(?:-T|-dT|script|dynamic-list|symbols|symbol-ordering|-R)")
"""Options whose files linkers also look for below the directories of `-L`."""
_BINARY = (".a", ".o", ".so", ".elf", ".bin")
_NO_FILES = re.compile(
    r"-f[\w-]*prefix-map=|-fdebug-compilation-dir|-[DU]|--?sysroot|-isysroot|-iprefix|--include-prefix"
)


class Named(NamedTuple):
    """`words`: with those of response files in their place. `salt`: a line for each file outside the project."""

    words: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    salt: str = ""


class NamedFiles:
    """One for all commands of a project, so that each file outside it is hashed once."""

    def __init__(self, listing: Listing, state_dir: Path, spec_dirs: Sequence[str] = ()) -> None:
        """`listing.products`: what actions make; `spec_dirs`: where a compiler looks for its own spec files."""
        self.listing, self._state_dir, self.spec_dirs = listing, state_dir, spec_dirs
        self.root, self._real_root = listing.root, os.path.realpath(listing.root)
        self.decided: dict[str, None] = {}
        """Absolute paths of what was read or hashed here."""

    @property
    def watched(self) -> Watched:
        """Files whose content decided what the commands are, beside what the listing watches."""
        return Watched({}, (), tuple(self.decided))

    def of_flags(self, flags: Iterable[str], script: str = "") -> Named:
        """What the flags of a compiler or linker name, and files that these read in turn. `script`: the linker script
        that is used beside those of the flags."""
        return _Call(self, "").flags(expand(flags, self.text), script)

    def of_words(self, words: Sequence[str], own: Collection[str]) -> Named:
        """What the words of a user's action name. `own`: what it writes itself, which is no input of it."""
        call = _Call(self, *own)
        python = bool(words) and re.fullmatch(r"(?:.*/)?python[\d.]*", words[0]) is not None
        for n, word in enumerate(words):
            if n == 0 and "/" not in word:
                continue  # a program of PATH
            text = _PLACEHOLDER.sub(" ", word)
            call.word(text, below=n > 0)
            if python and words[n - 1] == "-m":
                path = text.replace(".", "/")
                for place in (f"{path}.py", f"{path}/__init__.py", f"{path}/__main__.py"):
                    call.part(place)
        return call.named(words)

    def name(self, path: str) -> str:
        """`path` relative to the project if it lies there, as it stands otherwise. Without `..` where that names the
        same file."""
        if path.startswith("/"):
            for root in (self.root, self._real_root):
                if path.startswith(f"{root}/"):
                    return self.name(path[len(root) + 1 :])
            return path
        path = include_search.plain(path)
        if ".." not in path.split("/"):
            return path
        short, place = posixpath.normpath(path), f"{self.root}/{path}"
        if not os.path.lexists(place) or os.path.realpath(f"{self.root}/{short}") == os.path.realpath(place):
            return short
        real = os.path.realpath(place)
        return real[len(self._real_root) + 1 :] if real.startswith(f"{self._real_root}/") else short

    def place(self, name: str) -> str:
        """Where that can be opened."""
        return name if name.startswith("/") else posixpath.normpath(f"{self.root}/{name}")

    def text(self, path: str) -> str | None:
        """What a response or spec file says; None when it is neither."""
        found = self.script_text(path)
        if found is not None:
            self.decided[self.place(self.name(path))] = None
        return found

    def script_text(self, path: str) -> str | None:
        """What a linker script says, which is an input of links alone: whoever looks at those reads it again."""
        place = self.place(self.name(path))
        if not self.listing.is_file(place):
            return None
        try:
            with Path(place).open("rb") as stream:
                data = stream.read(LARGEST_TEXT + 1)
        except OSError:
            return None
        if len(data) > LARGEST_TEXT or b"\0" in data:
            return None
        return data.decode("utf-8", "surrogateescape")

    def digest(self, place: str) -> str:
        """SHA-256 of a file outside the project, `""` when it cannot be read."""
        self.decided[place] = None
        try:
            return program_digest(Path(place), self._state_dir)
        except OSError:
            return ""


class _Call:
    """What the words of one command name."""

    def __init__(self, files: NamedFiles, *own: str) -> None:
        self._all, self._own = files, frozenset(own)
        self._files: dict[str, None] = {}
        self._outside: dict[str, str] = {}
        self._opened: set[str] = set()

    def named(self, words: Sequence[str]) -> Named:
        lines = [f"{name} sha256:{digest}" for name, digest in sorted(self._outside.items())]
        return Named(tuple(words), tuple(self._files), "\n".join(lines))

    def flags(self, words: Sequence[str], script: str) -> Named:
        search = linker_script.library_path(words)
        quiet = {self._all.name(directory) for directory in (*search, *include_search.of_command(words).every)}
        for n, word in enumerate(words):
            self.word(word, below=not _NO_FILES.match(word), quiet=quiet)
            if search and (_SCRIPTS.match(word) or (n and _SCRIPTS.fullmatch(words[n - 1]))):
                for part in parts(word):
                    self._first([part, *(f"{directory}/{part}" for directory in search)])
            if (option := _SPECS.match(word)) is not None:
                self._specs(word[option.end() :] or (words[n + 1] if n + 1 < len(words) else ""))
        said = linker_script.libraries(words)
        for name in said.names:
            for library in linker_script.library_names(name):
                self._first(f"{directory}/{library}" for directory in said.search)
        for name in (*([script] if script else []), *self._files):
            self._script(name, search)
        self._files.pop(script, None)
        return self.named(words)

    def word(self, text: str, below: bool, quiet: Collection[str] = ()) -> None:
        """All that a word names; `below`: where it is a directory, what lies below, unless that is one of `quiet`."""
        for part in parts(text):
            if not self.part(part) and below and self._all.name(part) not in quiet:
                self._below(self._all.name(part))
        for response in re.findall(r"@([^\s'\",;]+)", text):
            self._words_of(response)

    def part(self, part: str) -> bool:
        """Is it a file?"""
        name = self._all.name(part)
        if name in self._own:
            return True
        if name not in self._all.listing.products:
            outside = name.startswith(("/", "../"))
            if not self._all.listing.is_file(self._all.place(name) if outside else name):
                return False
            if outside:
                self._outside[name] = self._all.digest(self._all.place(name))
                return True
        self._files[name] = None
        return True

    def _below(self, name: str) -> None:
        if name.startswith(("/", "..")) or name == "." or any(own.startswith(f"{name}/") for own in self._own):
            return
        self._files.update({p: None for p in sorted(self._all.listing.products) if p.startswith(f"{name}/")})
        if os.path.isdir(f"{self._all.root}/{name}"):  # noqa: PTH112
            self._files.update(dict.fromkeys(self._all.listing.files_below(name)))

    def _first(self, places: Iterable[str]) -> None:
        """The first of these that is a file."""
        next(filter(self.part, places), None)

    def _words_of(self, path: str) -> None:
        """What the words of a response or spec file name, and those of the files that they read."""
        if path in self._opened or (text := self._all.text(path)) is None:
            return
        self._opened.add(path)
        for word in split(text):
            self.word(word, below=False)

    def _specs(self, name: str) -> None:
        """A spec file, of the project or the compiler's own, and what it includes."""
        places = [name, *(f"{directory}/{name}" for directory in self._all.spec_dirs)]
        path = next(filter(self.part, places), None)
        if path is None or path in self._opened:
            return
        self._words_of(path)
        for included in _INCLUDED.findall(self._all.text(path) or ""):
            self._specs(included)

    def _script(self, path: str, search: Sequence[str]) -> None:
        """What a linker script reads, through the scripts that it includes; nothing for what is no text."""
        if path in self._opened or path.endswith(_BINARY) or (text := self._all.script_text(path)) is None:
            return
        self._opened.add(path)
        search = (*search, *linker_script.script_search(text))
        for name in linker_script.named_files(text):
            if not is_pattern(name):
                for place in linker_script.places(name, search, path):
                    if self.part(place):
                        self._script(self._all.name(place), search)
