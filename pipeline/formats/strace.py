"""What `strace -f -y -e trace=%file` says that a command did with files: lines in, paths out.

Pure. Does not know which of the files were declared. Invariant: a path is one of a file that was opened, or got its
name, successfully; what could not be told (a relative name in a directory that is not known) is left out.
"""

from __future__ import annotations

import posixpath
import re

from cache.named_tuple import NamedTuple

_OPENED = re.compile(r"\bopen(?:at2?)?\(.*?(?P<flags>O_[A-Z_|]+).*\)\s+= \d+<(?P<path>/[^>]*)>\s*$")
_CREATED = re.compile(r"\bcreat\(.*\)\s+= \d+<(?P<path>/[^>]*)>\s*$")
_RENAMED = re.compile(
    r"\b(?:rename|link)(?:at2?)?\(.*, (?:AT_FDCWD(?:<(?P<place>/[^>]*)>)?, )?\"(?P<path>[^\"]*)\"(?:, [^)]*)?\)\s+= 0"
)
_WRITES = ("O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC", "O_APPEND")


class FileTrace(NamedTuple):
    """Absolute paths, each once, in order."""

    read: tuple[str, ...]
    written: tuple[str, ...]


def parse_strace(text: str, directory: str) -> FileTrace:
    """The files of one command. `directory`: where it began."""
    read: dict[str, None] = {}
    written: dict[str, None] = {}
    for line in text.splitlines():
        if (found := _OPENED.search(line)) is not None:
            is_write = any(flag in found["flags"] for flag in _WRITES)
            if "O_DIRECTORY" not in found["flags"]:
                (written if is_write else read)[posixpath.normpath(found["path"])] = None
        elif (found := _CREATED.search(line)) is not None:
            written[posixpath.normpath(found["path"])] = None
        elif (found := _RENAMED.search(line)) is not None:
            place = found["place"] or directory
            written[posixpath.normpath(posixpath.join(place, found["path"]))] = None
    return FileTrace(tuple(path for path in read if path not in written), tuple(written))
