"""Action keys, what has one, and the explanation of why one moved: two sinks of one walk.

Pure. Does not know where digests come from or where results are stored. Invariant: two different walks never give the
same bytes (every part is length-delimited), and what `ExplainSink` lists is exactly what `HashSink` hashes.

    key    = SHA-256 of the parts
    part   = netstring(kind) netstring(name) netstring(value);  netstring(s) = decimal length of UTF-8 ":" UTF-8 of s
    command = "version" part, then the command, then one "input" part with the path of each declared input
    base   = "version" part, then one with the command key, and one with the SHA-256 of all declared inputs, in order:
             so that of a link of ten thousand objects, one of which moved, no more is made anew than that
    set    = "version" part, then one part per discovered and per absent file
    full   = "version" part, then one with the base key, one with the set key, and one for each option header that
             was read (and is not in the set): an "option" part with what counts of it, or a "discovered input" part
    History: version 1 had candidate sets without what a depfile hides (`__has_include`, `.incbin`); version 2 held the
    profile, and no places that an action itself declares to be empty; version 4 had no command key; with version 5 a
    result that follows from the length of a place's name lay under a key for any place; version 6 had sets of links
    without what their scripts include by a relative `-L`, and of compiles without precompiled headers. Another version
    is another key: old entries are simply not found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import islice, zip_longest
from typing import TYPE_CHECKING, Protocol

from cache.digest import ActionKey, Digest
from cache.named_tuple import NamedTuple
from pipeline.engine.inputs import STABILITY, Command, InputKind, Stability

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

    from cache.stamps import Entry
    from pipeline.engine.packed_inputs import PackedInputs
    from pipeline.engine.record_rows import Inputs
    from pipeline.model import Action

KEY_VERSION = "hotplate action key 7"

NO_CONTENT = "-"

FileDigest = tuple[str, Digest | str]
"""A path as it stands in keys (relative, POSIX, tools' directories as placeholders) and what it held."""


class Part(NamedTuple):
    """One thing that the key depends on."""

    kind: InputKind
    name: str
    value: str


class KeySink(Protocol):
    """Receives the parts in order."""

    def part(self, kind: InputKind, name: str, value: str) -> None: ...

    def words(self, kind: InputKind, values: Sequence[str]) -> None:
        """One part without a name for each."""
        ...

    def files(self, kind: InputKind, files: Iterable[FileDigest]) -> None:
        """One part for each."""
        ...


class HashSink:
    """Hashes the parts."""

    def __init__(self) -> None:
        self._hash: Hash | None = None
        """Of what came before `_text`, where that was long."""
        self._text = [_VERSION]
        """What is hashed, with what is no UTF-8 as `os.fsdecode` writes it."""

    def part(self, kind: InputKind, name: str, value: str) -> None:
        label = _STABLE.get(kind._value_) or self._label(kind)
        if name.isascii() and value.isascii():
            self._text.append(f"{label}{len(name)}:{name}{len(value)}:{value}")
        else:
            self._text += (label, _netstring(name), _netstring(value))

    def words(self, kind: InputKind, values: Sequence[str]) -> None:
        # By far the most parts are words of a command, and commands differ most in their last words: a compile's files.
        label, shared = f"{self._label(kind)}0:", len(values) - _OWN_WORDS
        if 0 < shared < _MANY_WORDS:
            self._text.append(_said_once(label, tuple(values[:shared])))
            values = values[shared:]
        for first in range(0, len(values), _AT_ONCE):
            self._add(_said(label, values[first : first + _AT_ONCE]))

    def files(self, kind: InputKind, files: Iterable[FileDigest]) -> None:
        # As above: a link has one for each unit of a project.
        label, rest = self._label(kind), iter(files)
        while more := list(islice(rest, _AT_ONCE)):
            said = [(path, digest if digest.__class__ is str else str(digest)) for path, digest in more]
            joined = "".join([f"{label}{len(path)}:{path}{len(value)}:{value}" for path, value in said])
            if joined.isascii():
                self._add(joined)
                continue
            for path, value in said:
                self.part(kind, path, value)

    def _add(self, text: str) -> None:
        """What may be the megabytes of a link is not held until its end."""
        self._text.append(text)
        if len(text) > _LONG:
            self._hash = self._hash or hashlib.sha256()
            self._hash.update(_encoded("".join(self._text)))
            self._text.clear()

    def _label(self, kind: InputKind) -> str:
        try:
            return _STABLE[kind._value_]
        except KeyError:
            raise ValueError(f"{kind.value} is volatile and must not enter a key [this is a bug]") from None

    def key(self) -> ActionKey:
        """The key of everything received so far."""
        if self._hash is None:
            return _key_of(self._text)
        whole = self._hash.copy()
        whole.update(_encoded("".join(self._text)))
        return ActionKey(whole.hexdigest())


class ExplainSink:
    """Lists the parts."""

    def __init__(self) -> None:
        self.parts: list[Part] = []

    def part(self, kind: InputKind, name: str, value: str) -> None:
        self.parts.append(Part(kind, name, value))

    def words(self, kind: InputKind, values: Sequence[str]) -> None:
        self.parts += [Part(kind, "", value) for value in values]

    def files(self, kind: InputKind, files: Iterable[FileDigest]) -> None:
        self.parts += [Part(kind, path, str(digest)) for path, digest in files]


def walk_command(sink: KeySink, command: Command, inputs: Iterable[FileDigest] = ()) -> None:
    """The command and its declared inputs, in declared order (it can matter: a linker reads its inputs in order)."""
    sink.part(InputKind.BUILTIN, "", command.builtin)
    sink.part(InputKind.TOOL, *command.tool)
    sink.words(InputKind.ARGUMENT, command.argv)
    for name, value in command.params:
        sink.part(InputKind.PARAMETER, name, value)
    for name, value in sorted(command.env):
        sink.part(InputKind.ENVIRONMENT, name, value)
    for path in command.outputs:
        sink.part(InputKind.OUTPUT_PATH, path, "")
    sink.part(InputKind.DEPFILE_PATH, "", command.depfile)
    sink.part(InputKind.SALT, "", command.salt)
    for path in command.absent:
        sink.part(InputKind.ABSENT, path, "")
    sink.files(InputKind.INPUT, inputs)


def walk_discovered(sink: KeySink, discovered: Iterable[FileDigest], absent: Iterable[str]) -> None:
    """What the tool read beside its declared inputs, and which files it would have read had they existed."""
    sink.files(InputKind.DISCOVERED, discovered)
    # By far the most parts of a compile: thousands of places where no file may come.
    sink.files(InputKind.ABSENT, ((path, "") for path in absent))


def command_key(command: Command) -> ActionKey:
    """The key of what is executed, whatever the declared inputs hold."""
    sink = HashSink()
    walk_command(sink, command, ((path, "") for path in command.inputs))
    return sink.key()


def base_key(command: ActionKey, contents: str) -> ActionKey:
    """The key under which candidate sets of discovered inputs are kept. `contents`: the SHA-256 of every declared
    input, in declared order, one after the other; `NO_CONTENT` for one that a statement ran without."""
    sink = HashSink()
    sink.part(InputKind.ARGUMENT, "command key", command)
    sink.part(InputKind.INPUT, "contents", contents)
    return sink.key()


def set_key(discovered: Sequence[FileDigest], absent: Sequence[str]) -> ActionKey:
    """The key of a set of discovered inputs, which many actions share. Both sequences are sorted here: their order
    says nothing."""
    sink = HashSink()
    walk_discovered(sink, sorted(discovered), sorted(absent))
    return sink.key()


def full_key(base: ActionKey, discovered: ActionKey, options: Iterable[Part] = ()) -> ActionKey:
    """The key under which the result is kept; `discovered` is a set key, `options` what counts of option headers."""
    sink = HashSink()
    sink.part(InputKind.INPUT, "base key", base)
    sink.part(InputKind.DISCOVERED, "set key", discovered)
    for kind, name, value in options:
        sink.part(kind, name, value)
    return sink.key()


def bound_key(key: ActionKey, places: Mapping[str, str]) -> ActionKey:
    """The key of a result that holds for these places of symbols alone: its bytes name one of them, or may follow from
    one."""
    parts = [_VERSION, _netstring("bound"), _netstring(key)]
    return _key_of([*parts, *[part for item in sorted(places.items()) for part in map(_netstring, item)]])


class Keyed(NamedTuple):
    """An action with the content of its declared inputs. `lacks`: an input that a statement ran without, since what
    makes it never does; such a run is worth no record."""

    action: Action
    command: Command
    inputs: tuple[tuple[str, Entry], ...]
    """Those that were looked at."""
    base: ActionKey
    lacks: str = ""
    taken: PackedInputs | None = None
    """Of an action with many inputs all of them, of which those that are believed were not looked at."""
    command_key: str = ""
    """Of an action with many inputs."""

    @property
    def observed(self) -> Inputs:
        return tuple([(path, entry.sha256) for path, entry in self.inputs]) if self.taken is None else self.taken


class KeyDifference(NamedTuple):
    """The first part that moved. `before` or `after` is `""` when the part was added or removed."""

    kind: InputKind
    name: str
    before: str
    after: str


def first_difference(old: Sequence[Part], new: Sequence[Part]) -> KeyDifference | None:
    """Compare two walks; None when they are equal."""
    for before, after in zip_longest(old, new):
        if before == after:
            continue
        # A side that the other has nowhere was changed, added or removed; otherwise parts only changed places.
        added = after if after is not None and after not in old else None
        removed = before if before is not None and before not in new else None
        if added is not None and removed is not None and added[:2] == removed[:2]:
            return KeyDifference(added.kind, added.name, removed.value, added.value)
        if added is not None:
            return KeyDifference(added.kind, added.name, "", added.value)
        if removed is not None:
            return KeyDifference(removed.kind, removed.name, removed.value, "")
        part = after if after is not None else before
        return KeyDifference(part.kind, part.name, "order", "order")
    return None


def _said(label: str, words: Sequence[str]) -> str:
    if "".join(words).isascii():
        return "".join([f"{label}{len(word)}:{word}" for word in words])
    return "".join([label + _netstring(word) for word in words])


_AT_ONCE = 4096
"""So many words or files are made one text."""
_LONG = 1 << 16
_OWN_WORDS = 8
_MANY_WORDS = 1000
"""The words of a link are nobody else's."""
_said_once = lru_cache(maxsize=64)(_said)


def _netstring(text: str) -> str:
    return f"{len(text) if text.isascii() else len(_encoded(text))}:{text}"


def _encoded(text: str) -> bytes:
    # File names are bytes on POSIX; surrogateescape gives those back that are not UTF-8.
    return text.encode("utf-8", "surrogateescape")


def _key_of(parts: Iterable[str]) -> ActionKey:
    return ActionKey(hashlib.sha256(_encoded("".join(parts))).hexdigest())


_VERSION = _netstring(KEY_VERSION)
_STABLE: Mapping[str, str] = {
    kind.value: _netstring(kind.value) for kind, stability in STABILITY.items() if stability is Stability.STABLE
}
"""The encoded kinds that may enter a key, by what they are called: looked up for every part of every command."""
