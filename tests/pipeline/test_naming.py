from __future__ import annotations

from datetime import datetime

import pytest

from asi_watch.pipeline import _EXPO_RE, _parse_exposure_from_name
from asi_watch.pipeline.find_brackets import parse_name, parse_timestamp

NINE = datetime(2026, 6, 21, 9, 0, 5)


@pytest.mark.parametrize(
    ("name", "exposure"),
    [
        ("20260621090005_80.jpg", 80),
        ("a/b_5/20260621090005_1280.JPEG", 1280),
        ("20260621_090005_160.png", 160),
        ("x_00320.jp2", 320),
        ("20260621090005.jpg", None),
        ("20260621_090005.jpg", None),
        ("20260621090005_80", None),
        ("20260621090005_80us.jpg", None),
        ("20260621090005_80_hdr.jpg", None),
        ("20260621090005_.jpg", None),
        ("_" + "9" * 200 + ".jpg", None),
        ("", None),
    ],
)
def test_the_exposure_is_the_number_at_the_end(name: str, exposure: int | None) -> None:
    assert _parse_exposure_from_name(name) == exposure


def test_the_expression_is_there_for_scripts() -> None:
    found = _EXPO_RE.search("20260621090005_80.jpg")
    assert found is not None
    assert found.group(1) == "80"


@pytest.mark.parametrize(
    "name",
    [
        "20260621090005_80.jpg",
        "roof20260621090005_80.jpg",
        "roof_20260621_090005_80.jpg",
        "20260621090005123_80.jpg",
        "0007_20260621090005_80.jpg",
        "720260621090005_80.jpg",
        "1999/20260621090005.png",
    ],
)
def test_a_timestamp_is_found_anywhere(name: str) -> None:
    assert parse_timestamp(name) == NINE


@pytest.mark.parametrize(
    "name", ["", "sky.jpg", "20261321090005_80.jpg", "2026062109000_80.jpg", "20260621-090005.jpg"]
)
def test_what_is_no_date_is_no_timestamp(name: str) -> None:
    assert parse_timestamp(name) is None


def test_a_name_needs_both_and_an_exposure_above_zero() -> None:
    assert parse_name("d/20260621090005_80.jpg") == (NINE, 80.0)
    assert parse_name("20260621090005_0.jpg") is None
    assert parse_name("20260621_090005.jpg") is None
    assert parse_name("sky_80.jpg") is None


@pytest.mark.parametrize(
    ("name", "exposure_us"),
    [
        ("20260621090005_640_1.jpg", None),
        ("a/20260621_090005_1280_2.png", None),
        ("20260621090005_640 (1).jpg", None),
        ("20260621090005_640 - Copy.jpg", None),
        ("._20260621090005_640.jpg", None),
        (".20260621090005_640.jpg", None),
        ("20260621090005_1_640.jpg", 640),
        ("roof_2_20260621090005_640.jpg", 640),
        ("20260621090005_640_1280.jpg", 1280),
    ],
)
def test_copies_and_hidden_files_are_no_exposures(name: str, exposure_us: float | None) -> None:
    parsed = parse_name(name)
    assert (None if parsed is None else parsed.exposure_us) == exposure_us
