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


def give_large_back_at_once() -> None:
    """From here on, of large blocks: glibc maps each on its own and unmaps it when it is freed, as it does until one
    was. Of very many files each list is one, and what lies between two of them was kept."""
    with contextlib.suppress(ImportError, OSError, AttributeError, TypeError):
        import ctypes

        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE)


_MMAP_THRESHOLD = -3
"""What `malloc.h` calls it."""
_LARGE = 1 << 17
"""Bytes; with what glibc begins."""
