"""A shared cache behind plain HTTP: `GET` and `PUT` of `/ac/<key>` and `/cas/<sha256>`, as bazel-remote, nginx with DAV
and others serve them.

Knows those two paths and what may come back. Does not know why something is asked. The invariants are those of
`cache.remote`: bytes enter the local store only under the digest that they have, an entry is believed only with the
signature of its key, nothing waits beyond its deadline, and after the other side has failed once in a way that will not
pass it is not asked again in this run.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from cache.action_result import MOST_INLINED, decode_result, encode_result
from cache.actions import MAX_ENTRY_BYTES, ActionResult
from cache.blobs import BlobStore
from cache.digest import ActionKey, Digest
from cache.named_tuple import NamedTuple
from cache.remote import RemoteCounts, RemoteSpeed, RoundWatch
from pipeline.remote.rounds import Question, RoundOutcome, Rounds
from pipeline.remote.tally import Tally
from pipeline.remote.wire import ENCODINGS, Endpoint, Garbled, HttpAnswer

FIND_S = 2.0
"""The other side has this long to answer a round of questions, and a little more for each of many."""
STALL_S = 1.5
"""Nothing at all for so long on a connection means that it is dead."""
_PER_KEY_S = 0.002
SILENT_S = 1.0
"""Who says nothing for so long, although nobody waited to the end, is not asked any more."""
WATCHED_S = 30.0
"""The same where somebody watches, who does not wait for what comes too slowly."""
_SENDING_S = 30.0
_SENDERS = 2
_IN_MEMORY = 1 << 23
"""Larger blobs are written to the disk as they come."""
_ASKED_FIRST = 1 << 16
"""A blob of so many bytes is sent only after the other side said that it has none."""
_LONG = 1 << 16
"""Who watches hears of the parts of a blob of so many bytes."""
_MOST_LIES = 8
"""After so many refused answers nothing is asked any more."""
_WORTH_COMPRESSING = 1 << 10
_PER_BLOB_S = 5e-4
"""To take it in, however small it is: that is not the link's."""
_HEADERS = 256
_ENTRY_HEADERS = f"Accept: application/json\r\nAccept-Encoding: {ENCODINGS}\r\n"
_RATED_FROM = 1 << 14
_RATED_FROM_S = 0.2
"""What is smaller and quicker says nothing of the rate."""
_EXPECTS_FROM = 1 << 18
_TOO_LARGE = (413, 507)


class Offer(NamedTuple):
    """One result to be sent."""

    key: ActionKey
    result: ActionResult
    blobs: BlobStore


class HttpCache:
    """A `Remote`. `name`: the URL, for messages. `authorization`: the header's value, `""` for none."""

    def __init__(
        self,
        name: str,
        endpoint: Endpoint,
        *,
        writes: bool,
        authorization: str,
        now_s: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        self._endpoint, self._writes, self._now_s = endpoint, writes, now_s
        self._common = f"Host: {endpoint.authority}\r\nUser-Agent: hotplate\r\n"
        if authorization:
            self._common += f"Authorization: {authorization}\r\n"
        self._tally = Tally(name, self.speed, has_credentials=bool(authorization))
        self._reading = Rounds(endpoint, now_s, jitter)
        self._sending = Rounds(endpoint, now_s, jitter, _SENDERS)
        self._offers: deque[Offer] = deque()
        self._there: set[Digest] = set()
        """Blobs that the other side is known to have."""
        self._senders = 0
        self._quiet = threading.Condition()
        self._bytes, self._bytes_s = 0, 0.0
        self._entry_bytes, self._entry_bytes_s = 0, 0.0
        """What entries say of the rate, as long as no blob does."""
        self._silent_s = 0.0
        """For so long nothing was answered."""

    # --- what is asked --------------------------------------------------------------------------

    def find(
        self, keys: Sequence[ActionKey], blobs: BlobStore, watch: RoundWatch | None = None
    ) -> dict[ActionKey, ActionResult]:
        """As `Remote.find`."""
        found: dict[ActionKey, ActionResult] = {}
        sizes: list[int] = []
        if not keys or self._tally.is_closed:
            return found

        def take(key: ActionKey, answer: HttpAnswer) -> None:
            body = self._body(answer, MAX_ENTRY_BYTES)
            sizes.append(len(body or b""))
            if body is not None:
                entry = decode_result(key, body)
                if entry is None:
                    raise Garbled("an entry is not one of this program's for the key that was asked for")
                for digest, data in entry.inlined:
                    _keep(blobs, digest, data)
                found[key] = entry.result
            if watch is not None:
                watch.answered(key, len(body or b""), came=body is not None)

        unique = list(dict.fromkeys(keys))
        questions = [
            Question(
                self._request("GET", f"/ac/{key}", _ENTRY_HEADERS),
                partial(take, key),
                is_wanted=None if watch is None else partial(watch.is_wanted, key),
            )
            for key in unique
        ]
        patience_s = FIND_S + _PER_KEY_S * len(unique) if watch is None else max(WATCHED_S, _PER_KEY_S * len(unique))
        self._tally.add(rounds=1, asked=len(unique))
        began_s = self._now_s()
        outcome = self._reading.ask(questions, began_s + patience_s, STALL_S, watch)
        took_s = self._now_s() - began_s
        if took_s - self._reading.latency_s - _PER_BLOB_S * len(sizes) > _RATED_FROM_S:
            self._entry_bytes += sum(sizes) + len(sizes) * _HEADERS
            self._entry_bytes_s += took_s - self._reading.latency_s
        self._judge(outcome, len(unique), took_s)
        self._tally.add(found=len(found))
        return dict(found)

    def fetch(
        self, digests: Sequence[Digest], blobs: BlobStore, patience_s: float, watch: RoundWatch | None = None
    ) -> frozenset[Digest]:
        """As `Remote.fetch`."""
        wanted = list(dict.fromkeys(digests))
        there = {digest for digest in wanted if blobs.has(digest)}
        missing = [digest for digest in wanted if digest not in there]
        if not missing or self._tally.is_closed:
            return frozenset(there)
        came: list[Digest] = []

        def take(digest: Digest, answer: HttpAnswer) -> None:
            is_here = self._is_ok(answer) and self._store(digest, answer, blobs, watch)
            if is_here:
                # Before it is told of: whoever has all that it waits for looks at the counts.
                self._tally.add(fetched=1, fetched_bytes=digest.size)
                came.append(digest)
            if watch is not None:
                watch.answered(digest.hex, digest.size, came=is_here)

        questions = [self._question_for(digest, partial(take, digest), watch) for digest in missing]
        self._tally.add(rounds=1, asked=len(missing))
        began_s = self._now_s()
        outcome = self._reading.ask(questions, began_s + patience_s, min(STALL_S, patience_s), watch)
        took_s = self._now_s() - began_s
        self._rate(came, took_s, is_all=not outcome.late + outcome.unwanted)
        # Less patience than a round of questions has says nothing of the other side.
        self._judge(outcome, len(missing), took_s, may_be_late=bool(came) or patience_s < FIND_S)
        self._there.update(came)
        return frozenset((*there, *came))

    def _question_for(self, digest: Digest, take: Callable[[HttpAnswer], None], watch: RoundWatch | None) -> Question:
        is_wanted = None if watch is None else partial(watch.is_wanted, digest.hex)
        more = f"Accept-Encoding: {ENCODINGS}\r\n" if digest.size >= _WORTH_COMPRESSING else ""
        return Question(self._request("GET", f"/cas/{digest.hex}", more), take, is_wanted=is_wanted)

    def _rate(self, came: Sequence[Digest], took_s: float, *, is_all: bool) -> None:
        size = sum(digest.size for digest in came)
        if size >= _RATED_FROM or took_s > _RATED_FROM_S or not is_all:
            beside_s = self._reading.latency_s + _PER_BLOB_S * len(came)
            self._bytes += max(size, 1)
            self._bytes_s += max(took_s - beside_s, took_s / 4, 1e-4)

    def speed(self) -> RemoteSpeed:
        """As `Remote.speed`."""
        size, took_s = (self._bytes, self._bytes_s) if self._bytes_s else (self._entry_bytes, self._entry_bytes_s)
        return RemoteSpeed(self._reading.latency_s, size / took_s if took_s else 0.0, self._silent_s)

    def decline(self, results: int) -> None:
        """As `Remote.decline`."""
        self._tally.declined(results)

    def counts(self) -> RemoteCounts:
        """As `Remote.counts`."""
        return self._tally.counts()

    def notes(self) -> tuple[str, ...]:
        """As `Remote.notes`."""
        return self._tally.notes()

    # --- what comes back ------------------------------------------------------------------------

    def _is_ok(self, answer: HttpAnswer) -> bool:
        """Does it bring something? Raises Garbled for what no cache says."""
        if answer.status == 200:
            return True
        if answer.status in (204, 404, 410):
            return False
        if answer.status in (401, 403):
            self._tally.denied(answer.status)
            return False
        if 300 <= answer.status < 400:
            raise Garbled(f"it redirects ({answer.status}), which is not followed")
        raise Garbled(f"it answers {answer.status}")

    def _body(self, answer: HttpAnswer, most: int) -> bytes | None:
        return answer.body(most, may_be_encoded=True) if self._is_ok(answer) else None

    def _store(self, digest: Digest, answer: HttpAnswer, blobs: BlobStore, watch: RoundWatch | None) -> bool:
        """Take the blob in if its bytes have the digest; False when they cannot be kept here. Raises Garbled."""
        length = answer.headers.get("content-length", "")
        if length.isdigit() and "content-encoding" not in answer.headers and int(length[:20]) != digest.size:
            raise Garbled(f"a blob of {digest.size} bytes would have {length[:20]}")
        chunks = answer.chunks(digest.size, may_be_encoded=digest.size >= _WORTH_COMPRESSING)
        if watch is not None and digest.size >= _LONG:
            chunks = _counted(chunks, partial(watch.received, digest.hex))
        if digest.size <= _IN_MEMORY:
            data = b"".join(chunks)
            _check(digest, len(data), hashlib.sha256(data).hexdigest())
            return _keep(blobs, digest, data)
        try:
            with blobs.files.incoming(0o444) as new:
                sha256, size = hashlib.sha256(), 0
                for chunk in chunks:
                    _write(new.handle, chunk)
                    sha256.update(chunk)
                    size += len(chunk)
                _check(digest, size, sha256.hexdigest())
                new.keep(digest.hex)
                blobs.bytes_written += digest.size
        except _Unwritable:
            return False
        return True

    def _judge(self, outcome: RoundOutcome, asked: int, took_s: float, *, may_be_late: bool = False) -> None:
        """Count a round, and decide whether there will be another: not after one that used up its time, or in which
        most failed, nor after silence until nobody wanted to know any more."""
        late = 0 if may_be_late else outcome.late
        self._silent_s = 0.0 if outcome.answered else self._silent_s + took_s
        if outcome.unwanted and self._silent_s >= SILENT_S:
            late = outcome.unwanted
        self._tally.add(refused=outcome.refused, failed=outcome.failed + late)
        if outcome.refused:
            self._tally.lied(outcome.why)
            if self._tally.counts().refused >= _MOST_LIES:
                self._tally.close()
        if late:
            told = f"only {outcome.answered} of {asked} questions were answered in time"
            self._tally.unreachable(told if outcome.answered else "it does not answer in time")
        elif 2 * outcome.failed > asked:
            self._tally.unreachable(outcome.why)

    # --- what is sent ---------------------------------------------------------------------------

    def offer(self, key: ActionKey, result: ActionResult, blobs: BlobStore) -> None:
        """As `Remote.offer`."""
        if not self._writes:
            return
        if self._tally.is_closed or self._tally.takes_nothing:
            self._tally.add(given_up=1)
            return
        with self._quiet:
            self._offers.append(Offer(key, result, blobs))
            if self._senders < _SENDERS:
                self._senders += 1
                threading.Thread(target=self._send_all, daemon=True, name="shared cache, sending").start()

    def settle(self, timeout_s: float) -> None:
        """As `Remote.settle`."""
        with self._quiet:
            self._quiet.wait_for(lambda: self._senders == 0 and not self._offers, timeout_s)
            left = len(self._offers) + self._senders
            self._offers.clear()
        if left:
            self._tally.gave_up(left, timeout_s)
        self._tally.close()
        self._reading.close()
        self._sending.close()

    def _send_all(self) -> None:
        while True:
            with self._quiet:
                if not self._offers:
                    self._senders -= 1
                    self._quiet.notify_all()
                    return
                offer = self._offers.popleft()
            if self._tally.is_closed or self._tally.takes_nothing:
                self._tally.add(given_up=1)
                continue
            if not self._send(offer) and not self._tally.is_closed:
                self._tally.add(given_up=1)

    def _send(self, offer: Offer) -> bool:
        """Blobs before entry. Was it taken?"""
        key, result, blobs = offer
        is_sets = any(file.path.startswith("set/") for file in result.outputs)
        inlined = {}
        for digest in result.blobs() if is_sets else ():
            if digest.size <= MOST_INLINED and (data := blobs.read(digest)) is not None:
                inlined[digest] = data
        missing = [digest for digest in dict.fromkeys(result.blobs()) if digest not in self._there]
        if not self._send_blobs(missing, blobs):
            return False
        is_taken = self._put(f"/ac/{key}", encode_result(key, result, inlined), "Content-Type: application/json\r\n")
        self._tally.add(offered=int(is_taken))
        return is_taken

    def _send_blobs(self, digests: Sequence[Digest], blobs: BlobStore) -> bool:
        """Are all of them there now?"""
        large = [digest for digest in digests if digest.size >= _ASKED_FIRST]
        known: set[Digest] = set()

        def there(digest: Digest, answer: HttpAnswer) -> None:
            if answer.status == 200:
                known.add(digest)

        heads = [
            Question(self._request("HEAD", f"/cas/{digest.hex}"), partial(there, digest), head_only=True)
            for digest in large
        ]
        if heads:
            self._sending.ask(heads, self._now_s() + FIND_S, STALL_S)
        for digest in digests:
            if digest in known:
                continue
            data = blobs.read(digest)
            if data is None or not self._put(f"/cas/{digest.hex}", data, "Content-Type: application/octet-stream\r\n"):
                return False
            self._tally.add(offered_bytes=digest.size)
        self._there.update(digests)
        return True

    def _put(self, path: str, data: bytes, more: str) -> bool:
        refusal: list[int] = []

        def take(answer: HttpAnswer) -> None:
            if not 200 <= answer.status < 300:
                refusal.append(answer.status)

        expects = len(data) >= _EXPECTS_FROM
        more += f"Content-Length: {len(data)}\r\n" + ("Expect: 100-continue\r\n" if expects else "")
        question = Question(self._request("PUT", path, more), take, partial(_pieces, data), expects=expects)
        outcome = self._sending.ask([question], self._now_s() + _SENDING_S, _SENDING_S)
        if refusal and refusal[0] in _TOO_LARGE:
            self._tally.takes_not_this(f"one of {len(data)} bytes was refused ({refusal[0]})")
        elif refusal:
            self._tally.takes_no(f"it answers {refusal[0]}")
        elif not outcome.answered:
            self._tally.takes_no(outcome.why or "it does not answer in time")
        return outcome.answered == 1 and not refusal

    def _request(self, method: str, path: str, more: str = "") -> bytes:
        return f"{method} {self._endpoint.prefix}{path} HTTP/1.1\r\n{self._common}{more}\r\n".encode("latin-1")


class _Unwritable(Exception):
    """The local store takes nothing."""


def _write(handle: int, data: bytes) -> None:
    from cache.durable import write_all

    try:
        write_all(handle, data)
    except OSError:
        raise _Unwritable from None


def _counted(chunks: Iterator[bytes], count: Callable[[int], None]) -> Iterator[bytes]:
    for chunk in chunks:
        count(len(chunk))
        yield chunk


def _check(digest: Digest, size: int, sha256: str) -> None:
    if (sha256, size) != digest:
        raise Garbled(f"a blob is not what was asked for: {sha256[:12]}/{size} for {digest.hex[:12]}/{digest.size}")


def _keep(blobs: BlobStore, digest: Digest, data: bytes) -> bool:
    """Put what was verified there. Not waited for: a blob is read with its digest, and one that a power cut tore is
    fetched again. False when it cannot be written."""
    with contextlib.suppress(OSError):
        if not blobs.has(digest):
            blobs.files.write(digest.hex, data, mode=0o444)
            blobs.bytes_written += digest.size
        return True
    return False


def _pieces(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), 1 << 18):
        yield data[start : start + (1 << 18)]
