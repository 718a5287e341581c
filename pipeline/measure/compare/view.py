"""The gate's written conclusion as Markdown.

Pure. Does not know how the evidence was gathered. Invariant: it holds the verdict with its reasons, every figure behind
it, the command that makes it again, and the transaction ids of all runs that it rests on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cache.named_tuple import NamedTuple
from pipeline.config.schema import GateConfig as Thresholds
from pipeline.measure.compare.decision import Conclusion, Effect, FlashCheck, Pair, Population, Shares
from pipeline.measure.page import NOTHING, device_fact, git_fact, machine_fact
from pipeline.report.markdown import markdown_table
from pipeline.statistics import summary


class Gated(NamedTuple):
    """One gate: what was asked, what was found."""

    phase: str
    candidate: str
    baseline: str
    command: str
    at: str
    machine: Mapping[str, str]
    device: str
    port: str
    profile: str
    sha: str
    dirty: bool
    schema: int
    limits: Thresholds
    population: Population
    pairs: tuple[Pair, ...]
    dropped: tuple[str, ...]
    flash: tuple[FlashCheck, ...]
    conclusion: Conclusion


def render(gated: Gated) -> str:
    """The report of a gate; a pure function of what was found."""
    ended = gated.conclusion
    lines = [
        f"# Gate: {gated.candidate} instead of {gated.baseline} for {gated.phase}: {ended.verdict}",
        "",
        *(f"- {reason}" for reason in ended.reasons),
        "",
        "## Facts",
        "",
        f"- command: `{gated.command}`",
        f"- ended_at: `{gated.at}`",
        machine_fact(gated.machine),
        device_fact(gated.device, gated.port, gated.profile),
        git_fact(gated.sha, gated.dirty),
        f"- history_schema: `{gated.schema}` (runs of other versions do not count)",
        f"- thresholds: {gated.limits.p50_percent} % (p50) or {gated.limits.p90_percent} % (p90), "
        f"{gated.limits.min_runs} runs, {gated.limits.min_pairs} pairs, {gated.limits.days} days",
        "",
        f"## Share of {gated.phase} in a warm deploy",
        "",
        _shares_table(ended),
        "",
        *(f"- not counted, {reason}: {count}" for reason, count in gated.population.excluded.items()),
        "",
        "## Effect of the candidate (per pair, ms)",
        "",
        _effects_table(gated),
        "",
        *(f"- pair dropped: {reason}" for reason in gated.dropped),
        "",
        "## Flash that the arms left",
        "",
        markdown_table(("scenario", "baseline", "candidate", "equal"), [_flash_row(check) for check in gated.flash])
        if gated.flash
        else "not compared",
        "",
        *_sources(gated),
    ]
    return "\n".join(line for n, line in enumerate(lines) if line or n == 0 or lines[n - 1]) + "\n"


def _shares_table(ended: Conclusion) -> str:
    rows = [_share_row("real deploys (decide)", ended.population), _share_row("baseline arm", ended.arms)]
    return markdown_table(("of", "runs", "p50 %", "p90 %"), rows)


def _share_row(name: str, found: Shares | None) -> tuple[str, ...]:
    if found is None:
        return (name, "0", NOTHING, NOTHING)
    return (name, str(found.n), f"{found.p50:.1f}", f"{found.p90:.1f}")


def _effects_table(gated: Gated) -> str:
    rows = []
    for name, found in ((gated.phase, gated.conclusion.phase), ("total", gated.conclusion.total)):
        arms = [
            [(run.total_ms if name == "total" else run.phase_ms) for run in runs]
            for runs in ([pair.baseline for pair in gated.pairs], [pair.candidate for pair in gated.pairs])
        ]
        rows.append((name, *(_middle(values) for values in arms), *_effect_cells(found)))
    head = ("what", "baseline p50 / p90", "candidate p50 / p90", "saved (median)", "95 % interval")
    return markdown_table(head, rows)


def _middle(values: Sequence[int]) -> str:
    if not values:
        return NOTHING
    found = summary(values)
    return f"{found.median:.0f} / {found.p90:.0f}"


def _effect_cells(found: Effect | None) -> tuple[str, str]:
    if found is None:
        return NOTHING, NOTHING
    return f"{found.saved_ms:.0f}", f"{found.interval.low:.0f} to {found.interval.high:.0f}"


def _flash_row(check: FlashCheck) -> tuple[str, ...]:
    return (check.scenario, check.baseline[:16], check.candidate[:16], "yes" if check.equal else "NO")


def _sources(gated: Gated) -> list[str]:
    lines = ["## Sources", "", f"Real deploys: {_ids([run.tx for run in gated.population.runs])}", ""]
    for pair in gated.pairs:
        lines.append(
            f"- pair {pair.number} ({pair.first} first): "
            f"baseline `{pair.baseline.tx}` {pair.baseline.phase_ms} of {pair.baseline.total_ms} ms, "
            f"candidate `{pair.candidate.tx}` {pair.candidate.phase_ms} of {pair.candidate.total_ms} ms"
        )
    return lines


def _ids(found: Sequence[str]) -> str:
    return ", ".join(f"`{tx}`" for tx in found) or "none"
