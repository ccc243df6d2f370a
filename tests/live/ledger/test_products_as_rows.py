from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from asi_watch.config.model import CameraConfig, MergeConfig, ProductConfig
from asi_watch.live.ledger.rebuild import _reconciled as reconciled
from asi_watch.live.ledger.rebuild import products_of
from asi_watch.live.ledger.records import WITHOUT_CURVE, BracketRecord, RejectedFile
from asi_watch.products import Source, Unusable, read_provenance
from tests.live.products import NOON, STEP, camera_at, product

HOUR = 3600.0

JPG = ProductConfig(format="jpg")


@pytest.fixture
def camera(tmp_path: Path) -> CameraConfig:
    return camera_at(tmp_path)


def rows(camera: CameraConfig) -> list[BracketRecord]:
    return list(products_of(camera))


def test_what_is_no_product_of_this_camera_gives_no_row(camera: CameraConfig) -> None:
    product(camera, 0, name="yard")
    torn = product(camera, 1)
    torn.write_bytes(torn.read_bytes()[:20])
    (torn.parent / "20260621130000_hdr.jpg").mkdir()
    (torn.parent / "20260621130030_hdr.jpg").symlink_to(torn)
    os.mkfifo(torn.parent / "20260621130100_hdr.jpg")
    product(camera, 2).rename(torn.parent / "20260621140000_hdr.jpg")
    (torn.parent / ".asi-watch-0123456789abcdef.tmp").write_bytes(b"half")
    (torn.parent / "20260621130200_hdr.jpg").write_bytes(b"\xff\xd8\xff" + os.urandom(20_000))
    assert rows(camera) == []


@pytest.mark.parametrize("path", ["/etc/passwd", "../secret.jpg", "a/../../b.jpg", ""])
def test_no_row_leads_out_of_the_watch_folder(camera: CameraConfig, path: str) -> None:
    product(camera, 0, sources=(Source(path, 80.0, NOON, 1, 1),))
    product(camera, 1, unusable=(Unusable(path, "no"),))
    (row,) = rows(camera)
    assert row.slot == NOON + STEP
    assert row.rejected == ()


def test_a_bracket_that_just_lacked_a_format_is_left_to_be_merged_again(
    camera: CameraConfig,
) -> None:
    both = camera.model_copy(update={"products": (JPG, ProductConfig(format="png"))})
    write_sources(both, product(both, 0))
    product(both, 1)
    product(both, 1, suffix="png")
    product(both, 2, revision=2)
    product(both, 2, revision=1, suffix="png")
    (row,) = rows(both)
    assert row.slot == NOON + STEP
    assert len(row.products) == 2


@pytest.mark.parametrize("left", ["nothing", "empty", "older"])
def test_a_bracket_whose_exposures_went_with_the_power_keeps_the_formats_it_has(
    camera: CameraConfig, left: str
) -> None:
    both = camera.model_copy(update={"products": (JPG, ProductConfig(format="png"))})
    made = product(both, 0)
    first = write_sources(both, made)[0]
    if left == "nothing":
        first.unlink()
    elif left == "empty":
        first.write_bytes(b"")
        os.utime(first, ns=(7, 7))
    else:
        os.utime(first, ns=(6, 6))
    (row,) = rows(both)
    assert row.products == (str(made.relative_to(both.output)),)
    assert len(row.inputs) == 3
    assert row.state == "published"


def write_sources(camera: CameraConfig, made: Path) -> list[Path]:
    """Write files that look like the exposures a product names."""
    paths = []
    for source in read_provenance(made).sources:
        paths.append(camera.watch / source.path)
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        paths[-1].write_bytes(bytes(source.size))
        os.utime(paths[-1], ns=(source.mtime_ns, source.mtime_ns))
    return paths


def test_products_of_another_camera_or_elsewhere_give_no_row(camera: CameraConfig) -> None:
    write_sources(camera, product(camera, 0, name="rof"))
    write_sources(camera, product(camera, 1, folder="copies"))
    assert rows(camera) == []


def test_fusion_gives_no_radiance_and_is_whole_without(camera: CameraConfig) -> None:
    both = camera.model_copy(update={"products": (JPG, ProductConfig(format="exr"))})
    product(both, 0, algorithm="mertens")
    write_sources(both, product(both, 1))
    assert [(r.slot, r.reason) for r in rows(both)] == [(NOON, WITHOUT_CURVE)]
    fusing = both.model_copy(update={"merge": MergeConfig(algorithm="mertens")})
    assert [r.reason for r in rows(fusing)] == [None]


@pytest.mark.parametrize("seconds", [-1e12, 1e12, 1e17, 4e9])
def test_a_product_of_any_year_is_no_reason_to_fail(
    camera: CameraConfig, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = product(camera, 0)
    real = os.lstat

    def lstat(one: str | Path, **more: int) -> os.stat_result:
        found = real(one, **more)
        if str(one) != str(path):
            return found
        return os.stat_result((*found[:8], int(seconds), found[9]), {"st_mtime": seconds})

    monkeypatch.setattr(os, "lstat", lstat)
    (row,) = rows(camera)
    changed = datetime.fromisoformat(row.updated_utc)
    assert changed.tzinfo == UTC
    assert changed.timestamp() == (0 if seconds < 0 else 4e9)


# -- a row and a product ----------------------------------------------------------------------


def test_a_row_that_is_newer_than_its_product_stands(camera: CameraConfig) -> None:
    product(camera, 0)
    (one,) = rows(camera)
    for present in (
        replace(one, revision=2),
        replace(one, state="failed", revision=2, products=()),
        replace(one, state="skipped", revision=1),
    ):
        assert reconciled(present, one) is None


def test_a_product_wins_over_what_the_row_did_not_know(camera: CameraConfig) -> None:
    product(camera, 0, revision=2)
    (one,) = rows(camera)
    assert reconciled(None, one) == one
    unusable = RejectedFile("a/late.jpg", 5, 6, "late: ignored")
    for present in (
        replace(one, revision=1),
        replace(one, state="failed", attempts=8, reason="sizes"),
        replace(one, state="skipped", revision=0),
    ):
        row = reconciled(replace(present, rejected=(unusable,), late=4, duplicates=2), one)
        assert row is not None
        assert (row.state, row.revision, row.attempts, row.reason) == ("published", 2, 0, None)
        assert (row.inputs, row.late, row.duplicates) == (one.inputs, 4, 2)
        assert row.rejected == (unusable,)
