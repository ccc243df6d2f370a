"""Values out of a document that nobody vouches for: of the right kind, or refused."""

from __future__ import annotations

import re
from typing import Any, TypeVar

from asi_watch.errors import AsiWatchError

Scalar = str | int | float | bool | None
_T = TypeVar("_T")
_WORD = re.compile(r"[A-Za-z0-9_.+-]{1,64}")


class ProvenanceError(AsiWatchError, ValueError):
    """A product without provenance, or with one that makes no sense."""


def refuse_constant(name: str) -> None:
    """Refuse NaN and infinities, which Python would read."""
    raise ValueError(f"{name} is no JSON number")


def get(document: dict[str, Any], key: str, kind: type[_T], *, optional: bool) -> _T | None:
    """Give the value of a key if it is of the kind, None if it may lack and does."""
    value = document.get(key)
    if value is None and optional:
        return None
    # bool is an int to Python, not to us.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ProvenanceError(f"provenance: {key!r} must be {kind.__name__}")
    return value


def need(document: dict[str, Any], key: str, kind: type[_T]) -> _T:
    """Give the value of a key, which must be of the kind."""
    value = get(document, key, kind, optional=False)
    assert value is not None
    return value


def objects(document: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """Give a list of objects."""
    items = need(document, key, list)
    if not all(isinstance(item, dict) for item in items):
        raise ProvenanceError(f"provenance: {key!r} must be a list of objects")
    return items


def scalars(document: dict[str, Any], key: str) -> dict[str, Scalar]:
    """Give a mapping of plain values."""
    mapping = need(document, key, dict)
    if not all(value is None or isinstance(value, str | int | float) for value in mapping.values()):
        raise ProvenanceError(f"provenance: {key!r} must hold plain values only")
    return mapping


def word(text: str) -> str:
    """Give a text that may become part of a file's name, and a value in a database."""
    if not _WORD.fullmatch(text):
        raise ProvenanceError(f"provenance: {text!r:.40} is no name")
    return text


def count(number: int, least: int) -> int:
    """Give a number that any database can hold, and that counts something."""
    if not least <= number < 1 << 31:
        raise ProvenanceError(f"provenance: {number!r:.40} is no count")
    return number
