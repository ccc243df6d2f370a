from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asi_watch.config.values import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("500ms", 0.5),
        ("2min", 120),
        ("2m", 120),
        ("24h", 86_400),
        ("1d", 86_400),
        ("0s", 0),
        ("-3s", -3),
        ("1.5h", 5400),
        ("0.5 s", 0.5),
        (" 10s ", 10),
        ("7us", 7e-6),
        ("7µs", 7e-6),
    ],
)
def test_parse(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("30", "did you mean 30s"),
        ("1.5", "did you mean 1.5s"),
        ("30 sec", "known are d, h, min, s, ms, us"),
        ("30S", "unknown unit 'S'"),
        ("", "is not a duration"),
        ("never", "is not a duration"),
        ("1:30", "is not a duration"),
        ("1h30min", "is not a duration"),
        ("s", "is not a duration"),
        ("1e3s", "is not a duration"),
        ("٣s", "is not a duration"),
        ("0.1us", "finer than 1 us"),
        ("999999999d", "hundred years"),
        ("9" * 400 + "s", "is not a duration"),
        ("30s\n40s", "is not a duration"),
    ],
)
def test_parse_refuses_and_says_what_would_be_right(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        parse_duration(text)
    assert len(str(caught.value)) < 160


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(0), "0s"),
        (timedelta(seconds=30), "30s"),
        (timedelta(seconds=60), "60s"),
        (timedelta(seconds=120), "2min"),
        (timedelta(hours=1), "1h"),
        (timedelta(days=1), "24h"),
        (timedelta(days=-1), "-24h"),
        (timedelta(days=2), "2d"),
        (timedelta(seconds=90.5), "90500ms"),
        (timedelta(microseconds=7), "7us"),
    ],
)
def test_format(duration: timedelta, text: str) -> None:
    assert format_duration(duration) == text


@settings(deadline=None)
@given(st.timedeltas(timedelta(days=-36_500), timedelta(days=36_500)))
def test_round_trip(duration: timedelta) -> None:
    assert parse_duration(format_duration(duration)) == duration


@settings(deadline=None)
@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_duration(text)
    except ValueError as error:
        assert str(error)


@settings(deadline=None)
@given(st.integers(0, 1 << 60))
def test_sizes_round_trip(size: int) -> None:
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(
    ("text", "size"), [("512MB", 512_000_000), ("2GiB", 2 << 30), ("1 kb", 1000), ("7B", 7)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size
