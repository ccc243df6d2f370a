"""Calibration from files: brackets on disk in, a curve with its report and metadata out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from asi_watch import __version__
from asi_watch.errors import BracketError
from asi_watch.files import shown
from asi_watch.hdr.calibration import (
    BracketSamples,
    Calibration,
    SampleTechnique,
    sample_bracket,
)
from asi_watch.hdr.disc import SkyDisc, agreed_disc, find_sky_disc
from asi_watch.images import read_image

SkyDiscChoice = Literal["auto"] | SkyDisc | None
"""Where places are taken from: the disc that the pictures show, a given one, the whole picture."""


@dataclass(frozen=True, slots=True)
class FilesOfBracket:
    """One bracket to calibrate from: paths and their exposure times in microseconds."""

    paths: tuple[str, ...]
    exposure_us: tuple[float, ...]


def sample_files(
    brackets: Iterable[FilesOfBracket],
    *,
    technique: SampleTechnique,
    samples_per_bracket: int,
    rng: np.random.Generator,
    sky_disc: SkyDiscChoice = "auto",
    on_bracket: Callable[[FilesOfBracket], None] | None = None,
) -> list[BracketSamples]:
    """Read brackets one by one and take their samples; one bracket is in memory at a time.

    Parameters
    ----------
    brackets : iterable of FilesOfBracket
    technique, samples_per_bracket, rng
        See `asi_watch.hdr.calibration.sample_bracket`.
    sky_disc : "auto", SkyDisc or None
        See `in_one_disc`.
    on_bracket : callable, optional
        Called after each bracket, for a progress display.

    Returns
    -------
    list of BracketSamples

    Raises
    ------
    ImageError
        An image cannot be used; names the file.
    BracketError
        The images of a bracket differ in size, or their times cannot be used; names a file.
    """
    samples = []
    for bracket in brackets:
        samples.append(
            sample_bracket_files(
                bracket,
                technique=technique,
                samples_per_bracket=samples_per_bracket,
                rng=rng,
                sky_disc=sky_disc,
            )
        )
        if on_bracket is not None:
            on_bracket(bracket)
    return in_one_disc(samples, sky_disc)


def sample_bracket_files(
    bracket: FilesOfBracket,
    *,
    technique: SampleTechnique,
    samples_per_bracket: int,
    rng: np.random.Generator,
    sky_disc: SkyDiscChoice = "auto",
) -> BracketSamples:
    """Read one bracket and take its samples.

    Parameters
    ----------
    bracket : FilesOfBracket
    technique, samples_per_bracket, rng
        See `asi_watch.hdr.calibration.sample_bracket`.
    sky_disc : "auto", SkyDisc or None
        "auto": inside the disc that this bracket shows, if it shows one.

    Returns
    -------
    BracketSamples
        With the disc that was used.

    Raises
    ------
    ImageError, BracketError
        As `sample_files`.
    """
    images = [read_image(path).pixels for path in bracket.paths]
    for path, image in zip(bracket.paths, images, strict=True):
        if image.shape != images[0].shape:
            raise BracketError(
                f"{shown(path)}: is {image.shape}, but {shown(bracket.paths[0])} is"
                f" {images[0].shape}; the images of a bracket must have one size"
            )
    disc = find_sky_disc(images) if sky_disc == "auto" else sky_disc
    try:
        samples = sample_bracket(
            images,
            bracket.exposure_us,
            technique=technique,
            count=samples_per_bracket,
            rng=rng,
            mask=None if disc is None else disc.mask(images[0].shape),
        )
    except ValueError as error:
        raise BracketError(
            f"{shown(bracket.paths[0])} and the rest of its bracket: {error}"
        ) from error
    return replace(samples, disc=disc)


def in_one_disc(samples: Sequence[BracketSamples], sky_disc: SkyDiscChoice) -> list[BracketSamples]:
    """Keep of all brackets' samples those inside the camera's one sky disc.

    Parameters
    ----------
    samples : sequence of BracketSamples
        Each with the disc found in its own bracket.
    sky_disc : "auto", SkyDisc or None
        "auto": the disc that the brackets agree on; where they show none, all samples stay.

    Returns
    -------
    list of BracketSamples
        All with the same disc, or all without.
    """
    disc = agreed_disc([s.disc for s in samples]) if sky_disc == "auto" else sky_disc
    if disc is None:
        return [replace(s, disc=None) for s in samples]
    inside = [s.inside(disc) for s in samples]
    # A bracket with nothing inside has the camera turned or its pictures of another size.
    return [i if i.count else replace(s, disc=disc) for i, s in zip(inside, samples, strict=True)]


def disc_numbers(disc: SkyDisc | None) -> list[float] | None:
    """Write a disc as [x, y, radius] in pixels, as response files do."""
    return None if disc is None else [disc.x, disc.y, disc.radius]


def lne_range(log_response: ArrayLike, exposure_times: ArrayLike) -> tuple[float, float]:
    """Range of ln E that a curve and a set of exposure times can tell.

    Parameters
    ----------
    log_response : array_like, shape (256, C) or (256, 1, C)
        g(z) in the ln domain.
    exposure_times : array_like
        All exposure times, positive; their unit is that of the result.

    Returns
    -------
    (float, float)
        (min g − max ln t, max g − min ln t) over all channels and exposures.
    """
    g = np.asarray(log_response, dtype=np.float64)
    ln_t = np.log(np.asarray(exposure_times, dtype=np.float64))
    return float(g.min() - ln_t.max()), float(g.max() - ln_t.min())


def curve_metadata(
    calibration: Calibration, exposure_times: Sequence[float], **settings: Any
) -> dict[str, Any]:
    """Give what a response file says about its curve.

    Parameters
    ----------
    calibration : Calibration
    exposure_times : sequence of float
        All exposure times that took part.
    **settings
        What the caller chose: directory, sampling, smoothness and so on.

    Returns
    -------
    dict
        asi_core's keys and ours: `channel_order`, `software`, `report`; `sky_disc` is one of the
        settings.
    """
    return {
        "timestamp_utc": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        **settings,
        "num_groups_used": calibration.report.brackets,
        "channels": int(calibration.log_response.shape[-1]),
        "lnE_range": list(lne_range(calibration.log_response, exposure_times)),
        "file_format": "log-response",
        "algorithm": "Debevec",
        "channel_order": "BGR",
        "software": f"asi-watch {__version__}",
        "report": calibration.report.to_dict(),
    }
