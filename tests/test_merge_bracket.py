"""The files of one bracket become products: the same from memory, from files and in bands."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg

from asi_watch.brackets import Exposure
from asi_watch.errors import ImageError
from asi_watch.frames import Frames
from asi_watch.hdr import frame_checks
from asi_watch.hdr.disc import SkyDisc
from asi_watch.hdr.merge_settings import MergeSettings
from asi_watch.hdr.response import ResponseCurve
from asi_watch.merge_bracket import Bracket, Failed, Kept, MergePlan, Published, merge_bracket
from asi_watch.products import OutputFolder, ProductSpec, Provenance, Unusable, read_provenance
from tests.pipeline.making import EXPOSURES, files_of, slot, true_curve

EXACT = MergeSettings("debevec_exact", "triangle", 5, 250, 2.2, None, 255, True)
SIZE = 96
FRAME = SIZE * SIZE * 3


class Place:
    """A folder with one bracket, and a plan to merge it."""

    def __init__(self, folder: Path, formats: tuple[Any, ...] = ("jpg",), **more: Any) -> None:
        self.folder = folder
        self.plan = MergePlan(
            "roof",
            str(folder / "in"),
            OutputFolder(folder / "out"),
            more.pop("settings", EXACT),
            tuple(ProductSpec(name) for name in formats),
            **more,
        )
        (folder / "in").mkdir(exist_ok=True)
        self.write(files_of(1, SIZE))

    def write(self, files: dict[int, bytes]) -> None:
        exposures = []
        for us, data in files.items():
            path = self.folder / "in" / f"{slot(1):%Y%m%d%H%M%S}_{us}.jpg"
            path.write_bytes(data)
            os.utime(path, (1.7e9, 1.7e9))
            status = path.stat()
            exposures.append(
                Exposure(path.name, slot(1), float(us), status.st_size, status.st_mtime_ns)
            )
        self.bracket = Bracket(slot(1), tuple(exposures), expected=len(files), complete=True)

    def merge(self, *curves: ResponseCurve, frames: Frames | None = None, **plan: Any) -> Any:
        store = frames or Frames(self.plan.root)
        return merge_bracket(replace(self.plan, **plan), self.bracket, store, curves)

    def product(self, format_: str = "jpg") -> Path:
        return self.folder / "out" / f"{slot(1):%Y%m%d%H%M%S}_hdr.{format_}"

    def provenance(self, format_: str = "jpg") -> Provenance:
        return read_provenance(self.product(format_))


def grey(files: dict[int, bytes]) -> dict[int, bytes]:
    return {
        us: simplejpeg.encode_jpeg(
            np.ascontiguousarray(simplejpeg.decode_jpeg(data, "GRAY")), 95, "GRAY", "Gray"
        )
        for us, data in files.items()
    }


# --- in bands -------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["debevec_custom", "debevec_exact"])
@pytest.mark.parametrize("kind", ["sound", "one false time", "low white", "disc"])
def test_a_merge_in_bands_gives_the_same_bytes(tmp_path: Path, algorithm: str, kind: str) -> None:
    disc = SkyDisc(40, 50, 38) if kind == "disc" else None
    formats = ("jpg", "png", "exr", "tiff", "hdr")
    settings = replace(EXACT, algorithm=algorithm, sky_disc=disc)
    made = []
    for name, limit in (("whole", None), ("bands", 9 * FRAME)):
        (tmp_path / name).mkdir()
        place = Place(tmp_path / name, formats, settings=settings, memory_limit=limit)
        files = dict(files_of(1, SIZE))
        if kind == "one false time":
            files[160] = files[1280]
        if kind == "low white":
            files = {us: limited(data, 240) for us, data in files.items()}
        place.write(files)
        frames = Frames(place.plan.root)
        result = place.merge(true_curve(), frames=frames)
        assert isinstance(result, Published), result
        assert (frames.nbytes == 0) == (limit is not None)
        made.append([place.product(f).read_bytes() for f in formats])
    assert made[0] == made[1]


@pytest.mark.parametrize("limit", [None, 9 * FRAME])
def test_frames_are_compared_once_for_all_products(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int | None
) -> None:
    threads = []

    def check(*args: Any, **more: Any) -> Any:
        threads.append(threading.current_thread())
        return frame_checks.check_frames(*args, **more)

    monkeypatch.setattr("asi_watch.hdr.weighted_merge.check_frames", check)
    place = Place(tmp_path, ("jpg", "exr"), memory_limit=limit)
    assert isinstance(place.merge(true_curve()), Published)
    assert threads == [threading.current_thread()]


def limited(data: bytes, white: int) -> bytes:
    pixels = np.minimum(simplejpeg.decode_jpeg(data, "BGR"), white)
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), 98, "BGR", "444")


def test_what_cannot_be_merged_in_bands_is_refused_with_the_figure(tmp_path: Path) -> None:
    place = Place(tmp_path, settings=replace(EXACT, algorithm="mertens"))
    failed = place.merge(memory_limit=20 * FRAME)
    assert isinstance(failed, Failed)
    assert failed.kind == "permanent"
    assert "takes 1 MiB, the limit is 1 MiB (memory_budget)" in failed.reason
    assert isinstance(place.merge(memory_limit=60 * FRAME), Published)


def test_a_file_that_goes_while_bands_are_merged_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path, ("png",), memory_limit=4 * FRAME)
    reads, real = [], Frames.read

    def read(self: Frames, path: str) -> Any:
        reads.append(path)
        if len(reads) > 8:
            raise ImageError(path, "no such file", may_recover=True)
        return real(self, path)

    monkeypatch.setattr(Frames, "read", read)
    failed = place.merge(true_curve())
    assert failed == Failed("inputs", "no such file", (reads[-1],))
    assert not place.product("png").exists()


# --- formats --------------------------------------------------------------------------------------


def test_a_format_that_cannot_hold_the_picture_is_named_and_the_others_are_there(
    tmp_path: Path,
) -> None:
    place = Place(tmp_path, ("jp2", "jpg", "exr"))
    narrow = {us: crop(data, 24) for us, data in files_of(1, SIZE).items()}
    place.write(narrow)
    result = place.merge(true_curve())
    assert isinstance(result, Published)
    assert [name.rpartition(".")[2] for name in result.products] == ["jpg", "exr"]
    assert result.missing == ("jp2: jp2 holds 32 to 65535 pixels a side; the picture is 96×24",)
    failed = place.merge(true_curve(), products=(ProductSpec("jp2"),))
    assert isinstance(failed, Failed)
    assert failed.kind == "permanent"
    assert "jp2 holds" in failed.reason


def crop(data: bytes, rows: int) -> bytes:
    pixels = np.ascontiguousarray(simplejpeg.decode_jpeg(data, "BGR")[:rows])
    return simplejpeg.encode_jpeg(pixels, 95, "BGR", "444")


def test_after_a_kill_between_two_formats_only_the_missing_one_is_made(tmp_path: Path) -> None:
    place = Place(tmp_path, ("jpg", "exr"))
    place.merge(true_curve())
    place.product("exr").unlink()
    before = place.product("jpg").stat()
    result = place.merge(true_curve())
    assert isinstance(result, Published)
    assert not result.adopted
    assert len(result.products) == 2
    assert place.product("exr").exists()
    assert place.product("jpg").stat().st_mtime_ns == before.st_mtime_ns


def test_half_floats_that_cannot_hold_the_night_are_noted(tmp_path: Path) -> None:
    place = Place(tmp_path)
    spec = ProductSpec("exr", pixel_type="half")
    place.bracket = replace(
        place.bracket,
        exposures=tuple(
            replace(e, exposure_us=e.exposure_us * 1e6) for e in place.bracket.exposures
        ),
    )
    result = place.merge(true_curve(), products=(spec,))
    assert isinstance(result, Published)
    assert any("half floats" in note for note in result.notes)
    assert place.provenance("exr").notes == result.notes


def test_a_product_of_a_provisional_curve_says_so(tmp_path: Path) -> None:
    place, curve = Place(tmp_path), true_curve()
    place.merge(curve)
    assert not place.provenance().provisional
    assert "provisional" not in place.provenance().to_json()
    other = np.float32(1.01) * curve.log_response
    place.merge(ResponseCurve(other, {**curve.metadata, "provisional": True}))
    assert place.provenance().provisional


# --- what stands ----------------------------------------------------------------------------------


def test_what_was_made_in_the_same_way_stands(tmp_path: Path) -> None:
    place, curve = Place(tmp_path), true_curve()
    place.merge(curve)
    before = place.product().stat()
    again = place.merge(curve)
    assert isinstance(again, Published)
    assert again.adopted
    assert place.product().stat().st_ino == before.st_ino
    # Anything that would change it has it made again.
    other = ResponseCurve(curve.log_response * np.float32(1.01))
    darker = replace(EXACT, gamma=2.0)
    for curves, plan in (((other,), {}), ((curve,), {"settings": darker}), ((curve,), {})):
        made = place.merge(*curves, **plan)
        assert isinstance(made, Published)
        assert not made.adopted
    assert isinstance(place.merge(curve, replace=True), Published)
    # The number of a deleted file may be used again.
    assert place.product().stat().st_mtime_ns > before.st_mtime_ns


def test_another_cameras_product_is_never_replaced(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.merge(true_curve())
    before = place.product().read_bytes()
    place.write(grey(files_of(1, SIZE)))
    refused = place.merge(true_curve(), camera="lab")
    assert isinstance(refused, Failed)
    assert refused.kind == "taken"
    assert "was made by camera 'roof'" in refused.reason
    assert place.product().read_bytes() == before


def test_a_new_name_and_a_new_curve_merge_nothing_again(tmp_path: Path) -> None:
    place = Place(tmp_path, adopt_renamed=True)
    made = place.merge(true_curve())
    before = place.product().read_bytes()
    other = replace(true_curve(), log_response=true_curve().log_response * np.float32(1.1))
    adopted = place.merge(other, camera="lab")
    assert (adopted.adopted, adopted.curve_id) == (True, made.curve_id)
    assert place.product().read_bytes() == before
    # A late exposure is the next revision of what stands, though there is no row of it.
    whole = place.bracket
    place.bracket = replace(whole, exposures=whole.exposures[:4])
    place.merge(true_curve(), replace=True)
    place.bracket = whole
    assert place.merge(other, camera="lab").revision == 2
    assert read_provenance(place.product()).revision == 2
    # Asked for again, it is merged with the curve of now.
    place.bracket = replace(place.bracket, revision=3)
    assert not place.merge(other, camera="lab").adopted


def test_fewer_exposures_replace_nothing(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.merge(true_curve())
    place.bracket = replace(place.bracket, exposures=place.bracket.exposures[1:], revision=2)
    kept = place.merge(true_curve())
    assert isinstance(kept, Kept)
    assert "more exposures" in kept.reason
    assert [len(p.sources) for p in kept.found.values()] == [5]


def test_an_output_folder_that_was_swapped_is_the_places_fault(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.merge(true_curve())
    (tmp_path / "out").rename(tmp_path / "aside")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
    failed = place.merge(true_curve(), replace=True)
    assert isinstance(failed, Failed)
    assert failed.kind == "output"
    assert "replaced by another" in failed.reason
    assert list((tmp_path / "elsewhere").iterdir()) == []


# --- curves ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("of_grey", [EXPOSURES[0], EXPOSURES[2]])
def test_grey_and_colour_frames_in_one_bracket_are_named(tmp_path: Path, of_grey: int) -> None:
    place = Place(tmp_path)
    files = files_of(1, SIZE)
    place.write(files | grey({of_grey: files[of_grey]}))
    failed = place.merge(true_curve())
    assert isinstance(failed, Failed)
    assert failed.kind == "permanent"
    assert "grey and colour frames in one bracket" in failed.reason


def test_where_no_curve_fits_the_settings_say_what_becomes_of_it(tmp_path: Path) -> None:
    place = Place(tmp_path, ("jpg", "exr"))
    colour = true_curve()
    one = ResponseCurve(colour.log_response[:, 1:2])
    place.write(grey(files_of(1, SIZE)))
    for policy in ("refuse", "wait"):
        failed = place.merge(colour, without_response=policy)
        assert isinstance(failed, Failed)
        assert failed.kind == "curve"
        assert "the images have 1 channel, the response curve 3" in failed.reason
    fallback = place.merge(colour, without_response="mertens")
    assert isinstance(fallback, Published)
    assert (fallback.fallback, fallback.algorithm, fallback.curve_id) == (True, "mertens", None)
    assert [name[-3:] for name in fallback.products] == ["jpg"]
    # As soon as there is one, it is used; and no fallback comes after it.
    for curves in ((one,), (colour, one)):
        made = place.merge(*curves, without_response="mertens")
        assert isinstance(made, Published)
        assert made.curve_id == one.curve_id
    place.bracket = replace(place.bracket, revision=2)
    kept = place.merge(colour, without_response="mertens")
    assert isinstance(kept, Kept)
    assert "made with a response curve" in kept.reason


def test_radiance_alone_is_never_made_without_a_curve(tmp_path: Path) -> None:
    place = Place(tmp_path, ("exr",), without_response="mertens")
    failed = place.merge()
    assert isinstance(failed, Failed)
    assert (failed.kind, "no radiance" in failed.reason) == ("curve", True)


# --- doubtful exposures ---------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["exclude", "warn"])
def test_a_frame_that_contradicts_its_time_is_named_in_the_product(
    tmp_path: Path, policy: str
) -> None:
    place = Place(tmp_path, settings=replace(EXACT, contradiction=policy))
    files = dict(files_of(1, SIZE))
    files[160] = files[1280]
    place.write(files)
    result = place.merge(true_curve())
    assert isinstance(result, Published)
    found = place.provenance()
    assert found.notes == result.notes
    (note,) = result.notes
    assert "160 µs contradicts its exposure time" in note
    excluded = policy == "exclude"
    assert len(found.sources) == (4 if excluded else 5)
    assert found.complete is not excluded
    assert [u.path for u in found.unusable] == ([result.left_out[0].path] if excluded else [])
    assert place.merge(true_curve()).adopted


def test_what_a_merge_left_out_counts_as_given_until_it_is_rewritten(tmp_path: Path) -> None:
    place = Place(tmp_path, settings=replace(EXACT, contradiction="exclude"))
    sound = files_of(1, SIZE)
    place.write({**sound, 160: sound[1280]})
    made = place.merge(true_curve())
    given, exposures = len(place.bracket.exposures), place.bracket.exposures
    # One of those that were merged is gone: what would be left is less than what stands.
    place.bracket = replace(place.bracket, exposures=exposures[:-1])
    assert isinstance(place.merge(true_curve()), Kept)
    place.bracket = replace(place.bracket, exposures=exposures)
    again = place.merge(true_curve())
    assert (again.adopted, again.left_out) == (True, made.left_out)
    place.write(sound)
    whole = place.merge(true_curve())
    assert (whole.adopted, whole.left_out) == (False, ())
    assert len(place.provenance().sources) == given


@pytest.mark.parametrize("limit", [None, 6 * FRAME])
def test_an_orientation_of_its_own_is_noted_and_changes_nothing(
    tmp_path: Path, limit: int | None
) -> None:
    place = Place(tmp_path, ("png",), memory_limit=limit)
    place.merge(true_curve())
    before = cv2.imread(str(place.product("png")), cv2.IMREAD_UNCHANGED)
    files = dict(files_of(1, SIZE))
    tag = b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"
    segment = b"\xff\xe1" + (len(tag) + 2).to_bytes(2, "big") + tag
    files[320] = files[320][:2] + segment + files[320][2:]
    place.write(files)
    result = place.merge(true_curve())
    assert isinstance(result, Published)
    assert not result.adopted
    (note,) = result.notes
    assert note.startswith("the exposure of 320 µs has the EXIF orientation 6, others 1")
    assert np.array_equal(cv2.imread(str(place.product("png")), cv2.IMREAD_UNCHANGED), before)


def test_a_flood_of_junk_is_counted(tmp_path: Path) -> None:
    place = Place(tmp_path)
    junk = tuple(Unusable(f"{n:05}_80.jpg", "is empty") for n in range(8000))
    place.bracket = replace(place.bracket, left_out=junk)
    assert isinstance(place.merge(true_curve()), Published)
    found = place.provenance()
    assert len(found.unusable) + found.unusable_more == 8000
    assert len(found.to_json()) < 20_000


def test_too_many_exposures_and_sizes_that_differ_are_refused(tmp_path: Path) -> None:
    place = Place(tmp_path)
    first = place.bracket.exposures[0]
    many = tuple(replace(first, exposure_us=float(n + 1)) for n in range(65))
    failed = merge_bracket(place.plan, replace(place.bracket, exposures=many), Frames("/"))
    assert isinstance(failed, Failed)
    assert (failed.kind, "at most 64" in failed.reason) == ("permanent", True)
    files = dict(files_of(1, SIZE))
    files[160] = crop(files[160], 64)
    place.write(files)
    failed = place.merge(true_curve())
    assert isinstance(failed, Failed)
    assert "_160.jpg has 96×64×3 pixels" in failed.reason


def test_a_file_that_changed_since_it_was_read_is_read_again_by_the_caller(tmp_path: Path) -> None:
    place = Place(tmp_path)
    path = tmp_path / "in" / place.bracket.exposures[1].path
    os.utime(path, (1, 1))
    failed = place.merge(true_curve())
    assert failed == Failed("inputs", "has changed since it was read", (path.name,))


def test_frames_that_were_held_are_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path)
    frames = Frames(place.plan.root)
    for exposure in place.bracket.exposures:
        assert frames.hold(exposure, frames.read(exposure.path))
    assert frames.nbytes == len(EXPOSURES) * FRAME
    spare = frames.read(place.bracket.exposures[0].path)
    monkeypatch.setattr(Frames, "read", None)
    assert isinstance(place.merge(true_curve(), frames=frames), Published)
    frames.drop()
    assert frames.nbytes == 0
    assert not frames.hold(place.bracket.exposures[0], spare)


def with_comment(jpeg: bytes, text: bytes) -> bytes:
    return jpeg[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + jpeg[2:]


MOBOTIX = b"#:M1IMG\r\nPRD=MOBOTIX\r\nNAM=roof\r\nTIM=09:00:30.25\r\nEXP=%d\r\nLXR=99\r\n"


def test_the_header_of_the_middle_exposure_is_carried_over_with_exposure_0(tmp_path: Path) -> None:
    place = Place(tmp_path, settings=MergeSettings("mertens"))
    kept = replace(place.plan.products[0], keep_camera_header=True)
    place.write({us: with_comment(data, MOBOTIX % us) for us, data in files_of(1, SIZE).items()})
    assert isinstance(place.merge(products=(kept,)), Published)
    head = place.product().read_bytes()[:5000]
    assert MOBOTIX % 0 in head
    assert b"EXP=320" not in head
    assert place.provenance().used == len(files_of(1, SIZE))
    assert isinstance(place.merge(products=(kept,)), Published)
    forged = with_comment(b"", b'EXP=80 {"asi_watch_provenance": 1}')
    place.write({us: with_comment(d, forged[4:]) for us, d in files_of(1, SIZE).items()})
    assert place.merge(products=(kept,), replace=True).products
    assert b"EXP" not in place.product().read_bytes()[:5000]


def test_the_latest_is_the_newest_slot_also_of_a_camera_that_was_renamed(tmp_path: Path) -> None:
    place = Place(tmp_path, settings=MergeSettings("mertens"))
    spec = replace(place.plan.products[0], latest=True)
    place.merge(products=(spec,))
    latest = tmp_path / "out" / "latest.jpg"
    assert latest.read_bytes() == place.product().read_bytes()
    newest = place.bracket
    place.bracket = replace(newest, slot=slot(0))
    place.merge(products=(spec,))
    assert read_provenance(latest).slot == newest.slot
    place.bracket = replace(newest, slot=slot(2))
    place.merge(products=(spec,), camera="yard")
    assert (read_provenance(latest).camera, read_provenance(latest).slot) == ("yard", slot(2))


def test_a_name_that_two_slots_share_keeps_the_first_product(tmp_path: Path) -> None:
    place = Place(tmp_path, settings=MergeSettings("mertens"))
    name = "{timestamp:%Y%m%d%H%M%S}_0"
    spec = replace(place.plan.products[0], name=name, timezone="Europe/Berlin")
    place.bracket = replace(place.bracket, slot=datetime(2025, 10, 26, 0, 30))
    made = place.merge(products=(spec,))
    assert made.products == ("20251026023000_0.jpg",)
    place.bracket = replace(place.bracket, slot=datetime(2025, 10, 26, 1, 30))
    refused = place.merge(products=(spec,))
    assert (refused.kind, "of slot 2025-10-26 00:30:00" in refused.reason) == ("taken", True)
