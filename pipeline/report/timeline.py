"""A run's events laid out in time: what happened when, on which lane.

Pure. Does not know how a timeline is drawn or exported. Invariant: any prefix of a run's events gives a timeline; what
was not measured is not on it.

Time 0 is the start of the process where that is known, else that of the run. The lane `boot` is on the clock of the
link, which for a board in this process is simulated: it is anchored where the release of reset was recorded, and its
length is the board's time, not ours.
"""

from __future__ import annotations

from collections.abc import Sequence

from cache.named_tuple import NamedTuple
from pipeline.events import ActionDone, RunStarted, StageStarted, payload
from pipeline.model import Event, Failure, Mark, MarkName, Stage, StageOutcome, StageResult
from pipeline.report.document import SEGMENTS

STAGES = "stages"
BOOT = "boot (device time)"


class Slice(NamedTuple):
    """Something that took time. `kind` is `phase` (before the first stage), `stage`, `action` or `segment`."""

    lane: str
    kind: str
    name: str
    start_s: float
    duration_s: float
    outcome: str = ""
    stage: str = ""


class Instant(NamedTuple):
    """Something that happened: a mark, or a failure."""

    lane: str
    name: str
    at_s: float
    note: str = ""


class Timeline(NamedTuple):
    slices: tuple[Slice, ...]
    instants: tuple[Instant, ...]


def worker_lane(number: int) -> str:
    return f"worker {number}"


def timeline(events: Sequence[Event]) -> Timeline:
    """Everything that the log of one transaction says about time."""
    said = [(event, payload(event)) for event in events]
    started = next((item for _, item in said if isinstance(item, RunStarted)), None)
    startup_s = (started.startup_ms or 0) / 1000 if started else 0.0
    dispatch_s = (started.dispatch_ms or 0) / 1000 if started else 0.0
    begin_s = startup_s + dispatch_s
    slices = [
        Slice(STAGES, "phase", name, at_s, length_s)
        for name, at_s, length_s in (("startup", 0.0, startup_s), ("dispatch", startup_s, dispatch_s))
        if length_s > 0
    ]
    instants = []
    began_s: dict[Stage, float] = {}
    end_s = max((event.since_s for event in events), default=0.0)
    for event, item in said:
        match item:
            case StageStarted():
                began_s[item.stage] = event.since_s
            case StageResult():
                slices.append(_stage(item, began_s.pop(item.stage, None), event.since_s, begin_s))
            case ActionDone():
                lane = worker_lane(item.worker)
                at_s = begin_s + item.began_s
                slices.append(Slice(lane, "action", item.name, at_s, item.duration_s, item.how, item.stage.value))
            case Failure():
                instants.append(Instant(STAGES, item.category.value, begin_s + event.since_s, item.line()))
    for stage, at_s in began_s.items():  # its end was never seen
        outcome = StageOutcome.INTERRUPTED.value
        slices.append(Slice(STAGES, "stage", stage.value, begin_s + at_s, end_s - at_s, outcome, stage.value))
    boot = _boot([(event.since_s, item) for event, item in said if isinstance(item, Mark)], begin_s)
    return Timeline((*slices, *boot.slices), (*instants, *boot.instants))


def _stage(result: StageResult, began_s: float | None, ended_s: float, begin_s: float) -> Slice:
    # The reporter's time of a stage begins when doit asks whether it is up to date, before it is known to start.
    length_s = result.duration_s if result.duration_s > 0 or began_s is None else max(0.0, ended_s - began_s)
    at_s = max(0.0, ended_s - length_s)
    return Slice(
        STAGES, "stage", result.stage.value, begin_s + at_s, length_s, result.outcome.value, result.stage.value
    )


def _boot(marks: Sequence[tuple[float, Mark]], begin_s: float) -> Timeline:
    """Marks and the segments of the TTFB, from the release of reset on."""
    anchor = next(((at_s, mark.at_s) for at_s, mark in marks if mark.name is MarkName.RESET_RELEASED), None)
    if anchor is None:
        return Timeline((), ())
    recorded_s, origin_s = anchor
    # A port that was open before the reset costs no time after it.
    at = {mark.name: max(0.0, mark.at_s - origin_s) for _, mark in marks}
    zero_s = begin_s + recorded_s
    slices = tuple(
        Slice(BOOT, "segment", name.removesuffix("_ms"), zero_s + at[first], at[last] - at[first])
        for name, first, last in SEGMENTS
        if first in at and last in at and at[last] >= at[first]
    )
    notes = {mark.name: mark.note for _, mark in marks}
    return Timeline(slices, tuple(Instant(BOOT, name.value, zero_s + at_s, notes[name]) for name, at_s in at.items()))
