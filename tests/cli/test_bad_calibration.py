"""Images that no response curve can explain: `calibrate` writes none, `merge` takes none."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from asi_watch.cli import main
from asi_watch.errors import BracketError
from asi_watch.pipeline import process_directory
from asi_watch.response_files import load_curve
from tests.pipeline.making import files_of, slot, write_archive, write_curve


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture
def same_frame_twice(tmp_path: Path) -> Path:
    (tmp_path / "a").mkdir()
    for seconds, us in ((0, 80), (1, 160)):
        name = f"{slot(0) + timedelta(seconds=seconds):%Y%m%d%H%M%S}_{us}.jpg"
        (tmp_path / "a" / name).write_bytes(files_of(0)[320])
    return tmp_path / "a"


def test_a_curve_that_explains_nothing_is_not_written_unless_forced(
    same_frame_twice: Path, tmp_path: Path
) -> None:
    target = tmp_path / "r.npz"
    refused = run("calibrate", same_frame_twice, target, "--samples", "300")
    assert (refused.exit_code, target.exists()) == (1, False)
    assert "no response curve fits these images" in refused.stderr
    assert "r.npz: not written, see above; --force writes it" in refused.stderr
    forced = run("calibrate", same_frame_twice, target, "--samples", "300", "--force")
    assert (forced.exit_code, target.exists()) == (0, True)


def test_merge_refuses_what_calibrate_does(same_frame_twice: Path, tmp_path: Path) -> None:
    refused = run("merge", same_frame_twice, tmp_path / "out")
    assert (refused.exit_code, (tmp_path / "out").exists()) == (1, False)
    assert "no response curve fits these images" in refused.stderr
    assert "not merged: the curve calibrated from it cannot explain the images" in refused.stderr
    forced = run("merge", same_frame_twice, tmp_path / "out", "--force")
    assert (forced.exit_code, (tmp_path / "out").exists()) == (0, True)
    with pytest.raises(BracketError, match="cannot explain the images"):
        process_directory(same_frame_twice, tmp_path / "batch")
    process_directory(same_frame_twice, tmp_path / "batch", force=True)
    assert (tmp_path / "batch").exists()


def test_merge_tells_of_labels(tmp_path: Path) -> None:
    curve = tmp_path / "r.npz"
    write_curve(curve)
    for seconds, label in enumerate(("11", "02", "0")):
        path = tmp_path / "a" / f"{slot(0) + timedelta(seconds=seconds):%Y%m%d%H%M%S}_{label}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(list(files_of(0).values())[seconds])
    result = run("merge", tmp_path / "a", tmp_path / "out", "--response", curve)
    assert "ends in a label, it seems, and not in an exposure time" in result.stderr
    assert result.exit_code == 1
    assert "_02.jpg ends in a label, it seems, and not in an exposure time" in result.stdout


def test_a_response_file_has_its_true_name(tmp_path: Path) -> None:
    write_archive(tmp_path / "a", 1)
    assert run("calibrate", tmp_path / "a", tmp_path / "r.txt").exit_code == 2
    target = tmp_path / "r.npz"
    earlier = write_curve(target)
    assert run("calibrate", tmp_path / "a", target, "--samples", "200").exit_code == 0
    assert load_curve(target).curve_id != earlier.curve_id
