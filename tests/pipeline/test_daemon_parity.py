"""There is one merge in the house: the same bracket, live and in a batch, gives the same file."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from asi_watch.brackets import Exposure
from asi_watch.buffers import BufferPool
from asi_watch.cli import main
from asi_watch.config import load_config
from asi_watch.live.messages import MergeBracket, ReadFile
from asi_watch.live.workers.merger import MemoryBudget, Merger
from asi_watch.merge_bracket import Published
from asi_watch.pipeline.find_brackets import parse_name
from asi_watch.response_files import load_curve
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


def merge_live(root: Path, config: Path, paths: list[Path]) -> None:
    """Absorb the frames as they arrive, the longest first, then merge."""
    settings = load_config(config).cameras["roof"]
    buffers = BufferPool(10**8)
    merger = Merger(settings, MemoryBudget(10**9), buffers)
    merger.use_curves((load_curve(root / "r.npz"),))
    exposures = []
    for path in paths:
        parsed = parse_name(path.name)
        assert parsed is not None
        status = path.stat()
        relative = str(path.relative_to(root / "a"))
        exposures.append(Exposure(relative, *parsed, status.st_size, status.st_mtime_ns))
    for e in reversed(exposures):
        merger.read(ReadFile(slot(1), e.path, e.timestamp, e.exposure_us, None, True))
    outcome = merger.merge(MergeBracket(slot(1), tuple(exposures), expected=5, complete=True), 0.0)
    assert isinstance(outcome, Published), outcome
