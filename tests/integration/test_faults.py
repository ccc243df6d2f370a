"""The real daemon when things go wrong: a lost ledger, a full disk, a parked bracket, a backlog."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.daemon import EXPOSURES, SHORT, Site, file_name, frames, slot
from tests.skies import jpeg_bracket

pytestmark = pytest.mark.integration


def test_a_damaged_ledger_is_moved_aside_and_rebuilt_from_the_products(site: Site) -> None:
    site.start()
    site.take(0)
    first = site.until_published(0)
    site.stop()
    for file in site.state.glob("ledger.sqlite3*"):
        file.unlink()
    (site.state / "ledger.sqlite3").write_bytes(b"not a database" * 500)
    stamp = site.product(0).stat().st_mtime_ns
    site.start()
    row = site.row(0)
    assert row is not None
    assert [e.path for e in row.inputs] == [e.path for e in first.inputs]
    assert (row.curve_id, row.products, row.revision) == (first.curve_id, first.products, 1)
    assert "ledger rebuilt" in site.log_text()
    assert (site.state / "ledger.sqlite3.damaged-1").read_bytes().startswith(b"not a database")
    site.take(1)
    site.until_published(1)
    assert site.product(0).stat().st_mtime_ns == stamp
    site.until(lambda: site.status()["counts"]["published"] == 1, "counted")


def test_publishing_pauses_on_a_full_disk_and_goes_on_by_itself(site: Site) -> None:
    site.configure(disk={"keep_free": "1000TB"})
    site.start()
    site.take(0)
    site.until(lambda: site.status()["waiting_in_ledger"] == 1, "waiting")
    shown = site.run_until_answered("status").stdout
    assert "disk.keep_free" in shown
    row = site.row(0)
    assert row is not None and row.state == "failed"
    assert not site.product(0).exists()
    site.configure()
    assert site.process is not None
    site.process.send_signal(signal.SIGHUP)
    assert site.until_published(0).complete
    assert site.log_text().count("disk nearly full") <= 2


def test_a_failed_bracket_is_parked_and_retried_on_demand(make_site: Callable[..., Site]) -> None:
    site = make_site(bracket=SHORT)
    site.start()
    site.take(0, range(4))
    folder = site.watch / f"{slot(0):%Y/%m/%d/%H}"
    small = frames(seed=1)[4]
    (folder / file_name(0, 4)).write_bytes(small[: len(small) // 2])
    site.until(lambda: site.row(0) is not None, "recorded without its last frame")
    site.take(1, range(2))
    site.until(lambda: site.row(1) is not None, "skipped")
    site.take(1, range(2, 3))
    site.until_published(1)
    nothing = site.run("retry", "--all-failed", "--skipped")
    assert "0 brackets are tried again" in nothing.stdout
    site.take(2, range(2))
    site.until(lambda: site.row(2) is not None, "skipped")
    before = site.row(2)
    said = "1 bracket is tried again"
    # A daemon that is kept from answering says that it is busy.
    site.until(lambda: said in site.run("retry", "--skipped").stdout, "asked")

    def again() -> bool:
        row = site.row(2)
        return row is not None and before is not None and row.updated_utc > before.updated_utc

    site.until(again, "tried again")
    site.stop()
    asked = site.run("retry", "--slot", slot(2).isoformat())
    assert "tried again when it starts" in asked.stdout
    site.take(2, range(2, 5))
    site.start()
    assert site.until_published(2).complete


def test_a_name_that_is_no_text_in_a_reason_harms_nobody(site: Site) -> None:
    folder = site.watch / os.fsdecode(b"caf\xe9\x1b[2J\n")
    folder.mkdir()
    for index, content in enumerate(frames()):
        other = jpeg_bracket(64, seed=1)[EXPOSURES[0]]
        (folder / file_name(0, index)).write_bytes(other if index == 2 else content)
    site.start()
    site.until(lambda: site.row(0) is not None, "recorded")
    row = site.row(0)
    assert row is not None
    assert row.state == "failed"
    assert "caf\\udce9\\x1b[2J\\n" in (row.reason or "")
    site.take(1)
    site.until_published(1)
    for command in ("status", "history"):
        answer = site.run_until_answered(command)
        assert all(line.isprintable() for line in answer.stdout.splitlines())
    assert site.stop() == 0
    assert "Traceback" not in site.log_text()


def test_sigterm_during_the_start_scan_and_a_calibration(make_site: Callable[..., Site]) -> None:
    site = make_site(response=None, recalibrate={"every": "never", "brackets": 3})
    for number in range(20):
        site.take(number)
    site.start()
    assert site.stop() == 0
    site.start()
    site.until(lambda: "calibration started" in site.log_text(), "calibrating")
    assert site.stop() == 0
    assert site.leftovers() == []


def test_a_reload_loses_nothing_in_flight(site: Site) -> None:
    site.start()
    site.take(0)
    site.until_published(0)
    for number in range(1, 6):
        site.take(number)
    site.take(6, range(3))
    site.reload()
    site.take(6, range(3, 5))
    for number in range(1, 7):
        assert site.until_published(number).complete
    assert {r.revision for r in site.rows().values()} == {1}


def _backlog(site: Site, brackets: int) -> tuple[int, list[float]]:
    """Work off a backlog while brackets are being taken; peak memory and the live latencies."""
    contents = frames()
    for number in range(brackets):
        folder = site.watch / f"{slot(number):%Y/%m/%d/%H}"
        folder.mkdir(parents=True, exist_ok=True)
        for index, content in enumerate(contents):
            (folder / file_name(number, index)).write_bytes(content)
    site.start()
    latencies: list[float] = []
    for live in range(brackets + 100, brackets + 103):
        site.take(live)
        latency = site.until_published(live).latency
        assert latency is not None
        latencies.append(latency)
    done_before = len(site.rows())
    deadline = time.monotonic() + 1000
    while len(site.rows()) < brackets + 3:
        assert time.monotonic() < deadline, site.log_text()[-3000:]
        time.sleep(1)
    assert done_before < brackets, "the backlog was over before the live brackets came"
    assert site.process is not None
    status = Path(f"/proc/{site.process.pid}/status").read_text().splitlines()
    (peak,) = [int(line.split()[1]) for line in status if line.startswith("VmHWM")]
    return peak, latencies


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_a_12_hour_backlog_takes_little_memory_and_live_brackets_go_first(
    make_site: Callable[..., Site],
) -> None:
    exposures = {"exposures": EXPOSURES, "grace": "2s"}
    site = make_site(bracket=exposures, scan={"every": "2s", "lookback": "36500d"})
    site.configure(memory_budget="32MB")
    started = time.monotonic()
    peak, latencies = _backlog(site, 1440)
    took = time.monotonic() - started
    print(f"peak {peak / 1024:.0f} MB, live latencies {latencies} s, {took:.0f} s in all")
    assert peak < 250 * 1024
    assert max(latencies) < 2
