"""Ports by name: faults in the name of a virtual one, and finding a board again whose port left."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.device.ports import planted_faults, reopen
from pipeline.model import Failure, FailureCategory
from pipeline.run.context import load_context
from pipeline.run.options import Options
from tests.unit.test_config import MINIMAL
from virtualboard.faults import parse_fault
from virtualboard.port import open_virtual


def test_each_fault_of_a_port_is_planted() -> None:
    assert planted_faults("virtual:") == []
    assert planted_faults("virtual:?fault=panic:boot=0.2,pc=0x42001234&fault=other-mac:mac=7c:df:a1:ff:ff:ff") == [
        parse_fault("panic:boot=0.2,pc=0x42001234"),
        parse_fault("other-mac:mac=7c:df:a1:ff:ff:ff"),
    ]


@pytest.mark.parametrize(
    ("port", "fact", "advice"),
    [
        (
            "virtual:?fault=panik",
            "the fault cannot be planted: 'panik' is not a fault",
            "correct it: Did you mean panic?",
        ),
        ("virtual:?fault=worn", "the fault cannot be planted: worn needs sector=", "correct it: Write it like worn"),
        ("virtual:?falt=panic", "a virtual board's port has no 'falt'", "write it like port = "),
        ("virtual:?", "'?' is nothing that a virtual board's port can have", "write it like port = "),
        ("virtual:fault=panic", "'fault=panic' is nothing that", "write it like port = "),
    ],
)
def test_what_cannot_be_planted_is_said_at_its_place(port: str, fact: str, advice: str, tmp_path: Path) -> None:
    text = MINIMAL.replace("[device.bench]", f'[device.bench]\nport = "{port}"')
    line = text.partition(port)[0].count("\n") + 1
    (tmp_path / "deploy.toml").write_text(text)
    failure = load_context(Options(), tmp_path)
    assert isinstance(failure, Failure)
    assert (failure.category, failure.stage) == (FailureCategory.CONFIG_ERROR, None)
    assert failure.line().startswith(f"deploy.toml:{line}:8: error: {fact}")
    assert failure.hint.startswith(advice)


@given(st.text())
def test_any_port_has_faults_or_a_reason(text: str) -> None:
    found = planted_faults(f"virtual:{text}")
    assert isinstance(found, list) or (len(found) == 2 and all(found))


def test_a_board_is_opened_again_under_its_new_name(tmp_path: Path) -> None:
    port = open_virtual("esp32c3", tmp_path / "flash.bin", execute=False)
    port.timeout = 0.1
    before = port.port
    port.board.inject(parse_fault("vanish:for=0.5,name=new"))
    with pytest.raises(OSError, match="unplugged"):
        port.read(1)
    with pytest.raises(OSError, match="unplugged"):
        reopen(port)
    port.clock.wait(0.5)
    reopen(port)
    assert port.is_open and port.port != before
    port.close()
