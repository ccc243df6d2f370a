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
from fractions import Fraction
from itertools import pairwise
from string import Formatter
from typing import Final, Literal, NamedTuple, TypeAlias
from zoneinfo import ZoneInfo

ExposureUnit: TypeAlias = Literal["us", "ms", "s"]

MICROSECONDS_PER_UNIT: Final[Mapping[str, int]] = {"us": 1, "ms": 1_000, "s": 1_000_000}
PRODUCT_TEMPLATE: Final = "{timestamp:%Y%m%d%H%M%S}_hdr"
_PRODUCT_SUFFIX: Final = "_hdr"  # of no exposure's stem
_EARLIEST_YEAR, _LATEST_YEAR = 1970, 2261  # pandas counts nanoseconds in 64 bits up to 2262
_DIRECTIVES: Final[Mapping[str, str]] = {
    letter: f"(?P<{letter}>[0-9]{{{count}}})"
    for letter, count in zip("YymdjHMSf", (4, 2, 2, 2, 3, 2, 2, 2, "1,6"), strict=True)
} | {"z": "(?P<z>Z|[+-](?:[01][0-9]|2[0-3]):?[0-5][0-9])"}
# What an exposure may be written as, by the unit of bare numbers: of µs, there are no parts.
_WHOLE = "[0-9]{1,10}"
_WITH_UNIT = rf"{_WHOLE}(?:\.[0-9]{{1,9}}|[-_d]{_WHOLE})?(?:[mu]?s|µs)"
_NUMBERS: Final[Mapping[str, tuple[str, ...]]] = {
    "us": (_WHOLE, _WITH_UNIT),
    "ms": (rf"{_WHOLE}(?:\.[0-9]{{1,9}})?", _WITH_UNIT),
    "s": (rf"{_WHOLE}(?:\.[0-9]{{1,9}})?", rf"{_WHOLE}[-_d]{_WHOLE}", _WITH_UNIT),
}
_COMPLETE: Final = "a complete template is '{timestamp:%Y%m%d%H%M%S}_{exposure}'"
_NUMBER_AT_END = re.compile(r"_([0-9]{1,10})$")


class ParsedName(NamedTuple):
    """What a file name says about its exposure."""

    timestamp: datetime  # on the camera's own clock, without a time zone
    exposure_us: float  # 0 where the camera's names do not say it


class _Part(NamedTuple):
    """A piece of a template; text is the letter of a directive, nothing for the exposure."""

    kind: Literal["text", "directive", "exposure"]
    text: str


class NamePattern:
    """How one camera names its files.

    Parameters
    ----------
    template : str
        Literal text around exactly one ``{timestamp:...}``, holding the directives
        ``%Y %y %m %d %j %H %M %S %f %z`` (``%%`` for a percent sign), and one ``{exposure}``.
    unit : {"us", "ms", "s"}
        What the number in the name counts, unless a unit stands behind it; the values of `labels`
        count the same. Of ms and s there may be decimals, of s fractions such as ``1-500``.
    labels : mapping of str to float or None
        Exposure time for each label; None: files with it are left out. The text in the name is
        looked up here first.
    timezone : str or datetime.tzinfo
        Of the timestamps in the names; those with ``%z`` are converted to it.
    labels_only : bool
        With labels: a number that is no label does not fit.
    exposure_needed : bool
        False: the template may do without ``{exposure}``.
    """

    def __init__(
        self,
        template: str,
        unit: ExposureUnit = "us",
        labels: Mapping[str, float | None] | None = None,
        timezone: str | tzinfo = "UTC",
        *,
        labels_only: bool = False,
        exposure_needed: bool = True,
    ) -> None:
        if unit not in MICROSECONDS_PER_UNIT:
            raise ValueError(f"exposure unit {unit!r}: it must be one of us, ms, s")
        self.template, self.unit, self.labels = template, unit, dict(labels or {})
        self.timezone = parse_timezone(timezone) if isinstance(timezone, str) else timezone
        self._unit_us = MICROSECONDS_PER_UNIT[unit]
        self._label_us = {
            text: self._checked_label(text, value)
            for text, value in self.labels.items()
            if value is not None
        }
        try:
            self._parts = _parse_template(template)
            if exposure_needed and not any(kind == "exposure" for kind, _ in self._parts):
                text = "write exposure_from: metadata if the files themselves state it"
                raise ValueError(f"there is no {{exposure}}; {_COMPLETE}, or {text}")
            kind, text = self._parts[-1]
            tails = self.labels if kind == "exposure" else [text]
            if any(tail.endswith(_PRODUCT_SUFFIX) for tail in tails):
                raise ValueError(f"names ending in {_PRODUCT_SUFFIX!r} are for the merged products")
        except ValueError as error:
            raise ValueError(f"{template!r}: {error}") from None
        # A full match tries labels and numbers alike: their order does not matter.
        numbers = [] if labels_only and self.labels else _NUMBERS[unit]
        exposure = f"(?P<exposure>{'|'.join([*map(re.escape, self.labels), *numbers])})"
        pieces = (
            _DIRECTIVES[text] if kind == "directive" else re.escape(text) or exposure
            for kind, text in self._parts
        )
        self._regex = re.compile("".join(pieces), re.DOTALL)

    def parse(self, name: str) -> ParsedName | None:
        """Read a file name; never raises.

        None for a hidden file and for any name that does not follow the template, is no date,
        lies outside the years 1970 to 2261, has an exposure of zero, or a label to be left out.

        Parameters
        ----------
        name : str
            With its extension, as from `os.fsdecode`; folders before it are ignored.
        """
        match = None if is_hidden(name) else self._regex.fullmatch(_stem(name))
        if match is None:
            return None
        fields = match.groupdict()
        exposure_us = self._exposure_us(fields["exposure"]) if "exposure" in fields else None
        timestamp = self._timestamp(fields)
        if timestamp is None or exposure_us == 0:
            return None
        return ParsedName(timestamp, exposure_us or 0.0)

    def leaves_out(self, name: str) -> bool:
        """Tell whether a name has a label whose files are to be left out.

        Parameters
        ----------
        name : str
        """
        match = self._regex.fullmatch(_stem(name)) if None in self.labels.values() else None
        return match is not None and self.labels.get(match["exposure"], 0) is None

    def format(self, timestamp: datetime, exposure_us: float) -> str:
        """Write a file name without its extension: the inverse of `parse`.

        ValueError where it would not be read back as the same.

        Parameters
        ----------
        timestamp : datetime.datetime
            On the camera's clock, naive. Fractions of a second are dropped without ``%f``.
        exposure_us : float
        """
        texts = [label for label, value in self._label_us.items() if value == exposure_us]
        texts += [f"{exposure_us / self._unit_us:.9f}".rstrip("0").rstrip(".")]
        name = self._stem_of(timestamp, texts[0])
        whole = timestamp if ("directive", "f") in self._parts else timestamp.replace(microsecond=0)
        if self.parse(f"{name}.jpg") != (whole, exposure_us):
            raise ValueError(
                f"{exposure_us} µs at {timestamp} cannot be written as {self.template!r}"
                f" in {self.unit}"
            )
        return name

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

    def _exposure_us(self, text: str) -> float:
        """Read an exposure time; 0 for one that is none, and for a label to be left out."""
        if text in self.labels:
            return self._label_us.get(text, 0.0)
        if text.isdecimal():
            return float(int(text) * self._unit_us)
        number = text.rstrip("umµs")
        unit = text[len(number) :].replace("µ", "u")
        parts = [Fraction(part) for part in re.split("[-_d]", number)]
        if parts[-1] == 0:
            return 0.0
        value = parts[0] if len(parts) == 1 else parts[0] / parts[1]
        return float(value * MICROSECONDS_PER_UNIT.get(unit, self._unit_us))

    def _timestamp(self, fields: Mapping[str, str]) -> datetime | None:
        """Put a date together; None when there is no such date or it is out of range."""
        # Years of two digits get their century as POSIX strptime gives it.
        short = int(fields.get("y", 0))
        year = int(fields["Y"]) if "Y" in fields else short + (1900 if short >= 69 else 2000)
        clock = int(fields["H"]), int(fields["M"]), int(fields["S"])
        microsecond = int(fields["f"].ljust(6, "0")) if "f" in fields else 0
        month, day = int(fields.get("m", 1)), int(fields.get("d", 1))
        try:
            moment = datetime(year, month, day, *clock, microsecond)
            if "j" in fields:
                moment += timedelta(days=int(fields["j"]) - 1)
            if moment.year != year:
                return None
            if "z" in fields:
                moment = self._on_our_clock(moment, fields["z"])
        except (ValueError, OverflowError):
            return None
        return moment if _EARLIEST_YEAR <= moment.year <= _LATEST_YEAR else None

    def _on_our_clock(self, moment: datetime, offset: str) -> datetime:
        """Convert what a name says with its offset from UTC to the camera's clock."""
        digits = offset.lstrip("+-Z").replace(":", "") or "0000"
        east = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
        utc = (moment + east if offset[0] == "-" else moment - east).replace(tzinfo=UTC)
        return utc.astimezone(self.timezone).replace(tzinfo=None, fold=0)

    def _stem_of(self, timestamp: datetime, exposure: str) -> str:
        if ("directive", "z") in self._parts and timestamp.tzinfo is None:
            timestamp = timestamp.replace(tzinfo=self.timezone)
        return "".join(
            _written(timestamp, text) if kind == "directive" else text or exposure
            for kind, text in self._parts
        )

    def _checked_label(self, text: str, value: float) -> float:
        if not text or "/" in text or "\0" in text:
            raise ValueError(f"exposure label {text!r}: it must be text that a file name can hold")
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"exposure label {text!r}: its exposure must be greater than 0")
        return float(value * self._unit_us)


class ProductName:
    """How one kind of product is named: by the slot of its bracket.

    Parameters
    ----------
    template : str
        As for `NamePattern`, without ``{exposure}``; ``{camera}`` stands for the camera's name.
    camera : str
    timezone : str or None
        Of the names; None: that of the slots.
    """

    def __init__(
        self, template: str = PRODUCT_TEMPLATE, camera: str = "", timezone: str | None = None
    ) -> None:
        self._zone = None if timezone is None else parse_timezone(timezone)
        text = template.replace("{camera}", camera.replace("{", "{{").replace("}", "}}"))
        try:
            self._parts = _parse_template(text, ("timestamp",))
            if ("directive", "z") in self._parts:
                raise ValueError("'%z' is for the names of exposures; write timezone")
        except ValueError as error:
            raise ValueError(f"{template!r}: {error}") from None
        pieces = (_DIRECTIVES[t] if k == "directive" else re.escape(t) for k, t in self._parts)
        self._regex = re.compile("".join(pieces), re.DOTALL)

    def stem(self, slot: datetime, slot_utc: datetime | None = None) -> str:
        """Return the name of a bracket's product, without its extension.

        Parameters
        ----------
        slot : datetime.datetime
            Naive, on the clock of the camera's names.
        slot_utc : datetime.datetime, optional
            The same, aware; needed with a time zone.
        """
        moment = slot
        if self._zone is not None:
            if slot_utc is None:
                raise ValueError("a name in a time zone of its own needs the slot in UTC")
            moment = slot_utc.astimezone(self._zone)
        parts = (_written(moment, t) if k == "directive" else t for k, t in self._parts)
        return "".join(parts)

    def fits(self, name: str) -> bool:
        """Tell whether a file's name may be that of such a product.

        Parameters
        ----------
        name : str
            With its extension; folders before it are ignored.
        """
        return self._regex.fullmatch(_stem(name)) is not None


def _written(moment: datetime, directive: str) -> str:
    return f"{moment.year:04d}" if directive == "Y" else moment.strftime(f"%{directive}")


def _parse_template(
    template: str, known: tuple[str, ...] = ("timestamp", "exposure")
) -> list[_Part]:
    """Take a template apart, in its order; ValueError for its first fault."""
    parts: list[_Part] = []
    fields: list[str] = []
    for text, field, spec, conversion in Formatter().parse(template):
        parts += [_Part("text", text)] if text else []
        if field is None:
            continue
        if field in fields:
            raise ValueError(f"{{{field}}} is given a second time")
        fields.append(field)
        if field == "timestamp" and not conversion:
            parts += _parse_directives(spec or "")
        elif field == "exposure" and field in known and not spec and not conversion:
            parts.append(_Part("exposure", ""))
        else:
            what = f"{{{field}:{spec}}}" if spec else f"{{{field}}}"
            other = "{exposure}" if "exposure" in known else "{camera}"
            raise ValueError(f"{what} is unknown; known are {{timestamp:...}}, {other}")
    if "timestamp" not in fields:
        raise ValueError(f"there is no {{timestamp}}; {_COMPLETE}")
    _check_text(parts)
    return parts


def _parse_directives(directives: str) -> list[_Part]:
    parts: list[_Part] = []
    for match in re.finditer("%(.?)|[^%]+", directives, re.DOTALL):
        letter = match[1]
        if letter is None or letter == "%":
            parts.append(_Part("text", letter or match[0]))
            continue
        if letter not in _DIRECTIVES:
            known = " ".join(f"%{known}" for known in _DIRECTIVES)
            raise ValueError(f"'%{letter}' is unknown; known are {known}")
        if ("directive", letter) in parts:
            raise ValueError(f"'%{letter}' is given a second time")
        parts.append(_Part("directive", letter))
    order = "".join(text for kind, text in parts if kind == "directive")
    letters = set(order)
    if len(letters & {"Y", "y"}) != 1:
        raise ValueError(f"the timestamp needs the year, %Y or %y; {_COMPLETE}")
    if letters & {"m", "d", "j"} not in ({"m", "d"}, {"j"}):
        raise ValueError(f"the timestamp needs the day, %m with %d or %j alone; {_COMPLETE}")
    if not letters >= {"H", "M", "S"}:
        raise ValueError(f"the timestamp needs %H, %M and %S; {_COMPLETE}")
    if "HmS" in order:
        raise ValueError("'%m' is the month, and stands between hour and second; write %M")
    return parts


def _check_text(parts: list[_Part]) -> None:
    if parts[0].kind == "text" and parts[0].text.startswith("."):
        raise ValueError("names that begin with a '.' are of hidden files")
    if any(kind == "text" and ("/" in text or "\0" in text) for kind, text in parts):
        raise ValueError("a file name holds no '/'; sub-folders need no name here")
    for (kind, text), (next_kind, next_text) in pairwise(parts):
        digit = next_kind == "text" and next_text[0].isdecimal()
        # 1 to 6 digits, or a sign: where one ends must be plain to see.
        if (kind, text) == ("directive", "f") and (digit or next_kind != "text"):
            raise ValueError("after %f there must be text that is no digit")
        if kind == "exposure" and digit:
            raise ValueError("after {exposure} there must be no digit")
        if kind == "exposure" and (next_kind, next_text) == ("directive", "f"):
            raise ValueError("between {exposure} and %f there must be text")


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


def changes_within_a_year(zone: tzinfo) -> bool:
    """Tell whether a time zone has a summer time.

    Parameters
    ----------
    zone : datetime.tzinfo
    """
    january = datetime(datetime.now().year, 1, 1)
    return len({zone.utcoffset(january + timedelta(days=day)) for day in range(0, 366, 5)}) > 1


def is_product_name(name: str) -> bool:
    """Tell whether a file is one of asi-watch's own products (``..._hdr.*``), never an exposure.

    Parameters
    ----------
    name : str
    """
    return _stem(name).endswith(_PRODUCT_SUFFIX)


def is_hidden(name: str) -> bool:
    """Tell whether a file is hidden: an upload that is not done, or a Mac's ``._NAME``.

    Parameters
    ----------
    name : str
    """
    return name.rpartition("/")[2].startswith(".")


def unclear_labels(names: Iterable[str]) -> set[str]:
    """Find ends of one camera's file names that look like labels and not like exposure times.

    Those are numbers of up to three digits that begin with a zero, such as ``0`` and ``02``; but
    numbers padded to one width, such as ``080`` beside ``160``, are times.

    Parameters
    ----------
    names : iterable of str
    """
    ends = {match[1] for name in names if (match := _NUMBER_AT_END.search(_stem(name)))}
    labels = {end for end in ends if end.startswith("0") and len(end) <= 3}
    width = min(map(len, ends), default=0)
    padded = width == 3 and labels != ends and all(len(label) == width for label in labels)
    return set() if padded else labels


def _stem(name: str) -> str:
    last = name.rpartition("/")[2]
    stem, dot, _ = last.rpartition(".")
    return stem if dot else last
