"""Send an application to running firmware that offers `ota.begin`, over the line on which it speaks JSON-RPC.

Knows the methods (firmware/README.md). Does not know what the image is, or whether it will run. Invariants: nothing is
selected before the device itself has confirmed the SHA-256 of the whole slot; a transfer that is cut off leaves what
runs alone, and the next one sends only what is missing.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.device.console import CallAnswer, CallRefusal, DeviceMonitor
from pipeline.failures import fail
from pipeline.flash.ota_plan import DIGEST_CHARS, OtaPlan, chunks, plan_blocks, runs
from pipeline.model import Failure, FailureCategory, Stage

HASHES_AT_ONCE, COPIES_AT_ONCE = 32, 8
ANSWER_S = 5.0
"""A block is erased in 45 ms and hashed in less."""
COMMIT_S = 30.0
TRIES = 3
"""Of a chunk whose answer was lost: its block begins anew, which the device takes at any time."""
NO_METHOD = -32601

TransferProgress = Callable[[str, int, int], None]


class OtaSlot(NamedTuple):
    """Where the device puts the update: a partition, its offset in flash, and its size in bytes."""

    partition: str
    offset: int
    room: int
    block: int


class OtaTransfer(NamedTuple):
    """A finished transfer: the slot is selected, and runs after a restart."""

    slot: OtaSlot
    plan: OtaPlan


class OtaRefused(Exception):
    """It cannot go on; the failure says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class OtaClient:
    """One update over `monitor`."""

    def __init__(self, monitor: DeviceMonitor, where: str) -> None:
        self._monitor = monitor
        self._where = where

    def transfer(self, image: bytes, sha256: str, progress: TransferProgress) -> OtaTransfer:
        """All of it, up to the selection. Raises OtaRefused, and DeviceError when the port goes away."""
        slot = self._begin(len(image))
        slots, running = self._digests(slot, len(image))
        plan = plan_blocks(image, slot.block, slots, running)
        for first, count in runs(plan.copied, COPIES_AT_ONCE):
            self._call("ota.copy", {"first": first, "count": count})
        done = 0
        for index in plan.sent:
            done += self._send_block(image, slot.block, index)
            progress("ota", done, plan.bytes_sent)
        answer = self._call("ota.commit", {"sha256": sha256}, COMMIT_S)
        if not isinstance(answer, Mapping) or answer.get("sha256") != sha256:
            raise self._refused(f"it confirmed {answer!r:.80} instead of the SHA-256 {sha256}")
        return OtaTransfer(slot, plan)

    def _begin(self, size: int) -> OtaSlot:
        answer = self._call("ota.begin", {"size": size})
        try:
            slot = OtaSlot(**{name: answer[name] for name in OtaSlot._fields})
        except (TypeError, KeyError):
            raise self._refused(f"ota.begin answered {answer!r:.80}") from None
        numbers = (slot.offset, slot.room, slot.block)
        if not isinstance(slot.partition, str) or any(type(n) is not int for n in numbers) or slot.block <= 0:
            raise self._refused(f"ota.begin answered {answer!r:.80}")
        return slot

    def _digests(self, slot: OtaSlot, size: int) -> tuple[list[str], list[str]]:
        """Of the blocks of the slot, and of what runs."""
        total = -(-size // slot.block)
        found: tuple[list[str], list[str]] = ([], [])
        for first in range(0, total, HASHES_AT_ONCE):
            count = min(HASHES_AT_ONCE, total - first)
            answer = self._call("ota.hashes", {"first": first, "count": count})
            for name, all_of in zip(("slot", "running"), found, strict=True):
                rows = answer.get(name) if isinstance(answer, Mapping) else None
                if not isinstance(rows, list) or len(rows) != count:
                    rows = [""] * count
                all_of += [row if _is_digest(row) else "" for row in rows]
        return found

    def _send_block(self, image: bytes, block: int, index: int) -> int:
        """A block, again from its begin where an answer is lost; its bytes."""
        for attempt in range(TRIES):
            sent = 0
            try:
                for at, data in chunks(image, block, index):
                    after = self._call("ota.chunk", {"at": at, "data": base64.b64encode(data).decode()})
                    sent += len(data)
                    if after != at + len(data):
                        raise self._refused(f"ota.chunk answered {after!r:.40}, not {at + len(data)}")
                return sent
            except OtaRefused as refused:
                if refused.failure.category is not FailureCategory.RPC_TIMEOUT or attempt + 1 == TRIES:
                    raise
        raise AssertionError("the last attempt has raised [this is a bug]")

    def _call(self, method: str, params: Any, timeout_s: float = ANSWER_S) -> Any:
        answer = self._monitor.call(method, params, timeout_s)
        if isinstance(answer, CallAnswer):
            return answer.result
        if isinstance(answer, CallRefusal):
            if answer.code == NO_METHOD:
                message = f"the firmware that runs does not offer `{method}`"
                hint = "deploy over the cable once with firmware that does, or set the device's `ota` to http or espota"
                category = FailureCategory.CONFIG_ERROR
                failed = fail(category, stage=Stage.REFLASH, where=self._where, message=message, hint=hint)
                raise OtaRefused(failed)
            raise self._refused(f"`{method}` was refused with {answer.code}: {answer.message:.200}")
        raise OtaRefused(answer._replace(stage=Stage.REFLASH))

    def _refused(self, fact: str) -> OtaRefused:
        message = f"the update was not taken: {fact}"
        hint = "run it again: what arrived is kept; if it is refused again, deploy over the cable"
        category = FailureCategory.WRITE_FAILED
        return OtaRefused(fail(category, stage=Stage.REFLASH, where=self._where, message=message, hint=hint))


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and len(value) == DIGEST_CHARS
