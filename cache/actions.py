"""Results by action key: the action cache.

    ac.v1/ab/abcd...   one entry: canonical JSON (sorted keys, no spaces) of
        {"actionResult": {...}, "format": "ac.v1", "sha256": <of key + "\\n" + the canonical actionResult>}

`actionResult` has the members of REAPI's ActionResult in proto3's JSON form: `outputFiles` with `path`, `digest`
{`hash`, `sizeBytes` as a string} and `isExecutable`, `stdoutDigest`, `stderrDigest`, and
`executionMetadata.virtualExecutionDuration`. A base key holds an entry of the same form, whose files are the candidate
sets of discovered inputs, newest first.

Knows neither how keys are made nor what candidate sets say. Invariants: an entry is written after its blobs, and is a
hit only while each of them is in the store with its size. What is read from a file is nothing but what `encode_entry`
could have written: digests of 64 digits with a size in range, output paths below `build/`, finite durations. All else
is a miss, and an entry like that is removed. The checksum tells damage, not who wrote it: others may write here, too.
History: v1, the first.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cache.blobs import BlobStore
from cache.digest import ActionKey, Digest, is_sound
from cache.hexfiles import HexFiles
from cache.named_tuple import NamedTuple

FORMAT = "ac.v1"
USED_LATELY_S = 3600.0
"""Within this, which entry was used last does not matter to the store's bound."""
MAX_CANDIDATES = 16
"""Candidate sets kept per base key: enough for a few branches and profiles of one file."""
MAX_ENTRY_BYTES = 16 << 20
"""An entry of fifty thousand outputs, or a candidate set of a hundred thousand headers, has less."""
_LONGEST_PATH = 4096
_quoted = json.encoder.encode_basestring_ascii
_is_path = re.compile(r"(?:build|set)(?:/(?!\.\.?(?:/|\Z))[^/\\\0]+)+").fullmatch
_is_size = re.compile("0|[1-9][0-9]{0,14}").fullmatch
_hashes = re.compile(rb'"hash":"([0-9a-f]{64})"').findall
_is_duration = re.compile(r"([0-9]{1,9})\.([0-9]{3})s").fullmatch


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
        self.files = HexFiles(root / FORMAT)
        self._blobs = blobs
        self._without: set[ActionKey] = set()
        """Base keys for which `candidates` found nothing."""
        self._body: tuple[tuple[Digest, ...], bytes] = ((), b"")
        """The last candidate sets that were put first, and the body of their entry: most base keys have the same."""
        self._sets_read: tuple[bytes, tuple[Digest, ...]] = (b"", ())
        """The last body of candidate sets that was read, and what it says."""

    def path(self, key: ActionKey) -> Path:
        """Where the entry of `key` lies if there is one. Raises OSError for what is no key."""
        return Path(self.files.place(key))

    def lookup(self, key: ActionKey) -> ActionResult | None:
        """The result, if all of its blobs are here."""
        result = self.entry(key)
        return result if result is not None and all(map(self._blobs.has, result.blobs())) else None

    def entry(self, key: ActionKey) -> ActionResult | None:
        """The result, whether or not its blobs are here: for a caller that reads them all."""
        data = self._bytes_of(key)
        return None if data is None else self._checked(key, decode_entry(key, data))

    def _bytes_of(self, key: ActionKey) -> bytes | None:
        try:
            return self.files.read(key, most=MAX_ENTRY_BYTES)
        except OSError:
            return None

    def _checked(self, key: ActionKey, result: ActionResult | None) -> ActionResult | None:
        if result is None:
            self.files.remove(key)
        return result

    def is_complete(self, key: ActionKey) -> bool:
        """Can the entry be read, and is each of its blobs here?"""
        return self.lookup(key) is not None

    def used(self, key: ActionKey) -> bool:
        """Remember that the entry was of use now: its mtime. One of the last hour stays as it is (False): to write
        thousands costs more than their order is worth. So does one that is gone or may not be written."""
        try:
            if 0 <= time.time() - self.files.status(key).st_mtime < USED_LATELY_S:
                return False
            self.files.touch(key)
        except OSError:
            return False
        return True

    def record(self, key: ActionKey, result: ActionResult) -> None:
        """Write the entry. Precondition: its blobs are stored (blobs before entry). Raises OSError."""
        self.files.write(key, encode_entry(key, result))

    def candidates(self, base: ActionKey) -> tuple[bytes, ...]:
        """The candidate sets of a base key that are still here, newest first."""
        found = map(self.candidate, self.sets(base))
        return tuple(data for data in found if data is not None)

    def candidate(self, digest: Digest) -> bytes | None:
        """The candidate set of that digest; None when it is not here."""
        return self._blobs.read(digest) if digest.size <= MAX_ENTRY_BYTES else None

    def sets(self, base: ActionKey) -> tuple[Digest, ...]:
        """The digests of the candidate sets of a base key, newest first; many base keys share some."""
        found = self._sets(base)
        if not found:
            self._without.add(base)
        return found

    def _sets(self, base: ActionKey) -> tuple[Digest, ...]:
        data = self._bytes_of(base)
        if data is None:
            return ()
        body, (last, sets) = _body_of(base, data), self._sets_read
        if body is None or body != last:
            result = self._checked(base, None if body is None else _decoded(body))
            if body is None or result is None:
                return ()
            sets = tuple([file.digest for file in result.outputs[:MAX_CANDIDATES]])
            self._sets_read = (body, sets)
        return sets

    def take_candidates(self, base: ActionKey, sets: Sequence[Digest]) -> None:
        """Put candidate sets of others before those that are here. Precondition: they are stored. Raises OSError."""
        kept = tuple(dict.fromkeys((*sets, *self._sets(base))))[:MAX_CANDIDATES]
        self.record(base, entry_of_sets(kept))
        self._without.discard(base)

    def add_candidate(self, base: ActionKey, data: bytes) -> None:
        """As `put_first`, of a candidate set that may not be stored yet. Raises OSError."""
        self.put_first(base, self._blobs.put_bytes(data))

    def put_first(self, base: ActionKey, newest: Digest) -> None:
        """Put a candidate set first. Precondition: it is stored (blobs before entry). A set that another process has
        added since `sets` was asked, or at the same instant, may be lost: that costs a miss. Raises OSError."""
        older: tuple[Digest, ...] = ()
        if base in self._without:
            self._without.discard(base)
        else:
            older = self._sets(base)
        if older[:1] == (newest,):
            self.used(base)
            return
        kept = (newest, *[digest for digest in older if digest != newest])[:MAX_CANDIDATES]
        last, body = self._body
        if last != kept:
            body = canonical_body(entry_of_sets(kept))
            self._body = (kept, body)
        self.files.write(base, _with_tail(base, body))


def entry_of_sets(sets: Iterable[Digest]) -> ActionResult:
    """Candidate sets as the outputs of an entry, under a base key."""
    return ActionResult(tuple(OutputFile(f"set/{n}", digest, False) for n, digest in enumerate(sets)))


def encode_entry(key: ActionKey, result: ActionResult) -> bytes:
    """The bytes of an entry."""
    return _with_tail(key, canonical_body(result))


def _with_tail(key: ActionKey, canonical: bytes) -> bytes:
    return _BEFORE + canonical + _tail(key, canonical)


def canonical_body(result: ActionResult) -> bytes:
    """The action result in its one form: JSON with sorted keys and no spaces, which is written here as it is, since a
    build writes thousands of them."""
    files = ",".join(
        [
            f'{{"digest":{_digest(digest)},"isExecutable":{"true" if executable else "false"},"path":{_quoted(path)}}}'
            for path, digest, executable in result.outputs
        ]
    )
    more = f',"stderrDigest":{_digest(result.stderr)}' if result.stderr is not None else ""
    more += f',"stdoutDigest":{_digest(result.stdout)}' if result.stdout is not None else ""
    took = f'"executionMetadata":{{"virtualExecutionDuration":"{result.duration_ms / 1000:.3f}s"}}'
    return f'{{{took},"outputFiles":[{files}]{more}}}'.encode()


def decode_entry(key: ActionKey, data: bytes) -> ActionResult | None:
    """The result, or None for anything that `encode_entry` did not write for this key."""
    body = _body_of(key, data)
    return None if body is None else _decoded(body)


def _body_of(key: ActionKey, data: bytes) -> bytes | None:
    """The canonical action result in an entry; None for what is damaged, or an entry of another key."""
    end = len(data) - _AFTER
    body = data[len(_BEFORE) : end]
    return body if data[: len(_BEFORE)] == _BEFORE and data[end:] == _tail(key, body) else None


def _decoded(body: bytes) -> ActionResult | None:
    try:
        return _result(json.loads(body))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def needs_of(key: ActionKey, data: bytes) -> str | None:
    """The hex digits of each blob that an entry refers to, one after the other; None for what is damaged. In a tenth
    of the time of `decode_entry`, and never fewer than that finds: a quote in a path is written `\\"`."""
    body = _body_of(key, data)
    return None if body is None else b"".join(_hashes(body)).decode()


def _result(body: Any) -> ActionResult:
    """Raises ValueError, KeyError, TypeError or AttributeError for anything that `encode_entry` does not write."""
    if body["outputFiles"].__class__ is not list:
        raise ValueError("no list")
    outputs = tuple([_output(file["path"], file["digest"], file["isExecutable"]) for file in body["outputFiles"]])
    stdout, stderr = (
        parse_digest(body[name]["hash"], body[name]["sizeBytes"]) if name in body else None
        for name in ("stdoutDigest", "stderrDigest")
    )
    duration = _is_duration(body["executionMetadata"]["virtualExecutionDuration"])
    if duration is None:
        raise ValueError("no duration")
    return ActionResult(outputs, stdout, stderr, 1000 * int(duration[1]) + int(duration[2]))


def _output(path: Any, digest: Any, executable: Any) -> OutputFile:
    if executable.__class__ is not bool or not is_output_path(path):
        raise ValueError("no output file")
    return OutputFile(path, parse_digest(digest["hash"], digest["sizeBytes"]), executable)


def is_output_path(path: Any) -> bool:
    """Is that a POSIX path below `build/` in its plainest form, or the name of a candidate set?"""
    return path.__class__ is str and len(path) <= _LONGEST_PATH and _is_path(path) is not None


def _digest(digest: Digest) -> str:
    # proto3's JSON form writes 64-bit integers as strings.
    return f'{{"hash":"{digest.hex}","sizeBytes":"{digest.size}"}}'


def parse_digest(name: Any, size: Any) -> Digest:
    """Of a digest in proto3's JSON form. Raises ValueError, TypeError where it cannot be one."""
    if _is_size(size) is None:
        raise ValueError("no size")
    digest = Digest(name, int(size))
    if not is_sound(digest):
        raise ValueError("no digest")
    return digest


def _tail(key: ActionKey, body: bytes) -> bytes:
    """What follows the action result. The checksum binds the entry to its key, so that one under another name is not
    believed."""
    checksum = hashlib.sha256(key.encode() + b"\n" + body).hexdigest()
    return f'{_FORMAT_AND}{checksum}"}}'.encode()


_FORMAT_AND = f',"format":"{FORMAT}","sha256":"'
_BEFORE = b'{"actionResult":'
_AFTER = len(_tail(ActionKey(""), b""))
