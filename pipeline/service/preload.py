"""What a runner has loaded before anybody comes: the modules that a deploy imports, and what doit reads of them.

Knows doit. Invariant: nothing of it does anything, or depends on whose run it will be.
"""

from __future__ import annotations

import inspect

from pipeline.needed_modules import DEPLOY, load_modules


def preload() -> None:
    """Import all of them."""
    load_modules(DEPLOY)
    from pipeline.fastpath.handover import remember_plugins

    remember_plugins()
    # doit reads where each task is declared; the patterns of `tokenize` take longer to compile than to use.
    inspect.getsourcelines(preload)
