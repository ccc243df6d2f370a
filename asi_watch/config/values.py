"""Single values of the configuration: from what an operator writes to what the program uses.

Validators get what YAML made of the text. They raise `refusal`, whose text says what would be
right and reaches the operator unchanged.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, time, timedelta, tzinfo
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

from asi_watch.brackets import MAX_EXPOSURES
from asi_watch.naming import NamePattern, ProductName, changes_within_a_year, parse_timezone

REFUSED: Final = "asi_watch_refused"
"""The type of pydantic errors whose text is already written for the operator."""
DEEP_EXTENSIONS: Final = ("tif", "tiff", "dng", "fits", "fit", "fts")
"""Of files that may lie beside rendered ones of the same exposure."""
READABLE_EXTENSIONS: Final = (
    *("jpg", "jpeg", "jpe", "jfif", "png", "jp2", "webp"),
    *DEEP_EXTENSIONS,
)
_T = TypeVar("_T")
Way: TypeAlias = tuple[str | int, ...]
"""The keys and list positions that lead to a value."""
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


def _or_refuse(text: str) -> WrapValidator:
    """Refuse with one sentence what a type does not take."""

    def check(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError as error:
            found = [e["ctx"]["text"] for e in error.errors() if e["type"] == REFUSED]
            raise refusal(found[0] if found else f"{shown(value)}{text}") from None

    return WrapValidator(check)


def _read(parse: Callable[..., _T], value: Any, *more: str) -> _T:
    """Parse a value; what is wrong with it is refused in the parser's words."""
    try:
        return parse(value if isinstance(value, str) else shown(value), *more)
    except ValueError as error:
        raise refusal(str(error)) from None


# -- durations and sizes ---------------------------------------------------------------------

_MICROSECONDS = {"d": 86_400_000_000, "h": 3_600_000_000, "min": 60_000_000}
_MICROSECONDS |= {"s": 1_000_000, "ms": 1_000, "us": 1}
# The micro sign and the Greek mu.
_DURATION_UNITS = {**_MICROSECONDS, "m": 60_000_000, "µs": 1, "μs": 1}
_LONGEST = 36_500 * _MICROSECONDS["d"]
_BYTES = {f"{p}iB": 1 << 10 * n for n, p in ((4, "T"), (3, "G"), (2, "M"), (1, "K"))}
_BYTES |= {"TB": 10**12, "GB": 10**9, "MB": 10**6, "kB": 10**3, "B": 1}
_SIZE_UNITS = _BYTES | {
    spelt(unit): n for unit, n in _BYTES.items() for spelt in (str.upper, str.lower)
}
_QUANTITY = re.compile(r"(?P<number>-?[0-9]{1,20}(?:\.[0-9]{1,15})?) ?(?P<unit>[A-Za-zµμ]{0,9})")


def _parse_quantity(
    text: str, units: Mapping[str, int], kind: str, listed: Mapping[str, int], usual: str
) -> int:
    """Read a number and its unit as a whole number of the smallest unit, exactly."""
    written = shown(text)
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{written} is not {kind}")
    number, unit = match["number"], match["unit"]
    if not unit:
        raise ValueError(f"{written} has no unit; did you mean {number}{usual}?")
    if unit not in units:
        known = ", ".join(listed)
        raise ValueError(f"{written} has the unknown unit {unit!r}; known are {known}")
    amount = Decimal(number) * units[unit]
    if amount % 1:
        raise ValueError(f"{written} is finer than 1 {list(listed)[-1]}")
    return int(amount)


def parse_duration(text: str, usual: str = "s") -> timedelta:
    """Read a duration with its unit, exactly; the text of its ValueError says what is right.

    Parameters
    ----------
    text : str
        A number (decimals allowed, a minus sign too) and one of the units
        ``us``, ``ms``, ``s``, ``min`` (or ``m``), ``h``, ``d``.
    usual : str
        The unit that is proposed where none is given.
    """
    kind = "a duration; write a number and its unit, such as 500ms, 30s, 2min, 24h or 1d"
    microseconds = _parse_quantity(text, _DURATION_UNITS, kind, _MICROSECONDS, usual)
    if abs(microseconds) > _LONGEST:
        raise ValueError(f"{shown(text)} is longer than a hundred years")
    return timedelta(microseconds=microseconds)


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
        A number and one of ``B kB MB GB TB`` (thousands) or ``KiB MiB GiB TiB`` (1024s).
    """
    kind = "an amount of memory; write it as 512MB or 2GiB"
    return _parse_quantity(text, _SIZE_UNITS, kind, _BYTES, "MB")


def format_size(size: int) -> str:
    """Write a number of bytes (0 or more) so that `parse_size` gives the same one back.

    Parameters
    ----------
    size : int
    """
    texts = [f"{size // factor}{unit}" for unit, factor in _BYTES.items() if size % factor == 0]
    return min(texts, key=len) if size else "0B"


def _read_duration(value: Any, usual: str = "s") -> timedelta:
    """Read ``30s`` and the like; a bare number is refused because its unit is not known."""
    if value == "auto":
        raise refusal(
            "'auto' is no longer possible: the slot of a file must not depend on what came before;"
            " write 0s, and `asi-watch check` proposes an offset such as -3s where the newest"
            " brackets need one"
        )
    return value if isinstance(value, timedelta) else _read(parse_duration, value, usual)


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
    size = _read(parse_size, value)
    if not 1 << 20 <= size <= 1 << 50:
        raise refusal(f"{shown(value)} is out of range; it must be 1MiB…1024TiB")
    return size


def _described(pattern: str, *examples: str) -> WithJsonSchema:
    """Say to editors what a text looks like that a function of this module reads."""
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": list(examples)})


_DURATION_LIKE = f"^-?[0-9.]+ ?({'|'.join(_DURATION_UNITS)})$"
_WRITE = PlainSerializer(format_duration, return_type=str)
_OR_NEVER = (
    BeforeValidator(lambda value: None if value == "never" else value),
    PlainSerializer(lambda span: "never" if span is None else format_duration(span)),
    _described(f"^never$|{_DURATION_LIKE}", "never", "24h", "30d"),
)
Duration: TypeAlias = Annotated[
    timedelta, PlainValidator(_read_duration), _WRITE, _described(_DURATION_LIKE, "30s", "24h")
]
DurationOrNever: TypeAlias = Annotated[Duration | None, *_OR_NEVER]
AgeOrNever: TypeAlias = Annotated[
    Annotated[timedelta, PlainValidator(partial(_read_duration, usual="d"))] | None, *_OR_NEVER
]
Size: TypeAlias = Annotated[
    int,
    PlainValidator(_read_size),
    PlainSerializer(format_size),
    _described(f"^[0-9.]+ ?({'|'.join(_SIZE_UNITS)})$", "512MB", "50GB", "2GiB"),
]


def _read_time_of_day(value: Any) -> time:
    if isinstance(value, time):
        return value
    try:
        return datetime.strptime(str(value), "%H:%M").time()
    except ValueError:
        text = f"{shown(value)} is no time of day; write 05:00, in the clock of the file names"
        raise refusal(text) from None


TimeOfDay: TypeAlias = Annotated[
    time,
    PlainValidator(_read_time_of_day),
    PlainSerializer(lambda at: f"{at:%H:%M}"),
    _described("^[0-9]{1,2}:[0-9]{2}$", "05:00", "22:00"),
]


# -- paths and names -------------------------------------------------------------------------


def read_path(value: Any, info: ValidationInfo) -> Path:
    """Read a path; a relative one counts from the folder of the configuration file.

    Parameters
    ----------
    value : object
    info : ValidationInfo
        Its context says where that is.
    """
    if isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise refusal(f"{shown(value)} is no path; write it in full, such as /srv/asi/roof")
    if found := re.search(r"^~|\$[A-Za-z_{]", value):
        what = "'~' is" if found[0] == "~" else "variables are"
        raise refusal(f"{shown(value)}: {what} not replaced here; write the path in full")
    base = info.context.get("base") if isinstance(info.context, Mapping) else None
    return Path(base if base is not None else Path.cwd(), value)


def _read_template(value: Any) -> str:
    return _read(partial(NamePattern, exposure_needed=False), value).template


def _read_product_template(value: Any) -> str:
    _read(ProductName, value)
    return str(value)


def _read_timezone(value: Any) -> str:
    _read(parse_timezone, value)
    return str(value)


def _read_fixed_timezone(value: Any) -> str:
    """Read a time zone in which no name can come twice."""
    zone: tzinfo = _read(parse_timezone, value)
    if changes_within_a_year(zone):
        raise refusal(
            f"{shown(value)} changes its offset within the year: an hour of names would come"
            " twice; write a fixed offset, such as Etc/GMT-1"
        )
    return str(value)


def _read_extensions(value: tuple[str, ...]) -> tuple[str, ...]:
    """Read the extensions of exposures: lower case, without the dot."""
    found = tuple(dict.fromkeys(item.lower().removeprefix(".") for item in value))
    if unknown := [item for item in found if item not in READABLE_EXTENSIONS]:
        known = ", ".join(READABLE_EXTENSIONS)
        raise refusal(f"{', '.join(map(repr, unknown))} cannot be read; known are {known}")
    return found


PathField: TypeAlias = Annotated[Path, BeforeValidator(read_path), PlainSerializer(str)]
CameraName: TypeAlias = Annotated[
    str,
    Field(pattern="^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"),
    _or_refuse(
        " is no name for a camera; use up to 64 letters, digits, '-' and '_', a letter or digit"
        " first"
    ),
]
Template: TypeAlias = Annotated[
    str,
    PlainValidator(_read_template),
    _described(
        r"\{timestamp:.+\}",
        "{timestamp:%Y%m%d%H%M%S}_{exposure}",
        "{timestamp:%Y%m%d_%H%M%S}_{exposure}",
    ),
]
ProductTemplate: TypeAlias = Annotated[
    str,
    PlainValidator(_read_product_template),
    _described(r"\{timestamp:.+\}", "{timestamp:%Y%m%d%H%M%S}_0"),
]
TimeZone: TypeAlias = Annotated[
    str, PlainValidator(_read_timezone), _described(r"^\S+$", "UTC", "Etc/GMT-1")
]
FixedTimeZone: TypeAlias = Annotated[
    str, PlainValidator(_read_fixed_timezone), _described(r"^\S+$", "UTC", "Etc/GMT-1")
]
Extensions: TypeAlias = Annotated[
    tuple[str, ...],
    Field(strict=False, min_length=1),
    AfterValidator(_read_extensions),
    _or_refuse(" is no list of extensions; write one such as [jpg, png]"),
]


# -- exposures, circles, choices -------------------------------------------------------------


def _all_differ(times: tuple[float, ...]) -> tuple[float, ...]:
    if twice := sorted({time for time in times if times.count(time) > 1}):
        raise refusal(f"{', '.join(map(shown, twice))}: every exposure time must be given once")
    return times


def _rising(ends: tuple[float, float]) -> tuple[float, float]:
    if not ends[0] < ends[1]:
        raise ValueError
    return ends


def _no_disc_of_its_own(value: Any) -> Any:
    if value == "auto":
        raise refusal(
            "'auto' is for recalibrate.sky_disc alone: products need a circle that never changes;"
            " `asi-watch calibrate` and `asi-watch response show` print the one that is found"
        )
    return value


_Positive: TypeAlias = Annotated[int, Field(gt=0)] | Annotated[float, Field(gt=0)]
_Circle: TypeAlias = Annotated[
    tuple[float, float, Annotated[float, Field(gt=0)]], Field(strict=False)
]
_IN_PIXELS = "column, row and radius of the sky disc in pixels, such as [1024, 1010, 980]"
Labels: TypeAlias = Annotated[
    dict[Annotated[str, Field(pattern=r"^[^/\x00]+$")], _Positive | None],
    _or_refuse(
        ': write labels and exposure times above 0, such as {"0": 2000, "02": 500}; null: leave out'
    ),
]
ExposuresField: TypeAlias = Annotated[
    Literal["auto"]
    | Annotated[int, Field(ge=2, le=MAX_EXPOSURES)]
    | Annotated[
        tuple[_Positive, ...],
        Field(strict=False, min_length=2, max_length=MAX_EXPOSURES),
        AfterValidator(_all_differ),
    ],
    _or_refuse(
        f": write a list of 2…{MAX_EXPOSURES} exposure times above 0, such as [80, 160, 320],"
        " their count, or auto"
    ),
]
ToneScale: TypeAlias = Annotated[
    Literal["curve", "bracket"]
    | Annotated[tuple[float, float], Field(strict=False), AfterValidator(_rising)],
    _or_refuse(": write curve, bracket, or two numbers, the smaller first, such as [-6.5, 4.0]"),
]
Disc: TypeAlias = Annotated[
    _Circle | None,
    _or_refuse(f": write null, or {_IN_PIXELS}"),
    BeforeValidator(_no_disc_of_its_own),
]
DiscOrAuto: TypeAlias = Annotated[
    _Circle | Literal["auto"] | None, _or_refuse(f": write auto, null, or {_IN_PIXELS}")
]
Workers: TypeAlias = Annotated[
    Annotated[int, Field(ge=1, le=256)] | Literal["auto"],
    _or_refuse(": write auto or a whole number of threads, 1…256"),
]
# YAML reads a bare off as false.
Deghost: TypeAlias = Annotated[
    Literal["off", "weights", "align"],
    BeforeValidator(lambda value: "off" if value is False else value),
]
# YAML reads 420 as a number.
Subsampling: TypeAlias = Annotated[
    Literal["420", "422", "444"] | None,
    BeforeValidator(lambda value: str(value) if type(value) is int else value),
]
