"""Paths and names of the configuration.

The validators get what YAML made of the text and return the value the rest of the house works
with. They raise `refusal`, whose text says what would be right.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

from pydantic import (
    AfterValidator,
    BeforeValidator,
    PlainSerializer,
    PlainValidator,
    ValidationInfo,
)

from asi_watch.config.refusals import refusal, shown
from asi_watch.naming import NamePattern, parse_timezone

__all__ = ["CameraName", "Extensions", "OptionalPath", "PathField", "Template", "TimeZone"]

READABLE_EXTENSIONS: Final = ("jpg", "jpeg", "jpe", "jfif", "png", "jp2")


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


CameraName: TypeAlias = Annotated[str, AfterValidator(read_camera_name)]
Template: TypeAlias = Annotated[str, PlainValidator(read_template)]
TimeZone: TypeAlias = Annotated[str, BeforeValidator(read_timezone)]
Extensions: TypeAlias = Annotated[tuple[str, ...], BeforeValidator(read_extensions)]
