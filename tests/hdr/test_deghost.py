"""Clouds that move between the exposures leave no ghosts, and a still sky stays as it is."""

import cv2
import numpy as np
import pytest

from asi_watch.hdr.merge_settings import VALID
from asi_watch.simulator.sensor import Camera
from tests.hdr.brackets import TIMES, curve, opened, settings, shoot

SIZE, MARGIN = 256, 48


def _sky(moved: float) -> np.ndarray:
    """Blue sky and white clouds with sharp edges, moved by so many pixels: (SIZE, SIZE, 3)."""
    rng = np.random.default_rng(5)
    side = SIZE + 2 * MARGIN
    noise = sum(
        cv2.resize(rng.normal(size=(n, n)), (side, side), interpolation=cv2.INTER_CUBIC) / n**0.5
        for n in (6, 12, 24)
    )
    shift = np.array([[1.0, 0.0, moved], [0.0, 1.0, 0.3 * moved]])
    field = cv2.warpAffine(noise, shift, (side, side), flags=cv2.INTER_CUBIC)
    cover = 1.0 / (1.0 + np.exp(-40.0 * field[MARGIN:-MARGIN, MARGIN:-MARGIN, None]))
    sky, cloud = np.array([1.3, 0.7, 0.5]), np.array([3.2, 3.2, 3.1])
    return (sky * (1.0 - cover) + cloud * cover).astype(np.float32)


def _bracket(drift: float) -> tuple[Camera, np.ndarray, list[np.ndarray]]:
    """A camera, the sky of the middle exposure, and JPEG frames of clouds drifting by pixels."""
    camera, skies = Camera("film", seed=1), [_sky(drift * k) for k in (-2, -1, 0, 1, 2)]
    frames = []
    for sky, time in zip(skies, TIMES, strict=True):
        coded = cv2.imencode(".jpg", camera.expose(sky, time), (cv2.IMWRITE_JPEG_QUALITY, 92))[1]
        frames.append(cv2.imdecode(coded, cv2.IMREAD_COLOR))
    return camera, skies[2], frames


def _errors(drift: float, weight_type: str, how_to: str = "weights") -> tuple[float, float]:
    """RMS of ln E against the middle exposure's sky, where clouds pass: without, with; stops."""
    camera, truth, frames = _bracket(drift)
    edges = np.ptp([np.log(_sky(4.0 * k)) for k in (-2, 0, 2)], axis=0).max(axis=-1) > 0.2
    errors = []
    for deghost in ("off", how_to):
        how = settings(algorithm="debevec_exact", weight_type=weight_type, deghost=deghost)
        merged = opened(how, frames, TIMES, camera.log_response).radiance()
        error = merged.ln_radiance - np.log(truth / 1000.0)
        used = edges[..., None] & (merged.validity == VALID)
        errors.append(float(np.sqrt(np.mean(error[used] ** 2)) / np.log(2.0)))
    return errors[0], errors[1]


@pytest.mark.parametrize("weight_type", ["triangle", "noise"])
@pytest.mark.parametrize("drift", [2.0, 4.0, 8.0])
def test_moving_edges_are_those_of_the_middle_exposure(drift, weight_type):
    off, weights = _errors(drift, weight_type)
    assert off > 0.1
    assert weights < 0.1
    assert weights < 0.65 * off


@pytest.mark.parametrize("weight_type", ["triangle", "noise"])
def test_a_still_sky_is_as_good_as_without(weight_type):
    off, weights = _errors(0.0, weight_type)
    assert weights <= 1.01 * off


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_what_was_valid_stays_valid(count, channels):
    # Frames of different scenes: they contradict each other nearly everywhere.
    times = TIMES[:count]
    shape = (40, 41, channels)
    frames = [shoot(times, shape=shape, seed=k)[k] for k in range(count)]
    radiances = []
    for deghost in ("off", "weights"):
        how = settings(algorithm="debevec_exact", contradiction="warn", deghost=deghost)
        radiances.append(opened(how, frames, times, curve(channels)).radiance())
    off, weights = radiances
    np.testing.assert_array_equal(weights.validity, off.validity)
    assert np.isfinite(weights.ln_radiance).all()
    if count == 1:
        np.testing.assert_array_equal(weights.ln_radiance, off.ln_radiance)


@pytest.mark.parametrize("drift", [2.0, 4.0, 8.0])
def test_clouds_are_moved_back(drift):
    still, _ = _errors(0.0, "triangle")
    _, aligned = _errors(drift, "triangle", "align")
    assert aligned < 1.5 * still


def test_nothing_is_moved_in_a_still_sky():
    off, aligned = _errors(0.0, "triangle", "align")
    assert aligned <= 1.01 * off


@pytest.mark.parametrize("drift", [0.0, 2.0, 4.0])
def test_velocity_of_the_clouds(drift):
    camera, _, frames = _bracket(drift)
    how = settings(algorithm="debevec_exact", deghost="align")
    merge = opened(how, frames, TIMES, camera.log_response)
    found = merge.cloud_motion([0.0, 0.5, 1.0, 1.5, 2.0])
    if drift == 0.0:
        assert found is None
        return
    assert found is not None
    assert np.hypot(found[0] - 2.0 * drift, found[1] - 0.6 * drift) < 0.6
    assert found[2] > 0.5
    # Names that do not tell the exposures' times apart tell no velocity.
    assert merge.cloud_motion([0.0] * 5) is None


def test_order_of_arrival_changes_no_byte():
    camera, _, frames = _bracket(3.0)
    times = (80.0, 160.0, 160.0, 640.0, 1280.0)
    for deghost in ("weights", "align"):
        how = settings(algorithm="debevec_exact", deghost=deghost, contradiction="warn")
        merged = [
            opened(how, frames[::step], times[::step], camera.log_response).radiance().ln_radiance
            for step in (1, -1)
        ]
        np.testing.assert_array_equal(*merged)
