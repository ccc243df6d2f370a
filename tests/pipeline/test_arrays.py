from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import OpenEXR
import pytest
import tifffile

from asi_watch.errors import BracketError
from asi_watch.hdr.disc import SkyDisc
from asi_watch.hdr.merge_settings import MergeSettings
from asi_watch.hdr.merging import open_merge
from asi_watch.pipeline import create_and_save_hdr
from asi_watch.products import read_provenance
from tests.hdr.brackets import merge_frames, settings
from tests.pipeline.making import true_curve
from tests.skies import sky_bracket

SKY = sky_bracket(96)
G = true_curve().log_response
CUSTOM: dict[str, Any] = {"algorithm": "debevec_custom", "response": G}


def save(path: Path, **kwargs: Any) -> None:
    create_and_save_hdr(list(SKY.images), list(SKY.exposures_us), path, **kwargs)


def merged(dtype: type, response: Any = None, **kwargs: Any) -> np.ndarray[Any, Any]:
    how = settings(**{"algorithm": "debevec", **kwargs})
    return merge_frames(SKY.images, SKY.exposures_us, how, response, dtype)


@pytest.mark.parametrize(("suffix", "dtype"), [(".png", np.uint16), (".jpg", np.uint8)])
@pytest.mark.parametrize(
    "kwargs",
    [CUSTOM, {}, {"algorithm": "mertens"}, {**CUSTOM, "gamma": 1.0, "weight_type": "sine"}],
    ids=["custom", "debevec", "mertens", "linear"],
)
def test_a_picture_is_what_a_merge_gives(
    tmp_path: Path, suffix: str, dtype: type, kwargs: dict[str, Any]
) -> None:
    path = tmp_path / "not/there/yet" / f"20260621090000_hdr{suffix}"
    save(path, **kwargs)
    read = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    expected = merged(dtype, **kwargs)
    assert read.dtype == dtype
    apart = np.abs(read.astype(int) - expected.astype(int))
    if suffix == ".png":
        # Exposure fusion by OpenCV's threads rounds differently from run to run.
        assert apart.max() <= (2 if kwargs.get("algorithm") == "mertens" else 0)
    else:
        assert apart.mean() < 3  # JPEG
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_jp2_holds_sixteen_bits(tmp_path: Path) -> None:
    save(tmp_path / "a.jp2", **CUSTOM)
    read = cv2.imread(str(tmp_path / "a.jp2"), cv2.IMREAD_UNCHANGED)
    expected = merged(np.uint16, **CUSTOM)
    assert read.dtype == np.uint16
    assert np.abs(read.astype(int) - expected).mean() < 300


def test_radiance_is_linear_per_millisecond(tmp_path: Path) -> None:
    settings = MergeSettings("debevec_exact", "triangle", 5, 250, 2.2, None, 255, True)
    merge = open_merge(settings, G, SKY.images[0].shape)
    for image, us in zip(SKY.images, SKY.exposures_us, strict=True):
        merge.add(image, us)
    expected = 1000 * np.exp(merge.radiance().ln_radiance.astype(float))
    for suffix in (".exr", ".tiff", ".hdr"):
        save(tmp_path / f"a{suffix}", algorithm="debevec_exact", response=G)
    tiff = tifffile.imread(tmp_path / "a.tiff")[:, :, ::-1]
    np.testing.assert_allclose(tiff, expected, rtol=1e-5)
    with OpenEXR.File(str(tmp_path / "a.exr"), separate_channels=True) as exr:
        green = np.array(exr.channels()["G"].pixels, dtype=float)
    np.testing.assert_allclose(green, expected[:, :, 1], rtol=1e-3)
    hdr = cv2.imread(str(tmp_path / "a.hdr"), cv2.IMREAD_UNCHANGED)
    # The three channels share one exponent.
    assert (np.abs(hdr - expected) <= 0.01 * expected.max(axis=2, keepdims=True)).all()


def test_the_response_may_be_rgb(tmp_path: Path) -> None:
    save(tmp_path / "bgr.png", **CUSTOM)
    save(tmp_path / "rgb.png", **{**CUSTOM, "response": G[:, ::-1]}, channel_order="RGB")
    save(tmp_path / "mixed.png", **{**CUSTOM, "response": G[:, ::-1]})
    bgr, rgb, mixed = (
        cv2.imread(str(tmp_path / f"{n}.png"), cv2.IMREAD_UNCHANGED)
        for n in ("bgr", "rgb", "mixed")
    )
    np.testing.assert_array_equal(bgr, rgb)
    assert np.abs(bgr.astype(int) - mixed).max() > 100


def test_the_file_says_how_it_was_made(tmp_path: Path) -> None:
    save(tmp_path / "20260621090000_hdr.jpg", **CUSTOM)
    noted = read_provenance(tmp_path / "20260621090000_hdr.jpg")
    assert [s.exposure_us for s in noted.sources] == list(SKY.exposures_us)
    assert (noted.algorithm, noted.curve_id) == ("debevec_custom", true_curve().curve_id)
    assert f"{noted.slot:%H%M}" == "0900"


IMAGES = list(SKY.images)
TIMES = list(SKY.exposures_us)


@pytest.mark.parametrize(
    ("images", "times", "reason"),
    [
        ([], [], "no images"),
        (IMAGES[:1], TIMES[:1], "one exposure only"),
        (IMAGES[:2], [80, 80], r"all exposure times are equal \(80 µs\)"),
        (IMAGES, TIMES[:3], "5 images, 3 exposure times"),
        ([IMAGES[0], IMAGES[1][:50]], TIMES[:2], r"image 1 has the shape \(50, 96, 3\)"),
        ([IMAGES[0], IMAGES[1] / 2], TIMES[:2], "image 1 is float64"),
        ([IMAGES[0], None], TIMES[:2], "image 1 is NoneType"),
        (IMAGES[:2], [80, -160], "positive"),
    ],
)
def test_wrong_arrays_are_told_with_the_file(
    tmp_path: Path, images: list[Any], times: list[float], reason: str
) -> None:
    path = tmp_path / "wrong.jpg"
    with pytest.raises(BracketError, match=rf"wrong\.jpg not made: .*{reason}"):
        create_and_save_hdr(images, times, path, **CUSTOM)
    assert not path.exists()


@pytest.mark.parametrize(
    ("name", "kwargs", "reason"),
    [
        ("a.gif", CUSTOM, "'.gif' is none of"),
        ("a", CUSTOM, "is none of"),
        ("a.jpg", {**CUSTOM, "filetype": ".png"}, "does not fit"),
        ("a.exr", {"algorithm": "mertens"}, "without radiance"),
        ("a.jpg", {"algorithm": "debevec_custom"}, "needs a response"),
        ("a.jpg", {"algorithm": "best"}, "algorithm"),
        ("a.jpg", {**CUSTOM, "response": G[:, :1]}, "channels"),
        ("a.jpg", {**CUSTOM, "channel_order": "GBR"}, "channel_order"),
        ("a.jpg", {**CUSTOM, "lnE_range": (2, 1)}, "lnE_range"),
    ],
)
def test_wrong_choices_are_told(
    tmp_path: Path, name: str, kwargs: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        save(tmp_path / name, **kwargs)
    assert list(tmp_path.iterdir()) == []


def test_only_the_sky_disc_is_merged(tmp_path: Path) -> None:
    save(tmp_path / "a.png", **CUSTOM, sky_disc=(50, 45, 20))
    save(tmp_path / "whole.png", **CUSTOM)
    part, whole = (
        cv2.imread(str(tmp_path / name), cv2.IMREAD_UNCHANGED) for name in ("a.png", "whole.png")
    )
    rows, columns = np.ogrid[0:96, 0:96]
    inside = (rows - 45) ** 2 + (columns - 50) ** 2 <= 20**2
    np.testing.assert_array_equal(part, np.where(inside[..., None], whole, 0))
    assert read_provenance(tmp_path / "a.png").parameters["sky_radius"] == 20
    expected = merged(np.uint16, **CUSTOM, sky_disc=SkyDisc(50, 45, 20))
    np.testing.assert_array_equal(part, expected)
    for disc, reason in ((("auto"), "sky_disc"), ((1, 2), "sky_disc"), ((0, 0, -1), "sky_disc")):
        with pytest.raises(ValueError, match=reason):
            save(tmp_path / "b.png", **CUSTOM, sky_disc=disc)
    with pytest.raises(BracketError, match=r"sky_disc 500, 45, 20 lies outside .* 96×96; give"):
        save(tmp_path / "b.png", **CUSTOM, sky_disc=(500, 45, 20))


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        ([np.zeros_like(IMAGES[0])] * 4, "all its pixels are black or saturated"),
        ([np.full_like(IMAGES[0], code) for code in (0, 1, 2, 255)], "all its pixels are black"),
        ([IMAGES[2]] * 4, "all exposures are the same picture"),
    ],
    ids=["black", "black and white", "one picture"],
)
def test_no_picture_is_invented(tmp_path: Path, images: list[Any], reason: str) -> None:
    with pytest.raises(
        BracketError, match=rf"no response can be calibrated from the bracket: {reason}"
    ):
        create_and_save_hdr(images, TIMES[:4], tmp_path / "a.jpg")
    assert list(tmp_path.iterdir()) == []
    # With a response black is black.
    create_and_save_hdr(images, TIMES[:4], tmp_path / "a.png", response=G)
    create_and_save_hdr(images, TIMES[:4], tmp_path / "b.png", algorithm="mertens")


def test_an_unknown_keyword_is_an_error_of_python(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="gama"):
        save(tmp_path / "a.jpg", **CUSTOM, gama=2.0)
