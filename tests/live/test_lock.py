"""One daemon per state folder, whose lock only its own user can hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from asi_watch.live.lock import LOCK_NAME, AlreadyRunningError, StateFolderError, StateLock


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
