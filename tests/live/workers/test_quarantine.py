from __future__ import annotations

import json
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from asi_watch.live.workers import quarantine
from asi_watch.live.workers.quarantine import (
    EXPIRES,
    JOURNAL_NAME,
    SOLITARY_FAILURES,
    SUSPECTS_NAME,
    Quarantine,
    Task,
    task_of,
)

SLOT = datetime(2026, 6, 21, 12)
ONE = Task("1" * 64, "roof", SLOT.isoformat(), "merging")
TWO = task_of("roof", SLOT, "reading a\udcff\n.jpg", [])


_KILLED: list[Any] = []
"""Work that is never over: what is kept here does not end with its function."""


def die_at(folder: Path, *tasks: Task) -> None:
    """Leave the notes of a process that was killed at these tasks."""
    notes = Quarantine(folder, patience=0.0)
    for task in tasks:
        _KILLED.append(notes.running(task))
        _KILLED[-1].__enter__()


def is_suspect(notes: Quarantine, task: Task) -> bool:
    return task.key in notes._suspects


def solitary(folder: Path, task: Task) -> int | None:
    """How often the process died of a task alone, as the next start knows; None: no suspect."""
    suspects = Quarantine(folder)._suspects
    return suspects[task.key].deaths if task.key in suspects else None


def test_two_solitary_failures_of_a_suspect_are_quarantined(tmp_path: Path) -> None:
    for failures in range(SOLITARY_FAILURES + 1):
        notes = Quarantine(tmp_path)
        assert notes.refusal(ONE) is None
        notes.close()
        die_at(tmp_path, ONE)
        assert solitary(tmp_path, ONE) == failures
    notes = Quarantine(tmp_path)
    assert "quarantined: the daemon died while merging it" in (notes.refusal(ONE) or "")
    assert notes.refusal(TWO) is None


def test_quarantine_ends_after_a_day_and_one_failure_more_renews_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(SOLITARY_FAILURES + 1):
        die_at(tmp_path, ONE)
    notes = Quarantine(tmp_path)
    assert notes.take_expired() == []
    later = time.time() + EXPIRES
    monkeypatch.setattr(quarantine.time, "time", lambda: later)
    assert notes.take_expired() == [("roof", SLOT)]
    assert notes.take_expired() == []
    assert notes.refusal(ONE) is None
    assert is_suspect(notes, ONE)
    die_at(tmp_path, ONE)
    assert Quarantine(tmp_path).refusal(ONE) is not None


def test_a_power_cut_is_nobodys_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "boot_id"
    other.write_text("another start of the machine\n")
    state = tmp_path / "state"
    state.mkdir()
    die_at(state, ONE)
    monkeypatch.setattr("asi_watch.live.workers.quarantine._BOOT_ID", other)
    notes = Quarantine(state)
    assert not is_suspect(notes, ONE)
    notes.close()
    die_at(state, ONE)
    assert is_suspect(Quarantine(state), ONE)


def test_what_is_got_through_is_suspect_no_more(tmp_path: Path) -> None:
    die_at(tmp_path, ONE, TWO)
    notes = Quarantine(tmp_path)
    assert (is_suspect(notes, ONE), is_suspect(notes, TWO)) == (True, True)
    with notes.running(ONE):
        pass
    notes.close()
    notes = Quarantine(tmp_path)
    assert (is_suspect(notes, ONE), is_suspect(notes, TWO)) == (False, True)


def test_work_that_is_over_leaves_no_trace(tmp_path: Path) -> None:
    notes = Quarantine(tmp_path)
    for task in (ONE, TWO):
        with notes.running(task):
            assert (tmp_path / JOURNAL_NAME).read_bytes().count(task.key.encode()) == 1
    again = Quarantine(tmp_path)
    assert (is_suspect(again, ONE), is_suspect(again, TWO)) == (False, False)


def test_an_orderly_end_blames_nothing_that_is_still_in_work(tmp_path: Path) -> None:
    notes = Quarantine(tmp_path)
    with notes.running(ONE):
        notes.close()
    assert not is_suspect(Quarantine(tmp_path), ONE)


def test_suspects_are_worked_on_alone(tmp_path: Path) -> None:
    die_at(tmp_path, ONE, TWO)
    notes = Quarantine(tmp_path)
    other = Task("3" * 64, "roof", "", "reading")
    entered: list[Task] = []

    def work(task: Task) -> None:
        with notes.running(task):
            entered.append(task)

    threads = [threading.Thread(target=work, args=(task,)) for task in (TWO, other)]
    with notes.running(ONE):
        threads[0].start()
        while not notes._want_alone:
            time.sleep(0.001)
        threads[1].start()
        threads[1].join(0.05)
        assert entered == []
    for thread in threads:
        thread.join()
    # Who has to be alone goes first.
    assert entered == [TWO, other]


def test_what_only_runs_when_others_die_is_never_quarantined(tmp_path: Path) -> None:
    for number in range(SOLITARY_FAILURES + 2):
        die_at(tmp_path, ONE, Task(f"{number + 3}" * 64, "roof", "", "merging"))
    assert solitary(tmp_path, ONE) == 0


def test_what_hangs_alone_does_not_stop_the_others_for_ever(tmp_path: Path) -> None:
    die_at(tmp_path, ONE)
    notes = Quarantine(tmp_path, patience=0.05)
    with notes.running(ONE), notes.running(TWO):
        assert (tmp_path / JOURNAL_NAME).read_bytes().count(b"key") == 2


def test_a_bracket_somebody_asks_for_is_forgiven(tmp_path: Path) -> None:
    other = Task("3" * 64, "lab", SLOT.isoformat(), "merging")
    die_at(tmp_path, ONE, TWO, other)
    notes = Quarantine(tmp_path)
    notes.forgive("roof", SLOT)
    for now in (notes, Quarantine(tmp_path)):
        assert [is_suspect(now, t) for t in (ONE, TWO, other)] == [False, False, True]


def test_without_a_place_for_notes_work_goes_on(tmp_path: Path) -> None:
    (tmp_path / JOURNAL_NAME).symlink_to("/etc/passwd")
    notes = Quarantine(tmp_path)
    with notes.running(ONE):
        pass
    notes.close()


@pytest.mark.parametrize(
    "text", [b"", b"\xff", b"{}", b"[1]", b"[" * 99999, b'[{"key": 1}]', b'{"a": 1}', b"null"]
)
def test_notes_that_make_no_sense_are_none(tmp_path: Path, text: bytes) -> None:
    (tmp_path / SUSPECTS_NAME).write_bytes(text)
    (tmp_path / JOURNAL_NAME).write_bytes(quarantine._boot_id() + b"\n" + text)
    notes = Quarantine(tmp_path)
    assert not is_suspect(notes, ONE)


def test_what_is_kept_can_be_read_by_the_service_alone(tmp_path: Path) -> None:
    die_at(tmp_path, ONE)
    Quarantine(tmp_path).close()
    for name in (JOURNAL_NAME, SUSPECTS_NAME):
        assert (tmp_path / name).stat().st_mode & 0o077 == 0
    assert json.loads((tmp_path / SUSPECTS_NAME).read_bytes())[0]["deaths"] == 0
