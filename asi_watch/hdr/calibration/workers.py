"""Work in a few threads: numpy and OpenCV let other threads run while they compute."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from asi_watch.cores import usable_cores

Item = TypeVar("Item")
Result = TypeVar("Result")

# Every thread holds memory of its own, and a calibration is not to take a whole machine.
_MOST_THREADS = 2


def together(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Do the same work on several items, in as many threads as there are cores for.

    Parameters
    ----------
    work : callable
        Must not depend on the order; what it raises is raised here.
    items : iterable

    Returns
    -------
    list
        The results in the order of the items.
    """
    todo = list(items)
    threads = min(len(todo), usable_cores(), _MOST_THREADS)
    if threads <= 1:
        return [work(item) for item in todo]
    with ThreadPoolExecutor(threads, thread_name_prefix="calibration") as pool:
        return list(pool.map(work, todo))


def blocks(count: int, size: int) -> list[slice]:
    """Cut `count` rows into slices of at most `size`."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
