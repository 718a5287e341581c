"""The MCP server over HTTP, for clients that cannot start it: loopback alone, with a token.

Knows the SDK's HTTP application and puts a guard before it. Invariants: it listens on 127.0.0.1; a request without the
token, with a foreign Host (DNS rebinding) or from a page of another origin reaches nothing of the SDK.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cache.durable import write_atomic
from pipeline.effects.loopback import listen

MOST_BODY = 1 << 20
PATH = "/mcp"


class TokenGuard:
    """An ASGI application before another: `Authorization: Bearer TOKEN`, and Host and Origin of this machine."""

    def __init__(self, app: Any, token: str, port: int) -> None:
        self._app = app
        self._token = token.encode()
        self._hosts = {f"127.0.0.1:{port}".encode(), f"localhost:{port}".encode()}

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            status = self._refusal({name.lower(): value for name, value in scope["headers"]})
            if status:
                await _refuse(send, status)
                return
        elif scope["type"] != "lifespan":
            return
        await self._app(scope, receive, send)

    def _refusal(self, headers: dict[bytes, bytes]) -> int:
        """The status of a request that may not go on; 0 for one that may."""
        if headers.get(b"host") not in self._hosts:
            return 421
        origin = headers.get(b"origin")
        if origin is not None and origin.removeprefix(b"http://") not in self._hosts:
            return 403
        kind, _, token = headers.get(b"authorization", b"").partition(b" ")
        return 0 if kind.lower() == b"bearer" and hmac.compare_digest(token, self._token) else 401


async def _refuse(send: Any, status: int) -> None:
    text = {401: b"a token is needed", 403: b"this origin may not ask", 421: b"this is not the host"}[status]
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(text)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})


def serve(server: Any, port: int, token_file: Path, told: Callable[[str], None]) -> None:
    """Until SIGINT or SIGTERM. `port` 0: a free one. Address and token are put into `token_file` (0600), which is
    removed at the end. Raises OSError when the port cannot be had."""
    import uvicorn
    from mcp.server.transport_security import TransportSecuritySettings

    with listen(port) as listener:
        port = listener.getsockname()[1]
        token = secrets.token_urlsafe(32)
        hosts = [f"127.0.0.1:{port}", f"localhost:{port}"]
        security = TransportSecuritySettings(allowed_hosts=hosts, allowed_origins=[f"http://{host}" for host in hosts])
        app = server.streamable_http_app(
            streamable_http_path=PATH, transport_security=security, max_request_body_size=MOST_BODY
        )
        url = f"http://127.0.0.1:{port}{PATH}"
        token_file.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"url": url, "token": token}, indent=2) + "\n"
        write_atomic(token_file, text.encode(), durable=False, mode=0o600)
        try:
            told(f"listening on {url}; the token is in {token_file}")
            config = uvicorn.Config(TokenGuard(app, token, port), log_level="warning", access_log=False)
            uvicorn.Server(config).run(sockets=[listener])
        finally:
            token_file.unlink(missing_ok=True)
