"""A camera's exposures read and its brackets merged, in worker threads.

Frames are checked by decoding them when they arrive, and are held until their bracket is merged,
within the memory budget. Whatever is not held, or not what the collector asks for, is read again:
the result is the same to the byte.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime

from asi_watch.brackets import Exposure
from asi_watch.buffers import BufferPool
from asi_watch.config.model import CameraConfig
from asi_watch.errors import ImageError
from asi_watch.files import NotRegularFileError, answered, shown, signature
from asi_watch.frames import Frames
from asi_watch.hdr.merging import merge_memory
from asi_watch.hdr.response import ResponseCurve
from asi_watch.images import Frame
from asi_watch.live import messages as msg
from asi_watch.live.ledger.rebuild import row_of_products
from asi_watch.live.ledger.records import TAKEN
from asi_watch.merge_bracket import Failed, Kept, MergePlan, merge_bracket
from asi_watch.processes import merge_threads
from asi_watch.products import OutputFolder
from asi_watch.products.publish import STAGING_NAME

# Seconds that the output folder's file system may take to answer at the start.
_PATIENCE = 5.0
_FRAMES_AT_FIRST = 5
# A file's time may be so much before the time in its name: names may follow another clock.
_OLDER_THAN_ITS_SLOT = 3 * 3600.0


class Merger:
    """Reads and merges for one camera. All methods may be called from several workers.

    Parameters
    ----------
    settings : CameraConfig
    budget : MemoryBudget
        Shared by all cameras.
    buffers : BufferPool
        Shared by all cameras; frames are decoded into its memory.
    """

    def __init__(self, settings: CameraConfig, budget: MemoryBudget, buffers: BufferPool) -> None:
        self._settings = settings
        self._root = os.fspath(settings.watch)
        staging = settings.staging or STAGING_NAME
        others = settings.outputs[1:]
        self._output = OutputFolder(settings.output, staging=staging, others=others)
        self._plan = MergePlan(
            camera=settings.name,
            root=self._root,
            output=self._output,
            settings=settings.merge_settings,
            products=tuple(product.spec for product in settings.products),
            timezone=settings.pattern.timezone,
            geometry=settings.geometry.values,
            without_response=settings.without_response,
            memory_limit=budget.limit,
            threads=merge_threads(),
            adopt_renamed=True,
        )
        self._budget = budget
        self._held = _HeldFrames(
            self._root, budget, buffers, linear=self._plan.settings.sensor is not None
        )
        self._shape: tuple[int, ...] | None = None
        self._itemsize = 1
        self._curves: tuple[ResponseCurve, ...] = ()

    def clean_up(self) -> int:
        """Remove what a killed process left half-written; returns how many files were removed."""
        # A dead share must not keep the other cameras waiting; what is left then goes later.
        (swept,) = answered(_PATIENCE, self._output.sweep)
        return swept or 0

    def use_curves(self, curves: tuple[ResponseCurve, ...]) -> None:
        """Merge from now on with these curves, one for each number of channels."""
        self._curves = curves

    def drop(self, slot: datetime) -> None:
        """Forget what is kept for a slot, and take its memory back."""
        self._held.drop(slot)

    def read(self, command: msg.ReadFile) -> msg.ReadOutcome:
        """Check one exposure by decoding it, and hold its frame if asked to."""
        frames = self._held.of(command.slot)
        try:
            sign = signature(self._path(command.path))
        except FileNotFoundError:
            return msg.Vanished()
        except NotRegularFileError as error:
            return self._no_file(command, str(error))
        except OSError as error:
            return msg.Unusable(f"cannot be read ({error.strerror or error})", True, None)
        found = (sign.size, sign.mtime_ns)
        if command.known == found:
            return msg.Unchanged()
        try:
            frame = frames.read(command.path)
        except ImageError as error:
            # What could not be read at all was not judged: it is read again when next looked at.
            judged = None if isinstance(error.__cause__, OSError) else found
            return msg.Unusable(error.reason, error.may_recover, judged)
        self._shape, self._itemsize = frame.pixels.shape, frame.pixels.itemsize
        sign = frame.signature
        try:
            times = self._settings.exposure_times.of(
                command.exposure_us, frame.metadata.exposure_us
            )
        except ValueError as error:
            frames.buffers.give(frame.pixels)
            return msg.Unusable(str(error), False, (sign.size, sign.mtime_ns))
        exposure = Exposure(
            command.path,
            command.timestamp,
            times[0],
            sign.size,
            sign.mtime_ns,
            sign.inode,
            times[1],
        )
        if not (command.absorb and self._held.hold(command.slot, exposure, frame)):
            frames.buffers.give(frame.pixels)
        return msg.ReadOk(exposure)

    def _no_file(self, command: msg.ReadFile, reason: str) -> msg.ReadOutcome:
        try:
            status = os.lstat(self._path(command.path))
        except OSError:
            return msg.Vanished()
        found = (status.st_size, status.st_mtime_ns)
        return msg.Unchanged() if command.known == found else msg.Unusable(reason, False, found)

    def _path(self, relative: str) -> str:
        return f"{self._root}/{relative}"

    def merge(self, command: msg.MergeBracket, now: float) -> msg.MergeOutcome:
        """Merge a bracket and publish its products; how long they took is in their `timings`.

        Parameters
        ----------
        command : MergeBracket
        now : float
            Monotonic time at which the job began.
        """
        frames = self._held.of(command.slot)
        try:
            with self._budget.merging(self._memory(len(command.exposures))):
                outcome = merge_bracket(self._plan, command, frames, self._curves)
        finally:
            self._held.drop(command.slot)
        self._held.usual_frames = max(1, len(command.exposures))
        if isinstance(outcome, Kept):
            return self._kept(outcome)
        if isinstance(outcome, Failed):
            return _named(outcome)
        if outcome.adopted:
            return outcome
        waited = round(now - command.arrived, 4)
        latency = round(self._latency(command), 4)
        timings = {"waited": waited, **outcome.timings, "latency": latency}
        return replace(outcome, timings=timings)

    def _memory(self, count: int) -> int:
        """Bytes that a merge of so many exposures takes, of the size that was read last."""
        if self._shape is None:
            return 0
        fallback = self._settings.merge.needs_curve and not self._curves
        algorithms = {self._plan.settings.algorithm, *(("mertens",) if fallback else ())}
        size = self._shape, count, self._itemsize
        return max(merge_memory(algorithm, *size) for algorithm in algorithms)

    def _kept(self, outcome: Kept) -> msg.MergeOutcome:
        record = row_of_products(self._settings, outcome.found)
        if record is None:
            return Failed("permanent", f"{outcome.reason}, but it gives no row")
        return msg.ProductKept(record, outcome.reason)

    def _latency(self, command: msg.MergeBracket) -> float:
        """Seconds since the last exposure was there, as far as anything tells."""
        since_seen = time.monotonic() - command.arrived
        if command.seen_by_event:
            return since_seen
        written = max(e.mtime_ns for e in command.exposures) / 1e9
        age = time.time() - written
        slot = self._settings.pattern.to_utc(command.slot).timestamp()
        # A clock that is wrong says nothing; neither does a file that is older than its content.
        return age if age > 0 and written > slot - _OLDER_THAN_ITS_SLOT else since_seen


def _named(failed: Failed) -> Failed:
    """Say in the reason which files are at fault, or how to ask for the bracket again."""
    reason = "; ".join((*map(shown, failed.files), failed.reason))
    if failed.kind == "taken":
        reason = f"{TAKEN}{failed.reason}, and ask for it with: asi-watch retry"
    return replace(failed, reason=reason)


class MemoryBudget:
    """Bytes of the frames that all cameras hold for merges to come; as many for merges that run.

    Parameters
    ----------
    limit : int
    patience : float
        Seconds that a merge waits at most for others to end, and after which a running one is no
        longer waited for: a dead share must not keep the other cameras from merging.
    """

    def __init__(self, limit: int, patience: float = 60.0) -> None:
        self.limit = limit
        self.held = 0
        self._patience = patience
        self._lock = threading.Lock()
        self._ended = threading.Condition()
        self._merges: dict[object, tuple[int, float]] = {}

    @contextmanager
    def merging(self, nbytes: int) -> Iterator[None]:
        """Merge within the limit: wait until the merges that run leave so many bytes, or all ended.

        Parameters
        ----------
        nbytes : int
            What the merge takes; a larger one than the limit is merged in bands.
        """
        claim, nbytes = object(), min(nbytes, self.limit)
        until = time.monotonic() + self._patience
        with self._ended:
            while self._merging() + nbytes > self.limit and time.monotonic() < until:
                # Nobody notifies when the patience with a hanging merge ends.
                self._ended.wait(min(self._patience, 1.0))
            self._merges[claim] = nbytes, time.monotonic()
        try:
            yield
        finally:
            with self._ended:
                del self._merges[claim]
                self._ended.notify_all()

    def _merging(self) -> int:
        oldest = time.monotonic() - self._patience
        return sum(nbytes for nbytes, since in self._merges.values() if since > oldest)

    def take(self, nbytes: int) -> bool:
        """Count bytes as held (negative: as given back); False if that would exceed the limit."""
        with self._lock:
            if nbytes > 0 and self.held + nbytes > self.limit:
                return False
            self.held += nbytes
            return True


class _HeldFrames:
    """One camera's decoded frames by slot, within the memory budget; for several threads."""

    def __init__(
        self, root: str, budget: MemoryBudget, buffers: BufferPool, *, linear: bool
    ) -> None:
        self._root, self._budget, self._buffers = root, budget, buffers
        self._linear = linear
        self._slots: dict[datetime, Frames] = {}
        self._charged: dict[datetime, int] = {}
        self._lock = threading.Lock()
        self.usual_frames = _FRAMES_AT_FIRST
        """How many frames a bracket that begins is expected to have."""

    def __len__(self) -> int:
        return len(self._slots)

    def of(self, slot: datetime) -> Frames:
        """Give the frames of a slot; an empty store, which is not kept, where none are held."""
        with self._lock:
            return self._slots.get(slot) or self._new()

    def _new(self) -> Frames:
        return Frames(self._root, self._buffers, linear=self._linear)

    def hold(self, slot: datetime, exposure: Exposure, frame: Frame) -> bool:
        """Hold a frame for its bracket's merge; False if there is no room for it."""
        with self._lock:
            frames, charged = self._slots.get(slot), self._charged.get(slot, 0)
            # A bracket that begins is charged whole: of many that grow together some are decoded
            # again, and not parts of all of them.
            first = frame.pixels.nbytes * self.usual_frames
            held = first if frames is None else frame.pixels.nbytes + frames.nbytes
            if held > charged:
                if not self._budget.take(held - charged):
                    return False
                self._charged[slot] = held
            if frames is None:
                frames = self._slots[slot] = self._new()
            return frames.hold(exposure, frame)

    def drop(self, slot: datetime) -> None:
        """Let go of a slot's frames, and take their memory back."""
        with self._lock:
            frames = self._slots.pop(slot, None)
            self._budget.take(-self._charged.pop(slot, 0))
        if frames is not None:
            frames.drop()
