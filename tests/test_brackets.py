from __future__ import annotations

import itertools
import random
from datetime import datetime, timedelta

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asi_watch.brackets import (
    MAX_EXPOSURES,
    ExpectedExposures,
    Exposure,
    ExposureTimes,
    brackets_among,
    chosen_files,
    slot_of,
    why_too_many,
)

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
    assert newer.written > older.written


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


# -- several files of one exposure time -------------------------------------------------------

START = datetime(2026, 6, 21, 12)
TIMES = (80.0, 160.0, 320.0, 640.0, 1280.0)


def shot(second: float, time: float, mtime: int = 0, folder: str = "") -> Exposure:
    when = START + timedelta(seconds=second)
    return Exposure(f"{folder}{when:%H%M%S.%f}_{time:g}.jpg", when, time, 1, mtime)


def bracket(second: float, step: float = 1.0, times: tuple[float, ...] = TIMES) -> list[Exposure]:
    return [shot(second + n * step, time, 7) for n, time in enumerate(times)]


def seconds(files: dict[float, Exposure]) -> list[float]:
    return [(files[t].timestamp - START).total_seconds() for t in sorted(files)]


def test_two_brackets_are_never_mixed_whatever_was_written_when() -> None:
    dice = random.Random(1)
    for _ in range(50):
        files = [shot(s + n, t, dice.randint(1, 9)) for s in (0, 31) for n, t in enumerate(TIMES)]
        dice.shuffle(files)
        assert seconds(chosen_files(files)) == [31, 32, 33, 34, 35]


def test_the_fuller_bracket_goes_first_and_the_other_lends_what_it_lacks() -> None:
    files = bracket(0, times=TIMES[:4]) + bracket(31)[2:]
    assert seconds(chosen_files(files)) == [0, 1, 2, 3, 35]


def test_a_bracket_of_which_only_the_end_is_there() -> None:
    files = [shot(4, TIMES[-1], 9), *bracket(31)]
    assert [len(b) for b in brackets_among(files)] == [1, 5]
    assert seconds(chosen_files(files)) == [31, 32, 33, 34, 35]


def test_three_brackets_with_pauses_that_differ() -> None:
    files = bracket(0) + bracket(15) + bracket(31)
    assert [b[0].timestamp.second for b in brackets_among(files)] == [0, 15, 31]


def test_one_timestamp_for_all_of_a_bracket() -> None:
    files = bracket(0, step=0) + bracket(15, step=0)
    assert [len(b) for b in brackets_among(files)] == [5, 5]
    assert set(seconds(chosen_files(files))) == {15}


def test_a_camera_that_never_pauses() -> None:
    files = bracket(0) + bracket(5) + bracket(10)
    assert [len(b) for b in brackets_among(files)] == [5, 5, 5]
    assert seconds(chosen_files(files)) == [10, 11, 12, 13, 14]


def test_a_camera_that_never_pauses_and_takes_two_a_second() -> None:
    files = [shot(n // 2, TIMES[n % 4], 7) for n in range(12)]
    assert [len(b) for b in brackets_among(files)] == [4, 4, 4]


def test_a_repeated_exposure_is_no_bracket_of_its_own() -> None:
    files = [shot(0, 80), shot(1, 160, 5), shot(2, 160, 6), shot(4, 320)]
    assert len(brackets_among(files)) == 1
    assert seconds(chosen_files(files)) == [0, 2, 4]


@pytest.mark.parametrize(
    "times",
    [
        (80, 160, 320, 640, 640, 1280),
        (320, 80, 160, 640, 1280),
        (320, 80, 160, 640, 1280, 320),
        (80, 160, 320, 640, 320, 160, 80),
        (640, 320, 160, 80, 160, 320, 640),
        (320, 160, 80, 640, 1280, 640, 320, 160),
        (80, 80, 160, 160, 320, 320),
    ],
)
@pytest.mark.parametrize("step", [0.25, 1, 2])
def test_exposures_that_repeat_or_go_up_and_down_are_one_bracket(
    times: tuple[float, ...], step: float
) -> None:
    files = bracket(0, step=step, times=times)
    assert len(brackets_among(files)) == 1
    assert sorted(chosen_files(files)) == sorted(set(times))


@pytest.mark.parametrize("per_second", [2, 3, 4])
def test_up_and_down_is_one_bracket_though_names_count_whole_seconds(per_second: int) -> None:
    for times in ((80, 160, 320, 160, 80), (80, 160, 320, 640, 320, 160, 80), (320, 160, 80, 160)):
        files = [shot(n // per_second, time, 7) for n, time in enumerate(times)]
        assert len(brackets_among(files)) == 1


def test_two_brackets_that_go_up_and_down_are_told_apart_by_the_pause() -> None:
    times = (80.0, 160.0, 320.0, 160.0, 80.0)
    files = bracket(0, times=times) + bracket(30, times=times)
    assert [len(b) for b in brackets_among(files)] == [5, 5]
    assert min(seconds(chosen_files(files))) >= 30


def test_what_is_no_bracket_for_its_number_of_exposures_is_refused() -> None:
    assert why_too_many(range(1, MAX_EXPOSURES + 1)) is None
    assert "65 exposure times in one slot, at most 64" in (why_too_many(range(1, 66)) or "")


def test_brackets_that_interlock_are_chosen_from_by_their_age() -> None:
    earlier = [shot(n, t, 5) for n, t in enumerate(TIMES)]
    set_back = [shot(n + 0.5, t, 9) for n, t in enumerate(TIMES)]
    assert seconds(chosen_files(earlier + set_back)) == [0.5, 1.5, 2.5, 3.5, 4.5]


def test_copies_are_chosen_from_by_their_age() -> None:
    files = [*bracket(0), shot(2, 320, 9, "b/"), shot(1, 160, 3, "b/")]
    assert len(brackets_among(files)) == 1
    chosen = chosen_files(files)
    assert (chosen[320].path[:2], chosen[160].path[:2]) == ("b/", "12")


def test_the_order_of_the_files_never_matters() -> None:
    dice = random.Random(2)
    for _ in range(200):
        files = [
            shot(dice.choice((0, 1, 2, 9, 30)), dice.choice(TIMES[:3]), dice.randint(1, 3), folder)
            for folder in ("a/", "b/", "c/", "d/", "e/")
        ]
        results = {
            tuple(sorted((t, e.path) for t, e in chosen_files(order).items()))
            for order in itertools.islice(itertools.permutations(files), 0, 120, 17)
        }
        assert len(results) == 1
        (result,) = results
        # Nothing that is there is given up: a bracket never gets smaller by what comes.
        assert [t for t, _ in result] == sorted({e.exposure_us for e in files})


# -- where exposure times come from -------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "named", "stated", "given"),
    [
        ("name", 80, 999, (80, 80)),
        ("auto", 80, None, (80, 80)),
        ("auto", 80, 82, (82, 80)),
        ("auto", 0, 82, (82, 80)),
        ("metadata", 80, 88, (88, 80)),
        ("metadata", 0, 170, (170, 160)),
    ],
)
def test_an_exposure_time_and_what_it_counts_as(
    source: str, named: float, stated: float | None, given: tuple[float, float]
) -> None:
    times = ExposureTimes(source, rule=(80.0, 160.0))  # type: ignore[arg-type]
    assert times.of(named, stated) == given


@pytest.mark.parametrize(
    ("source", "named", "stated", "reason"),
    [
        ("metadata", 80, None, "do not state"),
        ("auto", 0, None, "do not state"),
        ("auto", 80, 0, "of 0 µs"),
        ("metadata", 80, float("nan"), "of nan µs"),
        ("metadata", 0, 1e10, "of 10000000000 µs"),
        ("auto", 80, 88.1, "its name 80 µs: more apart than exposure_tolerance, 0.1"),
    ],
)
def test_a_stated_time_that_cannot_be_is_refused(
    source: str, named: float, stated: float | None, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        ExposureTimes(source).of(named, stated)  # type: ignore[arg-type]


@given(st.floats(0.1, 3.6e9), st.sampled_from([0.0, 0.01, 0.1, 0.5]))
def test_without_names_and_lists_a_time_counts_as_a_near_one(
    stated: float, tolerance: float
) -> None:
    time, nominal = ExposureTimes("metadata", tolerance).of(0.0, stated)
    assert time == stated
    assert nominal == pytest.approx(stated, rel=1.05 * tolerance or 1e-9)


def test_times_near_to_listed_ones_make_a_complete_bracket() -> None:
    expected = ExpectedExposures((80.0, 160.0, 320.0))
    assert expected.is_complete([81.0, 150.0, 352.0])
    assert expected.lacking([81.0, 352.1]) == (160.0, 320.0)
    # One exposure does not stand for two.
    close = ExpectedExposures((80.0, 85.0))
    assert close.lacking([83.0]) == (85.0,)
    assert close.is_complete([84.0, 86.0])
    assert not ExpectedExposures((80.0, 160.0), 0.0).is_complete([80.0, 161.0])


def test_files_are_compared_by_what_they_count_as() -> None:
    files = [
        Exposure(f"{n}.jpg", NOON, time, mtime_ns=n, nominal_us=80.0)
        for n, time in enumerate((81.0, 79.0))
    ]
    assert chosen_files(files) == {80.0: files[1]}
