"""Templates of file names, taken apart: literal text, date directives and the exposure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from itertools import pairwise
from types import MappingProxyType
from typing import Final, TypeAlias

__all__ = [
    "DIRECTIVES",
    "EARLIEST_YEAR",
    "LATEST_YEAR",
    "Part",
    "TemplateError",
    "full_year",
    "parse_template",
    "read_timestamp",
]

EARLIEST_YEAR, LATEST_YEAR = 1970, 2261  # pandas counts nanoseconds in 64 bits up to 2262

DIRECTIVES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Y": "(?P<Y>[0-9]{4})",
        "y": "(?P<y>[0-9]{2})",
        "m": "(?P<m>[0-9]{2})",
        "d": "(?P<d>[0-9]{2})",
        "j": "(?P<j>[0-9]{3})",
        "H": "(?P<H>[0-9]{2})",
        "M": "(?P<M>[0-9]{2})",
        "S": "(?P<S>[0-9]{2})",
        "f": "(?P<f>[0-9]{1,6})",
    }
)
_EXAMPLE: Final = "'{timestamp:%Y%m%d%H%M%S}_{exposure}'"


class TemplateError(ValueError):
    """A file name template that cannot be used.

    Parameters
    ----------
    template : str
        The template as written.
    position : int
        Where in it the fault lies: characters from the left, the first is 1.
    reason : str
        One clause: what is wrong and what would be right.
    """

    def __init__(self, template: str, position: int, reason: str) -> None:
        super().__init__(f"{template!r}, character {position}: {reason}")
        self.template = template
        self.position = position
        self.reason = reason


Part: TypeAlias = tuple[str, str, int]
"""Its kind ("text", "directive" or "exposure"), its text, its position counted from 1."""


def parse_template(template: str) -> list[Part]:
    """Take a template apart.

    Parameters
    ----------
    template : str
        Literal text around one ``{timestamp:...}`` and one ``{exposure}``.

    Returns
    -------
    list of Part
        In the order of the template.

    Raises
    ------
    TemplateError
        With the position of the first fault.
    """
    parts: list[Part] = []
    seen: set[str] = set()
    at = 0
    while at < len(template):
        if template[at] == "}":
            raise TemplateError(template, at + 1, "'}' without a '{' before it")
        if template[at] != "{":
            text = re.split("[{}]", template[at:], maxsplit=1)[0]
            parts.append(("text", text, at + 1))
            at += len(text)
            continue
        end = template.find("}", at)
        if end < 0 or "{" in template[at + 1 : end]:
            raise TemplateError(template, at + 1, "'{' is never closed by '}'")
        field, colon, directives = template[at + 1 : end].partition(":")
        if field in seen:
            raise TemplateError(template, at + 1, f"{{{field}}} stands here a second time")
        seen.add(field)
        if field == "timestamp":
            parts += _parse_directives(template, directives, at + 1 + len(field) + len(colon))
        elif field == "exposure" and not colon:
            parts.append(("exposure", "", at + 1))
        else:
            reason = (
                f"{template[at : end + 1]} is unknown; known are {{timestamp:...}}, {{exposure}}"
            )
            raise TemplateError(template, at + 1, reason)
        at = end + 1
    for field in ("timestamp", "exposure"):
        if field not in seen:
            reason = f"there is no {{{field}}}; a complete template is {_EXAMPLE}"
            raise TemplateError(template, len(template) + 1, reason)
    _check_text(template, parts)
    return parts


def _parse_directives(template: str, directives: str, start: int) -> list[Part]:
    parts: list[Part] = []
    at = 0
    while at < len(directives):
        position = start + at + 1
        if directives[at] != "%":
            end = directives.find("%", at)
            end = len(directives) if end < 0 else end
            parts.append(("text", directives[at:end], position))
            at = end
            continue
        letter = directives[at + 1 : at + 2]
        if letter == "%":
            parts.append(("text", "%", position))
        elif letter not in DIRECTIVES:
            known = " ".join(f"%{known}" for known in DIRECTIVES)
            raise TemplateError(template, position, f"'%{letter}' is unknown; known are {known}")
        elif any(part[:2] == ("directive", letter) for part in parts):
            raise TemplateError(template, position, f"'%{letter}' stands here a second time")
        else:
            parts.append(("directive", letter, position))
        at += 2
    _check_complete(template, start, {text for kind, text, _ in parts if kind == "directive"})
    return parts


def _check_complete(template: str, start: int, letters: set[str]) -> None:
    def refuse(reason: str) -> None:
        raise TemplateError(template, start + 1, f"{reason}; a complete template is {_EXAMPLE}")

    if len(letters & {"Y", "y"}) != 1:
        refuse("the timestamp needs the year, %Y or %y")
    if letters & {"m", "d", "j"} not in ({"m", "d"}, {"j"}):
        refuse("the timestamp needs the day, %m with %d or %j alone")
    if not letters >= {"H", "M", "S"}:
        refuse("the timestamp needs %H, %M and %S")


def _check_text(template: str, parts: list[Part]) -> None:
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


def read_timestamp(fields: Mapping[str, str]) -> datetime | None:
    """Put a date together.

    Parameters
    ----------
    fields : mapping of str to str
        Digits, by the letter of their directive.

    Returns
    -------
    datetime.datetime or None
        None when there is no such date, or it lies outside the years 1970 to 2261.
    """
    year = int(fields["Y"]) if "Y" in fields else full_year(int(fields["y"]))
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


def full_year(two_digits: int) -> int:
    """Give a year its century, as POSIX strptime does: 69 to 99 are the twentieth."""
    return two_digits + (1900 if two_digits >= 69 else 2000)
