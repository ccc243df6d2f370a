"""Where a camera's exposures are read and its brackets merged, in worker threads.

Frames are checked by decoding them when they arrive, and their share of the merge is done at
once; what is kept of a bracket is its open merge, not its frames. Whatever is not kept, or no
longer fits what the collector asks for, is read again: the result is the same to the byte.
"""

from __future__ import annotations

import errno
import os
import time
from dataclasses import replace
from datetime import datetime

from asi_watch.brackets import Exposure
from asi_watch.buffers import BufferPool
from asi_watch.config.model import CameraConfig
from asi_watch.errors import ImageError, PublishError
from asi_watch.files import NotRegularFileError, shown, signature
from asi_watch.hdr.response import ResponseCurve
from asi_watch.images import ImageLimits, read_image
from asi_watch.live.messages import (
    MergeBracket,
    MergeFailed,
    MergeOutcome,
    Published,
    ReadFile,
    ReadOk,
    ReadOutcome,
    TooFew,
    Unchanged,
    Unusable,
    Vanished,
)
from asi_watch.live.records import WITHOUT_CURVE
from asi_watch.live.workers.budget import MemoryBudget
from asi_watch.live.workers.open_merges import OpenMerge, OpenMerges
from asi_watch.live.workers.publishing import Publisher

# Faults of the place that products are written to, which no bracket can help.
_BLOCKED = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EIO,
    errno.EACCES,
    errno.EPERM,
    errno.ENOENT,
    errno.ENODEV,
    errno.ESTALE,
    errno.ENOTCONN,
    errno.EHOSTDOWN,
    errno.ETIMEDOUT,
}


# A file's time may be so much before the time in its name: names may follow another clock.
_OLDER_THAN_ITS_SLOT = 3 * 3600.0


class SizesDifferError(Exception):
    """The exposures of one bracket are not of one size."""


class Workshop:
    """Reads and merges for one camera. All methods may be called from several workers.

    Parameters
    ----------
    settings : CameraConfig
    publisher : Publisher
        Turns a finished merge into products.
    budget : MemoryBudget
        Shared by all cameras.
    buffers : BufferPool
        Shared by all cameras; frames are decoded into its memory.
    """

    def __init__(
        self,
        settings: CameraConfig,
        publisher: Publisher,
        budget: MemoryBudget,
        buffers: BufferPool,
    ) -> None:
        self._settings = settings
        self._root = os.fspath(settings.watch)
        self._publisher = publisher
        self._buffers = buffers
        self._limits = ImageLimits()
        self._open = OpenMerges(settings.merge.settings, budget, buffers)

    def use_curve(self, curve: ResponseCurve) -> None:
        """Merge the brackets that begin from now on with this curve."""
        self._open.curve = curve

    def drop(self, slot: datetime) -> None:
        """Forget what is kept for a slot, and take its memory back."""
        self._open.drop(slot)

    # -- reading ----------------------------------------------------------------------------

    def read(self, command: ReadFile) -> ReadOutcome:
        """Check one exposure by decoding it, and absorb it if asked to."""
        path = self._path(command.path)
        try:
            sign = signature(path)
        except FileNotFoundError:
            return Vanished()
        except NotRegularFileError as error:
            return self._no_file(command, str(error))
        except OSError as error:
            return Unusable(f"cannot be read ({error.strerror or error})", True, None)
        found = (sign.size, sign.mtime_ns)
        if command.known == found:
            return Unchanged()
        try:
            frame = read_image(path, limits=self._limits, allocate=self._buffers.take)
        except ImageError as error:
            # What could not be read at all was not judged: it is read again when next looked at.
            judged = None if isinstance(error.__cause__, OSError) else found
            return Unusable(error.reason, error.may_recover, judged)
        sign = frame.signature
        exposure = Exposure(
            command.path,
            command.timestamp,
            command.exposure_us,
            sign.size,
            sign.mtime_ns,
            sign.inode,
        )
        if not (command.absorb and self._open.absorb(command.slot, exposure, frame.pixels)):
            self._buffers.give(frame.pixels)
        return ReadOk(exposure)

    def _no_file(self, command: ReadFile, reason: str) -> ReadOutcome:
        try:
            status = os.lstat(self._path(command.path))
        except OSError:
            return Vanished()
        found = (status.st_size, status.st_mtime_ns)
        return Unchanged() if command.known == found else Unusable(reason, False, found)

    def _path(self, relative: str) -> str:
        return f"{self._root}/{relative}"

    # -- merging ----------------------------------------------------------------------------

    def merge(self, command: MergeBracket, now: float) -> MergeOutcome:
        """Merge a bracket and publish its products; `now` is read again when they are in place.

        Parameters
        ----------
        command : MergeBracket
        now : float
            Monotonic time at which the job began.
        """
        standing = self._publisher.standing(command)
        there = standing.verdict()
        if isinstance(there, Published):
            return replace(there, remark=self._remark(there.algorithm))
        if there is not None:
            return there
        if len(command.exposures) < command.fewest:
            return TooFew()
        timings = {"waited": round(now - command.arrived, 4)}
        started = time.monotonic()
        try:
            work = self._finished_work(command)
        except SizesDifferError as error:
            return MergeFailed(str(error), permanent=True)
        except ImageError as error:
            relative = str(error.path).removeprefix(f"{self._root}/")
            return MergeFailed(str(error), stale=(relative,))
        except ValueError as error:
            return MergeFailed(str(error), permanent=True)
        if self._is_makeshift(work.settings.algorithm) and (
            better := standing.outranks_makeshift()
        ):
            self.drop(command.slot)
            return better
        self._open.usual_frames = len(command.exposures)
        timings["read"] = round(time.monotonic() - started, 4)
        try:
            products, steps = self._publisher.publish(
                command, work.merge, work.curve, work.settings
            )
        except PublishError as error:
            return MergeFailed(str(error), blocked=error.errno in _BLOCKED)
        finally:
            self.drop(command.slot)
        return Published(
            products=products,
            curve_id=work.curve.curve_id if work.curve else None,
            algorithm=work.settings.algorithm,
            latency=round(self._latency(command), 4),
            timings={**timings, **steps},
            remark=self._remark(work.settings.algorithm),
        )

    def _latency(self, command: MergeBracket) -> float:
        """Seconds since the last exposure was there, as far as anything tells."""
        since_seen = time.monotonic() - command.arrived
        if command.seen_by_event:
            return since_seen
        written = max(e.mtime_ns for e in command.exposures) / 1e9
        age = time.time() - written
        slot = self._settings.pattern.to_utc(command.slot).timestamp()
        # A clock that is wrong says nothing; neither does a file that is older than its content.
        return age if age > 0 and written > slot - _OLDER_THAN_ITS_SLOT else since_seen

    def _remark(self, algorithm: str) -> str | None:
        return WITHOUT_CURVE if self._is_makeshift(algorithm) else None

    def _is_makeshift(self, algorithm: str) -> bool:
        return algorithm == "mertens" and self._settings.merge.algorithm != "mertens"

    def _finished_work(self, command: MergeBracket) -> OpenMerge:
        wanted = {(e.path, e.signature) for e in command.exposures}
        work = self._open.finished(command.slot, wanted)
        if work is not None:
            return work
        self.drop(command.slot)
        return self._from_files(command)

    def _from_files(self, command: MergeBracket) -> OpenMerge:
        work: OpenMerge | None = None
        shape: tuple[int, ...] = ()
        for exposure in command.exposures:
            path = self._path(exposure.path)
            frame = read_image(path, limits=self._limits, allocate=self._buffers.take)
            if (frame.signature.size, frame.signature.mtime_ns) != exposure.signature:
                raise ImageError(path, "has changed since it was read")
            if work is None:
                shape = frame.pixels.shape
                work = self._open.begin(command.slot, shape)
            elif frame.pixels.shape != shape:
                raise SizesDifferError(
                    f"{shown(exposure.path)} has {_size(frame.pixels.shape)} pixels, the other"
                    f" exposures of the bracket have {_size(shape)}"
                )
            work.add(frame.pixels, exposure.exposure_us)
            self._open.charge(work)
        assert work is not None
        return work


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(str(n) for n in (shape[1], shape[0], *shape[2:]))
