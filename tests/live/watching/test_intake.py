"""The intake stepped by hand: its clocks and its observer are the tests' own."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from asi_watch.live.messages import FolderRead, Found, Inbox, Message, ScanDone
from asi_watch.live.watching import intake
from asi_watch.live.watching.intake import Intake
from asi_watch.live.watching.observer import Observer, WatchError
from tests.live.intake_settings import watching

DAY = 86400.0
PATIENCE = 30.0


class StubObserver(Observer):
    """Does as it is told."""

    made: ClassVar[list[StubObserver]] = []
    refuse: str | None = None

    def __init__(self, root: Path, seen: Any, appeared: Any, *, shared: bool) -> None:
        self.root, self.seen, self.appeared, self.shared = root, seen, appeared, shared
        self.problem: str | None = None
        self.overflowed, self.running, self.limit = False, True, None
        self.kept = {""}
        StubObserver.made.append(self)

    def start(self) -> None:
        if StubObserver.refuse is not None:
            raise WatchError(StubObserver.refuse)

    def stop(self) -> None:
        self.running = False

    @property
    def fault(self) -> str | None:
        return self.problem

    def take_overflow(self) -> bool:
        lost, self.overflowed = self.overflowed, False
        return lost

    def watch(self, folder: str, status: os.stat_result | None = None) -> bool:
        self.kept.add(folder)
        return True

    def watches(self, folder: str) -> bool:
        return folder in self.kept

    def keep(self, folders: Iterable[str]) -> list[str]:
        self.kept = {"", *folders}
        return []

    @property
    def count(self) -> int:
        return len(self.kept)


@pytest.fixture(autouse=True)
def observers(monkeypatch: pytest.MonkeyPatch) -> list[StubObserver]:
    monkeypatch.setattr(intake, "Observer", StubObserver)
    monkeypatch.setattr(StubObserver, "made", [])
    monkeypatch.setattr(StubObserver, "refuse", None)
    return StubObserver.made


class Bench:
    """An intake on a folder, with clocks moved by hand."""

    def __init__(self, root: Path, mode: str = "auto", **watermarks: int) -> None:
        self.root = root
        self.now = 1000.0
        self.inbox = Inbox()
        self.messages: list[Message] = []
        self.intake = Intake(
            watching(root, mode), watermarks, self.inbox, monotonic=lambda: self.now
        )

    def step(self, later: float = 4.0) -> list[str]:
        """Let time pass, step, and give what was found."""
        self.now += later
        self.intake.step()
        return self.take()

    def steps(self, seconds: float) -> list[str]:
        return [path for _ in range(int(seconds / 4)) for path in self.step()]

    def take(self) -> list[str]:
        self.messages = []
        while (message := self.inbox.get(0)) is not None:
            self.messages.append(message)
        return [f.path for m in self.messages if isinstance(m, Found) for f in m.files]

    def all(self, kind: type[Any]) -> list[Any]:
        return [m for m in self.messages if isinstance(m, kind)]

    @property
    def facts(self) -> dict[str, Any]:
        return self.intake.facts()

    def put(self, name: str, age: float = 0.0) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
        when = time.time() - age
        os.utime(path, (when, when))
        return path


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    root = tmp_path / "in"
    root.mkdir()
    return Bench(root)


def logged(caplog: pytest.LogCaptureFixture, text: str) -> int:
    return sum(text in record.message for record in caplog.records)


# -- scans ----------------------------------------------------------------------------------


def test_watching_begins_before_the_first_scan(bench: Bench, observers: list[StubObserver]) -> None:
    bench.put("2026/06/21/09/a.jpg")
    assert bench.step() == ["2026/06/21/09/a.jpg"]
    (done,) = bench.all(ScanDone)
    assert done.first
    assert done.files == 1
    assert "2026/06/21/09" in observers[0].kept
    assert bench.intake.state == "events"


def test_a_file_without_an_event_is_found_in_four_seconds(bench: Bench) -> None:
    bench.put("d/a.jpg")
    bench.steps(8)
    bench.put("d/b.jpg")
    assert bench.step(later=4.0) == ["d/b.jpg"]


def test_when_polling_in_two_seconds(tmp_path: Path, observers: list[StubObserver]) -> None:
    bench = Bench(tmp_path, "polling")
    bench.step()
    for n in range(5):
        bench.put(f"{n}/a.jpg")
        assert bench.step(later=2.0) == [f"{n}/a.jpg"]
    assert observers == []
    assert bench.intake.state == "polling (configured)"


def test_a_new_folder_is_scanned_at_once(bench: Bench, observers: list[StubObserver]) -> None:
    bench.steps(12)
    bench.put("new/a.jpg")
    observers[0].appeared()
    assert bench.step(later=0.01) == ["new/a.jpg"]
    assert "new" in observers[0].kept


def test_every_folder_is_looked_at_once_a_minute_and_when_asked(bench: Bench) -> None:
    for n in range(100):
        bench.put(f"{n:03d}/a.jpg")
        os.utime(bench.root / f"{n:03d}", (time.time() + n - 7200,) * 2)
    bench.steps(40)
    bench.put("000/b.jpg")
    assert bench.steps(80) == ["000/b.jpg"]
    bench.put("001/b.jpg")
    bench.intake.request_scan()
    assert bench.step(0.01) == ["001/b.jpg"]


def test_what_was_read_is_said_after_it_was_handed_over(bench: Bench) -> None:
    bench.put("d/a.jpg")
    bench.step()
    # At first only that nothing older is wanted; then, when it has lain still, that it was read.
    kinds = [type(m) for m in bench.messages]
    assert kinds.index(Found) < kinds.index(FolderRead)
    assert {m.folder for m in bench.all(FolderRead) if m.skipped} == {"", "d"}
    bench.step()
    assert {m.folder: m.mtime_ns for m in bench.all(FolderRead)} == {
        "d": (bench.root / "d").stat().st_mtime_ns,
        "": bench.root.stat().st_mtime_ns,
    }
    bench.steps(40)
    assert bench.all(FolderRead) == []


def test_a_start_with_watermarks_reads_what_is_not_done_whatever_its_age(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for name in ("done/a.jpg", "old/a.jpg"):
        bench.put(name, age=900 * DAY)
        os.utime((tmp_path / name).parent, (time.time() - 900 * DAY,) * 2)
    bench = Bench(tmp_path, done=(tmp_path / "done").stat().st_mtime_ns)
    assert bench.step() == ["old/a.jpg"]


def test_the_owner_sets_the_pace(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "_INBOX_FULL", 2)
    for n in range(6):
        bench.put(f"{n}/a.jpg")
    lengths: list[int] = []

    def owner_takes(_seconds: float) -> bool:
        lengths.append(len(bench.inbox))
        bench.inbox.get(0)
        return False

    monkeypatch.setattr(bench.intake._halt, "wait", owner_takes)
    bench.step()
    assert max(lengths) == 3


def test_what_comes_during_a_pause_is_handed_over_after_it(
    bench: Bench, observers: list[StubObserver]
) -> None:
    bench.put("d/a.jpg")
    bench.steps(8)
    bench.intake.pause()
    bench.intake.pause()
    observers[0].seen("d/a.jpg", False)
    observers[0].seen("d/a.jpg", True)
    assert bench.take() == []
    bench.put("d/b.jpg")
    bench.intake.resume()
    assert bench.take() == ["d/a.jpg"]
    assert bench.all(Found)[0].files[0].settled
    assert bench.step(0.01) == ["d/b.jpg"]


def test_a_slow_scan_is_not_repeated_more_often_than_the_disk_can_bear(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "polling")
    bench.step()

    def slow(*_: object) -> Iterator[Any]:
        bench.now += 5.0
        return iter(())

    bench.intake._scanner.scan = slow  # type: ignore[method-assign, assignment]
    bench.step()
    scans = bench.facts["scans"]
    for _ in range(20):
        bench.step()
    assert bench.facts["scans"] == scans


# -- the root -------------------------------------------------------------------------------


def test_a_root_that_is_missing_at_start(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.root.rmdir()
    bench.steps(20)
    assert bench.intake.state == "watch folder is missing"
    assert logged(caplog, "watch folder is missing") == 1
    bench.put("a.jpg")
    assert bench.step() == ["a.jpg"]
    assert bench.intake.state == "events"


def test_a_root_that_vanishes_and_comes_back(bench: Bench, observers: list[StubObserver]) -> None:
    bench.put("d/a.jpg")
    bench.step()
    away = bench.root.rename(bench.root.with_name("away"))
    bench.step()
    assert bench.intake.state == "watch folder is missing"
    assert not observers[0].running
    # With the times of a machine without a clock, and of one that is ahead.
    for name, when in (("b.jpg", 0), ("c.jpg", 4102444800)):
        (away / "d" / name).write_bytes(b"x")
        os.utime(away / "d" / name, (when, when))
    away.rename(bench.root)
    assert bench.step() == ["d/b.jpg", "d/c.jpg"]
    assert bench.intake.state == "events"
    assert len(observers) == 2
    assert bench.facts["restarts"] == 0


def test_another_root_in_its_place_is_read_whole(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.put("a.jpg")
    bench.step()
    bench.root.rename(bench.root.with_name("away"))
    bench.root.mkdir()
    bench.put("b.jpg")
    assert bench.step() == ["b.jpg"]
    assert bench.all(ScanDone)[0].first
    assert bench.facts["replaced"] == 1
    assert logged(caplog, "another folder in place") == 1


def test_a_share_that_was_not_mounted_at_the_first_start_is_new_as_well(bench: Bench) -> None:
    bench.steps(8)
    bench.root.rename(bench.root.with_name("mount point"))
    for name, age in (("old/a.jpg", 20 * DAY), ("new/b.jpg", 0.0)):
        when = time.time() - age
        os.utime(bench.put(name, age).parent, (when, when))
    assert bench.step() == ["new/b.jpg"]


def test_a_share_that_comes_back_is_not_reported_again_and_nothing_is_missed(bench: Bench) -> None:
    bench.put("old/a.jpg", 20 * DAY)
    os.utime(bench.root / "old", (time.time() - 20 * DAY,) * 2)
    bench.put("day/b.jpg")
    assert bench.steps(8) == ["day/b.jpg"]
    share = bench.root.rename(bench.root.with_name("share"))
    bench.root.mkdir()
    assert bench.step() == []
    # A week passes, in which the camera wrote to the share that nobody could see.
    bench.now += 7 * DAY
    bench.root.rmdir()
    share.rename(bench.root)
    bench.put("day2/c.jpg", 6 * DAY)
    os.utime(bench.root / "day2", (time.time() - 6 * DAY,) * 2)
    assert bench.step() == ["day2/c.jpg"]


def test_a_root_that_is_a_loop_of_links_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    (tmp_path / "file").write_bytes(b"")
    for name in ("a", "file"):
        bench = Bench(tmp_path / name)
        bench.step()
        assert bench.intake.state.startswith("watch folder is unreadable")


# -- events ---------------------------------------------------------------------------------


def test_events_are_handed_on_for_wanted_names(bench: Bench, observers: list[StubObserver]) -> None:
    bench.steps(8)
    for path, settled in (
        ("d/a.jpg", True),
        ("d/a.part", True),
        ("d/.a.jpg", True),
        ("b.jpg", False),
    ):
        observers[0].seen(path, settled)
    assert bench.take() == ["d/a.jpg", "b.jpg"]
    assert [m.files[0].settled for m in bench.all(Found)] == [True, False]


def test_nothing_is_written_into_the_watch_folder(bench: Bench) -> None:
    stamp = bench.root.stat().st_mtime_ns
    bench.steps(400)
    assert list(bench.root.iterdir()) == []
    assert bench.root.stat().st_mtime_ns == stamp


def test_an_observer_that_ended_is_replaced_at_once(
    bench: Bench, observers: list[StubObserver], caplog: pytest.LogCaptureFixture
) -> None:
    bench.steps(8)
    observers[0].problem = "the thread that reads events has ended"
    bench.put("a.jpg")
    assert bench.step() == ["a.jpg"]
    assert not observers[0].running
    assert len(observers) == 2
    assert bench.facts["restarts"] == 1
    assert logged(caplog, "events have ended") == 1
    assert bench.intake.state == "events"


def test_after_an_overflow_every_folder_is_looked_at(
    bench: Bench, observers: list[StubObserver]
) -> None:
    bench.steps(12)
    passes = bench.facts["passes"]
    bench.put("a.jpg")
    observers[0].overflowed = True
    assert bench.step(0.01) == ["a.jpg"]
    assert bench.facts["overflows"] == 1
    assert bench.facts["passes"] == passes + 1
    assert bench.facts["restarts"] == 0


def test_no_events_at_all_is_logged_once_and_polled(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, observers: list[StubObserver]
) -> None:
    StubObserver.refuse = "inotify instance limit reached"
    bench = Bench(tmp_path)
    for n in range(20):
        bench.put(f"{n}.jpg")
        assert bench.step(later=2.0) == [f"{n}.jpg"]
    assert bench.intake.state == "polling (inotify instance limit reached)"
    assert logged(caplog, "no events, polling instead") == 1
    assert len(observers) == 1
    StubObserver.refuse = None
    bench.steps(60)
    assert bench.intake.state == "events"


def test_folders_beyond_a_limit_are_polled_and_logged_once(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keep(self: StubObserver, _folders: object) -> list[str]:
        self.limit = "inotify watch limit reached"
        return ["d"]

    monkeypatch.setattr(StubObserver, "keep", keep)
    bench.steps(8)
    bench.put("d/a.jpg")
    assert bench.steps(40) == ["d/a.jpg"]
    assert bench.intake.state == "events (inotify watch limit reached: 1 folders polled)"
    assert logged(caplog, "watch limit reached") == 1


@pytest.mark.parametrize(
    ("mode", "state"), [("auto", "polling (nfs4 gives no events)"), ("events", "events")]
)
def test_on_a_network_share(
    tmp_path: Path,
    mode: str,
    state: str,
    monkeypatch: pytest.MonkeyPatch,
    observers: list[StubObserver],
) -> None:
    monkeypatch.setattr(intake, "file_system_of", lambda _path: "nfs4")
    bench = Bench(tmp_path, mode)
    bench.step()
    assert bench.intake.state == state
    # A share that hangs while a watch is added must not hold up the events of others.
    assert [observer.shared for observer in observers] == [False] * (mode == "events")


# -- the threads ----------------------------------------------------------------------------


class Running:
    """Cameras that run by themselves, in threads of their own."""

    def __init__(self, folder: Path, count: int) -> None:
        self.inbox = Inbox()
        self.found: set[str] = set()
        self.intakes = []
        for n in range(count):
            (folder / f"{n}").mkdir()
            camera = watching(folder / f"{n}", "polling").model_copy(update={"name": f"{n}"})
            self.intakes.append(Intake(camera, {}, self.inbox))

    def until(self, reached: Any) -> None:
        """Tick, as the owner does."""
        deadline = time.monotonic() + PATIENCE
        while not reached():
            assert time.monotonic() < deadline
            for camera in self.intakes:
                camera.tick(time.monotonic())
            time.sleep(0.01)

    def has_found(self, name: str) -> bool:
        while (message := self.inbox.get(0)) is not None:
            if isinstance(message, Found):
                self.found |= {f"{message.camera}/{file.path}" for file in message.files}
        return name in self.found


def scan_threads() -> int:
    return sum(thread.name == "scan" for thread in threading.enumerate())


def test_no_thread_stays_between_scans(tmp_path: Path) -> None:
    before = scan_threads()
    running = Running(tmp_path, 40)
    for camera in running.intakes:
        camera.start()
    running.until(lambda: all(camera.facts()["scans"] for camera in running.intakes))
    for camera in running.intakes:
        camera.stop()
    assert scan_threads() == before


def test_a_folder_that_does_not_answer_holds_up_its_own_camera_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(intake, "_SILENCE", 0.2)
    running = Running(tmp_path, 4)
    back = threading.Event()
    for dead in running.intakes[:3]:
        monkeypatch.setattr(dead, "_root_is_there", lambda: back.wait(PATIENCE))
    for camera in running.intakes:
        camera.start()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "3" / name).write_bytes(b"x")
        running.until(lambda name=name: running.has_found(f"3/{name}"))
    running.until(lambda: "has not answered" in running.intakes[0].state)
    running.until(lambda: logged(caplog, "watch folder does not answer") == 3)
    (tmp_path / "0" / "a.jpg").write_bytes(b"x")
    back.set()
    running.until(lambda: running.has_found("0/a.jpg"))
    assert "answered" not in running.intakes[0].state
    # It stops answering again, and holds up no stop.
    back.clear()
    running.until(lambda: "has not answered" in running.intakes[0].state)
    began = time.monotonic()
    running.intakes[0].stop()
    assert time.monotonic() - began < 2.0
    back.set()
    for camera in running.intakes:
        camera.stop()


def test_a_crash_is_counted_and_what_it_interrupted_is_found_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench.put("a.jpg")
    with monkeypatch.context() as patch:
        patch.setattr(bench.inbox, "put", lambda _: 1 / 0)
        bench.intake._run_step()
    assert bench.facts["crashes"] == 1
    assert logged(caplog, "scan crashed") == 1
    assert bench.step() == ["a.jpg"]


def test_stopping_before_starting_is_harmless_and_nothing_is_sent_after(
    bench: Bench, observers: list[StubObserver]
) -> None:
    bench.step()
    bench.intake.stop()
    bench.take()
    observers[0].seen("a.jpg", True)
    assert bench.take() == []
    other = Bench(bench.root)
    other.intake.stop()
    assert other.intake.state == "starting"
