"""The decoded exposures of a bracket, which many threads read and one merges."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from asi_watch.brackets import Exposure
from asi_watch.buffers import BufferPool
from asi_watch.errors import BracketError, ImageError
from asi_watch.files import shown
from asi_watch.images import Frame, ImageLimits, read_image

__all__ = ["Frames"]


class Frames:
    """The decoded exposures of one bracket: held in memory, or read from their files.

    Several threads may use it at once.

    Parameters
    ----------
    root : str
        Folder that paths are relative to.
    buffers : BufferPool, optional
        Frames are decoded into its memory, which goes back to it.
    """

    def __init__(self, root: str, buffers: BufferPool | None = None) -> None:
        self._root = root
        self._buffers = buffers or BufferPool(0)
        self._limits = ImageLimits()
        self._held: dict[str, tuple[tuple[int, int], NDArray[np.uint8]]] = {}
        self._orientations: dict[str, int] = {}
        self._lock = threading.Lock()
        self._dropped = False

    @property
    def nbytes(self) -> int:
        """Bytes of the frames held."""
        with self._lock:
            return sum(pixels.nbytes for _, pixels in self._held.values())

    def read(self, path: str) -> Frame:
        """Decode a file strictly; its pixels are the caller's until `hold` or `give_back`.

        Parameters
        ----------
        path : str
            Relative to the root.

        Raises
        ------
        ImageError
            If it cannot be used.
        """
        name = f"{self._root}/{path}"
        return read_image(name, limits=self._limits, allocate=self._buffers.take)

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
            before = self._held.get(exposure.path)
            self._held[exposure.path] = exposure.signature, frame.pixels
            self._orientations[exposure.path] = frame.orientation
        if before is not None:
            self.give_back(before[1])
        return True

    def get(self, exposure: Exposure) -> NDArray[np.uint8]:
        """Return the pixels of an exposure, and keep them.

        Parameters
        ----------
        exposure : Exposure
            With the signature under which its file was read.

        Raises
        ------
        ImageError
            If the file cannot be used, or is not the one that `exposure` was.
        """
        with self._lock:
            signature, pixels = self._held.get(exposure.path, (None, None))
        if pixels is not None and signature == exposure.signature:
            return pixels
        frame = self.read(exposure.path)
        if (frame.signature.size, frame.signature.mtime_ns) != exposure.signature:
            self.give_back(frame.pixels)
            raise ImageError(f"{self._root}/{exposure.path}", "has changed since it was read")
        self.hold(exposure, frame)
        return frame.pixels

    def get_all(self, exposures: Sequence[Exposure]) -> list[NDArray[np.uint8]]:
        """Return the pixels of exposures, which must be of one size.

        Parameters
        ----------
        exposures : sequence of Exposure

        Raises
        ------
        ImageError
            As `get`.
        BracketError
            If one has another size than the first.
        """
        images: list[NDArray[np.uint8]] = []
        for exposure in exposures:
            images.append(self.get(exposure))
            if images[-1].shape != images[0].shape:
                raise BracketError(
                    f"{shown(exposure.path)} has {_size(images[-1])} pixels,"
                    f" {shown(exposures[0].path)} of the same bracket has {_size(images[0])}"
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
            f"the exposure of {e.exposure_us:g} µs has the EXIF orientation {one}, others {usual};"
            " pixels are merged as they are stored"
            for e, one in zip(exposures, found, strict=True)
            if one != usual
        )

    def give_back(self, pixels: NDArray[np.uint8]) -> None:
        """Take the memory of pixels back, which nobody uses any more."""
        self._buffers.give(pixels)

    def keep_only(self, paths: Collection[str]) -> None:
        """Let go of all frames but these.

        Parameters
        ----------
        paths : collection of str
        """
        with self._lock:
            gone = [self._held.pop(path)[1] for path in list(self._held) if path not in paths]
        for pixels in gone:
            self.give_back(pixels)

    def drop(self) -> None:
        """Let go of all frames, and of what is still being read."""
        with self._lock:
            self._dropped = True
        self.keep_only(())

    @property
    def buffers(self) -> BufferPool:
        """Where memory comes from."""
        return self._buffers


def _size(pixels: NDArray[np.uint8]) -> str:
    return "×".join(str(n) for n in (pixels.shape[1], pixels.shape[0], *pixels.shape[2:]))
