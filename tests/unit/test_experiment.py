"""The parts that all measurements share: the order of repeated commands, and what is refused before anything runs."""

from __future__ import annotations

from functools import partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.effects.clock import SystemClock
from pipeline.effects.process import SystemProcessRunner
from pipeline.measure.child import report_of, run_program
from pipeline.measure.experiment import refused_devices, refused_number, repeated, rounds, write_renderings


def test_each_round_has_every_command_once_and_may_begin_at_either_end() -> None:
    order: list[str] = []

    def noted(name: str) -> str:
        order.append(name)
        return name.upper()

    commands = {name: partial(noted, name) for name in "abc"}
    assert [list(found) for found in islice(rounds(commands), 2)] == [["a", "b", "c"]] * 2
    order.clear()
    found = list(islice(rounds(commands, alternate=True), 3))
    assert "".join(order) == "abccbaabc"
    assert [next(iter(one)) for one in found] == ["a", "c", "a"]
    assert all(one == {"a": "A", "b": "B", "c": "C"} for one in found)


def test_results_are_kept_by_command_and_each_round_is_said_before_it_begins() -> None:
    said: list[Any] = []
    numbers = iter(range(10))

    def take() -> int:
        number = next(numbers)
        said.append(number)
        return number

    found = repeated({"ours": take, "theirs": take}, 2, lambda done, count: said.append((done, count)))
    assert found == {"ours": [0, 2], "theirs": [1, 3]}
    assert said == [(0, 2), 0, 1, (1, 2), 2, 3]
    assert repeated({"ours": take}, 0, lambda *_: None) == {"ours": []}


def test_an_experiment_is_of_one_device_and_a_positive_number_of_runs() -> None:
    one, two = SimpleNamespace(name="one"), SimpleNamespace(name="two")
    assert refused_devices("loop", [one]) is None and refused_number("loop", "--max", 1, 3) is None  # type: ignore[list-item]
    both = refused_devices("loop", [one, two])  # type: ignore[list-item]
    assert both is not None and both.message == "a loop is that of one device, but 2 are selected (one, two)"
    none = refused_devices("gate", [])
    assert none is not None and "but 0 are selected" in none.message
    few = refused_number("baseline", "--runs", 0, 5)
    assert few is not None and (few.message, few.hint) == ("--runs is 0, but must be at least 1", "use --runs 5")
    assert refused_number("gate", "--pairs", 0, 30, least=0) is None
    assert refused_number("gate", "--pairs", -1, 30, least=0) is not None


def test_renderings_lie_beside_each_other(tmp_path: Path) -> None:
    write_renderings(tmp_path / "reports", "x-1", {"md": "# X\n", "json": "{}\n"})
    assert {path.name: path.read_text() for path in (tmp_path / "reports").iterdir()} == {
        "x-1.md": "# X\n",
        "x-1.json": "{}\n",
    }


def test_a_program_is_measured_with_its_children_and_one_that_fails_says_why(tmp_path: Path) -> None:
    import sys

    runner = SystemProcessRunner(SystemClock())
    busy = (
        "import subprocess, sys; subprocess.run([sys.executable, '-c', 'sum(range(10**6))'], check=True); print('so')"
    )
    spent = run_program(runner, [sys.executable, "-c", busy], tmp_path, {}, 300)
    assert spent.out == "so\n" and spent.err == "" and spent.wall_s > 0
    fails = "import sys; print('before'); sys.exit('it is broken')"
    with pytest.raises(RuntimeError, match=r"ended with 1:\nbefore\nit is broken"):
        run_program(runner, [sys.executable, "-c", fails], tmp_path, {}, 300)


def test_the_report_of_a_deploy_is_the_one_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "tx-1.json").write_text('{"outcome": "verified_unchanged"}')
    out = "noise\nDEPLOY_TX_ID=tx-1 DEPLOY_OUTCOME=x DEPLOY_REPORT=tx-1.md\n"
    assert report_of(tmp_path, out) == {"outcome": "verified_unchanged"}
    with pytest.raises(RuntimeError, match="named no report:\nnoise"):
        report_of(tmp_path, "noise")
