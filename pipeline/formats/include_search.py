"""Where a compile command looks for the files that its sources include, and which missing ones would be found first.

Pure: texts come in, names come out; whoever can look at files decides which of them exist. Does not evaluate
conditions: a directive counts when what it names was read. Invariant: a place where a new file would be read instead of
one that was read is among `Shadows.places`; where the way to a file cannot be told, every directory of the command
counts. One place too many costs a needless compile when a file appears there.

Sources: GCC's manual, "Directory Options" and "Search Path"; Clang's command guide. Both search, for `#include "x"`,
the directory of the file that includes, then -iquote, -I, -isystem, their own directories, -idirafter; for
`#include <x>` without the first two; for -include and -imacros the working directory in the place of the first.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from cache.named_tuple import NamedTuple
from pipeline.formats.command_words import expand, parts

_GROUPS: Mapping[str, str] = {
    "-iquote": "quote",
    "-I": "bracket",
    "--include-directory": "bracket",
    "-isystem": "system",
    "-cxx-isystem": "system",
    "-c-isystem": "system",
    "-internal-isystem": "system",
    "-internal-externc-isystem": "system",
    "-isystem-after": "after",
    "-idirafter": "after",
    "--include-directory-after": "after",
    "-iwithprefix": "prefixed after",
    "--include-with-prefix": "prefixed after",
    "--include-with-prefix-after": "prefixed after",
    "-iwithprefixbefore": "prefixed bracket",
    "--include-with-prefix-before": "prefixed bracket",
    "-iwithsysroot": "in sysroot",
    "-iprefix": "prefix",
    "--include-prefix": "prefix",
    "-isysroot": "sysroot",
    "--sysroot": "sysroot",
    "-include": "forced",
    "-imacros": "forced",
    "--include": "forced",
    "--imacros": "forced",
    "-B": "tools",
}
"""What each option that takes a path does with it. Every one takes it as the next word, after `=`, or joined."""

_BY_START: Mapping[str, tuple[str, ...]] = {
    start: tuple(sorted((name for name in _GROUPS if name.startswith(start)), key=len, reverse=True))
    for start in {name[:2] for name in _GROUPS}
}
"""Their names by the first two characters, a longer one before its beginnings."""
_PASSED_ON = ("-Xclang", "-Xpreprocessor")
_QUICK = frozenset(("-D", "-U", "-O", "-g", "-o", "-M", "-l", "-L"))
_SEPARATE: Mapping[str, frozenset[str]] = {
    "-D": frozenset(("-D",)),
    "-U": frozenset(("-U",)),
    "-o": frozenset(("-o",)),
    "-M": frozenset(("-MF", "-MT", "-MQ")),
    "-L": frozenset(("-L",)),
    "-l": frozenset(("-l",)),
}
"""Of the options that concern no search, those whose value is the next word."""
_NO_SEARCH = re.compile(r"-(?:std=|march=|mabi=|mcpu=|mtune=|target|c$|f[\w-]*prefix-map=|fdebug-compilation-dir)")
"""Options whose text is no directory of a search."""
_VARIABLES = ("CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "OBJC_INCLUDE_PATH")


class IncludeSearch(NamedTuple):
    """The directories in the order of search, by their kind. `loose`: those whose place in that order cannot be told;
    `others`: words that may be directories and belong to options that are not known; `forced`: what -include and
    -imacros name, looked for in `here` first, where the command runs; `placed`: those of them that say where they
    lie."""

    quote: tuple[str, ...] = ()
    bracket: tuple[str, ...] = ()
    system: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    loose: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    forced: tuple[str, ...] = ()
    here: str = ""
    placed: tuple[str, ...] = ()

    @property
    def angled(self) -> tuple[str, ...]:
        """Where `<x>` is looked for."""
        return (*self.bracket, *self.system, *self.after)

    @property
    def every(self) -> tuple[str, ...]:
        """All directories, each once."""
        return tuple(dict.fromkeys((*self.quote, *self.angled, *self.loose)))


class _Reading:
    """One walk over a command's words."""

    def __init__(self) -> None:
        self.groups: dict[str, list[str]] = {
            name: [] for name in ("quote", "bracket", "system", "after", "loose", "others", "forced")
        }
        self.prefix, self.sysroot = "", ""

    def walk(self, words: Iterable[str], loose: bool = False) -> None:
        passed: list[str] = []
        assembler: list[str] = []
        rest = iter(words)
        unknown = False
        for word in rest:
            start = word[:2]
            if start in _QUICK or word[:1] != "-":
                # What follows an option that is not known may be its directory.
                if unknown and start[:1] != "-":
                    self.groups["others"].append(word)
                unknown = False
                if start in _SEPARATE and word in _SEPARATE[start]:
                    next(rest, "")
            elif word in _PASSED_ON:
                passed.append(next(rest, ""))
            elif word.startswith("-Wp,"):
                passed += word[4:].split(",")
            elif word == "-Xassembler":
                assembler.append(next(rest, ""))
            elif word.startswith("-Wa,"):
                assembler += word[4:].split(",")
            elif word in ("-I-", "--include-barrier"):
                self.groups["quote"] += self.groups["bracket"]
                self.groups["bracket"] = []
            elif (
                option := next((name for name in _BY_START.get(start, ()) if word.startswith(name)), None)
            ) is not None:
                value = word[len(option) :] or next(rest, "")
                if option.startswith("--") and word != option:
                    value = value.removeprefix("=")
                self._take(_GROUPS[option], value, loose)
            elif start != "-W" and not _NO_SEARCH.match(word):
                if "=" in word or "/" in word:
                    self.groups["others"] += [*parts(word), word[2:]]
                unknown = True
        if passed:
            self.walk(passed, loose=True)
        following = iter(assembler)
        for word in following:
            if word.startswith("-I"):
                # Only the assembler looks there; a header that comes to lie there costs a compile at worst.
                self.groups["loose"] += filter(None, [word[2:] or next(following, "")])

    def _take(self, group: str, value: str, loose: bool) -> None:
        if group == "prefix":
            self.prefix = value
        elif group == "sysroot":
            self.sysroot = value
            self._add("system", f"{value}/usr/include", loose)
            self._add("system", f"{value}/include", loose)
        elif group == "tools":
            self._add("system", f"{value}/include", loose)
        elif group == "forced":
            self.groups["forced"].append(value)
        elif group.startswith("prefixed "):
            self._add(group.removeprefix("prefixed "), self.prefix + value, loose)
        elif group == "in sysroot":
            self._add("system", f"={value}", loose)
        else:
            self._add(group, value, loose)

    def _add(self, group: str, directory: str, loose: bool) -> None:
        self.groups[group].append(directory)
        if loose:
            self.groups["loose"].append(directory)

    def directories(self, group: str) -> list[str]:
        """Those of one kind, each once; the system's root, which any later word may give, in front of `=`."""
        found = []
        for directory in self.groups[group]:
            mark = next((mark for mark in ("=", "$SYSROOT") if directory.startswith(mark)), "")
            found.append(plain(self.sysroot + directory.removeprefix(mark) if mark else directory))
        return list(dict.fromkeys(found))


def of_command(
    argv: Sequence[str], env: Iterable[tuple[str, str]] = (), read: Callable[[str], str | None] = lambda path: None
) -> IncludeSearch:
    """The search of a compile command. `read` gives the text of a response file."""
    reading = _Reading()
    reading.walk(expand(argv, read))
    for name, value in env:
        if name in _VARIABLES:
            group = "bracket" if name == "CPATH" else "system"
            reading.groups[group] += value.split(":")
    quote, bracket, system, after, loose = map(reading.directories, ("quote", "bracket", "system", "after", "loose"))
    others, forced = (tuple(dict.fromkeys(reading.groups[name])) for name in ("others", "forced"))
    # A directory that is given as a system one too is searched as that.
    bracket = [directory for directory in bracket if directory not in system]
    return IncludeSearch(tuple(quote), tuple(bracket), tuple(system), tuple(after), tuple(loose), others, forced)


def plain(path: str) -> str:
    """`path` without `.` and doubled slashes; `.` for the working directory itself. `..` stays: behind a symbolic link
    only the file system knows what it means."""
    if "//" in path or "/." in path or path.startswith("."):
        kept = [part for part in path.split("/") if part not in ("", ".")]
        path = ("/" if path.startswith("/") else "") + "/".join(kept)
    return path.rstrip("/") or ("/" if path.startswith("/") else ".")


def join(directory: str, name: str) -> str:
    """The path of `name` in a directory."""
    return plain(posixpath.join(directory, name) if directory not in ("", ".") else name)


# --- what a text includes ---------------------------------------------------------------------

_CONTINUED = re.compile(r"\\[ \t]*\r?\n")
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_DIRECTIVE = re.compile(
    r"^[ \t\f\v]*(?:#|%:|\?\?=)[ \t]*(include_next|include|import|embed)\b[ \t]*"
    r"(?:\"([^\"\n]+)\"|<([^>\n]+)>|([^\s\"<][^\n]*))",
    re.MULTILINE,
)
_DEFINED = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(\w+)[ \t]+(?:\"([^\"\n]+)\"|<([^>\n]+)>)[ \t]*\r?$", re.MULTILINE)


class Directive(NamedTuple):
    """One `#include`: the name, and how it is looked for."""

    name: str
    quoted: bool
    is_next: bool


class Directives(NamedTuple):
    """What a text includes. `computed`: also something that the text alone does not tell."""

    named: tuple[Directive, ...]
    computed: bool


UNREADABLE = Directives((), True)
"""What a text includes that could not be read."""


def said_lines(text: str) -> str:
    """The lines of which what `directives` gives follows, where it is not computed; `""` where those alone do not tell.
    A tenth of its price, so that sources which include the same need be read closely once."""
    if "\\" in text or "/*" in text:
        return ""
    if "import" in text or "embed" in text:
        lines = text.split("\n")
        return "\n".join([line for line in lines if "include" in line or "import" in line or "embed" in line])
    end = text.find("\n", text.rfind("include"))  # most files include first, and then say much
    return "\n".join([line for line in text[: end if end >= 0 else None].split("\n") if "include" in line])


def directives(text: str) -> Directives:
    """The directives of a text, whether their conditions hold or not, also those that stand in what only looks like a
    comment."""
    if "\\" in text:
        text = _CONTINUED.sub("", text)
    found: dict[Directive, None] = {}
    computed = False
    for variant in (text, _COMMENT.sub(" ", text)) if "/*" in text else (text,):
        for word, quoted, angled, other in _DIRECTIVE.findall(variant):
            is_next = word == "include_next"
            if quoted or angled:
                found[Directive(quoted or angled, bool(quoted), is_next)] = None
            elif not other.startswith(("/*", "//")):
                computed = True
    if computed:
        # The macro is often defined in the same file; that it may be defined elsewhere too is why it stays computed.
        for _, quoted, angled in _DEFINED.findall(text):
            found[Directive(quoted or angled, bool(quoted), False)] = None
    return Directives(tuple(found), computed)


# --- what would be found first ----------------------------------------------------------------


class Shadows(NamedTuple):
    """`places`: where a new file would be read; `explained`: the files that were read and that a directive leads to."""

    places: frozenset[str]
    explained: frozenset[str]


def chains(search: IncludeSearch, path: str, found: Directives) -> Iterator[tuple[Directive, tuple[str, ...]]]:
    """For each directive of the file `path` the places where it is looked for, in order; some in two ways."""
    beside = posixpath.dirname(path)
    for directive in found.named:
        if not directive.name.startswith("/"):
            quoted = search.quote if directive.quoted and not directive.is_next else ()
            where = [join(directory, directive.name) for directory in (*quoted, *search.angled)]
            first = join(beside, directive.name)
            is_beside = directive.quoted and not directive.is_next
            # One that lies beside its includer and on the path as well is looked for in both ways: -I- leaves out the
            # includer's own directory.
            if not is_beside or first in where:
                yield directive, tuple(dict.fromkeys(where))
            if is_beside:
                yield directive, tuple(dict.fromkeys((first, *where)))


PRECOMPILED = (".gch", ".pch")
"""How the names of precompiled headers end."""


def forced_places(search: IncludeSearch, was_read: Callable[[str], str]) -> Shadows:
    """The same for what -include and -imacros name, and for its precompiled form, which is looked for beside it."""
    places: set[str] = set()
    explained: set[str] = set()
    for name in (*search.placed, *search.forced):
        chain = [join(directory, name) for directory in (search.here, *search.quote, *search.angled)]
        chain = [name] if name in search.placed or name[:1] == "/" else list(dict.fromkeys(chain))
        read = next((n for n, place in enumerate(chain) if was_read(place)), len(chain) - 1)
        explained.update(filter(None, [was_read(chain[read])]))
        places.update(chain[:read])
        places.update(join(directory, name) for directory in search.loose if len(chain) > 1)
        places.update(f"{place}{ending}" for place in chain[: read + 1] for ending in PRECOMPILED)
    return Shadows(frozenset(places), frozenset(explained))


def ways(header: str, search: IncludeSearch) -> list[tuple[str, Sequence[str]]]:
    """(name in the directive, directories searched before it was found) for each way to find `header`."""
    order = (*search.quote, *search.angled)
    ways: list[tuple[str, Sequence[str]]] = []
    for position, directory in enumerate((*order, *search.loose)):
        earlier = (*order[:position], *search.loose)
        if directory == "." and not header.startswith(("/", "{")):
            ways.append((header, earlier))
        elif header.startswith(directory + "/"):
            ways.append((header[len(directory) + 1 :], earlier))
    if header.startswith(("/", "{")) and not ways:
        # The compiler's own: searched below its last directory called "include", and only -idirafter comes later.
        name = header.rpartition("/include/")[2].lstrip("/")
        ways.append((name, (*search.quote, *search.bracket, *search.system, *search.loose)))
    return ways
