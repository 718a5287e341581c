"""An entry as other programs keep it: REAPI's ActionResult in proto3's JSON form.

    PUT and GET /ac/<key>, content type application/json:
        {"executionMetadata": {"virtualExecutionDuration": "1.234s", "worker": "hotplate ac.v1 <signature>"},
         "outputFiles": [{"path": ..., "digest": {"hash": ..., "sizeBytes": "12"}, "isExecutable": true,
                          "contents": <base64, of small candidate sets>}, ...],
         "stdoutDigest": {...}, "stderrDigest": {...}}

A server may keep these bytes (nginx) or the message that they mean (bazel-remote: other spaces, members with their
default value left out, protobuf for other clients), so `signature` is of the meaning: SHA-256 of the key, a line feed
and the canonical body of `cache.actions`. It tells an answer to another question, a part of one, and what another
program wrote; not who wrote it.

Knows bytes and values, no transport. Invariant: what `decode_result` gives is what somebody gave to `encode_result`
for the same key, with output paths below `build/` and digests that can be; all else is None.
History: v1, the first.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from cache.actions import (
    FORMAT,
    MAX_ENTRY_BYTES,
    ActionResult,
    OutputFile,
    canonical_body,
    is_output_path,
    parse_digest,
)
from cache.digest import ActionKey, Digest, digest_bytes
from cache.named_tuple import NamedTuple

MOST_INLINED = 4096
"""Bytes of a candidate set that is worth no question of its own. Larger ones are shared by so many entries that
carrying them in each would cost more than one more round."""
_WORKER = f"hotplate {FORMAT} "
_is_duration = re.compile(r"([0-9]{1,9})(?:\.([0-9]{3})(?:0{3}|0{6})?)?s").fullmatch


class ForeignEntry(NamedTuple):
    """`inlined`: blobs that came with the entry; their digests are right."""

    result: ActionResult
    inlined: tuple[tuple[Digest, bytes], ...] = ()


def signature(key: ActionKey, result: ActionResult) -> str:
    """What binds `result` to `key`, as the name of the worker that made it."""
    return _WORKER + hashlib.sha256(key.encode() + b"\n" + canonical_body(result)).hexdigest()


def encode_result(key: ActionKey, result: ActionResult, inlined: Mapping[Digest, bytes]) -> bytes:
    """The body of a PUT."""
    body: dict[str, Any] = json.loads(canonical_body(result))
    body["executionMetadata"]["worker"] = signature(key, result)
    for file, written in zip(result.outputs, body["outputFiles"], strict=True):
        if file.digest in inlined:
            written["contents"] = base64.b64encode(inlined[file.digest]).decode()
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


def decode_result(key: ActionKey, data: bytes) -> ForeignEntry | None:
    """What the body of a GET says; None for what `encode_result` did not write for this key."""
    if len(data) > MAX_ENTRY_BYTES:
        return None
    try:
        body = json.loads(data)
        found = _entry(body)
        said = body["executionMetadata"]["worker"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return found if said == signature(key, found.result) else None


def _entry(body: Any) -> ForeignEntry:
    """Raises ValueError, KeyError, TypeError or AttributeError for what is no ActionResult of ours."""
    files = body.get("outputFiles", [])
    if files.__class__ is not list:
        raise ValueError("no list")
    outputs, inlined = [], []
    for file in files:
        executable = file.get("isExecutable", False)
        if executable.__class__ is not bool or not is_output_path(file["path"]):
            raise ValueError("no output file")
        digest = _digest(file["digest"])
        outputs.append(OutputFile(file["path"], digest, executable))
        if "contents" in file:
            inlined.append((digest, _contents(file["contents"], digest)))
    stdout, stderr = (_digest(body[name]) if name in body else None for name in ("stdoutDigest", "stderrDigest"))
    took = _is_duration(body["executionMetadata"].get("virtualExecutionDuration", "0s"))
    if took is None:
        raise ValueError("no duration")
    duration_ms = 1000 * int(took[1]) + int(took[2] or 0)
    return ForeignEntry(ActionResult(tuple(outputs), stdout, stderr, duration_ms), tuple(inlined))


def _contents(text: Any, digest: Digest) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("no base64") from None
    if digest_bytes(data) != digest:
        raise ValueError("other contents")
    return data


def _digest(value: Any) -> Digest:
    """Other writers leave out a size of 0, as proto3 does."""
    return parse_digest(value["hash"], value.get("sizeBytes", "0"))
