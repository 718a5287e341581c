"""One open page: what it asked for, and what it is told, over one WebSocket.

Knows the page's messages (docs/page.md). Does not know starlette: `send` takes text. Invariants: nothing that a client
sends makes this raise or grow without bound; the console's sink never waits for a slow client; when this ends, its
subscriptions end.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.client.protocol import DeviceRef
from pipeline.failures import fail
from pipeline.model import Failure, FailureCategory
from pipeline.report.document import failure_json
from pipeline.service.access import Bucket, PageRefusal, RefusalCounts
from pipeline.service.console_lines import LineBacklog
from pipeline.service.hub import Consoles, Since, Subscription
from pipeline.service.page_deploys import PageDeploys

BATCH_S = 0.04
"""What arrives within this time goes as one message: a busy board must not cost a message per line."""
MOST_SENT = 4096
"""Bytes that one `send` may give to a board."""
PER_S, BURST = 50.0, 100.0
"""Messages of a client."""
SINCE = frozenset({"boot", "deploy", "now", "all"})


class PageParts(NamedTuple):
    """What all sessions share. `find`: the device of a key that `devices` told."""

    consoles: Consoles
    deploys: PageDeploys
    counts: RefusalCounts
    find: Callable[[str], DeviceRef | None]
    now_s: Callable[[], float]


class PageSession:
    """Feed it the client's texts with `hear`; `pump` sends until it is cancelled."""

    def __init__(self, parts: PageParts, send: Callable[[str], Awaitable[None]]) -> None:
        self._parts = parts
        self._send = send
        self._stir = asyncio.Event()
        self._bucket = Bucket(PER_S, BURST, parts.now_s())
        self._news: dict[str, str] = {}
        """Messages of which only the newest matters, by what they are about."""
        self._answers: list[str] = []
        self._backlog: LineBacklog | None = None
        self._dropped = 0
        self._watched = ""
        self._subscription: Subscription | None = None

    def tell(self, about: str, message: Mapping[str, Any]) -> None:
        """Send this soon; a newer message about the same takes its place."""
        self._news[about] = _text(message)
        self._stir.set()

    def hear(self, text: str) -> bool:
        """A message of the client; False when it must go."""
        if not self._bucket.take(self._parts.now_s()):
            self._parts.counts.add(PageRefusal.RATE)
            return False
        message = _parsed(text)
        if message is None:
            self._parts.counts.add(PageRefusal.MESSAGE)
            return False
        failure = self._do(message)
        if failure is not None or "n" in message:
            told = None if failure is None else failure_json(failure)
            number = message.get("n")
            self._answers.append(_text({"is": "answer", "n": number if type(number) is int else 0, "failure": told}))
            self._stir.set()
        return True

    async def pump(self) -> None:
        """Send what there is, for ever. Raises what `send` raises when the client is gone."""
        while True:
            await self._stir.wait()
            self._stir.clear()
            await self._flush()
            await asyncio.sleep(BATCH_S)

    def close(self) -> None:
        """Idempotent."""
        if self._subscription is not None:
            self._subscription.close()
        self._subscription = self._backlog = None

    # --- out ----------------------------------------------------------------------------------

    async def _flush(self) -> None:
        answers, self._answers = self._answers, []
        news, self._news = self._news, {}
        for text in (*answers, *news.values()):
            await self._send(text)
        while (backlog := self._backlog) is not None and (message := self._lines(backlog)) is not None:
            await self._send(_text(message))

    def _lines(self, backlog: LineBacklog) -> dict[str, Any] | None:
        """The next message of the console that is watched."""
        lines = backlog.take()
        begun = backlog.begun()
        if not lines and begun is None and backlog.dropped == self._dropped:
            return None
        message = {"is": "lines", "device": self._watched, "lines": lines, "dropped": backlog.dropped}
        self._dropped = backlog.dropped
        return message if begun is None else {**message, "begun": begun}

    # --- in -----------------------------------------------------------------------------------

    def _do(self, message: Mapping[str, Any]) -> Failure | None:
        if message.get("do") == "stop":
            return self._parts.deploys.stop(str(message.get("tx", ""))[:64])
        key = message.get("device")
        device = self._parts.find(key) if isinstance(key, str) else None
        if device is None:
            return _wrong("the page", f"there is no device {str(key)[:40]!r} any more", "reload the page")
        match message.get("do"):
            case "watch":
                return self._watch(str(key), device, message.get("since"))
            case "send":
                return self._type(device, message.get("text"))
            case "reset":
                return self._parts.consoles.reset(device)
            case "open":
                self._parts.consoles.know(device)
                return None
            case "release":
                return self._parts.consoles.release(device)
            case "deploy":
                begun = self._parts.deploys.start(device)
                return begun if isinstance(begun, Failure) else None
        return _wrong("the page", f"cannot {str(message.get('do'))[:40]!r}", "reload the page")

    def _watch(self, key: str, device: DeviceRef, since: Any) -> Failure | None:
        self.close()
        self._watched, self._dropped = key, 0
        backlog = LineBacklog(self._stir.set)
        # The page empties its log here: what follows is of this console alone.
        self._answers.append(_text({"is": "watching", "device": key}))
        subscribed = self._parts.consoles.subscribe(device, Since(since if since in SINCE else "boot"), backlog)
        if isinstance(subscribed, Failure):
            return subscribed
        self._backlog, self._subscription = backlog, subscribed
        self._stir.set()
        return None

    def _type(self, device: DeviceRef, text: Any) -> Failure | None:
        data = text.encode("utf-8", "replace") if isinstance(text, str) else b""
        if not data or len(data) > MOST_SENT:
            return _wrong(device.where, f"{len(data)} bytes cannot be sent at once", f"send 1 to {MOST_SENT} bytes")
        return self._parts.consoles.send(device, data)


def _parsed(text: str) -> Mapping[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _text(message: Mapping[str, Any]) -> str:
    return json.dumps(message, separators=(",", ":"), allow_nan=False)


def _wrong(where: str, fact: str, hint: str) -> Failure:
    return fail(FailureCategory.CONFIG_ERROR, stage=None, where=where, message=fact, hint=hint)
