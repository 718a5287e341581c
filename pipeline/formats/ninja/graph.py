"""What a ninja manifest says: build statements, their variables, pools, default targets.

Values and their evaluation; `manifest.py` makes them from text. Pure: does not know which files exist. Invariant:
`Edge.binding` gives what ninja gives for the same name, its surprises included (a variable of the file shadows that of
the rule where the statement has none of its own).

Source: ninja's manual, "Ninja file reference", and its behaviour (`ninja -t commands`), with which tests compare.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from cache.named_tuple import NamedTuple

PHONY = "phony"

Piece = str | tuple[str]
"""Text, or the name of a variable (a tuple of one)."""

Template = tuple[Piece, ...]
"""A value before its variables are put in."""

_OF_STATEMENT = frozenset(("in", "in_newline", "out"))
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_+\-./]*\Z")


class CycleError(ValueError):
    """Variables of a rule that name each other."""


class Scope:
    """Variables and rules of a file, or of one build statement; `parent` is asked for what is not there."""

    __slots__ = ("parent", "rules", "variables")

    def __init__(self, parent: Scope | None = None) -> None:
        self.parent = parent
        self.variables: dict[str, str] = {}
        self.rules: dict[str, NinjaRule] = {}

    def lookup(self, name: str) -> str:
        """The value, `""` if nobody sets one."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.variables:
                return scope.variables[name]
            scope = scope.parent
        return ""

    def rule(self, name: str) -> NinjaRule | None:
        """The rule of this name that is visible from here."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.rules:
                return scope.rules[name]
            scope = scope.parent
        return None

    def evaluate(self, template: Template) -> str:
        """The text of a value."""
        if len(template) == 1 and template[0].__class__ is str:
            return template[0]
        return "".join([piece if piece.__class__ is str else self.lookup(piece[0]) for piece in template])


class NinjaRule(NamedTuple):
    """A rule's variables, as they stand there."""

    name: str
    bindings: Mapping[str, Template]


class Edge:
    """One build statement, with canonical paths. `implicit_outputs` of the `outputs` come last; `inputs` are explicit
    ones, then `implicit` ones, then `order_only` ones (counts)."""

    __slots__ = (
        "_command",
        "implicit",
        "implicit_outputs",
        "inputs",
        "order_only",
        "outputs",
        "rule",
        "scope",
        "validations",
    )

    def __init__(self, rule: NinjaRule, scope: Scope) -> None:
        self.rule, self.scope = rule, scope
        self.outputs: list[str] = []
        self.inputs: list[str] = []
        self.validations: list[str] = []
        self.implicit_outputs = self.implicit = self.order_only = 0
        self._command: str | None = None

    @property
    def is_phony(self) -> bool:
        return self.rule.name == PHONY and not self.rule.bindings

    @property
    def explicit_inputs(self) -> list[str]:
        """What `$in` names."""
        return self.inputs[: len(self.inputs) - self.implicit - self.order_only]

    @property
    def needed_inputs(self) -> list[str]:
        """Those whose change makes it run again: explicit and implicit ones."""
        return self.inputs[: len(self.inputs) - self.order_only]

    @property
    def order_only_inputs(self) -> list[str]:
        return self.inputs[len(self.inputs) - self.order_only :]

    def binding(self, name: str, *, escaped: bool = True) -> str:
        """The value of a variable in this statement. `escaped`: `$in` and `$out` are quoted for a shell. Raises
        CycleError."""
        if name in _OF_STATEMENT or name in self.rule.bindings:
            return self._lookup(name, escaped, [])
        scope = self.scope  # as below, for what most statements say nothing of
        own = scope.variables.get(name)
        return own if own is not None else scope.parent.lookup(name) if scope.parent is not None else ""

    def flag(self, name: str) -> bool:
        """Is this variable set to anything?"""
        return self.binding(name) != ""

    def _lookup(self, name: str, escaped: bool, under_way: list[str]) -> str:
        if name in ("in", "in_newline"):
            return _joined(self.explicit_inputs, " " if name == "in" else "\n", escaped)
        if name == "out":
            return _joined(self.outputs[: len(self.outputs) - self.implicit_outputs], " ", escaped)
        if name in under_way:
            raise CycleError(" -> ".join([*under_way[under_way.index(name) :], name]))
        own = self.scope.variables.get(name)
        if own is not None:
            return own
        template = self.rule.bindings.get(name)
        if template is not None:
            inner = [*under_way, name]
            return "".join(
                [piece if isinstance(piece, str) else self._lookup(piece[0], escaped, inner) for piece in template]
            )
        return self.scope.parent.lookup(name) if self.scope.parent is not None else ""

    def extend(self, outputs: Sequence[str], inputs: Sequence[str], *, restat: bool) -> None:
        """What a dyndep file adds: implicit outputs and inputs."""
        self._command = None
        at = len(self.inputs) - self.order_only
        self.inputs[at:at] = inputs
        self.outputs += outputs
        self.implicit += len(inputs)
        self.implicit_outputs += len(outputs)
        if restat:
            self.scope = Scope(self.scope)
            self.scope.variables = {**(self.scope.parent.variables if self.scope.parent else {}), "restat": "1"}

    @property
    def command(self) -> str:
        """What the shell is given, as `.ninja_log` hashes it but for a response file. Worked out once."""
        if self._command is None:
            self._command = self.binding("command")
        return self._command


def _joined(paths: list[str], separator: str, escaped: bool) -> str:
    return separator.join(map(shell_quoted, paths) if escaped else paths)


def shell_quoted(path: str) -> str:
    """As ninja quotes a path for `$in` and `$out` on POSIX."""
    return path if _PLAIN_PATH.match(path) else "'" + path.replace("'", "'\\''") + "'"


class NinjaManifest:
    """Everything that a manifest and the files that it names say. `files`: what was read, in order; `pools`: name ->
    depth (0: no limit)."""

    def __init__(self) -> None:
        self.scope = Scope()
        self.edges: list[Edge] = []
        self.producer: dict[str, Edge] = {}
        self.defaults: list[str] = []
        self.pools: dict[str, int] = {"": 0, "console": 1}
        self.files: list[str] = []

    def known(self) -> set[str]:
        """Every path that a statement names."""
        found: set[str] = set()
        for edge in self.edges:
            found.update(edge.outputs, edge.inputs, edge.validations)
        return found

    def roots(self) -> list[str]:
        """Outputs that nothing reads, in order: what ninja builds where there are no defaults."""
        read = {path for edge in self.edges for path in edge.inputs}
        return [path for edge in self.edges for path in edge.outputs if path not in read]

    def wanted(self, targets: list[str] | None = None) -> list[str]:
        """What `ninja` makes: the targets, else the defaults, else all roots."""
        return list(targets or self.defaults or self.roots())

    def closure(self, targets: list[str]) -> list[Edge]:
        """The statements that making these takes, validations included, each after those that make its inputs. Raises
        CycleError that names the paths of a cycle."""
        found: list[Edge] = []
        state: dict[int, int] = {}
        queue = list(reversed(targets))
        while queue:
            queue += reversed(self._visit(queue.pop(), found, state))
        return found

    def _visit(self, target: str, found: list[Edge], state: dict[int, int]) -> list[str]:
        """Add what `target` takes; the validations that this found."""
        validations: list[str] = []
        first = self.producer.get(target)
        stack: list[tuple[Edge, Iterator[str], str]] = []
        if first is not None and id(first) not in state:
            stack.append((first, iter(first.inputs), target))
            state[id(first)] = 1
        while stack:
            edge, rest, _ = stack[-1]
            path = next(rest, None)
            if path is None:
                stack.pop()
                state[id(edge)] = 2
                found.append(edge)
                validations += edge.validations
                continue
            maker = self.producer.get(path)
            if maker is None:
                continue
            seen = state.get(id(maker), 0)
            if seen == 1:
                names = [name for _, _, name in stack]
                start = next(n for n, (one, _, _) in enumerate(stack) if one is maker)
                raise CycleError(" -> ".join([path, *names[start + 1 :], path]))
            if seen == 0:
                state[id(maker)] = 1
                stack.append((maker, iter(maker.inputs), path))
        return validations


def canonical(path: str) -> str:
    """A path as ninja names it: no `.`, no `//`, `..` taken off what stands before it, no `/` at its end."""
    if "./" not in path and "//" not in path and not path.endswith(("/", "/.", "/..")) and path not in (".", ""):
        return path
    parts: list[str] = []
    rooted = path.startswith("/")
    for part in path.split("/"):
        if part in ("", "."):
            continue
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        else:
            parts.append(part)
    text = "/".join(parts)
    return f"/{text}" if rooted else text or "."
