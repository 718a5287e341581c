"""Since when is a file what it is? Its mtime does not say: that can be set back, and comes along when it is moved.

Asks the file system. Does not know statements or logs. Invariant: since `came_ns` the path has led to this file with
these bytes. Not seen: a directory that was renamed, and in which a name came or went after that.
"""

from __future__ import annotations

import os
import posixpath
import stat

_MOST_LINKS = 40
"""As the kernel."""


class FileTimes:
    """What one run of the engine asks of many files: each directory on the way to them once."""

    def __init__(self) -> None:
        self._ways: dict[str, int] = {}

    def came_ns(self, place: str) -> int:
        """The last instant at which it may have become what it is now; 0 where there is nothing."""
        came = 0
        try:
            for _ in range(_MOST_LINKS):
                status = os.lstat(place)
                came = max(came, status.st_ctime_ns, self._way(posixpath.dirname(place)))
                if not stat.S_ISLNK(status.st_mode):
                    return came
                place = posixpath.join(posixpath.dirname(place), os.readlink(place))  # noqa: PTH115 - may be relative
        except OSError:
            pass
        return 0

    def _way(self, directory: str) -> int:
        """The last instant at which a directory on this way was renamed, or a link on it made, as far as that shows.

        A rename moves the ctime of a directory and not its mtime; a name that comes or goes moves both. May be
        remembered for a run: who renames directories while it goes on has no claim to one of the two states."""
        known = self._ways.get(directory)
        if known is None:
            status = os.lstat(directory)
            turned = status.st_ctime_ns if status.st_ctime_ns != status.st_mtime_ns else 0
            above = posixpath.dirname(directory)
            known = max(turned, self._way(above)) if above != directory else turned
            if stat.S_ISLNK(status.st_mode):
                known = max(known, status.st_ctime_ns, self._way(os.path.realpath(directory)))
            self._ways[directory] = known
        return known
