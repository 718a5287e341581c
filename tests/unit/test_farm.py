"""Places of farms: what a port names, who may have a place, and that it is given back, against gRPC."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.schema import DeviceConfig
from pipeline.config.values import check_value
from pipeline.device.leases import board_name
from pipeline.formats.farm_url import BadFarmUrl, FarmUrl, farm_coordinator, parse_farm_url
from pipeline.formats.labgrid import UnreadableMessage, read_stream
from pipeline.model import FailureCategory
from pipeline.remote import farm_look
from pipeline.remote.farm_hold import FarmHold, FarmRecordFile
from pipeline.remote.farm_labgrid import LabgridSession, open_session
from pipeline.remote.farm_look import look
from pipeline.remote.farm_place import FarmPlace, acquire
from pipeline.remote.farm_values import FarmError, FarmRecord, FarmRefusal, FarmRequest, HeldPlace

grpc = pytest.importorskip("grpc")
from tests.unit.fake_coordinator import FakeCoordinator  # noqa: E402

ME = "desk/ann"
DEADLINE_S = 60.0


@pytest.fixture
def farm() -> Iterator[FakeCoordinator]:
    coordinator = FakeCoordinator()
    coordinator.add("esp-1", 4101, chip="esp32c3", pool="ci")
    coordinator.add("esp-2", 4102, late=True, chip="esp32c3")
    yield coordinator
    coordinator.close()


class Lab:
    """Sessions with one coordinator, and one record."""

    def __init__(self, farm: FakeCoordinator, directory: Path) -> None:
        self.farm, self.record = farm, directory / "board.farm"
        self.sessions: list[LabgridSession] = []
        self.waited: list[str] = []

    def request(self, **wanted: Any) -> FarmRequest:
        return FarmRequest(self.farm.address, wanted.pop("user", ME), str(self.record), **wanted)

    def hold(self, **wanted: Any) -> FarmHold:
        request = self.request(**wanted)
        session = open_session(request.address, request.user, timeout_s=DEADLINE_S)
        self.sessions.append(session)
        return FarmHold(session, request, FarmRecordFile(self.record), self.waited.append)


@pytest.fixture
def lab(farm: FakeCoordinator, tmp_path: Path) -> Iterator[Lab]:
    found = Lab(farm, tmp_path)
    yield found
    for session in found.sessions:
        session.close()


def test_what_a_port_names() -> None:
    for port, meant in {
        "labgrid://esp-1": FarmUrl("", "esp-1"),
        "labgrid://lab:20408/esp-1": FarmUrl("lab:20408", "esp-1"),
        "labgrid://lab/esp-1#console": FarmUrl("lab:20408", "esp-1", (), "console"),
        "labgrid://[::1]:7/a%20b": FarmUrl("[::1]:7", "a b"),
        "labgrid://?chip=esp32c3&pool=ci": FarmUrl("", "", (("chip", "esp32c3"), ("pool", "ci"))),
        "labgrid://lab:1/?chip=esp32c3": FarmUrl("lab:1", "", (("chip", "esp32c3"),)),
    }.items():
        assert parse_farm_url(port) == meant
    for port, fact in {
        "labgrid://": "neither a place nor tags",
        "labgrid://esp-1?chip=x": "a place and tags",
        "labgrid://lab:20408": "no place",
        "labgrid://lab:port/esp": "cannot be read",
        "labgrid://?chip": "cannot be read",
        "labgrid://?chip=": "a tag without a value: 'chip'",
        "labgrid://?chip=a&chip=b": "two values for one tag",
        "labgrid://ann@lab/esp-1": "names a user",
    }.items():
        bad = parse_farm_url(port)
        assert isinstance(bad, BadFarmUrl) and fact in bad.fact and bad.hint.startswith("write it like")


def test_where_the_coordinator_is() -> None:
    usual = FarmUrl(place="a")
    assert farm_coordinator(usual, {}) == "127.0.0.1:20408"
    assert farm_coordinator(usual, {"LG_COORDINATOR": "lab"}) == "lab:20408"
    assert farm_coordinator(usual, {"LG_COORDINATOR": "[::1]"}) == "[::1]:20408"
    assert farm_coordinator(FarmUrl("own:1", "a"), {"LG_COORDINATOR": "lab"}) == "own:1"


def test_one_place_is_one_lease_whoever_names_it() -> None:
    def name(port: str, device: str = "desk", root: str = "/one", **environment: str) -> str:
        return board_name(DeviceConfig(device, "esp32c3", port), Path(root), environment)

    assert name("labgrid://esp-1") == name("labgrid://127.0.0.1:20408/esp-1", "other", "/two")
    assert name("labgrid://esp-1") != name("labgrid://esp-1", LG_COORDINATOR="lab")
    tags = "labgrid://?chip=esp32c3"
    assert name(tags) != name(tags, "second"), "for each device another board"
    assert name(tags) == name(tags)


def test_a_bad_port_is_an_error_of_deploy_toml() -> None:
    for port, fact in {
        "labgrid://": "neither a place nor tags",
        "jumpstarter://board": "boards of Jumpstarter",
    }.items():
        found = check_value(("device", "port"), port)
        assert found is not None and fact in found.message and found.hint


def test_a_place_is_acquired_and_released(lab: Lab) -> None:
    hold = lab.hold(place="esp-1")
    got = hold.acquire()
    assert got == HeldPlace("esp-1", lab.farm.address, "rfc2217://127.0.0.1:4101", "127.0.0.1:4101")
    assert lab.farm.holder("esp-1") == ME
    assert FarmRecordFile(lab.record).read() == FarmRecord(
        lab.farm.address, "esp-1", ME, lab.farm.places["esp-1"]["changed"]
    )
    assert hold.give_back() == "" and hold.give_back() == ""
    assert lab.farm.holder("esp-1") == "" and not lab.record.exists()
    assert lab.farm.calls == ["AcquirePlace", "ReleasePlace"]


def test_a_port_that_is_known_late_is_waited_for(lab: Lab) -> None:
    hold = lab.hold(place="esp-2")
    got = hold.acquire()
    assert isinstance(got, HeldPlace) and got.port == "rfc2217://127.0.0.1:4102"
    hold.give_back()


def test_somebody_elses_place_names_the_holder(lab: Lab) -> None:
    lab.farm.acquire("esp-1", "rack/bob")
    got = lab.hold(place="esp-1").acquire()
    assert isinstance(got, FarmRefusal)
    assert (got.category, got.message) == (FailureCategory.PORT_BUSY, "place 'esp-1' is acquired by rack/bob")
    assert lab.farm.calls == [] and lab.farm.holder("esp-1") == "rack/bob"
    hold = lab.hold(place="esp-1", take=True)
    taken = hold.acquire()
    assert isinstance(taken, HeldPlace) and taken.taken == "rack/bob" and lab.farm.holder("esp-1") == ME
    hold.give_back()


def test_what_the_user_acquired_by_hand_is_used_when_told_and_left(lab: Lab) -> None:
    lab.farm.acquire("esp-1", ME)
    got = lab.hold(place="esp-1").acquire()
    assert isinstance(got, FarmRefusal) and got.category is FailureCategory.PORT_BUSY
    assert "this user's name" in got.message and "LG_PLACE=esp-1" in got.hint
    hold = lab.hold(place="esp-1", under=True)
    used = hold.acquire()
    assert isinstance(used, HeldPlace) and used.kept
    hold.give_back()
    assert lab.farm.holder("esp-1") == ME and lab.farm.calls == []


def test_a_place_that_is_not_there(lab: Lab) -> None:
    got = lab.hold(place="esp1").acquire()
    assert isinstance(got, FarmRefusal) and got.category is FailureCategory.PORT_MISSING
    assert "has no place 'esp1'; did you mean 'esp-1'?" in got.message
    del lab.farm.resources["esp-1"]
    silent = lab.hold(place="esp-1").acquire()
    assert isinstance(silent, FarmRefusal) and silent.category is FailureCategory.PORT_MISSING
    assert "no serial port now (it matches rack/esp-1/*)" in silent.message
    assert lab.farm.calls == []


def test_an_exporter_that_cannot_start_a_port_is_named(lab: Lab) -> None:
    """labgrid marks such a resource, for everybody, until its exporter is restarted."""
    lab.farm.breaks.add("esp-1")
    hold = lab.hold(place="esp-1")
    got = hold.acquire()
    assert isinstance(got, FarmRefusal) and got.category is FailureCategory.PORT_MISSING
    assert got.message == "the exporter 'rack' could not make the serial port of place 'esp-1' ready"
    assert not lab.record.exists() and lab.farm.calls == ["AcquirePlace"]


def test_what_a_killed_run_left_is_released_first(lab: Lab) -> None:
    """No process was there to release it: the machine lost power."""
    assert isinstance(lab.hold(place="esp-1").acquire(), HeldPlace)
    again = lab.hold(place="esp-1")
    healed = again.acquire()
    assert isinstance(healed, HeldPlace) and healed.healed
    assert lab.farm.calls == ["AcquirePlace", "ReleasePlace", "AcquirePlace"]
    again.give_back()
    assert lab.farm.holder("esp-1") == ""


def test_what_was_acquired_by_hand_since_then_is_not_released(lab: Lab) -> None:
    assert isinstance(lab.hold(place="esp-1").acquire(), HeldPlace)
    lab.farm.release("esp-1")
    lab.farm.acquire("esp-1", ME)
    got = lab.hold(place="esp-1").acquire()
    assert isinstance(got, FarmRefusal) and got.category is FailureCategory.PORT_BUSY
    assert lab.farm.holder("esp-1") == ME and "ReleasePlace" not in lab.farm.calls


def test_what_is_acquired_while_its_run_is_interrupted_is_released(lab: Lab) -> None:
    """The acquisition is heard of, and what follows is not waited for any more."""
    request = lab.request(place="esp-1")
    session = open_session(request.address, request.user, lambda: "AcquirePlace" in lab.farm.calls)
    lab.sessions.append(session)
    hold = FarmHold(session, request, FarmRecordFile(lab.record), lab.waited.append)
    with pytest.raises(FarmError, match="nobody waits"):
        hold.acquire()
    deadline_s = time.monotonic() + DEADLINE_S
    with session._changed:  # its own wait ends at once now
        while session._turns.get("esp-1") != 1:
            assert session._changed.wait(deadline_s - time.monotonic())
    assert hold.give_back() == ""
    assert lab.farm.holder("esp-1") == "" and not lab.record.exists()


def test_a_place_that_was_taken_from_us_is_not_released(lab: Lab) -> None:
    """Not even when whoever took it has our name: another run of this user."""
    hold = lab.hold(place="esp-1")
    assert isinstance(hold.acquire(), HeldPlace) and hold.lost_to() is None
    lab.farm.touch("esp-1")
    lab.sessions[-1].settle()
    assert hold.lost_to() is None, "a tag was changed"
    taker = lab.hold(place="esp-1", take=True)
    assert isinstance(taker.acquire(), HeldPlace)
    lab.sessions[0].settle()
    assert hold.lost_to() == ME
    hold.give_back()
    assert lab.farm.holder("esp-1") == ME and lab.record.exists(), "the taker's"
    taker.give_back()
    assert lab.farm.holder("esp-1") == "" and not lab.record.exists()


def test_tags_reserve_any_place_that_fits(lab: Lab) -> None:
    first = lab.hold(tags=(("chip", "esp32c3"),))
    got = first.acquire()
    assert isinstance(got, HeldPlace) and got.place == "esp-1" and got.reservation in lab.farm.reservations
    lab.record = lab.record.with_name("second.farm")
    second = lab.hold(tags=(("chip", "esp32c3"),), user="desk/bob")
    other = second.acquire()
    assert isinstance(other, HeldPlace) and other.place == "esp-2"
    full = lab.hold(tags=(("pool", "ci"),), user="desk/eve", wait_s=0.5).acquire()
    assert isinstance(full, FarmRefusal) and full.category is FailureCategory.PORT_BUSY
    assert full.message.endswith("within 0.5 s: 'esp-1' is acquired by desk/ann")
    assert lab.waited == ["a place with pool=ci: 'esp-1' is acquired by desk/ann"]
    none = lab.hold(tags=(("chip", "esp32"),)).acquire()
    assert isinstance(none, FarmRefusal) and "tags there: chip=esp32c3, pool=ci" in none.message
    first.give_back()
    second.give_back()
    assert lab.farm.reservations == {} and {lab.farm.holder(name) for name in lab.farm.places} == {""}


def test_a_coordinator_that_is_not_there_costs_a_deadline(tmp_path: Path) -> None:
    with pytest.raises(FarmError, match=r"the coordinator 127\.0\.0\.1:9 did not answer within 0\.2 s"):
        open_session("127.0.0.1:9", ME, timeout_s=0.2)
    (shown,) = look("127.0.0.1:9", ME, [FarmUrl(place="a")])
    assert "did not answer within 2 s" in shown.text


def test_a_coordinator_that_goes_away(lab: Lab) -> None:
    hold = lab.hold(place="esp-1")
    assert isinstance(hold.acquire(), HeldPlace)
    lab.farm.close()
    assert lab.sessions[0].wait(lambda: False, DEADLINE_S) is False and lab.sessions[0].ended
    assert hold.give_back(), "it says why"
    assert lab.record.exists(), "the next run cleans up"


def test_what_is_listed_of_a_place(farm: FakeCoordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(farm_look, "LOOK_S", DEADLINE_S)  # a busy machine may need more than its 2 s
    farm.acquire("esp-1", "rack/bob")
    shown = look(farm.address, ME, [FarmUrl(place="esp-1"), FarmUrl(place="x"), FarmUrl(tags=(("chip", "esp32c3"),))])
    assert [one.text for one in shown] == [
        f"place esp-1 of {farm.address}, board at 127.0.0.1, acquired by rack/bob",
        f"{farm.address} has no place 'x'",
        f"2 places of {farm.address} have its tags, 1 of them free",
    ]


def test_bytes_that_are_no_message() -> None:
    assert read_stream(b"") == (0, [])
    for data in (b"\xff", b"\x12\x05\x1a", b"\x12\x03\x1a\x01\x0a"):
        with pytest.raises(UnreadableMessage):
            read_stream(data)


# --- the process that holds a place -----------------------------------------------------------------


def _until_free(farm: FakeCoordinator) -> None:
    session = open_session(farm.address, "test/test", timeout_s=DEADLINE_S)
    try:
        assert session.wait(lambda: not any(each.acquired for each in session.places()), DEADLINE_S)
    finally:
        session.close()


def test_the_keeper_releases_when_asked(lab: Lab) -> None:
    got = acquire(lab.request(place="esp-1"), lab.waited.append)
    assert isinstance(got, FarmPlace) and got.held.place == "esp-1" and got.lost() == ""
    assert lab.farm.holder("esp-1") == ME
    assert got.release() == "" and got.release() == ""
    assert lab.farm.holder("esp-1") == "" and not lab.record.exists()


def test_the_keeper_says_that_the_place_was_taken(lab: Lab) -> None:
    got = acquire(lab.request(place="esp-1"), lab.waited.append)
    assert isinstance(got, FarmPlace)
    lab.farm.release("esp-1")
    lab.farm.acquire("esp-1", "rack/bob")
    line = got._keeper.line(DEADLINE_S)
    assert line is not None and b"released by somebody else" in line
    assert got.release() == "" and lab.farm.holder("esp-1") == "rack/bob"


HOLDER = """
import os, sys
from pipeline.remote.farm_place import acquire
from pipeline.remote.farm_values import FarmRequest
got = acquire(FarmRequest(sys.argv[1], "desk/ann", sys.argv[2], "esp-1"), print)
print(got.held.place, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_the_place_is_released_however_its_user_ends(lab: Lab, number: int) -> None:
    command = [sys.executable, "-c", HOLDER, lab.farm.address, str(lab.record)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    ) as user:
        assert user.stdout is not None and user.stdout.readline() == b"esp-1\n"
        assert lab.farm.holder("esp-1") == ME
        os.killpg(user.pid, number)
        user.wait(DEADLINE_S)
    _until_free(lab.farm)
    assert lab.farm.calls == ["AcquirePlace", "ReleasePlace"]
