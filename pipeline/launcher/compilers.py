"""What a compiler is and where it looks by itself: its identity, the files that it consists of, its own directories.

Asks the driver, once per content of it and search path; digests are remembered by stamps. Does not know what is
compiled. Invariant: two compilers of one identity consist of the same bytes, as far as the driver and its dry run
(`-###`) name them; a compiler that cannot be asked has none.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from cache import statefile
from cache.named_tuple import NamedTuple
from pipeline.effects.versions import said
from pipeline.toolchain import programs
from pipeline.toolchain.ninja_tools import StatementTools

_KIND = "cc compilers 1"
_QUOTED = re.compile(r'[\s"=]+')
_OWN = re.compile(r"^#include <\.\.\.> search starts here:\n(.*?)^End of search list", re.MULTILINE | re.DOTALL)
_ZIG = ("cc", "c++")


class Compiler(NamedTuple):
    """`files`: absolute paths whose content is the identity; `absent`: where another program would be found first;
    `directories`: where it looks for headers by itself, in order; `own_words`: how many words stand for it."""

    identity: str
    files: tuple[str, ...]
    absent: tuple[str, ...]
    directories: tuple[str, ...]
    own_words: int = 1


def find(words: list[str], language: str, cwd: str, environment: Mapping[str, str], state: Path) -> Compiler | None:
    """The compiler that a command calls; None where it cannot be told. `state`: where what was asked is remembered."""
    search = environment.get("PATH", os.defpath)
    count = own_words(words)
    tools = StatementTools(state, Path(cwd), search)
    name = tools.tool(words[0], (words[0],))
    if not name or (os.path.basename(words[0]).startswith("python")):  # noqa: PTH119
        return None
    path = tools.tools[name].path
    more, directories, specs = _asked(path, words[1:count], language, tools.tools[name].identity, environment, state)
    found = [(place, _sha256(tools, place)) for place in more]
    digests = [tools.tools[name].identity, *(f"{place} {digest}" for place, digest in found if digest)]
    with contextlib.suppress(OSError):
        state.mkdir(parents=True, exist_ok=True)
    tools.save()
    absent = dict.fromkeys((*tools.absent, *specs))
    for part in tools.files:
        absent.update(dict.fromkeys(_earlier(part, search)))
    identity = hashlib.sha256("\n".join(digests).encode()).hexdigest()
    return Compiler(identity, tuple(dict.fromkeys((*tools.files, *more))), tuple(absent), directories, count)


def own_words(words: list[str]) -> int:
    """How many words stand for the compiler: two for `zig cc`."""
    program = os.path.basename(words[0]).removesuffix(".exe")  # noqa: PTH119
    return 2 if program == "zig" and words[1:2] and words[1] in _ZIG else 1


def _sha256(tools: StatementTools, place: str) -> str:
    name = tools.tool(place)
    return tools.tools[name].identity if name else ""


def _earlier(part: str, search: str) -> tuple[str, ...]:
    """Where a part that lies on the path would be found before."""
    found = programs.find(os.path.basename(part), search)  # noqa: PTH119
    if found is None or found.path != part:
        return ()
    return tuple(place for place in found.earlier if not os.path.lexists(place))


def _asked(
    path: str, more: list[str], language: str, identity: str, environment: Mapping[str, str], state: Path
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """(files that its dry run names and the specs that it reads, its own include directories, where it would find
    specs)."""
    said_by = (environment.get(name, "") for name in ("PATH", "COMPILER_PATH", "GCC_EXEC_PREFIX"))
    key = "\0".join((identity, path, *more, language, *said_by))
    name = state / f"compilers.{hashlib.sha256(key.encode('utf-8', 'surrogateescape')).hexdigest()[:24]}.state"
    known, _ = statefile.load(name, _KIND)
    if known.__class__ is tuple and len(known) == 3 and all(map(os.path.isfile, known[0])):
        return known
    ask = [path, *more]
    dry = said([*ask, "-###", "-x", language, "-c", os.devnull, "-o", "x.o"], environment)
    words = [*_QUOTED.split(dry), *said([*ask, "-print-file-name=specs"], environment).split()]
    files = sorted({word for word in words if word.startswith("/") and os.path.isfile(word)})  # noqa: PTH113
    found = _OWN.search(said([*ask, "-E", "-v", "-x", language, os.devnull], {**environment, "LC_ALL": "C"}))
    directories = tuple(line.strip() for line in found[1].splitlines()) if found else ()
    library = said([*ask, "-print-libgcc-file-name"], environment).strip()
    place = f"{os.path.dirname(library)}/specs" if library.startswith("/") else ""  # noqa: PTH120
    value = (tuple(files), directories, (place,) if place and place not in files else ())
    with contextlib.suppress(OSError):
        statefile.save(name, _KIND, value)
    return value
