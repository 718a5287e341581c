"""Live tests and unit tests of one device as data: what a results file holds, and the rows of the status matrix.

Pure: values in, values out. Does not know files or how a test is run. Invariant: `decode(encode(suite))` is `suite`;
what passed is only named, a failure is never shortened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cache.named_tuple import NamedTuple

SUITE_SCHEMA = 1
LIVE, UNIT = "live", "unit"
PASSED, FAILED, SKIPPED, ERROR = "passed", "failed", "skipped", "error"


class CaseResult(NamedTuple):
    """One test. `outcome`: passed, failed, skipped, or error (no verdict). `message` and `detail` of what did not pass;
    of a skipped one, why."""

    name: str
    outcome: str
    duration_ms: int
    message: str = ""
    detail: str = ""


class SuiteResult(NamedTuple):
    """The tests of one device (`host`: of this machine) as they ended last. `kind`: `live` or `unit`; `as_of`: the
    transaction that had deployed, `""` where none had; `at`: UTC. `heap_free` in bytes, if a test saw it."""

    device: str
    chip: str
    kind: str
    at: str
    as_of: str
    cases: tuple[CaseResult, ...]
    duration_ms: int = 0

    def count(self, outcome: str) -> int:
        return sum(case.outcome == outcome for case in self.cases)

    @property
    def ok(self) -> bool:
        return all(case.outcome in (PASSED, SKIPPED) for case in self.cases)


def encode_suite(suite: SuiteResult) -> dict[str, Any]:
    """As JSON."""
    return {
        "schema": SUITE_SCHEMA,
        **{key: getattr(suite, key) for key in ("device", "chip", "kind", "at", "as_of", "duration_ms")},
        "passed": {case.name: case.duration_ms for case in suite.cases if case.outcome == PASSED},
        "others": [case._asdict() for case in suite.cases if case.outcome != PASSED],
        "order": [case.name for case in suite.cases],
    }


def decode_suite(value: Any) -> SuiteResult | None:
    """Whatever can be read; a file of another version, or damaged, is as good as none."""
    try:
        if value["schema"] != SUITE_SCHEMA:
            return None
        cases = {name: CaseResult(name, PASSED, duration) for name, duration in value["passed"].items()}
        cases.update({row["name"]: CaseResult(**row) for row in value["others"]})
        words = {key: value[key] for key in ("device", "chip", "kind", "at", "as_of")}
        if not all(isinstance(word, str) for word in words.values()) or type(value["duration_ms"]) is not int:
            return None
        if not all(_is_right(case) for case in cases.values()):
            return None
        ordered = tuple(cases[name] for name in value["order"])
        return SuiteResult(**words, cases=ordered, duration_ms=value["duration_ms"])
    except (AttributeError, KeyError, TypeError):
        return None


def _is_right(case: CaseResult) -> bool:
    texts = (case.name, case.outcome, case.message, case.detail)
    return all(isinstance(text, str) for text in texts) and type(case.duration_ms) is int


def suite_text(suite: SuiteResult | None) -> str:
    """`12 passed`, `FAIL 2 of 12`, `-`: one cell."""
    if suite is None or not suite.cases:
        return "-"
    bad = suite.count(FAILED) + suite.count(ERROR)
    return f"FAIL {bad} of {len(suite.cases)}" if bad else f"{suite.count(PASSED)} passed"


_CELLS = {PASSED: "pass", FAILED: "FAIL", SKIPPED: "skip", ERROR: "ERROR"}


def matrix(suites: Sequence[SuiteResult]) -> list[tuple[str, ...]]:
    """Rows of tests x devices: the name, then a cell per suite (`-`: it has no such test)."""
    names = sorted({case.name for suite in suites for case in suite.cases})
    columns: list[Mapping[str, str]] = [{case.name: case.outcome for case in suite.cases} for suite in suites]
    return [(name, *(_CELLS.get(column.get(name, ""), "-") for column in columns)) for name in names]
