"""A run as JUnit XML: one suite per device with one case per stage, and one per device with its live tests.

Pure: reports in, XML text out. Does not know files. Written for the strictest schema in use (Ant's, as published by
Windy Road: order of elements, `hostname`, time stamps without a zone), which is also valid for Jenkins' `junit-10.xsd`.
Invariant: the text is well-formed XML 1.0 whatever a device sent; `tests`, `failures` and `errors` are those of the
cases. The result of a host-only run is a suite too.

A failed stage is a `failure`. An `error` is what is no verdict about the stage: interrupted, or a failure that
belongs to no stage. A stage that was not reached is `skipped`, one that had nothing to do is passed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.model import StageOutcome
from pipeline.report.live_tests import FAILED, PASSED, SKIPPED, CaseResult, SuiteResult
from pipeline.text import quoted, visible, visible_text

_HOSTNAME = "localhost"
"""Required by the schema; the machine's own name is deliberately omitted."""


class _Case(NamedTuple):
    name: str
    duration_ms: int
    kind: str
    """`""`, `failure`, `error` or `skipped`."""
    body: str = ""


def render_junit(reports: Sequence[Mapping[str, Any]], suites: Sequence[SuiteResult] = ()) -> str:
    """The reports of one run (`report/document.py`) and the tests that ran with it, as one document."""
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', "<testsuites>"]
    for number, report in enumerate(reports):
        lines += _of_report(number, report)
    for number, suite in enumerate(suites, len(reports)):
        lines += _of_tests(number, suite)
    return "\n".join([*lines, "</testsuites>", ""])


def _of_report(number: int, report: Mapping[str, Any]) -> Iterator[str]:
    device = report["device"]["name"] or "host"
    started_at, took_ms = report["started_at"], report["budget"]["total"]["measured_ms"] or 0
    head = _Head(number, f"deploy {device}", started_at, took_ms, f"hotplate.{device}")
    return _suite(head, list(_properties(report)), list(_cases(report)))


def _of_tests(number: int, suite: SuiteResult) -> Iterator[str]:
    head = _Head(
        number, f"{suite.kind} {suite.device}", suite.at, suite.duration_ms, f"hotplate.{suite.device}.{suite.kind}"
    )
    properties = [("chip", suite.chip), ("transaction_id", suite.as_of)]
    return _suite(head, [pair for pair in properties if pair[1]], [_test_case(case) for case in suite.cases])


def _test_case(case: CaseResult) -> _Case:
    if case.outcome == PASSED:
        return _Case(case.name, case.duration_ms, "")
    if case.outcome == SKIPPED:
        return _Case(case.name, case.duration_ms, "skipped", f"<skipped{_attributes({'message': case.message})}/>")
    kind = "failure" if case.outcome == FAILED else "error"
    attributes = {"message": case.message, "type": "test_failed"}
    body = "\n".join([*map(visible, case.message.splitlines()), *quoted(case.detail)])
    return _Case(case.name, case.duration_ms, kind, f"<{kind}{_attributes(attributes)}>{_escape(body)}</{kind}>")


class _Head(NamedTuple):
    number: int
    name: str
    started_at: str
    took_ms: int
    classname: str


def _suite(about: _Head, properties: Sequence[tuple[str, Any]], cases: Sequence[_Case]) -> Iterator[str]:
    counts = {
        "tests": len(cases),
        "failures": sum(case.kind == "failure" for case in cases),
        "errors": sum(case.kind == "error" for case in cases),
        "skipped": sum(case.kind == "skipped" for case in cases),
    }
    head = {
        "id": about.number,
        "name": about.name,
        "package": "hotplate",
        "hostname": _HOSTNAME,
        "timestamp": about.started_at[:19],
        **counts,
        "time": _seconds(about.took_ms),
    }
    yield f"  <testsuite{_attributes(head)}>"
    yield "    <properties>"
    for name, value in properties:
        yield f"      <property{_attributes({'name': name, 'value': value})}/>"
    yield "    </properties>"
    for case in cases:
        attributes = {"classname": about.classname, "name": case.name, "time": _seconds(case.duration_ms)}
        if not case.kind:
            yield f"    <testcase{_attributes(attributes)}/>"
        else:
            yield f"    <testcase{_attributes(attributes)}>"
            yield f"      {case.body}"
            yield "    </testcase>"
    yield "    <system-out/>"
    yield "    <system-err/>"
    yield "  </testsuite>"


def _cases(report: Mapping[str, Any]) -> Iterator[_Case]:
    failure = report["failure"]
    shown = False
    for row in report["stages"]:
        outcome, duration_ms = row["outcome"], row["duration_ms"] or 0
        if failure and failure["stage"] == row["stage"] and outcome != StageOutcome.NOT_RUN:
            shown = True
            kind = "error" if failure["category"] == "interrupted" else "failure"
            yield _Case(row["stage"], duration_ms, kind, _failure(kind, failure))
        elif outcome == StageOutcome.NOT_RUN:
            yield _Case(row["stage"], 0, "skipped", "<skipped/>")
        elif outcome in (StageOutcome.FAILED, StageOutcome.INTERRUPTED):
            yield _Case(row["stage"], duration_ms, "error", f'<error message="{outcome}" type="{outcome}"/>')
        else:
            yield _Case(row["stage"], duration_ms, "")
    if failure and not shown:
        yield _Case("run", 0, "error", _failure("error", failure))


def _failure(kind: str, failure: Mapping[str, Any]) -> str:
    attributes = {"message": failure["message"], "type": failure["category"]}
    told = (f"{failure['where']}: error: {failure['message']}", f"hint: {failure['hint']}")
    keys = f"retryable: {str(failure['retryable']).lower()}, user action: {failure['user_action']}"
    body = "\n".join([*map(visible, (*told, keys)), *quoted(failure["detail"])])
    return f"<{kind}{_attributes(attributes)}>{_escape(body)}</{kind}>"


def _properties(report: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "transaction_id", report["transaction_id"]
    yield "outcome", report["outcome"] or "done"
    for key in ("chip", "mac", "port"):
        if report["device"][key]:
            yield key, report["device"][key]
    yield "profile", report["profile"]
    yield "toolchain", report["toolchain"]
    if report["git"]["sha"]:
        yield "git_sha", report["git"]["sha"] + ("-dirty" if report["git"]["dirty"] else "")
    for key, value in report["totals"].items():
        if value is not None:
            yield key, value
    size = report.get("size")
    for row in size["totals"] if size else ():
        yield f"size_{row['name']}", row["size"]


def _attributes(values: Mapping[str, Any]) -> str:
    return "".join(f' {key}="{_escape(visible_text(str(value)), quote=True)}"' for key, value in values.items())


def _escape(text: str, *, quote: bool = False) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace('"', "&quot;").replace("\n", "&#10;").replace("\t", "&#9;") if quote else text


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds // 1000}.{milliseconds % 1000:03d}"
