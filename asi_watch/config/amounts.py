"""Durations and sizes of the configuration.

The validators get what YAML made of the text and return the value the rest of the house works
with. They raise `refusal`, whose text says what would be right.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, PlainSerializer, PlainValidator

from asi_watch.config.refusals import is_number, refusal, shown
from asi_watch.config.sizes import format_size, parse_size
from asi_watch.durations import NEVER, format_duration, parse_duration

__all__ = [
    "Duration",
    "DurationOrNever",
    "Offset",
    "OptionalSize",
    "Size",
    "Within",
    "read_age_or_never",
]


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


def read_offset(value: Any) -> timedelta:
    """Read a duration; ``auto`` was possible once."""
    if value == "auto":
        raise refusal(
            "'auto' is no longer possible: the slot of a file must not depend on what came before;"
            " write 0s, and `asi-watch check` proposes an offset such as -3s where the newest"
            " brackets need one"
        )
    return read_duration(value)


Offset: TypeAlias = Annotated[
    timedelta, BeforeValidator(read_offset), PlainSerializer(format_duration, return_type=str)
]
