"""Protocols of everything that touches the world: clock, processes, ports, boards.

Holds no code. Stages and the engine see only these; `run/` puts real ones behind them and tests put fakes.
Invariant: every call that can wait takes a deadline or a timeout, and says by its return value or a `DeviceError` with
a named failure that the time is up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from cache.named_tuple import NamedTuple
from pipeline.model import Reason

if TYPE_CHECKING:
    from pipeline.flash_model import DeviceFacts, Image, Region


class Clock(Protocol):
    """Durations come from `now_s` (monotonic seconds), instants from `utc` (ISO 8601 with ms and Z)."""

    def now_s(self) -> float: ...
    def utc(self) -> str: ...


class Completed(NamedTuple):
    """A finished child process. `exit_code` is negative when a signal ended it (POSIX). `ended_ns`: an instant of
    `time.monotonic_ns` after its end; 0 where nobody looked."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    duration_s: float
    ended_ns: int = 0


class ProcessRunner(Protocol):
    """Runs one command to its end. The child never outlives this process (own group, killed on exit and cancel)."""

    def run(self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout_s: float) -> Completed: ...
    def cancel(self) -> None:
        """Kill every child under way; further `run`s raise KeyboardInterrupt."""
        ...


class Children(Protocol):
    """Commands of one runner that one thread starts and waits for together. All but `wake` is for that thread."""

    def start(self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout_s: float) -> object:
        """As `ProcessRunner.run`, without waiting; gives what `ended` will name it by."""
        ...

    def ended(self, timeout_s: float) -> Sequence[tuple[object, Completed | BaseException]]:
        """What has ended, with what `run` would have returned or raised. Waits for one so long, or until `wake` or
        until something is printed: then it may be none."""
        ...

    def wake(self) -> None:
        """End the waiting; from any thread."""
        ...

    def close(self) -> None:
        """Kill what is under way, and let go of everything."""
        ...


@runtime_checkable
class ParallelRunner(Protocol):
    """A ProcessRunner whose commands need not be waited for one by one."""

    def together(self) -> Children: ...


Progress = Callable[[str, int, int], None]
"""`progress(label, done, total)`; units are the caller's."""


class Gap(NamedTuple):
    """The port was gone between these instants of link time: what the device sent meanwhile is lost."""

    gone_s: float
    back_s: float


class SerialLink(Protocol):
    """An open serial port in monitor use. `now_s` is the clock that stamps its bytes (for an in-process virtual board:
    the board's, so that modelled time counts)."""

    @property
    def name(self) -> str: ...
    @property
    def real_time(self) -> bool:
        """Does the board go on while nobody reads?"""
        ...

    @property
    def gaps(self) -> Sequence[Gap]:
        """When the port was gone so far; only grows."""
        ...

    def now_s(self) -> float: ...
    def read(self, timeout_s: float) -> bytes:
        """What has arrived, at least one byte; `b""` when `timeout_s` of link time passed without any. A port that
        vanished is waited for and opened again. Raises DeviceError(port_missing) when it does not come back."""
        ...

    def write(self, data: bytes) -> None:
        """Send. What is sent while the port is gone is lost; the next `read` finds out."""
        ...

    def set_baud(self, baud: int) -> None: ...
    def release_reset(self) -> float:
        """Reset the chip into its application by the shortest sequence that this transport knows; returns the instant
        (link clock) at which reset was released. Bytes that arrive later stay readable."""
        ...

    def close(self) -> None: ...


SLOWER_BAUD = "slower-baud"
"""Kind of reason: the line did not take a rate, and the next lower one was tried."""


RECOVERED = "recovered"
"""Kind of reason: the loader answered only after more than the usual entry; the subject says after what."""


class Answers(NamedTuple):
    """What came back from the firmware: results by method (None: it answered with an error), and link times of the
    request, of the first byte and of the first answer's first byte."""

    results: Mapping[str, Any]
    sent_s: float
    first_byte_s: float | None
    first_answer_s: float | None


class FlashSession(Protocol):
    """One open loader session with one board: identity known, nothing written yet.

    Every method raises DeviceError with a category of the failure map. `close` is idempotent and leaves the port free;
    after `into_monitor` the session is spent and the link owns the port.
    """

    @property
    def port(self) -> str: ...
    @property
    def facts(self) -> DeviceFacts: ...
    @property
    def round_trips(self) -> int: ...
    @property
    def reasons(self) -> tuple[Reason, ...]:
        """What did not go the lean way, such as entering the loader or the flashing rate (SLOWER_BAUD)."""
        ...

    @property
    def baud(self) -> int:
        """The rate at which data will be written."""
        ...

    @property
    def is_checked(self) -> bool:
        """Does the line itself find and repeat what arrives otherwise than it was sent? USB does (a CRC for each
        packet), a UART does not."""
        ...

    def md5(self, offset: int, size: int) -> str:
        """MD5 of flash as the device computed it (32 hex digits)."""
        ...

    def read(self, offset: int, size: int) -> bytes: ...
    def flash_size(self) -> int | None:
        """Bytes of flash, from the flash chip's own id, asked anew; None when that tells nothing known."""
        ...

    def is_protected(self) -> bool:
        """Is flash encryption or secure boot on? Asked anew, while the ROM still answers."""
        ...

    def write(self, image: Image, data: bytes, runs: Sequence[Region], progress: Progress) -> int:
        """Program `runs` of `data` (the whole image, as written) and return the bytes programmed, before compression.
        Does not verify."""
        ...

    def into_monitor(self, baud: int) -> SerialLink:
        """Keep the descriptor, set the monitor's baud; the chip still waits in the loader."""
        ...

    def close(self) -> None: ...


class Reader(Protocol):
    """Stamps what a link receives from `start` on, whether or not anybody asks."""

    def start(self) -> None: ...
    def poll(self, timeout_s: float) -> tuple[float, bytes]:
        """`(stamp, bytes)` in link seconds; empty bytes when nothing came within `timeout_s`."""
        ...

    @property
    def dropped(self) -> int:
        """Bytes that came and were thrown away because nobody took them; never falls."""
        ...

    def stop(self) -> None: ...
