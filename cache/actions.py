"""Results by action key: the action cache.

    ac.v1/ab/abcd...   one entry: canonical JSON (sorted keys, no spaces) of
        {"actionResult": {...}, "format": "ac.v1", "sha256": <of key + "\\n" + the canonical actionResult>}

`actionResult` has the members of REAPI's ActionResult in proto3's JSON form: `outputFiles` with `path`, `digest`
{`hash`, `sizeBytes` as a string} and `isExecutable`, `stdoutDigest`, `stderrDigest`, and
`executionMetadata.virtualExecutionDuration`. A base key holds an entry of the same form, whose files are the candidate
sets of discovered inputs, newest first.

Knows neither how keys are made nor what candidate sets say. Invariant: an entry is written after its blobs, and is a
hit only while each of them is in the store with its size; an entry that cannot be read is a miss.
History: v1, the first.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from cache.blobs import BlobStore
from cache.digest import ActionKey, Digest
from cache.durable import read_file, write_atomic
from cache.named_tuple import NamedTuple

FORMAT = "ac.v1"
USED_LATELY_S = 3600.0
"""Within this, which entry was used last does not matter to the store's bound."""
MAX_CANDIDATES = 16
"""Candidate sets kept per base key: enough for a few branches and profiles of one file."""


class OutputFile(NamedTuple):
    """One output; `path` is POSIX and relative to the project root."""

    path: str
    digest: Digest
    executable: bool


class ActionResult(NamedTuple):
    """What a successful action left behind. `duration_ms`: how long it took where it ran."""

    outputs: tuple[OutputFile, ...]
    stdout: Digest | None = None
    stderr: Digest | None = None
    duration_ms: int = 0

    def blobs(self) -> tuple[Digest, ...]:
        """Everything that must be in the store for this to be of use."""
        return (*(file.digest for file in self.outputs), *(d for d in (self.stdout, self.stderr) if d is not None))


class ActionCache:
    """The entries below one directory; safe with many processes, the last writer of an entry wins."""

    def __init__(self, root: Path, blobs: BlobStore) -> None:
        self._top = str(root / FORMAT)
        self._blobs = blobs

    def path(self, key: ActionKey) -> Path:
        """Where the entry of `key` lies if there is one."""
        return Path(self._place(key))

    def _place(self, key: ActionKey) -> str:
        return f"{self._top}/{key[:2]}/{key}"

    def lookup(self, key: ActionKey) -> ActionResult | None:
        """The result, if all of its blobs are here."""
        result = self.entry(key)
        return result if result is not None and all(map(self._blobs.has, result.blobs())) else None

    def entry(self, key: ActionKey) -> ActionResult | None:
        """The result, whether or not its blobs are here: for a caller that reads them all."""
        try:
            return decode_entry(key, read_file(self._place(key)))
        except OSError:
            return None

    def is_complete(self, key: ActionKey) -> bool:
        """Can the entry be read, and is each of its blobs here?"""
        return self.lookup(key) is not None

    def used(self, key: ActionKey) -> bool:
        """Remember that the entry was of use now: its mtime. One of the last hour stays as it is (False): to write
        thousands costs more than their order is worth. So does one that is gone or may not be written."""
        place = self._place(key)
        try:
            if 0 <= time.time() - os.stat(place).st_mtime < USED_LATELY_S:  # noqa: PTH116
                return False
            os.utime(place)
        except OSError:
            return False
        return True

    def record(self, key: ActionKey, result: ActionResult) -> None:
        """Write the entry. Precondition: its blobs are stored (blobs before entry). Raises OSError."""
        # Not waited for: an entry carries its own checksum, and one that a power cut tore is a miss.
        write_atomic(self._place(key), encode_entry(key, result), durable=False, own=True)

    def candidates(self, base: ActionKey) -> tuple[bytes, ...]:
        """The candidate sets of a base key that are still here, newest first."""
        result = self.entry(base)
        found = [] if result is None else [self._blobs.read(file.digest) for file in result.outputs]
        return tuple(data for data in found if data is not None)

    def add_candidate(self, base: ActionKey, data: bytes) -> None:
        """Put a candidate set first. A set added by another process at the same instant may be lost: that costs a
        miss. Raises OSError."""
        newest = self._blobs.put_bytes(data)
        result = self.entry(base)
        older = () if result is None else tuple(file.digest for file in result.outputs)
        if older[:1] == (newest,):
            self.used(base)
            return
        kept = (newest, *(digest for digest in older if digest != newest))[:MAX_CANDIDATES]
        self.record(base, ActionResult(tuple(OutputFile(f"set/{n}", d, False) for n, d in enumerate(kept))))


def encode_entry(key: ActionKey, result: ActionResult) -> bytes:
    """The bytes of an entry."""
    body: dict[str, Any] = {
        "outputFiles": [
            {"path": file.path, "digest": _digest(file.digest), "isExecutable": file.executable}
            for file in result.outputs
        ],
        "executionMetadata": {"virtualExecutionDuration": f"{result.duration_ms / 1000:.3f}s"},
    }
    if result.stdout is not None:
        body["stdoutDigest"] = _digest(result.stdout)
    if result.stderr is not None:
        body["stderrDigest"] = _digest(result.stderr)
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    return _BEFORE + canonical + _tail(key, canonical)


def decode_entry(key: ActionKey, data: bytes) -> ActionResult | None:
    """The result, or None for anything that `encode_entry` did not write for this key."""
    end = len(data) - _AFTER
    if data[: len(_BEFORE)] != _BEFORE or data[end:] != _tail(key, data[len(_BEFORE) : end]):
        return None
    try:
        body = json.loads(data[len(_BEFORE) : end])
        outputs = tuple(
            OutputFile(file["path"], _parse(file["digest"]), file["isExecutable"]) for file in body["outputFiles"]
        )
        stdout, stderr = (_parse(body[name]) if name in body else None for name in ("stdoutDigest", "stderrDigest"))
        seconds = float(body["executionMetadata"]["virtualExecutionDuration"].removesuffix("s"))
        return ActionResult(outputs, stdout, stderr, round(seconds * 1000))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _digest(digest: Digest) -> dict[str, str]:
    # proto3's JSON form writes 64-bit integers as strings.
    return {"hash": digest.hex, "sizeBytes": str(digest.size)}


def _parse(value: Any) -> Digest:
    return Digest(value["hash"], int(value["sizeBytes"]))


def _tail(key: ActionKey, body: bytes) -> bytes:
    """What follows the action result. The checksum binds the entry to its key, so that one under another name is not
    believed."""
    return b',"format":"%s","sha256":"%s"}' % (
        _FORMAT,
        hashlib.sha256(key.encode() + b"\n" + body).hexdigest().encode(),
    )


_FORMAT = FORMAT.encode()
_BEFORE = b'{"actionResult":'
_AFTER = len(_tail(ActionKey(""), b""))
