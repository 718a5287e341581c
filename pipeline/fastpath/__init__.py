"""`hotplate`: answer at once when nothing changed, else be `doit` with the same arguments in the same process.

Reads one state file, which `state.py` wrote after a run that ended well, and stats what it names. Does not know doit's
tasks, the configuration, or what a stage is beyond its name. Invariants: it says "up to date" only when every file and
directory that the last run's answer depended on has the stamp that it had then, or (`touched.py`) is a source with the
same bytes, in the same environment; whatever it cannot be sure of, a damaged state file included, it hands over; it
writes nothing but the stamps of very many files that were read because they were touched (`renewal.py`).

What it answers was no run: no lock was taken, no stage begun, so there is no event log of it. A log per answer would be
a file per keystroke that nobody reads, would need the lock, and would cost more than all the stats of 100 units.

This module is the whole process of a warm run, so it imports only what the interpreter has loaded anyway: no `typing`,
no `pathlib`, and no `__future__`, whose file would have to be read; and its classes are plain ones with `__slots__`,
which cost a few instructions where a named tuple costs an import.
"""

# `signal` makes enumerations of it, which takes a tenth of the budget.
import _signal  # type: ignore[import-not-found]
import os
import sys

# What `operator` hands on; its own file takes 0.3 ms of the budget.
from _operator import attrgetter
from os import stat

from cache.statebytes import decode, open_file

TYPE_CHECKING = False  # type checkers know the name
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from pipeline.fastpath.native_loop import Looking

KIND = "fast path 1"
"""
The value is a tuple: the fields of a `Snapshot`, in the order of its constructor.

    listing = stamp* group*         one stamp per file, in the order of the names
    stamp   = ctime in ns, size, inode; 64 bits each, no sign, in the machine's byte order (mtime where `stamp_of` says)
    group   = directory NUL (name NUL)* NUL
              the directory ends in "/" and is relative to the project, absolute, or "./"; a name is a path from there
              and not empty
    History: `.deploy/gate.v1` held kinds "gate 1" to "gate 3", of which the last had this listing.

Files are grouped by directory because a name is found faster from its own directory than through five others.
"""
DIRECTORY = ".deploy/fastpath.v1"
USAGE_KIND = "usage index 6"
"""Of the file beside the state that `engine/usage_index.py` fills; the value is (`Snapshot.since`, usage index), so
that a state in which only stamps are others keeps it. History: "usage index 2" was of one state alone, and
"usage index 3" knew no links, all of "usage index 4" was decoded at once, and "usage index 5" took what ends with `.o`
for the objects."""
MANY = 64
"""Files of actions: with more moved it is worth the time to record the stamps of those that were only touched."""
CONTENTS = "contents"
"""The fact that says which file of contents (see `touched.KIND`) is this state's, by its token, and what is another by
now: (token, place -> fingerprint). Without it that file has the state's own token, and nothing is another."""
OF_STATE = "engine's state"
"""The fact that names the engine's state (`Saved.names` of `engine/saved_state.py`) which goes with this snapshot. What
lies there under another name may say of files that did not move since what was true before."""
PUT_BACK = "put back"
"""The fact that says what `engine/put_back.py` needs to know."""
LOGS = "logs of ninja"
"""The fact that names them (absolute paths). Ninja runs everything where they are lost, which no file of an
action tells, so that a run must write them anew."""
_LOG_HEAD = 16
"""Bytes: what a log has at most that speaks of nothing."""
FileStamp = tuple[int, int, int]
"""ctime in ns (mtime where `stamp_of` says), size in bytes, inode."""
STAMP_BYTES = 24
STAGES = ("fingerprint", "compile", "link")

# ctime moves with every change of content, mode and (in a directory) entries, and cannot be set, so that mtime says
# nothing more; where it is the time of creation (Windows) mtime must do.
stamp_of = attrgetter("st_ctime_ns" if os.name == "posix" else "st_mtime_ns", "st_size", "st_ino")


class Snapshot:
    """What the last run's answer depended on, as of that run. A value: nothing changes it."""

    __slots__ = (
        "absent",
        "answers",
        "count",
        "environment",
        "facts",
        "helper",
        "listing",
        "token",
        "used_count",
        "who",
    )

    def __init__(
        self,
        who: "tuple[str, ...]",
        answers: "Mapping[tuple[str, ...], str]",
        environment: "Sequence[tuple[str, str | None]]",
        absent: "Sequence[str]",
        helper: "Mapping[str, FileStamp] | None",
        facts: "Mapping[str, Any]",
        token: str,
        used_count: int,
        count: int,
        listing: bytes,
    ) -> None:
        self.who = who
        """See `identity`."""
        self.answers = answers
        """Canonical selection of stages -> what `doit` prints when all of it is up to date."""
        self.environment = environment
        """Names and values (None: not set)."""
        self.absent = absent
        """Paths that must not exist."""
        self.helper = helper
        """The compiled loop (name -> stamp), where the project is large enough for one."""
        self.facts = facts
        """What a run of `doit` that finds everything up to date says without looking."""
        self.token = token
        """Says which of the files beside this one are of the same run."""
        self.used_count = used_count
        """How many files at the head of the listing are those that actions use and nothing else does."""
        self.count = count
        """How many files the listing has."""
        self.listing = listing

    def values(self) -> "tuple[Any, ...]":
        """The value of the state file."""
        return (
            self.who,
            self.answers,
            self.environment,
            self.absent,
            self.helper,
            self.facts,
            self.token,
            self.used_count,
            self.count,
            self.listing,
        )

    @property
    def since(self) -> str:
        """The token of the state of the run that looked at all actions: those after it have the same files, of which
        only stamps are others."""
        found: str = self.facts.get("since", self.token)
        return found

    def groups(self) -> "Iterator[list[bytes]]":
        """Directories, each with its names."""
        return (group.split(b"\0") for group in self.listing[STAMP_BYTES * self.count : -2].split(b"\0\0"))

    def names(self) -> bytes:
        """The part of the listing that is names, and the absent paths."""
        return self.listing[STAMP_BYTES * self.count :] + "\0".join(self.absent).encode(errors="surrogateescape")

    def numbers(self) -> "memoryview[int]":
        """The stamps, three numbers each."""
        return memoryview(self.listing)[: STAMP_BYTES * self.count].cast("Q")

    def stamp_at(self, place: int) -> "FileStamp":
        """The stamp of a file by its place in the listing."""
        ctime_ns, size, inode = self.numbers()[3 * place : 3 * place + 3]
        return ctime_ns, size, inode

    def paths_at(self, places: "Sequence[int]") -> "dict[int, bytes]":
        """The paths of the files at these places of the listing."""
        found: dict[int, bytes] = {}
        wanted = sorted({place for place in places if place >= 0}, reverse=True)
        end = 0
        for text in self.listing[STAMP_BYTES * self.count : -2].split(b"\0\0"):
            if not wanted:
                break
            first, end = end, end + text.count(b"\0")
            if wanted[-1] < end:  # a group that holds none is not taken apart
                directory, *names = text.split(b"\0")
                while wanted and wanted[-1] < end:
                    place = wanted.pop()
                    found[place] = directory + names[place - first]
        return found


class FirstLook:
    """What this process saw before it became `doit`, for the run that follows. What moved was read, and was not only
    touched."""

    __slots__ = ("path", "places", "root", "snapshot", "stamp")

    def __init__(self, root: str, path: str, stamp: "FileStamp", snapshot: Snapshot, places: "list[int]") -> None:
        self.root = root
        self.path = path
        """Of the state file, from the root."""
        self.stamp = stamp
        """Of the state file."""
        self.snapshot = snapshot
        self.places = places
        """Of the files that moved."""

    def told(self) -> "list[bytes]":
        """For another process that does the run: the stamp of the state file, and the places; nothing where these are
        very many. A run looks again at each file that it uses, so that a look may be as old as its command."""
        if len(self.places) > MANY:
            return []
        return [" ".join(map(str, numbers)).encode() for numbers in (self.stamp, self.places)]


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


def load(path: str) -> "tuple[Snapshot, FileStamp] | None":
    """What a state file holds and the file's stamp, None when there is no usable one."""
    try:
        with open(open_file(path, os.O_RDONLY), "rb", buffering=0) as stream:  # noqa: PTH123 - pathlib is not imported here
            data, stamp = stream.read(), stamp_of(os.fstat(stream.fileno()))
    except OSError:
        return None
    values = decode(KIND, data)[0]
    try:
        return None if values is None else (Snapshot(*values), stamp)
    except TypeError:  # one that nobody of ours wrote
        return None


def moved(
    snapshot: Snapshot,
    root: str,
    *,
    alone: bool = False,
    told: "Callable[[int], None] | None" = None,
    ready: "Looking | None" = None,
) -> "list[int] | None":
    """Which of its files are not what they were (their places in the listing), None when it does not apply at all. One
    stat per path, and a second one where a file of the same directory is missing. The current directory must be `root`.
    `alone`: this process has no other thread, so that the current directory may be another one meanwhile. `told` is
    called with the place of one of them while others are looked at, where that goes on beside this process. `ready`:
    the compiled loop, which has read the listing already, and has not looked."""
    if not _circumstances_agree(snapshot, root):
        if ready is not None:
            ready.end()
        return None
    found = _helper_says(snapshot, root, told) if ready is None else ready.places(told)
    if found is not None:
        return found
    numbers = snapshot.numbers().tolist()
    found, place = [], 0
    try:
        for directory, *names in snapshot.groups():
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


def _stamp(path: bytes) -> "FileStamp | None":
    try:
        found: FileStamp = stamp_of(stat(path))  # noqa: PTH116
    except OSError:
        return None
    return found


def _helper_says(snapshot: Snapshot, root: str, told: "Callable[[int], None] | None") -> "list[int] | None":
    """The places of the files that moved, where a compiled program of ours is there to tell."""
    if not snapshot.helper:
        return None
    from pipeline.fastpath.native_loop import ask, trusted

    program = trusted(snapshot.helper, stamp_of)
    return None if program is None else ask(program, root, snapshot.count, snapshot.listing, told)


def _circumstances_agree(snapshot: Snapshot, root: str) -> bool:
    if snapshot.who != identity(root) or any(os.environ.get(name) != value for name, value in snapshot.environment):
        return False
    return not any(map(os.path.lexists, snapshot.absent))


def logs_are_there(snapshot: Snapshot) -> bool:
    """Does ninja know what it was told? It appends to its logs, so that their stamps say nothing."""
    try:
        return all(stat(path).st_size > _LOG_HEAD for path in snapshot.facts.get(LOGS, ()))  # noqa: PTH116
    except OSError:
        return False


def answer(argv: "Sequence[str]", load_run: "Callable[[], None] | None" = None) -> "str | FirstLook | None":
    """What `doit` would print if it found everything up to date. When only `doit` can tell: what was looked at, or None
    when that was nothing. `load_run` is called as soon as it is certain that there will be a run, where others are
    still looking at files."""
    selection = selection_of(argv)
    if selection is None:
        return None
    profile, stages = selection
    path = state_path(profile)
    found = load(path)
    if found is None:
        return None
    snapshot, stamp = found
    text = snapshot.answers.get(stages)
    if text is None:
        return None
    root = os.getcwd()  # noqa: PTH109
    is_edited = False

    def told(place: int) -> None:
        nonlocal is_edited
        if place < snapshot.used_count:
            from pipeline.fastpath.touched import only_touched

            is_edited = not only_touched(snapshot, [place], path)
            if is_edited and load_run is not None:
                load_run()

    places = moved(snapshot, root, alone=True, told=told)
    if places is None:
        return None
    if places:
        from pipeline.fastpath.touched import is_as_it_was

        look = FirstLook(root, path, stamp, snapshot, places)
        if is_edited or not is_as_it_was(look):
            return look
    return text if logs_are_there(snapshot) else None


def from_service(argv: "Sequence[str]") -> "str | FirstLook | None":
    """The same from the resident service, where there is one, without a look; None when it cannot tell."""
    selection = selection_of(argv)
    if selection is None or not _may_have_service():
        return None
    from pipeline.client.endpoint import runtime_dir
    from pipeline.client.verdict import service_says

    directory = runtime_dir()
    told = None if directory is None else service_says(directory, argv)
    if told is None or isinstance(told, str):
        return told
    look = _look_of(selection[0], *told)
    if look is not None and len(look.places) > MANY:  # the service reads no more than that
        from pipeline.fastpath.touched import is_as_it_was

        if is_as_it_was(look) and logs_are_there(look.snapshot):
            return look.snapshot.answers.get(selection[1])
    return look


def told_look(argv: "Sequence[str]", told: "Sequence[bytes]") -> "FirstLook | None":
    """What another process was about to begin this run with (`FirstLook.told`); None where that is of no use here."""
    selection = selection_of(argv)
    if selection is None or len(told) != 2:
        return None
    try:
        stamp, places = ([int(number) for number in field.split()] for field in told)
    except ValueError:
        return None
    return _look_of(selection[0], tuple(stamp), places)


def _look_of(profile: str, stamp: "tuple[int, ...]", places: "list[int]") -> "FirstLook | None":
    """That these places of the state with this stamp moved; None where there is another state, which knows of other
    moves."""
    path = state_path(profile)
    found = load(path)
    if found is None or found[1] != stamp or not all(0 <= place < found[0].count for place in places):
        return None
    return FirstLook(os.getcwd(), path, found[1], found[0], places)  # noqa: PTH109


def _may_have_service(name: str = "service.sock") -> bool:
    """Is there a socket where `client.endpoint` would look, which knows the rules, but costs a part of what is saved?
    That `quick.c` was told to look is no answer: it does not hear what moved."""
    if os.name != "posix":
        return False
    base = os.environ.get("XDG_RUNTIME_DIR")
    place = f"{base}/hotplate" if base else f"/tmp/hotplate-{os.getuid()}"
    return os.path.lexists(f"{place}/{name}")


def end_quietly() -> None:
    """Let a Ctrl-C end this process at once, as one of a program that has not begun anything: while modules are
    imported it would be a traceback. A caller who has it ignored keeps that."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)


def interrupt_again() -> bool:
    """From here on there is somebody who ends a run in order. Was there nobody before?"""
    quiet: bool = _signal.getsignal(_signal.SIGINT) == _signal.SIG_DFL
    if quiet:
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    return quiet


def main(look: "FirstLook | None" = None) -> int:
    """The console script. `look`: what somebody saw who waits for this run."""
    end_quietly()
    if sys.getfilesystemencoding() != "utf-8":
        from pipeline.effects.utf8 import ensure_utf8

        ensure_utf8()
    look = look or answer_and_end()
    if sys.argv[1:2] == ["cc"]:
        # By name, as doit comes to us: what a compiler launcher is made of stands above this room.
        launcher = __import__("pipeline.launcher", fromlist=("main",))
        code: int = launcher.main(sys.argv[2:])
        return code
    hand_over(look)
    from pipeline.hotplate import go_on

    return go_on(sys.argv[1:], look)


def hand_over(look: "FirstLook | None" = None) -> None:
    """Let the service's runner do this run, and end as it ended; return where it cannot, or that would save nothing.
    `look`: what was looked at here."""
    if _may_have_service("runner.sock"):
        from pipeline.client import handoff

        if handoff.is_worth_it(sys.argv[1:]):
            handoff.hand_over(sys.argv[0], sys.argv[1:], () if look is None else look.told())


def answer_and_end() -> "FirstLook | None":
    """Print the answer and end the process with 0. Where there is none: what was looked at, for the run that follows.

    `doit` asks here too, as soon as it has loaded the tasks' module: what is left of its warm run is its own import."""
    if sys.stdout is None or sys.stderr is None:
        from pipeline.effects.closed_streams import open_closed_streams

        open_closed_streams()
    text = from_service(sys.argv[1:]) or answer(sys.argv[1:], _load_run)
    if not isinstance(text, str):
        return text
    end_with(text)
    return None


def _load_run() -> None:
    from pipeline.hotplate import load_run

    load_run()


before_end: "list[Callable[[int], None]]" = []
"""Told the exit code by a process that has nothing left to do but to be taken down."""


def end_at_once(code: int) -> None:
    """End this process. Taking down the interpreter object by object would cost milliseconds."""
    for tell in before_end:
        tell(code)
    os._exit(code)


def end_with(text: str) -> None:
    """Print it and end the process with 0, where nothing is open and nothing was begun."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError:  # the reader went away; the answer stands
        pass
    end_at_once(0)
