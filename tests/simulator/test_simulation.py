from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg

from asi_watch.naming import NamePattern
from asi_watch.response_files import load_curve
from asi_watch.simulator import simulation
from asi_watch.simulator.simulation import SimulatorSettings, simulate, write_file


class NoWait(threading.Event):
    """Never waits, and notes for how long it should have."""

    waited = 0.0

    def wait(self, timeout: float | None = None) -> bool:
        self.waited += timeout or 0.0
        return False


def settings(out: Path, **changes: Any) -> SimulatorSettings:
    small = {"brackets": 2, "size": 64, "speed": 10.0, "exposures_us": (80.0, 320.0, 1280.0)}
    return SimulatorSettings(out=out, **{**small, **changes})


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir())


def test_names_and_folders_follow_the_cameras_clock(tmp_path: Path) -> None:
    summary = simulate(settings(tmp_path / "roof"), stop=NoWait())
    assert files(tmp_path / "roof") == [
        "2026/06/21/09/20260621090000_80.jpg",
        "2026/06/21/09/20260621090001_320.jpg",
        "2026/06/21/09/20260621090002_1280.jpg",
        "2026/06/21/09/20260621090030_80.jpg",
        "2026/06/21/09/20260621090031_320.jpg",
        "2026/06/21/09/20260621090032_1280.jpg",
    ]
    assert (summary.brackets, summary.files, summary.stopped) == (2, 6, False)


def test_same_settings_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        simulate(settings(tmp_path / name, writer="mixed"), stop=NoWait())
    names = files(tmp_path / "a")
    assert names == files(tmp_path / "b")
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_speed_paces_real_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = NoWait()
    monkeypatch.setattr(simulation.time, "monotonic", lambda: stop.waited)
    simulate(settings(tmp_path / "roof", brackets=3, speed=10.0), stop=stop)
    # Two intervals of 30 s and two exposures of 1 s, ten times faster.
    assert stop.waited == pytest.approx(6.2)


def test_infinite_speed_does_not_wait(tmp_path: Path) -> None:
    stop = NoWait()
    simulate(settings(tmp_path / "roof", speed=float("inf"), writer="chunked"), stop=stop)
    assert stop.waited == 0.0


def test_mixed_writers_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = []
    monkeypatch.setattr(simulation, "write_file", lambda _path, _data, kind, *_: kinds.append(kind))
    simulate(settings(tmp_path / "roof", writer="mixed"), stop=NoWait())
    assert kinds == ["plain", "chunked", "rename"] * 2


def test_chunked_grows_in_place(tmp_path: Path) -> None:
    target = tmp_path / "a.jpg"
    sizes: list[int] = []

    class Watching(NoWait):
        def wait(self, timeout: float | None = None) -> bool:
            sizes.append(target.stat().st_size)
            return False

    write_file(target, bytes(1000), "chunked", Watching(), 0.1)
    assert sizes == sorted(set(sizes))
    assert len(sizes) == 5
    assert target.stat().st_size == 1000


def test_rename_replaces_at_once(tmp_path: Path) -> None:
    target = tmp_path / "a.jpg"
    target.write_bytes(b"old")
    write_file(target, b"new", "rename", NoWait(), 0.0)
    assert target.read_bytes() == b"new"
    assert files(tmp_path) == ["a.jpg"]


def test_truth_lies_beside_the_folder_and_fits_the_pictures(tmp_path: Path) -> None:
    chosen = settings(tmp_path / "roof", brackets=1, truth=True, clouds="clear", quality=98)
    simulate(chosen, stop=NoWait())
    curve = load_curve(chosen.truth_folder / "response.npz")
    g = curve.log_response
    with np.load(chosen.truth_folder / "20260621090000_truth.npz") as stored:
        truth = np.log(stored["radiance"])
    pattern = NamePattern(chosen.pattern)
    for name in files(chosen.out):
        parsed = pattern.parse(name)
        assert parsed is not None
        data = (chosen.out / name).read_bytes()
        green = simplejpeg.decode_jpeg(data, colorspace="BGR")[..., 1]
        ln_radiance = g[green, 1] - np.log(parsed.exposure_us) + np.log(1000)
        good = (green > 40) & (green < 230)
        assert good.sum() > 50
        assert np.median(np.abs(ln_radiance - truth[..., 1])[good]) < 0.08


def test_a_stop_ends_between_two_files(tmp_path: Path) -> None:
    class Stopping(NoWait):
        def wait(self, timeout: float | None = None) -> bool:
            if len(files(chosen.out)) == 4:
                self.set()
            return self.is_set()

    chosen = settings(tmp_path / "roof", brackets=0)
    summary = simulate(chosen, stop=Stopping())
    assert summary.stopped
    assert summary.files == len(files(chosen.out)) == 4


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"brackets": -1}, "brackets"),
        ({"speed": 0.0}, "speed"),
        ({"speed": float("nan")}, "speed"),
        ({"interval_s": 2.0}, "do not fit"),
        ({"settle_s": 0.0}, "settle"),
        ({"exposures_us": (80.0, 80.0), "settle_s": 0.1}, "same file name"),
        ({"style": "pinhole"}, "style is one of plain, mobotix"),
        ({"exposures_us": (-1.0,)}, "exposures"),
        ({"seed": -1}, "seed"),
        ({"pattern": "{timestamp:%Y}_{exposure}"}, "timestamp"),
        ({"folders": "../%Y"}, "folders"),
        ({"folders": "/tmp"}, "folders"),
        ({"clouds": "purple"}, "clouds"),
        ({"writer": "x"}, "writer"),
    ],
)
def test_impossible_settings_are_refused(
    tmp_path: Path, changes: dict[str, Any], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        settings(tmp_path, **changes)
