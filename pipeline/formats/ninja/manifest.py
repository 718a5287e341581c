"""Read ninja's manifest language and its dyndep files: text in, a `NinjaManifest` or one error with its line out.

Pure: files that a text includes come from a function that the caller passes. Does not know what exists. Invariant: a
text that ninja refuses is refused, with the line at which ninja stops; one that it takes gives the same statements.

Source: ninja's manual, "Ninja file reference" and "Lexical syntax"; tests compare with `ninja -t` on the same texts.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from cache.named_tuple import NamedTuple
from pipeline.formats.ninja.graph import PHONY, CycleError, Edge, NinjaManifest, NinjaRule, Scope, Template, canonical

RESERVED = frozenset(
    (
        *("command", "depfile", "dyndep", "description", "deps", "generator", "pool", "restat"),
        *("rspfile", "rspfile_content", "msvc_deps_prefix"),
    )
)
"""The variables that a rule may have."""

DEEPEST = 64
"""Manifests that include each other; ninja goes on until the system refuses."""

ReadText = Callable[[str], str | None]
"""The text of a file that a manifest names, None when it cannot be read."""

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


class _Refused(Exception):
    def __init__(self, error: ManifestError) -> None:
        super().__init__(str(error))
        self.error = error


def parse_manifest(path: str, text: str, read: ReadText) -> NinjaManifest | ManifestError:
    """What the manifest `path` with this text says, with all that it includes. Paths in it are as they stand there:
    relative to the directory in which ninja runs."""
    manifest = NinjaManifest()
    manifest.scope.rules[PHONY] = NinjaRule(PHONY, {})
    try:
        _Parser(manifest, manifest.scope, _Lexer(path, text), read, 0).run()
    except _Refused as refused:
        return refused.error
    return manifest


class Dyndep(NamedTuple):
    """What a dyndep file adds to the statement that makes `output`."""

    output: str
    implicit_outputs: tuple[str, ...]
    implicit_inputs: tuple[str, ...]
    restat: bool


def parse_dyndep(path: str, text: str) -> tuple[Dyndep, ...] | ManifestError:
    """The statements of a dyndep file, in order."""
    lexer = _Lexer(path, text)
    try:
        return tuple(_dyndeps(lexer))
    except _Refused as refused:
        return refused.error


class _Lexer:
    """A place in a text."""

    def __init__(self, path: str, text: str) -> None:
        self.path, self.text = path, text
        self.at = self.last = 0

    def fail(self, message: str) -> _Refused:
        """The error of the token that was read last."""
        return _Refused(ManifestError(self.path, self.text.count("\n", 0, self.last) + 1, message))

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
            raise self.fail(f"expected {_shown(kind)}, got {_shown(found)}")

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


def _shown(kind: str) -> str:
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


class _Parser:
    """One file of a manifest."""

    def __init__(self, manifest: NinjaManifest, scope: Scope, lexer: _Lexer, read: ReadText, depth: int) -> None:
        self._manifest, self._scope, self._lexer = manifest, scope, lexer
        self._read, self._depth = read, depth
        manifest.files.append(lexer.path)

    def run(self) -> None:
        lexer = self._lexer
        while True:
            match lexer.token():
                case "build":
                    self._edge()
                case "rule":
                    self._rule()
                case "pool":
                    self._pool()
                case "default":
                    self._default()
                case "include":
                    self._include(Scope)
                case "subninja":
                    self._include(None)
                case "ident":
                    lexer.at = lexer.last
                    name, value = lexer.let()
                    self._scope.variables[name] = self._scope.evaluate(value)
                case "newline":
                    pass
                case "eof":
                    return
                case kind:
                    raise lexer.fail(f"unexpected {_shown(kind)}")

    def _pool(self) -> None:
        lexer = self._lexer
        name = lexer.ident("pool name")
        lexer.expect("newline")
        if name in self._manifest.pools:
            raise lexer.fail(f"duplicate pool '{name}'")
        depth = -1
        while lexer.peek("indent"):
            key, value = lexer.let()
            if key != "depth":
                raise lexer.fail(f"unexpected variable '{key}'")
            said = self._scope.evaluate(value)
            if not re.fullmatch(r"[0-9]{1,9}", said):
                raise lexer.fail("invalid pool depth")
            depth = int(said)
        if depth < 0:
            raise lexer.fail("expected 'depth =' line")
        self._manifest.pools[name] = depth

    def _rule(self) -> None:
        lexer = self._lexer
        name = lexer.ident("rule name")
        lexer.expect("newline")
        if name in self._scope.rules:
            raise lexer.fail(f"duplicate rule '{name}'")
        bindings: dict[str, Template] = {}
        while lexer.peek("indent"):
            key, value = lexer.let()
            if key not in RESERVED:
                raise lexer.fail(f"unexpected variable '{key}'")
            bindings[key] = value
        if bool(bindings.get("rspfile")) != bool(bindings.get("rspfile_content")):
            raise lexer.fail("rspfile and rspfile_content need to be both specified")
        if not bindings.get("command"):
            raise lexer.fail("expected 'command =' line")
        self._scope.rules[name] = NinjaRule(name, bindings)

    def _default(self) -> None:
        lexer = self._lexer
        found = lexer.paths()
        if not found:
            raise lexer.fail("expected target name")
        known = self._manifest.known()
        for template in found:
            path = self._path(template, self._scope)
            if path not in known:
                raise lexer.fail(f"unknown target '{path}'")
            self._manifest.defaults.append(path)
        lexer.expect("newline")

    def _include(self, new_scope: type[Scope] | None) -> None:
        lexer = self._lexer
        path = self._scope.evaluate(lexer.template(path=True))
        text = self._read(path) if self._depth < DEEPEST else None
        if text is None:
            raise lexer.fail(f"loading '{path}': it cannot be read")
        scope = self._scope if new_scope is not None else Scope(self._scope)
        _Parser(self._manifest, scope, _Lexer(path, text), self._read, self._depth + 1).run()
        lexer.expect("newline")

    def _path(self, template: Template, scope: Scope) -> str:
        path = scope.evaluate(template)
        if not path:
            raise self._lexer.fail("empty path")
        return canonical(path)

    def _edge(self) -> None:
        lexer = self._lexer
        outputs = lexer.paths()
        implicit_outputs = lexer.paths() if lexer.peek("pipe") else []
        if not outputs and not implicit_outputs:
            raise lexer.fail("expected path")
        lexer.expect("colon")
        name = lexer.ident("build command name")
        rule = self._scope.rule(name)
        if rule is None:
            raise lexer.fail(f"unknown build rule '{name}'")
        inputs = lexer.paths()
        implicit = lexer.paths() if lexer.peek("pipe") else []
        order_only = lexer.paths() if lexer.peek("pipe2") else []
        validations = lexer.paths() if lexer.peek("pipe_at") else []
        lexer.expect("newline")
        edge = Edge(rule, self._bindings())
        edge.implicit_outputs, edge.implicit, edge.order_only = len(implicit_outputs), len(implicit), len(order_only)
        self._add_outputs(edge, [*outputs, *implicit_outputs])
        edge.inputs = [self._path(one, edge.scope) for one in (*inputs, *implicit, *order_only)]
        edge.validations = [self._path(one, edge.scope) for one in validations]
        self._check(edge)
        self._manifest.edges.append(edge)

    def _bindings(self) -> Scope:
        """The scope of a statement: its own where it has variables, else that of the file."""
        if not self._lexer.peek("indent"):
            return self._scope
        scope = Scope(self._scope)
        while True:
            key, value = self._lexer.let()
            scope.variables[key] = self._scope.evaluate(value)
            if not self._lexer.peek("indent"):
                return scope

    def _add_outputs(self, edge: Edge, templates: list[Template]) -> None:
        for template in templates:
            path = self._path(template, edge.scope)
            other = self._manifest.producer.get(path)
            if other is edge:
                raise self._lexer.fail(f"{path} is defined as an output multiple times")
            if other is not None:
                raise self._lexer.fail(f"multiple rules generate {path}")
            self._manifest.producer[path] = edge
            edge.outputs.append(path)

    def _check(self, edge: Edge) -> None:
        try:
            pool, dyndep = edge.binding("pool"), edge.binding("dyndep", escaped=False)
        except CycleError as error:
            raise self._lexer.fail(f"cycle in rule variables: {error}") from None
        if pool not in self._manifest.pools:
            raise self._lexer.fail(f"unknown pool name '{pool}'")
        if dyndep and canonical(dyndep) not in edge.inputs:
            raise self._lexer.fail(f"dyndep '{dyndep}' is not an input")
        # As CMake 2.8.12 and 3.0 wrote: ninja leaves the statement without itself.
        if edge.is_phony and len(edge.outputs) == 1 and not edge.implicit and edge.outputs[0] in edge.inputs:
            edge.order_only -= edge.order_only_inputs.count(edge.outputs[0])
            edge.inputs = [path for path in edge.inputs if path != edge.outputs[0]]


def _dyndeps(lexer: _Lexer) -> list[Dyndep]:
    scope, found, said = Scope(), list[Dyndep](), False
    while True:
        match lexer.token():
            case "build" if said:
                one = _dyndep(lexer, scope)
                if any(one.output == other.output for other in found):
                    raise lexer.fail(f"multiple statements for '{one.output}'")
                found.append(one)
            case "ident" if not said:
                lexer.at = lexer.last
                name, value = lexer.let()
                version = scope.evaluate(value)
                if name != "ninja_dyndep_version":
                    raise lexer.fail("expected 'ninja_dyndep_version = ...'")
                if not re.fullmatch(r"1(\.0)?([.-].*)?", version):
                    raise lexer.fail(f"unsupported 'ninja_dyndep_version = {version}'")
                said = True
            case "newline":
                pass
            case "eof" if said:
                return found
            case "ident":
                raise lexer.fail("unexpected identifier")
            case "build" | "eof":
                raise lexer.fail("expected 'ninja_dyndep_version = ...'")
            case kind:
                raise lexer.fail(f"unexpected {_shown(kind)}")


def _dyndep(lexer: _Lexer, scope: Scope) -> Dyndep:
    outputs = [canonical(scope.evaluate(one)) for one in lexer.paths()]
    if len(outputs) != 1:
        raise lexer.fail("explicit outputs not supported" if outputs else "expected path")
    implicit_outputs = lexer.paths() if lexer.peek("pipe") else []
    lexer.expect("colon")
    if lexer.ident("build command name 'dyndep'") != "dyndep":
        raise lexer.fail("expected build command name 'dyndep'")
    if lexer.paths():
        raise lexer.fail("explicit inputs not supported")
    implicit = lexer.paths() if lexer.peek("pipe") else []
    if lexer.peek("pipe2"):
        raise lexer.fail("order-only inputs not supported")
    lexer.expect("newline")
    restat = False
    if lexer.peek("indent"):
        key, value = lexer.let()
        if key != "restat":
            raise lexer.fail("binding is not 'restat'")
        restat = scope.evaluate(value) != ""
    made, read = ([canonical(scope.evaluate(one)) for one in paths] for paths in (implicit_outputs, implicit))
    return Dyndep(outputs[0], tuple(made), tuple(read), restat)
