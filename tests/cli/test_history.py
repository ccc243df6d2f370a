"""What `history` and `status` show: by whose clock, and while the configuration is being edited."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from click.testing import CliRunner, Result

from asi_watch.brackets import Exposure
from asi_watch.cli import main
from asi_watch.live.ledger.ledger import Ledger
from asi_watch.live.ledger.records import BracketRecord

ZONES = {"west": "America/Denver", "east": "Asia/Tokyo", "plain": "UTC"}


class Place:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.state.mkdir()
        self.config = folder / "asi-watch.yaml"
        cameras = "".join(
            f"  {name}: {{watch: in/{name}, output: out/{name}, timezone: {zone}}}\n"
            for name, zone in ZONES.items()
        )
        self.config.write_text(f"state_dir: state\ncameras:\n{cameras}")

    def rows(self, *records: BracketRecord) -> None:
        with Ledger(self.state) as ledger:
            ledger.record_all(records)

    def row(self, camera: str, ago: timedelta, **more: Any) -> None:
        clock = ZoneInfo(ZONES[camera]) if camera in ZONES else UTC
        slot = (datetime.now(clock) - ago).replace(tzinfo=None, microsecond=0)
        one = Exposure("a_80.jpg", slot, 80.0, 1, 2)
        values = {"inputs": (one,), "updated_utc": "2026-06-21T12:00:00.000+00:00", **more}
        self.rows(BracketRecord(camera, slot, values.pop("state", "published"), **values))

    def run(self, *arguments: str) -> Result:
        name, *rest = arguments
        return CliRunner().invoke(main, [name, "-c", str(self.config), *rest])

    def shown(self, *arguments: str) -> list[str]:
        lines = self.run("history", "--json", *arguments).stdout.splitlines()
        return [json.loads(line)["camera"] for line in lines]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_span_counts_back_in_the_clock_of_each_camera(place: Place) -> None:
    for camera in ZONES:
        place.row(camera, timedelta(minutes=30))
        place.row(camera, timedelta(hours=3))
    assert sorted(place.shown("--since", "2h")) == sorted(ZONES)
    assert len(place.shown("--since", "4h")) == 6
    assert place.shown("--since", "4h", "--limit", "1") == ["east"]
    for camera in ZONES:
        assert place.shown("--since", "2h", "--camera", camera) == [camera]
        assert "the latest slot" in place.run("history", "--since", "1min").stdout


@pytest.mark.parametrize("span", ["-3h", "3", "soon", "2026-13-01"])
def test_a_span_that_makes_no_sense_is_refused(place: Place, span: str) -> None:
    answer = place.run("history", "--since", span)
    assert answer.exit_code == 2
    assert span in answer.output


def test_a_camera_that_was_renamed_is_shown_under_its_old_name(place: Place) -> None:
    place.row("wst", timedelta(minutes=1))
    assert place.shown("--camera", "wst") == ["wst"]
    answer = place.run("history", "--camera", "nobody")
    assert answer.exit_code == 2
    assert "wst" in answer.output


def test_attempts_are_those_that_were_made(place: Place) -> None:
    for minute, attempts in enumerate((9, 8, 3, 11)):
        place.row("plain", timedelta(minutes=minute), state="failed", attempts=attempts)
    lines = place.run("history", "--json").stdout.splitlines()
    assert [json.loads(line)["attempts"] for line in lines] == [3, 3, 8, 1]


def test_a_latency_of_hours_is_told_in_hours(place: Place) -> None:
    for minute, latency in enumerate((0.123, 90.0, 150.0, 9000.0, 300_000.0)):
        place.row("plain", timedelta(minutes=minute), latency=latency)
    shown = place.run("history").stdout
    for text in ("0.12 s", "90.00 s", "2.5 min", "2.5 h", "3.5 d"):
        assert text in shown


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("output: out/west", "outptu: out/west", "outptu"),
        ("cameras:\n", "cameras:\n\t", "asi-watch.yaml:3"),
        ("timezone: UTC", "timezone: Mars/Olympus", "Mars"),
        ("state_dir: state", "state_dir:   'state'  # here\nworkers: [", "asi-watch.yaml"),
    ],
)
def test_a_file_that_is_being_edited_keeps_nobody_from_looking(
    place: Place, right: str, wrong: str, told: str
) -> None:
    place.row("plain", timedelta(minutes=1))
    text = place.config.read_text()
    assert right in text
    place.config.write_text(text.replace(right, wrong))
    answer = place.run("history", "--since", "2h", "--camera", "plain")
    assert answer.exit_code == 0
    assert "published" in answer.stdout
    assert told in answer.stderr
    assert "would be refused" in answer.stderr
    status = place.run("status")
    assert status.exit_code == 1
    assert str(place.state) in status.stderr


def test_a_file_that_names_no_usable_folder_is_refused(place: Place) -> None:
    place.config.write_text("state_dir: [a, b]\n")
    assert place.run("history").exit_code == 2
    place.config.unlink()
    assert place.run("status").exit_code == 2
