"""Events: literal bytes of the format, every kind's round trip, what a killed run's log is closed with."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.digest import digest_bytes
from pipeline import events
from pipeline.events import (
    PAYLOADS,
    ActionDone,
    DeviceSeen,
    FingerprintRow,
    Fingerprints,
    Payload,
    PhasePart,
    PlanMade,
    PlannedRegion,
    Readiness,
    RegionDone,
    RolledBack,
    RunFinished,
    RunStarted,
    Sized,
    StageStarted,
    Waited,
    When,
    decode_log,
    encode,
    event,
    format_tx,
    is_tx,
    killed,
    open_stage,
    payload,
    plan_made,
)
from pipeline.failures import fail
from pipeline.flash_model import FlashPlan, Image, Region, RegionPlan
from pipeline.model import (
    DeployOutcome,
    EventKind,
    FailureCategory,
    Mark,
    MarkName,
    Reason,
    RegionAction,
    Stage,
    StageOutcome,
    StageResult,
)
from tests.golden.scenarios import RUNS

WHEN = When("2026-11-21T00:00:00.000Z", 1.5)
FAILURE = fail(
    FailureCategory.PORT_BUSY, stage=Stage.VERIFY_FLASH, where="device a", message="held by 7", detail="x\ny"
)

ONE_OF_EACH: dict[EventKind, Payload] = {
    EventKind.RUN_STARTED: RunStarted(
        "tx-20261121-000000-beef",
        "bench",
        "virtual:",
        "release",
        ("deploy",),
        "abc",
        True,
        "zig 0.17.0",
        "md5",
        "rpc:ready",
        5000,
        {"total": 4000},
        "reports/x.md",
        12,
        None,
    ),
    EventKind.DEVICE: DeviceSeen("bench", "7c:df:a1:00:11:22", "esp32c3", "virtual:"),
    EventKind.STAGE_STARTED: StageStarted(Stage.COMPILE),
    EventKind.STAGE_FINISHED: StageResult(
        Stage.VERIFY_FLASH, StageOutcome.FAILED, 0.25, (Reason("input", "a.c", "1", "2"),), {"regions": 4}, FAILURE
    ),
    EventKind.FINGERPRINTS: Fingerprints((FingerprintRow("app", "1", "2", "2"),), ("a.c",)),
    EventKind.PLAN: PlanMade(
        (PlannedRegion("app", 0x10000, 12, "s", "m", "d", RegionAction.DELTA, "why"),),
        True,
        (Reason("flash", "size"),),
        "md5",
    ),
    EventKind.REGION: RegionDone("app", RegionAction.WRITTEN, 4096),
    EventKind.ACTION: ActionDone("cc a.c", Stage.COMPILE, "executed", 1, 0.5, 0.25),
    EventKind.MARK: Mark(MarkName.FIRST_BYTE, 0.125, "note"),
    EventKind.READINESS: Readiness("failed", "panic", "ff", 2.5, {"rom_banner": "USB"}),
    EventKind.PART: PhasePart("wait for the port", "dispatch", 0.5),
    EventKind.FAILURE: FAILURE,
    EventKind.WAITED: Waited(2.5),
    EventKind.ROLLED_BACK: RolledBack("tx-20261121-000000-feed", DeployOutcome.REGIONS_FLASHED, "they are back"),
    EventKind.SIZE: Sized({"elf": "a.elf", "totals": [{"name": "ram", "size": 1, "before": None, "limit": 2}]}),
    EventKind.RUN_FINISHED: RunFinished(DeployOutcome.FAILED),
}


def test_the_format_is_these_bytes() -> None:
    line = encode(event(StageStarted(Stage.COMPILE), WHEN))
    assert line == (
        b'9ffb6d82\t{"at":"2026-11-21T00:00:00.000Z","data":{"stage":"compile"},"kind":"stage_started","since_s":1.5}\n'
    )
    assert events.RUN_LOG_HEADER == b"hotplate-run-log 1\n"


@pytest.mark.parametrize("kind", EventKind)
def test_each_kind_comes_back_as_it_was_written(kind: EventKind) -> None:
    item = ONE_OF_EACH[kind]
    written = event(item, WHEN)
    assert written.kind is kind
    assert isinstance(item, PAYLOADS[kind])
    assert payload(written) == item
    assert decode_log(events.RUN_LOG_HEADER + encode(written)) == ([written], None)


def test_absent_parts_come_back_absent() -> None:
    for item in (
        RunFinished(None),
        RolledBack("", None, "why"),
        StageResult(Stage.LINK, StageOutcome.RAN, 0.0),
        Readiness("pending"),
    ):
        assert payload(event(item, WHEN)) == item


@settings(deadline=None)
@given(st.text(), st.text(), st.floats(allow_nan=False, allow_infinity=False))
def test_any_text_survives(subject: str, after: str, since_s: float) -> None:
    result = StageResult(Stage.LINK, StageOutcome.RAN, since_s, (Reason("input", subject + "\udc80", "", after),))
    written = event(result, When("", since_s))
    assert encode(written).count(b"\n") == 1
    assert decode_log(events.RUN_LOG_HEADER + encode(written)) == ([written], None)


def test_the_plan_event_holds_the_plan() -> None:
    image = Image("app", "ota_0", 0x10000, 5, 0x1000, "build/app.bin", digest_bytes(b"hello"), "md5-of-hello")
    row = RegionPlan(
        image, RegionAction.DELTA, (Region(0x10000, 0x1000),), "md5-before", Reason("md5", "app", "x", "y")
    )
    made = plan_made(FlashPlan((row,), True, (Reason("table", "moved"),)), "md5")
    digest = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    assert made.regions == (
        PlannedRegion("app", 0x10000, 5, digest, "md5-of-hello", "md5-before", RegionAction.DELTA, "md5 app: x -> y"),
    )
    assert (made.full, made.reasons, made.verified_by) == (True, (Reason("table", "moved"),), "md5")


# --- killed runs ------------------------------------------------------------------------------


def test_a_finished_run_needs_no_end() -> None:
    assert killed(RUNS["success"]()) == []


def test_a_killed_run_is_closed_as_interrupted_at_its_last_instant() -> None:
    run = RUNS["killed"]()
    failure, end = killed(run)
    said = payload(failure)
    assert payload(end) == RunFinished(DeployOutcome.INTERRUPTED)
    assert (failure.at, failure.since_s) == (run[-1].at, run[-1].since_s) == (end.at, end.since_s)
    assert said == fail(
        FailureCategory.INTERRUPTED,
        stage=Stage.REFLASH,
        where="device bench",
        message="the run was killed in stage reflash: its log ends 1044 ms after the start",
        hint="run the deploy again: what this run began is verified first, and finished or healed",
    )
    assert killed([*run, failure, end]) == []


def test_a_failure_that_was_logged_before_the_kill_stays_the_cause() -> None:
    run = [event(ONE_OF_EACH[EventKind.RUN_STARTED], WHEN), event(FAILURE, WHEN)]
    assert [payload(added) for added in killed(run)] == [RunFinished(DeployOutcome.FAILED)]


def test_the_open_stage_is_the_one_without_an_end() -> None:
    started, done = StageStarted(Stage.LINK), StageResult(Stage.LINK, StageOutcome.RAN, 0.1)
    assert open_stage([event(started, WHEN)]) is Stage.LINK
    assert open_stage([event(started, WHEN), event(done, WHEN)]) is None
    assert open_stage([]) is None


# --- transaction ids --------------------------------------------------------------------------


def test_a_transaction_id_is_made_of_an_instant_and_a_suffix() -> None:
    assert format_tx("2026-11-21T08:30:59.123Z", "beef") == "tx-20261121-083059-beef"
    assert is_tx("tx-20261121-083059-beef01")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tx-20261121-083059-bee",
        "tx-20261121-083059-beef012",
        "tx-20261121-083059-BEEF",
        "tx-20261321-083059-beef",
        "tx-20261121-243059-beef",
        "tx-20261121-083059-beef\n",
        "../tx-20261121-083059-beef",
        "tx-2026112\u0661-083059-beef",
    ],
)
def test_what_is_no_transaction_id(text: str) -> None:
    assert not is_tx(text)


@pytest.mark.parametrize(("utc", "suffix"), [("yesterday", "beef"), ("2026-11-21T08:30:59Z", "../x")])
def test_a_transaction_id_is_never_made_of_nonsense(utc: str, suffix: str) -> None:
    with pytest.raises(ValueError, match="do not make a transaction id"):
        format_tx(utc, suffix)


TX = r"tx-[0-9]{4}(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])-([01][0-9]|2[0-3])[0-5][0-9]([0-5][0-9]|60)-[0-9a-f]{4,6}"


@given(st.from_regex(TX, fullmatch=True), st.integers(0, 24), st.sampled_from("0123456789-abcdefgtx./\n\u0661 "))
def test_a_transaction_id_is_what_the_pattern_says(text: str, at: int, other: str) -> None:
    assert is_tx(text)
    for changed in (text[:at] + other + text[at + 1 :], text[:at] + text[at + 1 :], text[:at] + other + text[at:]):
        assert is_tx(changed) == (re.fullmatch(TX, changed) is not None)
