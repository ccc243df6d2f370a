from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from asi_watch.naming import (
    NamePattern,
    ParsedName,
    ProductName,
    is_product_name,
    parse_timezone,
    unclear_labels,
)

DEFAULT = "{timestamp:%Y%m%d%H%M%S}_{exposure}"
EKO_LABELS = {"0": 2000.0, "02": 500.0}


@pytest.mark.parametrize(
    ("template", "name", "timestamp", "exposure_us"),
    [
        (DEFAULT, "20240621103001_80.jpg", datetime(2024, 6, 21, 10, 30, 1), 80),
        (DEFAULT, "2024/06/21/10/20240621103001_80.jpg", datetime(2024, 6, 21, 10, 30, 1), 80),
        (DEFAULT, "20240621103001_0080.jpeg", datetime(2024, 6, 21, 10, 30, 1), 80),
        (
            "{timestamp:%Y%m%d_%H%M%S}_{exposure}",
            "20240621_103001_1280.jpg",
            datetime(2024, 6, 21, 10, 30, 1),
            1280,
        ),
        (
            "cam-{exposure}us {timestamp:%y%j-%H.%M.%S.%f}",
            "cam-50us 24366-23.59.59.25.png",
            datetime(2024, 12, 31, 23, 59, 59, 250_000),
            50,
        ),
        (
            "{exposure}{timestamp:%d%m%Y%H%M%S}",
            "12821062024103001.jpg",
            datetime(2024, 6, 21, 10, 30, 1),
            128,
        ),
        (
            "100%_{timestamp:%%%Y%m%d%H%M%S}_{exposure}(a+b)",
            "100%_%20240621103001_80(a+b).jpg",
            datetime(2024, 6, 21, 10, 30, 1),
            80,
        ),
    ],
)
def test_parse(template: str, name: str, timestamp: datetime, exposure_us: float) -> None:
    assert NamePattern(template).parse(name) == ParsedName(timestamp, exposure_us)


@pytest.mark.parametrize(("unit", "exposure_us"), [("us", 80), ("ms", 80e3), ("s", 80e6)])
def test_unit(unit: str, exposure_us: float) -> None:
    parsed = NamePattern(DEFAULT, unit).parse("20240621103001_80.jpg")  # type: ignore[arg-type]
    assert parsed is not None
    assert parsed.exposure_us == exposure_us


def test_labels_are_matched_whole_and_before_numbers() -> None:
    pattern = NamePattern(DEFAULT, "us", EKO_LABELS | {"HIGH": 9.5})
    found = {
        text: pattern.parse(f"20240621103001_{text}.jpg")
        for text in ("0", "02", "2", "002", "HIGH", "high", "00")
    }
    times = {text: None if parsed is None else parsed.exposure_us for text, parsed in found.items()}
    assert times == {"0": 2000, "02": 500, "2": 2, "002": 2, "HIGH": 9.5, "high": None, "00": None}


def test_with_labels_alone_numbers_do_not_fit() -> None:
    pattern = NamePattern(DEFAULT, "us", EKO_LABELS, labels_only=True)
    fitting = [t for t in ("0", "02", "2", "11", "80") if pattern.parse(f"20240621103001_{t}.jpg")]
    assert fitting == ["0", "02"]
    assert NamePattern(DEFAULT, labels_only=True).parse("20240621103001_80.jpg") is not None


@pytest.mark.parametrize(
    ("unit", "text", "exposure_us"),
    [
        ("us", "080", 80),
        ("us", "250us", 250),
        ("us", "250µs", 250),
        ("us", "1.25ms", 1250),
        ("us", "2s", 2e6),
        ("s", "250us", 250),
        ("s", "0.00125", 1250),
        ("ms", "0.5", 500),
        ("us", "1-500s", 2000),
        ("us", "1_2ms", 500),
        ("s", "1-500", 2000),
        ("s", "1_500", 2000),
        ("s", "1d500", 2000),
        ("s", "3", 3e6),
        # Of microseconds there are no parts: these are copies, counters, or other numbers.
        ("us", "640.1", None),
        ("us", "640_1", None),
        ("us", "1_500", None),
        ("ms", "1-500", None),
        ("s", "1-0", None),
        ("s", "0-500", None),
        ("s", "0.0", None),
        ("s", ".5", None),
        ("s", "1.", None),
        ("us", "80ns", None),
        ("us", "us", None),
    ],
)
def test_ways_of_writing_an_exposure_time(unit: str, text: str, exposure_us: float | None) -> None:
    parsed = NamePattern(DEFAULT, unit).parse(f"20240621103001_{text}.jpg")  # type: ignore[arg-type]
    assert (None if parsed is None else parsed.exposure_us) == exposure_us


def test_text_behind_the_exposure_may_be_a_unit() -> None:
    for text, exposure_us in (("80", 80), ("1.5ms_", 1500)):
        template = "{timestamp:%Y%m%d%H%M%S}_{exposure}" + ("s" if text == "80" else "_")
        name = f"20240621103001_{text}" + ("s" if text == "80" else "")
        assert NamePattern(template).parse(f"{name}.jpg") == (
            datetime(2024, 6, 21, 10, 30, 1),
            exposure_us,
        )


@settings(deadline=None)
@given(st.sampled_from(["ms", "s"]), st.integers(1, 10**9), st.integers(0, 6))
def test_decimals_are_read_as_written(unit: str, digits: int, places: int) -> None:
    number = Decimal(digits).scaleb(-places)
    exposure_us = float(number * {"ms": 1000, "s": 1_000_000}[unit])
    pattern = NamePattern(DEFAULT, unit)  # type: ignore[arg-type]
    parsed = pattern.parse(f"20240621103001_{number:f}.jpg")
    assert parsed is not None
    assert parsed.exposure_us == exposure_us
    if places <= 3:
        stem = pattern.format(datetime(2024, 6, 21), exposure_us)
        assert pattern.parse(f"{stem}.jpg") == (datetime(2024, 6, 21), exposure_us)


def test_a_label_without_a_time_is_left_out() -> None:
    pattern = NamePattern(DEFAULT, "us", {"0": 2000.0, "11": None}, labels_only=True)
    names = {text: f"2024/20240621103001_{text}.jpg" for text in ("0", "11", "12")}
    assert [text for text, name in names.items() if pattern.parse(name)] == ["0"]
    assert [text for text, name in names.items() if pattern.leaves_out(name)] == ["11"]
    assert not NamePattern(DEFAULT).leaves_out(names["11"])


def test_names_may_do_without_an_exposure() -> None:
    template = "roof_{timestamp:%Y%m%d%H%M%S}"
    pattern = NamePattern(template, exposure_needed=False)
    assert pattern.parse("roof_20240621103001.jpg") == (datetime(2024, 6, 21, 10, 30, 1), 0)
    with pytest.raises(ValueError, match="exposure_from: metadata"):
        NamePattern(template)


@pytest.mark.parametrize(
    ("zone", "offset", "moment"),
    [
        ("UTC", "+0200", datetime(2025, 7, 1, 3, 14, 30)),
        ("UTC", "-03:30", datetime(2025, 7, 1, 8, 44, 30)),
        ("UTC", "Z", datetime(2025, 7, 1, 5, 14, 30)),
        ("Etc/GMT-1", "+0200", datetime(2025, 7, 1, 4, 14, 30)),
        ("Europe/Berlin", "+0200", datetime(2025, 7, 1, 5, 14, 30)),
        ("UTC", "+02", None),
        ("UTC", "+2500", None),
        ("UTC", "", None),
    ],
)
def test_an_offset_from_utc_in_the_name(zone: str, offset: str, moment: datetime | None) -> None:
    pattern = NamePattern("{timestamp:%Y%m%d_%H%M%S%z}_{exposure}", timezone=zone)
    parsed = pattern.parse(f"20250701_051430{offset}_80.jpg")
    assert (None if parsed is None else parsed.timestamp) == moment
    if moment is not None:
        assert pattern.parse(f"{pattern.format(moment, 80)}.jpg") == (moment, 80)


def test_offsets_at_the_end_of_the_calendar_do_not_raise() -> None:
    pattern = NamePattern("{timestamp:%Y%m%d%H%M%S%z}_{exposure}")
    assert pattern.parse("19700101000000+0100_80.jpg") is None
    assert pattern.parse("99991231235959-2359_80.jpg") is None


@pytest.mark.parametrize(
    ("ends", "labels"),
    [
        (["0", "02", "11"], {"0", "02"}),
        (["02", "11"], {"02"}),
        (["080", "160", "320", "640"], set()),
        (["080", "160", "1280"], set()),
        (["0080", "1280"], set()),
        (["010", "020", "040"], {"010", "020", "040"}),
        (["080", "160", "8"], {"080"}),
        (["80", "1280"], set()),
        ([], set()),
    ],
)
def test_labels_are_told_from_padded_times(ends: list[str], labels: set[str]) -> None:
    assert unclear_labels(f"2024/20240621103001_{end}.jpg" for end in ends) == labels


def test_labels_count_in_the_unit() -> None:
    parsed = NamePattern(DEFAULT, "ms", {"x": 2.5}).parse("20240621103001_x.jpg")
    assert parsed is not None
    assert parsed.exposure_us == 2500


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "/",
        "..",
        ".jpg",
        "20240621103001_80_hdr.jpg",
        "20240621103001_hdr.jpg",
        "x20240621103001_80.jpg",
        "20240621103001_80.jpg.part",
        ".20240621103001_80.jpg",
        "._20240621103001_80.jpg",
        "2024/._20240621103001_80.jpg",
        "20240621103001_640_1.jpg",
        "20240621103001_640 (1).jpg",
        "20240621103001_.jpg",
        "20240621103001_0.jpg",
        "20240621103001_000000.jpg",
        "20240621103001_-80.jpg",
        "20240621103001_8 0.jpg",
        "20240621103001_80\n.jpg",
        "20240621103001_80\n",
        "20240621103001_" + "9" * 11 + ".jpg",
        "20240621103001_" + "9" * 5000 + ".jpg",
        "9" * 100_000,
        "20241321103001_80.jpg",
        "20240230103001_80.jpg",
        "20240621243001_80.jpg",
        "20240621103060_80.jpg",
        "00000621103001_80.jpg",
        "19690621103001_80.jpg",
        "99990621103001_80.jpg",
        "٢٠٢٤٠٦٢١١٠٣٠٠١_80.jpg",
        "٢٠٢٤0621103001_80.jpg",
        "20240621103001_٨٠.jpg",
        "2024062110\udcff001_80.jpg",
        "\0",
    ],
)
def test_hostile_and_foreign_names_are_none(name: str) -> None:
    assert NamePattern(DEFAULT).parse(name) is None


@pytest.mark.parametrize("day", ["000", "366"])
def test_day_of_the_year_that_is_none(day: str) -> None:
    pattern = NamePattern("{timestamp:%Y%j%H%M%S}_{exposure}")
    assert pattern.parse(f"2023{day}103001_80.jpg") is None


@pytest.mark.parametrize(("short", "year"), [("69", None), ("70", 1970), ("68", 2068)])
def test_years_of_two_digits(short: str, year: int | None) -> None:
    parsed = NamePattern("{timestamp:%y%j%H%M%S}_{exposure}").parse(f"{short}172103001_80.jpg")
    assert (None if parsed is None else parsed.timestamp.year) == year


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=[])))
def test_no_name_raises(name: str) -> None:
    NamePattern(DEFAULT, labels=EKO_LABELS).parse(name)
    is_product_name(name)


def test_names_that_are_not_utf8() -> None:
    template = os.fsdecode(b"caf\xe9_{timestamp:%Y%m%d%H%M%S}_{exposure}")
    parsed = NamePattern(template).parse(os.fsdecode(b"caf\xe9_20240621103001_80.jpg"))
    assert parsed == ParsedName(datetime(2024, 6, 21, 10, 30, 1), 80)


moments = st.datetimes(datetime(1970, 1, 1), datetime(2068, 12, 31, 23, 59, 59))
texts = st.text("abcXYZ-_. %()+*?[]^$|\\é", max_size=4)


@st.composite
def templates(draw: st.DrawFn) -> str:
    year = draw(st.sampled_from(["%Y", "%y"]))
    day = draw(st.sampled_from(["%m%d", "%d.%m", "%j"]))
    fraction = draw(st.sampled_from(["", ".%f"]))
    order = draw(st.permutations([year, day, "%H-%M", "%S"]))
    fields = [f"{{timestamp:{'_'.join(order)}{fraction}}}", "{exposure}"]
    first, second = draw(st.permutations(fields))
    return f"{draw(texts).lstrip('.')}{first}x{second}{draw(texts)}"


@settings(deadline=None)
@given(
    templates(),
    moments,
    st.sampled_from(["us", "ms", "s"]),
    st.integers(1, 10_000_000),
    st.dictionaries(st.text("019aB", min_size=1, max_size=3), st.integers(1, 9999), max_size=3),
)
def test_parse_is_the_inverse_of_format(
    template: str, moment: datetime, unit: str, number: int, labels: dict[str, int]
) -> None:
    pattern = NamePattern(template, unit, labels)  # type: ignore[arg-type]
    exposure_us = float(number * {"us": 1, "ms": 1000, "s": 1_000_000}[unit])
    assume(str(number) not in labels)
    whole = moment if "%f" in template else moment.replace(microsecond=0)
    stem = pattern.format(moment, exposure_us)
    assert pattern.parse(f"{stem}.jpg") == ParsedName(whole, exposure_us)
    for value in labels.values():
        labelled = float(value) * exposure_us / number
        assert pattern.parse(f"{pattern.format(moment, labelled)}.jpg") == (whole, labelled)


@pytest.mark.parametrize("exposure_us", [0, float("nan"), float("inf"), 1e-8, 11000, 1e14])
def test_format_refuses_times_that_could_not_be_read_back(exposure_us: float) -> None:
    pattern = NamePattern(DEFAULT, "ms", {"11": 2})
    with pytest.raises(ValueError, match="cannot be written"):
        pattern.format(datetime(2024, 6, 21), exposure_us)


@pytest.mark.parametrize(
    ("year", "moment"),
    [
        ("%y", datetime(2100, 1, 1)),
        ("%Y", datetime(1960, 1, 1)),
        ("%Y", datetime(2024, 1, 1, tzinfo=UTC)),
    ],
)
def test_format_refuses_dates_it_could_not_read_back(year: str, moment: datetime) -> None:
    pattern = NamePattern(f"{{timestamp:{year}%j%H%M%S}}_{{exposure}}")
    with pytest.raises(ValueError, match="cannot be written"):
        pattern.format(moment, 80)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("", "no {timestamp}"),
        ("{exposure}", "no {timestamp}"),
        ("{timestamp:%Y%m%d%H%M%S}", "no {exposure}"),
        ("{exposure}_{exposure}", "second time"),
        (DEFAULT + "{timestamp:%Y%j%H%M%S}", "second time"),
        ("{timestamp:%Y%m%d%H%M%S_{exposure}", "[Ss]ingle|expected|braces|unmatched"),
        ("a}b", "[Ss]ingle|expected|braces|unmatched"),
        ("ab{exposure", "[Ss]ingle|expected|braces|unmatched"),
        ("{exposure:03d}", "is unknown"),
        ("{camera}", "is unknown"),
        ("{timestamp}_{exposure}", "needs the year"),
        ("{timestamp:%Y%m%d%H%M%Q}_{exposure}", "'%Q' is unknown"),
        ("{timestamp:%Y%m%d%H%M%S%}_{exposure}", "'%' is unknown"),
        ("{timestamp:%Y%Y%m%d%H%M%S}_{exposure}", "second time"),
        ("{timestamp:%m%d%H%M%S}_{exposure}", "needs the year"),
        ("{timestamp:%Y%m%H%M%S}_{exposure}", "needs the day"),
        ("{timestamp:%Y%m%d%H%M}_{exposure}", "needs %H, %M and %S"),
        ("%Y/" + DEFAULT, "no '/'"),
        ("." + DEFAULT, "hidden files"),
        ("{timestamp:%Y%M%d%H%m%S}_{exposure}", "write %M"),
        ("{exposure}_{timestamp:%d.%M.%y %H-%m-%S}", "write %M"),
        ("{timestamp:%Y%j%H%M%S%f}{exposure}", "after %f"),
        ("{exposure}{timestamp:%f %Y%j%H%M%S}", "between {exposure} and %f"),
        ("{exposure}5{timestamp:%Y%j%H%M%S}", "no digit"),
        (DEFAULT + "_hdr", "for the merged products"),
    ],
)
def test_faults_of_a_template_are_named(template: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        NamePattern(template)
    assert repr(template) in str(caught.value)


@pytest.mark.parametrize("labels", [{"": 1}, {"a/b": 1}, {"a": 0}, {"a": float("inf")}])
def test_labels_that_cannot_be(labels: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="exposure label"):
        NamePattern(DEFAULT, labels=labels)


def test_a_label_may_not_make_an_exposure_look_like_a_product() -> None:
    with pytest.raises(ValueError, match="for the merged products"):
        NamePattern(DEFAULT, labels={"x_hdr": 1})


def test_utc() -> None:
    noon = datetime(2024, 6, 21, 12)
    assert NamePattern(DEFAULT, timezone="Etc/GMT-1").to_utc(noon) == datetime(
        2024, 6, 21, 11, tzinfo=UTC
    )
    assert NamePattern(DEFAULT, timezone=timezone(timedelta(hours=-2))).to_utc(noon).hour == 14
    # The hour that occurs twice is the first one: still summer time.
    twice = datetime(2024, 10, 27, 2, 30)
    assert NamePattern(DEFAULT, timezone="Europe/Berlin").to_utc(twice) == datetime(
        2024, 10, 27, 0, 30, tzinfo=UTC
    )


@pytest.mark.parametrize("name", ["", "GMT+1", "Europe", "../../etc/passwd", "/etc/passwd", "a\0b"])
def test_no_time_zone(name: str) -> None:
    with pytest.raises(ValueError, match="Etc/GMT-1"):
        parse_timezone(name)


@pytest.mark.parametrize(
    ("name", "product"),
    [
        ("20240621103000_hdr.jpg", True),
        ("2024/06/20240621103000_hdr.exr", True),
        ("20240621103000_hdr.json", True),
        ("20240621103000_hdr", True),
        ("20240621103000_80.jpg", False),
        ("_hdr/20240621103000_80.jpg", False),
        ("20240621103000_hdr_80.jpg", False),
        ("", False),
    ],
)
def test_products_are_told_from_exposures(name: str, product: bool) -> None:
    assert is_product_name(name) is product


@settings(deadline=None)
@given(st.datetimes(datetime(1970, 1, 1), datetime(2261, 12, 31)))
def test_the_stem_of_a_slot(slot: datetime) -> None:
    stem = ProductName().stem(slot)
    assert stem == slot.strftime("%Y%m%d%H%M%S") + "_hdr"
    assert is_product_name(f"{stem}.jpg")
    assert NamePattern(DEFAULT).parse(f"{stem}.jpg") is None


def test_names_sort_as_their_times_do() -> None:
    start = datetime(2024, 12, 31, 23, 59)
    stems = [ProductName().stem(start + timedelta(seconds=30 * i)) for i in range(5)]
    assert all(a < b for a, b in pairwise(stems))


def test_products_are_named_by_slot_camera_and_zone() -> None:
    slot = datetime(2026, 6, 21, 23, 30)
    named = ProductName("{camera}-{timestamp:%y%j_%H%M%S}", "roof-2", "Etc/GMT-1")
    assert named.stem(slot, slot.replace(tzinfo=UTC)) == "roof-2-26173_003000"
    assert named.fits("2026/06/roof-2-26173_003000.exr")
    assert not named.fits("roof-3-26173_003000.exr")
    with pytest.raises(ValueError, match="needs the slot in UTC"):
        named.stem(slot)
    with pytest.raises(ValueError, match=r"known are \{timestamp:\.\.\.\}, \{camera\}"):
        ProductName("{timestamp:%Y%m%d%H%M%S}_{exposure}")


def test_the_examples_of_the_manual_fit() -> None:
    text = (Path(__file__).parents[1] / "docs/configuration.md").read_text("utf-8")
    rows = re.findall(r'^\| `([^`]+)` \| `"([^`]+)"`(?: with `(\w+): (\w+)`)? \|$', text, re.M)
    assert len(rows) >= 6
    for name, template, key, value in rows:
        unit = value if key == "exposure_unit" else "us"
        needed = key != "exposure_from"
        assert NamePattern(template, unit, exposure_needed=needed).parse(name), name
