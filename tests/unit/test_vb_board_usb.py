"""The chip's own USB port: its reset sequence, and a port that leaves and comes back."""

from __future__ import annotations

import pytest

from virtualboard.usb import JtagLines, Plug

IDLE, DTR, BOTH, RTS = (False, False), (True, False), (True, True), (False, True)


@pytest.mark.parametrize(
    ("name", "sequence", "resets", "download"),
    [
        ("esptool usb-reset", [IDLE, DTR, DTR, BOTH, RTS, RTS, IDLE], 1, False),
        ("hard reset", [IDLE, RTS, IDLE], 1, False),
        ("opening with both lines", [DTR, BOTH], 0, True),
        ("both lines do nothing", [BOTH, IDLE, BOTH], 0, False),
    ],
)
def test_sequences(name: str, sequence: list[tuple[bool, bool]], resets: int, download: bool) -> None:
    lines = JtagLines()
    assert [lines.change(*state) for state in sequence].count(True) == resets, name
    assert lines.download is download


def test_the_reset_of_esptool_ends_in_download_and_a_hard_reset_does_not() -> None:
    lines, at_reset = JtagLines(), []
    for state in (IDLE, DTR, BOTH, RTS, IDLE, RTS, IDLE):
        if lines.change(*state):
            at_reset.append(lines.download)
    assert at_reset == [True, False]


def test_a_plug_comes_back_when_it_said_and_counts_its_enumerations() -> None:
    plug = Plug()
    assert plug.present(5.0) and plug.back_at is None
    plug.vanish(5.0, 0.5)
    assert not plug.present(5.4) and plug.back_at == 5.5
    assert plug.present(5.5) and plug.back_at is None
    assert (plug.generation, plug.names) == (1, 0)
    plug.vanish(6.0, 2.0, renamed=True)
    plug.vanish(6.5, 0.1)
    assert not plug.present(7.9) and plug.present(8.0)
    assert (plug.generation, plug.names) == (3, 1)
    plug.vanish(9.0, 0.0)
    assert plug.present(9.0) and plug.generation == 4
