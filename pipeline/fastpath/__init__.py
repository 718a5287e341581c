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
from _operator import attrgetter
from os import stat

from cache.statebytes import decode

TYPE_CHECKING = False  # type checkers know the name
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    Look = tuple[str, str, tuple[int, int, int], Any, list[int]]
    """Root, path of the state file from there and its stamp, the state, the places of the files that moved."""

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

FIRST_LOOK: "list[Look]" = []
"""What this process saw before it became `doit`, for the run that follows: doit has no way to hand it on. At most one,
written once."""

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


def load(path: str) -> "tuple[Any, tuple[int, int, int]] | None":
    """The value of a state file and the file's stamp, None when there is no usable one."""
    try:
        with open(path, "rb", buffering=0) as stream:  # noqa: PTH123 - pathlib is not imported here
            data, stamp = stream.read(), stamp_of(os.fstat(stream.fileno()))
    except OSError:
        return None
    state = decode(KIND, data)[0]
    return None if state is None else (state, stamp)


def moved(state: "Any", root: str, *, alone: bool = False) -> "list[int] | None":
    """Which of the state's files are not what they were (their places in its listing), None when it does not apply at
    all. One stat per path, and a second one where a file of the same directory is missing. The current directory must
    be `root`. `alone`: this process has no other thread, so that the current directory may be another one meanwhile."""
    if not _circumstances_agree(state, root):
        return None
    found = _helper_says(state, root)
    if found is not None:
        return found
    count, listing = state[5:]
    numbers = memoryview(listing)[: 24 * count].cast("Q").tolist()
    found, place = [], 0
    try:
        for directory, *names in _groups(state):
            of_these = iter(numbers[3 * place : 3 * (place + len(names))])
            wanted = list(zip(of_these, of_these, of_these, strict=True))
            now: list[Any]
            try:
                if alone:
                    # Through the root, because most are relative to it.
                    os.chdir(root)
                    os.chdir(directory)
                paths = names if alone else map(directory.__add__, names)
                now = list(map(stamp_of, map(stat, paths)))
            except OSError:
                if alone:
                    os.chdir(root)
                now = [_stamp(directory + name) for name in names]
            if now != wanted:
                found += [place + n for n, stamp in enumerate(now) if stamp != wanted[n]]
            place += len(names)
    finally:
        if alone:
            os.chdir(root)
    return found


def _stamp(path: bytes) -> "tuple[int, int, int] | None":
    try:
        found: tuple[int, int, int] = stamp_of(stat(path))  # noqa: PTH116
    except OSError:
        return None
    return found


def _groups(state: "Any") -> "Iterator[list[bytes]]":
    """Directories, each with its names."""
    count, listing = state[5:]
    return (group.split(b"\0") for group in listing[24 * count : -2].split(b"\0\0"))


def paths_at(state: "Any", places: "Sequence[int]") -> "dict[int, bytes]":
    """The paths of the files at these places of the listing."""
    wanted = set(places)
    found = {}
    first = 0
    for directory, *names in _groups(state):
        for place in wanted.intersection(range(first, first + len(names))):
            found[place] = directory + names[place - first]
        first += len(names)
    return found


def _helper_says(state: "Any", root: str) -> "list[int] | None":
    """The places of the files that moved, where a compiled program of ours is there to tell."""
    named = state[4].get("helper")
    if not named:
        return None
    from pipeline.fastpath.native_loop import ask, trusted

    program = trusted(named, stamp_of)
    count, listing = state[5:]
    return None if program is None else ask(program, root, count, listing)


def _circumstances_agree(state: "Any", root: str) -> bool:
    who, _, environment, absent, *_ = state
    if who != identity(root) or any(os.environ.get(name) != value for name, value in environment):
        return False
    return not any(map(os.path.lexists, absent))


def answer(argv: "Sequence[str]", seen: "list[Look] | None" = None) -> "str | None":
    """What `doit` would print if it found everything up to date, None when only `doit` can tell; then `seen` gets what
    was looked at."""
    selection = selection_of(argv)
    if selection is None:
        return None
    path = state_path(selection[0])
    found = load(path)
    if found is None or selection[1] not in found[0][1]:
        return None
    state, stamp = found
    root = os.getcwd()  # noqa: PTH109
    places = moved(state, root, alone=True)
    if places:
        from pipeline.fastpath.touched import only_touched

        if not only_touched(state, places, path, paths_at):
            if seen is not None:
                seen.append((root, path, stamp, state, places))
            return None
    text: str | None = None if places is None else state[1][selection[1]]
    return text


def main() -> int:
    """The console script."""
    answer_and_end()
    if sys.argv[1:] == ["--version"]:  # doit then says its own
        from pipeline import __version__

        print(f"hotplate {__version__}", flush=True)
    from doit.doit_cmd import DoitMain

    return int(DoitMain().run(sys.argv[1:]))


def answer_and_end() -> None:
    """Print the answer and end the process with 0; return if there is none.

    `doit` asks here too, as soon as it has loaded the tasks' module: what is left of its warm run is its own import."""
    text = answer(sys.argv[1:], FIRST_LOOK)
    if text is None:
        return
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError:  # the reader went away; the answer stands
        pass
    # Nothing is open and nothing was begun; taking down the interpreter object by object costs milliseconds.
    os._exit(0)
