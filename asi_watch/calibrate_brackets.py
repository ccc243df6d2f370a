"""Files of brackets become a response curve with its report: live, for archives and by command.

What cannot be read is left out and named: an exposure of a bracket as long as two others are
left, a bracket as long as another one can be used.
"""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
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
from asi_watch.hdr.calibration.evidence import codes_seen
from asi_watch.hdr.disc import SkyDisc, agreed_disc, as_sky_disc, find_sky_disc
from asi_watch.hdr.frame_checks import WHITE_MARGIN, fits_high_clip, sample_frame
from asi_watch.hdr.response import ResponseCurve
from asi_watch.hdr.weighted_merge import curve_scale
from asi_watch.images import read_image

log = logging.getLogger(__name__)

_REASONS_SHOWN = 3
# Codes that a bracket shows if it is well exposed; and of how many such it is too few.
_WELL_EXPOSED, _FEWEST_WELL_EXPOSED = 100, 3
# Every thread holds memory of its own, and a calibration is not to take a whole machine.
_threads = partial(ThreadPoolExecutor, 2, thread_name_prefix="calibration")


@dataclass(frozen=True, slots=True)
class BracketFiles:
    """The files of one bracket to calibrate from: plain values, which a process can be given."""

    paths: tuple[str, ...]
    exposure_us: tuple[float, ...]  # of each path, microseconds
    name: str = ""  # what messages and metadata call the bracket, such as its slot
    complete: bool = True  # complete brackets are used first
    # Why the bracket cannot be used at all, where that is known; empty if it may be.
    unusable: str = ""


@dataclass(frozen=True, slots=True)
class CalibrationChoices:
    """How to calibrate, as `asi_watch.pipeline.calibrate_camera`; ValueError if impossible."""

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
        least = {"samples_per_image": 1, "max_processed_groups": 1, "low_clip": 0, "high_clip": 0}
        for name, low in (least if self.seed is None else {**least, "seed": 0}).items():
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or value < low:
                raise ValueError(f"{name} must be a whole number, {low} or more; got {value!r}")
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
    """A calibration and what it was made from."""

    calibration: Calibration
    choices: CalibrationChoices
    samples: tuple[BracketSamples, ...]  # to judge other curves by
    # In the order of the report's brackets, without exposures that could not be read.
    used: tuple[BracketFiles, ...]
    rejected: tuple[str, ...] = ()  # why other brackets that were tried could not be used
    left_out: tuple[str, ...] = ()  # exposures of used brackets that could not be read, and why
    disc: SkyDisc | None = None  # what the samples were taken from; None: whole pictures
    frames: tuple[tuple[NDArray[np.uint8], ...], ...] = ()  # of each used bracket, few pixels

    def tone_scale(self, log_response: ArrayLike) -> tuple[float, float] | None:
        """Give the two numbers by which pictures of these brackets are toned; see `hdr.tone`."""
        brackets = ((f, b.exposure_us) for f, b in zip(self.frames, self.used, strict=True))
        return curve_scale(brackets, log_response)

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
        if self.frames and (scale := self.tone_scale(g)) is not None:
            metadata["tone_scale"] = list(scale)
        return ResponseCurve(g, metadata)


def calibrate_brackets(
    brackets: Sequence[BracketFiles],
    choices: CalibrationChoices,
    *,
    where: str,
    channels: int | None = None,
    in_order: bool = False,
) -> CalibratedCurve:
    """Calibrate a response curve from some of these brackets; one is in memory at a time.

    Brackets are drawn at random, complete ones first. What cannot be used is logged, and
    another bracket is drawn; of brackets in order also what is poorly exposed, unless little
    else is there. A camera may be grey by night: brackets of different numbers of channels need
    curves of their own; one is made for the number that first has enough brackets.
    BracketError if no bracket can be used, or they give no curve.

    Parameters
    ----------
    brackets : sequence of BracketFiles
    choices : CalibrationChoices
    where : str
        What messages call the source of the brackets: a folder, a camera.
    channels : int, optional
        Use brackets of this number of channels alone.
    in_order : bool
        Draw them as they are given.
    """
    rng = np.random.default_rng(choices.seed)
    rejected: list[str] = []
    sets: dict[int, list[_Sampled]] = {}
    poor: dict[int, list[_Sampled]] = {}
    order = range(len(brackets)) if in_order else rng.permutation(len(brackets))
    for bracket in sorted((brackets[i] for i in order), key=lambda bracket: not bracket.complete):
        if any(len(one) == choices.max_processed_groups for one in sets.values()):
            break
        try:
            sampled = _sample(bracket, choices, rng, channels)
        except AsiWatchError as error:
            rejected.append(_rejected(bracket, str(error)))
            continue
        seen = codes_seen(sampled.samples, (choices.low_clip, choices.high_clip))
        kept = poor if in_order and seen < _WELL_EXPOSED else sets
        kept.setdefault(sampled.samples.channels, []).append(sampled)
    for count, others in poor.items():
        good = sets.get(count, [])
        if len(good) < _FEWEST_WELL_EXPOSED:
            sets[count] = good + others[: choices.max_processed_groups - len(good)]
    if not sets:
        raise BracketError(_nothing_usable(where, rejected))
    wanted = max(sets, key=lambda count: (len(sets[count]), count))
    for count, others in sets.items():
        for sampled in others if count != wanted else ():
            name = shown(sampled.files.paths[0])
            reason = f"{name}: has {count} channels, most have {wanted}; they need a curve each"
            rejected.append(_rejected(sampled.files, reason))
    return _solved(sets[wanted], choices, where, rejected)


@dataclass(frozen=True, slots=True, eq=False)
class _Sampled:
    files: BracketFiles
    samples: BracketSamples
    left_out: tuple[str, ...]
    frames: tuple[NDArray[np.uint8], ...]
    """Small samples of the exposures; see `hdr.frame_checks`."""


def _rejected(bracket: BracketFiles, reason: str) -> str:
    named = f"bracket {bracket.name}" if bracket.name else "a bracket"
    log.warning("%s not used for calibration: %s", named, reason)
    return reason


def _sample(
    bracket: BracketFiles,
    choices: CalibrationChoices,
    rng: np.random.Generator,
    channels: int | None,
) -> _Sampled:
    """Read one bracket and take its samples; AsiWatchError if it cannot be used."""
    if bracket.unusable:
        raise BracketError(bracket.unusable)
    images, kept, left_out = _read(bracket, channels)
    first, shape = shown(kept.paths[0]), images[0].shape
    for path, image in zip(kept.paths, images, strict=True):
        if image.shape != shape:
            raise BracketError(
                f"{shown(path)}: is {image.shape}, but {first} is {shape}; the images of a bracket"
                " must have one size"
            )
    disc = choices.disc()
    if disc == "auto":
        disc = find_sky_disc(images)
    try:
        with _threads() as pool:
            samples = sample_bracket(
                images,
                kept.exposure_us,
                technique=cast(SampleTechnique, choices.sample_technique),
                count=choices.samples_per_image,
                rng=rng,
                mask=None if disc is None else disc.mask(shape),
                pool=pool,
            )
    except ValueError as error:
        raise BracketError(f"{first} and the rest of its bracket: {error}") from error
    frames = tuple(sample_frame(image, disc) for image in images)
    return _Sampled(kept, replace(samples, disc=disc), left_out, frames)


def _read(
    bracket: BracketFiles, channels: int | None
) -> tuple[list[NDArray[np.uint8]], BracketFiles, tuple[str, ...]]:
    """Return images, their files, and why others of the bracket could not be read."""
    images, files, left_out = [], [], []
    for path, time in zip(bracket.paths, bracket.exposure_us, strict=True):
        try:
            pixels = read_image(path).pixels
        except (ImageError, OSError) as error:
            left_out.append(str(error))
            continue
        if channels not in (None, pixels.shape[2]):
            raise BracketError(f"{shown(path)}: has {pixels.shape[2]} channels, not {channels}")
        images.append(pixels)
        files.append((path, time))
    if len(images) < 2:
        count = f"{len(images)} of {len(bracket.paths)} exposures of its bracket can be read"
        raise BracketError(f"{left_out[0]}; {count}" if left_out else count)
    for text in left_out:
        log.warning("exposure not used for calibration: %s", text)
    paths, times = zip(*files, strict=True)
    return images, replace(bracket, paths=paths, exposure_us=times), tuple(left_out)


def _solved(
    sampled: Sequence[_Sampled], choices: CalibrationChoices, where: str, rejected: Sequence[str]
) -> CalibratedCurve:
    samples = _in_one_disc([one.samples for one in sampled], choices.disc())
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
        with _threads() as pool:
            calibration = calibrate_response(
                samples,
                smoothness=choices.smoothness,
                weight_type=choices.weight_type,
                low_clip=choices.low_clip,
                high_clip=choices.high_clip,
                pool=pool,
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
        tuple(one.frames for one in sampled),
    )


def _in_one_disc(
    samples: Sequence[BracketSamples], sky_disc: Literal["auto"] | SkyDisc | None
) -> list[BracketSamples]:
    """Keep the samples inside one disc: the given one, or the one that the brackets agree on."""
    disc = agreed_disc([s.disc for s in samples]) if sky_disc == "auto" else sky_disc
    if disc is None:
        return [replace(s, disc=None) for s in samples]
    inside = [s.inside(disc) for s in samples]
    # A bracket with nothing inside has the camera turned or its pictures of another size.
    return [i if i.count else replace(s, disc=disc) for i, s in zip(inside, samples, strict=True)]


def lne_range(log_response: ArrayLike, exposure_times: ArrayLike) -> tuple[float, float]:
    """Give (min g − max ln t, max g − min ln t): the ln E that these exposures can show.

    Parameters
    ----------
    log_response : array_like
        g(z) in the ln domain, of all channels.
    exposure_times : array_like
        Positive; their unit is that of the result.
    """
    g = np.asarray(log_response, dtype=np.float64)
    ln_t = np.log(np.asarray(exposure_times, dtype=np.float64))
    return float(g.min() - ln_t.max()), float(g.max() - ln_t.min())


def _nothing_usable(where: str, rejected: Sequence[str]) -> str:
    if not rejected:
        return f"{where}: no images with timestamp and exposure in their names"
    reasons = list(rejected[:_REASONS_SHOWN])
    if len(rejected) > _REASONS_SHOWN:
        reasons.append(f"and {len(rejected) - _REASONS_SHOWN} more")
    return f"{where}: none of {len(rejected)} brackets can be used: {'; '.join(reasons)}"
