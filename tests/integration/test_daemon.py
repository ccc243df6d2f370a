"""From files landing in a folder to HDR images, with the real daemon, inotify and SQLite."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg

from asi_watch.live.ledger.ledger import Ledger
from asi_watch.live.ledger.records import BracketRecord
from asi_watch.products import read_provenance
from tests.hdr.brackets import merge_frames, settings
from tests.images.pictures import mobotix
from tests.integration.daemon import (
    EXPOSURES,
    SHORT,
    Site,
    file_name,
    frames,
    slot,
    write_chunked,
    write_moved_in,
    write_plain,
    write_renamed,
)
from tests.skies import sky_bracket

pytestmark = pytest.mark.integration


def test_every_kind_of_writer_gives_one_product_a_bracket(site: Site) -> None:
    site.start()
    writers = [write_plain, write_chunked, write_renamed, write_moved_in]
    for number, writer in enumerate(writers):
        site.take(number, writer=writer)
    for number in range(len(writers)):
        row = site.until_published(number)
        assert row.complete
        assert row.revision == 1
        assert row.latency is not None
        assert site.product(number).is_file()
    assert site.stop() == 0
    assert len(list(site.output.rglob("*_hdr.jpg"))) == len(writers)
    assert site.leftovers() == []


def test_a_product_is_what_the_formula_says_and_tells_where_it_came_from(
    make_site: Callable[..., Site],
) -> None:
    products = [{"format": "png"}, {"format": "exr"}, {"format": "jpg"}]
    as_before = {
        "merge": {"algorithm": "debevec_custom", "deghost": "off"},
        "tone": {"operator": "gamma"},
    }
    site = make_site(products=products, **as_before)
    site.start()
    site.take(0)
    row = site.until_published(0)
    site.stop()
    decoded = [simplejpeg.decode_jpeg(f, colorspace="BGR") for f in frames()]
    response = sky_bracket(96).log_response
    expected = merge_frames(decoded, EXPOSURES, settings(), response, np.uint16)
    product = cv2.imread(str(site.product(0, "png")), cv2.IMREAD_UNCHANGED)
    assert product is not None
    np.testing.assert_array_equal(product, expected)
    for suffix in ("png", "exr", "jpg"):
        provenance = read_provenance(site.product(0, suffix))
        assert provenance.camera == "roof"
        assert provenance.slot == slot(0)
        assert [s.exposure_us for s in provenance.sources] == EXPOSURES
        assert provenance.curve_id == row.curve_id
        assert provenance.complete


def test_exposure_times_come_from_the_files_where_names_have_none(
    make_site: Callable[..., Site],
) -> None:
    """Two files of a slot are told apart once read; one that states nothing is left out."""
    site = make_site(filename="{timestamp:%Y%m%d%H%M%S}", exposure_from="metadata", bracket=SHORT)
    site.start()
    for number, without in ((0, None), (1, 2)):
        for index, (exposure, data) in enumerate(zip(EXPOSURES, frames(), strict=True)):
            name = f"{slot(number) + timedelta(seconds=index):%Y%m%d%H%M%S}.jpg"
            stated = data if index == without else mobotix(data, str(round(1.01 * exposure)))
            (site.watch / name).write_bytes(stated)
    whole, lacking = site.until_published(0), site.until_published(1)
    assert whole.complete
    assert [e.nominal_us for e in whole.inputs] == EXPOSURES
    assert [e.exposure_us for e in whole.inputs] == [round(1.01 * time) for time in EXPOSURES]
    assert not lacking.complete
    assert [r.reason for r in lacking.rejected] == ["its metadata do not state its exposure time"]
    assert len(lacking.inputs) == len(EXPOSURES) - 1


def test_folders_that_appear_while_running_are_watched(site: Site) -> None:
    site.start()
    # An hour apart, so that every bracket opens folders of its own.
    for number in (0, 120, 240, 2880):
        site.take(number)
    for number in (0, 120, 240, 2880):
        assert site.until_published(number).complete


def test_a_restart_in_the_middle_of_a_bracket_loses_nothing(site: Site) -> None:
    site.start()
    site.take(0)
    site.until_published(0)
    site.take(1, range(3))
    assert site.stop() == 0
    assert site.row(1) is None
    site.start()
    site.take(1, range(3, 5))
    assert site.until_published(1).complete
    stamp = site.product(0).stat().st_mtime_ns
    time.sleep(0.5)
    assert site.product(0).stat().st_mtime_ns == stamp
    assert [r.revision for r in site.rows().values()] == [1, 1]


def test_what_came_while_the_daemon_was_down_is_merged(site: Site) -> None:
    for number in range(4):
        site.take(number)
    site.start()
    for number in range(4):
        assert site.until_published(number).complete


def test_after_kill_9_nothing_is_lost_and_nothing_merged_twice(site: Site) -> None:
    site.start()
    site.take(0)
    site.until_published(0)
    site.take(1, range(4))
    time.sleep(0.3)
    assert site.stop(signal.SIGKILL) == -signal.SIGKILL
    site.take(1, range(4, 5))
    site.take(2)
    site.start()
    assert site.until_published(1).complete
    assert site.until_published(2).complete
    assert {r.revision for r in site.rows().values()} == {1}


def test_a_camera_that_is_renamed_keeps_its_products(site: Site) -> None:
    site.start()
    site.take(0)
    made_with = site.until_published(0).curve_id
    before = site.product(0).read_bytes()
    renamed = {key: value for key, value in site.camera.items() if key != "response"}

    for reload, name in enumerate(("rof", "roof"), 1):
        site.configure(cameras={name: renamed if name == "rof" else site.camera})
        # A bracket taken before the reload would be the other name's.
        site.reload()
        site.take(reload)
        site.until_published(reload)
        assert site.product(0).read_bytes() == before

    def rows() -> dict[tuple[str, datetime], BracketRecord]:
        with Ledger(site.state, read_only=True) as ledger:
            return {(r.camera, r.slot): r for r in ledger.history()}

    site.until(lambda: ("roof", slot(1)) in rows(), "the other name's bracket is merged again")
    rows_now = rows()
    assert rows_now["rof", slot(0)].curve_id == rows_now["roof", slot(0)].curve_id == made_with
    # What was merged without a curve for want of one is merged again with it.
    assert rows_now["rof", slot(1)].algorithm == "mertens"
    assert rows_now["roof", slot(1)].algorithm == "debevec_exact"


def test_a_product_whose_row_was_lost_in_a_crash_is_adopted(site: Site) -> None:
    site.start()
    site.take(0)
    site.until_published(0)
    site.stop()
    with closing(sqlite3.connect(site.state / "ledger.sqlite3")) as db, db:
        db.execute("DELETE FROM brackets")
    stamp = site.product(0).stat().st_mtime_ns
    site.start()
    assert site.until_published(0).latency is None
    assert site.product(0).stat().st_mtime_ns == stamp


def test_sigterm_during_a_merge_finishes_it(make_site: Callable[..., Site]) -> None:
    # Several slow formats, so that the signal falls into the work.
    site = make_site(products=[{"format": f} for f in ("jp2", "png", "exr", "tiff", "jpg")])
    site.start()
    for number in range(6):
        site.take(number)
    site.until(lambda: site.product(0).exists(), "begun")
    assert site.stop() == 0
    assert site.leftovers() == []
    published = {n for n in range(6) if site.row(n) is not None}
    whole = {n for n in range(6) if site.product(n).exists()}
    assert published == whole
    site.start()
    for number in range(6):
        assert site.until_published(number).revision == 1


def test_state_is_swept_and_nothing_is_open_to_everyone_whatever_the_umask(site: Site) -> None:
    half = site.state / "curves/roof/.asi-watch-0123456789abcdef.tmp"
    half.parent.mkdir(parents=True)
    half.touch()
    command = ["sh", "-c", 'umask 000; exec "$@"', "sh", *site.command("run")]
    with site.log.open("wb") as log:
        site.process = subprocess.Popen(command, stdout=log, stderr=log)
    site.until(lambda: "msg=ready" in site.log_text(), "ready")
    site.take(0)
    site.until_published(0)
    assert not half.exists()
    half.parent.rmdir()
    half.parent.parent.rmdir()
    # Every user may read the status, and nothing else.
    status = site.state / "status.json"
    site.until(status.exists, "status written")
    assert status.stat().st_mode & 0o777 == 0o644
    made = [p for p in (*site.state.rglob("*"), *site.output.rglob("*")) if "status" not in p.name]
    assert {p.name for p in made} >= {"ledger.sqlite3", "ledger.sqlite3-wal", "at-work", "lock"}
    assert [p for p in made if p.stat().st_mode & 0o007] == []
    assert [p for p in made if p.is_file() and p.stat().st_mode & 0o037] == []
    assert site.stop() == 0


def test_a_state_folder_that_cannot_be_used_is_told_in_one_line(site: Site) -> None:
    site.state.write_text("no folder")
    answer = site.run("run")
    assert answer.returncode == 6
    assert "Traceback" not in answer.stderr
    assert str(site.state) in answer.stderr
    site.state.unlink()
    site.state.mkdir()
    (site.state / "lock").symlink_to("/dev/null")
    answer = site.run("run")
    assert (answer.returncode, "Traceback" in answer.stderr) == (6, False)


def test_a_second_daemon_on_the_same_state_is_refused(site: Site) -> None:
    site.start()
    second = site.run("run")
    assert second.returncode == 3
    assert "in use by another asi-watch" in second.stderr
    assert str(site.process.pid if site.process else "") in second.stderr


def test_a_wrong_configuration_is_refused_with_all_its_errors(site: Site) -> None:
    site.camera["bracket"] = {"exposures": [], "grace": "soon"}
    site.configure(colour="blue")
    answer = site.run("run")
    assert answer.returncode == 2
    for word in ("colour", "grace", "exposures", str(site.config)):
        assert word in answer.stderr


def test_a_short_bracket_is_merged_and_a_late_exposure_merges_it_again(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(bracket=SHORT)
    site.start()
    site.take(0, range(4))
    first = site.until_made_of(0, 4)
    assert not first.complete
    before = site.product(0).read_bytes()
    site.take(0, range(4, 5))
    second = site.until_made_of(0, 5)
    assert second.complete
    assert (second.revision, second.late) == (first.revision + 1, first.late + 1)
    assert site.product(0).read_bytes() != before
    assert len(list(site.output.rglob("*_hdr.jpg"))) == 1


def test_a_half_file_waits_until_it_is_whole(site: Site) -> None:
    site.start()
    site.take(0, range(4))
    folder = site.product(0).parent.relative_to(site.output)
    path = site.watch / folder / file_name(0, 4)
    content = frames()[4]
    path.write_bytes(content[: len(content) // 2])
    time.sleep(0.5)
    assert site.row(0) is None
    path.write_bytes(content)
    assert site.until_published(0).complete


def test_bad_files_are_counted_and_do_no_harm(make_site: Callable[..., Site]) -> None:
    site = make_site(bracket=SHORT)
    site.start()
    folder = site.watch / f"{slot(0):%Y/%m/%d/%H}"
    folder.mkdir(parents=True)
    (folder / file_name(0, 4)).write_bytes(frames()[4][:2000])
    subprocess.run(["mkfifo", str(folder / file_name(1, 0))], check=True)
    (folder / "20260621090030_x.jpg").write_bytes(b"")
    site.take(0, range(4))
    row = site.until_made_of(0, 4)
    assert [Path(r.path).name for r in row.rejected] == [file_name(0, 4)]
    site.until(lambda: site.row(1) is not None, "the pipe recorded")
    counts = site.status()["counts"]
    assert counts["files_unusable"] >= 2
    assert counts["names_ignored"] >= 1


def test_status_and_history(site: Site) -> None:
    nobody = site.run("status")
    assert nobody.returncode == 1
    assert "no daemon runs" in nobody.stderr
    site.start()
    site.take(0)
    site.until_published(0)
    site.until(lambda: site.status()["counts"]["published"] == 1, "shown")
    site.until(lambda: site.status()["watching"] == "events", "watching by events")
    shown = site.status()
    assert shown["last_bracket"]["slot"] == slot(0).isoformat()
    assert shown["latency"]["p50"] > 0
    table = site.run_until_answered("status")
    assert "roof" in table.stdout
    site.stop()
    history = site.run("history", "--json")
    (line,) = history.stdout.splitlines()
    assert json.loads(line)["products"] == [str(site.product(0).relative_to(site.output))]
    assert site.run("history").stdout.count("published") == 1
    assert "no brackets" in site.run("history", "--since", "2026-06-21T10:00").stdout


def test_polling_finds_files_too(make_site: Callable[..., Site]) -> None:
    site = make_site(watch_mode="polling", scan={"every": "1s"})
    site.start()
    site.take(0)
    assert site.until_published(0).complete
    assert site.status()["watching"].startswith("polling")


def test_a_watch_folder_that_is_missing_and_comes_later(site: Site) -> None:
    site.watch.rmdir()
    site.start()
    site.until(lambda: "watch folder is missing" in site.log_text(), "told")
    site.watch.mkdir()
    site.take(0)
    assert site.until_published(0).complete
    site.take(1)
    assert site.until_published(1).complete


def test_sighup_takes_a_new_configuration_and_refuses_a_wrong_one(site: Site) -> None:
    site.start()
    good = site.config.read_text()
    site.config.write_text("cameras: 5\n")
    assert site.process is not None
    site.process.send_signal(signal.SIGHUP)
    site.until(lambda: "configuration not reloaded" in site.log_text(), "refused")
    site.take(0)
    site.until_published(0)
    site.config.write_text(good.replace("format: jpg", "format: png"))
    site.camera["products"] = [{"format": "png"}]
    site.configure()
    pid = site.process.pid
    site.reload()
    assert site.process.pid == pid
    site.take(1)
    site.until_published(1)
    assert site.product(1, "png").exists()
    assert site.stop() == 0
