"""Exposures of a linear sensor, merged by inverse-variance weights.

A code z of a linear sensor stands for E = (z − black) / t, and its noise is known: shot noise of
the electrons, read noise, and rounding,

    σ²(z) = (read_noise / gain)² + 1/12 + (z − black) / gain    (in codes²; gain in electrons/code).

The weighted mean of E with the weights t² / σ² has the least variance that any unbiased estimate
can have. The σ² of a single code is not used, since weights that know the noise of their own code
prefer the darker codes: a first estimate (the sum of all codes over the sum of their times) says
what each exposure should show, and its σ² is that of the expected code. A code counts as saturated
also where the shorter exposures foretell that it nearly is: taking those whose noise happened to be
low would make the result too dark. Sums are float32; there are no tables, whatever the depth.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asi_watch.hdr.frame_checks import Findings, sample_frame
from asi_watch.hdr.merge_settings import (
    OVER,
    UNDER,
    HalfRadiance,
    MergeSettings,
    Radiance,
    Sensor,
    Shape,
)
from asi_watch.hdr.tone import ToneScale, code_maximum, scale_of
from asi_watch.hdr.weighted_merge import Merge

Floats = NDArray[np.float32]

_ROUNDING = 1.0 / 12.0
# So many standard deviations below white an expected code must be.
_CLEAR = 3.0
_BLOCK = 1 << 16  # samples merged at a time, to stay in the cache
# Of the comparison of frames, which knows 8-bit codes.
_HIGH_CLIP = 250
# Samples at the largest code, and how far apart they are in a darker frame (a share of it), where
# that is not light but saturation.
_LEAST_PILED, _SPREAD = 24, 0.05


@dataclass(frozen=True, slots=True)
class LinearFindings(Findings):
    """What a look at linear frames has found; `level` is the code at which they saturate."""

    level: float | None = None  # where that is below the white that is stated

    def notes(self, unit: str) -> tuple[str, ...]:
        """Give one sentence per finding; see `Findings.notes`.

        Parameters
        ----------
        unit : str
        """
        turned = self.curve_misfit is not None and self.curve_misfit < -0.9
        plain = replace(self, white=None, curve_misfit=self.curve_misfit if turned else None)
        notes = list(Findings.notes(plain, unit))
        if self.curve_misfit is not None and not turned:
            notes.append(
                f"the codes are no linear measure of the light: {self.curve_misfit:+.2f} stops per"
                " stop of exposure time; is merge.sensor.black right, and the camera's gamma 1?"
            )
        if self.level is not None:
            notes.append(
                f"the camera saturates at code {self.level:.12g}: such codes are flagged as"
                f" over-exposed; set merge.sensor.white to {self.level:.12g}"
            )
        return tuple(notes)


@dataclass(frozen=True, eq=False)
class LinearFrames:
    """The exposures of a bracket, and what their codes mean."""

    frames: tuple[NDArray[Any], ...]  # (H, W, C) each, of one dtype
    times: tuple[float, ...]
    black: float
    white: float  # the lowest code that is saturated
    gain: float
    read_noise: float

    @property
    def floor_variance(self) -> float:
        """Variance of a code without light, in codes²."""
        return (self.read_noise / self.gain) ** 2 + _ROUNDING

    @property
    def darkest(self) -> float:
        """The E that equals its own noise, when all exposures are added up."""
        return float(np.sqrt(self.floor_variance / np.square(self.times).sum()))

    @property
    def brightest(self) -> float:
        """The E at which the shortest exposure is saturated."""
        return (self.white - self.black) / min(self.times)

    def estimate(self, rows: slice) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """Give E and its variance for rows, and where the shortest exposure is saturated.

        Parameters
        ----------
        rows : slice
        """
        room = self.white - self.black
        margin = _CLEAR * float(np.sqrt(self.floor_variance + max(room, 0.0) / self.gain))
        order = sorted(range(len(self.times)), key=self.times.__getitem__)
        shape = self.frames[0][rows].shape
        total, seconds = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        saturated = np.zeros(shape, np.bool_)
        used: list[tuple[np.float32, Floats, NDArray[np.bool_]]] = []
        for index in order:
            time = np.float32(self.times[index])
            signal = self.frames[index][rows].astype(np.float32) - np.float32(self.black)
            # What a shorter exposure does not show any more, a longer one cannot show.
            saturated |= signal >= room
            near = total * time + np.float32(margin) * seconds >= np.float32(room) * seconds
            usable = ~saturated & (~near | (seconds == 0))
            used.append((time, signal, usable))
            total += np.where(usable, signal, np.float32(0))
            seconds += np.where(usable, time, np.float32(0))
        seen = seconds > 0
        first = np.divide(np.maximum(total, 0), seconds, out=np.zeros_like(total), where=seen)
        floor, gain = np.float32(self.floor_variance), np.float32(self.gain)
        value, weight = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        for time, signal, usable in used:
            share = np.where(usable, time / (floor + first * (time / gain)), np.float32(0))
            value += share * signal
            weight += share * time
        variance = np.divide(1, weight, out=np.full_like(weight, np.inf), where=seen)
        return np.divide(value, weight, out=value, where=seen), variance, ~seen


class LinearMerge(Merge):
    """A bracket of linear exposures: 8- or 16-bit codes, or floating-point numbers.

    Radiance is UNDER where E is below its own noise and OVER where the shortest exposure is
    saturated. Results and errors as those of `Merge`.

    Parameters
    ----------
    settings : MergeSettings
        With a `sensor` whose black and white are known.
    shape : (int, int, int)
    threads : int
        Threads that one call may start.
    """

    _by_rows = True

    def __init__(self, settings: MergeSettings, shape: Shape, threads: int) -> None:
        super().__init__(settings, None, shape)
        sensor = settings.sensor
        if sensor is None or sensor.black is None or sensor.white is None:
            raise ValueError("a linear merge needs the sensor's black and white level")
        if sensor.white <= sensor.black:
            raise ValueError(f"white ({sensor.white:g}) must be above black ({sensor.black:g})")
        self._black, self._white, self._sensor = sensor.black, sensor.white, sensor
        self._threads = threads
        self._log_response = _linear_curve(shape[2])

    def _checked(self, pixels: NDArray[Any]) -> NDArray[Any]:
        array = np.asarray(pixels)
        if array.dtype not in (np.uint8, np.uint16, np.float32):
            raise ValueError(f"linear exposures are uint8, uint16 or float32; got {array.dtype}")
        if array.ndim == 2:
            array = array[:, :, np.newaxis]
        if array.shape != self.shape:
            text = f"the exposures of a bracket have one size: {self.shape}, got {array.shape}"
            raise ValueError(text)
        return np.ascontiguousarray(array)

    def _sample(self, array: NDArray[Any]) -> NDArray[np.uint8]:
        codes = (super()._sample(array).astype(np.float32) - self._black) * 255.0
        return np.asarray(np.clip(codes / (self._white - self._black), 0, 255), np.uint8)

    def _high_clip(self) -> int:
        return _HIGH_CLIP

    def findings(self) -> Findings:
        """Frames that contradict their times (and are left out), and where they saturate."""
        if self._findings is None:
            found = super().findings()
            level = self._piled_up()
            if level is None and found.saturated_from is not None:
                level = self._black + found.saturated_from / 255.0 * (self._white - self._black)
            parts = found.contradictions, found.white, found.curve_misfit
            self._findings = LinearFindings(*parts, level)
        return self._findings

    def _piled_up(self) -> float | None:
        """The largest code, where samples of different light end at it, if that is below white.

        Twelve bits written into sixteen saturate at a code that nothing else would tell from light.
        """
        order = sorted(range(len(self._times)), key=self._times.__getitem__)
        samples = [sample_frame(self._frames[i], self._settings.sky_disc) for i in order]
        top = max((float(sample.max()) for sample in samples), default=self._white)
        if len(samples) < 2 or not self._black < top < self._white:
            return None
        piled = samples[-1] == top
        if piled.sum() < _LEAST_PILED:
            return None
        for darker in samples[:-1]:
            low, high = np.percentile(darker[piled], (20, 80))
            if high < top and high - low > _SPREAD * (top - self._black):
                return top
        return None

    def bracket(self) -> LinearFrames:
        """Give the frames that are merged; white is where they are seen to saturate, if lower."""
        frames, times = self._used()
        found = self.findings()
        level = found.level if isinstance(found, LinearFindings) else None
        white = self._white if level is None else level
        gain = self._sensor.gain_between(self._black, self._white)
        levels = self._black, white, gain, self._sensor.read_noise
        return LinearFrames(tuple(frames), tuple(times), *levels)

    def radiance(self) -> Radiance:
        """Radiance map; see `Merge.radiance`."""
        ln_radiance = np.empty(self.shape, np.float32)
        validity = np.empty(self.shape, np.uint8)
        bracket = self.bracket()

        def band(first: int, last: int) -> None:
            for rows in self._blocks(first, last):
                ln_radiance[rows], validity[rows] = self._ln_radiance(bracket, rows)
            self._clear(ln_radiance[first:last], first, np.log(bracket.darkest))
            self._clear(validity[first:last], first, UNDER)

        self._in_bands(band)
        return Radiance(ln_radiance, validity)

    def radiance_half(self, factor: float) -> HalfRadiance | None:
        """None: half floats hold fewer digits than the merge gives."""
        return None

    def uncertainty(self) -> NDArray[np.float32]:
        """Standard error of ln E from the sensor model; inf where invalid."""
        out = np.empty(self.shape, np.float32)
        bracket = self.bracket()

        def band(first: int, last: int) -> None:
            for rows in self._blocks(first, last):
                value, variance, over = bracket.estimate(rows)
                valid = ~over & (value > bracket.darkest)
                error = np.full_like(value, np.inf)
                out[rows] = np.divide(np.sqrt(variance), value, out=error, where=valid)
            self._clear(out[first:last], first, np.inf)

        self._in_bands(band)
        return out

    def picture_rows(self, first: int, last: int, out: NDArray[Any]) -> None:
        """Write rows of the picture; see `Merge.picture_rows`.

        Parameters
        ----------
        first, last, out
            As for `Merge.picture_rows`.
        """
        bracket, maximum = self.bracket(), code_maximum(out.dtype)
        ends = float(np.log(bracket.darkest)), float(np.log(bracket.brightest))
        curve = self._tone_curve(*ends)
        for rows in self._blocks(first, last):
            ln_radiance, _ = self._ln_radiance(bracket, rows)
            out[rows.start - first : rows.stop - first] = curve.codes(ln_radiance, maximum)
        self._clear(out, first, 0)

    def _write_picture(self, out: NDArray[Any]) -> None:
        self.picture_rows(0, 1, out[:1])  # before the threads: asked once, or refused
        self._in_bands(lambda first, last: self.picture_rows(first, last, out[first:last]))

    def _bracket_scale(self, _: Any) -> ToneScale:
        whole = self.bracket()
        disc = self._settings.sky_disc
        samples = tuple(sample_frame(f, disc)[:, np.newaxis] for f in whole.frames)
        found = scale_of(*self._ln_radiance(replace(whole, frames=samples), slice(None)))
        # All is dark, and stays so.
        middle = math.log((whole.white - whole.black) / max(whole.times)) - 1.0
        return found or ToneScale(middle, middle + 3.0)

    def _blocks(self, first: int, last: int) -> list[slice]:
        step = max(1, _BLOCK // (self.shape[1] * self.shape[2]))
        return [slice(top, min(top + step, last)) for top in range(first, last, step)]

    @staticmethod
    def _ln_radiance(bracket: LinearFrames, rows: slice) -> tuple[Floats, NDArray[np.uint8]]:
        value, _, over = bracket.estimate(rows)
        under = value <= bracket.darkest
        value[under] = bracket.darkest
        value[over] = bracket.brightest
        validity = np.where(under, np.uint8(UNDER), np.uint8(0))
        validity[over] = OVER
        return np.log(value), validity


def completed(
    sensor: Sensor, levels: tuple[float | None, float | None] | None, dtype: Any
) -> Sensor:
    """Fill in what the configuration leaves open: from the file, else from the type of its codes.

    Parameters
    ----------
    sensor : Sensor
    levels : (float or None, float or None), or None
        Black and white as the file states them.
    dtype : dtype
        Of the pixels; ValueError where it has no largest code and nothing says what is white.
    """
    stated_black, stated_white = levels or (None, None)
    black = sensor.black if sensor.black is not None else stated_black or 0.0
    white = sensor.white if sensor.white is not None else stated_white
    if white is None and not np.issubdtype(dtype, np.integer):
        raise ValueError(
            "floating-point exposures do not say what is saturated: give merge.sensor.white"
        )
    white = float(np.iinfo(dtype).max) if white is None else white
    return replace(sensor, black=black, white=white)


def _linear_curve(channels: int) -> NDArray[np.float32]:
    """The response of a linear sensor to the 8-bit codes that frames are compared by."""
    curve = np.log(np.maximum(np.arange(256), 0.5) / 255.0)
    return np.repeat(curve[:, np.newaxis], channels, axis=1).astype(np.float32)
