from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from asi_watch.cli import main
from asi_watch.products import read_provenance
from tests.pipeline.making import (
    files_of,
    products,
    slot,
    true_curve,
    write_archive,
    write_bracket,
    write_curve,
)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    write_archive(tmp_path / "a", 2)
    write_curve(tmp_path / "r.npz")
    return tmp_path / "a"


def merge(archive: Path, *options: str) -> Result:
    out = archive.parent / "b"
    return CliRunner().invoke(main, ["merge", str(archive), str(out), *options])


def with_curve(archive: Path, *options: str) -> Result:
    return merge(archive, "--response", str(archive.parent / "r.npz"), *options)


def test_an_archive_is_merged(archive: Path, tmp_path: Path) -> None:
    result = with_curve(archive, "--format", "jpg", "--format", "exr", "--workers", "2")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("2 of 2 brackets merged in ")
    assert "4 files written" in result.stdout
    assert [Path(p).suffix for p in products(tmp_path / "b")] == [".exr", ".jpg"] * 2


def test_options_reach_the_merge(archive: Path, tmp_path: Path) -> None:
    options = "--algorithm debevec_exact --weight-type sine --low-clip 9 --high-clip 240"
    more = "--gamma 1.5 --lne-range -12 -2 --round-to 1min"
    result = with_curve(archive, *options.split(), *more.split())
    assert result.exit_code == 0, result.output
    (name, _) = products(tmp_path / "b")
    noted = read_provenance(tmp_path / "b" / name)
    assert noted.slot == slot(0).replace(second=0)
    assert noted.algorithm == "debevec_exact"
    assert noted.parameters["weight_type"] == "sine"
    assert (noted.parameters["low_clip"], noted.parameters["high_clip"]) == (9, 240)
    assert (noted.parameters["gamma"], noted.parameters["lnE_min"]) == (1.5, -12.0)


def test_a_disc_of_the_option_or_of_the_configuration(archive: Path, tmp_path: Path) -> None:
    def radius(*options: str) -> object:
        result = with_curve(archive, *options)
        assert result.exit_code == 0, result.output
        path = tmp_path / "b" / products(tmp_path / "b")[0]
        return read_provenance(path).parameters.get("sky_radius")

    assert radius() is None
    assert radius("--sky-disc", "40,50.5,30") == 30
    (tmp_path / "c.yaml").write_text(
        f"cameras: {{roof: {{watch: {archive}, output: {tmp_path}/b,"
        " merge: {sky_disc: [48, 48, 33]}}}"
    )
    configured = ("-c", str(tmp_path / "c.yaml"))
    assert radius(*configured) == 33
    assert radius(*configured, "--sky-disc", "12,24,8") == 8
    assert radius(*configured, "--sky-disc", "none") is None
    for wrong in ("auto", "1,2", "1,2,0"):
        result = with_curve(archive, "--sky-disc", wrong)
        reason = f"'{wrong}' is not none or three numbers"
        assert (result.exit_code, reason in result.stderr) == (2, True), result.output


def test_what_failed_is_named_and_ends_in_1(archive: Path, tmp_path: Path) -> None:
    for path in write_bracket(archive, 2)[1:]:
        path.unlink()
    result = with_curve(archive)
    assert result.exit_code == 1
    assert "20260621090030_80.jpg: is the only exposure" in result.stderr
    assert "2 of 3 brackets merged" in result.stdout
    assert "1 bracket not merged" in result.stdout
    assert len(products(tmp_path / "b")) == 2


@pytest.mark.parametrize(("options", "made"), [((), 2), (("--strict",), 1)])
def test_a_damaged_exposure_is_left_out_unless_strict(
    archive: Path, tmp_path: Path, options: tuple[str, ...], made: int
) -> None:
    broken = next(archive.rglob("*_640.jpg"))
    broken.write_bytes(files_of(0)[640][:-500])
    result = with_curve(archive, *options)
    assert result.exit_code == 1
    assert broken.name in result.stderr
    assert len(products(tmp_path / "b")) == made


def test_exposure_units_and_minimum(archive: Path, tmp_path: Path) -> None:
    result = with_curve(archive, "--exposure-unit", "ms", "--min-exposures", "6")
    assert (result.exit_code, products(tmp_path / "b")) == (1, [])
    assert with_curve(archive, "--exposures-unit", "ms").exit_code == 0
    noted = read_provenance(tmp_path / "b" / products(tmp_path / "b")[0])
    assert noted.sources[0].exposure_us == 80_000


CONFIG = """\
state_dir: {root}/state
cameras:
  roof: {{watch: {root}/a, output: {root}/live, response: {root}/r.npz,
    filename: "img_{{timestamp:%Y%m%d%H%M%S}}-{{exposure}}", exposure_unit: ms,
    bracket: {{round_to: 1min, exposures: 5}}, products: [{{format: png}}]}}
  yard: {{watch: {root}/y, output: {root}/y-hdr}}
"""


def test_a_configuration_says_the_rest(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    write_curve(tmp_path / "r.npz")
    for us, data in files_of(0).items():
        (tmp_path / f"a/img_20260621090030-{us}.jpg").write_bytes(data)
    config = tmp_path / "c.yaml"
    config.write_text(CONFIG.format(root=tmp_path))
    result = merge(tmp_path / "a", "-c", str(config), "--camera", "roof", "--gamma", "1.7")
    assert result.exit_code == 0, result.output
    assert products(tmp_path / "b") == ["20260621090000_hdr.png"]
    noted = read_provenance(tmp_path / "b/20260621090000_hdr.png")
    assert (noted.camera, noted.curve_id, noted.expected) == ("roof", true_curve().curve_id, 5)
    assert (noted.sources[0].exposure_us, noted.parameters["gamma"]) == (80_000, 1.7)
    for options, reason in (
        ((), "several cameras, say which: roof, yard"),
        (("--camera", "attic"), "no camera 'attic'"),
        (("--camera", "roof", "--exposure-unit", "s"), "says that already"),
    ):
        wrong = merge(tmp_path / "a", "-c", str(config), *options)
        assert (wrong.exit_code, reason in wrong.stderr) == (2, True), wrong.output


def test_products_keep_their_names_in_one_folder_and_are_no_exposures(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    write_curve(tmp_path / "r.npz")
    for us, data in files_of(0).items():
        (tmp_path / f"a/img_20260621090030-{us}.jpg").write_bytes(data)
    named = (
        '[{format: jpg, name: "img_{timestamp:%Y%m%d%H%M%S}-0", timezone: Etc/GMT-1},'
        f" {{format: exr, output: {tmp_path}/elsewhere}}]"
    )
    config = tmp_path / "c.yaml"
    config.write_text(CONFIG.format(root=tmp_path).replace("[{format: png}]", named))
    for sentence in ("merged", "stood already"):
        command = ["merge", str(tmp_path / "a"), str(tmp_path / "a"), "-c", str(config)]
        result = CliRunner().invoke(main, [*command, "--camera", "roof"])
        assert (result.exit_code, sentence in result.stdout) == (0, True), result.output
        made = sorted(path.name for path in (tmp_path / "a").iterdir())
        assert made[:1] + made[-1:] == ["20260621090000_hdr.exr", "img_20260621100000-0.jpg"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--algorithm", "mertens", "--format", "exr"), "without radiance"),
        (("--low-clip", "200", "--high-clip", "100"), "low_clip"),
        (("--round-to", "30"), "has no unit"),
        (("--round-to", "0s"), "longer than nothing"),
        (("--format", "gif"), "'gif' is not one of"),
        (("--camera", "roof"), "--camera needs -c"),
        (("--quality", "80", "--format", "png"), "--quality is for"),
        (("--lne-range", "2", "1"), "lnE_range"),
    ],
)
def test_wrong_usage_ends_in_2(archive: Path, options: tuple[str, ...], reason: str) -> None:
    result = with_curve(archive, *options)
    assert result.exit_code == 2
    assert reason in result.stderr


def test_what_is_not_there(archive: Path, tmp_path: Path) -> None:
    assert merge(tmp_path / "nowhere").exit_code == 2
    (tmp_path / "empty").mkdir()
    result = merge(tmp_path / "empty")
    assert (result.exit_code, "empty: no images" in result.stderr) == (1, True)
    result = merge(archive, "--response", str(tmp_path / "none.npz"))
    assert (result.exit_code, "no such response file" in result.stderr) == (1, True)


def test_what_better_settings_would_do_is_said(archive: Path) -> None:
    def hints(*options: str) -> str:
        result = with_curve(archive, *options)
        assert result.exit_code == 0, result.output
        return str(result.stderr)

    assert hints() == ""
    radiance = hints("--format", "exr", "--format", "tiff", "--algorithm", "debevec_custom")
    assert "radiance (exr, tiff) by debevec_custom" in radiance
    assert "debevec_exact keeps it linear" in radiance
    assert hints("--format", "exr") == ""


def test_a_calibration_for_the_run_is_timed_by_itself(archive: Path) -> None:
    result = merge(archive)
    assert re.search(r"merged in \S+ s .*after \S+ s of calibration", result.stdout), result.output


def test_a_part_of_an_archive_a_dry_run_and_a_report(archive: Path, tmp_path: Path) -> None:
    second = f"{slot(1):%Y-%m-%dT%H:%M:%S}"
    report = tmp_path / "r.csv"
    dry = with_curve(archive, "--since", second, "--dry-run", "--report", str(report))
    assert dry.stdout.startswith("1 of 1 bracket would be merged, 1 file to write")
    assert "published" in report.read_text()
    assert not (tmp_path / "b").exists()
    assert with_curve(archive, "--until", second).stdout.startswith("1 of 1 bracket merged")
    both = with_curve(archive, "--slot", second, "--slot", f"{slot(0)}")
    assert both.stdout.startswith("1 of 2 brackets merged")
    wrong = with_curve(archive, "--report", "r.txt")
    assert (wrong.exit_code, "a report is a .csv or .json file" in wrong.stderr) == (2, True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_after_what_is_in_work_and_says_how_to_go_on(
    tmp_path: Path, number: signal.Signals
) -> None:
    write_archive(tmp_path / "a", 40)
    write_curve(tmp_path / "r.npz")
    words = ["merge", "a", "b", "--response", "r.npz", "--format", "png", "--workers", "1"]
    command = [sys.executable, "-m", "asi_watch", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=tmp_path, text=True, **pipes) as process:
        while process.poll() is None and not products(tmp_path / "b"):
            time.sleep(0.005)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, "the same command goes on" in err) == (130, True), out + err
    made = products(tmp_path / "b")
    assert f"{len(made)} of 40 brackets merged" in out
    assert f"interrupted before {40 - len(made)} brackets" in out
    assert all(read_provenance(tmp_path / "b" / name) for name in made)
    again = merge(tmp_path / "a", "--response", str(tmp_path / "r.npz"), "--format", "png")
    assert again.stdout.startswith(f"{40 - len(made)} of 40 brackets merged")


def test_a_run_that_is_killed_leaves_its_brackets_to_the_other(tmp_path: Path) -> None:
    write_archive(tmp_path / "a", 30)
    write_curve(tmp_path / "r.npz")
    words = ["merge", "a", "b", "--response", "r.npz", "--format", "png", "--workers", "2"]
    command = [sys.executable, "-m", "asi_watch", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with (
        subprocess.Popen(command, cwd=tmp_path, **pipes) as killed,
        subprocess.Popen(command, cwd=tmp_path, **pipes) as other,
    ):
        while killed.poll() is None and len(products(tmp_path / "b")) < 5:
            time.sleep(0.005)
        killed.kill()
        killed.wait()
        out, err = other.communicate(timeout=120)
    assert other.returncode == 0, out + err
    made = products(tmp_path / "b")
    assert len(made) == 30
    assert all(read_provenance(tmp_path / "b" / name) for name in made)
    assert list((tmp_path / "b").rglob("*claims*")) == []
