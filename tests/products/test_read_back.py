"""Radiance read back from every format that holds it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from PIL import Image

import asi_watch
from asi_watch.hdr.merge_settings import MergeSettings
from asi_watch.hdr.merging import open_merge
from asi_watch.images import looks_complete
from asi_watch.products import ProductSpec, RadianceLayers, encode, encode_merge
from asi_watch.products.gain_map import make_gain_map, read_gain_map, with_gain_map
from asi_watch.products.read_back import ProductError, read_product
from tests.products.making import layers, picture, provenance
from tests.skies import sky_bracket

SHAPE = (120, 160, 3)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("spec", "tolerance"),
    [
        (ProductSpec("exr", uncertainty=True), 1e-3),
        (ProductSpec("exr", pixel_type="float", compression="zip"), 1e-5),
        (ProductSpec("tiff"), 1e-5),
        (ProductSpec("hdr"), 0.05),
    ],
)
def test_what_was_written_is_read(
    tmp_path: Path, spec: ProductSpec, tolerance: float, channels: int
) -> None:
    made = layers((*SHAPE[:2], channels), spread=0.2)
    path = tmp_path / f"a{spec.suffix}"
    path.write_bytes(encode(spec, made, provenance()))
    found = asi_watch.read_product(path)
    radiance = np.exp(made.ln_radiance) * 1000
    assert found.radiance.dtype == np.float32
    assert found.validity is not None
    if spec.format == "hdr":  # three channels, one exponent
        assert found.radiance.shape == SHAPE
        radiance = np.broadcast_to(radiance, SHAPE)
    assert np.allclose(found.radiance, radiance, rtol=tolerance)
    assert np.array_equal(found.validity, np.broadcast_to(made.validity, radiance.shape))
    assert (found.uncertainty is not None) == spec.uncertainty
    if found.uncertainty is not None:
        assert np.allclose(found.uncertainty, made.uncertainty, atol=1e-3)
    assert found.provenance.camera == provenance().camera


def scene_of_a_sun() -> RadianceLayers:
    """A smooth scene of 14 stops with a sun."""
    y, x = np.mgrid[:240, :320]
    sun = np.hypot(x - 200, y - 80)
    ln = -3 + np.sin(x / 40) + np.cos(y / 30) + 7 * np.exp(-((sun / 12) ** 2)) - 2 * (y > 200)
    ln = np.stack([ln + 0.3, ln, ln - 0.2], axis=-1) - np.log(1000)
    validity = np.zeros(ln.shape, np.uint8)
    validity[sun < 4] = 2
    return RadianceLayers(ln.astype(np.float32), validity)


def shown(scene: RadianceLayers, channels: int = 3) -> bytes:
    light = np.exp(scene.ln_radiance + np.float32(np.log(1000)))
    codes = (255 * (light / (1 + light)) ** (1 / 2.2)).astype(np.uint8)
    kinds = ("GRAY", "Gray") if channels == 1 else ("BGR", "420")
    return bytes(simplejpeg.encode_jpeg(codes, 95, *kinds))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_gain_map_gives_radiance_back_within_a_twentieth_of_a_stop(channels: int) -> None:
    whole = scene_of_a_sun()
    assert whole.validity is not None
    part = np.s_[:, :, :channels]
    scene = RadianceLayers(whole.ln_radiance[part].copy(), whole.validity[part].copy())
    base = shown(scene, channels)
    made = make_gain_map(base, scene)
    data = with_gain_map(base, made.jpeg)
    radiance, validity = read_gain_map(data, made.log2_white)
    stops = np.log2(radiance) - (scene.ln_radiance / np.log(2) + np.log2(1000))
    assert np.median(np.abs(stops)) <= 0.05
    assert np.percentile(np.abs(stops), 99) < 0.2
    assert np.array_equal(validity, scene.validity)
    assert len(data) <= 2.5 * len(base) + 10_000  # the map's tables weigh in a small picture
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(np.asarray(image), np.asarray(Image.open(io.BytesIO(base))))


def test_the_reference_decoder_reads_our_gain_map() -> None:
    imagecodecs: Any = pytest.importorskip("imagecodecs")
    scene = scene_of_a_sun()
    base = shown(scene)
    made = make_gain_map(base, scene)
    data = with_gain_map(base, made.jpeg)
    light = imagecodecs.ultrahdr_decode(data)[..., 2::-1].astype(np.float32)
    radiance, _ = read_gain_map(data, made.log2_white)
    off = np.log2(light / (radiance / 2**made.log2_white))
    assert np.median(np.abs(off)) < 0.01
    assert np.percentile(np.abs(off), 99) < 0.1


@pytest.mark.parametrize("algorithm", ["debevec_exact", "debevec", "mertens"])
def test_a_merge_with_a_gain_map_is_read_as_its_radiance(tmp_path: Path, algorithm: str) -> None:
    sky = sky_bracket(160)
    merge = open_merge(MergeSettings(algorithm), sky.log_response, (160, 160, 3))
    for pixels, time in zip(sky.images, sky.exposures_us, strict=True):
        merge.add(pixels, time)
    spec = ProductSpec("jpg", gain_map=True, quality=98, subsampling="444")
    path = tmp_path / "a.jpg"
    path.write_bytes(encode_merge(spec, merge, provenance(algorithm=algorithm)).data)
    assert looks_complete(path)
    if algorithm == "mertens":
        with pytest.raises(ProductError, match="no radiance"):
            read_product(path)
        return
    found, wanted = read_product(path), merge.radiance()
    stops = np.log2(found.radiance) - (wanted.ln_radiance / np.log(2) + np.log2(1000))
    # Of 160 pixels, noise is sharp: it costs more here than in a picture of full size.
    assert np.median(np.abs(stops[wanted.validity == 0])) < 0.08
    assert np.array_equal(found.validity, wanted.validity)


@pytest.mark.parametrize("format_", ["jpg", "exr", "tiff", "hdr"])
def test_damaged_files_raise_product_errors_only(tmp_path: Path, format_: Any) -> None:
    path, rng = tmp_path / "a", np.random.default_rng(3)
    if format_ == "jpg":
        base = encode(ProductSpec("jpg"), picture(SHAPE, np.uint8), provenance())
        made = make_gain_map(bytes(base), layers(SHAPE))
        pixels = {"gain_map_log2_white": made.log2_white}
        text = encode(ProductSpec("jpg"), picture(SHAPE, np.uint8), provenance(pixels=pixels))
        data = with_gain_map(bytes(text), made.jpeg)
    else:
        data = bytes(encode(ProductSpec(format_), layers(SHAPE), provenance()))
    for _ in range(60):
        hurt = bytearray(data[: rng.integers(1, len(data))] if rng.random() < 0.5 else data)
        for at in rng.integers(0, len(hurt), 4):
            hurt[at] = rng.integers(0, 256)
        path.write_bytes(hurt)
        try:
            read_product(path)
        except ProductError as error:
            assert str(path) in str(error)


def test_what_holds_no_radiance_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(encode(ProductSpec("jpg"), picture(SHAPE, np.uint8), provenance()))
    with pytest.raises(ProductError, match="holds a picture and no radiance"):
        read_product(path)
    with pytest.raises(ProductError, match="No such file"):
        read_product(tmp_path / "gone")
