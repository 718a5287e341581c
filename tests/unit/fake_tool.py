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

Read = Callable[[str], "bytes | None"]


class Made(NamedTuple):
    """What a command does: the files that it writes, the files that it read, and its error if it fails."""

    files: dict[str, bytes]
    read: dict[str, bytes]
    error: str = ""


def tool(argv: Sequence[str], read_file: Read) -> Made:
    """`cc [-FLAG...] -o OUT -MF DEP SOURCE`, `ld -o OUT OBJECT...`, `gen -o OUT SEED`. `cc` drops comments, so that an
    edit of one gives the same object; `gen` does so too."""
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


def main() -> int:
    """The program: works in the current directory."""
    made = tool(sys.argv[1:], read_below("."))
    write_outputs(made)
    sys.stderr.write(made.error)
    return 1 if made.error else 0


if __name__ == "__main__":
    sys.exit(main())
