"""`doit status`: read the history and the newest reports, write the status pages.

Knows files; what stands on the pages is `report/status_pages.py`, what an entry is `report/live_results.py`. Opens no
port, runs nothing. Invariant: pages and JSON are written whole or not at all, and an input that is missing or damaged
only makes them say less.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.durable import read_file, write_atomic
from pipeline.cli.report_view import from_id
from pipeline.config.values import HOST
from pipeline.failures import fail
from pipeline.livetest.files import load_suites
from pipeline.model import Failure, FailureCategory
from pipeline.records import json_text, parse_json
from pipeline.report.history import DeployHistory, by_device, failure_rates
from pipeline.report.history_file import read_history
from pipeline.report.live_results import Merged, decode_merged, encode_merged, entry, merge
from pipeline.report.live_tests import LIVE, PASSED, UNIT, SuiteResult
from pipeline.report.markdown import HISTORY
from pipeline.report.status_pages import StatusDevice, SuiteFile, live_text, p50_text, pages, rate_text, unit_page

if TYPE_CHECKING:
    from pipeline.run.project import Project

ALL = "live-results-all.json"
LAST_GOOD = "live-results-all-last-good.json"


def status_text(project: Project, output: str, unit_tests: str) -> str | Failure:
    """Write the pages into `output` (default: `status/` beside the reports) and say in a few lines what they say."""
    directory = Path.cwd() / output if output else project.reports_dir / "status"
    history = read_history(project.reports_dir)
    files: list[SuiteFile] | None = None
    if unit_tests:
        found = read_junit(Path(unit_tests))
        if isinstance(found, Failure):
            return found
        files = found
    suites = list(load_suites(project.state_dir))
    merged = _merged(project, history, decode_merged(_json(directory / ALL)), files or _unit_files(suites))
    devices = [StatusDevice(device.name, device.chip) for device in project.config.devices]
    configured = {HOST, *(device.name for device in devices)}
    live = [suite for suite in suites if suite.kind == LIVE and suite.device in configured]
    texts = pages(devices, merged, history.rows, sorted(live, key=lambda suite: suite.device))
    if files is not None:
        texts["test-results.md"] = unit_page(files)
    texts |= _results(merged)
    try:
        for name, page in texts.items():
            write_atomic(directory / name, page.encode("utf-8", "replace"), durable=False)
    except OSError as error:
        message = f"cannot be written: {error.strerror}"
        hint = "name a directory that you can write to with --output"
        return fail(FailureCategory.CONFIG_ERROR, stage=None, where=str(directory), message=message, hint=hint)
    return "\n".join([*_screen(devices, merged, history), f"{_shown(project, directory / 'index.md')}", ""])


def _unit_files(suites: Iterable[SuiteResult]) -> list[SuiteFile] | None:
    """What `doit host` ran, where nobody named the results of other unit tests."""
    found = [
        SuiteFile(case.name, int(case.outcome == PASSED), 0, ((case.name, case.detail),) if case.detail else ())
        for suite in suites
        if suite.kind == UNIT
        for case in suite.cases
    ]
    return found or None


def refresh_results(project: Project) -> str:
    """Write the merged results beside the status pages as the last run left every device; a line about what could not
    be written, `""` if all was."""
    directory = project.reports_dir / "status"
    merged = _merged(project, read_history(project.reports_dir), decode_merged(_json(directory / ALL)), None)
    try:
        for name, text in _results(merged).items():
            write_atomic(directory / name, text.encode("utf-8", "replace"), durable=False)
    except OSError as error:
        return f"{_shown(project, directory / ALL)}: the merged results cannot be written ({error.strerror})"
    return ""


def _results(merged: Merged) -> dict[str, str]:
    """File name -> text."""
    text = json_text(encode_merged(merged), indent=1) + "\n"
    return {ALL: text, LAST_GOOD: text} if merged.good else {ALL: text}


def _merged(project: Project, history: DeployHistory, before: Merged, files: list[SuiteFile] | None) -> Merged:
    newest_run = history.rows[-1].run if history.rows else ""
    configured = {device.name for device in project.config.devices}
    fresh = [
        entry(rows[-1], from_id(project, rows[-1].transaction_id), newest_run)
        for name, rows in by_device(history.rows).items()
        if name in configured
    ]
    # A report that was removed says nothing any more; what was written down while it was there still does.
    told = {one.as_of: one for one in before.entries}
    kept = [
        told[one.as_of]._replace(current=one.current)
        if one.as_of in told and from_id(project, one.as_of) is None
        else one
        for one in fresh
    ]
    old = [one for one in before.entries if one.device in configured]
    unit = before.unit_tests if files is None else _counted(files)
    return Merged(merge(kept, old, newest_run), unit)


def _counted(files: Iterable[SuiteFile]) -> dict[str, int]:
    files = list(files)
    return {
        "passed": sum(one.passed for one in files),
        "failed": sum(len(one.failures) for one in files),
        "skipped": sum(one.skipped for one in files),
    }


def _screen(devices: list[StatusDevice], merged: Merged, history: DeployHistory) -> list[str]:
    """What fits 80 columns."""
    entries = {one.device: one for one in merged.entries}
    own = by_device(history.rows)
    lines = []
    for device in devices:
        one = entries.get(device.name)
        said = "never deployed" if one is None else live_text(one)
        lines.append(f"{device.name:<14} {said:<32} p50 {p50_text(own.get(device.name, []))}"[:80].rstrip())
    lines += [f"failures: {rate_text(rate)}" for rate in failure_rates(history.rows)]
    if history.damaged:
        lines.append(f"note: {history.damaged} lines of {HISTORY} could not be read")
    if history.other_schema:
        lines.append(f"note: {history.other_schema} lines of {HISTORY} are of another version and were not compared")
    return lines


def _shown(project: Project, path: Path) -> str:
    return path.relative_to(project.root).as_posix() if path.is_relative_to(project.root) else str(path)


def _json(path: Path) -> Any:
    try:
        return parse_json(read_file(str(path)))
    except (OSError, ValueError, RecursionError):
        return None


# --- unit tests -------------------------------------------------------------------------------


def read_junit(path: Path) -> list[SuiteFile] | Failure:
    """The unit tests of a JUnit XML file (`pytest --junitxml`, CTest, ...), by file or class."""
    from xml.etree import ElementTree

    try:
        root = ElementTree.fromstring(read_file(str(path)))
    except OSError as error:
        return _bad(path, f"cannot be read: {error.strerror}")
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        return _bad(path, f"is no XML: {error}")
    if root.tag not in ("testsuites", "testsuite"):
        return _bad(path, f"is no JUnit XML: it holds <{root.tag}>")
    found: dict[str, SuiteFile] = {}
    for case in root.iter("testcase"):
        name = case.get("file") or case.get("classname") or "tests"
        one = found.get(name, SuiteFile(name, 0, 0, ()))
        bad = next((child for child in case if child.tag in ("failure", "error")), None)
        if bad is not None:
            text = bad.text or bad.get("message") or ""
            one = one._replace(failures=(*one.failures, (case.get("name") or "", text)))
        elif any(child.tag == "skipped" for child in case):
            one = one._replace(skipped=one.skipped + 1)
        else:
            one = one._replace(passed=one.passed + 1)
        found[name] = one
    return list(found.values())


def _bad(path: Path, message: str) -> Failure:
    hint = "name the file that your test runner wrote, for example with `pytest --junitxml FILE`"
    return fail(FailureCategory.CONFIG_ERROR, stage=None, where=str(path), message=message, hint=hint)
