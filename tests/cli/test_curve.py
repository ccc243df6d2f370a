"""`curve`: what was decided, and requests that the daemon carries out; no daemon runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from asi_watch.cli import main
from asi_watch.live.ledger.ledger import Ledger
from asi_watch.live.ledger.records import CurveDecision
from asi_watch.response_files import load_curve, response_bytes


class Place:
    def __init__(self, folder: Path) -> None:
        self.folder, self.state = folder, folder / "state"
        self.state.mkdir()
        self.config = folder / "asi-watch.yaml"
        self.configure("roof")
        self.curve = folder / "mine.npz"
        line = np.linspace(-4, 2, 256, dtype=np.float32)[:, None]
        self.curve.write_bytes(response_bytes(np.repeat(line, 3, axis=1)))
        self.id = load_curve(self.curve).curve_id
        with Ledger(self.state) as ledger:
            path = str(self.curve)
            for row in (
                CurveDecision("roof", self.id, path, None, "adopted", "first", 0.1, None, 9, "", 3),
                CurveDecision("roof", "ab" * 8, "/x", None, "rejected", "\x1b[2Jdark", 0.2, 0.1),
            ):
                ledger.record_curve(row)

    def configure(self, *names: str) -> None:
        cameras = [f"{n}: {{watch: {self.folder}/{n}, output: {self.folder}/o{n}}}" for n in names]
        self.config.write_text(f"state_dir: {self.state}\ncameras: {{{', '.join(cameras)}}}\n")

    def run(self, name: str, *arguments: str) -> Result:
        return CliRunner().invoke(main, ["curve", name, "-c", str(self.config), *arguments])

    def requests(self) -> list[tuple[str, str | None, dict[str, object]]]:
        with Ledger(self.state) as ledger:
            found = ledger.take_requests()
            for request in found:
                ledger.answer_request(request.id, "done", ok=True)
        return [(r.kind, r.camera, r.arguments) for r in found]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_decisions_are_listed_and_drawn(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    plot = place.folder / "drift.png"
    answer = place.run("list", "--plot", str(plot))
    assert answer.exit_code == 0, answer.output
    assert "0.1000" in answer.output
    assert "0.2000 (0.1000)" in answer.output
    assert "\x1b[2J" not in answer.output
    assert f"in use: {place.id}" in answer.output
    assert "(adopted 20" in answer.output
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_decisions_become_requests_to_the_daemon(place: Place) -> None:
    for arguments in (
        ("pin", str(place.curve)),
        ("pin", place.id[:8]),
        ("unpin",),
        ("rollback",),
        ("calibrate", "--dry-run"),
    ):
        answer = place.run(*arguments)
        assert answer.exit_code == 0, answer.output
        assert "no daemon runs: it is done when it starts" in answer.output
    assert place.requests() == [
        ("pin", "roof", {"curve": str(place.curve)}),
        ("pin", "roof", {"curve": place.id[:8]}),
        ("unpin", "roof", {}),
        ("rollback", "roof", {}),
        ("calibrate", "roof", {"dry_run": True}),
    ]


def test_what_cannot_be_meant_is_refused_at_once(place: Place) -> None:
    answer = place.run("pin", "gone.npz")
    assert (answer.exit_code, "no file" in answer.output) == (2, True)
    place.configure("roof", "lab")
    answer = place.run("rollback")
    assert (answer.exit_code, "say which: roof, lab" in answer.output) == (2, True)
    assert place.run("rollback", "--camera", "yard").exit_code == 2
    assert place.requests() == []
