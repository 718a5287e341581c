"""The go/no-go gate: who belongs to the population, each verdict with its reasons, the arms, the conclusion."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.reader import parse_config
from pipeline.config.schema import GateConfig
from pipeline.measure.compare.arms import Arm, apply, parse_arm
from pipeline.measure.compare.decision import (
    Conclusion,
    FlashCheck,
    GateVerdict,
    Pair,
    Population,
    Timed,
    conclude,
    effect,
    population,
    shares,
    timed,
)
from pipeline.measure.compare.view import render
from pipeline.model import Failure
from pipeline.report.history import DeployHistory, parse_history
from pipeline.report.markdown import HISTORY_SCHEMA, encode_history
from tests.golden import loops as golden
from tests.unit.test_config import MINIMAL

LIMITS = GateConfig()
SAME = (FlashCheck("warm deploys", "aa", "aa"), FlashCheck("real edit", "bb", "bb"))


def row(**values: Any) -> dict[str, Any]:
    """A line of the history, as it is written."""
    stages = ("fingerprint", "compile", "link", "verify-flash", "reflash", "reattach", "ttfb")
    base: dict[str, Any] = {
        "schema": HISTORY_SCHEMA,
        "transaction_id": "tx-20261121-000000-abcd",
        "run": "tx-20261121-000000-abcd",
        "started_at": "2026-11-21T00:00:00.000Z",
        "machine": "0123456789ab",
        "version": "0.1.0",
        "device": "bench",
        "chip": "esp32c3",
        "outcome": "verified_unchanged",
        "profile": "local-fast",
        "warm": True,
        "stages": dict.fromkeys(stages, "ran"),
        "phases": {"startup": 110, "verify-flash": 90, "ttfb": 60},
        "total_ms": 300,
        "fits": True,
        "ttfb": {"schema": 1, "total_ms": 50},
        "failure": None,
    }
    return {**base, **values}


def history(*rows: dict[str, Any]) -> DeployHistory:
    return parse_history(b"".join(encode_history({**one, "transaction_id": f"tx-{n}"}) for n, one in enumerate(rows)))


WHO = ("0123456789ab", "bench", "local-fast")
SINCE = "2026-11-14T00:00:00.000Z"


def runs(phase_ms: int, total_ms: int, count: int = 30) -> list[Timed]:
    return [Timed(f"tx-{n}", phase_ms, total_ms) for n in range(count)]


def pairs(baseline_ms: int, candidate_ms: int, count: int = 30, other_ms: int = 200) -> list[Pair]:
    """Pairs whose other phases take the same; the times vary by some ms as real ones do."""
    return [
        Pair(
            n,
            "baseline" if n % 2 else "candidate",
            Timed(f"tx-b{n}", baseline_ms + n % 5, baseline_ms + other_ms + n % 5),
            Timed(f"tx-c{n}", candidate_ms + n % 3, candidate_ms + other_ms + n % 3),
        )
        for n in range(count)
    ]


# --- population -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({}, ""),
        ({"outcome": "app_confirmed"}, ""),
        ({"stages": {**row()["stages"], "reflash": "up-to-date"}}, ""),
        ({"started_at": SINCE}, ""),
        ({"started_at": "2026-11-13T23:59:59.999Z"}, "too old"),
        ({"schema": HISTORY_SCHEMA + 1}, "another schema version"),
        ({"schema": HISTORY_SCHEMA - 1}, "another schema version"),
        ({"phases": None}, "damaged line"),
        ({"machine": "ba9876543210"}, "another machine"),
        ({"device": "desk"}, "another device or profile"),
        ({"profile": "release"}, "another device or profile"),
        ({"outcome": "failed"}, "not successful"),
        ({"outcome": "interrupted"}, "not successful"),
        ({"outcome": None}, "not successful"),
        ({"failure": {"category": "panic", "stage": "ttfb", "user_action": "fix_code"}}, "not successful"),
        ({"stages": {**row()["stages"], "ttfb": "not-run"}}, "not a whole deploy"),
        ({"warm": False}, "not warm"),
    ],
)
def test_who_belongs_to_the_population(values: dict[str, Any], reason: str) -> None:
    found = population(history(row(**values)), "verify-flash", *WHO, SINCE)
    assert found.excluded == ({reason: 1} if reason else {})
    assert [run.phase_ms for run in found.runs] == ([] if reason else [90])


def test_a_phase_that_did_not_run_is_not_a_phase_of_0_ms() -> None:
    found = population(history(row(), row()), "link", *WHO, SINCE)
    assert found == Population((), {"link was not measured": 2})


def test_every_part_of_a_deploy_can_be_gated() -> None:
    parts = {"startup": 110, "verify-flash": 90, "ttfb": 60, "remainder": 40}
    (found,) = history(row()).rows
    for phase, ms in parts.items():
        assert timed(found, phase) == Timed("tx-0", ms, 300)
    assert sum(parts.values()) == 300


# --- verdicts ---------------------------------------------------------------------------------


def verdict(**values: Any) -> Conclusion:
    evidence: dict[str, Any] = {
        "phase": "verify-flash",
        "runs": runs(120, 300),
        "pairs": pairs(120, 20),
        "flash": SAME,
        "limits": LIMITS,
    }
    return conclude(**{**evidence, **values})


@pytest.mark.parametrize(
    ("values", "expected", "reason"),
    [
        ({}, GateVerdict.GO, "saves"),
        ({"runs": runs(90, 300)}, GateVerdict.GO, "30.0 %"),
        ({"runs": [*runs(60, 300, 26), *runs(150, 300, 4)]}, GateVerdict.GO, "50.0 % (p90)"),
        ({"runs": runs(89, 300)}, GateVerdict.NO_GO, "reaches neither of 30 % (p50) or 40 % (p90)"),
        ({"runs": runs(120, 300, 29)}, GateVerdict.INSUFFICIENT, "29 warm deploys of the last 7 days"),
        ({"runs": []}, GateVerdict.INSUFFICIENT, "0 warm deploys"),
        ({"pairs": pairs(120, 20, 29)}, GateVerdict.INSUFFICIENT, "29 complete A/B pairs, 30 are needed"),
        ({"pairs": []}, GateVerdict.INSUFFICIENT, "0 complete A/B pairs"),
        ({"flash": ()}, GateVerdict.INSUFFICIENT, "not compared"),
        ({"flash": (*SAME, FlashCheck("changed board", "aa", "ab"))}, GateVerdict.NO_GO, "changed board"),
        ({"flash": (FlashCheck("warm deploys", "", ""),)}, GateVerdict.NO_GO, "warm deploys"),
        ({"pairs": pairs(120, 120)}, GateVerdict.NO_GO, "no effect on verify-flash is proven"),
        ({"pairs": pairs(120, 160)}, GateVerdict.NO_GO, "no effect on verify-flash is proven"),
    ],
)
def test_each_verdict(values: dict[str, Any], expected: GateVerdict, reason: str) -> None:
    found = verdict(**values)
    assert found.verdict is expected, found.reasons
    assert any(reason in told for told in found.reasons), found.reasons


def test_different_flash_outweighs_everything() -> None:
    """Even without a single figure: a wrong result is no matter of statistics."""
    unequal = (FlashCheck("real edit", "aa", "bb"),)
    assert verdict(runs=[], pairs=[], flash=unequal).verdict is GateVerdict.NO_GO


def test_a_gain_that_is_lost_elsewhere_is_no_go() -> None:
    moved = [pair._replace(candidate=pair.candidate._replace(total_ms=400)) for pair in pairs(120, 20)]
    found = verdict(pairs=moved)
    assert found.verdict is GateVerdict.NO_GO and found.phase is not None and found.phase.proven
    assert "lost elsewhere" in found.reasons[-1]


@pytest.mark.parametrize(("real", "arms", "expected"), [(120, 30, GateVerdict.GO), (30, 120, GateVerdict.NO_GO)])
def test_the_real_deploys_break_the_tie(real: int, arms: int, expected: GateVerdict) -> None:
    found = verdict(runs=runs(real, 300), pairs=pairs(arms, 10, other_ms=300 - arms))
    assert found.verdict is expected
    assert any("the real deploys decide" in told for told in found.reasons)


@settings(max_examples=15, deadline=None)  # two bootstraps each
@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400)), max_size=40), st.integers(0, 40))
def test_go_needs_all_of_the_evidence(times: list[tuple[int, int]], count: int) -> None:
    evidence = [Pair(n, "baseline", Timed("b", b, b + 100), Timed("c", c, c + 100)) for n, (b, c) in enumerate(times)]
    found = verdict(pairs=evidence, runs=runs(120, 300, count))
    assert found.reasons
    if found.verdict is GateVerdict.GO:
        assert len(evidence) >= 30 and count >= 30
        assert found.phase is not None and found.phase.interval.low > 0
    if len(evidence) < 30 or count < 30:
        assert found.verdict is GateVerdict.INSUFFICIENT


def test_statistics_of_nothing_are_none() -> None:
    assert shares([]) is None and effect([]) is None
    found = effect([10, 12, 8, 11])
    assert found is not None and found.saved_ms == 10.5
    assert found.interval.low <= found.saved_ms <= found.interval.high


# --- arms and thresholds ----------------------------------------------------------------------


def test_arms() -> None:
    assert parse_arm("journal") == Arm("journal", ((("verify", "level"), "journal"),))
    assert parse_arm("device.baud=921600,--no-reset") == Arm(
        "device.baud=921600,--no-reset", ((("device", "baud"), 921600),), ("--no-reset",)
    )
    assert parse_arm("project.version=1.2.3") == Arm("project.version=1.2.3", ((("project", "version"), "1.2.3"),))
    for text in ("fast", "baud=1", "device.baud", "device.baud=", "a..b=1", "--", "md5,,"):
        assert isinstance(parse_arm(text), str), text


def test_settings_reach_the_measured_device_and_leave_the_rest() -> None:
    document: dict[str, Any] = {"device": {"bench": {"baud": 1}, "desk": {"baud": 2}}, "verify": {"level": "md5"}}
    arm = parse_arm("device.baud=9,verify.level=journal,gate.days=3")
    assert isinstance(arm, Arm)
    assert apply(arm, document, "bench") == {
        "device": {"bench": {"baud": 9}, "desk": {"baud": 2}},
        "verify": {"level": "journal"},
        "gate": {"days": 3},
    }
    assert document["device"]["bench"] == {"baud": 1}, "the project's own configuration is not touched"
    assert "gate" not in document


def test_thresholds_come_from_deploy_toml() -> None:
    config = parse_config(MINIMAL + "\n[gate]\np50_percent = 20\nmin_pairs = 40\n")
    assert not isinstance(config, Failure)
    assert config.gate == GateConfig(p50_percent=20, p90_percent=40, min_pairs=40, min_runs=30, days=7)
    wrong = parse_config(MINIMAL + "\n[gate]\np50_percent = 130\n")
    assert isinstance(wrong, Failure) and "use a number from 1 to 100" in wrong.hint


# --- the conclusion ---------------------------------------------------------------------------


def test_the_conclusion_names_its_command_and_every_run() -> None:
    gated = golden.gated()
    text = render(gated)
    used = [*gated.population.runs, *(run for pair in gated.pairs for run in (pair.baseline, pair.candidate))]
    for needed in (gated.command, "not counted, not warm: 3", *(run.tx for run in used)):
        assert needed in text
    assert "\n\n\n" not in text
