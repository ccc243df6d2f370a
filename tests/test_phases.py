from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asi_watch.brackets import slot_of
from asi_watch.phases import PhaseLearner, Slots, better_offset, offsets_from_brackets

NOON = datetime(2026, 6, 21, 12)
STEP = timedelta(seconds=30)
ZERO = timedelta(0)


def stream(phase: float, brackets: int, spread: float = 5.0, frames: int = 5) -> list[datetime]:
    return [
        NOON + n * STEP + timedelta(seconds=phase + spread * i / max(frames - 1, 1))
        for n in range(brackets)
        for i in range(frames)
    ]


def learn(timestamps: list[datetime], slots: Slots) -> int:
    learner, changes = PhaseLearner(STEP), 0
    for timestamp in timestamps:
        change = learner.observe(timestamp, slots.offset_at(timestamp))
        if change is not None:
            assert change[0] > timestamp
            slots.learned(*change)
            changes += 1
    return changes


def pieces(timestamps: list[datetime], slots: Slots) -> list[int]:
    """How many slots each bracket of five falls into."""
    return [
        len({slots.slot(t) for t in timestamps[i : i + 5]}) for i in range(0, len(timestamps), 5)
    ]


@given(st.floats(0, 30), st.floats(0.5, 20))
def test_whatever_the_phase_brackets_end_up_whole_and_nothing_flaps(
    phase: float, spread: float
) -> None:
    slots = Slots(STEP)
    times = stream(phase, 60, spread)
    changes = learn(times, slots)
    assert changes <= 1
    assert pieces(times, slots)[20:] == [1] * 40
    assert len({slots.slot(t) for t in times[100:]}) == 40
    assert abs(slots.offset_at(times[-1])) <= STEP / 2


@given(
    st.lists(st.integers(-86_400, 86_400), max_size=100),
    st.integers(-29, 29),
    st.integers(-14, 15),
    st.integers(-1000, 1000),
)
def test_a_slot_is_the_floor_under_the_offset_that_holds(
    seconds: list[int], fixed: int, learned: int, since: int
) -> None:
    change = NOON + timedelta(seconds=since), timedelta(seconds=learned)
    slots = Slots(STEP, timedelta(seconds=fixed), [change])
    for second in seconds:
        timestamp = NOON + timedelta(seconds=second)
        offset = learned if timestamp >= change[0] else fixed
        assert slots.slot(timestamp) == slot_of(timestamp, STEP, timedelta(seconds=offset))
        # The same from history as when it was learned.
        later = Slots(STEP, timedelta(seconds=fixed))
        later.learned(*change)
        assert later.slot(timestamp) == slots.slot(timestamp)


@pytest.mark.parametrize("phase", [0, 1, 10, 20, 24])
def test_whole_brackets_leave_the_offset_at_nothing(phase: float) -> None:
    slots = Slots(STEP)
    assert learn(stream(phase, 60), slots) == 0
    assert slots.offset_at(NOON + timedelta(days=1)) == ZERO


def test_an_edge_on_the_first_exposure_is_right_and_on_the_last_is_not() -> None:
    assert better_offset(stream(0, 10), STEP, ZERO) is None
    assert better_offset(stream(25, 10), STEP, ZERO) is not None
    assert better_offset([NOON], STEP, ZERO) is None
    assert better_offset([], STEP, ZERO) is None


def test_exposures_all_round_the_clock_have_no_pause() -> None:
    assert better_offset([NOON + timedelta(seconds=s) for s in range(30)], STEP, ZERO) is None


def test_single_stragglers_move_nothing() -> None:
    slots = Slots(STEP)
    times = stream(10, 60)
    for position in range(50, 300, 60):
        times.insert(position, times[position] + timedelta(seconds=17))
    assert learn(times, slots) == 0


def test_a_camera_that_moves_its_brackets_is_followed() -> None:
    slots = Slots(STEP)
    first, second = stream(28, 40), [t + timedelta(hours=1) for t in stream(12, 40)]
    learner_changes = learn(first + second, slots)
    assert 1 <= learner_changes <= 2
    assert pieces(second, slots)[20:] == [1] * 20
    # What was said of the first hour still holds.
    assert pieces(first, slots)[20:] == [1] * 20


def test_the_offsets_of_a_lost_history_are_found_in_the_brackets() -> None:
    slots = Slots(STEP, ZERO, [(NOON + timedelta(minutes=10), timedelta(seconds=-14.5))])
    times = stream(28, 40)
    brackets: dict[datetime, list[datetime]] = {}
    for t in times:
        brackets.setdefault(slots.slot(t), []).append(t)
    found = offsets_from_brackets(brackets.items(), STEP)
    again = Slots(STEP, ZERO, found)
    assert [again.slot(t) for t in times] == [slots.slot(t) for t in times]
    assert offsets_from_brackets([(NOON, [NOON, NOON + timedelta(seconds=4)])], STEP) == []
