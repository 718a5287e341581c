"""Who may talk to the page: one decision per request, by its head alone.

Pure but for the secrets that are made once. Does not know starlette, sockets or what is asked for. Invariant: nothing
passes without one of this service's secrets, with another Host than our own loopback address, or at the wish of another
site; what is refused is counted by its reason, and costs no more than this decision.

What each rule is against, and what none of them is: docs/security.md.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable, Mapping
from enum import StrEnum
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from cache.named_tuple import NamedTuple

COOKIE = "hotplate"
MAX_TARGET = 2048
"""Bytes of a path and of a query string."""


class PageRefusal(StrEnum):
    """Why a request was not answered; closed. What `status` counts."""

    BROKEN = "broken"
    HOST = "host"
    ORIGIN = "origin"
    SITE = "site"
    METHOD = "method"
    BODY = "body"
    PLACE = "place"
    TOKEN = "token"
    RATE = "rate"
    MESSAGE = "message"
    IDLE = "idle"
    CONNECTIONS = "connections"


STATUS: Mapping[PageRefusal, int] = {
    PageRefusal.HOST: 421,
    PageRefusal.ORIGIN: 403,
    PageRefusal.SITE: 403,
    PageRefusal.METHOD: 405,
    PageRefusal.BODY: 413,
    PageRefusal.PLACE: 404,
    PageRefusal.TOKEN: 401,
    PageRefusal.RATE: 429,
}
"""The HTTP status of those that are answered with one."""


class Secrets(NamedTuple):
    """`token` opens the page, `cookie` is what a browser keeps of it, `place` is the first part of every path: a cookie
    is sent to every port of this machine, but not to another path."""

    token: str
    cookie: str
    place: str

    @classmethod
    def fresh(cls) -> Secrets:
        """New ones; they end with the process."""
        return cls(secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_hex(8))


class RequestHead(NamedTuple):
    """What a request says before its body. `socket`: it wants to become a WebSocket. Header names in lower case."""

    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    socket: bool = False

    def all(self, name: str) -> list[str]:
        """Every value of a header."""
        return [value for key, value in self.headers if key == name]

    def one(self, name: str) -> str:
        """Its value; "" where it is missing."""
        return next(iter(self.all(name)), "")


class Access(NamedTuple):
    """The decision. `path` is what is left behind the place; `greet`: the token stood in the address, so that the
    answer brings the cookie."""

    refusal: PageRefusal | None
    path: str = ""
    greet: bool = False


class AccessRules:
    """The rules of one running service on one port."""

    def __init__(self, given: Secrets, port: int) -> None:
        self._secrets = given
        self._hosts = (f"127.0.0.1:{port}", f"localhost:{port}")

    def judge(self, head: RequestHead) -> Access:
        """The first rule that a request breaks, in the order of what it costs to find out."""
        prefix = f"/{self._secrets.place}/"
        hosts = head.all("host")
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return Access(PageRefusal.HOST)
        if (refusal := self._of_another_site(head, hosts[0].lower(), prefix)) is not None:
            return Access(refusal)
        if head.method not in ("GET", "HEAD"):
            return Access(PageRefusal.METHOD)
        if head.one("content-length") not in ("", "0") or head.all("transfer-encoding"):
            return Access(PageRefusal.BODY)
        if len(head.path) > MAX_TARGET or len(head.query) > MAX_TARGET or not head.path.startswith(prefix):
            return Access(PageRefusal.TOKEN if head.path == "/" else PageRefusal.PLACE)
        path = head.path.removeprefix(prefix)
        greet = path == "" and not head.socket and self._is_token(_query_token(head.query))
        if not (greet or self._is_bearer(head) or self._has_cookie(head)):
            return Access(PageRefusal.TOKEN)
        return Access(None, path, greet)

    def set_cookie(self) -> str:
        """The header that gives a browser its cookie."""
        return f"{COOKIE}={self._secrets.cookie}; Path=/{self._secrets.place}/; HttpOnly; SameSite=Strict"

    def _of_another_site(self, head: RequestHead, host: str, prefix: str) -> PageRefusal | None:
        origins = head.all("origin")
        if any(origin != f"http://{host}" for origin in origins):
            return PageRefusal.ORIGIN
        if head.socket and not origins and not self._is_bearer(head):
            return PageRefusal.ORIGIN  # every browser says one
        # To a browser other ports of this machine are the same site; following a link to the page itself is fine.
        arrives = head.one("sec-fetch-mode") == "navigate" and head.path == prefix
        if head.one("sec-fetch-site") not in ("", "same-origin", "none") and not arrives:
            return PageRefusal.SITE
        return None

    def _is_token(self, given: str) -> bool:
        return _equal(given, self._secrets.token)

    def _is_bearer(self, head: RequestHead) -> bool:
        scheme, _, token = head.one("authorization").partition(" ")
        return scheme.lower() == "bearer" and self._is_token(token.strip())

    def _has_cookie(self, head: RequestHead) -> bool:
        return any(_equal(value, self._secrets.cookie) for value in _cookies(head.all("cookie")))


def _equal(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())


def _query_token(query: str) -> str:
    try:
        return next(iter(parse_qs(query, max_num_fields=4).get("token", [])), "")
    except ValueError:
        return ""


def _cookies(headers: Iterable[str]) -> Iterable[str]:
    for header in headers:
        try:
            found = SimpleCookie(header).get(COOKIE)
        except CookieError:
            continue
        if found is not None:
            yield found.value


class Bucket:
    """A rate with a burst: `take` says whether one more is within it."""

    def __init__(self, per_s: float, burst: float, now_s: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._left = burst
        self._at_s = now_s

    def take(self, now_s: float) -> bool:
        self._left = min(self._burst, self._left + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True


class RefusalCounts:
    """How often each reason was the answer, since the service began."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def add(self, refusal: PageRefusal) -> None:
        self._counts[refusal.value] = self._counts.get(refusal.value, 0) + 1

    def by_reason(self) -> dict[str, int]:
        """Only those that happened."""
        return dict(sorted(self._counts.items()))
