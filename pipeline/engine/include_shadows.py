"""For one compile that ran: the places where a new file would be included instead of one that was read.

Reads the texts of what was read, each once per run, and asks whether words are directories. Does not know keys, the
cache or which places are empty. Invariant: as `formats/include_search`, on the files as they are now; headers whose
directive cannot be found in any text count in every way in which they could have been included.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Sequence

from cache.durable import read_file
from pipeline.engine.searches import CommandSearches
from pipeline.formats import include_search
from pipeline.formats.include_search import UNREADABLE, Directives, IncludeSearch, Shadows
from pipeline.formats.include_ways import IncludeWays
from pipeline.model import Action

Rename = Callable[[str], str]

NOTHING_FORCED = Shadows(frozenset(), frozenset())


class IncludeShadows:
    """What the compiles of one run share. Safe to use from several threads: at worst two of them read the same."""

    def __init__(self, searches: CommandSearches, resolve: Rename, normalised: Rename, plain: Rename) -> None:
        """`resolve`: a path of a key as one that can be opened; `normalised`: a path as a compiler spells it, as it
        stands in keys; `plain`: such a path without `..` where that names the same file."""
        self._resolve, self._normalised, self._plain = resolve, normalised, plain
        self._directives: dict[str, Directives] = {}
        self._by_lines: dict[str, Directives] = {}
        self._alike: dict[Directives, Directives] = {}
        self._searches = searches
        self._in_keys: dict[IncludeSearch, IncludeSearch] = {}
        self._ways: dict[IncludeSearch, IncludeWays] = {}
        self._places: dict[object, tuple[str, ...]] = {}
        self._headers: dict[object, tuple[Shadows, tuple[str, ...]]] = {}

    def search_of(self, action: Action) -> IncludeSearch:
        """The search of a command, its directories as they stand in keys."""
        found = self._searches.of(action)
        search = self._in_keys.get(found)
        if search is None:
            search = self._in_keys[found] = IncludeSearch(
                quote=self._directories(found.quote),
                bracket=self._directories(found.bracket),
                system=self._directories(found.system),
                after=self._directories(found.after),
                loose=self._directories(found.loose),
                forced=found.forced if found.here else tuple(map(self._named, found.forced)),
                here=found.here,
                placed=tuple(map(self._named, found.placed)),
            )
        loose = [word for word in found.others if os.path.isdir(self._resolve(word))]  # noqa: PTH112
        return search._replace(loose=self._directories((*found.loose, *loose))) if loose else search

    def places(self, action: Action, headers: tuple[str, ...]) -> tuple[str, ...]:
        """Where a new file would be found first, sorted; some of these may be there. `headers` as the compiler spelt
        them. The same for sources of one directory that include the same."""
        search, source = self.search_of(action), action.inputs[0]
        found = self._now(source)
        case = (search, source.rpartition("/")[0], found, headers)
        known = self._places.get(case)
        if known is None:
            known = self._places[case] = tuple(sorted(self._places_of(search, source, found, headers)))
        return known

    def _places_of(self, search: IncludeSearch, source: str, found: Directives, headers: tuple[str, ...]) -> set[str]:
        of_headers, computed = self._of_headers(search, headers)
        own = self._ways_of(search).shadows([(source, found)], self._was_read(headers))
        is_any = search.forced or search.placed
        forced = include_search.forced_places(search, self._was_read(headers)) if is_any else NOTHING_FORCED
        places = {*of_headers.places, *own.places, *forced.places}
        if computed or found.computed:
            beside = [*computed, *([source] if found.computed else [])]
            unexplained: Sequence[str] = headers
        else:
            beside = [source, *headers]
            known = of_headers.explained | own.explained | forced.explained
            unexplained = [header for header in headers if header not in known]
        if unexplained:
            near = dict.fromkeys(posixpath.dirname(path) for path in beside if not path.startswith("{"))
            places |= self._ways_of(search).unexplained([*near], unexplained)
        return places

    def _of_headers(self, search: IncludeSearch, headers: tuple[str, ...]) -> tuple[Shadows, tuple[str, ...]]:
        """What the headers' own directives say, and which headers include what cannot be told."""
        known = self._headers.get((search, headers))
        if known is None:
            files = [(header, self._read(header)) for header in headers]
            found = self._ways_of(search).shadows(files, self._was_read(headers))
            computed = tuple(header for header in headers if self._read(header).computed)
            known = self._headers[search, headers] = found, computed
        return known

    def _ways_of(self, search: IncludeSearch) -> IncludeWays:
        found = self._ways.get(search)
        if found is None:
            found = self._ways[search] = IncludeWays(search)
        return found

    def _was_read(self, headers: Sequence[str]) -> Callable[[str], str]:
        names = {self._plain(header): header for header in headers}
        names.update((header, header) for header in headers)

        def was_read(place: str) -> str:
            found = names.get(place)
            return found if found is not None else names.get(self._plain(place), "") if "/../" in place else ""

        return was_read

    def _read(self, header: str) -> Directives:
        found = self._directives.get(header)
        if found is None:
            found = self._directives[header] = self._now(header)
        return found

    def _now(self, path: str) -> Directives:
        """What the file says now. A source is read by one action, or by very few, so that nothing is kept of it."""
        try:
            return self._directives_of(os.fsdecode(read_file(self._resolve(path))))
        except OSError:
            return UNREADABLE

    def _directives_of(self, text: str) -> Directives:
        """Ten thousand sources that include the same share what is known about it."""
        said = include_search.said_lines(text)
        found = self._by_lines.get(said) if said else None
        if found is None:
            found = include_search.directives(text)
            found = self._alike.setdefault(found, found)
            if said and not found.computed:
                self._by_lines[said] = found
        return found

    def _directories(self, directories: Sequence[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(map(self._named, directories)))

    def _named(self, path: str) -> str:
        """A path of the command as it stands in keys; the project's own directory is `.`."""
        root = self._resolve("").rstrip("/")
        path = path.replace("{root}", root)
        if path.rstrip("/") == root:
            return "."
        return include_search.plain(self._normalised(path)) if path != "." else path
