"""What further tricks would bring, or do: each beside what is done without it, in turns.

CPU of this thread and of those it starts, least of the rounds, as others share the machine; the
ratio is to the first row of each group. Where a trick changes pixels, the table says by how much.
"""

from __future__ import annotations

import argparse
import ctypes
import mmap
import time
from collections.abc import Callable, Mapping
from ctypes.util import find_library
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from asi_watch.hdr.merging import open_merge
from asi_watch.hdr.weighted_merge import Merge
from asi_watch.products import ProductSpec, RadianceLayers
from asi_watch.products.encode import encode_jpeg
from asi_watch.products.radiance import _planes
from benchmarks.frames import EXPOSURES_US, decoded, jpeg_frames, log_response
from benchmarks.reporting import save, show
from benchmarks.settings import MERGE

SIZE = 2048
MIDDLE = 2

Jobs = Mapping[str, Callable[[], object]]
Pixels = NDArray[np.uint8]


def least(jobs: Jobs, rounds: int) -> dict[str, tuple[float, float]]:
    """Least CPU and wall seconds of each job, measured in turns."""
    best = dict.fromkeys(jobs, (float("inf"), float("inf")))
    for _ in range(rounds + 1):  # the first is the warm-up; being slowest it does not count
        for name, job in jobs.items():
            cpu, wall = time.process_time(), time.perf_counter()
            job()
            spent = time.process_time() - cpu, time.perf_counter() - wall
            best[name] = min(best[name][0], spent[0]), min(best[name][1], spent[1])
    return best


class Tricks:
    """The groups of things to compare, on one bracket.

    Parameters
    ----------
    rounds : int
        Rounds of measuring.
    """

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds
        self._files = jpeg_frames(SIZE)
        self._file = self._files[MIDDLE]
        self._frames = decoded(self._files)
        self._picture = np.asarray(self._merge(self._frames).picture(np.uint8))
        self.results: dict[str, dict[str, Any]] = {}

    def _merge(self, frames: list[Pixels], threads: int = 1) -> Merge:
        merge = open_merge(MERGE, log_response(), frames[0].shape, threads=threads)
        for pixels, exposure in zip(frames, EXPOSURES_US, strict=True):
            merge.add(pixels, exposure)
        return merge

    def _group(self, title: str, jobs: Jobs, notes: Mapping[str, str] | None = None) -> None:
        best = least(jobs, self._rounds)
        first = next(iter(best.values()))
        rows = []
        for name, (cpu, wall) in best.items():
            note = (notes or {}).get(name, "")
            ratios = f"{cpu / first[0]:.2f}", f"{wall / first[1]:.2f}"
            rows.append((name, f"{1000 * cpu:.1f}", f"{1000 * wall:.1f}", *ratios, note))
        show(title, ("", "CPU ms", "wall ms", "CPU ×", "wall ×", ""), rows)
        print()
        self.results[title] = {
            name: {"cpu": cpu, "wall": wall, "note": (notes or {}).get(name, "")}
            for name, (cpu, wall) in best.items()
        }

    def decoding(self) -> None:
        """Decode with less care."""
        buffer = bytearray(SIZE * SIZE * 3)
        ways: dict[str, dict[str, Any]] = {
            "as it is done": {},
            "fast DCT": {"fastdct": True},
            "fast upsampling of colour": {"fastupsample": True},
            "both": {"fastdct": True, "fastupsample": True},
        }

        def job(options: dict[str, Any]) -> Callable[[], object]:
            return lambda: simplejpeg.decode_jpeg(
                self._file, colorspace="BGR", strict=True, buffer=buffer, **options
            )

        reference = self._merge(self._frames).radiance()
        notes = {}
        for name, options in list(ways.items())[1:]:
            frames = [simplejpeg.decode_jpeg(f, colorspace="BGR", **options) for f in self._files]
            off = np.abs(frames[MIDDLE].astype(int) - self._frames[MIDDLE])
            other = self._merge(frames).radiance()
            both = (reference.validity == 0) & (other.validity == 0)
            ln_off = (other.ln_radiance - reference.ln_radiance)[both].astype(float)
            rms = float(np.sqrt(np.mean(ln_off**2)))
            notes[name] = f"codes ± {off.max()}, rms of radiance {100 * rms:.2f} %"
        self._group(f"decoding {SIZE}²", {name: job(o) for name, o in ways.items()}, notes)

    def previews(self) -> None:
        """Decode at a fraction of the size, as for thumbnails."""

        def job(factor: int) -> Callable[[], object]:
            side = SIZE // factor
            return lambda: simplejpeg.decode_jpeg(
                self._file, colorspace="BGR", min_height=side, min_width=side
            )

        names = {1: "whole"} | {f: f"scaled to 1/{f} by the DCT" for f in (2, 4, 8)}
        self._group("previews", {name: job(factor) for factor, name in names.items()})

    def planes(self) -> None:
        """Leave JPEG's own YCbCr planes as they are, chroma at a quarter of the size."""
        turbo = _Turbo.load(self._file)
        if turbo is None:
            print("decoding to planes left out: needs libturbojpeg (libturbojpeg0)\n")
            return
        planes = turbo.planes()
        self._group(
            "JPEG's own planes (libturbojpeg), decoding",
            {"to BGR": turbo.to_bgr, "to Y, Cb, Cr planes": turbo.planes},
        )
        self._group(
            "JPEG's own planes, encoding",
            {
                "from BGR": lambda: simplejpeg.encode_jpeg(self._picture, 95, "BGR", "420"),
                "from Y, Cb, Cr planes": lambda: simplejpeg.encode_jpeg_yuv_planes(*planes, 95),
            },
        )

    def memory(self) -> None:
        """Decode into memory of several kinds, and merge frames that lie in it."""
        used = np.frombuffer(_mapped(SIZE * SIZE * 3, huge=True), np.uint8)

        def decode_into(buffer: object) -> None:
            simplejpeg.decode_jpeg(self._file, colorspace="BGR", strict=True, buffer=buffer)

        self._group(
            "memory to decode into",
            {
                "used again": lambda: decode_into(used),
                "fresh, huge pages": lambda: decode_into(_mapped(used.nbytes, huge=True)),
                "fresh, small pages": lambda: decode_into(_mapped(used.nbytes, huge=False)),
            },
        )
        out = np.empty_like(self._frames[0])
        merges = {}
        for name, huge in (("huge pages", True), ("small pages", False)):
            frames = []
            for frame in self._frames:
                pixels = np.frombuffer(_mapped(frame.nbytes, huge=huge), np.uint8)
                frames.append(pixels.reshape(frame.shape))
                frames[-1][:] = frame
            merges[name] = self._merge(frames)
        jobs = {name: _bound(merge, out) for name, merge in merges.items()}
        self._group("merging frames that lie in", jobs)

    def half_floats(self) -> None:
        """Give a half-float EXR its numbers through ln E, or straight from the sums."""
        merge = self._merge(self._frames)

        def through_ln() -> None:
            radiance = merge.radiance()
            layers = RadianceLayers(radiance.ln_radiance, radiance.validity)
            layers.bounds()
            _planes(layers, half=True)

        self._group(
            "planes and flags of a half-float EXR",
            {
                "ln E, exp(), rounding": through_ln,
                "straight from the sums (as it is done)": lambda: merge.radiance_half(1000.0),
            },
        )

    def strips(self) -> None:
        """Encode one picture in parallel strips."""
        jobs = {}
        for count in (1, 2, 8):
            spec = ProductSpec("jpg", strips=count)
            jobs[f"{count} strip{'s' if count > 1 else ''}"] = _encode(spec, self._picture)
        self._group("encoding a JPEG in strips, two threads", jobs)

    def sums_on_arrival(self) -> None:
        """Keep sums instead of frames: what it would save at the end, and cost before."""
        out = np.empty_like(self._picture)
        last = open_merge(MERGE, log_response(), out.shape, threads=1)
        last.add(self._frames[-1], EXPOSURES_US[-1])
        sums = np.zeros(out.shape, np.uint64)
        one = np.uint64(1)
        self._group(
            "sums on arrival",
            {
                "merge the five frames at the end, as it is done": _bound(
                    self._merge(self._frames), out
                ),
                "merge the last frame alone": _bound(last, out),
                "move a sum of 8 bytes a sample through memory once": lambda: np.add(
                    sums, one, out=sums
                ),
            },
            {
                "merge the last frame alone": "no sum could leave less at the end",
                "move a sum of 8 bytes a sample through memory once": "for each of four frames",
            },
        )


def _encode(spec: ProductSpec, picture: Pixels) -> Callable[[], object]:
    return lambda: encode_jpeg(spec, picture)


def _bound(merge: Merge, out: Pixels) -> Callable[[], object]:
    return lambda: merge.picture(out=out)


def _mapped(nbytes: int, *, huge: bool) -> mmap.mmap:
    """Fresh memory from the kernel, with or without huge pages."""
    memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE if huge else mmap.MADV_NOHUGEPAGE)
    return memory


class _Turbo:
    """libturbojpeg by its own interface (2.x), for one file."""

    _BGR, _YUV_420 = 1, 2

    def __init__(self, library: ctypes.CDLL, data: bytes) -> None:
        self._library, self._data = library, data
        library.tjInitDecompress.restype = ctypes.c_void_p
        self._handle = ctypes.c_void_p(library.tjInitDecompress())
        self._bgr = np.empty((SIZE, SIZE, 3), np.uint8)
        half = SIZE // 2
        self._planes = [np.empty((n, n), np.uint8) for n in (SIZE, half, half)]

    @classmethod
    def load(cls, data: bytes) -> _Turbo | None:
        """Find the library; None if it is not there."""
        name = find_library("turbojpeg")
        return None if name is None else cls(ctypes.CDLL(name), data)

    def _source(self) -> tuple[ctypes.c_void_p, bytes, ctypes.c_ulong]:
        return self._handle, self._data, ctypes.c_ulong(len(self._data))

    def to_bgr(self) -> Pixels:
        """Decode to BGR."""
        to = self._bgr.ctypes.data_as(ctypes.c_void_p)
        if self._library.tjDecompress2(*self._source(), to, SIZE, 0, SIZE, self._BGR, 0):
            raise RuntimeError("libturbojpeg failed")
        return self._bgr

    def planes(self) -> list[Pixels]:
        """Decode to the planes of the file."""
        to = (ctypes.c_void_p * 3)(*(plane.ctypes.data for plane in self._planes))
        if self._library.tjDecompressToYUVPlanes(*self._source(), to, SIZE, None, SIZE, 0):
            raise RuntimeError("libturbojpeg failed")
        return self._planes


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tricks", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=25, help="of measuring [%(default)s]")
    tricks = Tricks(parser.parse_args(arguments).rounds)
    for group in (
        tricks.decoding,
        tricks.planes,
        tricks.previews,
        tricks.memory,
        tricks.sums_on_arrival,
        tricks.half_floats,
        tricks.strips,
    ):
        group()
    print("written:", save("tricks", {"groups": tricks.results}))


if __name__ == "__main__":
    main()
