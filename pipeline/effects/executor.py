"""What the engine asks of machines that execute commands for it.

Holds values and a protocol, no code that does anything. Invariants: an executor never raises for anything that the
other side does or fails to do - it gives None, and says why once in `notes` - and what it gives back has the digests
that it names, under exactly the paths that were asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from cache.blobs import BlobStore
from cache.digest import Digest
from cache.named_tuple import NamedTuple
from pipeline.model import Action

HERE = "/proc/self/cwd"
"""What a command is told to be its directory, which has another name on each machine."""


class FarCommand(NamedTuple):
    """A command and everything that it reads. `inputs`: path below the working directory -> digest and where the file
    lies here; `same`: files of that machine, by absolute path, that must have these checksums (SHA-256 or BLAKE2b-512
    in hex), at least one; `env`: all of its environment."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    inputs: Mapping[str, tuple[Digest, str]]
    outputs: tuple[str, ...]
    same: Mapping[str, str]


class FarResult(NamedTuple):
    """How it ended there. `outputs`: path -> digest, of a success exactly those that were asked for; their blobs are
    in the store. `duration_s`: of the command alone, as the other side says."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    outputs: Mapping[str, Digest]
    duration_s: float


class FarCounts(NamedTuple):
    """Of one run: commands that ended there (`cached`: answered from what is known there), those that came back
    without a result, and bytes sent."""

    executed: int = 0
    cached: int = 0
    returned: int = 0
    sent_bytes: int = 0


class Executor(Protocol):
    """Called from several threads at once; `jobs` commands at most are under way."""

    @property
    def jobs(self) -> int: ...

    def is_on(self) -> bool:
        """Is it worth preparing a command? False from the first failure on."""
        ...

    def execute(self, command: FarCommand, blobs: BlobStore) -> FarResult | None:
        """Run it there; None when it must be run here."""
        ...

    def cancel(self) -> None:
        """Give up what is under way, which gives None, and everything after it."""
        ...

    def counts(self) -> FarCounts: ...

    def notes(self) -> tuple[str, ...]:
        """Lines for the user, each said once."""
        ...


class FarWork(NamedTuple):
    """Who executes, and what an action relies on beside its inputs. `relied_on`: absolute path -> checksum of the
    programs that it starts, which must be the same there; None for an action that is not to go."""

    executor: Executor
    relied_on: Callable[[Action], Mapping[str, str] | None]
