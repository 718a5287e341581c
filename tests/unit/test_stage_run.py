"""What a stage's run tells at its end about why actions were not up to date: made when it is asked for."""

from __future__ import annotations

from pathlib import Path

from pipeline.engine.results import RunResult
from pipeline.model import Reason, Stage
from tests.unit.engine_space import EngineSpace


def test_reasons_are_a_sequence_in_the_order_of_the_actions(tmp_path: Path) -> None:
    space = EngineSpace(tmp_path).sample()
    found: list[RunResult] = []
    engine = space.engine()
    engine.scan()
    found.append(engine.run(Stage.COMPILE, lambda *_: None))
    reasons, names = found[0].reasons, [a.name for a in engine.graph.order if a.stage is Stage.COMPILE]
    assert len(reasons) == len(names) > 1
    assert [*reasons] == [Reason("never run", name) for name in names]
    every = [*reasons]
    assert (reasons[0], reasons[-1], reasons[1:]) == (every[0], every[-1], every[1:])
    both = found[0].and_then(found[0])
    assert both.reasons == (*reasons, *reasons)
