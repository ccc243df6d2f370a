"""The curve in use: files that are missing, wrong or out of reach, at start and on a reload."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from asi_watch.brackets import Exposure
from asi_watch.config import parse_config
from asi_watch.config.model import CameraConfig
from asi_watch.live.curves import curves
from asi_watch.live.curves.curve_keeper import CurveKeeper
from asi_watch.live.ledger.ledger import CurveDecision, Ledger
from asi_watch.live.messages import CalibrationDone, Inbox, MergeBracket
from asi_watch.live.records import WITHOUT_CURVE, BracketRecord
from asi_watch.response_files import load_curve, response_bytes

NOON = datetime(2026, 6, 21, 12)
OUT_OF_REACH = PermissionError(13, "Permission denied")


def curve_bytes(slope: float = 1.0, channels: int = 3) -> bytes:
    one = slope * np.linspace(-4, 2, 256, dtype=np.float32)[:, None]
    return response_bytes(np.repeat(one, channels, axis=1))


class Place:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "roof.npz"
        self.ledger = Ledger(folder)
        self.used: list[str] = []

    def settings(self, response: Path | None, products: str = "[jpg]") -> CameraConfig:
        formats = ", ".join(f"{{format: {p.strip()}}}" for p in products.strip("[]").split(","))
        text = (
            f"cameras: {{roof: {{watch: {self.folder}/in, output: {self.folder}/out,"
            f" products: [{formats}]{f', response: {response}' if response else ''}}}}}"
        )
        config = parse_config(text.encode(), "x", self.folder).config
        return config.cameras["roof"]

    def keeper(self, response: Path | None = None, products: str = "[jpg]") -> CurveKeeper:
        keeper = CurveKeeper(
            self.settings(response, products),
            self.ledger,
            Inbox(),
            self.folder,
            lambda curve, waited: self.used.append(curve.curve_id),
            0.0,
        )
        keeper.start()
        return keeper

    def published(self, number: int = 0, **more: object) -> BracketRecord:
        slot = NOON + number * timedelta(seconds=30)
        record = BracketRecord(
            "roof",
            slot,
            "published",
            revision=1,
            complete=True,
            inputs=(Exposure("a_80.jpg", slot, 80.0, 1, 1),),
        )
        record = replace(record, **more)  # type: ignore[arg-type]
        self.ledger.record(record)
        return record


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.ledger.close()


@pytest.fixture
def out_of_reach(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Make a folder one that may not be entered, also for root."""

    def forbid(folder: Path) -> None:
        stat, read = Path.stat, Path.read_bytes

        def refusing(path: Path, **options: bool) -> object:
            if folder in path.parents:
                raise OUT_OF_REACH
            return stat(path, **options)

        monkeypatch.setattr(Path, "stat", refusing)
        monkeypatch.setattr(Path, "read_bytes", lambda p: refusing(p) and read(p))

    return forbid


def wrong_files() -> dict[str, bytes]:
    return {"picture": b"\x89PNG\r\n", "empty": b"", "half": curve_bytes()[:700]}


@pytest.mark.parametrize("content", wrong_files().values(), ids=wrong_files())
def test_a_wrong_file_at_start_is_told_once_and_the_camera_does_without(
    place: Place, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    place.file.write_bytes(content)
    keeper = place.keeper(place.file)
    for second in range(1, 60, 3):
        keeper.tick(float(second), may_calibrate=False)
    assert keeper.snapshot()["curve"] is None
    assert "roof.npz" in str(keeper.snapshot()["curve_fault"])
    assert [r.levelno for r in caplog.records].count(logging.ERROR) == 1
    assert "pickle" not in caplog.text
    fault = keeper.take_fault()
    assert fault is not None and fault.startswith("response file not used")
    assert keeper.take_fault() is None


def test_a_wrong_file_that_is_mended_is_taken(place: Place) -> None:
    place.file.write_bytes(b"GIF89a")
    keeper = place.keeper(place.file)
    place.file.write_bytes(curve_bytes())
    keeper.tick(10.0, may_calibrate=False)
    assert place.used == [load_curve(place.file).curve_id]
    assert keeper.snapshot()["curve_fault"] is None


def test_a_folder_that_may_not_be_entered_costs_the_curve_not_the_daemon(
    place: Place, out_of_reach: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = place.folder / "curves" / "roof.npz"
    file.parent.mkdir()
    file.write_bytes(curve_bytes())
    out_of_reach(file.parent)
    keeper = place.keeper(file)
    keeper.tick(10.0, may_calibrate=False)
    assert keeper.snapshot()["curve"] is None
    assert "Permission denied" in str(keeper.snapshot()["curve_fault"])
    monkeypatch.undo()
    keeper.tick(20.0, may_calibrate=False)
    assert keeper.snapshot()["curve"] is not None


@pytest.mark.parametrize("how", ["missing", "wrong", "out of reach"])
def test_a_reload_keeps_the_curve_that_the_file_named_now_cannot_replace(
    place: Place, how: str, out_of_reach: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    place.file.write_bytes(curve_bytes())
    earlier = place.keeper(place.file)
    other = place.folder / "other" / "roof.npz"
    other.parent.mkdir()
    if how != "missing":
        other.write_bytes(b"wrong")
    if how == "out of reach":
        out_of_reach(other.parent)
    keeper = place.keeper(other)
    keeper.inherit(earlier)
    assert keeper.snapshot()["curve"] == earlier.snapshot()["curve"]
    assert "the earlier curve stays in use" in caplog.text


def test_after_such_a_reload_the_file_is_taken_once_it_is_right(place: Place) -> None:
    place.file.write_bytes(curve_bytes())
    earlier = place.keeper(place.file)
    other = place.folder / "other.npz"
    keeper = place.keeper(other)
    keeper.inherit(earlier)
    other.write_bytes(curve_bytes(slope=2.0))
    keeper.tick(10.0, may_calibrate=False)
    assert keeper.snapshot()["curve"] == load_curve(other).curve_id


def test_a_reload_that_names_no_file_any_more_lets_the_earlier_one_go(place: Place) -> None:
    place.file.write_bytes(curve_bytes())
    earlier = place.keeper(place.file)
    keeper = place.keeper(None)
    keeper.inherit(earlier)
    assert keeper.snapshot()["curve"] is None


def test_a_curve_for_other_images_does_not_replace_one_that_has_merged(place: Place) -> None:
    place.file.write_bytes(curve_bytes())
    grey = place.folder / "grey.npz"
    grey.write_bytes(curve_bytes(channels=1))
    earlier = place.keeper(place.file)
    keeper = place.keeper(grey)
    keeper.inherit(earlier)
    assert keeper.snapshot()["curve"] == load_curve(grey).curve_id, "nothing is known of images"
    place.published(curve_id=load_curve(place.file).curve_id)
    keeper = place.keeper(grey)
    keeper.inherit(earlier)
    assert keeper.snapshot()["curve"] == load_curve(place.file).curve_id
    assert "has 1 channels, the camera's images 3" in str(keeper.snapshot()["curve_fault"])


def test_while_the_operators_file_cannot_be_used_the_curve_adopted_last_is(place: Place) -> None:
    adopted = place.folder / "adopted.npz"
    adopted.write_bytes(curve_bytes(slope=3.0))
    place.ledger.record_curve(
        CurveDecision("roof", "aa", str(adopted), "base", "adopted", "", None, None, 3)
    )
    place.file.write_bytes(b"wrong")
    keeper = place.keeper(place.file)
    assert keeper.snapshot()["curve"] == load_curve(adopted).curve_id
    place.file.write_bytes(curve_bytes())
    keeper.tick(10.0, may_calibrate=False)
    assert keeper.snapshot()["curve"] == load_curve(place.file).curve_id


def asked(place: Place) -> list[datetime]:
    return [record.slot for record in place.ledger.to_retry("roof", 8)]


def test_with_the_first_curve_makeshifts_are_merged_again(place: Place) -> None:
    makeshift = place.published(1, reason=WITHOUT_CURVE, algorithm="mertens")
    place.published(2, algorithm="mertens")
    keeper = place.keeper(place.file, "[jpg, exr]")
    assert asked(place) == []
    place.file.write_bytes(curve_bytes())
    keeper.tick(10.0, may_calibrate=False)
    assert asked(place) == [makeshift.slot]
    # One that was being merged when the curve came.
    keeper.bracket_over(place.published(3, reason=WITHOUT_CURVE, algorithm="mertens"))
    assert len(asked(place)) == 2


def test_pictures_alone_are_not_made_twice(place: Place) -> None:
    place.published(1, reason=WITHOUT_CURVE, algorithm="mertens")
    keeper = place.keeper(place.file, "[jpg]")
    place.file.write_bytes(curve_bytes())
    keeper.tick(10.0, may_calibrate=False)
    assert keeper.snapshot()["curve"] is not None
    assert asked(place) == []


def test_without_a_curve_a_bracket_is_held_only_if_that_is_wanted(place: Place) -> None:
    command = MergeBracket(NOON, (), (), 5, True, 1, (), 0.0)
    assert not place.keeper(None, "[jpg, exr]").hold(command)
    assert place.keeper(None, "[exr]").hold(command)


def test_a_share_that_is_dead_costs_the_curve_and_little_time(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.file.write_bytes(curve_bytes())
    server_is_back = threading.Event()
    looks: list[Path] = []

    def hanging(path: Path, **_: bool) -> object:
        looks.append(path)
        server_is_back.wait(60)
        raise OSError(116, "Stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr(curves, "_PATIENCE", 0.05)
        patch.setattr(Path, "stat", hanging)
        keeper = place.keeper(place.file)
        for second in range(10, 500, 10):
            keeper.tick(float(second), may_calibrate=False)
        assert "does not answer" in str(keeper.snapshot()["curve_fault"])
        assert len(looks) <= 3
        server_is_back.set()
    keeper.tick(1000.0, may_calibrate=False)
    assert keeper.snapshot()["curve"] is not None


def test_a_calibration_that_fails_for_one_reason_all_night_is_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = Place(tmp_path).keeper()
    for reason in ("too dark", "too dark", "too dark", "no memory", "too dark"):
        told = keeper.calibration_done(CalibrationDone("roof", None, reason))
        assert told == f"calibration failed: {reason}"
    errors = [r for r in caplog.records if r.levelname == "ERROR"]
    assert [r.getMessage() for r in errors] == ["calibration failed"] * 3
