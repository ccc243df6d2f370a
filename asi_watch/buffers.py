"""Image-sized memory that is reused: new pages cost more than decoding into old ones."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

Allocate = Callable[[int], NDArray[np.uint8]]
"""Gives a flat, writable uint8 array of at least that many bytes."""


def fresh(nbytes: int) -> NDArray[np.uint8]:
    """Allocate new memory, as a flat uint8 array.

    Parameters
    ----------
    nbytes : int
    """
    return np.empty(nbytes, np.uint8)


class BufferPool:
    """A thread-safe store of flat uint8 buffers; `take` is an `Allocate`.

    Parameters
    ----------
    max_idle_bytes : int
        How much unused memory it keeps at most; buffers beyond that are freed.
    """

    def __init__(self, max_idle_bytes: int) -> None:
        self._max_idle_bytes = max_idle_bytes
        self._idle: list[NDArray[np.uint8]] = []
        self._lock = threading.Lock()

    @property
    def idle_bytes(self) -> int:
        """Bytes kept and unused at this moment."""
        return sum(buffer.nbytes for buffer in self._idle)

    def take(self, nbytes: int) -> NDArray[np.uint8]:
        """Return a flat uint8 buffer of at least `nbytes`: the smallest idle one, or a new one.

        Parameters
        ----------
        nbytes : int
        """
        with self._lock:
            fitting = [i for i, buffer in enumerate(self._idle) if buffer.nbytes >= nbytes]
            if fitting:
                return self._idle.pop(min(fitting, key=lambda i: self._idle[i].nbytes))
        return fresh(nbytes)

    @contextmanager
    def lent(self) -> Iterator[Allocate]:
        """Give an `Allocate` whose buffers come back when the block ends."""
        out: list[NDArray[np.uint8]] = []

        def take(nbytes: int) -> NDArray[np.uint8]:
            out.append(self.take(nbytes))
            return out[-1]

        try:
            yield take
        finally:
            for buffer in out:
                self.give(buffer)

    def give(self, array: NDArray[np.generic]) -> None:
        """Take back the memory behind a buffer from `take` or an image in one; nothing else.

        Parameters
        ----------
        array : ndarray
            Which nobody uses any more.
        """
        owner: object = array
        while isinstance(owner, np.ndarray) and owner.base is not None:
            owner = owner.base
        if not isinstance(owner, np.ndarray) or owner.ndim != 1 or owner.dtype != np.uint8:
            return
        with self._lock:
            known = any(buffer is owner for buffer in self._idle)
            if not known and self.idle_bytes + owner.nbytes <= self._max_idle_bytes:
                self._idle.append(owner)
