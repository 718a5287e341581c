"""`doit clean`: the products of a stage go, and with them the directories that are empty then.

Knows which files actions make. Does not know the store or the state, which stay. Invariant: nothing is removed outside
of the project, whatever a link in its directories leads to, and nothing that another build system has to remove.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from pipeline.engine.build_place import BuildPlace, OutsideBuild
from pipeline.model import Action, Stage


def remove_products(root: Path, actions: Sequence[Action], stage: Stage) -> None:
    """What those of them make that belong to `stage`. Raises OSError."""
    directories: set[Path] = set()
    place = BuildPlace(str(root))
    for action in actions:
        if action.stage is stage and action.statement is None:  # `ninja -t clean` is for those
            for output in (*action.outputs, *filter(None, [action.depfile])):
                path = root / output
                with contextlib.suppress(OutsideBuild):
                    place.checked([str(path)])
                    path.unlink(missing_ok=True)
                    directories.update(p for p in path.parents if p.is_relative_to(root / "build"))
    for directory in sorted(directories, key=lambda p: len(p.parts), reverse=True):
        # One that is not empty stays, and so does a link.
        with contextlib.suppress(OSError):
            directory.rmdir()
