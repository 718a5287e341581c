"""The environment of a client, as it goes along when it names a device: the page's button builds with it.

Reads the environment and nothing else; does not know what it is used for. Invariant: all of it goes along, or nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

MOST = 1 << 18
"""Characters; a frame has room for four times as many."""


def caller_environment() -> Mapping[str, str]:
    """Everything, as `env` of a message; empty where it is too large to go along."""
    environment = dict(os.environ)
    return environment if sum(len(name) + len(value) for name, value in environment.items()) <= MOST else {}
