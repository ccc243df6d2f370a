"""Whole archives: what stands, what lacks, what was sent twice, and cameras that turn grey."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg

from asi_watch.brackets import Exposure
from asi_watch.hdr.merge_settings import MergeSettings
from asi_watch.pipeline import ArchiveRules, ArchiveSummary, merge_archive
from asi_watch.pipeline.find_brackets import ArchiveBracket, _doubts_of_slots
from asi_watch.products import ProductSpec, read_provenance
from tests.pipeline.making import EXPOSURES, files_of, products, slot, true_curve, write_bracket
from tests.test_merge_bracket import grey

RULES = ArchiveRules(expected=tuple(map(float, EXPOSURES)))


def merged(folder: Path, **more: Any) -> ArchiveSummary:
    options = {"rules": RULES, "curves": [true_curve()], "leave_out_unreadable": True, **more}
    return merge_archive(
        folder / "a",
        folder / "b",
        settings=MergeSettings("debevec_exact"),
        products=[ProductSpec("jpg")],
        workers=0,
        **options,
    )


def write_grey_bracket(root: Path, number: int) -> None:
    paths = write_bracket(root, number)
    for path, data in zip(paths, grey(files_of(number)).values(), strict=True):
        path.write_bytes(data)


def test_a_second_run_makes_what_lacks_and_force_makes_all(tmp_path: Path) -> None:
    for number in range(3):
        write_bracket(tmp_path / "a", number)
    first = merged(tmp_path)
    assert (first.merged, first.stood, first.products, first.flawless) == (3, 0, 3, True)
    paths = [tmp_path / "b" / name for name in products(tmp_path / "b")]
    paths[1].unlink()
    times = {path: path.stat().st_mtime_ns for path in (paths[0], paths[2])}
    again = merged(tmp_path)
    assert (again.merged, again.stood, again.products, again.flawless) == (1, 2, 1, True)
    assert "the products of 2 brackets stood already" in again.sentence()
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    forced = merged(tmp_path, force=True)
    assert (forced.merged, forced.stood) == (3, 0)
    assert all(path.stat().st_mtime_ns != time for path, time in times.items())


def test_a_missing_exposure_is_named_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(10):
        paths = write_bracket(tmp_path / "a", number)
        if number != 4:
            paths[2].unlink()
    summary = merged(tmp_path)
    assert (summary.merged, len(summary.incomplete), summary.flawless) == (10, 9, False)
    assert "9 brackets with missing exposures" in summary.sentence()
    told = [m for m in caplog.messages if "missing" in m]
    assert told[0] == f"bracket {slot(0)}: the exposure of 320 µs is missing"
    assert told[-1] == "and 3 more brackets with missing exposures"
    assert len(told) == 7
    # Other exposures, as at dusk, are a change and no loss.
    other = replace(RULES, expected="auto", round_to=timedelta(seconds=30))
    assert merged(tmp_path, rules=other, force=True).incomplete == []


@pytest.mark.parametrize("kind", ["empty", "cut", "web page"])
@pytest.mark.parametrize("broken", ["newer", "older"])
def test_of_two_files_the_readable_one_counts(tmp_path: Path, kind: str, broken: str) -> None:
    paths = write_bracket(tmp_path / "a", 1)
    good = paths[2]
    junk = {"empty": b"", "cut": good.read_bytes()[:700], "web page": b"<html>503</html>"}[kind]
    other = good.with_name(f"{slot(1) + timedelta(seconds=6):%Y%m%d%H%M%S}_320.jpg")
    other.write_bytes(junk)
    for path, age in ((good, 100), (other, 0 if broken == "newer" else 200)):
        os.utime(path, (1.7e9 - age, 1.7e9 - age))
    for options in ({}, {"leave_out_unreadable": False}):
        summary = merged(tmp_path, force=True, **options)
        assert (summary.merged, summary.left_out) == (1, 1)
        found = read_provenance(tmp_path / "b" / products(tmp_path / "b")[0])
        assert found.complete
        assert good.name in {Path(s.path).name for s in found.sources}
        (unusable,) = found.unusable
        assert unusable.path.endswith(other.name)
        assert "superseded" not in unusable.reason


def test_an_exposure_that_is_lost_is_no_matter_of_duplicates(tmp_path: Path) -> None:
    paths = write_bracket(tmp_path / "a", 1)
    paths[2].write_bytes(b"")
    strict = merged(tmp_path, leave_out_unreadable=False)
    assert (strict.merged, len(strict.failures)) == (0, 1)
    assert paths[2].name in strict.failures[0][1]
    kept = merged(tmp_path)
    assert (kept.merged, kept.left_out, kept.flawless) == (1, 1, False)
    found = read_provenance(tmp_path / "b" / products(tmp_path / "b")[0])
    assert (found.complete, len(found.sources)) == (False, 4)
    assert [u.path.rpartition("/")[2] for u in found.unusable] == [paths[2].name]
    for path in paths[1:]:
        path.write_bytes(b"")
    few = merged(tmp_path, force=True)
    assert "1 of 5 exposures are usable, too few" in few.failures[0][1]


@pytest.mark.parametrize("first_grey", [True, False])
def test_an_archive_of_grey_nights_and_colour_days_has_a_curve_for_each(
    tmp_path: Path, first_grey: bool
) -> None:
    for number in range(6):
        (write_grey_bracket if (number < 3) == first_grey else write_bracket)(
            tmp_path / "a", number
        )
    summary = merged(tmp_path, curves=())
    assert (summary.merged, summary.failures) == (6, [])
    found = [read_provenance(tmp_path / "b" / name) for name in products(tmp_path / "b")]
    assert len({one.curve_id for one in found}) == 2
    assert all(one.curve_id for one in found)


def test_a_curve_of_other_channels_is_no_reason_to_lose_a_bracket(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_bracket(tmp_path / "a", 0)
    write_grey_bracket(tmp_path / "a", 1)
    refused = merged(tmp_path)
    assert (refused.merged, len(refused.failures)) == (1, 1)
    assert "the images have 1 channel, the response curve 3" in refused.failures[0][1]
    caplog.clear()
    fallback = merged(tmp_path, without_response="mertens")
    assert (fallback.merged, fallback.stood, fallback.failures) == (1, 1, [])
    assert fallback.doubtful == 1
    assert "no response curve fits" in caplog.text


def test_what_makes_products_doubtful_is_told_and_bounded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(9):
        paths = write_bracket(tmp_path / "a", number)
        paths[1].write_bytes(paths[4].read_bytes())
    caplog.set_level(logging.WARNING)
    summary = merged(tmp_path)
    assert (summary.merged, summary.doubtful, summary.left_out) == (9, 9, 9)
    told = [m for m in caplog.messages if "contradicts its exposure time of 160" in m]
    assert f"bracket {slot(0)}" in told[0]
    assert any("and 3 more brackets" in m for m in caplog.messages)
    found = read_provenance(tmp_path / "b" / products(tmp_path / "b")[0])
    assert "_160.jpg" in found.unusable[0].path
    assert found.notes


def test_an_impossible_size_costs_its_bracket_alone(tmp_path: Path) -> None:
    write_bracket(tmp_path / "a", 0)
    paths = write_bracket(tmp_path / "a", 1)
    strip = np.zeros((8, 96, 3), np.uint8)
    paths[0].write_bytes(simplejpeg.encode_jpeg(strip, 95, "BGR", "444"))
    summary = merged(tmp_path)
    assert (summary.merged, len(summary.failures)) == (1, 1)
    assert "of the same bracket 96×8×3 pixels" in summary.failures[0][1]


def test_times_that_are_not_configured_are_a_doubt() -> None:
    exposures = [Exposure(f"{t}.jpg", datetime(2026, 6, 21), t) for t in (8.0, 16.0, 81.0)]
    bracket = ArchiveBracket(datetime(2026, 6, 21), tuple(exposures), tuple(exposures))
    (text,) = _doubts_of_slots([bracket], ArchiveRules(expected=(80.0, 160.0)))
    assert text.startswith("2 of 3 exposures have a time that is not in bracket.exposures")
    assert "8.0.jpg with 8 µs" in text
    for expected in ("auto", (8.0, 16.0, 80.0)):
        assert _doubts_of_slots([bracket], ArchiveRules(expected=expected)) == []
