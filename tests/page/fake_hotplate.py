"""A `hotplate` whose deploy is what a test wants: it writes the event log of a real one, stage by stage.

`python -m tests.page.fake_hotplate deploy --device NAME`, with `DEPLOY_TX_ID`; each stage begins when the file
`go-<stage>` is there. `FAKE_FAILS` names the stage that fails.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from pipeline.effects.run_log import RunLog
from pipeline.events import Payload, RunFinished, RunStarted, StageStarted, When, event
from pipeline.failures import fail
from pipeline.model import DeployOutcome, FailureCategory, Stage, StageOutcome, StageResult
from pipeline.run.transactions import RUNS

PATIENCE_S = 60.0


def main() -> int:
    tx, device = os.environ["DEPLOY_TX_ID"], sys.argv[sys.argv.index("--device") + 1]
    log = RunLog.create(Path(".deploy", RUNS), tx)
    started_s = time.monotonic()

    def say(said: Payload) -> None:
        log.append(event(said, When("2026-11-29T08:00:00.000Z", time.monotonic() - started_s)))

    limits = {"total": 4000, "verify-flash": 1500}
    report = f"reports/{tx}.md"
    say(RunStarted(tx, device, "", "fast", ("deploy",), "", False, "fake", "md5", "byte", 1, limits, report, run=tx))
    print(f"for {os.environ.get('WHO', 'nobody')} in {os.environ.get('DEPLOY_TX_ID')}", flush=True)
    print("\x1b[31mred\x1b[0m <b>not bold</b>", flush=True)
    for stage in Stage:
        say(StageStarted(stage))
        wait_for(Path(f"go-{stage.value}"))
        if os.environ.get("FAKE_FAILS") == stage.value:
            failure = fail(FailureCategory.PANIC, stage=stage, where=f"device {device}", message="it <i>panicked</i>")
            say(StageResult(stage, StageOutcome.FAILED, 0.1, failure=failure))
            say(RunFinished(DeployOutcome.FAILED))
            return 1
        say(StageResult(stage, StageOutcome.RAN, 0.123))
    say(RunFinished(DeployOutcome.VERIFIED_UNCHANGED))
    return 0


def wait_for(path: Path) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not path.exists() and not Path("go-all").exists():
        if time.monotonic() > end_s:
            raise TimeoutError(path)
        time.sleep(0.01)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        sys.exit(130)
