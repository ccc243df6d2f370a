"""Merges that have begun: frames taken in as they arrive, within the memory budget."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from asi_watch.brackets import Exposure
from asi_watch.buffers import BufferPool
from asi_watch.cores import merge_threads
from asi_watch.hdr.merging import Merge, MergeSettings, open_merge
from asi_watch.hdr.response import ResponseCurve
from asi_watch.live.workers.budget import MemoryBudget
from asi_watch.response_files import check_channels

Key = tuple[str, tuple[int, int]]
"""Path and signature of a file."""

_FRAMES_AT_FIRST = 5


@dataclass(slots=True)
class OpenMerge:
    """An open merge and what has gone into it; `lock` guards the merge.

    The merge holds the frames themselves, in memory of the buffer pool that goes back to it when
    the merge is dropped.
    """

    merge: Merge
    curve: ResponseCurve | None
    settings: MergeSettings
    absorbed: set[Key] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)
    frames: list[NDArray[np.uint8]] = field(default_factory=list)
    charged: int = 0
    dropped: bool = False
    spoiled: bool = False
    """Something went in that the collector may not ask for: the files must be read again."""

    def add(self, pixels: NDArray[np.uint8], exposure_us: float) -> None:
        """Hand a frame over to the merge."""
        self.merge.add(pixels, exposure_us, copy=False)
        self.frames.append(pixels)


class OpenMerges:
    """One camera's open merges by their slots. May be called from several workers.

    Parameters
    ----------
    settings : MergeSettings
    budget : MemoryBudget
        Shared by all cameras.
    buffers : BufferPool
        Where frames go back to.
    """

    def __init__(self, settings: MergeSettings, budget: MemoryBudget, buffers: BufferPool) -> None:
        self._settings = settings
        self._budget = budget
        self._buffers = buffers
        self._open: dict[datetime, OpenMerge] = {}
        self._lock = threading.Lock()
        self.curve: ResponseCurve | None = None
        """The curve that brackets begun from now on are merged with."""
        self.usual_frames = _FRAMES_AT_FIRST
        """How many frames a bracket that begins is expected to have."""

    def __len__(self) -> int:
        return len(self._open)

    def absorb(self, slot: datetime, exposure: Exposure, pixels: NDArray[np.uint8]) -> bool:
        """Keep a frame for its bracket's merge; False if it is not kept."""
        with self._lock:
            one = self._open.get(slot)
            if one is None:
                if not self._budget.has_room():
                    return False
                try:
                    one = self._make(pixels.shape)
                except ValueError:  # e.g. grey, where the curve has colours: the merge will say so
                    return False
                self._open[slot] = one
                self.charge(one, pixels.nbytes)
        with one.lock:
            if one.dropped or one.spoiled:
                return False
            if exposure.exposure_us in one.merge.exposure_times:
                # A duplicate: which of the two counts is for the collector to say.
                one.spoiled = True
                return False
            try:
                one.add(pixels, exposure.exposure_us)
            except ValueError:
                one.spoiled = True
                return False
            one.absorbed.add((exposure.path, exposure.signature))
            self.charge(one, pixels.nbytes)
            return True

    def begin(self, slot: datetime, shape: tuple[int, ...]) -> OpenMerge:
        """Begin the merge of a bracket whose frames follow, whatever the budget says.

        Raises
        ------
        ValueError
            If frames of this shape cannot be merged with the curve.
        """
        one = self._make(shape)
        with self._lock:
            self._open[slot] = one
        return one

    def finished(self, slot: datetime, wanted: set[Key]) -> OpenMerge | None:
        """Return the merge of a bracket if exactly these files have gone into it."""
        with self._lock:
            one = self._open.get(slot)
        whole = one is not None and not one.spoiled and one.absorbed == wanted
        return one if whole else None

    def charge(self, one: OpenMerge, frame: int = 0) -> None:
        """Count the memory of a merge; `frame` is the size of its first."""
        # A bracket that begins is charged whole: begun ones are never refused, and many that
        # grow together would leave the budget far behind.
        held = max(one.merge.nbytes, frame * self.usual_frames)
        self._budget.change(held - one.charged)
        one.charged = held

    def drop(self, slot: datetime) -> None:
        """Forget the merge of a bracket, and take its memory back."""
        with self._lock:
            one = self._open.pop(slot, None)
        if one is None:
            return
        with one.lock:
            one.dropped = True
            self._budget.change(-one.charged)
            for frame in one.frames:
                self._buffers.give(frame)

    def _make(self, shape: tuple[int, ...]) -> OpenMerge:
        curve, settings = self.curve, self._settings
        if settings.algorithm != "mertens" and curve is None:
            settings = replace(settings, algorithm="mertens")
        if settings.algorithm == "mertens":
            curve = None
        check_channels(curve, shape[2], "the bracket")
        log_response = None if curve is None else curve.log_response
        merge = open_merge(settings, log_response, shape, threads=merge_threads())
        one = OpenMerge(merge, curve, settings)
        self.charge(one)
        return one
