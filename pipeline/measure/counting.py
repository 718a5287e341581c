"""Run a program in this process and count what it does: no clock, so the counts are the same on a busy machine.

`python -S -c "from pipeline.measure.counting import main; main()" OUT PROGRAM [ARG...]`, with PROGRAM `hotplate` or a
module such as `doit`; writes a JSON object to OUT. Counts bytecode instructions of the main thread (only with
COUNT_INSTRUCTIONS in the environment: Python becomes several times slower), calls of os.stat for paths below the
directory in which it starts, files opened there, processes started, modules imported, and with COUNT_SERIAL bytes on
the line to a board process. Knows nothing of what the program is for.

Invariant: what it imports, a bare interpreter has loaded already, so that the program pays for its own imports.
"""

import os
import sys
from itertools import count

TYPE_CHECKING = False  # type checkers know the name
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any


class Counts:
    """What happened so far. Counters are iterators of C, whose `next` no thread can interrupt."""

    def __init__(self) -> None:
        self.instructions = count()
        self.stats = count()
        self.serial = (bytearray(), bytearray())
        self.opened: list[str] = []
        self.spawned: list[list[str]] = []
        self._top = os.getcwd() + os.sep  # noqa: PTH109 - pathlib may not be loaded
        self._here = ""

    def moved(self) -> None:
        """The current directory is another one: names without a directory are from there."""
        self._here = os.getcwd() + os.sep  # noqa: PTH109
        self._here = self._here.removeprefix(self._top) if self._here.startswith(self._top) else self._here

    def relative(self, path: "Any") -> "str | None":
        """`path` from the directory in which all began; None when it lies elsewhere or is no name."""
        if isinstance(path, int):
            return None
        # fsdecode would be counted, being a function of Python outside of this file
        name = path if isinstance(path, str) else bytes(path).decode("utf-8", "surrogateescape")
        name = name if name[:1] == os.sep else self._here + name
        return name.removeprefix(self._top) if name.startswith(self._top) or name[:1] != os.sep else None

    def found(self) -> "dict[str, Any]":
        import re

        # A board says for how long it has been up: a value of more digits is no more work.
        exchanged = sum(len(re.sub(rb"(?<=:)[0-9]+(?=[,}])", b"0", line)) for line in self.serial)
        return {
            "instructions": next(self.instructions),
            "stats": next(self.stats),
            "serial_bytes": exchanged,
            "opened": self.opened,
            "spawned": self.spawned,
            "modules": sorted(sys.modules),
        }


def count_stats(counts: Counts) -> None:
    """Replaced in the module, since neither audit nor profile hooks see a call that `map` makes. The import system has
    its own, so its calls are not in here."""
    real = os.stat

    def stat(path: "Any", *args: "Any", **kwargs: "Any") -> os.stat_result:
        if counts.relative(path) is not None:
            next(counts.stats)
        return real(path, *args, **kwargs)

    os.stat = stat


def follow_chdir(counts: Counts) -> None:
    """So that a name is known for that of a file in the project after the program went elsewhere, and no other is."""
    real = os.chdir

    def chdir(path: "Any") -> None:
        real(path)
        counts.moved()

    os.chdir = chdir


def count_events(counts: Counts) -> None:
    """Files opened and processes started, as CPython audits them (PEP 578)."""

    def hook(event: str, args: "tuple[Any, ...]") -> None:
        if event == "open" and (name := counts.relative(args[0])) is not None:
            counts.opened.append(name)
        elif event in ("subprocess.Popen", "os.posix_spawn"):
            counts.spawned.append([os.fsdecode(word) for word in args[1]])

    sys.addaudithook(hook)


def count_serial(counts: Counts) -> None:
    """The two directions of the line to a board process. This imports what a deploy to one imports."""
    from serial import rfc2217

    read, write = rfc2217.Serial.read, rfc2217.Serial.write

    def counted_read(port: "Any", size: int = 1) -> bytes:
        data: bytes = read(port, size)
        counts.serial[0].extend(data)
        return data

    def counted_write(port: "Any", data: bytes) -> "Any":
        counts.serial[1].extend(data)
        return write(port, data)

    setattr(rfc2217.Serial, "read", counted_read)  # noqa: B010 - type checkers refuse an assignment
    setattr(rfc2217.Serial, "write", counted_write)  # noqa: B010


def count_instructions(counts: Counts) -> None:
    """From here on, but for the frames of this file."""
    own, seen = __file__, counts.instructions

    def each(frame: "FrameType", event: str, arg: "Any") -> "Any":
        if event == "opcode":
            next(seen)
        return each

    def begin(frame: "FrameType", event: str, arg: "Any") -> "Any":
        if frame.f_code.co_filename == own:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return each

    # CPython 3.12 looks for a frame that wants opcodes when tracing begins, and never again.
    sys._getframe().f_trace_opcodes = True
    sys.settrace(begin)


def run(name: str) -> "Any":
    """As the console script, or as `python -m` runs a module; the exit code."""
    if name == "hotplate":
        from pipeline.fastpath import main

        return main()
    from runpy import run_module

    run_module(name, run_name="__main__", alter_sys=True)
    return 0


def main() -> None:
    """See the head of this file."""
    out, name = sys.argv[1:3]
    sys.argv[:] = [name, *sys.argv[3:]]
    counts = Counts()
    leave = os._exit

    def end(code: int) -> None:
        sys.settrace(None)
        import json

        text = json.dumps(counts.found())
        with open(out, "w") as stream:  # noqa: PTH123 - pathlib may not be loaded
            stream.write(text)
        sys.stdout.flush()
        sys.stderr.flush()
        leave(code)

    os._exit = end  # type: ignore[assignment]  # the fast path ends a process that way
    count_stats(counts)
    follow_chdir(counts)
    count_events(counts)
    if os.environ.get("COUNT_SERIAL"):
        count_serial(counts)
    code: Any = 1
    try:
        if os.environ.get("COUNT_INSTRUCTIONS"):
            count_instructions(counts)
        code = run(name)
    except SystemExit as stop:
        code = stop.code
    except Exception:
        sys.excepthook(*sys.exc_info())  # `end` leaves without a word
    finally:
        end(code if isinstance(code, int) else 0 if code is None else 1)
