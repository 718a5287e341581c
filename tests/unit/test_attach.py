"""`doit attach`: the log of a run, shown as the run shows itself, while it is written and afterwards."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.cli.attach import INTERRUPTED, AttachTarget, AttachView, attach, find
from pipeline.effects.run_log import RunLog
from pipeline.events import Payload, RunFinished, RunStarted, StageStarted, When, event
from pipeline.failures import fail
from pipeline.model import DeployOutcome, Failure, FailureCategory, Stage, StageOutcome, StageResult

TX = "tx-20261129-080000-abc123"
STARTED = RunStarted(
    TX, "bench", "virtual:", "local-fast", ("deploy",), "", False, "zig", "md5", "rpc:health", 5000, {"total": 4000},
    "reports/r.md",
)  # fmt: skip
PORT = fail(FailureCategory.PORT_MISSING, stage=Stage.VERIFY_FLASH, where="device bench on /dev/x", message="is gone")


def done(stage: Stage, outcome: StageOutcome = StageOutcome.RAN) -> StageResult:
    return StageResult(stage, outcome, 0.5)


RUN: tuple[Payload, ...] = (
    STARTED,
    done(Stage.FINGERPRINT, StageOutcome.UP_TO_DATE),
    StageStarted(Stage.COMPILE),
    done(Stage.COMPILE),
    StageStarted(Stage.VERIFY_FLASH),
    done(Stage.VERIFY_FLASH),
    RunFinished(DeployOutcome.VERIFIED_UNCHANGED),
)
LINES = ["-- fingerprint", ".  compile", ".  verify-flash:bench"]


class Attached:
    """A project with one log, and what a view of it says."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log = RunLog.create(root / ".deploy/runs", TX)
        self._said_s = 0.0

    def say(self, *payloads: Payload) -> None:
        for payload in payloads:
            self._said_s += 0.1
            self.log.append(event(payload, When("2026-11-29T08:00:00.000Z", self._said_s)))

    def view(
        self, *, start: int = 1, json: bool = False, pause: Callable[[float], None] | None = None
    ) -> tuple[int, str, str]:
        target = find(self.root, TX)
        assert isinstance(target, AttachTarget)
        out, err = io.StringIO(), io.StringIO()

        def waited(_: float) -> None:
            raise AssertionError("nothing is to be waited for")

        code = attach(target, start, AttachView(target, out, err, json=json), pause or waited)
        return code, out.getvalue(), err.getvalue()


@pytest.fixture
def attached(tmp_path: Path) -> Iterator[Attached]:
    made = Attached(tmp_path)
    yield made
    made.log.close()


def test_a_run_that_ended_is_replayed(attached: Attached) -> None:
    attached.say(*RUN)
    code, out, err = attached.view()
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[:3] == LINES and lines[3].startswith("stage  ")
    assert lines[-1].startswith(f"DEPLOY_TX_ID={TX} DEPLOY_OUTCOME=verified_unchanged DEPLOY_DEVICE=bench")


def test_a_run_under_way_is_followed_event_by_event(attached: Attached) -> None:
    rest = list(RUN)
    seen: list[int] = []

    def pause(_: float) -> None:
        seen.append(len(rest))
        if rest:
            attached.say(rest.pop(0))

    code, out, err = attached.view(pause=pause)
    assert (code, err) == (0, "") and out.splitlines()[:3] == LINES and out.count(".  compile") == 1
    assert seen == list(range(len(RUN), 0, -1)), "it looked as often as something was said"


def test_a_half_written_event_is_waited_for(attached: Attached) -> None:
    attached.say(*RUN[:-1])
    attached.say(RUN[-1])
    attached.log.close()
    path = attached.log.path
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    holder = path.open("r+b")
    import fcntl

    fcntl.flock(holder, fcntl.LOCK_EX)

    def pause(_: float) -> None:
        path.write_bytes(whole)

    assert attached.view(pause=pause)[0] == 0
    holder.close()


@pytest.mark.parametrize("start", [1, 2, 4, 7, 8, 100])
def test_from_leaves_out_what_was_seen(attached: Attached, start: int) -> None:
    attached.say(*RUN)
    _, out, _ = attached.view(start=start)
    shown = [line for number, line in zip((2, 3, 5), LINES, strict=True) if number >= start]
    assert out.splitlines()[: len(shown)] == shown and out.count("DEPLOY_TX_ID") == 1
    _, out, _ = attached.view(start=start, json=True)
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["type"] for row in rows] == ["event"] * max(0, len(RUN) + 1 - start) + ["report"]


@pytest.mark.parametrize(
    ("outcome", "code"),
    [(DeployOutcome.FAILED, 1), (DeployOutcome.INTERRUPTED, INTERRUPTED), (DeployOutcome.DELTA_FLASHED, 0)],
)
def test_the_exit_code_is_that_of_the_run(attached: Attached, outcome: DeployOutcome, code: int) -> None:
    said = [PORT] if code == 1 else []
    attached.say(*RUN[:-1], *said, RunFinished(outcome))
    found, _, err = attached.view()
    assert found == code and ("device bench on /dev/x: error: is gone" in err) == (code == 1)
    assert ("hint: " in err) == (code == 1)


def test_a_killed_run_is_not_waited_for(attached: Attached) -> None:
    attached.say(*RUN[:4])
    attached.log.close()
    code, out, err = attached.view()
    assert (
        code == 1
        and out.splitlines() == LINES[:2]
        and err == f"note: {TX}: it was killed; the next run writes its report\n"
    )


def test_what_cannot_be_read_is_not_waited_for(attached: Attached) -> None:
    attached.say(*RUN)
    path = attached.log.path
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], lines[3].replace(b"compile", b"c0mpile"), *lines[4:]]))
    code, out, err = attached.view()
    assert code == 1 and out.splitlines() == LINES[:1] and "the rest is ignored" in err


def test_a_log_that_is_removed_ends_the_view(attached: Attached) -> None:
    attached.say(*RUN[:2])
    code, _, err = attached.view(pause=lambda _: attached.log.path.unlink())
    assert code == 1 and "was removed meanwhile" in err


@pytest.mark.parametrize(
    ("tx", "fact"),
    [
        ("tx-20261129-080000-abc124", "did you mean 'tx-20261129-080000-abc123'?"),
        ("../../etc/passwd", "no transaction '../../etc/passwd'"),
        ("bench", "no transaction 'bench'"),
    ],
)
def test_an_unknown_transaction_is_refused_in_words(attached: Attached, tx: str, fact: str) -> None:
    found = find(attached.root, tx)
    assert isinstance(found, Failure) and fact in found.message and TX in found.hint


def test_without_a_name_it_is_the_newest(attached: Attached) -> None:
    RunLog.create(attached.root / ".deploy/runs", "tx-20261128-235959-ffffff").close()
    assert find(attached.root, "") == find(attached.root, TX)
    found = find(attached.root / "nowhere", "")
    assert isinstance(found, Failure) and found.hint.startswith("run `doit deploy`")


def test_what_a_device_said_does_not_steer_the_terminal(attached: Attached) -> None:
    bad = fail(
        FailureCategory.PANIC,
        stage=Stage.TTFB,
        where="device b\x1b[2J",
        message="said \x1b]52;c;x\x07",
        detail="\x1b[1m",
    )
    attached.say(STARTED._replace(device="be\x1bnch"), StageStarted(Stage.TTFB), bad, RunFinished(DeployOutcome.FAILED))
    _, out, err = attached.view()
    assert "\x1b" not in out + err and "\x07" not in out + err
