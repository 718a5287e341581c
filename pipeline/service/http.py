"""The page's web server: loopback, behind `access.py`, in the service's own event loop.

Knows starlette, uvicorn and where the page's files lie; what a page is told, `page_news.py` knows. Nobody imports this
at the top of a module: without the extra `[serve]` there is no page, and the service works all the same. Invariants:
everything that reaches a route passed the rules; no path of a request is ever a path of a file; a client that says
nothing, or too much, is closed and counted, and costs the others nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState
from websockets.exceptions import InvalidState

from cache.named_tuple import NamedTuple
from pipeline.service.access import STATUS, AccessRules, Bucket, PageRefusal, RefusalCounts, RequestHead, Secrets
from pipeline.service.page_door import PageOf
from pipeline.service.page_news import PageNews
from pipeline.service.page_session import PageSession

PAGE = Path(__file__).with_name("page")
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
MOST_CONNECTIONS = 64
MOST_PAGES = 16
HEAD_S = 10.0
"""In which a request must be complete."""
ANSWER_CHECKS = 6
"""So many times HEAD_S an answer may take to be read."""
MOST_MESSAGE = 64 << 10
MOST_HEAD = 16 << 10
BROKEN_CODES = frozenset({1002, 1007, 1009})
"""How RFC 6455 (7.4.1) closes for a broken frame, for no UTF-8, and for a message that is too big."""
PER_S, BURST = 100.0, 300.0
"""Requests of those who may ask."""
STOP_S = 2.0

HEADERS: Mapping[str, str] = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "object-src 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}

WELCOME = (
    "This is Hotplate's service. Its page needs the whole address: `doit serve --open` opens it, and\n"
    "http.json in the service's directory holds it. The address is another one after each start of the service.\n"
)


class PageServer:
    """Make it in the service's loop, `serve` a socket, `stop` it."""

    def __init__(self, of: PageOf, counts: RefusalCounts, given: Secrets) -> None:
        self._of = of
        self._counts = counts
        self._secrets = given
        self._news = PageNews(of.consoles, of.environments, counts, of.clock.now_s, of.clock.utc)
        self._state = ServerState()
        self._listener: asyncio.Server | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def pages(self) -> int:
        """How many are open."""
        return self._news.count

    async def serve(self, sock: socket.socket) -> None:
        """Answer what comes to this socket, which listens on loopback."""
        rules = AccessRules(self._secrets, sock.getsockname()[1])
        config = Config(
            _Guard(self._app(), rules, self._counts, self._of),
            http=functools.partial(_Connection, crowd=_Crowd(self._counts, {})),  # type: ignore[arg-type]
            ws="websockets-sansio",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            ws_max_size=MOST_MESSAGE,
            ws_per_message_deflate=False,
            h11_max_incomplete_event_size=MOST_HEAD,
        )
        config.load()
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: config.http_protocol_class(  # type: ignore[call-arg]
                config=config, server_state=self._state, app_state={}, _loop=loop
            ),
            sock=sock,
        )
        self._task = loop.create_task(self._news.run())

    async def stop(self) -> None:
        """Close every connection. Idempotent."""
        if self._listener is None:
            return
        self._listener.close()
        self._listener = None
        for connection in tuple(self._state.connections):
            with contextlib.suppress(InvalidState):  # it is closing already
                connection.shutdown()
        if self._task is not None:
            self._task.cancel()
        tasks = {task for task in (*self._state.tasks, self._task) if task is not None}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=STOP_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # --- routes -------------------------------------------------------------------------------

    def _app(self) -> Starlette:
        return Starlette(
            routes=[
                *(Route(f"/{name}", _file(data, kind)) for name, (data, kind) in _files().items()),
                Route("/api/devices", self._devices),
                Route("/api/{project}/{device}/history", self._history),
                Route("/api/{project}/reports/{tx}", self._report),
                WebSocketRoute("/live", self._live),
            ]
        )

    async def _devices(self, request: Request) -> Response:
        return JSONResponse(self._news.devices())

    async def _history(self, request: Request) -> Response:
        reports = self._news.reports(request.path_params["project"])
        device = self._news.find(request.path_params["device"])
        if reports is None or device is None:
            return JSONResponse({"missing": "this device"}, 404)
        return JSONResponse(await asyncio.to_thread(reports.history, device.name))

    async def _report(self, request: Request) -> Response:
        reports = self._news.reports(request.path_params["project"])
        tx = request.path_params["tx"]
        found = None if reports is None else await asyncio.to_thread(reports.report, tx)
        return JSONResponse({"missing": "this report"}, 404) if found is None else JSONResponse(found)

    async def _live(self, websocket: WebSocket) -> None:
        if self._news.count >= MOST_PAGES:
            self._counts.add(PageRefusal.CONNECTIONS)
            await websocket.close(1013)
            return
        await websocket.accept()
        session = PageSession(self._news.parts, websocket.send_text)
        self._news.open(session)
        loop = asyncio.get_running_loop()
        both = loop.create_task(self._hear(websocket, session)), loop.create_task(session.pump())
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._news.close(session)
            for task in both:
                task.cancel()
            for end in await asyncio.gather(*both, return_exceptions=True):
                if isinstance(end, Exception) and not isinstance(end, WebSocketDisconnect | RuntimeError):
                    loop.call_exception_handler({"message": "a page failed", "exception": end})

    async def _hear(self, websocket: WebSocket, session: PageSession) -> None:
        """Until the client leaves, or must go."""
        try:
            while session.hear(await websocket.receive_text()):
                pass
            await websocket.close(1008)
        except WebSocketDisconnect as left:
            if left.code in BROKEN_CODES:
                self._counts.add(PageRefusal.MESSAGE)
        except KeyError:  # bytes
            self._counts.add(PageRefusal.MESSAGE)
            await websocket.close(1003)


def _files() -> dict[str, tuple[bytes, str]]:
    """Address -> content and its type. What is not here has no address."""
    found = {
        path.name: (path.read_bytes(), TYPES[path.suffix])
        for path in sorted(PAGE.iterdir())
        if path.suffix in TYPES and path.is_file()
    }
    found[""] = found.pop("index.html")
    return found


def _file(data: bytes, kind: str) -> Callable[[Request], Response]:
    return lambda request: Response(data, media_type=kind)


# --- the guard --------------------------------------------------------------------------------


class _Guard:
    """Before the routes: judge, count, refuse; behind them: the headers of every answer."""

    def __init__(self, app: ASGIApp, rules: AccessRules, counts: RefusalCounts, of: PageOf) -> None:
        self._app = app
        self._rules = rules
        self._counts = counts
        self._now_s = of.clock.now_s
        self._say = of.say
        self._bucket = Bucket(PER_S, BURST, self._now_s())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        access = self._rules.judge(_head(scope))
        refusal = access.refusal
        if refusal is None and not self._bucket.take(self._now_s()):
            refusal = PageRefusal.RATE
        if refusal is not None:
            self._counts.add(refusal)
            await _refuse(scope, send, refusal)
            return
        inner = {**scope, "path": f"/{access.path}", "raw_path": b"", "root_path": ""}
        cookie = self._rules.set_cookie() if access.greet else ""
        try:
            await self._app(inner, receive, functools.partial(_send, send, cookie))
        except Exception as error:
            self._say(f"the page: {type(error).__name__}: {error}")
            raise


async def _send(send: Send, cookie: str, message: Message) -> None:
    if message["type"] == "http.response.start":
        more = {**HEADERS, **({"set-cookie": cookie} if cookie else {})}
        message["headers"] = [*message["headers"], *((name.encode(), value.encode()) for name, value in more.items())]
    await send(message)


def _head(scope: Scope) -> RequestHead:
    return RequestHead(
        scope.get("method", "GET"),
        scope["path"],
        scope["query_string"].decode("latin-1"),
        tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]),
        scope["type"] == "websocket",
    )


async def _refuse(scope: Scope, send: Send, refusal: PageRefusal) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    body = WELCOME if refusal is PageRefusal.TOKEN else f"refused: {refusal}\n"
    # A body that nobody reads must not be sent on, nor be taken for the next request.
    headers = {"connection": "close"} if refusal in (PageRefusal.BODY, PageRefusal.METHOD) else {}
    await Response(body, STATUS[refusal], {**HEADERS, **headers}, "text/plain")(scope, _nothing, send)


async def _nothing() -> Message:
    return {"type": "http.disconnect"}


# --- connections ------------------------------------------------------------------------------


class _Crowd(NamedTuple):
    """What connections know of each other. `silent`: those that have not asked for anything yet, oldest first."""

    counts: RefusalCounts
    silent: dict[_Connection, None]


class _Connection(H11Protocol):
    """uvicorn's, which alone waits for ever for a request that does not come and for a reader that does not read."""

    def __init__(self, *, crowd: _Crowd, **given: Any) -> None:
        super().__init__(**given)
        self._crowd = crowd
        self._timer: asyncio.TimerHandle | None = None
        self._seen: Any = None
        self._checks = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._timer = self.loop.call_later(HEAD_S, self._check)
        self._crowd.silent[self] = None
        if len(self.connections) > MOST_CONNECTIONS:
            # One that has asked for something is worth more than one that only came.
            next(iter(self._crowd.silent)).abort(PageRefusal.CONNECTIONS)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._crowd.silent.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()

    def handle_events(self) -> None:
        super().handle_events()
        if self.scope is not None:
            self._crowd.silent.pop(self, None)

    def send_400_response(self, msg: str) -> None:
        self._crowd.counts.add(PageRefusal.BROKEN)
        super().send_400_response(msg)

    def abort(self, refusal: PageRefusal) -> None:
        """At once, without a word."""
        self._crowd.counts.add(refusal)
        self._crowd.silent.pop(self, None)
        self.transport.abort()

    def _check(self) -> None:
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            return
        self._checks = self._checks + 1 if self.cycle is self._seen else 0
        self._seen = self.cycle
        idle = self.cycle is None or self.cycle.response_complete
        # `None` is what it was at the begin, so that the first check counts already.
        if (idle and (self.cycle is None or self._checks > 0)) or self._checks >= ANSWER_CHECKS:
            self.abort(PageRefusal.IDLE)
            return
        self._timer = self.loop.call_later(HEAD_S, self._check)
