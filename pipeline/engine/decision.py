"""Is this action up to date, and if not, why, and what is to be done about it? The one place that decides.

A build, `explain`, `plan` and a partial graph ask here; they differ only in what answers about files: stamps, this
run's own look, or contents with what earlier actions would make of them. Pure: an `ActionView` answers (`views`). Does
not know how anything is executed. Invariant: an action is up to date only if its command, its tool, the content of
every declared and discovered input, the absence of every file that would shadow one, and the content of every output
are those of its last recorded run, or of a result that the cache holds under the key that they have now.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterator, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

from cache.digest import ActionKey
from cache.named_tuple import NamedTuple
from cache.stamps import DIRECTORY, Entry
from pipeline.engine.build_log import Record
from pipeline.engine.candidates import CandidateSet, IdentifiedSet
from pipeline.engine.inputs import Command, InputKind, command_of
from pipeline.engine.keys import (
    NO_CONTENT,
    ExplainSink,
    KeyDifference,
    Keyed,
    Part,
    base_key,
    bound_key,
    command_key,
    first_difference,
    walk_command,
)
from pipeline.engine.packed_inputs import PackedInputs, doubted
from pipeline.engine.record_rows import MANY_INPUTS, Inputs, Outputs
from pipeline.model import Action, Reason

if TYPE_CHECKING:
    from cache.actions import ActionResult
    from pipeline.engine.views import ActionView, MovedView

NOT_DEFINED = "not defined"


class Cause(NamedTuple):
    """Why an action is not up to date: what moved first since its last recorded run, None when there is no record."""

    moved: KeyDifference | None

    @property
    def only_outputs(self) -> bool:
        """Is everything that it reads what it was?"""
        return self.moved is not None and self.moved.kind is InputKind.OUTPUT_PATH and self.moved.before != ""

    def reason(self, action: Action) -> Reason:
        """For a report."""
        if self.moved is None:
            return Reason("never run", action.name)
        kind, name, before, after = self.moved
        subject = f"{action.name}: {name}" if name else action.name
        if self.only_outputs:
            return Reason("output", subject, before[:12], "missing or other content")
        if kind is InputKind.OPTION:
            return Reason(kind.value, subject, before or NOT_DEFINED, after or NOT_DEFINED)
        if kind in (InputKind.INPUT, InputKind.DISCOVERED):
            return Reason(kind.value, subject, before[:12], after[:12] or "moved or missing")
        return Reason(kind.value, subject, before, after)


NEVER_RUN = Cause(None)


class Fate(StrEnum):
    """What is to be done with an action. `UNCERTAIN`: an input is made by an action that would run first; it may give
    the bytes that are there already. `BLOCKED`: an input is missing, and nothing makes it."""

    UP_TO_DATE = "up to date"
    RESTORE = "would be restored from the cache"
    RUN = "would run"
    UNCERTAIN = "may run"
    BLOCKED = "cannot run"


class Blocked(NamedTuple):
    """The declared input that cannot be used, and why."""

    path: str
    why: str


class ActionDecision(NamedTuple):
    """What is to be done. `keyed`: unless the record sufficed. `key`, `found` and `outputs` are those of the result
    that is in place or can be put there (`found` None: those of the record); `result`: that of the cache; `right`:
    those of its outputs that are in place already. `subject`: the input that an uncertain or blocked action lacks,
    `why` it does."""

    fate: Fate
    keyed: Keyed | None = None
    key: ActionKey = ActionKey("")
    found: IdentifiedSet | None = None
    outputs: Outputs = ()
    result: ActionResult | None = None
    right: tuple[str, ...] = ()
    subject: str = ""
    why: str = ""
    by_ninja: bool = False
    """Up to date since ninja made it."""


def first_move(action: Action, view: MovedView) -> Cause | None:
    """What moved first since the last recorded run, None if nothing did: then the action is up to date."""
    record = view.record(action)
    if record is None:
        return NEVER_RUN
    command = command_of(action, view.tools)
    if command != record.command:
        return Cause(_command_moved(record, command, view))
    moved = (
        _content_moved(InputKind.INPUT, doubted(record.inputs, view.believed), view)
        or view.once(record.discovered, lambda: _content_moved(InputKind.DISCOVERED, record.discovered, view))
        or view.once(record.absent, lambda: _appeared(record.absent, view))
        or _output_moved(record.outputs, view)
        or _due(action, record, view)
        or _untold(action, record, view)
    )
    return None if moved is None else Cause(moved)


def _due(action: Action, record: Record, view: MovedView) -> KeyDifference | None:
    """Why ninja would run a statement of which nobody knows all that it reads, although no content moved. That what
    another such statement made came out equal says nothing: it may be the stamp of what else that one wrote."""
    statement = action.statement
    if statement is None or statement.evidence:
        return None
    if statement.runs_each_time:
        return KeyDifference(InputKind.STATEMENT, "", "", "runs each time")
    ran_ns = view.ran_ns(action)
    for path in (*action.inputs, *(path for path, _ in record.discovered)):
        if not view.is_made_alone(path) and _mtime_ns(path, view) > ran_ns:
            return KeyDifference(InputKind.STATEMENT, path, "", "written after its last run")
    return None


def _untold(action: Action, record: Record, view: MovedView) -> KeyDifference | None:
    """Nothing moved, but ninja would run the statement: by the times of files, or since its log says too little."""
    if action.statement is None:
        return None
    others = tuple([(path, "") for path in action.statement.in_place_of])
    newest = max(view.newest_ns(observed) for observed in (record.discovered, record.inputs, others))
    return (
        None if view.is_told(action, newest) else KeyDifference(InputKind.STATEMENT, "", "", "not known to ninja yet")
    )


def decide(
    action: Action, view: ActionView, cause: Cause | None, refused: Collection[ActionKey] = ()
) -> ActionDecision:
    """What to do; `cause` as `first_move` said. `refused`: keys of results that the cache turned out not to have."""
    record = view.record(action)
    if subject := view.waits_for(action.inputs):
        return ActionDecision(Fate.UNCERTAIN, subject=subject)
    if action.statement is not None and cause is not None:
        taken = _taken_over(action, view) or _runs_as_ninja(action, record, view)
        if taken is not None:
            return taken
    if record is not None:
        kept = cause is None or (cause.only_outputs and view.is_key_kept(action))
        if kept and (subject := view.waits_for(path for path, _ in record.discovered)):
            return ActionDecision(Fate.UNCERTAIN, subject=subject)
        if cause is None:
            return ActionDecision(Fate.UP_TO_DATE, key=ActionKey(record.key), outputs=record.outputs)
        if kept and (found := _by_record(action, record, view, refused)) is not None:
            return found
        if cause.moved is not None and cause.moved.kind is InputKind.DISCOVERED:
            found = _without_use(action, record, view)
            if found is not None:
                return found
    keyed = key_of(action, view)
    if isinstance(keyed, Blocked):
        return ActionDecision(Fate.BLOCKED, subject=keyed.path, why=keyed.why)
    return look_up(keyed, view, refused)


def _without_use(action: Action, record: Record, view: ActionView) -> ActionDecision | None:
    """Up to date since it uses no option that moved: its key is what it was, without making it anew."""
    if command_of(action, view.tools) != record.command:
        return None
    try:
        inputs = [(path, view.entry(path)) for path in action.inputs]
        found = view.with_options(action, record)
    except OSError:
        return None  # a directory in the place of a header, for one
    there = tuple([(path, entry) for path, entry in inputs if entry is not None])
    if tuple([(path, entry.sha256) for path, entry in there]) != record.inputs:
        return None
    if found is None or not all(view.is_there(*output) for output in record.outputs):
        return None
    key = ActionKey(record.key)
    return ActionDecision(Fate.UP_TO_DATE, Keyed(action, record.command, there, key), key, found, record.outputs)


def keys_that_fit(keyed: Keyed, view: ActionView) -> list[ActionKey]:
    """The keys under which a result of this content may lie, in the order in which `look_up` tries them."""
    action, keys = keyed.action, []
    for candidate in _candidates(keyed, view.record(action), view):
        found = view.identify(candidate)
        if found is not None and _names_makers(action, candidate, view):
            key = view.result_key(keyed, found)
            keys += [key] if action.statement is None else [key, bound_key(key, view.symbols)]
    return keys


def _taken_over(action: Action, view: ActionView) -> ActionDecision | None:
    """Up to date by the work of ninja: its outputs are what they are now."""
    candidate = view.made_elsewhere(action)
    if candidate is None:
        return None
    keyed, found = key_of(action, view), view.identify(candidate)
    outputs = [(path, view.entry(path)) for path in action.outputs]
    there = tuple((path, entry.sha256, entry.stamp.executable) for path, entry in outputs if entry is not None)
    if isinstance(keyed, Blocked) or keyed.lacks or found is None or len(there) < len(outputs):
        return None
    return ActionDecision(Fate.UP_TO_DATE, keyed, view.result_key(keyed, found), found, there, by_ninja=True)


def _runs_as_ninja(action: Action, record: Record | None, view: ActionView) -> ActionDecision | None:
    """A statement that runs since ninja would run it; None where contents decide."""
    assert action.statement is not None
    made = filter(view.is_made, action.inputs)
    lacks = any(not view.is_present(path) and _sha256(path, view) != DIRECTORY for path in made)
    if not lacks and (action.statement.evidence or (record is not None and _due(action, record, view) is None)):
        return None
    keyed = key_of(action, view)
    if isinstance(keyed, Blocked):
        return ActionDecision(Fate.BLOCKED, subject=keyed.path, why=keyed.why)
    return ActionDecision(Fate.RUN, keyed)


def key_of(action: Action, view: ActionView) -> Keyed | Blocked:
    """The action with its declared inputs as they are, or the one that is missing."""
    command, record = command_of(action, view.tools), None
    if action.statement is None and len(action.inputs) > MANY_INPUTS and view.believed:
        record = view.record(action)
    if record is not None and record.command.inputs == action.inputs:
        return _key_of_many(action, command, record, view)
    inputs, contents, lacks = [], [], ""
    for path in action.inputs:
        entry = _input(path, view, has_directories=action.statement is not None)
        if isinstance(entry, Entry):
            inputs.append((path, entry))
            contents.append(entry.sha256)
        elif not entry.why and action.statement is not None and view.is_made(path):
            lacks = path  # its maker ran, and made none: ninja goes on
            contents.append(NO_CONTENT)
        else:
            return entry if entry.why else entry._replace(why="is missing")
    key = command_key(command)
    kept = key if len(inputs) > MANY_INPUTS else ""
    return Keyed(action, command, tuple(inputs), base_key(key, "".join(contents)), lacks, None, kept)


def _key_of_many(action: Action, command: Command, record: Record, view: ActionView) -> Keyed | Blocked:
    """`key_of`, where the inputs are those of the last run, and hold what they held then unless they are in doubt."""
    believed, inputs, now = view.believed, [], {}
    for place, path in enumerate(action.inputs):
        if path not in believed:
            entry = _input(path, view)
            if isinstance(entry, Blocked):
                return entry if entry.why else entry._replace(why="is missing")
            inputs.append((path, entry))
            now[place] = entry.sha256
    taken = PackedInputs.of(record.inputs).replaced(now)
    known = record.command_key if record.command == command else ""
    key = ActionKey(known) if known else command_key(command)
    return Keyed(action, command, tuple(inputs), base_key(key, taken.contents), "", taken, key)


def _input(path: str, view: ActionView, has_directories: bool = False) -> Entry | Blocked:
    """What a declared input holds; `why` is empty where there is none."""
    try:
        entry = view.entry(path)
        if entry is not None and entry.sha256 == DIRECTORY and not has_directories:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    except OSError as error:
        return Blocked(path, f"cannot be read: {error.strerror or error}")
    return Blocked(path, "") if entry is None else entry


def look_up(keyed: Keyed, view: ActionView, refused: Collection[ActionKey] = ()) -> ActionDecision:
    """What to do, by the content of everything that is read: the result of that content, here or in the cache."""
    action, record = keyed.action, view.record(keyed.action)
    for candidate in _candidates(keyed, record, view):
        if subject := view.waits_for(candidate.discovered):
            return ActionDecision(Fate.UNCERTAIN, keyed, subject=subject)
        found = view.identify(candidate)
        if found is None or not _names_makers(action, candidate, view):
            continue
        key = view.result_key(keyed, found)
        if record is not None and record.key == key and all(view.is_there(*output) for output in record.outputs):
            return ActionDecision(Fate.UP_TO_DATE, keyed, key, found, record.outputs)
        if action.cacheable and key not in refused:
            decision = _stored(action, key, view)
            if decision is not None:
                return decision._replace(keyed=keyed, found=found)
    return ActionDecision(Fate.RUN, keyed)


def _by_record(
    action: Action, record: Record, view: ActionView, refused: Collection[ActionKey]
) -> ActionDecision | None:
    """Nothing but outputs moved, so that the key is known without reading anything."""
    key = ActionKey(record.key)
    right = [output for output in record.outputs if view.is_there(*output)]
    if len(right) == len(record.outputs):
        return ActionDecision(Fate.UP_TO_DATE, key=key, outputs=record.outputs)
    if not action.cacheable or key in refused:
        return None
    decision = _stored(action, key, view, right)
    return decision if decision is not None and decision.outputs == record.outputs else None


def _stored(
    action: Action, key: ActionKey, view: ActionView, seen: Sequence[tuple[str, str, bool]] | None = None
) -> ActionDecision | None:
    """The result under a key. `seen`: its outputs that are in place, where it was looked already."""
    result = view.stored(key)
    if result is None and action.statement is not None:
        result = view.stored(bound_key(key, view.symbols))
    if result is None or tuple([file.path for file in result.outputs]) != stored_paths(action):
        return None
    if action.statement is not None:
        named = zip(result.outputs, action.outputs, strict=True)
        result = result._replace(outputs=tuple([file._replace(path=path) for file, path in named]))
    outputs = tuple([(path, digest.hex, executable) for path, digest, executable in result.outputs])
    there = [output for output in outputs if view.is_there(*output)] if seen is None else seen
    right = tuple([output[0] for output in there])
    fate = Fate.UP_TO_DATE if len(right) == len(outputs) else Fate.RESTORE
    return ActionDecision(fate, None, key, None, outputs, result, right)


def stored_paths(action: Action) -> tuple[str, ...]:
    """What the outputs are called in the cache, which holds nothing that lies elsewhere than below build/."""
    if action.statement is None:
        return action.outputs
    return tuple([f"build/{n}" for n in range(len(action.outputs))])


def _candidates(keyed: Keyed, record: Record | None, view: ActionView) -> Iterator[CandidateSet]:
    """Sets to try: without a depfile what is declared suffices; else the last one here, then those in the cache."""
    if not keyed.action.depfile:
        yield CandidateSet((), keyed.action.absent)
        return
    last = None
    if record is not None:
        yield (last := CandidateSet(tuple([path for path, _ in record.discovered]), record.absent))
    if keyed.action.cacheable:
        yield from (candidate for candidate in view.candidates(keyed.base) if candidate != last)


def _names_makers(action: Action, candidate: CandidateSet, view: ActionView) -> bool:
    """Does it name every output that a file of it leads to? One from before a link was made does not."""
    if not action.depfile:
        return True
    named = {*action.inputs, *candidate.discovered}
    return named.issuperset(view.products(action.inputs)) and named.issuperset(view.products(candidate.discovered))


def explained(action: Action, view: ActionView, cause: Cause) -> Cause:
    """Why it must run, for people: of an option header that moved, the option."""
    record = view.record(action)
    if record is None or cause.moved is None or cause.moved.kind is not InputKind.DISCOVERED:
        return cause
    for path, sha256 in record.discovered:
        now = _sha256(path, view)
        if now != sha256:
            moved = view.explain_option(action, record, KeyDifference(InputKind.DISCOVERED, path, sha256, now))
            if moved is not None:
                return Cause(moved)
    return cause


# --- what moved -------------------------------------------------------------------------------


def _content_moved(kind: InputKind, observed: Inputs, view: MovedView) -> KeyDifference | None:
    for path, sha256 in observed:
        now = _sha256(path, view)
        if now != sha256:
            return KeyDifference(kind, path, sha256, now)
    return None


def _appeared(absent: Sequence[str], view: MovedView) -> KeyDifference | None:
    path = view.first_present(absent)
    if not path:
        return None
    return KeyDifference(InputKind.ABSENT, path, "absent", "present, and found before the one that was used")


def _output_moved(outputs: Outputs, view: MovedView) -> KeyDifference | None:
    for path, sha256, executable in outputs:
        now = view.entry(path)
        if now is None:
            return KeyDifference(InputKind.OUTPUT_PATH, path, sha256, "missing")
        if now.sha256 != sha256:
            return KeyDifference(InputKind.OUTPUT_PATH, path, sha256, now.sha256)
        if now.stamp.executable != executable:
            return KeyDifference(InputKind.OUTPUT_PATH, path, sha256, "other permissions")
    return None


def _command_moved(record: Record, command: Command, view: MovedView) -> KeyDifference:
    """The first part of the command that moved, from the walk that makes the key."""
    old, new = ExplainSink(), ExplainSink()
    walk_command(old, record.command)
    walk_command(new, command)
    # What the declared inputs held is not in this walk.
    old.parts += [Part(InputKind.INPUT, path, sha256) for path, sha256 in record.inputs]
    before = dict(record.inputs)
    new.parts += [Part(InputKind.INPUT, path, before.get(path) or _sha256(path, view)) for path in command.inputs]
    moved = first_difference(old.parts, new.parts)
    # Commands that differ nowhere in the walk differ in an order that keys do not hold.
    return moved or KeyDifference(InputKind.ENVIRONMENT, "", "order", "order")


def _mtime_ns(path: str, view: MovedView) -> int:
    try:
        entry = view.entry(path)
    except OSError:
        return 0
    return 0 if entry is None else entry.stamp.mtime_ns


def _sha256(path: str, view: MovedView) -> str:
    try:
        entry = view.entry(path)
    except OSError:
        return ""
    return "" if entry is None else entry.sha256
