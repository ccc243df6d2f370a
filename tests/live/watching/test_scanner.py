"""Scans with clocks moved by hand, and what they say of folders that were read."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from asi_watch.live.messages import FoundFile, Inbox
from asi_watch.live.watching import scanner
from asi_watch.live.watching.observer import Observer
from asi_watch.live.watching.scanner import HOT, FolderScanner, Moment, Portion
from tests.live.intake_settings import watching

DAY = 86400.0
Report = dict[str, FoundFile]


class Watches(Observer):
    """Notes which folders it is told to watch."""

    def __init__(self) -> None:
        self.folders: list[str] = []

    def watch(self, folder: str, status: os.stat_result | None = None) -> bool:
        if folder not in self.folders:
            self.folders.append(folder)
            self.before_listing(folder)
        return True

    def before_listing(self, folder: str) -> None:
        pass

    def watches(self, folder: str) -> bool:
        return folder in self.folders

    @property
    def count(self) -> int:
        return len(self.folders)


class Scans:
    """A scanner with clocks that are moved by hand."""

    def __init__(self, root: Path, watermarks: Mapping[str, int] | None = None) -> None:
        self.root = root
        self.watermarks = dict(watermarks or {})
        self.skipped: set[str] = set()
        self.start()
        self.monotonic = 1000.0
        self.wall_offset = 0.0

    def start(self) -> None:
        """As a new process would."""
        self.scanner = FolderScanner(watching(self.root), self.watermarks)
        self.scanner.observer = self.watches = Watches()

    @property
    def now(self) -> Moment:
        return Moment(time.time_ns() + int(self.wall_offset * 1e9), self.monotonic)

    def take(self, portions: Iterable[Portion]) -> Report:
        found: list[FoundFile] = []
        for portion in portions:
            found += portion.files
            if portion.watermark_ns is not None:
                self.watermarks[portion.folder] = portion.watermark_ns
                (self.skipped.add if portion.skipped else self.skipped.discard)(portion.folder)
        assert len({f.path for f in found}) == len(found), "nothing is reported twice"
        return {f.path: f for f in found}

    def first(self, lookback: float = DAY) -> Report:
        return self.take(self.scanner.scan(self.now, self.now.wall_ns - int(lookback * 1e9)))

    def recent(self, later: float = 10.0) -> Report:
        self.monotonic += later
        return self.take(self.scanner.scan(self.now))

    def full_pass(self, later: float = 10.0, list_all: bool = False) -> Report:
        self.monotonic += later
        self.scanner.begin_pass(list_all)
        found = self.take(self.scanner.go_on(self.now, lambda: False))
        assert not self.scanner.passing
        return found

    def remembered(self) -> dict[str, int]:
        """How much the scanner remembers."""
        folders = self.scanner._folders.values()
        return {
            "folders": len(folders),
            "names": sum(len(folder.names) for folder in folders),
            "followed": sum(len(folder.followed) for folder in folders),
        }

    def restart(self) -> Report:
        """Begin anew with the watermarks, as after a kill."""
        self.start()
        return self.recent()


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
    assert scans.full_pass() == {}


def test_a_folder_that_holds_nothing_but_other_files_is_named(tmp_path: Path, scans: Scans) -> None:
    (tmp_path / "06").mkdir()
    for name in ("a.tif", "b.tif", ".hidden.tif", "20260621120000_hdr.tif"):
        (tmp_path / "06" / name).touch()
    scans.first()
    assert scans.scanner.not_taken()[0] == 2
    assert scans.scanner.not_taken()[1] in ("06/a.tif", "06/b.tif")
    scans.start()
    assert scans.scanner.not_taken() == (0, "")
    (tmp_path / "20260621120000_80.jpg").touch()
    scans.first()
    assert scans.scanner.not_taken() == (0, "")


def test_new_files_and_folders_are_found(tmp_path: Path, scans: Scans) -> None:
    put(tmp_path, "2026/06/21/09/a.jpg")
    scans.first()
    put(tmp_path, "2026/06/21/09/b.jpg")
    put(tmp_path, "2026/07/01/00/c.jpg")
    found = scans.recent()
    assert sorted(found) == ["2026/06/21/09/b.jpg", "2026/07/01/00/c.jpg"]
    assert scans.recent() == {}


def test_a_changed_file_is_reported_again(tmp_path: Path, scans: Scans) -> None:
    put(tmp_path, "d/a.jpg", b"half")
    scans.first()
    put(tmp_path, "d/a.jpg", b"whole file")
    (found,) = scans.recent().values()
    assert found.signature is not None
    assert found.signature[0] == 10
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
    assert scans.remembered()["followed"] == 0


def test_a_file_replaced_by_another_is_reported(tmp_path: Path, scans: Scans) -> None:
    put(tmp_path, "d/a.jpg")
    scans.first()
    scans.recent(later=2000)
    scans.recent(later=2000)
    assert scans.remembered()["followed"] == 0
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


def test_a_burst_of_new_folders_is_listed_again_until_all_are_at_rest(
    tmp_path: Path, scans: Scans
) -> None:
    scans.first()
    names = [f"{n:03d}" for n in range(3 * HOT)]
    for name in names:
        put(tmp_path, f"{name}/a.jpg")
    assert len(scans.recent()) == len(names)
    for name in names:
        put(tmp_path, f"{name}/b.jpg")
    assert len(scans.recent(later=1.0)) == len(names)
    scans.recent()
    assert set(names) <= scans.watermarks.keys()
    assert len(scans.scanner.hot()) == HOT + 1


def test_a_pass_finds_files_in_any_folder(tmp_path: Path, scans: Scans) -> None:
    for n in range(2 * HOT):
        put(tmp_path, f"{n:02d}/a.jpg")
        age(tmp_path / f"{n:02d}", DAY - n)
    scans.first()
    scans.recent()
    put(tmp_path, "00/b.jpg")
    assert scans.recent() == {}
    assert list(scans.full_pass()) == ["00/b.jpg"]
    # From now on it is one of those that are looked at.
    put(tmp_path, "00/c.jpg")
    assert list(scans.recent()) == ["00/c.jpg"]


def test_on_a_share_a_pass_finds_what_a_modification_time_hides(
    tmp_path: Path, scans: Scans
) -> None:
    put(tmp_path, "d/a.jpg")
    scans.scanner.remote = True
    scans.first()
    scans.recent(later=2000)
    stamp = (tmp_path / "d").stat()
    put(tmp_path, "d/b.jpg")
    os.utime(tmp_path / "d", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert scans.recent() == {}
    assert list(scans.full_pass(list_all=True)) == ["d/b.jpg"]
    assert scans.full_pass(list_all=True) == {}


def test_where_modification_times_come_late_recent_folders_are_listed(
    tmp_path: Path, scans: Scans
) -> None:
    put(tmp_path, "d/a.jpg")
    scans.scanner.remote = True
    scans.first()
    scans.recent(later=100)
    stamp = (tmp_path / "d").stat()
    put(tmp_path, "d/b.jpg")
    os.utime(tmp_path / "d", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert list(scans.recent()) == ["d/b.jpg"]


def test_a_pass_goes_by_slices(tmp_path: Path, scans: Scans) -> None:
    for n in range(5):
        put(tmp_path, f"{n}/a.jpg")
    scans.first()
    scans.scanner.begin_pass(False)
    slices = 0
    while scans.scanner.passing:
        assert scans.take(scans.scanner.go_on(scans.now, lambda: True)) == {}
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
    assert scans.remembered() == {"folders": 3, "names": 100, "followed": 50}


def test_folders_are_watched_before_they_are_listed(tmp_path: Path, scans: Scans) -> None:
    put(tmp_path, "old/a.jpg")
    age(tmp_path / "old", 10 * DAY)
    put(tmp_path, "new/a.jpg")
    scans.first()
    assert scans.watches.folders == ["", "new"]

    def write(folder: str) -> None:
        put(tmp_path / folder, "late.jpg")

    scans.start()
    scans.watches.before_listing = write  # type: ignore[method-assign]
    assert "new/late.jpg" in scans.recent()


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
    assert scans.remembered()["folders"] == 4
    assert scans.scanner.unreadable == 0


def test_an_unreadable_folder_is_told_once_and_read_when_it_can_be(
    tmp_path: Path, scans: Scans, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
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
            assert scans.full_pass() == {}
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
        assert scans.full_pass() == {}
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


def test_portions_of_a_large_folder_follow_the_names(scans: Scans, tmp_path: Path) -> None:
    names = [f"{n:05d}.jpg" for n in range(1200)]
    for name in sorted(names, key=hash):
        (tmp_path / name).write_bytes(b"x")
    portions = [p.files for p in scans.scanner.scan(scans.now) if p.files]
    assert [len(files) for files in portions] == [500, 500, 200]
    assert [file.path for files in portions for file in files] == names


# -- watermarks -----------------------------------------------------------------------------


def test_a_folder_at_rest_gets_its_watermark_after_its_files(tmp_path: Path, scans: Scans) -> None:
    put(tmp_path, "d/a.jpg")
    age(tmp_path / "d", 3600.0)
    order = [(p.folder, bool(p.files)) for p in scans.scanner.scan(scans.now)]
    assert order == [("d", True), ("d", False)]
    # The root has just changed: a name may still come in the same tick of the clock.
    (portion,) = scans.scanner.scan(Moment(time.time_ns(), 1010.0))
    assert (portion.folder, portion.watermark_ns) == ("", tmp_path.stat().st_mtime_ns)


def test_a_restart_reports_only_folders_that_are_not_at_their_watermark(
    tmp_path: Path, scans: Scans
) -> None:
    for name in ("a/1.jpg", "b/1.jpg", "c/1.jpg"):
        put(tmp_path, name)
    assert len(scans.first()) == 3
    scans.recent()
    assert scans.restart() == {}
    put(tmp_path, "b/2.jpg")
    # Not done when the process was killed.
    del scans.watermarks["c"]
    assert sorted(scans.restart()) == ["b/1.jpg", "b/2.jpg", "c/1.jpg"]


@pytest.mark.parametrize("moved", [True, False])
def test_old_folders_moved_in_are_found_and_found_again_after_a_kill(
    tmp_path: Path, moved: bool
) -> None:
    root = tmp_path / "in"
    put(root, "today/a.jpg")
    scans = Scans(root)
    scans.first()
    scans.recent()
    old = [f"2024/05/{day:02d}/{n}.jpg" for day in range(1, 4) for n in range(5)]
    for name in old:
        put(tmp_path, f"archive/{name}", age=700 * DAY)
    for folder in sorted((tmp_path / "archive").rglob("*"), reverse=True):
        age(folder, 700 * DAY)
    source = tmp_path / "archive" / "2024"
    if moved:
        source.rename(root / "2024")
    else:
        shutil.copytree(source, root / "2024")
    before = dict(scans.watermarks)
    assert sorted(scans.recent()) == old
    done = dict(scans.watermarks)
    # Killed before anything of it had a row.
    scans.watermarks = dict(before)
    assert sorted(scans.restart()) == old
    scans.recent()
    # Killed when one folder was done.
    scans.watermarks = before | {"2024/05/02": scans.watermarks["2024/05/02"]}
    assert sorted(scans.restart()) == [name for name in old if "/02/" not in name]
    assert done.keys() <= scans.watermarks.keys() | {"2024", "2024/05"}


def test_a_first_start_counts_older_folders_as_done(tmp_path: Path, scans: Scans) -> None:
    put(tmp_path, "old/a.jpg", age=10 * DAY)
    age(tmp_path / "old", 10 * DAY)
    put(tmp_path, "new/b.jpg")
    assert scans.scanner.first_start
    assert sorted(scans.first()) == ["new/b.jpg"]
    assert scans.skipped == {"old", "new", ""}
    scans.recent()
    assert scans.skipped == {"old"}
    assert scans.restart() == {}
    assert not scans.scanner.first_start


def test_a_first_scan_that_is_broken_off_leaves_no_watermark(tmp_path: Path, scans: Scans) -> None:
    put(tmp_path, "old/a.jpg")
    age(tmp_path / "old", 10 * DAY)
    put(tmp_path, "new/b.jpg")
    portion = next(iter(scans.scanner.scan(scans.now, scans.now.wall_ns - int(DAY * 1e9))))
    assert portion.files


def test_what_a_first_start_skipped_in_a_flat_folder_stays_skipped(
    tmp_path: Path, scans: Scans, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanner, "_SLACK_NS", 0)
    put(tmp_path, "old.jpg")
    time.sleep(0.3)
    put(tmp_path, "new.jpg")
    assert sorted(scans.first(lookback=0.2)) == ["new.jpg"]
    # Killed before a row was written, and again after.
    assert sorted(scans.restart()) == ["new.jpg"]
    scans.recent()
    put(tmp_path, "later.jpg")
    assert "old.jpg" not in scans.restart()


def test_only_files_younger_than_the_watermark_are_reported_again(
    tmp_path: Path, scans: Scans, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "d/a.jpg")
    time.sleep(0.05)
    put(tmp_path, "d/notes.txt")
    scans.first()
    scans.recent()
    put(tmp_path, "d/b.jpg")
    monkeypatch.setattr(scanner, "_SLACK_NS", 0)
    assert sorted(scans.restart()) == ["d/b.jpg"]
    # A folder renamed into its place, a clock set back, or a share: no such witness.
    (tmp_path / "d").rename(tmp_path / "e")
    (tmp_path / "e").rename(tmp_path / "d")
    assert sorted(scans.restart()) == ["d/a.jpg", "d/b.jpg"]


@pytest.mark.parametrize("watermark_age", [-DAY, 30 * 365 * DAY])
def test_a_watermark_of_a_wrong_clock_hides_nothing(tmp_path: Path, watermark_age: float) -> None:
    put(tmp_path, "d/a.jpg", age=3 * DAY)
    scans = Scans(tmp_path, {"d": time.time_ns() - int(watermark_age * 1e9)})
    assert sorted(scans.recent()) == ["d/a.jpg"]


def test_a_time_that_the_ledger_cannot_hold_is_no_watermark(tmp_path: Path, scans: Scans) -> None:
    put(tmp_path, "d/a.jpg")
    try:
        os.utime(tmp_path / "d", (2**34, 2**34))
    except OSError:
        pytest.skip("no such times on this file system")
    assert list(scans.first()) == ["d/a.jpg"]
    scans.recent()
    assert scans.watermarks["d"] < 2**63


def test_a_folder_that_gets_back_its_old_time_is_done_at_that_time(
    tmp_path: Path, scans: Scans
) -> None:
    """As when an archive is copied in with its times: they are set at the end."""
    put(tmp_path, "d/a.jpg")
    scans.first()
    scans.recent()
    age(tmp_path / "d", 700 * DAY)
    scans.recent()
    scans.recent()
    assert scans.watermarks["d"] == (tmp_path / "d").stat().st_mtime_ns
    assert scans.restart() == {}


def test_a_removed_file_moves_the_watermark_and_reports_nothing(
    tmp_path: Path, scans: Scans
) -> None:
    put(tmp_path, "d/a.jpg")
    put(tmp_path, "d/b.jpg")
    scans.first()
    scans.recent()
    (tmp_path / "d" / "a.jpg").unlink()
    assert scans.recent() == {}
    scans.recent()
    assert scans.watermarks["d"] == (tmp_path / "d").stat().st_mtime_ns
    assert scans.restart() == {}
