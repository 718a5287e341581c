"""Let the service's runner do a run of this process, which then only waits, forwards signals and takes over the end.

The runner has loaded everything that a deploy imports, and forks a child that has this process's command line,
environment, place and streams. Knows the runner's frames and what of a process a run depends on; not what the run does.
Invariants: a run is begun once, here or there, never twice; where anything differs that a run could see, it is done
here; Ctrl-C while flash is written ends this process and not the run, every other signal does what it always did.
"""

import _signal  # type: ignore[import-not-found]
import os
import sys

from pipeline.client.endpoint import RUNNER_SOCKET, runtime_dir
from pipeline.client.run_frame import DETACH, ENDED, SIGNAL, STARTED, frame, pack
from pipeline.client.verdict import MAX_HEADER, PREFIX_BYTES, VERDICT_FRAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

STAGE_WORDS = frozenset({"fingerprint", "compile", "link", "verify-flash", "reflash", "reattach", "ttfb", "deploy"})
HOST_WORDS = frozenset({"fingerprint", "compile", "link"})
PRELOADED = ("pipeline.service.runner", "pipeline.editor.standby")
"""What a process that has loaded everything already was started as."""
START_S = 0.5
"""How long the runner may take to fork. One that is slower than that saves nothing."""
GONE_S = 30.0
"""How long a run may take to end in order when its runner was killed."""
INTERRUPTED = 130


def is_worth_it(argv: "Sequence[str]") -> bool:
    """Does this command line select stages, by names of ours alone? Others' tasks, commands of doit, and options before
    the first name stay here."""
    if not argv:
        return True
    return argv[0].partition(":")[0] in STAGE_WORDS


def hand_over(program: str, argv: "Sequence[str]", look: "Sequence[bytes]" = ()) -> None:
    """Let the runner be `program` with these arguments, and end with its exit code. Returns where that cannot be.
    `look`: what this process knows to have moved."""
    directory = runtime_dir() if _may_be_another() else None
    if directory is None or not os.path.lexists(f"{directory}/{RUNNER_SOCKET}"):
        return
    try:
        question = pack(*described(program, argv), look)
    except (OSError, ValueError):
        return
    if len(question) >= MAX_HEADER:
        return
    link = _begun(f"{directory}/{RUNNER_SOCKET}", question)
    if link is not None:
        link.writes = may_write(argv)
        link.wait()


def may_write(argv: "Sequence[str]") -> bool:
    """Could this command line write flash? Not where it names nothing but host stages and options."""
    words = [word for before, word in zip(["", *argv], argv, strict=False) if before != "--profile" and word[:1] != "-"]
    return not words or not HOST_WORDS.issuperset(words)


def _may_be_another() -> bool:
    """Could another process do this run, without anybody who sees the difference?"""
    try:
        at = [stream.fileno() for stream in (sys.stdin, sys.stdout, sys.stderr)]
    except (AttributeError, OSError, ValueError):  # closed, or replaced
        return False
    return (
        sys.platform == "linux"
        and getattr(getattr(sys.modules["__main__"], "__spec__", None), "name", "") not in PRELOADED
        and sys.gettrace() is None
        and sys.getprofile() is None
        and not sys.flags.interactive
        and at == [0, 1, 2]
    )


def described(program: str, argv: "Sequence[str]") -> "list[list[bytes]]":
    """What of this process a run depends on, as `run_frame.pack` takes it; its look follows. Raises OSError,
    ValueError."""
    import pipeline

    who = [pipeline.__version__, os.path.dirname(pipeline.__file__ or ""), sys.version, sys.prefix, *interpreter()]  # noqa: PTH120
    ignored = [str(n) for n in (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP) if _is_ignored(n)]
    umask = os.umask(0o077)
    os.umask(umask)
    # What doit calls itself it has read from there when it was loaded, which was earlier where it is loaded.
    loaded = sys.modules.get("doit.doit_cmd")
    name = os.path.basename(program) if loaded is None else loaded.DoitMain.BIN_NAME  # noqa: PTH119
    place = [os.getcwd(), str(umask), str(os.nice(0)), repr(started_s()), program, name, *ignored]  # noqa: PTH109
    streams = [str(value) for stream in (sys.stdin, sys.stdout, sys.stderr) for value in _facts(stream)]
    groups = [str(number) for number in sorted(os.getgroups())]
    environment = [name + b"=" + value for name, value in os.environb.items()]
    lists = [[os.fsencode(word) for word in words] for words in (who, place, argv, sys.path, streams, groups)]
    return [*lists, environment]


def interpreter() -> "tuple[str, ...]":
    """How this interpreter was started, and what of the environment it has read by now."""
    own = sorted(f"{name}={value}" for name, value in os.environ.items() if name[:6] == "PYTHON")
    return (repr(tuple(sys.flags)), sys.getfilesystemencoding(), repr(sys.warnoptions), repr(sys._xoptions), *own)


def started_s() -> float:
    """When this process was started, on the monotonic clock of this machine, to within 10 ms."""
    from time import CLOCK_BOOTTIME, clock_gettime, monotonic

    with open("/proc/self/stat", "rb") as stream:  # noqa: PTH123
        ticks = int(stream.read().rpartition(b")")[2].split()[19])
    return monotonic() - max(0.0, clock_gettime(CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))


def _facts(stream: "Any") -> "tuple[Any, ...]":
    return stream.encoding, stream.errors, int(stream.line_buffering), int(stream.write_through)


def _is_ignored(number: int) -> bool:
    return bool(_signal.getsignal(number) == _signal.SIG_IGN)


def _begun(path: str, question: bytes) -> "RunElsewhere | None":
    """The run, begun there; None when it was not, and will not be."""
    from _socket import AF_UNIX, SCM_RIGHTS, SOCK_STREAM, SOL_SOCKET, socket
    from array import array

    connection = socket(AF_UNIX, SOCK_STREAM)
    theirs, go = os.pipe()
    try:
        connection.settimeout(START_S)
        connection.connect(path)
        descriptors = array("i", [0, 1, 2, theirs])
        sent = connection.sendmsg([question], [(SOL_SOCKET, SCM_RIGHTS, descriptors)])
        connection.sendall(question[sent:])
        link = RunElsewhere(connection)
        first = link.receive()
        if first[:1] == [STARTED]:
            link.pid = int(first[1])
            os.write(go, b"g")
            return link
    except (OSError, ValueError, IndexError):
        pass
    finally:
        os.close(theirs)
        os.close(go)
    connection.close()
    return None


class RunElsewhere:
    """A run in a child of the runner."""

    def __init__(self, connection: "Any") -> None:
        self.pid = 0
        self.writes = True
        """May it write flash? If not, what is written in this project now is another run's."""
        self._connection = connection
        self._data = b""
        self._lock: Any = None

    def receive(self) -> "list[bytes]":
        """The fields of the next frame; none at the end. Raises OSError."""
        while True:
            size = int.from_bytes(self._data[1:5], "big") if len(self._data) >= PREFIX_BYTES else MAX_HEADER
            if len(self._data) >= PREFIX_BYTES and (self._data[0] != VERDICT_FRAME or size > MAX_HEADER):
                return []
            if len(self._data) >= PREFIX_BYTES + size:
                header = self._data[PREFIX_BYTES : PREFIX_BYTES + size]
                self._data = self._data[PREFIX_BYTES + size :]
                return header.split(b"\0")
            more = self._connection.recv(1 << 12)
            if not more:
                return []
            self._data += more

    def wait(self) -> "Any":
        """Until the run ends, and then end this process as it ended."""
        self._connection.settimeout(None)
        forwarded = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGWINCH", "SIGTSTP", "SIGCONT", "SIGUSR1", "SIGUSR2")
        for name in forwarded:
            number = getattr(_signal, name)
            if not _is_ignored(number):
                _signal.signal(number, self._forward)
        try:
            ended = self.receive()
            while ended and ended[0] != ENDED:
                ended = self.receive()
        except OSError:
            ended = []
        code = int(ended[1]) if ended else self._left_alone()
        if code < 0:
            _signal.signal(-code, _signal.SIG_DFL)
            os.kill(os.getpid(), -code)
        os._exit(code)

    def _forward(self, number: int, _: "Any") -> None:
        if number == _signal.SIGINT and self.writes and not self._may_interrupt():
            self._detach()
        wanted = _signal.SIGSTOP if number == _signal.SIGTSTP else number
        self._say(SIGNAL, b"%d" % wanted)
        if number == _signal.SIGTSTP:
            os.kill(os.getpid(), _signal.SIGSTOP)

    def _say(self, *fields: bytes) -> None:
        try:  # noqa: SIM105 - contextlib is not loaded
            self._connection.sendall(frame(*fields))
        except OSError:  # it has ended, and that is about to be read
            pass

    def _may_interrupt(self) -> bool:
        """No: flash is being written. Yes: it is not, and will not be before the run has ended."""
        from pathlib import Path

        from cache.durable import FileLock

        path = Path(".deploy", "locks", "writing")
        if self._lock is not None or not path.exists():
            return True
        lock = FileLock(path)
        try:
            if lock.try_acquire("this run was interrupted") is not None:
                return False
        except OSError:
            return True
        self._lock = lock
        return True

    def _detach(self) -> None:
        """Leave the run alone, and say how to see it again."""
        self._say(DETACH)
        try:
            logs = [entry for entry in os.scandir(".deploy/runs") if entry.name[-4:] == ".log"]
            tx = max(logs, key=lambda entry: entry.stat().st_mtime_ns).name[:-4]
        except (OSError, ValueError):
            tx = "TX"
        _say_last(f"\nnote: flash is being written, and the deploy goes on: doit attach {tx}\n")
        os._exit(INTERRUPTED)

    def _left_alone(self) -> int:
        """The runner was killed; its run is asked to end, and does so in order. The exit code."""
        import select

        try:
            handle = os.pidfd_open(self.pid)
            select.select([handle], [], [], GONE_S)
            os.close(handle)
        except (OSError, AttributeError):
            pass
        _say_last("hotplate: error: the service's runner was killed, and this run interrupted\nhint: run again\n")
        return INTERRUPTED


def _say_last(text: str) -> None:
    try:  # noqa: SIM105 - contextlib is not loaded
        os.write(2, text.encode())
    except OSError:
        pass
