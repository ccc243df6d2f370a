"""The merge against its formula, and the properties it promises."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asi_watch.hdr import engine as merge_engine
from asi_watch.hdr.disc import SkyDisc
from asi_watch.hdr.lookup_tables import bracket_tables, weighted_mean
from asi_watch.hdr.merge_settings import OVER, UNDER, VALID, Tone
from asi_watch.hdr.merging import merge_memory, open_merge
from asi_watch.hdr.tone import GammaCurve, picture_table
from tests.hdr.brackets import TIMES, by_formula, curve, merge_frames, opened, settings, shoot
from tests.hdr.formula import reference_picture
from tests.skies import sky_bracket

KERNEL = merge_engine._kernel
needs_kernel = pytest.mark.skipif(KERNEL is None, reason="the compiled kernel is not built")
MOST = KERNEL.vectors() if KERNEL is not None else ""
VECTORS = ("plain", "avx2", "avx512")


def _vectors(name: str) -> Any:
    """Mark what this machine cannot run."""
    there = KERNEL is not None and VECTORS.index(name) <= VECTORS.index(MOST)
    reason = f"no compiled kernel with {name} instructions on this machine"
    return pytest.param(name, marks=pytest.mark.skipif(not there, reason=reason))


COMPILED = [_vectors(name) for name in VECTORS]


@pytest.fixture(params=["numpy", *COMPILED])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Merge in numpy, or in the kernel with no more than these instructions."""
    if request.param == "numpy":
        monkeypatch.setattr(merge_engine, "_kernel", None)
        yield request.param
        return
    assert KERNEL is not None
    assert KERNEL.vectors(request.param) == request.param
    yield request.param
    KERNEL.vectors(MOST)


@pytest.mark.parametrize("algorithm", ["debevec_custom", "debevec_exact"])
@pytest.mark.parametrize("weight_type", ["triangle", "sine", "noise"])
@pytest.mark.parametrize("lnE_range", [None, (-6.5, -1.5)])
def test_agrees_with_the_formula(engine, algorithm, weight_type, lnE_range):
    how = settings(algorithm=algorithm, weight_type=weight_type, lnE_range=lnE_range)
    frames = shoot(TIMES)
    wanted = by_formula(frames, TIMES, how)
    for dtype, allowed in ((np.uint8, 1), (np.uint16, 2)):
        picture = merge_frames(frames, TIMES, how, curve(), dtype)
        formula = reference_picture(wanted, lnE_range=lnE_range, gamma=2.2, dtype=dtype)
        assert picture.dtype == dtype
        assert np.abs(picture.astype(int) - formula).max() <= allowed
    merge = opened(how, frames)
    radiance = merge.radiance()
    assert np.abs(radiance.ln_radiance - wanted.ln_radiance).max() < 1e-4
    np.testing.assert_array_equal(radiance.validity, wanted.validity)
    assert set(np.unique(radiance.validity)) == {VALID, UNDER, OVER}


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 12, 13, 16, 29])
def test_agrees_for_any_number_of_exposures(engine, count):
    times = tuple(50.0 * 1.25**k for k in range(count))
    frames = shoot(times, shape=(9, 31, 3))
    for weight_type in ("triangle", "sine"):
        how = settings(weight_type=weight_type)
        wanted = by_formula(frames, times, how)
        picture = merge_frames(frames, times, how, curve())
        formula = reference_picture(wanted, lnE_range=None, gamma=2.2)
        assert np.abs(picture.astype(int) - formula).max() <= 1


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 1, 1), (5, 7, 1), (3, 513, 3), (2, 1537, 1)])
def test_agrees_for_any_size(engine, shape):
    frames = shoot(TIMES, shape=shape)
    wanted = reference_picture(by_formula(frames, TIMES, settings()), lnE_range=None, gamma=2.2)
    picture = merge_frames(frames, TIMES, settings(), curve(shape[2]))
    assert picture.shape == shape
    assert np.abs(picture.astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_order_and_arrival_change_no_byte(engine, dtype):
    frames = shoot(TIMES, shape=(11, 29, 3))
    wanted = merge_frames(frames, TIMES, settings(), curve(), dtype)
    for order in itertools.islice(itertools.permutations(range(5)), 0, 120, 17):
        merge = open_merge(settings(), curve(), frames[0].shape)
        for i in order:
            merge.add(frames[i], TIMES[i])
            merge.picture(dtype)  # looking early must not disturb
        np.testing.assert_array_equal(merge.picture(dtype), wanted)


def test_exposures_of_equal_time_in_any_order(engine):
    times = (100.0, 100.0, 800.0, 800.0)
    frames = shoot(times, shape=(13, 17, 3), noise=0.6)
    pictures = {
        merge_frames(
            [frames[i] for i in order], [times[i] for i in order], settings(), curve()
        ).tobytes()
        for order in itertools.permutations(range(4))
    }
    assert len(pictures) == 1


def test_unit_of_time_does_not_matter(engine):
    frames = shoot(TIMES)
    in_seconds = [time * 1e-6 for time in TIMES]
    for algorithm in ("debevec_custom", "debevec_exact", "debevec", "mertens"):
        how = settings(algorithm=algorithm)
        a = merge_frames(frames, TIMES, how, curve())
        b = merge_frames(frames, in_seconds, how, curve())
        # Where the exposures contradict each other the formula says ln E = 0, in either unit.
        same = np.abs(a.astype(int) - b) <= 1
        assert same.mean() > 0.999
        assert same.all() or algorithm == "debevec_custom"


@pytest.mark.parametrize("engine", COMPILED, indirect=True)
@pytest.mark.parametrize("algorithm", ["debevec_custom", "debevec_exact"])
@pytest.mark.parametrize("weight_type", ["triangle", "sine", "noise"])
@pytest.mark.parametrize("lnE_range", [None, (-7.0, -1.0)])
def test_kernel_and_numpy_give_the_same_bytes(
    engine, monkeypatch, algorithm, weight_type, lnE_range
):
    how = settings(algorithm=algorithm, weight_type=weight_type, lnE_range=lnE_range)
    if algorithm == "debevec_exact":
        how = replace(how, tone=Tone("photographic"))
    for shape, count in (((23, 41, 3), 5), ((8, 1030, 1), 3), ((6, 25, 3), 14), ((5, 704, 3), 4)):
        times = tuple(60.0 * 1.6**k for k in range(count))
        here = _digest(how, shape, times)
        with monkeypatch.context() as without:
            without.setattr(merge_engine, "_kernel", None)
            assert _digest(how, shape, times) == here


@pytest.mark.parametrize("engine", COMPILED, indirect=True)
@pytest.mark.parametrize("times", [(100.0,) * 14, (100.0,) * 20, (100.0,) * 33 + (200.0,) * 31])
def test_kernel_and_numpy_agree_on_many_equal_times(engine, monkeypatch, times):
    """More counters than fit a byte, and sums of as many exposures as a bracket may have."""
    shape = (3, 70, 3)
    here = _digest(settings(), shape, times)
    monkeypatch.setattr(merge_engine, "_kernel", None)
    assert _digest(settings(), shape, times) == here


def _digest(how, shape, times):
    frames = shoot(times, shape=shape, noise=0.4)
    digests = []
    discs = (None, _disc(shape), SkyDisc(1.0, 2.0, 2.5))
    for disc, deghost in itertools.product(discs, ("off", "weights")):
        merge = opened(replace(how, sky_disc=disc, deghost=deghost), frames, times)
        radiance, half = merge.radiance(), merge.radiance_half(1000.0)
        arrays = (
            merge.picture(np.uint8),
            merge.picture(np.uint16),
            radiance.ln_radiance,
            radiance.validity,
        )
        if half is not None:
            arrays += (half.planes, half.validity)
        digests += [hashlib.sha256(array.tobytes()).hexdigest() for array in arrays]
    return digests


def _disc(shape):
    return SkyDisc(shape[1] / 2, shape[0] / 2, min(shape[:2]) / 2)


@given(st.data())
def test_any_codes_agree_with_the_formula(data):
    count = data.draw(st.integers(1, 6))
    times = data.draw(st.lists(st.floats(1e-5, 1e5), min_size=count, max_size=count, unique=True))
    low = data.draw(st.integers(0, 100))
    how = settings(
        algorithm=data.draw(st.sampled_from(["debevec_custom", "debevec_exact"])),
        weight_type=data.draw(st.sampled_from(["triangle", "sine"])),
        low_clip=low,
        high_clip=data.draw(st.integers(low + 40, 255)),
    )
    seed = data.draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    edge_codes = np.array([0, 1, how.low_clip, how.high_clip, 254, 255])
    frames = []
    for _ in range(count):
        codes = rng.integers(0, 256, (4, 9, 3))
        picks = rng.random(codes.shape) < 0.6
        codes[picks] = rng.choice(edge_codes, picks.sum())
        frames.append(codes.astype(np.uint8))
    wanted = by_formula(frames, times, how)
    merge = opened(how, frames, times)
    radiance = merge.radiance()
    np.testing.assert_array_equal(radiance.validity, wanted.validity)
    # Random codes contradict each other as no scene does: the sine's smallest weights, 1.5e-4 of
    # its largest, then meet differences of ten in ln E.
    allowed = 1e-4 if how.weight_type == "triangle" else 2e-3
    assert np.abs(radiance.ln_radiance - wanted.ln_radiance).max() < allowed


def test_saturated_and_dark_everywhere(engine):
    shape = (4, 5, 3)
    for algorithm in ("debevec_custom", "debevec_exact"):
        how = settings(algorithm=algorithm)
        for code, flag, shown in ((255, OVER, 255), (0, UNDER, 0)):
            merge = opened(how, [np.full(shape, code, np.uint8)] * 5)
            radiance = merge.radiance()
            g = curve().astype(float)
            end = (
                g.max(axis=0) - np.log(min(TIMES))
                if flag == OVER
                else g.min(axis=0) - np.log(max(TIMES))
            )
            np.testing.assert_allclose(radiance.ln_radiance, np.broadcast_to(end, shape), rtol=1e-6)
            assert (radiance.validity == flag).all()
            assert (merge.picture() == shown).all()
            assert np.isinf(merge.uncertainty()).all()


def test_over_wins_over_under(engine):
    dark, bright = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)
    merge = opened(settings(), [bright, dark], [1000.0, 10.0])
    assert (merge.radiance().validity == OVER).all()


def test_contradicting_exposures(engine):
    """Shortest saturated, longest dark: the formula's 0 in one algorithm, the top in the other."""
    dark, bright = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)
    for algorithm, expected in (("debevec_custom", [-9.0]), ("debevec_exact", None)):
        how, g = settings(algorithm=algorithm), curve() - np.float32(5)
        merge = opened(how, [bright, dark], [1.0, 10.0], g)
        radiance = merge.radiance()
        top = (curve().astype(float) - 5).max(axis=0)
        assert expected is None or (top < 0).all()
        np.testing.assert_allclose(radiance.ln_radiance[0, 0], top, rtol=1e-6)
        assert (radiance.validity == OVER).all()


def test_over_needs_all_of_the_longest(engine):
    dark, bright = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)
    merge = opened(settings(), [bright, dark], [1.0, 1.0])
    assert (merge.radiance().ln_radiance == 0).all()


@pytest.mark.parametrize("gamma", [1.0, 2.2])
@pytest.mark.parametrize("width", [3.0, 0.5, 0.05])
def test_narrow_range_stays_within_a_code(engine, gamma, width):
    """A narrow ln E range is steep everywhere, and with a gamma endlessly so at its foot."""
    how = settings(lnE_range=(-6.0, -6.0 + width), gamma=gamma)
    frames = shoot(TIMES, shape=(150, 150, 3))
    formula = reference_picture(
        by_formula(frames, TIMES, how), lnE_range=how.lnE_range, gamma=gamma
    )
    picture = merge_frames(frames, TIMES, how, curve())
    assert np.abs(picture.astype(int) - formula).max() <= 1


def test_rows_one_by_one_are_the_picture(engine):
    frames = shoot(TIMES, shape=(17, 23, 3))
    merge = opened(settings(sky_disc=_disc((17, 23))), frames)
    for dtype in (np.uint8, np.uint16):
        whole = merge.picture(dtype)
        rows = np.empty_like(whole)
        for first, last in ((0, 1), (1, 9), (9, 17)):
            merge.picture_rows(first, last, rows[first:last])
        np.testing.assert_array_equal(rows, whole)
        given_out = np.empty_like(whole)
        assert merge.picture(out=given_out) is given_out
        np.testing.assert_array_equal(given_out, whole)


def test_threads_change_nothing(engine):
    frames = shoot(TIMES, shape=(64, 33, 3))
    pictures = [
        merge_frames(frames, TIMES, settings(), curve(), threads=threads) for threads in (1, 2, 5)
    ]
    np.testing.assert_array_equal(pictures[0], pictures[1])
    np.testing.assert_array_equal(pictures[0], pictures[2])


def test_outside_the_disc(engine):
    shape = (21, 30, 3)
    frames = shoot(TIMES, shape=shape)
    for disc in (_disc(shape), SkyDisc(-3.0, 5.0, 9.5), SkyDisc(15.0, 10.0, 90.0)):
        mask = disc.mask(shape)
        merge = opened(settings(lnE_range=(-12.0, 0.0), sky_disc=disc), frames)
        plain = opened(settings(lnE_range=(-12.0, 0.0)), frames)
        np.testing.assert_array_equal(
            merge.picture(), np.where(mask[..., None], plain.picture(), 0)
        )
        radiance = merge.radiance()
        assert (radiance.validity[~mask] == UNDER).all()
        assert np.isinf(merge.uncertainty()[~mask]).all()
        half = merge.radiance_half(1000.0)
        np.testing.assert_array_equal(half.validity, radiance.validity.transpose(2, 0, 1))
        lowest = np.exp(radiance.ln_radiance.transpose(2, 0, 1)[:, ~mask].astype(float)) * 1000
        np.testing.assert_allclose(half.planes[:, ~mask], lowest, rtol=5e-4)


@pytest.mark.parametrize("shape", [(23, 41, 3), (9, 30, 1), (3, 50001, 3)])
def test_half_floats_are_the_radiance_and_its_flags(engine, shape):
    frames = shoot(TIMES, shape=shape)
    merge = opened(settings(algorithm="debevec_exact"), frames)
    radiance = merge.radiance()
    wanted = np.exp(radiance.ln_radiance.astype(float)).transpose(2, 0, 1) * 1000.0
    half = merge.radiance_half(1000.0)
    assert half.planes.dtype == np.float16
    np.testing.assert_allclose(half.planes, wanted, rtol=8e-4)
    np.testing.assert_array_equal(half.validity, radiance.validity.transpose(2, 0, 1))
    assert set(np.unique(half.validity)) == {0, 1, 2}


@pytest.mark.parametrize("factor", [1e-4, 1e9])
def test_half_floats_are_given_only_where_they_can_hold_everything(factor):
    frames = shoot(TIMES)
    merge = opened(settings(algorithm="debevec_exact"), frames)
    assert merge.radiance_half(factor) is None
    with pytest.raises(ValueError, match="factor"):
        merge.radiance_half(0.0)


def test_uncertainty_falls_with_light_and_exposures(engine):
    how, flat = settings(algorithm="debevec_exact"), np.full((1, 4, 1), 128, np.uint8)
    one, two = opened(how, [flat], [100.0]), opened(how, [flat, flat], [100.0, 100.0])
    ratio = one.uncertainty() / two.uncertainty()
    np.testing.assert_allclose(ratio, np.sqrt(2), rtol=1e-5)
    darker = opened(how, [flat // 4], [100.0])
    assert (darker.uncertainty() > one.uncertainty()).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"algorithm": "robertson"}, "algorithm"),
        ({"weight_type": "hat"}, "weight_type"),
        ({"low_clip": 250, "high_clip": 5}, "low_clip"),
        ({"gamma": 0.0}, "gamma"),
        ({"saturation": 0}, "saturation"),
        ({"lnE_range": (1.0, 1.0)}, "lnE_range"),
    ],
)
def test_settings_out_of_range(change, words):
    with pytest.raises(ValueError, match=words):
        settings(**change)


def test_what_does_not_fit_is_refused():
    frames = shoot(TIMES, shape=(6, 7, 3))
    merge = open_merge(settings(), curve(), (6, 7, 3))
    with pytest.raises(ValueError, match="no exposure"):
        merge.picture()
    with pytest.raises(ValueError, match="8-bit"):
        merge.add(frames[0].astype(np.uint16), 10.0)
    with pytest.raises(ValueError, match="one size"):
        merge.add(frames[0][:3], 10.0)
    for time in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="positive"):
            merge.add(frames[0], time)
    merge.add(frames[0], 10.0)
    with pytest.raises(ValueError, match="uint8 or uint16"):
        merge.picture(np.float32)
    with pytest.raises(ValueError, match="fit"):
        merge.picture_rows(3, 9, np.empty((6, 7, 3), np.uint8))
    with pytest.raises(ValueError, match="contiguous"):
        merge.picture(out=np.empty((6, 14, 3), np.uint8)[:, ::2])
    with pytest.raises(ValueError, match="response"):
        open_merge(settings(), None, (6, 7, 3))
    with pytest.raises(ValueError, match="channels"):
        open_merge(settings(), curve(1), (6, 7, 3))
    with pytest.raises(ValueError, match="lies outside"):
        open_merge(settings(sky_disc=SkyDisc(0, -9, 3)), curve(), (6, 7, 3))


@pytest.mark.parametrize("algorithm", ["debevec_custom", "debevec_exact", "debevec", "mertens"])
def test_no_more_than_64_exposures_in_any_merge(algorithm):
    merge = open_merge(settings(algorithm=algorithm), curve(), (9, 9, 3))
    for k in range(64):
        merge.add(np.full((9, 9, 3), 100, np.uint8), 1.0 + k)
    with pytest.raises(ValueError, match="at most 64 exposures"):
        merge.add(np.full((9, 9, 3), 100, np.uint8), 100.0)


def test_memory_of_a_merge_is_known_before():
    """120 exposures of 12 megapixels, fused, took over six gigabytes."""
    frame = 4000 * 3000 * 3
    for algorithm, few, many in (
        ("debevec_exact", 10, 69),
        ("mertens", 26.1, 85.1),
        ("debevec", 36.1, 154.1),
    ):
        for count, wanted in ((5, few), (64, many)):
            assert merge_memory(algorithm, (3000, 4000, 3), count) <= wanted * frame
    assert merge_memory("mertens", (3000, 4000), 5) == 4000 * 3000 * (5 + 43)


@pytest.mark.parametrize(
    "foreign",
    [np.uint16, np.float32, np.float64, np.int8, np.bool_, np.dtype(">u2"), np.dtype("O")],
    ids=str,
)
def test_arrays_of_other_kinds_are_refused_by_name(foreign):
    merge = open_merge(settings(), curve(), (6, 7, 3))
    with pytest.raises(ValueError, match=r"8-bit pixels \(uint8, 0 … 255\); got .*convert it"):
        merge.add(np.zeros((6, 7, 3)).astype(foreign), 10.0)
    for shape in ((6, 7, 4), (6, 7, 2), (7,), (1, 6, 7, 3), (0, 7, 3)):
        with pytest.raises(ValueError, match="shape"):
            open_merge(settings(), curve(), shape)


@pytest.mark.parametrize(
    "view",
    [
        np.asfortranarray,
        lambda f: f[::-1, ::-1][::-1, ::-1],
        lambda f: np.repeat(np.repeat(f, 2, 0), 2, 1)[::2, ::2],
        lambda f: np.ascontiguousarray(f[..., ::-1])[..., ::-1],
    ],
    ids=["fortran", "flipped", "strided", "channels flipped"],
)
def test_arrays_in_other_layouts_are_merged_alike(view):
    frames = shoot(TIMES, shape=(20, 30, 3))
    for algorithm in ("debevec_exact", "debevec", "mertens"):
        how = settings(algorithm=algorithm)
        wanted = merge_frames(frames, TIMES, how, curve())
        found = merge_frames([view(f) for f in frames], TIMES, how, curve())
        np.testing.assert_array_equal(found, wanted)


def test_without_the_extension():
    """The same bytes come out where nothing was compiled."""
    program = (
        "import hashlib, sys\n"
        "from asi_watch.hdr.engine import kernel_name\n"
        "from tests.hdr.brackets import *\n"
        "frames = shoot(TIMES, shape=(40, 601, 3))\n"
        "kinds = (np.uint8, np.uint16)\n"
        "bytes_ = [merge_frames(frames, TIMES, settings(), curve(), k).tobytes() for k in kinds]\n"
        "sys.stdout.write(kernel_name() + ' ')\n"
        "sys.stdout.write(hashlib.sha256(b''.join(bytes_)).hexdigest())\n"
    )
    frames = shoot(TIMES, shape=(40, 601, 3))
    here = b"".join(
        merge_frames(frames, TIMES, settings(), curve(), kind).tobytes()
        for kind in (np.uint8, np.uint16)
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "ASI_WATCH_NO_KERNEL": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.split() == ["numpy", hashlib.sha256(here).hexdigest()]


def test_8_bit_codes_on_lines_are_the_tone_curve():
    """The usual curve is drawn by lines; one that is too steep somewhere is not."""
    tables = bracket_tables(weighted_mean(settings(), curve()), TIMES)
    ends = (tuple(tables.minimum.tolist()), tuple(tables.maximum.tolist()))
    table = picture_table(tables, GammaCurve(*ends, 2.2), np.dtype(np.uint8))
    assert table.knots is not None
    tone = GammaCurve(float(tables.minimum[1]), float(tables.maximum[1]), 2.2)
    x = (np.arange(table.count) + 0.5) / table.scale[1]
    exact = tone.levels(tables.offset[1] + x * tables.unit[1]) * 255
    off = table.cells[1, : table.count] - exact
    assert -1.1 < off.min() < off.max() < 0.1
    steep = GammaCurve(-6.0, -5.9, 2.2)
    assert picture_table(tables, steep, np.dtype(np.uint8)).knots is None


@needs_kernel
def test_vectors_are_named_and_bounded():
    assert KERNEL is not None
    try:
        assert KERNEL.vectors("plain") == KERNEL.vectors() == "plain"
        assert merge_engine.kernel_name() == "c/plain"
        with pytest.raises(ValueError, match="avx2"):
            KERNEL.vectors("sse")
    finally:
        assert KERNEL.vectors("avx512") == MOST


@needs_kernel
def test_kernel_measures_its_buffers():
    which, ranges = np.array([[0, 1, 0, 0]], np.int32), np.zeros(3072, np.uint8)
    agreeing = (3, which, ranges, np.zeros((2, 3, 256), np.uint16))
    outside = [
        np.array([row], np.int32)
        for row in ([1, 0, 0, 0], [0, 0, 0, 0], [0, 3, 0, 0], [0, 1, -1, 0])
    ]
    compared = [
        (2, *agreeing[1:]),
        (3, which[:, :3].copy(), *agreeing[2:]),
        (3, which, ranges[:3071], agreeing[3]),
        (*agreeing[:3], agreeing[3][:1].copy()),
        *((3, one, *agreeing[2:]) for one in outside),
    ]
    words = np.zeros((1, 3, 256), np.uint64)
    scale, cells = np.ones(3, np.float32), np.zeros((3, 20), np.uint8)
    frame, out = np.zeros((2, 6), np.uint8), np.zeros((2, 6), np.uint8)
    good = [(frame,), words, 30, None, None, 0, 2, 6, scale, cells, 16, None, None, 1, out]
    assert KERNEL is not None
    KERNEL.merge_codes(*good)
    KERNEL.merge_codes(*good[:4], agreeing, *good[5:])
    spans = np.array([[0, 6], [3, 7]], np.int32)
    bad = {
        0: ((), (frame[:1],), [frame]),
        1: (words[:, :2].copy(),),
        2: (8, 32),
        3: (spans, spans[:1].copy(), np.array([[0, 6], [4, 2]], np.int32)),
        4: compared,
        5: (-1, 3),
        6: (3,),
        7: (0, 7),
        8: (np.ones(2, np.float32),),
        9: (cells[:, :19].copy(),),
        10: (0, 17),
        11: (np.zeros(4, np.float32),),
        12: (np.zeros((3, 2, 256), np.uint8),),
        13: (2, 3),
        14: (out[:1],),
    }
    for index, values in bad.items():
        for value in values:
            with pytest.raises((ValueError, TypeError)):
                KERNEL.merge_codes(*good[:index], value, *good[index + 1 :])
    frozen = out.copy()
    frozen.setflags(write=False)
    with pytest.raises((ValueError, BufferError)):
        KERNEL.merge_codes(*good[:-1], frozen)


@needs_kernel
def test_kernel_measures_its_planes():
    words, under = np.zeros((1, 3, 256), np.uint64), np.zeros(3, np.uint16)
    scale, cells = np.ones(3, np.float32), np.zeros((3, 20), np.uint16)
    frame, planes = np.zeros((2, 6), np.uint8), np.zeros((3, 2, 2), np.uint16)
    good = [(frame,), words, 30, None, None, 0, 2, 6, scale, cells, 16, under, 3, planes]
    good.append(np.zeros((3, 2, 2), np.uint8))
    assert KERNEL is not None
    KERNEL.merge_half(*good)
    bad = {
        0: ((frame[:1],),),
        7: (5, 7),
        8: (np.ones(2, np.float32),),
        9: (cells[:, :19].copy(),),
        10: (0, 17),
        11: (under[:2],),
        12: (2, 0),
        13: (planes[:, :1].copy(), planes[:2].copy(), np.zeros(5, np.uint8)),
        14: (np.zeros((3, 2, 1), np.uint8),),
    }
    for index, values in bad.items():
        for value in values:
            wrong = [*good[:index], value, *good[index + 1 :]]
            with pytest.raises((ValueError, TypeError)):
                KERNEL.merge_half(*wrong)


@pytest.mark.parametrize("jpeg", [False, True])
def test_the_stated_error_covers_the_true_one(jpeg):
    """With JPEG two thirds of it were missing: what all exposures share, no mean takes away."""
    sky = sky_bracket(640, jpeg=jpeg)
    merge = opened(
        settings(algorithm="debevec_exact", sky_disc=SkyDisc(319.5, 319.5, 307)),
        sky.images, sky.exposures_us, sky.log_response,
    )  # fmt: skip
    radiance, error = merge.radiance(), merge.uncertainty()
    off = np.abs(radiance.ln_radiance - np.log(sky.radiance[0] / 1000))
    sigmas = (off / error)[radiance.validity == VALID]
    assert 0.63 < (sigmas < 1).mean() < 0.78
    assert (sigmas < 2).mean() > 0.87
