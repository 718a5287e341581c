"""The events of a run: what each kind says, the run log that holds them, and transaction ids.

Pure. Does not know files, the clock or what a report looks like. The only place that builds and reads the `data`
of an event: one dataclass per `EventKind`, in `PAYLOADS`; the bytes are those of `records.py`.
Invariant: an event equals itself after a round trip through its line, and `decode_log` never raises.

Version 1 (`EVENT_SCHEMA`): first version; `run` of RunStarted and the kinds `action`, `waited`, `rolled_back` and
`part` came later, then `size`. Fields that have a default may be added; a reader stops at a kind that it does not
know, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from cache.named_tuple import NamedTuple
from pipeline.failures import fail
from pipeline.model import (
    EVENT_SCHEMA,
    DeployOutcome,
    Event,
    EventKind,
    Failure,
    FailureCategory,
    Mark,
    MarkName,
    Reason,
    RegionAction,
    Stage,
    StageOutcome,
    StageResult,
)
from pipeline.records import decode_records, encode_record, header

if TYPE_CHECKING:
    from pipeline.flash_model import FlashPlan

# --- what each kind of event holds ------------------------------------------------------------
# Named tuples, not dataclasses: creating twelve frozen slotted dataclasses costs 4 ms of every warm run.


class When(NamedTuple):
    """An instant: UTC text with milliseconds and `Z`, and seconds since the run began."""

    at: str
    since_s: float


class RunStarted(NamedTuple):
    """First event of each log. `device == ""`: a host-only run. `budget_ms` is keyed `total`, `startup`, `dispatch` or
    a stage's name. `startup_ms` and `dispatch_ms`: time before this event, `None` when it was not measured.
    `report_path` is where the Markdown will be, relative to the project root unless it lies outside.
    `budget_enforced`: a run over its total fails. `run` is the same for all transactions of one run: the id of the
    first."""

    tx: str
    device: str
    port: str
    profile: str
    targets: tuple[str, ...]
    git_sha: str
    git_dirty: bool
    toolchain: str
    verify_level: str
    readiness_until: str
    readiness_timeout_ms: int
    budget_ms: Mapping[str, int]
    report_path: str
    startup_ms: int | None = None
    dispatch_ms: int | None = None
    budget_enforced: bool = False
    run: str = ""
    given_build: str = ""
    """How the build of a given firmware went: `skipped: PROOF` or `ran: REASON`."""


class DeviceSeen(NamedTuple):
    """What this session learned about the board; a later event replaces an earlier one."""

    name: str
    mac: str
    chip: str
    port: str


class StageStarted(NamedTuple):
    stage: Stage


class FingerprintRow(NamedTuple):
    """`name` (app, bootloader, partitions, infra...) had the digest `previous`, has `current`; `state_written` is the
    digest that the state now holds, `""` when none was recorded."""

    name: str
    previous: str
    current: str
    state_written: str = ""


class Fingerprints(NamedTuple):
    """`changed` names the inputs that moved. Rows of a later event replace rows of the same name."""

    rows: tuple[FingerprintRow, ...]
    changed: tuple[str, ...] = ()


class PlannedRegion(NamedTuple):
    """One row of the flash plan, before anything is written. Digests are of the bytes as written."""

    name: str
    offset: int
    size: int
    sha256: str
    md5: str
    device_md5_before: str
    action: RegionAction
    reason: str = ""


class PlanMade(NamedTuple):
    """`verified_by` is the verify level (`md5`, `app-report`, `journal`) that the plan rests on."""

    regions: tuple[PlannedRegion, ...]
    full: bool
    reasons: tuple[Reason, ...]
    verified_by: str


class RegionDone(NamedTuple):
    """One region is finished: programmed and verified, or kept. `bytes_written` is before compression."""

    name: str
    action: RegionAction
    bytes_written: int


class ActionDone(NamedTuple):
    """One action that was performed (what was up to date says nothing). `how` is `executed`, `restored`,
    `restored_remote` (from the shared cache), `up_to_date` (when looked at closely) or `failed`; `worker` numbers the
    threads that did it from 0; `began_s` counts from the begin of the run."""

    name: str
    stage: Stage
    how: str
    worker: int
    began_s: float
    duration_s: float


class Readiness(NamedTuple):
    """The readiness gate. `reason` is `""` or a failure category, for some with what it is about (`unhealthy:blink`).
    `requested_at_s` (link clock) is when a request was sent to a device that was not reset. `unavailable` says why a
    mark is missing, by mark name. `ready_at_s` (link clock): when it passed. `polls`: requests that were sent.
    `modules`: what the firmware said of each. `note`: what it does not prove, or did not ask."""

    status: Literal["pending", "passed", "failed"]
    reason: str = ""
    app_elf_sha256: str = ""
    requested_at_s: float | None = None
    unavailable: Mapping[str, str] = MappingProxyType({})
    ready_at_s: float | None = None
    polls: int = 0
    modules: tuple[Mapping[str, Any], ...] = ()
    note: str = ""


class Waited(NamedTuple):
    """So long other boards or builds of the run had their turn before this device had its."""

    seconds: float


class RolledBack(NamedTuple):
    """The device did not become ready, and the images before were to be put back: by the transaction `tx` (`""`: none
    was begun), which ended as `outcome` (None: it did not come so far). `message`: why, in a sentence."""

    tx: str
    outcome: DeployOutcome | None
    message: str


class PhasePart(NamedTuple):
    """A part of the run that was measured on its own, and the phase of the budget that it belongs to (`startup`,
    `dispatch` or a stage's name), whichever stage was under way when it ended."""

    name: str
    phase: str
    duration_s: float


class Sized(NamedTuple):
    """How large the application is, as `report/size.py` writes it: beside the report before, and the limits."""

    size: Mapping[str, Any]


class RunFinished(NamedTuple):
    """Last event. `outcome` is `None` for a host-only run that did what was asked."""

    outcome: DeployOutcome | None


Payload = (
    RunStarted
    | DeviceSeen
    | StageStarted
    | StageResult
    | Fingerprints
    | PlanMade
    | RegionDone
    | ActionDone
    | Mark
    | Readiness
    | PhasePart
    | Failure
    | Waited
    | RolledBack
    | Sized
    | RunFinished
)

PAYLOADS: Mapping[EventKind, type[Payload]] = {
    EventKind.RUN_STARTED: RunStarted,
    EventKind.DEVICE: DeviceSeen,
    EventKind.STAGE_STARTED: StageStarted,
    EventKind.STAGE_FINISHED: StageResult,
    EventKind.FINGERPRINTS: Fingerprints,
    EventKind.PLAN: PlanMade,
    EventKind.REGION: RegionDone,
    EventKind.ACTION: ActionDone,
    EventKind.MARK: Mark,
    EventKind.READINESS: Readiness,
    EventKind.PART: PhasePart,
    EventKind.FAILURE: Failure,
    EventKind.WAITED: Waited,
    EventKind.ROLLED_BACK: RolledBack,
    EventKind.SIZE: Sized,
    EventKind.RUN_FINISHED: RunFinished,
}
_LEAVES = frozenset({str, int, float, bool, type(None)})
_KIND_OF = {payload: kind for kind, payload in PAYLOADS.items()}


def plan_made(plan: FlashPlan, verified_by: str) -> PlanMade:
    """The event of a flash plan."""
    rows = tuple(
        PlannedRegion(
            name=row.image.name,
            offset=row.image.offset,
            size=row.image.size,
            sha256=row.image.digest.hex,
            md5=row.image.md5,
            device_md5_before=row.device_md5_before,
            action=row.action,
            reason="" if row.reason is None else str(row.reason),
        )
        for row in plan.regions
    )
    return PlanMade(rows, plan.full, plan.reasons, verified_by)


def event(payload: Payload, when: When) -> Event:
    """The event that says `payload` happened at `when`."""
    return Event(_KIND_OF[type(payload)], when.at, when.since_s, _plain(payload))


def _plain(value: Any) -> Any:
    """`value` as JSON would give it back, so that an event equals itself after a round trip."""
    if type(value) in _LEAVES:  # most are, and there may be an event per action
        return value
    if isinstance(value, str):  # a word of an enumeration
        return str(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        fields = zip(value._fields, value, strict=True)
        return {name: item if type(item) in _LEAVES else _plain(item) for name, item in fields}
    if isinstance(value, Mapping):
        return {str(key): item if type(item) in _LEAVES else _plain(item) for key, item in value.items()}
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def payload(event: Event) -> Payload:
    """What `event` says. Raises KeyError, TypeError or ValueError when its data is not of its kind's shape."""
    data: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in event.data.items()
    }
    match event.kind:
        case EventKind.STAGE_STARTED:
            return StageStarted(Stage(data["stage"]))
        case EventKind.STAGE_FINISHED:
            failure = data.pop("failure")
            data |= {"stage": Stage(data["stage"]), "outcome": StageOutcome(data["outcome"])}
            data |= {"reasons": _reasons(data["reasons"]), "failure": _failure(failure) if failure else None}
            return StageResult(**data)
        case EventKind.FINGERPRINTS:
            return Fingerprints(tuple(FingerprintRow(**row) for row in data["rows"]), data["changed"])
        case EventKind.PLAN:
            rows = (PlannedRegion(**{**row, "action": RegionAction(row["action"])}) for row in data.pop("regions"))
            return PlanMade(**{**data, "regions": tuple(rows), "reasons": _reasons(data["reasons"])})
        case EventKind.REGION:
            return RegionDone(**{**data, "action": RegionAction(data["action"])})
        case EventKind.ACTION:
            return ActionDone(**{**data, "stage": Stage(data["stage"])})
        case EventKind.MARK:
            return Mark(**{**data, "name": MarkName(data["name"])})
        case EventKind.FAILURE:
            return _failure(data)
        case EventKind.RUN_FINISHED:
            return RunFinished(_outcome(data["outcome"]))
        case EventKind.ROLLED_BACK:
            return RolledBack(**{**data, "outcome": _outcome(data["outcome"])})
        case kind:
            return PAYLOADS[kind](**data)


def _outcome(word: str | None) -> DeployOutcome | None:
    return None if word is None else DeployOutcome(word)


def _reasons(rows: Sequence[Mapping[str, str]]) -> tuple[Reason, ...]:
    return tuple(Reason(**row) for row in rows)


def _failure(data: Mapping[str, Any]) -> Failure:
    # Not `fail`: what the map said when this was written is what happened, even if the map has moved since.
    stage = Stage(data["stage"]) if data["stage"] is not None else None
    return Failure(**{**data, "category": FailureCategory(data["category"]), "stage": stage})


# --- the run log ------------------------------------------------------------------------------

RUN_LOG_NAME = "hotplate-run-log"
RUN_LOG_HEADER = header(RUN_LOG_NAME, EVENT_SCHEMA)


def encode(event: Event) -> bytes:
    """One line of a run log."""
    return encode_record({"kind": event.kind.value, "at": event.at, "since_s": event.since_s, "data": event.data})


def decode_log(data: bytes) -> tuple[list[Event], str | None]:
    """The events of a whole run log, and one line about what was dropped (`None`: nothing, or only a torn tail)."""
    events, note, _ = decode_log_prefix(data)
    return events, note


def decode_log_prefix(data: bytes) -> tuple[list[Event], str | None, int]:
    """As `decode_log`, and the number of leading bytes that hold these events (for repair before appending)."""
    decoded = decode_records(data, RUN_LOG_NAME, EVENT_SCHEMA)
    events: list[Event] = []
    good = min(len(RUN_LOG_HEADER), decoded.good)
    for record in decoded.records:
        found = _event(record)
        if found is None:
            return events, f"{RUN_LOG_NAME}: record {len(events) + 1} is not an event; the rest is ignored", good
        events.append(found)
        good += len(encode_record(record))
    return events, decoded.note, good


def _event(record: Mapping[str, Any]) -> Event | None:
    try:
        found = Event(EventKind(record["kind"]), record["at"], float(record["since_s"]), record["data"])
        payload(found)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return found


def finished(events: Sequence[Event]) -> bool:
    """Did the writer of these events reach its end?"""
    return any(event.kind is EventKind.RUN_FINISHED for event in events)


def open_stage(events: Sequence[Event]) -> Stage | None:
    """The stage that was under way when `events` end, if any."""
    running: Stage | None = None
    for item in map(payload, events):
        if isinstance(item, StageStarted):
            running = item.stage
        elif isinstance(item, StageResult) and item.stage is running:
            running = None
    return running


def killed(events: Sequence[Event]) -> list[Event]:
    """The events that close a log whose writer died without a word: empty when the log is finished.

    They carry the instant of the last event: nothing is known about the time after it. A failure that was logged before
    stays the cause."""
    if finished(events):
        return []
    when = When(events[-1].at, max(event.since_s for event in events)) if events else When("", 0.0)
    failure = next((item for item in map(payload, events) if isinstance(item, Failure)), None)
    added = []
    if failure is None:
        failure = _killed_failure(events, when)
        added.append(event(failure, when))
    stopped = failure.category is FailureCategory.INTERRUPTED
    added.append(event(RunFinished(DeployOutcome.INTERRUPTED if stopped else DeployOutcome.FAILED), when))
    return added


def _killed_failure(events: Sequence[Event], when: When) -> Failure:
    stage = open_stage(events)
    device = next((item.device for item in map(payload, events) if isinstance(item, RunStarted)), "")
    place = f"in stage {stage}" if stage else "between stages"
    return fail(
        FailureCategory.INTERRUPTED,
        stage=stage,
        where=f"device {device}" if device else "run",
        message=f"the run was killed {place}: its log ends {int(when.since_s * 1000)} ms after the start",
        hint="run the deploy again: what this run began is verified first, and finished or healed",
    )


# --- transaction ids --------------------------------------------------------------------------

_HEX = frozenset("0123456789abcdef")


def is_tx(text: str) -> bool:
    """Is `text` a transaction id, and so safe as the name of a file?"""
    digits, suffix = text[3:11] + text[12:18], text[19:]
    if len(digits) != 14 or not (digits.isascii() and digits.isdigit()) or not 4 <= len(suffix) <= 6:
        return False
    if text[:3] + text[11] + text[18] != "tx---" or not _HEX.issuperset(suffix):
        return False
    day = "01" <= text[7:9] <= "12" and "01" <= text[9:11] <= "31"
    return day and text[12:14] <= "23" and text[14:16] <= "59" and text[16:18] <= "60"


def format_tx(utc: str, suffix: str) -> str:
    """`tx-YYYYmmdd-HHMMSS-<suffix>` from `2026-11-21T00:00:00.000Z` and 4 to 6 hex digits. Raises ValueError."""
    day, _, time = utc.partition("T")
    tx = f"tx-{day.replace('-', '')}-{time[:8].replace(':', '')}-{suffix}"
    if not is_tx(tx):
        raise ValueError(f"{utc!r} and {suffix!r} do not make a transaction id: {tx!r}")
    return tx
