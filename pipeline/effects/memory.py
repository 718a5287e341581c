"""What this process has freed, given back to the system.

Knows the C library. Invariant: nothing but the size of the process changes.
"""

from __future__ import annotations

import contextlib


def give_back() -> None:
    """Ask the C library for it, where it keeps what was freed: after one large block was, glibc keeps many megabytes
    for the next."""
    with contextlib.suppress(ImportError, OSError, AttributeError, TypeError):
        import ctypes

        ctypes.CDLL(None).malloc_trim(0)
