"""What the newest pictures of a camera show: for `asi-watch check`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from asi_watch.brackets import slot_of
from asi_watch.files import answered

if TYPE_CHECKING:
    from asi_watch.cli._newest_files import NewestFiles
    from asi_watch.config.document import Way
    from asi_watch.config.model import CameraConfig
    from asi_watch.hdr.frame_checks import Sample
    from asi_watch.hdr.response import ResponseCurve

__all__ = ["frame_warnings"]

_BRACKETS = 3
_ANSWER_WITHIN = 30.0


def frame_warnings(
    camera: CameraConfig, found: NewestFiles, curves: Mapping[int, ResponseCurve]
) -> Iterator[tuple[Way, str]]:
    """Compare the newest brackets with their exposure times, the curve and `merge.high_clip`.

    Parameters
    ----------
    camera : CameraConfig
    found : NewestFiles
    curves : mapping of int to ResponseCurve
        By number of channels.
    """
    if not found.fitting:
        return
    (brackets,) = answered(_ANSWER_WITHIN, lambda: list(_samples(camera, found)))
    from asi_watch.hdr.frame_checks import check_frames, fits_high_clip

    clip = camera.merge.high_clip
    fitting = fits_high_clip([list(b.values()) for b in brackets or []], clip)
    if fitting is not None and camera.merge.algorithm != "mertens":
        text = f"{clip} does not fit the newest images, which saturate at a lower code"
        yield ("merge", "high_clip"), f"{text}; write {fitting}"
    notes: dict[str, int] = defaultdict(int)
    for bracket in brackets or []:
        curve = curves.get(next(iter(bracket.values())).shape[1])
        findings = check_frames(
            list(bracket.values()),
            list(bracket),
            None if curve is None else curve.log_response,
            high_clip=clip,
            exclude=False,
        )
        if findings.curve_misfit is not None:
            notes[findings.notes("µs")[-1 if findings.white is None else -2]] += 1
        for one in findings.contradictions:
            notes[f"the exposure of {one.exposure_time:g} µs contradicts its exposure time"] += 1
    for note, count in notes.items():
        if count == len(brackets or []):
            yield ("bracket", "exposures"), f"in each of the newest {count} brackets {note}"


def _samples(camera: CameraConfig, found: NewestFiles) -> Iterator[dict[float, Sample]]:
    """Read the newest brackets that have several exposures of one size."""
    from asi_watch.errors import ImageError
    from asi_watch.hdr.frame_checks import sample_frame
    from asi_watch.images.reading import read_image

    slots: defaultdict[datetime, dict[float, str]] = defaultdict(dict)
    for path, parsed in found.fitting:
        slot = slot_of(parsed.timestamp, camera.bracket.round_to, camera.bracket.offset)
        slots[slot].setdefault(parsed.exposure_us, path)
    several = [slots[slot] for slot in sorted(slots, reverse=True) if len(slots[slot]) > 1]
    for files in several[:_BRACKETS]:
        samples: dict[float, Sample] = {}
        for exposure_us, path in files.items():
            try:
                samples[exposure_us] = sample_frame(read_image(camera.watch / path).pixels)
            except ImageError:
                continue  # the daemon reports it
        if len(samples) > 1 and len({sample.shape for sample in samples.values()}) == 1:
            yield samples
