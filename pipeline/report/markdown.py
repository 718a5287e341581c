"""A report as text for people: Markdown, and the last line on stdout for scripts.

And one transaction as a line of the history, for programs.

Pure: the dict of `report/document.py` in, text out. Does not know events, files or the terminal.
Invariant: no value can change the structure of the page. Values stand in code spans whose fence is longer than any run
of backticks inside; characters that are not printable (line ends, escape codes, bidi controls) are shown by their code.

Layout after the deploy reports of OpenShell: `# title`, bullets `- key: value`, then Plan, Fingerprints, Flash
Digests, Readiness, Durations.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from pipeline.records import json_text
from pipeline.text import quoted, visible, visible_text

NOTHING = "-"
"""Stands for an empty value: a code span cannot be empty."""


def render_markdown(report: Mapping[str, Any]) -> str:
    """The page of one report."""
    parts = [
        section("# Deploy Report", _header(report)),
        *([_failure(report["failure"])] if report["failure"] else []),
        *([section("## Rollback", iter(report["rollback"].items()))] if report["rollback"] else []),
        section("## Plan", iter(report["plan"].items())),
        section("## Fingerprints", _fingerprints(report)),
        section("## Flash Digests", _digests(report)),
        *([size_section(report["size"])] if report.get("size") else []),
        section("## Readiness", _readiness(report)),
        section("## Durations (ms)", _durations(report)),
        budget_section(report["budget"]),
        section("## TTFB (ms)", _ttfb(report["ttfb"])),
    ]
    return "\n".join(parts)


def last_line(report: Mapping[str, Any], *, written: bool = True) -> str:
    """`DEPLOY_TX_ID=... DEPLOY_OUTCOME=... DEPLOY_DEVICE=... DEPLOY_PORT=... DEPLOY_REPORT=...`: one line, in words
    that a POSIX shell can evaluate. No report is named that could not be `written`."""
    device = report["device"]
    pairs = {
        "TX_ID": report["transaction_id"],
        "OUTCOME": report["outcome"] or "",
        "DEVICE": device["name"],
        "PORT": device["port"],
        "REPORT": report["report_path"] if written else "",
    }
    return " ".join(f"DEPLOY_{key}={_word(visible(value)) if value else ''}" for key, value in pairs.items())


def _word(text: str) -> str:
    """One word of a shell, as `shlex.quote` makes it; most need nothing."""
    letters = text.translate(_PLAIN_IN_SHELL)
    if letters.isascii() and (letters.isalnum() or not letters):
        return text
    import shlex

    return shlex.quote(text)


_PLAIN_IN_SHELL = str.maketrans("", "", "_@%+=:,./-")

HISTORY = "history.jsonl"
"""Among the reports: a line per transaction."""

HISTORY_SCHEMA = 1
"""Version of `history_row`. Lines of different versions must not be compared."""

_SIZES = ("image", "flash", "ram")


def history_row(report: Mapping[str, Any], run: str, machine: str, version: str) -> dict[str, Any]:
    """One transaction as numbers, for `history.jsonl`: nothing in it names a person, a path or a port. `run` is shared
    by the devices of one run, `machine` is a digest, `version` is the program's.

    `warm`: nothing was built, restored or written. `phases` holds each measured phase in order; `total_ms` is what the
    user waited for, so their sum and what lies between."""
    totals, budget, failure, ttfb = report["totals"], report["budget"], report["failure"], report["ttfb"]
    size = report.get("size")
    counted = {key: totals[key] for key in ("compiled", "restored", "linked", "bytes_written")}
    return {
        "schema": HISTORY_SCHEMA,
        "transaction_id": report["transaction_id"],
        "run": run or report["transaction_id"],
        "started_at": report["started_at"],
        "machine": machine,
        "version": version,
        "device": report["device"]["name"],
        "chip": report["device"]["chip"],
        "outcome": report["outcome"],
        "profile": report["profile"],
        "toolchain": report["toolchain"],
        "targets": report["targets"],
        "git": report["git"],
        "verified_by": report["plan"]["verified_by"],
        "warm": failure is None and not any(counted.values()),
        **counted,
        "stages": {row["stage"]: row["outcome"] for row in report["stages"]},
        "phases": {row["phase"]: row["measured_ms"] for row in budget["phases"] if row["measured_ms"] is not None},
        "total_ms": budget["total"]["measured_ms"],
        "fits": budget["fits"],
        "size": size and {row["name"]: row["size"] for row in size["totals"] if row["name"] in _SIZES},
        "ttfb": {"schema": ttfb["schema"], "total_ms": ttfb["total_ms"], "segments": ttfb["segments"]},
        "failure": failure and {key: failure[key] for key in ("category", "stage", "user_action")},
    }


def encode_history(row: Mapping[str, Any]) -> bytes:
    """One line of `history.jsonl`."""
    return json_text(row, separators=(",", ":")).encode("ascii") + b"\n"


FOLDED = 5
"""More inputs than that which are met for the first time are one line: a first build has hundreds."""

# --- sections ---------------------------------------------------------------------------------

Bullets = Iterator[tuple[str, Any]]


def section(title: str, bullets: Bullets) -> str:
    """A heading and its bullets, `- key: value`."""
    return "\n".join([title, "", *(_bullets(bullets) or ["Nothing was recorded."]), ""])


def _bullets(bullets: Bullets) -> list[str]:
    return [f"- {_key(key)}: {_value(value)}" for key, value in bullets]


def _header(report: Mapping[str, Any]) -> Bullets:
    device, totals = report["device"], report["totals"]
    yield "transaction_id", report["transaction_id"]
    if report["run"] not in ("", report["transaction_id"]):
        yield "run", report["run"]
    yield "timestamp_utc", report["started_at"]
    yield "outcome", report["outcome"]
    yield "device_name", device["name"]
    yield "device_port", device["port"]
    yield "device_mac", device["mac"]
    yield "device_chip", device["chip"]
    yield "targets_requested", report["targets"]
    yield "build_profile", report["profile"]
    yield "toolchain", report["toolchain"]
    for name in ("build_skipped", "build_ran"):
        if name in report:
            yield name, report[name]
    yield "verify_level", report["verify_level"]
    yield "git_sha", report["git"]["sha"]
    yield "git_dirty", report["git"]["dirty"]
    yield "changed_inputs_count", len(report["changed_inputs"])
    for name in ("compiled", "restored", "linked", "bytes_written"):
        yield name, totals[name]
    asked = [stage["counts"] for stage in report["stages"] if "restored_remote" in stage["counts"]]
    for name in ("restored_remote", "fetched_bytes") if asked else ():
        yield name, sum(counts[name] for counts in asked)
    executed = sum(stage["counts"].get("executed_remote", 0) for stage in report["stages"])
    if executed:
        yield "executed_remote", executed
    if totals["unknown_failures"]:
        yield "unknown_failures", totals["unknown_failures"]
    new = sum(map(_is_first, report["reasons"]))
    if new > FOLDED:
        yield "reason", f"file: {new} inputs for the first time, each a changed_input below"
    for reason in report["reasons"]:
        if new > FOLDED and _is_first(reason):
            continue
        moved = f": {reason['before']} -> {reason['after']}" if reason["before"] or reason["after"] else ""
        yield "reason", f"{reason['kind']} {reason['subject']}{moved}"


def _is_first(reason: Mapping[str, Any]) -> bool:
    """Is it an input that no run before this one has met?"""
    return reason["kind"] == "file" and not reason["before"]


def _failure(failure: Mapping[str, Any]) -> str:
    keys = ("category", "stage", "retryable", "user_action", "where", "message", "hint")
    page = section("## Failure", ((key, failure[key]) for key in keys))
    return page + "\n" + quoted_block(failure["detail"]) + "\n" if failure["detail"] else page


def _fingerprints(report: Mapping[str, Any]) -> Bullets:
    for row in report["fingerprints"]:
        for key in ("previous", "current", "state_written"):
            yield f"{row['name']}_{key}", row[key]
    for name in report["changed_inputs"]:
        yield "changed_input", name


def _digests(report: Mapping[str, Any]) -> Bullets:
    for row in report["regions"]:
        name = row["name"]
        yield f"{name}_offset", f"{row['offset']:#x}"
        yield f"{name}_size", row["size"]
        yield f"{name}_device_md5_before", row["device_md5_before"]
        yield f"{name}_image_md5_target", row["md5"]
        yield f"{name}_image_sha256", row["sha256"]
        undone = "planned only" if row["bytes_written"] == 0 else "not finished"
        yield f"{name}_action", row["action"] if row["done"] else f"{row['action']} ({undone})"
        yield f"{name}_bytes_written", row["bytes_written"]


LARGEST = 20
"""Archives in a page; the JSON has more."""


def size_section(size: Mapping[str, Any]) -> str:
    """What the application takes, in total; by section and by archive where that is not what the last page said."""
    from pipeline.report.size import archives_table, is_moved, sections_table, totals_table

    shown = [totals_table(size)]
    if is_moved(size):
        shown += [sections_table(size), archives_table(size, LARGEST)]
    # A name from a map may hold anything.
    tables = [(head, [(code(name), *cells) for name, *cells in rows]) for head, rows in shown if rows]
    lines = [part for table in tables for part in (markdown_table(*table), "")]
    if size["note"]:
        lines += [f"By section only: {code(size['note'])}", ""]
    return "\n".join(["## Size (bytes)", "", *lines])


def _readiness(report: Mapping[str, Any]) -> Bullets:
    readiness = report["readiness"]
    yield "readiness_gate_status", readiness["status"]
    yield "readiness_failure_reason", readiness["failure_reason"]
    yield "readiness_until", readiness["until"]
    yield "readiness_ready_ms", readiness["ready_ms"]
    yield "app_elf_sha256", readiness["app_elf_sha256"]
    if readiness["note"]:
        yield "note", readiness["note"]
    if readiness["polls"]:
        yield "polls", readiness["polls"]
    for module in readiness["modules"]:
        yield f"module_{module['name']}", module_line(module)


def module_line(module: Mapping[str, Any]) -> str:
    """`ok, 256 bytes held, 3 of 64 samples`: what a firmware said of one module."""
    words = ["ok" if module["setup_ok"] else "not set up", *(["at fault"] if module["at_fault"] else [])]
    words += [] if module["held"] is None else [f"{module['held']} bytes held"]
    return ", ".join([*words, *filter(None, [module["health"]])])


def _durations(report: Mapping[str, Any]) -> Bullets:
    outcomes = {row["stage"]: row["outcome"] for row in report["stages"]}
    for row in report["budget"]["phases"]:
        words = [outcomes[row["phase"]]] if row["phase"] in outcomes else []
        yield row["phase"], _TimedPhase(row, words)
    if report["totals"]["waiting_ms"]:
        yield "waiting", report["totals"]["waiting_ms"]
    yield "remainder", report["totals"]["remainder_ms"]
    yield "total", _TimedPhase(report["budget"]["total"], [])


def _ttfb(ttfb: Mapping[str, Any]) -> Bullets:
    yield "status", ttfb["status"]
    yield "from", ttfb["from"]
    for name, value in ttfb["segments"].items():
        yield name.removesuffix("_ms"), value
    yield "remainder", ttfb["remainder_ms"]
    yield "total", ttfb["total_ms"]
    missing = ttfb["timing_unavailable_reason"]
    for reason in dict.fromkeys(missing.values()):
        marks = ", ".join(mark for mark in missing if missing[mark] == reason)
        yield "timing_unavailable_reason", f"{marks}: {reason}"
    for mark, note in ttfb["notes"].items():
        yield f"{mark}_note", note


# --- the budget tree --------------------------------------------------------------------------

BUDGET_HEAD = ("phase", "budget", "measured", "margin", "verdict")


_FITS = (("bottleneck", "bottleneck"), ("total_fits", "fits"), ("total_enforced", "enforced"))


_PART: Mapping[str, Any] = MappingProxyType({"limit_ms": None, "margin_ms": None, "verdict": None})


def budget_rows(budget: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The total, and below it the phases that have a budget or took time. Phases may trade; the total decides."""
    rows = [_budget_row("total", budget["total"])]
    for row in budget["phases"]:
        if row["limit_ms"] is not None or row["measured_ms"]:
            rows.append(_budget_row(f"- {row['phase']}", row))
            own = [part for part in budget.get("parts", ()) if part["phase"] == row["phase"]]
            rows += [_budget_row(f"  - {part['part']}", {**_PART, "measured_ms": part["measured_ms"]}) for part in own]
    return rows


def _budget_row(name: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    numbers = (row["limit_ms"], row["measured_ms"], row["margin_ms"])
    return (name, *(NOTHING if value is None else str(value) for value in numbers), row["verdict"] or NOTHING)


def budget_section(budget: Mapping[str, Any]) -> str:
    """The tree as Markdown, and where time can be gained."""
    table = markdown_table(BUDGET_HEAD, budget_rows(budget))
    fits = _bullets((key, budget[name]) for key, name in _FITS)
    return "\n".join(["## Budget (ms)", "", table, "", *fits, ""])


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table. What would end a cell, a line or the table is shown by its escape. Every deploy writes one, and
    importing tabulate costs 40 ms: hence by hand."""
    cells = [[visible(cell).replace("|", "\\|") for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [cells[0], ["-" * width for width in widths], *cells[1:]]
    return "\n".join("| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines)


# --- values -----------------------------------------------------------------------------------


class _TimedPhase:
    """A duration with its budget, as a bullet's value."""

    def __init__(self, row: Mapping[str, Any], words: list[str]) -> None:
        self._row = row
        self._words = words

    def __str__(self) -> str:
        row, words = self._row, list(self._words)
        if row["limit_ms"] is not None:
            words.append(f"budget {code(row['limit_ms'])}")
            if row["margin_ms"] is not None:
                words.append(f"margin {code(row['margin_ms'])}")
            words.append(row["verdict"])
        measured = code(NOTHING if row["measured_ms"] is None else row["measured_ms"])
        return f"{measured} ({', '.join(words)})" if words else measured


def _key(text: str) -> str:
    """A bullet's key. Names of regions and marks come from outside, so they may not carry Markdown."""
    letters = text.replace("_", "").replace(".", "").replace("-", "")
    plain = text.isascii() and (letters.isalnum() or (not letters and text))
    return text if plain else code(text)


def _value(value: Any) -> str:
    if isinstance(value, _TimedPhase):
        return str(value)
    if isinstance(value, bool):
        return code("true" if value else "false")
    if isinstance(value, list):
        return " ".join(code(item) for item in value) or code(NOTHING)
    return code(NOTHING if value is None or value == "" else value)


def code(value: Any) -> str:
    """`value` as a Markdown code span that shows exactly its visible form (CommonMark 0.31, section 6.1)."""
    text = visible(str(value)) or NOTHING
    fence = "`" * (_longest_run(text) + 1)
    # One space on each side is stripped again, where a backtick would touch the fence or spaces would be stripped.
    edge = text[0] in "` " or text[-1] in "` "
    return f"{fence} {text} {fence}" if edge and text.strip(" ") else f"{fence}{text}{fence}"


def code_block(text: str) -> str:
    """`text` in a fenced block, line by line; the fence is longer than any inside."""
    body = visible_text(text.replace("\r\n", "\n").rstrip("\n"))
    fence = "`" * max(3, _longest_run(body) + 1)
    return f"{fence}text\n{body}\n{fence}"


def quoted_block(text: str) -> str:
    """What a device or another program said, in a fenced block, each line marked."""
    return code_block("\n".join(quoted(text.rstrip("\n"))))


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text))) if "`" in text else 0
