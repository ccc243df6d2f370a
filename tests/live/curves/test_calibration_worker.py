from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from asi_watch.hdr.calibration import calibrate_response
from asi_watch.live.curves import calibration_worker
from asi_watch.live.curves.calibration_worker import judge
from asi_watch.response_files import load_curve
from tests.pipeline.making import write_archive


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(calibration_worker, "SAMPLES_PER_BRACKET", 300)
    quick = partial(calibrate_response, robust=False)  # where samples come from is what is tested
    monkeypatch.setattr(calibration_worker, "calibrate_response", quick)
    files = [
        [[str(path), float(path.stem.rpartition("_")[2])] for path in bracket]
        for bracket in write_archive(tmp_path / "a", 2)
    ]
    return {
        "brackets": files,
        "present": None,
        "folder": str(tmp_path / "curves"),
        "low_clip": 5,
        "high_clip": 250,
        "sky_disc": "auto",
    }


def test_a_first_curve_from_inside_the_sky_disc(job: dict[str, Any]) -> None:
    answer = judge(json.loads(json.dumps(job)))
    assert (answer["accepted"], answer["brackets"]) == (True, 2)
    metadata = load_curve(answer["path"]).metadata
    assert 35 < metadata["sky_disc"][2] < 48
    assert Path(answer["path"]).with_suffix(".png").exists()


@pytest.mark.parametrize("given", [None, [40.0, 50.0, 30.0]])
def test_the_configured_disc_is_used(job: dict[str, Any], given: list[float] | None) -> None:
    answer = judge(json.loads(json.dumps(job | {"sky_disc": given})))
    assert load_curve(answer["path"]).metadata["sky_disc"] == given


def test_times_that_contradict_the_images_make_no_curve(job: dict[str, Any]) -> None:
    false = {320.0: 500.0}
    brackets = [[[p, false.get(t, t)] for p, t in files[::2]] for files in job["brackets"]]
    answer = judge(json.loads(json.dumps(job | {"brackets": brackets})))
    assert not answer["accepted"]
    assert "contradict the images" in answer["reason"]
    assert not Path(answer["path"]).exists()
