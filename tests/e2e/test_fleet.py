"""Several boards in one run: of several chips, beside each other, with faults, canaries and the way back."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import given_firmware as given
from tests.e2e.conftest import ServedBoard
from tests.e2e.space import TIMEOUT_S, Space

MAIN = "firmware/core/main.c"
SILENT = "    for (;;) {\n    }\n    announce();"
"""A firmware that starts and never says so."""

THREE_CHIPS = """
[profile.esp32.toolchain]
kind = "prebuilt"
chip = "esp32"
[profile.esp32.prebuilt]
directory = "given/esp32"
[profile.esp32.readiness]
until = "line:firmware is not executed"
[profile.s3.toolchain]
kind = "prebuilt"
chip = "esp32s3"
[profile.s3.prebuilt]
directory = "given/esp32s3"
[profile.s3.readiness]
until = "line:firmware is not executed"
"""


def add(space: Space, text: str) -> None:
    with space.file("deploy.toml").open("a") as config:
        config.write(text)


def device(name: str, number: int, port: str = "virtual:", **more: str) -> str:
    lines = [f"[device.{name}]", f'port = "{port}"', f'mac = "7c:df:a1:00:22:{number:02x}"', 'groups = ["rack"]']
    return "\n".join(["", *lines, *(f"{key} = {json.dumps(value)}" for key, value in more.items()), ""])


def with_three_chips(space: Space) -> None:
    for chip in ("esp32", "esp32s3"):
        given.esp_idf(space.path / "given" / chip, chip)
    add(space, THREE_CHIPS)


def reports(space: Space, out: str) -> dict[str, Any]:
    """Device -> its report, of the lines that a run printed."""
    found = {}
    for path in re.findall(r"^DEPLOY_TX_ID=.* DEPLOY_REPORT=(\S+)\.md$", out, re.M):
        report = json.loads(space.file(f"{path}.json").read_text())
        found[report["device"]["name"] + (":back" if report["targets"] == ["rollback"] else "")] = report
    return found


def lines(out: str) -> list[str]:
    """The lines about stages."""
    return re.findall(r"^(?:--|\. ) \S+$", out, re.M)


def test_three_chips_in_one_run(host_space: Space) -> None:
    with_three_chips(host_space)
    add(host_space, device("c3", 1) + device("old", 2, chip="esp32") + device("s3", 3, profile="s3"))
    first = host_space.doit("deploy", "--group", "rack")
    assert first.code == 0, first.out + first.err
    found = reports(host_space, first.out)
    assert {(name, r["device"]["chip"], r["profile"], r["outcome"]) for name, r in found.items()} == {
        ("c3", "esp32c3", "local-fast", "full_flashed"),
        ("old", "esp32", "esp32", "full_flashed"),
        ("s3", "esp32s3", "s3", "full_flashed"),
    }
    assert len({report["run"] for report in found.values()}) == 1 and found["c3"]["toolchain"].startswith("zig")
    assert len({report["transaction_id"] for report in found.values()}) == 3
    again = host_space.doit("deploy", "--group", "rack")
    assert {r["outcome"] for r in reports(host_space, again.out).values()} == {"verified_unchanged"}, again.out
    assert lines(again.out)[:3] == ["-- fingerprint", "-- compile", "-- link"], again.out
    assert "3 devices: 3 ok" in again.out
    only = host_space.doit("deploy", "--group", "rack", "--chip", "esp32s3")
    assert [*reports(host_space, only.out)] == ["s3"] and only.outcome == "verified_unchanged"
    assert host_space.deploy().report["device"]["name"] == "bench", "the others' builds left the usual one alone"
    assert "-- compile" in host_space.doit("compile").out


def test_a_build_that_fails_stops_its_own_boards(host_space: Space) -> None:
    with_three_chips(host_space)
    add(host_space, device("c3", 1) + device("old", 2, chip="esp32"))
    host_space.edit(MAIN, "    port_init();", "    port_init()")
    result = host_space.doit("deploy", "--group", "rack")
    assert result.code == 1
    found = reports(host_space, result.out)
    assert found["c3"]["failure"]["category"] == "compile_error"
    assert (found["old"]["outcome"], found["old"]["failure"]) == ("full_flashed", None)
    assert result.err.count("error: expected ';'") == 1, result.err
    both = host_space.doit("deploy", "--group", "rack", "--fail-fast")
    assert both.code == 1 and all(r["failure"] for r in reports(host_space, both.out).values())
    assert host_space.doit("link", "--group", "rack").code == 1, "without boards there is nobody who could go on"


def test_one_board_stops_no_other(host_space: Space) -> None:
    add(host_space, device("gone", 1, "/dev/does-not-exist") + device("a", 2) + device("b", 3))
    result = host_space.doit("deploy", "--group", "rack", "--workers", "1")
    assert result.code == 1
    found = reports(host_space, result.out)
    assert {name: (r["failure"] or {}).get("category") for name, r in found.items()} == {
        "gone": "port_missing",
        "a": None,
        "b": None,
    }
    assert "3 devices: 2 ok, 1 port_missing" in result.out
    waited = {name: report["totals"]["waiting_ms"] for name, report in found.items()}
    assert waited["gone"] <= waited["a"] <= waited["b"] and waited["b"] > 0
    for report in found.values():
        rows = [row["duration_ms"] or 0 for row in report["stages"]]
        totals = report["totals"]
        assert sum(rows) + totals["waiting_ms"] + totals["remainder_ms"] == totals["duration_ms"]
        assert totals["remainder_ms"] < 1000, "what a board waited for is no remainder"
    merged = json.loads(host_space.file("reports/status/live-results-all.json").read_text())
    assert {one["device"]: one["current"] for one in merged["devices"]} == {"gone": True, "a": True, "b": True}
    assert not host_space.file("reports/status/live-results-all-last-good.json").exists()
    stopped = host_space.doit("deploy", "--group", "rack", "--workers", "1", "--fail-fast")
    found = reports(host_space, stopped.out)
    assert stopped.code == 1
    assert {r["failure"]["category"] for name, r in found.items() if name != "gone"} == {"interrupted"}
    assert "device gone failed" in found["b"]["failure"]["message"]


def test_canaries_go_first_and_stop_the_rest(host_space: Space) -> None:
    add(host_space, device("one", 1) + device("two", 2) + device("three", 3))
    good = host_space.doit("deploy", "--group", "rack", "--canary", "1")
    assert good.code == 0, good.out + good.err
    order = [line.partition(" ")[2].strip() for line in lines(good.out)]
    assert order.index("ttfb:one") < order.index("verify-flash:two")
    host_space.edit(MAIN, "    announce();", SILENT)
    bad = host_space.doit("deploy", "--group", "rack", "--canary", "1")
    found = reports(host_space, bad.out)
    assert bad.code == 1 and found["one"]["failure"]["stage"] == "ttfb"
    assert [found[name]["failure"]["category"] for name in ("two", "three")] == ["interrupted", "interrupted"]
    assert all(row["outcome"] == "not-run" for row in found["two"]["stages"][3:])
    host_space.edit(MAIN, SILENT, "    announce();")
    healed = host_space.doit("deploy", "--group", "rack")
    outcomes = {name: report["outcome"] for name, report in reports(host_space, healed.out).items()}
    assert outcomes == {"one": "delta_flashed", "two": "verified_unchanged", "three": "verified_unchanged"}


def test_the_images_before_are_put_back(host_space: Space) -> None:
    """On each board that does not become ready, proven again; the deploy has failed all the same."""
    add(host_space, device("one", 1) + device("two", 2))
    assert host_space.doit("deploy", "--group", "rack").code == 0
    flashes = {name: host_space.file(f".deploy/boards/{name}.flash") for name in ("one", "two")}
    before = {name: path.read_bytes() for name, path in flashes.items()}
    host_space.edit(MAIN, "    announce();", SILENT)
    result = host_space.doit("deploy", "--group", "rack", "--rollback")
    assert result.code == 1
    found = reports(host_space, result.out)
    for name in ("one", "two"):
        failed, back = found[name], found[f"{name}:back"]
        assert failed["failure"]["stage"] == "ttfb" and failed["outcome"] == "failed"
        assert (failed["rollback"]["transaction_id"], back["run"]) == (back["transaction_id"], failed["run"])
        assert (back["outcome"], back["failure"]) == ("delta_flashed", None), back
        assert back["readiness"]["status"] == "passed"
        assert back["readiness"]["app_elf_sha256"] != failed["readiness"]["app_elf_sha256"]
        assert flashes[name].read_bytes() == before[name]
        page = host_space.file(f"reports/{failed['transaction_id']}.md").read_text()
        assert "## Rollback" in page and "the images before are back" in page
    assert result.out.count("the images before are back") == 2
    host_space.edit(MAIN, SILENT, "    announce();")
    healed = host_space.doit("deploy", "--group", "rack")
    assert {r["outcome"] for r in reports(host_space, healed.out).values()} == {"verified_unchanged"}, healed.out


def test_what_cannot_be_put_back_is_said(host_space: Space) -> None:
    host_space.edit(MAIN, "    announce();", SILENT)
    first = host_space.doit("deploy", "--rollback")
    assert first.code == 1 and first.report["rollback"] == {
        "transaction_id": "",
        "outcome": None,
        "message": "nothing was put back: nothing was deployed to this board before",
    }
    again = host_space.doit("deploy", "--rollback")
    assert again.code == 1 and "this run wrote nothing" in again.report["rollback"]["message"], again.out
    host_space.edit(MAIN, SILENT, SILENT.replace("{\n", "{\n        port_init();\n"))
    store = next(host_space.file(".deploy/user-cache").rglob("cas.v1"))
    for blob in [path for path in store.rglob("*") if path.is_file()]:
        blob.unlink()
    lost = host_space.doit("deploy", "--rollback")
    assert lost.code == 1 and "the store no longer has the image" in lost.report["rollback"]["message"], lost.out


def test_one_board_under_two_names(host_space: Space, start_board: Callable[..., ServedBoard]) -> None:
    """Behind one port or behind two: the second is refused by name, and the first is deployed to."""
    board = start_board("--mac", "7c:df:a1:00:22:01")
    text = host_space.file("deploy.toml").read_text().replace("timeout_ms = 5000", "timeout_ms = 300000")
    names = (
        f'\n[device.a]\nport = "{board.url}"\ngroups = ["rack"]\n[device.b]\nport = "{board.url}"\ngroups = ["rack"]\n'
    )
    host_space.file("deploy.toml").write_text(text + names)
    result = host_space.doit("deploy", "--group", "rack")
    found = reports(host_space, result.out)
    assert result.code == 1
    assert sorted((r["failure"] or {}).get("category", "") for r in found.values()) == ["", "wrong_device"]
    refused = next(r["failure"]["message"] for r in found.values() if r["failure"])
    assert re.search(r"'[ab]'", refused), refused


def test_ports_and_leases_are_free_when_a_board_is_done(
    host_space: Space, start_board: Callable[..., ServedBoard]
) -> None:
    """While others still have their turn: with one worker the second deploys to the port that the first has left."""
    board = start_board("--mac", "7c:df:a1:00:22:01")
    text = host_space.file("deploy.toml").read_text().replace("timeout_ms = 5000", "timeout_ms = 300000")
    host_space.file("deploy.toml").write_text(text + device("a", 1, board.url) + device("b", 2))
    for _ in range(2):
        result = host_space.doit("deploy", "--group", "rack")
        assert result.code == 0, result.out + result.err
    assert not [*host_space.file(".deploy/user-state").rglob("*.lease")] or all(
        path.read_text() == "" for path in host_space.file(".deploy/user-state").rglob("*.lease")
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_every_board(
    host_space: Space, start_board: Callable[..., ServedBoard], number: signal.Signals
) -> None:
    """Those that wait for a silent firmware, and those that have not had their turn."""
    text = host_space.file("deploy.toml").read_text().replace("timeout_ms = 5000", "timeout_ms = 300000")
    boards = [start_board("--mac", f"7c:df:a1:00:22:0{n}") for n in (1, 2, 3)]
    tables = [device(f"b{n}", n, board.url) for n, board in enumerate(boards, 1)]
    host_space.file("deploy.toml").write_text("".join([text, *tables]))
    host_space.edit(MAIN, "    announce();", SILENT)
    child = host_space.start("deploy", "--group", "rack", "--workers", "2")
    assert child.stdout is not None
    waiting: set[str] = set()
    for line in child.stdout:
        waiting |= set(re.findall(r"^\.  (ttfb:b\d)$", line))
        if len(waiting) == 2:
            break
    child.send_signal(number)
    output, _ = child.communicate(timeout=TIMEOUT_S)
    assert child.returncode in (130, -signal.SIGINT) and "Traceback" not in output, output
    found = reports(host_space, output)
    assert {name: report["outcome"] for name, report in found.items()} == dict.fromkeys(
        ("b1", "b2", "b3"), "interrupted"
    )
    assert found["b1"]["failure"]["stage"] == "ttfb" and found["b3"]["failure"]["stage"] is None
    host_space.edit(MAIN, SILENT, "    announce();")
    healed = host_space.doit("deploy", "--group", "rack")
    assert healed.code == 0, healed.out + healed.err


def test_modelled_time_is_each_boards_own(host_space: Space) -> None:
    """Boards in this process skip what others would wait for: three beside each other take what one takes."""
    slow = {"timing": "instant,app_s=600"}
    add(host_space, "".join(device(f"b{n}", n, **slow) for n in range(3)))
    host_space.edit("deploy.toml", "timeout_ms = 5000", "timeout_ms = 3600000")
    result = host_space.doit("deploy", "--group", "rack")
    assert result.code == 0, result.out + result.err
    for report in reports(host_space, result.out).values():
        ttfb = next(row["duration_ms"] for row in report["stages"] if row["stage"] == "ttfb")
        assert 600_000 <= ttfb <= report["totals"]["duration_ms"] < 1_100_000, report["stages"]


def test_devices_are_listed_and_found(
    host_space: Space, start_board: Callable[..., ServedBoard], tmp_path: Path
) -> None:
    pytest.importorskip("tomlkit")
    board = start_board("--mac", "7c:df:a1:00:22:77")
    before = host_space.file("deploy.toml").read_text()
    found = host_space.doit("devices:discover", "--port", board.url)
    assert found.code == 0, found.out + found.err
    assert f"added: esp32c3-2277 (esp32c3, 7c:df:a1:00:22:77) on {board.url}" in found.out
    assert host_space.file("deploy.toml").read_text().startswith(before), "what stood there was not touched"
    host_space.edit("deploy.toml", "timeout_ms = 5000", "timeout_ms = 300000")
    assert host_space.doit("deploy", "--device", "esp32c3-2277").code == 0
    again = host_space.doit("devices:discover", "--port", board.url)
    assert again.code == 0 and "no new board was found" in again.out
    listed = json.loads(host_space.doit("devices", "--json").out)["devices"]
    assert [(one["name"], one["identity"], one["port"]) for one in listed] == [
        ("bench", "chip", "virtual:"),
        ("esp32c3-2277", "board", board.url),
    ]
    assert listed[1]["last"]["outcome"] == "full_flashed" and listed[0]["last"] is None
    table = host_space.doit("devices", "--chip", "esp32c3").out.splitlines()
    assert len(table) == 3 and table[2].split()[:3] == ["esp32c3-2277", "esp32c3", "7c:df:a1:00:22:77"]
