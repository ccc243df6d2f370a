"""The ledger's smaller tables: decisions on curves, learned offsets of the slots, and marks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

from asi_watch.live.ledger.ledger_file import LedgerFile
from asi_watch.live.ledger.ledger_rows import curve_from_row
from asi_watch.live.ledger.ledger_schema import LedgerDamagedError
from asi_watch.live.records import CurveDecision, naive_time


class CurveRows(LedgerFile):
    """What a ledger keeps of each camera beside its brackets (see `LedgerFile`)."""

    def record_curve(self, decision: CurveDecision) -> None:
        """Note what became of a candidate curve, durably."""
        with self._transaction():
            self._insert_curve(replace(decision, decided_utc=utc_now()))

    def _insert_curve(self, decision: CurveDecision) -> None:
        row = asdict(decision)
        names, marks = ", ".join(row), ", ".join("?" * len(row))
        self._db.execute(f"INSERT INTO curves ({names}) VALUES ({marks})", tuple(row.values()))

    def curves(self, camera: str) -> list[CurveDecision]:
        """All decisions on a camera's curves, oldest first."""
        names = ", ".join(CurveDecision.__slots__)
        rows = self._all(f"SELECT {names} FROM curves WHERE camera = ? ORDER BY id", (camera,))
        with self._making_sense():
            return [curve_from_row(row) for row in rows]

    def adopted_curve(self, camera: str) -> CurveDecision | None:
        """Return the curve a camera adopted last."""
        adopted = [c for c in self.curves(camera) if c.verdict == "adopted"]
        return adopted[-1] if adopted else None

    def record_offset(self, camera: str, since: datetime, offset: timedelta) -> None:
        """Note from which timestamp on which offset of the slots holds, durably."""
        row = (camera, since.isoformat(), offset // timedelta(microseconds=1))
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO offsets VALUES (?, ?, ?)", row)

    def offsets(self, camera: str) -> list[tuple[datetime, timedelta]]:
        """Offsets of a camera's slots, each with the timestamp it holds from."""
        rows = self._all(
            "SELECT since, offset_us FROM offsets WHERE camera = ? ORDER BY since", (camera,)
        )
        with self._making_sense():
            return [(naive_time(s), timedelta(microseconds=us)) for s, us in rows]

    def replace_offsets(self, camera: str, offsets: list[tuple[datetime, timedelta]]) -> None:
        """Forget a camera's offsets for these, durably."""
        rows = [(camera, s.isoformat(), o // timedelta(microseconds=1)) for s, o in offsets]
        with self._transaction():
            self._db.execute("DELETE FROM offsets WHERE camera = ?", (camera,))
            self._db.executemany("INSERT INTO offsets VALUES (?, ?, ?)", rows)

    def record_caught_up(self, camera: str, moment: datetime) -> None:
        """Note up to which time (UTC) all that was found of a camera has a row, durably."""
        with self._transaction():
            row = (camera, moment.isoformat(timespec="seconds"))
            self._db.execute("INSERT OR REPLACE INTO marks VALUES (?, ?)", row)

    def caught_up(self, camera: str) -> datetime | None:
        """Return the time (UTC) up to which all that was found of a camera has a row."""
        rows = self._all("SELECT caught_up_utc FROM marks WHERE camera = ?", (camera,))
        with self._making_sense():
            return datetime.fromisoformat(rows[0][0]).astimezone(UTC) if rows else None

    def restore_curves(self, decisions: Iterable[CurveDecision]) -> None:
        """Write decisions of another ledger as they are, oldest first, save what is there."""
        with self._transaction():
            for decision in decisions:
                if decision not in self.curves(decision.camera):
                    self._insert_curve(decision)

    @contextmanager
    def _making_sense(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise LedgerDamagedError(f"{self.path}: a row makes no sense: {error}") from error


def utc_now() -> str:
    """Give the present time as rows hold it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
