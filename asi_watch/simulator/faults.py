"""Everything that goes wrong between a camera and its folder, on purpose and by the seed."""

from __future__ import annotations

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


@dataclass(frozen=True)
class FaultRate:
    """How often a fault happens to a bracket: `rate` is its probability, 0…1."""

    kind: FaultKind
    rate: float = DEFAULT_RATE


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


def parse_faults(text: str) -> tuple[FaultRate, ...]:
    """Read a list of faults such as ``truncated,late:0.5``.

    Parameters
    ----------
    text : str
        Kinds, each with an optional rate per bracket (0…1, otherwise 0.2), or ``all``.

    Returns
    -------
    tuple of FaultRate

    Raises
    ------
    ValueError
        If a kind or a rate is not one.
    """
    rates: dict[FaultKind, FaultRate] = {}
    for word in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = word.partition(":")
        kinds = FAULTS if name == "all" else tuple(k for k in FAULTS if k == name)
        if not kinds:
            raise ValueError(f"fault {name!r} is not one of all, {', '.join(FAULTS)}")
        rates.update({kind: FaultRate(kind, _rate(number, word)) for kind in kinds})
    return tuple(rates.values())


def _rate(number: str, word: str) -> float:
    if not number:
        return DEFAULT_RATE
    try:
        rate = float(number)
    except ValueError:
        rate = -1.0
    if not 0 <= rate <= 1:
        raise ValueError(f"fault {word!r}: a rate is a number from 0 to 1, such as late:0.3")
    return rate


def apply_faults(
    frames: Sequence[Frame],
    faults: Sequence[FaultRate],
    seed: int,
    *,
    interval: dt.timedelta,
    settle: dt.timedelta,
) -> list[Arrival]:
    """Turn the frames of one bracket into what arrives in the folder.

    Each fault that happens takes another frame of the bracket; a bracket has at most as many
    faults as frames.

    Parameters
    ----------
    frames : sequence of Frame
        In the order they were taken.
    faults : sequence of FaultRate
    seed : int
        With the bracket's number it decides everything.
    interval, settle : timedelta
        Between brackets, and between the exposures of one.

    Returns
    -------
    list of Arrival, in order of time
    """
    if not frames:
        return []
    rng = np.random.default_rng([seed, frames[0].bracket, 0xFA])
    kinds = [fault.kind for fault in faults if rng.random() < fault.rate]
    chosen = [int(i) for i in rng.permutation(len(frames))]
    faults_of = dict(zip(chosen, kinds, strict=False))
    # Names count whole seconds: an exposure taken again needs a name of its own.
    after = frames[-1].timestamp + max(settle, dt.timedelta(seconds=1))
    arrivals: list[Arrival] = []
    for index, frame in enumerate(frames):
        kind = faults_of.get(index)
        if kind is None:
            arrivals.append(Arrival(frame.timestamp, frame))
        else:
            arrivals += _with_fault(frame, kind, after, interval, rng)
    return sorted(arrivals, key=lambda arrival: arrival.at)


def _with_fault(
    frame: Frame,
    kind: FaultKind,
    after: dt.datetime,
    interval: dt.timedelta,
    rng: np.random.Generator,
) -> list[Arrival]:
    """What becomes of one frame under one fault."""
    at = frame.timestamp
    half = replace(frame, data=frame.data[: len(frame.data) // 2])
    match kind:
        case "missing":
            return [Arrival(at, replace(frame, data=b""), kind, "nothing")]
        case "fifo":
            return [Arrival(at, replace(frame, data=b""), kind, "fifo")]
        case "zero":
            return [Arrival(at, replace(frame, data=b""), kind)]
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
            again = replace(frame, timestamp=after)
            return [Arrival(at, frame), Arrival(after, again, kind)]
