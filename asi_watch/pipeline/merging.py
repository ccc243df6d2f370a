"""One bracket of files becomes its products: read, merged, encoded, published."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
from numpy.typing import NDArray

from asi_watch import __version__
from asi_watch.brackets import Exposure, why_superseded
from asi_watch.buffers import BufferPool
from asi_watch.errors import BracketError, ImageError, ResponseFileError
from asi_watch.files import shown
from asi_watch.hdr.merging import Merge, MergeSettings, open_merge
from asi_watch.hdr.response import ResponseCurve
from asi_watch.images import read_image
from asi_watch.naming import slot_stem
from asi_watch.pipeline.archive_bracket import ArchiveBracket
from asi_watch.pipeline.darkening import DARKENS, darkens
from asi_watch.products import (
    ProductSpec,
    Provenance,
    Source,
    Unusable,
    encode_merge,
    publish,
)
from asi_watch.response_files import check_channels

__all__ = ["BracketMerger", "MergePlan", "MergedBracket", "check_products", "user_modes"]

log = logging.getLogger(__name__)

_MAX_IDLE_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class MergedBracket:
    """What became of one bracket: the files written and the exposures left out."""

    products: tuple[Path, ...]
    left_out: tuple[Unusable, ...]


@dataclass(frozen=True)
class MergePlan:
    """How all brackets of an archive are merged.

    Parameters
    ----------
    root : str
        Folder that the paths of exposures are relative to.
    output : Path
        Folder that products go below, in the sub-folder of their bracket's first exposure.
    settings : MergeSettings
    curve : ResponseCurve or None
        Needed by `debevec_custom` and `debevec_exact`.
    products : tuple of ProductSpec
    camera : str
        Noted in the products.
    to_utc : callable
        From the clock of the names to UTC.
    min_exposures : int
    leave_out_unreadable : bool
        Merge what is left of a bracket with unreadable images, as the daemon does; else such a
        bracket is refused.
    threads : int
        Threads per merge.

    Raises
    ------
    ValueError
        See `check_products`.
    """

    root: str
    output: Path
    settings: MergeSettings
    curve: ResponseCurve | None
    products: tuple[ProductSpec, ...]
    camera: str
    to_utc: Callable[[datetime], datetime]
    min_exposures: int = 2
    leave_out_unreadable: bool = False
    threads: int = 1

    def __post_init__(self) -> None:
        check_products(self.settings, self.curve, self.products)


class BracketMerger:
    """Merges the brackets of one archive; several threads may share it.

    Parameters
    ----------
    plan : MergePlan
    """

    def __init__(self, plan: MergePlan) -> None:
        self._plan = plan
        self._buffers = BufferPool(_MAX_IDLE_BYTES)
        self._file_mode, self._folder_mode = user_modes()

    def merge(self, bracket: ArchiveBracket) -> MergedBracket:
        """Merge one bracket and publish its products.

        Parameters
        ----------
        bracket : ArchiveBracket

        Returns
        -------
        MergedBracket

        Raises
        ------
        ImageError, BracketError, ResponseFileError
            If the bracket cannot be merged; names a file and the reason.
        PublishError
            If a product could not be put in its place.
        """
        bracket.check_usable(self._plan.min_exposures)
        held: list[NDArray[Any]] = []
        try:
            merge, sources, left_out = self._open(bracket, held)
            provenance = self._provenance(bracket, sources, left_out)
            written = tuple(
                self._write(spec, bracket, merge, provenance) for spec in self._plan.products
            )
        except (ImageError, ResponseFileError, BracketError):
            raise
        except (ValueError, cv2.error) as error:
            raise BracketError(f"{self._shown(bracket.first)} and its bracket: {error}") from error
        finally:
            for memory in held:
                self._buffers.give(memory)
        return MergedBracket(written, left_out)

    def _open(
        self, bracket: ArchiveBracket, held: list[NDArray[Any]]
    ) -> tuple[Merge, tuple[Source, ...], tuple[Unusable, ...]]:
        merge: Merge | None = None
        sources: list[Source] = []
        left_out: list[Unusable] = []
        for exposure in bracket.exposures:
            try:
                frame = read_image(
                    f"{self._plan.root}/{exposure.path}", allocate=self._buffers.take
                )
            except ImageError as error:
                if not self._plan.leave_out_unreadable:
                    raise
                left_out.append(Unusable(exposure.path, error.reason))
                continue
            held.append(frame.pixels)
            if merge is None:
                merge, first = self._begin(frame.pixels.shape, exposure), exposure
            self._check_size(frame.pixels, held[0], exposure, first)
            # Handed over, not copied: the memory is ours until the products are written.
            merge.add(frame.pixels, exposure.exposure_us, copy=False)
            sources.append(_source(exposure, frame.signature.size, frame.signature.mtime_ns))
        if merge is None or len(sources) < max(2, self._plan.min_exposures):
            worst = left_out[0]
            raise ImageError(
                f"{self._plan.root}/{worst.path}",
                f"{worst.reason}; of its bracket {len(sources)} of {len(bracket.exposures)}"
                " exposures are usable, too few",
            )
        if darkens(held, [source.exposure_us for source in sources]):
            log.warning("%s and its bracket: %s", self._shown(bracket.first), DARKENS)
        return merge, tuple(sources), tuple(left_out)

    def _begin(self, shape: tuple[int, ...], exposure: Exposure) -> Merge:
        curve = self._plan.curve if self._plan.settings.algorithm != "mertens" else None
        check_channels(curve, shape[2], self._shown(exposure))
        log_response = None if curve is None else curve.log_response
        return open_merge(self._plan.settings, log_response, shape, threads=self._plan.threads)

    def _check_size(
        self, pixels: NDArray[Any], others: NDArray[Any], exposure: Exposure, first: Exposure
    ) -> None:
        if pixels.shape != others.shape:
            raise BracketError(
                f"{self._shown(exposure)}: has {_size(pixels)} pixels, but {shown(first.path)} of"
                f" the same bracket has {_size(others)}"
            )

    def _write(
        self,
        spec: ProductSpec,
        bracket: ArchiveBracket,
        merge: Merge,
        provenance: Provenance,
    ) -> Path:
        with self._buffers.lent() as allocate:
            data = encode_merge(spec, merge, provenance, allocate=allocate)
        folder = PurePosixPath(bracket.first.path).parent
        target = self._plan.output / folder / f"{slot_stem(bracket.slot)}{spec.suffix}"
        publish(
            data,
            target,
            root=self._plan.output,
            mode=self._file_mode,
            folder_mode=self._folder_mode,
        )
        return target

    def _provenance(
        self,
        bracket: ArchiveBracket,
        sources: tuple[Source, ...],
        left_out: tuple[Unusable, ...],
    ) -> Provenance:
        plan = self._plan
        curve = plan.curve if plan.settings.algorithm != "mertens" else None
        superseded = (Unusable(e.path, why_superseded(e, other)) for e, other in bracket.superseded)
        return Provenance(
            camera=self._plan.camera,
            slot=bracket.slot,
            slot_utc=self._plan.to_utc(bracket.slot),
            sources=sources,
            algorithm=self._plan.settings.algorithm,
            parameters=self._plan.settings.parameters(),
            curve_id=None if curve is None else curve.curve_id,
            expected=bracket.expected,
            complete=bracket.complete and not left_out,
            revision=1,
            software=f"asi-watch {__version__}",
            unusable=tuple(sorted((*left_out, *superseded), key=lambda u: u.path)),
        )

    def _shown(self, exposure: Exposure) -> str:
        return shown(f"{self._plan.root}/{exposure.path}")


def check_products(
    settings: MergeSettings, curve: ResponseCurve | None, products: tuple[ProductSpec, ...]
) -> None:
    """Refuse settings, curve and products that do not go together, before any work is done.

    Raises
    ------
    ValueError
        If there is no product, a radiance product of exposure fusion, or no curve for an
        algorithm that needs one.
    """
    if not products:
        raise ValueError("no product to write")
    radiance = [spec.suffix for spec in products if spec.kind == "radiance"]
    if settings.algorithm == "mertens" and radiance:
        raise ValueError(
            f"'mertens' gives a picture without radiance, so no {' or '.join(radiance)};"
            " use debevec_custom with a response curve"
        )
    if settings.algorithm in ("debevec_custom", "debevec_exact") and curve is None:
        raise ValueError(f"'{settings.algorithm}' needs a response curve")


def user_modes() -> tuple[int, int]:
    """Permissions that the user's umask gives to new files and folders."""
    umask = os.umask(0o077)
    os.umask(umask)
    return 0o666 & ~umask, 0o777 & ~umask


def _source(exposure: Exposure, size: int, mtime_ns: int) -> Source:
    return Source(exposure.path, exposure.exposure_us, exposure.timestamp, size, mtime_ns)


def _size(pixels: NDArray[Any]) -> str:
    return "×".join(str(n) for n in (pixels.shape[1], pixels.shape[0], *pixels.shape[2:]))
