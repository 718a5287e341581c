"""`[[action]]` tables as actions: globs expanded, placeholders filled in, programs found and identified.

Knows the configuration and where programs lie. Asks a program for its version when its file is new here; runs nothing
else. Invariants: no word of an action names a path of this machine; what an action's result can depend on is in it:
every declared input, every word of its command that names a file of the project, the programs, the variables.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cache.named_tuple import NamedTuple
from pipeline.config.schema import ActionConfig
from pipeline.fastpath.watched import Watched
from pipeline.model import Action, FailureCategory, Stage, Tool
from pipeline.toolchain.distribution import program_identity
from pipeline.toolchain.globs import Listing, is_pattern

PYTHON = ("python", "python3")
"""Mean the interpreter that runs this program: the one name that every project with a code generator needs, and the
one that is most often another program on another machine."""

KeyPath = tuple[str | int, ...]
AskVersion = Callable[[str], str]
"""Path of a program -> what it says to `--version`, `""` if nothing."""


class UserActions(NamedTuple):
    """What the tables come to. `watched`: where the programs were looked for, and the variables that count."""

    actions: tuple[Action, ...]
    tools: Mapping[str, Tool]
    watched: Watched


class Misfit(NamedTuple):
    """What is wrong, at a place of deploy.toml; `hint` None: what the category says."""

    at: KeyPath
    message: str
    hint: str | None
    category: FailureCategory = FailureCategory.CONFIG_ERROR


def user_actions(
    listing: Listing, configs: Sequence[ActionConfig], profile: str, state_dir: Path, ask_version: AskVersion
) -> UserActions | Misfit:
    """The actions of one profile, in the order of the file; all in stage compile, `place_stages` decides further."""
    tools: dict[str, Tool] = {}
    actions = []
    for index, config in enumerate(configs):
        programs = [(config.argv[0], ("argv", 0)), *((word, ("tools", n)) for n, word in enumerate(config.tools))]
        for word, key in programs:
            if word not in tools:
                found = _tool(listing.root, word, ("action", index, *key), state_dir, ask_version)
                if isinstance(found, Misfit):
                    return found
                tools[word] = found
        inputs = _inputs(listing, config, index)
        if isinstance(inputs, Misfit):
            return inputs
        actions.append(_action(listing.root, config, inputs, profile, tools))
    names = sorted({name for config in configs for name in config.env})
    places = [place for word in tools if "/" not in word for place in _search(word)]
    absent = [place for place in places if not os.path.lexists(place)]
    return UserActions(tuple(actions), tools, Watched({}, tuple(absent), (), tuple(names)))


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
    root: str, config: ActionConfig, inputs: tuple[str, ...], profile: str, tools: Mapping[str, Tool]
) -> Action:
    words: list[str] = []
    for word in config.argv:
        if word in ("{in}", "{out}"):
            words += inputs if word == "{in}" else config.outputs
            continue
        filled = word.replace("{in}", inputs[0] if inputs else "").replace("{out}", config.outputs[0])
        words.append(filled.replace("{depfile}", config.depfile).replace("{profile}", profile))
    return Action(
        name=config.name,
        stage=Stage.COMPILE,
        # A script that is run, or named in the command, is as much an input as what it reads.
        inputs=tuple(dict.fromkeys((*inputs, *_scripts(root, config)))),
        outputs=config.outputs,
        argv=tuple(words),
        env=tuple((name, os.environ[name]) for name in config.env if name in os.environ),
        depfile=config.depfile,
        profile=profile,
        salt="\n".join(f"{name} {tools[name].identity}" for name in config.tools),
        cacheable=config.cacheable,
    )


def _scripts(root: str, config: ActionConfig) -> list[str]:
    made = (*config.outputs, config.depfile)
    return [word for word in config.argv if _ours(word) and word not in made and Path(root, word).is_file()]


def _ours(path: str) -> bool:
    """Is it spelled as a file of the project would be?"""
    return "/" in path and not path.startswith("/") and ".." not in path.split("/")


def _inputs(listing: Listing, config: ActionConfig, index: int) -> tuple[str, ...] | Misfit:
    found: dict[str, None] = {}
    for n, pattern in enumerate(config.inputs):
        # A plain name may be made by another action, so it need not exist yet.
        matches = listing.match(pattern) if is_pattern(pattern) else [pattern]
        if not matches:
            message = f"'{pattern}' matches no file"
            return Misfit(("action", index, "inputs", n), message, "correct the pattern; it is relative to the root")
        found.update(dict.fromkeys(matches))
    return tuple(found)


def _tool(root: str, word: str, at: KeyPath, state_dir: Path, ask_version: AskVersion) -> Tool | Misfit:
    """The program that `word` means: one of the project (with a slash), this Python, or the first on PATH."""
    if "/" in word:
        # Its bytes are an input of the action, which says more than an identity.
        return Tool(word, f"{root}/{word}", "", "a program of the project")
    path = sys.executable if word in PYTHON else shutil.which(word)
    if path is None:
        message = f"the program '{word}' of an [[action]] is not on PATH"
        hint = f"install it, or write its path relative to the project: tools/{word}"
        return Misfit(at, message, hint, FailureCategory.TOOLCHAIN_MISSING)
    try:
        identity = program_identity(path, state_dir, ask_version)
    except OSError as error:
        message = f"the program '{word}' ({path}) cannot be read: {error.strerror}"
        return Misfit(at, message, None, FailureCategory.TOOLCHAIN_MISSING)
    return Tool(word, path, identity.version, f"{word} {identity.version} sha256:{identity.sha256}")


def _search(word: str) -> list[str]:
    """Where a program of this name would be found before the one that is used."""
    if word in PYTHON:
        return []
    used, places = shutil.which(word), []
    for directory in os.environ.get("PATH", os.defpath).split(os.pathsep):
        place = f"{directory}/{word}"
        if place == used:
            break
        places.append(place)
    return places
