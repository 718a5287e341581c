"""What the last deploy of each device says about it: checks that passed, failed or were not reached, and their compact
form.

Pure: reports, or rows of the history, in; entries out. Does not know files or pages. Invariant:
`expand(compact(entry))` is `entry`: what is left out of the compact form is what can be said again (a check that
passed), and a failure is never shortened.

A *check* is a question that a deploy asks of a device; several belong to one stage. An entry is *current* when its
transaction belongs to the newest run; the others were carried over from the run named by `as_of`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.model import FailureCategory, Stage
from pipeline.report.history import HistoryRow

LIVE_SCHEMA = 1

_HOST = ("fingerprint", "compile", "link")
STAGES_OF: Mapping[str, tuple[str, ...]] = {
    "build": _HOST,
    "identity": ("verify-flash",),
    "verify": ("verify-flash",),
    "write": ("reflash",),
    "boot": ("reattach", "ttfb"),
    "readiness": ("ttfb",),
    "health": ("ttfb",),
    "budget": (),
}
"""Each check, in order, and the stages that must have passed for it to pass. `health` passes only where the firmware
was asked, `budget` only where it is enforced."""

CHECKS = tuple(STAGES_OF)
PASS, FAIL, NOT_REACHED = "pass", "FAIL", "-"

_C = FailureCategory
_CHECK_OF: Mapping[str, str] = {
    _C.WRONG_DEVICE: "identity",
    _C.PROTECTED_DEVICE: "identity",
    _C.PORT_MISSING: "identity",
    _C.PORT_BUSY: "identity",
    _C.PORT_PERMISSION: "identity",
    _C.PORT_AMBIGUOUS: "identity",
    _C.SYNC_FAILED: "identity",
    _C.BOOT_LOOP: "boot",
    _C.PANIC: "boot",
    _C.NO_OUTPUT: "boot",
    _C.UNHEALTHY: "health",
    _C.OVER_BUDGET: "budget",
}
"""The categories that say more than their stage does. A port that vanishes later is the later stage's."""

_OF_STAGE: Mapping[str, str] = {
    **dict.fromkeys(_HOST, "build"),
    Stage.VERIFY_FLASH.value: "verify",
    Stage.REFLASH.value: "write",
    Stage.REATTACH.value: "boot",
    Stage.TTFB.value: "readiness",
}


class LiveEntry(NamedTuple):
    """One device as its last transaction left it. `checks`: check -> result. `failure` as in its report, whole."""

    device: str
    chip: str
    as_of: str
    run: str
    started_at: str
    outcome: str
    current: bool
    checks: Mapping[str, str]
    failure: Mapping[str, Any] | None = None
    heap_free: int | None = None

    @property
    def good(self) -> bool:
        return self.failure is None and FAIL not in self.checks.values()


def failed_check(category: str, stage: str | None, outcomes: Mapping[str, str]) -> str:
    """The one check that a failure belongs to. Without a stage: the first that did not pass."""
    check = _CHECK_OF.get(category, "")
    if check == "identity" and stage not in (None, Stage.VERIFY_FLASH.value):
        check = ""
    if check:
        return check
    if stage is not None:
        return _OF_STAGE.get(stage, "build")
    return next((name for name in CHECKS if STAGES_OF[name] and not _passed(name, outcomes)), "readiness")


def checks_of(
    outcomes: Mapping[str, str], failure: Mapping[str, Any] | None, *, asked_health: bool, enforced: bool
) -> dict[str, str]:
    """Every check with its result. `outcomes`: stage -> outcome."""
    results = {name: PASS if _passed(name, outcomes) else NOT_REACHED for name in CHECKS}
    if not asked_health:
        results["health"] = NOT_REACHED
    complete = results["readiness"] == PASS
    results["budget"] = PASS if enforced and complete else NOT_REACHED
    if failure is None or _is_stopped(failure):
        return results
    failing = failed_check(failure["category"], failure["stage"], outcomes)
    results[failing] = FAIL
    told = failure["category"] in _CHECK_OF or failure["category"] in (_C.VERIFY_MISMATCH, *_AFTER_BOOT)
    for name in CHECKS[: CHECKS.index(failing)]:
        # The checks of a stage are asked in order: a verdict about a later one means that the earlier ones passed.
        if told and name != "health" and failure["stage"] in STAGES_OF[name]:
            results[name] = PASS
    return results


def _is_stopped(failure: Mapping[str, Any]) -> bool:
    """Did the run end between two stages? Then no check failed: somebody pressed Ctrl-C, or another device failed."""
    return failure["category"] == _C.INTERRUPTED and failure["stage"] is None


_AFTER_BOOT = (_C.WRONG_IMAGE, _C.RPC_TIMEOUT)


def _passed(check: str, outcomes: Mapping[str, str]) -> bool:
    return bool(STAGES_OF[check]) and all(outcomes.get(stage) in ("ran", "up-to-date") for stage in STAGES_OF[check])


def entry(last: HistoryRow, report: Mapping[str, Any] | None, newest_run: str) -> LiveEntry:
    """The entry of a device whose last transaction is `last`; its report, if it is still there, tells more."""
    failure: Mapping[str, Any] | None = None
    asked_health = enforced = False
    heap_free = None
    if last.failed:
        failure = {"category": last.category, "stage": last.stage or None, "user_action": last.user_action}
    if report is not None:
        failure = report["failure"]
        asked_health = bool(report["readiness"].get("modules"))
        enforced = bool(report["budget"].get("enforced"))
        heap_free = next(
            (stage["counts"].get("heap_free") for stage in report["stages"] if stage["stage"] == "ttfb"), None
        )
    return LiveEntry(
        device=last.device,
        chip=last.chip,
        as_of=last.transaction_id,
        run=last.run,
        started_at=last.started_at,
        outcome=last.outcome,
        current=last.run == newest_run,
        checks=checks_of(last.stages, failure, asked_health=asked_health, enforced=enforced),
        failure=failure,
        heap_free=heap_free,
    )


# --- the compact form -------------------------------------------------------------------------


def compact(one: LiveEntry) -> dict[str, Any]:
    """As JSON: checks that passed are only counted, and what there is nothing to say about is left out."""
    value: dict[str, Any] = {
        key: getattr(one, key) for key in ("device", "chip", "as_of", "run", "started_at", "outcome", "current")
    }
    value["passed"] = sum(result == PASS for result in one.checks.values())
    for key, result in (("failed", FAIL), ("not_reached", NOT_REACHED)):
        names = [name for name in CHECKS if one.checks[name] == result]
        if names:
            value[key] = names
    if one.failure is not None:
        value["failure"] = dict(one.failure)
    if one.heap_free is not None:
        value["heap_free"] = one.heap_free
    return value


def expand(value: Mapping[str, Any]) -> LiveEntry | None:
    """The entry that `compact` made `value` of; `None` when it is of another shape."""
    try:
        failed, missing = value.get("failed", []), value.get("not_reached", [])
        results = {name: FAIL if name in failed else NOT_REACHED if name in missing else PASS for name in CHECKS}
        if value["passed"] != sum(result == PASS for result in results.values()):
            return None
        words = {key: value[key] for key in ("device", "chip", "as_of", "run", "started_at", "outcome")}
        if not all(isinstance(word, str) for word in words.values()) or not isinstance(value["current"], bool):
            return None
        failure, heap_free = value.get("failure"), value.get("heap_free")
        if heap_free is not None and type(heap_free) is not int:
            return None
        if failure is not None and not isinstance(failure.get("category"), str):
            return None
        return LiveEntry(**words, current=value["current"], checks=results, failure=failure, heap_free=heap_free)
    except (AttributeError, KeyError, TypeError):
        return None


class Merged(NamedTuple):
    """`live-results-all.json`. `unit_tests` is what `--unit-tests` found last, carried on until it is counted again."""

    entries: tuple[LiveEntry, ...]
    unit_tests: Mapping[str, Any] | None = None

    @property
    def good(self) -> bool:
        """May this become the last-good copy? Something was deployed, and nothing failed."""
        return bool(self.entries) and all(one.good for one in self.entries)


def merge(fresh: Sequence[LiveEntry], before: Sequence[LiveEntry], newest_run: str) -> tuple[LiveEntry, ...]:
    """The fresh entries, and those of devices that have no other: carried over, and so not current."""
    names = {one.device for one in fresh}
    carried = [one._replace(current=one.run == newest_run) for one in before if one.device not in names]
    return (*fresh, *carried)


def encode_merged(merged: Merged) -> dict[str, Any]:
    """As JSON."""
    return {
        "schema": LIVE_SCHEMA,
        "unit_tests": merged.unit_tests,
        "devices": [compact(one) for one in merged.entries],
    }


def decode_merged(value: Any) -> Merged:
    """Whatever can be read; a file of another version, or damaged, is as good as none."""
    if not isinstance(value, dict) or value.get("schema") != LIVE_SCHEMA or not isinstance(value.get("devices"), list):
        return Merged(())
    entries = [found for found in map(expand, value["devices"]) if found is not None]
    unit = value.get("unit_tests")
    known = isinstance(unit, dict) and all(type(unit.get(key)) is int for key in ("passed", "failed", "skipped"))
    return Merged(tuple(entries), unit if known else None)
