"""Retention over real folders and a real ledger, with a clock of our own."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from asi_watch.brackets import Exposure
from asi_watch.cli import main
from asi_watch.cli._settings import camera_settings
from asi_watch.config import load_config
from asi_watch.live.janitor import ClockTrust, Janitor
from asi_watch.live.ledger import Ledger
from asi_watch.live.records import BracketRecord, RejectedFile
from asi_watch.live.retention import Kind, Outcome, Retention
from asi_watch.live.settings import CameraSettings, RetentionLimits, RetentionRules

DAY = 86_400.0
NOW = datetime(2024, 6, 21, 12, tzinfo=UTC).timestamp()
SIZE = 1000
PER_BRACKET = 2


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
        self.camera = camera_settings("roof", load_config(self.config).cameras["roof"])
        self.ledger = Ledger(self.state)

    def write(self, root: str, path: str, age_days: float) -> Path:
        target = self.folder / root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"x" * SIZE)
        os.utime(target, (NOW - age_days * DAY, NOW - age_days * DAY))
        return target

    def bracket(self, age_days: float, state: str = "published") -> BracketRecord:
        slot = datetime.fromtimestamp(NOW - age_days * DAY, UTC).replace(tzinfo=None)
        folder = f"{slot:%Y/%m/%d}"
        inputs = []
        for n in range(PER_BRACKET):
            path = f"{folder}/{slot:%Y%m%d%H%M%S}_{80 * (n + 1)}.jpg"
            status = self.write("in", path, age_days).stat()
            inputs.append(Exposure(path, slot, 80.0 * (n + 1), SIZE, status.st_mtime_ns))
        product = f"{folder}/{slot:%Y%m%d%H%M%S}_hdr.jpg"
        if state == "published":
            self.write("out", product, age_days)
        record = BracketRecord(
            "roof",
            slot,
            "published" if state == "published" else "skipped" if state == "skipped" else "failed",
            inputs=tuple(inputs),
            products=(product,) if state == "published" else (),
            updated_utc=datetime.fromtimestamp(NOW - age_days * DAY, UTC).isoformat(),
        )
        self.ledger.record_all([record])
        return record

    def settings(self, kind: Kind, **limits: float) -> CameraSettings:
        rules = RetentionRules(**{kind: RetentionLimits(**limits)}, dry_run=False)  # type: ignore[arg-type]
        return replace(self.camera, retention=rules)

    def run(
        self,
        kind: Kind = "exposures",
        *,
        apply: bool = True,
        trust_clock: bool = True,
        most: int | None = None,
        free: Callable[[Path], int] = lambda _: 10**12,
        **limits: float,
    ) -> Outcome:
        retention = Retention(self.settings(kind, **limits), kind, free)
        return retention.run(self.ledger, NOW, apply=apply, trust_clock=trust_clock, most=most)

    def files(self, root: str = "in") -> list[str]:
        return sorted(p.name for p in (self.folder / root).rglob("*.jpg"))


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


def test_the_oldest_go_first_until_the_rest_is_small_enough(archive: Archive) -> None:
    records = [archive.bracket(age) for age in (9, 8, 7, 6)]
    archive.run(max_size=2 * PER_BRACKET * SIZE)
    assert archive.files() == sorted(Path(e.path).name for r in records[2:] for e in r.inputs)


def test_space_is_made_until_enough_is_free(archive: Archive) -> None:
    for age in (9, 8, 7, 6):
        archive.bracket(age)
    outcome = archive.run("products", keep_free=5000, free=lambda _: 3500)
    assert outcome.files == 2
    assert len(archive.files("out")) == 2
    assert len(archive.files("in")) == 4 * PER_BRACKET


def test_nothing_goes_of_a_bracket_that_is_not_over_for_good(archive: Archive) -> None:
    archive.bracket(50, "failed")
    archive.bracket(45, "skipped")
    archive.write("in", "2024/05/01/20240501120000_80.jpg", 51)  # not in the ledger
    archive.write("in", "holiday.jpg", 400)
    outcome = archive.run(max_age=30 * DAY, max_size=0)
    assert outcome.files == PER_BRACKET
    assert len(archive.files()) == PER_BRACKET + 2


def test_nothing_of_the_last_hour_goes_whatever_the_limits(archive: Archive) -> None:
    archive.bracket(0.02)
    assert archive.run(max_size=1, keep_free=10**15, max_age=3600).files == 0


def test_a_file_that_is_not_what_was_recorded_stays(archive: Archive) -> None:
    record = archive.bracket(40)
    changed = archive.folder / "in" / record.inputs[0].path
    changed.write_bytes(b"another exposure")
    os.utime(changed, (NOW - 39 * DAY, NOW - 39 * DAY))
    archive.run(max_age=30 * DAY)
    assert archive.files() == [changed.name]


def test_rejected_files_of_a_finished_bracket_go_too(archive: Archive) -> None:
    record = archive.bracket(40)
    path = archive.write("in", "2024/05/12/20240512120009_80.jpg", 40)
    rejected = RejectedFile("2024/05/12/" + path.name, SIZE, path.stat().st_mtime_ns, "superseded")
    archive.ledger.record_all([replace(record, rejected=(rejected,))])
    archive.run(max_age=30 * DAY)
    assert archive.files() == []


@pytest.mark.parametrize("path", ["../outside.jpg", "/etc/outside.jpg", "link/outside.jpg"])
def test_no_path_leads_out_of_the_watch_folder(archive: Archive, path: str) -> None:
    record = archive.bracket(40)
    outside = archive.write(".", "outside.jpg", 40)
    (archive.folder / "in" / "link").symlink_to(archive.folder)
    stamp = outside.stat().st_mtime_ns
    evil = Exposure(path, record.slot, 80.0, SIZE, stamp)
    archive.ledger.record_all([replace(record, inputs=(evil,))])
    assert archive.run(max_age=30 * DAY).files == 0
    assert outside.exists()


def test_a_link_in_the_place_of_an_exposure_stays_and_so_does_its_target(
    archive: Archive,
) -> None:
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
    archive.ledger.record_all([replace(record, products=("thesis_hdr.jpg",))])
    assert archive.run("products", max_age=30 * DAY).files == 0
    assert precious.exists()


def test_without_limits_nothing_goes(archive: Archive) -> None:
    archive.bracket(4000)
    assert archive.run().files == 0


def test_a_run_is_bounded_and_the_next_goes_on(archive: Archive) -> None:
    for age in range(40, 50):
        archive.bracket(age)
    retention = Retention(archive.settings("exposures", max_age=30 * DAY), "exposures")
    first = retention.run(archive.ledger, NOW, apply=True, most=3)
    assert (first.files, first.more) == (3, True)
    second = retention.run(archive.ledger, NOW, apply=True)
    assert (second.files, second.more) == (10 * PER_BRACKET - 3, False)
    assert retention.run(archive.ledger, NOW, apply=True).files == 0


def test_rows_done_with_are_not_looked_at_again(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    for age in range(40, 50):
        archive.bracket(age)
    retention = Retention(archive.settings("exposures", max_age=30 * DAY), "exposures")
    retention.run(archive.ledger, NOW, apply=True)
    monkeypatch.setattr(retention, "_status", lambda path: pytest.fail(f"{path} looked at"))
    retention.run(archive.ledger, NOW, apply=True)


def test_by_a_clock_that_jumped_nothing_goes_by_its_age(archive: Archive) -> None:
    archive.bracket(40)
    assert archive.run(max_age=30 * DAY, trust_clock=False).files == 0
    assert archive.run(max_size=1, trust_clock=False).files == PER_BRACKET


def test_a_clock_is_trusted_again_after_a_day_without_jumps() -> None:
    wall, mono = [NOW], [0.0]
    trust = ClockTrust(lambda: wall[0], lambda: mono[0])
    assert trust.trusted()
    wall[0], mono[0] = wall[0] + 7200, mono[0] + 7200
    assert trust.trusted()
    wall[0] += 10 * 365 * DAY
    assert not trust.trusted()
    wall[0], mono[0] = wall[0] + DAY / 2, mono[0] + DAY / 2
    assert not trust.trusted()
    wall[0], mono[0] = wall[0] + DAY, mono[0] + DAY
    assert trust.trusted()


def test_the_janitor_deletes_only_when_told_to(archive: Archive) -> None:
    archive.bracket(40)
    settings = archive.settings("exposures", max_age=3600)
    assert time.time() > NOW - 39 * DAY
    dry = Janitor(
        archive.state, [replace(settings, retention=replace(settings.retention, dry_run=True))]
    )
    assert not dry.run_once()
    assert len(archive.files()) == PER_BRACKET
    janitor = Janitor(archive.state, [settings])
    janitor.run_once()
    assert archive.files() == []
    assert janitor.deleted("roof").files == PER_BRACKET
    janitor.stop()


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
    assert f"exposures      {PER_BRACKET}" in answer.output
    assert len(archive.files()) == PER_BRACKET
    CliRunner().invoke(main, ["retention", "-c", str(archive.config), "--apply"])
    assert archive.files() == []


def test_a_slot_at_the_edge_of_its_age_stays(archive: Archive) -> None:
    archive.bracket(29)
    assert archive.run(max_age=timedelta(days=30).total_seconds()).files == 0
