from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner, Result

from asi_watch.cli import main
from asi_watch.response_files import load_curve
from tests.pipeline.making import stops_apart, true_curve, write_archive


def calibrate(folder: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["calibrate", str(folder / "a"), *options])


def test_a_curve_its_report_and_its_plot(tmp_path: Path) -> None:
    broken = write_archive(tmp_path / "a", 4)[1][2]
    broken.write_bytes(b"x")
    options = "--brackets 3 --samples 800 --seed 3 --smoothness 40 --low-clip 8 --high-clip 245"
    files = (str(tmp_path / "new/r.npz"), "--report", str(tmp_path / "r.png"))
    result = calibrate(tmp_path, *files, *options.split())
    assert result.exit_code == 0, result.output
    curve = load_curve(tmp_path / "new/r.npz")
    assert stops_apart(curve.log_response, true_curve().log_response) < 0.1
    meta = curve.metadata
    assert (meta["num_groups_used"], meta["sample_technique"], meta["seed"]) == (3, "flat", 3)
    assert (meta["smoothness"], meta["low_clip"], meta["high_clip"]) == (40, 8, 245)
    assert f"curve {curve.curve_id} from 3 brackets" in result.stdout
    for words in ("method: robust", "blue", "residual (stops)", "1280", "fits × stated"):
        assert words in result.stdout
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")
    assert ("1 exposure left out" in result.stdout) == (broken.name in result.stderr)


def test_a_reader_that_goes_away_costs_no_curve(tmp_path: Path) -> None:
    """As with `| head`: the pipe has no other end when the report is printed."""
    write_archive(tmp_path / "a", 2)
    there, here = os.pipe()
    os.close(there)
    options = [f"{tmp_path}/a", f"{tmp_path}/r.npz", "--samples", "100"]
    subprocess.run(
        [sys.executable, "-m", "asi_watch", "calibrate", *options],
        stdout=here,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    os.close(here)
    assert load_curve(tmp_path / "r.npz").metadata["num_groups_used"] == 2


def test_the_sky_disc_may_be_given(tmp_path: Path) -> None:
    write_archive(tmp_path / "a", 2)
    for given, noted in (("40,50.5,30", [40, 50.5, 30]), ("none", None)):
        options = ("--samples", "100", "--sky-disc", given)
        result = calibrate(tmp_path, str(tmp_path / "r.npz"), *options)
        assert result.exit_code == 0, result.output
        assert load_curve(tmp_path / "r.npz").metadata["sky_disc"] == noted
        assert ("inside the sky disc 40,50.5,30" in result.stdout) == (noted is not None)
        lines = CliRunner().invoke(main, ["response", "show", f"{tmp_path}/r.npz"]).stdout
        assert ("40, 50.5, 30" in lines) == (noted is not None)


def test_the_disc_of_the_configuration_counts(tmp_path: Path) -> None:
    write_archive(tmp_path / "a", 2)
    config = tmp_path / "c.yaml"

    def disc(more: str, *options: str) -> object:
        roof = f"watch: {tmp_path}/a, output: {tmp_path}/b"
        config.write_text(f"cameras: {{roof: {{{roof}{more}}}}}")
        quick = ("--samples", "100", "-c", str(config))
        result = calibrate(tmp_path, str(tmp_path / "r.npz"), *quick, *options)
        assert result.exit_code == 0, result.output
        return load_curve(tmp_path / "r.npz").metadata["sky_disc"]

    merged = ", merge: {sky_disc: [40, 50, 31]}"
    own = ", recalibrate: {sky_disc: [44, 44, 22]}"
    assert disc(merged) == [40, 50, 31]
    assert disc(merged + own) == disc(own) == [44, 44, 22]
    assert disc(merged + ", recalibrate: {sky_disc: null}") is None
    assert disc(merged + own, "--sky-disc", "none") is None


def test_false_exposure_times_are_named(tmp_path: Path) -> None:
    for bracket in write_archive(tmp_path / "a", 3):
        bracket[4].rename(bracket[4].with_name(bracket[4].name.replace("_1280", "_5120")))
    result = calibrate(tmp_path, str(tmp_path / "r.npz"), "--samples", "800")
    assert result.exit_code == 0, result.output
    assert "_5120.jpg: the stated exposure time of 5120 µs cannot be true" in result.stderr


def test_without_images_there_is_no_curve(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    result = calibrate(tmp_path, str(tmp_path / "r.npz"))
    assert (result.exit_code, "a: no images" in result.stderr) == (1, True)
    assert not (tmp_path / "r.npz").exists()


def test_wrong_usage_ends_in_2(tmp_path: Path) -> None:
    assert calibrate(tmp_path, "r.npz").exit_code == 2
    (tmp_path / "a").mkdir()
    for options in (
        ("--technique", "best"),
        ("--smoothness", "0"),
        ("--low-clip", "90", "--high-clip", "80"),
        ("--camera", "roof"),
        ("--sky-disc", "1,2"),
        ("--sky-disc", "10,10,0"),
        ("--sky-disc", "somewhere"),
    ):
        assert calibrate(tmp_path, "r.npz", *options).exit_code == 2
