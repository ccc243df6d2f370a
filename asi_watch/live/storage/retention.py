"""Which files of a camera have been kept long enough, oldest first over all cameras of a disk.

The ledger says what may go: exposures that were merged, as long as the product stands that they
were merged into and the file is still what the row recorded; and products that say themselves
which bracket they are of. What was not published is never a candidate: brackets that wait, failed
or were skipped, exposures that came too late or were left out.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from asi_watch.config.model import CameraConfig
from asi_watch.live.ledger.ledger import Ledger
from asi_watch.live.storage.disk import free_bytes
from asi_watch.live.storage.published import Witness
from asi_watch.live.storage.shelf import Kind, Outcome, Shelf

__all__ = ["KINDS", "Kind", "Memory", "Outcome", "retain"]

KINDS: tuple[Kind, ...] = ("exposures", "products")


@dataclass(slots=True)
class Memory:
    """What is remembered between runs, so that nothing is looked at in vain."""

    done: dict[tuple[str, Kind], datetime] = field(default_factory=dict)
    """By camera and kind: all rows up to this slot have nothing left to delete."""


def retain(
    cameras: Iterable[CameraConfig],
    ledger: Ledger,
    now: float,
    *,
    apply: bool,
    chosen: Callable[[CameraConfig], bool] = lambda camera: True,
    memory: Memory | None = None,
    free: Callable[[Path], int] = free_bytes,
    trust_clock: bool = True,
    thorough: bool = True,
    most: int | None = None,
    pause: Callable[[], bool] = lambda: False,
) -> list[Outcome]:
    """Delete what has been kept long enough: all exposures first, then products, oldest slot first.

    Parameters
    ----------
    cameras : iterable of CameraConfig
        All there are: cameras may see the same files.
    ledger : Ledger
        Only read.
    now : float
        Unix time.
    apply : bool
        Delete; otherwise only count, to the same numbers.
    chosen : callable
        Tells of which cameras files may be deleted, if they have limits.
    memory : Memory, optional
        Of earlier runs.
    free : callable
        Folder → free bytes.
    trust_clock : bool
        False: nothing goes by its age.
    thorough : bool
        Look at every row, also where neither is to be expected to have become old.
    most : int or None
        About so many files of each kind at most; brackets are not divided.
    pause : callable
        Called after every page of rows; True ends the run.

    Returns
    -------
    list of Outcome
        One for each camera and kind that has limits.

    Raises
    ------
    LedgerError
        If the ledger cannot be read.
    """
    cameras, memory, freed = tuple(cameras), memory or Memory(), dict[int, int]()
    shelves = [
        Shelf(camera, kind, Witness(camera, cameras, ledger), ledger, now, freed)
        for kind in KINDS
        for camera in cameras
        if chosen(camera) and getattr(camera.retention, kind).any
    ]
    for shelf in shelves:
        shelf.done = None if thorough else memory.done.get((shelf.camera.name, shelf.kind))
        # All before the first is deleted: what one frees is counted for all, tried out or not.
        shelf.measure(free, trust_clock=trust_clock)
    try:
        for kind in KINDS:
            streams = [s.brackets(pause, thorough=thorough) for s in shelves if s.kind == kind]
            for _, _, shelf, bracket in heapq.merge(*streams, key=lambda item: item[:2]):
                shelf.consider(bracket, apply=apply, most=most)
    finally:
        for shelf in shelves:
            shelf.tree.close()
    if apply:
        memory.done |= {(s.camera.name, s.kind): s.done for s in shelves if s.done is not None}
    return [shelf.outcome for shelf in shelves]
