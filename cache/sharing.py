"""Several users of one directory: what is made in it is for those whom the directory itself is for.

Knows modes and groups; not what files mean. A directory that its group or everybody may write to (`chmod g+ws`, as
`git init --shared` makes one) is shared: files and directories made below it take its group and its permissions,
whatever the umask says. In any other, the umask decides. Invariants: nothing is made more open than the directory, and
what the system refuses to do for another user's file is no error.
"""

from __future__ import annotations

import contextlib
import os
import stat

from cache.named_tuple import NamedTuple

_READ, _WRITE = 0o444, 0o222


class Sharing(NamedTuple):
    """The mode bits and the group of a shared directory."""

    bits: int
    group: int

    @classmethod
    def of(cls, directory: str) -> Sharing | None:
        """None for a directory that only its owner may write to, and where there is none."""
        try:
            status = os.stat(directory)  # noqa: PTH116
        except OSError:
            return None
        if os.name != "posix" or not status.st_mode & 0o022:
            return None
        return cls(stat.S_IMODE(status.st_mode), status.st_gid)

    def mode(self, wanted: int) -> int:
        """Permissions of a file for which `wanted` would do where nobody shares: read-only ones stay so."""
        may = _READ | _WRITE if wanted & 0o200 else _READ
        return wanted | (self.bits & may)

    def share(self, handle: int) -> None:
        """Give an open file or directory that was made just now the group and permissions."""
        with contextlib.suppress(OSError):
            status = os.fstat(handle)
            if status.st_gid != self.group:
                with contextlib.suppress(OSError):
                    os.fchown(handle, -1, self.group)
            mode = stat.S_IMODE(status.st_mode)
            wanted = self.bits if stat.S_ISDIR(status.st_mode) else self.mode(mode)
            if mode != wanted:
                os.fchmod(handle, wanted)
