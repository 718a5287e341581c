"""Where a command tells esptool's `elf2image` which ELF file to make an image of, with that file's SHA-256 in it.

Pure, of the command's text alone. Does not know files or which of them somebody makes. Invariant: an answer names one
word of the text, and nothing else from that command on names the file, so that another one can be put in its place.
"""

from __future__ import annotations

import posixpath
import re

from cache.named_tuple import NamedTuple
from pipeline.formats.ninja.shell import simple_commands

_ESPTOOL = re.compile(r"(?:^|/)esptool(?:\.py|\.exe)?\Z")
_OFFSET = re.compile(r"--elf[-_]sha256[-_]offset(?:=|\Z)")
_VERB = re.compile(r"elf2image\Z")


class ElfWord(NamedTuple):
    """`text[start:end]` is the name of the ELF file, seen from `directory` (where a `cd` led, `""`: where the command
    started); `begin`: where the one command among those of the text begins that has it."""

    word: str
    directory: str
    begin: int
    start: int
    end: int


def find_elf(text: str) -> ElfWord | None:
    """None where nothing makes such an image, or where it cannot be told of which file."""
    if "elf2image" not in text:
        return None
    directory, begin = "", 0
    for piece in text.split("&&"):
        commands = simple_commands(piece)
        if commands is None:
            return None
        words = commands[0].words if commands else ()
        moved = re.fullmatch(r"\s*cd\s+(\S+)\s*", piece)
        if moved is not None:
            directory = posixpath.join(directory, moved[1])
        elif any(map(_VERB.match, words)) and any(map(_ESPTOOL.search, words)) and any(map(_OFFSET.match, words)):
            elf = words[-1] if words[-1].endswith(".elf") else ""
            rest = text[begin:]
            found = re.search(rf"(?<=\s){re.escape(elf)}(?=\s|$)", rest)
            if not elf or found is None or rest.count(posixpath.basename(elf)) != 1:
                return None
            return ElfWord(elf, directory, begin, begin + found.start(), begin + found.end())
        begin += len(piece) + 2
    return None
