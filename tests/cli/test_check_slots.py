"""What `check` says of slots, by the names of the newest files."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from asi_watch.brackets import slot_of
from asi_watch.cli import main
from asi_watch.cli._newest_files import slot_offset

NOON = datetime(2026, 6, 21, 12)
STEP = timedelta(seconds=30)


def taken(
    brackets: int, *, every: float = 30, step: float = 1, late: float = 0, exposures: int = 5
) -> Iterator[str]:
    for number in range(brackets):
        for index in range(exposures):
            seconds = late + number * every + index * step
            moment = NOON + timedelta(seconds=int(seconds))
            yield f"{moment:%Y%m%d%H%M%S}_{80 * 2**index}.jpg"


def warnings(folder: Path, names: Iterator[str], bracket: str = "{}", more: str = "") -> list[str]:
    watch = folder / "in"
    watch.mkdir()
    for name in names:
        (watch / name).touch()
    path = folder / "asi.yaml"
    camera = f"{{watch: in, output: out, bracket: {bracket}{more}}}"
    path.write_text(f"state_dir: state\ncameras:\n  roof: {camera}\n")
    result = CliRunner().invoke(main, ["check", "-c", str(path)])
    assert result.exit_code == 0
    about = ("bracket.round_to: ", "exposure_unit: ")
    return [line for line in result.stderr.splitlines() if any(key in line for key in about)]


@pytest.mark.parametrize("bracket", ["{}", "{offset: -14s}", "{round_to: 15s}", "{round_to: 10s}"])
def test_slots_that_fit_are_not_spoken_of(tmp_path: Path, bracket: str) -> None:
    assert warnings(tmp_path, taken(20), bracket) == []


@pytest.mark.parametrize(
    ("bracket", "share"),
    [("{round_to: 60s}", "5 of 5"), ("{round_to: 45s}", ""), ("{round_to: 60s, offset: 10s}", "")],
)
def test_slots_that_hold_two_brackets_are_warned_of(
    tmp_path: Path, bracket: str, share: str
) -> None:
    (line,) = warnings(tmp_path, taken(20), bracket)
    assert "longer than the 30s between brackets" in line
    assert f"{share} " in line
    assert "write 30s" in line


@pytest.mark.parametrize("bracket", ["{round_to: 4s}", "{round_to: 3s, offset: 1s}"])
def test_slots_shorter_than_a_bracket_are_warned_of(tmp_path: Path, bracket: str) -> None:
    (line,) = warnings(tmp_path, taken(20), bracket)
    assert "cut 10 of the 10 newest brackets, which last 4s and begin every 30s" in line
    assert "write 30s" in line


def test_brackets_that_straddle_the_edge_want_an_offset(tmp_path: Path) -> None:
    (line,) = warnings(tmp_path, taken(20, late=28))
    assert "; write bracket.offset: -15s" in line


def test_the_offset_that_was_proposed_cuts_nothing(tmp_path: Path) -> None:
    assert warnings(tmp_path, taken(20, late=28), "{offset: -15s}") == []


def stream(phase: float, spread: float = 5.0) -> list[datetime]:
    return [
        NOON + n * STEP + timedelta(seconds=phase + spread * i / 4)
        for n in range(12)
        for i in range(5)
    ]


@given(st.floats(0, 30), st.floats(0.5, 20))
def test_whatever_the_phase_the_proposed_offset_keeps_brackets_whole(
    phase: float, spread: float
) -> None:
    times = stream(phase, spread)
    offset = slot_offset(times, STEP)
    assert offset is not None
    assert abs(offset) <= STEP / 2
    slots = [slot_of(t, STEP, offset) for t in times]
    assert all(len(set(slots[i : i + 5])) == 1 for i in range(0, len(slots), 5))


def test_a_straggler_or_a_camera_without_pauses_moves_no_edge() -> None:
    times = stream(28)
    straggler = NOON + timedelta(seconds=14)
    assert slot_offset([*times, straggler], STEP) == slot_offset(times, STEP)
    assert slot_offset([NOON + timedelta(seconds=n) for n in range(90)], STEP) is None


@pytest.mark.parametrize("brackets", [0, 1, 2])
def test_too_few_brackets_tell_nothing(tmp_path: Path, brackets: int) -> None:
    assert warnings(tmp_path, taken(brackets), "{round_to: 4s}") == []


def test_a_single_bracket_that_was_taken_twice_tells_nothing(tmp_path: Path) -> None:
    def once_more() -> Iterator[str]:
        yield from taken(20)
        yield from taken(1, late=15)

    assert warnings(tmp_path, once_more()) == []


def test_a_unit_that_makes_exposures_longer_than_slots_is_warned_of(tmp_path: Path) -> None:
    (line,) = warnings(tmp_path, taken(3), more=", exposure_unit: s")
    assert "2480 s together" in line
    assert "is 's' their unit?" in line
