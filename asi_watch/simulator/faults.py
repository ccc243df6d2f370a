"""Everything that goes wrong between a camera and its folder, on purpose and by the seed."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

FaultKind = Literal[
    "truncated", "late", "duplicate", "missing", "garbage", "fifo", "zero", "completed-later"
]
FAULTS: tuple[FaultKind, ...] = get_args(FaultKind)
DEFAULT_RATE = 0.2

Faults = dict[FaultKind, float]
"""Probability, 0…1, that a kind of fault happens to a bracket."""


@dataclass(frozen=True)
class Frame:
    """One exposure as the camera took it; times are those of the camera's clock.

    `slot` is when its bracket began, `data` the image file's content.
    """

    bracket: int
    slot: dt.datetime
    timestamp: dt.datetime
    exposure_us: float
    data: bytes
    suffix: str = ".jpg"


@dataclass(frozen=True)
class Arrival:
    """A frame (or what is left of it) and when it lands in the folder, on the camera's clock.

    `node` says what is made: a file, a named pipe, or nothing at all.
    """

    at: dt.datetime
    frame: Frame
    fault: FaultKind | None = None
    node: Literal["file", "fifo", "nothing"] = "file"


def parse_faults(text: str) -> Faults:
    """Read a list of faults such as ``truncated,late:0.5``.

    Parameters
    ----------
    text : str
        Kinds, each with an optional rate per bracket (0…1, otherwise 0.2), or ``all``. ValueError
        if a kind or a rate is not one.
    """
    faults: Faults = {}
    for word in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = word.partition(":")
        kinds = FAULTS if name == "all" else [kind for kind in FAULTS if kind == name]
        if not kinds:
            raise ValueError(f"fault {name!r} is not one of all, {', '.join(FAULTS)}")
        try:
            rate = float(number or DEFAULT_RATE)
        except ValueError:
            rate = -1.0
        if not 0 <= rate <= 1:
            raise ValueError(f"fault {word!r}: a rate is a number from 0 to 1, such as late:0.3")
        faults |= dict.fromkeys(kinds, rate)
    return faults


def apply_faults(
    frames: Sequence[Frame],
    faults: Faults,
    seed: int,
    *,
    interval: dt.timedelta,
    settle: dt.timedelta,
) -> list[Arrival]:
    """Turn the frames of one bracket into what arrives in the folder, in order of time.

    Each fault that happens takes another frame of the bracket; a bracket has at most as many
    faults as frames.

    Parameters
    ----------
    frames : sequence of Frame
        In the order they were taken.
    faults : dict of str to float
    seed : int
        With the bracket's number it decides everything.
    interval, settle : timedelta
        Between brackets, and between the exposures of one.
    """
    if not frames:
        return []
    rng = np.random.default_rng([seed, frames[0].bracket, 0xFA])
    kinds = [kind for kind, rate in faults.items() if rng.random() < rate]
    faults_of = dict(zip(rng.permutation(len(frames)).tolist(), kinds, strict=False))
    # Names count whole seconds: an exposure taken again needs a name of its own.
    after = frames[-1].timestamp + max(settle, dt.timedelta(seconds=1))
    arrivals: list[Arrival] = []
    for index, frame in enumerate(frames):
        arrivals += _arrivals(frame, faults_of.get(index), after, interval, rng)
    return sorted(arrivals, key=lambda arrival: arrival.at)


def _arrivals(
    frame: Frame,
    kind: FaultKind | None,
    after: dt.datetime,
    interval: dt.timedelta,
    rng: np.random.Generator,
) -> list[Arrival]:
    """What becomes of one frame, under one fault or none."""
    at = frame.timestamp
    half = replace(frame, data=frame.data[: len(frame.data) // 2])
    empty = replace(frame, data=b"")
    match kind:
        case None:
            return [Arrival(at, frame)]
        case "missing":
            return [Arrival(at, empty, kind, "nothing")]
        case "fifo":
            return [Arrival(at, empty, kind, "fifo")]
        case "zero":
            return [Arrival(at, empty, kind)]
        case "garbage":
            return [Arrival(at, replace(frame, data=rng.bytes(len(frame.data))), kind)]
        case "truncated":
            return [Arrival(at, half, kind)]
        case "completed-later":
            return [Arrival(at, half, kind), Arrival(after, frame, kind)]
        case "late":
            # The next bracket is all there before this one.
            return [Arrival(after + interval, frame, kind)]
        case "duplicate":
            return [Arrival(at, frame), Arrival(after, replace(frame, timestamp=after), kind)]
