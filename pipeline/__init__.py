"""From firmware sources to proof from the running device."""

import sys
from posixpath import dirname

__version__ = "0.1.0"
"""Of the program, as in pyproject.toml: part of each line of the history."""


def _import_cache() -> None:
    """Import the package `cache` from beside this one: doit puts a project's directory first on the path, and there may
    be a module or a directory of that name in the project. Raises ImportError when that was imported before."""
    place = dirname(__path__[0].replace("\\", "/"))
    if "cache" not in sys.modules:
        sys.path.insert(0, place)
        try:
            __import__("cache")  # by name: this module takes nothing from it
        finally:
            del sys.path[0]
    found = getattr(sys.modules["cache"], "__file__", None)
    if found is None or dirname(found.replace("\\", "/")) != f"{place}/cache":
        raise ImportError(
            f"the module 'cache' of this project ({found or 'a directory'}) was imported before hotplate's package of "
            "that name: rename yours, or import it after the line `from pipeline.tasks import *`"
        )


_import_cache()
