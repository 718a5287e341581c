"""Which places would be found first, of what the files of one search include; each way worked out once.

Real projects search sixty directories for each of some hundred headers of each compile: joining their names anew for
every compile cost more than all else beside it. Pure: texts and answers come in, names go out. Invariant: as
`include_search`: a place where a new file would be read instead of one that was read is among what is given.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence

from pipeline.formats.include_search import Directive, Directives, IncludeSearch, Shadows, join, plain, ways


class IncludeWays:
    """One search, for all compiles that share it. Safe to use from several threads: at worst two work out the same."""

    def __init__(self, search: IncludeSearch) -> None:
        self._search = search
        self._quoted, self._angled = _fronts((*search.quote, *search.angled)), _fronts(search.angled)
        self._loose = _fronts(search.loose)
        self._places: dict[Directive, Mapping[str, None]] = {}
        self._instead: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}

    def _of(self, directive: Directive) -> Mapping[str, None]:
        """The places in which a directive is looked for, but for the one beside the file that it stands in."""
        found = self._places.get(directive)
        if found is None:
            fronts = self._quoted if directive.quoted and not directive.is_next else self._angled
            found = self._places[directive] = dict.fromkeys(_below(fronts, directive.name))
        return found

    def shadows(self, files: Iterable[tuple[str, Directives]], was_read: Callable[[str], str]) -> Shadows:
        """What the directives of these files say together. `was_read` gives the name under which the file of a place
        was read, `""` when it was not."""
        places: set[str] = set()
        explained: set[str] = set()
        judged: dict[Directive, str] = {}
        """Directive -> what it leads to without looking beside its file."""
        for path, found in files:
            beside = posixpath.dirname(path)
            for directive in found.named:
                if directive.name.startswith("/"):
                    continue
                is_beside = directive.quoted and not directive.is_next
                first = join(beside, directive.name) if is_beside else ""
                name = was_read(first) if first else ""
                if name:
                    explained.add(name)
                    places.update(_below(self._loose, directive.name))
                    if first not in self._of(directive):
                        continue
                # One that is searched as well is looked for in both ways: -I- leaves out the includer's own directory.
                if directive not in judged:
                    judged[directive] = self._judge(directive, was_read, places, explained)
                if first and not name and judged[directive]:
                    places.add(first)
        return Shadows(frozenset(places), frozenset(explained))

    def _judge(
        self, directive: Directive, was_read: Callable[[str], str], places: set[str], explained: set[str]
    ) -> str:
        """Add what a directive says to `places` and `explained`; the name of what it leads to, `""` for nothing."""
        last = ""
        passed: list[str] = []
        for place in self._of(directive):
            name = was_read(place)
            if not name:
                passed.append(place)
                continue
            last = name
            explained.add(name)
            places.update(passed)
            passed.clear()
            # Which directory #include_next begins behind cannot be told: it may find every file of the name.
            if not directive.is_next:
                break
        if last:
            places.update(_below(self._loose, directive.name))
        return last

    def unexplained(self, beside: Sequence[str], headers: Iterable[str]) -> set[str]:
        """Where a file would be read instead of one of `headers`, however it is named: in the directories `beside`, and
        in every directory of the search that may come before its own."""
        found: set[str] = set()
        near = _fronts(tuple(map(plain, beside)))
        for header in headers:
            known = self._instead.get(header)
            if known is None:
                said = ways(header, self._search)
                earlier = [place for name, directories in said for place in _below(_fronts(directories), name)]
                known = self._instead[header] = tuple(dict.fromkeys(name for name, _ in said)), tuple(earlier)
            names, places = known
            found.update(places)
            for name in names:
                found.update(_below(near, name))
        return found


def _fronts(directories: Sequence[str]) -> tuple[str, ...]:
    """What stands before the names of their files."""
    return tuple(["" if directory in ("", ".") else f"{directory.rstrip('/')}/" for directory in directories])


def _below(fronts: Sequence[str], name: str) -> list[str]:
    """As `join` with each of these directories, which are plain."""
    if plain(name) != name or name.startswith("/"):
        return [plain(front + name) if not name.startswith("/") else plain(name) for front in fronts]
    return [front + name for front in fronts]
