from __future__ import annotations

import datetime as dt
from dataclasses import replace

import pytest

from asi_watch.simulator.faults import (
    DEFAULT_RATE,
    FAULTS,
    Arrival,
    FaultKind,
    Frame,
    apply_faults,
    parse_faults,
)

START = dt.datetime(2026, 6, 21, 9)
SECOND = dt.timedelta(seconds=1)
DATA = bytes(range(200))


def frames(bracket: int = 0) -> list[Frame]:
    slot = START + bracket * 30 * SECOND
    times = (80.0, 160.0, 320.0)
    return [Frame(bracket, slot, slot + k * SECOND, us, DATA) for k, us in enumerate(times)]


def strike(*kinds: FaultKind, seed: int = 1, bracket: int = 0) -> list[Arrival]:
    return apply_faults(
        frames(bracket), dict.fromkeys(kinds, 1.0), seed, interval=30 * SECOND, settle=SECOND
    )


def faults_of(arrivals: list[Arrival]) -> list[Arrival]:
    return [arrival for arrival in arrivals if arrival.fault]


def test_faults_are_read_with_and_without_rates() -> None:
    assert parse_faults("truncated, late:0.5") == {"truncated": DEFAULT_RATE, "late": 0.5}
    assert parse_faults("") == {}
    assert list(parse_faults("all:0.1")) == list(FAULTS)
    assert parse_faults("all:0.1,late:1") == dict.fromkeys(FAULTS, 0.1) | {"late": 1.0}


@pytest.mark.parametrize("text", ["lost", "late:2", "late:-1", "late:often", "late:nan"])
def test_what_is_no_fault_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"fault '"):
        parse_faults(text)


def test_without_faults_every_frame_arrives_when_it_is_taken() -> None:
    arrivals = strike()
    assert [arrival.frame for arrival in arrivals] == frames()
    assert all(a.at == a.frame.timestamp and a.fault is None for a in arrivals)


def test_half_a_file() -> None:
    (hit,) = faults_of(strike("truncated"))
    assert hit.frame.data == DATA[:100]


def test_an_empty_file_a_pipe_and_nothing_at_all() -> None:
    nodes = {a.fault: (a.node, a.frame.data) for a in faults_of(strike("zero", "fifo", "missing"))}
    assert nodes == {"zero": ("file", b""), "fifo": ("fifo", b""), "missing": ("nothing", b"")}


def test_garbage_has_the_size_of_an_image() -> None:
    (hit,) = faults_of(strike("garbage"))
    assert len(hit.frame.data) == len(DATA)
    assert hit.frame.data != DATA


def test_a_late_frame_comes_after_the_next_bracket() -> None:
    (hit,) = faults_of(strike("late"))
    assert hit.frame.data == DATA
    assert START + 32 * SECOND < hit.at < START + 60 * SECOND
    assert hit.frame.timestamp < START + 3 * SECOND


def test_a_duplicate_is_the_same_exposure_taken_again() -> None:
    arrivals = strike("duplicate")
    (hit,) = faults_of(arrivals)
    assert len(arrivals) == 4
    assert hit.frame.timestamp == START + 3 * SECOND
    assert [a.frame.exposure_us for a in arrivals].count(hit.frame.exposure_us) == 2


def test_a_duplicate_of_a_quick_bracket_has_a_name_of_its_own() -> None:
    quick = [replace(f, timestamp=START + k * SECOND / 10) for k, f in enumerate(frames())]
    gaps = {"interval": 30 * SECOND, "settle": SECOND / 10}
    (hit,) = faults_of(apply_faults(quick, {"duplicate": 1.0}, 1, **gaps))
    assert hit.frame.timestamp.replace(microsecond=0) > START


def test_completed_later_is_half_first_and_whole_in_the_end() -> None:
    half, whole = faults_of(strike("completed-later"))
    assert (half.frame.data, whole.frame.data) == (DATA[:100], DATA)
    assert half.at < whole.at
    assert half.frame.timestamp == whole.frame.timestamp


def test_faults_of_one_bracket_take_different_frames_and_leave_the_rest_out() -> None:
    hits = faults_of(strike("truncated", "zero", "garbage", "missing"))
    assert len({hit.frame.exposure_us for hit in hits}) == len(hits) == 3


def test_faults_follow_the_seed_and_the_bracket() -> None:
    def pattern(seed: int) -> list[list[tuple[float, str | None]]]:
        faults = parse_faults("all:0.3")
        gaps = {"interval": 30 * SECOND, "settle": SECOND}
        brackets = (apply_faults(frames(k), faults, seed, **gaps) for k in range(20))
        return [[(a.frame.exposure_us, a.fault) for a in bracket] for bracket in brackets]

    assert pattern(1) == pattern(1)
    assert pattern(1) != pattern(2)
    assert len({tuple(bracket) for bracket in pattern(1)}) > 5


def test_rates_are_probabilities() -> None:
    gaps = {"interval": 30 * SECOND, "settle": SECOND}
    arrivals = (apply_faults(frames(k), {"missing": 0.25}, 1, **gaps) for k in range(400))
    hits = sum(len(faults_of(bracket)) for bracket in arrivals)
    assert 70 < hits < 130
