"""Questions to a file system that may never answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["answered"]

_T = TypeVar("_T")


def answered(seconds: float, *calls: Callable[[], _T]) -> list[_T | None]:
    """Make calls that a dead network share may hold up for ever, and wait only so long.

    On a share mounted "hard" a call returns when the server does. It cannot be broken off: its
    thread stays behind, and ends with the process at the latest.

    Parameters
    ----------
    seconds : float
        How long all of them may take together; they are made side by side.
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
    deadline = time.monotonic() + seconds
    for _ in calls:
        if not done.acquire(timeout=max(0.0, deadline - time.monotonic())):
            break
    # A late answer must not change what the caller holds.
    return answers.copy()
