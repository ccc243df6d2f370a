"""The merges that OpenCV does."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from asi_watch.hdr.disc import SkyDisc
from asi_watch.hdr.lookup_tables import remap_codes
from asi_watch.hdr.merge_settings import OVER, UNDER
from asi_watch.hdr.merging import fuse_exposures, open_merge
from tests.hdr.brackets import TIMES, by_formula, curve, settings, shoot


@pytest.fixture
def threads_of_opencv():
    before = cv2.getNumThreads()
    yield cv2.setNumThreads
    cv2.setNumThreads(before)


def _merged(algorithm, frames, times=TIMES, g=None, **changes):
    merge = open_merge(settings(algorithm=algorithm, **changes), g, frames[0].shape)
    for pixels, time in zip(frames, times, strict=True):
        merge.add(pixels, time)
    return merge


@pytest.mark.parametrize("channels", [1, 3])
def test_debevec_radiance_is_that_of_the_response(channels):
    """OpenCV takes exp(g): with g itself this correlation is lost."""
    frames = shoot(TIMES, shape=(40, 50, channels))
    merge = _merged("debevec", frames, TIMES, curve(channels), low_clip=0, high_clip=255)
    wanted = by_formula(frames, TIMES, settings(low_clip=0, high_clip=255))
    radiance = merge.radiance()
    middle = np.median(np.stack(frames), axis=0)
    good = (wanted.validity == 0) & (middle > 20) & (middle < 235)
    error = (radiance.ln_radiance - wanted.ln_radiance)[good]
    assert good.sum() > 200
    assert abs(np.median(error)) < 0.05
    assert set(np.unique(radiance.validity)) == {0, UNDER, OVER}


def test_mertens_is_opencvs_on_stretched_codes():
    frames = shoot(TIMES)
    table = remap_codes(5, 250)
    fused = cv2.createMergeMertens().process([table[f] for f in frames])
    wanted = (np.clip(fused / 1.5, 0, 1) * 255).astype(int)
    wanted[(np.minimum.reduce(frames) >= 250).all(axis=2)] = 255
    picture = _merged("mertens", frames, TIMES).picture()
    assert np.abs(picture.astype(int) - wanted).max() <= 1
    with pytest.raises(ValueError, match="radiance"):
        _merged("mertens", frames, TIMES).radiance()


@pytest.mark.parametrize("shape", [(37, 53, 3), (64, 48, 1), (1, 7, 3), (2, 2, 3), (1, 1, 1)])
def test_fusion_is_opencvs_to_a_millionth(shape, threads_of_opencv):
    frames = shoot(TIMES, shape=shape, noise=0.5)
    threads_of_opencv(1)
    wanted = cv2.createMergeMertens().process(frames).reshape(shape)
    np.testing.assert_allclose(fuse_exposures(frames), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("algorithm", "g", "threads"),
    [
        ("mertens", None, (1, 1, 2, 2, 3, 8)),
        ("debevec", curve(), (1, 1, 2, 2, 3, 8)),
        ("debevec", None, (1, 2)),
    ],
)
def test_neither_threads_nor_chance_change_a_byte(algorithm, g, threads, threads_of_opencv):
    """OpenCV's own fusion adds in the order in which its threads come."""
    frames = shoot(TIMES, shape=(101, 137, 3), noise=0.5)
    found = set()
    for number in threads:
        threads_of_opencv(number)
        found.add(_merged(algorithm, frames, TIMES, g).picture(np.uint16).tobytes())
    assert len(found) == 1


@pytest.mark.parametrize("algorithm", ["debevec", "mertens"])
def test_order_changes_no_byte(algorithm):
    times = (100.0, 100.0, 100.0, 400.0)
    frames = shoot(times, noise=0.5)
    pictures = [
        _merged(algorithm, [frames[i] for i in p], [times[i] for i in p], curve()).picture(
            np.uint16
        )
        for p in itertools.permutations(range(4))
    ]
    for picture in pictures:
        np.testing.assert_array_equal(picture, pictures[0])


def test_saturation_lets_a_camera_have_its_own_white():
    frames = shoot(TIMES, shape=(20, 20, 3))
    for frame in frames:
        np.minimum(frame, 230, out=frame)
        frame[:5] = 230
    white = _merged("debevec", frames, TIMES, curve(), saturation=230).picture()
    plain = _merged("debevec", frames, TIMES, curve()).picture()
    assert (white[:5] >= plain[:5]).all()
    assert (white[:5] == white.max()).all()


def test_debevec_without_a_response_calibrates():
    frames = shoot(TIMES, shape=(60, 70, 3))
    picture = _merged("debevec", frames, TIMES).picture()
    known = _merged("debevec", frames, TIMES, curve()).picture()
    assert np.corrcoef(picture.ravel(), known.ravel())[0, 1] > 0.95


def test_fixed_range_and_linear_picture():
    frames = shoot(TIMES)
    auto = _merged("debevec", frames, TIMES, curve(), apply_tonemapping=False).picture()
    bounds = (float(np.log(1e-5)), float(np.log(0.03)))
    # The five times have a geometric mean of 320, so the fixed bounds are these as they stand.
    ranged = _merged(
        "debevec", frames, TIMES, curve(), apply_tonemapping=False, lnE_range=bounds
    ).picture()
    assert np.abs(auto.astype(int) - ranged).max() <= 1


def test_outside_the_disc():
    shape = (40, 50, 3)
    frames = shoot(TIMES, shape=shape)
    frames[0][:3] = 255  # what is outside must not set the scale
    disc = SkyDisc(25, 20, 16)
    mask = disc.mask(shape)
    for algorithm, g in (("mertens", None), ("debevec", curve())):
        merge = _merged(algorithm, frames, g=g, sky_disc=disc)
        plain = _merged(algorithm, frames, g=g)
        whole = np.where(mask[..., None], plain.picture(), 0)
        np.testing.assert_array_equal(merge.picture(), whole)
    radiance = merge.radiance()
    assert (radiance.validity[~mask] == UNDER).all()
    lowest = radiance.ln_radiance[mask].min(axis=0)
    assert (radiance.ln_radiance[~mask] == lowest).all()


def test_rows_and_refusals():
    frames = shoot(TIMES, shape=(12, 14, 3))
    merge = _merged("debevec", frames, TIMES, curve())
    rows = np.empty((5, 14, 3), np.uint8)
    merge.picture_rows(2, 7, rows)
    np.testing.assert_array_equal(rows, merge.picture()[2:7])
    with pytest.raises(ValueError, match="uncertainty"):
        merge.uncertainty()
    with pytest.raises(ValueError, match="lies outside"):
        open_merge(settings(algorithm="mertens", sky_disc=SkyDisc(9, 9, 2)), None, (4, 4))
    with pytest.raises(ValueError, match="two exposures"):
        _merged("debevec", frames[:1], TIMES[:1], curve()).picture()
    with pytest.raises(ValueError, match="no exposure"):
        open_merge(settings(algorithm="mertens"), None, (4, 4)).picture()
    with pytest.raises(ValueError, match="channels"):
        open_merge(settings(algorithm="debevec"), curve(1), (4, 4, 3))


def test_a_saturated_sun_is_white_in_a_fusion():
    """It has neither contrast nor colour in any exposure: it was grey inside a bright ring."""
    frames = shoot(TIMES, shape=(60, 60, 3))
    for frame in frames:
        frame[20:40, 20:40] = 255
    assert (_merged("mertens", frames).picture()[20:40, 20:40] == 255).all()
