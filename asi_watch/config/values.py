"""Single values of the configuration: from what an operator writes to what the program uses.

Validators get what YAML made of the text. They raise `refusal`, whose text says what would be
right and reaches the operator unchanged.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    PlainSerializer,
    PlainValidator,
    ValidationInfo,
)
from pydantic_core import PydanticCustomError

from asi_watch.brackets import MAX_EXPOSURES
from asi_watch.naming import NamePattern, parse_timezone

REFUSED: Final = "asi_watch_refused"
"""The type of pydantic errors whose text is already written for the operator."""
READABLE_EXTENSIONS: Final = ("jpg", "jpeg", "jpe", "jfif", "png", "jp2")
_NEVER: Final = "never"
_T = TypeVar("_T")
Circle: TypeAlias = tuple[float, float, float]
Exposures: TypeAlias = tuple[float, ...] | int | Literal["auto"]


def refusal(text: str, found: Sequence[tuple[str, str]] = ()) -> PydanticCustomError:
    """Make the error for one value, with its final text, or for several keys of a section.

    Parameters
    ----------
    text : str
    found : sequence of (str, str)
        Keys, each with its text.
    """
    context = {"text": text, "found": list(found)} if found else {"text": text}
    return PydanticCustomError(REFUSED, "{text}", context)


def refuse_keys(found: Sequence[tuple[str, str]]) -> None:
    """Raise the error for several keys of a section; nothing where nothing was found.

    Parameters
    ----------
    found : sequence of (str, str)
        Keys, each with what is wrong.
    """
    if found:
        raise refusal("; ".join(f"{key}: {text}" for key, text in found), found)


def shown(value: object) -> str:
    """Write a value as the operator would, cut to a readable length.

    Parameters
    ----------
    value : object
    """
    if value is None:
        return "an empty value"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _is_number(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)  # type: ignore[arg-type]


def _is_count(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _are_numbers(value: object, count: int) -> bool:
    return isinstance(value, list | tuple) and len(value) == count and all(map(_is_number, value))


def _parse(parse: Callable[[str], _T], value: Any, kinds: type | UnionType, otherwise: str) -> _T:
    """Parse a value of these kinds; what is wrong with it is refused in the parser's words."""
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise refusal(f"{shown(value)} {otherwise}")
    try:
        return parse(str(value))
    except ValueError as error:
        raise refusal(str(error)) from None


# -- durations and sizes ---------------------------------------------------------------------

_MICROSECONDS = {
    "d": 86_400_000_000,
    "h": 3_600_000_000,
    "min": 60_000_000,
    "s": 1_000_000,
    "ms": 1_000,
    "us": 1,
}
_OTHER_SPELLINGS = {"m": "min", "µs": "us", "μs": "us"}  # the micro sign and the Greek mu
_DURATION = re.compile(r"(?P<number>-?[0-9]{1,18}(?:\.[0-9]{1,15})?) ?(?P<unit>[A-Za-zµμ]{0,9})")
_LONGEST = timedelta(days=36_500)
_DURATIONS = "write a number and its unit, such as 500ms, 30s, 2min, 24h or 1d"
_BYTES = {f"{p}iB": 1 << 10 * n for n, p in ((4, "T"), (3, "G"), (2, "M"), (1, "K"))}
_BYTES |= {"TB": 10**12, "GB": 10**9, "MB": 10**6, "kB": 10**3, "B": 1}
_SIZE_UNITS = {unit.lower(): factor for unit, factor in _BYTES.items()}
_SIZE = re.compile(r"(?P<number>[0-9]{1,20}) ?(?P<unit>[A-Za-z]{0,4})")
_SIZES = "is no amount of memory; write it as 512MB or 2GiB"


def parse_duration(text: str) -> timedelta:
    """Read a duration with its unit, exactly; the text of its ValueError says what is right.

    Parameters
    ----------
    text : str
        A number (decimals allowed, a minus sign too) and one of the units
        ``us``, ``ms``, ``s``, ``min`` (or ``m``), ``h``, ``d``.
    """
    written = repr(text if len(text) <= 40 else f"{text[:37]}...")
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{written} is not a duration; {_DURATIONS}")
    number, unit = match["number"], match["unit"]
    if not unit:
        raise ValueError(
            f"{written} has no unit; write it with one: {number}s, {number}min or {number}h"
        )
    per_unit = _MICROSECONDS.get(_OTHER_SPELLINGS.get(unit, unit))
    if per_unit is None:
        known = ", ".join(_MICROSECONDS)
        raise ValueError(f"{written} has the unknown unit {unit!r}; known are {known}")
    microseconds = Decimal(number) * per_unit
    if microseconds != microseconds.to_integral_value():
        raise ValueError(f"{written} is finer than a microsecond; {_DURATIONS}")
    if abs(microseconds) > _LONGEST // timedelta(microseconds=1):
        raise ValueError(f"{written} is longer than a hundred years; {_DURATIONS}")
    return timedelta(microseconds=int(microseconds))


def format_duration(duration: timedelta) -> str:
    """Write a duration so that `parse_duration` gives the same one back: ``90s``, ``24h``, ``2d``.

    Parameters
    ----------
    duration : datetime.timedelta
        Any length, negative too.
    """
    microseconds = duration // timedelta(microseconds=1)
    for unit, per_unit in _MICROSECONDS.items():
        # One day reads better as the 24h, one minute as the 60s that people write.
        one = unit in ("d", "min") and abs(microseconds) == per_unit
        if microseconds and microseconds % per_unit == 0 and not one:
            return f"{microseconds // per_unit}{unit}"
    return "0s"


def parse_size(text: str) -> int:
    """Read an amount of memory with its unit, in bytes; ValueError when it is none.

    Parameters
    ----------
    text : str
        A whole number and one of ``B kB MB GB TB`` (thousands) or ``KiB MiB GiB TiB`` (1024s).
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None or match["unit"].lower() not in (*_SIZE_UNITS, ""):
        raise ValueError(f"{text if len(text) <= 40 else text[:37] + '...'!r} {_SIZES}")
    if not match["unit"]:
        raise ValueError(f"{text.strip()!r} has no unit; did you mean {match['number']}MB?")
    return int(match["number"]) * _SIZE_UNITS[match["unit"].lower()]


def format_size(size: int) -> str:
    """Write a number of bytes (0 or more) so that `parse_size` gives the same one back.

    Parameters
    ----------
    size : int
    """
    texts = [f"{size // factor}{unit}" for unit, factor in _BYTES.items() if size % factor == 0]
    return min(texts, key=len) if size else "0B"


def _read_duration(value: Any) -> timedelta:
    """Read ``30s`` and the like; a bare number is refused because its unit is not known."""
    if isinstance(value, timedelta):
        return value
    otherwise = "is not a duration; write one such as 30s"
    return _parse(parse_duration, value, str | int | float, otherwise)


def _read_duration_or_never(value: Any) -> timedelta | None:
    return None if value is None or value == _NEVER else _read_duration(value)


def _read_age_or_never(value: Any) -> timedelta | None:
    """Refuse a bare number as an age: days are meant, but the unit is required."""
    if _is_number(value):
        raise refusal(f"{shown(value)} has no unit; did you mean {value:g}d?")
    return _read_duration_or_never(value)


def _read_offset(value: Any) -> timedelta:
    if value == "auto":
        raise refusal(
            "'auto' is no longer possible: the slot of a file must not depend on what came before;"
            " write 0s, and `asi-watch check` proposes an offset such as -3s where the newest"
            " brackets need one"
        )
    return _read_duration(value)


def within(least: str, most: str) -> AfterValidator:
    """Make a validator that refuses durations outside two limits; None passes.

    Parameters
    ----------
    least, most : str
        Such as ``0s`` and ``24h``.
    """
    low, high = parse_duration(least), parse_duration(most)

    def check(value: timedelta | None) -> timedelta | None:
        if value is not None and not low <= value <= high:
            text = f"{format_duration(value)} is out of range; it must be {least}…{most}"
            raise refusal(text)
        return value

    return AfterValidator(check)


def _read_size(value: Any) -> int:
    size = _parse(parse_size, value, str | int, _SIZES)
    if not 1 << 20 <= size <= 1 << 50:
        raise refusal(f"{shown(value)} is out of range; it must be 1MiB…1024TiB")
    return size


_WRITE = PlainSerializer(format_duration, return_type=str)
_WRITE_OR_NEVER = PlainSerializer(lambda d: _NEVER if d is None else format_duration(d))
Duration: TypeAlias = Annotated[timedelta, BeforeValidator(_read_duration), _WRITE]
Offset: TypeAlias = Annotated[timedelta, BeforeValidator(_read_offset), _WRITE]
DurationOrNever: TypeAlias = Annotated[
    timedelta | None, BeforeValidator(_read_duration_or_never), _WRITE_OR_NEVER
]
AgeOrNever: TypeAlias = Annotated[
    timedelta | None, BeforeValidator(_read_age_or_never), _WRITE_OR_NEVER
]
Size: TypeAlias = Annotated[int, PlainValidator(_read_size), PlainSerializer(format_size)]
OptionalSize: TypeAlias = Annotated[
    int | None,
    PlainValidator(lambda value: None if value is None else _read_size(value)),
    PlainSerializer(lambda size: None if size is None else format_size(size)),
]
"""None: no limit."""


# -- paths and names -------------------------------------------------------------------------


def _read_path(value: Any, info: ValidationInfo) -> Path:
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
    return None if value is None else _read_path(value, info)


def _read_camera_name(value: str) -> str:
    """Check a camera's name: it stands in log lines, metrics and file names."""
    if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9_-]{0,63}", value):
        raise refusal(
            f"{shown(value)} is no name for a camera; use up to 64 letters, digits, '-' and '_', "
            "a letter or digit first"
        )
    return value


def _read_template(value: Any) -> str:
    example = "'{timestamp:%Y%m%d%H%M%S}_{exposure}'"
    otherwise = f"is no template; write the template in quotes, such as {example}"
    return _parse(NamePattern, value, str, otherwise).template


def _read_timezone(value: Any) -> str:
    _parse(parse_timezone, value, str, "is no time zone; write UTC or one such as Etc/GMT-1")
    return str(value)


def _read_extensions(value: Any) -> tuple[str, ...]:
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


PathField: TypeAlias = Annotated[Path, BeforeValidator(_read_path), PlainSerializer(str)]
OptionalPath: TypeAlias = Annotated[Path | None, BeforeValidator(_read_optional_path)]
CameraName: TypeAlias = Annotated[str, AfterValidator(_read_camera_name)]
Template: TypeAlias = Annotated[str, PlainValidator(_read_template)]
TimeZone: TypeAlias = Annotated[str, BeforeValidator(_read_timezone)]
Extensions: TypeAlias = Annotated[tuple[str, ...], BeforeValidator(_read_extensions)]


# -- exposures, circles, choices -------------------------------------------------------------


def _read_labels(value: Any) -> dict[str, float]:
    """Read the mapping of exposure labels to exposure times."""
    if not isinstance(value, Mapping):
        raise refusal(f'{shown(value)} is no mapping; write one such as {{"0": 2000, "02": 500}}')
    wrong = [
        f"{shown(label)}: {shown(exposure)} is no exposure time; it must be a number above 0"
        for label, exposure in value.items()
        if not (_is_number(exposure) and exposure > 0)
    ]
    wrong += [
        f"{shown(label)} is no label; it must be text that a file name can hold"
        for label in value
        if not label or "/" in label or "\0" in label
    ]
    if wrong:
        raise refusal(", ".join(wrong))
    return {str(label): exposure for label, exposure in value.items()}


def _read_exposures(value: Any) -> Exposures:
    """Read a list of exposure times, their count, or ``auto``."""
    if value == "auto" or _is_count(value, 2, MAX_EXPOSURES):
        return value  # type: ignore[no-any-return]
    if isinstance(value, int) and not isinstance(value, bool):
        raise refusal(f"{value} exposures make no bracket; it must be 2…{MAX_EXPOSURES}")
    if not isinstance(value, list | tuple):
        raise refusal(
            f"{shown(value)} says nothing about exposures; write a list such as [80, 160, 320], "
            "their count, or auto"
        )
    wrong = [shown(item) for item in value if not (_is_number(item) and item > 0)]
    if wrong:
        raise refusal(f"{', '.join(wrong)}: an exposure time must be a number above 0")
    twice = sorted({item for item in value if value.count(item) > 1})
    if twice:
        raise refusal(f"{', '.join(map(shown, twice))}: every exposure time must be given once")
    if not 2 <= len(value) <= MAX_EXPOSURES:
        text = f"a list of {len(value)} makes no bracket; it must hold 2…{MAX_EXPOSURES} times"
        raise refusal(text)
    return tuple(value)


def _read_tone_range(value: Any) -> tuple[float, float] | None:
    if value is None:
        return None
    if not _are_numbers(value, 2) or not value[0] < value[1]:
        raise refusal(f"{shown(value)}: write two numbers, the smaller first, such as [-6.5, 4.0]")
    return float(value[0]), float(value[1])


def _read_disc_or_auto(value: Any) -> Circle | Literal["auto"] | None:
    return "auto" if value == "auto" else _read_circle(value, "auto, null")


def _read_disc(value: Any) -> Circle | None:
    if value == "auto":
        raise refusal(
            "'auto' is for recalibrate.sky_disc alone: products need a circle that never changes;"
            " `asi-watch calibrate` and `asi-watch response show` print the one that is found"
        )
    return _read_circle(value, "null")


def _read_circle(value: Any, choices: str) -> Circle | None:
    if value is None:
        return None
    if not _are_numbers(value, 3) or not value[2] > 0:
        raise refusal(
            f"{shown(value)}: write {choices}, or column, row and radius of the sky disc in"
            " pixels, such as [1024, 1010, 980]"
        )
    return float(value[0]), float(value[1]), float(value[2])


def _read_workers(value: Any) -> Any:
    if value != "auto" and not _is_count(value, 1, 256):
        raise refusal(f"{shown(value)}: write auto or a whole number of threads, 1…256")
    return value


def _read_subsampling(value: Any) -> Any:
    """Take 420 as the text that it is meant to be."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


_AS_LIST = PlainSerializer(lambda value: list(value) if isinstance(value, tuple) else value)
Labels: TypeAlias = Annotated[dict[str, float], PlainValidator(_read_labels)]
ExposuresField: TypeAlias = Annotated[Exposures, PlainValidator(_read_exposures), _AS_LIST]
ToneRange: TypeAlias = Annotated[tuple[float, float] | None, BeforeValidator(_read_tone_range)]
Disc: TypeAlias = Annotated[Circle | None, PlainValidator(_read_disc), _AS_LIST]
DiscOrAuto: TypeAlias = Annotated[
    Circle | Literal["auto"] | None, PlainValidator(_read_disc_or_auto), _AS_LIST
]
Workers: TypeAlias = Annotated[int | Literal["auto"], PlainValidator(_read_workers)]
Subsampling: TypeAlias = Annotated[
    Literal["420", "422", "444"] | None, BeforeValidator(_read_subsampling)
]
