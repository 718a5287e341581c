"""`compile_commands.json` for clangd and everything else that reads it, from the actions that builds really run.

Knows the words of zig and gcc that clang spells differently, and where their headers lie. Does not run anything.
Invariant: every path in it is one of this machine and explicit, the compiler's own headers included, so that a reader
needs to ask no compiler; a file of that name that is not ours is not touched, and none is made by a build.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cache.durable import read_text, write_atomic
from pipeline.model import Action, Tool
from pipeline.toolchain.build import Toolchain
from pipeline.toolchain.compile_units import file_word

NAME = "compile_commands.json"
_DROPPED = ("-MD", "-MMD", "-c")
_DROPPED_PAIRS = ("-MF", "-o", "-target", "-Xassembler")
_GCC_ONLY = ("-fno-tree-loop-distribute-patterns", "-Wa,")
_SIGN = "-ffile-prefix-map="
"""Every compile command of ours has it, with the project's root in it: how a database is known to be ours."""


def database(root: Path, toolchain: Toolchain) -> list[dict[str, Any]]:
    """One entry per translation unit, in the order of the actions; none for toolchains that compile nothing here."""
    return [
        {
            "directory": str(root),
            "file": action.inputs[0],
            "output": action.outputs[0],
            "arguments": list(_arguments(root, action, toolchain.tools)),
        }
        for action in toolchain.actions
        if action.count_as == "compiled" and action.argv
    ]


def _arguments(root: Path, action: Action, tools: Mapping[str, Tool]) -> Iterator[str]:
    """The command as clang would be told it."""
    words = [_placed(root, word, tools) for word in action.argv[1:]]
    yield "clang"
    yield "--target=riscv32-unknown-elf"
    skip, source = False, file_word(action.inputs[0])
    for word in words:
        cpu = re.fullmatch(r"-mcpu=generic_rv32\+(.*)", word)
        if skip or word in _DROPPED_PAIRS:
            skip = not skip
        elif cpu is not None:
            yield from _isa(cpu[1].split("+"))
        elif word not in ("cc", *_DROPPED, action.inputs[0], f"./{action.inputs[0]}") and not word.startswith(
            _GCC_ONLY
        ):
            yield word
    yield from (f"-isystem{place}" for place in _headers(tools))
    yield from ("-c", source, "-o", action.outputs[0])


def _isa(extensions: Sequence[str]) -> tuple[str, ...]:
    """zig's CPU features as clang's architecture and ABI."""
    letters = "".join(letter for letter in "mafdc" if letter in extensions)
    return (f"-march=rv32i{letters}", "-mabi=ilp32f" if "f" in extensions else "-mabi=ilp32")


def _placed(root: Path, word: str, tools: Mapping[str, Tool]) -> str:
    """`word` as the engine runs it: places of this machine instead of `{root}` and `{NAME_dir}`."""
    word = word.replace("{root}", str(root))
    for name, tool in tools.items():
        directory = str(Path(tool.path).parent)
        word = word.replace(f"{{{name}_dir}}", directory)
        word = word.replace(f"{{{name}_near}}", directory.removeprefix(f"{root}/"))
    return word


def _headers(tools: Mapping[str, Tool]) -> Iterator[str]:
    """The directories of the compiler's own headers."""
    for name, tool in tools.items():
        place = Path(tool.path)
        candidates = {"zig": (place.parent / "lib/include",), "gcc-lib": (place, place.with_name("include-fixed"))}
        yield from (str(directory) for directory in candidates.get(name, ()) if directory.is_dir())


def is_ours(text: str, root: Path) -> bool:
    """Was this database written here, for the project in `root` or for where it lay before it was copied or moved?
    Damaged ones are not."""
    try:
        entries = json.loads(text)
        places = {str(entry["directory"]) for entry in entries}
        return len(places) == 1 and all(
            str(entry["output"]).startswith("build/")
            and any(word.startswith(f"{_SIGN}{entry['directory']}=") for word in entry["arguments"])
            for entry in entries
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return False


def text_of(entries: Sequence[Mapping[str, Any]]) -> str:
    """The file."""
    return json.dumps(entries, indent=1) + "\n"


def refresh(root: Path, toolchain: Toolchain) -> str:
    """Bring the database that `hooks:install` wrote up to date: sources come and go. What the user should know."""
    path = root / NAME
    try:
        text = read_text(path)
        wanted = text_of(database(root, toolchain))
        if text != wanted and is_ours(text, root):
            write_atomic(path, wanted.encode(), durable=False)
    except (FileNotFoundError, UnicodeDecodeError):
        pass  # nobody asked for one, or it is another program's
    except OSError as error:
        return f"{NAME} cannot be brought up to date ({error.strerror})"
    return ""
