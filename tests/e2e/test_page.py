"""The page of a real service over a real board process: lines, modules, a deploy by its button, its report."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pipeline.client.page_address import page_address
from tests.e2e.conftest import ServedBoard
from tests.e2e.space import Space
from tests.page.browser import chromium, needs_chromium
from tests.serving import ServiceProcess, short_runtime_dir

WAIT_MS = 120_000


@pytest.fixture
def service(host_space: Space, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServiceProcess]:
    with short_runtime_dir(monkeypatch) as runtime:
        running = ServiceProcess(runtime, host_space.path)
        yield running
        running.stop()


@needs_chromium
@pytest.mark.long
def test_a_day_at_the_page(host_space: Space, service: ServiceProcess, start_board: Callable[..., ServedBoard]) -> None:
    board = start_board()
    host_space.on_process(board.url)
    first = host_space.deploy()
    assert first.code == 0, first.out + first.err
    address = page_address()
    assert address is not None
    with chromium() as browser:
        page = browser.new_page()
        page.set_default_timeout(WAIT_MS)
        page.goto(address)
        page.wait_for_selector("#device-name:has-text('bench')")
        page.wait_for_selector(".row:has-text('jsonrpc')")
        page.wait_for_selector("#run-line:has-text('full flashed')")
        page.wait_for_selector("#deploy:not(:disabled)")
        page.click("#deploy")
        page.wait_for_selector("#run-line:has-text('verified unchanged, tx-')")
        page.wait_for_selector(".row.note:has-text('preempted by tx-')")
        page.fill("#typed", '{"jsonrpc":"2.0","id":7,"method":"health"}')
        page.press("#typed", "Enter")
        page.wait_for_selector("#modules .dot.good")
        page.click("#tab-last")
        page.wait_for_selector(".waterfall .bar.p-ttfb")
        assert "port lent" in str(page.text_content(".waterfall"))
        page.click("#tab-reports")
        page.click(".report-item:has-text('verified unchanged') >> nth=0")
        page.wait_for_selector(".report dd:has-text('verified_unchanged')")
    status = service.status()
    assert status["page"]["refused"] == {} and status["counts"].get("errors", 0) == 0
    told = host_space.doit("serve", "--status")
    assert f"page: {status['page']['address']}, open" in told.out


def test_the_page_costs_nothing_until_somebody_opens_it(service: ServiceProcess) -> None:
    """And then it answers, and the service ends as fast as ever."""
    before = service.status()
    address = page_address()
    assert address is not None and before["page"]["pages"] == 0
    libraries = Path(f"/proc/{before['pid']}/maps")
    parts = urlsplit(address)
    assert parts.port is not None
    connection = http.client.HTTPConnection("127.0.0.1", parts.port, timeout=60)
    connection.request("GET", f"{parts.path}api/devices", headers={"Authorization": f"Bearer {parts.query[6:]}"})
    answer = connection.getresponse()
    assert answer.status == 200 and json.loads(answer.read())["devices"] == []
    connection.close()
    if libraries.exists():
        assert before["memory_kb"] <= 60 * 1024
        assert service.status()["memory_kb"] <= 60 * 1024
    assert service.stop() == ""
    assert page_address() is None


def test_the_page_on_a_port_that_is_taken_is_said_and_the_service_works(
    host_space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    with short_runtime_dir(monkeypatch) as runtime:
        first = ServiceProcess(runtime, host_space.path)
        port = urlsplit(page_address() or "").port
        config = host_space.path / "deploy.toml"
        config.write_text(config.read_text() + f"\n[service]\nport = {port}\n")
        with short_runtime_dir(monkeypatch) as other:
            second = ServiceProcess(other, host_space.path)
            try:
                assert second.status()["devices"] == [] and "page" not in second.status()
                assert page_address() is None
                log = (other / "hotplate/service.log").read_text()
                assert f"no page: port {port} cannot be used" in log
                opened = host_space.doit("serve", "--open")
                assert opened.code == 1 and "the service has no page" in opened.err
            finally:
                second.stop()
                monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
                first.stop()
