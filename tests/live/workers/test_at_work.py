from __future__ import annotations

import json
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from asi_watch.live.workers import at_work
from asi_watch.live.workers.at_work import DEATHS_NAME, MOST_DEATHS, NOTES_NAME, AtWork, Task
from asi_watch.live.workers.turns import Turns

SLOT = datetime(2026, 6, 21, 12)
ONE = Task("1" * 64, "roof", SLOT.isoformat(), "merging")
TWO = Task("2" * 64, "roof", SLOT.isoformat(), "reading a\udcff\n.jpg")


_KILLED: list[Any] = []
"""Work that is never over: what is kept here does not end with its function."""


def die_at(folder: Path, *tasks: Task) -> None:
    """Leave the notes of a process that was killed at these tasks."""
    notes = AtWork(folder, 4)
    notes._turns = Turns(patience=0.0)
    for task in tasks:
        _KILLED.append(notes.doing(task))
        _KILLED[-1].__enter__()


def test_who_dies_again_and_again_at_the_same_work_is_told(tmp_path: Path) -> None:
    for deaths in range(1, MOST_DEATHS + 1):
        die_at(tmp_path, ONE)
        notes = AtWork(tmp_path, 4)
        assert (notes.deaths(ONE.key), notes.deaths(TWO.key)) == (deaths, 0)
        notes.close()


def test_a_power_cut_is_nobodys_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "boot_id"
    other.write_text("another start of the machine\n")
    state = tmp_path / "state"
    state.mkdir()
    die_at(state, ONE)
    monkeypatch.setattr("asi_watch.live.workers.at_work._BOOT_ID", other)
    notes = AtWork(state, 4)
    assert notes.deaths(ONE.key) == 0
    notes.close()
    die_at(state, ONE)
    assert AtWork(state, 4).deaths(ONE.key) == 1


def test_what_is_got_through_is_suspect_no_more(tmp_path: Path) -> None:
    die_at(tmp_path, ONE, TWO)
    notes = AtWork(tmp_path, 4)
    assert (notes.deaths(ONE.key), notes.deaths(TWO.key)) == (1, 1)
    with notes.doing(ONE):
        pass
    notes.close()
    notes = AtWork(tmp_path, 4)
    assert (notes.deaths(ONE.key), notes.deaths(TWO.key)) == (0, 1)


def test_work_that_is_over_leaves_no_trace(tmp_path: Path) -> None:
    notes = AtWork(tmp_path, 4)
    for task in (ONE, TWO):
        with notes.doing(task):
            assert (tmp_path / NOTES_NAME).read_bytes().count(task.key.encode()) == 1
    again = AtWork(tmp_path, 4)
    assert (again.deaths(ONE.key), again.deaths(TWO.key)) == (0, 0)


def test_an_orderly_end_blames_nothing_that_is_still_in_work(tmp_path: Path) -> None:
    notes = AtWork(tmp_path, 4)
    with notes.doing(ONE):
        notes.close()
    assert AtWork(tmp_path, 4).deaths(ONE.key) == 0


def test_suspects_are_worked_on_alone(tmp_path: Path) -> None:
    die_at(tmp_path, ONE, TWO)
    notes = AtWork(tmp_path, 4)
    other = Task("3" * 64, "roof", "", "reading")
    entered: list[Task] = []

    def work(task: Task) -> None:
        with notes.doing(task):
            entered.append(task)

    threads = [threading.Thread(target=work, args=(task,)) for task in (TWO, other)]
    with notes.doing(ONE):
        threads[0].start()
        while not notes._turns._want_alone:
            time.sleep(0.001)
        threads[1].start()
        threads[1].join(0.05)
        assert entered == []
    for thread in threads:
        thread.join()
    # Who has to be alone goes first.
    assert entered == [TWO, other]


def test_what_only_happens_to_be_in_work_when_others_die_is_never_given_up(tmp_path: Path) -> None:
    for number in range(MOST_DEATHS + 1):
        die_at(tmp_path, ONE, Task(f"{number + 3}" * 64, "roof", "", "merging"))
    assert AtWork(tmp_path, 4).deaths(ONE.key) == 1


def test_who_dies_while_a_row_is_written_died_of_no_work(tmp_path: Path) -> None:
    for _ in range(MOST_DEATHS + 1):
        notes = AtWork(tmp_path, 4)
        _KILLED.append(notes.recording("roof", SLOT))
        _KILLED[-1].__enter__()
        _KILLED.append(notes.doing(TWO))
        _KILLED[-1].__enter__()
    assert AtWork(tmp_path, 4).deaths(TWO.key) == 1
    assert AtWork(tmp_path, 4).deaths(at_work._RECORDING) == 0


def test_what_hangs_alone_does_not_stop_the_others_for_ever(tmp_path: Path) -> None:
    die_at(tmp_path, ONE)
    notes = AtWork(tmp_path, 4)
    notes._turns = Turns(patience=0.05)
    with notes.doing(ONE), notes.doing(TWO):
        assert (tmp_path / NOTES_NAME).read_bytes().count(b"key") == 2


def test_a_bracket_somebody_asks_for_is_forgiven(tmp_path: Path) -> None:
    other = Task("3" * 64, "lab", SLOT.isoformat(), "merging")
    die_at(tmp_path, ONE, TWO, other)
    notes = AtWork(tmp_path, 4)
    notes.forgive("roof", SLOT)
    for now in (notes, AtWork(tmp_path, 4)):
        assert [now.deaths(t.key) for t in (ONE, TWO, other)] == [0, 0, 1]


def test_without_a_place_for_notes_work_goes_on(tmp_path: Path) -> None:
    (tmp_path / NOTES_NAME).symlink_to("/etc/passwd")
    notes = AtWork(tmp_path, 4)
    with notes.doing(ONE):
        pass
    notes.close()


def test_more_work_than_places_goes_on_unnoted(tmp_path: Path) -> None:
    notes = AtWork(tmp_path, 1)
    with notes.recording("roof", SLOT), notes.doing(ONE), notes.doing(TWO):
        assert (tmp_path / NOTES_NAME).read_bytes().count(b"key") == 2


@pytest.mark.parametrize(
    "text", [b"", b"\xff", b"{}", b"[1]", b"[" * 99999, b'[{"key": 1}]', b'{"a": 1}', b"null"]
)
def test_notes_that_make_no_sense_are_none(tmp_path: Path, text: bytes) -> None:
    (tmp_path / DEATHS_NAME).write_bytes(text)
    (tmp_path / NOTES_NAME).write_bytes(at_work._boot() + text)
    notes = AtWork(tmp_path, 4)
    assert notes.deaths(ONE.key) == 0


def test_what_is_kept_can_be_read_by_the_service_alone(tmp_path: Path) -> None:
    die_at(tmp_path, ONE)
    AtWork(tmp_path, 4).close()
    for name in (NOTES_NAME, DEATHS_NAME):
        assert (tmp_path / name).stat().st_mode & 0o007 == 0
    assert json.loads((tmp_path / DEATHS_NAME).read_bytes())[0]["deaths"] == 1
