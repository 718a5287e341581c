"""A server of the Remote Execution API in this process, honest unless a test replaces one of its answers.

It stores what it is given, counts calls, and verifies digests as real servers do. `answers[METHOD]` replaces an answer:
a function of the request's bytes that gives the bytes (for streams: several) or raises `RpcRefusal`.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from cache.digest import Digest, digest_bytes
from pipeline.formats import reapi
from pipeline.formats.protobuf import Table, decode, encode
from pipeline.remote.reapi_channel import ReapiServer

SMALL_BATCH = 4096
UNARY, STREAM_OUT, STREAM_IN = "unary_unary", "unary_stream", "stream_unary"


class RpcRefusal(Exception):
    """The code of gRPC that a call ends with."""

    def __init__(self, code: str, text: str = "") -> None:
        self.code, self.text = code, text


class ReapiDouble:
    """`with ReapiDouble() as server:` listens on loopback until the end of the block. `pem`: key and certificate."""

    def __init__(
        self, *, most_batch_bytes: int = SMALL_BATCH, update: bool = True, execute: bool = False, pem: bytes = b""
    ) -> None:
        self._pem = pem
        self.blobs: dict[Digest, bytes] = {}
        self.results: dict[str, bytes] = {}
        self.calls: Counter[str] = Counter()
        self.actions: list[dict[str, Any]] = []
        self.finished = b""
        self.metadata: list[dict[str, str]] = []
        self.answers: dict[str, Callable[[Any], Any]] = {}
        self.capabilities = {
            "cache_capabilities": {
                "digest_functions": [reapi.SHA256],
                "action_cache_update_capabilities": {"update_enabled": update},
                "max_batch_total_size_bytes": most_batch_bytes,
            },
            "execution_capabilities": {"digest_function": reapi.SHA256, "exec_enabled": execute},
        }
        self._forms: dict[str, tuple[str, Callable[[Any], Any]]] = {
            reapi.GET_CAPABILITIES: (UNARY, self._capabilities),
            reapi.FIND_MISSING_BLOBS: (UNARY, self._missing),
            reapi.BATCH_UPDATE_BLOBS: (UNARY, self._update),
            reapi.BATCH_READ_BLOBS: (UNARY, self._read_batch),
            reapi.READ: (STREAM_OUT, self._read),
            reapi.WRITE: (STREAM_IN, self._write),
            reapi.GET_ACTION_RESULT: (UNARY, self._result),
            reapi.UPDATE_ACTION_RESULT: (UNARY, self._update_result),
            reapi.EXECUTE: (STREAM_OUT, self._execute),
            reapi.WAIT_EXECUTION: (STREAM_OUT, self._wait),
        }

    def __enter__(self) -> ReapiDouble:
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._server: Any = grpc.server(ThreadPoolExecutor(8), [self._handler()], options=options)
        if self._pem:
            credentials = grpc.ssl_server_credentials(((self._pem, self._pem),))
            port = self._server.add_secure_port("127.0.0.1:0", credentials)
        else:
            port = self._server.add_insecure_port("127.0.0.1:0")
        self.address = ReapiServer("127.0.0.1", port, tls=bool(self._pem))
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait(10)

    def put(self, data: bytes) -> Digest:
        """As if somebody had uploaded it."""
        digest = digest_bytes(data)
        self.blobs[digest] = data
        return digest

    def _handler(self) -> Any:
        forms = self._forms

        class AllMethods(grpc.GenericRpcHandler):  # type: ignore[misc]
            def service(handler, details: Any) -> Any:
                method = details.method.removeprefix("/")
                if method not in forms:
                    return None
                form, honest = forms[method]
                self.metadata.append(dict(details.invocation_metadata))
                make = getattr(grpc, f"{form}_rpc_method_handler")
                return make(self._streamed(method, honest) if form == STREAM_OUT else self._single(method, honest))

        return AllMethods()

    def _single(self, method: str, honest: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
        def answer(request: Any, context: Any) -> Any:
            self.calls[method.rpartition("/")[2]] += 1
            try:
                return self.answers.get(method, honest)(request)
            except RpcRefusal as refusal:
                context.abort(grpc.StatusCode[refusal.code], refusal.text)

        return answer

    def _streamed(self, method: str, honest: Callable[[Any], Any]) -> Callable[[Any, Any], Iterator[bytes]]:
        def answer(request: Any, context: Any) -> Iterator[bytes]:
            self.calls[method.rpartition("/")[2]] += 1
            try:
                yield from self.answers.get(method, honest)(request)
            except RpcRefusal as refusal:
                context.abort(grpc.StatusCode[refusal.code], refusal.text)

        return answer

    # --- honest answers ---------------------------------------------------------------------------

    def _capabilities(self, request: bytes) -> bytes:
        return encode(reapi.SERVER_CAPABILITIES, self.capabilities)

    def _missing(self, request: bytes) -> bytes:
        asked = [reapi.digest_of(each) for each in _read(reapi.FIND_MISSING_BLOBS_REQUEST, request)["blob_digests"]]
        missing = [reapi.digest_value(each) for each in asked if each is not None and each not in self.blobs]
        return encode(reapi.FIND_MISSING_BLOBS_RESPONSE, {"missing_blob_digests": missing})

    def _update(self, request: bytes) -> bytes:
        responses = []
        for each in _read(reapi.BATCH_UPDATE_BLOBS_REQUEST, request)["requests"]:
            right = self.put(each["data"]) == reapi.digest_of(each["digest"])
            responses.append({"digest": each["digest"], "status": {"code": 0 if right else 3}})
        return encode(reapi.BATCH_UPDATE_BLOBS_RESPONSE, {"responses": responses})

    def _read_batch(self, request: bytes) -> bytes:
        responses = []
        for each in _read(reapi.BATCH_READ_BLOBS_REQUEST, request)["digests"]:
            data = self.blobs.get(reapi.digest_of(each) or digest_bytes(b""))
            status = {"code": 5 if data is None else 0}
            responses.append({"digest": each, "data": data or b"", "status": status})
        return encode(reapi.BATCH_READ_BLOBS_RESPONSE, {"responses": responses})

    def _read(self, request: bytes) -> Iterator[bytes]:
        data = self.blobs.get(named_digest(_read(reapi.READ_REQUEST, request)["resource_name"]))
        if data is None:
            raise RpcRefusal("NOT_FOUND")
        for at in range(0, len(data), 1000):
            yield encode(reapi.READ_RESPONSE, {"data": data[at : at + 1000]})

    def _write(self, requests: Iterator[bytes]) -> bytes:
        data, digest, ended = b"", None, False
        for request in requests:
            part = _read(reapi.WRITE_REQUEST, request)
            if part["write_offset"] != len(data) or (digest is None and not part["resource_name"]):
                raise RpcRefusal("INVALID_ARGUMENT")
            digest = digest or named_digest(part["resource_name"])
            data, ended = data + part["data"], part["finish_write"]
        if not ended or self.put(data) != digest:
            raise RpcRefusal("INVALID_ARGUMENT")
        return encode(reapi.WRITE_RESPONSE, {"committed_size": len(data)})

    def _result(self, request: bytes) -> bytes:
        key = _read(reapi.GET_ACTION_RESULT_REQUEST, request)["action_digest"]["hash"]
        if key not in self.results:
            raise RpcRefusal("NOT_FOUND")
        return self.results[key]

    def _update_result(self, request: bytes) -> bytes:
        said = _read(reapi.UPDATE_ACTION_RESULT_REQUEST, request)
        data = encode(reapi.ACTION_RESULT, said["action_result"])
        self.results[said["action_digest"]["hash"]] = data
        return data

    # --- execution: the command really runs, in a directory of its own ---------------------------

    def _execute(self, request: bytes) -> Iterator[bytes]:
        said = _read(reapi.EXECUTE_REQUEST, request)
        assert not said["skip_cache_lookup"]
        digest = reapi.digest_of(said["action_digest"])
        action = _read(reapi.ACTION, self._blob(digest))
        assert not action["do_not_cache"]
        self.actions.append(action)
        cached = self.results.get(digest.hex) if digest is not None else None
        result = cached or self.executed(action)
        if digest is not None and not decode(reapi.ACTION_RESULT, result)["exit_code"]:  # type: ignore[index]
            self.results[digest.hex] = result
        self.finished = operation(result, cached=cached is not None)
        yield encode(reapi.OPERATION, {"name": "operations/1"})
        yield self.finished

    def _wait(self, request: bytes) -> Iterator[bytes]:
        assert _read(reapi.WAIT_EXECUTION_REQUEST, request)["name"] == "operations/1"
        yield self.finished

    def executed(self, action: dict[str, Any]) -> bytes:
        """Run it; the bytes of its ActionResult."""
        command = _read(reapi.COMMAND, self._blob(reapi.digest_of(action["command_digest"])))
        with tempfile.TemporaryDirectory() as place:
            self._stage(Path(place), reapi.digest_of(action["input_root_digest"]))
            for path in command["output_paths"]:
                (Path(place) / path).parent.mkdir(parents=True, exist_ok=True)
            done = subprocess.run(command["arguments"], cwd=place, env={"PWD": "/"}, capture_output=True, check=False)
            files = [
                {"path": path, "digest": reapi.digest_value(self.put((Path(place) / path).read_bytes()))}
                for path in command["output_paths"]
                if (Path(place) / path).is_file()
            ]
        return encode(
            reapi.ACTION_RESULT,
            {
                "output_files": files,
                "exit_code": done.returncode,
                "stdout_raw": done.stdout,
                "stderr_digest": reapi.digest_value(self.put(done.stderr)),
                "execution_metadata": {
                    "execution_start_timestamp": {"seconds": 100, "nanos": 900_000_000},
                    "execution_completed_timestamp": {"seconds": 102, "nanos": 150_000_000},
                },
            },
        )

    def _stage(self, place: Path, root: Digest | None) -> None:
        directory = _read(reapi.DIRECTORY, self._blob(root))
        for file in directory["files"]:
            (place / file["name"]).write_bytes(self._blob(reapi.digest_of(file["digest"])))
        for below in directory["directories"]:
            (place / below["name"]).mkdir()
            self._stage(place / below["name"], reapi.digest_of(below["digest"]))

    def _blob(self, digest: Digest | None) -> bytes:
        if digest is None or digest not in self.blobs:
            raise RpcRefusal("FAILED_PRECONDITION", "a blob is missing")
        return self.blobs[digest]


def operation(result: bytes, *, cached: bool = False, code: int = 0) -> bytes:
    """An operation that is done."""
    response = {"result": decode(reapi.ACTION_RESULT, result), "cached_result": cached, "status": {"code": code}}
    packed = {
        "type_url": "type.googleapis.com/build.bazel.remote.execution.v2.ExecuteResponse",
        "value": encode(reapi.EXECUTE_RESPONSE, response),
    }
    return encode(reapi.OPERATION, {"name": "operations/1", "done": True, "response": packed})


def _read(table: Table, data: bytes) -> dict[str, Any]:
    found = decode(table, data)
    if found is None:
        raise RpcRefusal("INVALID_ARGUMENT")
    return found


def named_digest(resource: str) -> Digest:
    """`.../blobs/HASH/SIZE`."""
    name, size = resource.split("/")[-2:]
    return Digest(name, int(size))
