"""How single values of the configuration are read: each refusal says what would be right.

The validators get what YAML made of the text and return the value the rest of the house works
with. They raise `refusal`, whose text reaches the operator unchanged.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BeforeValidator, PlainSerializer, PlainValidator, ValidationInfo
from pydantic_core import PydanticCustomError

from asi_watch.config.sizes import format_size, parse_size
from asi_watch.durations import NEVER, format_duration, parse_duration
from asi_watch.naming import NamePattern, parse_timezone

__all__ = ["REFUSED", "refusal", "refusals"]

REFUSED: Final = "asi_watch_refused"
"""The type of pydantic errors whose text is already written for the operator."""

READABLE_EXTENSIONS: Final = ("jpg", "jpeg", "jpe", "jfif", "png", "jp2")
_MAX_EXPOSURES: Final = 64


def refusal(text: str) -> PydanticCustomError:
    """Make the error for one value, with its final text."""
    return PydanticCustomError(REFUSED, "{text}", {"text": text})


def refusals(found: Sequence[tuple[str, str]]) -> PydanticCustomError:
    """Make the error for several keys of a section: pairs of key and text."""
    text = "; ".join(f"{key}: {message}" for key, message in found)
    return PydanticCustomError(REFUSED, "{text}", {"text": text, "found": list(found)})


def shown(value: object) -> str:
    """Write a value as the operator would, cut to a readable length."""
    if value is None:
        return "an empty value"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def is_number(value: object) -> bool:
    """Tell whether a value is a finite number (true and false are none)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# -- durations and sizes -----------------------------------------------------------------------


def read_duration(value: Any) -> timedelta:
    """Read ``30s`` and the like; a bare number is refused because its unit is anyone's guess."""
    if isinstance(value, timedelta):
        return value
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise refusal(f"{shown(value)} is not a duration; write one such as 30s")
    try:
        return parse_duration(str(value))
    except ValueError as error:
        raise refusal(str(error)) from None


def read_duration_or_never(value: Any) -> timedelta | None:
    """Read a duration, or ``never`` as None."""
    return None if value is None or value == NEVER else read_duration(value)


def read_age_or_never(value: Any) -> Any:
    """Refuse a bare number as an age: days are meant, but a unit must stand there."""
    if is_number(value):
        raise refusal(f"{shown(value)} has no unit; did you mean {value:g}d?")
    return value


def _write_duration_or_never(value: timedelta | None) -> str:
    return NEVER if value is None else format_duration(value)


class Within:
    """Refuse a duration outside two limits, both given and shown as text."""

    def __init__(self, least: str, most: str) -> None:
        self.least, self.most = least, most

    def __call__(self, value: timedelta | None) -> timedelta | None:
        """Check one value; None (never) passes."""
        low, high = parse_duration(self.least), parse_duration(self.most)
        if value is not None and not low <= value <= high:
            text = f"{format_duration(value)} is out of range; it must be {self.least}…{self.most}"
            raise refusal(text)
        return value


Duration: TypeAlias = Annotated[
    timedelta, BeforeValidator(read_duration), PlainSerializer(format_duration, return_type=str)
]
DurationOrNever: TypeAlias = Annotated[
    timedelta | None,
    BeforeValidator(read_duration_or_never),
    PlainSerializer(_write_duration_or_never, return_type=str),
]


def read_size(value: Any) -> int:
    """Read ``512MB`` and the like as bytes."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise refusal(f"{shown(value)} is no amount of memory; write it as 512MB or 2GiB")
    try:
        size = parse_size(str(value))
    except ValueError as error:
        raise refusal(str(error)) from None
    if not 1 << 20 <= size <= 1 << 50:
        raise refusal(f"{shown(value)} is out of range; it must be 1MiB…1024TiB")
    return size


Size: TypeAlias = Annotated[
    int, PlainValidator(read_size), PlainSerializer(format_size, return_type=str)
]


def read_optional_size(value: Any) -> int | None:
    """Read a size, or nothing as None: no limit."""
    return None if value is None else read_size(value)


def _write_optional_size(value: int | None) -> str | None:
    return None if value is None else format_size(value)


OptionalSize: TypeAlias = Annotated[
    int | None,
    PlainValidator(read_optional_size),
    PlainSerializer(_write_optional_size, return_type=str | None),
]


def read_offset(value: Any) -> timedelta | Literal["auto"]:
    """Read a duration, or ``auto``."""
    return "auto" if value == "auto" else read_duration(value)


def _write_offset(value: timedelta | Literal["auto"]) -> str:
    return value if isinstance(value, str) else format_duration(value)


Offset: TypeAlias = Annotated[
    timedelta | Literal["auto"],
    PlainValidator(read_offset),
    PlainSerializer(_write_offset, return_type=str),
]

# -- paths and names ---------------------------------------------------------------------------


def read_path(value: Any, info: ValidationInfo) -> Path:
    """Read a path; a relative one counts from the folder of the configuration file."""
    if isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise refusal(f"{shown(value)} is no path; write it in full, such as /srv/asi/roof")
    if value.startswith("~"):
        raise refusal(f"{shown(value)}: '~' is not replaced here; write the path in full")
    if re.search(r"\$[A-Za-z_{]", value):
        raise refusal(f"{shown(value)}: variables are not replaced here; write the path in full")
    base = info.context.get("base") if isinstance(info.context, Mapping) else None
    return Path(base if base is not None else Path.cwd(), value)


def _read_optional_path(value: Any, info: ValidationInfo) -> Path | None:
    return None if value is None else read_path(value, info)


PathField: TypeAlias = Annotated[
    Path, BeforeValidator(read_path), PlainSerializer(str, return_type=str)
]
OptionalPath: TypeAlias = Annotated[Path | None, BeforeValidator(_read_optional_path)]


def read_camera_name(value: str) -> str:
    """Check a camera's name: it stands in log lines, metrics and file names."""
    plain = value.isascii() and value.replace("-", "").replace("_", "").isalnum()
    if not plain or not value[0].isalnum() or len(value) > 64:
        raise refusal(
            f"{shown(value)} is no name for a camera; use up to 64 letters, digits, '-' and '_', "
            "a letter or digit first"
        )
    return value


def read_template(value: Any) -> str:
    """Check a file name template on its own."""
    if not isinstance(value, str):
        hint = "write the template in quotes, such as '{timestamp:%Y%m%d%H%M%S}_{exposure}'"
        raise refusal(f"{shown(value)} is no template; {hint}")
    try:
        NamePattern(value)
    except ValueError as error:
        raise refusal(str(error)) from None
    return value


def read_timezone(value: Any) -> str:
    """Check a time zone's name."""
    if not isinstance(value, str):
        raise refusal(f"{shown(value)} is no time zone; write UTC or one such as Etc/GMT-1")
    try:
        parse_timezone(value)
    except ValueError as error:
        raise refusal(str(error)) from None
    return value


def read_extensions(value: Any) -> tuple[str, ...]:
    """Read the extensions of exposures: lower case, without the dot."""
    listed = isinstance(value, list | tuple)
    if not listed or not value or not all(isinstance(item, str) for item in value):
        raise refusal(f"{shown(value)} is no list of extensions; write one such as [jpg, png]")
    found = tuple(dict.fromkeys(item.lower().removeprefix(".") for item in value))
    unknown = [item for item in found if item not in READABLE_EXTENSIONS]
    if unknown:
        known = ", ".join(READABLE_EXTENSIONS)
        raise refusal(f"{', '.join(map(repr, unknown))} cannot be read; known are {known}")
    return found


# -- numbers -----------------------------------------------------------------------------------


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
