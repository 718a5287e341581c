"""From `[cache]` and the environment to a client: credentials, modes, and what is told when they cannot be used."""

from __future__ import annotations

import base64
import os
import socket
import time
from pathlib import Path

import pytest

from cache.blobs import BlobStore
from cache.digest import ActionKey
from pipeline.config.cache_url import CacheUrl, fault_of, parse_cache_url
from pipeline.config.schema import CacheSettings
from pipeline.effects.clock import SystemClock
from pipeline.remote.http_cache import HttpCache
from pipeline.remote.opening import open_remote
from pipeline.run import shared_cache
from pipeline.run.shared_cache import SharedCache

SETTINGS = CacheSettings(remote="http://cache.example.com:8080/team")


def header(environment: dict[str, str]) -> str:
    opened = open_remote(SETTINGS, environment, SystemClock())
    assert isinstance(opened, HttpCache)
    return opened._request("GET", "/ac/0").decode()


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("http://h", CacheUrl("http", "h", 80, "")),
        ("http://h/", CacheUrl("http", "h", 80, "")),
        ("https://h.example/a/b/", CacheUrl("https", "h.example", 443, "/a/b")),
        ("http://[::1]:8080/x", CacheUrl("http", "::1", 8080, "/x")),
    ],
)
def test_urls(url: str, parts: CacheUrl) -> None:
    assert fault_of(url) is None and parse_cache_url(url) == parts


@pytest.mark.parametrize(
    ("url", "fact"),
    [
        ("cache:8080", "is 'cache:8080', which is no URL of a shared cache"),
        ("ftp://h", "is 'ftp://h', which is no URL of a shared cache"),
        ("http://me:secret@h/", "holds a user's name or password"),
        ("http://", "has the host '', which is none"),
        ("http://h:70000", "has the port 70000"),
        ("http://h:0", "has the port 0"),
        ("http://h x/", "has the host 'h x', which is none"),
        ("http://h/a b", "is 'http://h/a b', which holds a space, '?', '#' or a letter outside of ASCII"),
        ("http://h/a\r\nX: y", "is 'http://h/a\r\nX: y', which holds a space, '?', '#' or a letter outside of ASCII"),
        ("http://h/?a", "is 'http://h/?a', which holds a space, '?', '#' or a letter outside of ASCII"),
    ],
)
def test_what_is_no_url(url: str, fact: str) -> None:
    found = fault_of(url)
    assert found is not None and found[0] == fact and "secret" not in "".join(found)


def test_without_credentials() -> None:
    assert header({}) == "GET /team/ac/0 HTTP/1.1\r\nHost: cache.example.com:8080\r\nUser-Agent: hotplate\r\n\r\n"


def test_a_token() -> None:
    assert "\r\nAuthorization: Bearer abc.DEF\r\n" in header({"HOTPLATE_CACHE_TOKEN": "abc.DEF\n"})


@pytest.mark.parametrize("token", ["a b", "a\r\nX: y", "ä", "a\x00"])
def test_a_token_that_would_break_the_header(token: str) -> None:
    opened = open_remote(SETTINGS, {"HOTPLATE_CACHE_TOKEN": token}, SystemClock())
    assert opened == "HOTPLATE_CACHE_TOKEN holds what no token is made of; the shared cache is not used"


@pytest.mark.parametrize("variable", ["NETRC", "HOME"])
def test_netrc(tmp_path: Path, variable: str) -> None:
    (tmp_path / ".netrc").write_text("machine cache.example.com login me password secret\n")
    place = tmp_path / ".netrc" if variable == "NETRC" else tmp_path
    expected = base64.b64encode(b"me:secret").decode()
    assert f"Authorization: Basic {expected}\r\n" in header({variable: str(place)})
    assert "Bearer" in header({variable: str(place), "HOTPLATE_CACHE_TOKEN": "x"})


@pytest.mark.parametrize("text", ["machine other login a password b\n", "x", "machine cache.example.com login\n"])
def test_a_netrc_that_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / ".netrc").write_text(text)
    assert "Authorization" not in header({"HOME": str(tmp_path)})


def test_a_server_that_did_not_answer_is_left_alone_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(shared_cache.MODE, raising=False)
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dead = SETTINGS._replace(remote=f"http://127.0.0.1:{listener.getsockname()[1]}")

    def run(settings: CacheSettings = dead) -> bool:
        """Is it asked?"""
        shared = SharedCache(settings, SystemClock(), said.append, tmp_path)
        remote = shared.remote()
        if remote is not None:
            remote.find([ActionKey("ab" * 32)], BlobStore(tmp_path))
        shared.settle()
        return remote is not None

    assert run() and not run() and not run()
    assert [line.partition("shared cache ")[2].removeprefix(dead.remote) for line in said] == [
        ": Connection refused; this run goes on without it",
        *[": it did not answer a moment ago, and is not asked in this run"] * 2,
    ]
    assert run(dead._replace(remote="http://127.0.0.1:1"))  # another one is another one
    then = time.time() - 61
    os.utime(tmp_path / shared_cache.SILENT, (then, then))
    assert run(dead._replace(remote="http://127.0.0.1:1"))
    (tmp_path / shared_cache.SILENT).unlink()
    (tmp_path / shared_cache.SILENT).mkdir()
    assert run()


def test_modes_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def opened(mode: str) -> object:
        monkeypatch.setenv(shared_cache.MODE, mode)
        return SharedCache(SETTINGS, SystemClock(), said.append).remote()

    assert opened("off") is None
    writers = {
        mode: found._writes for mode in ("", "read", "read-write") if isinstance(found := opened(mode), HttpCache)
    }
    assert writers == {"": False, "read": False, "read-write": True} and said == []
    assert opened("write") is None
    assert said == ["note: HOTPLATE_CACHE_MODE is 'write', not off, read or read-write; the shared cache is not used"]
