"""Read dyndep files: what a command finds out that a build statement reads and makes beside what it declares.

Pure. Does not know manifests. Invariant: a text that ninja refuses is refused.
"""

from __future__ import annotations

import re

from cache.named_tuple import NamedTuple
from pipeline.formats.ninja.graph import Scope, canonical
from pipeline.formats.ninja.lexer import Lexer, ManifestError, RefusedText, shown


class Dyndep(NamedTuple):
    """What a dyndep file adds to the statement that makes `output`."""

    output: str
    implicit_outputs: tuple[str, ...]
    implicit_inputs: tuple[str, ...]
    restat: bool


def parse_dyndep(path: str, text: str) -> tuple[Dyndep, ...] | ManifestError:
    """The statements of a dyndep file, in order."""
    lexer = Lexer(path, text)
    try:
        return tuple(_dyndeps(lexer))
    except RefusedText as refused:
        return refused.error


def _dyndeps(lexer: Lexer) -> list[Dyndep]:
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
                raise lexer.fail(f"unexpected {shown(kind)}")


def _dyndep(lexer: Lexer, scope: Scope) -> Dyndep:
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
