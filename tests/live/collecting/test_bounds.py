"""Junk of one slot costs no more than it must: rows stay short, and the good files are merged."""

from __future__ import annotations

from asi_watch.live.collecting.open_bracket import MOST_USABLE
from asi_watch.live.ledger.records import MOST_REJECTED
from asi_watch.live.messages import Unusable, WriteRecord
from tests.live.collecting.test_collector import GRACE, Bench, name, slot, whole

JUNK = 3_000
NO_IMAGE = Unusable("ends too soon", True, None)


class Counting(Bench):
    """A bench that counts rows written."""

    written: int = 0

    def carry_out(self, commands: list[object]) -> None:
        self.written += sum(isinstance(c, WriteRecord) for c in commands)
        super().carry_out(commands)


def junk(count: int = JUNK) -> list[str]:
    return [name(0, 1000 + n, n % 30) for n in range(count)]


def test_good_exposures_among_junk_are_merged_and_the_row_stays_short() -> None:
    bench = Counting(bad=dict.fromkeys(junk(), NO_IMAGE))
    bench.arrive(*junk(JUNK // 2))
    bench.arrive(*whole())
    bench.arrive(*junk()[JUNK // 2 :])
    bench.wait(GRACE)
    row = bench.rows[slot(0)]
    assert (row.state, bench.used()) == ("published", [80.0, 160.0, 320.0])
    assert len(row.rejected) == MOST_REJECTED
    assert row.unlisted == JUNK // 2 - MOST_REJECTED
    assert bench.written <= 1 + MOST_REJECTED
    assert len(bench.collector._open) == 0


def test_late_junk_is_read_once_and_writes_no_row_when_the_row_is_full() -> None:
    bench = Counting(bad=dict.fromkeys(junk(), NO_IMAGE))
    bench.arrive(*whole())
    bench.arrive(*junk())
    assert len(bench.rows[slot(0)].rejected) == MOST_REJECTED
    assert bench.written == 1 + MOST_REJECTED
    assert len(bench.reads) == len(whole()) + JUNK
    # A late exposure is merged nevertheless, and reads no more than the row lists.
    bench.arrive(name(0, 640, 3))
    bench.wait(GRACE)
    bench.wait(GRACE)
    assert bench.used() == [80.0, 160.0, 320.0, 640.0]
    assert len(bench.reads) <= len(whole()) + JUNK + 2 * (MOST_REJECTED + 5)


def test_more_files_than_are_kept_of_a_slot_end_as_a_count() -> None:
    bench = Bench({"exposures": 2_000})
    bench.arrive(*(name(0, 1 + n, 1) for n in range(MOST_USABLE + 10)))
    bench.wait(GRACE)
    assert len(bench.used()) == MOST_USABLE
    assert "1000 exposure times in one slot, at most 64" in (bench.rows[slot(0)].reason or "")
    assert bench.merges == []
