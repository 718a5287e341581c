"""The benchmark of lent ports measures what it says, and leaves nothing."""

from __future__ import annotations

import os

from pipeline.measure.bench.live_ports import measure_ports


def test_each_run_is_measured() -> None:
    before = os.environ.get("XDG_RUNTIME_DIR")
    figures = measure_ports(3)
    assert (len(figures.lent), len(figures.returned), len(figures.byte)) == (3, 3, 30)
    assert all(value > 0 for values in figures for value in values)
    assert os.environ.get("XDG_RUNTIME_DIR") == before
