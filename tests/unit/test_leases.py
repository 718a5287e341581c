"""Leases of boards: one holder, named to the others; taken over with a reason; gone with their process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.client.protocol import Holder
from pipeline.config.schema import DeviceConfig
from pipeline.device.leases import LEASE_VARIABLE, BoardLease, Shelf, board_name
from pipeline.model import Failure, FailureCategory

WHERE = "device bench on /dev/ttyUSB0"


def holder(command: str = "doit deploy", reason: str = "") -> Holder:
    return Holder(os.getpid(), command, reason)


def held(shelf: Shelf, who: Holder | None = None, *, take: bool = False) -> BoardLease:
    lease = shelf.hold("b", who or holder(), WHERE, take=take)
    assert isinstance(lease, BoardLease)
    return lease


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path, {})


def test_one_holder_who_is_named_to_the_others(shelf: Shelf) -> None:
    lease = held(shelf, holder("doit lease", "soak test"))
    refused = shelf.hold("b", holder("doit deploy"), WHERE)
    assert isinstance(refused, Failure)
    assert refused.category is FailureCategory.PORT_BUSY
    assert refused.line() == f"{WHERE}: error: the board is leased to doit lease (pid {os.getpid()}): soak test"
    assert shelf.holder("b") == holder("doit lease", "soak test")
    lease.release()
    assert shelf.holder("b") is None
    held(shelf).release()


def test_another_board_is_another_lease(shelf: Shelf) -> None:
    held(shelf)
    assert isinstance(shelf.hold("c", holder(), WHERE), BoardLease)


def test_taking_over_is_recorded_and_the_old_holder_is_told(shelf: Shelf) -> None:
    old = held(shelf, holder("doit lease", "soak test"))
    assert old.lost(WHERE) is None
    new = held(shelf, holder("doit deploy", "urgent fix"), take=True)
    assert new.taken is not None
    assert (new.taken.before.reason, new.taken.reason) == ("soak test", "urgent fix")
    told = old.lost(WHERE)
    assert isinstance(told, Failure)
    assert told.message == f"the lease was taken over by doit deploy (pid {os.getpid()}): urgent fix"
    assert isinstance(shelf.hold("b", holder(), WHERE), Failure)
    old.release()
    assert shelf.holder("b") == holder("doit deploy", "urgent fix")
    new.release()
    assert shelf.holder("b") is None


def test_taking_what_nobody_has_takes_nothing_over(shelf: Shelf) -> None:
    assert held(shelf, take=True).taken is None


def test_a_killed_holder_leaves_no_lease(shelf: Shelf, tmp_path: Path) -> None:
    code = f"""
import os, sys
from pathlib import Path
from pipeline.client.protocol import Holder
from pipeline.device.leases import Shelf
lease = Shelf(Path({str(tmp_path)!r}), {{}}).hold("b", Holder(os.getpid(), "doit deploy"), "x")
print(lease.token, flush=True)
sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        token = child.stdout.readline().decode().strip()
        found = shelf.holder("b")
        assert found is not None and found.pid == child.pid
        under = Shelf(tmp_path, {LEASE_VARIABLE: token})
        inherited = under.hold("b", holder(), WHERE)
        assert isinstance(inherited, BoardLease)
        inherited.release()
        assert isinstance(shelf.hold("b", holder(), WHERE), Failure)
        child.kill()
        child.wait()
    assert shelf.holder("b") is None
    orphan = under.hold("b", holder(), WHERE)
    assert isinstance(orphan, Failure)
    assert orphan.message == "the lease that HOTPLATE_LEASE names has ended"
    held(shelf).release()


def test_a_child_of_a_holder_that_lost_its_lease_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    old = held(shelf)
    under = Shelf(tmp_path, {LEASE_VARIABLE: old.token})
    held(shelf, holder("doit deploy", "mine"), take=True)
    refused = under.hold("b", holder(), WHERE)
    assert isinstance(refused, Failure)
    assert "taken over by doit deploy" in refused.message


@pytest.mark.parametrize("text", ["", "{", "[]", '{"generation": -1}', '{"generation": "x"}', '{"generation": true}'])
def test_a_damaged_file_is_a_new_beginning(shelf: Shelf, tmp_path: Path, text: str) -> None:
    (tmp_path / "b.json").write_text(text)
    (tmp_path / "b.0.lease").write_text("\x00{not json")
    assert shelf.holder("b") is None
    held(shelf).release()


def test_a_name_of_a_reused_pid_is_no_holder(shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "b.0.lease").write_text(json.dumps(Holder(os.getpid(), "was killed")._asdict()))
    assert shelf.holder("b") is None


def test_the_same_port_is_the_same_board(tmp_path: Path) -> None:
    (tmp_path / "by-id").symlink_to("/dev/null")
    one = DeviceConfig("bench", "esp32c3", str(tmp_path / "by-id"))
    other = DeviceConfig("desk", "esp32c3", "/dev/null")
    assert board_name(one, tmp_path) == board_name(other, Path("/elsewhere"))
    url = DeviceConfig("net", "esp32c3", "rfc2217://127.0.0.1:4000?timeout=3")
    assert board_name(url, tmp_path) == board_name(url._replace(port="rfc2217://127.0.0.1:4000"), tmp_path)
    virtual = DeviceConfig("v", "esp32c3")
    assert board_name(virtual, tmp_path) != board_name(virtual, Path("/elsewhere"))
