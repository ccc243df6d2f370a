"""There is one merge in the house: the same bracket, live and in a batch, gives the same file."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from asi_watch.buffers import BufferPool
from asi_watch.cli import main
from asi_watch.config import load_config
from asi_watch.live.messages import MergeBracket, ReadFile, ReadOk, Unusable
from asi_watch.live.workers.merger import MemoryBudget, Merger
from asi_watch.merge_bracket import Published
from asi_watch.pipeline.find_brackets import parse_name
from asi_watch.products import Unusable as LeftOut
from asi_watch.products import read_provenance
from asi_watch.response_files import load_curve
from tests.images.pictures import stating
from tests.pipeline.making import products, slot, write_bracket, write_curve

CONFIG = """\
state_dir: {root}/state
cameras:
  roof:
    watch: {root}/a
    output: {root}/live
    response: {root}/r.npz
    timezone: Etc/GMT-1
    bracket: {{exposures: [80, 160, 320, 640, 1280]}}
    merge: {{algorithm: {algorithm}, weight_type: sine, gamma: 1.9, low_clip: 8}}
    products: [{{format: jpg, quality: 91}}, {{format: png}}]
"""


@pytest.mark.parametrize("algorithm", ["debevec_custom", "debevec"])
def test_live_and_batch_write_the_same_bytes(tmp_path: Path, algorithm: str) -> None:
    write_curve(tmp_path / "r.npz")
    paths = write_bracket(tmp_path / "a", 1)
    config = tmp_path / "c.yaml"
    config.write_text(CONFIG.format(root=tmp_path, algorithm=algorithm))
    merge_live(tmp_path, config, paths)
    result = CliRunner().invoke(
        main, ["merge", str(tmp_path / "a"), str(tmp_path / "batch"), "-c", str(config)]
    )
    assert result.exit_code == 0, result.output
    names = products(tmp_path / "live")
    assert len(names) == 2
    assert products(tmp_path / "batch") == names
    for name in names:
        assert (tmp_path / "live" / name).read_bytes() == (tmp_path / "batch" / name).read_bytes()


def test_exposure_times_of_the_metadata_are_merged_live_and_in_a_batch(tmp_path: Path) -> None:
    """Names round 81 to 80; one file states nothing, one another time than its name."""
    write_curve(tmp_path / "r.npz")
    paths = write_bracket(tmp_path / "a", 1)
    stated = {80: 81, 160: 162, 320: 324, 640: None, 1280: 640}
    for path, (named, time) in zip(paths, stated.items(), strict=True):
        assert f"_{named}." in path.name
        if time is not None:
            path.write_bytes(stating(path.read_bytes(), time))
    config = tmp_path / "c.yaml"
    text = CONFIG.format(root=tmp_path, algorithm="debevec_custom")
    config.write_text(text.replace("timezone:", "exposure_from: metadata\n    timezone:"))
    merge_live(tmp_path, config, paths)
    result = CliRunner().invoke(
        main, ["merge", str(tmp_path / "a"), str(tmp_path / "batch"), "-c", str(config)]
    )
    assert result.exit_code == 1, result.output
    assert "2 files cannot be used" in result.output
    for name in products(tmp_path / "live"):
        data = (tmp_path / "live" / name).read_bytes()
        assert (tmp_path / "batch" / name).read_bytes() == data
    made = read_provenance(tmp_path / "live" / products(tmp_path / "live")[0])
    assert [(s.nominal_us, s.exposure_us) for s in made.sources] == [
        (80, 81),
        (160, 162),
        (320, 324),
    ]
    assert [u.reason[:41] for u in made.unusable] == [
        "its metadata do not state its exposure ti",
        "its metadata state an exposure time of 64",
    ]
    assert not made.complete


def merge_live(root: Path, config: Path, paths: list[Path]) -> None:
    """Absorb the frames as they arrive, the longest first, then merge."""
    settings = load_config(config).cameras["roof"]
    buffers = BufferPool(10**8)
    merger = Merger(settings, MemoryBudget(10**9), buffers)
    merger.use_curves((load_curve(root / "r.npz"),))
    exposures, rejected = [], []
    for path in reversed(paths):
        parsed = parse_name(path.name)
        assert parsed is not None
        relative = str(path.relative_to(root / "a"))
        read = merger.read(ReadFile(slot(1), relative, *parsed, None, True))
        if isinstance(read, ReadOk):
            exposures.insert(0, read.exposure)
        else:
            assert isinstance(read, Unusable)
            rejected.append(LeftOut(relative, read.reason))
    whole = not rejected
    bracket = MergeBracket(
        slot(1), tuple(exposures), expected=5, complete=whole, left_out=tuple(rejected)
    )
    outcome = merger.merge(bracket, 0.0)
    assert isinstance(outcome, Published), outcome
