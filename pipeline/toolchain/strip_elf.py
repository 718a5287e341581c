"""`python -m pipeline.toolchain.strip_elf ELF OUT`: write what is loaded of an ELF file, for a statement that links and
makes an image in one command.

Reads one file, writes one. Does not know what the file is for. Invariant: `OUT` is whole, or was not touched.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cache.durable import read_file, write_atomic
from pipeline.formats.elf import strip


def main(words: list[str]) -> int:
    """The exit code."""
    if len(words) != 2:
        print("usage: strip_elf ELF OUT", file=sys.stderr)
        return 3
    source, place = words
    try:
        made = strip(read_file(source))
        if isinstance(made, str):
            print(f"{source}: error: {made}\nhint: remove identity from [image]", file=sys.stderr)
            return 1
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(Path(place), made, durable=False)
    except OSError as error:
        print(f"{error.filename or source}: error: {error.strerror}\nhint: free disk space", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
