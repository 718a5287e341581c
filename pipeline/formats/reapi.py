"""Messages of the Remote Execution API, version 2, and of what it uses: field numbers, and the names of its calls.

Tables for `protobuf`, with those fields alone that we say or read. Does not know what they are for, or a transport.
Invariant: numbers, names and kinds are those that the API publishes; its field names stay as they are spelt there.
"""

from __future__ import annotations

from typing import Any

from cache.digest import Digest, is_sound
from pipeline.formats.protobuf import Field, Table, WireKind

SHA256 = 1
"""`DigestFunction.Value`."""

_I, _B, _S, _D, _M = WireKind.INT, WireKind.BOOL, WireKind.STRING, WireKind.BYTES, WireKind.MESSAGE

DIGEST: Table = (Field(1, "hash", _S), Field(2, "size_bytes", _I))
DURATION: Table = (Field(1, "seconds", _I), Field(2, "nanos", _I))
STATUS: Table = (Field(1, "code", _I), Field(2, "message", _S))
ANY: Table = (Field(1, "type_url", _S), Field(2, "value", _D))

# --- capabilities -----------------------------------------------------------------------------

GET_CAPABILITIES = "build.bazel.remote.execution.v2.Capabilities/GetCapabilities"
GET_CAPABILITIES_REQUEST: Table = (Field(1, "instance_name", _S),)
_CACHE_CAPABILITIES: Table = (
    Field(1, "digest_functions", _I, repeated=True),
    Field(2, "action_cache_update_capabilities", _M, table=(Field(1, "update_enabled", _B),)),
    Field(4, "max_batch_total_size_bytes", _I),
)
_EXECUTION_CAPABILITIES: Table = (
    Field(1, "digest_function", _I),
    Field(2, "exec_enabled", _B),
    Field(5, "digest_functions", _I, repeated=True),
)
SERVER_CAPABILITIES: Table = (
    Field(1, "cache_capabilities", _M, table=_CACHE_CAPABILITIES),
    Field(2, "execution_capabilities", _M, table=_EXECUTION_CAPABILITIES),
)

# --- blobs ------------------------------------------------------------------------------------

_CAS = "build.bazel.remote.execution.v2.ContentAddressableStorage"
FIND_MISSING_BLOBS = f"{_CAS}/FindMissingBlobs"
FIND_MISSING_BLOBS_REQUEST: Table = (
    Field(1, "instance_name", _S),
    Field(2, "blob_digests", _M, repeated=True, table=DIGEST),
)
FIND_MISSING_BLOBS_RESPONSE: Table = (Field(2, "missing_blob_digests", _M, repeated=True, table=DIGEST),)

BATCH_UPDATE_BLOBS = f"{_CAS}/BatchUpdateBlobs"
BATCH_UPDATE_BLOBS_REQUEST: Table = (
    Field(1, "instance_name", _S),
    Field(2, "requests", _M, repeated=True, table=(Field(1, "digest", _M, table=DIGEST), Field(2, "data", _D))),
)
BATCH_UPDATE_BLOBS_RESPONSE: Table = (
    Field(
        1,
        "responses",
        _M,
        repeated=True,
        table=(Field(1, "digest", _M, table=DIGEST), Field(2, "status", _M, table=STATUS)),
    ),
)

BATCH_READ_BLOBS = f"{_CAS}/BatchReadBlobs"
BATCH_READ_BLOBS_REQUEST: Table = (
    Field(1, "instance_name", _S),
    Field(2, "digests", _M, repeated=True, table=DIGEST),
)
BATCH_READ_BLOBS_RESPONSE: Table = (
    Field(
        1,
        "responses",
        _M,
        repeated=True,
        table=(
            Field(1, "digest", _M, table=DIGEST),
            Field(2, "data", _D),
            Field(3, "status", _M, table=STATUS),
            Field(4, "compressor", _I),
        ),
    ),
)

READ = "google.bytestream.ByteStream/Read"
READ_REQUEST: Table = (Field(1, "resource_name", _S), Field(2, "read_offset", _I), Field(3, "read_limit", _I))
READ_RESPONSE: Table = (Field(10, "data", _D),)
WRITE = "google.bytestream.ByteStream/Write"
WRITE_REQUEST: Table = (
    Field(1, "resource_name", _S),
    Field(2, "write_offset", _I),
    Field(3, "finish_write", _B),
    Field(10, "data", _D),
)
WRITE_RESPONSE: Table = (Field(1, "committed_size", _I),)

# --- results ----------------------------------------------------------------------------------

_OUTPUT_FILE: Table = (
    Field(1, "path", _S),
    Field(2, "digest", _M, table=DIGEST),
    Field(4, "is_executable", _B),
    Field(5, "contents", _D),
)
_OUTPUT_LINK: Table = (Field(1, "path", _S), Field(2, "target", _S))
_OUTPUT_DIRECTORY: Table = (Field(1, "path", _S), Field(3, "tree_digest", _M, table=DIGEST))
EXECUTION_METADATA: Table = (
    Field(1, "worker", _S),
    Field(7, "execution_start_timestamp", _M, table=DURATION),
    Field(8, "execution_completed_timestamp", _M, table=DURATION),
    Field(12, "virtual_execution_duration", _M, table=DURATION),
)
ACTION_RESULT: Table = (
    Field(2, "output_files", _M, repeated=True, table=_OUTPUT_FILE),
    Field(3, "output_directories", _M, repeated=True, table=_OUTPUT_DIRECTORY),
    Field(4, "exit_code", _I),
    Field(5, "stdout_raw", _D),
    Field(6, "stdout_digest", _M, table=DIGEST),
    Field(7, "stderr_raw", _D),
    Field(8, "stderr_digest", _M, table=DIGEST),
    Field(9, "execution_metadata", _M, table=EXECUTION_METADATA),
    Field(10, "output_file_symlinks", _M, repeated=True, table=_OUTPUT_LINK),
    Field(11, "output_directory_symlinks", _M, repeated=True, table=_OUTPUT_LINK),
    Field(12, "output_symlinks", _M, repeated=True, table=_OUTPUT_LINK),
)

_AC = "build.bazel.remote.execution.v2.ActionCache"
GET_ACTION_RESULT = f"{_AC}/GetActionResult"
GET_ACTION_RESULT_REQUEST: Table = (
    Field(1, "instance_name", _S),
    Field(2, "action_digest", _M, table=DIGEST),
    Field(3, "inline_stdout", _B),
    Field(4, "inline_stderr", _B),
    Field(5, "inline_output_files", _S, repeated=True),
)
UPDATE_ACTION_RESULT = f"{_AC}/UpdateActionResult"
UPDATE_ACTION_RESULT_REQUEST: Table = (
    Field(1, "instance_name", _S),
    Field(2, "action_digest", _M, table=DIGEST),
    Field(3, "action_result", _M, table=ACTION_RESULT),
)

# --- execution --------------------------------------------------------------------------------

_PROPERTY: Table = (Field(1, "name", _S), Field(2, "value", _S))
_PLATFORM: Table = (Field(1, "properties", _M, repeated=True, table=_PROPERTY),)
COMMAND: Table = (
    Field(1, "arguments", _S, repeated=True),
    Field(2, "environment_variables", _M, repeated=True, table=_PROPERTY),
    Field(3, "output_files", _S, repeated=True),
    Field(5, "platform", _M, table=_PLATFORM),
    Field(6, "working_directory", _S),
    Field(7, "output_paths", _S, repeated=True),
)
ACTION: Table = (
    Field(1, "command_digest", _M, table=DIGEST),
    Field(2, "input_root_digest", _M, table=DIGEST),
    Field(6, "timeout", _M, table=DURATION),
    Field(7, "do_not_cache", _B),
    Field(9, "salt", _D),
    Field(10, "platform", _M, table=_PLATFORM),
)
DIRECTORY: Table = (
    Field(
        1,
        "files",
        _M,
        repeated=True,
        table=(Field(1, "name", _S), Field(2, "digest", _M, table=DIGEST), Field(4, "is_executable", _B)),
    ),
    Field(2, "directories", _M, repeated=True, table=(Field(1, "name", _S), Field(2, "digest", _M, table=DIGEST))),
    Field(3, "symlinks", _M, repeated=True, table=(Field(1, "name", _S), Field(2, "target", _S))),
)

_EXECUTION = "build.bazel.remote.execution.v2.Execution"
EXECUTE = f"{_EXECUTION}/Execute"
EXECUTE_REQUEST: Table = (
    Field(1, "instance_name", _S),
    Field(3, "skip_cache_lookup", _B),
    Field(6, "action_digest", _M, table=DIGEST),
)
EXECUTE_RESPONSE: Table = (
    Field(1, "result", _M, table=ACTION_RESULT),
    Field(2, "cached_result", _B),
    Field(3, "status", _M, table=STATUS),
    Field(5, "message", _S),
)
WAIT_EXECUTION = f"{_EXECUTION}/WaitExecution"
WAIT_EXECUTION_REQUEST: Table = (Field(1, "name", _S),)
OPERATION: Table = (
    Field(1, "name", _S),
    Field(3, "done", _B),
    Field(4, "error", _M, table=STATUS),
    Field(5, "response", _M, table=ANY),
)


def digest_value(digest: Digest) -> dict[str, Any]:
    """A digest as a field's value."""
    return {"hash": digest.hex, "size_bytes": digest.size}


def digest_of(value: Any) -> Digest | None:
    """The digest that a field holds; None for nothing, and for what can be no digest of ours."""
    if value is None:
        return None
    digest = Digest(value["hash"], value["size_bytes"])
    return digest if is_sound(digest) else None
