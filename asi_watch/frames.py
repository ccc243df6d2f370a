"""The decoded exposures of a bracket, held in memory or read again for each band of rows."""

import math
import os
import threading
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asi_watch.brackets import Exposure
from asi_watch.buffers import BufferPool
from asi_watch.errors import BracketError, ImageError
from asi_watch.files import open_regular, shown
from asi_watch.hdr.frame_checks import codec_error, fine_detail, sample_frame
from asi_watch.hdr.merge_settings import HalfRadiance, MergeSettings, Pixels, Radiance, Shape
from asi_watch.hdr.weighted_merge import Merge, WeightedMerge
from asi_watch.images import Frame, Levels, read_image

_HEAD_BYTES = 1 << 18


class Frames:
    """The decoded exposures of one bracket: held in memory, or read from their files.

    Several threads may use it at once.

    Parameters
    ----------
    root : str
        Folder that paths are relative to.
    buffers : BufferPool, optional
        Frames are decoded into its memory, which goes back to it.
    linear : bool
        Read what a linear camera writes: see `read_image`.
    """

    def __init__(
        self, root: str, buffers: BufferPool | None = None, *, linear: bool = False
    ) -> None:
        self.buffers = buffers or BufferPool(0)
        self._root, self._linear = root, linear
        self._held: dict[str, tuple[tuple[int, int], NDArray[Any]]] = {}
        self._levels: dict[str, Levels | None] = {}
        self._orientations: dict[str, int] = {}
        self._lock = threading.Lock()
        self._dropped = False

    @property
    def nbytes(self) -> int:
        """Bytes of the frames held."""
        with self._lock:
            return sum(pixels.nbytes for _, pixels in self._held.values())

    def read(self, path: str) -> Frame:
        """Decode a file strictly, or raise ImageError; its pixels are the caller's until `hold`.

        Parameters
        ----------
        path : str
            Relative to the root.
        """
        options: dict[str, Any] = {"allocate": self.buffers.take, "linear": self._linear}
        return read_image(f"{self._root}/{path}", **options)

    def hold(self, exposure: Exposure, frame: Frame) -> bool:
        """Keep the pixels of an exposure; False once the frames are dropped: they stay yours.

        Parameters
        ----------
        exposure : Exposure
        frame : Frame
            What was read from its file.
        """
        with self._lock:
            if self._dropped:
                return False
            _, before = self._held.get(exposure.path, (None, None))
            self._held[exposure.path] = exposure.signature, frame.pixels
            self._levels[exposure.path] = frame.levels
            self._orientations[exposure.path] = frame.metadata.orientation
        if before is not None:
            self.buffers.give(before)
        return True

    def read_head(self, exposure: Exposure) -> bytes:
        """Read the first bytes of an exposure's file; ImageError as `get`.

        Parameters
        ----------
        exposure : Exposure
        """
        path = f"{self._root}/{exposure.path}"
        try:
            descriptor, status = open_regular(path)
            try:
                head = os.read(descriptor, _HEAD_BYTES)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise ImageError(path, f"cannot be read ({error.strerror or error})") from error
        if (status.st_size, status.st_mtime_ns) != exposure.signature:
            raise ImageError(path, "has changed since it was read")
        return head

    def levels(self, exposures: Sequence[Exposure]) -> Levels | None:
        """Black and white level that the files state; BracketError if they differ.

        Parameters
        ----------
        exposures : sequence of Exposure
            All held once.
        """
        with self._lock:
            found = {self._levels.get(exposure.path) for exposure in exposures}
        if len(found) > 1:
            raise BracketError("the exposures of one bracket state different levels of black")
        return found.pop()

    def get(self, exposure: Exposure) -> NDArray[Any]:
        """Return the pixels of an exposure, and keep them.

        ImageError if the file cannot be used, or is not the one whose signature `exposure` has.

        Parameters
        ----------
        exposure : Exposure
        """
        with self._lock:
            signature, pixels = self._held.get(exposure.path, (None, None))
        if pixels is not None and signature == exposure.signature:
            return pixels
        frame = self.read(exposure.path)
        if (frame.signature.size, frame.signature.mtime_ns) != exposure.signature:
            self.buffers.give(frame.pixels)
            raise ImageError(f"{self._root}/{exposure.path}", "has changed since it was read")
        self.hold(exposure, frame)
        return frame.pixels

    def get_all(self, exposures: Sequence[Exposure]) -> list[NDArray[Any]]:
        """Return the pixels of exposures; ImageError as `get`, BracketError if sizes differ.

        Parameters
        ----------
        exposures : sequence of Exposure
        """
        images: list[NDArray[Any]] = []
        for exposure in exposures:
            images.append(self.get(exposure))
            if images[-1].dtype != images[0].dtype:
                kinds = f"{images[-1].dtype} and {images[0].dtype}"
                raise BracketError(f"exposures of one bracket have samples of two kinds: {kinds}")
            if images[-1].shape != images[0].shape:
                mixed = images[-1].shape[2] != images[0].shape[2]
                raise BracketError(
                    f"{'grey and colour frames in one bracket: ' if mixed else ''}"
                    f"{shown(exposure.path)} has {_size(images[-1])},"
                    f" {shown(exposures[0].path)} of the same bracket {_size(images[0])}; do two"
                    " cameras write there, or one that changes between day and night?"
                )
        return images

    def odd_orientations(self, exposures: Sequence[Exposure]) -> tuple[str, ...]:
        """Say which exposures, all held once, have another EXIF orientation than the others.

        Parameters
        ----------
        exposures : sequence of Exposure
        """
        with self._lock:
            found = [self._orientations.get(exposure.path, 1) for exposure in exposures]
        usual = max(set(found), key=found.count)
        return tuple(
            f"the exposure of {e.exposure_us:.12g} µs has the EXIF orientation {one}, others"
            f" {usual}; pixels are merged as they are stored"
            for e, one in zip(exposures, found, strict=True)
            if one != usual
        )

    def keep_only(self, paths: Collection[str]) -> None:
        """Let go of all frames but these.

        Parameters
        ----------
        paths : collection of str
        """
        with self._lock:
            gone = [self._held.pop(path)[1] for path in list(self._held) if path not in paths]
        for pixels in gone:
            self.buffers.give(pixels)

    def drop(self) -> None:
        """Let go of all frames, and of what is still being read."""
        with self._lock:
            self._dropped = True
        self.keep_only(())


def _size(pixels: NDArray[Any]) -> str:
    return f"{pixels.shape[1]}×{pixels.shape[0]}×{pixels.shape[2]} pixels"


class BandedMerge(Merge):
    """A weighted merge of frames that do not fit into memory together: read again for each band.

    Gives to the byte what a merge of the whole frames gives. Raises ImageError, now or whenever a
    result is asked for, if an exposure cannot be read any more, ValueError if sizes differ.

    Parameters
    ----------
    settings, log_response, shape, threads
        As for `asi_watch.hdr.merging.open_merge`, with a weighted algorithm.
    frames : Frames
        Where the exposures are read from; none is held there.
    memory : int
        Bytes for the frames of one band; at least sixteen rows are merged at once.
    """

    def __init__(
        self,
        settings: MergeSettings,
        log_response: ArrayLike,
        frames: Frames,
        exposures: Sequence[Exposure],
        shape: Shape,
        memory: int,
        threads: int,
    ) -> None:
        super().__init__(settings, log_response, shape)
        self._source, self._memory, self._threads = frames, memory, threads
        self._times = [exposure.exposure_us for exposure in exposures]
        details = []
        for pixels in self._read(exposures):
            self._samples.append(sample_frame(pixels, settings.sky_disc))
            details.append(fine_detail(pixels))
        excluded = {found.index for found in self.findings().excluded}
        self._exposures = [one for i, one in enumerate(exposures) if i not in excluded]
        used = [one for i, one in enumerate(details) if i not in excluded]
        self._codec_error = codec_error(used)

    def add(self, pixels: Pixels, exposure_time: float) -> None:
        """Refuse: the exposures were given at the beginning."""
        raise ValueError("a merge in bands takes no further exposures")

    def _write_picture(self, out: NDArray[Any]) -> None:
        for rows, inner, merge in self._bands():
            out[rows] = merge.picture(out.dtype.type)[inner]
            del merge

    def radiance(self) -> Radiance:
        """Radiance map; see `Merge.radiance`."""
        ln, validity = np.empty(self.shape, np.float32), np.empty(self.shape, np.uint8)
        for rows, inner, merge in self._bands():
            part = merge.radiance()
            ln[rows], validity[rows] = part.ln_radiance[inner], part.validity[inner]
            del merge, part
        return Radiance(ln, validity)

    def radiance_half(self, factor: float) -> HalfRadiance | None:
        """Radiance as half floats; see `Merge.radiance_half`."""
        height, width, channels = self.shape
        planes = np.empty((channels, height, width), np.float16)
        validity = np.empty((channels, height, width), np.uint8)
        for rows, inner, merge in self._bands():
            part = merge.radiance_half(factor)
            if part is None:
                return None
            planes[:, rows], validity[:, rows] = part.planes[:, inner], part.validity[:, inner]
            del merge, part
        return HalfRadiance(planes, validity)

    def uncertainty(self) -> NDArray[np.float32]:
        """Standard error of ln E; see `Merge.uncertainty`."""
        whole = np.empty(self.shape, np.float32)
        for rows, inner, merge in self._bands():
            whole[rows] = merge.uncertainty()[inner]
            del merge
        return whole

    def _bands(self) -> Iterator[tuple[slice, slice, Merge]]:
        """Rows, where they are in a merge of them and a row more on either side, and that merge."""
        height, row = self.shape[0], math.prod(self.shape[1:])
        count = max(16, min(height, self._memory // (row * len(self._exposures))))
        disc = self._settings.sky_disc
        spans = None if disc is None else disc.spans(self.shape)
        # What the whole frames have shown counts, not what this band alone would.
        found, scale = replace(self.findings(), contradictions=()), self.scale()
        for first in range(0, height, count):
            rows = slice(first, min(first + count, height))
            read = slice(max(first - 1, 0), min(rows.stop + 1, height))
            merge = WeightedMerge(
                self._settings,
                self._log_response,
                (read.stop - read.start, *self.shape[1:]),
                self._threads,
                None if spans is None else spans[read],
            )
            for exposure, pixels in zip(self._exposures, self._read(self._exposures), strict=True):
                merge.add(pixels[read].copy(), exposure.exposure_us)
            merge.use_findings(found, self._codec_error)
            merge.use_scale(scale)
            yield rows, slice(first - read.start, rows.stop - read.start), merge
            del merge  # the caller does so too: two bands at once would be twice the memory

    def _read(self, exposures: Sequence[Exposure]) -> Iterator[Pixels]:
        for exposure in exposures:
            pixels = self._source.get(exposure)
            if pixels.shape != self.shape:
                raise ValueError(f"{exposure.path} has the shape {pixels.shape}, not {self.shape}")
            yield pixels
            self._source.keep_only(())
