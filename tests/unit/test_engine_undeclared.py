"""Files that no action declares are charged to the command that wrote them, once nobody is writing any more."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from pipeline.effects.api import Completed
from pipeline.engine.execution import Executed
from pipeline.engine.results import ActionFailure, FailureKind, RunResult
from pipeline.engine.undeclared import UndeclaredOutputs
from pipeline.model import Action, Stage
from tests.unit.engine_space import EngineSpace

WAIT_S = 300


class TwoActions(EngineSpace):
    """Two users' actions, `one` and `two`, that start together; `two` ends while `one` is in the middle of its work."""

    def __init__(
        self, root: Path, first: Sequence[str] = (), second: Sequence[str] = (), *, tidy: bool = False
    ) -> None:
        """`first`, `second`: what they write beside their outputs; `tidy`: `one` removes it again."""
        super().__init__(root)
        self.writes = {"one": first, "two": second}
        self.tidy = tidy
        self.together, self.two_ended = threading.Barrier(2), threading.Event()
        self.alone: list[str] = []
        self.write("seed", "seed\n")
        self.tools.run = self._run  # type: ignore[method-assign]

    def actions(self) -> list[Action]:
        return [Action(name, Stage.COMPILE, ("seed",), (f"build/{name}.out",), ("cc", name)) for name in ("one", "two")]

    def _run(self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout_s: float) -> Completed:
        name = argv[1]
        if self.two_ended.is_set():
            self.alone.append(name)
        else:
            self.together.wait(WAIT_S)
        for path in self.writes[name]:
            self.write(path, name)
        self.write(f"build/{name}.out", name)
        if not self.two_ended.is_set():
            self.together.wait(WAIT_S)
            if name == "two":
                self.two_ended.set()
            else:
                assert self.two_ended.wait(WAIT_S)
        if self.tidy and name == "one":
            for path in self.writes[name]:
                (self.root / path).unlink()
        return Completed(0, b"", b"", 0.001)

    def run(self) -> RunResult:
        return self.engine().run(Stage.COMPILE, lambda label, done, total: None)


def charged(result: RunResult) -> list[tuple[str, str]]:
    assert all(failure.kind is FailureKind.UNDECLARED_OUTPUT for failure in result.failures)
    return [(failure.action, failure.message.split()[3].rstrip(",")) for failure in result.failures]


def test_a_temporary_file_of_another_action_is_nobodys_output(tmp_path: Path) -> None:
    pair = TwoActions(tmp_path, ["build/one.out.part"], tidy=True)
    result = pair.run()
    assert result.ok and sorted(result.executed) == ["one", "two"]
    assert pair.alone == [], "it was gone when both had ended"


@pytest.mark.parametrize("guilty", ["one", "two"])
def test_the_writer_is_charged_although_another_ran_at_the_time(tmp_path: Path, guilty: str) -> None:
    files = ["build/stray"]
    pair = TwoActions(tmp_path, files if guilty == "one" else [], files if guilty == "two" else [])
    result = pair.run()
    assert charged(result) == [(guilty, "build/stray")]
    assert (pair.root / "build/stray").read_text() == guilty
    assert list((pair.root / "build").glob("*.tmp")) == []
    other = "two" if guilty == "one" else "one"
    assert pair.engine().record(pair.actions()[other == "two"]) is not None or other in pair.alone


def test_both_are_charged_for_what_both_write(tmp_path: Path) -> None:
    pair = TwoActions(tmp_path, ["build/mine", "build/same"], ["build/same"])
    result = pair.run()
    assert sorted(charged(result)) == [("one", "build/mine"), ("two", "build/same")]


def test_what_somebody_else_saved_meanwhile_is_kept(tmp_path: Path) -> None:
    """A person may save a file below build/ while actions run; no command makes it again."""
    pair = TwoActions(tmp_path)
    real = pair._run

    def save(argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout_s: float) -> Completed:
        if not pair.alone and not pair.two_ended.is_set():
            pair.write("build/notes.txt", "mine")
        return real(argv, cwd=cwd, env=env, timeout_s=timeout_s)

    pair.tools.run = save  # type: ignore[method-assign]
    assert pair.run().ok
    assert (pair.root / "build/notes.txt").read_text() == "mine"


def test_a_command_that_fails_is_not_asked_what_it_wrote(tmp_path: Path) -> None:
    space = EngineSpace(tmp_path)
    watch = UndeclaredOutputs(space.engine().workspace)
    failure = ActionFailure("x", FailureKind.EXIT, "failed")

    def fail() -> Executed:
        space.write("build/stray", "")
        return Executed(failure=failure)

    assert watch.run(fail) == (Executed(failure=failure), "")
