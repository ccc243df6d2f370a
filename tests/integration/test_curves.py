"""Curves in the running daemon: none yet, the first one, and swapping it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from asi_watch.live.ledger.ledger import Ledger
from asi_watch.live.ledger.records import WITHOUT_CURVE
from asi_watch.response_files import load_curve, response_bytes
from tests.integration.daemon import Site

# A calibration runs at low priority: beside other tests it is given little.
CALIBRATING = 400.0

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


def test_without_a_response_brackets_are_merged_by_mertens_until_one_is_calibrated(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(
        response=None,
        recalibrate={"every": "never", "brackets": 3},
        products=[{"format": "jpg"}, {"format": "exr"}],
    )
    site.start()
    for number in range(3):
        site.take(number)
        row = site.until_published(number)
        assert (row.algorithm, len(row.products)) == ("mertens", 1)
        assert (row.reason or "").startswith(WITHOUT_CURVE)
    assert "merging by mertens meanwhile" in site.log_text()
    site.until(lambda: "curve adopted" in site.log_text(), "calibrated", CALIBRATING)
    site.take(3)
    row = site.until_published(3)
    assert row.algorithm == "debevec_exact"
    curve = load_curve(site.state / "curves" / "roof" / f"{row.curve_id}.npz")
    assert curve.curve_id == row.curve_id
    # What was a picture only, for want of a curve, has its radiance now.
    for number in range(3):
        row = site.until_published(number, revision=2)
        assert (row.curve_id, len(row.products)) == (curve.curve_id, 2)
        assert WITHOUT_CURVE not in (row.reason or "")
        assert (site.output / row.products[1]).suffix == ".exr"
    site.stop()
    site.start()
    site.take(4)
    assert site.until_published(4).curve_id == row.curve_id


def test_without_a_response_brackets_can_wait(make_site: Callable[..., Site]) -> None:
    site = make_site(
        response=None, without_response="wait", recalibrate={"every": "never", "brackets": 3}
    )
    site.start()
    site.take(0)
    site.take(1)
    site.until(lambda: "brackets wait" in site.log_text(), "told")
    site.take(2)
    site.until(lambda: "curve adopted" in site.log_text(), "calibrated", CALIBRATING)
    for number in range(3):
        assert site.until_published(number).algorithm == "debevec_exact"


def test_a_response_that_appears_later_is_taken(make_site: Callable[..., Site]) -> None:
    site = make_site(recalibrate={"every": "never", "brackets": 100})
    content = site.response().read_bytes()
    site.response().unlink()
    site.start()
    site.take(0)
    assert site.until_published(0).curve_id is None
    site.response().write_bytes(content)
    site.until(lambda: "curve in use" in site.log_text(), "taken")
    site.take(1)
    assert site.until_published(1).curve_id == load_curve(site.response()).curve_id


def test_recalibration_swaps_the_curve_between_brackets_and_records_it(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(recalibrate={"every": "3s", "brackets": 3})
    operators = site.response().read_bytes()
    site.start()
    for number in range(3):
        site.take(number)
        site.until_published(number)

    def decided() -> bool:
        return "curve adopted" in site.log_text() or "curve rejected" in site.log_text()

    site.until(decided, "recalibrated", CALIBRATING)
    site.stop()
    with Ledger(site.state, read_only=True) as ledger:
        decision = ledger.curves("roof")[0]
    assert decision.present_residual is not None
    assert decision.base_id == load_curve(site.response()).curve_id
    assert site.response().read_bytes() == operators


def test_an_operator_calibrates_pins_and_lets_go(make_site: Callable[..., Site]) -> None:
    site = make_site(recalibrate={"every": "never", "brackets": 3})
    operators = load_curve(site.response())
    mine = site.folder / "mine.npz"
    mine.write_bytes(response_bytes(operators.log_response * 1.05, {"channel_order": "BGR"}))
    site.start()
    for number in range(3):
        site.take(number)
        assert site.until_published(number).curve_id == operators.curve_id
    tried = curve(site, "calibrate", "--dry-run")
    assert tried.returncode == 0, tried.stderr
    assert "calibrating from 3 brackets" in tried.stderr
    assert "[3 brackets" in tried.stdout
    assert "plot: " in tried.stdout
    with Ledger(site.state, read_only=True) as ledger:
        assert ledger.curves("roof") == []
    pinned = curve(site, "pin", str(mine))
    assert "is pinned" in pinned.stdout
    mine.unlink()
    site.take(3)
    assert site.until_published(3).curve_id == pinned.stdout.split()[1]
    assert "; pinned) " in site.run("status").stdout
    site.stop()
    site.start()
    site.take(4)
    assert site.until_published(4).curve_id == pinned.stdout.split()[1]
    assert operators.curve_id in curve(site, "unpin").stdout
    site.take(5)
    assert site.until_published(5).curve_id == operators.curve_id
    refused = curve(site, "rollback")
    assert refused.returncode == 1
    assert "recalibrate.every is never" in refused.stderr or "nothing was adopted" in refused.stderr


def curve(site: Site, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `asi-watch curve` beside the daemon."""
    command = [sys.executable, "-m", "asi_watch", "curve", *arguments, "-c", str(site.config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=CALIBRATING, check=False)
