"""Offer an application for one download, to firmware that pulls its updates over HTTP (ESP-IDF's `esp_https_ota` and
others).

Knows HTTP. Does not know how the device learns the address, or what the image is. Invariants: nothing but the image is
served, under a name that cannot be guessed, and only until the download is complete or the time is up; parts may be
asked for again (`Range`), so that a download that was cut off goes on.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PIECE = 16384
REQUEST_S = 30.0


class OneDownload:
    """`with OneDownload(host, port, image, progress) as offer:` tell `offer.url`, then `offer.wait(timeout_s)`."""

    def __init__(self, host: str, port: int, image: bytes, progress: Callable[[str, int, int], None]) -> None:
        """Raises OSError when the address cannot be had. `port` 0: a free one."""
        self._sent = 0
        self._complete = threading.Event()
        self._image = image
        self._progress = progress
        self._path = f"/{secrets.token_urlsafe(18)}.bin"
        offer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = REQUEST_S

            def do_GET(self) -> None:
                offer.serve(self, with_body=True)

            def do_HEAD(self) -> None:
                offer.serve(self, with_body=False)

            def log_message(self, *_args: Any) -> None:
                """Nobody reads it."""

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="ota", daemon=True)
        self.url = f"http://{host}:{self._server.server_address[1]}{self._path}"

    def __enter__(self) -> OneDownload:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def wait(self, timeout_s: float) -> bool:
        """Was the last byte sent within the time?"""
        return self._complete.wait(timeout_s)

    @property
    def sent(self) -> int:
        """Bytes up to the furthest that was sent."""
        return self._sent

    def serve(self, request: BaseHTTPRequestHandler, *, with_body: bool) -> None:
        """One request."""
        if request.path != self._path:
            request.send_error(404)
            return
        size = len(self._image)
        span = _span(request.headers.get("Range", ""), size)
        if span is None:
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{size}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        first, end = span
        whole = (first, end) == (0, size)
        request.send_response(200 if whole else 206)
        request.send_header("Content-Type", "application/octet-stream")
        request.send_header("Content-Length", str(end - first))
        request.send_header("Accept-Ranges", "bytes")
        if not whole:
            request.send_header("Content-Range", f"bytes {first}-{end - 1}/{size}")
        request.end_headers()
        if with_body:
            self._send(request, first, end)

    def _send(self, request: BaseHTTPRequestHandler, first: int, end: int) -> None:
        for at in range(first, end, PIECE):
            last = min(at + PIECE, end)
            try:
                request.wfile.write(self._image[at:last])
            except OSError:
                return  # it comes back and asks for the rest
            self._sent = max(self._sent, last)
            self._progress("ota", self._sent, len(self._image))
        if end == len(self._image):
            self._complete.set()


def _span(text: str, size: int) -> tuple[int, int] | None:
    """(first, end) of a Range header, the whole without one; None when it lies outside."""
    if not text.startswith("bytes="):
        return 0, size
    first, dash, last = text[6:].partition("-")
    if not dash or not (first or last) or not (first + last).isdecimal():
        return 0, size
    if not first:
        return (max(0, size - int(last)), size) if int(last) else None
    end = min(size, int(last) + 1) if last else size
    return (int(first), end) if int(first) < end else None
