"""The files that a thin archive of GNU or LLVM `ar` names and does not hold.

Pure. Invariant: what is no thin archive, or a damaged one, names nothing that it does not name.

Source: binutils' `ar(1)`, `--thin`; the format is `ar`'s with another magic, where only the tables have bytes of their
own.
"""

from __future__ import annotations

MAGIC = b"!<thin>\n"
_HEADER = 60
_TABLES = ("/", "//", "/SYM64/")


def members(data: bytes) -> tuple[bytes, ...]:
    """Paths as the archive has them: relative to its directory, or absolute."""
    found: dict[bytes, None] = {}
    names, at = b"", len(MAGIC)
    while data.startswith(MAGIC) and at + _HEADER <= len(data):
        header = data[at : at + _HEADER]
        name, size = header[:16].rstrip(), header[48:58].strip()
        at += _HEADER
        if header[58:] != b"`\n" or not size.isdigit():
            break
        if name.decode("latin-1") in _TABLES:
            if name == b"//":
                names = data[at : at + int(size)]
            at += int(size) + int(size) % 2
        elif name.startswith(b"/"):
            start = name[1:].partition(b":")[0]
            if start.isdigit():
                found[names[int(start) :].partition(b"/\n")[0]] = None
        else:
            found[name.removesuffix(b"/")] = None
    # What no path can be is damage: whoever looked there would get another error than that nothing is there.
    return tuple(name for name in found if name and b"\0" not in name)
