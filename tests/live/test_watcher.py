"""Real inotify: each way a camera's file can appear must be reported."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asi_watch.live.watcher import Watcher, WatchError

PATIENCE = 10.0


class Log:
    def __init__(self) -> None:
        self.files: list[tuple[str, bool]] = []
        self.folders: list[str] = []
        self._changed = threading.Condition()

    def seen(self, path: str, settled: bool) -> None:
        with self._changed:
            self.files.append((path, settled))
            self._changed.notify_all()

    def folder(self, path: str) -> None:
        with self._changed:
            self.folders.append(path)
            self._changed.notify_all()

    def until(self, reached: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(reached, PATIENCE), (self.files, self.folders)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    return folder


@pytest.fixture
def log(root: Path) -> Iterator[Log]:
    log = Log()
    watcher = Watcher(root, log.seen, log.folder)
    watcher.start()
    yield log
    watcher.stop()


def test_written_and_closed(root: Path, log: Log) -> None:
    (root / "a.jpg").write_bytes(b"x")
    log.until(lambda: ("a.jpg", True) in log.files)


def test_renamed_inside(root: Path, log: Log) -> None:
    (root / "a.part").write_bytes(b"x")
    (root / "a.part").rename(root / "a.jpg")
    log.until(lambda: ("a.jpg", True) in log.files)


def test_renamed_from_outside(root: Path, log: Log) -> None:
    (root.parent / "a.part").write_bytes(b"x")
    (root.parent / "a.part").rename(root / "a.jpg")
    log.until(lambda: ("a.jpg", False) in log.files)


def test_hard_link(root: Path, log: Log) -> None:
    (root.parent / "a").write_bytes(b"x")
    (root / "a.jpg").hardlink_to(root.parent / "a")
    log.until(lambda: ("a.jpg", False) in log.files)


def test_new_nested_folders_are_reported(root: Path, log: Log) -> None:
    nested = root / "2026" / "06" / "21" / "09"
    nested.mkdir(parents=True)
    log.until(lambda: bool(log.folders))
    # Watches on new folders take a moment; what is missed there is found by the scan.
    time.sleep(0.5)
    (nested / "a.jpg").write_bytes(b"x")
    log.until(lambda: any(path == "2026/06/21/09/a.jpg" for path, _ in log.files))


def test_a_folder_moved_in_is_reported(root: Path, log: Log) -> None:
    outside = root.parent / "day"
    outside.mkdir()
    (outside / "a.jpg").write_bytes(b"x")
    outside.rename(root / "day")
    log.until(lambda: "day" in log.folders or bool(log.files))


def test_undecodable_names(root: Path, log: Log) -> None:
    (root / os.fsdecode(b"\xff_80.jpg")).write_bytes(b"x")
    log.until(lambda: ("\udcff_80.jpg", True) in log.files)


def test_a_root_that_is_a_link_is_watched(tmp_path: Path, root: Path) -> None:
    (tmp_path / "link").symlink_to(root, target_is_directory=True)
    log = Log()
    watcher = Watcher(tmp_path / "link", log.seen, log.folder)
    watcher.start()
    (root / "a.jpg").write_bytes(b"x")
    log.until(lambda: ("a.jpg", True) in log.files)
    assert watcher.fault() is None
    watcher.stop()


def test_a_missing_root_is_named(tmp_path: Path) -> None:
    watcher = Watcher(tmp_path / "no", lambda *_: None, lambda _: None)
    with pytest.raises(WatchError, match="no"):
        watcher.start()


def test_a_root_that_was_replaced_is_a_fault(root: Path) -> None:
    watcher = Watcher(root, lambda *_: None, lambda _: None)
    watcher.start()
    assert watcher.fault() is None
    root.rename(root.parent / "away")
    assert watcher.fault() is not None
    root.mkdir()
    fault = watcher.fault()
    assert fault is not None
    assert "another folder" in fault
    watcher.stop()
