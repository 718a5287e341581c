"""The pages of the loop and of the gate that are pinned in this directory, as facts. No files, no clock.

After a wanted change of the layout: `python -m tests.golden.loops` writes the files anew; read the diff.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.config.schema import GateConfig
from pipeline.measure.compare.decision import FlashCheck, Pair, Population, Timed, conclude
from pipeline.measure.compare.view import Gated, render
from pipeline.measure.loop.judgement import Iteration, Limits, LoopRun, Test, decide, judge, reference_of
from pipeline.measure.loop.view import LoopSession, followup, summary

HERE = Path(__file__).parent
MACHINE = {"id": "0123456789ab", "system": "Linux x86_64", "cpu": "A CPU", "cores": "2", "python": "CPython 3.11.7"}
SESSION = LoopSession(
    command="doit loop",
    at="2026-11-21T09:30:00.000Z",
    machine=MACHINE,
    device="bench",
    port="virtual:",
    profile="local-fast",
    toolchain="zig 0.17.0",
    sha="8c814be",
    dirty=False,
    repeats=3,
    determinism="a second cold build in another directory: every output is the same",
    load=0.8,
)
LIMITS = Limits()


def runs(number: int, slower_ms: int = 0) -> list[LoopRun]:
    """One iteration; `slower_ms` more in verify-flash, and as much more until the first byte."""

    def run(test: Test, **phases: int) -> LoopRun:
        phases = {"startup": 150, "dispatch": 1, "fingerprint": 2, **phases, "remainder": 20}
        did = {
            "compiled": 0,
            "linked": 0,
            "outcome": "verified_unchanged",
            "tx": f"tx-20261121-09300{number}-{test:0>4}",
        }
        return LoopRun(test, sum(phases.values()), phases)._replace(**did)  # type: ignore[arg-type]

    verify = {"verify-flash": 110 + slower_ms, "reflash": 0}
    boot = {"reattach": 1, "ttfb": 40}
    build = run(Test.BUILD)._replace(outcome="", tx="")
    skip, loop = run(Test.SKIP, **verify), run(Test.LOOP, **verify, **boot)
    loop = loop._replace(ttfb_ms=38, segments={"rom_to_app_ms": 30, "app_to_jsonrpc_ms": 8}, attempts=1)
    comment = run(Test.COMMENT, compile=60, **verify, **boot)._replace(compiled=1, rebuilt=("build/obj/json.c.o",))
    edit = run(Test.EDIT, compile=60, link=90, **verify, **boot)
    edit = edit._replace(compiled=1, linked=1, bytes_written=4096, outcome="delta_flashed", regions={"app": "delta"})
    return [build, skip, loop, comment, edit]


GREEN = [Iteration(n, *judge(runs(n), LIMITS, {})) for n in (1, 2, 3)]
REFERENCE = reference_of(GREEN)


def slow() -> list[Iteration]:
    return [Iteration(n, *judge(runs(n, slower_ms=300), LIMITS, REFERENCE)) for n in (4, 5)]


def gated() -> Gated:
    found = tuple(Timed(f"tx-20261120-1200{n:02}-0000", 120 + n, 300 + n) for n in range(30))
    pairs = tuple(
        Pair(
            n + 1,
            "candidate" if n % 2 else "baseline",
            Timed(f"tx-20261121-0930{n:02}-00aa", 120 + n % 5, 300 + n % 5),
            Timed(f"tx-20261121-0930{n:02}-00bb", 30 + n % 3, 210 + n % 3),
        )
        for n in range(30)
    )
    flash = tuple(FlashCheck(name, "5ab98594ca3b16fe", "5ab98594ca3b16fe") for name in ("warm deploys", "real edit"))
    return Gated(
        phase="verify-flash",
        candidate="app-report",
        baseline="md5",
        command="doit gate --phase verify-flash --candidate app-report --baseline md5",
        at="2026-11-21T09:30:00.000Z",
        machine=MACHINE,
        device="bench",
        port="virtual:",
        profile="local-fast",
        sha="8c814be",
        dirty=True,
        schema=1,
        limits=GateConfig(),
        population=Population(found, {"another machine": 2, "not warm": 3}),
        pairs=pairs,
        dropped=("pair 4, baseline: not warm",),
        flash=flash,
        conclusion=conclude("verify-flash", found, pairs, flash, GateConfig()),
    )


def pages() -> dict[str, str]:
    """File name -> content."""
    bad = slow()
    return {
        "loop_summary.md": summary(SESSION, GREEN, LIMITS, REFERENCE),
        "loop_followup.md": followup(SESSION, bad, decide(bad), LIMITS, REFERENCE),
        "gate_go.md": render(gated()),
    }


if __name__ == "__main__":
    for file, text in pages().items():
        (HERE / file).write_text(text, encoding="utf-8")
