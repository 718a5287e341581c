"""Entries as a REAPI server keeps them: from our `ActionResult` to the message and back.

The form is that of `cache.action_result`, as protobuf: the name of the worker is the signature that binds a result to
its key, and small candidate sets travel inside. Pure. Does not know calls. Invariant: what `result_of` gives is what
somebody gave to `message_of` for the same key, with output paths below `build/` and digests that can be; all else is
None. An action of ours has no message of which the key could be the digest, so that its size is a fixed one: a server
that also answers to plain HTTP, as bazel-remote does, finds the entry by the key alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cache.action_result import ForeignEntry, signature
from cache.actions import ActionResult, OutputFile, is_output_path
from cache.digest import ActionKey, Digest, digest_bytes
from pipeline.formats import reapi
from pipeline.formats.protobuf import decode

KEY_BYTES = 64
_NOT_OURS = ("output_directories", "output_file_symlinks", "output_directory_symlinks", "output_symlinks")
_LONGEST_S = 1_000_000_000


def action_digest(key: ActionKey) -> dict[str, Any]:
    """Under which a server keeps the entry of `key`."""
    return {"hash": str(key), "size_bytes": KEY_BYTES}


def message_of(key: ActionKey, result: ActionResult, inlined: Mapping[Digest, bytes]) -> dict[str, Any]:
    """The message's fields."""
    files = [
        {
            "path": file.path,
            "digest": reapi.digest_value(file.digest),
            "is_executable": file.executable,
            "contents": inlined.get(file.digest, b""),
        }
        for file in result.outputs
    ]
    duration = {"seconds": result.duration_ms // 1000, "nanos": result.duration_ms % 1000 * 1_000_000}
    return {
        "output_files": files,
        "stdout_digest": None if result.stdout is None else reapi.digest_value(result.stdout),
        "stderr_digest": None if result.stderr is None else reapi.digest_value(result.stderr),
        "execution_metadata": {"worker": signature(key, result), "virtual_execution_duration": duration},
    }


def result_of(key: ActionKey, data: bytes) -> ForeignEntry | None:
    """What the bytes of an ActionResult say; None for what `message_of` did not make for this key."""
    body = decode(reapi.ACTION_RESULT, data)
    if body is None or body["exit_code"] or any(body[name] for name in _NOT_OURS):
        return None
    outputs, inlined = [], []
    for file in body["output_files"]:
        digest = reapi.digest_of(file["digest"])
        if digest is None or not is_output_path(file["path"]):
            return None
        if file["contents"]:
            if digest_bytes(file["contents"]) != digest:
                return None
            inlined.append((digest, file["contents"]))
        outputs.append(OutputFile(file["path"], digest, file["is_executable"]))
    said = [body["stdout_digest"], body["stderr_digest"]]
    streams = [reapi.digest_of(value) for value in said]
    if any(value is not None and digest is None for value, digest in zip(said, streams, strict=True)):
        return None
    metadata = body["execution_metadata"]
    duration_ms = None if metadata is None else _milliseconds(metadata["virtual_execution_duration"])
    if metadata is None or duration_ms is None:
        return None
    result = ActionResult(tuple(outputs), streams[0], streams[1], duration_ms)
    return ForeignEntry(result, tuple(inlined)) if metadata["worker"] == signature(key, result) else None


def _milliseconds(duration: Mapping[str, Any] | None) -> int | None:
    if duration is None:
        return 0
    seconds, nanos = duration["seconds"], duration["nanos"]
    in_range = 0 <= seconds < _LONGEST_S and 0 <= nanos < 1_000_000_000
    return int(seconds * 1000 + nanos // 1_000_000) if in_range else None
