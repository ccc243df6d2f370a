"""File names of exposures and products: from a name to its timestamp and exposure, and back.

A camera's names are described by a template such as ``{timestamp:%Y%m%d%H%M%S}_{exposure}``.
It is compiled once to a regular expression, so that an archive of 500,000 names is read in
about two seconds and no name, however hostile, can raise or stall.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, TypeAlias
from zoneinfo import ZoneInfo

from asi_watch.name_templates import (
    DIRECTIVES,
    EARLIEST_YEAR,
    LATEST_YEAR,
    TemplateError,
    full_year,
    parse_template,
    read_timestamp,
)

__all__ = [
    "ExposureUnit",
    "NamePattern",
    "ParsedName",
    "TemplateError",
    "is_product_name",
    "parse_timezone",
    "slot_stem",
    "utc_offset_changes",
]

ExposureUnit: TypeAlias = Literal["us", "ms", "s"]

MICROSECONDS_PER_UNIT: Final[Mapping[str, int]] = MappingProxyType(
    {"us": 1, "ms": 1_000, "s": 1_000_000}
)
PRODUCT_SUFFIX: Final = "_hdr"
"""What the stem of every product ends in, and the stem of no exposure may end in."""

_MAX_EXPOSURE_DIGITS: Final = 10

_LABEL = re.compile(r"_(0[0-9]{0,2})$")


class ParsedName(NamedTuple):
    """What a file name says about its exposure."""

    timestamp: datetime
    """On the camera's own clock, without a time zone."""
    exposure_us: float
    """Exposure time in µs, greater than zero."""


class NamePattern:
    """How one camera names its files.

    Parameters
    ----------
    template : str
        Literal text around exactly one ``{timestamp:...}``, holding the directives
        ``%Y %y %m %d %j %H %M %S %f`` (``%%`` for a percent sign), and exactly one
        ``{exposure}``.
    unit : {"us", "ms", "s"}
        What the number in the name counts; the values of `labels` count the same.
    labels : mapping of str to float
        Exposure time for each label. The text in the name is looked up here first; only when
        it is no label is it read as an integer.
    timezone : str or datetime.tzinfo
        Of the timestamps in the names.

    Raises
    ------
    ValueError
        `TemplateError`, with the position of the fault, for the template; plain otherwise.
    """

    def __init__(
        self,
        template: str,
        unit: ExposureUnit = "us",
        labels: Mapping[str, float] | None = None,
        timezone: str | tzinfo = "UTC",
    ) -> None:
        self.template = template
        self.unit = unit
        self.labels: Mapping[str, float] = MappingProxyType(dict(labels or {}))
        self.timezone = parse_timezone(timezone) if isinstance(timezone, str) else timezone
        if unit not in MICROSECONDS_PER_UNIT:
            raise ValueError(f"exposure unit {unit!r}: it must be one of us, ms, s")
        self._unit_us = MICROSECONDS_PER_UNIT[unit]
        self._label_us = {text: self._checked_label(text) for text in self.labels}
        self._parts = parse_template(template)
        self._short_year = any(part[:2] == ("directive", "y") for part in self._parts)
        self._refuse_product_names()
        self._regex = re.compile(self._expression(), re.DOTALL)

    def __repr__(self) -> str:
        return (
            f"NamePattern({self.template!r}, unit={self.unit!r}, labels={dict(self.labels)!r}, "
            f"timezone={str(self.timezone)!r})"
        )

    def parse(self, name: str) -> ParsedName | None:
        """Read a file name.

        Parameters
        ----------
        name : str
            The name with its extension; folders before it are ignored. Bytes that are not
            UTF-8 come as surrogates, as from `os.fsdecode`.

        Returns
        -------
        ParsedName or None
            None for any name that does not follow the template, is no date, lies outside the
            years 1970 to 2261, or has an exposure of zero. Never raises.
        """
        match = self._regex.fullmatch(_stem(name))
        if match is None:
            return None
        fields = match.groupdict()
        exposure_us = self._exposure(fields["exposure"])
        timestamp = read_timestamp(fields)
        if exposure_us is None or timestamp is None:
            return None
        return ParsedName(timestamp, exposure_us)

    def format(self, timestamp: datetime, exposure_us: float) -> str:
        """Write the stem of a file name: the inverse of `parse`.

        Parameters
        ----------
        timestamp : datetime.datetime
            On the camera's clock, naive. What the template has no directive for is dropped.
        exposure_us : float
            Exposure time in µs.

        Returns
        -------
        str
            The name without an extension.

        Raises
        ------
        ValueError
            When the exposure has no label and is no whole number of the unit, when its number
            would be read back as a label, or when the year is out of range.
        """
        if timestamp.tzinfo is not None:
            raise ValueError("the timestamp of a name must be naive, on the camera's clock")
        if not EARLIEST_YEAR <= timestamp.year <= LATEST_YEAR:
            raise ValueError(f"year {timestamp.year} is outside {EARLIEST_YEAR}–{LATEST_YEAR}")
        if self._short_year and full_year(timestamp.year % 100) != timestamp.year:
            raise ValueError(f"year {timestamp.year} cannot be written with two digits")
        exposure = self._exposure_text(exposure_us)
        return "".join(_written(kind, text, timestamp, exposure) for kind, text, _ in self._parts)

    def to_utc(self, timestamp: datetime) -> datetime:
        """Turn a timestamp of the camera's clock into UTC.

        Parameters
        ----------
        timestamp : datetime.datetime
            Naive, from `parse`.

        Returns
        -------
        datetime.datetime
            Aware, in UTC. Where a zone changes its offset, an hour that occurs twice is taken
            as its first occurrence (``fold=0``).
        """
        return timestamp.replace(tzinfo=self.timezone, fold=0).astimezone(UTC)

    def _checked_label(self, text: str) -> float:
        value = self.labels[text]
        if not text or "/" in text or "\0" in text:
            raise ValueError(f"exposure label {text!r}: it must be text that a file name can hold")
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"exposure label {text!r}: its exposure must be greater than 0")
        return float(value * self._unit_us)

    def _refuse_product_names(self) -> None:
        kind, tail, position = self._parts[-1]
        tails = list(self.labels) if kind == "exposure" else [tail if kind == "text" else ""]
        for text in tails:
            if text.endswith(PRODUCT_SUFFIX):
                reason = f"names ending in {PRODUCT_SUFFIX!r} are kept for the merged products"
                raise TemplateError(self.template, position, reason)

    def _expression(self) -> str:
        # A full match tries them all: their order does not matter.
        exposure = "|".join([*map(re.escape, self.labels), f"[0-9]{{1,{_MAX_EXPOSURE_DIGITS}}}"])
        sources: dict[str, Callable[[str], str]] = {
            "exposure": lambda _: f"(?P<exposure>{exposure})",
            "text": re.escape,
            "directive": DIRECTIVES.__getitem__,
        }
        return "".join(sources[kind](text) for kind, text, _ in self._parts)

    def _exposure(self, text: str) -> float | None:
        known = self._label_us.get(text)
        if known is not None:
            return known
        # A label may stand beside the digits, so the text is digits here.
        value = int(text) * self._unit_us
        return float(value) if value > 0 else None

    def _exposure_text(self, exposure_us: float) -> str:
        for label, value in self._label_us.items():
            if value == exposure_us:
                return label
        if not (math.isfinite(exposure_us) and exposure_us > 0):
            raise ValueError(f"an exposure of {exposure_us} µs cannot be")
        number = round(exposure_us / self._unit_us)
        text = str(number)
        if float(number * self._unit_us) != float(exposure_us):
            raise ValueError(f"{exposure_us} µs is no whole number of {self.unit} and no label")
        if text in self._label_us:
            raise ValueError(f"{exposure_us} µs would be written as the label {text!r}")
        if len(text) > _MAX_EXPOSURE_DIGITS:
            raise ValueError(f"{exposure_us} µs has more than {_MAX_EXPOSURE_DIGITS} digits")
        return text


def parse_timezone(name: str) -> tzinfo:
    """Find a time zone by its name in the time zone database.

    Parameters
    ----------
    name : str
        Such as ``UTC``, ``Etc/GMT-1`` (one hour *ahead* of UTC) or ``Europe/Berlin``.

    Returns
    -------
    datetime.tzinfo
        ``UTC`` works on a machine without a time zone database too.

    Raises
    ------
    ValueError
        When there is no such zone.
    """
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:  # OSError: the name is a folder of zones
        raise ValueError(
            f"{name!r} is no time zone; write UTC or a fixed offset such as Etc/GMT-1, "
            "which is one hour ahead of UTC (the sign is reversed)"
        ) from error


def utc_offset_changes(zone: tzinfo, year: int) -> bool:
    """Tell whether a zone changes its offset from UTC within a year, as for summer time.

    Parameters
    ----------
    zone : datetime.tzinfo
        The zone.
    year : int
        The year to look at, from 1 to 9998.

    Returns
    -------
    bool
        True when local times of that year can be ambiguous or missing.
    """
    first = datetime(year, 1, 1)
    offsets = {zone.utcoffset(first + timedelta(days=day)) for day in range(0, 366, 5)}
    return len(offsets) > 1


def is_product_name(name: str) -> bool:
    """Tell whether a file is one of asi-watch's own products, never an exposure.

    Parameters
    ----------
    name : str
        A file name with its extension; folders before it are ignored.

    Returns
    -------
    bool
        True for ``..._hdr.<any extension>``.
    """
    return _stem(name).endswith(PRODUCT_SUFFIX)


def label_like(name: str) -> str | None:
    """Find a label at the end of a file name that could be taken for an exposure time.

    Parameters
    ----------
    name : str
        A file name with its extension; folders before it are ignored.

    Returns
    -------
    str or None
        Up to three digits with a leading zero after an underscore: nobody writes times so.
    """
    match = _LABEL.search(_stem(name))
    return None if match is None else match[1]


def _stem(name: str) -> str:
    last = name.rpartition("/")[2]
    stem, dot, _ = last.rpartition(".")
    return stem if dot else last


def slot_stem(slot: datetime) -> str:
    """Name the products of a bracket.

    Parameters
    ----------
    slot : datetime.datetime
        The bracket's slot, on the clock of the camera's names.

    Returns
    -------
    str
        ``%Y%m%d%H%M%S_hdr``, to which the product's extension is added.
    """
    return f"{slot.year:04d}{slot:%m%d%H%M%S}{PRODUCT_SUFFIX}"


def _written(kind: str, text: str, timestamp: datetime, exposure: str) -> str:
    if kind == "text":
        return text
    return exposure if kind == "exposure" else timestamp.strftime(f"%{text}")
