from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from asi_watch.errors import BracketError, ImageError, ResponseFileError
from asi_watch.pipeline import process_hdr_series, process_timestamp
from asi_watch.products import read_provenance
from tests.pipeline.making import products, series_of, slot, write_archive, write_curve

NAMES = [f"2026/06/21/{h}_hdr.jpg" for h in ("08/20260621085930", "09/20260621090000")]


def test_one_timestamp_becomes_one_picture(tmp_path: Path) -> None:
    files = series_of(write_archive(tmp_path / "a", 2), tmp_path / "a")
    for group in files.groupby(level=0):
        assert process_timestamp(group, str(tmp_path / "a"), str(tmp_path / "b")) is True
    assert products(tmp_path / "b") == NAMES
    assert read_provenance(tmp_path / "b" / NAMES[0]).algorithm == "debevec"


def test_a_failure_is_an_exception_and_never_false(tmp_path: Path) -> None:
    paths = write_archive(tmp_path / "a", 2)
    paths[0][2].write_bytes(b"")
    files = series_of(paths, tmp_path / "a")
    (first, second) = files.groupby(level=0)
    with pytest.raises(ImageError, match=r"20260621085932_320\.jpg"):
        process_timestamp(first, tmp_path / "a", tmp_path / "b")
    with pytest.raises(BracketError, match="only exposure"):
        process_timestamp((second[0], second[1].iloc[:1]), tmp_path / "a", tmp_path / "b")
    with pytest.raises(BracketError, match="no images"):
        process_timestamp((second[0], second[1].iloc[:0]), tmp_path / "a", tmp_path / "b")
    assert products(tmp_path) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_a_series_tells_what_was_created(
    tmp_path: Path, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    paths = write_archive(tmp_path / "a", 3)
    paths[1][0].write_bytes(b"broken")
    curve = write_curve(tmp_path / "r.npz")
    created = process_hdr_series(
        series_of(paths, tmp_path / "a"),
        str(tmp_path / "a"),
        str(tmp_path / "b"),
        n_workers=workers,
        response_file=tmp_path / "r.npz",
    )
    assert created.name == "created_hdr"
    assert created.index.name == "timestamp"
    assert list(created.index) == [pd.Timestamp(slot(n)) for n in range(3)]
    assert list(created.isna()) == [False, True, False]
    assert created.iloc[1] is None
    assert created.iloc[0] == str(tmp_path / "b" / NAMES[0])
    noted = read_provenance(created.iloc[2])
    assert (noted.algorithm, noted.curve_id) == ("debevec_custom", curve.curve_id)
    assert "20260621090000_80.jpg" in caplog.text


def test_wrong_tables_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = series_of(write_archive(tmp_path / "a", 1), tmp_path / "a")
    with pytest.raises(ValueError, match="two levels"):
        process_hdr_series(files.droplevel(1), tmp_path / "a", tmp_path / "b")
    with pytest.raises(ResponseFileError):
        process_hdr_series(files, tmp_path / "a", tmp_path / "b", response_file=tmp_path / "x.npz")
    labelled = files.rename(index={80: "short"}, level=1)
    assert process_hdr_series(labelled, tmp_path / "a", tmp_path / "b").iloc[0] is None
    assert "'short' is no positive exposure time" in caplog.text
    empty = process_hdr_series(files.iloc[:0], tmp_path / "a", tmp_path / "b")
    assert (len(empty), empty.name) == (0, "created_hdr")


def merged_from(path: str) -> list[float]:
    provenance = read_provenance(path)
    assert provenance is not None
    return [source.exposure_us for source in provenance.sources]


def test_no_row_is_lost_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = series_of(write_archive(tmp_path / "a", 3), tmp_path / "a")
    stamps = files.index.get_level_values(0).to_list()
    stamps[-1] = pd.NaT
    files.index = pd.MultiIndex.from_arrays([stamps, files.index.get_level_values(1)])
    files.iloc[1], files.iloc[7] = None, float("nan")
    created = process_hdr_series(files, tmp_path / "a", tmp_path / "b")
    assert [len(merged_from(path)) for path in created] == [4, 4, 4]
    told = [m for m in caplog.messages if "no file for the exposure time" in m]
    assert [m.partition(": no file")[0][-8:] for m in told] == ["08:59:30", "09:00:00"]
    assert "1 rows without a timestamp are left out, e.g. 2026/06/21/09/2026" in caplog.text


def test_what_is_no_table_is_an_error_that_says_what_is_wanted(tmp_path: Path) -> None:
    root, out = tmp_path / "a", tmp_path / "b"
    files = series_of(write_archive(root, 1), root)
    with pytest.raises(TypeError, match=r"Series of paths is wanted; got DataFrame; take one of"):
        process_hdr_series(files.to_frame(), root, out)
    with pytest.raises(TypeError, match="Series of paths is wanted; got list"):
        process_hdr_series(list(files), root, out)
    with pytest.raises(TypeError, match=r"timestamp_group is \(timestamp, Series\).*got Series"):
        process_timestamp(files, root, out)
    with pytest.raises(TypeError, match="got DataFrame"):
        process_timestamp((slot(0), files.to_frame()), root, out)
    with pytest.raises(ValueError, match=r"levels of the index are swapped.*swaplevel"):
        process_hdr_series(files.swaplevel(), root, out)
    for wrong in (None, 1.5, -1):
        with pytest.raises(ValueError, match="workers is 0 or more"):
            process_hdr_series(files, root, out, n_workers=wrong)
    assert not out.exists()


def test_absolute_paths_and_rows_that_come_twice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root, out = tmp_path / "a", tmp_path / "b"
    files = series_of(write_archive(root, 1), root)
    absolute = pd.concat([files, files.iloc[:2]]).map(lambda path: str(root / path))
    created = process_hdr_series(absolute, root, out)
    assert products(out) == NAMES[:1]
    assert merged_from(created.iloc[0]) == [80, 160, 320, 640, 1280]
    assert "not used" not in caplog.text
    elsewhere = process_hdr_series(absolute, tmp_path / "c", out)
    assert elsewhere.iloc[0] is None
    assert "is not below root_dir" in caplog.text
    nowhere = process_hdr_series(files.map(lambda path: f"x/{path}"), root, out)
    assert nowhere.iloc[0] is None
    assert "no such file" in caplog.text
