"""Time of boards in this process that have their turns at once: what one modelled is not the others'."""

from __future__ import annotations

from pipeline.effects.clock import BoardClocks


def test_what_a_board_skipped_is_its_own_time() -> None:
    clocks = BoardClocks()
    assert clocks.of("a") is clocks.run and not clocks.beside_each_other
    for device, seconds in (("a", 100.0), ("b", 250.0)):
        clocks.begin(device)
        clocks.of(device).follow(lambda seconds=seconds: seconds)  # type: ignore[misc]
    now_s = clocks.run.now_s()
    assert 100 <= clocks.of("a").now_s() - now_s < 150
    assert 250 <= clocks.of("b").now_s() - now_s < 300
    assert clocks.run.now_s() - now_s < 50


def test_the_run_took_as_long_as_the_longest() -> None:
    clocks = BoardClocks()
    began_s = clocks.run.now_s()
    for device, seconds in (("a", 100.0), ("b", 250.0)):
        clocks.begin(device)
        clocks.of(device).follow(lambda seconds=seconds: seconds)  # type: ignore[misc]
    clocks.end()
    assert 250 <= clocks.run.now_s() - began_s < 300
    assert clocks.of("b") is clocks.run, "nothing is counted twice"
    clocks.end()
    assert 250 <= clocks.run.now_s() - began_s < 300
