from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asi_watch.products import Provenance, ProvenanceError, Source, Unusable
from asi_watch.products.provenance import MAX_PROVENANCE_BYTES, first_examples, plain_reason
from tests.products.making import provenance

ANY_TEXT = st.text(st.characters(), max_size=30)  # surrogates included


def test_json_gives_the_same_value_back() -> None:
    value = provenance()
    text = value.to_json()
    assert text.isascii()
    assert "\n" not in text
    assert Provenance.from_json(text) == value
    assert Provenance.from_json(text.encode()) == value
    assert Provenance.from_json(text).to_json() == text


@settings(deadline=None, derandomize=True)
@given(
    camera=ANY_TEXT,
    path=ANY_TEXT,
    exposure=st.floats(1e-6, 1e12),
    stamp=st.datetimes(),
    size=st.integers(0, 2**63 - 1),
    curve=st.none() | st.from_regex(r"[0-9A-Za-z_.+-]{1,64}", fullmatch=True),
    expected=st.none() | st.integers(0, 100),
)
def test_whatever_names_and_numbers_there_are_survive(
    camera: str,
    path: str,
    exposure: float,
    stamp: datetime,
    size: int,
    curve: str | None,
    expected: int | None,
) -> None:
    value = provenance(
        camera=camera,
        sources=(Source(path, exposure, stamp, size, -size),),
        curve_id=curve,
        expected=expected,
        created_utc=None,
        unusable=(),
    )
    assert Provenance.from_json(value.to_json()) == value


def test_the_first_key_names_it_and_counts_are_there_for_people() -> None:
    document = json.loads(provenance().to_json())
    assert next(iter(document)) == "asi_watch_provenance"
    assert document["used"] == 3
    assert document["expected"] == 5
    assert document["slot_utc"] == "2024-05-01T11:00:30+00:00"


def test_utc_may_be_given_in_any_zone() -> None:
    here = datetime(2024, 5, 1, 12, 0, 30, tzinfo=timezone(timedelta(hours=1)))
    back = Provenance.from_json(provenance(slot_utc=here).to_json())
    assert back.slot_utc == here
    assert back.slot_utc.tzinfo == UTC


@pytest.mark.parametrize(
    "changes",
    [
        {"slot": datetime(2024, 5, 1, tzinfo=UTC)},
        {"slot_utc": datetime(2024, 5, 1)},
        {"created_utc": datetime(2024, 5, 1)},
    ],
)
def test_clocks_are_not_mixed_up(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="timezone"):
        provenance(**changes)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{",
        "[" * 100_000,
        '{"asi_watch_provenance": 2}',
        '{"asi_watch_provenance": true}',
        '{"asi_watch_provenance": 1}',
        b"\xff\xfe\x00",
        " " * (MAX_PROVENANCE_BYTES + 1),
    ],
)
def test_what_is_no_provenance_is_refused(text: str | bytes) -> None:
    with pytest.raises(ProvenanceError, match="provenance"):
        Provenance.from_json(text)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("camera", 5),
        ("slot", "yesterday"),
        ("slot", "2024-05-01T12:00:30+00:00"),
        ("sources", {}),
        ("sources", [1]),
        ("sources", [{"path": "a"}]),
        ("parameters", {"a": [1]}),
        ("parameters", None),
        ("complete", 1),
        ("revision", True),
        ("revision", 1.5),
        ("curve_id", 7),
        ("curve_id", "../../elsewhere/curve"),
        ("curve_id", "\udcff"),
        ("algorithm", "\ud800"),
        ("algorithm", ""),
        ("revision", 0),
        ("revision", 1 << 70),
        ("expected", -1),
        ("expected", 1 << 70),
        ("slot_utc", "0001-01-01T00:00:00+05:00"),
        ("slot_utc", "9999-12-31T23:59:59-05:00"),
        ("created_utc", "0001-01-01T00:00:00"),
        ("created_utc", "2024-05-01T12:00:30"),
        ("unusable", [{"path": "a", "reason": None}]),
    ],
)
def test_values_of_the_wrong_kind_are_refused(key: str, value: object) -> None:
    document = json.loads(provenance().to_json())
    document[key] = value
    with pytest.raises(ProvenanceError):
        Provenance.from_json(json.dumps(document))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "0", "-1", '"80"', "true"])
def test_exposure_times_are_positive_and_finite(number: str) -> None:
    text = provenance().to_json().replace('"exposure_us": 80.0', f'"exposure_us": {number}')
    with pytest.raises(ProvenanceError):
        Provenance.from_json(text)


def test_the_time_in_a_name_has_no_zone() -> None:
    document = json.loads(provenance().to_json())
    document["sources"][0]["timestamp"] += "+00:00"
    with pytest.raises(ProvenanceError, match="timezone"):
        Provenance.from_json(json.dumps(document))


def test_too_much_is_not_written() -> None:
    many = provenance().sources * 2000
    with pytest.raises(ValueError, match="limit"):
        provenance(sources=many).to_json()
    with pytest.raises(ValueError, match="finite"):
        provenance(parameters={"gamma": float("nan")})


def test_what_was_left_out_is_bounded() -> None:
    junk = [Unusable(f"{n:05}.jpg", "is damaged " + "x" * 9000) for n in range(8000, 0, -1)]
    listed, more = first_examples(junk)
    value = provenance(unusable=listed, unusable_more=more)
    assert len(value.to_json()) < 50_000
    assert len(listed) + more == 8000
    assert listed[0].path == "00001.jpg"
    assert Provenance.from_json(value.to_json()) == value


def test_a_reason_holds_no_address_in_memory() -> None:
    text = "cannot identify image file <_io.BytesIO object at 0x7f3c2c1b2a30>"
    assert plain_reason(text) == "cannot identify image file …"
    assert plain_reason("is damaged at 0x7f3c2c1b2a30") == "is damaged at …"


def test_a_provenance_of_0_1_is_read() -> None:
    text = (
        '{"asi_watch_provenance": 1, "software": "asi-watch 0.1.0", "camera": "roof", "slot":'
        ' "2026-06-21T09:00:00", "slot_utc": "2026-06-21T08:00:00+00:00", "revision": 1,'
        ' "complete": true, "expected": 1, "used": 1, "algorithm": "mertens", "parameters":'
        ' {"gamma": 2.2, "lnE_min": null}, "curve_id": null, "pixels": {"number": "uint8"},'
        ' "created_utc": null, "sources": [{"path": "a_80.jpg", "exposure_us": 80.0, "timestamp":'
        ' "2026-06-21T09:00:01", "size": 7, "mtime_ns": 8}], "unusable": []}'
    )
    value = Provenance.from_json(text)
    assert value.sources == (Source("a_80.jpg", 80.0, datetime(2026, 6, 21, 9, 0, 1), 7, 8),)
    assert (value.notes, value.unusable_more, value.parameters["gamma"]) == ((), 0, 2.2)


def test_keys_of_later_versions_are_passed_over() -> None:
    document = json.loads(provenance().to_json()) | {"later": {"deep": [1]}}
    assert Provenance.from_json(json.dumps(document)) == provenance()
