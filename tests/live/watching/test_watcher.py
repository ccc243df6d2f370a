"""Real inotify: each way a camera's file can appear must be reported."""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asi_watch.live.watching.watcher import MAX_WATCHES, Watcher, WatchError

PATIENCE = 60.0


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
def log() -> Log:
    return Log()


@pytest.fixture(autouse=True)
def watcher(root: Path, log: Log) -> Iterator[Watcher]:
    watcher = Watcher(root, log.seen, log.folder)
    watcher.start()
    yield watcher
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
    # What is renamed into place is whole: no waiting until it lies still.
    log.until(lambda: ("a.jpg", True) in log.files)


def test_hard_link(root: Path, log: Log) -> None:
    (root.parent / "a").write_bytes(b"x")
    (root / "a.jpg").hardlink_to(root.parent / "a")
    log.until(lambda: ("a.jpg", False) in log.files)


def test_new_folders_are_reported_and_can_be_watched(
    root: Path, log: Log, watcher: Watcher
) -> None:
    nested = root / "2026" / "06"
    nested.mkdir(parents=True)
    log.until(lambda: "2026" in log.folders)
    assert watcher.keep(["2026", "2026/06"]) == []
    (nested / "a.jpg").write_bytes(b"x")
    log.until(lambda: ("2026/06/a.jpg", True) in log.files)


def test_a_rename_between_watched_folders(root: Path, log: Log, watcher: Watcher) -> None:
    for name in ("upload", "day"):
        (root / name).mkdir()
    watcher.keep(["upload", "day"])
    (root / "upload" / "a.jpg").write_bytes(b"x")
    (root / "upload" / "a.jpg").rename(root / "day" / "a.jpg")
    log.until(lambda: ("day/a.jpg", True) in log.files)


def test_a_folder_no_longer_kept_is_not_watched(root: Path, log: Log, watcher: Watcher) -> None:
    for name in ("a", "b"):
        (root / name).mkdir()
    watcher.keep(["a", "b"])
    watcher.keep(["b"])
    assert watcher.folders() == {"", "b"}
    (root / "a" / "x.jpg").write_bytes(b"x")
    (root / "b" / "y.jpg").write_bytes(b"x")
    log.until(lambda: ("b/y.jpg", True) in log.files)
    assert not [path for path, _ in log.files if path.startswith("a/")]


def test_not_more_folders_than_the_limit_are_watched(root: Path, watcher: Watcher) -> None:
    folders = [f"{n:03d}" for n in range(MAX_WATCHES + 10)]
    for name in folders:
        (root / name).mkdir()
    left = watcher.keep(folders)
    assert left == folders[MAX_WATCHES - 1 :]
    assert watcher.count == MAX_WATCHES


def test_a_folder_put_in_place_of_a_watched_one(root: Path, log: Log, watcher: Watcher) -> None:
    (root / "day").mkdir()
    watcher.keep(["day"])
    (root / "day").rename(root / "aside")
    (root / "day").mkdir()
    log.until(lambda: len(log.folders) >= 2)
    watcher.keep(["day"])
    (root / "aside" / "old.jpg").write_bytes(b"x")
    (root / "day" / "new.jpg").write_bytes(b"x")
    log.until(lambda: ("day/new.jpg", True) in log.files)
    assert ("day/old.jpg", True) not in log.files


def test_a_watched_folder_that_is_removed_is_no_fault(root: Path, watcher: Watcher) -> None:
    (root / "day").mkdir()
    watcher.keep(["day"])
    (root / "day").rmdir()
    time.sleep(0.2)
    assert watcher.fault() is None
    assert watcher.keep(["day"]) == ["day"]
    (root / "day").mkdir()
    assert watcher.keep(["day"]) == []


def test_a_folder_moved_in_is_reported(root: Path, log: Log) -> None:
    outside = root.parent / "day"
    outside.mkdir()
    (outside / "a.jpg").write_bytes(b"x")
    outside.rename(root / "day")
    log.until(lambda: "day" in log.folders)


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


def test_a_crash_of_the_handler_is_a_fault_and_ends_no_thread(root: Path) -> None:
    seen: list[str] = []

    def crash_once(path: str, _settled: bool) -> None:
        seen.append(path)
        if len(seen) == 1:
            raise RuntimeError("unforeseen")

    watcher = Watcher(root, crash_once, lambda _: None)
    watcher.start()
    (root / "a.jpg").write_bytes(b"x")
    until(lambda: watcher.fault() is not None)
    assert watcher.fault() == "the handler of events has crashed"
    (root / "b.jpg").write_bytes(b"x")
    until(lambda: "b.jpg" in seen)
    watcher.stop()


def test_dead_threads_are_a_fault(root: Path, watcher: Watcher) -> None:
    observer = watcher._observer
    assert observer is not None
    next(iter(observer.emitters)).stop()
    until(lambda: watcher.fault() == "an emitter's thread has ended")
    observer.stop()
    observer.join(PATIENCE)
    assert watcher.fault() == "the observer's thread has ended"


def test_events_lost_by_the_kernel_are_heard_of(watcher: Watcher) -> None:
    assert not watcher.take_overflow()
    logging.getLogger("watchdog.observers.inotify_c").warning(
        "Inotify queue overflowed; filesystem events were lost"
    )
    assert watcher.take_overflow()
    assert not watcher.take_overflow()


def test_a_limit_of_the_system_is_told(root: Path, watcher: Watcher) -> None:
    (root / "a").mkdir()
    observer = watcher._observer
    assert observer is not None

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "inotify watch limit reached")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(observer, "schedule", refuse)
        assert watcher.keep(["a"]) == ["a"]
        assert watcher.limit == "inotify watch limit reached"
    assert watcher.keep(["a"]) == []
    assert watcher.limit is None


def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)
