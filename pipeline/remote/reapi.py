"""Results on a server that speaks the Remote Execution API: `[cache] remote = "grpc://host:port"`.

Knows what a run asks and offers, and when to stop asking. Does not know the wire (`reapi_channel`), how blobs travel
(`reapi_blobs`), what an entry looks like (`reapi_results`) or how it is said (`tally`). Invariants: those of
`cache.remote.Remote`. After a call that failed for good this run asks nothing more; only a refusal to be written to
stops that alone. Blobs are there before the entry that names them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from cache.action_result import MOST_INLINED
from cache.actions import MAX_CANDIDATES, ActionResult, entry_of_sets
from cache.blobs import BlobStore
from cache.digest import ActionKey, Digest
from cache.named_tuple import NamedTuple
from cache.remote import RemoteCounts, RemoteSpeed, RoundWatch
from pipeline.effects.api import Clock
from pipeline.formats import reapi
from pipeline.formats.protobuf import decode, encode
from pipeline.remote.reapi_blobs import ReapiBlobs
from pipeline.remote.reapi_channel import DEADLINE_EXCEEDED, NOT_FOUND, ReapiChannel, ReapiServer, RpcTrouble, why
from pipeline.remote.reapi_results import action_digest, message_of, result_of
from pipeline.remote.tally import Tally

HELLO_S = 2.0
"""For the first answer. One that is further away than that is of no use to a build."""
FIND_S = 5.0
SEND_S = 60.0
_MOST_AT_ONCE = 256
"""Entries that are sent in one round."""
_REFUSALS = ("PERMISSION_DENIED", "UNAUTHENTICATED", "UNIMPLEMENTED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION")
_STRANGERS = ("PERMISSION_DENIED", "UNAUTHENTICATED")
_END_S = 2.0
"""For the thread that sends to see that the connection is closed."""
_RATED_FROM, _RATED_FROM_S = 1 << 14, 0.2
"""What is smaller and quicker says nothing of the rate."""
_SETS = [f"set/{n}" for n in range(MAX_CANDIDATES)]


class _Session(NamedTuple):
    """A connection to a server that is of use."""

    channel: ReapiChannel
    blobs: ReapiBlobs


class _Offer(NamedTuple):
    """An entry to be sent."""

    key: ActionKey
    result: ActionResult
    store: BlobStore


class ReapiRemote:
    """A `cache.remote.Remote`. `name`: the URL, for messages; `authorization`: the header's value, `""` for none."""

    def __init__(
        self, server: ReapiServer, clock: Clock, *, writes: bool, authorization: str = "", name: str = ""
    ) -> None:
        self._server, self._clock, self._authorization = server, clock, authorization
        self._writes = writes
        self._tally = Tally(name or str(server), self.speed, has_credentials=bool(authorization))
        self._opening = threading.Lock()
        self._session: _Session | None = None
        self._latency_s, self._received_s, self._received = 0.0, 0.0, 0
        self._offers: deque[_Offer] = deque()
        self._news = threading.Condition()
        self._sender: threading.Thread | None = None
        self._unsent = 0

    # --- asking -----------------------------------------------------------------------------------

    def find(
        self, keys: Sequence[ActionKey], blobs: BlobStore, watch: RoundWatch | None = None
    ) -> dict[ActionKey, ActionResult]:
        session = self._open(watch) if keys else None
        if session is None:
            return {}
        self._tally.add(rounds=1, asked=len(keys))
        if watch is not None:
            watch.began(len(keys), lambda: None)  # its calls end by themselves
        began_s = self._clock.now_s()
        found: dict[ActionKey, ActionResult] = {}
        answers = self._entries(session, keys, began_s + FIND_S)
        failed = refused = 0
        for n, (key, answer) in enumerate(zip(keys, answers, strict=True)):
            if n == 0:
                self._latency_s = min(self._latency_s, self._clock.now_s() - began_s)
            if watch is not None:
                is_entry = isinstance(answer, bytes)
                watch.answered(key, len(answer) if isinstance(answer, bytes) else 0, came=is_entry)
            if isinstance(answer, RpcTrouble):
                if answer.code != NOT_FOUND:
                    failed += 1
                    self._stop(answer)
                continue
            entry = result_of(key, answer)
            if entry is None:
                refused += 1
                self._tally.lied("an entry is not one of this program's for the key that was asked for")
                continue
            found[key] = entry.result
            self._keep(entry.inlined, blobs)
        self._tally.add(found=len(found), refused=refused, failed=failed)
        if watch is not None:
            watch.ended()
        return found

    def _entries(self, session: _Session, keys: Sequence[ActionKey], deadline_s: float) -> Iterator[bytes | RpcTrouble]:
        requests = (
            encode(
                reapi.GET_ACTION_RESULT_REQUEST,
                {
                    "instance_name": self._server.instance,
                    "action_digest": action_digest(key),
                    "inline_output_files": _SETS,
                },
            )
            for key in keys
        )
        return session.channel.ask_all(reapi.GET_ACTION_RESULT, requests, lambda: deadline_s - self._clock.now_s())

    def _keep(self, inlined: Sequence[tuple[Digest, bytes]], blobs: BlobStore) -> None:
        for _, data in inlined:
            try:
                blobs.put_bytes(data)
            except OSError:
                return  # the local store says so itself, where it is asked

    def fetch(
        self, digests: Sequence[Digest], blobs: BlobStore, patience_s: float, watch: RoundWatch | None = None
    ) -> frozenset[Digest]:
        session = self._open(watch) if digests else None
        if session is None:
            return frozenset()
        began_s = self._clock.now_s()

        def left_s() -> float:
            return began_s + patience_s - self._clock.now_s()

        def received(name: str, size: int) -> None:
            if watch is not None:
                watch.received(name, size)

        told = 0

        def heard(there: Iterable[Digest]) -> None:
            nonlocal told
            for digest in there:
                told += 1
                # Before it is told of: whoever has all that it waits for looks at the counts.
                self._tally.add(fetched=1, fetched_bytes=digest.size)
                if watch is not None:
                    watch.answered(digest.hex, digest.size, came=True)

        self._tally.add(rounds=1)
        if watch is not None:
            watch.began(len(digests), lambda: None)
        try:
            got = session.blobs.receive(digests, blobs, left_s, heard, received)
        except OSError:
            return frozenset()  # what is made here will not be kept either, and that is said
        finally:
            if watch is not None:
                watch.ended()
        took_s = self._clock.now_s() - began_s
        if got.size >= _RATED_FROM or took_s > _RATED_FROM_S:
            self._received += max(got.size, 1)
            self._received_s += max(took_s - self._latency_s, 1e-4)
        if got.refused:
            self._tally.lied("a blob has other bytes than its name says")
        late = got.trouble is not None and got.trouble.code == DEADLINE_EXCEEDED
        if got.trouble is not None and not (late and got.size):
            self._stop(got.trouble)
            self._tally.add(failed=1)
        self._tally.add(fetched=len(got.there) - told, refused=got.refused)
        return got.there

    # --- offering ---------------------------------------------------------------------------------

    def offer(self, key: ActionKey, result: ActionResult, blobs: BlobStore) -> None:
        with self._news:
            if not self._writes or self._tally.is_closed or self._tally.takes_nothing:
                return
            self._offers.append(_Offer(key, result, blobs))
            self._unsent += 1
            if self._sender is None:
                self._sender = threading.Thread(target=self._send_offers, name="reapi offers", daemon=True)
                self._sender.start()
            self._news.notify_all()

    def _send_offers(self) -> None:
        while True:
            with self._news:
                while not self._offers:
                    if self._tally.is_closed:
                        return
                    self._news.wait()
                group = [self._offers.popleft() for _ in range(min(len(self._offers), _MOST_AT_ONCE))]
            sent = 0
            try:
                session = self._open()
                if session is not None and not self._tally.takes_nothing:
                    sent = self._send_group(session, group)
            finally:
                with self._news:
                    self._unsent -= len(group)
                    self._tally.add(offered=sent, given_up=len(group) - sent)
                    self._news.notify_all()

    def _send_group(self, session: _Session, group: Sequence[_Offer]) -> int:
        """How many entries the other side took."""
        group = self._with_their_sets(session, group)
        holder = {digest: each.store for each in group for digest in each.result.blobs()}
        gone = session.blobs.send(holder, lambda digest: _held(holder[digest], digest), SEND_S)
        self._tally.add(offered_bytes=gone.size)
        if gone.trouble is not None:
            self._stop_sending(gone.trouble)
        whole = [each for each in (_with_what_is(each, gone.there) for each in group) if each is not None]
        requests = (
            encode(
                reapi.UPDATE_ACTION_RESULT_REQUEST,
                {
                    "instance_name": self._server.instance,
                    "action_digest": action_digest(each.key),
                    "action_result": message_of(each.key, each.result, _inlined(each)),
                },
            )
            for each in whole
        )
        sent = 0
        for answer in session.channel.ask_all(reapi.UPDATE_ACTION_RESULT, requests, lambda: SEND_S):
            if isinstance(answer, RpcTrouble):
                self._stop_sending(answer)
            else:
                sent += 1
        return sent

    def _with_their_sets(self, session: _Session, group: Sequence[_Offer]) -> list[_Offer]:
        """Offers of candidate sets hold those that the other side has already, too: others found them."""
        of_sets = [each for each in group if _is_of_sets(each.result)]
        deadline_s = self._clock.now_s() + FIND_S
        answers = self._entries(session, [each.key for each in of_sets], deadline_s) if of_sets else iter(())
        theirs = {}
        for each, answer in zip(of_sets, answers, strict=True):
            entry = None if isinstance(answer, RpcTrouble) else result_of(each.key, answer)
            if entry is not None and _is_of_sets(entry.result):
                self._keep(entry.inlined, each.store)
                theirs[each.key] = entry.result
        return [
            each._replace(result=_joined(each.result, theirs[each.key])) if each.key in theirs else each
            for each in group
        ]

    def _stop_sending(self, trouble: RpcTrouble) -> None:
        if trouble.code in _REFUSALS:
            self._tally.takes_no(why(trouble))
        else:
            self._stop(trouble)

    def decline(self, results: int) -> None:
        self._tally.declined(results)

    def settle(self, timeout_s: float) -> None:
        deadline_s = self._clock.now_s() + timeout_s
        with self._news:
            while self._unsent and (left_s := deadline_s - self._clock.now_s()) > 0:
                self._news.wait(left_s)
            if self._unsent and not self._tally.is_closed:
                self._tally.gave_up(self._unsent, timeout_s)
                self._tally.add(given_up=len(self._offers) - self._unsent)  # what is under way counts itself
            self._unsent -= len(self._offers)
            self._offers.clear()
            self._tally.close()
            session, self._session = self._session, None
            self._news.notify_all()
        if session is not None:
            session.channel.close()
        if self._sender is not None:
            self._sender.join(_END_S)

    # --- what is known ----------------------------------------------------------------------------

    def speed(self) -> RemoteSpeed:
        return RemoteSpeed(self._latency_s, self._received / self._received_s if self._received_s else 0.0)

    def counts(self) -> RemoteCounts:
        return self._tally.counts()

    def notes(self) -> tuple[str, ...]:
        return self._tally.notes()

    # --- the connection ---------------------------------------------------------------------------

    def _open(self, watch: RoundWatch | None = None) -> _Session | None:
        """The connection, made at the first question; None when there is none to be had. The greeting is a round for
        who watches."""
        with self._opening:
            if self._tally.is_closed or self._session is not None:
                return None if self._tally.is_closed else self._session
            try:
                channel = ReapiChannel(self._server, self._authorization)
            except ImportError:
                self._tally.unreachable("it needs the package grpcio (pip install 'hotplate[reapi]')")
                return None
            if watch is not None:
                watch.began(1, lambda: None)
            session = self._greet(channel)
            if watch is not None:
                watch.ended()
            with self._news:
                if isinstance(session, _Session) and not self._tally.is_closed:
                    self._session = session
                    return session
            channel.close()
            if isinstance(session, RpcTrouble):
                self._tally.add(failed=1)
                self._stop(session)
            return None

    def _greet(self, channel: ReapiChannel) -> _Session | RpcTrouble:
        began_s = self._clock.now_s()
        request = encode(reapi.GET_CAPABILITIES_REQUEST, {"instance_name": self._server.instance})
        answer = channel.ask(reapi.GET_CAPABILITIES, request, HELLO_S)
        if isinstance(answer, RpcTrouble):
            return answer
        self._latency_s = self._clock.now_s() - began_s
        said = decode(reapi.SERVER_CAPABILITIES, answer)
        can: dict[str, Any] | None = None if said is None else said["cache_capabilities"]
        if can is None:
            return RpcTrouble("UNIMPLEMENTED", "it says nothing of a cache")
        if reapi.SHA256 not in can["digest_functions"]:
            return RpcTrouble("UNIMPLEMENTED", "it does not name blobs by SHA-256")
        update = can["action_cache_update_capabilities"]
        if self._writes and (update is None or not update["update_enabled"]):
            self._tally.takes_no("it says so")
        return _Session(channel, ReapiBlobs(channel, self._server.instance, can["max_batch_total_size_bytes"]))

    def _stop(self, trouble: RpcTrouble) -> None:
        """Ask nothing any more in this run."""
        if trouble.code in _STRANGERS and not self._tally.is_closed:
            self._tally.denied(trouble.code)
        else:
            self._tally.unreachable(why(trouble))


def _held(store: BlobStore, digest: Digest) -> bytes | None:
    try:
        return store.read(digest)
    except OSError:
        return None


def _is_of_sets(result: ActionResult) -> bool:
    return bool(result.outputs) and all(file.path.startswith("set/") for file in result.outputs)


def _inlined(offer: _Offer) -> dict[Digest, bytes]:
    if not _is_of_sets(offer.result):
        return {}
    small = [file.digest for file in offer.result.outputs if 0 < file.digest.size <= MOST_INLINED]
    return {digest: data for digest in small if (data := _held(offer.store, digest)) is not None}


def _with_what_is(offer: _Offer, there: Collection[Digest]) -> _Offer | None:
    """The offer if all of its blobs are there; of candidate sets, those that are."""
    if all(digest in there for digest in offer.result.blobs()):
        return offer
    kept = [file.digest for file in offer.result.outputs if file.digest in there]
    return offer._replace(result=entry_of_sets(kept)) if kept and _is_of_sets(offer.result) else None


def _joined(ours: ActionResult, theirs: ActionResult) -> ActionResult:
    """Candidate sets of both, ours first."""
    digests = dict.fromkeys(file.digest for file in (*ours.outputs, *theirs.outputs))
    return entry_of_sets([*digests][:MAX_CANDIDATES])
