"""Where the compiles of one run look for headers, each set of flags read once.

Compiles mostly differ in their own files alone: reading the words of ten thousand commands anew for each question costs
more than the files that are stored. Does not know which directories exist. Invariant: as `include_search.of_command`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from pipeline.formats import include_search
from pipeline.formats.command_words import expand
from pipeline.formats.include_search import IncludeSearch
from pipeline.model import Action, Statement


class CommandSearches:
    """`read` gives the text of a response file, None where there is none. Safe to use from several threads: at worst
    two of them read the same words."""

    def __init__(self, read: Callable[[str], str | None] = lambda path: None) -> None:
        self._read = read
        self._known: dict[object, IncludeSearch] = {}
        self._lately: dict[int, tuple[Action, IncludeSearch]] = {}
        """Of the last actions that were asked about, by identity: each is more than once."""

    def of(self, action: Action) -> IncludeSearch:
        """The search of a compile. Its own files are not among `others`: they are no directories."""
        if action.statement is not None:
            return self._of_statement(action, action.statement)
        lately = self._lately.get(id(action))
        if lately is not None and lately[0] is action:
            return lately[1]
        inputs, argv = action.inputs, action.argv
        source = inputs[0] if inputs else ""
        # A source that is named twice may be an option's too; what a response file says may change meanwhile.
        if argv.count(source) != 1 or "@" in "".join(argv):
            return include_search.of_command(argv, action.env, self._read)
        own = dict.fromkeys((source, action.depfile, *action.outputs), "")
        flags = tuple(map(own.get, argv, argv))  # in C, since a command may have a hundred words
        known = self._known.get((flags, action.env))
        if known is None:
            found = include_search.of_command(flags, action.env, self._read)
            known = found._replace(others=tuple(filter(None, found.others)))
            self._known[flags, action.env] = known
        if len(self._lately) >= _LATELY:
            self._lately = {}
        self._lately[id(action)] = (action, known)
        return known

    def spoken(self, action: Action) -> tuple[str, ...]:
        """The words of a command, with those of response files in their place."""
        statement = action.statement
        return action.argv if statement is None else expand(action.argv, self._reader(statement))

    def _reader(self, statement: Statement) -> Callable[[str], str | None]:
        """The text of a response file by its name in a command. The statement's own is there only while that runs."""
        path, text = statement.rspfile

        def read(name: str) -> str | None:
            located = _from_root(name, statement)
            return text if path and located in (path, f"{{root}}/{path}") else self._read(located)

        return read

    def _of_statement(self, action: Action, statement: Statement) -> IncludeSearch:
        """Its words name files from where ninja runs; here all of them are named from the root."""
        words = tuple("" if _OWN.search(word) and word[:1] not in ("-", "@") else word for word in action.argv)
        settled = not any("@" in word for word in words)
        known = self._known.get((words, action.env, statement.directory)) if settled else None
        if known is None:
            found = include_search.of_command(words, action.env, self._reader(statement))
            known = _search_from_root(found, statement)
            self._known[words, action.env, statement.directory] = known
        return known


_LATELY = 64
_OWN = re.compile(r"\.(?:c|cc|cpp|cxx|c\+\+|C|s|S|sx|o|obj|d)\Z")
"""The source, the object and the depfile of a compile: no directories."""


def _search_from_root(found: IncludeSearch, statement: Statement) -> IncludeSearch:
    def located(paths: Sequence[str]) -> tuple[str, ...]:
        return tuple(_from_root(path, statement) for path in paths if path)

    return IncludeSearch(
        quote=located(found.quote),
        bracket=located(found.bracket),
        system=located(found.system),
        after=located(found.after),
        loose=located(found.loose),
        others=located(found.others),
        forced=tuple(name for name in found.forced if name[:1] not in ("/", "{", "")),
        here=statement.directory,
        placed=located([name for name in found.forced if name[:1] in ("/", "{")]),
    )


def _from_root(path: str, statement: Statement) -> str:
    return path.removeprefix("{root}/") if path.startswith("{root}/") else statement.located(path)
