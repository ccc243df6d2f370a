"""Cameras as the manual describes them, before the running daemon."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from asi_watch.cli import main
from asi_watch.simulator.simulation import SimulatorSettings, simulate
from tests.integration.daemon import SIZE, Site
from tests.simulator.test_styles import examples

pytestmark = pytest.mark.integration

BRACKETS = 2


@pytest.mark.parametrize("style", ["mobotix", "eko", "indi-allsky", "ip-camera"])
def test_the_daemon_makes_of_a_cameras_files_what_a_merge_makes(
    make_site: Callable[..., Site], tmp_path: Path, style: str
) -> None:
    camera = yaml.safe_load(dict(examples())[style])["cameras"]["roof"]
    site = make_site(**{k: v for k, v in camera.items() if k not in ("watch", "output")})
    site.start()
    options = {"brackets": BRACKETS, "size": SIZE, "speed": float("inf"), "writer": "mixed"}
    simulate(SimulatorSettings(site.watch, style=style, **options))
    for number in range(BRACKETS):
        site.until_published(number)
    assert site.stop() == 0
    again = tmp_path / "again"
    words = ["merge", str(site.watch), str(again), "-c", str(site.config), "--workers", "0"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    live, batch = (
        {p.relative_to(root): p.read_bytes() for p in root.rglob("*_hdr.*")}
        for root in (site.output, again)
    )
    assert len(live) == BRACKETS
    assert live == batch
