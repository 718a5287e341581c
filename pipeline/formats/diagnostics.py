"""What compilers and linkers say, as the one form that every editor reads: `path:line:col: error: text`.

Knows the words of clang, gcc, lld and GNU ld and as. Does not know files: that a path exists is not checked.
Invariant: an error stays an error and keeps its words; a line that is not understood passes unchanged.

Linkers name objects, and sources only beside them; `sources` (object -> source) finds the rest. What has no place at
all, such as an option that the compiler does not know, is put at the file that decided it: the linker script for
memory that is full, `deploy.toml` for everything else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from cache.named_tuple import NamedTuple
from pipeline.model import DEVICE_STAGES, Failure, FailureCategory

CONFIG = "deploy.toml"

_PLACED = re.compile(
    r"^(?P<path>(?:[A-Za-z]:)?[^\s:][^:]*):(?P<line>\d+)(?::(?P<column>\d+))?: (?P<kind>(?:fatal )?error|Error): "
    r"(?P<text>.*)$"
)
_DRIVER = re.compile(r"^(?:[\w.+-]*(?:gcc|clang|cc1|as|zig|collect2)(?:\.exe)?: )?(?:fatal )?error: (?P<text>.*)$")
_LINKER = re.compile(r"^(?:\S*[/\\])?(?:[\w.]+-)*ld(?:\.lld|\.bfd|\.gold)?(?:\.exe)?: ?(?P<rest>.*)$")
# What a tool prints decides how long these take: each is linear, hence the possessive quantifiers.
_LLD_SITE = re.compile(r"^>>> (?:referenced by|defined at|defined in) ")
_LLD_PLACE = re.compile(r" \((?P<path>[^()]*):(?P<line>\d++)\)$")
_LLD_OBJECT = re.compile(
    r"^>>> (?: ++|(?:referenced by|defined in) )(?P<object>(?>[^\s:]*\.o))[^\s:]*+:\((?P<part>.*)\)$"
)
_GNU_FUNCTION = re.compile(r"^(?P<object>\S+?): in function [`'](?P<name>.*)':$")
# A possessive group loses characters in Python before 3.11.5 (gh-106052): so it is said what must not be there.
_GNU_SITE = re.compile(
    r"^(?:(?P<object>[^\s:]+\.o):|(?![^\s:]+\.o:))"
    r"(?P<path>[^\s:(]*+):?+(?:(?P<line>\d++)|(?:\S+:)?\((?P<part>[^()\s]*+)\)): "
    r"(?P<text>(?:undefined reference|multiple definition|relocation truncated|dangerous relocation|syntax error|"
    r"unrecognised|undefined symbol|nonconstant|redefinition|memory region).*)$"
)
_GNU_FIRST = re.compile(
    r"^(?P<text>multiple definition of .*?); (?:[^\s:]+\.o:|(?![^\s:]+\.o:))"
    r"(?P<path>[^\s:]*+):(?P<line>\d++): first defined here$"
)
_RUST = re.compile(r"^error(?:\[(?P<code>E\d{1,6})\])?: (?P<text>.*)$")
_RUST_PLACE = re.compile(r"^ {0,12}--> (?P<path>[^\s:][^:]*):(?P<line>\d{1,9}):(?P<column>\d{1,9})$")
_SCRIPT_PLACE = re.compile(r"^(?P<path>[^\s:]+):(?P<line>\d+): (?P<text>.*)$")
_MEMORY = re.compile(r"\b(?:region|section|will not fit|overflowed|overlaps)\b")
_FILE = re.compile(r"^[^\s:]+\.\w+$")
_LINE = re.compile(r"^[^\s:]+\.\w+:\d+$")


class Origin(NamedTuple):
    """What the lines are about: object file -> source, and the linker script (`""`: none)."""

    sources: Mapping[str, str]
    script: str = ""


LONGEST = 4096
"""Characters of a line that is looked at: a longer one is a dump and no message, and passes unchanged."""

_DIAGNOSTIC = re.compile(r"^(?![A-Z][A-Z0-9_]*=)(?:[A-Za-z]:)?[^\s:][^:]*:\d+:\d+: (?:error|warning|note): ")
"""No `NAME=value` line, which scripts read, has a place that editors could go to."""


def is_diagnostic(line: str) -> bool:
    """Is this a line that editors read, with a place, and one that nobody can take for a line of ours?"""
    return len(line) <= LONGEST and _DIAGNOSTIC.match(line) is not None


def is_error(line: str) -> bool:
    """Is this an error with a place?"""
    found = _PLACED.match(line[:LONGEST])
    return found is not None and found["column"] is not None and found["kind"] == "error"


def first_error(lines: Sequence[str]) -> tuple[str, str]:
    """`(path:line:col, text)` of the first error with a place; empty strings when there is none."""
    for line in lines:
        if is_error(line):
            where, _, text = line.partition(": error: ")
            return where, text
    return "", ""


def line_of(failure: Failure) -> str:
    """`Failure.line()`, with a place if it is about a file or about the build, so that editors list it."""
    where, message = failure.where, failure.message
    if _PLACED.match(f"{where}: error: x") and not _LINE.match(where):
        return failure.line()
    if _LINE.match(where):
        where = f"{where}:1"
    elif _FILE.match(where):
        where = f"{where}:1:1"
    elif failure.category in _OF_BUILD and failure.stage not in DEVICE_STAGES and where:
        where, message = f"{CONFIG}:1:1", f"{where}: {message}"
    else:
        return failure.line()
    return f"{where}: error: {message}"


_OF_BUILD = (
    FailureCategory.COMPILE_ERROR,
    FailureCategory.LINK_ERROR,
    FailureCategory.ACTION_FAILED,
    FailureCategory.TOOLCHAIN_MISSING,
    FailureCategory.IMAGE_TOO_LARGE,
)


def plain(lines: Sequence[str], origin: Origin) -> list[str]:
    """The lines with every error in the plain form."""
    return _Rewriter(origin).all(lines)


class _Rewriter:
    """One output of one tool. lld says the fact first and then the places, GNU ld the function first."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._object = ""
        self._function = ""
        self._errors = 0

    def all(self, lines: Sequence[str]) -> list[str]:
        out: list[str] = []
        index = 0
        while index < len(lines):
            linker = _LINKER.match(lines[index]) if len(lines[index]) <= LONGEST else None
            if linker is not None and linker["rest"].startswith("error: "):
                end = index + 1
                while end < len(lines) and lines[end].startswith(">>>") and len(lines[end]) <= LONGEST:
                    end += 1
                out += self._lld(linker["rest"].removeprefix("error: "), lines[index + 1 : end])
                index = end
                continue
            rust = _rust_error(lines, index)
            if rust is not None:
                out.append(self._error(*rust))
                index += 2
                continue
            out += self._one(lines[index], linker["rest"] if linker is not None else None)
            index += 1
        # a symbol that is used twice in a line is reported twice
        return [line for n, line in enumerate(out) if n == 0 or line != out[n - 1] or not is_error(line)]

    def _one(self, line: str, linker: str | None) -> list[str]:
        """A line that stands for itself; `linker`: what follows the name of a GNU linker, None for others."""
        if len(line) > LONGEST:
            return [line]
        placed = _PLACED.match(line)
        if placed is not None:
            return [self._error(placed["path"], placed["line"], placed["text"], placed["column"])]
        text = line if linker is None else linker
        function = _GNU_FUNCTION.match(text)
        if function is not None:
            self._object, self._function = function["object"], function["name"]
            return []
        site = _GNU_SITE.match(text)
        if site is not None:
            return self._gnu(site)
        if linker is not None and not linker.startswith("warning: "):
            return [self._unplaced(linker)]
        driver = _DRIVER.match(line)
        if driver is None:
            return [line]
        if line.startswith("collect2: ") and self._errors:
            return []  # only repeats that the linker failed
        return [self._unplaced(driver["text"])]

    def _gnu(self, site: re.Match[str]) -> list[str]:
        text, path, line = site["text"], site["path"], site["line"]
        first = _GNU_FIRST.match(text)
        if first is not None:
            text = first["text"]
        if line is None:
            known = self._source(site["object"] or self._object)
            path, line = known or path, "1"
        if self._function and text.startswith("undefined reference") and not site["object"]:
            text = f"{text} in {self._function}"
        if not path or path.endswith(".o"):
            return [self._unplaced(text)]
        out = [self._error(path, line, text)]
        if first is not None:
            out.append(f"{_short(first['path'])}:{first['line']}:1: note: first defined here")
        return out

    def _lld(self, text: str, details: Sequence[str]) -> list[str]:
        """An error and the `>>>` lines that belong to it: one error per place that they name."""
        sites: list[tuple[str, str, str]] = []
        rest = []
        for detail in details:
            held = _LLD_OBJECT.match(detail)
            site = _LLD_SITE.match(detail)
            if held is not None:
                source = self._source(held["object"])
                if sites and detail.startswith(">>>  "):
                    path, line, _ = sites.pop()
                    sites.append((path or source, line, held["part"]))
                else:
                    sites.append((source, "1", held["part"]))
            elif site is not None:
                place = _LLD_PLACE.search(detail)
                sites.append((place["path"], place["line"], "") if place else ("", "1", ""))
            else:
                rest.append(detail)
        placed = _SCRIPT_PLACE.match(text)
        if placed is not None:
            return [self._error(placed["path"], placed["line"], placed["text"]), *details]
        out = []
        for path, line, part in sites:
            of = f", referenced in {part}" if part and text.startswith("undefined symbol") else ""
            out.append(self._error(path, line, text + of) if path else self._unplaced(text + of))
        return [*(out or [self._unplaced(text)]), *rest]

    def _source(self, name: str) -> str:
        return self._origin.sources.get(name.removeprefix("./"), "")

    def _error(self, path: str, line: str, text: str, column: str | None = None) -> str:
        self._errors += 1
        return f"{_short(path)}:{max(1, int(line))}:{column or 1}: error: {text}"

    def _unplaced(self, text: str) -> str:
        script = self._origin.script if _MEMORY.search(text) else ""
        return self._error(script or CONFIG, "1", text)


def _rust_error(lines: Sequence[str], index: int) -> tuple[str, str, str, str] | None:
    """(path, line, text, column) of an error of rustc, which says the fact first and the place in the next line."""
    if index + 1 == len(lines) or max(len(lines[index]), len(lines[index + 1])) > LONGEST:
        return None
    fact = _RUST.match(lines[index])
    place = _RUST_PLACE.match(lines[index + 1]) if fact is not None else None
    if fact is None or place is None:
        return None
    code = f" [{fact['code']}]" if fact["code"] else ""
    return place["path"], place["line"], fact["text"] + code, place["column"]


def _short(path: str) -> str:
    return path.removeprefix("./")
