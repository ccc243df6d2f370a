"""Every way in which a file can appear and a watch can fail, with real inotify."""

from __future__ import annotations

import mmap
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asi_watch.live.messages import Found, FoundFile, Inbox
from asi_watch.live.watching import intake
from asi_watch.live.watching.intake import Intake
from tests.faults.watching import Watching
from tests.live.intake_settings import watching

PATIENCE = 100.0
NAME = "20260621090000_80.jpg"
CONTENT = b"0123456789" * 1000


class Taken:
    """A running intake and what it has handed over."""

    def __init__(self, root: Path, mode: str = "auto", every: float = 3600.0) -> None:
        self.inbox = Inbox()
        rules = watching(root, mode, every)
        self.intake = Intake(rules, {}, self.inbox)
        self.files: dict[str, list[FoundFile]] = {}
        self.intake.start()

    def until(self, reached: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not reached():
            assert time.monotonic() < deadline, (self.intake.state, self.intake.facts())
            self.intake.tick(time.monotonic())
            message = self.inbox.get(0.05)
            if isinstance(message, Found):
                for file in message.files:
                    self.files.setdefault(file.path, []).append(file)

    def until_found(self, *paths: str) -> None:
        self.until(lambda: set(paths) <= self.files.keys())

    def until_state(self, state: str) -> None:
        self.until(lambda: self.intake.state == state)

    def until_only_events_tell(self) -> None:
        """Wait until every folder is watched and no scan is due for an hour."""

        def at_rest() -> bool:
            soon = self.intake._next_scan < time.monotonic() + 60.0
            return self.fact("folders_watched") == 2 and not soon

        self.until(at_rest)

    def fact(self, name: str) -> int:
        value = self.intake.facts()[name]
        assert isinstance(value, int)
        return value


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    (folder / "day").mkdir(parents=True)
    return folder


@pytest.fixture
def take() -> Iterator[Callable[..., Taken]]:
    started: list[Taken] = []

    def take(*arguments: object, **options: object) -> Taken:
        started.append(Taken(*arguments, **options))  # type: ignore[arg-type]
        return started[-1]

    yield take
    for taken in started:
        taken.intake.stop()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_SCAN_EVERY", "_POLL_EVERY", "_ROOT_EVERY"):
        monkeypatch.setattr(intake, name, 0.1)


@pytest.fixture
def only_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "_SCAN_EVERY", 3600.0)


# -- the ways in which a file appears: none may need a scan -----------------------------------


def written(path: Path) -> None:
    path.write_bytes(CONTENT)


def copied(path: Path) -> None:
    source = path.parents[2] / "source"
    source.write_bytes(CONTENT)
    shutil.copy2(source, path)


def mapped(path: Path) -> None:
    with path.open("w+b") as file:
        file.truncate(len(CONTENT))
        with mmap.mmap(file.fileno(), len(CONTENT)) as memory:
            memory[:] = CONTENT


def in_pieces(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for start in range(0, len(CONTENT), 2000):
            file.write(CONTENT[start : start + 2000])
            time.sleep(0.02)


def renamed(path: Path) -> None:
    path.with_suffix(".part").write_bytes(CONTENT)
    path.with_suffix(".part").rename(path)


def replaced(path: Path) -> None:
    path.with_suffix(".part").write_bytes(CONTENT)
    path.with_suffix(".part").replace(path)


def renamed_from_outside(path: Path) -> None:
    source = path.parents[2] / "source"
    source.write_bytes(CONTENT)
    source.rename(path)


def renamed_from_another_folder(path: Path) -> None:
    source = path.parents[1] / "upload.tmp"
    source.write_bytes(CONTENT)
    source.rename(path)


def linked(path: Path) -> None:
    source = path.parents[2] / "source"
    source.write_bytes(CONTENT)
    path.hardlink_to(source)


def symlinked(path: Path) -> None:
    source = path.parents[2] / "source"
    source.write_bytes(CONTENT)
    path.symlink_to(source)


def abandoned(path: Path) -> None:
    """Write half a file and be killed."""
    program = f"import time; f = open({str(path)!r}, 'wb', 0); f.write(b'half'); time.sleep(60)"
    writer = subprocess.Popen([sys.executable, "-c", program])
    while not (path.exists() and path.stat().st_size):
        time.sleep(0.01)
    writer.kill()
    writer.wait()


APPEAR_WHOLE = [
    written,
    copied,
    mapped,
    in_pieces,
    renamed,
    replaced,
    renamed_from_outside,
    renamed_from_another_folder,
    abandoned,
]


@pytest.mark.usefixtures("only_events")
@pytest.mark.parametrize("writer", [*APPEAR_WHOLE, linked, symlinked])
def test_every_writer_is_told_by_an_event(
    root: Path, take: Callable[..., Taken], writer: Callable[[Path], None]
) -> None:
    taken = take(root)
    taken.until_only_events_tell()
    writer(root / "day" / NAME)
    taken.until_found(f"day/{NAME}")
    if writer in APPEAR_WHOLE:
        taken.until(lambda: any(file.settled for file in taken.files[f"day/{NAME}"]))
    assert all(file.signature is None for file in taken.files[f"day/{NAME}"])


def test_a_rewritten_file_is_told_again(root: Path, take: Callable[..., Taken]) -> None:
    written(root / "day" / NAME)
    taken = take(root)
    taken.until_found(f"day/{NAME}")
    taken.until(lambda: taken.fact("folders_watched") == 2)
    taken.files.clear()
    (root / "day" / NAME).write_bytes(b"anew")
    taken.until_found(f"day/{NAME}")


def test_a_folder_moved_in_with_its_files(root: Path, take: Callable[..., Taken]) -> None:
    taken = take(root)
    taken.until_state("events")
    outside = root.parent / "outside"
    (outside / "09").mkdir(parents=True)
    for n in range(5):
        (outside / "09" / f"{n}.jpg").write_bytes(CONTENT)
    outside.rename(root / "day2")
    taken.until_found(*(f"day2/09/{n}.jpg" for n in range(5)))


def test_a_file_at_once_in_four_new_folders(root: Path, take: Callable[..., Taken]) -> None:
    taken = take(root)
    taken.until_state("events")
    for hour in range(5):
        path = root / "2026" / "06" / "21" / f"{hour:02d}" / NAME
        path.parent.mkdir(parents=True)
        written(path)
    taken.until_found(*(f"2026/06/21/{hour:02d}/{NAME}" for hour in range(5)))


def test_files_written_into_fresh_folders_without_a_pause(
    root: Path, take: Callable[..., Taken]
) -> None:
    taken = take(root)
    taken.until_state("events")
    names = [f"{a:02d}/{b:02d}/{c}.jpg" for a in range(10) for b in range(20) for c in range(5)]
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    taken.until_found(*names)
    assert taken.fact("restarts") == 0


def test_names_that_are_not_utf_8(root: Path, take: Callable[..., Taken]) -> None:
    taken = take(root)
    taken.until_state("events")
    name = os.fsdecode(b"\xff\xfe/\xfd.jpg")
    (root / name).parent.mkdir()
    (root / name).write_bytes(b"x")
    taken.until_found(name)


# -- the ways in which a watch goes deaf ------------------------------------------------------


@pytest.mark.usefixtures("only_events")
def test_a_root_that_is_a_link(root: Path, take: Callable[..., Taken]) -> None:
    (root.parent / "link").symlink_to(root)
    taken = take(root.parent / "link")
    taken.until_only_events_tell()
    written(root / "day" / NAME)
    taken.until_found(f"day/{NAME}")
    assert taken.files[f"day/{NAME}"][0].signature is None


@pytest.mark.usefixtures("impatient")
def test_a_link_that_is_turned_to_another_folder(root: Path, take: Callable[..., Taken]) -> None:
    link = root.parent / "link"
    link.symlink_to(root)
    taken = take(link)
    taken.until_state("events")
    (root.parent / "other").mkdir()
    (root.parent / "new").symlink_to(root.parent / "other")
    (root.parent / "new").replace(link)
    written(root.parent / "other" / NAME)
    taken.until_found(NAME)
    assert taken.fact("replaced") == 1


@pytest.mark.usefixtures("impatient")
def test_a_root_missing_at_start_removed_and_made_again(
    root: Path, take: Callable[..., Taken]
) -> None:
    shutil.rmtree(root)
    taken = take(root)
    taken.until_state("watch folder is missing")
    for turn in range(2):
        root.mkdir()
        taken.until_state("events")
        written(root / f"{turn}.jpg")
        taken.until_found(f"{turn}.jpg")
        shutil.rmtree(root)
        taken.until_state("watch folder is missing")


@pytest.mark.usefixtures("impatient")
def test_the_thread_that_reads_events_ends(root: Path, take: Callable[..., Taken]) -> None:
    taken = take(root)
    taken.until_state("events")
    observer = taken.intake._observer
    assert observer is not None
    assert observer._reader is not None
    observer._reader.stop()
    taken.until(lambda: taken.fact("restarts") >= 1)
    taken.until_state("events")
    taken.until(lambda: taken.fact("folders_watched") == 2)
    written(root / "day" / NAME)
    taken.until_found(f"day/{NAME}")


def test_a_watch_that_is_deaf_without_a_sign(root: Path, take: Callable[..., Taken]) -> None:
    """As where another machine writes to a share that was taken for a local file system."""
    taken = take(root)
    taken.until_state("events")
    observer = taken.intake._observer
    assert observer is not None
    taken.until(lambda: taken.fact("folders_watched") == 2)
    observer._folders.clear()
    written(root / "day" / NAME)
    began = time.monotonic()
    taken.until_found(f"day/{NAME}")
    assert time.monotonic() - began < 5.0


def until_found(camera: Intake, inbox: Inbox, name: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while name not in steps(camera, inbox, 1):
        assert time.monotonic() < deadline, camera.facts()


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that everybody may read and only its owner may write."""
    folder = Path(tempfile.mkdtemp(prefix="asi-watch-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def nobody() -> Iterator[None]:
    os.seteuid(65534)
    yield
    os.seteuid(0)


def steps(camera: Intake, inbox: Inbox, count: int) -> list[str]:
    found = []
    for _ in range(count):
        camera.step()
        time.sleep(0.1)
        while (message := inbox.get(0)) is not None:
            found += [f.path for f in message.files] if isinstance(message, Found) else []
    return found


@as_root
@pytest.mark.usefixtures("impatient")
def test_a_root_that_may_be_read_but_not_written(public: Path, nobody: None) -> None:
    inbox = Inbox()
    camera = Intake(watching(public, "auto", 60.0), {}, inbox)
    steps(camera, inbox, 3)
    assert camera.state == "events"
    as_owner(lambda: written(public / NAME))
    until_found(camera, inbox, NAME)
    camera.stop()


@as_root
def test_folders_that_may_not_be_read(public: Path, nobody: None) -> None:
    def closed() -> None:
        for name in ("closed", "open"):
            (public / name).mkdir()
            written(public / name / NAME)
        (public / "closed").chmod(0o700)

    as_owner(closed)
    inbox = Inbox()
    rules = watching(public, "auto", 1.0)
    camera = Intake(rules, {}, inbox)
    assert steps(camera, inbox, 3) == [f"open/{NAME}"]
    assert camera.facts()["folders_unreadable"] == 1
    as_owner(lambda: (public / "closed").chmod(0o755))
    camera.request_scan()
    assert steps(camera, inbox, 3) == [f"closed/{NAME}"]
    assert camera.facts()["folders_unreadable"] == 0
    as_owner(lambda: public.chmod(0o700))
    camera.step()
    assert camera.state == "watch folder is unreadable: Permission denied"
    as_owner(lambda: public.chmod(0o755))
    camera.step()
    assert camera.state.startswith("events")
    camera.stop()


def as_owner(act: Callable[[], None]) -> None:
    os.seteuid(0)
    try:
        act()
    finally:
        os.seteuid(65534)


def can_unshare() -> bool:
    command = ["unshare", "--mount", "true"]
    return bool(shutil.which("unshare")) and not subprocess.run(command, check=False).returncode


@pytest.mark.skipif(
    os.geteuid() != 0 or not can_unshare(), reason="needs the right to a private mount namespace"
)
def test_a_root_that_is_mounted_over_and_uncovered_again(root: Path) -> None:
    written(root / "day" / "below.jpg")
    # The process and the mounts live in a namespace that ends with it.
    wrapper = ("unshare", "--mount", "--propagation", "private")
    with Watching(root, wrapper=wrapper) as watching:
        watching.until(lambda s: s["state"] == "events" and s["found"] == 1)
        enter = ["nsenter", "--mount", "--target", str(watching.process.pid)]

        def inside(*command: str) -> None:
            subprocess.run([*enter, *command], check=True)

        inside("mount", "-t", "tmpfs", "none", str(root))
        inside("sh", "-c", f"mkdir {root}/day && echo x > {root}/day/above.jpg")
        watching.until(lambda s: s["replaced"] == 1 and s["found"] == 2 and s["state"] == "events")
        inside("sh", "-c", f"echo x > {root}/day/above2.jpg")
        watching.until(lambda s: s["found"] == 3)
        inside("umount", "--lazy", str(root))
        written(root / "day" / "below2.jpg")
        watching.until(lambda s: s["replaced"] == 2 and s["found"] == 4 and s["state"] == "events")


# -- floods -----------------------------------------------------------------------------------


def flood(watching: Watching, folders: list[Path], files: int) -> None:
    """Write more than the kernel's queue holds while nobody reads it."""
    watching.process.send_signal(signal.SIGSTOP)
    for n in range(files):
        os.close(os.open(folders[n % len(folders)] / f"f{n}.jpg", os.O_CREAT | os.O_WRONLY, 0o644))
    watching.process.send_signal(signal.SIGCONT)


def queue_length() -> int:
    return int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())


def test_a_flood_that_overflows_the_kernels_queue(root: Path) -> None:
    files = queue_length() // 2 + 500
    if files > 20_000:
        pytest.skip("this machine's queue is longer than a quick test can fill")
    with Watching(root) as watching:
        watching.until(lambda s: s["state"] == "events" and s["folders_watched"] == 2)
        flood(watching, [root / "day"], files)
        state = watching.until(lambda s: s["found"] == files)
        assert state["overflows"] >= 1
        written(root / "day" / NAME)
        watching.until(lambda s: s["found"] == files + 1 and s["state"] == "events")


@pytest.mark.soak
@pytest.mark.parametrize("folders", [1, 20])
def test_fifty_thousand_files_at_once(root: Path, folders: int) -> None:
    places = [root / f"{n:02d}" for n in range(folders)]
    for place in places:
        place.mkdir()
    with Watching(root) as watching:
        watching.until(lambda s: s["state"] == "events")
        started = time.monotonic()
        flood(watching, places, 50_000)
        state = watching.until(lambda s: s["found"] == 50_000)
        print(f"50,000 files: all found {time.monotonic() - started:.1f} s after the first", state)


def plant(root: Path, folders: int) -> None:
    for n in range(folders):
        place = root / f"{n // 400:03d}" / f"{n % 400 // 20:02d}" / f"{n % 20:02d}"
        place.mkdir(parents=True)


def test_no_livelock_on_twenty_thousand_folders(root: Path) -> None:
    plant(root, 20_000)
    # Where the camera is writing.
    written(root / "day" / "before.jpg")
    with Watching(root) as watching:
        watching.until(lambda s: s["state"] == "events" and s["scans"] >= 1)
        files = min(queue_length() // 2 + 500, 20_000)
        flood(watching, [root / "day"], files)
        found = watching.until(lambda s: s["found"] == files + 1)["found"]
        # It has come to rest: every folder was looked at, and nothing more is to do.
        rest = watching.until(lambda s: s["state"] == "events" and s["passes"] >= 1)
        written(root / "day" / NAME)
        told = watching.until(lambda s: s["found"] == found + 1)
        assert told["overflows"] <= rest["overflows"]
        assert told["restarts"] == 0
