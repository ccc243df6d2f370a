"""Numbers of the configuration, alone, in lists and in mappings.

The validators get what YAML made of the text and return the value the rest of the house works
with. They raise `refusal`, whose text says what would be right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BeforeValidator, PlainSerializer, PlainValidator

from asi_watch.config.refusals import is_number, refusal, shown

__all__ = [
    "Circle",
    "Disc",
    "DiscOrAuto",
    "Exposures",
    "ExposuresField",
    "Labels",
    "Subsampling",
    "ToneRange",
    "Workers",
]

_MAX_EXPOSURES: Final = 64


def read_labels(value: Any) -> dict[str, float]:
    """Read the mapping of exposure labels to exposure times."""
    if not isinstance(value, Mapping):
        raise refusal(f'{shown(value)} is no mapping; write one such as {{"0": 2000, "02": 500}}')
    wrong = [
        f"{shown(label)}: {shown(exposure)} is no exposure time; it must be a number above 0"
        for label, exposure in value.items()
        if not (is_number(exposure) and exposure > 0)
    ]
    wrong += [
        f"{shown(label)} is no label; it must be text that a file name can hold"
        for label in value
        if not label or "/" in label or "\0" in label
    ]
    if wrong:
        raise refusal(", ".join(wrong))
    return {str(label): exposure for label, exposure in value.items()}


Exposures: TypeAlias = tuple[float, ...] | int | Literal["auto"]


def read_exposures(value: Any) -> Exposures:
    """Read a list of exposure times, their count, or ``auto``."""
    if value == "auto":
        return "auto"
    if isinstance(value, int) and not isinstance(value, bool):
        if not 2 <= value <= _MAX_EXPOSURES:
            raise refusal(f"{value} exposures make no bracket; it must be 2…{_MAX_EXPOSURES}")
        return value
    if not isinstance(value, list | tuple):
        raise refusal(
            f"{shown(value)} says nothing about exposures; write a list such as [80, 160, 320], "
            "their count, or auto"
        )
    return _read_exposure_list(value)


def write_exposures(value: Exposures) -> list[float] | int | str:
    """Write what `read_exposures` reads."""
    return list(value) if isinstance(value, tuple) else value


def _read_exposure_list(values: Sequence[Any]) -> tuple[float, ...]:
    wrong = [shown(value) for value in values if not (is_number(value) and value > 0)]
    if wrong:
        raise refusal(f"{', '.join(wrong)}: an exposure time must be a number above 0")
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise refusal(f"{', '.join(map(shown, twice))}: every exposure time must stand there once")
    if not 2 <= len(values) <= _MAX_EXPOSURES:
        count = len(values)
        raise refusal(f"a list of {count} makes no bracket; it must hold 2…{_MAX_EXPOSURES} times")
    return tuple(values)


def read_tone_range(value: Any) -> tuple[float, float] | None:
    """Read the two ends of the tone curve, or nothing."""
    if value is None:
        return None
    pair = isinstance(value, list | tuple) and len(value) == 2 and all(map(is_number, value))
    if not pair or not value[0] < value[1]:
        raise refusal(f"{shown(value)}: write two numbers, the smaller first, such as [-6.5, 4.0]")
    return float(value[0]), float(value[1])


Circle: TypeAlias = tuple[float, float, float]


def read_sky_disc(value: Any) -> Circle | Literal["auto"] | None:
    """Read a circle as [x, y, radius], ``auto``, or nothing."""
    return "auto" if value == "auto" else _read_circle(value, "auto, null")


def read_given_disc(value: Any) -> Circle | None:
    """Read a circle as [x, y, radius], or nothing."""
    if value == "auto":
        raise refusal(
            "'auto' is for recalibrate.sky_disc alone: products need a circle that never changes;"
            " `asi-watch calibrate` and `asi-watch response show` tell the one that it finds"
        )
    return _read_circle(value, "null")


def _read_circle(value: Any, choices: str) -> Circle | None:
    if value is None:
        return None
    three = isinstance(value, list | tuple) and len(value) == 3 and all(map(is_number, value))
    if not three or not value[2] > 0:
        raise refusal(
            f"{shown(value)}: write {choices}, or column, row and radius of the sky disc in"
            " pixels, such as [1024, 1010, 980]"
        )
    return float(value[0]), float(value[1]), float(value[2])


def write_sky_disc(value: Circle | Literal["auto"] | None) -> list[float] | str | None:
    """Write what `read_sky_disc` and `read_given_disc` read."""
    return list(value) if isinstance(value, tuple) else value


def read_workers(value: Any) -> int | Literal["auto"]:
    """Read the number of threads, or ``auto``."""
    count = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 256
    if value != "auto" and not count:
        raise refusal(f"{shown(value)}: write auto or a whole number of threads, 1…256")
    result: int | Literal["auto"] = value
    return result


def read_subsampling(value: Any) -> Any:
    """Take 420 as the text that it is meant to be."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Labels: TypeAlias = Annotated[dict[str, float], PlainValidator(read_labels)]
ExposuresField: TypeAlias = Annotated[
    Exposures, PlainValidator(read_exposures), PlainSerializer(write_exposures)
]
ToneRange: TypeAlias = Annotated[tuple[float, float] | None, BeforeValidator(read_tone_range)]
Disc: TypeAlias = Annotated[
    Circle | None, PlainValidator(read_given_disc), PlainSerializer(write_sky_disc)
]
DiscOrAuto: TypeAlias = Annotated[
    Circle | Literal["auto"] | None,
    PlainValidator(read_sky_disc),
    PlainSerializer(write_sky_disc),
]
Workers: TypeAlias = Annotated[int | Literal["auto"], PlainValidator(read_workers)]
Subsampling: TypeAlias = Annotated[
    Literal["420", "422", "444"] | None, BeforeValidator(read_subsampling)
]
