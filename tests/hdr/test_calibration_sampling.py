from __future__ import annotations

import numpy as np
import pytest

from asi_watch.hdr.calibration import sample_bracket, sampling
from asi_watch.hdr.calibration.sampling import _in_proportion, follow, match_tones, read_levels
from tests.hdr.calibration_scenes import TIMES, bracket


def draw(images, times=TIMES, technique="random", count=100, mask=None):
    rng = np.random.default_rng(0)
    return sample_bracket(images, times, technique=technique, count=count, rng=rng, mask=mask)


@pytest.mark.parametrize("technique", ["random", "flat"])
def test_places_are_inside_the_mask_and_repeatable(technique):
    images = bracket(np.random.default_rng(1))
    mask = np.zeros(images[0].shape[:2], bool)
    mask[40:100, 30:150] = True
    one, two = (draw(images, technique=technique, mask=mask) for _ in range(2))
    np.testing.assert_array_equal(one.positions, two.positions)
    assert len(np.unique(one.positions, axis=0)) == 100
    assert mask[tuple(one.positions.T)].all()


def test_codes_are_those_of_the_images():
    images = bracket(np.random.default_rng(1))
    samples = draw(images)
    rows, columns = samples.positions.T
    np.testing.assert_array_equal(samples.codes[:, 2], images[2][rows, columns])


def test_places_of_the_histogram_are_those_of_flat():
    """The name is asi_core's; a technique of its own lost to flat on every set."""
    images = bracket(np.random.default_rng(1))
    one, other = (draw(images, technique=name).positions for name in ("histogram", "flat"))
    np.testing.assert_array_equal(one, other)


def test_shares_of_classes():
    rng = np.random.default_rng(5)
    for _ in range(50):
        sizes = rng.integers(0, 30, 12)
        count = int(rng.integers(1, sizes.sum() + 1))
        shares = _in_proportion(sizes, count)
        assert shares.sum() == count
        assert np.abs(shares - sizes * count / sizes.sum()).max() < 1
        assert (shares <= sizes).all()


@pytest.mark.parametrize("technique", ["random", "flat"])
@pytest.mark.parametrize("count", [10_000, 31_999, 32_000, 50_000])
def test_up_to_every_pixel_can_be_a_place(technique, count):
    images = bracket(np.random.default_rng(1))
    samples = draw(images, technique=technique, count=count)
    assert samples.count == len(np.unique(samples.positions, axis=0)) == min(count, 32_000)


def test_flat_places_are_flatter():
    images = bracket(np.random.default_rng(1))
    rough = [np.mean(draw(images, technique=t).roughness) for t in ("flat", "random")]
    assert rough[0] < 0.8 * rough[1]


def test_flat_places_are_as_bright_as_the_picture():
    images = bracket(np.random.default_rng(1))
    flat = np.sort(draw(images, technique="flat", count=400).codes.mean(axis=(1, 2)))
    picture = np.mean(images, axis=(0, 3))
    np.testing.assert_allclose(flat, np.quantile(picture, np.linspace(0, 1, 400)), atol=12)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([80.0], "at least two"),
        ([80.0] * 5, "equal"),
        ([0.0, 1.0, 2.0, 3.0, 4.0], "positive"),
        ([1.0, 1.0, 2.0, 3.0, 4.0], "twice"),
        ([1.0, 2.0], "images but"),
    ],
)
def test_impossible_times(times, message):
    images = bracket(np.random.default_rng(1), size=(20, 20))
    with pytest.raises(ValueError, match=message):
        draw(images[:1] if len(times) == 1 else images, times)


def test_impossible_images_and_masks():
    images = bracket(np.random.default_rng(1), size=(20, 20))
    with pytest.raises(ValueError, match="differ in shape"):
        draw([*images[:-1], images[-1][:10]])
    with pytest.raises(ValueError, match="leaves no pixel"):
        draw(images, mask=np.zeros((20, 20), bool))
    with pytest.raises(ValueError, match="unknown"):
        draw(images, technique="best")


def test_levels_are_finer_than_codes_and_ignore_wrong_pixels():
    columns = np.arange(60)[np.newaxis].repeat(60, axis=0)
    frame = np.repeat(np.rint(60 + 0.3 * columns)[:, :, np.newaxis], 3, axis=2).astype(np.uint8)
    frame[30, 30] = 255
    places = np.array([[30.0, 31.0], [20.4, 40.5], [0.0, 0.0]], dtype=np.float32)
    levels, _ = read_levels(frame, places)
    np.testing.assert_allclose(levels[0], 60 + 0.3 * 31, atol=0.4)
    np.testing.assert_allclose(levels[1], 60 + 0.3 * 40.5, atol=0.25)
    assert np.isnan(levels[2]).all()


def test_each_channel_and_place_gets_its_own_level():
    rows, columns = np.mgrid[0:700, 0:90]
    slopes = np.array([(0.1, 0.5), (-0.2, 0.3), (0.05, -0.4)])
    exact = 120 + slopes[:, 0] * (rows[..., None] - 350) + slopes[:, 1] * (columns[..., None] - 45)
    frame = np.rint(exact).astype(np.uint8)
    rng = np.random.default_rng(2)
    places = rng.uniform((4, 4), (695, 85), (6000, 2)).astype(np.float32)
    at_places = 120 + (places - (350, 45)) @ slopes.T
    for order in (np.arange(6000), np.argsort(places[:, 0])):  # any order will do
        levels, roughness = read_levels(frame, places[order])
        np.testing.assert_allclose(levels, at_places[order], atol=0.3)
        expected = np.sqrt(2 * (slopes**2).sum(axis=1))  # of a plane over 5 × 5 pixels
        np.testing.assert_allclose(np.median(roughness, axis=0), expected, atol=0.1)


def test_clipped_surroundings_tell_no_level():
    frame = np.full((60, 60, 3), 100, np.uint8)
    frame[28:33, 30, 1] = 255  # a fifth of the pixels
    frame[10, 10, 2] = 0  # one of 25
    places = np.array([[30.0, 30.0], [10.0, 10.0]], dtype=np.float32)
    levels, _ = read_levels(frame, places)
    np.testing.assert_array_equal(np.isnan(levels), [[False, True, False], [False] * 3])
    np.testing.assert_array_equal(levels[1], 100.0)


def test_the_mean_stands_for_rough_surroundings_too():
    frame = np.random.default_rng(4).integers(60, 141, (60, 60, 1)).astype(np.uint8)
    places = np.stack(np.mgrid[10:50:8, 10:50:8], axis=-1).reshape(-1, 2).astype(np.float32)
    levels, roughness = read_levels(frame, places)
    means = [frame[r - 2 : r + 3, c - 2 : c + 3].mean() for r, c in places.astype(int)]
    assert np.abs(levels[:, 0] - means).mean() < 3.0
    assert roughness.min() > 15.0


def test_followed_places_move_with_the_scene_and_stand_with_a_still_one():
    places = np.array([[80.0, 60.0], [60.0, 100.0]], dtype=np.float32)
    for drift in (0, 5):
        images = bracket(np.random.default_rng(6), drift=drift)
        for number, track in follow(images, places):
            expected = places - [0.0, drift * (number - 2)]
            np.testing.assert_allclose(track, expected, atol=0.05 if drift == 0 else 1.0)


def test_flow_without_proof_moves_nothing(monkeypatch):
    images = bracket(np.random.default_rng(6), drift=5)
    places = np.array([[80.0, 60.0]], dtype=np.float32)
    monkeypatch.setattr(sampling, "_PROOF", 0.0)
    for _, track in follow(images, places):
        np.testing.assert_array_equal(track, places)


def test_every_exposure_is_followed_once_the_middle_one_first():
    images = bracket(np.random.default_rng(6), size=(60, 60))
    places = np.array([[30.0, 30.0]], dtype=np.float32)
    for count in range(2, 6):
        seen = [number for number, _ in follow(images[:count], places)]
        assert seen[0] == count // 2
        assert sorted(seen) == list(range(count))


def test_matched_tones_agree():
    images = bracket(np.random.default_rng(1))
    one, two = match_tones(images[1][:, :, 1], images[2][:, :, 1])
    assert np.abs(one.astype(int) - two).mean() < 4
    assert np.ptp(two) > 200
