"""Blobs of a REAPI server: which it lacks, to it and from it.

Knows the sizes up to which blobs travel together, and beyond which each is a stream of its own. Does not know results.
Invariants: what is received is in the local store only after its bytes had the digest that was asked for; of a stream
no more is read than the blob has; a blob that cannot be had, or that the server says to be another, is one that is not
there.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from cache.blobs import BlobStore
from cache.digest import Digest, digest_bytes
from cache.durable import write_all
from cache.named_tuple import NamedTuple
from pipeline.formats import reapi
from pipeline.formats.protobuf import decode, encode
from pipeline.remote.reapi_channel import NOT_FOUND, ReapiChannel, RpcTrouble

_T = TypeVar("_T")
EMPTY = digest_bytes(b"")
_CHUNK = 1 << 20
_BESIDE_DATA = 150
"""Bytes that a blob takes in a batch beside its own: its digest, and the marks of the fields."""
_MOST_BATCH_BYTES = (4 << 20) - (64 << 10)
"""gRPC's own bound of a message, with room for what surrounds the blobs; a server may allow less."""
_MOST_ASKED = 10_000
"""Digests in one question: 0.8 MB."""
_BATCHES_UNDER_WAY = 4
_OK = 0


class Received(NamedTuple):
    """What came. `refused`: blobs whose bytes were others; `trouble`: the first question without an answer."""

    there: frozenset[Digest] = frozenset()
    size: int = 0
    refused: int = 0
    trouble: RpcTrouble | None = None


class Sent(NamedTuple):
    """What the other side has now; `size`: bytes that were sent for it."""

    there: frozenset[Digest] = frozenset()
    size: int = 0
    trouble: RpcTrouble | None = None


class ReapiBlobs:
    """The blobs of one instance. `most_batch_bytes`: what the server says, 0 for no bound of its own."""

    def __init__(self, channel: ReapiChannel, instance: str, most_batch_bytes: int) -> None:
        self._channel, self._instance = channel, instance
        self._most = min(most_batch_bytes, _MOST_BATCH_BYTES) if most_batch_bytes > 0 else _MOST_BATCH_BYTES

    def missing(self, digests: Sequence[Digest], timeout_s: float) -> frozenset[Digest] | RpcTrouble:
        """Those of `digests` that the other side does not have."""
        missing: set[Digest] = set()
        for at in range(0, len(digests), _MOST_ASKED):
            asked = digests[at : at + _MOST_ASKED]
            request = self._request(
                reapi.FIND_MISSING_BLOBS_REQUEST, blob_digests=[reapi.digest_value(each) for each in asked]
            )
            answer = self._channel.ask(reapi.FIND_MISSING_BLOBS, request, timeout_s)
            if isinstance(answer, RpcTrouble):
                return answer
            found = decode(reapi.FIND_MISSING_BLOBS_RESPONSE, answer)
            if found is None:
                return _garbled(reapi.FIND_MISSING_BLOBS)
            missing.update(filter(None, map(reapi.digest_of, found["missing_blob_digests"])))
        return frozenset(missing.intersection(digests))

    # --- from the other side ----------------------------------------------------------------------

    def receive(
        self,
        digests: Sequence[Digest],
        blobs: BlobStore,
        left_s: Callable[[], float],
        heard: Callable[[Iterable[Digest]], None] = lambda there: None,
        received: Callable[[str, int], None] = lambda name, size: None,
    ) -> Received:
        """Bring these into `blobs`, the first ones first and large ones last, until no time is left. `heard` is told of
        those that are here, a few at a time, and `received` of the bytes of large ones as they come. Raises OSError for
        the local store."""
        there = {digest for digest in digests if blobs.has(digest)}
        if EMPTY in digests:
            there.add(blobs.put_bytes(b""))
        wanted = [digest for digest in dict.fromkeys(digests) if digest not in there]
        groups = list(_grouped(wanted, self._most, lambda digest: digest.size))
        size, refused, trouble = 0, 0, None
        for part in self._parts(groups, blobs, left_s, received):
            there |= part.there
            heard(part.there)
            size, refused, trouble = size + part.size, refused + part.refused, trouble or part.trouble
        return Received(frozenset(there), size, refused, trouble)

    def _parts(
        self,
        groups: Sequence[Sequence[Digest]],
        blobs: BlobStore,
        left_s: Callable[[], float],
        received: Callable[[str, int], None],
    ) -> Iterator[Received]:
        batches = [group for group in groups if self._travels_with_others(group)]
        requests = (
            self._request(reapi.BATCH_READ_BLOBS_REQUEST, digests=[reapi.digest_value(each) for each in group])
            for group in batches
        )
        answers = self._channel.ask_all(reapi.BATCH_READ_BLOBS, requests, left_s, under_way=_BATCHES_UNDER_WAY)
        for group, answer in zip(batches, answers, strict=True):
            yield self._unpacked(group, answer, blobs)
        for group in groups:
            if not self._travels_with_others(group):
                yield self._streamed(group[0], blobs, left_s(), received)

    def _travels_with_others(self, group: Sequence[Digest]) -> bool:
        return len(group) > 1 or group[0].size + _BESIDE_DATA <= self._most

    def _unpacked(self, asked: Sequence[Digest], answer: bytes | RpcTrouble, blobs: BlobStore) -> Received:
        if isinstance(answer, RpcTrouble):
            return Received(trouble=answer)
        found = decode(reapi.BATCH_READ_BLOBS_RESPONSE, answer)
        if found is None:
            return Received(trouble=_garbled(reapi.BATCH_READ_BLOBS))
        there, size, refused = set(), 0, 0
        for each in found["responses"]:
            digest, data = reapi.digest_of(each["digest"]), each["data"]
            if digest not in asked or _code(each) == NOT_FOUND_CODE:
                continue
            if _code(each) != _OK or each["compressor"] or digest_bytes(data) != digest:
                refused += 1
                continue
            if not blobs.has(digest):
                # Not waited for: a blob is read with its digest, and one that a power cut tore is fetched again.
                blobs.files.write(digest.hex, data, mode=0o444)
                blobs.bytes_written += digest.size
            there.add(digest)
            size += digest.size
        return Received(frozenset(there), size, refused)

    def _streamed(
        self, digest: Digest, blobs: BlobStore, left_s: float, received: Callable[[str, int], None]
    ) -> Received:
        request = encode(reapi.READ_REQUEST, {"resource_name": self._resource("blobs", digest)})
        if left_s <= 0:
            return Received(trouble=RpcTrouble("DEADLINE_EXCEEDED"))
        answers = self._channel.receive(reapi.READ, request, left_s)
        sha256, size = hashlib.sha256(), 0
        with blobs.files.incoming(0o444) as new:
            for answer in answers:
                if isinstance(answer, RpcTrouble):
                    return Received(trouble=None if answer.code == NOT_FOUND else answer)
                part = decode(reapi.READ_RESPONSE, answer)
                size += len(part["data"]) if part is not None else 0
                if part is None or size > digest.size:
                    return Received(refused=1)
                received(digest.hex, len(part["data"]))
                sha256.update(part["data"])
                write_all(new.handle, part["data"])
            if Digest(sha256.hexdigest(), size) != digest:
                return Received(refused=1)
            new.keep(digest.hex)
        blobs.bytes_written += size
        return Received(frozenset((digest,)), size)

    # --- to the other side ------------------------------------------------------------------------

    def send(self, digests: Collection[Digest], read: Callable[[Digest], bytes | None], timeout_s: float) -> Sent:
        """Have those of `digests` sent that the other side lacks; `read` gives their bytes. What cannot be read here
        is not there."""
        wanted = [digest for digest in dict.fromkeys(digests) if digest != EMPTY]
        missing = self.missing(wanted, timeout_s) if wanted else frozenset[Digest]()
        if isinstance(missing, RpcTrouble):
            return Sent(trouble=missing)
        there, size, trouble = {*digests} - missing, 0, None
        for group in _grouped(
            [digest for digest in wanted if digest in missing], self._most, lambda digest: digest.size
        ):
            held = {digest: data for digest in group if (data := read(digest)) is not None}
            part = self._send(held, timeout_s) if held else Sent()
            there |= part.there
            size, trouble = size + part.size, trouble or part.trouble
            if trouble is not None:
                break
        return Sent(frozenset(there), size, trouble)

    def _send(self, held: Mapping[Digest, bytes], timeout_s: float) -> Sent:
        if not self._travels_with_others([*held]):
            return self._send_stream(*next(iter(held.items())), timeout_s)
        requests = [{"digest": reapi.digest_value(digest), "data": data} for digest, data in held.items()]
        request = self._request(reapi.BATCH_UPDATE_BLOBS_REQUEST, requests=requests)
        answer = self._channel.ask(reapi.BATCH_UPDATE_BLOBS, request, timeout_s)
        if isinstance(answer, RpcTrouble):
            return Sent(trouble=answer)
        found = decode(reapi.BATCH_UPDATE_BLOBS_RESPONSE, answer)
        if found is None:
            return Sent(trouble=_garbled(reapi.BATCH_UPDATE_BLOBS))
        taken = {reapi.digest_of(each["digest"]) for each in found["responses"] if _code(each) == _OK}
        there = frozenset(digest for digest in held if digest in taken)
        return Sent(there, sum(digest.size for digest in there))

    def _send_stream(self, digest: Digest, data: bytes, timeout_s: float) -> Sent:
        answer = self._channel.send(reapi.WRITE, self._written(digest, data), timeout_s)
        if isinstance(answer, RpcTrouble):
            return Sent(trouble=answer)
        found = decode(reapi.WRITE_RESPONSE, answer)
        # One that another client brought meanwhile is said to be there at once, with its whole size.
        if found is None or found["committed_size"] != digest.size:
            return Sent(trouble=_garbled(reapi.WRITE))
        return Sent(frozenset((digest,)), digest.size)

    def _written(self, digest: Digest, data: bytes) -> Iterator[bytes]:
        name = self._resource(f"uploads/{uuid.uuid4()}/blobs", digest)
        for at in range(0, len(data), _CHUNK):
            yield encode(
                reapi.WRITE_REQUEST,
                {
                    "resource_name": "" if at else name,
                    "write_offset": at,
                    "finish_write": at + _CHUNK >= len(data),
                    "data": data[at : at + _CHUNK],
                },
            )

    def _request(self, table: Any, **fields: Any) -> bytes:
        return encode(table, {"instance_name": self._instance, **fields})

    def _resource(self, kind: str, digest: Digest) -> str:
        return f"{self._instance}{'/' if self._instance else ''}{kind}/{digest}"


NOT_FOUND_CODE = 5
"""Of `google.rpc.Code`."""


def _grouped(items: Iterable[_T], most: int, size_of: Callable[[_T], int]) -> Iterator[list[_T]]:
    """In their order, with at most `most` bytes in each group of more than one."""
    group: list[_T] = []
    size = 0
    for item in items:
        cost = size_of(item) + _BESIDE_DATA
        if group and size + cost > most:
            yield group
            group, size = [], 0
        group.append(item)
        size += cost
    if group:
        yield group


def _code(response: Mapping[str, Any]) -> int:
    status = response["status"]
    return _OK if status is None else int(status["code"])


def _garbled(method: str) -> RpcTrouble:
    return RpcTrouble("INTERNAL", f"the answer to {method.rpartition('/')[2]} cannot be read")
