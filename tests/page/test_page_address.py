"""Where the page is, and that nobody else learns it."""

from __future__ import annotations

import os
import stat
import webbrowser
from pathlib import Path

import pytest

from pipeline.client import endpoint
from pipeline.client.page_address import OPENING, open_page, page_address


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "hotplate"
    directory.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(endpoint, "MAX_SOCKET_PATH", 4096)  # no socket is bound here
    return directory


def test_the_address_is_that_of_the_file(runtime: Path) -> None:
    assert page_address() is None
    (runtime / endpoint.HTTP).write_text('{"url": "http://127.0.0.1:8731/ab/", "token": "T0ken"}')
    assert page_address() == "http://127.0.0.1:8731/ab/?token=T0ken"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "7",
        '{"url": "http://127.0.0.1:8731/ab/"}',
        '{"url": 5, "token": "T0ken"}',
        '{"url": "http://127.0.0.1:8731/ab/", "token": 5}',
        '{"url": "http://evil.example/ab/", "token": "T0ken"}',
        '{"url": "file:///etc/passwd", "token": "T0ken"}',
        '{"url": "http://[/", "token": "T0ken"}',
        "\xff",
    ],
)
def test_a_file_that_says_something_else_is_no_page(runtime: Path, text: str) -> None:
    (runtime / endpoint.HTTP).write_bytes(text.encode("latin-1"))
    assert page_address() is None


def test_a_link_is_no_page(runtime: Path) -> None:
    (runtime / "elsewhere").write_text('{"url": "http://127.0.0.1:1/ab/", "token": "T0ken"}')
    (runtime / endpoint.HTTP).symlink_to(runtime / "elsewhere")
    assert page_address() is None


def test_the_browser_is_given_a_private_file_and_no_token(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []

    def opened(address: str) -> bool:
        given.append(address)
        return True

    monkeypatch.setattr(webbrowser, "open", opened)
    (runtime / OPENING).write_text("of before")
    os.chmod(runtime / OPENING, 0o644)  # noqa: PTH101
    assert open_page('http://127.0.0.1:8731/ab/?token=T0ken"><script>')
    assert given == [(runtime / OPENING).as_uri()]
    assert stat.S_IMODE((runtime / OPENING).stat().st_mode) == 0o600
    text = (runtime / OPENING).read_text()
    assert 'content="0;url=http://127.0.0.1:8731/ab/?token=T0ken&quot;&gt;&lt;script&gt;"' in text
    assert "<script>" not in text
