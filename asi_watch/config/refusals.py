"""How a value of the configuration is refused, in words that reach the operator unchanged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from pydantic_core import PydanticCustomError

__all__ = ["REFUSED", "is_number", "refusal", "refusals", "shown"]

REFUSED: Final = "asi_watch_refused"
"""The type of pydantic errors whose text is already written for the operator."""


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
