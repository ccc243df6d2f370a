"""`explain`: how a product came to be, and whether a new merge gives the same bytes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from asi_watch.cli import main
from asi_watch.response_files import response_bytes

TRUE = 2.2 * np.log(np.maximum(np.arange(256), 0.5) / 128)
TIMES = (80, 160, 320, 640)


class Place:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.configure()
        (folder / "g.npz").write_bytes(response_bytes(TRUE.astype(np.float32)[:, None]))

    def configure(self, more: str = "") -> None:
        (self.folder / "asi.yaml").write_text(
            "state_dir: state\ncameras:\n  roof:\n    watch: in\n    output: out\n"
            f"    response: g.npz\n    products: [{{format: jpg}}, {{format: exr}}]\n{more}"
        )

    def shoot(self, wrong: int | None = None) -> None:
        rows, columns = np.mgrid[:96, :96]
        light = 3e-4 + 2e-3 * (0.5 + 0.5 * np.sin(rows / 25) * np.cos(columns / 31))
        (self.folder / "in").mkdir()
        for n, time in enumerate(TIMES):
            taken = 16 * time if time == wrong else time
            codes = np.rint(np.clip(255 * (light * taken) ** (1 / 2.2), 0, 255)).astype(np.uint8)
            path = self.folder / "in" / f"2026062112000{n}_{time}.png"
            path.write_bytes(cv2.imencode(".png", codes)[1].tobytes())

    def asi(self, *arguments: object) -> Result:
        return CliRunner().invoke(main, list(map(str, arguments)))

    def explain(self, suffix: str = "jpg", *more: str) -> Result:
        product = self.folder / f"out/20260621120000_hdr.{suffix}"
        return self.asi("explain", product, "-c", self.folder / "asi.yaml", *more)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def merge(place: Place) -> None:
    where = (place.folder / "in", place.folder / "out", "-c", place.folder / "asi.yaml")
    result = place.asi("merge", *where)
    assert result.exit_code == 0 or "left out" in result.output, result.output


@pytest.mark.parametrize("wrong", [None, 320])
@pytest.mark.parametrize("suffix", ["jpg", "exr"])
def test_a_product_whose_inputs_are_there_comes_out_the_same(
    place: Place, suffix: str, wrong: int | None
) -> None:
    place.shoot(wrong)
    merge(place)
    result = place.explain(suffix)
    assert result.exit_code == 0, result.output
    assert "a new merge gives the same bytes" in result.output
    assert "80 µs  20260621120000_80.png" in result.output
    assert ("left out: 20260621120002_320.png" in result.output) is (wrong == 320)
    document = json.loads(place.explain(suffix, "--json").stdout)
    assert document["same_bytes"] is True
    assert set(document["inputs"].values()) == {"there"}


def test_what_is_gone_or_changed_is_named(place: Place) -> None:
    place.shoot()
    merge(place)
    (place.folder / "in/20260621120000_80.png").unlink()
    os.utime(place.folder / "in/20260621120001_160.png", (1, 1))
    result = place.explain()
    assert result.exit_code == 1
    assert "20260621120000_80.png: gone" in result.output
    assert "20260621120001_160.png: changed since" in result.output
    alone = place.asi("explain", place.folder / "out/20260621120000_hdr.jpg")
    assert alone.exit_code == 0
    assert "bytes)" in alone.output


def test_settings_and_curves_that_differ_are_named(place: Place) -> None:
    place.shoot()
    merge(place)
    place.configure("    merge: {gamma: 1.8}\n")
    (place.folder / "g.npz").write_bytes(response_bytes((2 * TRUE).astype(np.float32)[:, None]))
    result = place.explain()
    assert result.exit_code == 1
    assert "gamma: 2.2, now 1.8" in result.output
    assert "is not there any more" in result.output
    assert "the new file has other bytes" in result.output


def test_a_file_that_is_no_product_is_refused(place: Place) -> None:
    place.shoot()
    result = place.asi("explain", place.folder / "in/20260621120000_80.png")
    assert result.exit_code == 1
    assert "provenance" in result.output


def test_nothing_is_written_where_products_have_a_place_of_their_own(place: Place) -> None:
    place.shoot()
    text = (place.folder / "asi.yaml").read_text()
    own = "{format: jpg, name: '{timestamp:%Y%m%d%H%M%S}_0', output: own, latest: true}"
    geometry = "    geometry: {latitude: 37.1, lens: Q26}\n"
    text = text.replace("{format: exr}", f"{{format: exr}}, {own}") + geometry
    (place.folder / "asi.yaml").write_text(text)
    merge(place)
    (place.folder / "own").mkdir()  # where the daemon writes them; `merge` has one folder for all
    for name in ("20260621120000_0.jpg", "latest.jpg"):
        (place.folder / "out" / name).rename(place.folder / "own" / name)
    own_files = sorted((place.folder / "own").iterdir())
    before = [(path.name, path.stat().st_mtime_ns, path.stat().st_ino) for path in own_files]
    assert [name for name, *_ in before] == ["20260621120000_0.jpg", "latest.jpg"]
    config = place.folder / "asi.yaml"
    for product in ("own/20260621120000_0.jpg", "out/20260621120000_hdr.jpg"):
        result = place.asi("explain", place.folder / product, "-c", config)
        assert result.exit_code == 0, result.output
        assert "a new merge gives the same bytes" in result.output
    own_files = sorted((place.folder / "own").iterdir())
    assert [(p.name, p.stat().st_mtime_ns, p.stat().st_ino) for p in own_files] == before
