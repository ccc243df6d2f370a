"""Files of brackets become a response curve with its report: live, for archives and by command.

What cannot be read is passed over and named: an exposure of a bracket as long as two others are
left, a bracket as long as another one can be used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asi_watch import __version__
from asi_watch.errors import AsiWatchError, BracketError, ImageError
from asi_watch.files import shown
from asi_watch.hdr.calibration import (
    BracketSamples,
    Calibration,
    SampleTechnique,
    calibrate_response,
    check_settings,
    sample_bracket,
)
from asi_watch.hdr.disc import SkyDisc, agreed_disc, as_sky_disc, find_sky_disc
from asi_watch.hdr.frame_checks import WHITE_MARGIN, fits_high_clip, sample_frame
from asi_watch.hdr.response import ResponseCurve
from asi_watch.images import read_image

__all__ = [
    "BracketFiles",
    "CalibratedCurve",
    "CalibrationChoices",
    "calibrate_brackets",
    "lne_range",
]

log = logging.getLogger(__name__)

_REASONS_SHOWN = 3


@dataclass(frozen=True, slots=True)
class BracketFiles:
    """The files of one bracket to calibrate from; plain values, so that processes can hand it on.

    Parameters
    ----------
    paths : tuple of str
    exposure_us : tuple of float
        Of each path, microseconds.
    name : str
        What messages and metadata call the bracket, such as its slot.
    complete : bool
        Complete brackets are used first.
    unusable : str
        Why the bracket cannot be used at all, where that is known; empty if it may be.
    """

    paths: tuple[str, ...]
    exposure_us: tuple[float, ...]
    name: str = ""
    complete: bool = True
    unusable: str = ""


@dataclass(frozen=True, slots=True)
class CalibrationChoices:
    """How to calibrate; see `asi_watch.pipeline.calibrate_camera`.

    `robust` is explained at `asi_watch.hdr.calibration.calibrate_response`.

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
    robust: bool = True

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
            value = getattr(self, name)
            if value is None and name == "seed":
                continue
            if not isinstance(value, int | np.integer) or value < least:
                raise ValueError(f"{name} must be a whole number, {least} or more; got {value!r}")
        if not isinstance(self.smoothness, int | float):
            raise ValueError(f"smoothness must be a positive number; got {self.smoothness!r}")
        check_settings(self.smoothness, self.weight_type, self.low_clip, self.high_clip)
        self.disc()

    def disc(self) -> Literal["auto"] | SkyDisc | None:
        """Give `sky_disc` as a circle where it is one; ValueError if it is none of its values."""
        if self.sky_disc == "auto":
            return "auto"
        try:
            return as_sky_disc(self.sky_disc)
        except ValueError:
            raise ValueError(
                f"sky_disc is 'auto', None or (x, y, radius) in pixels; got {self.sky_disc!r}"
            ) from None


@dataclass(frozen=True, slots=True, eq=False)
class CalibratedCurve:
    """A calibration and what it was made from.

    Parameters
    ----------
    calibration : Calibration
    choices : CalibrationChoices
    samples : tuple of BracketSamples
        To judge other curves by.
    used : tuple of BracketFiles
        In the order of the report's brackets, without exposures that could not be read.
    rejected : tuple of str
        Why other brackets that were tried could not be used.
    left_out : tuple of str
        Exposures of used brackets that could not be read, and why.
    disc : SkyDisc or None
        What the samples were taken from; None: whole pictures.
    """

    calibration: Calibration
    choices: CalibrationChoices
    samples: tuple[BracketSamples, ...]
    used: tuple[BracketFiles, ...]
    rejected: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    disc: SkyDisc | None = None

    def curve(self, input_directory: str, **settings: Any) -> ResponseCurve:
        """Give the curve with the metadata of its file: asi_core's keys and ours.

        Parameters
        ----------
        input_directory : str
            Where the images came from, ready to be shown.
        **settings
            Further keys.
        """
        g, disc = self.calibration.log_response, self.disc
        metadata = {
            "timestamp_utc": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "input_directory": input_directory,
            **asdict(self.choices),
            "sky_disc": None if disc is None else [disc.x, disc.y, disc.radius],
            **settings,
            "num_groups_rejected": len(self.rejected),
            "num_exposures_left_out": len(self.left_out),
            "groups": [bracket.name for bracket in self.used],
            "num_groups_used": len(self.used),
            "channels": int(g.shape[-1]),
            "lnE_range": list(lne_range(g, [t for b in self.used for t in b.exposure_us])),
            "file_format": "log-response",
            "algorithm": "Debevec",
            "channel_order": "BGR",
            "software": f"asi-watch {__version__}",
            "report": self.calibration.report.to_dict(),
        }
        return ResponseCurve(g, metadata)


def calibrate_brackets(
    brackets: Sequence[BracketFiles],
    choices: CalibrationChoices,
    *,
    where: str,
    channels: int | None = None,
    on_bracket: Callable[[], None] | None = None,
) -> CalibratedCurve:
    """Calibrate a response curve from some of these brackets; one is in memory at a time.

    Brackets are drawn at random, complete ones first. What is passed over is logged, and another
    bracket is drawn. A camera may be grey by night: brackets of different numbers of channels
    need curves of their own, and the first that makes up a set decides which one is made.

    Parameters
    ----------
    brackets : sequence of BracketFiles
    choices : CalibrationChoices
    where : str
        What messages call the source of the brackets: a folder, a camera.
    channels : int, optional
        Use brackets of this number of channels alone.
    on_bracket : callable, optional
        Called after each bracket that was sampled, for a progress display.

    Returns
    -------
    CalibratedCurve

    Raises
    ------
    BracketError
        If no bracket can be used, or no curve comes of them; gives the reasons.
    """
    rng = np.random.default_rng(choices.seed)
    reader = _Reader(choices, rng, channels)
    sets: dict[int, list[_Sampled]] = {}
    for bracket in _drawn(brackets, rng):
        if any(len(one) == choices.max_processed_groups for one in sets.values()):
            break
        try:
            sampled = reader.sample(bracket)
        except AsiWatchError as error:
            reader.reject(bracket, error)
            continue
        sets.setdefault(sampled.samples.channels, []).append(sampled)
        if on_bracket is not None:
            on_bracket()
    if not sets:
        raise BracketError(_nothing_usable(where, reader.rejected))
    wanted = max(sets, key=lambda count: (len(sets[count]), count))
    for count, others in sets.items():
        for sampled in others if count != wanted else ():
            name = shown(sampled.files.paths[0])
            reason = f"{name}: has {count} channels, most have {wanted}; they need a curve each"
            reader.reject(sampled.files, BracketError(reason))
    return _solved(sets[wanted], choices, where, reader.rejected)


@dataclass(frozen=True, slots=True, eq=False)
class _Sampled:
    files: BracketFiles
    samples: BracketSamples
    left_out: tuple[str, ...]
    frames: tuple[NDArray[np.uint8], ...]
    """Small samples of the exposures; see `hdr.frame_checks`."""


class _Reader:
    """Reads brackets and takes their samples; remembers which could not be used."""

    def __init__(
        self, choices: CalibrationChoices, rng: np.random.Generator, channels: int | None
    ) -> None:
        self._choices, self._rng, self._channels = choices, rng, channels
        self._disc = choices.disc()
        self.rejected: list[str] = []

    def reject(self, bracket: BracketFiles, error: Exception) -> None:
        """Note why a bracket is passed over."""
        named = f"bracket {bracket.name}" if bracket.name else "a bracket"
        log.warning("%s not used for calibration: %s", named, error)
        self.rejected.append(str(error))

    def sample(self, bracket: BracketFiles) -> _Sampled:
        """Read one bracket; AsiWatchError if it cannot be used."""
        if bracket.unusable:
            raise BracketError(bracket.unusable)
        images, kept, left_out = self._read(bracket)
        first = shown(kept.paths[0])
        for path, image in zip(kept.paths, images, strict=True):
            if image.shape != images[0].shape:
                raise BracketError(
                    f"{shown(path)}: is {image.shape}, but {first} is {images[0].shape}; the"
                    " images of a bracket must have one size"
                )
        disc = find_sky_disc(images) if self._disc == "auto" else self._disc
        try:
            samples = sample_bracket(
                images,
                kept.exposure_us,
                technique=cast(SampleTechnique, self._choices.sample_technique),
                count=self._choices.samples_per_image,
                rng=self._rng,
                mask=None if disc is None else disc.mask(images[0].shape),
            )
        except ValueError as error:
            raise BracketError(f"{first} and the rest of its bracket: {error}") from error
        frames = tuple(sample_frame(image) for image in images)
        return _Sampled(kept, replace(samples, disc=disc), left_out, frames)

    def _read(
        self, bracket: BracketFiles
    ) -> tuple[list[NDArray[np.uint8]], BracketFiles, tuple[str, ...]]:
        images, paths, times, left_out = [], [], [], []
        for path, time in zip(bracket.paths, bracket.exposure_us, strict=True):
            try:
                pixels = read_image(path).pixels
            except (ImageError, OSError) as error:
                left_out.append(str(error))
                continue
            if self._channels not in (None, pixels.shape[2]):
                raise BracketError(
                    f"{shown(path)}: has {pixels.shape[2]} channels, not {self._channels}"
                )
            images.append(pixels)
            paths.append(path)
            times.append(time)
        if len(images) < 2:
            count = f"{len(images)} of {len(bracket.paths)} exposures of its bracket can be read"
            raise BracketError(f"{left_out[0]}; {count}" if left_out else count)
        for text in left_out:
            log.warning("exposure not used for calibration: %s", text)
        kept = replace(bracket, paths=tuple(paths), exposure_us=tuple(times))
        return images, kept, tuple(left_out)


def _drawn(brackets: Sequence[BracketFiles], rng: np.random.Generator) -> Iterable[BracketFiles]:
    order = [brackets[i] for i in rng.permutation(len(brackets))]
    return sorted(order, key=lambda bracket: not bracket.complete)


def _solved(
    sampled: Sequence[_Sampled],
    choices: CalibrationChoices,
    where: str,
    rejected: Sequence[str],
) -> CalibratedCurve:
    samples = in_one_disc([one.samples for one in sampled], choices.disc())
    if rejected:
        text = "calibration uses %d brackets; %d could not be used"
        log.warning(text, len(sampled), len(rejected))
    fitting = fits_high_clip([one.frames for one in sampled], choices.high_clip)
    if fitting is not None and fitting > choices.low_clip:
        log.warning(
            "high_clip %d does not fit: the camera saturates at code %d; calibrated with %d, set"
            " merge.high_clip to it",
            choices.high_clip,
            fitting + WHITE_MARGIN,
            fitting,
        )
        choices = replace(choices, high_clip=fitting)
    try:
        calibration = calibrate_response(
            samples,
            smoothness=choices.smoothness,
            weight_type=choices.weight_type,
            low_clip=choices.low_clip,
            high_clip=choices.high_clip,
            robust=choices.robust,
        )
    except ValueError as error:
        raise BracketError(f"{where}: no response curve: {error}") from error
    return CalibratedCurve(
        calibration,
        choices,
        tuple(samples),
        tuple(one.files for one in sampled),
        tuple(rejected),
        tuple(text for one in sampled for text in one.left_out),
        samples[0].disc,
    )


def in_one_disc(
    samples: Sequence[BracketSamples], sky_disc: Literal["auto"] | SkyDisc | None
) -> list[BracketSamples]:
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


def _nothing_usable(where: str, rejected: Sequence[str]) -> str:
    if not rejected:
        return f"{where}: no images with timestamp and exposure in their names"
    text = f"{where}: none of {len(rejected)} brackets can be calibrated from: "
    text += "; ".join(rejected[:_REASONS_SHOWN])
    more = len(rejected) - _REASONS_SHOWN
    return f"{text}; and {more} more" if more > 0 else text
