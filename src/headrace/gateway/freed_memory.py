"""Memory of a long prompt that is gone is kept for the next one.

glibc gives the end of its heap back to the system as soon as it is free and has to have it zeroed when it is asked for
again, page by page: with prompts of 400 kB that was a seventh of the gateway's processor time.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_KEPT_BYTES = 32 << 20
_APART_BYTES = 8 << 20
"""What is longer has pages of its own, which go back when it is freed."""


def keep_freed_memory() -> bool:
    """Keep up to 32 MiB at the heap's end; False where the C library has no such setting, and its own ways."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _APART_BYTES) and mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES))
