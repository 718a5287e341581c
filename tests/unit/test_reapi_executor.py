"""Commands on a server in this process, which really runs them; and every way in which that can go wrong."""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cache.blobs import BlobStore
from cache.digest import digest_bytes
from pipeline.effects.clock import SystemClock
from pipeline.effects.executor import HERE, FarCommand, FarResult
from pipeline.formats import reapi
from pipeline.formats.protobuf import decode, encode
from pipeline.remote.reapi_channel import ReapiServer
from pipeline.remote.reapi_executor import ReapiExecutor
from tests.unit.reapi_server import ReapiDouble, RpcRefusal, operation

TOOL = "/bin/sh"
WAIT_S = 60.0
pytestmark = pytest.mark.skipif(not Path("/usr/bin/sha256sum").exists(), reason="no /usr/bin/sha256sum")


@pytest.fixture
def server() -> Iterator[ReapiDouble]:
    with ReapiDouble(execute=True) as running:
        yield running


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may need seconds for what is answered at once on another."""
    monkeypatch.setattr("pipeline.remote.reapi_executor.HELLO_S", WAIT_S)


class FarBench:
    """A project of one file, and commands over it."""

    def __init__(self, root: Path) -> None:
        self.source = root / "source"
        self.source.write_bytes(b"text\n")
        self.store = BlobStore(root / "store")

    def command(self, script: str = "cat src/a > out/b; echo said; echo warned >&2", **changes: Any) -> FarCommand:
        data = self.source.read_bytes()
        same = {TOOL: hashlib.blake2b(Path(TOOL).read_bytes()).hexdigest()}
        inputs = {"src/a": (digest_bytes(data), str(self.source))}
        command = FarCommand((TOOL, "-c", script), {"PWD": HERE, "LC_ALL": "C"}, inputs, ("out/b",), same)
        return command._replace(**changes)


@pytest.fixture
def bench(tmp_path: Path) -> FarBench:
    return FarBench(tmp_path)


def executor(server: ReapiDouble, **more: Any) -> ReapiExecutor:
    return ReapiExecutor(server.address, SystemClock(), **{"jobs": 2, "platform": {}, **more})


def test_a_command_runs_there(server: ReapiDouble, bench: FarBench) -> None:
    far = executor(server, platform={"OSFamily": "linux"}, authorization="Bearer s3cret")
    result = far.execute(bench.command(), bench.store)
    digest = digest_bytes(b"text\n")
    assert result == FarResult(0, b"said\n", b"warned\n", {"out/b": digest}, 1.25)
    assert bench.store.read(digest) == b"text\n"
    sent = far.counts().sent_bytes
    assert far.counts() == (1, 0, 0, sent) and sent > 0 and far.notes() == () and far.is_on()
    assert server.actions[0]["platform"]["properties"] == [{"name": "OSFamily", "value": "linux"}]
    assert all(each["authorization"] == "Bearer s3cret" for each in server.metadata)
    again = executor(server)
    assert again.execute(bench.command(), bench.store) is not None  # another platform: another action
    asked = server.calls["FindMissingBlobs"]
    assert again.execute(bench.command(), bench.store) == result
    assert again.counts().cached == 1 and again.counts().executed == 2
    assert server.calls["FindMissingBlobs"] == asked, "what is known to be there is not asked for again"
    assert again.counts().sent_bytes < sent, "the source and the tree were there already"
    for one in (far, again):
        one.cancel()


def test_its_environment_is_ours_alone(server: ReapiDouble, bench: FarBench) -> None:
    far = executor(server)
    result = far.execute(bench.command("/usr/bin/env; : > out/b"), bench.store)
    assert result is not None
    assert {*result.stdout.decode().split()} - {"_=/usr/bin/env", "SHLVL=0"} == {f"PWD={HERE}", "LC_ALL=C"}
    far.cancel()


def test_its_exit_code_comes_back_without_outputs(server: ReapiDouble, bench: FarBench) -> None:
    far = executor(server)
    result = far.execute(bench.command("echo wrong >&2; exit 3"), bench.store)
    assert result == FarResult(3, b"", b"wrong\n", {}, 1.25) and far.is_on()
    far.cancel()


def test_killed_there_is_no_result_and_no_reason_to_stop(server: ReapiDouble, bench: FarBench) -> None:
    far = executor(server)
    assert far.execute(bench.command("exit 137"), bench.store) is None
    assert far.is_on() and far.notes() == () and far.counts().returned == 1
    far.cancel()


@pytest.mark.parametrize("sha256", ["0" * 64, "0" * 128, ""])
def test_a_worker_with_another_tool_gives_nothing(server: ReapiDouble, bench: FarBench, sha256: str) -> None:
    far = executor(server)
    same = {TOOL: sha256} if sha256 else {"/nowhere/cc": "0" * 64}
    assert far.execute(bench.command(same=same), bench.store) is None
    assert far.execute(bench.command(), bench.store) is None, "it is not asked again"
    (note,) = far.notes()
    name = next(iter(same))
    assert note == (
        f"remote execution: {server.address}: it has another {name} than this machine, or none; "
        "everything is executed here"
    )
    assert server.calls["Execute"] == 1
    far.cancel()


def test_the_files_that_must_be_the_same_are_in_the_action(server: ReapiDouble, bench: FarBench) -> None:
    """So that the server's own cache never answers with what another tool made."""
    far = executor(server)
    far.execute(bench.command(), bench.store)
    far.execute(bench.command(same={**bench.command().same, "/usr/bin/env": "1" * 64}), bench.store)
    one, two = server.actions
    assert one["input_root_digest"] != two["input_root_digest"]
    far.cancel()


def test_a_broken_stream_is_taken_up_again(server: ReapiDouble, bench: FarBench) -> None:
    honest = server._execute

    answers: list[bytes] = []

    def first_runs(request: bytes) -> Iterator[bytes]:
        answers.extend(honest(request))
        yield answers[0]
        raise RpcRefusal("UNAVAILABLE", "restarting")

    server.answers[reapi.EXECUTE] = first_runs
    far = executor(server)
    result = far.execute(bench.command(), bench.store)
    assert result is not None and result.exit_code == 0
    assert server.calls["WaitExecution"] == 1 and far.notes() == ()
    far.cancel()


def test_a_blob_that_went_is_sent_again(server: ReapiDouble, bench: FarBench) -> None:
    far = executor(server)
    assert far.execute(bench.command(), bench.store) is not None
    server.blobs.clear()
    server.results.clear()
    assert far.execute(bench.command("cat src/a > out/b"), bench.store) is not None
    assert far.counts().executed == 2 and far.notes() == ()
    far.cancel()


def test_an_input_that_moved_goes_nowhere(server: ReapiDouble, bench: FarBench) -> None:
    command = bench.command()
    bench.source.write_bytes(b"other\n")
    far = executor(server)
    assert far.execute(command, bench.store) is None
    assert server.calls["Execute"] == 0 and far.notes() == () and far.is_on()
    far.cancel()


@pytest.mark.parametrize("path", ["../x", "/etc/x", "src/a/b"])
def test_paths_that_cannot_be_in_a_tree_stay_here(server: ReapiDouble, bench: FarBench, path: str) -> None:
    far = executor(server)
    command = bench.command()
    inputs = {**command.inputs, path: command.inputs["src/a"]}
    assert far.execute(command._replace(inputs=inputs), bench.store) is None
    assert server.calls.total() == 0 and far.is_on()


def _lie(**changes: Any) -> Any:
    """An answer whose result differs in this."""

    def answer(server: ReapiDouble, request: bytes) -> Iterator[bytes]:
        done = [*server._execute(request)]
        told = decode(reapi.OPERATION, done[-1])
        assert told is not None
        response = decode(reapi.EXECUTE_RESPONSE, told["response"]["value"])
        assert response is not None
        yield operation(encode(reapi.ACTION_RESULT, {**response["result"], **changes}))

    return answer


GOOD = {"path": "out/b", "digest": reapi.digest_value(digest_bytes(b"text\n"))}
GONE = {"path": "out/b", "digest": reapi.digest_value(digest_bytes(b"nowhere"))}
LIES = {
    "outside": (_lie(output_files=[{**GOOD, "path": "../b"}]), "other outputs"),
    "more": (_lie(output_files=[GOOD, {**GOOD, "path": "x"}]), "other outputs"),
    "twice": (_lie(output_files=[GOOD, GOOD]), "other outputs"),
    "fewer": (_lie(output_files=[]), "other outputs"),
    "no digest": (_lie(output_files=[{"path": "out/b"}]), "other outputs"),
    "a link": (_lie(output_symlinks=[{"path": "x", "target": "/etc"}]), "other outputs"),
    "a directory": (_lie(output_directories=[{"path": "x"}]), "other outputs"),
    "not there": (_lie(output_files=[GONE]), "does not have its own results"),
    "10 GB of text": (_lie(stderr_digest={"hash": "e" * 64, "size_bytes": 10 << 30}), "printed what cannot be"),
    "no text": (_lie(stderr_digest=GONE["digest"]), "does not have what the command printed"),
    "garbled": (lambda server, request: iter([b"\xff\xff"]), "cannot be read"),
    "nothing": (lambda server, request: iter([]), "ended without a result"),
    "no result": (lambda server, request: iter([encode(reapi.OPERATION, {"done": True})]), "cannot be read"),
}


@pytest.mark.parametrize("lie", LIES)
def test_results_that_are_none(server: ReapiDouble, bench: FarBench, lie: str) -> None:
    answer, words = LIES[lie]
    server.answers[reapi.EXECUTE] = lambda request: answer(server, request)
    far = executor(server)
    assert far.execute(bench.command(), bench.store) is None
    assert not far.is_on() and len(far.notes()) == 1 and words in far.notes()[0]
    far.cancel()


def test_wrong_bytes_under_a_right_name(server: ReapiDouble, bench: FarBench) -> None:
    honest = server._read_batch

    def liar(request: bytes) -> bytes:
        return honest(request).replace(b"text\n", b"evil\n")

    server.answers[reapi.BATCH_READ_BLOBS] = liar
    far = executor(server)
    assert far.execute(bench.command("cat src/a > out/b"), bench.store) is None
    assert "gave other bytes" in far.notes()[0]
    assert bench.store.read(digest_bytes(b"text\n")) is None
    far.cancel()


@pytest.mark.parametrize(
    ("capabilities", "words"),
    [
        ({"execution_capabilities": None}, "it executes nothing"),
        ({"execution_capabilities": {"exec_enabled": False, "digest_function": 1}}, "it executes nothing"),
        ({"execution_capabilities": {"exec_enabled": True, "digest_function": 2}}, "by SHA-256"),
    ],
)
def test_servers_that_are_none(server: ReapiDouble, bench: FarBench, capabilities: dict[str, Any], words: str) -> None:
    server.capabilities.update(capabilities)
    far = executor(server)
    assert far.execute(bench.command(), bench.store) is None and words in far.notes()[0]
    assert server.calls["Execute"] == server.calls["FindMissingBlobs"] == 0


def test_nobody_there_is_said_once(bench: FarBench) -> None:
    far = ReapiExecutor(ReapiServer("127.0.0.1", 1), SystemClock(), jobs=1, platform={})
    assert far.execute(bench.command(), bench.store) is None
    assert far.execute(bench.command(), bench.store) is None
    words = "remote execution: grpc://127.0.0.1:1: Connection refused; everything is executed here"
    assert far.notes() == (words,) and not far.is_on()


def test_without_the_package_it_says_which(
    server: ReapiDouble, bench: FarBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    far = executor(server)
    assert far.execute(bench.command(), bench.store) is None and not far.is_on()
    assert "needs the package grpcio (pip install 'hotplate[reapi]'); everything is executed here" in far.notes()[0]


def test_cancelled_while_it_runs_there(server: ReapiDouble, bench: FarBench) -> None:
    begun, over = threading.Event(), threading.Event()

    def stuck(request: bytes) -> Iterator[bytes]:
        begun.set()
        over.wait(2 * WAIT_S)
        yield b""

    server.answers[reapi.EXECUTE] = stuck
    far = executor(server)
    results: list[FarResult | None] = []
    thread = threading.Thread(target=lambda: results.append(far.execute(bench.command(), bench.store)))
    thread.start()
    assert begun.wait(WAIT_S)
    far.cancel()
    thread.join(WAIT_S)
    over.set()
    assert results == [None] and far.notes() == () and not far.is_on()


def test_no_more_at_once_than_it_may(server: ReapiDouble, bench: FarBench) -> None:
    now, most, lock, full = [0], [0], threading.Lock(), threading.Event()
    honest = server._execute

    def counted(request: bytes) -> Iterator[bytes]:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
            if now[0] == 2:
                full.set()
        full.wait(WAIT_S)
        try:
            yield from honest(request)
        finally:
            with lock:
                now[0] -= 1

    server.answers[reapi.EXECUTE] = counted
    far = executor(server)
    commands = [bench.command(f"echo {n} > out/b") for n in range(5)]
    threads = [threading.Thread(target=far.execute, args=(each, bench.store)) for each in commands]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * WAIT_S)
    assert most[0] == 2 and far.counts().executed == 5
    far.cancel()
