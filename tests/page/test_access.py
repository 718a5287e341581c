"""Who may talk to the page, rule by rule, and that every rule is asked of every request."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.service.access import Access, AccessRules, Bucket, PageRefusal, RefusalCounts, RequestHead, Secrets

GIVEN = Secrets("T0ken", "C00kie", "0123456789abcdef")
RULES = AccessRules(GIVEN, 8731)
PREFIX = "/0123456789abcdef/"
HOST = ("host", "127.0.0.1:8731")
COOKIE = ("cookie", "hotplate=C00kie")
BEARER = ("authorization", "Bearer T0ken")


def ask(
    *headers: tuple[str, str], path: str = PREFIX, query: str = "", method: str = "GET", socket: bool = False
) -> Access:
    return RULES.judge(RequestHead(method, path, query, headers, socket))


def test_the_token_opens_the_page_and_brings_the_cookie() -> None:
    access = ask(HOST, query="token=T0ken")
    assert (access.refusal, access.path, access.greet) == (None, "", True)
    assert RULES.set_cookie() == "hotplate=C00kie; Path=/0123456789abcdef/; HttpOnly; SameSite=Strict"


@pytest.mark.parametrize("credential", [COOKIE, BEARER, ("cookie", "a=b; hotplate=C00kie; c=d")])
@pytest.mark.parametrize("host", ["127.0.0.1:8731", "localhost:8731", "LOCALHOST:8731"])
def test_cookie_or_header_open_everything(credential: tuple[str, str], host: str) -> None:
    access = ask(("host", host), credential, path=f"{PREFIX}api/devices")
    assert (access.refusal, access.path, access.greet) == (None, "api/devices", False)


@pytest.mark.parametrize(
    "hosts",
    [
        [],
        ["evil.example:8731"],
        ["127.0.0.1"],
        ["127.0.0.1:8732"],
        ["127.0.0.1:8731.evil.example"],
        ["127.0.0.1:8731", "evil.example"],
        ["[::1]:8731"],
        ["0.0.0.0:8731"],
        [""],
    ],
)
def test_another_host_is_refused_before_everything_else(hosts: list[str]) -> None:
    """DNS rebinding: a name of somebody else's that leads here."""
    assert ask(*(("host", host) for host in hosts), COOKIE, BEARER).refusal is PageRefusal.HOST


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "https://127.0.0.1:8731", "http://127.0.0.1:3000", "http://localhost:8731", ""],
)
def test_another_origin_is_refused(origin: str) -> None:
    assert ask(HOST, COOKIE, ("origin", origin)).refusal is PageRefusal.ORIGIN
    assert ask(HOST, COOKIE, ("origin", origin), path=f"{PREFIX}live", socket=True).refusal is PageRefusal.ORIGIN


def test_a_browsers_websocket_says_its_origin() -> None:
    own = ("origin", "http://127.0.0.1:8731")
    assert ask(HOST, COOKIE, own, path=f"{PREFIX}live", socket=True).refusal is None
    assert ask(HOST, COOKIE, path=f"{PREFIX}live", socket=True).refusal is PageRefusal.ORIGIN
    assert ask(HOST, BEARER, path=f"{PREFIX}live", socket=True).refusal is None, "a script has none"


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_other_sites_and_other_ports_may_only_lead_here(site: str) -> None:
    """To a browser another port of 127.0.0.1 is the same site, and sends our cookie along."""
    at = ("sec-fetch-site", site)
    blind, navigates = ("sec-fetch-mode", "no-cors"), ("sec-fetch-mode", "navigate")
    assert ask(HOST, COOKIE, at, blind).refusal is PageRefusal.SITE
    assert ask(HOST, COOKIE, at, navigates, path=f"{PREFIX}api/devices").refusal is PageRefusal.SITE
    assert ask(HOST, at, navigates, query="token=T0ken").refusal is None
    assert ask(HOST, COOKIE, ("sec-fetch-site", "same-origin")).refusal is None


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ([], ""),
        ([("cookie", "hotplate=T0ken")], ""),
        ([("cookie", "hotplate=C00kieX")], ""),
        ([("cookie", "hotplate=")], ""),
        ([("cookie", "\x00;;;=")], ""),
        ([("authorization", "Bearer C00kie")], ""),
        ([("authorization", "Basic T0ken")], ""),
        ([("authorization", "Bearer")], ""),
        ([("authorization", "Bearer T0kén")], ""),
        ([], "token=t0ken"),
        ([], "token="),
        ([], "token[]=T0ken"),
        ([], "&".join(["a=1"] * 50) + "&token=T0ken"),
    ],
)
def test_no_token_no_answer(headers: list[tuple[str, str]], query: str) -> None:
    assert ask(HOST, *headers, query=query).refusal is PageRefusal.TOKEN


def test_a_token_in_the_address_opens_the_page_alone() -> None:
    """Addresses end up in logs and histories: what acts does not take one from there."""
    assert ask(HOST, query="token=T0ken", path=f"{PREFIX}api/devices").refusal is PageRefusal.TOKEN
    own = ("origin", "http://127.0.0.1:8731")
    assert ask(HOST, own, query="token=T0ken", path=f"{PREFIX}live", socket=True).refusal is PageRefusal.TOKEN


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "TRACE", "get"])
def test_nothing_is_changed_by_a_request(method: str) -> None:
    assert ask(HOST, COOKIE, method=method).refusal is PageRefusal.METHOD


def test_no_request_has_a_body() -> None:
    assert ask(HOST, COOKIE, ("content-length", "1")).refusal is PageRefusal.BODY
    assert ask(HOST, COOKIE, ("transfer-encoding", "chunked")).refusal is PageRefusal.BODY
    assert ask(HOST, COOKIE, ("content-length", "0")).refusal is None


@pytest.mark.parametrize("path", ["/x", "/0123456789abcde/", "/0123456789abcdef", "//0123456789abcdef/", ""])
def test_other_places_are_not_here(path: str) -> None:
    assert ask(HOST, COOKIE, path=path).refusal is PageRefusal.PLACE
    assert ask(HOST, COOKIE, path=PREFIX + "a" * 4000).refusal is PageRefusal.PLACE


def test_the_bare_address_says_how_to_open_the_page() -> None:
    assert ask(HOST, path="/").refusal is PageRefusal.TOKEN


@given(
    st.lists(st.tuples(st.sampled_from(["host", "origin", "cookie", "authorization", "x"]), st.text(max_size=30))),
    st.text(max_size=40),
    st.text(max_size=40),
    st.booleans(),
)
def test_whatever_comes_is_judged_and_nothing_passes_without_a_secret(
    headers: list[tuple[str, str]], path: str, query: str, socket: bool
) -> None:
    access = RULES.judge(RequestHead("GET", path, query, tuple(headers), socket))
    assert access.refusal is not None


def test_fresh_secrets_are_fresh() -> None:
    one, other = Secrets.fresh(), Secrets.fresh()
    assert not {*one} & {*other}
    assert len(one.token) >= 43 and len({*one}) == 3


def test_a_bucket_gives_its_burst_then_its_rate() -> None:
    bucket = Bucket(10, 3, 100.0)
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(100.25) for _ in range(3)] == [True, True, False]
    assert [bucket.take(200.0) for _ in range(4)] == [True, True, True, False]


def test_refusals_are_counted_by_reason() -> None:
    counts = RefusalCounts()
    for refusal in (PageRefusal.HOST, PageRefusal.TOKEN, PageRefusal.HOST):
        counts.add(refusal)
    assert counts.by_reason() == {"host": 2, "token": 1}
