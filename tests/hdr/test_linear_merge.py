"""Linear exposures merged against the truth: a simulated sensor with shot and read noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from asi_watch.hdr.disc import SkyDisc
from asi_watch.hdr.linear_merge import LinearMerge, completed
from asi_watch.hdr.merge_settings import OVER, UNDER, VALID, MergeSettings, Sensor

TIMES = (80.0, 320.0, 1280.0, 5120.0)
SHAPE = (64, 4000, 3)
READ_NOISE = 4.0


def sensor_of(bits: int) -> Sensor:
    black = 2.0 ** (bits - 6)
    return Sensor(black, 2.0**bits - 1, 14_000 / (2.0**bits - 1 - black), READ_NOISE)


def truth(sensor: Sensor) -> NDArray[np.float64]:
    """E of each row in codes per µs: from lost in noise to saturated in every exposure."""
    assert sensor.black is not None and sensor.white is not None
    brightest = (sensor.white - sensor.black) / TIMES[0]
    return np.asarray(brightest * np.exp(np.linspace(-15.0, 0.5, SHAPE[0])))[:, None, None]


def frames(sensor: Sensor, seed: int = 1) -> list[NDArray[np.uint16]]:
    """Take exposures of it: electrons are counted, read with noise, and rounded to codes."""
    assert sensor.black is not None and sensor.white is not None and sensor.gain is not None
    random = np.random.default_rng(seed)
    taken = []
    for time in TIMES:
        mean = np.broadcast_to(truth(sensor) * time * sensor.gain, SHAPE)
        electrons = random.poisson(mean) + random.normal(0.0, sensor.read_noise, SHAPE)
        codes = np.round(sensor.black + electrons / sensor.gain)
        taken.append(np.clip(codes, 0, sensor.white).astype(np.uint16))
    return taken


def merge(
    sensor: Sensor, taken: list[NDArray[np.uint16]], white: float | None = None, **more: object
) -> LinearMerge:
    sensor = sensor if white is None else replace(sensor, white=white)
    settings = MergeSettings("linear", sensor=sensor, **more)  # type: ignore[arg-type]
    merge = LinearMerge(settings, taken[0].shape, threads=2)  # type: ignore[arg-type]
    for pixels, time in zip(taken, TIMES, strict=True):
        merge.add(pixels, time)  # type: ignore[arg-type]
    return merge


def is_on_an_edge(sensor: Sensor) -> NDArray[np.bool_]:
    """Tell where noise decides whether an exposure still counts."""
    assert sensor.black is not None and sensor.white is not None
    share = truth(sensor)[:, 0] * np.array(TIMES[1:]) / (sensor.white - sensor.black)
    return np.asarray(np.abs(share - 0.96) < 0.08).any(axis=1)


def least_error(sensor: Sensor) -> NDArray[np.float64]:
    """Cramér-Rao bound of the relative error, from the exposures that are not near white."""
    assert sensor.black is not None and sensor.white is not None and sensor.gain is not None
    room, information = sensor.white - sensor.black, 0.0
    floor = (sensor.read_noise / sensor.gain) ** 2 + 1 / 12
    for time in TIMES:
        signal = truth(sensor) * time
        noise = np.sqrt(floor + room / sensor.gain)
        usable = signal < (room - 3 * noise if time > TIMES[0] else room)
        information = information + np.where(usable, time**2 / (floor + signal / sensor.gain), 0.0)
    with np.errstate(divide="ignore"):
        return np.asarray(1 / np.sqrt(information) / truth(sensor))[:, 0, 0]


@pytest.mark.parametrize("bits", [12, 14, 16])
def test_the_error_is_that_of_the_bound_and_the_mean_is_right(bits: int) -> None:
    sensor = sensor_of(bits)
    made = merge(sensor, frames(sensor))
    radiance, claimed = made.radiance(), made.uncertainty()
    error = (radiance.ln_radiance - np.log(truth(sensor))).reshape(SHAPE[0], -1)
    bound = least_error(sensor)
    # Where ln E can be linearised, and no exposure is on the edge of being saturated.
    steady = (
        ~is_on_an_edge(sensor)
        & (bound < 0.1)
        & (radiance.validity.reshape(SHAPE[0], -1) == VALID).all(axis=1)
    )
    assert steady.sum() > 30
    rms = np.sqrt(np.square(error[steady]).mean(axis=1))
    assert np.all(rms < 1.03 * bound[steady] + 1e-5), (rms / bound[steady]).max()
    assert np.all(rms > 0.97 * bound[steady])
    count = error.shape[1]
    bias = error[steady].mean(axis=1) + bound[steady] ** 2 / 2
    assert np.all(np.abs(bias) < 5 * bound[steady] / np.sqrt(count) + 1e-4)
    said = np.median(claimed.reshape(SHAPE[0], -1)[steady], axis=1)
    assert np.allclose(said, bound[steady], rtol=0.05)


def test_what_is_saturated_in_all_and_what_is_lost_in_noise_is_flagged() -> None:
    sensor = sensor_of(14)
    made = merge(sensor, frames(sensor))
    radiance, claimed = made.radiance(), made.uncertainty()
    light = truth(sensor)[:, 0, 0]
    assert sensor.black is not None and sensor.white is not None
    brightest = (sensor.white - sensor.black) / TIMES[0]
    over = radiance.validity == OVER
    assert over[light > 1.05 * brightest].all()
    assert not over[light < 0.9 * brightest].any()
    assert np.allclose(radiance.ln_radiance[over], np.log(brightest))
    under = radiance.validity == UNDER
    dark = made.bracket().darkest
    assert under[light < dark / 3].mean() > 0.7
    assert not under[light > 10 * dark].any()
    assert np.isinf(claimed[over | under]).all()
    assert np.isfinite(claimed[radiance.validity == VALID]).all()


def test_a_white_below_the_stated_one_is_noticed() -> None:
    sensor = sensor_of(14)
    real = Sensor(sensor.black, 15_000.0, sensor.gain, sensor.read_noise)
    made = merge(sensor, frames(real))
    (note,) = made.findings().notes("µs")
    assert "saturates at code 15000" in note
    assert "merge.sensor.white to 15000" in note
    shortest_is_white = frames(real)[0] >= 15_000
    assert (made.radiance().validity[shortest_is_white] == OVER).all()


def test_twelve_bits_in_sixteen_saturate_where_they_pile_up() -> None:
    sensor = sensor_of(12)
    made = merge(Sensor(sensor.black, None, sensor.gain, 4.0), frames(sensor), white=65535.0)
    assert made.bracket().white == sensor.white
    over = made.radiance().validity == OVER
    assert np.array_equal(over, frames(sensor)[0] >= 4095)
    # Bright but not saturated: nothing is said.
    random = np.random.default_rng(2)
    scene = np.exp(random.uniform(-6.0, -0.1, SHAPE)) * 4000 / TIMES[-1]
    dim = [random.poisson(scene * time).astype(np.uint16) for time in TIMES]
    assert merge(Sensor(0.0, 65535.0, 1.0), dim).findings().notes("µs") == ()


def test_an_exposure_with_a_false_time_is_named() -> None:
    sensor = sensor_of(12)
    random = np.random.default_rng(3)
    scene = np.exp(random.uniform(-5.0, 0.0, (60, 80, 1))) * 4000 / TIMES[0]
    settings = MergeSettings("linear", sensor=Sensor(0.0, 4095.0))
    made = LinearMerge(settings, scene.shape, threads=1)
    for time, stated in zip((80, 160, 320, 640), (80, 160, 960, 640), strict=True):
        made.add(np.clip(scene * time, 0, 4095).astype(np.uint16), stated)  # type: ignore[arg-type]
    assert [c.exposure_time for c in made.findings().excluded] == [960]
    assert sensor.black


def test_rows_threads_and_order_change_no_byte_and_the_disc_is_kept() -> None:
    sensor, disc = sensor_of(14), SkyDisc(2000.0, 32.0, 30.0)
    taken = [f[:, :, :] for f in frames(sensor)]
    made = merge(sensor, taken, sky_disc=disc)
    whole = made.picture(np.uint16)
    rows = np.empty_like(whole[10:37])
    made.picture_rows(10, 37, rows)
    assert np.array_equal(whole[10:37], rows)
    settings = MergeSettings("linear", sensor=sensor, sky_disc=disc)
    other = LinearMerge(settings, SHAPE, threads=1)
    for pixels, time in reversed(list(zip(taken, TIMES, strict=True))):
        other.add(pixels, time)  # type: ignore[arg-type]
    assert np.array_equal(other.picture(np.uint16), whole)
    assert not whole[:, 0].any()
    assert (made.radiance().validity[:, 0] == UNDER).all()


def test_levels_come_from_configuration_file_or_type_in_this_order() -> None:
    assert completed(Sensor(), None, np.dtype(np.uint16)) == Sensor(0.0, 65535.0)
    assert completed(Sensor(), (256, 4095), np.dtype(np.uint16)) == Sensor(256, 4095)
    assert completed(Sensor(10, 4000), (256, 4095), np.dtype(np.uint16)) == Sensor(10, 4000)
    with pytest.raises(ValueError, match=r"give merge\.sensor\.white"):
        completed(Sensor(), None, np.dtype(np.float32))
    with pytest.raises(ValueError, match="gain > 0"):
        Sensor(gain=0.0)
    with pytest.raises(ValueError, match="must be above black"):
        LinearMerge(MergeSettings("linear", sensor=Sensor(9.0, 9.0)), (2, 2, 1), threads=1)
