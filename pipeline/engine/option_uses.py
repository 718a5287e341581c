"""Which options does a compile look at? Instead of an option header's bytes, its key holds what those are defined as.

Knows option headers (`formats/option_header`), the words of what a compile reads (`formats/macro_words`), and the flags
with which more counts than tokens. Reads each text once and remembers what it came to, by content. Does not know when
something is up to date or how it runs. Invariant: the answer follows from the contents of everything that the compile
reads and from its words alone, so that it is the same in every checkout; two keys are equal only if the preprocessor
gives the same tokens and nothing else of the header reaches the result. In doubt the header counts as a whole.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from cache import statefile
from cache.digest import ActionKey, digest_bytes
from cache.durable import read_file
from cache.stamps import Entry
from pipeline.engine.build_log import Record
from pipeline.engine.candidates import IdentifiedSet
from pipeline.engine.inputs import InputKind
from pipeline.engine.keys import KeyDifference, Part, full_key
from pipeline.engine.option_names import OptionNames
from pipeline.formats.command_words import expand
from pipeline.formats.macro_words import NO_WORDS, MacroWords, loose_words, macro_words
from pipeline.formats.option_header import OptionHeader, parse_option_header
from pipeline.model import Action

STATE_KIND = "option uses 1"
STATE_NAME = "options.v1.state"
"""The value is (headers, rows): SHA-256 -> deflated text of an option header, the last ones; family -> {SHA-256: what
`macro_words` gave as (named, begun, is raw), `()` for nothing}."""
KEPT_HEADERS = 16
MOST_ROWS = 50_000

_SOURCES = (".c", ".cc", ".cpp", ".cxx", ".c++", ".C", ".S", ".sx", ".m", ".mm")
_LANGUAGES = ("c", "c++", "assembler-with-cpp", "none", "objective-c", "objective-c++")
_WHOLE = (
    (r"-g(?:gdb|dwarf|stabs\+?|xcoff\+?|coff|vms|btf|ctf)?3\Z|-f(?:standalone-)?debug-macro", "debug information"),
    (r"-flto|-fembed-bitcode", "link-time optimisation"),
    (r"-ansi\Z|-std=(?:c|iso9899:)(?:89|90|1990|199409)\Z|-traditional", "a language without // comments"),
    (r"-finput-charset|-fpreprocessed|-fdirectives-only|-fmodules?|-d|-E\Z|-P\Z|-fplugin|-Wunused-macros", "its words"),
)
_DOUBTS = tuple((re.compile(pattern), why) for pattern, why in _WHOLE)
_PRECOMPILED = (".gch", ".pch", ".pcm")

_Files = Sequence[tuple[str, str]]
"""(path, SHA-256)."""


class OptionUses:
    """Of one project. `names`: which headers. `response`: the text of a response file. Safe to use from several
    threads: at worst two of them read the same."""

    def __init__(
        self,
        state: Path,
        resolve: Callable[[str], str],
        names: OptionNames,
        response: Callable[[str], str | None],
    ) -> None:
        self._path, self._resolve, self._response = state / STATE_NAME, resolve, response
        self._names = names
        self._headers: dict[str, OptionHeader | str] = {}
        self._doubts: dict[tuple[str, ...], str] = {}
        self._said: dict[tuple[tuple[str, ...], bytes], MacroWords] = {}
        self._views: dict[tuple[str, tuple[bytes, ...]], str] = {}
        self._changed = False
        self._last: tuple[object, object, MacroWords | str] = (None, None, NO_WORDS)
        """The last words: a header is compared with what it was."""

    # --- what is remembered -----------------------------------------------------------------------

    @cached_property
    def _saved(self) -> tuple[dict[str, bytes], dict[bytes, dict[str, MacroWords]]]:
        value, _ = statefile.load(self._path, STATE_KIND)
        match value:
            case (dict() as headers, dict() as families):
                texts = {name: text for name, text in headers.items() if name.__class__ is str}
                return texts, {family: _rows(rows) for family, rows in families.items() if family.__class__ is bytes}
        return {}, {}

    def save(self) -> None:
        """Keep what was read. Losing it costs reading again, and a name in an explanation."""
        if not self._changed:
            return
        headers, families = self._saved
        last = dict(list(headers.items())[-KEPT_HEADERS:])
        plain = {family: _plain(rows) for family, rows in families.items() if len(rows) <= MOST_ROWS}
        with contextlib.suppress(OSError, ValueError):
            statefile.save(self._path, STATE_KIND, (last, plain))
        self._changed = False

    # --- questions ----------------------------------------------------------------------------------

    def result_key(
        self, action: Action, inputs: Iterable[tuple[str, Entry]], base: ActionKey, found: IdentifiedSet
    ) -> ActionKey:
        """The key of the result of an action that reads this."""
        if not found.options:
            return full_key(base, found.key)
        files = (*((path, entry.sha256) for path, entry in inputs), *found.discovered)
        parts = []
        for path, entry in found.options:
            used = self._used(action, files, path, entry.sha256)
            if isinstance(used, str):
                parts.append(Part(InputKind.DISCOVERED, path, str(entry.digest)))
            else:
                parts.append(Part(InputKind.OPTION, path, self._view(entry.sha256, tuple(used))))
        return full_key(base, found.key, parts)

    def is_alike(self, action: Action, files: _Files, path: str, before: str, after: str) -> bool:
        """Does the header at `path` say the same to an action that reads these files, with either content?"""
        views = []
        for sha256 in (before, after):
            used = self._used(action, files, path, sha256)
            if isinstance(used, str):
                return False
            views.append(self._view(sha256, tuple(used)))
        return views[0] == views[1]

    def explained(self, action: Action, record: Record, moved: KeyDifference) -> KeyDifference | None:
        """Of an option header that moved: the first option that counts for the action, None if none did; why it counts
        as a whole where it does. Anything else as it is."""
        if moved.kind is not InputKind.DISCOVERED or not self._names.matches(moved.name):
            return moved
        try:
            now = digest_bytes(read_file(self._resolve(moved.name))).hex
        except OSError:
            return moved
        files = (*record.inputs, *record.discovered)
        names: set[bytes] = set()
        for sha256 in (moved.before, now):
            used = self._used(action, files, moved.name, sha256)
            if isinstance(used, str):
                return moved._replace(name=f"{moved.name} (as a whole: {used})", after=now)
            names.update(used)
        old, new = self._header(moved.name, moved.before), self._header(moved.name, now)
        assert isinstance(old, OptionHeader) and isinstance(new, OptionHeader)  # else nothing was used
        for name in sorted(names):
            if old.macros.get(name) != new.macros.get(name):
                return KeyDifference(InputKind.OPTION, name.decode(), old.value(name), new.value(name))
        return None

    # --- one compile ----------------------------------------------------------------------------------

    def _used(self, action: Action, files: _Files, path: str, sha256: str) -> list[bytes] | str:
        """The options of the header at `path` that an action may look at which reads these files; why all of it counts
        if it does."""
        if doubt := self._doubt(action):
            return doubt
        header = self._header(path, sha256)
        if isinstance(header, str):
            return header
        case = (header.family, action.outputs, path)
        last = self._last
        if last[0] == case and last[1] is files:
            words = last[2]
        else:
            words = self._words(header.family, files, path)
            self._last = (case, files, words)
        if isinstance(words, str):
            return words
        said = self._of_command(action, header.family)
        return header.used(words.named | said.named, words.begun | said.begun)

    def _of_command(self, action: Action, family: bytes) -> MacroWords:
        """What the words of its command hold, those of response files too."""
        flags = _flags(action)
        known = self._said.get((flags, family))
        if known is None:
            known = loose_words(os.fsencode("\n".join(self._expanded(action))), family)
            self._said[flags, family] = known
        return known

    def _expanded(self, action: Action) -> tuple[str, ...]:
        statement, read = action.statement, self._response
        assert statement is not None  # else it counts as a whole
        return tuple(expand(action.argv, lambda name: read(statement.located(name))))

    def _words(self, family: bytes, files: _Files, without: str) -> MacroWords | str:
        """What the texts of a compile hold; why that cannot be told."""
        rows = self._saved[1].setdefault(family, {})
        named: set[bytes] = set()
        begun: set[bytes] = set()
        for path, sha256 in files:
            if path == without:
                continue
            row = rows.get(sha256)
            if row is None:
                row = self._read(family, path, sha256)
                if row is None:
                    return f"{path} cannot be read"
            if row is not NO_WORDS:
                if row.is_raw:
                    return f"{path} may read files as bytes"
                named |= row.named
                begun |= row.begun
        return MacroWords(frozenset(named), frozenset(begun))

    def _read(self, family: bytes, path: str, sha256: str) -> MacroWords | None:
        if path.endswith(_PRECOMPILED):
            return None
        data = self._text(path, sha256)
        if data is None:
            return None
        row = macro_words(data, family)
        self._saved[1][family][sha256] = NO_WORDS if row == NO_WORDS else row
        self._changed = True
        return row

    def _text(self, path: str, sha256: str) -> bytes | None:
        """What the file holds, if it is that."""
        try:
            data = read_file(self._resolve(path))
        except OSError:
            return None
        return data if digest_bytes(data).hex == sha256 else None

    def _header(self, path: str, sha256: str) -> OptionHeader | str:
        """The header of this content, as it lies there or as it was seen before."""
        known = self._headers.get(sha256)
        if known is None:
            texts = self._saved[0]
            data = _inflated(texts.get(sha256))
            if data is None:
                data = self._text(path, sha256)
                if data is None:
                    return "what it held is not known"
                texts[sha256] = zlib.compress(data, 1)
                self._changed = True
            known = self._headers[sha256] = parse_option_header(data)
        return known

    def _view(self, sha256: str, names: tuple[bytes, ...]) -> str:
        known = self._views.get((sha256, names))
        if known is None:
            header = self._headers[sha256]
            assert isinstance(header, OptionHeader)
            known = self._views[sha256, names] = header.view(names)
        return known

    def _doubt(self, action: Action) -> str:
        """Why more than the tokens of an option header may reach the result of an action, `""` if it cannot."""
        if action.statement is None or action.count_as != "compiled":
            return "it is no compile"
        if not action.inputs or not action.inputs[0].endswith(_SOURCES):
            return "its language is not known"
        flags = _flags(action)
        known = self._doubts.get(flags)
        if known is None:
            known = self._doubts[flags] = _doubt_of(self._expanded(action))
        return known


def _flags(action: Action) -> tuple[str, ...]:
    """The words that many compiles share: all but those of their own files."""
    own = (
        posixpath.basename(action.inputs[0]),
        posixpath.basename(action.outputs[0]),
        posixpath.basename(action.depfile),
    )
    return tuple([word for word in action.argv if not word.endswith(own) or "=" in word])


def _doubt_of(words: Sequence[str]) -> str:
    for n, word in enumerate(words):
        if word.startswith("-x") and (word[2:] or "".join(words[n + 1 : n + 2])) not in _LANGUAGES:
            return f"the language of {word}"
        if word[:1] == "-":
            for piece in word.split(","):
                for pattern, why in _DOUBTS:
                    if pattern.match(piece):
                        return f"{why}: {piece}"
    return ""


def _inflated(data: Any) -> bytes | None:
    if data.__class__ is not bytes:
        return None
    try:
        return zlib.decompress(data)
    except zlib.error:
        return None


def _plain(rows: dict[str, MacroWords]) -> dict[str, tuple[Any, ...]]:
    return {
        sha256: () if row is NO_WORDS else (tuple(row.named), tuple(row.begun), row.is_raw)
        for sha256, row in rows.items()
    }


def _rows(rows: Any) -> dict[str, MacroWords]:
    """What `_plain` was given; what it could not have made is left out."""
    found: dict[str, MacroWords] = {}
    for sha256, row in rows.items() if rows.__class__ is dict else ():
        match row:
            case ():
                found[sha256] = NO_WORDS
            case (tuple() as named, tuple() as begun, bool() as is_raw):
                found[sha256] = MacroWords(frozenset(named), frozenset(begun), is_raw)
    return found
