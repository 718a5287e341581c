"""Where installed Python packages lie, without importing them: for tools that come as wheels.

Knows Python's search path; not what the packages hold. Invariant: nothing of a package is run.
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from pathlib import Path


def package_dir(package: str) -> Path | None:
    """The directory of an installed top-level package, None when there is none. Does not import it."""
    spec = PathFinder.find_spec(package, search_path())
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None


def search_path() -> list[str]:
    """Where Python searches, without the directory of the running script: beside a console script lie others, such as
    `esptool.py`, that are no packages."""
    scripts = str(Path(sys.argv[0]).resolve().parent)
    return [place for place in sys.path if place and str(Path(place).resolve()) != scripts]
