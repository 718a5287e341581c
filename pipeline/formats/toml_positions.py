"""Where in a TOML text does each key and each value stand?

`tomllib` says what a document means but not where, and an error is only useful with its place. This is a locator,
not a parser: it scans a text that `tomllib` has already accepted, and only when there is an error to report (a good
configuration never pays for it). Does not know what the keys mean. Invariant: it never raises; a path that was not
found has the position of its nearest found ancestor, in the end line 1 column 1.

Grammar: TOML 1.0 (https://toml.io/en/v1.0.0). Lines and columns count from 1, columns in characters.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping

from cache.named_tuple import NamedTuple

KeyPath = tuple[str | int, ...]
"""Keys from the root; an `int` is the index of an element of an array."""

Position = tuple[int, int]
"""(line, column), both from 1."""


class Span(NamedTuple):
    """Offsets into the text, the end exclusive."""

    start: int
    end: int


class Positions:
    """The result: look-ups by path. `keys` holds the last part of each key as first written (in a header or a key),
    `values` each value's whole text."""

    def __init__(self, text: str, keys: Mapping[KeyPath, Span], values: Mapping[KeyPath, Span]) -> None:
        self.text = text
        self.keys = keys
        self.values = values

    def key(self, path: KeyPath) -> Position:
        """The position of the key, else of its nearest ancestor that is written somewhere."""
        while path and path not in self.keys and path not in self.values:
            path = path[:-1]
        found = self.keys.get(path) or self.values.get(path)
        return self._position(found.start) if found else (1, 1)

    def value(self, path: KeyPath) -> Position:
        """The position of the value; of the key for a table that is only a header."""
        found = self.values.get(path)
        return self._position(found.start) if found else self.key(path)

    def _position(self, offset: int) -> Position:
        line = self.text.count("\n", 0, offset) + 1
        return line, offset - self.text.rfind("\n", 0, offset)


def locate(text: str) -> Positions:
    """Scan `text`, which `tomllib.loads` accepts. For a text that it does not accept, the result covers what was
    understood before the first oddity."""
    scanner = _Scanner(text)
    with contextlib.suppress(_OddityError, RecursionError):
        scanner.document()
    return Positions(text, scanner.keys, scanner.values)


class _OddityError(Exception):
    """The text is not what a TOML document can have here."""


_BLANK = re.compile(r"[ \t]*")
_BLANK_LINES = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BASIC = re.compile(r'"((?:[^"\\\n]|\\.)*)"')
_LITERAL = re.compile(r"'([^'\n]*)'")
# A multi-line string may end in up to two quotes of its own: the delimiter is the last three of a run of up to five.
_MULTILINE_BASIC = re.compile(r'"""(?:[^"\\]|\\.|"{1,2}(?!"))*"{3,5}', re.DOTALL)
_MULTILINE_LITERAL = re.compile(r"'''(?:[^']|'{1,2}(?!'))*'{3,5}")
# Numbers, booleans and dates (a date and a time may be separated by one space) run up to a delimiter.
_SCALAR = re.compile(r"[^,\]}#\r\n]+")
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))", re.DOTALL)
_SIMPLE_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", '"': '"', "\\": "\\"}


class _Scanner:
    """One pass over the text; `at` only moves forward."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.keys: dict[KeyPath, Span] = {}
        self.values: dict[KeyPath, Span] = {}
        self.array_sizes: dict[KeyPath, int] = {}

    def document(self) -> None:
        table: KeyPath = ()
        self.skip(_BLANK_LINES)
        while self.at < len(self.text):
            if self.peek("["):
                table = self.header()
            else:
                self.pair(table)
            self.skip(_BLANK_LINES)

    def header(self) -> KeyPath:
        """`[a.b]` or `[[a.b]]`; a part that names an array of tables means its newest element."""
        is_element = self.peek("[[")
        self.at += 2 if is_element else 1
        parts = self.key_parts()
        self.expect("]]" if is_element else "]")
        path: KeyPath = ()
        for index, (name, span) in enumerate(parts):
            path = (*path, name)
            self.keys.setdefault(path, span)
            is_last = index == len(parts) - 1
            if is_last and is_element:
                self.array_sizes[path] = self.array_sizes.get(path, 0) + 1
            if path in self.array_sizes:
                path = (*path, self.array_sizes[path] - 1)
                self.keys.setdefault(path, span)
        return path

    def pair(self, table: KeyPath) -> None:
        path = table
        for name, span in self.key_parts():
            path = (*path, name)
            self.keys.setdefault(path, span)
        self.expect("=")
        self.skip(_BLANK)
        self.value(path)

    def key_parts(self) -> list[tuple[str, Span]]:
        """A dotted key with the span of each part, quotes included."""
        parts = []
        while True:
            self.skip(_BLANK)
            start = self.at
            if self.peek('"'):
                name = _ESCAPE.sub(_unescape, self.take(_BASIC)[1])
            elif self.peek("'"):
                name = self.take(_LITERAL)[1]
            else:
                name = self.take(_BARE_KEY)[0]
            parts.append((name, Span(start, self.at)))
            self.skip(_BLANK)
            if not self.peek("."):
                return parts
            self.at += 1

    def value(self, path: KeyPath) -> None:
        start = self.at
        if self.peek("["):
            self.array(path)
        elif self.peek("{"):
            self.inline_table(path)
        elif self.peek('"""'):
            self.take(_MULTILINE_BASIC)
        elif self.peek("'''"):
            self.take(_MULTILINE_LITERAL)
        elif self.peek('"'):
            self.take(_BASIC)
        elif self.peek("'"):
            self.take(_LITERAL)
        else:
            scalar = self.take(_SCALAR)[0]
            self.at = start + len(scalar.rstrip())
        self.values[path] = Span(start, self.at)

    def array(self, path: KeyPath) -> None:
        self.at += 1
        index = 0
        self.skip(_BLANK_LINES)
        while not self.peek("]"):
            self.value((*path, index))
            index += 1
            self.skip(_BLANK_LINES)
            if self.peek(","):
                self.at += 1
                self.skip(_BLANK_LINES)
        self.at += 1

    def inline_table(self, path: KeyPath) -> None:
        self.at += 1
        self.skip(_BLANK_LINES)
        while not self.peek("}"):
            self.pair(path)
            self.skip(_BLANK_LINES)
            if self.peek(","):
                self.at += 1
                self.skip(_BLANK_LINES)
        self.at += 1

    def peek(self, token: str) -> bool:
        return self.text.startswith(token, self.at)

    def expect(self, token: str) -> None:
        if not self.peek(token):
            raise _OddityError
        self.at += len(token)

    def take(self, pattern: re.Pattern[str]) -> re.Match[str]:
        match = pattern.match(self.text, self.at)
        if match is None:
            raise _OddityError
        self.at = match.end()
        return match

    def skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self.text, self.at)
        if match is not None:
            self.at = match.end()


def _unescape(match: re.Match[str]) -> str:
    digits = match[1] or match[2]
    return chr(int(digits, 16)) if digits else _SIMPLE_ESCAPES.get(match[3], match[3])
