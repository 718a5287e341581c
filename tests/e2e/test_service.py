"""Deploys through the resident service: the same results, and nobody's view of the board ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from pipeline.client.protocol import Channel, DeviceRef
from pipeline.service.history import history_path, read_history
from tests.e2e.conftest import ServedBoard
from tests.e2e.space import Space
from tests.serving import TIMEOUT_S, PlainViewer, ServiceProcess, eventually, short_runtime_dir


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
        parts = [(part["part"], part["phase"]) for part in again.report["budget"]["parts"]]
        assert parts == [
            ("service handshake", "startup"),
            ("wait for the port", "dispatch"),
            ("port lent", "verify-flash"),
            ("port returned", "reattach"),
        ]
        viewer.wait(lambda: viewer.kinds().count("reattached") == 2)
        assert viewer.kinds().count("preempted") == 2
        (state,) = service.status()["devices"]
        # The board goes on speaking: what the service had seen is a part of what the viewer gets.
        viewer.wait(lambda: len(viewer.data) >= state["bytes_seen"])
        places = [0]
        for chunk in viewer.chunks:
            assert chunk.offset == places[-1]
            places.append(chunk.offset + len(chunk.data))
        assert (state["state"], state["holder"]) == ("open", None) and state["bytes_seen"] in places
        numbers = [entry.number for entry in viewer.entries]
        assert numbers == list(range(1, len(numbers) + 1))
        assert b'"jsonrpc"' in viewer.data


def test_a_board_in_the_run_is_heard_too(host_space: Space, service: ServiceProcess) -> None:
    device = DeviceRef(str(host_space.path.resolve()), "bench", "esp32c3", "virtual:")
    with PlainViewer(device) as viewer:
        result = host_space.deploy()
        assert (result.code, result.outcome) == (0, "full_flashed"), result.out + result.err
        viewer.wait(lambda: "closed" in viewer.kinds())
        assert viewer.kinds()[0] == "opened" and viewer.notes[0].tx == result.report["transaction_id"]
        console = b"".join(chunk.data for chunk in viewer.chunks if chunk.channel is Channel.CONSOLE)
        assert b'"jsonrpc"' in console and b"waiting for download" not in console
    path = history_path(device.root, device.name)
    # It is written by a thread that nobody waits for.
    eventually(lambda: path.exists() and [line.kind for line in read_history(path) if line.kind] == viewer.kinds())
    kept = read_history(path)
    boot = next(line for line in kept if line.kind == "boot")
    assert len(boot.elf) == 64 and any("ESP-ROM" in line.text for line in kept)


def test_what_is_asked_of_the_service_by_hand(
    host_space: Space, service: ServiceProcess, start_board: Callable[..., ServedBoard]
) -> None:
    board = start_board()
    host_space.on_process(board.url)
    assert host_space.deploy().code == 0
    shown = host_space.doit("serve", "--status")
    assert shown.code == 0 and f"bench of {host_space.path.resolve()} on {board.url}: open" in shown.out, shown
    assert host_space.doit("serve", "--release", "bench").code == 0
    assert service.status()["devices"][0]["state"] == "closed"
    assert host_space.deploy().outcome == "verified_unchanged", "a deploy names the device again"
    assert host_space.doit("serve", "--stop").out == "the service has stopped\n"
    assert service.child.wait(timeout=TIMEOUT_S) == 0
    gone = host_space.doit("serve", "--stop")
    assert gone.code == 1 and "no service runs" in gone.err
    log = (service.runtime / "hotplate/service.log").read_text()
    assert "begins" in log and log.rstrip().endswith("ends")


def test_a_silent_board_is_not_taken_from_its_viewers(
    host_space: Space, service: ServiceProcess, start_board: Callable[..., ServedBoard]
) -> None:
    """The lease stays through every remedy, and what a lent port cannot do is said."""
    board = start_board("--fault", "silence:for=0,boot=0,times=0")
    host_space.on_process(board.url)
    with PlainViewer(device_of(host_space, board)) as viewer:
        result = host_space.doit("recover")
        assert result.code == 1
        assert "bench: reenumerate: skipped: the service keeps the port open, and it is there" in result.out
        for remedy in ("loader-entry", "soft-reset", "reset-line", "other-baud"):
            assert f"bench: {remedy}: failed after" in result.out, result.out
        assert "vanished" not in result.out + result.err and "went away" not in result.out
        viewer.wait(lambda: "reattached" in viewer.kinds())
        assert viewer.kinds().count("preempted") == 1
    assert service.status()["devices"][0]["holder"] is None
