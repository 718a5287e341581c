"""The reporter's order of events, without a run."""

from __future__ import annotations

import io
import signal
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline.cli.reporter import HotplateReporter, _finishing, _terminated
from pipeline.run.options import Options
from pipeline.run.run import Run, before_run


def test_a_stage_is_in_the_log_before_it_is_on_the_screen() -> None:
    """Who has seen a stage begin may kill the run at once, and the report must still name that stage."""
    happened: list[str] = []
    screen = SimpleNamespace(
        write=lambda text: happened.append(f"screen {text}"), flush=lambda: None, isatty=lambda: False
    )
    run = SimpleNamespace(
        project=SimpleNamespace(options=Options()),
        active=True,
        in_lane=lambda which: False,
        consider=lambda which: None,
        started=lambda which: happened.append(f"log {which.stage} {which.device}"),
    )
    reporter = HotplateReporter(io.StringIO(), cast(Run, run))
    reporter.__dict__.update(_out=screen)
    task: Any = SimpleNamespace(name="ttfb:bench", actions=["an action"], title=lambda: "ttfb:bench")
    reporter.get_status(task)
    reporter.execute_task(task)
    assert happened == ["log ttfb bench", "screen .  ttfb:bench\n"]


def test_a_wait_for_the_lock_is_counted_once() -> None:
    """The process was 1200 ms old after it had waited 1 s for another run; the budget adds the two figures."""
    assert before_run(1200, 1.0) == (200, 1000)
    assert before_run(None, 0.5) == (None, 500), "an age that the system does not tell is not 0"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_interrupt_while_a_run_ends_comes_too_late(number: signal.Signals) -> None:
    """Its report is being written; who sends a second one does not want to wait for that."""
    before = signal.signal(number, _terminated)
    try:
        with _finishing():
            signal.raise_signal(number)
        assert signal.getsignal(number) is _terminated
        done = []
        with pytest.raises(KeyboardInterrupt), _finishing():
            signal.raise_signal(number)
            done.append("after the first")
            signal.raise_signal(number)
            done.append("after the second")
        assert done == ["after the first"]
        assert signal.getsignal(number) is _terminated
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("name", ["__del__", "import"])
def test_a_signal_where_python_drops_exceptions_comes_again(name: str) -> None:
    """In a finaliser, and in the callback that the import of each module ends with."""
    file = "<frozen importlib._bootstrap>" if name == "import" else __file__
    code = f"def {'cb' if name == 'import' else name}(*_):\n    ready()\n"

    def ready() -> None:
        signal.raise_signal(signal.SIGTERM)
        came.append("after")

    came: list[str] = []
    space: dict[str, Any] = {"ready": ready}
    exec(compile(code, file, "exec"), space)
    before = signal.signal(signal.SIGTERM, _terminated)
    deadline_s = time.monotonic() + 60
    try:
        with pytest.raises(KeyboardInterrupt):
            (space["cb"] if name == "import" else space[name])()
            while time.monotonic() < deadline_s:
                time.sleep(0.01)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert came == ["after"]
