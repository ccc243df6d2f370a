from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from asi_watch.live.messages import FoundFile, Inbox
from asi_watch.live.watching.mounts import file_system_of, is_remote
from asi_watch.live.watching.scanning import TreeScanner
from asi_watch.live.watching.tree_memory import HOT, Moment

DAY = 86400.0
Report = dict[str, FoundFile]


def as_dict(groups: Iterable[tuple[FoundFile, ...]]) -> Report:
    found = [file for group in groups for file in group]
    assert len({f.path for f in found}) == len(found), "nothing is reported twice"
    return {f.path: f for f in found}


class Scans:
    """A scanner with clocks that are moved by hand."""

    def __init__(self, root: Path) -> None:
        self.entered: list[str] = []
        self.scanner = TreeScanner(
            str(root), lambda name: name.endswith(".jpg"), 1.0, self.entered.append
        )
        self.monotonic = 1000.0
        self.wall_offset = 0.0

    @property
    def now(self) -> Moment:
        return Moment(time.time_ns() + int(self.wall_offset * 1e9), self.monotonic)

    def first(self, lookback: float = DAY) -> Report:
        return as_dict(self.scanner.first(self.now, lookback))

    def recent(self, later: float = 10.0) -> Report:
        self.monotonic += later
        return as_dict(self.scanner.recent(self.now))

    def sweep(self, later: float = 10.0) -> Report:
        self.monotonic += later
        self.scanner.begin_sweep()
        found = as_dict(self.scanner.sweep(self.now))
        assert not self.scanner.sweeping
        return found


@pytest.fixture
def scans(tmp_path: Path) -> Scans:
    return Scans(tmp_path)


def put(root: Path, name: str, content: bytes = b"x", age: float = 100.0) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    when = time.time() - age
    os.utime(path, (when, when))
    return path


def age(folder: Path, seconds: float) -> None:
    when = time.time() - seconds
    os.utime(folder, (when, when))


def test_a_scan_reports_files_once(tmp_path: Path, scans: Scans) -> None:
    put(tmp_path, "2026/06/21/09/a.jpg")
    put(tmp_path, "b.jpg")
    put(tmp_path, "notes.txt")
    assert sorted(scans.first()) == ["2026/06/21/09/a.jpg", "b.jpg"]
    assert scans.recent() == {}
    assert scans.sweep() == {}


def test_new_files_and_folders_are_found(tmp_path: Path, scans: Scans) -> None:
    put(tmp_path, "2026/06/21/09/a.jpg")
    scans.first()
    put(tmp_path, "2026/06/21/09/b.jpg")
    put(tmp_path, "2026/07/01/00/c.jpg")
    found = scans.recent()
    assert sorted(found) == ["2026/06/21/09/b.jpg", "2026/07/01/00/c.jpg"]
    assert all(file.new_name for file in found.values())
    assert scans.recent() == {}


def test_a_changed_file_is_reported_again(tmp_path: Path, scans: Scans) -> None:
    put(tmp_path, "d/a.jpg", b"half")
    scans.first()
    put(tmp_path, "d/a.jpg", b"whole file")
    (found,) = scans.recent().values()
    assert found.signature is not None
    assert found.signature[0] == 10
    assert not found.new_name
    assert scans.recent() == {}


def test_a_file_that_grows_slowly_is_followed(tmp_path: Path, scans: Scans) -> None:
    scans.first()
    put(tmp_path, "a.jpg", b"1")
    assert list(scans.recent()) == ["a.jpg"]
    for size in range(2, 6):
        put(tmp_path, "a.jpg", b"1" * size)
        assert list(scans.recent(later=600)) == ["a.jpg"]
    # Long untouched, it is only remembered by name.
    scans.recent(later=1000)
    assert scans.scanner.counts()["tracked"] == 0


def test_a_file_replaced_by_another_is_reported(tmp_path: Path, scans: Scans) -> None:
    put(tmp_path, "d/a.jpg")
    scans.first()
    scans.recent(later=2000)
    scans.recent(later=2000)
    assert scans.scanner.counts()["tracked"] == 0
    put(tmp_path, "d/a.part", b"another").replace(tmp_path / "d" / "a.jpg")
    assert list(scans.recent()) == ["d/a.jpg"]


def test_a_file_just_written_is_not_settled(tmp_path: Path, scans: Scans) -> None:
    put(tmp_path, "old.jpg")
    put(tmp_path, "new.jpg", age=-5.0)
    found = scans.first()
    assert found["old.jpg"].settled
    assert not found["new.jpg"].settled


def test_the_first_scan_reports_the_look_back_only(tmp_path: Path, scans: Scans) -> None:
    put(tmp_path, "old/a.jpg")
    put(tmp_path, "new/b.jpg")
    age(tmp_path / "old", 10 * DAY)
    assert sorted(scans.first()) == ["new/b.jpg"]
    put(tmp_path, "old/c.jpg")
    assert sorted(scans.recent()) == ["old/c.jpg"]


def test_times_from_before_there_was_a_clock_are_no_reason_to_skip(
    tmp_path: Path, scans: Scans
) -> None:
    put(tmp_path, "epoch/a.jpg")
    os.utime(tmp_path / "epoch", (0, 0))
    put(tmp_path, "future/b.jpg")
    age(tmp_path / "future", -20 * 365 * DAY)
    assert sorted(scans.first()) == ["epoch/a.jpg", "future/b.jpg"]


@pytest.mark.parametrize("jump", [-26 * 365 * DAY, 26 * 365 * DAY])
def test_no_jump_of_the_clock_makes_a_scan_blind(tmp_path: Path, scans: Scans, jump: float) -> None:
    put(tmp_path, "d/a.jpg")
    scans.first()
    scans.wall_offset = jump
    put(tmp_path, "d/b.jpg")
    put(tmp_path, "e/c.jpg")
    # Written while the machine's clock was wrong: folders and files carry that time.
    for path in ("d/b.jpg", "e/c.jpg", "d", "e"):
        age(tmp_path / path, -jump)
    assert sorted(scans.recent()) == ["d/b.jpg", "e/c.jpg"]
    put(tmp_path, "e/c.jpg", b"grown")
    assert sorted(scans.recent()) == ["e/c.jpg"]


def test_a_name_added_within_one_tick_of_the_file_systems_clock(
    tmp_path: Path, scans: Scans
) -> None:
    put(tmp_path, "d/a.jpg")
    scans.first()
    stamp = (tmp_path / "d").stat()
    put(tmp_path, "d/b.jpg")
    os.utime(tmp_path / "d", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert list(scans.recent(later=1.0)) == ["d/b.jpg"]


def test_a_sweep_finds_what_a_lying_modification_time_hides(tmp_path: Path, scans: Scans) -> None:
    put(tmp_path, "d/a.jpg")
    scans.first()
    scans.recent(later=2000)
    stamp = (tmp_path / "d").stat()
    put(tmp_path, "d/b.jpg")
    os.utime(tmp_path / "d", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert scans.recent() == {}
    assert list(scans.sweep()) == ["d/b.jpg"]
    assert scans.sweep() == {}


def test_where_modification_times_come_late_recent_folders_are_listed(
    tmp_path: Path, scans: Scans
) -> None:
    put(tmp_path, "d/a.jpg")
    scans.scanner.trust_mtime = scans.scanner.trust_inodes = False
    scans.first()
    scans.recent(later=100)
    stamp = (tmp_path / "d").stat()
    put(tmp_path, "d/b.jpg")
    os.utime(tmp_path / "d", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert list(scans.recent()) == ["d/b.jpg"]


def test_a_sweep_goes_by_slices(tmp_path: Path, scans: Scans) -> None:
    for n in range(5):
        put(tmp_path, f"{n}/a.jpg")
    scans.first()
    scans.scanner.begin_sweep()
    slices = 0
    while scans.scanner.sweeping:
        assert as_dict(scans.scanner.sweep(scans.now, lambda: True)) == {}
        slices += 1
    assert slices == 6


def test_a_large_archive_costs_a_recent_scan_nothing(
    tmp_path: Path, scans: Scans, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(11 * HOT):
        put(tmp_path, f"{n // 10:02d}/{n:03d}/a.jpg")
    for folder in tmp_path.glob("*/*"):
        age(folder, 10 * DAY)
    scans.first()
    scans.recent()
    visits: list[str] = []
    lstat = os.lstat

    def count(path: str) -> os.stat_result:
        visits.append(path)
        return lstat(path)

    monkeypatch.setattr(os, "lstat", count)
    monkeypatch.setattr(os, "scandir", lambda path: pytest.fail(f"{path} was listed"))
    scans.recent()
    assert len(visits) <= 2 * HOT


def test_what_is_remembered_of_old_files_is_small(tmp_path: Path, scans: Scans) -> None:
    for n in range(50):
        put(tmp_path, f"old/{n}.jpg")
        put(tmp_path, f"new/{n}.jpg")
    age(tmp_path / "old", 3 * DAY)
    scans.first()
    assert scans.scanner.counts() == {"folders": 3, "names": 100, "tracked": 50, "unreadable": 0}


def test_reports_come_in_bounded_portions(tmp_path: Path, scans: Scans) -> None:
    for n in range(1100):
        (tmp_path / f"{n}.jpg").write_bytes(b"x")
    assert [len(g) for g in scans.scanner.first(scans.now, DAY)] == [500, 500, 100]


def test_folders_are_watched_before_they_are_listed(tmp_path: Path, scans: Scans) -> None:
    put(tmp_path, "old/a.jpg")
    age(tmp_path / "old", 10 * DAY)
    put(tmp_path, "new/a.jpg")
    scans.first()
    assert scans.entered == ["", "new"]
    scans.entered.clear()

    def write(folder: str) -> None:
        put(tmp_path / folder, f"{len(scans.entered)}.jpg")
        scans.entered.append(folder)

    scans.scanner = TreeScanner(str(tmp_path), lambda name: name.endswith(".jpg"), entering=write)
    assert "new/1.jpg" in scans.first()


def test_hot_folders_come_newest_first_below_their_parents(tmp_path: Path, scans: Scans) -> None:
    for hour in range(3):
        put(tmp_path, f"2026/06/{hour:02d}/a.jpg")
        age(tmp_path / f"2026/06/{hour:02d}", 3 * DAY - 3600 * hour)
    age(tmp_path / "2026/06", 3 * DAY)
    age(tmp_path / "2026", 3 * DAY)
    scans.first()
    assert scans.scanner.hot()[:4] == ["", "2026", "2026/06", "2026/06/02"]
    put(tmp_path, "2026/06/00/b.jpg")
    scans.recent()
    assert scans.scanner.hot()[:4] == ["", "2026", "2026/06", "2026/06/00"]


def test_folders_that_are_gone_are_forgotten(tmp_path: Path, scans: Scans) -> None:
    put(tmp_path, "a/b/a.jpg")
    put(tmp_path, "c/b.jpg")
    scans.first()
    (tmp_path / "a").rename(tmp_path / "gone")
    assert sorted(scans.recent()) == ["gone/b/a.jpg"]
    assert scans.scanner.counts()["folders"] == 4
    assert scans.scanner.unreadable == 0


def test_an_unreadable_folder_is_told_once_and_read_when_it_can_be(
    tmp_path: Path,
    scans: Scans,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    put(tmp_path, "a/a.jpg")
    put(tmp_path, "b/b.jpg")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if path.endswith("/a"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        assert sorted(scans.first()) == ["b/b.jpg"]
        for _ in range(3):
            assert scans.recent() == {}
            assert scans.sweep() == {}
    assert scans.scanner.unreadable == 1
    assert [r.message for r in caplog.records] == ["folder not scanned"]
    assert sorted(scans.recent()) == ["a/a.jpg"]
    assert scans.scanner.unreadable == 0


def test_links_are_not_followed_in_circles(tmp_path: Path, scans: Scans) -> None:
    put(tmp_path, "a/a.jpg")
    (tmp_path / "a" / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert sorted(scans.first()) == ["a/a.jpg"]


def test_a_folder_swapped_for_a_link_is_not_entered(tmp_path: Path, scans: Scans) -> None:
    root = tmp_path / "root"
    scans = Scans(root)
    put(root, "a/a.jpg")
    put(tmp_path, "elsewhere/secret.jpg")
    scans.first()
    (root / "a").rename(tmp_path / "aside")
    (root / "a").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert scans.recent() == {}


def test_a_bottomless_tree_ends(tmp_path: Path, scans: Scans) -> None:
    put(tmp_path, "/".join(["d"] * 40) + "/a.jpg")
    assert scans.first() == {}
    for _ in range(10):
        assert scans.recent() == {}
        assert scans.sweep() == {}
    assert scans.scanner.unreadable == 1


def test_undecodable_names_are_found(tmp_path: Path, scans: Scans) -> None:
    (tmp_path / os.fsdecode(b"\xfe")).mkdir()
    (tmp_path / os.fsdecode(b"\xfe/\xff_80.jpg")).write_bytes(b"x")
    assert list(scans.first()) == ["\udcfe/\udcff_80.jpg"]


def test_a_pipe_called_jpg_is_reported_not_opened(tmp_path: Path, scans: Scans) -> None:
    os.mkfifo(tmp_path / "x.jpg")
    assert list(scans.first()) == ["x.jpg"]


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


def test_mount_points_are_read_as_the_kernel_writes_them(tmp_path: Path) -> None:
    table = tmp_path / "mounts"
    share = tmp_path / "all sky"
    table.write_text(
        f"/dev/vda / ext4 rw 0 0\ngarbage\nnas:/x {tmp_path}/all\\040sky autofs rw 0 0\n"
        f"nas:/x {tmp_path}/all\\040sky nfs4 rw 0 0\n"
    )
    assert file_system_of(share / "2026", table) == "nfs4"
    assert file_system_of(tmp_path, table) == "ext4"
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


def test_portions_of_a_large_folder_follow_the_names(scans: Scans, tmp_path: Path) -> None:
    names = [f"{n:05d}.jpg" for n in range(1200)]
    for name in sorted(names, key=hash):
        (tmp_path / name).write_bytes(b"x")
    portions = list(scans.scanner.first(scans.now, DAY))
    assert [len(portion) for portion in portions] == [500, 500, 200]
    assert [file.path for portion in portions for file in portion] == names
