"""The circle of ``--sky-disc``, as two commands read it."""

from __future__ import annotations

import math
from typing import Literal

import click

__all__ = ["Circle", "disc_of", "disc_or_auto_of"]

Circle = tuple[float, float, float]
NONE = "none"


def disc_or_auto_of(
    _context: click.Context, _option: click.Parameter, value: str | None
) -> Circle | Literal["auto", "none"] | None:
    """Read X,Y,RADIUS, ``auto`` or ``none``; None where the option is not given."""
    return "auto" if value == "auto" else _disc(value, "auto, none")


def disc_of(
    _context: click.Context, _option: click.Parameter, value: str | None
) -> Circle | Literal["none"] | None:
    """Read X,Y,RADIUS or ``none``; None where the option is not given."""
    return _disc(value, "none")


def _disc(value: str | None, choices: str) -> Circle | Literal["none"] | None:
    if value is None:
        return None
    if value == NONE:
        return "none"
    try:
        x, y, radius = (float(number) for number in value.split(","))
    except ValueError:
        x = y = radius = math.nan
    if not (math.isfinite(x) and math.isfinite(y) and 0 < radius < math.inf):
        raise click.BadParameter(
            f"{value!r} is not {choices} or three numbers such as 1024,1010,980"
        )
    return x, y, radius
