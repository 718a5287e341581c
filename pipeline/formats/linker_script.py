"""Which files does a linker script read besides itself: INCLUDE, INPUT, GROUP, STARTUP and the libraries they name.

Pure: the text comes in, names come out; whoever can look at files decides where a name leads. Does not evaluate the
script. Source: GNU ld's manual, "Commands Dealing with Files"; lld reads the same commands. Invariant: every name that
either linker could open is returned; one too many costs a look for a file that is not there.

Linkers' own dependency files do not serve for scripts: lld's (22, through zig) leaves them out.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Container, Iterator, Sequence

from cache.named_tuple import NamedTuple
from pipeline.formats.include_search import plain

# Compiled when there is a script: most links ask about libraries alone.
_COMMENT = r"(?s)/\*.*?\*/"
_INCLUDE = r"\bINCLUDE\s+(\"[^\"]+\"|[^\s;]+)"
_FILES = r"\b(?:INPUT|GROUP|STARTUP|AS_NEEDED)\s*\(([^()]*(?:\([^()]*\)[^()]*)*)\)"
_SEARCH_DIR = r"\bSEARCH_DIR\s*\(\s*(\"[^\"]+\"|[^)\s]+)\s*\)"
_NAME = r'"[^"]+"|[^\s,()"]+'


def named_files(text: str) -> tuple[str, ...]:
    """The names in the script, in order, each once; `-lNAME` as it stands there."""
    text = re.sub(_COMMENT, " ", text)
    found = [match[1].strip('"') for match in re.finditer(_INCLUDE, text)]
    for match in re.finditer(_FILES, text):
        found += [word.strip('"') for word in re.findall(_NAME, match[1])]
    return tuple(dict.fromkeys(name for name in found if name != "AS_NEEDED"))


def script_search(text: str) -> tuple[str, ...]:
    """The directories of SEARCH_DIR."""
    found = (match[1].strip('"=') for match in re.finditer(_SEARCH_DIR, re.sub(_COMMENT, " ", text)))
    return tuple(dict.fromkeys(map(plain, found)))


def places(name: str, search: Sequence[str], script: str = "") -> Iterator[str]:
    """Where a name is looked for: as it stands, beside the script that has it, below the directories of `-L`. Linkers
    do not agree on the order of the first two. Of a library: the static one."""
    if name.startswith("-l"):
        yield from (f"{directory}/{library_names(name[2:])[-1]}" for directory in search)
        return
    yield name
    if not name.startswith("/"):
        beside = posixpath.dirname(script)
        yield from (f"{directory}/{name}" for directory in (*([beside] if beside else []), *search))


def library_names(name: str) -> tuple[str, ...]:
    """The files that `-lNAME` may mean, in the order in which they are tried in each directory."""
    return (name[1:],) if name.startswith(":") else (f"lib{name}.so", f"lib{name}.a")


class Libraries(NamedTuple):
    """What a link command says about libraries: names as after `-l`, and the directories of `-L` without `./`."""

    names: tuple[str, ...]
    search: tuple[str, ...]


def libraries(argv: Sequence[str]) -> Libraries:
    """Read a command whose response files have been put in place. The words that are passed on to the linker count."""
    words: list[str] = []
    rest = iter(argv)
    for word in rest:
        if word[:1] != "-":
            words.append(word)
        elif word.startswith("-Wl,"):
            words += word[4:].split(",")
        elif word == "-Xlinker":
            words.append(next(rest, ""))
        else:
            words.append(word)
    names: list[str] = []
    search: list[str] = []
    following = iter(words)
    for word in following:
        if word[:1] != "-":
            continue  # as most words of a link, which are objects
        for options, found in ((_LIBRARY, names), (_LIBRARY_PATH, search)):
            option = next((option for option in options if word.startswith(option)), None)
            if option is None:
                continue
            value = word[len(option) :] or next(following, "")
            if option.startswith("--"):
                value = value.removeprefix("=")
            found.append(value if found is names else plain(value))
            break
    return Libraries(tuple(dict.fromkeys(names)), tuple(dict.fromkeys(search)))


_LIBRARY = ("--library=", "--library", "-l")
_LIBRARY_PATH = ("--library-path=", "--library-path", "--library-directory=", "--library-directory", "-L")


def given_scripts(argv: Sequence[str]) -> list[str]:
    """What `-T` names, in a command that runs a compiler or a linker."""
    words = [piece for word in argv for piece in (word[4:].split(",") if word.startswith("-Wl,") else [word])]
    words = [word for word in words if word != "-Xlinker"]
    found = []
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word in ("-T", "--script", "-dT", "--default-script"):
            found.append(following)
        elif word.startswith(("--script=", "--default-script=")):
            found.append(word.partition("=")[2])
        elif word.startswith("-T") and not word.startswith(("-Tbss", "-Tdata", "-Ttext", "-Trodata", "-Tldata")):
            found.append(word[2:].removeprefix("="))
    return [name for name in dict.fromkeys(found) if name]


def library_path(argv: Sequence[str]) -> tuple[str, ...]:
    """The `-L` directories of a link command."""
    return libraries(argv).search


def earlier_libraries(said: Libraries, was_read: Container[str]) -> Iterator[str]:
    """Where a library would be found first: every place that is tried before the one of a file that was read."""
    for name in said.names:
        for place in (plain(f"{directory}/{file}") for directory in said.search for file in library_names(name)):
            if place in was_read:
                break
            yield place
