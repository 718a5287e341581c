"""One scenario on one device: its steps in order, and what came of them.

Knows scenarios and conversations. Does not know which kind of device it talks to, doit or pytest. Invariant: a scenario
ends with exactly one result whatever the device does, and a failure names the step's line, what was expected and what
came, with the device's last words in its detail.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.boot.line_pattern import LinePattern
from pipeline.boot.log_patterns import visible
from pipeline.device.console import CallAnswer, CallRefusal
from pipeline.errors import DeviceError
from pipeline.failures import fail
from pipeline.livetest.conversation import Conversation, containing
from pipeline.livetest.observed import Observed
from pipeline.livetest.scenario import LiveStep, Scenario
from pipeline.livetest.values import Missing, at_path, equal, is_number, outside, shown
from pipeline.model import Failure, FailureCategory

HEAP_PATH = "heap.free"
WORDS = 40
"""Lines of the device's that a failure shows."""


class Rules(NamedTuple):
    """What holds for every scenario of a run. `observed` None: ranges are being written, not compared. `boot_s`: how
    long a device may take after a reset until it answers."""

    chip: str
    timeout_s: float
    boot_s: float
    observed: Observed | None


class LiveResult(NamedTuple):
    """What came of a scenario (or of a pytest test). `outcome`: passed, failed, skipped or error (no verdict: nobody
    could talk to the device). `values`: numbers to be observed; `message` is one fact, `detail` the device's words."""

    name: str
    path: str
    outcome: str
    duration_s: float
    message: str = ""
    detail: str = ""
    checks: int = 0
    values: tuple[tuple[str, float], ...] = ()

    @property
    def ok(self) -> bool:
        return self.outcome in ("passed", "skipped")


class _Mismatch(Exception):
    """A step found something else."""

    def __init__(self, fact: str) -> None:
        super().__init__(fact)
        self.fact = fact


def run_scenario(scenario: Scenario, talk: Conversation, rules: Rules) -> LiveResult:
    """Run it; `talk` is left as the last step left it."""
    began_s = time.monotonic()
    if scenario.chips and rules.chip not in scenario.chips:
        fact = f"for {', '.join(scenario.chips)}, not for {rules.chip}"
        return LiveResult(scenario.name, scenario.path, "skipped", 0.0, fact)
    doing = _Doing(scenario, talk, rules)
    message, outcome = "", "passed"
    try:
        doing.all()
    except _Mismatch as mismatch:
        message, outcome = mismatch.fact, "failed"
    except DeviceError as error:
        message, outcome = error.failure.line(), "error"
    if outcome == "passed" and talk.panic and not scenario.panic:
        message, outcome = "the firmware panicked", "failed"
    if outcome == "passed" and talk.offence:
        message, outcome = f"a line came that `forbid` names: '{visible(talk.offence)[:200]}'", "failed"
    where = scenario.where(doing.step)
    return LiveResult(
        name=scenario.name,
        path=scenario.path,
        outcome=outcome,
        duration_s=time.monotonic() - began_s,
        message=f"{where}: error: {message}" if message else "",
        detail=_last_words(talk) if message else "",
        checks=doing.checks,
        values=tuple(doing.values.items()),
    )


def _last_words(talk: Conversation) -> str:
    lines = [visible(line) for line in list(talk.transcript)[-WORDS:]]
    return "\n".join([*lines, *talk.panic])


class _Doing:
    """A scenario under way. `step` None: it is not about a step."""

    def __init__(self, scenario: Scenario, talk: Conversation, rules: Rules) -> None:
        self._scenario, self._talk, self._rules = scenario, talk, rules
        self._fresh = False
        """Was the device just reset, so that it may not listen yet?"""
        self.step: int | None = None
        self.checks = 0
        self.values: dict[str, float] = {}

    def all(self) -> None:
        scenario, talk = self._scenario, self._talk
        talk.transcript.clear()
        talk.offence, talk.panic = "", ()
        talk.ends_at_panic = not scenario.panic
        talk.forbidden = tuple(map(LinePattern, scenario.forbid))
        if scenario.reset:
            self._reset()
        for number, step in enumerate(scenario.steps):
            self.step = number
            getattr(self, f"_{step.action}")(step)
        self.step = None
        self._heap()
        talk.settle()

    def _timeout_s(self, step: LiveStep) -> float:
        ms = step.timeout_ms or self._scenario.timeout_ms
        return ms / 1000 if ms is not None else self._rules.timeout_s

    def _reset(self, step: LiveStep | None = None) -> None:
        del step
        self._talk.reset()
        self._fresh = True

    def _send(self, step: LiveStep) -> None:
        self._until_it_listens()
        self._talk.send(step.word)

    def _until_it_listens(self) -> None:
        if self._fresh:
            self._talk.until_it_speaks(self._rules.boot_s)
            self._fresh = False

    def _expect(self, step: LiveStep) -> None:
        self._met(step, containing(step.word), f"'{visible(step.word)}'")

    def _expect_re(self, step: LiveStep) -> None:
        groups = self._met(step, LinePattern(step.word).groups, f"a line that matches '{visible(step.word)}'")
        self._check(step, {name: _number(text) for name, text in groups.items()})

    def _met(self, step: LiveStep, matches: Callable[[str], Mapping[str, str] | None], what: str) -> Mapping[str, str]:
        met = self._talk.expect(matches, what, self._timeout_s(step))
        if isinstance(met, Failure):
            raise _Mismatch(met.message)
        self._fresh = False
        self.checks += 1
        return met.groups

    def _call(self, step: LiveStep) -> None:
        self._until_it_listens()
        answer = self._talk.call(step.word, step.params, self._timeout_s(step))
        if isinstance(answer, Failure):
            raise _Mismatch(answer.message)
        self.checks += 1
        if isinstance(answer, CallRefusal):
            said = f"`{step.word}` was refused with {answer.code}: {visible(answer.message)}"
            if step.error is None:
                raise _Mismatch(said)
            if answer.code != step.error:
                raise _Mismatch(f"{said}; expected {step.error}")
            return
        assert isinstance(answer, CallAnswer)
        if step.error is not None:
            raise _Mismatch(f"`{step.word}` answered {shown(answer.result)}; a refusal with {step.error} was expected")
        self._check(step, answer.result)

    # --- values -------------------------------------------------------------------------------

    def _check(self, step: LiveStep, found: Any) -> None:
        what = f"`{step.word}`" if step.action == "call" else "the line"
        for wanted in step.result:
            self.checks += 1
            if not equal(found, wanted):
                raise _Mismatch(f"{what} answered {shown(found)}; expected {shown(wanted)}")
        for path, wanted in step.values.items():
            value = self._at(found, path, what)
            if not equal(value, wanted):
                raise _Mismatch(f"{path} of {what} is {shown(value)}; expected {shown(wanted)}")
        for path, expression in step.match.items():
            value = self._at(found, path, what)
            if not LinePattern(expression).search(value if isinstance(value, str) else shown(value)):
                raise _Mismatch(f"{path} of {what} is {shown(value)}, which '{visible(expression)}' does not match")
        for path, bounds in step.ranges.items():
            limits = bounds.of(self._rules.chip)
            if limits is None:
                continue
            wrong = outside(self._at(found, path, what), *limits)
            if wrong:
                raise _Mismatch(f"{path} of {what} {wrong} (range for {self._rules.chip})")
        for path in step.observe:
            self._observe(f"{self._scenario.name}: {step.label}.{path}", self._at(found, path, what), path, what)

    def _at(self, found: Any, path: str, what: str) -> Any:
        self.checks += 1
        value = at_path(found, path)
        if isinstance(value, Missing):
            raise _Mismatch(f"{path} of {what}: {value.fact}")
        return value

    def _observe(self, key: str, value: Any, path: str, what: str) -> None:
        if not is_number(value):
            raise _Mismatch(f"{path} of {what} is {shown(value)}, and only numbers can be observed")
        self.values[key] = value
        limits = (self._rules.observed or {}).get(self._rules.chip, {}).get(key)
        wrong = outside(value, *limits) if limits is not None else ""
        if wrong:
            hint = "if that is right, widen it with `doit livetest --update-baseline`"
            raise _Mismatch(f"{path} of {what} {wrong}, as it always was on {self._rules.chip} until now; {hint}")

    def _heap(self) -> None:
        """The floor, after all that the scenario did."""
        floor = self._scenario.floor(self._rules.chip)
        if floor is None:
            return
        self._until_it_listens()
        answer = self._talk.call("health", None, self._rules.timeout_s)
        self.checks += 1
        free = at_path(answer.result, HEAP_PATH) if isinstance(answer, CallAnswer) else Missing("it did not answer")
        if isinstance(free, Missing):
            raise _Mismatch(f"`heap_floor` needs {HEAP_PATH} of `health`: {free.fact}")
        wrong = outside(free, floor, None)
        if wrong:
            raise _Mismatch(f"the free heap {wrong} (heap_floor on {self._rules.chip})")


def _number(text: str) -> Any:
    """What a group of a line stands for: a number where it is one."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def no_tests(directory: str) -> Failure:
    """There is nothing to run."""
    return fail(
        FailureCategory.CONFIG_ERROR,
        stage=None,
        where=directory,
        message="there is no live test",
        hint="write one (docs/live-tests.md), correct [livetest] dir, or select another with -k or -m",
    )
