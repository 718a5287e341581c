"""The real server: what it answers, what it refuses, and that no client harms another."""

from __future__ import annotations

import json
import os
import socket
import stat
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from pipeline.client import endpoint
from pipeline.client.protocol import Holder, NoteKind
from pipeline.service import console_lines
from pipeline.service import http as page_http
from tests.page.past import write_past
from tests.page.served import WAIT_S, ServedPage, heard, lines_of

HEALTH = (
    b'{"jsonrpc":"2.0","id":1,"result":{"modules":['
    b'{"name":"blink","setup_ok":true},{"name":"pump","setup_ok":false,"health":"no water"}]}}\n'
)


def eventually(check: Callable[[], bool]) -> bool:
    """Within a deadline."""
    end_s = time.monotonic() + WAIT_S
    while not check():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.01)
    return True


def refused(served: ServedPage) -> dict[str, int]:
    return served.call(served.server.counts.by_reason)


# --- what it answers --------------------------------------------------------------------------


def test_the_address_lies_in_a_private_file(served: ServedPage) -> None:
    path = Path(os.environ["XDG_RUNTIME_DIR"], "hotplate", endpoint.HTTP)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    said = json.loads(path.read_text())
    assert said == {"url": f"http://127.0.0.1:{served.port}{served.place}", "token": served.token}
    assert sorted(one.name for one in path.parent.iterdir()) == [endpoint.HTTP]


def test_the_page_and_its_parts_come_with_every_protection(served: ServedPage) -> None:
    status, headers, body = served.get(f"?token={served.token}", Authorization="")
    assert status == 200 and b"<title>Hotplate</title>" in body
    cookie = headers["set-cookie"].partition(";")[0]
    assert {"HttpOnly", "SameSite=Strict", f"Path={served.place}"} <= set(headers["set-cookie"].split("; "))
    for path in ("", "app.js", "style.css", "icon.svg", "api/devices"):
        status, headers, body = served.get(path, Authorization="", Cookie=cookie)
        assert status == 200 and body
        assert headers["content-security-policy"].startswith("default-src 'self'; ")
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY" and headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert "set-cookie" not in headers and "server" not in headers


def test_every_file_of_the_page_is_served_as_what_it_is(served: ServedPage) -> None:
    kinds = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    files = [path for path in page_http.PAGE.iterdir() if path.suffix in kinds]
    assert len(files) > 10
    for path in files:
        status, headers, body = served.get(path.name)
        assert (status, body) == (200, path.read_bytes())
        assert headers["content-type"].partition(";")[0] == kinds[path.suffix]


def test_devices_are_told_with_state_holder_and_modules(served: ServedPage) -> None:
    served.call(setattr, served.console, "holder", Holder(4711, "hotplate deploy", tx="tx-20261129-080000-a1b2"))
    with served.live() as live:
        served.says(HEALTH)
        told = heard(live, lambda message: message["is"] == "devices" and bool(message["devices"][0]["modules"]))
    (device,) = told["devices"]
    assert device["holder"]["text"] == "tx-20261129-080000-a1b2 (pid 4711)"
    assert device["state"] == "open" and device["port"] == "/dev/ttyUSB0" and device["project_name"] == "greenhouse"
    assert [(one["name"], one["good"], one["text"]) for one in device["modules"]] == [
        ("blink", True, "set up"),
        ("pump", False, "no water"),
    ]
    assert device["modules_from"] == {"source": "console", "current": True}
    assert device["cannot_deploy"]["hint"].startswith("run `hotplate deploy` once")


def test_a_failure_of_ours_is_reported_and_the_page_goes_on(
    served: ServedPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served.live() as live:
        heard(live, lambda message: message["is"] == "devices")
        with monkeypatch.context() as patch:
            patch.setattr(served.consoles, "states", lambda: 1 / 0)
            assert eventually(lambda: any("ZeroDivisionError" in error for error in served.errors))
        served.call(setattr, served.console, "elf", "3f" * 32)
        heard(live, lambda message: message["is"] == "devices" and message["devices"][0]["elf"] == "3f" * 32)


def test_nothing_is_subscribed_while_no_page_is_open(served: ServedPage) -> None:
    assert served.call(lambda: len(served.console.sinks)) == 0
    with served.live() as live:
        live.send(json.dumps({"do": "watch", "device": served.key}))
        heard(live, lambda message: message["is"] == "watching")
        assert eventually(lambda: served.call(lambda: len(served.console.sinks)) == 2)
    assert eventually(lambda: served.call(lambda: len(served.console.sinks)) == 0)


def test_a_viewer_sees_what_was_and_what_comes(served: ServedPage) -> None:
    served.says(b"before\n")
    with served.live() as live:
        live.send(json.dumps({"do": "watch", "device": served.key, "since": "boot"}))
        heard(live, lambda message: message["is"] == "watching")
        assert [line["x"] for line in lines_of(live, "before")] == ["before"]
        served.says(b"aft")
        assert heard(live, lambda message: message["is"] == "lines")["begun"] == "aft"
        served.says(b"er\n")
        served.call(served.console.notes, NoteKind.RESET, "reset by tx-1")
        assert [line.get("x", line.get("note")) for line in lines_of(live, "reset by tx-1")] == [
            "after",
            "reset by tx-1",
        ]


def test_a_viewer_types_and_resets_and_hears_why_not(served: ServedPage) -> None:
    with served.live() as live:
        key = served.key

        def ask(**message: object) -> dict[str, object] | None:
            live.send(json.dumps({"device": key, "n": 7, **message}))
            answer: dict[str, object] | None = heard(live, lambda told: told["is"] == "answer")["failure"]
            return answer

        assert ask(do="send", text='{"jsonrpc":"2.0"}\n') is None
        assert ask(do="reset") is None
        assert (served.console.sent, served.console.resets) == (b'{"jsonrpc":"2.0"}\n', 1)
        served.call(setattr, served.console, "holder", Holder(1, "doit deploy"))
        failure = ask(do="send", text="x")
        assert failure is not None and failure["category"] == "port_busy"
        served.call(setattr, served.console, "holder", None)
        assert ask(do="release") is None and served.console.state == "closed"
        assert ask(do="open") is None and served.console.state == "open"
        for wrong in (
            {"do": "send", "text": "x" * 5000},
            {"do": "send"},
            {"do": "fly"},
            {"do": "watch", "device": "x"},
        ):
            assert ask(**wrong) is not None


def test_history_and_reports_are_found_by_transaction(served: ServedPage) -> None:
    names = write_past(Path(served.device.root), "bench", 12)
    (device,) = served.json("api/devices")["devices"]
    past = served.json(f"api/{device['project']}/{device['key']}/history")
    assert [row["tx"] for row in past["rows"]] == names
    assert past["statistics"]["total"]["n"] == 11, "the one that panicked has no total that compares"
    assert past["limits_ms"]["total"] == 4000 and past["statistics"]["ttfb"]["p50"] > 300
    assert [row["sizes"]["app"] for row in past["sizes"]][-1] == 131_072 + 640 * 2
    found = served.json(f"api/{device['project']}/reports/{names[-1]}")
    assert found["report"]["transaction_id"] == names[-1]
    assert found["markdown"].startswith("# Deploy Report") and len(found["timeline"]["slices"]) > 9


# --- what it refuses --------------------------------------------------------------------------

SECRET = "a secret of this machine"
TRAVERSALS = (
    "../secret.json",
    "..%2fsecret.json",
    "%2e%2e/secret.json",
    "..%2f..%2f..%2fsecret.json",
    "....//secret.json",
    "..\\secret.json",
    "..%5csecret.json",
    "%252e%252e%252fsecret.json",
    "app.js/../../secret.json",
    "api/%s/reports/..%%2fsecret",
    "api/%s/reports/../../../secret.json",
    "api/%s/reports/tx-20261129-080000-a1b2%%00.json",
    "api/%s/reports/tx-20261129-080000-a1b2/../secret",
    "api/%s/reports/secret",
    "api/%s/reports/history.jsonl",
    "api/..%%2f..%%2f/reports/tx-20261129-080000-a1b2",
    "http.py",
    "page/app.js",
    "index.html%00.js",
    "//secret.json",
)


@pytest.mark.parametrize("path", TRAVERSALS)
def test_no_path_leads_to_a_file(served: ServedPage, path: str) -> None:
    root = Path(served.device.root)
    (root / "reports").mkdir()
    for place in (root, root.parent, root / "reports"):
        (place / "secret.json").write_text(SECRET)
    project = served.json("api/devices")["devices"][0]["project"]
    status, _, body = served.get(path % project if "%s" in path else path.replace("%%", "%"))
    assert status == 404 and SECRET.encode() not in body


def test_a_report_that_is_a_link_is_none(served: ServedPage) -> None:
    root = Path(served.device.root)
    (name,) = write_past(root, "bench", 1)
    project = served.json("api/devices")["devices"][0]["project"]
    report = root / "reports" / f"{name}.json"
    outside = root.parent / "elsewhere.json"
    report.rename(outside)
    report.symlink_to(outside)
    (root / ".deploy/runs" / f"{name}.log").unlink()
    assert served.get(f"api/{project}/reports/{name}")[0] == 404


def test_foreign_requests_are_refused_and_counted(served: ServedPage) -> None:
    assert served.get("", Host="evil.example")[0] == 421
    assert served.get("api/devices", Origin="http://evil.example")[0] == 403
    assert served.get("app.js", Sec_Fetch_Site="same-site", Sec_Fetch_Mode="no-cors")[0] == 403
    assert served.get("api/devices", Authorization="Bearer guess")[0] == 401
    assert served.get("?token=guess", Authorization="")[0] == 401
    assert served.get("/elsewhere/")[0] == 404
    status, headers, body = served.get("/", Authorization="")
    assert status == 401 and b"doit serve --open" in body and served.token.encode() not in body
    assert headers["content-type"].startswith("text/plain")
    assert refused(served) == {"host": 1, "origin": 1, "place": 1, "site": 1, "token": 3}
    assert served.json("api/devices")["refused"]["host"] == 1


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"Authorization": "", "Origin": "http://evil.example"}, "origin"),
        ({"Authorization": ""}, "origin"),
        ({"Authorization": "Bearer guess", "Origin": ""}, "origin"),
        ({"Origin": "http://evil.example"}, "origin"),
    ],
)
def test_a_websocket_of_another_site_is_refused(served: ServedPage, headers: dict[str, str], reason: str) -> None:
    with pytest.raises(InvalidStatus) as caught, served.live(**headers):
        pass
    assert caught.value.response.status_code == 403
    assert refused(served) == {reason: 1}


def test_a_websocket_with_our_origin_needs_the_cookie(served: ServedPage) -> None:
    own = f"http://{served.host}"
    with pytest.raises(InvalidStatus), served.live(Authorization="", Origin=own):
        pass
    cookie = served.get(f"?token={served.token}", Authorization="")[1]["set-cookie"].partition(";")[0]
    with served.live(Authorization="", Origin=own, Cookie=cookie) as live:
        assert heard(live, lambda message: message["is"] == "devices")


def raw(served: ServedPage, data: bytes) -> bytes:
    """What the server says to these bytes, until it closes the connection or nothing comes."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=WAIT_S) as link:
        answer = b""
        try:
            link.sendall(data)
            while part := link.recv(65536):
                answer += part
        except ConnectionError:
            pass
        return answer


def test_broken_requests_end_their_own_connection(served: ServedPage) -> None:
    host, place = served.host.encode(), served.place.encode()
    bearer = b"Authorization: Bearer " + served.token.encode()
    for head in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET " + b"/" * 70_000,
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000,
        b"\0" * 100_000,
    ):
        assert raw(served, head + b"\r\n\r\n")[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 421", b"")
    post = b"POST %s HTTP/1.1\r\nHost: %s\r\n%s\r\nContent-Length: 1000000000\r\n\r\n" % (place, host, bearer)
    assert raw(served, post + b"A" * 100_000).startswith(b"HTTP/1.1 405")
    body = b"GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\nContent-Length: 99999999\r\n\r\n" % (place, host, bearer)
    assert raw(served, body + b"A" * 100_000).startswith(b"HTTP/1.1 413")
    assert served.get("")[0] == 200
    assert refused(served)["broken"] >= 4
    assert served.said == []


def test_messages_that_cannot_be_end_the_session(served: ServedPage) -> None:
    for bad in ("no json", "[]", '"x"', "[" * 60_000, "x" * 70_000, b"bytes"):
        with served.live() as live, pytest.raises(ConnectionClosed):
            live.send(bad)
            while True:
                live.recv(WAIT_S)
    counts = refused(served)
    assert counts["message"] == 6
    with served.live() as live:
        assert heard(live, lambda message: message["is"] == "devices")["pages"] == 1


def test_a_flood_of_messages_ends_its_session_alone(served: ServedPage) -> None:
    with served.live() as good, served.live() as bad:
        with pytest.raises(ConnectionClosed):
            for number in range(100_000):
                bad.send(json.dumps({"do": "fly", "n": number}))
        served.says(b"still here\n")
        good.send(json.dumps({"do": "watch", "device": served.key}))
        lines_of(good, "still here")
    assert refused(served)["rate"] == 1


@pytest.fixture
def few_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty, ever."""
    monkeypatch.setattr(page_http, "BURST", 30.0)
    monkeypatch.setattr(page_http, "PER_S", 0.0)


def test_a_flood_of_requests_is_refused_and_counted(few_requests: None, served: ServedPage) -> None:
    # Those who may not ask cannot use up what the others have.
    assert {served.get("style.css", Authorization="")[0] for _ in range(50)} == {401}
    assert [served.get("style.css")[0] for _ in range(40)] == [200] * 30 + [429] * 10
    assert refused(served) == {"rate": 10, "token": 50}


def test_pages_beyond_the_limit_are_refused(served: ServedPage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_http, "MOST_PAGES", 2)
    with served.live(), served.live():
        with pytest.raises(InvalidStatus), served.live():
            pass
        assert refused(served) == {"connections": 1}
    assert eventually(lambda: served.json("api/devices")["pages"] == 0)
    with served.live() as live:
        heard(live, lambda message: message["is"] == "devices")


def test_half_open_connections_are_closed(served: ServedPage, monkeypatch: pytest.MonkeyPatch) -> None:
    """One says nothing, one begins a request, one dribbles after a whole one: each is closed in time."""
    monkeypatch.setattr(page_http, "HEAD_S", 0.05)
    for begin in (b"", b"GET / HTTP/1.1\r\nHost: ", b"GET / HTTP/1.1\r\nHost: %s\r\n\r\nGET" % served.host.encode()):
        raw(served, begin)
    assert refused(served)["idle"] == 3
    assert served.get("")[0] == 200


def test_silent_connections_do_not_keep_others_out(served: ServedPage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_http, "MOST_CONNECTIONS", 8)
    with ExitStack() as open_ones:
        live = open_ones.enter_context(served.live())
        heard(live, lambda message: message["is"] == "devices")
        for _ in range(40):
            open_ones.enter_context(socket.create_connection(("127.0.0.1", served.port), timeout=WAIT_S))
        assert served.get("")[0] == 200
        served.says(b"still here\n")
        live.send(json.dumps({"do": "watch", "device": served.key}))
        lines_of(live, "still here")
    assert refused(served)["connections"] >= 30


def test_a_viewer_that_does_not_read_costs_nobody_anything(served: ServedPage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The board goes on, the other viewer sees everything, and the slow one is told what it lost."""
    with served.live() as slow, served.live() as good:
        key = served.key
        for one in (slow, good):
            one.send(json.dumps({"do": "watch", "device": key, "since": "now"}))
            heard(one, lambda message: message["is"] == "watching")
        # What the systems buffer between two sockets is some megabytes: more than that must come.
        monkeypatch.setattr(console_lines, "MOST_LINES", 100)
        text = b"x" * 8000
        for number in range(30):
            served.says(b"".join(b"%d %s\n" % (number, text) for _ in range(50)))
            lines_of(good, f"{number} {text.decode()}")
        served.says(b"last\n")
        lines_of(good, "last")
        count, dropped, last = 0, 0, ""
        while last != "last":
            told = heard(slow, lambda message: message["is"] == "lines" and message["lines"] != [])
            count, dropped, last = count + len(told["lines"]), told["dropped"], told["lines"][-1]["x"]
        assert dropped > 0 and count + dropped == 1501


# --- hostile boards ---------------------------------------------------------------------------


def test_a_hostile_board_harms_nobody(served: ServedPage) -> None:
    """The server passes texts on as JSON; what they mean to a browser is `test_browser.py`'s."""
    lines = [
        b"<script>alert(1)</script>",
        b"\x1b]52;c;ZXZpbA==\x07\x1b[2J\x1b[H",
        b"\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\",
        b"\xff\xfe\x00\x80 \xed\xa0\x80",
        '\u202e\u2066 "}],"is":"devices"'.encode(),
        b'{"jsonrpc":"2.0","id":1,"result":' + b"[" * 5000,
        b'{"jsonrpc":"2.0","id":1,"result":{"modules":[{"name":5,"setup_ok":true}]}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"modules":"x"}}',
    ]
    with served.live() as live:
        live.send(json.dumps({"do": "watch", "device": served.key}))
        heard(live, lambda message: message["is"] == "watching")
        served.says(b"\n".join(lines) + b"\n")
        for _ in range(160):
            served.says(b"A" * 65536)
        served.says(b"\nlast\n")
        seen = lines_of(live, "last")
        assert [line["x"] for line in seen[: len(lines)]] == [line.decode("utf-8", "replace") for line in lines]
        assert len(seen) == len(lines) + 2 and len(seen[-2]["x"]) == 8192 and seen[-2]["cut"]
        told = heard(live, lambda message: message["is"] == "devices")
        assert told["devices"][0]["modules"] == []
    assert served.said == []
