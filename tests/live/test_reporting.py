"""What an operator reads of a camera: one line for one event, with all that belongs to it."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from asi_watch.brackets import Exposure, ExposureTimes
from asi_watch.live.ledger.records import TAKEN, WITHOUT_CURVE, BracketRecord, RejectedFile
from asi_watch.live.messages import ReadDone, ReadOk, ScanDone
from asi_watch.live.reporting import Reporting
from asi_watch.live.workers.pool import Hanging
from asi_watch.logs import LineFormatter
from asi_watch.merge_bracket import Failed

SLOT = datetime(2026, 6, 21, 12)
FAILED = BracketRecord("roof", SLOT, "failed", revision=1, attempts=1, reason="sizes differ")


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def lines(told: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    formatter = LineFormatter("logfmt")
    own = (r for r in told.records if r.name.endswith("live.reporting"))
    return [(r.levelname, formatter.format(r)) for r in own]


def test_a_failure_is_one_line_that_says_what_comes_of_it(told: pytest.LogCaptureFixture) -> None:
    reporting = Reporting("roof", "x")
    reporting.merge_done(SLOT, Failed("retry", "sizes differ"))
    reporting.bracket_over(FAILED, 4.0)
    reporting.merge_done(SLOT, Failed("permanent", "sizes differ"))
    reporting.bracket_over(replace(FAILED, attempts=8), None)
    (first_level, first), (last_level, last) = lines(told)
    assert (first_level, last_level) == ("WARNING", "ERROR")
    assert 'reason="sizes differ"' in first
    assert "next_try=4s" in first
    assert "not_retried" not in first
    assert "not_retried" in last
    assert "asi-watch retry" in last


def test_what_gives_no_row_is_told_as_well(told: pytest.LogCaptureFixture) -> None:
    Reporting("roof", "x").merge_done(SLOT, Failed("inputs", "a.jpg has changed", files=("a.jpg",)))
    ((_, line),) = lines(told)
    assert "a.jpg has changed" in line


def test_the_line_of_a_product_that_lacks_an_exposure_says_why(
    told: pytest.LogCaptureFixture,
) -> None:
    half = RejectedFile("b.jpg", 1, 1, "ends before its end mark")
    older = RejectedFile("a.jpg", 1, 1, "superseded by the newer c.jpg")
    record = BracketRecord("roof", SLOT, "published", revision=1, rejected=(older, half))
    reporting = Reporting("roof", "x")
    reporting.bracket_over(record, None)
    reporting.bracket_over(replace(record, complete=True), None)
    reporting.bracket_over(replace(record, rejected=(older,)), None)
    (level, line), (_, whole), (_, never_came) = [
        line for line in lines(told) if "slot=" in line[1]
    ][-3:]
    assert level == "WARNING"
    assert "b.jpg: ends before its end mark" in line
    assert "end mark" not in whole
    assert "left_out" not in never_came


def test_a_list_of_exposures_that_lacks_one_is_reported_once_an_hour(
    told: pytest.LogCaptureFixture,
) -> None:
    inputs = tuple(Exposure(f"{t}.jpg", SLOT, t) for t in (80.0, 160.0, 320.0))
    reporting = Reporting("roof", "x")
    first = BracketRecord("roof", SLOT, "published", revision=1, inputs=inputs[:2], expected=2)
    again = replace(first, revision=2, inputs=inputs)
    for record in (first, again, first, again):
        reporting.bracket_over(record, None)
    found = [line for _, line in lines(told) if "does not expect" in line]
    assert len(found) == 1
    assert 'exposures="80 160 320" expected=2' in found[0]


def test_a_doubtful_product_is_a_warning_once_an_hour(
    told: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    reporting = Reporting("roof", "x")
    sound = BracketRecord("roof", SLOT, "published", revision=1, complete=True)
    note = "1.{} % of the pixels end at code 239: set merge.high_clip"
    reasons = [note.format(0), note.format(3), None, WITHOUT_CURVE, f"{WITHOUT_CURVE}; other"]
    for reason in reasons:
        reporting.bracket_over(replace(sound, reason=reason), None)
    levels = [level for level, _ in lines(told)]
    assert levels == ["WARNING", "INFO", "INFO", "INFO", "WARNING"]
    assert "high_clip" in lines(told)[1][1]
    later = time.monotonic() + HOUR
    monkeypatch.setattr("asi_watch.live.reporting.time.monotonic", lambda: later)
    reporting.bracket_over(replace(sound, reason=note.format(5)), None)
    assert lines(told)[-1][0] == "WARNING"


def test_times_that_are_not_configured_are_reported_once(told: pytest.LogCaptureFixture) -> None:
    for rule, warned in (((80.0, 160.0), 1), ("auto", 0), (5, 0)):
        told.clear()
        reporting = Reporting("roof", "x", ExposureTimes(rule=rule))
        for exposure_us in (80.0, 87.0, 8.0, 16.0):
            outcome = ReadOk(Exposure("a.jpg", SLOT, exposure_us))
            reporting.read_done(ReadDone("roof", SLOT, "a.jpg", outcome))
        assert len(lines(told)) == warned
    reporting = Reporting("roof", "x", ExposureTimes(rule=(80.0,)))
    reporting.read_done(ReadDone("roof", SLOT, "a.jpg", ReadOk(Exposure("a.jpg", SLOT, 8.0))))
    assert "bracket.exposures" in lines(told)[0][1]
    assert "file=a.jpg exposure_us=8" in lines(told)[0][1]


def test_workers_that_wait_are_told_once_and_shown_while_they_do(
    told: pytest.LogCaptureFixture,
) -> None:
    reporting = Reporting("roof", "x")
    for seconds in (11.0, 80.0, 90.0):
        reporting.hanging(Hanging(2, seconds))
    assert reporting.snapshot()["hanging"] == "2 workers have waited for 90 s"
    assert "2 workers" in reporting.snapshot()["last_error"]["what"]
    reporting.hanging(None)
    reporting.hanging(None)
    assert reporting.snapshot()["hanging"] is None
    (level, line), (_, after) = lines(told)
    assert level == "ERROR"
    assert "softerr" in line
    assert "no longer" in after


def test_a_moment_of_waiting_is_no_news(told: pytest.LogCaptureFixture) -> None:
    reporting = Reporting("roof", "x")
    reporting.hanging(Hanging(1, 12.0))
    assert reporting.snapshot()["hanging"] is not None
    reporting.hanging(None)
    assert lines(told) == []


def test_a_place_that_is_taken_is_one_warning_for_all_brackets(
    told: pytest.LogCaptureFixture,
) -> None:
    reporting = Reporting("roof", "x")
    taken = replace(FAILED, attempts=8, reason=f"{TAKEN}a.jpg was made by camera 'lab'")
    for _ in range(3):
        reporting.bracket_over(taken, None)
    ((level, line),) = lines(told)
    assert level == "WARNING"
    assert "'lab'" in line
    assert "'lab'" in reporting.snapshot()["last_error"]["what"]


def test_names_that_are_ignored_are_logged_once_an_hour_with_their_number(
    told: pytest.LogCaptureFixture,
) -> None:
    reporting = Reporting("roof", "x")
    for now in (0.0, 10.0, 3500.0, 3700.0):
        reporting.name_ignored("a.jpg", now)
    assert [line.rpartition("names=")[2] for _, line in lines(told)] == ["1", "3"]


# -- recent health ----------------------------------------------------------------------------

LIVE = BracketRecord("roof", SLOT, "published", revision=1, latency=0.5)
HOUR = 3600.0


def test_a_backlog_does_not_spoil_the_latencies() -> None:
    reporting = Reporting("roof", "x")
    reporting._started = 940.0
    for record in (
        LIVE,
        replace(LIVE, latency=8 * HOUR),
        replace(LIVE, latency=61.0),
        replace(LIVE, latency=9.0, revision=2),
        replace(LIVE, latency=9.0, state="failed"),
        replace(LIVE, latency=None),
    ):
        reporting._remember(record, 1000.0)
    assert reporting.snapshot()["latency"] == {"p50": 0.5, "p95": 0.5, "max": 0.5}


def test_the_last_bracket_and_exposure_are_the_newest_not_the_ones_read_last() -> None:
    reporting = Reporting("roof", "x")

    def last_after(minutes: float, now: float) -> str:
        slot = SLOT + timedelta(minutes=minutes)
        reporting._remember(replace(LIVE, slot=slot), now)
        reporting._exposure(slot, now)
        shown = reporting.snapshot()
        assert shown["last_bracket"]["slot"] == shown["last_exposure"]["timestamp"]
        return str(shown["last_bracket"]["slot"])

    assert last_after(30, 0.0) == "2026-06-21T12:30:00"
    assert last_after(0, 1.0) == "2026-06-21T12:30:00"
    assert last_after(31, 2.0) == "2026-06-21T12:31:00"
    # A camera whose clock was wrong for a while, and is right again.
    assert last_after(10_000, 3.0).startswith("2026-06-28")
    assert last_after(32, 4.0).startswith("2026-06-28")
    assert last_after(92, 4.0 + HOUR) == "2026-06-21T13:32:00"


def test_the_age_of_the_last_exposure_is_shown() -> None:
    reporting = Reporting("roof", "x")
    assert reporting.snapshot()["last_exposure_age"] is None
    exposure = Exposure("a_80.jpg", SLOT, 80.0, 1, 2)
    reporting.read_done(ReadDone("roof", SLOT, "a_80.jpg", ReadOk(exposure)))
    assert 0 <= reporting.snapshot()["last_exposure_age"] < 5


def test_files_that_nothing_takes_are_said_once_and_shown(caplog: pytest.LogCaptureFixture) -> None:
    reporting = Reporting("roof", "x")
    for _ in range(2):
        reporting.scan_done(ScanDone("roof", 0.1, 0, True, 7, "06/a.tif"))
    assert caplog.text.count("no file has an extension that is in extensions") == 1
    assert reporting.snapshot()["not_taken"] == {"files": 7, "example": "06/a.tif"}
    reporting.scan_done(ScanDone("roof", 0.1, 1, False))
    assert reporting.snapshot()["not_taken"] is None
    for path in ("a.jpg", "b.jpg"):
        reporting.name_ignored(path, 0.0)
    assert "what would take them" in caplog.text
    assert reporting.snapshot()["not_taken"] == {"files": 2, "example": "b.jpg"}
