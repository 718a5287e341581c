"""The tokens of ninja's language, shared by manifests and dyndep files.

Pure. Does not know statements. Invariant: what ninja's lexer refuses raises RefusedText, which says where and why.
"""

from __future__ import annotations

import re

from cache.named_tuple import NamedTuple
from pipeline.formats.ninja.graph import Template

_TOKEN = re.compile(
    r"(?P<comment>[ ]*\#[^\0\n]*\n)|(?P<newline>[ ]*\r?\n)|(?P<indent>[ ]+)"
    r"|(?P<pipe_at>\|@)|(?P<pipe2>\|\|)|(?P<pipe>\|)|(?P<equals>=)|(?P<colon>:)|(?P<ident>[a-zA-Z0-9_.\-]+)"
)
_BLANKS = re.compile(r"(?:[ ]+|\$\r?\n)*")
_IDENT = re.compile(r"[a-zA-Z0-9_.\-]+")
_TEXT = re.compile(r"[^$ :\r\n|\0]+")
_ESCAPE = re.compile(
    r"\$(?:(?P<char>[$ :])|(?P<line>\r?\n[ ]*)|\{(?P<braced>[a-zA-Z0-9_.\-]+)\}|(?P<plain>[a-zA-Z0-9_\-]+))"
)
_KEYWORDS = frozenset(("build", "rule", "pool", "default", "include", "subninja"))
_SHOWN = {"pipe": "'|'", "pipe2": "'||'", "pipe_at": "'|@'", "equals": "'='", "colon": "':'", "eof": "eof"}


class ManifestError(NamedTuple):
    """Why a text is no manifest: where, and one fact."""

    path: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


class RefusedText(Exception):
    def __init__(self, error: ManifestError) -> None:
        super().__init__(str(error))
        self.error = error


class Lexer:
    """A place in a text."""

    def __init__(self, path: str, text: str) -> None:
        self.path, self.text = path, text
        self.at = self.last = 0

    def fail(self, message: str) -> RefusedText:
        """The error of the token that was read last."""
        return RefusedText(ManifestError(self.path, self.text.count("\n", 0, self.last) + 1, message))

    def token(self) -> str:
        """Kind of the next token: a keyword, `ident`, `newline`, `indent`, `eof`, punctuation."""
        while True:
            self.last = self.at
            if self.at >= len(self.text) or self.text[self.at] == "\0":
                return "eof"
            found = _TOKEN.match(self.text, self.at)
            if found is None:
                hint = "tabs are not allowed, use spaces" if self.text[self.at] == "\t" else "lexing error"
                raise self.fail(hint)
            kind = str(found.lastgroup)
            self.at = found.end()
            if kind != "comment":
                break
        if kind == "ident" and found[0] in _KEYWORDS:
            kind = found[0]
        if kind != "newline":
            self.skip_blanks()
        return kind

    def peek(self, kind: str) -> bool:
        """Take the next token if it is of this kind."""
        at = self.at
        if self.token() == kind:
            return True
        self.at = at
        return False

    def expect(self, kind: str) -> None:
        found = self.token()
        if found != kind:
            raise self.fail(f"expected {shown(kind)}, got {shown(found)}")

    def skip_blanks(self) -> None:
        found = _BLANKS.match(self.text, self.at)
        if found is not None:
            self.at = found.end()

    def ident(self, what: str) -> str:
        found = _IDENT.match(self.text, self.at)
        if found is None:
            self.last = self.at
            raise self.fail(f"expected {what}")
        self.last, self.at = self.at, found.end()
        self.skip_blanks()
        return found[0]

    def template(self, *, path: bool) -> Template:
        """A value up to the end of its line, or one path."""
        pieces: list[str | tuple[str]] = []
        text, at = self.text, self.at
        while True:
            if found := _TEXT.match(text, at):
                pieces.append(found[0])
                at = found.end()
                continue
            char = text[at : at + 1]
            if char in ("", "\0"):
                self.last = at
                raise self.fail("unexpected EOF")
            if char == "\n" or text.startswith("\r\n", at):
                end = at if path else at + (1 if char == "\n" else 2)
                break
            if char in " :|":
                if path:
                    end = at
                    break
                pieces.append(char)
                at += 1
                continue
            escape = _ESCAPE.match(text, at)
            if escape is None:
                self.last = at
                raise self.fail("bad $-escape (literal $ must be written as $$)" if char == "$" else "lexing error")
            at = escape.end()
            if escape["char"] is not None:
                pieces.append(escape["char"])
            elif escape["line"] is None:
                pieces.append((escape["braced"] or escape["plain"],))
        self.last, self.at = at, end
        if path:
            self.skip_blanks()
        return _merged(pieces)

    def paths(self) -> list[Template]:
        """Paths up to something else."""
        found = []
        while template := self.template(path=True):
            found.append(template)
        return found

    def let(self) -> tuple[str, Template]:
        """`name = value`."""
        name = self.ident("variable name")
        self.expect("equals")
        return name, self.template(path=False)


def shown(kind: str) -> str:
    return _SHOWN.get(kind, f"'{kind}'" if kind in _KEYWORDS else "identifier" if kind == "ident" else kind)


def _merged(pieces: list[str | tuple[str]]) -> Template:
    """Neighbouring texts as one."""
    merged: list[str | tuple[str]] = []
    for piece in pieces:
        if isinstance(piece, str) and merged and isinstance(merged[-1], str):
            merged[-1] += piece
        else:
            merged.append(piece)
    return tuple(merged)
