"""A script that was written for asi_core runs once its import names this package."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from asi_watch.pipeline import load_response_curve, process_directory, save_response_curve
from asi_watch.products import read_provenance
from tests.pipeline.making import slot, true_curve, write_archive

SCRIPT = Path(__file__).with_name("for_asi_core.txt")
BRACKETS = 3
PICTURES = [f"2026/06/21/{slot(n):%H}/{slot(n):%Y%m%d%H%M%S}_hdr.jpg" for n in range(BRACKETS)]


def test_a_script_with_all_functions_runs_after_changing_the_import(tmp_path: Path) -> None:
    write_archive(tmp_path / "archive", BRACKETS)
    script = tmp_path / "script.py"
    text = SCRIPT.read_text()
    assert text.count("asi_core.image.hdr.pipeline") == 1
    script.write_text(text.replace("asi_core.image.hdr.pipeline", "asi_watch.pipeline"))
    (tmp_path / "out").mkdir()
    command = [sys.executable, str(script), str(tmp_path / "archive"), str(tmp_path / "out")]
    run = subprocess.run(command, text=True, capture_output=True)
    assert run.returncode == 0, run.stderr
    done = json.loads((tmp_path / "out" / "done.json").read_text())
    assert done["exposure"] == done["expression"] == 80
    assert [len(files) for files in done["groups"].values()] == [5] * BRACKETS
    assert done["response"] == [256, 3]
    assert np.allclose(done["range"], done["metadata_range"])
    assert done["timestamp"] is True
    assert done["series"] == ["created_hdr", BRACKETS, True]
    made = {"again.jpg", "again.npz", "fused.jpg", "one.png", "plot.png", "response.npz"}
    made |= {"response_curve.jpg", f"a/{PICTURES[0]}"}
    made |= {f"{folder}/{name}" for folder in "bcd" for name in PICTURES}
    assert set(done["files"]) == made
    assert cv2.imread(str(tmp_path / "out/one.png"), cv2.IMREAD_UNCHANGED).dtype == np.uint16


def test_a_directory_is_shown_on_the_scale_of_its_response_file(tmp_path: Path) -> None:
    write_archive(tmp_path / "a", 2)
    g = true_curve().log_response
    first = PICTURES[0]

    def limits(out: str, file: str, **more: object) -> tuple[object, object]:
        process_directory(tmp_path / "a", tmp_path / out, response_file=tmp_path / file, **more)
        noted = read_provenance(tmp_path / out / first)
        assert noted is not None
        return noted.parameters["lnE_min"], noted.parameters["lnE_max"]

    save_response_curve(tmp_path / "with.npz", g, {"lnE_range": [-11.5, -2.0]}, save_plot=False)
    save_response_curve(tmp_path / "without.npz", g, {}, save_plot=False)
    assert limits("b", "with.npz") == (-11.5, -2.0)
    assert limits("c", "without.npz") == (None, None)
    assert limits("d", "with.npz", lnE_range=(-12.0, -1.0)) == (-12.0, -1.0)
    assert limits("e", "with.npz", lnE_range=None) == (None, None)
    assert limits("f", "with.npz", algorithm="mertens") == (None, None)
    for number, wrong in enumerate((5, [1.0], ["a", "b"], [3.0, 1.0])):
        file = f"{number}.npz"
        save_response_curve(tmp_path / file, g, {"lnE_range": wrong}, save_plot=False)
        with pytest.raises(ValueError, match=rf"{file}: lnE_range is not \(low, high\)"):
            limits("g", file)
    assert load_response_curve(tmp_path / "with.npz")[1]["lnE_range"] == [-11.5, -2.0]
