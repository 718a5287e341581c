"""When idle workers make what other machines are asked for: by looks at a clock that the test moves."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from cache.remote import RemoteSpeed
from pipeline.engine.inquiry import LEAST_PATIENCE_S, LOOK_S, NO_RACE_S, SILENCE_S, Costs, Pace, Seen

ONE_S = 0.2
NOTHING = Seen(1, 0, 1e6, 2)


def slow_at(pace: Pace, looks: Iterable[Seen], made_s: float, look_s: float = LOOK_S) -> int:
    """The number of the look at which it is found too slow, -1 for never."""
    for number, seen in enumerate(looks):
        if pace.is_slow(100 + number * look_s, seen, made_s, ONE_S):
            return number
    return -1


def rounds(asked: int, a_look: int, latency_looks: int = 0) -> Iterable[Seen]:
    """Three rounds of `asked` questions, `a_look` answered between two looks; each answer weighs 1000."""
    weight = 0
    for number in (1, 2, 3):
        for _ in range(latency_looks):
            yield Seen(number, weight, (4 - number) * asked * 1000, 3 - number)
        for answered in range(0, asked + 1, a_look):
            yield Seen(number, weight + answered * 1000, ((4 - number) * asked - answered) * 1000, 3 - number)
        weight += asked * 1000
        yield Seen(0, weight, 0, 3 - number)


@pytest.mark.parametrize(
    ("asked", "a_look", "made_s"),
    [
        (40, 20, 1.0),
        (10_000, 50, 1000.0),  # 2 s a round, and so are worth it
        (3, 1, 0.01),  # soon enough in any case
    ],
)
def test_while_answers_come_quickly_nothing_is_made(asked: int, a_look: int, made_s: float) -> None:
    assert slow_at(Pace(RemoteSpeed()), rounds(asked, a_look), made_s) == -1


def test_a_long_way_with_many_answers_is_quick() -> None:
    assert slow_at(Pace(RemoteSpeed(0.05)), rounds(10_000, 50, latency_looks=6), 1000.0) == -1


def test_silence_is_waited_for_a_moment() -> None:
    assert slow_at(Pace(RemoteSpeed()), [NOTHING] * 100, 1000.0) == round(LEAST_PATIENCE_S / LOOK_S)


def test_a_busy_machine_waits_longer() -> None:
    assert slow_at(Pace(RemoteSpeed(), busy=5), [NOTHING] * 100, 1000.0) == round(5 * LEAST_PATIENCE_S / LOOK_S)


def test_one_that_looks_late_does_not_take_its_own_absence_for_silence() -> None:
    assert slow_at(Pace(RemoteSpeed()), [NOTHING] * 100, 1000.0, look_s=5.0) == round(LEAST_PATIENCE_S / LOOK_S / 2)


def test_a_known_latency_is_waited_for_but_not_for_ever() -> None:
    assert slow_at(Pace(RemoteSpeed(0.1)), [NOTHING] * 100, 1000.0) == round(0.15 / LOOK_S)
    assert slow_at(Pace(RemoteSpeed(9.0)), [NOTHING] * 100, 1000.0) == round(0.25 / LOOK_S)


def test_before_a_round_begins_nobody_is_silent() -> None:
    before = NOTHING._replace(number=0)
    assert slow_at(Pace(RemoteSpeed()), [before] * 1000, 1000.0) == -1
    assert slow_at(Pace(RemoteSpeed(silent_s=1.0)), [before], 1000.0) == 0


def test_who_was_silent_is_not_waited_for_again() -> None:
    assert slow_at(Pace(RemoteSpeed(silent_s=LEAST_PATIENCE_S)), [NOTHING], 1000.0) == 0


def test_a_known_rate_that_is_too_low_is_not_waited_for() -> None:
    assert slow_at(Pace(RemoteSpeed(0.001, 1e5)), [NOTHING], 1.0) == 0  # 10 s for what is made in one
    assert slow_at(Pace(RemoteSpeed(0.001, 1e7)), [NOTHING], 1.0) == -1
    assert slow_at(Pace(RemoteSpeed(0.001, 1e5), busy=100), [NOTHING], 1.0) == -1


def test_answers_that_stop_are_not_waited_for() -> None:
    """20 of 10,000, at once, and then nothing: by their rate alone it would be quick for a while."""
    stopped = [Seen(1, 0, 3e7, 2), *[Seen(1, 20_000, 3e7, 2)] * 100]
    assert slow_at(Pace(RemoteSpeed()), stopped, 1e9) == 1 + round(SILENCE_S / LOOK_S)


def test_drops_are_too_slow() -> None:
    """One answer in each 100 ms of 40: 12 s for what takes 2 s here. Seen soon after the first answer."""
    drops = [Seen(1, n // 10 * 1000, (120 - n // 10) * 1000, 2) for n in range(400)]
    pace = Pace(RemoteSpeed(0.1))
    assert slow_at(pace, drops, 2.0) == 11


def test_once_something_is_made_the_rest_is_waited_for_only_if_it_comes_before_one_more_is_made() -> None:
    def at(rest_s: float) -> list[Seen]:
        # 2000 in the one look that counts
        return [Seen(3, 1000 * n, 2000 * rest_s / LOOK_S, 0) for n in range(3)]

    between_s = (NO_RACE_S + ONE_S) / 2 + ONE_S
    waits, makes = Pace(RemoteSpeed()), Pace(RemoteSpeed())
    makes.has_taken()
    assert slow_at(waits, at(between_s), 10.0) == -1
    assert slow_at(makes, at(between_s), 10.0) >= 1
    makes = Pace(RemoteSpeed())
    makes.has_taken()
    assert slow_at(makes, at(ONE_S / 2), 10.0) == -1


def test_what_comes_before_it_would_be_made_is_never_made() -> None:
    """A link of 30 s, of which 8 s of fetching are left: it could not be given up again."""
    link = [Seen(3, 1000 * n, 2000 * 8 / LOOK_S, 0) for n in range(3)]
    pace = Pace(RemoteSpeed())
    assert not any(pace.is_slow(100 + n * LOOK_S, seen, 30.0, 30.0) for n, seen in enumerate(link))
    pace = Pace(RemoteSpeed())
    assert [pace.is_slow(100 + n * LOOK_S, seen, 30.0, 1.0) for n, seen in enumerate(link)] == [False, False, True]


def test_what_others_said_is_corrected_by_what_was_measured_here() -> None:
    costs = Costs()
    assert costs.of("a") is None and costs.mean_s() is None
    costs.took("other", 0.5)
    assert costs.of("a") == costs.mean_s() == 0.5
    costs.said("a", 3000)
    costs.said("b", 1000)
    costs.said("c", 0)  # nobody said
    assert (costs.of("a"), costs.of("b"), costs.of("c"), costs.mean_s()) == (3.0, 1.0, 2.0, 2.0)
    costs.took("a", 1.5)
    assert (costs.of("a"), costs.of("b"), costs.mean_s()) == (1.5, 0.5, 1.0)
