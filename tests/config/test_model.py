"""What a configuration means: defaults, paths, units, and writing it back."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from asi_watch.config import (
    CameraConfig,
    Config,
    ConfigError,
    dump_config,
    load_config,
    parse_config,
)
from asi_watch.config.model import PRODUCT_OPTIONS, ProductConfig
from asi_watch.naming import ParsedName

HOME = Path(__file__).parent.parent.parent
FILES = [HOME / "config/asi-watch.yaml", *sorted((HOME / "config/examples").glob("*.yaml"))]
SMALLEST = "cameras: {roof: {watch: /in, output: /out}}"


def config_of(text: str, base: Path = Path("/base")) -> Config:
    return parse_config(text.encode(), "asi.yaml", base).config


def camera_of(settings: str = "") -> CameraConfig:
    return config_of(f"cameras: {{roof: {{watch: /in, output: /out, {settings}}}}}").cameras["roof"]


def test_only_watch_and_output_must_be_given() -> None:
    camera = config_of(SMALLEST).cameras["roof"]
    assert (camera.watch, camera.output) == (Path("/in"), Path("/out"))


def test_the_file_we_ship_states_every_default() -> None:
    """Every key is there, and with the value it has when it is left out."""
    shipped = yaml.safe_load(FILES[0].read_text())
    camera = shipped["cameras"]["roof"]
    smallest = f"cameras: {{roof: {{watch: {camera['watch']}, output: {camera['output']}}}}}"
    assert shipped == yaml.safe_load(dump_config(config_of(smallest)))
    assert load_config(FILES[0]) == config_of(smallest)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_we_ship_are_right_and_survive_writing_back(path: Path) -> None:
    config = load_config(path)
    assert config_of(dump_config(config)) == config


def test_examples_read_the_names_of_their_cameras() -> None:
    names = {
        "mobotix": ("20240621103008_1280.jpg", 1280),
        "eko-asi16": ("20240621103000_02.jpg", 500),
        "raspberry-pi": ("20240621103000_5250.jpg", 5250),
    }
    for path in FILES[1:]:
        (camera,) = load_config(path).cameras.values()
        name, exposure_us = names.pop(path.stem)
        parsed = camera.pattern.parse(name)
        assert parsed is not None
        assert parsed.exposure_us == exposure_us
        assert isinstance(camera.expected_exposures_us, tuple)
        assert exposure_us in camera.expected_exposures_us
    assert not names


def test_relative_paths_count_from_the_folder_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "etc").mkdir()
    text = "state_dir: ../state\ncameras: {roof: {watch: in, output: /out, response: g.npz}}"
    (tmp_path / "etc/asi.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    config = load_config("etc/asi.yaml")
    assert config.state_dir == tmp_path / "etc/../state"
    assert config.cameras["roof"].watch == tmp_path / "etc/in"
    assert config.cameras["roof"].output == Path("/out")
    assert config.cameras["roof"].response == tmp_path / "etc/g.npz"


def test_nothing_can_be_changed() -> None:
    config = config_of(SMALLEST)
    with pytest.raises(ValidationError):
        config.state_dir = Path("/else")  # type: ignore[misc]
    with pytest.raises(ValidationError):
        config.cameras["roof"].bracket.grace = timedelta(0)  # type: ignore[misc]


def test_exposures_and_labels_count_in_the_exposure_unit() -> None:
    camera = camera_of(
        "exposure_unit: ms, exposure_labels: {a: 2}, bracket: {exposures: [0.5, 2, 8]}"
    )
    assert camera.expected_exposures_us == (500, 2000, 8000)
    parsed = camera.pattern.parse("20240621103008_a.jpg")
    assert parsed == ParsedName(datetime(2024, 6, 21, 10, 30, 8), 2000)
    assert camera.bracket.expected_count == 3


@pytest.mark.parametrize(("written", "count"), [("auto", None), ("12", 12)])
def test_exposures_by_count_or_learned(written: str, count: int | None) -> None:
    camera = camera_of(f"bracket: {{exposures: {written}}}")
    assert camera.bracket.expected_count == count
    assert str(camera.expected_exposures_us) == written


def test_pictures_of_an_earlier_version_keep_their_look() -> None:
    old = camera_of("merge: {gamma: 1.8, lnE_range: [-9, 2], low_clip: 7}").merge_settings
    assert (old.tone.operator, old.gamma, old.lnE_range, old.low_clip) == ("gamma", 1.8, (-9, 2), 7)
    complete = camera_of("merge: {gamma: 2.2, lnE_range: null}").merge_settings
    assert (complete.tone.operator, complete.gamma, complete.lnE_range) == ("gamma", 2.2, None)
    new = camera_of("tone: {scale: [-9, 2]}").merge_settings
    assert (new.tone.operator, new.tone.scale, new.lnE_range) == ("photographic", "curve", (-9, 2))
    with pytest.raises(ConfigError, match=r"merge\.gamma: .*write tone\.gamma"):
        camera_of("merge: {gamma: 2.2}, tone: {operator: drago}")


def test_an_empty_size_limit_of_an_earlier_version_is_passed_over() -> None:
    camera = camera_of("retention: {exposures: {max_age: 30d, max_size: null}}")
    assert camera == camera_of("retention: {exposures: {max_age: 30d}}")


def test_with_labels_a_number_that_is_none_does_not_fit() -> None:
    name = "20240621103008_80.jpg"
    assert camera_of('exposure_labels: {"0": 500}').pattern.parse(name) is None
    also = camera_of('exposure_labels: {"0": 500}, exposure_labels_only: false')
    assert also.pattern.parse(name) is not None
    assert camera_of().pattern.parse(name) is not None
    listed = 'exposure_labels: {"0": 500}, bracket: {exposures: [80, 160, 500]}'
    assert camera_of(listed).pattern.parse(name) is not None
    assert camera_of(listed).pattern.parse("20240621103008_81.jpg") is None
    seconds = 'exposure_labels: {"0": 500}, bracket: {exposures: [500, 1000000, 12345678]}'
    for time in (1_000_000, 12_345_678):
        assert camera_of(seconds).pattern.parse(f"20240621103008_{time}.jpg") is not None


@pytest.mark.parametrize("written", ["off", '"off"', "weights"])
def test_off_is_a_word(written: str) -> None:
    """Though YAML reads it as false."""
    assert camera_of(f"merge: {{deghost: {written}}}").merge.deghost == written.strip('"')


def test_never_is_none() -> None:
    camera = camera_of("recalibrate: {every: never}")
    assert camera.recalibrate.every is None
    assert "every: never" in dump_config(
        config_of(SMALLEST.replace("/out", "/out, recalibrate: {every: never}"))
    )


def test_options_belong_to_their_format() -> None:
    camera = camera_of("products: [{format: jpg, subsampling: 444}, {format: exr}, {format: png}]")
    assert [product.options for product in camera.products] == [
        {"quality": 95, "subsampling": "444", "keep_camera_header": False, "gain_map": False},
        {"compression": "piz", "pixel_type": "auto", "uncertainty": False},
        {},
    ]


def test_every_option_of_a_format_is_a_key() -> None:
    for product_format, options in PRODUCT_OPTIONS.items():
        assert ProductConfig.model_validate({"format": product_format}).options == options


def test_extensions_are_lower_case_without_dot() -> None:
    assert camera_of("extensions: [.JPG, jpg, png]").extensions == ("jpg", "png")


def test_settings_shared_by_merge_keys() -> None:
    config = config_of(
        """
cameras:
  a: &a {watch: /in/a, output: /out/a, bracket: &b {grace: 5s, min_exposures: 2}}
  b: {<<: *a, watch: /in/b, output: /out/b, bracket: {<<: *b, grace: 7s}}
"""
    )
    bracket = config.cameras["b"].bracket
    assert (bracket.grace, bracket.min_exposures) == (timedelta(seconds=7), 2)
    assert config.cameras["a"].bracket.grace == timedelta(seconds=5)


def test_of_several_merge_keys_the_first_wins() -> None:
    config = config_of(
        """
cameras:
  a: &a {watch: /in/a, output: /out/a, stable_for: 2s}
  b: &b {watch: /in/b, output: /out/b, stable_for: 3s, timezone: Etc/GMT-1}
  c: {<<: [*a, *b], watch: /in/c, output: /out/c}
"""
    )
    camera = config.cameras["c"]
    assert (camera.stable_for, camera.timezone) == (timedelta(seconds=2), "Etc/GMT-1")


def test_byte_order_mark_and_windows_line_ends_are_read() -> None:
    text = b"\xef\xbb\xbfcameras:\r\n  roof:\r\n    watch: /in\r\n    output: /out\r\n"
    assert parse_config(text, "asi.yaml", Path("/")).config == config_of(SMALLEST)


def test_paths_that_are_not_utf8_survive_writing_back() -> None:
    config = config_of('cameras: {roof: {watch: "/in/caf\\udce9", output: /out}}')
    assert os.fsencode(config.cameras["roof"].watch) == b"/in/caf\xe9"
    assert config_of(dump_config(config)) == config


def test_names_that_are_not_utf8_can_be_told() -> None:
    template = r"caf\udce9_{timestamp:%Y%m%d%H%M%S}_{exposure}"
    config = config_of(SMALLEST.replace("/out", f'/out, filename: "{template}"'))
    name = os.fsdecode(b"caf\xe9_20240621103008_80.jpg")
    assert config.cameras["roof"].pattern.parse(name) is not None
    assert config_of(dump_config(config)) == config


durations = st.integers(1, 3600).map(lambda seconds: f"{seconds}s")
cameras: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"watch": st.just("/in"), "output": st.just("/out")},
    optional={
        "exposure_unit": st.sampled_from(["us", "ms", "s"]),
        "exposure_labels": st.dictionaries(
            st.text("0123456789abé", min_size=1, max_size=3), st.integers(1, 9999), max_size=3
        ),
        "timezone": st.sampled_from(["UTC", "Etc/GMT-1"]),
        "stable_for": durations,
        "bracket": st.fixed_dictionaries(
            {"exposures": st.lists(st.integers(1, 9999), min_size=3, max_size=9, unique=True)},
            optional={"round_to": durations, "late": st.sampled_from(["remerge", "ignore"])},
        ),
        "merge": st.fixed_dictionaries(
            {},
            optional={
                "gamma": st.floats(0.1, 10),
                "low_clip": st.integers(0, 100),
                "lnE_range": st.sampled_from([None, [-6.5, 4]]),
            },
        )
        | st.fixed_dictionaries({"sky_disc": st.none()}),
        "recalibrate": st.fixed_dictionaries(
            {}, optional={"sky_disc": st.sampled_from(["auto", None, [1024, 1010.5, 980]])}
        ),
        "products": st.lists(
            st.sampled_from(["jpg", "png", "jp2", "exr", "tiff", "hdr"]), min_size=1, unique=True
        ).map(lambda names: [{"format": name} for name in names]),
    },
)


@settings(max_examples=40, deadline=None)
@given(cameras)
def test_the_effective_configuration_means_the_same(camera: dict[str, Any]) -> None:
    config = config_of(yaml.safe_dump({"cameras": {"roof": camera}}, allow_unicode=True))
    dumped = dump_config(config)
    assert config_of(dumped) == config
    assert dump_config(config_of(dumped)) == dumped


@pytest.mark.parametrize(
    ("expect", "where"),
    [
        ("{every: 30s, from: noon}", "expect.from"),
        ("{every: 30s, until: 25:00}", "expect.until"),
        ("{from: 5:00}", "expect.every"),
        ("{every: 30s, sun_above: 0}", "expect.sun_above"),
    ],
)
def test_what_is_expected_must_make_sense(expect: str, where: str) -> None:
    with pytest.raises(ConfigError, match=f"cameras.roof.{where}"):
        config_of(f"cameras: {{roof: {{watch: /in, output: /out, expect: {expect}}}}}")


def test_what_is_expected_is_dumped_as_it_is_written() -> None:
    expect = "{every: 30s, from: 5:00, until: 22:30, sun_above: -3}"
    place = "geometry: {latitude: 52, longitude: 13}"
    text = f"cameras: {{roof: {{watch: /in, output: /out, {place}, expect: {expect}}}}}"
    dumped = dump_config(config_of(text))
    assert config_of(dumped) == config_of(text)
    assert yaml.safe_load(dumped)["cameras"]["roof"]["expect"]["until"] == "22:30"


# -- the manual ------------------------------------------------------------------------------


def leaves(data: dict[str, Any], way: str = "") -> dict[str, Any]:
    """Flatten nested mappings to `bracket.grace: 10s`."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        nested = isinstance(value, dict) and value
        flat |= leaves(value, f"{way}{key}.") if nested else {f"{way}{key}": value}
    return flat


def test_the_manual_states_every_key_with_its_default() -> None:
    config = yaml.safe_load(dump_config(config_of(SMALLEST)))
    camera = config.pop("cameras")["roof"]
    expected = leaves(config) | leaves(camera)
    rows = [
        [cell.strip().strip("`") for cell in line.split("|")[1:3]]
        for line in (HOME / "docs/configuration.md").read_text().splitlines()
        if line.startswith("| `")
    ]
    stated = dict(rows)
    products = expected.pop("products")
    assert (
        f"`[{{format: jpg, quality: {products[0]['quality']},"
        in (HOME / "docs/configuration.md").read_text()
    )
    assert stated["watch"] == stated["output"] == "required"
    del expected["watch"], expected["output"]
    assert {key: yaml.safe_load(stated[key]) if key != "filename" else stated[key]
            for key in expected} == expected  # fmt: skip


def test_the_manual_states_every_option_of_a_format() -> None:
    manual = (HOME / "docs/configuration.md").read_text()
    for product_format, options in PRODUCT_OPTIONS.items():
        row = next(row for row in manual.splitlines() if row.startswith(f"| `{product_format}` |"))
        for name, default in options.items():
            written = yaml.safe_dump(default).split("\n")[0].replace("'", '"')
            assert f"`{name}: {written}`" in row


def test_products_are_no_exposures_whatever_their_name() -> None:
    text = (
        'roof: {watch: /in, output: /in/out, products: [{format: jpg, name: "X{timestamp:%s}_0"}]}'
    )
    camera = config_of("cameras: {%s}" % (text % "%Y%m%d%H%M%S")).cameras["roof"]
    names = ["20260621090000_80.jpg", "X20260621090000_0.jpg", "20260621090000_hdr.jpg"]
    names += ["latest.jpg", ".20260621090000_80.jpg", "20260621090000_80.txt"]
    assert [name for name in names if camera.wants(name)] == names[:1]
