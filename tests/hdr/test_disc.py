from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from asi_watch.hdr.disc import SkyDisc, agreed_disc, find_sky_disc
from tests.hdr.calibration_scenes import bracket

DISC = SkyDisc(330.0, 236.0, 200.0)
SIZE = (480, 640)


def around(images, level, disc=DISC):
    """Leave nothing but the surround's level outside of the disc."""
    outside = ~disc.mask(images[0].shape)
    for image in images:
        image[outside] = level
    return images


def scene(seed=1):
    return bracket(np.random.default_rng(seed), size=SIZE)


def close(found, disc=DISC):
    return (
        found is not None
        and np.hypot(found.x - disc.x, found.y - disc.y) < 0.02 * disc.radius
        and 0.95 < found.radius / disc.radius < 1.0
    )


@pytest.mark.parametrize("level", [0, 4, 30])
def test_a_bright_circle_in_the_dark_is_found(level):
    assert close(find_sky_disc(around(scene(), level)))


@pytest.mark.parametrize(
    "disc",
    [SkyDisc(320, 240, 236), SkyDisc(320, 240, 290), SkyDisc(300, 400, 240)],
    ids=["touches the edge", "cut at two sides", "cut at one side"],
)
def test_a_disc_may_be_cut_by_the_edge_of_the_picture(disc):
    assert close(find_sky_disc(around(scene(), 3, disc)), disc)


def test_labels_and_flare_in_the_surround_do_not_matter():
    images = around(scene(), 6)
    for image in images:
        for line in range(3):
            text = "2026/06/21 12:00:00 CAM 1"
            place = (5, 20 + 20 * line)
            cv2.putText(image, text, place, cv2.FONT_HERSHEY_PLAIN, 1.2, (255, 255, 255), 1)
        cv2.line(image, (500, 236), (639, 200), (90, 90, 90), 2)
    assert close(find_sky_disc(images))


def test_pictures_without_a_disc_have_none():
    images = scene()
    assert find_sky_disc(images) is None
    assert find_sky_disc([]) is None
    assert find_sky_disc([np.zeros((480, 640, 3), np.uint8)]) is None
    assert find_sky_disc([np.full((480, 640, 3), 255, np.uint8)]) is None
    assert find_sky_disc([np.zeros((5, 4, 1), np.uint8)]) is None


def test_what_is_bright_in_the_night_is_no_sky_disc():
    moon = around(scene(), 5, SkyDisc(150, 120, 50))
    assert find_sky_disc(moon) is None


@pytest.mark.parametrize("power", [2, 4, 8])
@pytest.mark.parametrize("exposure", [0.1, 0.3, 1.0])
def test_a_lens_that_vignettes_is_not_cropped(power, exposure):
    rows, columns = np.mgrid[0:480, 0:640]
    falls = np.cos(np.hypot(rows - 240, columns - 320) / 400) ** power
    image = np.rint(255 * (exposure * falls) ** (1 / 2.2)).astype(np.uint8)
    assert find_sky_disc([image[:, :, np.newaxis].repeat(3, axis=2)]) is None


def test_the_ground_and_a_dark_corner_are_no_surround():
    images = scene()
    for image in images:
        image[400:] = 5
        image[:150, :150] = 5
    assert find_sky_disc(images) is None


def test_brackets_agree_on_the_median():
    discs = [SkyDisc(330 + d, 236 - d, 200 + d) for d in (-2, 0, 1)]
    assert agreed_disc(discs) == SkyDisc(330, 236, 200)
    assert agreed_disc([*discs, None, None, SkyDisc(400, 236, 150)]) is not None
    assert agreed_disc([discs[0], *[None] * 5]) is None
    assert agreed_disc([SkyDisc(100, 236, 150), SkyDisc(500, 100, 190)] * 2) is None
    assert agreed_disc([None, None]) is None


@pytest.mark.parametrize("numbers", [(1, 1, 0), (1, 1, -5), (float("nan"), 1, 5)])
def test_impossible_discs(numbers):
    with pytest.raises(ValueError, match="positive radius"):
        SkyDisc(*numbers)


@pytest.mark.skipif("ASI_WATCH_DATA" not in os.environ, reason="no photographs here")
def test_photographs():
    data = Path(os.environ["ASI_WATCH_DATA"])
    for name, expected in (("memorial", False), ("window", False), ("allsky_asi16_names", True)):
        paths = [p for p in sorted((data / name).iterdir()) if p.suffix in (".jpg", ".png")]
        found = find_sky_disc([cv2.imread(str(path)) for path in paths])
        assert (found is not None) == expected, name
