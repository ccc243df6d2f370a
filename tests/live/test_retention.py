"""Retention over real folders and a real ledger, with a clock of our own."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from click.testing import CliRunner

from asi_watch.brackets import Exposure
from asi_watch.cli import main
from asi_watch.config import load_config
from asi_watch.config.model import CameraConfig, LimitsConfig, ProductConfig, RetentionConfig
from asi_watch.live.ledger.ledger import Ledger
from asi_watch.live.ledger.records import BracketRecord, RejectedFile
from asi_watch.live.retention import (
    Kind,
    Outcome,
    RetentionThread,
    _Candidates,
    product_fault,
    retain,
)
from asi_watch.products import Source
from asi_watch.products.embed import with_provenance
from tests.products.making import provenance

DAY = 86_400.0
NOW = datetime(2024, 6, 21, 12, tzinfo=UTC).timestamp()
SIZE = 1000
PER_BRACKET = 2
PICTURE = simplejpeg.encode_jpeg(np.zeros((8, 8, 3), np.uint8))


def clock() -> float:
    return NOW


def plenty(_folder: Path) -> int:
    return 10**12


def limits_of(max_age: float | None = None, **sizes: int) -> LimitsConfig:
    """Limits with `max_age` in seconds."""
    return LimitsConfig.model_construct(
        max_age=None if max_age is None else timedelta(seconds=max_age), **sizes
    )


class Archive:
    """Brackets of one camera, the oldest `days` old, one a day."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.state.mkdir()
        self.config = folder / "asi-watch.yaml"
        self.config.write_text(
            f"state_dir: {self.state}\n"
            f"cameras:\n  roof: {{watch: {folder}/in, output: {folder}/out}}\n"
        )
        self.camera = load_config(self.config).cameras["roof"]
        self.ledger = Ledger(self.state)
        # Ages count from the newest slot of each camera.
        newest = datetime.fromtimestamp(NOW, UTC).replace(tzinfo=None)
        self.ledger.record_all(
            BracketRecord(name, newest, "skipped", updated_utc=f"{newest}+00:00")
            for name in ("roof", "lab")
        )

    def write(self, root: str, path: str, age_days: float, content: bytes = b"x" * SIZE) -> Path:
        target = self.folder / root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        os.utime(target, (NOW - age_days * DAY, NOW - age_days * DAY))
        return target

    def exposure(self, path: str, slot: datetime, age_days: float) -> Exposure:
        status = self.write("in", path, age_days).stat()
        time_us = float(Path(path).stem.rpartition("_")[2])
        return Exposure(path, slot, time_us, SIZE, status.st_mtime_ns)

    def bracket(
        self,
        age_days: float,
        state: Any = "published",
        *,
        folder: str = "%Y/%m/%d",
        slot: datetime | None = None,
        camera: str = "roof",
        inputs: Iterable[Exposure] | None = None,
    ) -> BracketRecord:
        slot = slot or datetime.fromtimestamp(NOW - age_days * DAY, UTC).replace(tzinfo=None)
        folder = f"{slot:{folder}}"
        if inputs is None:
            names = [f"{slot:%Y%m%d%H%M%S}_{80 * (n + 1)}.jpg" for n in range(PER_BRACKET)]
            inputs = [self.exposure(f"{folder}/{name}", slot, age_days) for name in names]
        product = f"{folder}/{slot:%Y%m%d%H%M%S}_hdr.jpg"
        record = BracketRecord(
            camera,
            slot,
            state,
            inputs=tuple(inputs),
            products=(product,) if state == "published" else (),
            updated_utc=datetime.fromtimestamp(NOW - age_days * DAY, UTC).isoformat(),
        )
        if state == "published":
            self.product(record, age_days)
        self.ledger.record_all([record])
        return record

    def product(self, record: BracketRecord, age_days: float) -> Path:
        sources = tuple(
            Source(e.path, e.exposure_us, e.timestamp, e.size, e.mtime_ns) for e in record.inputs
        )
        text = provenance(camera=record.camera, slot=record.slot, sources=sources)
        return self.write("out", record.products[0], age_days, with_provenance(PICTURE, text))

    def change(self, record: BracketRecord, **changes: Any) -> BracketRecord:
        changed = replace(record, **changes)
        self.ledger.record_all([changed])
        return changed

    def settings(self, kind: Kind, *, require_product: bool = True, **limits: Any) -> CameraConfig:
        only: Any = {kind: limits_of(**limits)}
        rules = RetentionConfig(**only, dry_run=False, require_product=require_product)
        return self.camera.model_copy(update={"retention": rules})

    def run(
        self,
        kind: Kind = "exposures",
        *,
        apply: bool = True,
        now: float = NOW,
        free: Callable[[Path], int] = plenty,
        done: dict[tuple[str, Kind], datetime] | None = None,
        **limits: Any,
    ) -> Outcome:
        outcomes = retain(
            (self.settings(kind, **limits),), self.ledger, now, apply=apply, free=free, done=done
        )
        return outcomes[0] if outcomes else Outcome("roof", kind)

    def files(self, root: str = "in") -> list[str]:
        # Not rglob: folders go meanwhile.
        found = [name for _, _, names in os.walk(self.folder / root) for name in names]
        return sorted(name for name in found if name.endswith(".jpg"))


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path)


def test_what_is_too_old_goes_and_its_empty_date_folders_with_it(archive: Archive) -> None:
    for age in (40, 35, 20, 1):
        archive.bracket(age)
    outcome = archive.run(max_age=30 * DAY)
    assert (outcome.files, outcome.size) == (2 * PER_BRACKET, 2 * PER_BRACKET * SIZE)
    assert len(archive.files()) == 2 * PER_BRACKET
    assert len(archive.files("out")) == 4
    folders = {p.name for p in (archive.folder / "in").rglob("*") if p.is_dir()}
    assert folders == {"2024", "06", "01", "20"}


def test_a_dry_run_counts_the_same_and_deletes_nothing(archive: Archive) -> None:
    for age in (40, 35, 20):
        archive.bracket(age)
    before = archive.files()
    dry = archive.run(max_age=30 * DAY, apply=False)
    assert archive.files() == before
    assert replace(archive.run(max_age=30 * DAY)) == dry


def test_space_is_made_until_enough_is_free(archive: Archive) -> None:
    for age in (9, 8, 7, 6):
        archive.bracket(age)
    size = next((archive.folder / "out").rglob("*.jpg")).stat().st_size
    outcome = archive.run("products", keep_free=5000, free=lambda _: 5000 - size - 1)
    assert outcome.files == 2
    assert len(archive.files("out")) == 2
    assert len(archive.files("in")) == 4 * PER_BRACKET


def test_nothing_goes_of_a_bracket_that_is_not_over_for_good(archive: Archive) -> None:
    archive.bracket(50, "failed")
    archive.bracket(45, "skipped")
    archive.write("in", "2024/05/01/20240501120000_80.jpg", 51)  # not in the ledger
    archive.write("in", "holiday.jpg", 400)
    outcome = archive.run(max_age=30 * DAY, keep_free=10**15)
    assert outcome.files == 0
    assert len(archive.files()) == 2 * PER_BRACKET + 2
    assert archive.run(max_age=30 * DAY, require_product=False).files == 0


def test_nothing_goes_of_a_bracket_that_somebody_wants_merged_again(archive: Archive) -> None:
    archive.bracket(45)
    archive.bracket(40)
    # As `asi-watch retry` leaves it, until the row is written anew.
    archive.ledger._db.execute("UPDATE brackets SET asked = 1 WHERE slot LIKE '2024-05-07%'")
    assert archive.run(max_age=30 * DAY).files == PER_BRACKET
    assert {name[:8] for name in archive.files()} == {"20240507"}


def test_nothing_of_the_last_hour_goes_whatever_the_limits(archive: Archive) -> None:
    archive.bracket(0.02)
    assert archive.run(keep_free=10**15, max_age=3600).files == 0


def test_a_file_that_is_not_what_was_recorded_stays(archive: Archive) -> None:
    record = archive.bracket(40)
    changed = archive.folder / "in" / record.inputs[0].path
    changed.write_bytes(b"another exposure")
    os.utime(changed, (NOW - 39 * DAY, NOW - 39 * DAY))
    archive.run(max_age=30 * DAY)
    assert archive.files() == [changed.name]


def test_what_was_left_out_of_a_product_stays(archive: Archive) -> None:
    record = archive.bracket(40)
    late = archive.write("in", "2024/05/12/20240512120009_640.jpg", 40)
    name = f"2024/05/12/{late.name}"
    rejected = RejectedFile(name, SIZE, late.stat().st_mtime_ns, "late: ignored")
    archive.change(record, rejected=(rejected,))
    archive.run(max_age=30 * DAY)
    assert archive.files() == [late.name]


@pytest.mark.parametrize("path", ["../outside.jpg", "/etc/outside.jpg", "link/outside.jpg"])
def test_no_path_leads_out_of_the_watch_folder(archive: Archive, path: str) -> None:
    record = archive.bracket(40)
    outside = archive.write(".", "outside.jpg", 40)
    (archive.folder / "in" / "link").symlink_to(archive.folder)
    stamp = outside.stat().st_mtime_ns
    evil = Exposure(path, record.slot, 80.0, SIZE, stamp)
    archive.product(archive.change(record, inputs=(evil,)), 40)
    assert archive.run(max_age=30 * DAY).files == 0
    assert outside.exists()


def test_a_link_in_the_place_of_an_exposure_stays_and_so_does_its_target(archive: Archive) -> None:
    record = archive.bracket(40)
    exposure = archive.folder / "in" / record.inputs[0].path
    target = archive.folder / "precious"
    exposure.rename(target)
    exposure.symlink_to(target)
    archive.run(max_age=30 * DAY)
    assert exposure.is_symlink()
    assert target.exists()


def test_products_that_are_none_are_left_alone(archive: Archive) -> None:
    record = archive.bracket(40)
    precious = archive.write("out", "thesis_hdr.jpg", 400)
    archive.change(record, products=("thesis_hdr.jpg",))
    assert archive.run("products", max_age=30 * DAY).files == 0
    assert precious.exists()


def test_without_limits_nothing_goes(archive: Archive) -> None:
    archive.bracket(4000)
    assert archive.run().files == 0


def test_a_run_that_is_stopped_is_gone_on_with(archive: Archive) -> None:
    for age in range(40, 50):
        archive.bracket(age)
    done: dict[tuple[str, Kind], datetime] = {}
    cameras = (archive.settings("exposures", max_age=30 * DAY),)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("asi_watch.live.retention._PAGE", 3)
        stopped = threading.Event()
        stopped.set()
        retain(cameras, archive.ledger, NOW, apply=True, free=plenty, done=done, stopping=stopped)
    assert len(archive.files()) == 7 * PER_BRACKET
    assert archive.run(max_age=30 * DAY, done=done).files == 7 * PER_BRACKET


def test_rows_done_with_are_not_looked_at_again_before_the_next_thorough_run(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    for age in range(40, 50):
        archive.bracket(age)
    done: dict[tuple[str, Kind], datetime] = {}
    archive.run(max_age=30 * DAY, done=done)
    looked: list[str] = []
    monkeypatch.setattr(_Candidates, "_status", lambda self, path: looked.append(path))
    archive.run(max_age=30 * DAY, done=done)
    assert looked == []
    archive.run(max_age=30 * DAY, done={})
    assert len(looked) == 10 * PER_BRACKET


@pytest.mark.parametrize("ahead", [10 * 365 * DAY, 31 * DAY, -31 * DAY])
def test_by_a_clock_that_jumped_nothing_goes_by_its_age(archive: Archive, ahead: float) -> None:
    archive.bracket(25)
    archive.bracket(0.2)
    assert archive.run(max_age=30 * DAY, now=NOW + ahead).files == 0
    assert archive.run(keep_free=10**15, now=NOW + 10 * 365 * DAY).files == 2 * PER_BRACKET


def test_a_camera_whose_names_jumped_ahead_deletes_nothing_by_age(archive: Archive) -> None:
    archive.bracket(25)
    archive.bracket(0.2, slot=datetime(2034, 1, 1))
    assert archive.run(max_age=30 * DAY).files == 0


def test_the_thread_deletes_only_when_told_to(archive: Archive) -> None:
    archive.bracket(40)
    archive.bracket(0.2)
    settings = archive.settings("exposures", max_age=DAY)
    dry = settings.model_copy(
        update={"retention": settings.retention.model_copy(update={"dry_run": True})}
    )
    RetentionThread(archive.state, [dry], clock=clock).run_once()
    assert len(archive.files()) == 2 * PER_BRACKET
    thread = RetentionThread(archive.state, [settings], clock=clock)
    thread.run_once()
    assert len(archive.files()) == PER_BRACKET
    assert thread.snapshot("roof")["deleted_files"] == PER_BRACKET
    thread.stop()


def test_a_full_disk_does_not_wait_for_the_hour(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_MORE_AFTER", "_LOOK_EVERY"):
        monkeypatch.setattr(f"asi_watch.live.retention.{name}", 0.01)
    archive.bracket(40)
    archive.bracket(0.2)
    settings = archive.settings("exposures", keep_free=10**18)
    for pressed in (False, True):
        thread = RetentionThread(archive.state, [settings], lambda p=pressed: p, clock)
        thread.start()
        deadline = time.monotonic() + (60 if pressed else 0.3)
        while archive.files() and time.monotonic() < deadline:
            time.sleep(0.02)
        thread.stop()
        assert (archive.files() == []) is pressed


def test_on_a_full_disk_what_was_published_behind_the_last_run_goes_too(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.bracket(40)
    settings = archive.settings("exposures", keep_free=10**18)
    thread = RetentionThread(archive.state, [settings], lambda: True, clock)
    thread.run_once()
    assert archive.files() == []
    # Of a backlog, merged newest first. Not at every run: a long ledger takes its time.
    archive.bracket(50)
    thread.run_once()
    assert len(archive.files()) == PER_BRACKET
    monkeypatch.setattr("asi_watch.live.retention._SEARCH_EVERY", 0.0)
    thread.run_once()
    assert archive.files() == []


def test_the_command_shows_a_table_and_deletes_when_asked(archive: Archive) -> None:
    archive.bracket(40)
    answer = CliRunner().invoke(main, ["retention", "-c", str(archive.config)])
    assert "nothing is ever deleted" in answer.output
    text = archive.config.read_text().replace(
        "/out}", "/out, retention: {exposures: {max_age: 2h}}}"
    )
    archive.config.write_text(text)
    answer = CliRunner().invoke(main, ["retention", "-c", str(archive.config)])
    assert answer.exit_code == 0
    assert f"exposures      {PER_BRACKET}" in answer.output, answer.output
    assert len(archive.files()) == PER_BRACKET
    CliRunner().invoke(main, ["retention", "-c", str(archive.config), "--apply"])
    assert archive.files() == []


def test_a_slot_at_the_edge_of_its_age_stays(archive: Archive) -> None:
    archive.bracket(29)
    assert archive.run(max_age=timedelta(days=30).total_seconds()).files == 0


# -- what must never go ---------------------------------------------------------------------


def test_exposures_stay_when_their_product_is_gone_torn_or_of_others(archive: Archive) -> None:
    gone, torn, other, whole = [archive.bracket(age) for age in (43, 42, 41, 40)]
    out = archive.folder / "out"
    (out / gone.products[0]).unlink()
    (out / torn.products[0]).write_bytes((out / torn.products[0]).read_bytes()[:-2])
    (out / other.products[0]).write_bytes((out / whole.products[0]).read_bytes())
    outcome = archive.run(max_age=30 * DAY)
    assert (outcome.files, outcome.kept) == (PER_BRACKET, 3)
    left = {Path(e.path).name for r in (gone, torn, other) for e in r.inputs}
    assert set(archive.files()) == left
    assert archive.run(max_age=30 * DAY, require_product=False).files == 3 * PER_BRACKET


def test_exposures_stay_that_the_product_was_not_made_of(archive: Archive) -> None:
    record = archive.bracket(40)
    more = archive.exposure("2024/05/12/20240512120000_320.jpg", record.slot, 40)
    archive.change(record, inputs=(*record.inputs, more))
    assert archive.run(max_age=30 * DAY).files == 0


def test_a_product_that_does_not_say_whose_it_is_stays(archive: Archive) -> None:
    mine, edited, foreign = [archive.bracket(age) for age in (42, 41, 40)]
    out = archive.folder / "out"
    (out / edited.products[0]).write_bytes(PICTURE)
    text = provenance(camera="another", slot=foreign.slot)
    (out / foreign.products[0]).write_bytes(with_provenance(PICTURE, text))
    assert archive.run("products", max_age=30 * DAY).files == 1
    assert archive.files("out") == sorted(Path(r.products[0]).name for r in (edited, foreign))
    assert mine.products[0].endswith("_hdr.jpg")


def test_a_bracket_goes_whole_or_not_at_all(archive: Archive) -> None:
    for age in (41, 40):
        archive.bracket(age)
    assert archive.run(keep_free=5000, free=lambda _: 4999).files == PER_BRACKET


def test_a_second_name_of_a_file_frees_nothing(archive: Archive) -> None:
    linked, plain = archive.bracket(41), archive.bracket(40)
    for e in linked.inputs:
        (archive.folder / Path(e.path).name).hardlink_to(archive.folder / "in" / e.path)
    archive.run(keep_free=5000, free=lambda _: 4999)
    assert archive.files() == sorted(Path(e.path).name for e in linked.inputs)
    assert plain.inputs
    assert archive.run(max_age=30 * DAY).files == PER_BRACKET


def test_a_file_rewritten_between_the_look_and_the_deletion_stays(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = archive.bracket(40)
    first = archive.folder / "in" / record.inputs[0].path
    look = _Candidates._status

    def rewritten_after(self: _Candidates, path: str) -> os.stat_result | None:
        found = look(self, path)
        if path == record.inputs[0].path:
            first.write_bytes(b"y" * SIZE)
        return found

    monkeypatch.setattr(_Candidates, "_status", rewritten_after)
    outcome = archive.run(max_age=30 * DAY)
    assert (outcome.files, outcome.failed) == (1, 0)
    assert archive.files() == [first.name]


def test_a_folder_swapped_for_a_link_after_the_look_leads_nowhere(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = archive.bracket(40)
    folder = (archive.folder / "in" / record.inputs[0].path).parent
    look = _Candidates._status

    def swapped_after(self: _Candidates, path: str) -> os.stat_result | None:
        found = look(self, path)
        if path == record.inputs[-1].path and not folder.is_symlink():
            folder.rename(archive.folder / "precious")
            folder.symlink_to(archive.folder / "precious")
        return found

    monkeypatch.setattr(_Candidates, "_status", swapped_after)
    assert archive.run(max_age=30 * DAY).files == 0
    assert len(list((archive.folder / "precious").iterdir())) == PER_BRACKET


# -- clocks ---------------------------------------------------------------------------------


def test_files_from_the_future_go_by_the_time_of_their_row(archive: Archive) -> None:
    record = archive.bracket(40)
    inputs = []
    for e in record.inputs:
        path = archive.folder / "in" / e.path
        os.utime(path, (NOW + 400 * DAY, NOW + 400 * DAY))
        inputs.append(replace(e, mtime_ns=path.stat().st_mtime_ns))
    archive.product(archive.change(record, inputs=tuple(inputs)), 40)
    assert archive.run(max_age=30 * DAY).files == PER_BRACKET


def test_without_any_clock_that_knows_nothing_goes(archive: Archive) -> None:
    record = archive.bracket(-400)
    assert record.updated_utc > "2025"
    assert archive.run(max_age=30 * DAY, keep_free=10**15).files == 0


def test_a_camera_whose_clock_fell_back_holds_nothing_up(archive: Archive) -> None:
    begin = datetime(2000, 1, 1)
    for n in range(120):
        archive.bracket(1, slot=begin + timedelta(seconds=30 * n), inputs=[])
    archive.bracket(40)
    assert archive.run(max_age=30 * DAY).files == PER_BRACKET


def test_names_of_the_future_are_found_by_a_thorough_run(archive: Archive) -> None:
    for n in range(120):
        archive.bracket(1, slot=datetime(2024, 6, 20) + timedelta(seconds=30 * n), inputs=[])
    archive.bracket(40, slot=datetime(2024, 6, 24))
    done: dict[tuple[str, Kind], datetime] = {("roof", "exposures"): datetime(2020, 1, 1)}
    assert archive.run(max_age=30 * DAY, done=done).files == 0
    assert archive.run(max_age=30 * DAY).files == PER_BRACKET


# -- several cameras, one disk --------------------------------------------------------------


def two_cameras(archive: Archive, **limits: Any) -> tuple[CameraConfig, CameraConfig]:
    one = archive.settings("exposures", **limits)
    root = archive.folder / "in2"
    two = one.model_copy(update={"name": "lab", "watch": root})
    for age in (42, 40):
        archive.bracket(age)
    root.mkdir()
    for age in (41, 39):
        record = archive.bracket(age, camera="lab", folder="lab%Y")
        for e in record.inputs:
            (root / e.path).parent.mkdir(exist_ok=True)
            (archive.folder / "in" / e.path).rename(root / e.path)
    return one, two


def test_of_cameras_that_share_a_disk_the_oldest_go_first(archive: Archive) -> None:
    cameras = two_cameras(archive, keep_free=5000)
    free = 5000 - 2 * PER_BRACKET * SIZE
    outcomes = retain(cameras, archive.ledger, NOW, apply=True, free=lambda _: free)
    assert [o.files for o in outcomes] == [PER_BRACKET, PER_BRACKET]
    ages = [
        (datetime.fromtimestamp(NOW, UTC).replace(tzinfo=None) - o.oldest)
        for o in outcomes
        if o.oldest
    ]
    assert [age.days for age in ages] == [42, 41]


def test_trying_out_gives_the_numbers_of_the_real_run(archive: Archive) -> None:
    cameras = two_cameras(archive, keep_free=6000, max_age=41.5 * DAY)
    both = limits_of(keep_free=9000)
    cameras = tuple(  # type: ignore[assignment]
        c.model_copy(update={"retention": c.retention.model_copy(update={"products": both})})
        for c in cameras
    )
    used = sum(p.stat().st_size for p in archive.folder.rglob("*.jpg"))

    def free(_folder: Path) -> int:
        return 4000 + used - sum(p.stat().st_size for p in archive.folder.rglob("*.jpg"))

    dry = retain(cameras, archive.ledger, NOW, apply=False, free=free)
    assert retain(cameras, archive.ledger, NOW, apply=True, free=free) == dry
    assert sum(o.files for o in dry if o.kind == "products") > 0


# -- what fails -----------------------------------------------------------------------------


def failing(monkeypatch: pytest.MonkeyPatch, number: int, *names: str) -> list[str]:
    """Let deletions fail, of these names or of all; returns the names that were tried."""
    tried: list[str] = []
    real = os.unlink

    def unlink(name: str, **options: Any) -> None:
        tried.append(name)
        if not names or name in names:
            raise OSError(number, os.strerror(number))
        real(name, **options)

    monkeypatch.setattr(os, "unlink", unlink)
    return tried


def test_what_cannot_be_deleted_is_not_counted_as_freed(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [archive.bracket(age) for age in (9, 8, 7, 6)]
    stuck = [Path(e.path).name for e in records[0].inputs]
    failing(monkeypatch, errno.EACCES, *stuck)
    outcome = archive.run(keep_free=PER_BRACKET * SIZE, free=lambda _: 0)
    assert (outcome.files, outcome.failed) == (PER_BRACKET, PER_BRACKET)
    assert "Permission denied" in (outcome.reason or "")
    assert set(stuck) < set(archive.files())


@pytest.mark.parametrize("number", [errno.EROFS, errno.EPERM])
def test_a_disk_that_refuses_is_not_tried_file_by_file(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    for age in range(31, 60):
        archive.bracket(age)
    tried = failing(monkeypatch, number)
    outcome = archive.run(max_age=30 * DAY)
    assert len(tried) == 20
    assert outcome.failed == 20


def test_a_file_that_somebody_else_deleted_is_no_failure(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.bracket(40)
    failing(monkeypatch, errno.ENOENT)
    outcome = archive.run(max_age=30 * DAY)
    assert (outcome.files, outcome.failed) == (0, 0)


# -- folders --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "folder", ["192.168.1.10", "20.24.1.10", "12", "07", "%m", "%d", "1/%H", "%m/%d"]
)
def test_a_folder_that_is_not_made_anew_for_its_day_stays(archive: Archive, folder: str) -> None:
    archive.bracket(40, folder=folder)
    there = [p for p in (archive.folder / "in").rglob("*") if p.is_dir()]
    assert archive.run(max_age=30 * DAY).files == PER_BRACKET
    assert all(p.is_dir() for p in there)


@pytest.mark.parametrize(
    "folder", ["%Y%m%d", "%Y-%m-%d/%H", "%Y/%j", "%y%m%d", "cam1/%Y/%m/%d/%H", "%Y_%m/%d"]
)
def test_empty_date_folders_go(archive: Archive, folder: str) -> None:
    archive.bracket(40, folder=folder)
    assert archive.run(max_age=30 * DAY).files == PER_BRACKET
    left = [p.name for p in (archive.folder / "in").rglob("*")]
    assert left == (["cam1"] if folder.startswith("cam1") else [])


def test_todays_folder_stays(archive: Archive) -> None:
    record = archive.bracket(0.1)
    archive.run(keep_free=10**15)
    assert archive.files() == []
    assert (archive.folder / "in" / record.inputs[0].path).parent.is_dir()


# -- do the newest products stand? ------------------------------------------------------------


def test_products_that_are_missing_cut_or_others_are_found_and_named(
    archive: Archive, caplog: pytest.LogCaptureFixture
) -> None:
    whole, gone, cut, foreign = [archive.bracket(age) for age in (4, 3, 2, 1)]
    out = archive.folder / "out"
    (out / gone.products[0]).unlink()
    (out / cut.products[0]).write_bytes((out / cut.products[0]).read_bytes()[:-2])
    (out / foreign.products[0]).write_bytes((out / whole.products[0]).read_bytes())
    assert product_fault(archive.camera, whole) is None
    assert "missing" in (product_fault(archive.camera, gone) or "")
    assert "cut" in (product_fault(archive.camera, cut) or "")
    assert "of another bracket" in (product_fault(archive.camera, foreign) or "")
    thread = RetentionThread(archive.state, [archive.camera])
    thread.check_products()
    shown = thread.snapshot("roof")["products"]
    assert (shown["checked"], shown["missing"], shown["damaged"]) == (4, 1, 2)
    (logged,) = caplog.records
    assert logged.levelname == "ERROR"
    answer = CliRunner().invoke(main, ["history", "-c", str(archive.config), "--verify"])
    assert answer.exit_code == 1
    for record in (gone, cut, foreign):
        assert record.products[0] in answer.output
    assert whole.products[0] not in answer.output
    assert "3 of 4" in answer.output


def test_products_that_have_a_folder_of_their_own_go_too(archive: Archive) -> None:
    other = archive.folder / "other"
    named = ProductConfig(format="jpg", name="{timestamp:%Y%m%d%H%M%S}_0", output=other)
    record = archive.bracket(40)
    there = archive.folder / "out" / record.products[0]
    moved = other / "2024/05/12" / there.name.replace("_hdr", "_0")
    moved.parent.mkdir(parents=True)
    there.rename(moved)
    archive.change(record, products=(str(moved),))
    outside = archive.write(".", "outside_0.jpg", 40)
    archive.camera = archive.camera.model_copy(update={"products": (named,)})
    assert archive.run("products", max_age=30 * DAY).files == 1
    assert not moved.exists()
    assert list(other.iterdir()) == []
    archive.change(record, products=(str(outside),))
    assert archive.run("products", max_age=30 * DAY).files == 0
    assert outside.exists()
