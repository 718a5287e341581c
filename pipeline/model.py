"""The shared vocabulary: what stages, verdicts, actions, marks, events and failures *are*.

Values only: named tuples (a dataclass takes eight times as long to define, and these are defined in every run) and
closed enums. Does not know files, ports, processes, doit or the clock.
Invariant: a value that can be wrong carries its reasons; nothing here has a default that hides a decision.

Units: sizes and offsets in bytes, `_s` seconds as float (in code), `_ms` whole milliseconds (in reports),
`_at` instants (UTC text in events, link seconds in marks). Paths inside values are POSIX and relative to the project's
root.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Literal

from cache.named_tuple import NamedTuple

# --- stages -----------------------------------------------------------------------------------


class Stage(StrEnum):
    """The stages in the order in which a deploy passes them; the value is the doit task's name."""

    FINGERPRINT = "fingerprint"
    COMPILE = "compile"
    LINK = "link"
    VERIFY_FLASH = "verify-flash"
    REFLASH = "reflash"
    REATTACH = "reattach"
    TTFB = "ttfb"


HOST_STAGES = (Stage.FINGERPRINT, Stage.COMPILE, Stage.LINK)
DEVICE_STAGES = (Stage.VERIFY_FLASH, Stage.REFLASH, Stage.REATTACH, Stage.TTFB)


class StageOutcome(StrEnum):
    """How a stage ended. `UP_TO_DATE`: nothing to do, with proof. `NOT_RUN`: never reached."""

    RAN = "ran"
    UP_TO_DATE = "up-to-date"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    NOT_RUN = "not-run"


class State(StrEnum):
    """Answer of an up-to-date check. `DIRTY` always has reasons."""

    UP_TO_DATE = "up-to-date"
    DIRTY = "dirty"


NOT_STORED = "not stored"
"""The kind of the note that a result is not in the cache."""


class Reason(NamedTuple):
    """One fact behind a verdict: `subject` (a path, an action, a region) moved from `before` to `after`."""

    kind: str
    subject: str
    before: str = ""
    after: str = ""

    def __str__(self) -> str:
        moved = f": {self.before} -> {self.after}" if self.before or self.after else ""
        return f"{self.kind} {self.subject}{moved}"


def note_lines(notes: Sequence[Reason]) -> list[str]:
    """A line for each note, but one for all results that could not be stored: that is one fact, however many lack."""
    unstored = [note for note in notes if note.kind == NOT_STORED]
    lines = [str(note) for note in notes if note.kind != NOT_STORED]
    if unstored:
        lines.append(f"the cache cannot be written, results not stored: {len(unstored)} ({unstored[0].after})")
    return lines


class Verdict(NamedTuple):
    """The only way to say "must run": a state with its reasons, first cause first."""

    state: State
    reasons: tuple[Reason, ...] = ()

    @property
    def up_to_date(self) -> bool:
        return self.state is State.UP_TO_DATE


# --- failures ---------------------------------------------------------------------------------


class FailureCategory(StrEnum):
    """Closed: a row of the failure map each (`failures.py`). `UNKNOWN` is counted and is a defect of ours."""

    CONFIG_ERROR = "config_error"
    TOOLCHAIN_MISSING = "toolchain_missing"
    COMPILE_ERROR = "compile_error"
    LINK_ERROR = "link_error"
    IMAGE_TOO_LARGE = "image_too_large"
    ACTION_FAILED = "action_failed"
    CACHE_ERROR = "cache_error"
    LOCK_TIMEOUT = "lock_timeout"
    PORT_MISSING = "port_missing"
    PORT_BUSY = "port_busy"
    PORT_PERMISSION = "port_permission"
    PORT_AMBIGUOUS = "port_ambiguous"
    WRONG_DEVICE = "wrong_device"
    PROTECTED_DEVICE = "protected_device"
    SYNC_FAILED = "sync_failed"
    WRITE_FAILED = "write_failed"
    VERIFY_MISMATCH = "verify_mismatch"
    BOOT_LOOP = "boot_loop"
    PANIC = "panic"
    NO_OUTPUT = "no_output"
    WRONG_IMAGE = "wrong_image"
    RPC_TIMEOUT = "rpc_timeout"
    UNHEALTHY = "unhealthy"
    TEST_FAILED = "test_failed"
    OVER_BUDGET = "over_budget"
    INTERRUPTED = "interrupted"
    UNKNOWN = "unknown"


class Failure(NamedTuple):
    """Why a run cannot go on, for a person and for a program.

    `where` is `path:line:col`, `device NAME on PORT` or a stage; `message` one fact with both values; `hint` one line
    that starts with a verb. `retryable` and `user_action` come from the failure map (`failures.py`), which builds
    these values; do not fill them by hand elsewhere.
    """

    category: FailureCategory
    stage: Stage | None
    where: str
    message: str
    hint: str
    retryable: bool
    user_action: str
    detail: str = ""
    """Raw tool output or boot log behind it, as much as a person wants to read; may be long."""

    def line(self) -> str:
        """`<where>: error: <fact>`, the form that editors parse."""
        return f"{self.where}: error: {self.message}" if self.where else f"error: {self.message}"


# --- stage results ----------------------------------------------------------------------------


class StageResult(NamedTuple):
    """What one stage did. `counts` keys: inputs, changed, compiled, restored, linked, regions, regions_written,
    bytes_written, round_trips, heap_free... A key that is absent was not counted; it is not 0."""

    stage: Stage
    outcome: StageOutcome
    duration_s: float
    reasons: tuple[Reason, ...] = ()
    counts: Mapping[str, int] = MappingProxyType({})
    failure: Failure | None = None

    @property
    def ok(self) -> bool:
        return self.outcome in (StageOutcome.RAN, StageOutcome.UP_TO_DATE)


class StageWork(NamedTuple):
    """What a stage did, as it says itself; fields as in `StageResult`. Which stage it was, and how long it took, knows
    whoever ran it. `boot_s`: how long a board took that went on by itself, from the release of its reset: it counts
    instead where other boards' stages ran meanwhile."""

    reasons: tuple[Reason, ...] = ()
    counts: Mapping[str, int] = MappingProxyType({})
    failure: Failure | None = None
    boot_s: float | None = None

    def took(self, stage: Stage, duration_s: float) -> StageResult:
        """The result for the record."""
        outcome = StageOutcome.RAN if self.failure is None else StageOutcome.FAILED
        return StageResult(stage, outcome, duration_s, self.reasons, self.counts, self.failure)


# --- the DAG ----------------------------------------------------------------------------------


class Tool(NamedTuple):
    """A program that actions call by `name` (the first word of `argv`). `identity` goes into every key that uses it and
    must not contain a path of this machine; `path` is where it lies here and stays out of keys. `launcher`: the words
    through which it is called when it compiles."""

    name: str
    path: str
    version: str
    identity: str
    launcher: tuple[str, ...] = ()


class Statement(NamedTuple):
    """What a build statement of ninja says beside what the action itself holds: when it runs and how ninja knows it.
    What can change the outputs stands in the action. Paths relative to the root, as everywhere, but for `names`."""

    directory: str
    """In which ninja runs, and so the command."""
    names: tuple[str, ...]
    """The outputs as ninja names them; one file may have two names."""
    command: str
    """As `.ninja_log` hashes it."""
    after: tuple[str, ...] = ()
    """What must be there before it runs, and does not make it run again."""
    rspfile: tuple[str, str] = ("", "")
    """A file that is there while the command runs, and its text."""
    deps: str = ""
    """`gcc` or `msvc`: ninja keeps what the depfile says in its own log."""
    depfile: str = ""
    """The depfile that ninja reads."""
    restat: bool = False
    generator: bool = False
    pool: tuple[str, int] = ("", 0)
    """Name, and how many of it may run at once (0: any number)."""
    evidence: bool = False
    """Is everything known that it reads? Then contents decide; if not, it runs whenever ninja would run it."""
    traced: bool = False
    """Does it start programs of Python, which say what they read?"""
    logs: str = ""
    """Where ninja keeps its logs (`builddir`), if not in `directory`."""
    always: bool = False
    """Does it depend on something that never is there?"""
    in_place_of: tuple[str, ...] = ()
    """What ninja knows that it reads, where it reads something else here: then what ninja makes by it is not ours."""

    @property
    def runs_each_time(self) -> bool:
        """Does it run whatever is up to date?"""
        return self.always and not self.evidence

    def is_own(self, path: str) -> bool:
        """Does this file (from the root) lie in the build directory, which is not the project's own?"""
        return self.directory not in ("", ".") and path.startswith(f"{self.directory}/")

    def may_write(self, path: str) -> bool:
        """May it have made this file (from the root) without declaring it? As far as such files lie where it runs."""
        return self.is_own(path) or (self.directory in ("", ".") and path[:1] not in ("/", "{"))

    def located(self, path: str) -> str:
        """A path as the command writes it, from the root."""
        return path if path[:1] in ("/", "{") or not self.directory else f"{self.directory}/{path}"


STATEMENT_PROFILE = "@ninja"
"""The profile of all actions that are statements of another build system: no profile of a user can be called so."""


class Action(NamedTuple):
    """One command with declared inputs and outputs: a node of the DAG. Everything that can change the outputs, and
    nothing else.

    Exactly one of `argv` and `builtin` is set. `argv[0]` is a tool's *name*, so that the key is the same on every
    machine; the engine puts the tool's path in its place. `builtin` is `name@version` of a function in this program
    (elf2image, the partition table), called with `params`. Of a command, the parameter `stdout` names the output that
    takes what it prints.
    """

    name: str
    stage: Stage
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    argv: tuple[str, ...] = ()
    builtin: str = ""
    params: tuple[tuple[str, str], ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    depfile: str = ""
    profile: str = ""
    salt: str = ""
    absent: tuple[str, ...] = ()
    """Paths where there is no file, and where one would be read instead of another."""
    cacheable: bool = True
    count_as: Literal["compiled", "linked", "built"] = "built"
    """Which counter an execution of this action raises (`linked` is for the link proper, not the images)."""
    statement: Statement | None = None
    """Of an action that another build system declares."""

    @property
    def known_as(self) -> str:
        """The name under which its last run is remembered."""
        return f"{self.profile}:{self.name}"

    @property
    def is_users(self) -> bool:
        """Is it a command that a user declared, not one of a toolchain?"""
        return self.count_as == "built" and bool(self.argv) and self.statement is None


# --- what became of a board ---------------------------------------------------------------------


class RegionAction(StrEnum):
    """Of a region of its flash: `KEPT` with proof, changed sectors only (`DELTA`), or whole (`WRITTEN`)."""

    KEPT = "kept"
    DELTA = "delta"
    WRITTEN = "written"


class DeployOutcome(StrEnum):
    """How a deploy of one device ended; each value says which proof it has."""

    VERIFIED_UNCHANGED = "verified_unchanged"
    APP_CONFIRMED = "app_confirmed"
    JOURNAL_TRUSTED = "journal_trusted"
    DELTA_FLASHED = "delta_flashed"
    REGIONS_FLASHED = "regions_flashed"
    FULL_FLASHED = "full_flashed"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


# --- marks ------------------------------------------------------------------------------------


class MarkName(StrEnum):
    """Instants of a boot, in the order in which a healthy one passes them."""

    RESET_RELEASED = "reset_released"
    PORT_OPEN = "port_open"
    REENUMERATED = "reenumerated"
    FIRST_BYTE = "first_byte"
    ROM_BANNER = "rom_banner"
    APP_START = "app_start"
    FIRST_LINE = "first_line"
    FIRST_JSONRPC = "first_jsonrpc"
    HEALTH = "health"


class Mark(NamedTuple):
    """`at_s` is on the link's clock: only differences between marks of one boot mean something."""

    name: MarkName
    at_s: float
    note: str = ""


# --- events -----------------------------------------------------------------------------------

EVENT_SCHEMA = 1
REPORT_SCHEMA = 1


class EventKind(StrEnum):
    """Kinds of line in `.deploy/runs/<tx>.log`; a report is a pure function of these. The keys of each kind's `data`
    are listed in `events.py`, which is the only place that builds and reads them."""

    RUN_STARTED = "run_started"
    DEVICE = "device"
    STAGE_STARTED = "stage_started"
    STAGE_FINISHED = "stage_finished"
    FINGERPRINTS = "fingerprints"
    PLAN = "plan"
    REGION = "region"
    ACTION = "action"
    MARK = "mark"
    READINESS = "readiness"
    PART = "part"
    FAILURE = "failure"
    WAITED = "waited"
    ROLLED_BACK = "rolled_back"
    SIZE = "size"
    RUN_FINISHED = "run_finished"


class Event(NamedTuple):
    """One line of a run log: written when it happens, never changed. `at` is UTC (`2026-11-21T00:00:00.000Z`),
    `since_s` seconds since the run began on the run's clock."""

    kind: EventKind
    at: str
    since_s: float
    data: Mapping[str, Any]
