"""Questions to a file system that may never answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["answered"]

_T = TypeVar("_T")

_SLICE = 0.05


def answered(seconds: float, *calls: Callable[[], _T]) -> list[_T | None]:
    """Make calls that a dead network share may hold up for ever, and wait only so long.

    On a share mounted "hard" a call returns when the server does. It cannot be broken off: its
    thread stays behind, and ends with the process at the latest.

    Parameters
    ----------
    seconds : float
        How long all of them may take together; they are made side by side. Time in which this
        process was kept from running does not count.
    *calls : callable
        Without arguments; must not raise anything but OSError.

    Returns
    -------
    list
        What each returned; None where it did not answer in time, or raised OSError.
    """
    answers: list[_T | None] = [None] * len(calls)
    done = threading.Semaphore(0)

    def ask(number: int, call: Callable[[], _T]) -> None:
        try:
            answers[number] = call()
        except OSError:
            pass  # None, then
        finally:
            done.release()

    for number, call in enumerate(calls):
        threading.Thread(target=ask, args=(number, call), name="question", daemon=True).start()
    left = seconds
    for _ in calls:
        came = False
        while not came and left > 0:
            began = time.monotonic()
            came = done.acquire(timeout=min(left, _SLICE))
            # Who was stopped meanwhile finds the wait over, and nobody had time to answer.
            left -= min(time.monotonic() - began, _SLICE)
    # A late answer must not change what the caller holds.
    return answers.copy()
