from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

from asi_watch.cli import main
from asi_watch.config import load_config
from asi_watch.live.ledger.ledger import Ledger
from asi_watch.live.ledger.records import CurveDecision
from asi_watch.response_files import response_bytes
from tests.images.pictures import jpeg, mobotix, stating

HOME = Path(__file__).parent.parent.parent
FILES = [HOME / "config/asi-watch.yaml", *sorted((HOME / "config/examples").glob("*.yaml"))]


def check(path: Path) -> Result:
    return CliRunner().invoke(main, ["check", "-c", str(path)])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_we_ship_pass(path: Path, tmp_path: Path) -> None:
    result = check(path)
    assert result.exit_code == 0
    effective = tmp_path / "effective.yaml"
    effective.write_text(result.stdout)
    assert load_config(effective) == load_config(path)


def test_the_effective_configuration_has_every_default(tmp_path: Path) -> None:
    path = tmp_path / "asi.yaml"
    # The default state folder is not everybody's to make.
    state = f"state_dir: {tmp_path}"
    path.write_text(f"{{{state}, cameras: {{roof: {{watch: /in, output: /out}}}}}}")
    result = check(path)
    assert result.exit_code == 0
    roof = yaml.safe_load(result.stdout)["cameras"]["roof"]
    assert roof["bracket"]["grace"] == "10s"
    assert roof["products"][0].items() >= {"format": "jpg", "quality": 95}.items()
    warnings = result.stderr.splitlines()
    assert all(line.startswith(f"warning: {path}:1: cameras.roof.") for line in warnings)
    assert "no response curve is given" in result.stderr


def test_problems_go_to_standard_error_with_exit_code_2(tmp_path: Path) -> None:
    path = tmp_path / "asi.yaml"
    path.write_text("cameras:\n  roof:\n    watch: /in\n    outptu: /out\n    timezone: GMT+1\n")
    result = check(path)
    assert (result.exit_code, result.stdout) == (2, "")
    lines = result.stderr.splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        [f"{path}:2", "cameras.roof.output"],
        [f"{path}:4", "cameras.roof.outptu"],
        [f"{path}:5", "cameras.roof.timezone"],
    ]
    assert lines[1].endswith("did you mean output?")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    result = check(tmp_path / "none.yaml")
    assert result.exit_code == 2
    assert result.stderr == f"{tmp_path}/none.yaml: cannot be read: No such file or directory\n"


def test_the_file_must_be_named() -> None:
    result = CliRunner().invoke(main, ["check"])
    assert result.exit_code == 2
    assert "--config" in result.stderr


# -- what lies in the camera's folders ---------------------------------------------------------


def place(folder: Path, names: list[str], **camera: object) -> Path:
    """A camera with these files, some grey pixels each, and a configuration for it."""
    for name in names:
        path = folder / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", np.zeros((8, 8), np.uint8))[1].tobytes())
    config = folder / "asi.yaml"
    described = {"watch": "in", "output": "out", **camera}
    config.write_text(yaml.safe_dump({"state_dir": "state", "cameras": {"roof": described}}))
    return config


def test_it_says_what_the_newest_names_are_taken_for(tmp_path: Path) -> None:
    names = [f"2026/06/{day}/202606{day}120000_{t}.png" for day in (20, 21) for t in (80, 1280)]
    result = check(place(tmp_path, [*names, "2026/06/20/thumb.jpg", "x_hdr.jpg", "notes.txt"]))
    assert result.exit_code == 0
    lines = result.stderr.splitlines()
    assert lines[0] == "roof: 4 of the 5 newest files fit `filename`"
    assert lines[1].split()[0].startswith("2026/06/21/20260621120000_")
    assert lines[1].endswith(("exposed 80 µs", "exposed 1280 µs"))
    assert "1 of the 5 newest files do not fit" in result.stderr
    assert "'thumb.jpg'" in result.stderr
    yaml.safe_load(result.stdout)


def test_names_of_another_kind_are_told_with_the_pattern_that_fits(tmp_path: Path) -> None:
    result = check(place(tmp_path, ["20260621_120000_80.png", "20260621_120003_160.png"]))
    assert "none of the 2 newest files fits '{timestamp:%Y%m%d%H%M%S}_{exposure}'" in result.stderr
    assert "did you mean '{timestamp:%Y%m%d_%H%M%S}_{exposure}'?" in result.stderr
    result = check(
        place(tmp_path / "b", ["roof-20260621_120000-1-80.png", "roof-20260621_120003-1-5.png"])
    )
    template = "'roof-{timestamp:%Y%m%d_%H%M%S}-{exposure}'"
    assert f"did you mean {template} with exposure_unit: s?" in result.stderr


def test_labels_are_not_taken_for_times_in_silence(tmp_path: Path) -> None:
    names = [f"20260621120000_{label}.png" for label in ("11", "02", "0")]
    result = check(place(tmp_path, names))
    assert "exposure_labels: the newest names end in '0', '02': labels" in result.stderr
    labels = {"0": 2000, "02": 500, "11": 125}
    assert "labels, it seems" not in check(place(tmp_path, names, exposure_labels=labels)).stderr


def test_exposures_that_nobody_expects(tmp_path: Path) -> None:
    config = place(tmp_path, ["20260621120000_5.png"], bracket={"exposures": [80, 160, 320]})
    result = check(config)
    assert "none of them is in the newest files' names, which say 5 µs" in result.stderr


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\x89PNG", "it is no .npz file"),
        (response_bytes(np.zeros((256, 3))), "blue, green, red: does not rise"),
    ],
)
def test_a_response_file_that_cannot_be_used_is_an_error(
    tmp_path: Path, content: bytes, says: str
) -> None:
    (tmp_path / "roof.npz").write_bytes(content)
    config = place(tmp_path, ["20260621120000_80.png"], response="roof.npz")
    result = check(config)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"{config}:4: cameras.roof.response: " in result.stderr
    assert says in result.stderr
    assert "pickle" not in result.stderr


def test_a_folder_that_may_not_be_entered_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = place(tmp_path, ["20260621120000_80.png"], response="secret/roof.npz")
    stat = Path.stat

    def refusing(path: Path, **options: bool) -> os.stat_result:
        if "secret" in path.parts:
            raise PermissionError(13, "Permission denied")
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", refusing)
    result = check(config)
    assert result.exit_code == 0
    assert "cameras.roof.response: " in result.stderr
    assert "cannot be read: Permission denied" in result.stderr


def test_what_better_settings_would_do_is_told(tmp_path: Path) -> None:
    g = np.linspace(-5.0, 2.0, 256, dtype=np.float32)[:, None].repeat(3, axis=1)
    (tmp_path / "r.npz").write_bytes(response_bytes(g))
    path = tmp_path / "asi.yaml"

    def hints(settings: str) -> list[str]:
        path.write_text(
            f"{{state_dir: {tmp_path}/s, cameras: {{roof: {{watch: {tmp_path}/in, response: r.npz,"
            f" output: {tmp_path}/out, {settings}}}}}}}"
        )
        result = check(path)
        assert result.exit_code == 0, result.output
        return [
            line for line in result.stderr.splitlines() if line.startswith(("roof: p", "roof: r"))
        ]

    (radiance,) = hints("products: [{format: exr}], merge: {algorithm: debevec_custom}")
    assert "radiance (exr) by debevec_custom" in radiance
    assert hints("products: [{format: jpg}]") == []
    assert hints("products: [{format: exr}]") == []


# -- what the newest names contradict ------------------------------------------------------------

START = datetime(2026, 6, 21, 12)


def names_of(*times: str, brackets: int = 8) -> list[str]:
    return [
        f"{START + timedelta(seconds=30 * n + i):%Y%m%d%H%M%S}_{time}.png"
        for n in range(brackets)
        for i, time in enumerate(times)
    ]


def warnings_on(key: str, config: Path) -> list[str]:
    lines = check(config).stderr.splitlines()
    return [line.split(f"{key}: ", 1)[1] for line in lines if f"{key}: " in line]


@pytest.mark.parametrize(
    ("taken", "expected", "says"),
    [
        (("80", "160", "320", "640"), [80, 160, 320, 640], []),
        (("80", "160", "320", "640"), [80, 160, 320, 640, 1280], ["1280 is in none of the 32"]),
        (
            ("80", "160", "320", "640"),
            [80, 160, 320],
            ["640 is missing here but usual in the newest brackets: they are merged without it"],
        ),
        (("80", "160", "320", "900"), [80, 160, 320, 640], ["640 is in none", "900 is missing"]),
        (("79", "161", "322", "640"), [80, 160, 320, 640], []),
        (("80", "160", "320"), 3, []),
        (("80", "160", "320", "640"), 3, ["the newest brackets have 4 exposures, not 3: each is"]),
        (("80", "160", "320"), 4, ["the newest brackets have 3 exposures, not 4: none is ever"]),
        (("80", "160", "320", "640"), "auto", []),
    ],
)
def test_exposures_are_compared_with_the_newest_brackets(
    tmp_path: Path, taken: tuple[str, ...], expected: object, says: list[str]
) -> None:
    config = place(tmp_path, names_of(*taken), bracket={"exposures": expected})
    told = warnings_on("bracket.exposures", config)
    assert len(told) == len(says)
    assert all(line.startswith(text) for line, text in zip(told, says, strict=True))


def test_slots_with_too_few_exposures_are_noticed(tmp_path: Path) -> None:
    config = place(tmp_path, names_of("80", "160"))
    (line,) = warnings_on("bracket.min_exposures", config)
    assert line == "the newest slots have 2 exposures: none is merged"


def test_a_folder_of_files_with_another_extension_is_noticed(tmp_path: Path) -> None:
    config = place(tmp_path, ["2026/20260621120000_80.bmp", ".x.bmp"])
    (line,) = warnings_on("extensions", config)
    text = "none of the 1 newest files has one of these, such as '2026/20260621120000_80.bmp'; "
    assert line.startswith(f"{text}files can be read of the kinds jpg, ")
    config = place(tmp_path / "b", ["2026/20260621120000_80.jpe"])
    assert warnings_on("extensions", config)[0].endswith("_80.jpe'; write [jpe]")


def test_metadata_that_state_no_usable_time_are_named(tmp_path: Path) -> None:
    config = place(tmp_path, ["20260621120000_80.png"], exposure_from="metadata")
    for time in (81, 200):
        path = tmp_path / "in" / f"2026062112000{time % 10}_80.jpg"
        path.write_bytes(stating(jpeg(), time))
    lines = check(config).stderr
    assert "1 of the 3 newest files fit" in lines
    assert "exposed 80 µs" in lines
    assert "exposure_from: 2 of the 3 newest files are left out, such as" in lines
    assert "do not state its exposure time" in lines or "200 µs, its name 80 µs" in lines


def test_names_without_an_exposure_are_read_with_their_metadata(tmp_path: Path) -> None:
    more = {"exposure_from": "metadata", "filename": "{timestamp:%Y%m%d%H%M%S}"}
    config = place(tmp_path, [], **more, bracket={"exposures": [80, 160], "min_exposures": 2})
    (tmp_path / "in").mkdir()
    for second, time in enumerate((81, 162)):
        path = tmp_path / "in" / f"2026062112000{second}.jpg"
        path.write_bytes(mobotix(jpeg(), str(time)))
    lines = check(config).stderr
    assert "2 of the 2 newest files fit" in lines
    assert "exposed 80 µs" in lines
    assert "exposed 160 µs" in lines
    assert "exposure_from" not in lines


def test_one_odd_bracket_contradicts_nothing(tmp_path: Path) -> None:
    names = [*names_of("80", "160", "320"), "20260621120115_640.png"]
    config = place(tmp_path, names, bracket={"exposures": [80, 160, 320]})
    assert warnings_on("bracket.exposures", config) == []


def test_labels_that_are_not_among_those_given_are_named(tmp_path: Path) -> None:
    names = names_of("0", "02", "11")
    config = place(tmp_path, names, exposure_labels={"0": 2000, "02": 500})
    (line,) = warnings_on("exposure_labels", config)
    assert line.startswith("8 of the 24 newest files are left out: their labels, as in ")
    assert line.endswith("exposure_labels_only: false if 11 is a time")
    config = place(tmp_path, [], exposure_labels={"0": 2000, "02": 500}, exposure_labels_only=False)
    assert warnings_on("exposure_labels", config) == []


def test_padded_times_are_no_labels(tmp_path: Path) -> None:
    config = place(tmp_path, names_of("080", "160", "320", "640"))
    assert warnings_on("exposure_labels", config) == []


def test_padded_times_that_are_expected_are_no_labels(tmp_path: Path) -> None:
    config = place(
        tmp_path, names_of("08", "16", "32"), exposure_unit="ms", bracket={"exposures": [8, 16, 32]}
    )
    assert warnings_on("exposure_labels", config) == []


def test_dates_in_the_future_are_reported(tmp_path: Path) -> None:
    config = place(tmp_path, ["20991006120000_80.png"])
    assert (
        "is read as 2099-10-06 12:00:00, which is in the future, or after"
        in warnings_on("filename", config)[0]
    )


@pytest.mark.parametrize(
    ("template", "written", "warned"),
    [
        ("{timestamp:%Y%d%m%H%M%S}_{exposure}", datetime(2026, 6, 10, 12), True),
        ("{timestamp:%Y%m%d%H%M%S}_{exposure}", datetime(2026, 6, 10, 12), False),
        ("{timestamp:%Y%m%d%H%M%S}_{exposure}", datetime(2026, 10, 6, 12), False),
    ],
)
def test_days_that_are_read_as_months_are_noticed_by_the_times_of_the_files(
    tmp_path: Path, template: str, written: datetime, warned: bool
) -> None:
    names = ["20260610120000_80.png", "20260610120001_160.png"]
    config = place(tmp_path, names, filename=template)
    for name in names:
        os.utime(tmp_path / "in" / name, (written.timestamp(), written.timestamp()))
    told = warnings_on("filename", config)
    assert any("%d and %m" in line for line in told) is warned


@pytest.mark.parametrize("key", ["watch", "output"])
def test_pictures_in_the_state_folder_are_refused(tmp_path: Path, key: str) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "state")
    for folder in ("state/pictures", "link/pictures"):
        config = place(tmp_path, [], **{key: folder})
        result = check(config)
        assert result.exit_code == 2
        assert f"cameras.roof.{key}: '{tmp_path}/{folder}' lies in state_dir" in result.stderr


def test_a_curve_that_the_daemon_has_adopted_is_known(tmp_path: Path) -> None:
    config = place(tmp_path, ["20260621120000_80.png"])
    assert "no response curve is given" in check(config).stderr
    state = tmp_path / "state"
    state.mkdir()
    adopted = tmp_path / "adopted.npz"
    with Ledger(state) as ledger:
        ledger.record_curve(
            CurveDecision("roof", "aa", str(adopted), None, "adopted", "better", 1.0, 0.5, 3)
        )
    adopted.write_bytes(response_bytes(np.linspace((-4,), (2,), 256)))
    assert "response" not in check(config).stderr
    described = yaml.safe_load(config.read_text())
    described["cameras"]["roof"]["response"] = "misspelt.npz"
    misspelt = tmp_path / "misspelt.yaml"
    misspelt.write_text(yaml.safe_dump(described))
    assert "the curve that the daemon has adopted is used instead" in check(misspelt).stderr
    adopted.write_bytes(b"PK")
    result = check(config)
    assert result.exit_code == 0
    assert f"adopted curve not used: {adopted}" in result.stderr
    assert "no response curve is given" in result.stderr


def test_a_curve_of_other_channels_is_a_warning_as_cameras_are_grey_by_night(
    tmp_path: Path,
) -> None:
    (tmp_path / "r.npz").write_bytes(response_bytes(np.linspace((-4, -4, -4), (2, 2, 2), 256)))
    config = place(tmp_path, names_of("80", "160", "320", brackets=3), response="r.npz")
    (line,) = warnings_on("bracket.exposures", config)
    assert line == (
        "in each of the newest 3 brackets the images have 1 channel, and no curve in use has"
    )


# -- what the newest pictures show ---------------------------------------------------------------

TRUE = 2.2 * np.log(np.maximum(np.arange(256), 0.5) / 128)


def photographed(folder: Path, taken: dict[int, int], white: int = 255, **camera: object) -> Path:
    """Three brackets of a smooth sky with a sun; `taken` gives the true time by the stated one."""
    config = place(folder, [], **camera)
    rows, columns = np.mgrid[:160, :160]
    sun = np.hypot(columns - 100, rows - 50)
    light = 3e-4 + 2e-3 * (0.5 + 0.5 * np.sin(rows / 25) * np.cos(columns / 31)) + 20 * (sun < 9)
    rng = np.random.default_rng(1)
    (folder / "in").mkdir(exist_ok=True)
    for n in range(3):
        for i, (stated, true) in enumerate(taken.items()):
            codes = 255 * (light * true) ** (1 / 2.2) + rng.normal(0, 1, light.shape)
            pixels = np.rint(np.clip(codes, 0, white)).astype(np.uint8)
            name = f"{START + timedelta(seconds=30 * n + i):%Y%m%d%H%M%S}_{stated}.png"
            (folder / "in" / name).write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    (folder / "true.npz").write_bytes(response_bytes(TRUE.astype(np.float32)[:, None]))
    return config


SOUND = {time: time for time in (80, 160, 320, 640, 1280)}


def test_sound_pictures_are_not_warned_of(tmp_path: Path) -> None:
    config = photographed(tmp_path, SOUND, response="true.npz")
    assert warnings_on("bracket.exposures", config) == []
    assert warnings_on("merge.high_clip", config) == []


@pytest.mark.parametrize(("stated", "true"), [(1280, 80), (80, 1280), (320, 1000)])
def test_an_exposure_that_contradicts_its_time_is_named(
    tmp_path: Path, stated: int, true: int
) -> None:
    config = photographed(tmp_path, SOUND | {stated: true}, response="true.npz")
    told = warnings_on("bracket.exposures", config)
    assert any(f"the exposure of {stated} µs contradicts" in line for line in told)


@pytest.mark.parametrize("white", [225, 235, 240])
def test_a_white_below_the_clip_is_noticed(tmp_path: Path, white: int) -> None:
    config = photographed(tmp_path, SOUND, white)
    (line,) = warnings_on("merge.high_clip", config)
    assert line.startswith("250 does not fit the newest images")
    fitting = int(line.rpartition(" ")[2])
    assert white - 8 <= fitting < white
    assert not warnings_on(
        "merge.high_clip", photographed(tmp_path, SOUND, white, merge={"high_clip": fitting})
    )


def test_one_grey_frame_in_every_bracket_is_a_warning(tmp_path: Path) -> None:
    names = names_of("80", "160", "320", brackets=3)
    config = place(tmp_path, names)
    assert warnings_on("bracket.exposures", config) == []
    colour = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    for name in names:
        if "_160" in name:
            (tmp_path / "in" / name).write_bytes(colour)
    (line,) = warnings_on("bracket.exposures", config)
    assert line.startswith("in each of the newest 3 brackets the images differ in size or channels")


def test_a_staging_folder_on_another_file_system_is_refused(tmp_path: Path) -> None:
    elsewhere = Path("/dev/shm/asi-watch-staging")
    if Path("/dev/shm").stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is one file system alone")
    config = place(tmp_path, [], staging=str(elsewhere))
    result = check(config)
    assert result.exit_code == 2
    assert "cameras.roof.staging" in result.stderr
    assert "is on another file system than" in result.stderr
    assert check(place(tmp_path, [], staging="staging")).exit_code == 0


def test_files_that_do_not_state_their_exposure_time_are_counted(tmp_path: Path) -> None:
    names = ["20260621120000.png", "20260621120002.png"]
    config = place(tmp_path, names, filename="{timestamp:%Y%m%d%H%M%S}", exposure_from="metadata")
    (line,) = warnings_on("exposure_from", config)
    assert line.startswith("2 of the 2 newest files are left out, such as '202606211200")
    assert line.endswith("its metadata do not state its exposure time")
