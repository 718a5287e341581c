"""Many files of one search at once say what each of them says alone, by the order of the search itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.formats.include_search import Directive, Directives, IncludeSearch, chains, join
from pipeline.formats.include_ways import IncludeWays

_DIRECTORIES = ["a", "b", "a/b", "/usr/include", ".", "{root}/x", "../up", "/opt/x/../y", "{idf}/include"]
_NAMES = ["h.h", "x/h.h", "../h.h", "./h.h", "a//b.h", "/abs/h.h", "b/h.h", "x/../h.h"]
_FILES = ["src/a.c", "a/h.h", "/usr/include/h.h", "h.h", "{idf}/include/x/h.h"]
_directories = st.lists(st.sampled_from(_DIRECTORIES), max_size=5, unique=True).map(tuple)
_searches = st.builds(IncludeSearch, quote=_directories, bracket=_directories, after=_directories, loose=_directories)
_directives = st.builds(Directive, st.sampled_from(_NAMES), st.booleans(), st.booleans())
_texts = st.tuples(st.sampled_from(_FILES), st.lists(_directives, max_size=4, unique=True))
_places = [join(directory, name) for directory in (*_DIRECTORIES, "src") for name in _NAMES if name[0] != "/"]


@given(_searches, st.lists(_texts, max_size=4), st.sets(st.sampled_from(_places), max_size=8))
def test_every_place_before_the_one_that_was_read(
    search: IncludeSearch, texts: list[tuple[str, list[Directive]]], read: set[str]
) -> None:
    places: set[str] = set()
    explained: set[str] = set()
    files = [(path, Directives(tuple(found), False)) for path, found in texts]
    for path, found in files:
        for directive, chain in chains(search, path, found):
            hits = [n for n, place in enumerate(chain) if place in read]
            if hits:
                passed = chain[: 1 + (hits[-1] if directive.is_next else hits[0])]
                explained.update(read.intersection(passed))
                places.update(set(passed) - read)
                places.update(join(directory, directive.name) for directory in search.loose)
    ways = IncludeWays(search)
    for _ in range(2):
        said = ways.shadows(files, lambda place: place if place in read else "")
        assert (set(said.places), set(said.explained)) == (places, explained)


def test_a_header_that_no_text_names_counts_below_each_directory_before_its_own() -> None:
    ways = IncludeWays(IncludeSearch(bracket=("a", "b", "c"), loose=("l",)))
    assert ways.unexplained([], ["b/x/h.h"]) == {"a/x/h.h", "l/x/h.h"}
    assert ways.unexplained(["src", "."], ["b/x/h.h"]) == {"a/x/h.h", "l/x/h.h", "src/x/h.h", "x/h.h"}
    compilers = "/usr/lib/gcc/12/include/stddef.h"
    assert ways.unexplained([], [compilers]) == {"a/stddef.h", "b/stddef.h", "c/stddef.h", "l/stddef.h"}
    assert ways.unexplained(["src"], []) == set()
