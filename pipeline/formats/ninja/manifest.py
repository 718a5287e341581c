"""Read ninja's manifest language: text in, a `NinjaManifest` or one error with its line out.

Pure: files that a text includes come from a function that the caller passes. Does not know what exists. Invariant: a
text that ninja refuses is refused, with the line at which ninja stops; one that it takes gives the same statements.

Source: ninja's manual, "Ninja file reference" and "Lexical syntax"; tests compare with `ninja -t` on the same texts.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from pipeline.formats.ninja.graph import PHONY, CycleError, Edge, NinjaManifest, NinjaRule, Scope, Template, canonical
from pipeline.formats.ninja.lexer import Lexer, ManifestError, RefusedText, shown

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


def parse_manifest(path: str, text: str, read: ReadText) -> NinjaManifest | ManifestError:
    """What the manifest `path` with this text says, with all that it includes. Paths in it are as they stand there:
    relative to the directory in which ninja runs."""
    manifest = NinjaManifest()
    manifest.scope.rules[PHONY] = NinjaRule(PHONY, {})
    try:
        _Parser(manifest, manifest.scope, Lexer(path, text), read, 0).run()
    except RefusedText as refused:
        return refused.error
    return manifest


class _Parser:
    """One file of a manifest."""

    def __init__(self, manifest: NinjaManifest, scope: Scope, lexer: Lexer, read: ReadText, depth: int) -> None:
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
                    raise lexer.fail(f"unexpected {shown(kind)}")

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
        _Parser(self._manifest, scope, Lexer(path, text), self._read, self._depth + 1).run()
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
