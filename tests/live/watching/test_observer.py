"""Watches on real inotify; tests/faults/test_watching.py has all ways in which files appear."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from watchdog.observers.inotify_c import InotifyConstants, InotifyEvent, WatchDescriptor

from asi_watch.live.watching import observer as observing
from asi_watch.live.watching.observer import Observer, WatchError, file_system_of, is_remote

PATIENCE = 60.0


class Log:
    def __init__(self) -> None:
        self.files: list[tuple[str, bool]] = []
        self.folders = 0
        self._changed = threading.Condition()

    def seen(self, path: str, settled: bool) -> None:
        with self._changed:
            self.files.append((path, settled))
            self._changed.notify_all()

    def folder(self) -> None:
        with self._changed:
            self.folders += 1
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
def observer(root: Path, log: Log) -> Iterator[Observer]:
    observer = Observer(root, log.seen, log.folder)
    observer.start()
    yield observer
    observer.stop()


def test_a_rename_between_watched_folders(root: Path, log: Log, observer: Observer) -> None:
    for name in ("upload", "day"):
        (root / name).mkdir()
    observer.keep(["upload", "day"])
    (root / "upload" / "a.jpg").write_bytes(b"x")
    (root / "upload" / "a.jpg").rename(root / "day" / "a.jpg")
    log.until(lambda: ("day/a.jpg", True) in log.files)


def test_a_folder_no_longer_kept_is_not_watched(root: Path, log: Log, observer: Observer) -> None:
    for name in ("a", "b"):
        (root / name).mkdir()
    observer.keep(["a", "b"])
    observer.keep(["b"])
    assert [f for f in ("", "a", "b") if observer.watches(f)] == ["", "b"]
    (root / "a" / "x.jpg").write_bytes(b"x")
    (root / "b" / "y.jpg").write_bytes(b"x")
    log.until(lambda: ("b/y.jpg", True) in log.files)
    assert not [path for path, _ in log.files if path.startswith("a/")]


def test_a_folder_put_in_place_of_a_watched_one(root: Path, log: Log, observer: Observer) -> None:
    (root / "day").mkdir()
    observer.keep(["day"])
    (root / "day").rename(root / "aside")
    (root / "day").mkdir()
    log.until(lambda: log.folders >= 1)
    observer.keep(["day"])
    (root / "aside" / "old.jpg").write_bytes(b"x")
    (root / "day" / "new.jpg").write_bytes(b"x")
    log.until(lambda: ("day/new.jpg", True) in log.files)
    assert ("day/old.jpg", True) not in log.files


def test_a_watched_folder_that_is_removed_is_no_fault(root: Path, observer: Observer) -> None:
    (root / "day").mkdir()
    observer.keep(["day"])
    (root / "day").rmdir()
    time.sleep(0.2)
    assert observer.fault is None
    assert observer.keep(["day"]) == ["day"]
    (root / "day").mkdir()
    assert observer.keep(["day"]) == []


def test_a_missing_root_is_named(tmp_path: Path) -> None:
    observer = Observer(tmp_path / "no", lambda *_: None, lambda: None)
    with pytest.raises(WatchError, match="no"):
        observer.start()


def test_a_crash_of_the_handler_is_a_fault_and_ends_no_thread(root: Path) -> None:
    seen: list[str] = []

    def crash_once(path: str, _settled: bool) -> None:
        seen.append(path)
        if len(seen) == 1:
            raise RuntimeError("unforeseen")

    observer = Observer(root, crash_once, lambda: None)
    observer.start()
    (root / "a.jpg").write_bytes(b"x")
    until(lambda: observer.fault is not None)
    assert observer.fault == "the handler of events has crashed"
    (root / "b.jpg").write_bytes(b"x")
    until(lambda: "b.jpg" in seen)
    observer.stop()


def test_a_dead_thread_is_a_fault_and_replaced_by_the_next_observer(
    root: Path, log: Log, observer: Observer
) -> None:
    reader = observer._reader
    assert reader is not None
    reader.stop()
    reader.join(PATIENCE)
    assert observer.fault == "the thread that reads events has ended"
    observer.stop()
    following = Observer(root, log.seen, log.folder)
    following.start()
    (root / "a.jpg").write_bytes(b"x")
    log.until(lambda: ("a.jpg", True) in log.files)
    following.stop()


def test_events_lost_by_the_kernel_are_noted(observer: Observer, log: Log) -> None:
    assert not observer.take_overflow()
    reader = observer._reader
    assert reader is not None
    reader.handle_event(InotifyEvent(WatchDescriptor(-1), InotifyConstants.IN_Q_OVERFLOW, 0, b""))
    assert observer.take_overflow()
    assert not observer.take_overflow()
    # A scan is wanted at once.
    assert log.folders == 1


def test_a_limit_of_the_system_is_named(root: Path, observer: Observer) -> None:
    (root / "a").mkdir()

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "inotify watch limit reached")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(observer._reader, "add_callback", refuse)
        assert observer.keep(["a"]) == ["a"]
        assert observer.limit == "inotify watch limit reached"
    assert observer.keep(["a"]) == []
    assert observer.limit is None


def test_a_folder_is_followed_under_its_new_name(root: Path, log: Log, observer: Observer) -> None:
    (root / "upload").mkdir()
    observer.watch("upload")
    (root / "upload").rename(root / "day")
    observer.watch("day")
    (root / "day" / "a.jpg").write_bytes(b"x")
    log.until(lambda: ("day/a.jpg", True) in log.files)
    assert not observer.watches("upload")


def test_a_watch_that_hangs_on_a_share_holds_up_no_stop(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observing, "_PATIENCE", 0.1)
    hanging = Observer(root, lambda *_: None, lambda: None, shared=False)
    hanging.start()
    reader = hanging._reader
    assert reader is not None
    with hanging._lock:
        began = time.monotonic()
        hanging.stop()
        assert time.monotonic() - began < 10.0
    reader.stop()
    reader.join(PATIENCE)


def test_all_cameras_share_one_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    observers = [Observer(tmp_path, lambda *_: None, lambda: None) for _ in range(20)]
    for observer in observers:
        observer.start()
    assert threading.active_count() <= before + 1
    own = Observer(tmp_path, lambda *_: None, lambda: None, shared=False)
    own.start()
    assert own._reader is not observers[0]._reader
    reader = own._reader
    for observer in (*observers, own):
        observer.stop()
    assert reader is not None
    reader.join(PATIENCE)
    assert not reader.is_alive()


def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_file_system_of_a_path_is_known() -> None:
    assert file_system_of(Path("/proc/self")) == "proc"


def test_the_table_of_mounts_is_read_as_the_kernel_writes_it(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    device = tmp_path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    table.write_text(
        f"22 1 254:99 / / rw - ext4 /dev/vda rw\ngarbage\n"
        f"23 22 {number} / /all\\040sky rw shared:1 - autofs nas:/x rw\n"
        f"24 22 {number} / /all\\040sky rw shared:1 - nfs4 nas:/x rw\n"
    )
    assert file_system_of(tmp_path, table) == "nfs4"
    assert file_system_of(Path("/proc"), table) == ""
    assert file_system_of(tmp_path, tmp_path / "none") == ""


@pytest.mark.parametrize(
    ("kind", "remote"),
    [
        *((kind, True) for kind in ("nfs4", "cifs", "smb3", "fuse.sshfs", "9p")),
        *((kind, False) for kind in ("ext4", "xfs", "tmpfs", "fuseblk", "")),
    ],
)
def test_which_file_systems_give_no_events(kind: str, remote: bool) -> None:
    assert is_remote(kind) is remote
