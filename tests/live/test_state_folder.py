"""The lock, which one daemon alone can hold; and `status.json`: who reads it, what it says."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from asi_watch.live import state_folder
from asi_watch.live.state_folder import (
    LOCK_NAME,
    STATUS_NAME,
    AlreadyRunningError,
    NotRunningError,
    StateFolderError,
    StateLock,
    StatusFile,
    read_status,
    status_line,
)


def changed(state: Path, **changes: Any) -> None:
    path = state / STATUS_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def make_old(state: Path) -> None:
    os.utime(state / STATUS_NAME, (time.time() - 60, time.time() - 60))


def test_what_is_written_is_read_by_anybody(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        StatusFile(tmp_path).write({"cameras": {"roof": "\udcff"}})
    finally:
        os.umask(before)
    snapshot, age = read_status(tmp_path)
    assert snapshot["cameras"] == {"roof": "\udcff"}
    assert 0 <= age < 5
    assert stat.S_IMODE((tmp_path / STATUS_NAME).stat().st_mode) == 0o644
    assert [p.name for p in tmp_path.iterdir()] == [STATUS_NAME]


def test_no_file_a_stopped_daemon_and_rubbish_are_no_daemon(tmp_path: Path) -> None:
    with pytest.raises(NotRunningError, match="no daemon runs"):
        read_status(tmp_path)
    StatusFile(tmp_path).stopped({"at_utc": "noon"}, "SIGTERM")
    with pytest.raises(NotRunningError, match=r"stopped at noon \(SIGTERM\)"):
        read_status(tmp_path)
    for text in ("", "{", "[]", '{"process": {}}', "[" * 100_000):
        (tmp_path / STATUS_NAME).write_text(text)
        with pytest.raises(NotRunningError, match="cannot be read"):
            read_status(tmp_path)


def test_a_dead_process_is_no_daemon_even_if_its_number_is_in_use(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from asi_watch.live.state_folder import StatusFile;"
        "StatusFile(Path(sys.argv[1])).write({'at_utc': 'noon'})"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    snapshot, _ = read_status(tmp_path)
    make_old(tmp_path)
    with pytest.raises(NotRunningError, match="last seen at noon"):
        read_status(tmp_path)
    # Its number belongs to another process by now.
    changed(tmp_path, process={**snapshot["process"], "pid": os.getpid()})
    make_old(tmp_path)
    with pytest.raises(NotRunningError, match="last seen"):
        read_status(tmp_path)


def test_a_daemon_that_hangs_is_still_there_but_stale(tmp_path: Path) -> None:
    StatusFile(tmp_path).write({})
    make_old(tmp_path)
    _, age = read_status(tmp_path)
    assert state_folder.is_stale(age)


def test_a_full_disk_is_logged_once_and_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer = StatusFile(tmp_path / "gone")
    for _ in range(3):
        writer.write({})
    assert [r.message for r in caplog.records] == ["status not written"]


def test_a_link_in_its_place_is_replaced_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("x")
    (tmp_path / f".{STATUS_NAME}.new").symlink_to(precious)
    (tmp_path / STATUS_NAME).symlink_to(precious)
    StatusFile(tmp_path).write({})
    assert precious.read_text() == "x"


def test_the_line_for_the_service_manager_says_what_is_wrong() -> None:
    camera = {"counts": {"published": 3}, "watching": "events", "paused": None}
    line = status_line({"cameras": {"roof": camera, "lab": {**camera, "paused": "full"}}})
    assert line == "2 cameras, 6 brackets published; paused: full"
    line = status_line({"cameras": {"roof": {**camera, "no_place": "read-only"}}})
    assert "products find no place: read-only" in line
    silent = {**camera, "late_since": "noon", "failing": "sizes differ"}
    line = status_line({"cameras": {"roof": silent}})
    assert line.endswith("silent: roof since noon; brackets fail: roof")
    line = status_line({"cameras": {}, "blocked": "disk full", "reload_error": "wrong"})
    assert "nothing is published: disk full" in line
    assert "not reloaded" in line


def test_a_second_daemon_is_refused_with_the_number_of_the_first(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).touch(0o666)
    lock = StateLock(tmp_path)
    with pytest.raises(AlreadyRunningError, match="in use by another asi-watch") as caught:
        StateLock(tmp_path)
    assert caught.value.exit_code == 3
    assert (tmp_path / LOCK_NAME).stat().st_mode & 0o777 == 0o600
    assert lock.is_in_place
    (tmp_path / LOCK_NAME).unlink()
    assert not lock.is_in_place
    lock.release()


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(StateFolderError, match="gone") as caught:
        StateLock(tmp_path / "gone")
    assert caught.value.exit_code == 6
