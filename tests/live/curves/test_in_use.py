"""The curves in use: of each number of channels one, whatever the files are like."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asi_watch.brackets import Exposure
from asi_watch.config import parse_config
from asi_watch.config.model import CameraConfig
from asi_watch.errors import AsiWatchError
from asi_watch.live.curves import in_use
from asi_watch.live.curves.gate import CalibrationVerdict
from asi_watch.live.curves.in_use import CurvesInUse, choose_curves
from asi_watch.live.curves.recalibration import Recalibration
from asi_watch.live.ledger.ledger import Ledger
from asi_watch.live.ledger.records import (
    WAITS_FOR_CURVE,
    WITHOUT_CURVE,
    BracketRecord,
    CurveDecision,
    for_channels,
)
from asi_watch.live.messages import CalibrationDone, Inbox
from asi_watch.response_files import load_curve, response_bytes

NOON = datetime(2026, 6, 21, 12)
STEP = timedelta(seconds=30)
OUT_OF_REACH = PermissionError(13, "Permission denied")


def curve_bytes(slope: float = 1.0, channels: int = 3) -> bytes:
    one = slope * np.linspace(-4, 2, 256, dtype=np.float32)[:, None]
    return response_bytes(np.repeat(one, channels, axis=1))


class Place:
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.file = folder / "roof.npz"
        self.ledger = Ledger(folder)
        self.started: list[tuple[list[datetime], tuple[str, ...]]] = []

        def start(_: Recalibration, brackets: Any, present: tuple[str, ...], manual: bool) -> None:
            self.started.append(([b.slot for b in brackets], present))
            self.manual = manual

        monkeypatch.setattr(Recalibration, "_start", start)

    def camera(self, response: bool = False, **more: str) -> CameraConfig:
        keys = {"products": "[{format: jpg}]", **more}
        if response:
            keys["response"] = str(self.file)
        text = "".join(f", {key}: {value}" for key, value in keys.items())
        text = f"cameras: {{roof: {{watch: {self.folder}/in, output: {self.folder}/out{text}}}}}"
        return parse_config(text.encode(), "x", self.folder).config.cameras["roof"]

    def curves(self, response: bool = False, now: float = 0.0, **more: str) -> CurvesInUse:
        camera = self.camera(response, **more)
        return CurvesInUse(camera, self.ledger, self.folder, Inbox(), now)

    def adopt(self, content: bytes, base_id: str | None = None, **more: Any) -> str:
        curve_id = len(list(self.folder.glob("adopted*")))
        path = self.folder / f"adopted{curve_id}.npz"
        path.write_bytes(content)
        curve = load_curve(path)
        decision = CurveDecision(
            "roof", curve.curve_id, str(path), base_id, "adopted", "better", 0.1, 0.2, 3
        )
        self.ledger.record_curve(replace(decision, **{"channels": curve.channels, **more}))
        return curve.curve_id

    def row(self, number: int, state: Any = "published", **more: Any) -> BracketRecord:
        slot = NOON + number * STEP
        one = Exposure("a_80.jpg", slot, 80.0, 1, 1)
        record = BracketRecord("roof", slot, state, 1, complete=True, inputs=(one,))
        record = replace(record, **more)
        self.ledger.record(record)
        return record

    def ask(self, curves: CurvesInUse, kind: str, **arguments: Any) -> str | None:
        """Ask as a command does; the answer, an error's text where it is refused."""
        number = self.ledger.add_request(kind, "roof", arguments)
        request = next(r for r in self.ledger.take_requests() if r.id == number)
        try:
            return curves.carry_out(request)
        except AsiWatchError as error:
            return f"refused: {error}"

    def to_retry(self) -> list[int]:
        return [(r.slot - NOON) // STEP for r in self.ledger.to_retry("roof", 8)]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    place = Place(tmp_path, monkeypatch)
    yield place
    place.ledger.close()


def ids(curves: CurvesInUse) -> list[str]:
    return [curve.curve_id for curve in curves.curves]


def done(content: bytes, path: Path, **changes: Any) -> CalibrationDone:
    path.write_bytes(content)
    curve = load_curve(path)
    verdict = CalibrationVerdict(
        accepted=True,
        reason="first",
        curve_id=curve.curve_id,
        path=str(path),
        channels=curve.channels,
        residual=0.1,
        present_residual=None,
        brackets=3,
    )
    return CalibrationDone("roof", replace(verdict, **changes), "first")


# -- which curve ------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"\x89PNG\r\n", b"", curve_bytes()[:700]])
def test_a_wrong_file_is_logged_once_and_the_camera_does_without(
    place: Place, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    place.file.write_bytes(content)
    curves = place.curves(response=True)
    for second in range(1, 60, 3):
        assert not curves.tick(float(second), may_calibrate=False)
    assert curves.curves == ()
    assert "roof.npz" in str(curves.snapshot()["curve_fault"])
    assert [r.levelno for r in caplog.records].count(logging.ERROR) == 1
    fault = curves.take_fault()
    assert fault is not None
    assert fault.startswith("response file not used")
    assert curves.take_fault() is None


def test_a_file_that_comes_or_is_mended_is_taken_up(place: Place) -> None:
    curves = place.curves(response=True)
    place.file.write_bytes(curve_bytes()[:700])
    assert not curves.tick(10.0, may_calibrate=False)
    assert curves.take_fault()
    place.file.write_bytes(curve_bytes())
    assert curves.tick(20.0, may_calibrate=False)
    assert ids(curves) == [load_curve(place.file).curve_id]
    assert curves.snapshot()["curve_fault"] is None


@pytest.mark.parametrize("there", ["missing", "wrong"])
def test_without_the_operators_file_the_adopted_curve_is_used(place: Place, there: str) -> None:
    if there == "wrong":
        place.file.write_bytes(b"x")
    adopted = place.adopt(curve_bytes(1.1), base_id="of the file that was there")
    assert ids(place.curves(response=True)) == [adopted]


def test_the_adopted_curve_stays_until_the_operator_puts_another_file_there(place: Place) -> None:
    place.file.write_bytes(curve_bytes())
    operators = load_curve(place.file).curve_id
    adopted = place.adopt(curve_bytes(1.1), base_id=operators)
    assert ids(place.curves(response=True)) == [adopted]
    # Whoever wants no recalibration wants this file, whatever was adopted once.
    assert ids(place.curves(response=True, recalibrate="{every: never}")) == [operators]
    place.file.write_bytes(curve_bytes(1.2))
    assert ids(place.curves(response=True)) == [load_curve(place.file).curve_id]


def test_grey_and_colour_have_a_curve_each(place: Place) -> None:
    place.file.write_bytes(curve_bytes())
    operators = load_curve(place.file).curve_id
    grey = place.adopt(curve_bytes(1.1, channels=1), base_id=operators)
    newer = place.adopt(curve_bytes(1.2, channels=1), base_id=operators)
    curves = place.curves(response=True)
    assert ids(curves) == [operators, newer]
    assert grey != newer


def test_rows_of_an_older_version_do_not_name_the_channels(place: Place) -> None:
    adopted = place.adopt(curve_bytes(1.1), channels=None)
    assert ids(place.curves()) == [adopted]


def test_an_adopted_file_that_was_deleted_is_named(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.adopt(curve_bytes(1.1))
    (place.folder / "adopted0.npz").unlink()
    assert choose_curves(place.camera(), place.ledger).files == {}
    assert "adopted curve not used" in caplog.text


def test_a_folder_out_of_reach_is_not_simply_missing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat, read = Path.stat, Path.read_bytes

    def refusing(path: Path, **options: bool) -> object:
        if path == place.file:
            raise OUT_OF_REACH
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", refusing)
    monkeypatch.setattr(Path, "read_bytes", lambda p: refusing(p) and read(p))
    choice = choose_curves(place.camera(response=True), place.ledger)
    assert not choice.missing
    assert choice.fault


def test_a_share_that_does_not_answer_holds_up_nobody_for_long(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.file.write_bytes(curve_bytes())
    monkeypatch.setattr(in_use, "_PATIENCE", 0.05)
    back = threading.Event()

    def hang(load: Callable[[Path], Any]) -> Callable[[Path], Any]:
        return lambda path: (back.wait(30), load(path))[1]

    monkeypatch.setattr(in_use, "load_curve", hang(load_curve))
    choice = choose_curves(place.camera(response=True), place.ledger)
    back.set()
    assert "does not answer" in str(choice.fault)


# -- what an operator decides --------------------------------------------------------------------


def written(path: Path, seconds: float) -> None:
    """Set a file's time, so many seconds from now."""
    os.utime(path, (time.time() + seconds, time.time() + seconds))


@pytest.mark.parametrize(
    ("pin", "adopt", "every", "operators", "used"),
    [
        # pinned > the operator's file when newer or never > adopted > the operator's file
        (True, True, "24h", "newer", "pinned"),
        (True, True, "never", "older", "pinned"),
        (True, False, "24h", "none", "pinned"),
        (False, True, "24h", "newer", "operators"),
        (False, True, "24h", "another", "operators"),
        (False, True, "never", "older", "operators"),
        (False, True, "24h", "of the future", "adopted"),
        (False, True, "24h", "older", "adopted"),
        (False, True, "never", "none", "adopted"),
        (False, False, "24h", "older", "operators"),
    ],
)
def test_the_first_of_pinned_newer_adopted_and_operators_is_used(
    place: Place, pin: bool, adopt: bool, every: str, operators: str, used: str
) -> None:
    ids_of = {}
    if operators != "none":
        place.file.write_bytes(curve_bytes())
        ids_of["operators"] = load_curve(place.file).curve_id
        seconds = {"newer": -60.0, "of the future": 3600.0}.get(operators, -7200.0)
        written(place.file, seconds)
    if adopt:
        base_id = None if operators == "another" else ids_of.get("operators")
        an_hour_ago = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
        ids_of["adopted"] = place.adopt(curve_bytes(1.1), base_id, decided_utc=an_hour_ago)
    more = {"response": operators != "none", "recalibrate": f"{{every: {every}}}"}
    if pin:
        path = place.folder / "mine.npz"
        path.write_bytes(curve_bytes(1.3))
        ids_of["pinned"] = load_curve(path).curve_id
        assert "is pinned" in (place.ask(place.curves(**more), "pin", curve=str(path)) or "")
        path.unlink()
    curves = place.curves(**more)
    assert ids(curves) == [ids_of[used]]
    (shown,) = curves.snapshot()["curves"]
    assert shown["why"].startswith({"operators": "the response file"}.get(used, used))


def test_a_pin_holds_over_what_is_adopted_until_it_is_let_go(place: Place) -> None:
    first = place.adopt(curve_bytes(1.1))
    curves = place.curves()
    assert "pinned" in (place.ask(curves, "pin", curve=first[:6]) or "")
    assert not curves.calibration_done(done(curve_bytes(1.2), place.folder / "c.npz"))
    assert ids(curves) == ids(place.curves()) == [first]
    assert "no adopted curve is in use" in (place.ask(curves, "rollback") or "")
    second = load_curve(place.folder / "c.npz").curve_id
    assert second in (place.ask(curves, "unpin") or "")
    assert ids(curves) == ids(place.curves()) == [second]
    assert (place.ask(curves, "unpin") or "").startswith("refused: no curve")
    for wrong in ("", "zz", str(place.folder / "gone.npz")):
        assert (place.ask(curves, "pin", curve=wrong) or "").startswith("refused: ")


def test_a_rollback_goes_back_curve_by_curve_to_the_operators_file(place: Place) -> None:
    place.file.write_bytes(curve_bytes())
    written(place.file, -7200)
    operators = load_curve(place.file).curve_id
    first, second = (place.adopt(curve_bytes(slope), operators) for slope in (1.1, 1.2))
    curves = place.curves(response=True)
    assert ids(curves) == [second]
    for expected in (first, operators):
        assert expected in (place.ask(curves, "rollback") or "")
        assert ids(curves) == ids(place.curves(response=True)) == [expected]
    assert "no adopted curve" in (place.ask(curves, "rollback") or "")
    # What was withdrawn may be adopted again.
    place.adopt(curve_bytes(1.1), operators)
    assert ids(place.curves(response=True)) == [first]


def test_a_file_that_is_replaced_is_used_at_once_and_a_broken_one_changes_nothing(
    place: Place,
) -> None:
    place.file.write_bytes(curve_bytes())
    written(place.file, -7200)
    curves = place.curves(response=True)
    operators = ids(curves)
    place.file.write_bytes(b"half")
    assert not curves.tick(100.0, may_calibrate=False)
    assert (ids(curves), curves.take_fault() is None) == (operators, False)
    place.file.write_bytes(curve_bytes(1.4))
    assert curves.tick(200.0, may_calibrate=False)
    assert ids(curves) == [load_curve(place.file).curve_id] != operators


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_calibration_that_is_asked_for_is_answered_when_it_is_done(
    place: Place, dry_run: bool
) -> None:
    curves = place.curves(recalibrate="{every: never}")
    assert "no complete brackets" in (place.ask(curves, "calibrate") or "")
    place.row(0)
    assert place.ask(curves, "calibrate", dry_run=dry_run) is None
    number = place.ledger.take_requests()[-1].id
    assert place.ledger.answer_to(number) == ("calibrating from 1 bracket", None)
    assert "under way" in (place.ask(curves, "calibrate") or "")
    curves.tick(1.0, may_calibrate=True)
    assert place.started
    assert place.manual
    changed = curves.calibration_done(done(curve_bytes(1.1), place.folder / "c.npz"))
    text, ok = place.ledger.answer_to(number)
    assert (changed, ok) == (not dry_run, True)
    assert ("would be adopted" if dry_run else "in use from now on") in text
    assert len(place.ledger.curves("roof")) == (not dry_run)


# -- brackets that no curve fits --------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "waits"),
    [
        ({}, False),
        ({"without_response": "wait"}, True),
        ({"products": "[{format: exr}]"}, True),
        ({"products": "[{format: exr}, {format: jpg}]"}, False),
        ({"merge": "{algorithm: mertens}", "without_response": "wait"}, False),
    ],
)
def test_without_any_curve_brackets_wait_where_nothing_else_can_be_made(
    place: Place, more: dict[str, str], waits: bool, caplog: pytest.LogCaptureFixture
) -> None:
    curves = place.curves(**more)
    assert [curves.must_wait for _ in range(3)] == [waits] * 3
    assert caplog.text.count("no response curve yet") == ("merge" not in more)


def test_what_waits_for_a_curve_is_taken_up_when_one_comes_and_not_before(place: Place) -> None:
    place.row(0, "failed", attempts=1, reason=WAITS_FOR_CURVE)
    place.row(1, "failed", attempts=1, reason=f"{WAITS_FOR_CURVE}{for_channels(3)}: none")
    place.row(2, "failed", attempts=1, reason="sizes differ")
    place.row(3, reason=WITHOUT_CURVE)
    place.row(4)
    curves = place.curves(products="[{format: exr}]")
    assert place.to_retry() == [2]
    assert curves.calibration_done(done(curve_bytes(), place.folder / "c.npz"))
    assert curves.take_fault() is None
    assert place.to_retry() == [0, 1, 2, 3]
    # Pictures that were published without a curve stay, where no radiance is wanted.
    place.row(3, reason=WITHOUT_CURVE)
    curves = place.curves()
    assert 3 not in place.to_retry()


def test_what_no_curve_in_use_fits_is_not_merged_again(place: Place) -> None:
    """Grey pictures by night beside a colour curve: at every start they would only fall back."""
    colour, grey = for_channels(3), for_channels(1)
    for number, channels in enumerate((grey, colour, "")):
        place.row(number, reason=f"{WITHOUT_CURVE}{channels}; darker than it should be")
        reason = f"{WAITS_FOR_CURVE}{channels}: the response curve has 3"
        place.row(number + 3, "failed", attempts=1, reason=reason)
    place.adopt(curve_bytes())
    curves = place.curves(products="[{format: exr}]")
    assert place.to_retry() == [1, 2, 4, 5]
    assert curves.calibration_done(done(curve_bytes(1, 1), place.folder / "grey.npz"))
    assert place.to_retry() == [0, 1, 2, 3, 4, 5]


def test_a_first_calibration_uses_the_brackets_that_no_curve_fits(place: Place) -> None:
    for number in range(5):
        place.row(number)
    colour = place.adopt(curve_bytes())
    curves = place.curves(recalibrate="{brackets: 3}")
    assert ids(curves) == [colour]
    curves.tick(1.0, may_calibrate=True)
    assert place.started == []
    for number in range(5, 8):
        record = place.row(number, reason=WITHOUT_CURVE)
        curves.bracket_over(record)
    curves.tick(2.0, may_calibrate=False)
    assert place.started == []
    curves.tick(3.0, may_calibrate=True)
    slots, present = place.started[0]
    assert slots == [NOON + n * STEP for n in (7, 6, 5)]
    assert present == {3: (str(place.folder / "adopted0.npz"), False)}
    assert curves.calibration_done(done(curve_bytes(1, 1), place.folder / "grey.npz"))
    assert [c.channels for c in curves.curves] == [3, 1]
    assert place.ledger.curves("roof")[-1].channels == 1
    # Also after a restart.
    assert [c.channels for c in place.curves().curves] == [3, 1]


def test_a_curve_whose_adoption_cannot_be_written_is_not_used(place: Place) -> None:
    curves = place.curves()
    place.ledger._db.execute("PRAGMA query_only = ON")
    changed = curves.calibration_done(done(curve_bytes(), place.folder / "c.npz"))
    place.ledger._db.execute("PRAGMA query_only = OFF")
    assert (changed, curves.curves) == (False, ())
    assert "calibration failed" in (curves.take_fault() or "")
    assert place.ledger.curves("roof") == []


def test_a_rejected_or_failed_calibration_changes_nothing(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    adopted = place.adopt(curve_bytes())
    curves = place.curves()
    rejected = done(curve_bytes(1.5), place.folder / "c.npz", accepted=False)
    assert not curves.calibration_done(rejected)
    assert curves.take_fault() is None
    for _ in range(3):
        assert not curves.calibration_done(CalibrationDone("roof", None, "too dark"))
        assert curves.take_fault() == "calibration failed: too dark"
    assert caplog.text.count("calibration failed") == 1
    assert ids(curves) == [adopted]
    assert [d.verdict for d in place.ledger.curves("roof")] == ["adopted", "rejected"]
