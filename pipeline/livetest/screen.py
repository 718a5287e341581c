"""What people see of live tests: a line per test that did not pass, and one per device.

Pure but for the callable that prints. Invariant: what a device said is marked as its words, and can steer no terminal.
"""

from __future__ import annotations

from collections.abc import Callable

from pipeline.livetest.runner import LiveResult
from pipeline.report.live_tests import ERROR, FAILED, PASSED, SKIPPED, SuiteResult
from pipeline.text import quoted, visible

DETAIL_LINES = 20


class Told:
    """Of one device."""

    def __init__(self, device: str, say: Callable[[str], None]) -> None:
        self._device, self._say = device, say

    def result(self, result: LiveResult) -> None:
        """One test, as it ended."""
        if result.ok:
            return
        lines = [f"FAIL {visible(result.name)} ({self._device})"]
        lines += [visible(line) for line in result.message.splitlines()]
        detail = result.detail.splitlines()
        if len(detail) > DETAIL_LINES:
            lines.append(f"  ... {len(detail) - DETAIL_LINES} more lines in the results")
        lines += [f"  {line}" for line in quoted("\n".join(detail[-DETAIL_LINES:]))]
        self._say("\n".join(lines))

    def suite(self, suite: SuiteResult) -> None:
        """All of them."""
        parts = [f"{suite.count(PASSED)} passed"]
        for outcome in (FAILED, ERROR, SKIPPED):
            if suite.count(outcome):
                parts.append(f"{suite.count(outcome)} {outcome}")
        self._say(f"{suite.kind} tests on {self._device}: {', '.join(parts)} in {suite.duration_ms} ms")
