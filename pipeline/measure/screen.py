"""What a measurement shows while it goes on, and how its failure becomes the text of a task's.

Knows the terminal; not what is measured. Invariant: a line that stays never begins inside a progress line.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

from pipeline.model import Failure
from pipeline.report.terminal import Progress, look_of, os_failure

Made = TypeVar("Made")


class MeasurementScreen:
    """`step(label, done, total)` redraws the progress line; `line` prints one that stays."""

    def __init__(self) -> None:
        self.look = look_of(sys.stdout)
        self.step = Progress(sys.stdout, self.look)

    def line(self, text: str) -> None:
        self.step.finish()
        print(text, flush=True)


def shown(what: str, measure: Callable[[MeasurementScreen], Made | Failure]) -> Made | str:
    """What was made, or why not: the fact and a hint. `what` names the task in errors of the system."""
    screen = MeasurementScreen()
    try:
        made = measure(screen)
    except OSError as error:
        return os_failure(what, error)
    finally:
        screen.step.finish()
    return f"{made.line()}\nhint: {made.hint}" if isinstance(made, Failure) else made
