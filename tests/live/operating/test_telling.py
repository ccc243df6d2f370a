"""What an operator reads of a camera: one line for one event, with all that belongs to it."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime

import pytest

from asi_watch.live.messages import MergeFailed
from asi_watch.live.operating.telling import Telling
from asi_watch.live.records import TAKEN, BracketRecord, RejectedFile
from asi_watch.live.workers.pool import Hanging
from asi_watch.logs import LineFormatter

SLOT = datetime(2026, 6, 21, 12)
FAILED = BracketRecord("roof", SLOT, "failed", revision=1, attempts=1, reason="sizes differ")


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def lines(told: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    formatter = LineFormatter("logfmt")
    return [(r.levelname, formatter.format(r)) for r in told.records]


def test_a_failure_is_one_line_that_says_what_comes_of_it(
    told: pytest.LogCaptureFixture,
) -> None:
    telling = Telling("roof", "x")
    telling.merge_done(SLOT, MergeFailed("sizes differ"))
    telling.bracket_over(FAILED, 4.0)
    telling.merge_done(SLOT, MergeFailed("sizes differ", permanent=True))
    telling.bracket_over(replace(FAILED, attempts=8), None)
    (first_level, first), (last_level, last) = lines(told)
    assert (first_level, last_level) == ("WARNING", "ERROR")
    assert 'reason="sizes differ"' in first
    assert "next_try=4s" in first
    assert "given_up" not in first
    assert "given_up" in last
    assert "asi-watch retry" in last


def test_what_gives_no_row_is_told_as_well(told: pytest.LogCaptureFixture) -> None:
    Telling("roof", "x").merge_done(SLOT, MergeFailed("a.jpg has changed", stale=("a.jpg",)))
    ((_, line),) = lines(told)
    assert "a.jpg has changed" in line


def test_the_line_of_a_product_that_lacks_an_exposure_says_why(
    told: pytest.LogCaptureFixture,
) -> None:
    half = RejectedFile("b.jpg", 1, 1, "ends before its end mark")
    older = RejectedFile("a.jpg", 1, 1, "superseded by the newer c.jpg")
    record = BracketRecord("roof", SLOT, "published", revision=1, rejected=(older, half))
    telling = Telling("roof", "x")
    telling.bracket_over(record, None)
    telling.bracket_over(replace(record, complete=True), None)
    telling.bracket_over(replace(record, rejected=(older,)), None)
    (level, line), (_, whole), (_, never_came) = [
        line for line in lines(told) if "slot=" in line[1]
    ][-3:]
    assert level == "WARNING"
    assert "b.jpg: ends before its end mark" in line
    assert "end mark" not in whole
    assert "left_out" not in never_came


def test_workers_that_wait_are_told_once_and_shown_while_they_do(
    told: pytest.LogCaptureFixture,
) -> None:
    telling = Telling("roof", "x")
    for seconds in (11.0, 80.0, 90.0):
        telling.hanging(Hanging(2, seconds))
    assert telling.snapshot()["hanging"] == "2 workers have waited for 90 s"
    assert "2 workers" in telling.snapshot()["last_error"]["what"]
    telling.hanging(None)
    telling.hanging(None)
    assert telling.snapshot()["hanging"] is None
    (level, line), (_, after) = lines(told)
    assert level == "ERROR"
    assert "softerr" in line
    assert "no longer" in after


def test_a_moment_of_waiting_is_no_news(told: pytest.LogCaptureFixture) -> None:
    telling = Telling("roof", "x")
    telling.hanging(Hanging(1, 12.0))
    assert telling.snapshot()["hanging"] is not None
    telling.hanging(None)
    assert lines(told) == []


def test_a_place_that_is_taken_is_one_warning_for_all_brackets(
    told: pytest.LogCaptureFixture,
) -> None:
    telling = Telling("roof", "x")
    taken = replace(FAILED, attempts=8, reason=f"{TAKEN}a.jpg was made by camera 'lab'")
    for _ in range(3):
        telling.bracket_over(taken, None)
    ((level, line),) = lines(told)
    assert level == "WARNING"
    assert "'lab'" in line
    assert "'lab'" in telling.snapshot()["last_error"]["what"]


def test_names_that_are_ignored_are_told_once_and_counted_once(
    told: pytest.LogCaptureFixture,
) -> None:
    telling = Telling("roof", "x")
    telling.name_ignored("a.jpg", 1, 0.0)
    telling.name_ignored("a.jpg", 1, 5000.0)
    telling.name_ignored("b.jpg", 2, 6000.0)
    telling.name_ignored("c.jpg", 3, 6001.0)
    after = Telling("roof", "y")
    after.inherit(telling)
    after.name_ignored("d.jpg", 4, 6002.0)
    assert [line.rpartition("names=")[2] for _, line in lines(told)] == ["1", "1", "2"]
