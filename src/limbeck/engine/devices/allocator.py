"""The C library's allocator, set to keep what one step frees for the next."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Numbers of these parameters in glibc's malloc.h; both are bytes."""
KEPT, LARGEST = 2**31 - 1, 2**30
"""Bytes that are kept, and the largest piece of them."""
CHOSEN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
"""Environment variables by which users tell glibc themselves."""


@cache
def keep_freed() -> None:
    """Let glibc keep freed memory in the process, where the next step finds it, until the process ends.

    By itself it hands large tensors back to the system, which then clears each page anew at every step. docs/scaling.md
    says what that costs, and what keeping them takes. Elsewhere than on Linux with glibc, and where the
    user has set glibc otherwise, or limbeck by LIMBECK_KEEP_FREED=0, nothing is changed.
    """
    chosen = any(name in os.environ for name in CHOSEN) or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if not chosen and os.environ.get("LIMBECK_KEEP_FREED") != "0":
        set_thresholds(trim=KEPT, mmap=LARGEST)


def set_thresholds(*, trim: int, mmap: int) -> None:
    """Tell glibc from how many free bytes on it returns the heap's end, and which sizes it asks the system for."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(TRIM_THRESHOLD, trim)
        if not mallopt(MMAP_THRESHOLD, mmap):
            mallopt(MMAP_THRESHOLD, 2**25)  # which is as much as an older glibc takes
