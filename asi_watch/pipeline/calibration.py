"""A response curve from the brackets of a folder: which take part, and what the file says."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast, get_args

import numpy as np

from asi_watch.calibrating import (
    FilesOfBracket,
    SkyDiscChoice,
    curve_metadata,
    disc_numbers,
    in_one_disc,
    sample_bracket_files,
)
from asi_watch.errors import AsiWatchError, BracketError
from asi_watch.files import shown
from asi_watch.hdr.calibration import (
    BracketSamples,
    Calibration,
    SampleTechnique,
    calibrate_response,
)
from asi_watch.hdr.calibration.weighting import check_clips, hat
from asi_watch.hdr.disc import SkyDisc, as_sky_disc
from asi_watch.hdr.response import ResponseCurve
from asi_watch.pipeline.archive_bracket import ArchiveBracket

__all__ = ["ArchiveCalibration", "CalibrationChoices", "calibrate_brackets"]

log = logging.getLogger(__name__)

_REASONS_SHOWN = 3


@dataclass(frozen=True, slots=True)
class CalibrationChoices:
    """How to calibrate; see `asi_watch.pipeline.calibrate_camera`.

    Raises
    ------
    ValueError
        If a value is impossible.
    """

    samples_per_image: int = 1000
    sample_technique: str = "random"
    max_processed_groups: int = 10
    smoothness: float = 50.0
    weight_type: str = "triangle"
    low_clip: int = 5
    high_clip: int = 250
    seed: int | None = None
    sky_disc: Literal["auto"] | tuple[float, float, float] | SkyDisc | None = "auto"

    def __post_init__(self) -> None:
        if self.sample_technique not in get_args(SampleTechnique):
            names = ", ".join(get_args(SampleTechnique))
            raise ValueError(f"sample_technique is one of {names}; got {self.sample_technique!r}")
        for name, least in (
            ("samples_per_image", 1),
            ("max_processed_groups", 1),
            ("low_clip", 0),
            ("high_clip", 0),
            ("seed", 0),
        ):
            _check_whole(name, getattr(self, name), least)
        check_clips(self.low_clip, self.high_clip)
        hat(self.weight_type)
        if not (isinstance(self.smoothness, int | float) and 0 < self.smoothness < np.inf):
            raise ValueError(f"smoothness must be a positive number; got {self.smoothness!r}")
        self.disc()

    def disc(self) -> SkyDiscChoice:
        """Give `sky_disc` as the rooms below take it.

        Raises
        ------
        ValueError
            If it is none of what it may be.
        """
        if self.sky_disc == "auto":
            return "auto"
        try:
            return as_sky_disc(self.sky_disc)
        except ValueError:
            raise ValueError(
                f"sky_disc is 'auto', None or (x, y, radius) in pixels; got {self.sky_disc!r}"
            ) from None


@dataclass(frozen=True, slots=True)
class ArchiveCalibration:
    """A calibration and what it was made from.

    Parameters
    ----------
    calibration : Calibration
    choices : CalibrationChoices
    root : str
        The archive.
    used : tuple of ArchiveBracket
        In the order of the report's brackets.
    rejected : tuple of str
        Why other brackets that were tried could not be used.
    disc : SkyDisc or None
        What the samples were taken from; None: whole pictures.
    """

    calibration: Calibration
    choices: CalibrationChoices
    root: str
    used: tuple[ArchiveBracket, ...]
    rejected: tuple[str, ...]
    disc: SkyDisc | None = None

    def curve(self, settings: dict[str, Any]) -> ResponseCurve:
        """Give the curve with the metadata of its file.

        Parameters
        ----------
        settings : dict
            Further keys for the metadata.
        """
        times = [e.exposure_us for b in self.used for e in b.exposures]
        metadata = curve_metadata(
            self.calibration,
            times,
            input_directory=shown(self.root),
            **asdict(self.choices) | {"sky_disc": disc_numbers(self.disc)},
            **settings,
            num_groups_rejected=len(self.rejected),
            groups=[b.slot.isoformat() for b in self.used],
        )
        return ResponseCurve(self.calibration.log_response, metadata)


def calibrate_brackets(
    brackets: Sequence[ArchiveBracket],
    root: str,
    choices: CalibrationChoices,
    *,
    robust: bool = True,
    on_bracket: Callable[[], None] | None = None,
) -> ArchiveCalibration:
    """Calibrate a response curve from some brackets of an archive.

    Brackets are drawn at random, complete ones first. One that cannot be used is logged, and
    another is drawn.

    Parameters
    ----------
    brackets : sequence of ArchiveBracket
    root : str
        Folder that their paths are relative to.
    choices : CalibrationChoices
    robust : bool
        See `asi_watch.hdr.calibration.calibrate_response`.
    on_bracket : callable, optional
        Called after each bracket that is used.

    Returns
    -------
    ArchiveCalibration

    Raises
    ------
    BracketError
        If no bracket can be used; gives the reasons.
    """
    rng = np.random.default_rng(choices.seed)
    samples: list[BracketSamples] = []
    used: list[ArchiveBracket] = []
    rejected: list[str] = []
    for bracket in _drawn(brackets, rng):
        if len(samples) == choices.max_processed_groups:
            break
        try:
            samples.append(_sampled(bracket, root, choices, rng, samples))
        except AsiWatchError as error:
            log.warning("bracket %s not used for calibration: %s", bracket.slot, error)
            rejected.append(str(error))
            continue
        used.append(bracket)
        if on_bracket is not None:
            on_bracket()
    if not samples:
        raise BracketError(_nothing_usable(root, rejected))
    samples = in_one_disc(samples, choices.disc())
    if rejected:
        log.warning("calibration uses %d brackets; %d could not be used", len(used), len(rejected))
    try:
        calibration = calibrate_response(
            samples,
            smoothness=choices.smoothness,
            weight_type=choices.weight_type,
            low_clip=choices.low_clip,
            high_clip=choices.high_clip,
            robust=robust,
        )
    except ValueError as error:
        raise BracketError(f"{shown(root)}: no response curve: {error}") from error
    return ArchiveCalibration(
        calibration, choices, root, tuple(used), tuple(rejected), samples[0].disc
    )


def _check_whole(name: str, value: Any, least: int) -> None:
    if value is None and name == "seed":
        return
    if not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} must be a whole number, {least} or more; got {value!r}")


def _drawn(brackets: Sequence[ArchiveBracket], rng: np.random.Generator) -> list[ArchiveBracket]:
    order = [brackets[i] for i in rng.permutation(len(brackets))]
    return sorted(order, key=lambda b: not b.complete)


def _sampled(
    bracket: ArchiveBracket,
    root: str,
    choices: CalibrationChoices,
    rng: np.random.Generator,
    before: Sequence[BracketSamples],
) -> BracketSamples:
    bracket.check_usable(2)
    files = FilesOfBracket(
        tuple(f"{root}/{e.path}" for e in bracket.exposures),
        tuple(e.exposure_us for e in bracket.exposures),
    )
    samples = sample_bracket_files(
        files,
        technique=cast(SampleTechnique, choices.sample_technique),
        samples_per_bracket=choices.samples_per_image,
        rng=rng,
        sky_disc=choices.disc(),
    )
    if before and samples.channels != before[0].channels:
        raise BracketError(
            f"{shown(files.paths[0])}: has {samples.channels} channels, the images used so far"
            f" {before[0].channels}"
        )
    return samples


def _nothing_usable(root: str, rejected: Sequence[str]) -> str:
    if not rejected:
        return f"{shown(root)}: no images with timestamp and exposure in their names"
    text = f"{shown(root)}: none of {len(rejected)} brackets can be calibrated from: "
    text += "; ".join(rejected[:_REASONS_SHOWN])
    more = len(rejected) - _REASONS_SHOWN
    return f"{text}; and {more} more" if more > 0 else text
