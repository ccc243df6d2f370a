"""Validation errors as sentences for the operator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from asi_watch.config.document import Document, Way
from asi_watch.config.model import (
    BracketConfig,
    CameraConfig,
    Config,
    DiskConfig,
    LimitsConfig,
    LogConfig,
    MergeConfig,
    ProductConfig,
    RecalibrateConfig,
    RetentionConfig,
    ScanConfig,
)
from asi_watch.config.refusals import REFUSED, shown

__all__ = ["record"]

_SECTIONS: Final[Mapping[str, type[BaseModel]]] = {
    "log": LogConfig,
    "scan": ScanConfig,
    "bracket": BracketConfig,
    "merge": MergeConfig,
    "products": ProductConfig,
    "recalibrate": RecalibrateConfig,
    "retention": RetentionConfig,
    "exposures": LimitsConfig,
    "disk": DiskConfig,
}
_WANTED: Final[Mapping[str, str]] = {
    "cameras": "a mapping of camera names to their settings",
    "watch": "the folder the camera's files arrive in, such as /srv/asi/roof",
    "output": "the folder for the HDR images, such as /srv/asi/roof-hdr",
    "format": "one of jpg, png, jp2, exr, tiff, hdr",
}
_KINDS: Final[Mapping[str, str]] = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "string_unicode": "text in UTF-8",
    "bool_type": "true or false",
    "dict_type": "a mapping of names to settings",
    "tuple_type": "a list, such as [{format: jpg}]",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
}
_LIMITS: Final[Mapping[str, tuple[str, str]]] = {
    "greater_than_equal": ("ge", "{} or more"),
    "greater_than": ("gt", "more than {}"),
    "less_than_equal": ("le", "{} or less"),
    "less_than": ("lt", "less than {}"),
}


def record(error: ValidationError, document: Document) -> None:
    """Add every fault of a validation to a document's problems.

    Parameters
    ----------
    error : pydantic.ValidationError
        From validating the document's data as `Config`.
    document : Document
        Where the lines are known and the problems are kept.
    """
    for fault in error.errors(include_url=False):
        way = tuple(part for part in fault["loc"] if part != "[key]")
        context = fault.get("ctx", {})
        if fault["type"] == "too_short" and fault["input"]:
            continue  # what it holds is wrong, and told for each item
        if "found" in context:
            for key, text in context["found"]:
                document.refuse((*way, *key.split(".")), text)
        else:
            document.refuse(way, _sentence(fault["type"], way, fault["input"], context, document))


def _sentence(
    kind: str, way: Way, value: Any, context: Mapping[str, Any], document: Document
) -> str:
    if kind == REFUSED:
        return str(context["text"])
    if kind in ("extra_forbidden", "invalid_key"):  # invalid: not UTF-8
        return _unknown_key(way)
    if kind == "missing":
        return f"is missing; give {_WANTED.get(str(way[-1]), 'it a value')}"
    written = repr(document.texts[way]) if way in document.texts else shown(value)
    if value is None:
        return f"is empty; it must be {_KINDS.get(kind, 'given a value')}, or be left out"
    if kind == "literal_error":
        return _no_choice(written, value, str(context["expected"]))
    if kind in _LIMITS:
        name, phrase = _LIMITS[kind]
        return f"{written} is out of range; it must be {phrase.format(context[name])}"
    if kind == "too_short":
        return f"is empty; it must hold at least {context['min_length']}"
    wanted = _KINDS.get(kind)
    return f"{written} is wrong; it must be {wanted}" if wanted else f"{written} is not valid"


def _no_choice(written: str, value: Any, expected: str) -> str:
    choices = [text.strip("'") for text in expected.replace(" or ", ", ").split(", ")]
    text = f"{written} is unknown; it must be one of {', '.join(choices)}"
    near = _nearest(str(value), choices)
    return f"{text}; did you mean {near}?" if near else text


def _unknown_key(way: Way) -> str:
    fields = _section_at(way[:-1]).model_fields
    known = [name for name, field in fields.items() if not field.exclude]
    key = str(way[-1])
    near = _nearest(key, known)
    if near:
        return f"this key is unknown; did you mean {near}?"
    homes = [_home(key, name) for name, model in _SECTIONS.items() if key in model.model_fields]
    if key in CameraConfig.model_fields:
        homes.insert(0, f"cameras.<name>.{key}")
    if key in Config.model_fields:
        homes.insert(0, f"{key} at the top of the file")
    if homes:
        return f"this key does not belong here; did you mean {' or '.join(homes)}?"
    return f"this key is unknown; known here are {', '.join(known)}"


def _home(key: str, section: str) -> str:
    if section == "exposures":
        return f"cameras.<name>.retention.exposures.{key}"
    return f"{section}.{key}" if section in ("log", "disk") else f"cameras.<name>.{section}.{key}"


def _section_at(way: Way) -> type[BaseModel]:
    names = [part for part in way if isinstance(part, str)]
    if not names:
        return Config
    if names[0] == "cameras" and len(names) == 2:
        return CameraConfig
    if names[-2:] == ["retention", "products"]:
        return LimitsConfig
    return _SECTIONS.get(names[-1], Config)


def _nearest(word: str, known: Iterable[str]) -> str | None:
    plain = {name.lower().replace("-", "_"): name for name in known}
    near = get_close_matches(word.lower().replace("-", "_"), plain, n=1, cutoff=0.7)
    return plain[near[0]] if near else None
