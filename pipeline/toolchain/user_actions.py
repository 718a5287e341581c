"""`[[action]]` tables as actions: globs expanded, placeholders filled in, programs found and identified.

Knows the configuration and where programs lie. Asks a program for its version when its file is new here; runs nothing
else. Invariants: no word of an action names a path of this machine; what an action's result can depend on is in it:
every declared input, every word of its command that names a file of the project, the programs, the variables.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cache.named_tuple import NamedTuple
from pipeline.config.schema import ActionConfig
from pipeline.fastpath.watched import Watched
from pipeline.formats import include_search
from pipeline.model import Action, FailureCategory, Stage, Tool
from pipeline.toolchain import programs
from pipeline.toolchain.compile_units import file_word
from pipeline.toolchain.config_places import KeyPath
from pipeline.toolchain.distribution import program_identity
from pipeline.toolchain.globs import Listing, is_pattern
from pipeline.toolchain.named_files import NamedFiles

PYTHON = ("python", "python3")
"""Mean the interpreter that runs this program: the one name that every project with a code generator needs, and the
one that is most often another program on another machine."""

AskVersion = Callable[[str], str]
"""Path of a program -> what it says to `--version`, `""` if nothing."""


class UserActions(NamedTuple):
    """What the tables come to. `watched`: where the programs were looked for, and the variables that count."""

    actions: tuple[Action, ...]
    tools: Mapping[str, Tool]
    watched: Watched


class ActionProblem(NamedTuple):
    """What is wrong, at a place of deploy.toml; `hint` None: what the category says."""

    at: KeyPath
    message: str
    hint: str | None
    category: FailureCategory = FailureCategory.CONFIG_ERROR


def user_actions(
    listing: Listing,
    named: NamedFiles,
    configs: Sequence[ActionConfig],
    profile: str,
    state_dir: Path,
    ask_version: AskVersion,
) -> UserActions | ActionProblem:
    """The actions of one profile, in the order of the file; all in stage compile, `place_stages` decides further."""
    tools: dict[str, Tool] = {}
    actions = []
    for index, config in enumerate(configs):
        programs = [(config.argv[0], ("argv", 0)), *((word, ("tools", n)) for n, word in enumerate(config.tools))]
        for word, key in programs:
            if word not in tools:
                found = _tool(listing.root, word, ("action", index, *key), state_dir, ask_version)
                if isinstance(found, ActionProblem):
                    return found
                tools[word] = found
        inputs = _inputs(listing, config, index)
        if isinstance(inputs, ActionProblem):
            return inputs
        actions.append(_action(named, config, inputs, profile, tools))
    names = sorted({name for config in configs for name in config.env})
    absent: list[str] = []
    files: list[str] = []
    for program in (_find(word) for word in tools if "/" not in word):
        if program is not None:
            absent += [place for place in program.earlier if not os.path.lexists(place)]
            files += dict.fromkeys((program.path, program.real))
    return UserActions(tuple(actions), tools, Watched({}, tuple(absent), tuple(files), tuple(names)))


def place_stages(actions: Sequence[Action], users: Sequence[Action]) -> tuple[Action, ...]:
    """All of them; those of `users` that read a product of stage link, directly or not, belong to that stage."""
    late = {path for action in actions if action.stage is Stage.LINK for path in action.outputs}
    waiting, placed = list(users), []
    while moved := [action for action in waiting if not late.isdisjoint(action.inputs)]:
        waiting = [action for action in waiting if action not in moved]
        placed += [action._replace(stage=Stage.LINK) for action in moved]
        late.update(path for action in moved for path in action.outputs)
    return (*waiting, *actions, *placed)


def _action(
    named: NamedFiles, config: ActionConfig, inputs: tuple[str, ...], profile: str, tools: Mapping[str, Tool]
) -> Action:
    words: list[str] = []
    for word in config.argv:
        if word in ("{in}", "{out}"):
            words += map(file_word, inputs if word == "{in}" else config.outputs)
            continue
        first = inputs[0] if inputs else ""
        filled = word.replace("{in}", file_word(first) if word.startswith("{in}") else first)
        words.append(filled.replace("{out}", config.outputs[0]).replace("{depfile}", config.depfile))
    # Scripts and templates that the command names are as much inputs as what it reads.
    own_programs = (word for word in config.tools if "/" in word)
    said = named.of_words((*config.argv, *own_programs), (*config.outputs, config.depfile))
    identities = (f"{name} {tools[name].identity}" for name in config.tools)
    return Action(
        name=config.name,
        stage=Stage.COMPILE,
        inputs=tuple(dict.fromkeys((*inputs, *said.files))),
        outputs=config.outputs,
        argv=tuple(words),
        env=tuple((name, os.environ[name]) for name in config.env if name in os.environ),
        depfile=config.depfile,
        profile=profile,
        salt="\n".join((*identities, *([said.salt] if said.salt else []))),
        cacheable=config.cacheable,
    )


def _inputs(listing: Listing, config: ActionConfig, index: int) -> tuple[str, ...] | ActionProblem:
    found: dict[str, None] = {}
    for n, pattern in enumerate(config.inputs):
        # A plain name may be made by another action, so it need not exist yet.
        matches = listing.match(pattern) if is_pattern(pattern) else [include_search.plain(pattern)]
        matches = [path for path in matches if path not in (*config.outputs, config.depfile) or not is_pattern(pattern)]
        if not matches:
            message, hint = f"'{pattern}' matches no file", "correct the pattern; it is relative to the root"
            return ActionProblem(("action", index, "inputs", n), message, hint)
        found.update(dict.fromkeys(matches))
    return tuple(found)


def _tool(root: str, word: str, at: KeyPath, state_dir: Path, ask_version: AskVersion) -> Tool | ActionProblem:
    """The program that `word` means: one of the project (with a slash), this Python, or the first on PATH."""
    if "/" in word:
        # Its bytes are an input of the action, which says more than an identity.
        return Tool(word, f"{root}/{word}", "", "a program of the project")
    found = _find(word)
    if found is None:
        message = f"the program '{word}' of an [[action]] is not on PATH"
        hint = f"install it, or write its path relative to the project: tools/{word}"
        return ActionProblem(at, message, hint, FailureCategory.TOOLCHAIN_MISSING)
    try:
        identity = program_identity(found.real, state_dir, ask_version)
    except OSError as error:
        message = f"the program '{word}' ({found.real}) cannot be read: {error.strerror}"
        return ActionProblem(at, message, None, FailureCategory.TOOLCHAIN_MISSING)
    return Tool(word, found.path, identity.version, f"{word} {identity.version} sha256:{identity.sha256}")


def _find(word: str) -> programs.Found | None:
    if word in PYTHON:
        return programs.Found(sys.executable, sys.executable, ())
    return programs.find(word, os.environ.get("PATH", os.defpath))
