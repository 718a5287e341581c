"""A compiler, linker and generator for tests of the engine: one pure function, and a program around it.

Imports little, so that `python -I -S fake_tool.py cc -o OUT -MF DEP SOURCE` costs as much as a bare interpreter.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

SEARCH = ("first", "inc", "build/gen")
INCLUDE = re.compile(r'#include "([^"]+)"')
DATA = "--data="
HELPER = "tools/helper.py"
VALUE = re.compile(r'^VALUE = "(.*)"$', re.MULTILINE)

Read = Callable[[str], "bytes | None"]


class Made(NamedTuple):
    """What a command does: the files that it writes, the files that it read, and its error if it fails."""

    files: dict[str, bytes]
    read: dict[str, bytes]
    error: str = ""


def tool(argv: Sequence[str], read_file: Read) -> Made:
    """`cc [-FLAG...] -o OUT -MF DEP SOURCE`, `ld [--data=FILE] -o OUT OBJECT...`, `gen -o OUT SEED`, an interpreter:
    `py -o OUT -MF DEP SCRIPT`, whose script uses tools/helper.py. `cc` drops comments, so that an edit of one gives the
    same object; `gen` does so too."""
    words, flags, files, out, depfile = list(argv), [], [], "", ""
    name = words.pop(0).rpartition("/")[2]
    while words:
        word = words.pop(0)
        if word == "-o":
            out = words.pop(0)
        elif word == "-MF":
            depfile = words.pop(0)
        elif word.startswith("-"):
            flags.append(word)
        else:
            files.append(word)
    seen: dict[str, bytes] = {}

    def read(path: str) -> str:
        data = read_file(path)
        if data is None:
            raise FileNotFoundError(path)
        seen[path] = data
        return data.decode()

    def preprocess(path: str) -> str:
        def include(match: re.Match[str]) -> str:
            # Not in the including file's own directory, as for <...>: there the engine watches for more files than
            # the compiler would open, and the minimum would not be exact.
            for directory in SEARCH:
                found = f"{directory}/{match[1]}"
                if read_file(found) is not None:
                    return preprocess(found)
            return f"#error no {match[1]}"

        return INCLUDE.sub(include, read(path))

    text = "+".join(preprocess(path) if name == "cc" else read(path) for path in files)
    text += "".join(read(flag[len(DATA) :]) for flag in flags if flag.startswith(DATA))
    if name == "py":
        match = VALUE.search(read(HELPER))
        text += match[1] if match else ""
    if "#error" in text:
        return Made({}, seen, f"{files[0]}:1:1: error: {text[text.index('#error') :].splitlines()[0]}")
    if name in ("cc", "gen"):
        text = re.sub(r" *//[^\n]*", "", text)
    made = {out: f"{name} {' '.join(flags)}\n{text}".encode()}
    if depfile:
        made[depfile] = f"{out}: {' '.join(seen)}\n".encode()
    return Made(made, seen)


def write_outputs(made: Made, directory: str = ".") -> None:
    """Write them, each in two pieces, as a compiler that can be killed between them. Raises OSError."""
    for path, data in made.files.items():
        full = f"{directory}/{path}"
        with open(full, "wb") as stream:  # noqa: PTH123
            stream.write(data[: len(data) // 2])
            stream.flush()
            stream.write(data[len(data) // 2 :])
        if path.endswith(".elf"):
            os.chmod(full, 0o755)  # noqa: PTH101


def read_below(directory: str) -> Read:
    """Files of a directory; None for one that is missing."""

    def read(path: str) -> bytes | None:
        try:
            with open(f"{directory}/{path}", "rb") as stream:  # noqa: PTH123
                return stream.read()
        except (FileNotFoundError, NotADirectoryError):
            return None

    return read


def _imported(read_file: Read) -> Read:
    """The helper as an interpreter sees it: through a module, whose compiled copy may be another's."""
    sys.path.insert(0, os.path.dirname(HELPER))  # noqa: PTH120
    value = __import__("helper").VALUE
    return lambda path: f'VALUE = "{value}"\n'.encode() if path == HELPER else read_file(path)


def main() -> int:
    """The program: works in the current directory."""
    read = read_below(".")
    made = tool(sys.argv[1:], _imported(read) if sys.argv[1] == "py" else read)
    write_outputs(made)
    sys.stderr.write(made.error)
    return 1 if made.error else 0


if __name__ == "__main__":
    sys.exit(main())
