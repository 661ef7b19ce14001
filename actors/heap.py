"""The heap of a process that lives as long as its cluster: what is freed goes back to the system."""

from __future__ import annotations

import ctypes
import sys

_M_MMAP_THRESHOLD = -3
LARGE_BYTES = 128 * 1024
"""What glibc begins with."""


def map_large_blocks() -> None:
    """Has glibc map each block from 128 KiB on apart, for good, and unmap it when it is freed; elsewhere, nothing.

    Ray gives every call of an asynchronous actor a stack of 256 KiB, and packs messages in blocks of a MiB. By itself,
    glibc takes such blocks out of its heap as soon as it has seen one freed (mallopt(3), M_MMAP_THRESHOLD). They come
    to lie between small ones that stay, elsewhere each time, and the pages that they touch are never given back.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
