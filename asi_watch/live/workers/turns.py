"""Who may work beside whom: most work beside other work, some only alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE = 60.0
"""Seconds after which nobody is waited for: what hangs must not stop the others for ever."""


class Turns:
    """A lock for many or for one; who wants to be alone goes first.

    Parameters
    ----------
    patience : float
        Seconds for which anybody waits, and after which anybody is waited for no longer.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._changed = threading.Condition()
        self._beside: dict[object, float] = {}
        self._alone: dict[object, float] = {}
        self._want_alone = 0

    @contextmanager
    def beside_others(self) -> Iterator[None]:
        """Work while others do, but not while one is alone or waits to be."""
        with self._changed:
            self._wait_until_free(lambda: not (self._at_it(self._alone) or self._want_alone))
            turn = _begin(self._beside)
        try:
            yield
        finally:
            self._end(self._beside, turn)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Work while nobody else does."""
        with self._changed:
            self._want_alone += 1
            self._wait_until_free(
                lambda: not (self._at_it(self._alone) or self._at_it(self._beside))
            )
            self._want_alone -= 1
            turn = _begin(self._alone)
        try:
            yield
        finally:
            self._end(self._alone, turn)

    def _at_it(self, turns: dict[object, float]) -> bool:
        """Tell whether anybody is at work who is still waited for."""
        oldest = time.monotonic() - self._patience
        return any(since > oldest for since in turns.values())

    def _end(self, turns: dict[object, float], turn: object) -> None:
        with self._changed:
            del turns[turn]
            self._changed.notify_all()

    def _wait_until_free(self, free: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self._patience
        while not free() and (left := deadline - time.monotonic()) > 0:
            # Nobody tells that the patience with one who hangs has come to its end.
            self._changed.wait(min(left, 1.0))


def _begin(turns: dict[object, float]) -> object:
    turn = object()
    turns[turn] = time.monotonic()
    return turn
