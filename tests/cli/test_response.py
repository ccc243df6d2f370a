from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
from click.testing import CliRunner, Result

from asi_watch.cli import main
from asi_watch.pipeline import save_response_curve
from tests.pipeline.making import true_curve, write_curve

G = true_curve().log_response


def response(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["response", *arguments])


def test_show_tells_what_a_file_holds(tmp_path: Path) -> None:
    path, plot = tmp_path / "r.npz", tmp_path / "r.png"
    report = {
        "residual_stops": [0.01, None, 0.03],
        "warnings": ["exposure time 80 looks wrong"],
        "settings": {"method": "robust, mean white"},
    }
    metadata = {"seed": 4, "lnE_range": [-15.0, -2.5], "report": report}
    save_response_curve(path, G, metadata, save_plot=False)
    result = response("show", str(path), "--plot", str(plot))
    assert result.exit_code == 0, result.output
    for words in (true_curve().curve_id, "stored as BGR", "-15, -2.5", "blue", "g(128)"):
        assert words in result.stdout
    assert "0.0100         unknown          0.0300" in result.stdout
    assert "warning: exposure time 80 looks wrong" in result.stdout
    assert re.search(r"method +robust, mean white", result.stdout)
    assert plot.stat().st_size > 1000


def test_show_survives_strange_metadata(tmp_path: Path) -> None:
    metadata = {
        "lnE_range": "wide",
        "report": {"residual_stops": 3, "warnings": 4, "settings": {"method": 5}},
        "seed": "\ud800",
    }
    np.savez(tmp_path / "r.npz", response=G, metadata=json.dumps(metadata))
    result = response("show", str(tmp_path / "r.npz"))
    assert result.exit_code == 0, result.output
    assert "stored as RGB" in result.stdout


def test_what_cannot_be_shown(tmp_path: Path) -> None:
    save_response_curve(tmp_path / "grey.npz", G[:, :1], save_plot=False)
    assert response("show", str(tmp_path / "grey.npz")).exit_code == 0
    result = response("show", str(tmp_path / "none.npz"))
    assert (result.exit_code, "no such response file" in result.stderr) == (1, True)


def test_a_plot_of_no_format_is_wrong_usage(tmp_path: Path) -> None:
    write_curve(tmp_path / "a.npz")
    a = str(tmp_path / "a.npz")
    result = response("show", a, "--plot", str(tmp_path / "foo.xyz"))
    assert (result.exit_code, result.stdout) == (2, "")
    assert ".png, .jpg, .svg or .pdf; .xyz is none" in " ".join(result.stderr.split())


def test_show_says_what_is_wrong_with_a_curve(tmp_path: Path) -> None:
    save_response_curve(tmp_path / "e.npz", np.exp(G), save_plot=False)
    result = response("show", str(tmp_path / "e.npz"))
    assert (result.exit_code, "not their logarithm" in result.stderr) == (1, True)
    assert "g(128)" in result.stdout
    dented = np.array(G)
    dented[150] -= 0.2
    save_response_curve(tmp_path / "d.npz", dented, save_plot=False)
    result = response("show", str(tmp_path / "d.npz"))
    assert (result.exit_code, "warning: the response curve looks wrong" in result.stderr) == (
        0,
        True,
    )


def test_a_plot_in_no_folder_is_wrong_usage(tmp_path: Path) -> None:
    save_response_curve(tmp_path / "r.npz", G, save_plot=False)
    result = response("show", str(tmp_path / "r.npz"), "--plot", str(tmp_path / "none" / "r.png"))
    assert (result.exit_code, result.stdout) == (2, "")
    assert "none is no folder" in result.stderr
    assert not (tmp_path / "none").exists()
