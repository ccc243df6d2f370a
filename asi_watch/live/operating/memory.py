"""The process's memory as the C library hands it out."""

from __future__ import annotations

import ctypes
from contextlib import suppress

# From malloc.h.
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
_ARENAS = 2
_LARGE = 256 * 1024


def share_arenas() -> None:
    """Let all threads share two heaps, and keep large blocks out of them.

    glibc gives threads heaps of their own, up to eight per core, and each keeps what its threads
    once needed at most; and once a large block has been freed, blocks of its size go into a heap,
    too, where small ones pin it down. With many threads over many days that adds up. Other C
    libraries have no such thing, and nothing to set.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_M_ARENA_MAX, _ARENAS)
        library.mallopt(_M_MMAP_THRESHOLD, _LARGE)
