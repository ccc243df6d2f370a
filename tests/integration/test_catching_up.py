"""Old folders that come while the daemon runs or is down are merged, though it is interrupted."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.daemon import Site, file_name, frames, slot

pytestmark = pytest.mark.integration

HOURS = 2
PER_HOUR = 25
FIVE_DAYS = 5 * 86_400.0


def archive(folder: Path) -> list[int]:
    """Two hours of an archive, with the times that a copy keeps; the numbers of its brackets."""
    numbers = [hour * 120 + n for hour in range(HOURS) for n in range(PER_HOUR)]
    for number in numbers:
        hour = folder / f"{slot(number):%H}"
        hour.mkdir(parents=True, exist_ok=True)
        for index, content in enumerate(frames()):
            (hour / file_name(number, index)).write_bytes(content)
    old = time.time() - FIVE_DAYS
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (old, old))
    return numbers


def test_an_archive_moved_in_and_interrupted_is_not_forgotten(site: Site, tmp_path: Path) -> None:
    numbers = archive(tmp_path / "elsewhere")
    site.start()
    (tmp_path / "elsewhere").rename(site.watch / "2026-06-16")
    site.until(lambda: len(site.rows()) >= 2, "begun")
    assert site.stop(signal.SIGKILL) == -signal.SIGKILL
    interrupted = len(site.rows())
    site.start()
    site.until(lambda: len(site.rows()) > interrupted, "going on")
    site.reload()
    site.until(lambda: len(site.rows()) == len(numbers), "all have rows")
    assert interrupted < len(numbers)
    assert all(r.state == "published" and r.revision == 1 for r in site.rows().values())
    # What is done is not read again.
    time.sleep(5.0)
    assert site.stop() == 0
    before = len(site.log_text())
    site.start()
    site.until(lambda: "scan done" in site.log_text(before), "scanned")
    assert "files=0" in site.log_text(before)
    assert site.stop() == 0


def test_an_archive_that_came_while_the_daemon_was_down_is_merged(
    site: Site, tmp_path: Path
) -> None:
    site.start()
    site.take(1000)
    site.until_published(1000)
    assert site.stop() == 0
    numbers = archive(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").rename(site.watch / "2026-06-16")
    site.start()
    site.until(lambda: len(site.rows()) == len(numbers) + 1, "all have rows")
    assert site.stop() == 0


def test_the_first_bracket_in_a_new_folder_does_not_wait_to_lie_still(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(stable_for="1min", scan={"every": "10min"})
    site.start()
    site.take(0)
    began = time.monotonic()
    site.until(lambda: site.product(0).exists(), "published")
    assert time.monotonic() - began < 60
