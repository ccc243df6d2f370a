"""An HDR image from arrays."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from asi_watch import __version__
from asi_watch.cores import merge_threads
from asi_watch.errors import BracketError
from asi_watch.files import shown
from asi_watch.hdr.merging import open_merge
from asi_watch.pipeline.darkening import DARKENS, darkens
from asi_watch.pipeline.merging import check_products, user_modes
from asi_watch.pipeline.naming import parse_timestamp
from asi_watch.pipeline.settings import MergeChoices, merge_choices, product_of
from asi_watch.products import Provenance, Source, encode_merge, publish
from asi_watch.response_files import check_channels

__all__ = ["create_and_save_hdr"]

log = logging.getLogger(__name__)

_NO_TIME = datetime(1970, 1, 1)


def create_and_save_hdr(
    img_series: Iterable[NDArray[np.uint8]],
    exposure_times: Iterable[float],
    output_path: str | Path,
    **kwargs_merging: Any,
) -> None:
    """Merge images of one bracket and save the result.

    Parameters
    ----------
    img_series : iterable of ndarray, shape (H, W, C), uint8, BGR
    exposure_times : iterable of float
        One per image, microseconds.
    output_path : str or Path
        The suffix chooses what is written: ``.jpg`` an 8-bit picture, ``.png`` and ``.jp2`` a
        16-bit picture, ``.exr``, ``.tiff`` and ``.hdr`` linear radiance (relative irradiance per
        millisecond). Missing folders are made; the file appears whole or not at all.
    **kwargs_merging
        Keywords of `asi_watch.hdr.merging.merge_exposure_series`, with `algorithm="debevec"`
        unless given, and `channel_order` ("BGR" or "RGB") of `response`. Without a `response`,
        `debevec` calibrates on the images themselves, `mertens` needs none (and gives no
        radiance), the others refuse.

    Raises
    ------
    BracketError
        If there are fewer than two images, equal exposure times, or sizes that differ.
    ValueError
        If another argument does not fit.
    PublishError
        If the file cannot be written.
    """
    choices = merge_choices(**{"algorithm": "debevec", **kwargs_merging})
    target = Path(output_path)
    spec = product_of(target.suffix)
    if choices.filetype is not None and product_of(choices.filetype) != spec:
        raise ValueError(f"filetype {choices.filetype!r} does not fit {shown(target)}")
    check_products(choices.settings, choices.curve, (spec,))
    images, times = list(img_series), [float(t) for t in exposure_times]
    _check_arrays(images, times, shown(target))
    if darkens(images, times):
        log.warning("%s: %s", shown(target), DARKENS)
    curve = choices.curve if choices.settings.algorithm != "mertens" else None
    channels = images[0].shape[2] if images[0].ndim == 3 else 1
    check_channels(curve, channels, shown(target))
    try:
        log_response = None if curve is None else curve.log_response
        merge = open_merge(choices.settings, log_response, images[0].shape, threads=merge_threads())
        for image, exposure_us in zip(images, times, strict=True):
            merge.add(image, exposure_us, copy=False)
        data = encode_merge(spec, merge, _provenance(target, images, times, choices))
    except (ValueError, cv2.error) as error:
        raise BracketError(f"{shown(target)} not made: {error}") from error
    mode, folder_mode = user_modes()
    publish(data, target, mode=mode, folder_mode=folder_mode)


def _check_arrays(images: list[NDArray[np.uint8]], times: list[float], name: str) -> None:
    if len(images) != len(times):
        raise BracketError(f"{name} not made: {len(images)} images, {len(times)} exposure times")
    if len(images) < 2:
        count = "one exposure only" if images else "no images"
        raise BracketError(f"{name} not made: {count}")
    if len(set(times)) == 1:
        raise BracketError(f"{name} not made: all exposure times are equal ({times[0]:g} µs)")
    for number, image in enumerate(images):
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
            kind = getattr(image, "dtype", type(image).__name__)
            raise BracketError(f"{name} not made: image {number} is {kind}, not an array of uint8")
        if image.shape != images[0].shape:
            raise BracketError(
                f"{name} not made: image {number} has the shape {image.shape}, image 0"
                f" {images[0].shape}"
            )


def _provenance(
    target: Path, images: list[NDArray[np.uint8]], times: list[float], choices: MergeChoices
) -> Provenance:
    slot = parse_timestamp(target.name) or _NO_TIME
    order = np.argsort(times, kind="stable")
    curve = choices.curve if choices.settings.algorithm != "mertens" else None
    return Provenance(
        camera="",
        slot=slot,
        slot_utc=slot.replace(tzinfo=UTC),
        sources=tuple(Source(f"array {i}", times[i], slot, images[i].nbytes, 0) for i in order),
        algorithm=choices.settings.algorithm,
        parameters=choices.settings.parameters(),
        curve_id=None if curve is None else curve.curve_id,
        expected=None,
        complete=True,
        revision=1,
        software=f"asi-watch {__version__}",
    )
