"""The process's memory as the C library hands it out."""

from __future__ import annotations

import ctypes
from contextlib import suppress

_M_ARENA_MAX = -8  # malloc.h
_ARENAS = 2


def share_arenas() -> None:
    """Let all threads share two heaps.

    glibc gives threads heaps of their own, up to eight per core, and each keeps what its threads
    once needed at most: with many threads over many days that adds up. Other C libraries have no
    such thing, and nothing to set.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)
