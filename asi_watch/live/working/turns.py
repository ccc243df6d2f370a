"""Who may work beside whom: most work beside other work, some only alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE = 60.0
"""Seconds after which nobody waits any longer: what hangs must not stop the others for ever."""


class Turns:
    """A lock for many or for one; who wants to be alone goes first."""

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._changed = threading.Condition()
        self._beside = 0
        self._alone = 0
        self._want_alone = 0

    @contextmanager
    def beside_others(self) -> Iterator[None]:
        """Work while others do, but not while one is alone or waits to be."""
        with self._changed:
            self._wait_until_free(lambda: not (self._alone or self._want_alone))
            self._beside += 1
        try:
            yield
        finally:
            with self._changed:
                self._beside -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Work while nobody else does."""
        with self._changed:
            self._want_alone += 1
            self._wait_until_free(lambda: not (self._alone or self._beside))
            self._want_alone -= 1
            self._alone += 1
        try:
            yield
        finally:
            with self._changed:
                self._alone -= 1
                self._changed.notify_all()

    def _wait_until_free(self, free: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self._patience
        while not free() and (left := deadline - time.monotonic()) > 0:
            self._changed.wait(left)
