"""A camera's sky disc: the same in the daemon, in a run over the folder, with and without curve."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from asi_watch.buffers import BufferPool
from asi_watch.cli import main
from asi_watch.config.loading import parse_config
from asi_watch.hdr.response import ResponseCurve
from asi_watch.live.messages import MergeBracket, ReadFile, ReadOk
from asi_watch.live.workers.merger import MemoryBudget, Merger
from asi_watch.merge_bracket import Failed, Published
from asi_watch.products import read_provenance
from tests.pipeline.making import write_curve
from tests.skies import jpeg_bracket

SLOT = datetime(2026, 6, 21, 12)
SIZE = 64
CONFIG = """
state_dir: {root}/state
cameras:
  roof:
    watch: {root}/in
    output: {root}/out
    response: {root}/r.npz
    bracket: {{exposures: 5}}
    products: [{{format: jpg}}, {{format: png}}, {{format: exr}}, {{format: tiff}}]
    merge: {{sky_disc: {disc}, algorithm: {algorithm}}}
"""


def merged_live(root: Path, text: str, curve: ResponseCurve | None) -> Published | Failed:
    (root / "in").mkdir(exist_ok=True)
    settings = parse_config(text.encode(), "x", root).config.cameras["roof"]
    buffers = BufferPool(1 << 30)
    shop = Merger(settings, MemoryBudget(1 << 30), buffers)
    if curve is not None:
        shop.use_curves((curve,))
    read = []
    for exposure, data in sorted(jpeg_bracket(SIZE).items(), reverse=True):
        path = f"{SLOT:%Y%m%d%H%M%S}_{exposure}.jpg"
        (root / "in" / path).write_bytes(data)
        outcome = shop.read(ReadFile(SLOT, path, SLOT, float(exposure), None, True))
        assert isinstance(outcome, ReadOk)
        read.append(outcome.exposure)
    inputs = tuple(sorted(read, key=lambda e: e.exposure_us))
    result = shop.merge(MergeBracket(SLOT, inputs, expected=5, complete=True), 0.0)
    assert isinstance(result, Published | Failed)
    return result


@pytest.mark.parametrize("algorithm", ["debevec_custom", "debevec"])
def test_the_daemon_and_one_run_give_the_same_bytes(tmp_path: Path, algorithm: str) -> None:
    curve = write_curve(tmp_path / "r.npz")
    text = CONFIG.format(root=tmp_path, disc="[30, 33.5, 20]", algorithm=algorithm)
    live = merged_live(tmp_path, text, curve)
    assert isinstance(live, Published)
    (tmp_path / "c.yaml").write_text(text)
    answer = CliRunner().invoke(
        main, ["merge", f"{tmp_path}/in", f"{tmp_path}/once", "-c", f"{tmp_path}/c.yaml"]
    )
    assert answer.exit_code == 0, answer.output
    assert len(live.products) == 4
    for name in live.products:
        once = (tmp_path / "once" / name).read_bytes()
        assert (tmp_path / "out" / name).read_bytes() == once, name
    rows, columns = np.ogrid[0:SIZE, 0:SIZE]
    inside = (rows - 33.5) ** 2 + (columns - 30) ** 2 <= 20**2
    picture = cv2.imread(str(tmp_path / f"out/{SLOT:%Y%m%d%H%M%S}_hdr.png"), cv2.IMREAD_UNCHANGED)
    assert picture[inside].any(axis=1).all() and not picture[~inside].any()
    noted = read_provenance(tmp_path / "out" / live.products[0]).parameters
    assert (noted["sky_x"], noted["sky_y"], noted["sky_radius"]) == (30, 33.5, 20)


def test_fusion_before_there_is_a_curve_keeps_to_the_disc_too(tmp_path: Path) -> None:
    text = CONFIG.format(root=tmp_path, disc="[30, 33.5, 20]", algorithm="debevec_custom")
    live = merged_live(tmp_path, text, None)
    assert isinstance(live, Published) and live.algorithm == "mertens"
    picture = cv2.imread(str(tmp_path / f"out/{SLOT:%Y%m%d%H%M%S}_hdr.png"), cv2.IMREAD_UNCHANGED)
    assert picture[33, 30].any() and not picture[:13].any() and not picture[:, 51:].any()


def test_without_a_disc_nothing_is_noted(tmp_path: Path) -> None:
    curve = write_curve(tmp_path / "r.npz")
    text = CONFIG.format(root=tmp_path, disc="null", algorithm="debevec_custom")
    live = merged_live(tmp_path, text, curve)
    assert isinstance(live, Published)
    noted = read_provenance(tmp_path / "out" / live.products[0]).parameters
    assert not [key for key in noted if "sky" in key]


def test_a_disc_outside_the_pictures_is_told_with_the_remedy(tmp_path: Path) -> None:
    curve = write_curve(tmp_path / "r.npz")
    text = CONFIG.format(root=tmp_path, disc="[600, 40, 12.5]", algorithm="debevec_custom")
    failed = merged_live(tmp_path, text, curve)
    assert isinstance(failed, Failed) and failed.kind == "permanent"
    assert failed.reason == (
        "sky_disc 600, 40, 12.5 lies outside of pictures of 64×64; give column and row of its"
        " centre and its radius in their pixels"
    )
