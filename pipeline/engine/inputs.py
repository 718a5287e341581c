"""What can change an action's outputs and what cannot: the one table.

Values only. Does not know how keys are encoded. Invariant: every field of `Action` and `Tool`, and every circumstance
an action runs in, has a row; a STABLE kind is in every key that it concerns, a VOLATILE one in none.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from cache.named_tuple import NamedTuple
from pipeline.model import Action, Tool


class Stability(StrEnum):
    """`STABLE`: a change must change the key. `VOLATILE`: it must not."""

    STABLE = "stable"
    VOLATILE = "volatile"


class InputKind(StrEnum):
    """Everything that an action's outputs could be thought to depend on."""

    ARGUMENT = "argument"
    BUILTIN = "builtin"
    PARAMETER = "parameter"
    ENVIRONMENT = "environment"
    TOOL = "tool"
    INPUT = "input"
    DISCOVERED = "discovered input"
    OPTION = "option"
    ABSENT = "absent file"
    OUTPUT_PATH = "output path"
    DEPFILE_PATH = "depfile path"
    PROFILE = "profile"
    SALT = "salt"

    ACTION_NAME = "action name"
    STAGE = "stage"
    CACHEABLE = "cacheable"
    COUNTER = "counter"
    STATEMENT = "ninja"
    TOOL_PATH = "tool path"
    LAUNCHER = "launcher"
    TOOL_VERSION_TEXT = "tool version text"
    PROJECT_ROOT = "project root"
    RUN_ENVIRONMENT = "run environment"
    FILE_TIME = "file time"
    FILE_INODE = "file inode"
    CLOCK = "clock"
    JOBS = "jobs"


_S, _V, _K = Stability.STABLE, Stability.VOLATILE, InputKind

STABILITY: Mapping[InputKind, Stability] = MappingProxyType(
    {
        _K.ARGUMENT: _S,
        _K.BUILTIN: _S,
        _K.PARAMETER: _S,
        _K.ENVIRONMENT: _S,
        _K.TOOL: _S,  # its name and identity, which covers version and bytes
        _K.INPUT: _S,  # path and digest
        _K.DISCOVERED: _S,
        _K.OPTION: _S,  # the definitions of an option header that a compile may look at
        _K.ABSENT: _S,  # a path that must not exist: a header there would be found first
        _K.OUTPUT_PATH: _S,
        _K.DEPFILE_PATH: _S,
        _K.SALT: _S,
        _K.ACTION_NAME: _V,  # what people call it
        _K.PROFILE: _V,  # what it changes is in flags and paths; actions that it does not change are the same action
        _K.STAGE: _V,  # when it runs
        _K.CACHEABLE: _V,
        _K.COUNTER: _V,
        _K.STATEMENT: _V,  # when ninja would run it; what it does stands in the other fields
        _K.TOOL_PATH: _V,  # differs between machines; prefix maps keep it out of outputs
        _K.LAUNCHER: _V,  # gives the compiler's own bytes, or stands in the salt
        _K.TOOL_VERSION_TEXT: _V,  # for people; the identity counts
        _K.PROJECT_ROOT: _V,
        _K.RUN_ENVIRONMENT: _V,  # PATH, cache directories: where to work, not what to make
        _K.FILE_TIME: _V,
        _K.FILE_INODE: _V,
        _K.CLOCK: _V,
        _K.JOBS: _V,
    }
)

ACTION_FIELDS: Mapping[str, InputKind] = MappingProxyType(
    {
        "name": _K.ACTION_NAME,
        "stage": _K.STAGE,
        "inputs": _K.INPUT,
        "outputs": _K.OUTPUT_PATH,
        "argv": _K.ARGUMENT,
        "builtin": _K.BUILTIN,
        "params": _K.PARAMETER,
        "env": _K.ENVIRONMENT,
        "depfile": _K.DEPFILE_PATH,
        "profile": _K.PROFILE,
        "salt": _K.SALT,
        "absent": _K.ABSENT,
        "cacheable": _K.CACHEABLE,
        "count_as": _K.COUNTER,
        "statement": _K.STATEMENT,
    }
)
"""Which kind each field of `Action` is; a test compares the names."""

TOOL_FIELDS: Mapping[str, InputKind] = MappingProxyType(
    {
        "name": _K.TOOL,
        "identity": _K.TOOL,
        "path": _K.TOOL_PATH,
        "version": _K.TOOL_VERSION_TEXT,
        "launcher": _K.LAUNCHER,
    }
)


class Command(NamedTuple):
    """The STABLE part of an action without its inputs' content. A tuple, so that comparing one with a remembered one
    costs less than hashing either. The order of the fields is part of the format of the state file."""

    builtin: str
    argv: tuple[str, ...]
    params: tuple[tuple[str, str], ...]
    env: tuple[tuple[str, str], ...]
    tool: tuple[str, str]
    """(name, identity) of the program that runs; empty strings for a builtin."""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    depfile: str
    salt: str
    absent: tuple[str, ...]


def command_of(action: Action, tools: Mapping[str, Tool]) -> Command:
    """What `action` would run here. A tool that is missing here has the identity `""`: nothing was ever recorded with
    it, and running it is refused."""
    argv = action.argv
    name = "" if action.builtin else argv[0]
    identity = tools[name].identity if name in tools else ""
    return Command(
        action.builtin,
        argv,
        action.params,
        action.env,
        (name, identity),
        action.inputs,
        action.outputs,
        action.depfile,
        action.salt,
        action.absent,
    )
