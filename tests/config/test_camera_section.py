"""A camera's section that begins with asi_core's description of the camera."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from asi_watch.config import ConfigError, dump_config, load_config
from asi_watch.config.model import CameraConfig

DESCRIBED: dict[str, Any] = {
    "camera_name": "PSA 2",
    "camera_model": "Q26",
    "latitude": 37.1,
    "longitude": -2.4,
    "altitude": 500.0,
    "timezone": "GMT+1",
    "camera_mask_file": "masks/psa2.mat",
    "external_orientation": [0.0, 3.14, 1.58],
    "internal_calibration": {"xc": 1008, "yc": 1007, "diameter": 1900},
    "exposure_settings": {"exposure_times": {"day": [160], "night": [80000]}},
    "daq": {"process": {"exposure_times": [80, 160, 320]}},
}


def camera_of(folder: Path, described: Any, **section: Any) -> CameraConfig:
    text = described if isinstance(described, str) else yaml.safe_dump(described)
    (folder / "psa2.yaml").write_text(text)
    camera = {"watch": "in", "output": "out", "camera_data": "psa2.yaml", **section}
    path = folder / "asi-watch.yaml"
    path.write_text(yaml.safe_dump({"cameras": {"roof": camera}}))
    config = load_config(path)
    path.write_text(dump_config(config))
    assert load_config(path) == config
    return config.cameras["roof"]


def test_what_is_not_given_comes_from_the_description(tmp_path: Path) -> None:
    camera = camera_of(tmp_path, DESCRIBED)
    assert camera.timezone == "Etc/GMT-1"
    assert camera.bracket.exposures == (80, 160, 320)
    assert camera.merge.sky_disc == (1008, 1007, 950)
    assert camera.geometry.values == {
        "latitude": 37.1,
        "longitude": -2.4,
        "altitude": 500.0,
        "lens": "Q26",
        "external_orientation": "0 3.14 1.58",
        "mask": "masks/psa2.mat",
    }


def test_what_is_given_stands(tmp_path: Path) -> None:
    camera = camera_of(
        tmp_path,
        DESCRIBED,
        timezone="UTC",
        bracket={"exposures": 5, "grace": "3s"},
        merge={"low_clip": 7},
        geometry={"altitude": 7.0, "direction": 90.0},
    )
    assert (camera.timezone, camera.bracket.exposures) == ("UTC", 5)
    assert (camera.merge.low_clip, camera.merge.sky_disc) == (7, (1008, 1007, 950))
    assert camera.geometry.altitude == 7.0
    assert camera.geometry.latitude == 37.1


@pytest.mark.parametrize(
    ("zone", "here"),
    [("UTC", "UTC"), ("GMT-03", "Etc/GMT+3"), ("UTC+0", "UTC"), ("Europe/Berlin", "Europe/Berlin")],
)
def test_time_zones_are_named_as_here(tmp_path: Path, zone: str, here: str) -> None:
    assert camera_of(tmp_path, DESCRIBED | {"timezone": zone}).timezone == here


def test_nights_with_a_bracket_of_their_own_leave_the_exposures_to_be_learned(
    tmp_path: Path,
) -> None:
    night = {"process": {"exposure_times": [80, 160], "night_exposure_times": [40000, 80000]}}
    assert camera_of(tmp_path, DESCRIBED | {"daq": night}).bracket.exposures == "auto"


@pytest.mark.parametrize(
    ("described", "text"),
    [
        ("[", "is no YAML"),
        ("cameras: {}", "it has no camera_name"),
        (DESCRIBED | {"timezone": "GMT+0530"}, "give the camera's timezone itself"),
        (DESCRIBED | {"latitude": 370}, "geometry.latitude"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, described: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=r"cameras\.roof\.(camera_data|geometry)") as caught:
        camera_of(tmp_path, described)
    assert text in str(caught.value)
    with pytest.raises(ConfigError, match="No such file"):
        camera_of(tmp_path, DESCRIBED, camera_data="nowhere.yaml")
