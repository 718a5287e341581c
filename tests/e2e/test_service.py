"""Deploys through the resident service: the same results, and nobody's view of the board ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from pipeline.client.protocol import DeviceRef
from tests.e2e.conftest import ServedBoard
from tests.e2e.space import Space
from tests.serving import PlainViewer, ServiceProcess, short_runtime_dir


@pytest.fixture
def service(host_space: Space, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServiceProcess]:
    with short_runtime_dir(monkeypatch) as runtime:
        running = ServiceProcess(runtime, host_space.path)
        yield running
        running.stop()


def device_of(space: Space, board: ServedBoard) -> DeviceRef:
    return DeviceRef(str(space.path.resolve()), "bench", "esp32c3", board.url)


def test_deploys_through_the_service(
    host_space: Space, service: ServiceProcess, start_board: Callable[..., ServedBoard]
) -> None:
    board = start_board()
    host_space.on_process(board.url)
    with PlainViewer(device_of(host_space, board)) as viewer:
        first = host_space.deploy()
        assert (first.code, first.outcome) == (0, "full_flashed"), first.out + first.err
        again = host_space.deploy()
        assert (again.code, again.outcome) == (0, "verified_unchanged"), again.out + again.err
        assert again.report["device"]["port"] == board.url
        viewer.wait(lambda: viewer.kinds().count("reattached") == 2)
        assert viewer.kinds().count("preempted") == 2
        chunks = viewer.chunks
        place = 0
        for chunk in chunks:
            assert chunk.offset == place
            place += len(chunk.data)
        assert [entry.number for entry in viewer.entries] == list(range(1, len(viewer.entries) + 1))
        assert b'"jsonrpc"' in viewer.data
    (state,) = service.status()["devices"]
    assert (state["state"], state["holder"], state["bytes_seen"]) == ("open", None, place)
