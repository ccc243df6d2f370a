from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest

from asi_watch.hdr.calibration import calibrate_response, sample_bracket
from asi_watch.plots import _dress, _figure, save_calibration_report_plot, save_response_plot
from tests.hdr.calibration_scenes import TIMES, bracket, true_gamma_response


def curve(channels=3):
    return np.repeat(true_gamma_response()[:, np.newaxis], channels, axis=1).astype(np.float32)


@pytest.mark.parametrize(("channels", "suffix"), [(1, "png"), (3, "jpg")])
def test_response_plot(tmp_path, channels, suffix):
    path = save_response_plot(curve(channels), tmp_path / "new" / f"curve.{suffix}", dpi=50)
    picture = cv2.imread(str(path))
    assert picture.shape[1] == 350
    assert picture.std() > 5


def test_codes_without_samples_are_drawn_apart(tmp_path):
    def drawn(name, runs):
        path = save_response_plot(curve(1), tmp_path / name, False, 50, extrapolated=runs)
        return cv2.imread(str(path)).astype(int)

    plain, same, guessed = (
        drawn(f"{n}.png", runs) for n, runs in enumerate(((), [[]], [[(0, 40), (251, 255)]]))
    )
    assert np.array_equal(plain, same)
    assert (guessed.sum(axis=2) - plain.sum(axis=2) > 30).sum() > 10  # dots leave gaps


def test_channel_order_decides_the_colour(tmp_path):
    response = curve()
    response[:, 0] += 3.0
    bgr = save_response_plot(response, tmp_path / "a.png", channel_order="BGR")
    rgb = save_response_plot(response, tmp_path / "b.png", channel_order="RGB")
    assert bgr.read_bytes() != rgb.read_bytes()


def test_plots_leave_no_global_state(tmp_path):
    # In a process of its own: another test may have imported pyplot here.
    code = (
        "import sys, numpy as np; from asi_watch.plots import save_response_plot;"
        "save_response_plot(np.zeros((256, 3)), sys.argv[1]);"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "r.png")], check=True)


def test_report_plot_shows_the_data_cloud(tmp_path):
    rng = np.random.default_rng(1)
    samples = [sample_bracket(bracket(rng), TIMES, technique="flat", count=200, rng=rng)]
    calibration = calibrate_response(samples)
    apart = replace(calibration, cloud=tuple(p + np.array([0.0, 0.8]) for p in calibration.cloud))
    bare, dotted = (
        cv2.imread(str(save_calibration_report_plot(c, tmp_path / f"{n}.png", dpi=60)))
        for n, c in enumerate((replace(calibration, cloud=()), apart))
    )
    assert bare.shape[1] == 480
    height, width = bare.shape[:2]
    response = (slice(int(0.05 * height), height // 2), slice(int(0.1 * width), width // 2))
    coloured = [int((np.ptp(p[response], axis=2) > 8).sum()) for p in (bare, dotted)]
    assert coloured[1] > 1.5 * coloured[0]


def test_a_title_that_is_longer_than_its_figure_is_wrapped():
    figure = _figure(7.0, 5.0)
    axes = figure.add_subplot()
    _dress(axes, "g", "/srv/cameras/roof" * 12)
    figure.draw_without_rendering()
    assert axes.title.get_window_extent().x1 <= figure.bbox.x1
