"""Commands executed by a server that speaks the Remote Execution API: `[execution] remote`.

Knows how a command is sent, awaited and taken back. Does not know what commands are for, nor which may go. Invariants:
those of `pipeline.effects.executor`. Each command proves, where it runs and before it does anything, that the files of
that machine which it relies on are those of this one, and that it is told the name of its directory that we expect; a
worker that differs gives no result. The list of those files is an input, so that nothing is taken from the server's
cache that was made with others. Whatever fails between here and the command's own exit code gives None, never a failure
of the command.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cache.blobs import BlobStore
from cache.digest import Digest, digest_bytes
from cache.named_tuple import NamedTuple
from pipeline.effects.api import Clock
from pipeline.effects.executor import HERE, FarCommand, FarCounts, FarResult
from pipeline.formats import reapi
from pipeline.formats.protobuf import decode, encode
from pipeline.formats.reapi_tree import ReapiAction, action_of, fault_of_paths, tree_of
from pipeline.remote.reapi_blobs import ReapiBlobs
from pipeline.remote.reapi_channel import (
    DEADLINE_EXCEEDED,
    UNAVAILABLE,
    ReapiChannel,
    ReapiServer,
    RpcTrouble,
    why,
)
from pipeline.text import visible

OTHER_MACHINE = 113
"""Exit code of a command that found another machine than it expected."""
_MARK = b"hotplate: another file than expected: "
_LISTS = {64: (".hotplate/same.sha256", "/usr/bin/sha256sum"), 128: (".hotplate/same.b2", "/usr/bin/b2sum")}
"""Digits of a checksum -> the list of those, and the program that checks it. BLAKE2 takes a third of the time where
coreutils do not use the CPU's SHA instructions: for a compiler of 20 MB, less than a small compile."""
HELLO_S, SEND_S, RUN_S = 2.0, 60.0, 600.0
_MOST_TEXT = 8 << 20
_MOST_WAITS = 3
_GONE = 9
"""FAILED_PRECONDITION: a blob that the server had is there no more."""
_CODES = {4: DEADLINE_EXCEEDED, 7: "PERMISSION_DENIED", 8: "RESOURCE_EXHAUSTED", 9: "FAILED_PRECONDITION"}
_NOT_ASKED_FOR = ("output_directories", "output_file_symlinks", "output_directory_symlinks", "output_symlinks")


class _Link(NamedTuple):
    """A connection to a server that executes."""

    channel: ReapiChannel
    blobs: ReapiBlobs


class ReapiExecutor:
    """A `pipeline.effects.executor.Executor`."""

    def __init__(
        self, server: ReapiServer, clock: Clock, *, jobs: int, platform: Mapping[str, str], authorization: str = ""
    ) -> None:
        self._server, self._clock, self._jobs = server, clock, jobs
        self._platform, self._authorization = dict(platform), authorization
        self._turns = threading.BoundedSemaphore(jobs)
        self._lock, self._opening = threading.Lock(), threading.Lock()
        self._link: _Link | None = None
        self._is_off = self._is_cancelled = False
        self._there: set[Digest] = set()
        self._counts = dict.fromkeys(FarCounts._fields, 0)
        self._notes: dict[str, str] = {}

    @property
    def jobs(self) -> int:
        return self._jobs

    def is_on(self) -> bool:
        return not self._is_off

    def execute(self, command: FarCommand, blobs: BlobStore) -> FarResult | None:
        if self._is_off or fault_of_paths([*command.inputs, *command.outputs]):
            return None
        with self._turns:
            link = self._open()
            result = None if link is None else self._execute(link, command, blobs)
            if result is None:
                self._count(returned=1)
            return result

    def cancel(self) -> None:
        with self._lock:
            self._is_off = self._is_cancelled = True
            link, self._link = self._link, None
        if link is not None:
            link.channel.close()

    def counts(self) -> FarCounts:
        with self._lock:
            return FarCounts(**self._counts)

    def notes(self) -> tuple[str, ...]:
        with self._lock:
            return tuple(self._notes.values())

    # --- one command ------------------------------------------------------------------------------

    def _execute(self, link: _Link, command: FarCommand, blobs: BlobStore) -> FarResult | None:
        lists = _lists_of(command.same)
        files = {path: digest for path, (digest, _) in command.inputs.items()}
        tree = tree_of({**files, **{path: digest_bytes(data) for path, data in lists.items()}})
        # By `env` and not as the API offers: sandboxes set variables of their own (PWD, for one).
        env = [f"{name}={command.env[name]}" for name in sorted(command.env)]
        argv = ("/bin/sh", "-c", _guard(lists), "sh", "/usr/bin/env", "-i", *env, *command.argv)
        action = action_of(argv, {}, command.outputs, self._platform, tree)
        places = dict(command.inputs.values())
        held = {**action.messages, **{digest_bytes(data): data for data in lists.values()}}
        for last in (False, True):
            if not self._bring(link, action, held, places):
                return None
            response = self._response(link, action)
            if isinstance(response, RpcTrouble) and response.code == _CODES[_GONE] and not last:
                # It dropped a blob since it said that it has it: once more, with everything asked for anew.
                with self._lock:
                    self._there.clear()
                continue
            if isinstance(response, RpcTrouble):
                self._stop(response)
                return None
            return self._taken(link, command, response, blobs)
        return None

    def _bring(
        self, link: _Link, action: ReapiAction, held: Mapping[Digest, bytes], places: Mapping[Digest, str]
    ) -> bool:
        """Have the server have everything that the command reads."""
        with self._lock:
            wanted = [digest for digest in (*held, *places) if digest not in self._there]
        sent = link.blobs.send(wanted, lambda digest: _bytes_of(digest, held, places), SEND_S)
        self._count(sent_bytes=sent.size)
        if sent.trouble is not None:
            self._stop(sent.trouble)
            return False
        with self._lock:
            self._there |= sent.there
        # What cannot be read as it was moved since it was looked at: here it is seen as moved, too.
        return sent.there.issuperset(wanted)

    def _response(self, link: _Link, action: ReapiAction) -> Mapping[str, Any] | RpcTrouble:
        """What came of it. A stream that breaks is taken up again."""
        deadline_s = self._clock.now_s() + RUN_S
        request = {"instance_name": self._server.instance, "action_digest": reapi.digest_value(action.digest)}
        method, data = reapi.EXECUTE, encode(reapi.EXECUTE_REQUEST, request)
        trouble = RpcTrouble("INTERNAL", "the stream ended without a result")
        for _ in range(1 + _MOST_WAITS):
            name = ""
            for answer in link.channel.receive(method, data, max(deadline_s - self._clock.now_s(), 0.001)):
                if isinstance(answer, RpcTrouble):
                    trouble = answer
                    break
                operation = decode(reapi.OPERATION, answer)
                if operation is None:
                    return RpcTrouble("INTERNAL", "what it says of the command cannot be read")
                name = operation["name"] or name
                if operation["done"]:
                    return _response_of(operation)
            if not name or trouble.code not in (UNAVAILABLE, "INTERNAL", "UNKNOWN"):
                break
            method, data = reapi.WAIT_EXECUTION, encode(reapi.WAIT_EXECUTION_REQUEST, {"name": name})
        return trouble

    def _taken(
        self, link: _Link, command: FarCommand, response: Mapping[str, Any], blobs: BlobStore
    ) -> FarResult | None:
        """The result, with its blobs here; None for one that is not what was asked for."""
        result = response["result"]
        began_s = self._clock.now_s()

        def left_s() -> float:
            return began_s + SEND_S - self._clock.now_s()

        stdout = self._text(link, result, "stdout", blobs, left_s)
        stderr = self._text(link, result, "stderr", blobs, left_s)
        if stdout is None or stderr is None:
            return None
        exit_code = result["exit_code"]
        if exit_code == OTHER_MACHINE and _MARK in stderr:
            said = stderr.partition(_MARK)[2].decode("utf-8", "replace").partition("\n")[0]
            other = visible(said.partition(": ")[0]) or "sha256sum"
            self._give_up(f"has another {other} than this machine, or none")
            return None
        if exit_code < 0 or exit_code > 128:
            return None  # killed, and not by what it was told: here there may be more memory, or time
        outputs = {} if exit_code else _outputs_of(result, command.outputs)
        if outputs is None:
            self._give_up("gave other outputs than were asked for")
            return None
        got = link.blobs.receive([*outputs.values()], blobs, left_s)
        if got.trouble is not None:
            self._stop(got.trouble)
            return None
        if not got.there.issuperset(outputs.values()):
            self._give_up("gave other bytes than it named" if got.refused else "does not have its own results")
            return None
        cached = bool(response["cached_result"])
        self._count(executed=1, cached=int(cached))
        return FarResult(exit_code, stdout, stderr, outputs, _duration_s(result["execution_metadata"]))

    def _text(
        self, link: _Link, result: Mapping[str, Any], name: str, blobs: BlobStore, left_s: Callable[[], float]
    ) -> bytes | None:
        """What it printed, which is inside or under a digest; None when it cannot be had."""
        raw: bytes = result[f"{name}_raw"]
        if raw or result[f"{name}_digest"] is None:
            return raw
        digest = reapi.digest_of(result[f"{name}_digest"])
        if digest is None or digest.size > _MOST_TEXT:
            self._give_up("printed what cannot be")
            return None
        got = link.blobs.receive([digest], blobs, left_s)
        if got.trouble is not None:
            self._stop(got.trouble)
            return None
        data = blobs.read(digest) if digest in got.there else None
        if data is None:
            self._give_up("does not have what the command printed")
        return data

    # --- the connection ---------------------------------------------------------------------------

    def _open(self) -> _Link | None:
        with self._opening:
            if self._is_off or self._link is not None:
                return None if self._is_off else self._link
            try:
                channel = ReapiChannel(self._server, self._authorization)
            except ImportError:
                self._give_up("needs the package grpcio (pip install 'hotplate[reapi]')")
                return None
            link = self._greet(channel)
            with self._lock:
                if isinstance(link, _Link) and not self._is_off:
                    self._link = link
                    return link
            channel.close()
            if isinstance(link, RpcTrouble):
                self._stop(link)
            return None

    def _greet(self, channel: ReapiChannel) -> _Link | RpcTrouble:
        request = encode(reapi.GET_CAPABILITIES_REQUEST, {"instance_name": self._server.instance})
        answer = channel.ask(reapi.GET_CAPABILITIES, request, HELLO_S)
        if isinstance(answer, RpcTrouble):
            return answer
        said = decode(reapi.SERVER_CAPABILITIES, answer)
        can = None if said is None else said["execution_capabilities"]
        if said is None or can is None or not can["exec_enabled"]:
            return RpcTrouble("UNIMPLEMENTED", "it executes nothing")
        if reapi.SHA256 not in (can["digest_function"], *can["digest_functions"]):
            return RpcTrouble("UNIMPLEMENTED", "it does not name blobs by SHA-256")
        most = 0 if said["cache_capabilities"] is None else said["cache_capabilities"]["max_batch_total_size_bytes"]
        return _Link(channel, ReapiBlobs(channel, self._server.instance, most))

    def _stop(self, trouble: RpcTrouble) -> None:
        """Send nothing any more in this run."""
        if not self._is_cancelled:
            self._is_off = True
            self._say("off", f"{self._server}: {why(trouble)}; everything is executed here")

    def _give_up(self, what: str) -> None:
        self._is_off = True
        self._say("off", f"{self._server}: it {what}; everything is executed here")

    def _say(self, what: str, line: str) -> None:
        with self._lock:
            self._notes.setdefault(what, f"remote execution: {line}")

    def _count(self, **more: int) -> None:
        with self._lock:
            for name, number in more.items():
                self._counts[name] += number


def _lists_of(same: Mapping[str, str]) -> dict[str, bytes]:
    """Path -> text of the lists that there is something in, as their programs read them."""
    found: dict[str, bytes] = {}
    for path, checksum in sorted(same.items()):
        name, _ = _LISTS[len(checksum)]
        found[name] = found.get(name, b"") + f"{checksum}  {path}\n".encode()
    return found


def _guard(lists: Mapping[str, bytes]) -> str:
    """What runs before the command: is this the machine that was expected?"""
    some = next(iter(lists))
    checks = " && ".join(f"{program} -c --quiet {name}" for name, program in _LISTS.values() if name in lists)
    return (
        f"test {HERE}/{some} -ef {some} || {{ echo '{_MARK.decode()}{HERE}' >&2; exit {OTHER_MACHINE}; }}; "
        f'other=$({{ {checks}; }} 2>/dev/null) || {{ echo "{_MARK.decode()}$other" >&2; exit {OTHER_MACHINE}; }}; '
        'exec "$@"'
    )


def _bytes_of(digest: Digest, held: Mapping[Digest, bytes], places: Mapping[Digest, str]) -> bytes | None:
    """The blob's bytes, None when the file holds others by now."""
    if digest in held:
        return held[digest]
    try:
        data = Path(places[digest]).read_bytes()
    except OSError:
        return None
    return data if digest_bytes(data) == digest else None


def _response_of(operation: Mapping[str, Any]) -> Mapping[str, Any] | RpcTrouble:
    """The ExecuteResponse of an operation that is done."""
    packed = operation["response"]
    response = None if packed is None else decode(reapi.EXECUTE_RESPONSE, packed["value"])
    status = operation["error"] or (None if response is None else response["status"])
    if status is not None and status["code"]:
        return RpcTrouble(_CODES.get(status["code"], f"CODE_{status['code']}"), status["message"][:200])
    if response is None or response["result"] is None:
        return RpcTrouble("INTERNAL", "what it says of the command cannot be read")
    return response


def _outputs_of(result: Mapping[str, Any], wanted: tuple[str, ...]) -> dict[str, Digest] | None:
    """Path -> digest of exactly the files that were asked for; None when there are others, or more."""
    if any(result[name] for name in _NOT_ASKED_FOR):
        return None
    found = {file["path"]: reapi.digest_of(file["digest"]) for file in result["output_files"]}
    if len(result["output_files"]) != len(wanted) or found.keys() != set(wanted):
        return None
    sound = {path: digest for path, digest in found.items() if digest is not None}
    return sound if len(sound) == len(wanted) else None


def _duration_s(metadata: Mapping[str, Any] | None) -> float:
    """How long the command ran, 0.0 when nobody says."""
    if metadata is None:
        return 0.0
    began, ended = metadata["execution_start_timestamp"], metadata["execution_completed_timestamp"]
    if began is None or ended is None:
        return 0.0
    took_s = ended["seconds"] - began["seconds"] + (ended["nanos"] - began["nanos"]) / 1e9
    return float(took_s) if 0 <= took_s <= RUN_S else 0.0
