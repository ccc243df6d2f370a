from __future__ import annotations

from datetime import datetime, timedelta

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asi_watch.brackets import ExpectedExposures, Exposure, slot_of

NOON = datetime(2026, 6, 21, 12)


@given(
    st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(2200, 1, 1)),
    st.integers(1, 7200),
)
def test_slot_is_the_floor_of_pandas(timestamp: datetime, seconds: int) -> None:
    floored = pd.Timestamp(timestamp).floor(f"{seconds}s")
    assert slot_of(timestamp, timedelta(seconds=seconds)) == floored.to_pydatetime()


@given(st.datetimes(min_value=datetime(1960, 1, 1), max_value=datetime(1970, 1, 1)))
def test_slot_before_1970_rounds_down_too(timestamp: datetime) -> None:
    floored = pd.Timestamp(timestamp).floor("30s")
    assert slot_of(timestamp, timedelta(seconds=30)) == floored.to_pydatetime()


def test_offset_brings_a_straddling_bracket_into_one_slot() -> None:
    frames = [NOON + timedelta(seconds=s) for s in (28, 29, 30, 31, 32)]
    step = timedelta(seconds=30)
    assert len({slot_of(t, step) for t in frames}) == 2
    assert {slot_of(t, step, timedelta(seconds=20)) for t in frames} == {NOON}


def test_the_newer_file_is_the_one_written_later() -> None:
    older = Exposure("a_80.jpg", NOON, 80.0, mtime_ns=1)
    newer = Exposure("b_80.jpg", NOON, 80.0, mtime_ns=2)
    assert newer.newer_than(older)
    assert not older.newer_than(newer)


def test_a_list_of_exposures_must_all_be_there() -> None:
    expected = ExpectedExposures((80.0, 160.0))
    assert not expected.is_complete([80.0])
    assert expected.is_complete([160.0, 80.0, 5000.0])
    assert expected.count() == 2


def test_a_count_takes_any_exposures() -> None:
    expected = ExpectedExposures(3)
    assert not expected.is_complete([1.0, 2.0])
    assert expected.is_complete([1.0, 2.0, 3.0])
    assert expected.expected() is None


def test_auto_learns_from_brackets_that_agree() -> None:
    expected = ExpectedExposures("auto")
    assert not expected.is_complete([80.0, 160.0, 320.0])
    expected.observe([80.0, 160.0, 320.0])
    assert expected.count() is None
    expected.observe([320.0, 160.0, 80.0])
    assert expected.is_complete([80.0, 160.0, 320.0])
    assert not expected.is_complete([80.0, 160.0])


def test_auto_follows_a_camera_that_changes_its_exposures() -> None:
    expected = ExpectedExposures("auto")
    for _ in range(20):
        expected.observe([80.0, 160.0, 320.0])
    for _ in range(4):
        expected.observe([1000.0, 2000.0])
    assert expected.is_complete([1000.0, 2000.0])


def test_auto_is_not_misled_by_one_short_bracket() -> None:
    expected = ExpectedExposures("auto")
    for _ in range(3):
        expected.observe([80.0, 160.0, 320.0])
    expected.observe([80.0])
    assert expected.count() == 3


def test_auto_waits_for_what_came_twice_though_most_brackets_are_short() -> None:
    expected = ExpectedExposures("auto")
    for exposures in ([80.0, 160.0], [80.0, 160.0, 320.0]) * 2 + ([80.0, 160.0],) * 2:
        expected.observe(exposures)
    assert expected.count() == 3
    for _ in range(6):
        expected.observe([80.0, 160.0])
    assert expected.count() == 2


@pytest.mark.parametrize("rule", [(80.0,), 1, "auto"])
def test_nothing_is_never_complete(rule: object) -> None:
    assert not ExpectedExposures(rule).is_complete([])  # type: ignore[arg-type]
