"""`hotplate`: answer at once when nothing changed, else be `doit` with the same arguments in the same process.

Reads one state file, which `gate_state` wrote after a run that ended well, and stats what it names. Does not know
doit, the configuration, or what a stage is beyond its name. Invariants: it says "up to date" only when every file and
directory that the last run's answer depended on has the stamp that it had then, or (`gate_touched`) is a source with
the same bytes, in the same environment; whatever it cannot be sure of, a damaged state file included, it hands over; it
writes nothing.

What it answers was no run: no lock was taken, no stage begun, so there is no event log of it. A log per answer would be
a file per keystroke that nobody reads, would need the lock, and would cost more than all the stats of 100 units.

This module is the whole process of a warm run, so it imports only what the interpreter has loaded anyway: no `typing`,
no `pathlib`, and no `__future__`, whose file would have to be read.
"""

import os
import sys

# What `operator` hands on; its own file takes 0.3 ms of the budget.
from _operator import attrgetter, eq
from os import stat

from cache.statebytes import decode

TYPE_CHECKING = False  # type checkers know the name
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

KIND = "gate 3"
"""
The value is a tuple: identity (see `identity`), selections (dict: canonical selection -> what `doit` prints when all of
it is up to date), environment (names and values), paths that must not exist, facts for `doit`, how many files the
listing has, the listing. Its first `facts["files"]` files are those that actions use and nothing else does.

    listing = stamp* group*         one stamp per file, in the order of the names
    stamp   = ctime in ns, size, inode; 64 bits each, no sign, in the machine's byte order (mtime where `stamp_of` says)
    group   = directory NUL (name NUL)* NUL
              the directory ends in "/" and is relative to the project, absolute, or "./"; no name is empty
    History: 2 had lists of paths and of stamps, of which marshal made 80,000 objects, one by one.

Files are grouped by directory because a name is found faster from its own directory than through five others.
"""
DIRECTORY = ".deploy/gate.v1"
STAGES = ("fingerprint", "compile", "link")

# ctime moves with every change of content, mode and (in a directory) entries, and cannot be set, so that mtime says
# nothing more; where it is the time of creation (Windows) mtime must do.
stamp_of = attrgetter("st_ctime_ns" if os.name == "posix" else "st_mtime_ns", "st_size", "st_ino")


def selection_of(argv: "Sequence[str]") -> "tuple[str, tuple[str, ...]] | None":
    """(profile as written or "", stages) when `argv` asks for host stages and nothing else."""
    profile, stages = "", []
    words = iter(argv)
    for word in words:
        if word in STAGES:
            stages.append(word)
        elif word == "--profile" and stages:
            profile = next(words, "")
        elif word.startswith("--profile=") and stages:
            profile = word[10:]
        else:
            return None
    if not stages or "/" in profile or "\\" in profile or profile.startswith("."):
        return None
    return profile, tuple(stages)


def state_path(profile: str) -> str:
    """Where the state of a profile (as written on the command line, `""` for the default) lies, from the root."""
    return f"{DIRECTORY}/{profile or '-'}.state"


def identity(root: str) -> "tuple[str, ...]":
    """What must be equal beside files and environment: the project's place and the interpreter."""
    return (root, sys.version, sys.prefix)


def load(path: str) -> "Any":
    """The value of a state file, None when there is no usable one."""
    try:
        with open(path, "rb", buffering=0) as stream:  # noqa: PTH123 - pathlib is not imported here
            data = stream.read()
    except OSError:
        return None
    return decode(KIND, data)[0]


def agrees(state: "Any", root: str) -> bool:
    """Is everything as it was? The current directory must be `root`; it is another one in between, so the process must
    have no other thread. One stat per path."""
    if not _circumstances_agree(state, root):
        return False
    places = _helper_says(state, root, 1)
    if places is not None:
        return not places
    stamps, groups = listed(state)
    try:
        for directory, *names in groups:
            # Through the root, because most are relative to it.
            os.chdir(root)
            os.chdir(directory)
            if not all(map(eq, map(stamp_of, map(stat, names)), stamps)):
                return False
    except OSError:
        return False
    finally:
        os.chdir(root)
    return True


def moved(state: "Any", root: str) -> "list[int] | None":
    """Which of the state's files are not what they were (their places in its listing), None when it does not apply at
    all. The current directory must be `root`. One stat per path."""
    if not _circumstances_agree(state, root):
        return None
    found = _helper_says(state, root, state[5] + 1)
    if found is not None:
        return found
    stamps, groups = listed(state)
    found = []
    paths = (directory + name for directory, *names in groups for name in names)
    for place, (path, stamp) in enumerate(zip(paths, stamps, strict=True)):
        try:
            if stamp_of(stat(path)) != stamp:  # noqa: PTH116
                found.append(place)
        except OSError:
            found.append(place)
    return found


def listed(state: "Any") -> "tuple[Iterator[tuple[int, int, int]], Iterator[list[bytes]]]":
    """The stamps of a state's listing, and its groups: a directory and its names."""
    count, listing = state[5:]
    numbers = iter(memoryview(listing)[: 24 * count].cast("Q").tolist())
    groups = listing[24 * count : -2].split(b"\0\0")
    return zip(numbers, numbers, numbers, strict=True), (group.split(b"\0") for group in groups)


def _helper_says(state: "Any", root: str, limit: int) -> "list[int] | None":
    """The places of at most `limit` files that moved, where a compiled program of ours is there to tell."""
    named = state[4].get("helper")
    if not named:
        return None
    from pipeline.gate_helper import ask, trusted

    program = trusted(named, stamp_of)
    count, listing = state[5:]
    return None if program is None else ask(program, root, count, listing, limit)


def _circumstances_agree(state: "Any", root: str) -> bool:
    who, _, environment, absent, *_ = state
    if who != identity(root) or any(os.environ.get(name) != value for name, value in environment):
        return False
    return not any(map(os.path.lexists, absent))


def answer(argv: "Sequence[str]") -> "str | None":
    """What `doit` would print if it found everything up to date, None when only `doit` can tell."""
    selection = selection_of(argv)
    if selection is None:
        return None
    state = load(state_path(selection[0]))
    if state is None:
        return None
    text: str | None = state[1].get(selection[1])
    if text is None:
        return None
    here = os.getcwd()  # noqa: PTH109
    if agrees(state, here):
        return text
    from pipeline.gate_touched import only_touched

    places = moved(state, here)
    return text if places is not None and only_touched(state, places, state_path(selection[0])) else None


def main() -> int:
    """The console script."""
    answer_and_end()
    from doit.doit_cmd import DoitMain

    return int(DoitMain().run(sys.argv[1:]))


def answer_and_end() -> None:
    """Print the answer and end the process with 0; return if there is none.

    `doit` asks here too, as soon as it has loaded the tasks' module: what is left of its warm run is its own import."""
    text = answer(sys.argv[1:])
    if text is None:
        return
    sys.stdout.write(text)
    sys.stdout.flush()
    # Nothing is open and nothing was begun; taking down the interpreter object by object costs milliseconds.
    os._exit(0)
