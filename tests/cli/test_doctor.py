"""`doctor`: each finding with its remedy."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from asi_watch.brackets import Exposure
from asi_watch.cli import doctor_command, main
from asi_watch.live.ledger.ledger import Ledger
from asi_watch.live.ledger.records import BracketRecord
from asi_watch.live.state_folder import StatusFile
from asi_watch.response_files import response_bytes

NOW = datetime.now(UTC).replace(tzinfo=None, microsecond=0)


class Machine:
    def __init__(self, folder: Path) -> None:
        self.folder, self.config = folder, folder / "asi.yaml"
        for name in ("in", "out", "state"):
            (folder / name).mkdir()
        self.write()

    def write(self, camera: str = "") -> None:
        self.config.write_text(
            f"state_dir: state\ncameras:\n  roof: {{watch: in, output: out{camera}}}\n"
        )

    def names(self, ahead: timedelta = timedelta(0), pattern: str = "%Y%m%d%H%M%S_") -> None:
        for n in range(6):
            taken = NOW - timedelta(minutes=n)
            for time in (80, 160, 320):
                path = self.folder / "in" / f"{taken + ahead:{pattern}}{time}.jpg"
                path.touch()
                at = taken.replace(tzinfo=UTC).timestamp()
                os.utime(path, (at, at))

    def rows(self, state: str, reason: str | None, size: int = 1) -> None:
        rows = [
            BracketRecord(
                "roof",
                (slot := NOW - timedelta(minutes=n)),
                state,  # type: ignore[arg-type]
                inputs=(Exposure("a_80.jpg", slot, 80.0, size, 2),),
                products=("gone_hdr.jpg",) if state == "published" else (),
                reason=reason,
                updated_utc="2026-06-21T12:00:00.000+00:00",
            )
            for n in range(30)
        ]
        with Ledger(self.folder / "state") as ledger:
            ledger.record_all(rows)

    def run(self, *more: str) -> Result:
        return CliRunner().invoke(main, ["doctor", "-c", str(self.config), *more])

    def found(self, check: str, *more: str) -> list[dict[str, str]]:
        result = self.run("--json", *more)
        assert result.exit_code == 1, result.output
        findings = json.loads(result.stdout)["findings"]
        assert all(one["remedy"] and one["text"] for one in findings)
        return [one for one in findings if one["check"] == check]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_wrong_file_is_all_that_is_examined(machine: Machine) -> None:
    machine.write(", wach: x")
    (one,) = machine.found("configuration")
    assert (one["where"], one["text"]) == (
        "cameras.roof.wach",
        "this key is unknown; did you mean watch?",
    )
    assert "→" in machine.run().stdout


def test_what_check_says_comes_with_its_remedy(machine: Machine) -> None:
    machine.names(pattern="%Y%m%d_%H%M%S_")
    (one,) = (f for f in machine.found("configuration") if f["where"].endswith("filename"))
    assert one["text"].startswith("none of the 18 newest files fits")
    assert one["remedy"] == "did you mean '{timestamp:%Y%m%d_%H%M%S}_{exposure}'?"


@pytest.mark.parametrize(
    ("hours", "remedy"), [(0, ""), (1, "Etc/GMT-1"), (-5, "Etc/GMT+5"), (0.3, "by NTP")]
)
def test_names_in_another_zone_are_seen_by_the_times_of_the_files(
    machine: Machine, hours: float, remedy: str
) -> None:
    machine.names(timedelta(hours=hours))
    found = [one for one in machine.found("clock") if one["where"] == "roof"]
    assert len(found) == bool(remedy)
    assert all(remedy in one["remedy"] for one in found)


def test_permissions_are_tried_as_the_user_of_the_service(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert machine.found("permissions") == []
    monkeypatch.setattr(os, "access", lambda path, _: Path(path).name != "out")
    (one,) = machine.found("permissions")
    assert one["where"] == str(machine.folder / "out")
    assert "setfacl" in one["remedy"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root may ask as another user")
def test_root_asks_as_another_user(machine: Machine) -> None:
    assert doctor_command._may("nobody", "/", os.R_OK | os.X_OK)
    assert doctor_command._may("nobody", "/etc", os.R_OK | os.W_OK) is False
    assert doctor_command._may("no-such-user", "/", os.R_OK) is None


def test_a_disk_that_is_soon_full_and_brackets_that_failed(machine: Machine) -> None:
    machine.rows("failed", "no space")
    (one,) = machine.found("brackets")
    assert one["text"] == "30 failed since yesterday: no space"
    machine.rows("published", None, size=10**12)
    (one,) = machine.found("space")
    assert "full in 0 days" in one["text"]
    assert "retention" in one["remedy"]
    (one,) = machine.found("products")
    assert one["text"] == "30 of the newest 30 products: gone_hdr.jpg: missing"


def test_a_curve_that_rests_on_few_codes(machine: Machine) -> None:
    for codes, expected in ((100, 1), (200, 0)):
        report = {"samples_per_code": [[1] * codes + [0] * (256 - codes)]}
        data = response_bytes(np.linspace((-4,), (2,), 256), {"report": report})
        (machine.folder / "g.npz").write_bytes(data)
        machine.write(", response: g.npz")
        assert len(machine.found("curve")) == expected


def test_the_daemon_is_asked_for_its_version_and_errors(machine: Machine) -> None:
    (one,) = machine.found("daemon")
    assert "no daemon runs" in one["text"]
    camera = {"watching": "events", "last_error": {"at": "noon", "what": "a_80.jpg: damaged"}}
    StatusFile(machine.folder / "state").write(
        {"version": "0.0.9", "cameras": {"roof": camera}, "at_utc": "now"}
    )
    version, error = machine.found("daemon")
    assert "0.0.9" in version["text"]
    assert error["text"] == "last error, noon: a_80.jpg: damaged"


def test_nothing_needs_doing_where_all_is_well(machine: Machine) -> None:
    machine.names()
    StatusFile(machine.folder / "state").write(
        {"version": doctor_command.__version__, "cameras": {}, "at_utc": "now"}
    )
    result = machine.run()
    assert result.exit_code == 0, result.output
    assert "nothing needs doing" in result.stdout


def test_limits_of_the_kernel(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.found("inotify") == []
    monkeypatch.setattr(doctor_command, "_hot_folders", lambda *_: 10**9)
    (one,) = machine.found("inotify")
    assert one["where"] == "fs.inotify.max_user_watches"
    assert "sysctl" in one["remedy"]


def test_an_installed_unit_of_another_version(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = machine.folder / "asi-watch"
    program.write_text("#!/bin/sh\necho asi-watch 0.0.9\n")
    program.chmod(0o755)
    (machine.folder / "asi-watch.service").write_text(f"[Service]\nExecStart={program} run\n")
    monkeypatch.setattr(doctor_command, "_UNIT_FOLDERS", (machine.folder,))
    version, closed = machine.found("unit")
    assert "asi-watch 0.0.9" in version["text"]
    assert closed["where"] == str(machine.folder / "out")
    assert closed["remedy"].endswith("install.sh --folders")
    (machine.folder / "asi-watch.service.d").mkdir()
    opened = f'[Service]\nReadWritePaths="{machine.folder}/out"\n'
    (machine.folder / "asi-watch.service.d/10-camera-folders.conf").write_text(opened)
    assert len(machine.found("unit")) == 1
