from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from asi_watch.config.model import CameraConfig, MergeConfig, ProductConfig
from asi_watch.live.ledger.product_rows import FoundProducts, products_of, reconciled
from asi_watch.live.records import WITHOUT_CURVE, BracketRecord, RejectedFile
from asi_watch.products import Source, Unusable, read_provenance
from tests.live.products import NOON, STEP, camera_at, product

HOUR = 3600.0

JPG = ProductConfig(format="jpg")


@pytest.fixture
def camera(tmp_path: Path) -> CameraConfig:
    return camera_at(tmp_path)


def rows(camera: CameraConfig) -> list[BracketRecord]:
    return [found.record for found in products_of(camera) if found.record is not None]


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


def test_products_of_a_camera_that_was_renamed_give_its_rows(camera: CameraConfig) -> None:
    for number in range(3):
        write_sources(camera, product(camera, number, name="rof"))
    # Of other files, or elsewhere, it may be anybody's.
    rewritten = camera.watch / "2026/06/21/20260621120030_80.jpg"
    os.utime(rewritten, ns=(8, 8))
    write_sources(camera, product(camera, 3, name="rof", folder="lab/2026/06/21"))
    found = rows(camera)
    assert [r.slot for r in found] == [NOON + 2 * STEP, NOON]
    assert {r.camera for r in found} == {"roof"}
    filename = "{timestamp:%Y%m%d_%H%M%S}_{exposure}"
    assert rows(camera.model_copy(update={"filename": filename})) == []


def test_a_format_that_was_asked_for_later_does_not_undo_the_archive(
    camera: CameraConfig,
) -> None:
    for number in range(3):
        write_sources(camera, product(camera, number, age=(3 - number) * HOUR))
    both = camera.model_copy(update={"products": (JPG, ProductConfig(format="png"))})
    # The newest could have been in the making when the daemon died; the others were not.
    assert [r.slot for r in rows(both)] == [NOON + STEP, NOON]
    other = camera.model_copy(update={"products": (ProductConfig(format="png"),)})
    assert [r.products for r in rows(other)] == [
        (f"2026/06/21/20260621120{n // 2}{n % 2 * 3}0_hdr.jpg",) for n in (1, 0)
    ]


def test_fusion_gives_no_radiance_and_is_whole_without(camera: CameraConfig) -> None:
    both = camera.model_copy(update={"products": (JPG, ProductConfig(format="exr"))})
    product(both, 0, algorithm="mertens")
    write_sources(both, product(both, 1))
    assert [(r.slot, r.reason) for r in rows(both)] == [(NOON, WITHOUT_CURVE)]
    fusing = both.model_copy(update={"merge": MergeConfig(algorithm="mertens")})
    assert [r.reason for r in rows(fusing)] == [None]


def test_files_left_out_are_known_again_unless_they_changed_since(camera: CameraConfig) -> None:
    root = camera.watch
    (root / "a").mkdir(parents=True)
    for name in ("old", "new"):
        (root / f"a/{name}.jpg").write_bytes(b"half")
    (root / "a/folder.jpg").mkdir()
    path = product(
        camera, 0, unusable=tuple(Unusable(f"a/{n}.jpg", n) for n in ("old", "new", "folder", "no"))
    )
    made = path.stat().st_mtime
    os.utime(root / "a/old.jpg", (made - 1, made - 1))
    os.utime(root / "a/new.jpg", (made + 1, made + 1))
    (row,) = rows(camera)
    signatures = {r.reason: r.signature for r in row.rejected}
    assert signatures["old"] == (4, (root / "a/old.jpg").stat().st_mtime_ns)
    assert signatures["new"] == signatures["folder"] == signatures["no"] == (0, 0)


@pytest.mark.parametrize("seconds", [-1e12, 1e12, 1e17, 4e9])
def test_a_product_of_any_year_is_no_reason_to_fail(
    camera: CameraConfig, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = product(camera, 0)
    real = os.lstat

    def lstat(one: str | Path) -> os.stat_result:
        found = real(one)
        if str(one) != str(path):
            return found
        return os.stat_result((*found[:8], int(seconds), found[9]), {"st_mtime": seconds})

    monkeypatch.setattr(os, "lstat", lstat)
    (row,) = rows(camera)
    changed = datetime.fromisoformat(row.updated_utc)
    assert changed.tzinfo == UTC
    assert changed.timestamp() == (seconds if seconds == 4e9 else 0)


# -- a row and a product ----------------------------------------------------------------------


def found(camera: CameraConfig, **changes: object) -> FoundProducts:
    if not camera.output.exists():
        product(camera, 0)
    (one,) = products_of(camera)
    assert one.record is not None
    return replace(one, record=replace(one.record, **changes))  # type: ignore[arg-type]


def test_a_row_that_agrees_or_is_newer_stands(camera: CameraConfig) -> None:
    one = found(camera)
    assert one.record is not None
    for present in (
        replace(one.record, latency=0.2, late=3),
        replace(one.record, revision=2),
        replace(one.record, state="failed", revision=2, products=()),
        replace(one.record, state="skipped", revision=1),
    ):
        assert reconciled(present, one) is None


def test_a_product_wins_over_what_the_row_did_not_hear_of(camera: CameraConfig) -> None:
    one = found(camera, revision=2)
    assert one.record is not None
    assert reconciled(None, one) == one.record
    unusable = RejectedFile("a/late.jpg", 5, 6, "late: ignored")
    for present in (
        replace(one.record, revision=1),
        replace(one.record, inputs=one.record.inputs[:2]),
        replace(one.record, state="failed", attempts=8, reason="sizes"),
        replace(one.record, state="skipped", revision=0),
    ):
        row = reconciled(replace(present, rejected=(unusable,), late=4, duplicates=2), one)
        assert row is not None
        assert (row.state, row.revision, row.attempts, row.reason) == ("published", 2, 0, None)
        assert (row.inputs, row.late, row.duplicates) == (one.record.inputs, 4, 2)
        assert row.rejected == (unusable,)


def test_a_bracket_that_failed_is_not_over_with_half_of_its_products(
    camera: CameraConfig,
) -> None:
    one = found(camera)
    assert one.record is not None
    failed = replace(one.record, state="failed", products=())
    assert reconciled(failed, replace(one, whole=False)) is None


def test_of_two_products_of_a_bracket_the_one_in_its_place_counts(camera: CameraConfig) -> None:
    product(camera, 0)
    product(camera, 0, folder="copies")
    product(camera, 0, folder="0-copies")
    present: BracketRecord | None = None
    for one in products_of(camera):
        present = reconciled(present, one) or present
    assert present is not None
    assert present.products == ("2026/06/21/20260621120000_hdr.jpg",)
