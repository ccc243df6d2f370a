"""`retry`, `history` and `status`, with names that are meant to harm; no daemon runs."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from asi_watch.brackets import Exposure
from asi_watch.cli import main
from asi_watch.cli.status_command import _show, notes_of, troubles_of
from asi_watch.live.ledger.ledger import Ledger
from asi_watch.live.ledger.records import (
    WITHOUT_CURVE,
    BracketRecord,
    RecordState,
    RejectedFile,
    Request,
)
from asi_watch.live.state_folder import StatusFile

NOON = datetime(2026, 6, 21, 12)
HOSTILE = "a\x1b[2J\u202e\udcff\n2026 fine"


class Place:
    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.state.mkdir()
        self.config = folder / "asi-watch.yaml"
        self.config.write_text(
            f"state_dir: {self.state}\ncameras:\n"
            f"  roof: {{watch: {folder}/in, output: {folder}/out}}\n"
            f"  lab: {{watch: {folder}/in2, output: {folder}/out2}}\n"
        )

    def row(self, minute: int, state: RecordState, camera: str = "roof", **more: object) -> None:
        slot = NOON.replace(minute=minute)
        one = Exposure(f"{HOSTILE}/x_80.jpg", slot, 80.0, 1, 2)
        record = BracketRecord(
            camera,
            slot,
            state,
            attempts=8 if state == "failed" else 0,
            inputs=(one,),
            reason=None if state == "published" else f"{HOSTILE} is damaged",
            updated_utc=datetime.now(UTC).isoformat(),
        )
        with Ledger(self.state) as ledger:
            ledger.record_all([record])

    def run(self, *arguments: str) -> Result:
        name, *rest = arguments
        return CliRunner().invoke(main, [name, "-c", str(self.config), *rest])

    def requests(self) -> list[Request]:
        """Return what was asked since the last call, as the daemon reads it."""
        with Ledger(self.state) as ledger:
            found = ledger.take_requests()
            for request in found:
                ledger.answer_request(request.id, "done", ok=True)
        return found


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    for minute, state in ((0, "published"), (1, "failed"), (2, "skipped"), (3, "failed")):
        place.row(minute, state)  # type: ignore[arg-type]
    place.row(1, "failed", "lab")
    return place


def test_a_request_says_which_by_time_by_state_and_by_camera(place: Place) -> None:
    answer = place.run("retry", "--slot", "2026-06-21T12:03", "--camera", "roof")
    assert answer.exit_code == 0
    assert "tried again when it starts" in answer.output
    (request,) = place.requests()
    assert (request.kind, request.camera) == ("retry", "roof")
    nothing = {"failed": False, "skipped": False, "published": False, "since": None, "until": None}
    assert request.arguments == {**nothing, "slots": ["2026-06-21T12:03:00"]}
    answer = place.run("retry", "--skipped", "--all-failed", "--until", "2026-06-21T12:02:01")
    assert answer.exit_code == 0
    (request,) = place.requests()
    assert request.camera is None
    states = {"failed": True, "skipped": True, "until": "2026-06-21T12:02:01"}
    assert request.arguments == {**nothing, **states, "slots": []}


def test_a_slot_that_is_not_there_is_an_error_that_says_why(place: Place) -> None:
    answer = place.run("retry", "--slot", "2026-06-21T12:01", "--slot", "2026-06-21T12:00:30")
    assert answer.exit_code == 1
    assert len(place.requests()) == 1
    assert "2026-06-21 12:00:30: no such bracket in the ledger" in answer.output
    answer = place.run("retry", "--slot", "2026-06-21T12:00")
    assert answer.exit_code == 1
    assert "published by roof, and left alone" in answer.output


def test_published_brackets_are_merged_again_only_when_that_is_said(place: Place) -> None:
    answer = place.run("retry", "--published", "--slot", "2026-06-21T12:00")
    assert answer.exit_code == 0
    (request,) = place.requests()
    assert request.arguments["published"]
    answer = place.run("retry", "--published")
    assert (answer.exit_code, "--since" in answer.output) == (2, True)


@pytest.mark.parametrize(("ok", "code"), [(True, 0), (False, 1)])
def test_the_answer_of_the_daemon_is_shown(place: Place, ok: bool, code: int) -> None:
    StatusFile(place.state).write({"at_utc": "now"})

    def answer() -> None:
        with Ledger(place.state, beside_daemon=True) as ledger:
            while not (requests := ledger.take_requests()):
                time.sleep(0.01)
            ledger.answer_request(requests[0].id, f"2 brackets {HOSTILE}", ok=ok)

    daemon = threading.Thread(target=answer)
    daemon.start()
    result = place.run("retry", "--all-failed")
    daemon.join()
    assert result.exit_code == code
    assert "2 brackets" in result.output
    assert all(line.isprintable() for line in result.output.splitlines())


def test_history_says_what_a_product_lacks_and_where_the_latest_slot_is(place: Place) -> None:
    one = Exposure("x_80.jpg", NOON, 80.0, 1, 2)
    cut = RejectedFile("y/x_160.jpg", 1, 1, "ends before its end mark")
    short = BracketRecord(
        "roof",
        NOON.replace(minute=40),
        "published",
        inputs=(one,),
        expected=2,
        rejected=(cut,),
        products=("p/a_hdr.jpg",),
        updated_utc=datetime.now(UTC).isoformat(),
    )
    made = replace(
        short, slot=NOON.replace(minute=41), complete=True, expected=1, reason=WITHOUT_CURVE
    )
    gap = replace(short, slot=NOON.replace(minute=42), rejected=())
    revision = replace(
        short, slot=NOON.replace(minute=43), state="failed", revision=2, reason="sizes differ"
    )
    with Ledger(place.state) as ledger:
        ledger.record_all([short, replace(made, rejected=()), gap, revision])
    answer = place.run("history", "--since", "2026-06-21T12:40")
    lines = [line.rstrip() for line in answer.output.splitlines()[1:]]
    assert lines[0].endswith("a_hdr.jpg; without x_160.jpg: ends before its end mark")
    assert lines[1].endswith(f"a_hdr.jpg; {WITHOUT_CURVE}")
    assert lines[2].endswith("a_hdr.jpg; 1 never came")
    assert lines[3].endswith("sizes differ; a_hdr.jpg stands, made before")
    answer = place.run("history", "--since", "2h")
    assert "the latest slot is 2026-06-21 12:43:00" in answer.output


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--slot", "soon"),
        ("--slot", "2026-06-21T12:01Z"),
        ("--slot", "2026-06-21T12:01+02:00"),
        ("--all-failed", "--camera", "yard"),
    ],
)
def test_what_makes_no_sense_is_refused(place: Place, arguments: tuple[str, ...]) -> None:
    answer = place.run("retry", *arguments)
    assert answer.exit_code != 0
    assert "Traceback" not in answer.output
    assert place.requests() == []


def test_history_moves_no_cursor_and_forges_no_row(place: Place) -> None:
    for arguments in ((), ("--json",)):
        answer = place.run("history", *arguments)
        assert answer.exit_code == 0
        lines = answer.output.splitlines()
        assert len(lines) == (5 if arguments else 6)
        assert all(line.isprintable() for line in lines)


def test_a_slot_that_is_no_time_is_refused_with_an_example(place: Place) -> None:
    answer = place.run("retry", "--slot", "noon")
    assert answer.exit_code == 2
    assert "'noon' does not match the formats" in " ".join(answer.output.split())


def test_a_missing_or_damaged_ledger_is_an_error_like_others(place: Place) -> None:
    ledger = place.state / "ledger.sqlite3"
    for damage in (b"this is no database, but it is long enough" * 100, None):
        for beside in place.state.glob("ledger*"):
            beside.unlink()
        if damage is not None:
            ledger.write_bytes(damage)
        for command in (["history"], ["history", "--verify"], ["retry", "--all-failed"]):
            answer = place.run(*command)
            assert answer.exit_code == 1
            assert str(ledger) in answer.output


def test_only_what_keeps_a_camera_from_publishing_is_a_trouble() -> None:
    camera = {"watching": "events", "paused": None, "products": None}
    refused = {"reload_error": "camera.yaml:3: wrong", "cameras": {"roof": camera}}
    assert troubles_of(refused) == []
    assert notes_of(refused) == ["the configuration was not reloaded: camera.yaml:3: wrong"]
    no_place = {**camera, "no_place": "Read-only file system"}
    missing = {**camera, "watching": "watch folder missing"}
    paused = {**camera, "paused": "disk full"}
    cameras = {"roof": no_place, "lab": missing, "yard": paused}
    assert len(troubles_of({"cameras": cameras})) == 3
    assert "roof: products find no place: Read-only" in troubles_of({"cameras": cameras})[0]


def test_status_shows_hostile_text_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    names = "published incomplete revisions skipped parked late duplicates files_unusable"
    counts = dict.fromkeys([*names.split(), "names_ignored"], 0)
    camera = {
        "watch": HOSTILE,
        "watching": "events",
        "last_bracket": None,
        "latency": None,
        "hanging": HOSTILE,
        "counts": counts,
        "open_count": 0,
        "waiting_in_ledger": 0,
        "backlog": 0,
        "paused": HOSTILE,
        "curves": [],
        "curve_fault": HOSTILE,
        "calibrating": False,
        "deleted_files": 0,
        "products": None,
        "last_exposure": {"timestamp": HOSTILE},
        "last_exposure_age": 60.0,
        "last_exposure_age_by_name": 7260.0,
        "late_since": "12:00",
        "seen_age": 60.0,
        "last_product": HOSTILE,
        "last_product_age": 130.0,
        "last_product_age_by_name": -4.0,
        "failing": HOSTILE,
        "clock_error": -7200,
        "last_error": {"at": "now", "what": HOSTILE},
    }
    top = {"version": "1", "pid": 1, "started_utc": "", "jobs_running": 0, "jobs_queued": 0}
    snapshot = {**top, "cameras": {"roof": camera}}
    _show(snapshot, [*troubles_of(snapshot), *notes_of(snapshot)])
    out = capsys.readouterr().out
    for said in (
        "roof: silent, late since 12:00, last seen 60 s ago",
        "roof: its brackets fail: a",
        "60 s ago (by its name 2.0 h); late since 12:00",
        "2.2 min ago (its name lies in the future)",
        "the names are 2.0 h behind this machine's clock",
    ):
        assert said in out
    assert "a\\x1b[2J\\u202e\\udcff\\n2026 fine" in out
    assert all(line.isprintable() for line in out.splitlines())
