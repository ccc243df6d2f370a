"""The intake stepped by hand: its clocks and its watcher are the tests' own."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from asi_watch.live.messages import Found, FoundFile, Inbox, ScanDone
from asi_watch.live.watching import guard, intake
from asi_watch.live.watching.intake import Intake
from asi_watch.live.watching.liveness import Canary
from asi_watch.live.watching.watcher import Watcher, WatchError
from tests.live.intake_settings import watching

DAY = 86400.0


class StubWatcher(Watcher):
    """Does as it is told; events are told by `tell`."""

    def __init__(
        self, root: Path, seen: Callable[[str, bool], None], appeared: Callable[[str], None]
    ) -> None:
        self.root, self.tell, self.appeared = root, seen, appeared
        self.problem: str | None = None
        self.overflow = False
        self.running = True
        self.limit = None
        self.kept = {""}

    def start(self) -> None:
        pass

    def stop(self) -> None:
        self.running = False

    def fault(self) -> str | None:
        return self.problem

    def take_overflow(self) -> bool:
        heard, self.overflow = self.overflow, False
        return heard

    def add(self, folder: str) -> bool:
        self.kept.add(folder)
        return True

    def keep(self, folders: Iterable[str]) -> list[str]:
        self.kept = {"", *folders}
        return []

    def folders(self) -> set[str]:
        return set(self.kept)

    @property
    def count(self) -> int:
        return len(self.kept)


class Bench:
    """An intake on a folder, with clocks moved by hand."""

    def __init__(self, root: Path, mode: guard.WatchMode = "auto", every: float = 60.0) -> None:
        self.root = root
        self.now = 1000.0
        self.inbox = Inbox()
        self.watchers: list[StubWatcher] = []
        self.refuse: str | None = None
        rules = watching(root, mode, every)
        self.intake = Intake(
            "roof",
            rules,
            lambda name: name.endswith(".jpg"),
            self.inbox,
            monotonic=lambda: self.now,
            watcher=self._make,
        )

    def _make(self, *arguments: object) -> StubWatcher:
        if self.refuse is not None:
            raise WatchError(self.refuse)
        self.watchers.append(StubWatcher(*arguments))  # type: ignore[arg-type]
        return self.watchers[-1]

    @property
    def watcher(self) -> StubWatcher:
        return self.watchers[-1]

    def step(self, later: float = 2.0) -> list[str]:
        """Let time pass, step, and give what was found."""
        self.now += later
        self.intake.step()
        return self.take()

    def steps(self, seconds: float) -> list[str]:
        found = []
        for _ in range(int(seconds / 2)):
            # A canary is heard at once, unless a test says otherwise.
            if self.watchers and self.watcher.running:
                self.hear_canary()
            found += self.step()
        return found

    def hear_canary(self) -> None:
        self.watcher.tell(Canary(self.root, "roof").name, True)

    def take(self) -> list[str]:
        self.messages = []
        while (message := self.inbox.get(0)) is not None:
            self.messages.append(message)
        return [f.path for m in self.messages if isinstance(m, Found) for f in m.files]

    def scans(self) -> list[ScanDone]:
        return [m for m in self.messages if isinstance(m, ScanDone)]

    @property
    def facts(self) -> dict[str, object]:
        return self.intake.facts()

    def put(self, name: str, content: bytes = b"x") -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    root = tmp_path / "in"
    root.mkdir()
    return Bench(root)


def told(caplog: pytest.LogCaptureFixture, text: str) -> int:
    return sum(text in record.message for record in caplog.records)


# -- scans ----------------------------------------------------------------------------------


def test_watching_begins_before_the_first_scan_and_every_folder_is_watched(bench: Bench) -> None:
    bench.put("2026/06/21/09/a.jpg")
    assert bench.step() == ["2026/06/21/09/a.jpg"]
    assert bench.scans()[0].first
    assert "2026/06/21/09" in bench.watcher.kept
    assert bench.intake.state == "events"


def test_with_events_the_folder_is_read_as_often_as_configured(bench: Bench) -> None:
    bench.steps(10)
    bench.put("a.jpg")
    assert bench.steps(40) == []
    assert bench.steps(20) == ["a.jpg"]


def test_when_polling_every_two_seconds(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "polling")
    bench.step()
    for n in range(5):
        bench.put(f"{n}/a.jpg")
        assert bench.step() == [f"{n}/a.jpg"]
    assert bench.watchers == []
    assert bench.intake.state == "polling (configured)"


def test_a_new_folder_is_scanned_at_once(bench: Bench) -> None:
    bench.steps(10)
    bench.put("new/a.jpg")
    bench.watcher.appeared("new")
    assert bench.step(0.01) == ["new/a.jpg"]
    assert "new" in bench.watcher.kept


def test_a_scan_that_is_asked_for_reads_everything(bench: Bench) -> None:
    bench.put("d/a.jpg")
    bench.steps(10)
    sweeps = bench.facts["sweeps"]
    bench.intake.request_scan()
    bench.step(0.01)
    assert bench.facts["sweeps"] == sweeps + 1  # type: ignore[operator]


def test_sweeps_come_by_themselves(bench: Bench) -> None:
    bench.put("d/a.jpg")
    bench.steps(100)
    # Long after, and without a trace in the folder's modification time.
    stamp = (bench.root / "d").stat()
    bench.put("d/b.jpg")
    os.utime(bench.root / "d", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert bench.steps(300) == []
    assert bench.steps(400) == ["d/b.jpg"]


def test_the_owner_sets_the_pace(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "_INBOX_FULL", 2)
    for n in range(6):
        bench.put(f"{n}/a.jpg")
    taken: list[int] = []

    def owner_takes(_seconds: float) -> bool:
        taken.append(len(bench.inbox))
        bench.inbox.get(0)
        return False

    monkeypatch.setattr(bench.intake._halt, "wait", owner_takes)
    bench.step()
    assert taken
    assert max(taken) == 3


def test_a_slow_scan_is_not_made_oftener_than_the_disk_can_bear(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "polling")
    bench.step()

    def slow(_moment: object) -> Iterable[tuple[FoundFile, ...]]:
        bench.now += 5.0
        return iter(())

    bench.intake._scanner.recent = slow  # type: ignore[method-assign, assignment]
    bench.step()
    scans = bench.facts["scans"]
    for _ in range(40):
        bench.step()
    assert bench.facts["scans"] == scans


# -- the root -------------------------------------------------------------------------------


def test_a_root_that_is_missing_at_start(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.root.rmdir()
    for _ in range(5):
        bench.step()
    assert bench.intake.state == "watch folder is missing"
    assert told(caplog, "watch folder is missing") == 1
    bench.put("a.jpg")
    assert bench.step() == ["a.jpg"]
    assert bench.intake.state == "events"


def test_a_root_that_vanishes_and_comes_back(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.put("d/a.jpg")
    bench.step()
    bench.root.rename(bench.root.with_name("away"))
    bench.step()
    assert bench.intake.state == "watch folder is missing"
    assert not bench.watcher.running
    (bench.root.with_name("away") / "d" / "b.jpg").write_bytes(b"x")
    bench.root.with_name("away").rename(bench.root)
    assert bench.step() == ["d/b.jpg"]
    assert bench.intake.state == "events"
    assert len(bench.watchers) == 2
    assert bench.facts["rebuilds"] == 0


def test_another_root_in_its_place_is_read_whole(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.put("a.jpg")
    bench.step()
    bench.root.rename(bench.root.with_name("away"))
    bench.root.mkdir()
    bench.put("b.jpg")
    assert bench.step() == ["b.jpg"]
    assert bench.scans()[0].first
    assert bench.facts["replaced"] == 1
    assert told(caplog, "another folder in place") == 1


def test_after_a_long_absence_the_look_back_reaches_over_it(bench: Bench) -> None:
    bench.put("a.jpg")
    bench.step()
    away = bench.root.with_name("away")
    bench.root.rename(away)
    bench.step()
    # A week passes, in which the camera wrote to the share that nobody could see.
    bench.now += 7 * DAY
    bench.root.mkdir()
    for days in (6, 20):
        path = bench.put(f"{days}/b.jpg")
        stamp = time.time() - days * DAY
        os.utime(path, (stamp, stamp))
        os.utime(path.parent, (stamp, stamp))
    assert bench.step() == ["6/b.jpg"]


def test_a_root_that_is_a_loop_of_links_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    (tmp_path / "file").write_bytes(b"")
    for name in ("a", "file"):
        bench = Bench(tmp_path / name)
        bench.step()
        assert bench.intake.state.startswith("watch folder is unreadable")


def test_a_root_that_vanishes_during_the_first_scan(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bench.put("old/a.jpg")
    stamp = time.time() - 10 * DAY
    os.utime(path.parent, (stamp, stamp))
    away = bench.root.with_name("away")
    with monkeypatch.context() as patch:
        patch.setattr(bench.intake._guard, "scan_begins", lambda: bench.root.rename(away))
        bench.step()
    away.rename(bench.root)
    # The archive is still no news.
    assert bench.step() == []
    assert bench.scans()[0].first


# -- events ---------------------------------------------------------------------------------


def test_events_are_handed_on_for_wanted_names(bench: Bench) -> None:
    bench.steps(4)
    bench.watcher.tell("d/a.jpg", True)
    bench.watcher.tell("d/a.part", True)
    bench.watcher.tell("b.jpg", False)
    assert bench.take() == ["d/a.jpg", "b.jpg"]
    assert [m.files[0].settled for m in bench.messages if isinstance(m, Found)] == [True, False]


def test_a_silent_canary_gives_a_new_watcher_and_scans_meanwhile(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.step()
    bench.put("a.jpg")
    assert bench.step() == []
    assert bench.step() == ["a.jpg"]
    assert not bench.watchers[0].running
    assert len(bench.watchers) == 2
    assert bench.facts["rebuilds"] == 1
    assert told(caplog, "events cannot be trusted") == 1


def test_a_watcher_that_stays_deaf_is_tried_ever_less_often(bench: Bench) -> None:
    for _ in range(1800):
        bench.step()
    # 0, 2, 4 ... 512, 600, 600 seconds between two tries, within an hour.
    assert 12 <= len(bench.watchers) <= 16
    bench.put("a.jpg")
    assert bench.step() + bench.step() == ["a.jpg"]


def test_a_healthy_watcher_is_kept(bench: Bench) -> None:
    bench.steps(4000)
    assert len(bench.watchers) == 1
    assert bench.facts["proof"] == "canary"
    assert list(bench.root.iterdir()) == []


def test_no_canary_is_sent_while_the_camera_is_heard(bench: Bench) -> None:
    bench.steps(4)
    stamp = bench.root.stat().st_mtime_ns
    for n in range(100):
        bench.watcher.tell(f"d/{n}.jpg", True)
        bench.step()
    assert bench.root.stat().st_mtime_ns == stamp


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("asi_watch.live.watching.liveness.os.open", refuse)


@pytest.mark.usefixtures("read_only")
def test_without_the_right_to_write_files_found_are_compared_with_events(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.put("d/a.jpg")
    for _ in range(10):
        bench.step()
    assert bench.facts["proof"] == "comparison"
    assert "comparison" in bench.intake.state
    for n in range(20):
        bench.put(f"d/{n}.jpg")
        bench.watcher.tell(f"d/{n}.jpg", True)
        bench.step()
    assert bench.facts["rebuilds"] == 0
    bench.put("d/silent.jpg")
    found = [path for _ in range(6) for path in bench.step()]
    assert "d/silent.jpg" in found
    assert told(caplog, "events cannot be trusted") == 1


@pytest.mark.usefixtures("read_only")
def test_events_that_waited_while_the_process_was_stopped_are_no_fault(bench: Bench) -> None:
    bench.put("d/a.jpg")
    for _ in range(10):
        bench.step()
    bench.put("d/b.jpg")
    while "d/b.jpg" not in bench.step():
        pass
    bench.now += 100.0
    bench.step()
    bench.watcher.tell("d/b.jpg", True)
    for _ in range(10):
        bench.step()
    assert bench.facts["rebuilds"] == 0


@pytest.mark.usefixtures("read_only")
def test_files_in_a_folder_that_has_just_been_made_need_no_event(bench: Bench) -> None:
    for n in range(30):
        bench.put(f"{n}/a.jpg")
        bench.watcher.appeared(f"{n}") if bench.watchers else None
        bench.step()
    assert bench.facts["rebuilds"] == 0


def test_a_dead_watcher_is_replaced_at_once(bench: Bench) -> None:
    bench.steps(4)
    bench.watcher.problem = "the observer's thread has ended"
    bench.put("a.jpg")
    assert bench.step() == ["a.jpg"]
    assert len(bench.watchers) == 2
    assert bench.intake.state == "events"


def test_after_an_overflow_everything_is_read_and_nothing_rebuilt(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.steps(10)
    bench.put("a.jpg")
    bench.watcher.overflow = True
    assert bench.step() == ["a.jpg"]
    assert bench.facts["overflows"] == 1
    assert bench.facts["sweeps"] == 1
    bench.steps(20)
    assert bench.facts["rebuilds"] == 0


def test_no_events_at_all_is_told_once_and_polled(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(tmp_path)

    def start(_self: StubWatcher) -> None:
        raise WatchError("inotify instance limit reached")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StubWatcher, "start", start)
        for n in range(20):
            bench.put(f"{n}.jpg")
            assert bench.step() == [f"{n}.jpg"]
        assert bench.intake.state == "polling (inotify instance limit reached)"
        assert told(caplog, "no events, polling instead") == 1
        assert len(bench.watchers) < 8
    bench.steps(600)
    assert bench.intake.state == "events"


def test_folders_beyond_a_limit_are_polled_and_told_once(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StubWatcher, "keep", lambda self, folders: ["d"])
    bench.step()
    bench.watcher.limit = "inotify watch limit reached"
    bench.put("d/a.jpg")
    found = []
    for _ in range(10):
        bench.hear_canary()
        found += bench.step()
    assert found == ["d/a.jpg"]
    assert bench.intake.state == "events (inotify watch limit reached: 1 folders polled)"
    assert told(caplog, "watch limit reached") == 1


@pytest.mark.parametrize("mode", ["auto", "events"])
def test_on_a_network_share(
    tmp_path: Path, mode: guard.WatchMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "file_system_of", lambda _path: "nfs4")
    bench = Bench(tmp_path, mode)
    bench.step()
    if mode == "auto":
        assert bench.watchers == []
        assert bench.intake.state == "polling (nfs4 gives no events)"
    else:
        assert len(bench.watchers) == 1


# -- the thread -----------------------------------------------------------------------------


def test_a_crash_is_counted_and_the_thread_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(intake, "_HEALTH_EVERY", 0.01)
    inbox = Inbox()
    rules = watching(tmp_path, "polling", 1.0)
    camera = Intake("roof", rules, lambda name: name.endswith(".jpg"), inbox)
    real, calls = camera._root_is_there, []

    def crash_once() -> bool:
        calls.append(1)
        if len(calls) == 1:
            raise ZeroDivisionError
        return real()

    monkeypatch.setattr(camera, "_root_is_there", crash_once)
    (tmp_path / "a.jpg").write_bytes(b"x")
    with caplog.at_level(logging.ERROR):
        camera.start()
        message = inbox.get(10)
    camera.stop()
    assert isinstance(message, Found)
    assert camera.facts()["crashes"] == 1
    assert told(caplog, "scan crashed") == 1


def test_a_scan_is_owed_until_all_that_may_have_been_missed_was_handed_over(
    bench: Bench,
) -> None:
    assert bench.intake.owes_scan
    bench.step()
    assert not bench.intake.owes_scan
    away = bench.root.rename(bench.root.with_name("away"))
    bench.step()
    assert bench.intake.owes_scan
    away.rename(bench.root)
    bench.step()
    bench.steps(4)
    assert not bench.intake.owes_scan
    bench.intake.request_scan()
    assert bench.intake.owes_scan
    bench.steps(4)
    assert not bench.intake.owes_scan


def test_stopping_before_starting_is_harmless(bench: Bench) -> None:
    bench.intake.stop()
    assert bench.intake.state == "starting"


def test_a_folder_that_does_not_answer_is_told_once(tmp_path: Path) -> None:
    now = [100.0]
    intake = Intake(
        "roof",
        watching(tmp_path, "polling", 60.0),
        lambda _: True,
        Inbox(),
        monotonic=lambda: now[0],
    )
    asked, told = [], []

    def hanging() -> str:
        # As the owner sees it, while this thread waits for a dead share.
        asked.append(intake.take_silence())
        now[0] += 20
        told.extend([intake.state, intake.take_silence(), intake.take_silence()])
        return "lost"

    intake._root.look = hanging  # type: ignore[assignment,method-assign]
    intake.step()
    text = "watch folder has not answered for 20 s"
    assert asked == [None]
    assert told == [text, text, None]
    assert "answered" not in intake.state
    assert intake.take_silence() is None
