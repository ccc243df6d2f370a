"""From the names of a camera's files to the template that reads them: for `init` and `check`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

from asi_watch.naming import ExposureUnit, unclear_labels

_STAMP = re.compile(
    r"(?<![0-9])(?:19|20)[0-9]{2}(?P<day>[-_.]?)(?:0[1-9]|1[0-2])(?P=day)(?:0[1-9]|[12][0-9]|3[01])"
    r"(?P<between>[-_T. ]?)(?:[01][0-9]|2[0-3])(?P<hour>[-_:.]?)[0-5][0-9]"
    r"(?P<minute>[-_:.]?)[0-5][0-9]"
    r"(?:(?P<point>[.,])[0-9]{1,6})?(?P<zone>Z|[+-][0-9]{2}:?[0-9]{2})?(?![0-9])"
)
_UNIT = r"[0-9]+(?:\.[0-9]+)?(?:[mu]?s|µs)"
# In the order of trust. A fraction with `_` is one only behind a `_` of its own, as in `_1_500`.
_SHAPES = (
    ("unit", rf"(.*?)(?<![0-9.])({_UNIT})([^0-9]*)"),
    ("fraction", r"(.*?)(?<![0-9A-Za-z.])(1[-d][0-9]+|(?<=^_)1_[0-9]+)([^0-9]*)"),
    ("number", r"(.*?)(?<![0-9.])([0-9]+(?:\.[0-9]+)?)([^0-9]*)"),
    ("label", r"(.*?[-_.])([A-Za-z0-9]+)()"),
)
_MOST_LABELS = 16
_MANY = 0.8

Kind = Literal["unit", "fraction", "number", "label", "none"]


@dataclass(frozen=True, slots=True)
class NameGuess:
    """What the names of a folder seem to say."""

    filename: str
    """The template."""
    kind: Kind
    """How exposures are written; none: names hold no exposure, or one only."""
    tokens: tuple[str, ...]
    """What stands for exposures, in the order of their lengths."""
    unit: ExposureUnit
    zone: bool
    """Whether timestamps state their offset from UTC."""


def guess_names(paths: Collection[str]) -> NameGuess | None:
    """Find the template that most of the names follow; None where they hold no time of day."""
    stems = [path.rpartition("/")[2].rpartition(".")[0] for path in paths]
    found = [(stem, match) for stem in stems if (match := _STAMP.search(stem))]
    kinds = Counter(_directives(match) for _, match in found)
    if not kinds or len(found) < _MANY * len(stems):
        return None
    ((directives, _),) = kinds.most_common(1)
    parts = [
        (stem[: match.start()], stem[match.end() :])
        for stem, match in found
        if _directives(match) == directives
    ]
    heads, tails = [head for head, _ in parts], [tail for _, tail in parts]
    stamp = f"{{timestamp:{directives}}}"
    zone = "%z" in directives
    (head, _), (tail, _) = (Counter(texts).most_common(1)[0] for texts in (heads, tails))
    for texts, form in ((tails, f"{_text(head)}{stamp}{{}}"), (heads, f"{{}}{stamp}{_text(tail)}")):
        if (exposure := _exposure(texts)) is not None:
            kind, before, tokens, after = exposure
            name = f"{_text(before)}{{exposure}}{_text(after)}"
            unit = _unit(kind, tokens)
            return NameGuess(form.replace("{}", name), kind, tokens, unit, zone)
    return NameGuess(f"{_text(head)}{stamp}{_text(tail)}", "none", (), "us", zone)


def _directives(match: re.Match[str]) -> str:
    day, between, hour, minute = match.group("day", "between", "hour", "minute")
    text = f"%Y{day}%m{day}%d{between}%H{hour}%M{minute}%S"
    text += f"{match['point']}%f" if match["point"] else ""
    return text + ("%z" if match["zone"] else "")


def _text(literal: str) -> str:
    return literal.replace("{", "{{").replace("}", "}}")


def _exposure(texts: list[str]) -> tuple[Kind, str, tuple[str, ...], str] | None:
    """Find what varies as exposures do: its kind, the text before, what stands there, and after."""
    if len(set(texts)) < 2:
        return None
    for kind, shape in _SHAPES:
        matches = [match.groups() for text in texts if (match := re.fullmatch(shape, text))]
        places = Counter((before, after) for before, _, after in matches)
        if not places:
            continue
        ((place, count),) = places.most_common(1)
        tokens = {token for before, token, after in matches if (before, after) == place}
        if count < _MANY * len(texts) or len(tokens) < 2:
            continue
        if kind == "number" and unclear_labels(f"_{token}.jpg" for token in tokens):
            kind = "label"
        if kind == "label" and len(tokens) > _MOST_LABELS:
            return None
        return kind, place[0], tuple(sorted(tokens, key=_number)), place[1]  # type: ignore[return-value]
    return None


def _number(token: str) -> tuple[float, str]:
    match = re.match(r"[0-9]+(?:\.[0-9]+)?", token)
    return (float(match[0]) if match else 0.0, token)


def _unit(kind: Kind, tokens: Iterable[str]) -> ExposureUnit:
    """Guess what bare numbers count: decimals are seconds, or ms where there is none below one."""
    if kind == "fraction":
        return "s"
    if kind != "number" or not any("." in token for token in tokens):
        return "us"
    return "s" if min(map(float, tokens)) < 0.1 else "ms"
