"""The runner: a process that has loaded what a deploy imports, and forks a child for each run that a client hands over.

    python -m pipeline.service.runner DESCRIPTOR        of a listening socket; stdin and stdout: whoever started it,
                                                        who is told by a byte that this is ready

Single-threaded, and without an open board, port or emulator, so that a fork is safe. Knows processes, descriptors and
the frames of `client/run_frame.py`; a run is `doit` or `hotplate`, as ever. Invariants: a child has of the runner's
nothing but loaded modules; a client whose interpreter, code, groups or namespaces are others is refused, and runs
alone; when our code changed on disk the runner ends; a run whose client is gone ends in order, unless it writes flash.
"""

from __future__ import annotations

import array
import contextlib
import gc
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence

from cache.fileclock import filesystem_now_ns
from pipeline.client.protocol import FrameReader, ProtocolError
from pipeline.client.run_frame import DETACH, ENDED, REFUSED, SIGNAL, STARTED, frame, unpack
from pipeline.client.verdict import variables
from pipeline.service.alike import is_alike, is_compiled, namespaces, peer
from pipeline.service.code_watch import LoadedCode
from pipeline.service.preload import preload
from pipeline.service.runner_child import HandedRun, become, run
from pipeline.service.spare import MOST_SPARES, Spare, wait_as_spare

IDLE_S = 600.0
"""A runner that nobody used for so long ends."""
MOST_RUNS = 32
DESCRIPTORS = 4


class RunnerLink:
    """A connection of a client, and the child that is its run."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.reader = FrameReader()
        self.descriptors: list[int] = []
        self.child = 0
        self.root = ""
        """Where its run takes place."""
        self.end = -1
        """Where the child says how its run ended, before it is taken down; -1 once it did, or cannot."""
        self.is_over = False
        """Was the client told the end?"""

    def say(self, *fields: bytes) -> None:
        """A client that left hears nothing."""
        with contextlib.suppress(OSError):
            self.connection.sendall(frame(*fields))

    def close(self) -> None:
        self.connection.close()
        if self.end >= 0:
            os.close(self.end)
            self.end = -1
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors.clear()


class Runner:
    """The loop. `serve` returns in a child what that has to be, and None in the runner, at its end."""

    def __init__(
        self, listening: socket.socket, starter: tuple[int, int], idle_s: float, now_s: Callable[[], float]
    ) -> None:
        """`starter`: readable when whoever started this is gone; and what tells him the same of us."""
        self._listening = listening
        self._starter, self._told = starter
        self._idle_s = idle_s
        self._now_s = now_s
        self._links: dict[int, RunnerLink] = {}
        self._children: dict[int, RunnerLink | None] = {}
        self._ends: dict[int, RunnerLink] = {}
        """By the handle on which a child says how its run ended."""
        self._spares: dict[str, Spare] = {}
        """By project; the last is that of the project that had a run last."""
        self._used_s = now_s()
        self._path = list(sys.path)
        """Where the first place is that of whoever asks."""
        self._code = LoadedCode()
        self._over = False
        self._wake, wake = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(wake, False)
        self._woken = wake

    def serve(self) -> HandedRun | None:
        """Until nobody used it for long, the code changed, or whoever started it is gone."""
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        while not (self._over and not self._children):
            handed = self._once()
            if handed is not None:
                return handed
        return None

    def _once(self) -> HandedRun | None:
        """Wait for something to happen, and do what it asks for."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        if not self._over:
            poll.register(self._listening, select.POLLIN)
            poll.register(self._starter, select.POLLIN)
        for handle in (*self._links, *self._ends):
            poll.register(handle, select.POLLIN)
        self._end_spares()
        left_s = self._used_s + self._idle_s - self._now_s()
        if left_s <= 0 and not self._children:
            self._over = True
            return None
        for handle, _ in poll.poll(max(left_s, 1.0) * 1000):
            if handle == self._wake:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake, 1 << 12)
                for root in dict.fromkeys(self._reap()):
                    handed = self._prepare(root)
                    if handed is not None:
                        return handed
            elif handle == self._listening.fileno():
                self._accept()
            elif handle == self._starter:
                self._over = True  # nothing is ever written there
            elif handle in self._ends:
                self._hear_end(self._ends[handle])
            elif handle in self._links:
                handed = self._read(self._links[handle])
                if handed is not None:
                    return handed
        return None

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._listening.accept()
            connection.setblocking(False)
            self._links[connection.fileno()] = RunnerLink(connection)

    def _read(self, link: RunnerLink) -> HandedRun | None:
        """What a client says. In a child: what it has to be."""
        self._used_s = self._now_s()
        size = array.array("i").itemsize
        try:
            data, extra, _, _ = link.connection.recvmsg(
                1 << 16, socket.CMSG_SPACE(DESCRIPTORS * size), socket.MSG_CMSG_CLOEXEC
            )
            for level, kind, content in extra:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    link.descriptors += array.array("i", content[: len(content) // size * size])
            frames = link.reader.feed(data) if data else None
        except BlockingIOError:
            return None
        except (OSError, ProtocolError):
            frames = None
        if frames is None:
            self._left(link)
            return None
        for one in frames:
            fields = one.header.get("fields", [])
            if link.child == 0:
                handed = self._start(link, fields)
                if handed is not None:
                    return handed
            elif fields[:1] == [SIGNAL] and len(fields) == 2 and fields[1].isdigit():
                _kill(link.child, int(fields[1]))
            elif fields == [DETACH]:
                self._children[link.child] = None
                _kill(link.child, signal.SIGUSR1)
                self._forget(link)
                return None
        return None

    def _start(self, link: RunnerLink, fields: Sequence[bytes]) -> HandedRun | None:
        """Fork a child for this run. In the child: what it has to be."""
        groups, since_ns = unpack(fields), filesystem_now_ns()
        why = self._why_not(link, groups)
        if groups is None or why:
            link.say(REFUSED, why.encode())
            self._forget(link)
            return None
        link.root = os.fsdecode(groups[1][0])
        spare = self._spares.pop(link.root, None)
        if spare is not None and spare.hand([b"%d" % since_ns, *fields], link.descriptors):
            child, link.end = spare.pid, spare.keep()
        else:
            parent = os.getpid()
            forked, end, told = _fork_told()
            if forked is None:
                link.say(REFUSED, b"no process to be had")
                self._forget(link)
                return None
            if forked == 0:
                self._become_child(link, parent)
                return self._handed(groups, link.descriptors, since_ns, told)
            child, link.end = forked, end
        self._ends[link.end] = link
        link.child = child
        self._children[child] = link
        for descriptor in link.descriptors:
            os.close(descriptor)
        link.descriptors.clear()
        link.say(STARTED, b"%d" % child)
        return None

    def _handed(
        self, groups: Sequence[Sequence[bytes]], descriptors: Sequence[int], since_ns: int, end: int
    ) -> HandedRun:
        who, place, argv, path, streams, _, environment, look = groups
        beside = self._path[1:] if is_compiled(who) else []
        return HandedRun(
            [os.fsdecode(word) for word in place],
            [os.fsdecode(word) for word in argv],
            [*(os.fsdecode(word) for word in path), *beside],
            [os.fsdecode(word) for word in streams],
            {name: value for name, value in variables(environment).items() if name},  # which no process can set
            tuple(descriptors),
            since_ns,
            look,
            end,
        )

    def _prepare(self, root: str) -> HandedRun | None:
        """Fork a spare for the next run in this project. In the spare, once that came: what it has to be; it ends where
        none comes."""
        if self._over:
            return None
        self._code.watch()
        self._end_spares([root], most=MOST_SPARES - 1)
        try:
            ours, theirs = socket.socketpair()
        except OSError:
            return None
        parent = os.getpid()
        child = _fork()
        if child is None:
            ours.close()
            theirs.close()
            return None
        if child:
            theirs.close()
            self._spares[root] = Spare(root, child, ours, self._now_s())
            return None
        ours.close()
        self._become_child(None, parent)
        found = wait_as_spare(root, theirs)
        groups = None if found is None else unpack(found[0][1:])
        if found is None or groups is None:
            os._exit(1)
        return self._handed(groups, found[1], int(found[0][0]), theirs.detach())

    def _end_spares(self, roots: Sequence[str] = (), most: int = MOST_SPARES) -> None:
        """End those of these projects, those that nobody used for long, and the oldest of more than so many."""
        late_s = self._now_s() - self._idle_s
        gone = [root for root, spare in self._spares.items() if root in roots or spare.born_s < late_s]
        left = [root for root in self._spares if root not in gone]
        for root in (*gone, *left[: max(0, len(left) - most)]):
            self._spares.pop(root).end()

    def _why_not(self, link: RunnerLink, groups: list[Sequence[bytes]] | None) -> str:
        """Why this client has to run alone; empty when it need not."""
        if groups is None or len(link.descriptors) != DESCRIPTORS:
            return "not a run of this protocol"
        if len(self._children) >= MOST_RUNS:
            return "too many runs"
        if not self._code.is_as_loaded():
            self._over = True
            return "the code on disk is another by now"
        if not is_alike([os.fsdecode(word) for word in groups[0]], [os.fsdecode(word) for word in groups[3]]):
            return "another interpreter, version or code"
        if [int(number) for number in groups[5] if number.isdigit()] != sorted(os.getgroups()):
            return "other groups"
        pid = peer(link.connection)
        if pid is None or namespaces(str(pid)) != namespaces("self"):
            return "other namespaces"
        return ""

    def _become_child(self, link: RunnerLink | None, parent: int) -> None:
        """Let go of all that is the runner's, but for the descriptors of this client."""
        die_with(parent, signal.SIGTERM)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._code.let_go()
        os.close(self._wake)
        os.close(self._woken)
        self._listening.close()
        os.close(self._starter)
        os.close(self._told)
        for other in self._links.values():
            if other is link:
                other.connection.close()
            else:
                other.close()
        for spare in self._spares.values():
            spare.forget()
        os.setpgid(0, 0)

    def _left(self, link: RunnerLink) -> None:
        """A client is gone without a word. Its run ends as at a closed terminal, unless flash is being written."""
        child = link.child
        if child:
            self._children[child] = None
            _kill(child, signal.SIGUSR2)
        self._forget(link)

    def _hear_end(self, link: RunnerLink) -> None:
        """A run is over, and its process about to be taken down, for which nobody need wait."""
        try:
            code = os.read(link.end, 16)
        except BlockingIOError:
            return
        except OSError:
            code = b""
        if code:
            link.say(ENDED, code)
            link.is_over = True
            self._forget(link)
        else:  # it ends in another way, which is seen when it has
            os.close(link.end)
            del self._ends[link.end]
            link.end = -1

    def _forget(self, link: RunnerLink) -> None:
        self._links.pop(link.connection.fileno(), None)
        self._ends.pop(link.end, None)
        link.close()

    def _reap(self) -> list[str]:
        """Children that ended; the projects in which there will most likely be another run."""
        roots: list[str] = []
        while True:
            try:
                child, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return roots
            if child == 0:
                return roots
            if child not in self._children:
                for spare in [spare for spare in self._spares.values() if spare.pid == child]:
                    self._spares.pop(spare.root).forget()
                continue
            self._used_s = self._now_s()
            link = self._children.pop(child)
            if link is not None:
                if not link.is_over:
                    link.say(ENDED, b"%d" % os.waitstatus_to_exitcode(status))
                    self._forget(link)
                roots.append(link.root)


def _fork() -> int | None:
    """As `os.fork`; None where the machine has no room for another process, which must not end the runs under way."""
    try:
        return os.fork()
    except OSError:
        return None


def _fork_told() -> tuple[int | None, int, int]:
    """As `_fork`, and a pipe between both: its reading end for the parent, its writing end for the child."""
    try:
        end, told = os.pipe()
    except OSError:
        return None, -1, -1
    child = _fork()
    if child != 0:
        os.close(told)
        os.set_blocking(end, False)
    if not child:
        os.close(end)
    return child, end, told


def _kill(child: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, ValueError):
        os.kill(child, number)


def die_with(parent: int, number: int) -> None:
    """Send this process a signal when its parent ends, however that is."""
    import ctypes

    ctypes.CDLL(None).prctl(1, number)  # PR_SET_PDEATHSIG, prctl(2)
    if os.getppid() != parent:
        os._exit(1)


def main() -> int:
    """Be a runner, and in each child a run."""
    listening = socket.socket(fileno=int(sys.argv[1]))
    listening.setblocking(False)
    # Of no terminal, so that those of its clients are files like others to the children, which lead no session either.
    os.setsid()
    starter, ready = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.close(nothing)
    preload()
    gc.collect()
    gc.freeze()  # the collector of a child would else touch, and so copy, every page
    runner = Runner(listening, (starter, ready), IDLE_S, time.monotonic)
    with contextlib.suppress(OSError):
        os.write(ready, b"r")
    handed = runner.serve()
    if handed is None:
        return 0
    return run(handed) if become(handed) else 0


if __name__ == "__main__":
    sys.exit(main())
