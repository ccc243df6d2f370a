from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from asi_watch.live.inbox import FoundFile, Inbox
from asi_watch.live.intake import file_system_of
from asi_watch.live.scanning import TreeScanner

DAY = 86400.0


def scan(scanner: TreeScanner, window: float = DAY, now: float | None = None) -> dict[str, FoundFile]:
    now_ns = time.time_ns() if now is None else int(now * 1e9)
    return {f.path: f for group in scanner.scan(now_ns, window, 1.0) for f in group}


@pytest.fixture
def scanner(tmp_path: Path) -> TreeScanner:
    return TreeScanner(str(tmp_path), lambda name: name.endswith(".jpg"))


def put(root: Path, name: str, content: bytes = b"x", age: float = 100.0) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    when = time.time() - age
    os.utime(path, (when, when))
    return path


def test_a_scan_reports_files_once(tmp_path: Path, scanner: TreeScanner) -> None:
    put(tmp_path, "2026/06/21/09/a.jpg")
    put(tmp_path, "b.jpg")
    put(tmp_path, "notes.txt")
    assert sorted(scan(scanner)) == ["2026/06/21/09/a.jpg", "b.jpg"]
    assert scan(scanner) == {}


def test_a_changed_file_is_reported_again(tmp_path: Path, scanner: TreeScanner) -> None:
    put(tmp_path, "d/a.jpg", b"half")
    scan(scanner)
    put(tmp_path, "d/a.jpg", b"whole file")
    assert scan(scanner)["d/a.jpg"].signature is not None
    assert scan(scanner) == {}


def test_a_file_just_written_is_not_settled(tmp_path: Path, scanner: TreeScanner) -> None:
    put(tmp_path, "old.jpg")
    put(tmp_path, "new.jpg", age=0.0)
    found = scan(scanner)
    assert found["old.jpg"].settled
    assert not found["new.jpg"].settled


def test_old_folders_are_not_looked_into(tmp_path: Path, scanner: TreeScanner) -> None:
    put(tmp_path, "old/a.jpg")
    put(tmp_path, "new/b.jpg")
    long_ago = time.time() - 10 * DAY
    os.utime(tmp_path / "old", (long_ago, long_ago))
    assert sorted(scan(scanner)) == ["new/b.jpg"]
    put(tmp_path, "old/c.jpg")
    assert sorted(scan(scanner)) == ["old/a.jpg", "old/c.jpg"]


def test_an_unreadable_folder_does_not_stop_the_scan(tmp_path: Path, scanner: TreeScanner) -> None:
    put(tmp_path, "a/a.jpg")
    put(tmp_path, "b/b.jpg")
    # A folder swapped for a file between listing and visiting fails as one without permission.
    scan(scanner)
    (tmp_path / "a").rename(tmp_path / "gone")
    assert sorted(scan(scanner)) == ["gone/a.jpg"]


def test_links_are_not_followed_in_circles(tmp_path: Path, scanner: TreeScanner) -> None:
    put(tmp_path, "a/a.jpg")
    (tmp_path / "a" / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert sorted(scan(scanner)) == ["a/a.jpg"]


def test_undecodable_names_are_found(tmp_path: Path, scanner: TreeScanner) -> None:
    (tmp_path / os.fsdecode(b"\xff_80.jpg")).write_bytes(b"x")
    assert list(scan(scanner)) == ["\udcff_80.jpg"]


def test_a_pipe_called_jpg_is_reported_not_opened(tmp_path: Path, scanner: TreeScanner) -> None:
    os.mkfifo(tmp_path / "x.jpg")
    assert list(scan(scanner)) == ["x.jpg"]


def test_the_inbox_drops_events_beyond_its_bound_and_says_so() -> None:
    inbox = Inbox(max_events=2)
    for n in range(5):
        inbox.put_event("roof", f"{n}.jpg", True, 0.0)
    assert len(inbox) == 2
    assert inbox.take_dropped() == {"roof": 3}
    assert inbox.take_dropped() == {}
    inbox.get(0)
    inbox.put_event("roof", "5.jpg", True, 0.0)
    assert len(inbox) == 2


def test_the_file_system_of_a_path_is_known() -> None:
    assert file_system_of(Path("/proc/self")) == "proc"
