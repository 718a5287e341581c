"""Where the page of the service is, and how a browser is led there without anybody else seeing the token.

Knows `http.json` and the private directory that it lies in. Does not know the service. Invariant: the token is in no
command line, which every user of this machine can read: the browser is given a file, and the file leads on.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import urlsplit

from cache.durable import read_file
from pipeline.client import endpoint

OPENING = "open.html"
"""Lies beside `http.json`, 0600."""


def page_address() -> str | None:
    """The address with the token; None when no service serves a page."""
    directory = endpoint.runtime_dir()
    if directory is None:
        return None
    try:
        said = json.loads(read_file(f"{directory}/{endpoint.HTTP}", most=1 << 16, follow=False))
        url, token = said["url"], said["token"]
        parts = urlsplit(url)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    local = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost")
    return f"{url}?token={token}" if local and isinstance(token, str) and token.isascii() else None


def redirecting_file(address: str) -> str:
    """A page that leads to `address`."""
    from html import escape

    where = escape(address, quote=True)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Hotplate</title>\n'
        f'<meta http-equiv="refresh" content="0;url={where}">\n</head>\n'
        f'<body><p><a href="{where}">Hotplate</a></p></body></html>\n'
    )


def open_page(address: str) -> bool:
    """Show it in the user's browser; False when there is none."""
    import webbrowser

    directory = endpoint.runtime_dir()
    if directory is None:
        return False
    path = Path(directory, OPENING)
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(redirecting_file(address))
    return webbrowser.open(path.as_uri())
