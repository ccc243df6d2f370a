from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from asi_watch.errors import ResponseFileError
from asi_watch.pipeline import _save_response_plot, load_response_curve, save_response_curve
from asi_watch.response_files import load_curve
from tests.pipeline.making import true_curve

G = true_curve().log_response


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_a_curve_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "new/folder/r.npz"
    save_response_curve(path, G[:, np.newaxis, :], {"seed": 7}, plot_filename="drawn.png")
    response, metadata = load_response_curve(str(path))
    assert (response.shape, response.dtype) == ((256, 3), np.float32)
    np.testing.assert_array_equal(response, G)
    assert metadata == {"seed": 7, "channel_order": "BGR"}
    assert size_of(path.parent / "drawn.png") == (1050, 750)
    assert sorted(p.name for p in path.parent.iterdir()) == ["drawn.png", "r.npz"]


def test_the_file_is_what_asi_core_reads(tmp_path: Path) -> None:
    save_response_curve(tmp_path / "r", G.astype(np.float64), {"a": 1}, save_plot=False)
    with np.load(tmp_path / "r.npz", allow_pickle=False) as archive:
        assert sorted(archive) == ["metadata", "response"]
        assert (archive["response"].shape, archive["response"].dtype) == ((256, 3), np.float32)
        assert json.loads(str(archive["metadata"]))["a"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["r.npz"]


def test_a_file_of_asi_core_is_rgb(tmp_path: Path) -> None:
    np.savez(tmp_path / "old.npz", response=G, metadata=json.dumps({"smoothness": 50.0}))
    response, metadata = load_response_curve(tmp_path / "old.npz")
    np.testing.assert_array_equal(response, G)
    assert metadata == {"smoothness": 50.0, "channel_order": "RGB"}
    np.testing.assert_array_equal(load_curve(tmp_path / "old.npz").log_response, G[:, ::-1])
    save_response_curve(tmp_path / "again.npz", response, metadata, save_plot=False)
    assert load_curve(tmp_path / "again.npz").curve_id == load_curve(tmp_path / "old.npz").curve_id


def test_what_is_no_curve_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="256"):
        save_response_curve(tmp_path / "r.npz", G[:200])
    with pytest.raises(ValueError, match="complex"):
        save_response_curve(tmp_path / "r.npz", G.astype(complex))
    with pytest.raises(ResponseFileError, match=r"none\.npz"):
        load_response_curve(tmp_path / "none.npz")


def test_plots_are_drawn_whole(tmp_path: Path) -> None:
    path = _save_response_plot(G[:, np.newaxis], tmp_path / "a/p.png", include_mean=False, dpi=50)
    assert path == tmp_path / "a/p.png"
    assert size_of(path) == (350, 250)


@pytest.mark.parametrize("name", ["noext", "foo.xyz"])
def test_a_plot_without_a_format_is_refused_before_anything_is_written(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(ValueError, match=rf"{name}: the suffix of a plot chooses its format"):
        save_response_curve(tmp_path / "r.npz", G, plot_filename=name)
    with pytest.raises(ValueError, match="chooses its format"):
        _save_response_plot(G, tmp_path / name)
    assert list(tmp_path.iterdir()) == []
    save_response_curve(tmp_path / "r.npz", G, plot_filename=name, save_plot=False)


def test_a_plot_may_go_anywhere(tmp_path: Path) -> None:
    save_response_curve(tmp_path / "r.npz", G, plot_filename=str(tmp_path / "plots/g.png"))
    assert size_of(tmp_path / "plots/g.png") == (1050, 750)


def test_exposures_in_place_of_their_logarithm_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_response_curve(tmp_path / "g.npz", G, save_plot=False)
    assert caplog.text == ""
    save_response_curve(tmp_path / "r.npz", np.exp(G), save_plot=False)
    assert "not their logarithm" in caplog.text


def test_the_plot_beside_a_file_has_its_name_and_dots_what_was_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, object]] = []
    monkeypatch.setattr(
        "asi_watch.plots.save_response_plot",
        lambda _g, _path, title, extrapolated: told.append((title, extrapolated)),
    )
    runs = [[[0, 4], [251, 255]], [], [[0, 1]]]
    metadata = {"timestamp_utc": "2026-06-21T12:00:00Z", "report": {"extrapolated": runs}}
    save_response_curve(tmp_path / "r.npz", G, metadata)
    curve = load_curve(tmp_path / "r.npz")
    assert told[0][0] == f"r.npz · curve {curve.curve_id} · 2026-06-21"
    assert told[0][1] == [[(0, 4), (251, 255)], [], [(0, 1)]]
    for strange in (3, [[1]], [["a", "b"]] * 3, [[[0, 999]], [], []], [[]]):
        save_response_curve(tmp_path / "r.npz", G, {"report": {"extrapolated": strange}})
        assert told.pop()[1] == []
