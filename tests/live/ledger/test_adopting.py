"""A product that is there already is not made again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from asi_watch.brackets import Exposure
from asi_watch.buffers import BufferPool
from asi_watch.live.ledger.rebuild import products_of
from asi_watch.live.messages import MergeBracket, ProductKept, Published
from asi_watch.live.workers.publishing import Publisher
from tests.live.products import camera_at, product


@pytest.mark.parametrize("revision", [1, 3])
def test_a_product_of_the_same_inputs_is_adopted(tmp_path: Path, revision: int) -> None:
    camera = camera_at(tmp_path)
    product(camera, 0, revision=revision)
    (row,) = products_of(camera)
    command = MergeBracket(row.slot, row.inputs, (), 3, True, 1, (), 0.0)
    publisher = Publisher(camera, BufferPool(0))
    adopted = publisher.standing(command).verdict()
    assert isinstance(adopted, Published)
    assert adopted.products == row.products
    # Not for a later revision, nor for other files or another state of them.
    assert publisher.standing(replace(command, revision=revision + 1)).verdict() is None
    fewer = publisher.standing(replace(command, exposures=row.inputs[:2])).verdict()
    assert isinstance(fewer, ProductKept)
    first = row.inputs[0]
    newer = Exposure(first.path, first.timestamp, first.exposure_us, first.size, first.mtime_ns + 1)
    rewritten = (newer, *row.inputs[1:])
    assert publisher.standing(replace(command, exposures=rewritten)).verdict() is None
