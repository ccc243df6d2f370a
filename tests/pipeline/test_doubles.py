"""Slots longer than the interval between brackets, and two cameras under one folder."""

from __future__ import annotations

import os
import random
import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from asi_watch.pipeline import ArchiveRules, ArchiveSummary, merge_archive
from asi_watch.pipeline.asi_core import merge_choices, product_of
from asi_watch.products import read_provenance
from tests.pipeline.making import products, true_curve, write_bracket


def merged(root: Path, out: Path, round_to: float) -> ArchiveSummary:
    return merge_archive(
        root,
        out,
        rules=ArchiveRules(round_to=timedelta(seconds=round_to)),
        settings=merge_choices(algorithm="debevec_custom").settings,
        curves=[true_curve()],
        products=[product_of("jpg")],
        workers=0,
    )


def sources(out: Path) -> list[list[str]]:
    made = [read_provenance(out / name) for name in products(out)]
    return [[s.path.rpartition("/")[2][8:14] for s in p.sources] for p in made if p]


def test_of_two_brackets_in_a_slot_one_is_merged_and_the_summary_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = [path for n in range(1, 5) for path in write_bracket(tmp_path / "a", n, folders="%H")]
    dice = random.Random(3)
    for path in paths:
        os.utime(path, (1e9, 1e9 + dice.randint(0, 99)))
    summary = merged(tmp_path / "a", tmp_path / "b", 60)
    seconds = [f"{s:02}" for s in range(30, 35)]
    assert sources(tmp_path / "b") == [[f"09{m:02}{s}" for s in seconds] for m in (0, 1)]
    assert (summary.brackets, summary.merged, summary.flawless) == (2, 2, False)
    advice = "2 slots held two brackets, of which one is merged; use round_to 30s"
    assert advice in summary.sentence()
    assert advice in caplog.text
    assert "belongs to the bracket merged" in caplog.text or "written later" in caplog.text
    assert "and 4 more files" in caplog.text
    assert merged(tmp_path / "a", tmp_path / "c", 30).flawless


def test_two_cameras_under_one_folder_are_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for n in range(3):
        write_bracket(tmp_path / "a" / "north", n, folders="")
    shutil.copytree(tmp_path / "a" / "north", tmp_path / "a" / "south")
    summary = merged(tmp_path / "a", tmp_path / "b", 30)
    assert (summary.merged, summary.flawless, summary.too_long) == (3, False, None)
    told = [m for m in caplog.messages if "two cameras" in m]
    assert len(told) == 1
    assert told[0].startswith(("north and south hold", "south and north hold"))
    assert "hold the same exposures: one folder per camera" in summary.sentence()
