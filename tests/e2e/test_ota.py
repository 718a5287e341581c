"""`doit ota` as people run it: to the reference firmware over its line, and to a device on the network by Arduino's
protocol and by HTTP."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.space import ROOT, Result, Space, environment

METHODS = "firmware/core/methods.c"


def counts(result: Result) -> dict[str, int]:
    found: dict[str, int] = result.stage("reflash")["counts"]
    return found


def test_an_update_over_the_line_and_the_second_time(host_space: Space) -> None:
    assert host_space.deploy().outcome == "full_flashed"
    host_space.edit(METHODS, 'out_text("\\"pong\\"");', 'out_text("\\"pang\\"");')
    first = host_space.doit("ota")
    assert first.code == 0, first.out + first.err
    assert first.outcome == "delta_flashed"
    (region,) = first.report["regions"]
    assert (region["name"], region["offset"], region["action"]) == ("app", 0x150000, "delta")
    assert 0 < first.totals["bytes_written"] < region["size"] // 2, "the device copied what it had"
    assert first.report["plan"]["verified_by"] == "app-report"
    assert first.report["readiness"]["app_elf_sha256"]

    second = host_space.doit("ota")
    assert (second.code, second.outcome, second.totals["bytes_written"]) == (0, "app_confirmed", 0)
    assert counts(second) == {"regions_written": 0, "bytes_written": 0}

    host_space.edit(METHODS, 'out_text("\\"pang\\"");', 'out_text("\\"pung\\"");')
    assert host_space.doit("ota").outcome == "delta_flashed"
    by_cable = host_space.deploy()
    assert by_cable.code == 0 and by_cable.category == ""
    kinds = {reason["kind"] for reason in by_cable.report["reasons"]}
    assert "write-was-cut-off" not in kinds and by_cable.report["regions"][2]["action"] == "kept", by_cable.report
    assert host_space.deploy().outcome == "verified_unchanged"


def test_readiness_that_does_not_ask_who_it_is(host_space: Space) -> None:
    """The device chose the slot: that the bootloader starts what lies there is no failure."""
    host_space.edit("deploy.toml", 'until = "rpc:ready"', 'until = "line:ready"')
    assert host_space.deploy().outcome == "full_flashed"
    host_space.edit(METHODS, 'out_text("\\"pong\\"");', 'out_text("\\"pang\\"");')
    updated = host_space.doit("ota")
    assert (updated.code, updated.outcome) == (0, "delta_flashed"), updated.out + updated.err


def test_an_update_that_does_not_come_goes_back(host_space: Space) -> None:
    assert host_space.deploy().outcome == "full_flashed"
    host_space.edit("firmware/core/main.c", "    port_init();", "    port_init();\n    port_panic();")
    failed = host_space.doit("ota")
    assert failed.code == 1
    assert failed.outcome == "failed"
    assert failed.category in ("panic", "boot_loop", "wrong_image")
    assert "ota_0 runs now" in failed.report["failure"]["message"]
    assert host_space.doit("monitor", "--no-reset", "--call", "ping").out.strip() == '"pong"'


def test_firmware_without_updates_is_told(host_space: Space) -> None:
    host_space.edit(METHODS, '{"ota.begin", "Opens', '{"ota.begun", "Opens')
    assert host_space.deploy().outcome == "full_flashed"
    host_space.edit(METHODS, 'out_text("\\"pong\\"");', 'out_text("\\"pang\\"");')
    refused = host_space.doit("ota")
    assert (refused.code, refused.category, refused.totals["bytes_written"]) == (1, "config_error", 0)
    assert "does not offer `ota.begin`" in refused.err + refused.out


@pytest.fixture
def network() -> Iterator[Callable[..., tuple[int, int]]]:
    """Starts a device on the network: (port of its console, port of its listener)."""
    started: list[subprocess.Popen[str]] = []

    def start(*options: str) -> tuple[int, int]:
        argv = [sys.executable, "-m", "tests.e2e.ota_device", *options]
        child = subprocess.Popen(argv, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True)
        started.append(child)
        assert child.stdout is not None
        console, listener = map(int, child.stdout.readline().split())
        return console, listener

    yield start
    for child in started:
        child.kill()
        child.communicate()


def on_network(space: Space, console: int, ota: str, **more: str) -> None:
    lines = "".join(f'\n{name} = "{value}"' for name, value in more.items())
    space.edit("deploy.toml", 'port = "virtual:"', f'port = "socket://127.0.0.1:{console}"\nota = "{ota}"{lines}')
    space.edit("deploy.toml", "timeout_ms = 5000", "timeout_ms = 60000")


def test_a_line_after_a_push(host_space: Space, network: Callable[..., tuple[int, int]]) -> None:
    """The slot that starts is the device's choice here too."""
    console, listener = network()
    on_network(host_space, console, f"espota://127.0.0.1:{listener}")
    host_space.edit("deploy.toml", 'until = "rpc:ready"', 'until = "line:ready"')
    first = host_space.doit("ota")
    assert (first.code, first.outcome) == (0, "regions_flashed"), first.out + first.err
    assert first.report["plan"]["verified_by"] == "journal"
    assert first.report["readiness"]["note"].endswith("nothing proves that it is the one that was sent")


@pytest.mark.parametrize("options", [(), ("--password", "secret"), ("--password", "secret", "--old-challenge")])
def test_pushed_to_an_arduino_listener(
    host_space: Space, network: Callable[..., tuple[int, int]], options: tuple[str, ...]
) -> None:
    console, listener = network(*options)
    on_network(host_space, console, f"espota://{'secret@' if options else ''}127.0.0.1:{listener}")
    first = host_space.doit("ota")
    assert first.code == 0, first.out + first.err
    assert first.outcome == "regions_flashed"
    assert first.totals["bytes_written"] == first.report["regions"][0]["size"]
    assert first.report["plan"]["verified_by"] == "journal", "it named itself, and no more"
    second = host_space.doit("ota")
    assert (second.outcome, second.totals["bytes_written"]) == ("journal_trusted", 0)


def test_a_device_that_can_hash_its_slot_is_asked_for_it(
    host_space: Space, network: Callable[..., tuple[int, int]]
) -> None:
    """Its name alone does not say that the slot is whole, nor where in flash the update lies."""
    console, listener = network("--hashes", "--rots", "3")
    on_network(host_space, console, f"espota://127.0.0.1:{listener}")
    first, second, rotten = (host_space.doit("ota") for _ in range(3))
    assert first.code == 0, first.out + first.err
    (region,) = first.report["regions"]
    assert (first.outcome, region["offset"]) == ("regions_flashed", 0x150000)
    assert (second.outcome, second.totals["bytes_written"]) == ("app_confirmed", 0)
    assert (rotten.outcome, rotten.totals["bytes_written"]) == ("regions_flashed", region["size"])


def test_an_update_that_is_not_whole_after_the_restart(host_space: Space, network: Any) -> None:
    console, listener = network("--hashes", "--rots", "1")
    on_network(host_space, console, f"espota://127.0.0.1:{listener}")
    failed = host_space.doit("ota")
    assert (failed.code, failed.outcome, failed.category) == (1, "failed", "verify_mismatch")


@pytest.mark.parametrize("number", [1, 2])
def test_a_digest_that_turned_on_its_way_is_no_verdict_on_the_slot(
    host_space: Space, network: Any, number: int
) -> None:
    """The first is asked for after the restart, the second by the next update."""
    console, listener = network("--hashes", "--garbled", f"image.hashes:{number}")
    on_network(host_space, console, f"espota://127.0.0.1:{listener}")
    first, second = host_space.doit("ota"), host_space.doit("ota")
    assert (first.code, first.outcome) == (0, "regions_flashed"), first.out + first.err
    assert (second.outcome, second.totals["bytes_written"]) == ("app_confirmed", 0)


def test_a_mac_that_turned_on_its_way_is_nobody_s(host_space: Space, network: Any) -> None:
    console, listener = network("--garbled", "info:1")
    on_network(host_space, console, f"espota://127.0.0.1:{listener}")
    failed = host_space.doit("ota")
    assert (failed.code, failed.category, failed.totals["bytes_written"]) == (1, "sync_failed", 0)
    assert "the MAC is 7c:df:a1:00:22:45, then 7c:df:a1:00:22:44" in failed.report["failure"]["message"]
    assert not [*host_space.file(".deploy/devices.v1").glob("*2245.log")]


def test_another_board_at_the_address_is_not_updated(host_space: Space, network: Any) -> None:
    console, listener = network()
    on_network(host_space, console, f"espota://127.0.0.1:{listener}", mac="7c:df:a1:00:11:99")
    refused = host_space.doit("ota")
    assert (refused.code, refused.category, refused.totals["bytes_written"]) == (1, "wrong_device", 0)
    assert "has the MAC 7c:df:a1:00:22:44, expected 7c:df:a1:00:11:99" in refused.err + refused.out


def test_pulled_by_the_device_in_parts(host_space: Space, network: Callable[..., tuple[int, int]]) -> None:
    console, _ = network()
    on_network(host_space, console, "http://127.0.0.1", ota_call="ota.url")
    first = host_space.doit("ota")
    assert (first.code, first.outcome) == (0, "regions_flashed"), first.out + first.err


@pytest.mark.parametrize(
    ("options", "password", "fact"),
    [
        (("--password", "secret"), "", "it asks for a password"),
        (("--password", "secret"), "wrong@", "Authentication Failed"),
    ],
)
def test_a_listener_that_refuses(
    host_space: Space, network: Any, options: tuple[str, ...], password: str, fact: str
) -> None:
    console, listener = network(*options)
    on_network(host_space, console, f"espota://{password}127.0.0.1:{listener}")
    refused = host_space.doit("ota")
    assert (refused.code, refused.category, refused.totals["bytes_written"]) == (1, "write_failed", 0)
    assert fact in refused.report["failure"]["message"]


def test_a_device_that_starts_the_old_image_again(host_space: Space, network: Any) -> None:
    console, listener = network("--forget")
    on_network(host_space, console, f"espota://127.0.0.1:{listener}")
    failed = host_space.doit("ota")
    assert (failed.code, failed.outcome, failed.category) == (1, "failed", "wrong_image")
