"""What time it is for a file system: the clock that its stamps come from, which may be another machine's.

A file server may be seconds behind or ahead of the machine that builds, so that a file written during an action carries
a stamp from before it, by this machine's clock. The clock of a file system is therefore asked itself: a scratch file of
ours on the same file system is touched, and its stamp is the time. Local file systems are asked in the same way.

Knows devices and places that may be written to, not what is built. Invariant: whatever is written to a file system
after `now_ns` returned gets a ctime that is not earlier than what it returned.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from cache.durable import NEW_FILE, temp_beside
from cache.named_tuple import NamedTuple

_LINUX_COARSE = 5
"""CLOCK_REALTIME_COARSE of linux/time.h; Python has no name for it."""
UNASKED_NS = 60_000_000_000
"""How far the clock of a file system that cannot be asked (nothing of ours may be written there) may be behind ours."""
_TICK_NS = 20_000_000
"""More than a tick of any clock that does not count in seconds."""
_ANYBODYS = "/tmp"
_UNNAMED = getattr(os, "O_TMPFILE", 0)


def filesystem_now_ns() -> int:
    """The clock that local file systems stamp files with. On Linux it ticks every 1 to 10 ms, and some kernels stamp
    finer than it ticks, but none stamps with an earlier instant than it shows."""
    return time.clock_gettime_ns(_LINUX_COARSE) if sys.platform == "linux" else time.time_ns()


def is_settled(ctime_ns: int, read_began_ns: int) -> bool:
    """Would a change after `read_began_ns` be certain to move ctime? Whole seconds suggest a file system that ticks
    in seconds (up to 2 s on FAT), so those must be older."""
    tick_ns = 2_000_000_000 if ctime_ns % 1_000_000_000 == 0 else 0
    return ctime_ns < read_began_ns - tick_ns


class Moment(NamedTuple):
    """One instant: `known` is device -> the time that its file system had, the others are clocks of this machine."""

    known: Mapping[int, int]
    local_ns: int
    monotonic_ns: int

    @property
    def earliest_ns(self) -> int:
        """Not later than the moment on any clock that was asked."""
        return min(self.known.values(), default=self.local_ns)

    def is_after(self, other: Moment) -> bool:
        """Has every clock that was asked at the `other` moment moved on since?"""
        return all(self.known.get(device, then_ns) > then_ns for device, then_ns in other.known.items())


class FileClock:
    """The clocks of the file systems that a run meets, each asked when it is needed. Safe to use from several threads:
    what another thread reads of a scratch file that this one has touched is later, and still not later than now."""

    def __init__(self, places: Sequence[str] = (), local_now_ns: Callable[[], int] = filesystem_now_ns) -> None:
        """`places`: directories in which a file of ours may appear for an instant, best first. They need not be there
        yet. Elsewhere a scratch file is made only where the system can do that without a name."""
        self._places = places
        self._local_now_ns = local_now_ns
        self._scratch: dict[int, int] = {}
        """device -> an open file that has no name any more."""
        self._latest: dict[int, int] = {}

    def __del__(self) -> None:
        for handle in self._scratch.values():
            with contextlib.suppress(OSError):
                os.close(handle)

    def now_ns(self, device: int, near: str = "") -> int:
        """The time on the file system `device` (of `os.stat`). `near`: a directory there. Where it cannot be asked, our
        own clock less `UNASKED_NS`."""
        if sys.platform == "win32":
            return self._local_now_ns()  # no open file can be removed there, and its ctime is another thing
        handle = self._scratch.get(device)
        if handle is None:
            handle = self._open(device, near)
        now_ns = self._local_now_ns() - UNASKED_NS
        if handle is not None:
            with contextlib.suppress(OSError):
                os.utime(handle)
                now_ns = os.fstat(handle).st_ctime_ns
        self._latest[device] = now_ns
        return now_ns

    def is_past(self, status: os.stat_result, path: str) -> bool:
        """Would a change from now on be certain to move the stamp? To be asked before the file is read, or the
        directory listed."""
        latest_ns, changed_ns = self._latest.get(status.st_dev), _changed_ns(status)
        if latest_ns is not None and is_settled(changed_ns, latest_ns):
            return True
        near = "" if status.st_dev in self._scratch else _near(path)
        return is_settled(changed_ns, self.now_ns(status.st_dev, near))

    def meet(self, device: int, path: str) -> None:
        """Ask that file system, if it was not, so that `next_tick` and `moment` ask it too. `path`: of a file there."""
        if device not in self._latest:
            self.now_ns(device, _near(path))

    def met(self, directory: str) -> FileClock:
        """This, after the file system of `directory` was asked, if there is such a directory."""
        with contextlib.suppress(OSError):
            self.meet(os.stat(directory).st_dev, f"{directory}/.")  # noqa: PTH116
        return self

    def moment(self) -> Moment:
        """Now, on the clock of each file system that was met so far."""
        monotonic_ns, local_ns = time.monotonic_ns(), self._local_now_ns()
        return Moment({device: self.now_ns(device) for device in list(self._latest)}, local_ns, monotonic_ns)

    def at(self, local_ns: int) -> Moment:
        """The moment at which our own clock said, or will say, that."""
        passed_ns = self._local_now_ns() - local_ns
        moment = Moment({}, local_ns, time.monotonic_ns() - passed_ns)
        return moment._replace(known={device: self._then_ns(moment, device, "") for device in list(self._latest)})

    def has_met_more(self, moment: Moment) -> bool:
        """Was a file system met since then? A stamp of that one cannot be compared with `moment.earliest_ns`."""
        return len(self._latest) > len(moment.known)

    def is_before(self, status: os.stat_result, path: str, moment: Moment) -> bool:
        """Was the file, directory or link last changed before `moment`? `status` is of now."""
        return _changed_ns(status) < self._then_ns(moment, status.st_dev, path)

    def was_settled(self, status: os.stat_result, path: str, moment: Moment) -> bool:
        """As `is_before`, and would a change since then be certain to have moved the stamp?"""
        return is_settled(_changed_ns(status), self._then_ns(moment, status.st_dev, path))

    def _then_ns(self, moment: Moment, device: int, path: str) -> int:
        """Not later than `moment` on the clock of that file system, even if it was met only afterwards."""
        known = moment.known.get(device)
        if known is not None:
            return known
        now_ns = self.now_ns(device, _near(path))
        if device not in self._scratch:
            return moment.local_ns - UNASKED_NS
        # Both clocks may tick, and differ by a thousandth in speed.
        passed_ns = time.monotonic_ns() - moment.monotonic_ns
        return now_ns - passed_ns - passed_ns // 1000 - _TICK_NS

    def next_tick(self, deadline_s: float = 0.05) -> None:
        """Return once each clock that was met, or our own if there is none, has passed the instant of the call:
        some 10 ms on Linux, `deadline_s` at worst. Afterwards, whatever was written before the call is certainly in the
        past."""
        give_up_s = time.monotonic() + deadline_s
        if not self._scratch:
            # One tick does not suffice: the clock may be late, and kernels that stamp finer stamp ahead of it.
            began_ns = time.time_ns()
            while self._local_now_ns() <= began_ns and time.monotonic() < give_up_s:
                time.sleep(0.0005)
        for device in list(self._scratch):
            began_ns = self.now_ns(device)
            while self.now_ns(device) <= began_ns and time.monotonic() < give_up_s:
                time.sleep(0.0005)

    def _open(self, device: int, near: str) -> int | None:
        """A scratch file on that file system."""
        for place in (*self._places, _ANYBODYS):
            with contextlib.suppress(OSError):
                if os.stat(place).st_dev == device and self._take(device, _scratch_in(place, named=True)):  # noqa: PTH116
                    return self._scratch[device]
        if near:
            with contextlib.suppress(OSError):
                if self._take(device, _scratch_in(near, named=False)):
                    return self._scratch[device]
        return None

    def _take(self, device: int, handle: int) -> bool:
        """Keep the handle if it is of that file system."""
        if os.fstat(handle).st_dev == device and self._scratch.setdefault(device, handle) == handle:
            return True
        os.close(handle)
        return device in self._scratch


def _changed_ns(status: os.stat_result) -> int:
    """The stamp that cannot be put back; on Windows, where ctime is the file's birth, the other one."""
    return status.st_ctime_ns if os.name == "posix" else status.st_mtime_ns


def _near(path: str) -> str:
    return os.path.dirname(path) or "."  # noqa: PTH120


def _scratch_in(place: str, *, named: bool) -> int:
    """An open file that will be gone when it is closed. Raises OSError, for instance where one without a name cannot be
    made and `named` does not allow another."""
    if _UNNAMED:
        with contextlib.suppress(OSError):
            return os.open(place, _UNNAMED | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    if not named:
        raise OSError(f"no unnamed file can be made in {place}")
    path = temp_beside(f"{place}/clock")
    handle = os.open(path, NEW_FILE, 0o600)
    os.unlink(path)  # noqa: PTH108
    return handle
