"""`init`: a configuration from a folder of pictures, which works without an edit."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from asi_watch.cli import main
from asi_watch.config import load_config

START = datetime(2026, 6, 21, 12)
SHORT, STEPS = 80, 5


def picture(exposure_us: float, number: int, stated: float | None = None) -> bytes:
    """A grey sky disc with clouds that move, as a sensor with gamma 2.2 sees it."""
    rows, columns = np.mgrid[:160, :160]
    clouds = 0.5 + 0.5 * np.sin((rows + 3 * number) / 17) * np.cos(columns / 23)
    light = np.where(np.hypot(rows - 80, columns - 82) < 70, 2e-4 + 2e-3 * clouds, 0)
    codes = 255 * np.clip(light * exposure_us, 0, 1) ** (1 / 2.2)
    image = Image.fromarray(np.dstack([codes.astype(np.uint8)] * 3))
    exif = Image.Exif()
    if stated is not None:
        exif.get_ifd(0x8769)[0x829A] = IFDRational(round(stated), 1_000_000)
    data = io.BytesIO()
    image.save(data, "JPEG", quality=92, exif=exif)
    return data.getvalue()


def fill(
    folder: Path,
    name: Callable[[datetime, int], str],
    times: tuple[float, ...] = tuple(SHORT * 2**i for i in range(STEPS)),
    *,
    every: float = 30,
    late: float = 0,
    brackets: int = 8,
    stated: bool = False,
    ahead: float = 0,
) -> None:
    """Write brackets, the newest a moment ago, by a camera clock that is so many hours ahead."""
    for number in range(brackets):
        for step, time in enumerate(times):
            at = START + timedelta(seconds=late + number * every + 2 * step)
            path = folder / name(at, step)
            path.parent.mkdir(parents=True, exist_ok=True)
            known = time * (1 + 0.02 * np.sin(number)) if stated else None
            path.write_bytes(picture(time, number, known))
            written = (at - timedelta(hours=ahead)).replace(tzinfo=UTC).timestamp()
            os.utime(path, (written, written))


def asi(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def init(tmp_path: Path, *more: str, folder: str = "roof") -> Path:
    config = tmp_path / "asi.yaml"
    result = asi("init", tmp_path / folder, "-o", config, "--yes", *more)
    assert result.exit_code == 0, result.output
    # An account without rights to /var/lib gets a folder of its own; these tests may be root's.
    config.write_text(config.read_text().replace("/var/lib/asi-watch", f"{tmp_path}/state"))
    return config


def works(tmp_path: Path, config: Path, brackets: int = 8) -> None:
    """The file passes `check` without a doubt about names, and every bracket is merged by it."""
    checked = asi("check", "-c", config)
    assert checked.exit_code == 0, checked.output
    for key in ("filename", "exposure_labels", "bracket.", "exposure_unit", "timezone"):
        assert f": cameras.roof.{key}" not in checked.stderr, checked.stderr
    output = tmp_path / "hdr"
    merged = asi("merge", tmp_path / "roof", output, "-c", config)
    assert merged.exit_code == 0, merged.output
    assert len(list(output.rglob("*_hdr.jpg"))) == brackets


def times_of(step: int) -> int:
    return SHORT * 2**step


def test_mobotix_in_folders_by_month_day_and_hour(tmp_path: Path) -> None:
    fill(
        tmp_path / "roof",
        lambda at, step: f"{at:%m/%d/%H/%Y%m%d%H%M%S}_{times_of(step)}.jpg",
        late=26,
        ahead=1,
    )
    config = init(tmp_path)
    roof = load_config(config).cameras["roof"]
    assert roof.filename == "{timestamp:%Y%m%d%H%M%S}_{exposure}"
    assert roof.bracket.exposures == (80, 160, 320, 640, 1280)
    assert (roof.bracket.round_to, roof.timezone) == (timedelta(seconds=30), "Etc/GMT-1")
    assert roof.bracket.offset
    works(tmp_path, config)


def test_a_camera_that_takes_one_exposure_alone_by_night(tmp_path: Path) -> None:
    def named(at: datetime, step: int) -> str:
        return f"{at:%Y%m%d%H%M%S}_{times_of(step)}.jpg"

    fill(tmp_path / "roof", named, brackets=20)
    for minute in range(300):
        at = START + timedelta(hours=9, minutes=minute)
        (tmp_path / "roof" / f"{at:%Y%m%d%H%M%S}_80000.jpg").touch()
    config = init(tmp_path)
    roof = load_config(config).cameras["roof"]
    assert roof.bracket.exposures == (80, 160, 320, 640, 1280)
    assert roof.bracket.round_to == timedelta(seconds=30)


def test_eye2sky(tmp_path: Path) -> None:
    fill(tmp_path / "roof", lambda at, step: f"{at:%Y%m%d_%H%M%S}_{times_of(step)}.jpg")
    config = init(tmp_path)
    assert load_config(config).cameras["roof"].timezone == "UTC"
    works(tmp_path, config)


def fill_with_labels(tmp_path: Path, **more: Any) -> tuple[str, ...]:
    """Write files of an EKO camera; returns their labels by rising exposure time."""
    labels = ("11", "02", "0")
    names = (tmp_path / "roof", lambda at, step: f"{at:%Y%m%d%H%M%S}_{labels[step]}.jpg")
    fill(*names, (125, 500, 2000), **more)
    return labels


def test_labels_without_any_exposure_time(tmp_path: Path) -> None:
    labels = fill_with_labels(tmp_path, every=60)
    config = init(tmp_path)
    roof = load_config(config).cameras["roof"]
    times = [roof.exposure_labels[label] for label in labels]
    assert times == sorted(times)
    assert (roof.merge.algorithm, roof.bracket.exposures) == ("mertens", 3)
    assert "GUESSED" in config.read_text()
    works(tmp_path, config)


def test_labels_whose_files_state_the_times(tmp_path: Path) -> None:
    fill_with_labels(tmp_path, stated=True)
    roof = load_config(init(tmp_path)).cameras["roof"]
    assert roof.exposure_labels["0"] == pytest.approx(2000, rel=0.03)
    assert roof.merge.algorithm != "mertens"
    works(tmp_path, tmp_path / "asi.yaml")


@pytest.mark.parametrize("written", ["unit", "fraction"])
def test_raspberry_pi_with_a_unit_or_a_fraction(tmp_path: Path, written: str) -> None:
    speeds = (8000, 4000, 2000, 1000, 500)
    texts = [f"1-{n}" if written == "fraction" else f"{1e6 / n:g}us" for n in speeds]
    fill(
        tmp_path / "roof",
        lambda at, step: f"pi-{at:%Y-%m-%dT%H-%M-%S}_{texts[step]}.jpg",
        tuple(1e6 / n for n in speeds),
        every=60,
    )
    config = init(tmp_path)
    roof = load_config(config).cameras["roof"]
    assert roof.exposure_unit == ("s" if written == "fraction" else "us")
    assert roof.expected_exposures_us == pytest.approx((125, 250, 500, 1000, 2000))
    assert "by the times the files were written at" in config.read_text()
    works(tmp_path, config)


def test_exposures_in_the_files_alone(tmp_path: Path) -> None:
    fill(tmp_path / "roof", lambda at, _: f"{at:%Y%m%d%H%M%S}.jpg", stated=True)
    config = init(tmp_path)
    roof = load_config(config).cameras["roof"]
    assert roof.exposure_from == "metadata"
    assert roof.filename == "{timestamp:%Y%m%d%H%M%S}"
    assert roof.expected_exposures_us == pytest.approx((80, 160, 320, 640, 1280), rel=0.01)
    works(tmp_path, config)


def test_names_that_state_their_offset(tmp_path: Path) -> None:
    fill(
        tmp_path / "roof",
        lambda at, step: f"{at:%Y%m%d_%H%M%S}+0200_exp{times_of(step)}us.jpg",
        ahead=2,
    )
    config = init(tmp_path)
    assert "%z" in load_config(config).cameras["roof"].filename
    works(tmp_path, config)


@pytest.mark.parametrize(("described", "kept"), [("GMT+2", True), ("UTC", False)])
def test_a_description_of_the_camera_is_taken_as_it_is(
    tmp_path: Path, described: str, kept: bool
) -> None:
    fill(tmp_path / "roof", lambda at, step: f"{at:%Y%m%d%H%M%S}_{times_of(step)}.jpg")
    data = {"camera_name": "x", "timezone": described, "latitude": 37.1, "longitude": -2.4}
    data["internal_calibration"] = {"xc": 82, "yc": 80, "diameter": 140}
    (tmp_path / "camera.yaml").write_text(yaml.safe_dump(data))
    config = init(tmp_path, "--camera-data", str(tmp_path / "camera.yaml"))
    roof = load_config(config).cameras["roof"]
    # The times of the files are the stronger witness.
    assert roof.timezone == "UTC"
    assert ("the description of the camera says Etc/GMT-2" in config.read_text()) is kept
    assert roof.merge.sky_disc == (82, 80, 70)
    works(tmp_path, config)
    wrong = asi("init", tmp_path / "roof", "-o", tmp_path / "b", "--yes", "--camera-data", "none")
    assert wrong.exit_code == 2


def test_what_is_found_is_asked_where_nobody_said_yes(tmp_path: Path) -> None:
    fill(tmp_path / "roof", lambda at, step: f"{at:%Y%m%d%H%M%S}_{times_of(step)}.jpg")
    config = tmp_path / "asi.yaml"
    answers = f"dome\n{tmp_path}/hdr\nEtc/GMT-1\nms\n"
    arguments = ["init", str(tmp_path / "roof"), "-o", str(config)]
    result = CliRunner().invoke(main, arguments, input=answers)
    assert result.exit_code == 0, result.output
    (camera,) = load_config(config).cameras.values()
    assert (camera.name, camera.timezone, camera.exposure_unit) == ("dome", "Etc/GMT-1", "ms")
    assert camera.output == tmp_path / "hdr"


def test_the_disc_is_proposed_and_nothing_is_overwritten(tmp_path: Path) -> None:
    fill(tmp_path / "roof", lambda at, step: f"{at:%Y%m%d%H%M%S}_{times_of(step)}.jpg")
    config = init(tmp_path)
    (line,) = (line for line in config.read_text().splitlines() if "sky_disc" in line)
    x, y, radius = yaml.safe_load(line.strip(" #"))["merge"]["sky_disc"]
    assert (x, y, radius) == pytest.approx((82, 80, 70), abs=4)
    again = asi("init", tmp_path / "roof", "-o", config, "--yes")
    assert again.exit_code == 2
    assert "exists" in again.output


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ((), "holds no pictures"),
        (("a.txt",), "holds no pictures"),
        (("IMG_0001.jpg", "IMG_0002.jpg"), "no date with time of day in the names"),
        (("20260621120000.jpg", "20260621120003.jpg"), "state exposure times"),
    ],
)
def test_folders_that_no_configuration_fits(
    tmp_path: Path, names: tuple[str, ...], says: str
) -> None:
    (tmp_path / "roof").mkdir()
    for name in names:
        (tmp_path / "roof" / name).write_bytes(picture(80, 0))
    result = asi("init", tmp_path / "roof", "-o", tmp_path / "asi.yaml", "--yes")
    assert result.exit_code == 1
    assert says in result.output
    assert not (tmp_path / "asi.yaml").exists()
