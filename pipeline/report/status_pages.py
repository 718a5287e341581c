"""The status of a project's devices as Markdown pages.

Pure: entries and history in, pages out. Does not know files. Invariant: a page grows by one line per device or check,
so that sixteen devices still fit a screen or two; failures are told in one line each and stand whole in the JSON.

    index.md           one row per device                  at most 9 + devices lines
    live-results.md    checks x devices, split by chip     at most 2 + 14 per chip + 1 per failure or carried device,
                       live tests x devices below          and 5 per chip + 1 per test and per failure
    deploy-summary.md  the newest run: its devices' times  at most 6 + devices lines
    test-results.md    the unit tests, file by file        only when they were read
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.report.history import HistoryRow, Rate, by_device, comparable, failure_rates
from pipeline.report.live_results import CHECKS, FAIL, PASS, LiveEntry, Merged
from pipeline.report.live_tests import ERROR, FAILED, SuiteResult, matrix, suite_text
from pipeline.report.markdown import NOTHING, code, markdown_table, quoted_block
from pipeline.statistics import quantile
from pipeline.text import visible

NEWEST = 50
"""Deploys of a device that its p50 is made of."""


class StatusDevice(NamedTuple):
    """A device of `deploy.toml`: what it is called and, where that is said, its chip."""

    name: str
    chip: str


def pages(
    devices: Sequence[StatusDevice],
    merged: Merged,
    rows: Sequence[HistoryRow],
    suites: Sequence[SuiteResult] = (),
) -> dict[str, str]:
    """File name -> page. `suites`: the live tests of devices, and of the firmware as a process of this machine."""
    found = {one.device: one for one in merged.entries}
    return {
        "index.md": index_page(devices, found, merged.unit_tests, rows, suites),
        "live-results.md": live_page(devices, found, suites),
        "deploy-summary.md": summary_page(rows),
    }


def short_chip(chip: str) -> str:
    """`esp32c3` for `esp32c3`, `ESP32-C3 (QFN32) (revision v0.4)`, `esp32-c3 rev 3`: the type alone, as esptool spells
    its `--chip`."""
    name = re.split(r"[\s(]|-?rev", chip.strip(), maxsplit=1, flags=re.IGNORECASE)[0]
    return re.sub(r"[^a-z0-9]", "", name.lower()) or "unknown chip"


# --- index ------------------------------------------------------------------------------------


def index_page(
    devices: Sequence[StatusDevice],
    entries: Mapping[str, LiveEntry],
    unit_tests: Mapping[str, Any] | None,
    rows: Sequence[HistoryRow],
    suites: Sequence[SuiteResult] = (),
) -> str:
    """One row per device, then the failure rates."""
    more = ("live tests",) if suites else ()
    head = ("device", "chip", "unit tests", *more, "live results", "last tx", "outcome", "p50 deploy", "heap free")
    tested = {suite.device: suite_text(suite) for suite in suites}
    own = by_device(rows)
    table = []
    for device in devices:
        one = entries.get(device.name)
        table.append(
            (
                code(device.name),
                short_chip(one.chip if one is not None and one.chip else device.chip),
                unit_text(unit_tests),
                *((tested.get(device.name, NOTHING),) if suites else ()),
                NOTHING if one is None else live_text(one),
                "never deployed" if one is None else one.as_of + ("" if one.current else " (earlier run)"),
                NOTHING if one is None else one.outcome or NOTHING,
                p50_text(own.get(device.name, [])),
                NOTHING if one is None or one.heap_free is None else f"{one.heap_free // 1024} KB",
            )
        )
    rates = f"Failure rates: {'; '.join(map(rate_text, failure_rates(rows)))}."
    see = "See [live results](live-results.md) and the [newest run](deploy-summary.md)."
    return "\n".join(["# Status", "", markdown_table(head, table), "", rates, "", see, ""])


def unit_text(unit_tests: Mapping[str, Any] | None) -> str:
    """`364 passed`, `2 of 364 failed`."""
    if unit_tests is None:
        return NOTHING
    passed, failed = unit_tests["passed"], unit_tests["failed"]
    return f"{failed} of {passed + failed} failed" if failed else f"{passed} passed"


def live_text(one: LiveEntry) -> str:
    """`6 passed`, `FAIL boot (panic)`, `2 passed (interrupted)`."""
    failed = [name for name in CHECKS if one.checks[name] == FAIL]
    passed = f"{sum(result == PASS for result in one.checks.values())} passed"
    return (f"FAIL {', '.join(failed)}" if failed else passed) + (
        f" ({one.failure['category']})" if one.failure else ""
    )


def p50_ms(rows: Sequence[HistoryRow]) -> int | None:
    """The median of a device's newest complete deploys on this machine."""
    totals = [row.total_ms for row in comparable(rows)[-NEWEST:] if row.total_ms is not None]
    return round(quantile(totals, 0.5)) if totals else None


def p50_text(rows: Sequence[HistoryRow]) -> str:
    median = p50_ms(rows)
    return NOTHING if median is None else f"{median} ms (n={len(comparable(rows)[-NEWEST:])})"


def rate_text(rate: Rate) -> str:
    """`all runs 3 of 40 (7.5 %)`."""
    percent = "" if rate.percent is None else f" ({rate.percent:.1f} %)"
    return f"{rate.name} {rate.failed} of {rate.runs}{percent}"


# --- live results -----------------------------------------------------------------------------


def live_page(
    devices: Sequence[StatusDevice], entries: Mapping[str, LiveEntry], suites: Sequence[SuiteResult] = ()
) -> str:
    """Checks x devices, one table per type of chip; below it what failed and what is older than the newest run. Then
    live tests x devices, likewise."""
    chips: dict[str, list[LiveEntry]] = {}
    for device in devices:
        one = entries.get(device.name)
        if one is not None:
            chips.setdefault(short_chip(one.chip or device.chip), []).append(one)
    lines = ["# Live results", ""]
    for chip, column in chips.items():
        head = ("check", *(code(one.device) for one in column))
        table = markdown_table(head, [(check, *(one.checks[check] for one in column)) for check in CHECKS])
        lines += [f"## {chip}", "", table, "", *map(_note, filter(_worth_a_line, column)), ""]
    if not chips:
        lines += ["Nothing was deployed yet.", ""]
    return "\n".join([*lines, *_tests(suites)]).rstrip("\n") + "\n"


def _tests(suites: Sequence[SuiteResult]) -> Iterator[str]:
    """Tests x devices, one table per type of chip, and a line for each that failed."""
    chips: dict[str, list[SuiteResult]] = {}
    for suite in suites:
        chips.setdefault(short_chip(suite.chip), []).append(suite)
    for chip, column in chips.items():
        head = ("test", *(code(suite.device) for suite in column))
        rows = [(code(name), *cells) for name, *cells in matrix(column)]
        yield from (f"## Live tests: {chip}", "", markdown_table(head, rows), "")
        for suite in column:
            bad = [case for case in suite.cases if case.outcome in (FAILED, ERROR)]
            yield from (f"- {code(suite.device)}: {code((case.message or case.name).splitlines()[0])}" for case in bad)
            if bad:
                yield ""


def _worth_a_line(one: LiveEntry) -> bool:
    return not one.current or one.failure is not None


def _note(one: LiveEntry) -> str:
    parts = [] if one.current else [f"as of {visible(one.as_of)}"]
    if one.failure is not None:
        where = f"{one.failure['where']}: " if one.failure.get("where") else ""
        said = where + one.failure.get("message", "its report is gone")
        parts.append(f"{visible(one.failure['category'])}: {code(said)}")
    return f"- {code(one.device)}: {'; '.join(parts)}"


# --- the newest run ---------------------------------------------------------------------------

_SUMMARY = ("fingerprint", "compile", "link", "verify-flash", "reflash", "reattach", "ttfb")


def summary_page(rows: Sequence[HistoryRow]) -> str:
    """The newest run in a header line and one row per device."""
    if not rows:
        return "# Deploy summary\n\nNothing was deployed yet.\n"
    mine = [row for row in rows if row.run == rows[-1].run]
    head = ("device", "outcome", *_SUMMARY, "total ms")
    table = []
    for row in mine:
        cells = [str(row.phases[name]) if name in row.phases else NOTHING for name in _SUMMARY]
        total = NOTHING if row.total_ms is None else str(row.total_ms)
        table.append((code(row.device), row.outcome or NOTHING, *cells, total))
    first = mine[0]
    header = f"Run {first.run}, {first.started_at[:19].replace('T', ' ')} UTC, version {first.version}."
    return "\n".join(["# Deploy summary", "", header, "", markdown_table(head, table), ""])


# --- unit tests -------------------------------------------------------------------------------


class SuiteFile(NamedTuple):
    """One file (or suite) of unit tests. `failures`: (test, text), whole."""

    name: str
    passed: int
    skipped: int
    failures: tuple[tuple[str, str], ...]


def unit_page(files: Sequence[SuiteFile]) -> str:
    """Every file with its anchor, and failures whole."""
    lines = ["# Test results", ""]
    for one in sorted(files):
        counts = [f"{one.passed} passed", f"{len(one.failures)} failed", f"{one.skipped} skipped"]
        lines += [f"## {one.name}", "", ", ".join(counts), ""]
        for test, text in one.failures:
            lines += [f"FAIL {code(test)}", "", quoted_block(text or NOTHING), ""]
    return "\n".join(lines).rstrip("\n") + "\n"
