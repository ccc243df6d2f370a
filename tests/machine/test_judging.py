"""The judge of the power cuts sees what it is there to see."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from asi_watch.live.ledger.ledger import FILE_NAME, Ledger
from asi_watch.live.ledger.rebuild import products_of
from tests.faults.verdict import OnDisk
from tests.live.products import camera_at, product
from tests.machine.judging import (
    _faults_of_products,
    _faults_of_slot,
    aftermath,
    flaw,
    ledger_copy,
    verdict,
)
from tests.machine.place import Place
from tests.machine.writers import content, state_of


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    place.watch.mkdir()
    place.state.mkdir()
    return place


def record(place: Place) -> Path:
    """One published bracket, whose exposures went with the power; gives its product."""
    camera = camera_at(place.data)
    made = product(camera, 0)
    (found,) = products_of(camera)
    with Ledger(place.state) as ledger:
        ledger.record(found)
    return made


def test_a_sound_place_has_no_faults(place: Place) -> None:
    record(place)
    assert verdict(place)["faults"] == []
    left = aftermath(place)
    assert left["flaws"] == {}
    assert left["ledger"] == "ok"
    assert list(left["published"].values()) == [1]


@pytest.mark.parametrize(("kept", "word"), [(0, "zero bytes"), (300, "torn"), (-1, "torn")])
def test_a_torn_product_is_seen(place: Place, kept: int, word: str) -> None:
    made = record(place)
    made.write_bytes(made.read_bytes()[:kept])
    assert str(flaw(made)).startswith(word)
    assert len(aftermath(place)["flaws"]) == 1
    assert word in verdict(place)["faults"][0]


def test_products_and_rows_without_each_other_are_seen(place: Place) -> None:
    made = record(place)
    made.rename(made.with_name("20260621130000_hdr.jpg"))
    faults = verdict(place)["faults"]
    assert [fault.split(":")[0] for fault in faults] == ["without a row", "not there"]


def test_a_row_that_says_something_else_is_seen(place: Place) -> None:
    record(place)
    with Ledger(place.state) as ledger:
        (row,) = ledger.history()
    assert list(_faults_of_products(row, place)) == []
    other = replace(row, revision=2, inputs=row.inputs[1:])
    assert len(list(_faults_of_products(other, place))) == 2
    assert len(list(_faults_of_products(replace(row, inputs=row.inputs[1:]), place))) == 1
    usable = list(row.inputs)
    files = {e.path: e.signature for e in row.inputs}
    assert list(_faults_of_slot(row, OnDisk(files, usable), Counter())) == []
    skipped = replace(row, state="skipped")
    assert len(list(_faults_of_slot(skipped, OnDisk(files, usable), Counter()))) == 1
    assert len(list(_faults_of_slot(other, OnDisk(files, usable), Counter()))) == 2


def test_a_damaged_ledger_is_seen_and_left_alone(place: Place, tmp_path: Path) -> None:
    record(place)
    ledger = place.state / FILE_NAME
    ledger.write_bytes(ledger.read_bytes()[:9000])
    copies = tmp_path / "copies"
    copies.mkdir()
    assert ledger_copy(place.state, copies)[0] != "ok"
    assert ledger.stat().st_size == 9000


def test_the_controls_files_know_themselves(tmp_path: Path) -> None:
    path = tmp_path / "1"
    assert state_of(path) == "missing"
    path.write_bytes(b"")
    assert state_of(path) == "zero bytes"
    data = content(1)
    path.write_bytes(data[:-4096] + bytes(4096))
    assert state_of(path) == "torn"
    path.write_bytes(data)
    assert state_of(path) == "whole"
