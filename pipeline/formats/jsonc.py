"""JSON with comments, edited in place: our members and elements go in behind an opening brace and come out again.

Texts only. Does not know what the members mean. Invariant: nothing but our own block changes, so that comments, order
and white space of the rest stay; `removed(insert(text)) == text` for every text without a block. A text that is not
JSON with comments is refused, never guessed at.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from cache.named_tuple import NamedTuple
from pipeline.formats.marked_block import newline_of

BEGIN = "/* >>> hotplate (written by `doit hooks:install`, taken out by `doit hooks:uninstall`) >>> */"
END = "/* <<< hotplate <<< */"


class Token(NamedTuple):
    """`kind`: one of `{ } [ ] : ,`, or `string`, `literal`, `comment`."""

    kind: str
    start: int
    end: int


class CannotEdit(Exception):
    """The text is not what it must be for an edit; the text says why."""


_TOKEN = re.compile(
    r'(?P<space>[\s\ufeff]+)|(?P<comment>//[^\n]*|/\*.*?\*/)|(?P<punctuation>[{}\[\]:,])|(?P<string>"(?:[^"\\\n]|\\.)*")'
    r"|(?P<literal>-?[A-Za-z0-9_.+-]+)",
    re.DOTALL,
)


def tokens(text: str) -> list[Token]:
    """All tokens, comments too. Raises CannotEdit."""
    found, place = [], 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise CannotEdit(f"line {text.count(chr(10), 0, place) + 1} is not JSON with comments")
        if match.lastgroup != "space":
            kind = match[0] if match.lastgroup == "punctuation" else str(match.lastgroup)
            found.append(Token(kind, match.start(), match.end()))
        place = match.end()
    return found


def opening(text: str, path: Sequence[str]) -> tuple[str, int] | None:
    """(`{`, `[` or `""` for any other value; the place behind its first character) of the value at `path` of object
    keys; None when a key is missing. Raises CannotEdit when the text is damaged or a value on the way is no object."""
    reader = _Reader(text)
    found = reader.find(list(path))
    reader.value()  # the rest must be sound too
    if reader.at < len(reader.tokens):
        raise CannotEdit(f"line {reader.line()} has more than one value")
    return found


class _Reader:
    """A walk over the tokens, comments left out."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = [token for token in tokens(text) if token.kind != "comment"]
        self.at = 0

    def line(self) -> int:
        place = self.tokens[self.at].start if self.at < len(self.tokens) else len(self.text)
        return self.text.count("\n", 0, place) + 1

    def take(self, *kinds: str) -> Token:
        if self.at == len(self.tokens) or self.tokens[self.at].kind not in kinds:
            raise CannotEdit(f"line {self.line()}: expected {' or '.join(kinds)}")
        self.at += 1
        return self.tokens[self.at - 1]

    def peek(self) -> str:
        return self.tokens[self.at].kind if self.at < len(self.tokens) else ""

    def value(self) -> None:
        """Step over one value."""
        token = self.take("{", "[", "string", "literal")
        close = {"{": "}", "[": "]"}.get(token.kind)
        if close is None:
            return
        while self.peek() != close:
            if token.kind == "{":
                self.take("string")
                self.take(":")
            self.value()
            if self.peek() != close:
                self.take(",")
        self.take(close)

    def find(self, path: list[str]) -> tuple[str, int] | None:
        """As `opening`; the position is left at the start of the text."""
        try:
            for key in path:
                if not self._enter(key):
                    return None
            kind = self.peek()
            if not kind:
                raise CannotEdit("it holds no value")
            return kind if kind in "{[" else "", self.tokens[self.at].start + 1
        finally:
            self.at = 0

    def _enter(self, key: str) -> bool:
        if self.peek() != "{":
            raise CannotEdit(f"line {self.line()}: expected an object around {key!r}")
        self.at += 1
        while self.peek() != "}":
            name = self.take("string")
            self.take(":")
            if json.loads(self.text[name.start : name.end], strict=False) == key:
                return True
            self.value()
            if self.peek() != "}":
                self.take(",")
        return False


def insert(text: str, path: Sequence[str], items: Sequence[str]) -> str:
    """`text` with `items` (members `"k": v` or elements, of any number of lines) as the first ones of the object or
    array at `path`. Raises CannotEdit."""
    found = opening(text, path)
    if found is None or not found[0]:
        raise CannotEdit(f"there is no object or array at {'.'.join(path) or 'the top'}")
    place = found[1]
    others = next((t.kind for t in tokens(text) if t.start >= place and t.kind != "comment"), "") not in "}]"
    end = newline_of(text)
    indent = _indent(text, place)
    body = ",\n".join(items) + ("," if others else "")
    lines = [BEGIN, *body.split("\n"), END]
    block = "".join(f"{end}{indent}{line}" for line in lines)
    return text[:place] + block + text[place:]


def _indent(text: str, place: int) -> str:
    """That of the line of the opening brace, and one step more, in the style of the file."""
    line = text[text.rfind("\n", 0, place) + 1 : place]
    own = line[: len(line) - len(line.lstrip(" \t"))].lstrip("\ufeff")
    inner = re.search(r"\n([ \t]+)\S", text)
    step = inner[1] if inner is not None else "    "
    return own + ("\t" if step.startswith("\t") else step if len(step) <= 8 else "    ")


def removed(text: str) -> str:
    """`text` without our blocks, and without the commas that only they needed."""
    while (start := text.find(BEGIN)) >= 0:
        stop = text.find(END, start)
        if stop < 0:
            raise CannotEdit(f"line {text.count(chr(10), 0, start) + 1}: the end of the block is missing: {END}")
        stop += len(END)
        comma = _trailing_comma(text[start:stop])
        before = text[:start].rstrip(" \t")
        before = before.removesuffix("\n").removesuffix("\r")
        after = text[stop:]
        if not comma:
            before, after = _without_comma(before, after)
        text = before + after
    return text


def _trailing_comma(block: str) -> bool:
    kinds = [token.kind for token in tokens(block) if token.kind != "comment"]
    return bool(kinds) and kinds[-1] == ","


def _without_comma(before: str, after: str) -> tuple[str, str]:
    """Our block was the last: somebody who put items around it had to add a comma beside it."""
    following = next((token for token in tokens(after) if token.kind != "comment"), None)
    if following is not None and following.kind == ",":
        return before, after[: following.start] + after[following.end :]
    code = [token for token in tokens(before) if token.kind != "comment"]
    if code and code[-1].kind == "," and following is not None and following.kind in ("}", "]"):
        return before[: code[-1].start] + before[code[-1].end :], after
    return before, after
