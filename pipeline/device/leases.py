"""Leases of boards between processes: who has a board for a while, and why.

Knows lock files in the user's state directory, which all projects of a user share, since a board can be in several
`deploy.toml`s. Does not open ports: that a port has one writer is the business of the port, so that a lease which was
taken over never makes two of them. Invariants: a lease ends with the process that holds it, however that ends; there is
at most one holder of a board that has not been told so by a failure.

    <state>/leases/BOARD.json          {"generation": N, "taken": {holder, or null}}: replaced as a whole
    <state>/leases/BOARD.N.lease       held (flock) by the holder of generation N; its text is the holder as JSON

Taking a lease over begins a new generation: the old holder's lock says nothing any more, and it learns of that when it
uses its lease next. Without a lease a deploy takes one for its own time. A process whose environment names a lease
(`HOTPLATE_LEASE`) works under it: `doit lease bench -- make test`, or an agent that has acquired a board.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cache.durable import Busy, FileLock, read_text, write_atomic
from cache.location import user_state_dir
from cache.lock import OPEN, try_lock
from cache.named_tuple import NamedTuple
from pipeline.client.holder import Holder
from pipeline.config.schema import DeviceConfig
from pipeline.failures import fail
from pipeline.model import Failure, FailureCategory, Stage

LEASE_VARIABLE = "HOTPLATE_LEASE"
"""Leases that a parent process holds: `BOARD:GENERATION:PID`, separated by commas."""


_LOOKS = 20
_LOOK_S = 0.005


class TakenOver(NamedTuple):
    """A lease was taken from `before`, by us, because of `reason`."""

    before: Holder
    reason: str


class Shelf:
    """The leases of one user. `directory`: where they lie."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self._directory = directory
        self._environment = environment

    def hold(self, board: str, holder: Holder, where: str, *, take: bool = False) -> BoardLease | Failure:
        """Lease `board` (see `board_name`) to this process until `release`. A port_busy failure names who has it;
        `take` takes it over instead. Under a parent's lease there is nothing to wait for and nothing to release."""
        generation, _ = self._state(board)
        token = next((t for t in self._environment.get(LEASE_VARIABLE, "").split(",") if t.startswith(f"{board}:")), "")
        if token:
            return self._of_parent(board, generation, token, where)
        lock = FileLock(self._file(board, generation))
        busy = self._try(lock, holder)
        if busy is None:
            return BoardLease(self, board, generation, lock)
        if not take:
            return _busy(where, busy)
        # Two that take at once: both begin a generation, and the lock of the later one decides.
        generation += 1
        self._write(board, generation, holder)
        lock = FileLock(self._file(board, generation))
        again = self._try(lock, holder)
        if again is not None:
            return _busy(where, again)
        return BoardLease(self, board, generation, lock, TakenOver(busy, holder.reason))

    def holder(self, board: str) -> Holder | None:
        """Who has it now, None when nobody does."""
        generation, _ = self._state(board)
        path = self._file(board, generation)
        try:
            named = _decode(read_text(path))
            handle = os.open(path, OPEN)
        except (OSError, UnicodeDecodeError):
            return None
        # Whoever ended in order took its name away; the lock is asked only about one that may have been killed.
        if named is None or not _is_alive(named.pid):
            os.close(handle)
            return None
        try:
            free = try_lock(handle, shared=True)
        except OSError:
            free = True
        os.close(handle)
        return None if free else named

    def taken_from(self, board: str, generation: int) -> Holder | None:
        """Who took it over from the holder of `generation`, None when nobody did."""
        now, taken = self._state(board)
        return (taken or Holder(0, "somebody")) if now > generation else None

    def beside(self, board: str, ending: str) -> Path:
        """Where something else that is known of this board can be kept; whoever has its lease may write there."""
        return self._directory.resolve() / f"{board}.{ending}"

    def _of_parent(self, board: str, generation: int, token: str, where: str) -> BoardLease | Failure:
        number, _, pid = token.removeprefix(f"{board}:").partition(":")
        if number != str(generation):
            taker = self._state(board)[1]
            return _lost(where, taker)
        holder = self.holder(board)
        if holder is None or str(holder.pid) != pid:
            message = f"the lease that {LEASE_VARIABLE} names has ended"
            hint = f"unset {LEASE_VARIABLE}, or run `doit lease` again"
            return fail(FailureCategory.PORT_BUSY, stage=Stage.VERIFY_FLASH, where=where, message=message, hint=hint)
        return BoardLease(self, board, generation, None)

    def _try(self, lock: FileLock, holder: Holder) -> Holder | None:
        """Take the lock, or who has it. Where locks do not work nobody can hold one."""
        try:
            busy = lock.try_acquire(json.dumps(holder._asdict()))
            for _ in range(_LOOKS):
                if busy is None or _is_alive(_named(busy).pid):
                    break
                time.sleep(_LOOK_S)  # somebody looks at the lock of one that was killed
                busy = lock.try_acquire(json.dumps(holder._asdict()))
        except OSError:
            return None
        return None if busy is None else _named(busy)

    def _state(self, board: str) -> tuple[int, Holder | None]:
        """(generation, who began it by taking it over). A damaged file is a new beginning."""
        with contextlib.suppress(OSError, ValueError):
            value = json.loads(read_text(self._directory / f"{board}.json"))
            if isinstance(value, dict) and type(value.get("generation")) is int and value["generation"] >= 0:
                return value["generation"], _decode(json.dumps(value.get("taken")))
        return 0, None

    def _write(self, board: str, generation: int, holder: Holder) -> None:
        value = {"generation": generation, "taken": holder._asdict()}
        write_atomic(self._directory / f"{board}.json", json.dumps(value).encode(), durable=False, mode=0o600)

    def _file(self, board: str, generation: int) -> Path:
        return self._directory / f"{board}.{generation}.lease"


class BoardLease:
    """A lease that this process works under. `taken`: from whom, if it was taken over."""

    def __init__(
        self, shelf: Shelf, board: str, generation: int, lock: FileLock | None, taken: TakenOver | None = None
    ) -> None:
        self._shelf = shelf
        self._lock = lock
        self._released = False
        self.board = board
        self.generation = generation
        self.taken = taken

    @property
    def token(self) -> str:
        """For HOTPLATE_LEASE of child processes."""
        return f"{self.board}:{self.generation}:{os.getpid()}"

    @property
    def of_parent(self) -> bool:
        """Was it a parent process that leased the board, and we work under that?"""
        return self._lock is None and not self._released

    def lost(self, where: str) -> Failure | None:
        """Why it is no longer ours: somebody took it over."""
        taker = self._shelf.taken_from(self.board, self.generation)
        return None if taker is None else _lost(where, taker)

    def release(self) -> None:
        """Idempotent."""
        self._released = True
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def user_shelf(state_dir: Path, environment: Mapping[str, str] = os.environ) -> Shelf:
    """That of this user; where the environment names no home, the project's `state_dir` must do."""
    return Shelf(Path(user_state_dir(environment, sys.platform) or state_dir) / "leases", environment)


def board_name(device: DeviceConfig, root: Path, environment: Mapping[str, str] = os.environ) -> str:
    """What a board's lease is called: the same for every project and user name of its port. In-process boards belong to
    their project and their flash file, and so does what a farm chooses by tags: for each device another board."""
    port = device.port
    if device.is_virtual:
        key = f"virtual {root / (device.flash_file or device.name)}"
    elif device.is_in_farm:
        key = _farm_key(device, root, environment)
    elif "://" in port or port == "auto":
        key = port.partition("?")[0]
    else:
        key = os.path.realpath(port)
    shown = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(key).name or "board").strip("-.")[:40]
    return f"{shown or 'board'}-{hashlib.sha256(key.encode(errors='surrogateescape')).hexdigest()[:12]}"


def _farm_key(device: DeviceConfig, root: Path, environment: Mapping[str, str]) -> str:
    from pipeline.formats.farm_url import FarmUrl, farm_coordinator, parse_farm_url

    url = parse_farm_url(device.port)
    if not isinstance(url, FarmUrl):
        return device.port  # deploy.toml was checked when it was read
    coordinator = farm_coordinator(url, environment)
    return f"labgrid://{coordinator}/{url.place or f'{root / device.name}'}"


def _named(busy: Busy) -> Holder:
    return _decode(busy.holder) or Holder(0, busy.holder)


def _is_alive(pid: int) -> bool:
    if pid <= 0 or sys.platform == "win32":  # there a signal 0 would end it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _decode(text: str) -> Holder | None:
    try:
        value: Any = json.loads(text)
    except ValueError:
        return None
    if not isinstance(value, dict):
        return None
    from pipeline.client.protocol import ProtocolError, read_fields

    try:
        holder: Holder = read_fields(Holder, value)
    except ProtocolError:
        return None
    return holder


def _busy(where: str, holder: Holder) -> Failure:
    reason = f": {holder.reason}" if holder.reason else ""
    message = f"the board is leased to {holder.command} (pid {holder.pid}){reason}"
    hint = "wait for its end, choose another board, or take it over with --take --reason TEXT"
    return fail(FailureCategory.PORT_BUSY, stage=Stage.VERIFY_FLASH, where=where, message=message, hint=hint)


def _lost(where: str, taker: Holder | None) -> Failure:
    by = f"{taker.command} (pid {taker.pid})" if taker is not None else "somebody"
    reason = f": {taker.reason}" if taker is not None and taker.reason else ""
    message = f"the lease was taken over by {by}{reason}"
    hint = "talk to its holder, then acquire the board again"
    return fail(FailureCategory.PORT_BUSY, stage=Stage.VERIFY_FLASH, where=where, message=message, hint=hint)
