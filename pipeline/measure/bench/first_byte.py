"""How long a program takes until it shows something: from its start to the first line on its stdout.

Also is the board at the other end of a pseudo-terminal, which talks before anybody listens, so that no boot is in what
is measured. Does not know which program it is. Invariant: neither program nor board outlives its block.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pipeline.effects.process import background
from pipeline.measure.child import Spent, children_cpu_s

EVERY_S = 0.005
"""How often the board says a line."""


def first_byte(argv: Sequence[str], cwd: Path, env: Mapping[str, str]) -> Spent:
    """Run it until it has shown a line, then end it; `cpu_s` is what it took until it was ended, its watchdog's shell
    included. Raises RuntimeError when it ends without one, TimeoutError, OSError."""
    before_s = children_cpu_s()
    began_s = time.perf_counter()
    with background(argv, cwd, env) as line:
        wall_s = time.perf_counter() - began_s
    if not line:
        raise RuntimeError(f"{' '.join(argv)[:200]} showed nothing")
    return Spent(wall_s, children_cpu_s() - before_s, line)


@contextlib.contextmanager
def talking_board() -> Iterator[str]:
    """The name of a port on which somebody says a line every EVERY_S. Raises OSError where there are no
    pseudo-terminals."""
    if os.name != "posix":
        raise OSError("there are no pseudo-terminals on this system")
    import tty

    board, port = os.openpty()
    tty.setraw(port)
    os.set_blocking(board, False)
    over = threading.Event()

    def talk() -> None:
        number = 0
        while not over.wait(EVERY_S):
            number += 1
            with contextlib.suppress(BlockingIOError):  # nobody listens, and the line is full
                os.write(board, b"I (%d) talking: line %d\r\n" % (number, number))

    talker = threading.Thread(target=talk, name="talking-board", daemon=True)
    talker.start()
    try:
        yield os.ttyname(port)
    finally:
        over.set()
        talker.join()
        os.close(board)
        os.close(port)
