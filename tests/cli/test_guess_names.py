"""The template that reads a camera's names, found in the names."""

# ruff: noqa: E501 - a table

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asi_watch.cli._newest_files import guess_names
from asi_watch.naming import NamePattern

START = datetime(2026, 6, 21, 12)


def names_of(form: str, *exposures: str, brackets: int = 4) -> list[str]:
    return [
        (START + timedelta(seconds=30 * n + i)).strftime(form).replace("EXP", exposure) + ".jpg"
        for n in range(brackets)
        for i, exposure in enumerate(exposures)
    ]


@pytest.mark.parametrize(
    ("form", "exposures", "template", "kind", "unit"),
    [
        ("06/21/12/%Y%m%d%H%M%S_EXP", ("80", "160", "1280"), "{timestamp:%Y%m%d%H%M%S}_{exposure}", "number", "us"),
        ("%Y%m%d_%H%M%S_EXP", ("80", "160"), "{timestamp:%Y%m%d_%H%M%S}_{exposure}", "number", "us"),
        ("%Y%m%d%H%M%S_EXP", ("0", "02", "11"), "{timestamp:%Y%m%d%H%M%S}_{exposure}", "label", "us"),
        ("cam1-%Y-%m-%dT%H-%M-%S_expEXP", ("250us", "1.25ms", "2s"), "cam1-{timestamp:%Y-%m-%dT%H-%M-%S}_exp{exposure}", "unit", "us"),
        ("img_%Y%m%d_%H%M%S_EXP", ("1-500", "1-1000", "1-2000"), "img_{timestamp:%Y%m%d_%H%M%S}_{exposure}", "fraction", "s"),
        ("%Y%m%d%H%M%S_EXP", ("1_500", "1_1000"), "{timestamp:%Y%m%d%H%M%S}_{exposure}", "fraction", "s"),
        ("%Y%m%d%H%M%S_EXP", ("0.00125", "0.0005", "0.02"), "{timestamp:%Y%m%d%H%M%S}_{exposure}", "number", "s"),
        ("%Y%m%d%H%M%S_EXP", ("0.5", "1.25", "20"), "{timestamp:%Y%m%d%H%M%S}_{exposure}", "number", "ms"),
        ("expEXP_%Y%m%d%H%M%S", ("80", "1280"), "exp{exposure}_{timestamp:%Y%m%d%H%M%S}", "number", "us"),
        ("%Y%m%d%H%M%S_EXP", ("short", "long"), "{timestamp:%Y%m%d%H%M%S}_{exposure}", "label", "us"),
        ("%Y%m%d_%H%M%S+0200_expEXP", ("80", "160"), "{timestamp:%Y%m%d_%H%M%S%z}_exp{exposure}", "number", "us"),
        ("image-%Y%m%d%H%M%S", ("",), "image-{timestamp:%Y%m%d%H%M%S}", "none", "us"),
        ("%Y%m%d%H%M%S.250_EXP", ("80", "160"), "{timestamp:%Y%m%d%H%M%S.%f}_{exposure}", "number", "us"),
        ("%Y%m%d%H%M%S_EXP_raw", ("80us", "160us"), "{timestamp:%Y%m%d%H%M%S}_{exposure}_raw", "unit", "us"),
        ("%Y%m%d%H%M%S.EXP", ("80", "160"), "{timestamp:%Y%m%d%H%M%S}.{exposure}", "number", "us"),
        ("%Y%m%d%H%M%S-EXP", ("1000", "0500"), "{timestamp:%Y%m%d%H%M%S}-{exposure}", "number", "us"),
        ("{a}%Y%m%d%H%M%S_EXP", ("80", "160"), "{{a}}{timestamp:%Y%m%d%H%M%S}_{exposure}", "number", "us"),
    ],
)  # fmt: skip
def test_usual_names(
    form: str, exposures: tuple[str, ...], template: str, kind: str, unit: str
) -> None:
    found = guess_names(names_of(form, *exposures))
    assert found is not None
    assert (found.filename, found.kind, found.unit) == (template, kind, unit)
    assert set(found.tokens) == set(exposures) - {""}


def test_a_few_odd_names_change_nothing() -> None:
    found = guess_names([*names_of("%Y%m%d%H%M%S_EXP", "80", "160", "320"), "thumb.jpg"])
    assert found is not None
    assert found.filename == "{timestamp:%Y%m%d%H%M%S}_{exposure}"


@pytest.mark.parametrize("names", [[], ["a_80.jpg"], ["2026_80.jpg", "IMG_0001.jpg"]])
def test_names_without_a_time_are_none(names: list[str]) -> None:
    assert guess_names(names) is None


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(max_size=40), max_size=8), st.text(max_size=8), st.text(max_size=8))
def test_whatever_names_there_are_the_template_can_be_used(
    names: list[str], before: str, after: str
) -> None:
    plain = [text.replace("/", "") for text in (before, after)]
    dated = [f"{plain[0]}2026062112{n:02d}00{plain[1]}{8 * n}.jpg" for n in range(9)]
    for paths in (names, [*dated, *names], dated):
        found = guess_names(paths)
        if found is None or found.filename.startswith("."):
            continue
        labels = dict.fromkeys(found.tokens, 1.0) if found.kind == "label" else {}
        needed = found.kind != "none"
        with suppress(ValueError):  # such as a NUL, or a '.' in front: check says so
            pattern = NamePattern(found.filename, found.unit, labels, exposure_needed=needed)
            if paths is dated and found.kind == "number":
                assert sum(pattern.parse(path) is not None for path in dated[1:]) >= 7


@settings(max_examples=100, deadline=None)
@given(
    st.from_regex(r"\A[A-Za-z]{0,6}[-_]?\Z"),
    st.sampled_from(["%Y%m%d%H%M%S", "%Y%m%d_%H%M%S", "%Y-%m-%dT%H-%M-%S", "%Y.%m.%d-%H.%M.%S"]),
    st.from_regex(r"\A[-_][A-Za-z]{0,4}\Z"),
    st.lists(st.integers(20, 99_999), min_size=2, max_size=7, unique=True),
)
def test_names_of_many_forms_are_read(
    before: str, stamp: str, between: str, times: list[int]
) -> None:
    names = names_of(f"{before}{stamp}{between}EXP", *map(str, times))
    found = guess_names(names)
    assert found is not None
    pattern = NamePattern(found.filename, found.unit)
    assert {parsed.exposure_us for name in names if (parsed := pattern.parse(name))} == set(times)
