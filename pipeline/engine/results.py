"""What the engine takes from and gives to its callers beside the types of the model.

Values only. Does not know how actions are executed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum

from cache.named_tuple import NamedTuple
from pipeline.model import Reason

CHANGED = "changed while it was used"
"""Kind of the note that a result was not recorded since an input moved while the action ran."""
TOO_EARLY = "read before it was made"
"""Kind of the note that it was not, since a user's action was found to read what nobody knew that it waits for."""

RESTORED_REMOTE = "restored_remote"
"""How an action was performed whose result came from another machine."""


class BuiltinError(NamedTuple):
    """Why a builtin refuses its inputs. `where` is `path:line` or a path, `message` one fact with both values."""

    where: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        line = f"{self.where}: error: {self.message}" if self.where else f"error: {self.message}"
        return f"{line}\n{self.hint}" if self.hint else line


class BuiltinCall(NamedTuple):
    """What a builtin works on: the inputs' paths (for messages) and bytes in declared order, and the parameters."""

    paths: tuple[str, ...]
    inputs: tuple[bytes, ...]
    params: Mapping[str, str]


Builtin = Callable[[BuiltinCall], Sequence[bytes] | BuiltinError]
"""A function of this program that makes one output after the other from bytes. It must depend on its call alone: the
key holds its `name@version` and what the call holds. A change of what it makes needs another version."""


class FailureKind(StrEnum):
    """How an action failed."""

    EXIT = "exit"
    TIMEOUT = "timeout"
    TOOL_MISSING = "tool-missing"
    INPUT_MISSING = "input-missing"
    OUTPUT_MISSING = "output-missing"
    UNDECLARED_OUTPUT = "undeclared-output"
    DEPFILE = "depfile"
    BUILTIN = "builtin"
    LAUNCHER = "launcher"
    FILE_SYSTEM = "file-system"


class ActionFailure(NamedTuple):
    """One action that failed. `message` is one fact; `exit_code` is None when nothing ran to an end; `stderr` is the
    tool's own words; `argv` is the command as it was run here."""

    action: str
    kind: FailureKind
    message: str
    argv: tuple[str, ...] = ()
    exit_code: int | None = None
    stderr: str = ""


class ActionSpan(NamedTuple):
    """When and where one action was performed: `began_s` on the engine's clock, `worker` numbers the threads of this
    stage from 0. `how` is the value of the `ActionState` in which it ended, or RESTORED_REMOTE."""

    action: str
    how: str
    worker: int
    began_s: float
    duration_s: float


class ScanResult(NamedTuple):
    """`counts` has inputs (files looked at), read (their stamp had moved or was new), changed (other content than last
    time) and missing (declared, but not there). `reasons` names each changed one, `notes` are lines for the user."""

    counts: Mapping[str, int]
    reasons: tuple[Reason, ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...]


class SharedCounts(NamedTuple):
    """What came from other machines: results, the bytes that were fetched for them, and how often answers were waited
    for. `asked`: was anything asked? `executed`: actions that another machine executed for this one."""

    asked: bool = False
    restored: int = 0
    fetched_bytes: int = 0
    rounds: int = 0
    executed: int = 0

    def plus(self, other: SharedCounts) -> SharedCounts:
        return SharedCounts(
            self.asked or other.asked,
            self.restored + other.restored,
            self.fetched_bytes + other.fetched_bytes,
            self.rounds + other.rounds,
            self.executed + other.executed,
        )


class RunResult(NamedTuple):
    """`counts` has compiled, linked, built (executed, by `Action.count_as`), restored, up_to_date, failed and not_run;
    they add up to the stage's actions, and those that ran twice. `executed`: their names if they ran. `warnings`:
    (action, stderr) of successful actions, executed or restored. `notes`: results that were not recorded or not stored,
    and why."""

    counts: Mapping[str, int]
    executed: tuple[str, ...]
    failures: tuple[ActionFailure, ...]
    warnings: tuple[tuple[str, str], ...]
    notes: tuple[Reason, ...]
    shared: SharedCounts = SharedCounts()

    @property
    def ok(self) -> bool:
        return not self.failures

    def with_shared_counts(self) -> RunResult:
        """With what came from other machines in `counts`, as restored_remote (of those restored) and fetched_bytes if
        anything was asked, and as executed_remote (of those executed) if anything was."""
        more = {"executed_remote": self.shared.executed} if self.shared.executed else {}
        if self.shared.asked:
            more |= {"restored_remote": self.shared.restored, "fetched_bytes": self.shared.fetched_bytes}
        return self._replace(counts={**self.counts, **more})

    @property
    def changed_meanwhile(self) -> bool:
        """Was a result not recorded since something moved while its action ran?"""
        return any(note.kind in (CHANGED, TOO_EARLY) for note in self.notes)

    def repeated(self, again: RunResult) -> RunResult:
        """This run and a second one over the same actions, which knows better what was up to date and what moved."""
        if again.failures and all(failure.kind is FailureKind.INPUT_MISSING for failure in again.failures):
            # A source that was removed or renamed: the next run declares what is there now.
            return self
        still = {note.subject for note in again.notes}
        told = [note for note in self.notes if note.kind != TOO_EARLY]  # the order is known by now
        notes = [note for note in told if note.kind != CHANGED or note.subject not in still]
        seen = [note._replace(after="looked at again") if note.kind == CHANGED else note for note in notes]
        first = self._replace(counts={**self.counts, "up_to_date": 0}, notes=tuple(seen))
        ran = sum(count for name, count in self.counts.items() if name not in ("up_to_date", "not_run"))
        both = first.and_then(again)
        return both._replace(counts={**both.counts, "up_to_date": max(0, both.counts["up_to_date"] - ran)})

    def retried(self, again: RunResult) -> RunResult:
        """This run, which failed, and a second one over the same actions, after which nothing counts as failed or left
        out but what it says."""
        first = self._replace(counts={**self.counts, "up_to_date": 0, "failed": 0, "not_run": 0}, failures=())
        return first.and_then(again)

    def and_then(self, other: RunResult) -> RunResult:
        """Both, as one run."""
        return RunResult(
            {name: count + other.counts[name] for name, count in self.counts.items()},
            self.executed + other.executed,
            self.failures + other.failures,
            self.warnings + other.warnings,
            self.notes + other.notes,
            self.shared.plus(other.shared),
        )
