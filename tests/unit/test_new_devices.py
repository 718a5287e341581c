"""New boards as tables of deploy.toml, and the list of all boards."""

from __future__ import annotations

import json
import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.reader import parse_config
from pipeline.config.schema import DeployConfig
from pipeline.device.probe import FreePort, _mac_of
from pipeline.shelf.listing import configured_rows, discovered_rows, listing_json, listing_text
from pipeline.shelf.new_devices import NewDevice, named, with_devices
from tests.unit.test_variants import TEXT

ONE = TEXT[: TEXT.index("[device.bench]")] + '[device.bench]  # on my desk\nport = "virtual:" # for now\n'


def config_of(text: str) -> DeployConfig:
    config = parse_config(text)
    assert isinstance(config, DeployConfig), config
    return config


def test_the_text_is_these_bytes() -> None:
    boards = [("esp32c3", "7c:df:a1:00:99:01", "/dev/ttyACM0"), ("esp32h2", "7c:df:a1:00:99:02", 'C:\\odd "port"')]
    new = named(config_of(ONE), boards, {})
    text = with_devices(ONE, config_of(ONE), new)
    assert text == ONE.replace('port = "virtual:" # for now\n', 'port = "virtual:" # for now\ndefault = true\n') + (
        "\n[device.esp32c3-9901]\n"
        'chip = "esp32c3"\n'
        'mac = "7c:df:a1:00:99:01"\n'
        'port = "/dev/ttyACM0"\n'
        "\n[device.esp32h2-9902]\n"
        'chip = "esp32h2"\n'
        'mac = "7c:df:a1:00:99:02"\n'
        'port = "C:\\\\odd \\"port\\""\n'
        "enabled = false  # no profile builds for esp32h2\n"
    )
    config = config_of(text)
    assert config.default_device.name == "bench"
    assert [(d.name, d.port, d.enabled) for d in config.devices[1:]] == [
        ("esp32c3-9901", "/dev/ttyACM0", True),
        ("esp32h2-9902", 'C:\\odd "port"', False),
    ]
    assert named(config, boards, {}) == [], "the second time there is nothing new"


def test_names_are_free_and_known_boards_stay_out() -> None:
    text = ONE + 'default = true\n[device.esp32c3-9901]\nmac = "7C:DF:A1:00:77:01"\n'
    boards = [
        ("esp32c3", "7c:df:a1:00:99:01", "a"),
        ("esp32c3", "7c:df:a1:01:99:01", "b"),
        ("esp32c3", "7c:df:a1:00:99:01", "the same again"),
        ("esp32c3", "7c:df:a1:00:77:01", "named there"),
        ("esp32c3", "7c:df:a1:00:77:02", "seen there"),
    ]
    new = named(config_of(text), boards, {"7c:df:a1:00:77:02": "bench"})
    assert [(one.name, one.port) for one in new] == [("esp32c3-9901-2", "a"), ("esp32c3-9901-3", "b")]


comments = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=20)


@given(st.lists(comments, max_size=4), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_no_comment_and_no_value_moves(remarks: list[str], eol: str, ends: bool) -> None:
    """What stood there stands there still, to the byte; only lines were added."""
    text = "".join(f"# {remark}\n" for remark in remarks) + ONE + "default = true\n"
    text = (text if ends else text.rstrip("\n")).replace("\n", eol)
    after = with_devices(text, config_of(text), [NewDevice("new", "esp32c3", "7c:df:a1:00:99:01", "/dev/x")])
    assert after.startswith(text)
    before, now = tomllib.loads(text), tomllib.loads(after)
    assert now["device"].pop("new") == {"chip": "esp32c3", "mac": "7c:df:a1:00:99:01", "port": "/dev/x"}
    assert now == before
    assert ("\r" in after) == ("\r" in text) and after.endswith(eol)


# --- the list -------------------------------------------------------------------------------------


def rows() -> Any:
    config = config_of(
        TEXT.replace('groups = ["rack"]\n[device.small]', 'groups = ["rack"]\ntags = ["hot"]\n[device.small]')
    )
    configured = configured_rows(
        config.devices,
        lambda device: "7c:df:a1:00:00:09" if device.name == "small" else "",
        {},
        lambda device: "make test (pid 7)" if device.name == "three" else "",
    )
    free = [
        FreePort("/dev/x"),
        FreePort("/dev/y"),
        FreePort("/dev/z", "7c:df:a1:00:00:09"),
        FreePort("/dev/q", "aa:bb:cc:00:00:01"),
    ]
    return configured, discovered_rows(free, configured)


def test_a_row_for_each_device_and_each_port_that_is_none() -> None:
    configured, discovered = rows()
    assert [row.name for row in configured] == ["bench", "six", "three", "small"]
    assert [(row.port, row.mac, row.identity) for row in discovered] == [
        ("/dev/y", "", "path"),
        ("/dev/q", "aa:bb:cc:00:00:01", "board"),
    ]
    text = listing_text(configured, discovered)
    assert (
        "three   esp32s3  -                  virtual:  chip      s3          rack,#hot  make test (pid 7)  never"
        in text
    )
    assert "new: /dev/q (aa:bb:cc:00:00:01): in no table of deploy.toml" in text
    value = json.loads(json.dumps(listing_json(configured, discovered)))
    assert value["schema"] == 1
    assert value["devices"][2]["lease"] == "make test (pid 7)" and value["devices"][0]["lease"] is None
    assert value["discovered"][0] == {"port": "/dev/y", "mac": None, "identity": "path"}


def test_the_serial_number_of_a_chips_own_port_is_its_mac() -> None:
    assert _mac_of("7C:DF:A1:00:11:22") == _mac_of("7cdfa1001122") == "7c:df:a1:00:11:22"
    assert _mac_of("0001") == _mac_of("") == _mac_of("7c:df:a1:00:11:zz") == ""
