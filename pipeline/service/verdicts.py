"""Is this selection up to date? Answered from memory, where the fast path would `stat` each file.

Holds the fast path's states of the projects that were asked about, and watches everything that they name. A question
costs a read of the kernel's notifications and a look at what they concern. Knows the fast path's state files; not
sockets, and not how a run decides. Invariants: "yes" is said only where `fastpath.answer`, in the caller's place, would
say it now; after anything that notifications do not tell (mounts, suspend, a full queue) the files are looked at again
before the next "yes"; nothing is believed for a length of time. What it cannot be sure of is "look yourself".
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.fastpath import FileStamp, Snapshot, load, logs_are_there, selection_of, stamp_of, state_path, touched
from pipeline.service.path_watch import Doubt, PathWatch

STATE = -1
"""The state file's number among the watched paths; files have that of their place in the listing, and absent paths
follow."""

MOST_BYTES = 4 << 20
"""Touched files of more than that are read by the caller: whoever asks us waits in one line with all boards."""
MOST_STATES = 16
"""Projects and profiles that are held; the one that was not asked about for longest goes."""
AGAIN_S = 0.5
"""What could not be watched is tried again after that time, each time twice as long: most often something vanished
meanwhile."""
LONGEST_S = 3600.0
SLEPT_S = 0.01
"""The clocks are read one after the other; no suspend is that short."""


class VerdictQuestion(NamedTuple):
    """`who`: as `fastpath.identity` has it; `argv`: without the program; `environment`: the caller's."""

    who: tuple[str, ...]
    argv: Sequence[str]
    environment: Mapping[str, str]


class VerdictAnswer(NamedTuple):
    """`text`: what `doit` would print, None for "look yourself"; `why`: a few words for people. `moved`: where that is
    known for certain, the places in the listing of all that is not what it was; `stamp`: of the state file."""

    text: str | None
    why: str = ""
    moved: tuple[int, ...] = ()
    stamp: FileStamp = (0, 0, 0)


class HeldState:
    """One state file and how everything that it names is now. After `prepare` one thread at a time."""

    def __init__(self, root: str, profile: str, watch: PathWatch) -> None:
        self._root = root
        self._path = f"{root}/{state_path(profile)}"
        self._watch = watch
        self._snapshot: Snapshot | None = None
        self._stamp: FileStamp = (0, 0, 0)
        self._looked: Snapshot | None = None
        """That by which all was looked at: `_moved` and `_present` are about it, but for what was noted since."""
        self._paths: list[bytes] = []
        self._absent: list[bytes] = []
        self._moved: dict[int, FileStamp | None] = {}
        """Places that are not what they were -> the stamp with which the same bytes were read there, None where they
        were not."""
        self._contents: tuple[str, Any] = ("", None)
        """The fingerprints of the state with this token."""
        self._present: set[int] = set()
        """Absent paths that are there."""

    def prepare(self) -> None:
        """Watch all, then look at all; where there is no state, wait for one. Raises Doubt."""
        self._watch.add(STATE, os.fsencode(self._path))
        if not self._read():
            return
        for number, path in enumerate((*self._paths, *self._absent)):
            self._watch.add(number, path)
        self._look()

    def reload(self) -> bool:
        """The state was written anew: look at all again. False when it names other paths. Raises Doubt."""
        before = (self._paths, self._absent)
        noted = self._watch.take()
        if not self._read():
            if self._looked is not None:
                self._update(noted)
            return True
        if (self._paths, self._absent) != before:
            return False
        self._look(noted)
        return True

    def _read(self) -> bool:
        """Is there a state?"""
        found = load(self._path)
        if found is None:
            self._snapshot = None
            return False
        snapshot = self._snapshot = found[0]
        self._stamp = found[1]
        if self._looked is not None and snapshot.names() == self._looked.names():
            return True
        base = os.fsencode(self._root) + b"/"
        self._paths = [
            (b"" if directory[:1] == b"/" else base) + directory + name
            for directory, *names in snapshot.groups()
            for name in names
        ]
        self._absent = [os.fsencode(os.path.join(self._root, path)) for path in snapshot.absent]  # noqa: PTH118
        return True

    def _look(self, noted: set[int] | None = None) -> None:
        """Stat everything; with `noted` (what something happened to since it was done) that, and what the state has
        another stamp of than before: the rest is what it was."""
        assert self._snapshot is not None
        before, self._looked = self._looked, self._snapshot
        if before is not None and noted is not None and before.names() == self._snapshot.names():
            self._update(noted | self._moved.keys() | set(_other_stamps(before, self._snapshot)))
            return
        numbers = self._snapshot.numbers().tolist()
        of_each = iter(numbers)
        wanted = zip(of_each, of_each, of_each, strict=True)
        self._moved = {
            n: None for n, (path, stamp) in enumerate(zip(self._paths, wanted, strict=True)) if _stamp(path) != stamp
        }
        self._present = {len(self._paths) + n for n, path in enumerate(self._absent) if os.path.lexists(path)}

    @property
    def is_replaced(self) -> bool:
        """Did something happen to the state file?"""
        return STATE in self._watch.noted

    @property
    def is_there(self) -> bool:
        """Is there a state file at all? During a run there is none."""
        return os.path.lexists(self._path)

    def note(self) -> None:
        """Take what the kernel has. Raises Doubt."""
        self._watch.note()

    def leads_through(self, places: Collection[bytes]) -> bool:
        """Does a path of this state go through one of these places?"""
        return self._watch.leads_through(places)

    def fileno(self) -> int:
        """Readable when something happened."""
        return self._watch.fileno()

    def close(self) -> None:
        """Idempotent."""
        self._watch.close()

    def answer(self, question: VerdictQuestion, stages: tuple[str, ...]) -> VerdictAnswer:
        """As the fast path would. Raises Doubt when the state is of no more use."""
        self._watch.note()
        snapshot = self._snapshot
        if self.is_replaced or snapshot is None:
            return VerdictAnswer(None, "no state" if snapshot is None else "the state was replaced")
        self._update(self._watch.take())
        if snapshot.who != question.who:
            return VerdictAnswer(None, "another interpreter")
        if any(question.environment.get(name) != value for name, value in snapshot.environment):
            return VerdictAnswer(None, "another environment")
        text = snapshot.answers.get(stages)
        if text is None:
            return VerdictAnswer(None, "not known to be up to date")
        if self._present:
            return VerdictAnswer(None, "a file came")
        if not logs_are_there(snapshot):  # one stat for each of the few, which ninja appends to at any time
            return VerdictAnswer(None, "ninja knows nothing")
        settled = self._is_settled()
        if settled:
            return VerdictAnswer(text)
        return VerdictAnswer(None, "files moved", tuple(sorted(self._moved)) if settled is False else (), self._stamp)

    def _update(self, found: set[int]) -> None:
        """Look at what something happened to."""
        assert self._looked is not None
        for number in found - {STATE}:
            if number < len(self._paths):
                if _stamp(self._paths[number]) == self._looked.stamp_at(number):
                    self._moved.pop(number, None)
                else:
                    self._moved[number] = None
            elif os.path.lexists(self._absent[number - len(self._paths)]):
                self._present.add(number)
            else:
                self._present.discard(number)

    def _fingerprints(self) -> Any:
        """Those of the state, read once: an editor saves one file after the other."""
        assert self._snapshot is not None
        if self._contents[0] != self._snapshot.token:
            found = touched.contents_of(self._path, self._snapshot)
            self._contents = ("" if found is None else self._snapshot.token, found)
        return self._contents[1]

    def _is_settled(self) -> bool | None:
        """Is everything that moved, and was not read since, what it was? None where that is for the caller to read."""
        assert self._snapshot is not None
        unread = [n for n, seen in self._moved.items() if seen is None]
        if sum(n < self._snapshot.used_count for n in self._moved) > touched.MOST:
            return None
        stamps = {n: _stamp(self._paths[n]) for n in unread}
        if None in stamps.values():
            return False
        if sum(stamp[1] for stamp in stamps.values() if stamp) > MOST_BYTES:
            return None
        if unread:
            known = self._fingerprints()
            if not touched.only_touched(self._snapshot, unread, self._path, root=self._root, fingerprints=known):
                return False
        # What is written from here on is an event, and makes it unread again. What an entry of a directory leads to may
        # change without one.
        self._moved.update({n: stamp for n, stamp in stamps.items() if os.path.isfile(self._paths[n])})  # noqa: PTH113
        return True


def _other_stamps(before: Snapshot, now: Snapshot) -> list[int]:
    """The places that have other stamps, in two listings of the same names."""
    old, new = before.numbers().tolist(), now.numbers().tolist()
    return sorted({n // 3 for n, (one, other) in enumerate(zip(old, new, strict=True)) if one != other})


def _stamp(path: bytes) -> FileStamp | None:
    try:
        found: FileStamp = stamp_of(os.stat(path))  # noqa: PTH116 - the stats are what this costs
    except OSError:
        return None
    return found


class MachineFacts(NamedTuple):
    """What must not have changed beside the files. `mounts_changed`: where, since the last question; `slept_s`: how
    long the machine was suspended in all; `now_s`: for the effort that is made, never for what is believed."""

    mounts_changed: Callable[[], Collection[bytes]]
    slept_s: Callable[[], float]
    now_s: Callable[[], float]


_OLD = -1
"""The generation of what was looked at before something that notifications do not tell."""


class _Place:
    """What is held for one project and profile (`key`). `busy`: a thread has the state; `generation`: of the machine's
    circumstances, from before the files were looked at."""

    def __init__(self, key: tuple[str, str]) -> None:
        self.key = key
        self.state: HeldState | None = None
        self.busy = False
        self.generation = _OLD
        self.why = "not looked at yet"
        self.next_s = float("-inf")
        self.wait_s = AGAIN_S


class VerdictLoop(NamedTuple):
    """What the book needs of the event loop. `run_later`: do the first in a thread, then the second in the loop;
    `listen`: call when this descriptor is readable; `unlisten`: no more."""

    run_later: Callable[[Callable[[], None], Callable[[], None]], None]
    listen: Callable[[int, Callable[[], None]], None]
    unlisten: Callable[[int], object]


class VerdictBook:
    """The states of this user's projects. All calls from the loop's thread."""

    def __init__(self, loop: VerdictLoop, machine: MachineFacts, make: Callable[[], PathWatch]) -> None:
        self._loop = loop
        self._machine = machine
        self._make = make
        self._places: dict[tuple[str, str], _Place] = {}
        self._generation = 0
        self._slept_s = machine.slept_s()
        self.counts = {"yes": 0, "look": 0}
        """How many answers of each kind were given."""

    def ask(self, question: VerdictQuestion) -> VerdictAnswer:
        """What `doit` would print, or that the caller has to look at the disk."""
        found = self._answer(question)
        self.counts["look" if found.text is None else "yes"] += 1
        return found

    def close(self) -> None:
        """Let everything go."""
        for place in self._places.values():
            self._drop(place, "ended")
        self._places.clear()

    def _answer(self, question: VerdictQuestion) -> VerdictAnswer:
        selection = selection_of(question.argv)
        root = question.who[0]
        if selection is None or root[:1] != "/":
            return VerdictAnswer(None, "not a selection of host stages")
        self._look_around()
        place = self._place(root, selection[0])
        if place.busy:
            return VerdictAnswer(None, "looking at it")
        self._drop_old(place)
        if place.state is None:
            self._begin(place)
            return VerdictAnswer(None, place.why)
        try:
            found = place.state.answer(question, selection[1])
            self._renew(place)
        except Doubt as doubt:
            self._drop(place, str(doubt))
            self._begin(place)
            return VerdictAnswer(None, str(doubt))
        return found

    def _look_around(self) -> None:
        """Did something happen that notifications do not tell?"""
        slept_s = self._machine.slept_s()
        if abs(slept_s - self._slept_s) > SLEPT_S:
            self._generation += 1
        self._slept_s = slept_s
        mounted = self._machine.mounts_changed()
        for place in self._places.values() if mounted else ():
            # Of one that is being looked at it cannot be said.
            if place.state is None or place.state.leads_through(mounted):
                place.generation = _OLD

    def _place(self, root: str, profile: str) -> _Place:
        """The place, as the one that was asked about last."""
        key = (root, profile)
        place = self._places.pop(key, None) or _Place(key)
        self._places[key] = place
        for old in [key for key, place in self._places.items() if not place.busy][:-MOST_STATES]:
            self._drop(self._places.pop(old), "not asked about for long")
        return place

    def _begin(self, place: _Place) -> None:
        """Look at a project in a thread, keeping watches that fit; not when that failed a moment ago."""
        if self._machine.now_s() < place.next_s:
            return
        self._look_around()
        self._drop_old(place)
        place.busy, place.generation = True, self._generation
        old, place.state = place.state, None
        made: list[HeldState] = []
        if old is not None:
            self._loop.unlisten(old.fileno())

        def work() -> None:
            state = _kept(old)
            if state is None:
                try:
                    state = HeldState(*place.key, self._make())
                except OSError as error:
                    place.why = str(error)
                    return
                try:
                    state.prepare()
                except (Doubt, OSError) as error:
                    place.why = str(error)
                    state.close()
                    return
            made.append(state)

        def done() -> None:
            place.busy = False
            if made:
                place.state, place.wait_s = made[0], AGAIN_S
                self._loop.listen(place.state.fileno(), lambda: self._note(place))
            else:
                place.next_s = self._machine.now_s() + place.wait_s
                place.wait_s = min(2 * place.wait_s, LONGEST_S)

        self._loop.run_later(work, done)

    def _note(self, place: _Place) -> None:
        """Something happened in a project: keep the kernel's queue short, and follow a state that was written anew."""
        if place.busy or place.state is None:
            return
        try:
            place.state.note()
            self._renew(place)
        except Doubt as doubt:
            self._drop(place, str(doubt))

    def _renew(self, place: _Place) -> None:
        """Follow a state that was written anew."""
        if place.state is not None and place.state.is_replaced and place.state.is_there:
            self._begin(place)

    def _drop_old(self, place: _Place) -> None:
        """Let go of what was looked at before what notifications do not tell: its watches are not to be kept."""
        if place.state is not None and place.generation != self._generation:
            self._drop(place, "mounts changed, or the machine slept")

    def _drop(self, place: _Place, why: str) -> None:
        place.why = why
        state, place.state = place.state, None
        if state is not None and not place.busy:
            self._loop.unlisten(state.fileno())
            self._loop.run_later(state.close, lambda: None)


def _kept(state: HeldState | None) -> HeldState | None:
    """The state with what was written anew, if its watches fit; else it is closed."""
    if state is None:
        return None
    try:
        if state.reload():
            return state
    except Doubt:
        pass
    state.close()
    return None
