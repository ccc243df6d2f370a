"""Products where programs of other people look for them: under their name, once, and whole."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import simplejpeg
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from asi_watch.products import is_temporary
from tests.integration.daemon import Site, slot

pytestmark = pytest.mark.integration

NAMED = {"format": "jpg", "name": "{timestamp:%Y%m%d%H%M%S}_0", "timezone": "Etc/GMT-1"}
FIRST = "20260621100000_0.jpg"  # of 09:00 UTC
HOUR = "2026/06/21/09"
SETTLED = 0.5


class Seen:
    """File names in the order they were seen, and what was wrong with a file at that moment."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.torn: list[str] = []

    def add(self, path: str) -> None:
        self.names.append(os.path.relpath(path))
        if path.endswith(".jpg"):
            try:
                simplejpeg.decode_jpeg(Path(path).read_bytes(), "BGR", strict=True)
            except (OSError, ValueError) as error:
                self.torn.append(f"{path}: {error}")


class OnCreated(FileSystemEventHandler):
    """As asi_core's folder monitor: creation alone, by the path of the event."""

    def __init__(self, seen: Seen) -> None:
        self.seen = seen

    def on_created(self, event: FileSystemEvent) -> None:
        if not event.is_directory:
            self.seen.add(str(event.src_path))


class OnClosedAndMoved(FileSystemEventHandler):
    """As programs that know about unfinished files."""

    def __init__(self, seen: Seen) -> None:
        self.seen = seen

    def on_closed(self, event: FileSystemEvent) -> None:
        if not Path(str(event.src_path)).name.startswith("."):
            self.seen.add(str(event.src_path))

    def on_moved(self, event: FileSystemEvent) -> None:
        if not event.is_directory:
            self.seen.add(str(event.dest_path))


@contextmanager
def watchdog(handler: type[Any], folder: Path) -> Iterator[Seen]:
    seen, observer = Seen(), Observer()
    observer.schedule(handler(seen), str(folder), recursive=True)
    observer.start()
    try:
        yield seen
    finally:
        time.sleep(SETTLED)
        observer.stop()
        observer.join()


@contextmanager
def inotifywait(folder: Path) -> Iterator[Seen]:
    seen = Seen()
    command = ["inotifywait", "-q", "-m", "-r", "-e", "close_write,moved_to", "--format", "%w%f"]
    with subprocess.Popen([*command, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        time.sleep(SETTLED)
        try:
            yield seen
        finally:
            time.sleep(SETTLED)
            process.terminate()
            assert process.stdout is not None
            for path in process.stdout.read().splitlines():
                seen.add(path)


def site_of(make_site: Callable[..., Site], **more: Any) -> Site:
    site = make_site(products=[NAMED], **more)
    # Both folders are there, as when a watcher was started on them.
    (site.output / HOUR).mkdir(parents=True)
    (site.output / ".asi-watch").mkdir(mode=0o700)
    return site


def finals(seen: Seen, folder: Path) -> list[str]:
    below = os.path.relpath(folder)
    assert seen.torn == []
    return [name.removeprefix(f"{below}/") for name in seen.names if name.startswith(below)]


def test_a_watcher_of_creation_alone_sees_final_names_in_the_folder_of_the_day(
    make_site: Callable[..., Site],
) -> None:
    site = site_of(make_site)
    with watchdog(OnCreated, site.output / HOUR) as seen:
        site.start()
        for number in range(3):
            site.take(number)
            site.until_published(number)
    names = finals(seen, site.output / HOUR)
    assert names == [FIRST, FIRST.replace("0000_", "0030_"), FIRST.replace("0000_", "0100_")]


def test_a_watcher_of_creation_alone_of_all_folders_needs_staging_elsewhere(
    make_site: Callable[..., Site], tmp_path: Path
) -> None:
    site = site_of(make_site, staging=str(tmp_path / "staging"))
    with watchdog(OnCreated, site.output) as seen:
        site.start()
        site.take(0)
        site.until_published(0)
    assert finals(seen, site.output) == [f"{HOUR}/{FIRST}"]


def test_a_watcher_of_closed_and_moved_files_sees_each_once(make_site: Callable[..., Site]) -> None:
    site = site_of(make_site)
    with watchdog(OnClosedAndMoved, site.output) as seen:
        site.start()
        site.take(0)
        site.until_published(0)
    assert finals(seen, site.output) == [f"{HOUR}/{FIRST}"]


@pytest.mark.skipif(shutil.which("inotifywait") is None, reason="inotify-tools are not installed")
def test_inotifywait_sees_each_once(make_site: Callable[..., Site]) -> None:
    site = site_of(make_site)
    with inotifywait(site.output) as seen:
        site.start()
        site.take(0)
        site.until_published(0)
    names = [name for name in finals(seen, site.output) if not is_temporary(Path(name).name)]
    assert names == [f"{HOUR}/{FIRST}"]
    assert not [name for name in finals(seen, site.output / HOUR) if name.startswith(".")]


def test_a_revision_replaces_the_product_under_its_name(make_site: Callable[..., Site]) -> None:
    site = site_of(make_site, bracket={"exposures": 5, "grace": "1s", "min_exposures": 3})
    site.start()
    site.take(0, range(3))
    site.until_published(0)
    site.take(0, range(3, 5))
    row = site.until_made_of(0, 5)
    assert row.products == (f"{HOUR}/{FIRST}",)
    assert [path.name for path in (site.output / HOUR).iterdir()] == [FIRST]


def test_ledger_and_retention_know_products_by_any_name_in_any_folder(
    make_site: Callable[..., Site], tmp_path: Path
) -> None:
    other = tmp_path / "radiance"
    exr = {"format": "exr", "name": "{camera}_{timestamp:%Y%m%d_%H%M%S}", "output": str(other)}
    site = make_site(products=[NAMED, exr])
    site.start()
    site.take(0)
    before = site.until_published(0)
    radiance = other / HOUR / "roof_20260621_090000.exr"
    assert before.products == (f"{HOUR}/{FIRST}", str(radiance))
    assert radiance.exists()
    assert site.run("history", "--verify").returncode == 0
    assert site.stop() == 0
    for path in site.state.glob("ledger.sqlite3*"):
        path.unlink()
    shutil.rmtree(site.state / "backup", ignore_errors=True)
    site.start()
    row = site.until_published(0)
    assert (row.products, row.revision) == (before.products, 1)
    assert site.stop() == 0
    assert slot(0) == row.slot
    radiance.unlink()
    verified = site.run("history", "--verify")
    assert verified.returncode == 1
    assert str(radiance) in verified.stdout
