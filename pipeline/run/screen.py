"""What people see of a run while it is under way: whoever has a screen puts it here.

Holds callables and shows nothing itself. Invariant: without a screen everything that is said is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.model import Failure


class Screen:
    """Shared by all parts of one run."""

    def __init__(self) -> None:
        self.on_progress: Callable[[str, int, int], None] = lambda label, done, total: None
        self.on_notice: Callable[[str], None] = lambda text: None
        self.on_stage: Callable[[str, bool], None] = lambda name, up_to_date: None
        self.on_failure: Callable[[Failure], None] = lambda failure: None
        self.on_lane_progress: Callable[[str, str, int, int], None] = lambda device, label, done, total: None
        self.on_lane_over: Callable[[str], None] = lambda device: None

    def progress(self, label: str, done: int, total: int) -> None:
        """`done` of `total` (0: unknown) in units of the caller's."""
        self.on_progress(label, done, total)

    def notice(self, text: str) -> None:
        """Lines for the user, such as a compiler's warnings."""
        self.on_notice(text)

    def stage(self, name: str, *, up_to_date: bool = False) -> None:
        """A stage that no task runner shows begins, or has nothing to do."""
        self.on_stage(name, up_to_date)

    def failure(self, failure: Failure) -> None:
        """One that ends neither the run nor, for the task runner, a task."""
        self.on_failure(failure)


class LaneScreen:
    """What the stages of one board see of it, where several have their turn at once."""

    def __init__(self, screen: Screen, device: str, check: Callable[[], None]) -> None:
        """`check` is called with each step, and raises where the stage must not go on."""
        self._screen = screen
        self._device = device
        self._check = check

    def progress(self, label: str, done: int, total: int) -> None:
        """As `Screen.progress`."""
        self._check()
        self._screen.on_lane_progress(self._device, label, done, total)

    def notice(self, text: str) -> None:
        """As `Screen.notice`, with the device's name."""
        self._screen.notice(f"{self._device}: {text}")
