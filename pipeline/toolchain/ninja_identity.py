"""`[image] identity = "loaded"`: images of a build of ninja name what is loaded of their ELF file, not its debug info.

Puts the ELF file's loaded sections (`formats/elf.py`) in its place where a statement tells esptool to make an image of
it: by an action of its own before the statement, or, where the statement links and makes the image in one command, by a
program that this command runs. Reads and runs nothing. Invariant: nothing else in a command is another than ninja's.
"""

from __future__ import annotations

import posixpath
import sys
from collections.abc import Sequence

from pipeline.formats.ninja.elf2image import ElfWord, find_elf
from pipeline.model import Action, Stage
from pipeline.toolchain.builtins import STRIP

PROGRAM = "pipeline.toolchain.strip_elf"


def with_loaded_identity(actions: Sequence[Action], root: str, out: str) -> list[Action]:
    """The actions with that done; as many as before if no statement makes such an image. `out`: where what is loaded
    goes, from the root."""
    made = {path for action in actions for path in action.outputs}
    found: list[Action] = []
    for action in actions:
        use = find_elf(action.argv[2]) if action.statement is not None and len(action.argv) == 3 else None
        elf = "" if use is None else _from_root(use, action, root)
        name = posixpath.basename(elf)
        loaded = f"{out}/{name.removesuffix('.elf')}.stripped.elf"
        if use is None or elf not in made or "'" in root:
            found.append(action)
        elif elf in action.outputs:
            found.append(_within(action, use, loaded))
        elif action.argv[2].count(name) > 1:
            found.append(action)  # what comes before reads it, too
        else:
            strip = Action(f"loaded sections of {elf}", Stage.LINK, (elf,), (loaded,), builtin=STRIP)
            found += [strip, _before(action, use, elf, loaded)]
    return found


def _before(action: Action, use: ElfWord, elf: str, loaded: str) -> Action:
    assert action.statement is not None
    inputs = dict.fromkeys(loaded if path == elf else path for path in (*action.inputs, elf))
    # ninja goes by the ELF file, and what ninja makes itself is another image.
    statement = action.statement._replace(after=(*action.statement.after, elf), in_place_of=(elf,))
    return action._replace(argv=_with_word(action.argv, use, loaded), inputs=tuple(inputs), statement=statement)


def _within(action: Action, use: ElfWord, loaded: str) -> Action:
    tool, option, text = _with_word(action.argv, use, loaded)
    strip = f"'{sys.executable}' -P -m {PROGRAM} {use.word} '{{root}}/{loaded}' &&"
    return action._replace(argv=(tool, option, f"{text[: use.begin]} {strip}{text[use.begin :]}"))


def _with_word(argv: tuple[str, ...], use: ElfWord, loaded: str) -> tuple[str, str, str]:
    tool, option, text = argv
    return tool, option, f"{text[: use.start]}'{{root}}/{loaded}'{text[use.end :]}"


def _from_root(use: ElfWord, action: Action, root: str) -> str:
    """The path of the file as keys have it; `""` outside."""
    assert action.statement is not None
    path = posixpath.join("{root}", action.statement.directory, use.directory, use.word)
    for start in (f"{root}/", "{root}/"):
        at = path.rfind(start)
        if at >= 0:
            return posixpath.normpath(path[at + len(start) :])
    return ""
