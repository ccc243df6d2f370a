"""File names of exposures and products: from a name to its timestamp and exposure, and back.

A camera's names are described by a template such as ``{timestamp:%Y%m%d%H%M%S}_{exposure}``.
It is compiled once to a regular expression, so that an archive of 500,000 names is read in
about two seconds and no name, however hostile, can raise or stall.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import pairwise
from typing import Final, Literal, NamedTuple, TypeAlias
from zoneinfo import ZoneInfo

ExposureUnit: TypeAlias = Literal["us", "ms", "s"]

MICROSECONDS_PER_UNIT: Final[Mapping[str, int]] = {"us": 1, "ms": 1_000, "s": 1_000_000}
PRODUCT_SUFFIX: Final = "_hdr"
"""What the stem of every product ends in, and the stem of no exposure may end in."""
EARLIEST_YEAR, LATEST_YEAR = 1970, 2261  # pandas counts nanoseconds in 64 bits up to 2262

_MAX_EXPOSURE_DIGITS: Final = 10
_DIRECTIVES: Final[Mapping[str, str]] = {
    letter: f"(?P<{letter}>[0-9]{{{count}}})"
    for letter, count in zip("YymdjHMSf", (4, 2, 2, 2, 3, 2, 2, 2, "1,6"), strict=True)
}
_EXAMPLE: Final = "'{timestamp:%Y%m%d%H%M%S}_{exposure}'"
_NUMBER_AT_END = re.compile(r"_([0-9]{1,10})$")


class ParsedName(NamedTuple):
    """What a file name says about its exposure."""

    timestamp: datetime
    """On the camera's own clock, without a time zone."""
    exposure_us: float
    """Exposure time in µs, greater than zero."""


class TemplateError(ValueError):
    """A file name template that cannot be used.

    Parameters
    ----------
    template : str
    position : int
        Of the fault in it, counted from 1.
    reason : str
        What is wrong, and what would be right.
    """

    def __init__(self, template: str, position: int, reason: str) -> None:
        super().__init__(f"{template!r}, character {position}: {reason}")
        self.template, self.position, self.reason = template, position, reason


class _Part(NamedTuple):
    """A piece of a template; text is the letter of a directive, nothing for the exposure."""

    kind: Literal["text", "directive", "exposure"]
    text: str
    position: int
    """Counted from 1."""


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
        Exposure time for each label. The text in the name is looked up here first.
    timezone : str or datetime.tzinfo
        Of the timestamps in the names.
    labels_only : bool
        With labels: a number that is no label does not fit.
    """

    def __init__(
        self,
        template: str,
        unit: ExposureUnit = "us",
        labels: Mapping[str, float] | None = None,
        timezone: str | tzinfo = "UTC",
        *,
        labels_only: bool = False,
    ) -> None:
        self.template = template
        self.unit = unit
        self.labels = dict(labels or {})
        self.timezone = parse_timezone(timezone) if isinstance(timezone, str) else timezone
        if unit not in MICROSECONDS_PER_UNIT:
            raise ValueError(f"exposure unit {unit!r}: it must be one of us, ms, s")
        self._unit_us = MICROSECONDS_PER_UNIT[unit]
        self._label_us = {text: self._checked_label(text) for text in self.labels}
        self._parts = _parse_template(template)
        self._refuse_product_names()
        number = f"[0-9]{{1,{_MAX_EXPOSURE_DIGITS}}}"
        # A full match tries them all: their order does not matter.
        numbers = [] if labels_only and self.labels else [number]
        exposure = "|".join([*map(re.escape, self.labels), *numbers])
        pieces = (
            _DIRECTIVES[text]
            if kind == "directive"
            else re.escape(text) or f"(?P<exposure>{exposure})"
            for kind, text, _ in self._parts
        )
        self._regex = re.compile("".join(pieces), re.DOTALL)

    def parse(self, name: str) -> ParsedName | None:
        """Read a file name; never raises.

        None for a hidden file and for any name that does not follow the template, is no date,
        lies outside the years 1970 to 2261, or has an exposure of zero.

        Parameters
        ----------
        name : str
            With its extension; folders before it are ignored. Bytes that are not UTF-8 come as
            surrogates, as from `os.fsdecode`.
        """
        last = name.rpartition("/")[2]
        match = None if last.startswith(".") else self._regex.fullmatch(_stem(last))
        if match is None:
            return None
        fields = match.groupdict()
        text = fields["exposure"]
        exposure_us = self._label_us.get(text)
        if exposure_us is None:
            # A label may stand beside the digits, so the text is digits here.
            exposure_us = float(int(text) * self._unit_us)
        timestamp = _read_timestamp(fields)
        return ParsedName(timestamp, exposure_us) if timestamp and exposure_us > 0 else None

    def format(self, timestamp: datetime, exposure_us: float) -> str:
        """Write a file name without its extension: the inverse of `parse`.

        ValueError where it would not be read back as the same.

        Parameters
        ----------
        timestamp : datetime.datetime
            On the camera's clock, naive. What the template has no directive for is dropped.
        exposure_us : float
            Exposure time in µs.
        """
        year = timestamp.year
        if timestamp.tzinfo is not None:
            raise ValueError("the timestamp of a name must be naive, on the camera's clock")
        if not EARLIEST_YEAR <= year <= LATEST_YEAR:
            raise ValueError(f"year {year} is outside {EARLIEST_YEAR}–{LATEST_YEAR}")
        short = any(part[:2] == ("directive", "y") for part in self._parts)
        if short and _full_year(year % 100) != year:
            raise ValueError(f"year {year} cannot be written with two digits")
        return self._stem_of(timestamp, self._exposure_text(exposure_us))

    def shares_names_with(self, other: NamePattern) -> bool:
        """Tell whether one file name may fit both patterns.

        Parameters
        ----------
        other : NamePattern
            Of another camera.
        """
        moment = datetime(2010, 10, 10, 10, 10, 10)  # day and month may stand in any order
        names = [
            f"{pattern._stem_of(moment, exposure)}.jpg"
            for pattern in (self, other)
            for exposure in (*pattern.labels, "10")
        ]
        return any(self.parse(name) and other.parse(name) for name in names)

    def to_utc(self, timestamp: datetime) -> datetime:
        """Turn a timestamp of the camera's clock into UTC; an hour that comes twice is the first.

        Parameters
        ----------
        timestamp : datetime.datetime
            Naive, from `parse`.
        """
        return timestamp.replace(tzinfo=self.timezone, fold=0).astimezone(UTC)

    def _stem_of(self, timestamp: datetime, exposure: str) -> str:
        return "".join(
            timestamp.strftime(f"%{text}") if kind == "directive" else text or exposure
            for kind, text, _ in self._parts
        )

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
        if any(text.endswith(PRODUCT_SUFFIX) for text in tails):
            reason = f"names ending in {PRODUCT_SUFFIX!r} are kept for the merged products"
            raise TemplateError(self.template, position, reason)

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


# -- templates ------------------------------------------------------------------------------


def _parse_template(template: str) -> list[_Part]:
    """Take a template apart, in its order; raises `TemplateError` for its first fault."""
    parts: list[_Part] = []
    seen: set[str] = set()
    at = 0
    while at < len(template):
        if template[at] == "}":
            raise TemplateError(template, at + 1, "'}' without a '{' before it")
        if template[at] != "{":
            text = re.split("[{}]", template[at:], maxsplit=1)[0]
            parts.append(_Part("text", text, at + 1))
            at += len(text)
            continue
        end = template.find("}", at)
        if end < 0 or "{" in template[at + 1 : end]:
            raise TemplateError(template, at + 1, "'{' is never closed by '}'")
        field, colon, directives = template[at + 1 : end].partition(":")
        if field in seen:
            raise TemplateError(template, at + 1, f"{{{field}}} is given a second time")
        seen.add(field)
        if field == "timestamp":
            parts += _parse_directives(template, directives, at + 1 + len(field) + len(colon))
        elif field == "exposure" and not colon:
            parts.append(_Part("exposure", "", at + 1))
        else:
            known = "known are {timestamp:...}, {exposure}"
            raise TemplateError(template, at + 1, f"{template[at : end + 1]} is unknown; {known}")
        at = end + 1
    for field in ("timestamp", "exposure"):
        if field not in seen:
            reason = f"there is no {{{field}}}; a complete template is {_EXAMPLE}"
            raise TemplateError(template, len(template) + 1, reason)
    _check_text(template, parts)
    return parts


def _parse_directives(template: str, directives: str, start: int) -> list[_Part]:
    parts: list[_Part] = []
    for match in re.finditer("%(.?)|[^%]+", directives, re.DOTALL):
        position, letter = start + match.start() + 1, match[1]
        if letter is None or letter == "%":
            parts.append(_Part("text", match[0] if letter is None else "%", position))
            continue
        if letter not in _DIRECTIVES:
            known = " ".join(f"%{known}" for known in _DIRECTIVES)
            raise TemplateError(template, position, f"'%{letter}' is unknown; known are {known}")
        if any(part[:2] == ("directive", letter) for part in parts):
            raise TemplateError(template, position, f"'%{letter}' is given a second time")
        parts.append(_Part("directive", letter, position))
    _check_complete(template, start, [part for part in parts if part.kind == "directive"])
    return parts


def _check_complete(template: str, start: int, directives: list[_Part]) -> None:
    letters = {part.text for part in directives}
    example = f"a complete template is {_EXAMPLE}"
    if len(letters & {"Y", "y"}) != 1:
        fault = "the timestamp needs the year, %Y or %y"
    elif letters & {"m", "d", "j"} not in ({"m", "d"}, {"j"}):
        fault = "the timestamp needs the day, %m with %d or %j alone"
    elif not letters >= {"H", "M", "S"}:
        fault = "the timestamp needs %H, %M and %S"
    else:
        order = "".join(part.text for part in directives)
        if "HmS" in order:
            month = next(part for part in directives if part.text == "m")
            reason = "'%m' is the month, and stands between hour and second; the minute is '%M'"
            raise TemplateError(template, month.position, reason)
        return
    raise TemplateError(template, start + 1, f"{fault}; {example}")


def _check_text(template: str, parts: list[_Part]) -> None:
    if template.startswith("."):
        raise TemplateError(template, 1, "hidden files, which begin with a '.', are no exposures")
    for kind, text, position in parts:
        if kind == "text" and ("/" in text or "\0" in text):
            reason = "a file name holds no '/'; sub-folders are found without naming them"
            raise TemplateError(template, position, reason)
    for (kind, text, _), (next_kind, next_text, position) in pairwise(parts):
        digits_follow = next_kind != "text" or next_text[0].isdecimal()
        if (kind, text) == ("directive", "f") and digits_follow:
            # 1 to 6 digits: where they end must be plain to see.
            raise TemplateError(template, position, "after %f there must be text that is no digit")
        if kind == "exposure" and next_kind == "text" and next_text[0].isdecimal():
            raise TemplateError(template, position, "after {exposure} there must be no digit")
        if kind == "exposure" and (next_kind, next_text) == ("directive", "f"):
            raise TemplateError(template, position, "between {exposure} and %f there must be text")


def _read_timestamp(fields: Mapping[str, str]) -> datetime | None:
    """Put a date together; None when there is no such date or it is out of range."""
    year = int(fields["Y"]) if "Y" in fields else _full_year(int(fields["y"]))
    if not EARLIEST_YEAR <= year <= LATEST_YEAR:
        return None
    clock = int(fields["H"]), int(fields["M"]), int(fields["S"])
    microsecond = int(fields["f"].ljust(6, "0")) if "f" in fields else 0
    try:
        if "j" not in fields:
            return datetime(year, int(fields["m"]), int(fields["d"]), *clock, microsecond)
        day = int(fields["j"])
        moment = datetime(year, 1, 1, *clock, microsecond) + timedelta(days=day - 1)
    except ValueError:
        return None
    return moment if day > 0 and moment.year == year else None


def _full_year(two_digits: int) -> int:
    """Give a year its century, as POSIX strptime does: 69 to 99 are the twentieth."""
    return two_digits + (1900 if two_digits >= 69 else 2000)


# -- time zones -----------------------------------------------------------------------------


def parse_timezone(name: str) -> tzinfo:
    """Find a time zone by its name in the time zone database; ValueError when there is none.

    Parameters
    ----------
    name : str
        Such as ``UTC``, ``Etc/GMT-1`` (one hour *ahead* of UTC) or ``Europe/Berlin``.
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


# -- other names ----------------------------------------------------------------------------


def is_product_name(name: str) -> bool:
    """Tell whether a file is one of asi-watch's own products (``..._hdr.*``), never an exposure.

    Parameters
    ----------
    name : str
        A file name with its extension; folders before it are ignored.
    """
    return _stem(name).endswith(PRODUCT_SUFFIX)


def is_hidden(name: str) -> bool:
    """Tell whether a file is hidden: an upload that is not done, or a Mac's ``._NAME``.

    Parameters
    ----------
    name : str
        A file name; folders before it are ignored.
    """
    return name.rpartition("/")[2].startswith(".")


def unclear_labels(names: Iterable[str]) -> set[str]:
    """Find ends of names that look like labels and not like exposure times.

    Those are numbers of up to three digits that begin with a zero, such as ``0`` and ``02``; but
    numbers padded to one width, such as ``080`` beside ``160``, are times.

    Parameters
    ----------
    names : iterable of str
        File names of one camera, with their extensions.
    """
    ends = {match[1] for name in names if (match := _NUMBER_AT_END.search(_stem(name)))}
    labels = {end for end in ends if end.startswith("0") and len(end) <= 3}
    width = min(map(len, ends), default=0)
    padded = width == 3 and labels != ends and all(len(label) == width for label in labels)
    return set() if padded else labels


def slot_stem(slot: datetime) -> str:
    """Name the products of a bracket: ``%Y%m%d%H%M%S_hdr``, to which an extension is added.

    Parameters
    ----------
    slot : datetime.datetime
        The bracket's slot, on the clock of the camera's names.
    """
    return f"{slot.year:04d}{slot:%m%d%H%M%S}{PRODUCT_SUFFIX}"


def _stem(name: str) -> str:
    last = name.rpartition("/")[2]
    stem, dot, _ = last.rpartition(".")
    return stem if dot else last
