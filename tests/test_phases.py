from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from asi_watch.brackets import slot_of
from asi_watch.phase_learning import PhaseLearner, better_offset
from asi_watch.phases import OffsetChange, Slots, offsets_from_brackets

NOON = datetime(2026, 6, 21, 12)
STEP = timedelta(seconds=30)
ZERO = timedelta(0)


def stream(phase: float, brackets: int, spread: float = 5.0, frames: int = 5) -> list[datetime]:
    return [
        NOON + n * STEP + timedelta(seconds=phase + spread * i / max(frames - 1, 1))
        for n in range(brackets)
        for i in range(frames)
    ]


def learn(timestamps: list[datetime], slots: Slots, known: Sequence[datetime] = ()) -> int:
    """Learn from a stream, as the daemon does; `known` are slots of brackets that have a row."""
    learner, changes = PhaseLearner(STEP), 0
    seen = set(known)
    for timestamp in timestamps:
        seen.add(slots.slot(timestamp))
        offset = learner.observe(timestamp, slots.offset_at(timestamp))
        if offset is None:
            continue
        change = slots.change(
            learner.newest, offset, lambda slot: min((s for s in seen if s >= slot), default=None)
        )
        if change is not None:
            assert change.since > timestamp
            slots.learned(change)
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
        later.learned(OffsetChange(*change))
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


@given(st.integers(0, 29), st.integers(1, 20), st.integers(2, 5))
def test_brackets_never_share_a_slot_once_slots_have_moved(
    phase: int, spread: int, frames: int
) -> None:
    # As far as names can tell the pauses between brackets from those within.
    assume(spread / (frames - 1) < 0.7 * (30 - spread))
    slots = Slots(STEP)
    times = stream(phase, 60, spread, frames)
    learn(times, slots)
    labels = [slots.slot(t) for t in times]
    assert labels == sorted(labels)
    moved = slots.history[-1][0] if slots.history else NOON
    whole = [i for i in range(0, len(times), frames) if moved <= times[i]]
    for start in whole:
        label = labels[start]
        owners = {i // frames for i, other in enumerate(labels) if other == label}
        assert owners == {start // frames}


@pytest.mark.parametrize("jitter", [[0, 0], [-1, 0, 1], [-2, 1, 0, 2, -1]])
def test_single_exposures_at_night_do_not_move_the_edge(jitter: list[int]) -> None:
    # 60 s apart, just where the edge lies that was learned from the brackets of the day.
    slots = Slots(STEP)
    learn(stream(28, 40), slots)
    offset = slots.offset_at(NOON + timedelta(days=1))
    assert offset == timedelta(seconds=-14.5)
    night = [
        NOON + timedelta(hours=8, seconds=60 * n + 15 + jitter[n % len(jitter)]) for n in range(300)
    ]
    assert learn(night, slots) == 0
    # Each has a slot of its own.
    assert len({slots.slot(t) for t in night}) == len(night)


def test_single_exposures_of_which_two_fall_into_one_slot_move_the_edge() -> None:
    slots = Slots(STEP)
    times = [NOON + timedelta(seconds=30 * n + (-1 if n % 2 else 1)) for n in range(200)]
    assert learn(times, slots) == 1
    later = [t for t in times if t >= slots.history[-1][0]]
    assert len({slots.slot(t) for t in later}) == len(later) > 100


def test_a_bracket_cut_now_and_then_by_a_missing_exposure_is_no_matter() -> None:
    slots = Slots(STEP)
    times = [t for n, t in enumerate(stream(3, 60)) if n % 7 and n % 11]
    assert learn(times, slots) == 0


def test_a_camera_whose_clock_stays_in_the_year_2000_has_its_slots_moved_too() -> None:
    slots = Slots(STEP, history=[(NOON, timedelta(seconds=-14.5))])
    back = datetime(2000, 1, 1) - NOON
    times = [t + back for t in stream(28, 60)]
    learn(times, slots, known=[NOON - STEP])
    assert pieces(times, slots)[20:] == [1] * 40
    # The offset of what was published before the clock ran again is what it was.
    assert slots.offset_at(NOON - STEP) == ZERO
    assert slots.offset_at(NOON) == timedelta(seconds=-14.5)


def test_what_lies_ahead_of_a_clock_set_back_keeps_its_slots() -> None:
    slots = Slots(STEP)
    first = stream(12, 40)
    learn(first, slots)
    known = {t: slots.slot(t) for t in first}
    # Ten minutes back, and from now on the brackets straddle the edge.
    second = [t - timedelta(minutes=10) for t in stream(28, 120)]
    changes = learn(second, slots, known=sorted(set(known.values())))
    # Once before what is known, and once after it.
    assert changes == 2
    assert {t: slots.slot(t) for t in first} == known
    assert pieces(second, slots)[100:] == [1] * 20


def test_brackets_that_begin_on_the_edge_stay_there_though_they_are_slow() -> None:
    slots = Slots(STEP)
    assert learn(stream(0, 60, 16, 2), slots) == 0
    assert slots.offset_at(NOON + timedelta(days=1)) == ZERO
